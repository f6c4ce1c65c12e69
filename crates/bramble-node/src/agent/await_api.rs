//! `bramble-node await-api PROGRAM [ARGUMENT...]`: becomes a program once the API is ready.
//!
//! A program that starts before the API can answer fails and is started again, and each start costs a small machine
//! more than all its waiting: on a slow one the restarts keep the API server itself from ever becoming ready.

use super::STATUS;
use crate::say;
use bramble_api::stage::Stage;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

/// Between two looks; each is the read of one small file.
const PAUSE: Duration = Duration::from_secs(1);
/// An agent that says nothing for so long may be broken: nothing is held back for ever because of it.
const LIMIT: Duration = Duration::from_secs(30 * 60);
/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

/// Waits, and is the program from then on.
pub fn run(command: &[String]) -> ExitCode {
    let Some((program, arguments)) = command.split_first() else {
        say(&mut std::io::stderr(), "usage: bramble-node await-api PROGRAM [ARGUMENT...]");
        return ExitCode::from(USAGE);
    };
    let begun = Instant::now();
    while !std::fs::read(STATUS).is_ok_and(|status| api_is_ready(&status)) {
        if begun.elapsed() > LIMIT {
            say(&mut std::io::stderr(), "the agent has not seen the API yet; going on without it");
            break;
        }
        std::thread::sleep(PAUSE);
    }
    // Comes back only when it fails.
    let error = Command::new(program).args(arguments).exec();
    say(&mut std::io::stderr(), &format!("cannot run {program}: {error}"));
    ExitCode::FAILURE
}

/// Whether the agent's status says that this machine's way to the API is open.
fn api_is_ready(status: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Status {
        stage: Stage,
    }
    serde_json::from_slice::<Status>(status)
        .is_ok_and(|status| status.stage >= Stage::Api && status.stage != Stage::Failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::watch::Watch;

    #[test]
    fn what_the_agent_writes_is_understood() {
        let mut watch = Watch::new("n1", std::net::Ipv4Addr::LOCALHOST);
        let ready = |watch: &Watch| api_is_ready(&serde_json::to_vec(watch).unwrap());
        assert!(!ready(&watch));
        for (stage, expected) in [(Stage::Runtime, false), (Stage::Api, true), (Stage::Ready, true)] {
            watch.stage = stage;
            assert_eq!(ready(&watch), expected, "{}", stage.name());
        }
        watch.stage = Stage::Failed;
        assert!(!ready(&watch));
        assert!(!api_is_ready(b"") && !api_is_ready(b"{}"));
    }
}
