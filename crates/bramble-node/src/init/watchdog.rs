//! Keeps a hardware watchdog quiet while a program of ours is busy.

use std::fs::File;
use std::io::Write;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A Raspberry Pi's watchdog waits about 16 seconds at most.
const PERIOD: Duration = Duration::from_secs(5);
/// A `mkfs` or `e2fsck` that takes longer than this hangs: then the watchdog may do its work.
const LIMIT: Duration = Duration::from_secs(30 * 60);

/// Pets /dev/watchdog from a thread until dropped.
pub struct Petting {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Starts petting, where there is a watchdog.
pub fn pet() -> Petting {
    // Opening arms it; a machine without one has nothing to keep quiet.
    let Ok(watchdog) = File::options().write(true).open("/dev/watchdog") else {
        return Petting { stop: None, thread: None };
    };
    let (stop, stopped) = channel();
    let thread = std::thread::spawn(move || {
        let mut watchdog = watchdog;
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            let _ = watchdog.write_all(b"\0");
            if stopped.recv_timeout(PERIOD) != Err(RecvTimeoutError::Timeout) {
                // The letter says that closing is meant, and disarms it until systemd takes over.
                let _ = watchdog.write_all(b"V");
                return;
            }
        }
        // Never closed by us, so it stays armed.
        std::mem::forget(watchdog);
    });
    Petting { stop: Some(stop), thread: Some(thread) }
}

impl Drop for Petting {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
