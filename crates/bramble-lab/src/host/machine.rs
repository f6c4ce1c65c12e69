//! One machine: its files, and while it has power its QEMU and the threads that serve it.
//!
//! A power-on makes four sockets, a thread for each, and a QEMU that connects to all of them. One more thread waits
//! for QEMU's end, whatever brings it about, and then does in this order: joins the four threads, so that the last
//! write is in; lets the disk keep or lose its cache; says that the machine is off. A Raspberry Pi that resets ends its
//! QEMU too: its disk stays as it is, with its cache, the firmware that the lab plays looks at it again, and a new QEMU
//! goes on.

use bramble_disk::firmware::pi::BootFlags;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::console::Console;
use super::hub::Hub;
use super::monitor::{Monitor, Notice, Order};
use super::nursery::Nursery;
use crate::disk::{Disk, DiskRecord, snapshot};
use crate::error::{Refusal, is_full};
use crate::layout::{Layout, replace, tail};
use crate::process::ProcessId;
use crate::qemu::{self, Accel, BootConfig, Computer, MachineConfig, Sockets};
use crate::spec::{AccelChoice, BaseSegment, Boot, Firmware, LabMachine, PiBoard};
use crate::switch::{self, Switch};
use crate::wire::{CutPoint, CutReport, LabEvent, MachineState, MachineStatus};
use crate::{firmware, nbd, raspberry};

/// From start to "set up" QEMU takes 0.1 to 0.5 s; a computer that is busy or swaps may take many times that.
const SET_UP: Duration = Duration::from_secs(60);
/// A killed process is gone within milliseconds, unless the system is stuck.
const DEATH: Duration = Duration::from_secs(30);

/// What a machine is made of: its own description and what it takes from the lab's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Design {
    pub(super) machine: LabMachine,
    pub(super) firmware: Option<Firmware>,
    pub(super) qemu: Option<PathBuf>,
    pub(super) accel: AccelChoice,
}

/// What machines share.
pub(super) struct Commons {
    pub(super) layout: Layout,
    pub(super) runtime: PathBuf,
    pub(super) switch: Arc<Switch>,
    pub(super) hub: Arc<Hub>,
    pub(super) nursery: Nursery,
    pub(super) computer: Computer,
    /// What QEMU said when the computer's hypervisor turned out not to work; machines are emulated since.
    pub(super) no_hypervisor: Mutex<Option<String>>,
}

impl Commons {
    fn accel(&self, design: &Design) -> Accel {
        let no_hypervisor = self.no_hypervisor.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if no_hypervisor || design.machine.emulated_board().is_some() {
            return Accel::Tcg;
        }
        self.computer.accel(design.accel, design.machine.arch)
    }
}

/// A machine of the lab.
pub(super) struct Machine {
    pub(super) name: String,
    /// Names its sockets, which have little room.
    number: usize,
    pub(super) commons: Arc<Commons>,
    pub(super) console: Arc<Console>,
    inner: Mutex<Inner>,
    changed: Condvar,
}

struct Inner {
    design: Design,
    power: Power,
}

enum Power {
    Off {
        crashed: Option<String>,
        /// What the cut did that switched it off.
        cut: Option<CutReport>,
    },
    /// Being set up, or settled after its end.
    Busy,
    On(Box<Running>),
}

struct Running {
    process: ProcessId,
    accel: Accel,
    disk: Arc<Disk>,
    monitor: Arc<Monitor>,
    /// What the machine was started from; a new design waits for the next power-on.
    design: Design,
    paused: bool,
    /// The last thing this computer refused the disk.
    trouble: Option<String>,
    /// QEMU ends because the guest reset, and another follows.
    resetting: bool,
    ending: Ending,
}

/// How the end of a machine is to be taken.
#[derive(Clone, Copy)]
enum Ending {
    /// Its own doing.
    Own,
    /// We killed it; its disk keeps power.
    Killed,
    /// A power cut with this seed.
    Cut(u64),
}

/// What outlives a reset.
struct Reset {
    disk: Arc<Disk>,
    flags: BootFlags,
}

