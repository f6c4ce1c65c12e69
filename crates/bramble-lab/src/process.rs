//! Processes that are surely the ones meant: a number alone may have been given to somebody else meanwhile.

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde::{Deserialize, Serialize};
use std::io;
use std::time::{Duration, Instant};

/// A process by number and start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ProcessId {
    pub(crate) pid: i32,
    /// When it started, in the system's own words; only compared.
    pub(crate) started: String,
}

impl ProcessId {
    /// The process that has this number now; `None` when none has.
    pub(crate) fn of(pid: i32) -> Option<ProcessId> {
        Some(ProcessId { pid, started: start_time(pid)? })
    }

    /// Whether exactly this process still lives.
    pub(crate) fn lives(&self) -> bool {
        start_time(self.pid).is_some_and(|started| started == self.started)
    }

    /// Ends the process with SIGKILL and waits until it is gone; nothing happens when it is.
    pub(crate) fn end(&self, patience: Duration) -> io::Result<()> {
        let deadline = Instant::now() + patience;
        while self.lives() {
            if let Some(pid) = Pid::from_raw(self.pid) {
                kill_process(pid, Signal::KILL)?;
            }
            if Instant::now() > deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

/// Field 22 of /proc/PID/stat (proc(5)), clock ticks since boot. The name in field 2 may hold spaces and brackets,
/// so the count begins after the last bracket. A zombie counts as gone.
#[cfg(target_os = "linux")]
fn start_time(pid: i32) -> Option<String> {
    test_kill_process(Pid::from_raw(pid)?).ok()?;
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat[stat.rfind(')')? + 1..].split_ascii_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18).map(str::to_string)
}

/// Without /proc, `ps` knows.
#[cfg(not(target_os = "linux"))]
fn start_time(pid: i32) -> Option<String> {
    test_kill_process(Pid::from_raw(pid)?).ok()?;
    let output =
        std::process::Command::new("ps").args(["-o", "lstart=", "-p", &pid.to_string()]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_string();
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn another_process_of_the_same_number_is_left_alone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = ProcessId::of(child.id() as i32).unwrap();
        let other = ProcessId { started: "1".into(), ..id.clone() };
        other.end(Duration::from_secs(1)).unwrap();
        assert!(id.lives());
        id.end(Duration::from_secs(5)).unwrap();
        assert!(!id.lives());
        child.wait().unwrap();
        assert_eq!(ProcessId::of(id.pid), None);
    }
}
