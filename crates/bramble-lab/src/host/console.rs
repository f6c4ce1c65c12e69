//! A machine's serial console: kept in a log, read for stages, shown to whoever is attached, and watched for
//! markers.

use bramble_api::stage::Stage;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::hub::Hub;
use crate::wire::LabEvent;

/// A log larger than this becomes `console.log.1` when the machine is switched on; the one before is dropped.
const LOG_BYTES: u64 = 16 << 20;
/// A longer line is taken as several. Firmware paints whole screens without a line end.
const LINE_BYTES: usize = 4096;
/// What someone who attaches is shown first.
const REPLAY_BYTES: u64 = 4096;

type Fire = Box<dyn FnOnce(&str) + Send>;

/// One machine's console. It outlives the machine's power-ons.
pub(super) struct Console {
    machine: String,
    path: PathBuf,
    hub: Arc<Hub>,
    state: Mutex<State>,
}

struct State {
    log: Option<File>,
    /// Bytes in the log.
    end: u64,
    /// Where in the log the present boot begins.
    boot: u64,
    line: Vec<u8>,
    last_line: String,
    /// The stage, the guest's own time of its line in seconds, and the line's words.
    stage: Option<(Stage, f64, String)>,
    since: Instant,
    watchers: Vec<Watcher>,
    next_watcher: u64,
    attached: Vec<UnixStream>,
    input: Option<UnixStream>,
}

struct Watcher {
    id: u64,
    marker: String,
    fire: Fire,
}

/// What a status shows of a console.
pub(super) struct Seen {
    pub(super) stage: Option<Stage>,
    pub(super) stage_text: String,
    pub(super) stage_uptime: f64,
    pub(super) age: f64,
    pub(super) last_line: String,
}