impl Machine {
    pub(super) fn new(design: Design, number: usize, commons: Arc<Commons>) -> Machine {
        let name = design.machine.name.clone();
        let console = Console::new(&name, &commons.layout.console_log(&name), Arc::clone(&commons.hub));
        let power = Power::Off { crashed: None, cut: None };
        let (console, inner) = (Arc::new(console), Mutex::new(Inner { design, power }));
        Machine { name, number, commons, console, inner, changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The present state, once it is not between two.
    fn settled(&self) -> MutexGuard<'_, Inner> {
        let guard = self.lock();
        self.changed
            .wait_while(guard, |inner| matches!(inner.power, Power::Busy))
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn dir(&self) -> PathBuf {
        self.commons.layout.machine(&self.name)
    }

    pub(super) fn is_on(&self) -> bool {
        matches!(self.lock().power, Power::On(_) | Power::Busy)
    }

    /// Takes a new design; says what of it has to wait or cannot be had.
    pub(super) fn redesign(&self, design: Design) -> Vec<String> {
        let name = &self.name;
        let mut differs = Vec::new();
        let mut inner = self.settled();
        if let Ok(Some(record)) = DiskRecord::read(&self.dir()) {
            if record.size != design.machine.disk_size {
                differs.push(format!("{name} keeps its disk of {} bytes", record.size));
            }
            if record.base != design.machine.base {
                differs.push(format!("{name} keeps the disk that was made from another image"));
            }
        }
        if let Power::On(running) = &inner.power {
            let mut same = design.clone();
            let before = &running.design;
            // The disk is told above; DHCP is the gateway's.
            same.machine.disk_size = before.machine.disk_size;
            same.machine.base.clone_from(&before.machine.base);
            same.machine.dhcp = before.machine.dhcp;
            if same != *before {
                differs.push(format!("{name} runs as it was; the change waits for its next power-on"));
            }
        }
        inner.design = design;
        differs
    }

    /// Makes the machine's directory, disk and variables where they are missing; `true` when the disk is new.
    pub(super) fn make(&self) -> Result<bool, Refusal> {
        let design = self.settled().design.clone();
        self.make_files(&design)
    }

    fn make_files(&self, design: &Design) -> Result<bool, Refusal> {
        let dir = self.dir();
        std::fs::create_dir_all(&dir)
            .and_then(|()| std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o700)))
            .map_err(|e| Refusal::io("make", &dir, &e))?;
        let m = &design.machine;
        let created = DiskRecord::read(&dir)?.is_none();
        if created {
            DiskRecord::create(&dir, m.disk_size, &m.base)?;
        }
        if let (Boot::Firmware, Some(image)) = (&m.boot, &design.firmware) {
            firmware::vars(&self.commons.layout.vars(&self.name), m.arch, image)?;
        }
        Ok(created)
    }

    /// Switches the machine on, or lets it go on when it is held. `false` when it ran already.
    pub(super) fn power_on(self: &Arc<Machine>) -> Result<bool, Refusal> {
        let mut inner = self.settled();
        if let Power::On(running) = &inner.power {
            if running.paused {
                running.monitor.order(Order::Continue);
            }
            return Ok(false);
        }
        inner.power = Power::Busy;
        let design = inner.design.clone();
        drop(inner);
        let accel = self.commons.accel(&design);
        let result = self.make_files(&design).and_then(|_| self.start_somehow(design, accel));
        let failed = result.is_err();
        if failed {
            self.lock().power = Power::Off { crashed: None, cut: None };
            self.changed.notify_all();
        }
        result.map(|()| true)
    }

    /// A hypervisor can be there and refuse to work: inside another virtual machine, or taken by another program.
    /// QEMU then ends at once, and emulation is tried; only when that works was it the hypervisor's fault.
    fn start_somehow(self: &Arc<Machine>, design: Design, accel: Accel) -> Result<(), Refusal> {
        match self.start(design.clone(), accel, None) {
            Err(Refusal::QemuFailed { last_words, .. }) if accel != Accel::Tcg => {
                self.start(design, Accel::Tcg, None)?;
                let mut trouble = self.commons.no_hypervisor.lock().unwrap_or_else(PoisonError::into_inner);
                *trouble = Some(last_words);
                Ok(())
            }
            other => other,
        }
    }

