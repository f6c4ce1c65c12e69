//! Pretended machines: `tests/conformance/talos-fake`, one process each, made of Talos' own stubs.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// Longer than anything that a machine does here; a test that waits so long has failed.
const LIMIT: Duration = Duration::from_secs(120);

/// The fake of a release, `1.13` or `1.14`. Only `scripts/conformance.sh` builds them and says where they are.
pub fn program(release: &str) -> Result<PathBuf, String> {
    let directory = std::env::var_os("BRAMBLE_TALOS_FAKES")
        .ok_or("BRAMBLE_TALOS_FAKES is not set: run scripts/conformance.sh")?;
    Ok(PathBuf::from(directory).join(format!("talos-fake-{release}")))
}

/// A machine that is switched off when it is dropped.
pub struct Fake {
    child: Child,
    lines: Arc<(Mutex<Vec<String>>, Condvar)>,
    pub address: SocketAddr,
    pub fingerprint: String,
}

impl Fake {
    /// Switches a machine on and waits until it listens.
    pub fn start(release: &str, arguments: &[&str]) -> Result<Fake, String> {
        let program = program(release)?;
        let mut child = Command::new(&program)
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("{}: {e}", program.display()))?;
        let out = child.stdout.take().ok_or("no output")?;
        let lines: Arc<(Mutex<Vec<String>>, Condvar)> = Arc::default();
        let shared = lines.clone();
        std::thread::spawn(move || {
            for line in BufReader::new(out).lines().map_while(Result::ok) {
                shared.0.lock().unwrap().push(line);
                shared.1.notify_all();
            }
        });
        let mut fake =
            Fake { child, lines, address: SocketAddr::from(([0, 0, 0, 0], 0)), fingerprint: String::new() };
        let first = fake.wait("listening")?;
        fake.address = field(&first, "addr").parse().map_err(|e| format!("{first}: {e}"))?;
        fake.fingerprint = field(&first, "fingerprint");
        Ok(fake)
    }

    /// Waits for an event and gives its line.
    pub fn wait(&self, event: &str) -> Result<String, String> {
        let wanted = format!("\"event\":\"{event}\"");
        let until = Instant::now() + LIMIT;
        let mut lines = self.lines.0.lock().unwrap();
        loop {
            if let Some(line) = lines.iter().find(|line| line.contains(&wanted)) {
                return Ok(line.clone());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("no {event} in {lines:?}"));
            }
            lines = self.lines.1.wait_timeout(lines, left).unwrap().0;
        }
    }

    /// How often something happened so far.
    pub fn count(&self, event: &str) -> usize {
        let wanted = format!("\"event\":\"{event}\"");
        self.lines.0.lock().unwrap().iter().filter(|line| line.contains(&wanted)).count()
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A text out of a line of JSON.
fn field(line: &str, key: &str) -> String {
    let start = format!("\"{key}\":\"");
    let text = line.split_once(&start).map_or("", |(_, rest)| rest.split('"').next().unwrap_or(""));
    // Go writes these as escapes, for web pages.
    text.replace("\\u002b", "+").replace("\\u003d", "=")
}