impl Console {
    pub(super) fn new(machine: &str, path: &Path, hub: Arc<Hub>) -> Console {
        let state = State {
            log: None,
            end: 0,
            boot: 0,
            line: Vec::new(),
            last_line: String::new(),
            stage: None,
            since: Instant::now(),
            watchers: Vec::new(),
            next_watcher: 0,
            attached: Vec::new(),
            input: None,
        };
        Console { machine: machine.into(), path: path.into(), hub, state: Mutex::new(state) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gets ready for a power-on: opens the log and forgets the last boot.
    pub(super) fn open(&self) -> io::Result<()> {
        let mut state = self.lock();
        if std::fs::metadata(&self.path).is_ok_and(|m| m.len() > LOG_BYTES) {
            std::fs::rename(&self.path, self.path.with_extension("log.1"))?;
        }
        let log = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(&self.path)?;
        state.end = log.metadata()?.len();
        state.log = Some(log);
        state.begin_boot();
        Ok(())
    }

    /// The machine was reset: what it printed before belongs to another boot.
    pub(super) fn reset(&self) {
        self.lock().begin_boot();
    }

    /// Reads what the machine prints until it goes off.
    pub(super) fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        self.lock().input = Some(stream.try_clone()?);
        let mut buffer = vec![0; 64 << 10];
        loop {
            match stream.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => self.feed(&buffer[..n]),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // QEMU was killed: an end like any other.
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Puts lines of the lab's own into the log, as the firmware of a board prints on its serial port.
    pub(super) fn say(&self, text: &str) {
        let lines = text.lines().map(|line| format!("firmware: {line}\r\n"));
        self.feed(lines.collect::<String>().as_bytes());
    }

    /// The last line of the present boot that contains the marker.
    pub(super) fn last(&self, marker: &str) -> Option<String> {
        let state = self.lock();
        let bytes = state.read_log(state.boot).ok()?;
        bytes.rsplit(|b| *b == b'\n').map(clean).find(|line| line.contains(marker))
    }

    /// The machine is off: everyone who waits for it hears so.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.finish_line(self);
        state.watchers.clear();
        state.attached.clear();
        state.input = None;
    }

    fn feed(&self, bytes: &[u8]) {
        let mut state = self.lock();
        if let Some(log) = &mut state.log {
            // A full disk must not stop the machine for its log's sake; the disk server tells about it.
            if log.write_all(bytes).is_ok() {
                state.end += bytes.len() as u64;
            }
        }
        state.attached.retain(|client| offer(client, bytes));
        for part in bytes.split_inclusive(|b| *b == b'\n') {
            state.line.extend(part);
            // Markers first, and on unfinished lines too: a planned cut must not wait for the line's end.
            state.fire();
            if part.ends_with(b"\n") || state.line.len() >= LINE_BYTES {
                state.finish_line(self);
            }
        }
    }

    /// Calls `fire` with the line as soon as one of the present boot contains `marker`; at once when one does.
    /// The number takes it back.
    pub(super) fn watch(&self, marker: &str, fire: Fire) -> u64 {
        let mut state = self.lock();
        if let Some(line) = state.find(marker) {
            fire(&line);
            return u64::MAX;
        }
        let id = state.next_watcher;
        state.next_watcher += 1;
        state.watchers.push(Watcher { id, marker: marker.into(), fire });
        id
    }

    /// Takes a watch back.
    pub(super) fn unwatch(&self, id: u64) {
        self.lock().watchers.retain(|w| w.id != id);
    }

    /// Shows the console to a client from now on, the last lines first, and gives the machine's input.
    pub(super) fn attach(&self, client: UnixStream) -> io::Result<Option<UnixStream>> {
        let mut state = self.lock();
        let Some(input) = &state.input else { return Ok(None) };
        let input = input.try_clone()?;
        let from = state.boot.max(state.end.saturating_sub(REPLAY_BYTES));
        let recent = state.read_log(from)?;
        if offer(&client, &recent) {
            state.attached.push(client);
        }
        Ok(Some(input))
    }

    /// What a status shows.
    pub(super) fn seen(&self) -> Seen {
        let state = self.lock();
        let (stage, stage_uptime, stage_text) =
            state.stage.clone().map_or((None, 0.0, String::new()), |(s, u, t)| (Some(s), u, t));
        let partial = clean(&state.line);
        let last_line = if partial.is_empty() { state.last_line.clone() } else { partial };
        Seen { stage, stage_text, stage_uptime, age: state.since.elapsed().as_secs_f64(), last_line }
    }
}

impl State {
    fn begin_boot(&mut self) {
        self.boot = self.end;
        self.line.clear();
        self.last_line.clear();
        self.stage = None;
        self.since = Instant::now();
    }

    fn read_log(&self, from: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; (self.end - from) as usize];
        if let Some(log) = &self.log {
            log.read_exact_at(&mut bytes, from)?;
        }
        Ok(bytes)
    }

    /// The first line of the present boot that contains the marker.
    fn find(&self, marker: &str) -> Option<String> {
        let bytes = self.read_log(self.boot).ok()?;
        bytes.split(|b| *b == b'\n').map(clean).find(|line| line.contains(marker))
    }

    fn fire(&mut self) {
        if self.watchers.is_empty() {
            return;
        }
        let line = clean(&self.line);
        for watcher in self.watchers.extract_if(.., |w| line.contains(&w.marker)) {
            (watcher.fire)(&line);
        }
    }

    fn finish_line(&mut self, console: &Console) {
        let text = clean(&std::mem::take(&mut self.line));
        if text.is_empty() {
            return;
        }
        let machine = console.machine.clone();
        if let Some((stage, uptime, words)) = Stage::parse(&text) {
            self.stage = Some((stage, uptime, words.to_string()));
            self.since = Instant::now();
            let text = words.to_string();
            console.hub.tell(&LabEvent::Stage { machine: machine.clone(), stage, uptime, text });
        }
        console.hub.tell(&LabEvent::Line { machine, text: text.clone() });
        self.last_line = text;
    }
}

/// Sends without waiting; a client that does not read is let go.
fn offer(client: &UnixStream, mut bytes: &[u8]) -> bool {
    use rustix::net::{SendFlags, send};
    while !bytes.is_empty() {
        match send(client, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(n) => bytes = &bytes[n..],
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
    true
}

/// A line without control sequences (ECMA-48: ESC, `[`, parameters, a final byte) and other control characters.
fn clean(line: &[u8]) -> String {
    let mut text = Vec::with_capacity(line.len());
    let mut bytes = line.iter().copied().peekable();
    while let Some(byte) = bytes.next() {
        match byte {
            0x1b if bytes.peek() == Some(&b'[') => {
                bytes.next();
                for b in bytes.by_ref() {
                    if (0x40..=0x7e).contains(&b) {
                        break;
                    }
                }
            }
            // Other sequences have one byte more.
            0x1b => {
                bytes.next();
            }
            b'\t' => text.push(b' '),
            0..0x20 | 0x7f => {}
            _ => text.push(byte),
        }
    }
    String::from_utf8_lossy(&text).trim_end().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    fn console(dir: &Path) -> Console {
        let console = Console::new("n1", &dir.join("console.log"), Arc::default());
        console.open().unwrap();
        console
    }

    #[test]
    fn lines_lose_their_control_sequences() {
        assert_eq!(clean(b"\x1b[2J\x1b[01;01H\x1b[=3hBdsDxe: \tloading\x1b[0m\r"), "BdsDxe:  loading");
        assert_eq!(clean(b"\x1b[12;"), "");
        assert_eq!(clean(b"\x1bcplain"), "plain");
    }

    #[test]
    fn stages_are_followed_in_pieces() {
        let dir = tempfile::tempdir().unwrap();
        let console = console(dir.path());
        let events = console.hub.follow();
        console.feed(b"[    3.1] bramble-sta");
        console.feed(b"ge: root 3.10 /dev/dm-0\r\nn1 login: ");
        let seen = console.seen();
        assert_eq!((seen.stage, seen.stage_text.as_str()), (Some(Stage::Root), "/dev/dm-0"));
        assert_eq!(seen.last_line, "n1 login:");
        let (machine, text) = ("n1".to_string(), "/dev/dm-0".to_string());
        let expected = LabEvent::Stage { machine, stage: Stage::Root, uptime: 3.1, text };
        assert_eq!(events.try_recv(), Ok(expected));
        console.reset();
        assert_eq!(console.seen().stage, None);
    }

    #[test]
    fn a_watch_fires_inside_a_line_and_for_lines_of_this_boot_only() {
        let dir = tempfile::tempdir().unwrap();
        let console = console(dir.path());
        let (told, heard) = channel();
        let watch = |marker: &str| {
            let told = told.clone();
            console.watch(marker, Box::new(move |line| told.send(line.to_string()).unwrap()))
        };
        console.feed(b"old boot: mark\n");
        watch("mark");
        assert_eq!(heard.try_recv().unwrap(), "old boot: mark");
        console.reset();
        watch("mark");
        let other = watch("never");
        assert!(heard.try_recv().is_err());
        console.feed(b"new ma");
        assert!(heard.try_recv().is_err());
        console.feed(b"rk");
        assert_eq!(heard.try_recv().unwrap(), "new mark");
        console.unwatch(other);
        console.feed(b" never\n");
        assert!(heard.try_recv().is_err(), "each fires once, and not when taken back");
    }

    #[test]
    fn who_attaches_sees_the_last_lines_and_what_follows() {
        let dir = tempfile::tempdir().unwrap();
        let console = console(dir.path());
        let (near, mut far) = UnixStream::pair().unwrap();
        assert!(console.attach(near.try_clone().unwrap()).unwrap().is_none(), "nobody to attach to");
        let (machine, mut qemu) = UnixStream::pair().unwrap();
        console.lock().input = Some(machine);
        console.feed(b"before\n");
        let mut input = console.attach(near).unwrap().unwrap();
        console.feed(b"after\n");
        let mut text = [0; 13];
        far.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"before\nafter\n");
        input.write_all(b"x").unwrap();
        qemu.read_exact(&mut text[..1]).unwrap();
        assert_eq!(text[0], b'x');
    }

    #[test]
    fn a_large_log_makes_room_and_the_last_is_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console.log");
        let file = File::create(&path).unwrap();
        file.set_len(LOG_BYTES + 1).unwrap();
        let console = console(dir.path());
        console.feed(b"new\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"new\n");
        assert_eq!(std::fs::metadata(dir.path().join("console.log.1")).unwrap().len(), LOG_BYTES + 1);
    }
}
