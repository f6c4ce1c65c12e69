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

/// One line on the console and one in the log: the kernel's while we are pid 1, the journal (standard error) later.
///
/// The console is opened anew each time: systemd revokes and reopens terminals, and a console that cannot be
/// written must never stop a boot. In the kernel's log the level is debug (7), so that a kernel whose messages go
/// to the same console does not say everything twice; the journal takes it from there.
fn line(text: &str) {
    let text = format!("{text}\n");
    let open = |path| {
        OpenOptions::new().write(true).custom_flags(rustix::fs::OFlags::NOCTTY.bits() as i32).open(path)
    };
    let console = open("/dev/console").and_then(|mut console| console.write_all(text.as_bytes()));
    if !rustix::process::getpid().is_init() {
        let _ = std::io::stderr().write_all(text.as_bytes());
        return;
    }
    if console.is_err() {
        // While /dev is on its way to the new root, our own outputs are still the console.
        let _ = std::io::stdout().write_all(text.as_bytes());
    }
    if let Ok(mut log) = open("/dev/kmsg") {
        let _ = log.write_all(format!("<7>{text}").as_bytes());
    }
}
