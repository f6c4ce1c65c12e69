//! The caller's side of a lab: starts the lab host when there is none and talks to it.

use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::ops::{ControlFlow, Range};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::error::Error;
#[cfg(doc)]
use crate::error::Refusal;
use crate::layout::{HostRecord, Layout};
use crate::spec::{BaseSegment, LabSpec};
use crate::wire::{CutPoint, CutReport, LabEvent, MachineState, MachineStatus, Reply, Request, StartReport};

/// How long a fresh lab host may take to answer. It only makes a directory and a socket: a loaded computer needs
/// a second or two, and more means that it hangs.
const HOST_START: Duration = Duration::from_secs(20);

/// A lab in a directory. Opening touches nothing; every method is one request to the lab host.
#[derive(Clone, Debug)]
pub struct Lab {
    layout: Layout,
    host: (PathBuf, Vec<String>),
}

impl Lab {
    /// The lab of a directory. Its host is this very program, called as `lab-host DIR`.
    ///
    /// # Errors
    /// [`Error::File`] when the directory's place or this program's path cannot be made out.
    pub fn open(dir: &Path) -> Result<Lab, Error> {
        let file = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::File { doing, path, source }
        };
        let dir = std::path::absolute(dir).map_err(file("find", dir))?;
        let program = std::env::current_exe().map_err(file("find this program for", &dir))?;
        Ok(Lab { layout: Layout::new(dir), host: (program, vec!["lab-host".into()]) })
    }

    /// Starts the lab host with another program and leading arguments; the directory follows them.
    #[must_use]
    pub fn with_host(self, program: PathBuf, args: Vec<String>) -> Lab {
        Lab { host: (program, args), ..self }
    }

    /// The lab's directory.
    pub fn dir(&self) -> &Path {
        self.layout.dir()
    }

    /// The lab as it was last started, with the chosen ports; `None` when it never was.
    ///
    /// # Errors
    /// [`Error::File`] when the record cannot be read.
    pub fn spec(&self) -> Result<Option<LabSpec>, Error> {
        let path = self.layout.spec();
        let file = |source| Error::File { doing: "read", path: path.clone(), source };
        match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|e| file(e.into())),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(file(e)),
        }
    }

    /// Whether a lab host answers.
    pub fn is_running(&self) -> bool {
        self.connect().is_ok()
    }

    /// Brings the lab to what `spec` says: makes missing disks, switches on what is off, leaves the rest alone. A
    /// second call with the same description changes nothing.
    ///
    /// # Errors
    /// [`Error::Refused`] with QEMU missing or too old, a port in use, no room, a contradiction; then every
    /// machine that ran before still runs.
    pub fn start(&self, spec: &LabSpec) -> Result<StartReport, Error> {
        spec.check()?;
        if self.connect().is_err() {
            self.start_host()?;
        }
        match self.ask(&Request::Start { spec: Box::new(spec.clone()) })? {
            Reply::Started(report) => Ok(report),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Switches a machine on; nothing happens when it runs.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn power_on(&self, machine: &str) -> Result<(), Error> {
        self.done(&Request::PowerOn { machine: machine.into() })
    }

    /// Presses the power button and waits for the machine to go off.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`] when it still runs after `grace`.
    pub fn power_off(&self, machine: &str, grace: Duration) -> Result<(), Error> {
        self.done(&Request::PowerOff { machine: machine.into(), grace_ms: millis(grace) })
    }

    /// Stops the machine at once. Its disk keeps power: what it wrote stays written, flushed or not.
    ///
    /// # Errors
    /// [`Error::Refused`] when there is no such machine.
    pub fn kill(&self, machine: &str) -> Result<(), Error> {
        self.done(&Request::Kill { machine: machine.into() })
    }

    /// Cuts the power of machine and disk: of the writes that were not flushed, `seed` chooses which are kept,
    /// torn or lost.
    ///
    /// # Errors
    /// [`Refusal::NotRunning`] when it has no power.
    pub fn cut(&self, machine: &str, seed: u64) -> Result<CutReport, Error> {
        self.cut_reply(&Request::Cut { machine: machine.into(), seed })
    }

    /// Waits for `point` and cuts the power then ([`Lab::cut`]). The disk stops at that instant; no write that
    /// the guest sends later is in it. Lines that this power-on has already printed count.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`] and [`Refusal::WentOff`] when the point was not reached.
    pub fn cut_at(
        &self,
        machine: &str,
        point: CutPoint,
        seed: u64,
        timeout: Duration,
    ) -> Result<CutReport, Error> {
        let timeout_ms = millis(timeout);
        self.cut_reply(&Request::CutAt { machine: machine.into(), point, seed, timeout_ms })
    }

    /// Waits until a console line of this power-on contains `marker`, also one that came before the call; returns
    /// the line as far as it was printed then.
    ///
    /// # Errors
    /// [`Refusal::TimedOut`] and [`Refusal::WentOff`].
    pub fn wait_console(&self, machine: &str, marker: &str, timeout: Duration) -> Result<String, Error> {
        let timeout_ms = millis(timeout);
        match self.ask(&Request::Wait { machine: machine.into(), marker: marker.into(), timeout_ms })? {
            Reply::Line(line) => Ok(line),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Every machine as it is now. Without a lab host, all machines of the last start are off.
    ///
    /// # Errors
    /// [`Error::NotRunning`] when this directory never held a lab.
    pub fn status(&self) -> Result<Vec<MachineStatus>, Error> {
        match self.ask(&Request::Status) {
            Ok(Reply::Status(all)) => Ok(all),
            Ok(other) => Err(self.unexpected(&other)),
            Err(Error::NotRunning { dir }) => {
                let spec = self.spec()?.ok_or(Error::NotRunning { dir })?;
                Ok(spec.machines.iter().map(|m| off_status(&spec, &m.name, m.address)).collect())
            }
            Err(error) => Err(error),
        }
    }

    /// Calls `each` for everything that happens, until it breaks or the lab goes down. It begins with the present
    /// state and stage of every machine, so that nothing is missed between a status and this call.
    ///
    /// # Errors
    /// [`Error::NotRunning`].
    pub fn follow(&self, mut each: impl FnMut(LabEvent) -> ControlFlow<()>) -> Result<(), Error> {
        let mut lines = BufReader::new(self.send(&Request::Follow)?);
        loop {
            match self.reply(&mut lines) {
                Ok(Reply::Event(event)) => {
                    if each(event).is_break() {
                        return Ok(());
                    }
                }
                Ok(other) => return Err(self.unexpected(&other)),
                // The host is gone: that is how a lab ends.
                Err(Error::Talk { source, .. }) if source.kind() == io::ErrorKind::UnexpectedEof => {
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// A machine's serial console as a byte stream: what it prints comes out, what is written goes in. The end of
    /// what it printed lately comes first.
    ///
    /// # Errors
    /// [`Refusal::NotRunning`].
    pub fn console_stream(&self, machine: &str) -> Result<UnixStream, Error> {
        let mut stream = self.send(&Request::Console { machine: machine.into() })?;
        let talk = |source| Error::Talk { dir: self.dir().to_path_buf(), source };
        // Byte by byte: what follows the answer's line belongs to the caller.
        let mut line = Vec::new();
        let mut byte = [0];
        while !line.ends_with(b"\n") {
            io::Read::read_exact(&mut stream, &mut byte).map_err(talk)?;
            line.push(byte[0]);
        }
        match serde_json::from_slice(&line).map_err(|e| talk(e.into()))? {
            Reply::Done => Ok(stream),
            Reply::Refused(refusal) => Err(refusal.into()),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Connects this terminal to a machine's console until Ctrl-] is typed or the machine goes off.
    ///
    /// # Errors
    /// [`Refusal::NotRunning`]; [`Error::File`] when the terminal fails.
    pub fn console(&self, machine: &str) -> Result<(), Error> {
        let stream = self.console_stream(machine)?;
        crate::terminal::attach(stream).map_err(|source| Error::File {
            doing: "use",
            path: "the terminal".into(),
            source,
        })
    }

    /// Where a machine's console is kept, of all its power-ons.
    pub fn log_path(&self, machine: &str) -> PathBuf {
        self.layout.console_log(machine)
    }

    /// Saves disk and variables of a machine that is off, under a label; an older one of that label is replaced.
    ///
    /// # Errors
    /// [`Refusal::Running`]; [`Refusal::DiskFull`].
    pub fn snapshot(&self, machine: &str, label: &str) -> Result<(), Error> {
        self.done(&Request::Snapshot { machine: machine.into(), label: label.into() })
    }

    /// Puts disk and variables of a machine that is off back to a snapshot.
    ///
    /// # Errors
    /// [`Refusal::Running`]; [`Refusal::System`] when there is no such snapshot.
    pub fn restore(&self, machine: &str, label: &str) -> Result<(), Error> {
        self.done(&Request::Restore { machine: machine.into(), label: label.into() })
    }

    /// Writes these pieces and zeros over the disk of a machine that is off, as a card is flashed that was used before:
    /// everything else on it stays. Running it again repairs one that was interrupted.
    ///
    /// # Errors
    /// [`Refusal::Running`]; [`Refusal::DiskFull`]; [`Refusal::BadSpec`] when a piece passes the disk's end.
    pub fn flash(
        &self,
        machine: &str,
        pieces: Vec<BaseSegment>,
        zeros: Vec<Range<u64>>,
    ) -> Result<(), Error> {
        if self.connect().is_err() {
            self.start_host()?;
        }
        self.done(&Request::Flash { machine: machine.into(), pieces, zeros })
    }

    /// Switches all machines off, at once those that are still on after `grace`, and ends the lab host. Disks and
    /// logs stay. Without a lab host nothing happens.
    ///
    /// # Errors
    /// [`Refusal::DiskFull`] when unflushed writes could not be kept.
    pub fn down(&self, grace: Duration) -> Result<(), Error> {
        match self.done(&Request::Down { grace_ms: millis(grace) }) {
            Err(Error::NotRunning { .. }) => Ok(()),
            Ok(()) => self.await_host_end(),
            other => other,
        }
    }

    /// Takes the lab down at once and removes its disks, logs and identities.
    ///
    /// # Errors
    /// As [`Lab::down`]; [`Error::File`] when something cannot be removed.
    pub fn destroy(&self) -> Result<(), Error> {
        self.down(Duration::ZERO)?;
        for path in self.layout.everything() {
            let removed =
                if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
            match removed {
                Err(e) if e.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::File { doing: "remove", path, source: e });
                }
                _ => {}
            }
        }
        // The directory itself goes only if nothing of the caller's lies in it.
        let _ = std::fs::remove_dir(self.dir());
        Ok(())
    }

    fn done(&self, request: &Request) -> Result<(), Error> {
        match self.ask(request)? {
            Reply::Done => Ok(()),
            other => Err(self.unexpected(&other)),
        }
    }

    fn cut_reply(&self, request: &Request) -> Result<CutReport, Error> {
        match self.ask(request)? {
            Reply::Cut(report) => Ok(report),
            other => Err(self.unexpected(&other)),
        }
    }

    fn ask(&self, request: &Request) -> Result<Reply, Error> {
        self.reply(&mut BufReader::new(self.send(request)?))
    }

    fn send(&self, request: &Request) -> Result<UnixStream, Error> {
        let talk = |source| Error::Talk { dir: self.dir().to_path_buf(), source };
        let mut stream = self.connect()?;
        let mut line = serde_json::to_vec(request).map_err(|e| talk(e.into()))?;
        line.push(b'\n');
        stream.write_all(&line).map_err(talk)?;
        Ok(stream)
    }

    fn reply(&self, lines: &mut impl BufRead) -> Result<Reply, Error> {
        let talk = |source| Error::Talk { dir: self.dir().to_path_buf(), source };
        let mut line = String::new();
        if lines.read_line(&mut line).map_err(talk)? == 0 {
            return Err(talk(io::ErrorKind::UnexpectedEof.into()));
        }
        match serde_json::from_str(&line).map_err(|e| talk(e.into()))? {
            Reply::Refused(refusal) => Err(refusal.into()),
            reply => Ok(reply),
        }
    }

    fn unexpected(&self, reply: &Reply) -> Error {
        let source = io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer {reply:?}"));
        Error::Talk { dir: self.dir().to_path_buf(), source }
    }

    fn connect(&self) -> Result<UnixStream, Error> {
        let not_running = || Error::NotRunning { dir: self.dir().to_path_buf() };
        let record = HostRecord::read(&self.layout).ok_or_else(not_running)?;
        UnixStream::connect(record.control_socket()).map_err(|_| not_running())
    }

    fn start_host(&self) -> Result<(), Error> {
        let file = |doing, path: &Path| {
            let path = path.to_path_buf();
            move |source| Error::File { doing, path, source }
        };
        self.layout.make().map_err(file("make", self.dir()))?;
        let (program, args) = &self.host;
        let log_path = self.layout.host_log();
        let deadline = Instant::now() + HOST_START;
        // A host that finds another one alive ends at once: another caller's, which will answer, or one that is just
        // ending, after which ours has to be started again.
        loop {
            let log = File::create(&log_path).map_err(file("write", &log_path))?;
            let log2 = log.try_clone().map_err(file("write", &log_path))?;
            let mut child = Command::new(program)
                .args(args)
                .arg(self.dir())
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(log2)
                .spawn()
                .map_err(file("start", program))?;
            let ended = loop {
                if self.connect().is_ok() {
                    // Takes the host's end from the system, should this program live so long.
                    std::thread::spawn(move || child.wait());
                    return Ok(());
                }
                match child.try_wait().map_err(file("watch", program))? {
                    Some(status) => break Some(status),
                    None if Instant::now() > deadline => break None,
                    None => std::thread::sleep(Duration::from_millis(5)),
                }
            };
            if ended.is_none_or(|status| !status.success()) || Instant::now() > deadline {
                let last_words = crate::layout::tail(&log_path, 2000);
                return Err(Error::HostDied { dir: self.dir().to_path_buf(), last_words });
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The host answers before it ends; the next start must find its lock free.
    fn await_host_end(&self) -> Result<(), Error> {
        let deadline = Instant::now() + HOST_START;
        while self.connect().is_ok() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }
}

fn off_status(spec: &LabSpec, name: &str, address: std::net::Ipv4Addr) -> MachineStatus {
    MachineStatus {
        name: name.into(),
        address,
        state: MachineState::Off,
        pid: None,
        accel: None,
        stage: None,
        stage_text: String::new(),
        stage_uptime: 0.0,
        stage_age: 0.0,
        last_line: String::new(),
        forwards: spec.forwards.iter().filter(|f| f.node == name).cloned().collect(),
        unflushed: (0, 0),
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