    /// After a reset the disk and what the guest asked of the next boot are handed on.
    fn start(self: &Arc<Machine>, design: Design, accel: Accel, reset: Option<Reset>) -> Result<(), Refusal> {
        let (name, dir, commons) = (&self.name, self.dir(), &self.commons);
        let arch = design.machine.arch;
        let qemu = qemu::find(arch, design.qemu.as_deref())?;
        if design.machine.emulated_board() == Some(PiBoard::Pi4) {
            qemu.at_least(qemu::RASPI4B)?;
        }
        let flags = reset.as_ref().map(|reset| reset.flags).unwrap_or_default();
        let disk = match reset {
            Some(reset) => reset.disk,
            None => {
                let record = DiskRecord::read(&dir)?.ok_or_else(|| {
                    let gone = io::Error::from(io::ErrorKind::NotFound);
                    Refusal::io("open", &dir.join("disk.json"), &gone)
                })?;
                Arc::new(Disk::open(name, &dir, &record)?)
            }
        };
        let socket = |kind: &str| commons.runtime.join(format!("{}.{kind}", self.number));
        let sockets = Sockets {
            disk: socket("disk"),
            net: socket("net"),
            console: socket("con"),
            control: socket("qmp"),
        };
        let log_path = commons.layout.console_log(name);
        self.console.open().map_err(|e| Refusal::io("write", &log_path, &e))?;
        let mut config = MachineConfig {
            name: name.clone(),
            arch,
            accel,
            memory_mib: design.machine.memory_mib,
            cpus: design.machine.cpus,
            mac: design.machine.effective_mac(),
            serial: design.machine.effective_serial().to_string(),
            rtc: design.machine.rtc,
            board: design.machine.emulated_board(),
            // Replaced below: what a disk says to boot depends on the machine.
            boot: BootConfig::none(),
            sockets: sockets.clone(),
        };
        config.boot = self.boot_config(&design, &disk, flags, &config, &qemu)?;

        let listeners = [&sockets.disk, &sockets.net, &sockets.console, &sockets.control].map(|p| listen(p));
        let [disk_socket, net, console, control] = listeners;
        let (disk_socket, net, console, control) = (disk_socket?, net?, console?, control?);
        let qemu_log = commons.layout.qemu_log(name);
        let log = File::create(&qemu_log).map_err(|e| Refusal::io("write", &qemu_log, &e))?;
        let log2 = log.try_clone().map_err(|e| Refusal::io("write", &qemu_log, &e))?;
        let mut command = Command::new(&qemu.program);
        command.args(qemu::arguments(&config)).stdin(Stdio::null()).stdout(log).stderr(log2);

        // The threads accept before QEMU connects, and QEMU waits for the disk's greeting before it goes on.
        let monitor = Arc::new(Monitor::default());
        let (ready, set_up) = channel();
        let threads = vec![
            self.thread("disk", disk_socket, {
                let (disk, me) = (Arc::clone(&disk), Arc::clone(self));
                move |stream| nbd::serve(&stream, &disk, &|e| me.trouble(e))
            })?,
            self.thread("net", net, {
                let switch = Arc::clone(&commons.switch);
                move |stream| switch::serve(&switch, &stream)
            })?,
            self.thread("console", console, {
                let console = Arc::clone(&self.console);
                move |stream| console.serve(stream)
            })?,
            self.thread("control", control, {
                let (monitor, me) = (Arc::clone(&monitor), Arc::clone(self));
                move |stream| {
                    monitor.serve(stream, &|notice| match notice {
                        // Nobody waits for a second one.
                        Notice::Ready => drop(ready.send(())),
                        other => me.noticed(&other),
                    })
                }
            })?,
        ];
        let wake = sockets_of(&sockets);
        let mut child = match commons.nursery.spawn(command) {
            Ok(child) => child,
            Err(error) => {
                finish(&wake, threads);
                return Err(Refusal::io("run", &qemu.program, &error));
            }
        };
        let started =
            self.await_set_up(&mut child, &set_up, &qemu_log).and_then(|()| self.record(child.id()));
        let process = match started {
            Ok(process) => process,
            Err(refusal) => {
                // It may be gone already.
                let _ = child.kill();
                let _ = child.wait();
                finish(&wake, threads);
                return Err(refusal);
            }
        };
        let running = Running {
            process,
            accel,
            disk,
            monitor,
            design,
            paused: false,
            trouble: None,
            resetting: false,
            ending: Ending::Own,
        };
        self.lock().power = Power::On(Box::new(running));
        self.changed.notify_all();
        self.tell(MachineState::On);
        let me = Arc::clone(self);
        std::thread::Builder::new()
            .name(format!("{name} end"))
            .spawn(move || me.await_end(child, &wake, threads))
            .map_err(|e| Refusal::io("watch", &qemu.program, &e))?;
        Ok(())
    }

