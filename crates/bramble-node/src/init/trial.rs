//! Whether this start is a trial: the slot that runs is not the one that the switch names.
//!
//! A trial that cannot go on must not stay, or it would take the machine from its owner: it restarts, and the firmware's
//! one-shot request is used up.

use crate::console;
use crate::refused::{At, Refused};
use bramble_api::names::{Slot, path};
use bramble_api::stage::Stage;
use bramble_upgrade::gate::LIMIT;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

/// Nothing is known yet: a release whose initramfs does not find its disk has not come far enough to know.
const UNKNOWN: u8 = 0;
/// The committed slot, or the rescue.
const NO: u8 = 1;
const YES: u8 = 2;

static TRIAL: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Long enough to be read on a screen.
const TRIAL_WAIT: Duration = Duration::from_secs(10);
/// A machine that finds no disk may be one whose disk is unplugged: it says so for a while, and tries again.
const UNKNOWN_WAIT: Duration = Duration::from_secs(120);

/// The slot that runs, and the one that the switch names. With garbage in the switch nobody knows, and a restart would
/// start the same slot again: it is taken for no trial.
pub fn found(running: Slot, committed: Option<Slot>) {
    let trial = committed.is_some_and(|committed| committed != running);
    TRIAL.store(if trial { YES } else { NO }, Ordering::Relaxed);
}

/// The rescue: whoever looks at it wants it to stay.
pub fn none() {
    TRIAL.store(NO, Ordering::Relaxed);
}

/// Whether this is a trial.
pub fn is_one() -> bool {
    TRIAL.load(Ordering::Relaxed) == YES
}

/// After what time a machine that cannot go on restarts; `None` stays.
pub fn goes_back() -> Option<Duration> {
    match TRIAL.load(Ordering::Relaxed) {
        YES => Some(TRIAL_WAIT),
        UNKNOWN => Some(UNKNOWN_WAIT),
        _ => None,
    }
}

/// How often the guard looks.
const GUARD_BEAT: Duration = Duration::from_secs(10);

/// Starts what ends a trial that nobody has kept: a process beside systemd, that needs no unit of the new release to be
/// started and no agent to be alive. systemd leaves alone what it finds running when it starts.
pub fn guard() -> Result<(), Refused> {
    Command::new(path::AGENT).arg("trial-guard").spawn().at("start", path::AGENT)?;
    Ok(())
}

/// `bramble-node trial-guard`: ends when the release is kept; else ends the trial.
pub fn stand_guard() -> ExitCode {
    while !Path::new(path::KEPT).exists() {
        let uptime = console::uptime() as u64;
        if uptime >= LIMIT {
            console::stage(Stage::Failed, &format!("nobody has kept this release in {uptime} s; restarting"));
            restart();
        }
        std::thread::sleep(GUARD_BEAT);
    }
    ExitCode::SUCCESS
}

/// Restarts at once. Nothing is mounted that could lose anything but what is on its way to data.
pub fn restart() {
    rustix::fs::sync();
    let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trial_and_the_unknown_go_back() {
        assert_eq!(goes_back(), Some(UNKNOWN_WAIT));
        found(Slot::B, Some(Slot::A));
        assert_eq!((is_one(), goes_back()), (true, Some(TRIAL_WAIT)));
        found(Slot::B, Some(Slot::B));
        assert_eq!((is_one(), goes_back()), (false, None));
        found(Slot::B, None);
        assert_eq!(goes_back(), None);
        found(Slot::B, Some(Slot::A));
        none();
        assert_eq!(goes_back(), None);
    }
}
