//! The agent of every Bramble OS machine, and pid 1 of its initramfs.
//!
//! One binary, by how it is called: pid 1 takes the machine from the kernel to systemd ([`init`]); `agent` watches
//! it from then on; `status` prints what the agent knows; `await-api` starts a program once the API is
//! ready; `trial-guard` ends a release's trial that nobody keeps; `shutdown`, also as systemd's shutdown hook, saves the
//! clock.

mod agent;
mod clock;
mod console;
mod durable;
mod etc;
#[cfg(test)]
mod fixture;
mod init;
mod power;
mod refused;
mod tree;
mod update;

use std::io::Write;
use std::process::ExitCode;

/// `EX_USAGE` of sysexits.h.
const USAGE: u8 = 64;

fn main() -> ExitCode {
    if rustix::process::getpid().is_init() {
        init::run();
    }
    let arguments: Vec<String> = std::env::args().collect();
    let hook = arguments.first().is_some_and(|program| program.contains("/system-shutdown/"));
    match arguments.get(1).map(String::as_str) {
        _ if hook => agent::shutdown(),
        Some("shutdown") => agent::shutdown(),
        Some("agent") => agent::run(),
        Some("status") => agent::status(),
        Some("trial-guard") => init::stand_guard(),
        Some("await-api") => agent::await_api(&arguments[2..]),
        Some("--version") => {
            say(&mut std::io::stdout(), concat!("bramble-node ", env!("CARGO_PKG_VERSION")));
            ExitCode::SUCCESS
        }
        _ => {
            say(&mut std::io::stderr(), "usage: bramble-node agent|status|await-api|shutdown|--version");
            ExitCode::from(USAGE)
        }
    }
}

/// One line; a closed pipe is nobody's error.
fn say(to: &mut impl Write, text: &str) {
    let _ = writeln!(to, "{text}");
}