    /// Serves the first connection of a socket in a thread.
    fn thread(
        &self,
        what: &str,
        listener: UnixListener,
        serve: impl FnOnce(UnixStream) -> io::Result<()> + Send + 'static,
    ) -> Result<JoinHandle<io::Result<()>>, Refusal> {
        let name = format!("{} {what}", self.name);
        std::thread::Builder::new()
            .name(name)
            .spawn(move || {
                let (stream, _) = listener.accept()?;
                // One connection is all there will be.
                drop(listener);
                serve(stream)
            })
            .map_err(|e| Refusal::io("serve", &self.dir(), &e))
    }

    fn await_set_up(&self, child: &mut Child, set_up: &Receiver<()>, log: &Path) -> Result<(), Refusal> {
        let deadline = Instant::now() + SET_UP;
        loop {
            match set_up.recv_timeout(Duration::from_millis(20)) {
                Ok(()) => return Ok(()),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            let ended = child.try_wait().map_err(|e| Refusal::io("watch QEMU of", &self.dir(), &e))?;
            if ended.is_some() || Instant::now() > deadline {
                let mut last_words = tail(log, 2000);
                if ended.is_none() {
                    last_words.push_str("\n(it was not set up in time)");
                }
                return Err(Refusal::QemuFailed { machine: self.name.clone(), last_words });
            }
        }
    }

    /// Leaves a note about the process, for a later host that finds it orphaned.
    fn record(&self, pid: u32) -> Result<ProcessId, Refusal> {
        let path = self.commons.layout.pid(&self.name);
        let id = i32::try_from(pid).ok().and_then(ProcessId::of).ok_or_else(|| Refusal::QemuFailed {
            machine: self.name.clone(),
            last_words: tail(&self.commons.layout.qemu_log(&self.name), 2000),
        })?;
        let write = || replace(&path, &serde_json::to_vec(&id)?);
        write().map_err(|e| Refusal::io("write", &path, &e))?;
        Ok(id)
    }

    /// Ends QEMU that an earlier host of this directory left behind.
    pub(super) fn end_orphan(layout: &Layout, name: &str) -> Result<(), Refusal> {
        let path = layout.pid(name);
        let Ok(bytes) = std::fs::read(&path) else { return Ok(()) };
        if let Ok(id) = serde_json::from_slice::<ProcessId>(&bytes) {
            id.end(DEATH).map_err(|e| Refusal::io("end the process of", &path, &e))?;
        }
        std::fs::remove_file(&path).map_err(|e| Refusal::io("remove", &path, &e))
    }

    /// The machine's last thread: see the module's head.
    fn await_end(
        self: &Arc<Machine>,
        mut child: Child,
        sockets: &[PathBuf],
        threads: Vec<JoinHandle<io::Result<()>>>,
    ) {
        let status = child.wait();
        finish(sockets, threads);
        let mut inner = self.lock();
        let Power::On(running) = std::mem::replace(&mut inner.power, Power::Busy) else { return };
        let design = inner.design.clone();
        drop(inner);
        let mut no_boot = None;
        if running.resetting && matches!(running.ending, Ending::Own) {
            let line = self.console.last(raspberry::REBOOT_MARKER).unwrap_or_default();
            let reset = Reset { disk: Arc::clone(&running.disk), flags: raspberry::flags(&line) };
            match self.start(design, running.accel, Some(reset)) {
                Ok(()) => return,
                Err(refusal) => no_boot = Some(refusal.to_string()),
            }
        }
        let (cut, settled) = match running.ending {
            Ending::Cut(seed) => match running.disk.settle(seed) {
                Ok(report) => (Some(report), Ok(())),
                Err(error) => (None, Err(error)),
            },
            _ => (None, running.disk.keep()),
        };
        let crashed = match (&settled, running.ending, status) {
            (Err(error), _, _) if is_full(error) => {
                Some("no room left: what the machine had not made durable is lost".to_string())
            }
            (Err(error), _, _) => Some(format!("its last writes could not be kept: {error}")),
            (Ok(()), _, _) if no_boot.is_some() => no_boot,
            (Ok(()), Ending::Own, Ok(status)) if !status.success() => {
                let how =
                    status.signal().map_or_else(|| status.to_string(), |s| format!("killed by signal {s}"));
                let words = tail(&self.commons.layout.qemu_log(&self.name), 500);
                Some(if words.is_empty() { how } else { format!("{how}: {words}") })
            }
            _ => None,
        };
        // The note is only looked at by a later host, which sees that the process is gone.
        let _ = std::fs::remove_file(self.commons.layout.pid(&self.name));
        drop(running);
        let state = crashed.clone().map_or(MachineState::Off, MachineState::Crashed);
        let mut inner = self.lock();
        inner.power = Power::Off { crashed, cut };
        // Who waits for the console hears of the end when the machine is off, and before it can be on again.
        self.console.close();
        drop(inner);
        self.changed.notify_all();
        self.tell(state);
    }

    fn tell(&self, state: MachineState) {
        self.commons.hub.tell(&LabEvent::State { machine: self.name.clone(), state });
    }

    fn trouble(&self, error: &io::Error) {
        if let Power::On(running) = &mut self.lock().power {
            running.trouble = Some(if is_full(error) {
                "this computer's disk is full; make room, then `bramble lab up` lets it go on".into()
            } else {
                format!("its disk: {error}")
            });
        }
    }

    fn noticed(&self, notice: &Notice) {
        if *notice == Notice::Reset {
            self.console.reset();
            return;
        }
        let state = {
            let mut inner = self.lock();
            let Power::On(running) = &mut inner.power else { return };
            if *notice == Notice::EndsForReset {
                running.resetting = running.design.machine.boot.is_chosen_at_reset();
                return;
            }
            running.paused = *notice == Notice::Stopped;
            if !running.paused {
                running.trouble = None;
            }
            running.state()
        };
        self.tell(state);
    }

    /// Stops the machine; its disk keeps power. Nothing happens when it is off.
    pub(super) fn kill(&self) -> Result<(), Refusal> {
        let mut inner = self.settled();
        let Power::On(running) = &mut inner.power else { return Ok(()) };
        running.ending = Ending::Killed;
        let process = running.process.clone();
        drop(inner);
        self.end(&process).map(|_| ())
    }

    /// Ends QEMU and waits until the machine is off; says what a cut did.
    fn end(&self, process: &ProcessId) -> Result<Option<CutReport>, Refusal> {
        process.end(DEATH).map_err(|e| Refusal::io("end QEMU of", &self.dir(), &e))?;
        let ending = |inner: &mut Inner| match &inner.power {
            Power::Busy => true,
            // Another process is another power-on, which somebody else ordered meanwhile.
            Power::On(running) => running.process == *process,
            Power::Off { .. } => false,
        };
        let inner = self.changed.wait_while(self.lock(), ending).unwrap_or_else(PoisonError::into_inner);
        match &inner.power {
            Power::Off { crashed: Some(reason), .. } => {
                let (doing, path) = ("keep the disk of".to_string(), self.dir());
                Err(Refusal::System { doing, path, reason: reason.clone() })
            }
            Power::Off { cut, .. } => Ok(*cut),
            _ => Ok(None),
        }
    }

    fn off(&self) -> Refusal {
        Refusal::NotRunning { machine: self.name.clone() }
    }

    /// Cuts the power.
    pub(super) fn cut(&self, seed: u64) -> Result<CutReport, Refusal> {
        let mut inner = self.settled();
        let Power::On(running) = &mut inner.power else { return Err(self.off()) };
        running.disk.stop();
        running.ending = Ending::Cut(seed);
        let process = running.process.clone();
        drop(inner);
        self.end(&process)?.ok_or_else(|| self.off())
    }

    /// Waits for a point and cuts the power then.
    pub(super) fn cut_at(
        &self,
        point: &CutPoint,
        seed: u64,
        timeout: Duration,
    ) -> Result<CutReport, Refusal> {
        let disk = {
            let inner = self.settled();
            let Power::On(running) = &inner.power else { return Err(self.off()) };
            Arc::clone(&running.disk)
        };
        let (told, reached) = channel();
        let (armed, writes) = (Arc::clone(&disk), point.after_writes);
        // In the console's own thread: the disk loses its power before another byte of the console is read.
        let watch = self.console.watch(&point.marker, Box::new(move |_| armed.stop_after(writes, told)));
        let result = reached.recv_timeout(timeout);
        self.console.unwatch(watch);
        disk.disarm();
        match result {
            Ok(()) => self.cut(seed),
            // The point may have come while the watch was taken back; then the disk is without power already.
            Err(_) if reached.try_recv().is_ok() => self.cut(seed),
            Err(error) => Err(self.not_reached(&point.marker, timeout, error)),
        }
    }

    /// Waits for a line.
    pub(super) fn wait(&self, marker: &str, timeout: Duration) -> Result<String, Refusal> {
        if !self.is_on() {
            return Err(self.off());
        }
        let (told, heard) = channel();
        let tell = move |line: &str| {
            // Who waited may have given up.
            let _ = told.send(line.to_string());
        };
        let watch = self.console.watch(marker, Box::new(tell));
        let result = heard.recv_timeout(timeout);
        self.console.unwatch(watch);
        result.map_err(|error| self.not_reached(marker, timeout, error))
    }

    fn not_reached(&self, what: &str, timeout: Duration, error: RecvTimeoutError) -> Refusal {
        let (machine, what) = (self.name.clone(), format!("{what:?}"));
        let last_line = self.console.seen().last_line;
        match error {
            RecvTimeoutError::Timeout => {
                Refusal::TimedOut { machine, what, seconds: timeout.as_secs(), last_line }
            }
            RecvTimeoutError::Disconnected => Refusal::WentOff { machine, what, last_line },
        }
    }

    /// Presses the power button and waits.
    pub(super) fn power_off(&self, grace: Duration) -> Result<(), Refusal> {
        let inner = self.settled();
        let Power::On(running) = &inner.power else { return Ok(()) };
        running.monitor.order(Order::PowerButton);
        let (inner, timeout) = self
            .changed
            .wait_timeout_while(inner, grace, |inner| !matches!(inner.power, Power::Off { .. }))
            .unwrap_or_else(PoisonError::into_inner);
        drop(inner);
        if timeout.timed_out() {
            let (machine, what) = (self.name.clone(), "going off".to_string());
            let last_line = self.console.seen().last_line;
            return Err(Refusal::TimedOut { machine, what, seconds: grace.as_secs(), last_line });
        }
        Ok(())
    }

    /// Shows the console to a client; gives the machine's input.
    pub(super) fn attach(&self, client: UnixStream) -> Result<UnixStream, Refusal> {
        let attached = self.console.attach(client);
        attached.map_err(|e| Refusal::io("show the console of", &self.dir(), &e))?.ok_or_else(|| self.off())
    }

    /// Saves the disk under a label.
    pub(super) fn snapshot(&self, label: &str) -> Result<(), Refusal> {
        let inner = self.settled();
        self.must_be_off(&inner)?;
        let (to, fresh) = (self.label(label)?, self.label(&format!("{label}.new"))?);
        let io = |e| Refusal::io("make", &fresh, &e);
        match std::fs::remove_dir_all(&fresh) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io(e)),
            _ => std::fs::create_dir_all(&fresh).map_err(io)?,
        }
        snapshot::copy(&self.dir(), &fresh)?;
        // A snapshot cut short is never seen under its label.
        let swap = || {
            if to.exists() {
                std::fs::remove_dir_all(&to)?;
            }
            std::fs::rename(&fresh, &to)
        };
        swap().map_err(|e| Refusal::io("make", &to, &e))
    }

    /// Puts the disk back.
    pub(super) fn restore(&self, label: &str) -> Result<(), Refusal> {
        let inner = self.settled();
        self.must_be_off(&inner)?;
        snapshot::copy(&self.label(label)?, &self.dir())
    }

    /// Writes pieces and zeros over the disk.
    pub(super) fn flash(&self, pieces: &[BaseSegment], zeros: &[Range<u64>]) -> Result<(), Refusal> {
        let inner = self.settled();
        self.must_be_off(&inner)?;
        let dir = self.dir();
        let record = DiskRecord::read(&dir)?.ok_or_else(|| {
            let gone = io::Error::from(io::ErrorKind::NotFound);
            Refusal::io("open", &dir.join("disk.json"), &gone)
        })?;
        Disk::open(&self.name, &dir, &record)?.flash(pieces, zeros)
    }

    fn must_be_off(&self, inner: &Inner) -> Result<(), Refusal> {
        match inner.power {
            Power::Off { .. } => Ok(()),
            _ => Err(Refusal::Running { machine: self.name.clone() }),
        }
    }

    fn label(&self, label: &str) -> Result<PathBuf, Refusal> {
        let ok = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if label.is_empty() || label.starts_with('.') || !label.chars().all(ok) {
            return Err(Refusal::BadSpec { what: format!("{label:?} cannot be a snapshot's label") });
        }
        Ok(self.commons.layout.snapshots(&self.name).join(label))
    }

    /// What a status shows, without the forwarded ports.
    pub(super) fn status(&self) -> MachineStatus {
        let seen = self.console.seen();
        let inner = self.lock();
        let mut status = MachineStatus {
            name: self.name.clone(),
            address: inner.design.machine.address,
            state: MachineState::Off,
            pid: None,
            accel: None,
            stage: seen.stage,
            stage_text: seen.stage_text,
            stage_uptime: seen.stage_uptime,
            stage_age: seen.age,
            last_line: seen.last_line,
            forwards: Vec::new(),
            unflushed: (0, 0),
        };
        match &inner.power {
            Power::Off { crashed: Some(why), .. } => status.state = MachineState::Crashed(why.clone()),
            Power::Off { crashed: None, .. } => {}
            Power::Busy => status.state = MachineState::On,
            Power::On(running) => {
                status.state = running.state();
                status.pid = Some(running.process.pid);
                status.accel = Some(running.accel.name().into());
                status.unflushed = running.disk.unflushed();
            }
        }
        status
    }
}

