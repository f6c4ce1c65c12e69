//! The machine's console: stage lines that a person with a cable and the lab both read, and markers for tests.

use bramble_api::stage::Stage;
use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether [`mark`] says anything; set once from the kernel's command line.
static MARKS: AtomicBool = AtomicBool::new(false);

/// Starts every marker line.
const MARK: &str = "bramble-mark: ";

/// Seconds since the kernel started.
pub fn uptime() -> f64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Says how far the machine has come.
pub fn stage(stage: Stage, text: &str) {
    line(&stage.line(uptime(), text));
}

/// Says something that is no stage.
pub fn note(text: &str) {
    line(&format!("bramble: {text}"));
}

/// Lets [`mark`] speak.
pub fn enable_marks() {
    MARKS.store(true, Ordering::Relaxed);
}

/// Says that a durable act of the first boot is behind us, for tests that cut the power there.
pub fn mark(name: &str) {
    if MARKS.load(Ordering::Relaxed) {
        line(&format!("{MARK}{name}"));
    }
}

/// One line on the console and one in the kernel's log, from which the journal takes it.
///
/// The console is opened anew each time: systemd revokes and reopens terminals, and a console that cannot be
/// written must never stop a boot. In the kernel's log the level is debug (7), so that a kernel whose messages go
/// to the same console does not say everything twice.
fn line(text: &str) {
    let open = |path| {
        OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::NOCTTY.bits() as i32).open(path)
    };
    let on_console = format!("{text}\n");
    match open("/dev/console") {
        Ok(mut console) => drop(console.write_all(on_console.as_bytes())),
        // pid 1 while /dev is on its way to the new root: its own outputs are still the console.
        Err(_) => drop(std::io::stdout().write_all(on_console.as_bytes())),
    }
    if let Ok(mut log) = open("/dev/kmsg") {
        let _ = log.write_all(format!("<7>{text}\n").as_bytes());
    }
}
