//! Restarting the machine.

use crate::console;
use std::process::Command;
use std::time::Duration;

/// A restart that systemd does not get done in so long is done without it.
const RESTART: Duration = Duration::from_secs(180);

/// Restarts the machine: cleanly, and if that hangs without asking anybody. Never comes back.
pub fn restart() -> ! {
    for arguments in [&["reboot"][..], &["reboot", "--force"], &["reboot", "--force", "--force"]] {
        if let Err(error) = Command::new("systemctl").args(arguments).status() {
            console::note(&format!("cannot run systemctl: {error}"));
        }
        std::thread::sleep(RESTART);
    }
    loop {
        std::thread::sleep(RESTART);
    }
}
