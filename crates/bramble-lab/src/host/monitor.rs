//! QEMU's machine protocol (qemu, `docs/interop/qmp-spec.rst`): one JSON object a line.

use serde_json::Value;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

/// What QEMU tells about a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Notice {
    /// It is set up, and runs.
    Ready,
    /// It is held still.
    Stopped,
    /// It goes on.
    Resumed,
    /// It was reset.
    Reset,
    /// QEMU is about to end because of a reset: what starts the machine is to be chosen anew.
    EndsForReset,
}

/// What QEMU is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// Press the power button.
    PowerButton,
    /// Go on.
    Continue,
}

/// The connection to one QEMU.
#[derive(Default)]
pub(super) struct Monitor {
    out: Mutex<Option<UnixStream>>,
}

impl Monitor {
    /// Reads notices until QEMU ends.
    pub(super) fn serve(&self, stream: UnixStream, notice: &dyn Fn(Notice)) -> io::Result<()> {
        *self.out.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream.try_clone()?);
        for line in BufReader::new(stream).lines() {
            // QEMU was killed: an end like any other.
            let Ok(line) = line else { break };
            let Ok(message) = serde_json::from_str::<Value>(&line) else { continue };
            if message.get("QMP").is_some() {
                self.send(r#"{"execute":"qmp_capabilities","id":"ready"}"#);
            } else if let Some(said) = read(&message) {
                notice(said);
            }
        }
        *self.out.lock().unwrap_or_else(PoisonError::into_inner) = None;
        Ok(())
    }

    /// Tells QEMU to do something; its success shows in what the machine does.
    pub(super) fn order(&self, order: Order) {
        self.send(match order {
            Order::PowerButton => r#"{"execute":"system_powerdown"}"#,
            Order::Continue => r#"{"execute":"cont"}"#,
        });
    }

    fn send(&self, line: &str) {
        if let Some(out) = &mut *self.out.lock().unwrap_or_else(PoisonError::into_inner) {
            // A QEMU that is gone needs no orders.
            let _ = out.write_all(format!("{line}\n").as_bytes());
        }
    }
}

fn read(message: &Value) -> Option<Notice> {
    if message.get("return").is_some() && message.get("id").is_some_and(|id| id == "ready") {
        return Some(Notice::Ready);
    }
    match message.get("event")?.as_str()? {
        "STOP" => Some(Notice::Stopped),
        "RESUME" => Some(Notice::Resumed),
        "RESET" => Some(Notice::Reset),
        // qemu, qapi/run-state.json, ShutdownCause: `guest-reset`, and the watchdog's among `...-reset`.
        "SHUTDOWN" => {
            let reason = message.get("data")?.get("reason")?.as_str()?;
            reason.ends_with("-reset").then_some(Notice::EndsForReset)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn notices_are_read_and_orders_sent() {
        let (near, mut qemu) = UnixStream::pair().unwrap();
        qemu.write_all(b"{\"QMP\": {}}\n{\"return\": {}, \"id\": \"ready\"}\n{\"return\": {}}\nnonsense\n")
            .unwrap();
        qemu.write_all(b"{\"event\": \"RESET\", \"data\": {\"guest\": true}}\n{\"event\": \"STOP\"}\n")
            .unwrap();
        for reason in ["guest-shutdown", "guest-reset"] {
            let data = format!("{{\"guest\": true, \"reason\": \"{reason}\"}}");
            writeln!(qemu, "{{\"event\": \"SHUTDOWN\", \"data\": {data}}}").unwrap();
        }
        qemu.shutdown(std::net::Shutdown::Write).unwrap();
        let seen = Mutex::new(Vec::new());
        let monitor = Monitor::default();
        monitor.serve(near, &|notice| seen.lock().unwrap().push(notice)).unwrap();
        assert_eq!(
            *seen.lock().unwrap(),
            [Notice::Ready, Notice::Reset, Notice::Stopped, Notice::EndsForReset]
        );
        let mut text = String::new();
        qemu.read_to_string(&mut text).unwrap();
        assert_eq!(text, "{\"execute\":\"qmp_capabilities\",\"id\":\"ready\"}\n");
    }
}