impl Running {
    fn state(&self) -> MachineState {
        match (self.paused, &self.trouble) {
            (false, _) => MachineState::On,
            (true, Some(trouble)) => MachineState::Paused(trouble.clone()),
            (true, None) => {
                MachineState::Paused("QEMU holds it; qemu.log beside its console log may say why".into())
            }
        }
    }
}

fn sockets_of(sockets: &Sockets) -> Vec<PathBuf> {
    vec![sockets.disk.clone(), sockets.net.clone(), sockets.console.clone(), sockets.control.clone()]
}

fn listen(path: &Path) -> Result<UnixListener, Refusal> {
    let io = |e| Refusal::io("listen at", path, &e);
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(io(e)),
        _ => UnixListener::bind(path).map_err(io),
    }
}

/// Ends the threads of a machine whose QEMU is gone. One that QEMU never connected to still waits for a connection:
/// it gets one that ends at once.
fn finish(sockets: &[PathBuf], threads: Vec<JoinHandle<io::Result<()>>>) {
    for socket in sockets {
        drop(UnixStream::connect(socket));
        // Only the runtime directory gets untidy when this fails.
        let _ = std::fs::remove_file(socket);
    }
    for thread in threads {
        // How a connection to a dead QEMU ended tells nothing.
        let _ = thread.join();
    }
}
