//! The whole lab as the host holds it: machines, gateway, forwarded ports, and the requests of clients.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::hub::Hub;
use super::machine::{Commons, Design, Machine};
use super::nursery::Nursery;
use crate::error::Refusal;
use crate::gateway::{Gateway, Site as GatewaySite};
use crate::layout::{Layout, replace};
use crate::qemu::{self, Computer};
use crate::spec::{Boot, Forward, LabMachine, LabSpec};
use crate::wire::{LabEvent, MachineStatus, Reply, Request, StartReport};

/// The lab.
pub(super) struct Site {
    commons: Arc<Commons>,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    spec: Option<LabSpec>,
    machines: BTreeMap<String, Arc<Machine>>,
    gateway: Option<(GatewaySite, Gateway)>,
    forwards: Vec<(Forward, TcpListener)>,
}

impl Site {
    /// Takes over a directory: ends what an earlier host left, and knows the machines of the last start.
    pub(super) fn open(layout: Layout, runtime: PathBuf) -> Result<Site, Refusal> {
        if let Ok(entries) = std::fs::read_dir(layout.machines()) {
            for entry in entries.flatten() {
                Machine::end_orphan(&layout, &entry.file_name().to_string_lossy())?;
            }
        }
        let spec = read_spec(&layout)?;
        let nursery = Nursery::new().map_err(|e| Refusal::io("start a thread for", layout.dir(), &e))?;
        let commons = Commons {
            layout,
            runtime,
            switch: Arc::default(),
            hub: Arc::<Hub>::default(),
            nursery,
            computer: Computer::look(),
            no_hypervisor: Mutex::default(),
        };
        let site = Site { commons: Arc::new(commons), inner: Mutex::default() };
        if let Some(spec) = spec {
            let mut inner = site.lock();
            for machine in &spec.machines {
                site.adopt(&mut inner, &spec, machine);
            }
            inner.spec = Some(spec);
        }
        Ok(site)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopt(&self, inner: &mut Inner, spec: &LabSpec, machine: &LabMachine) -> Vec<String> {
        let design = Design {
            machine: machine.clone(),
            firmware: spec.firmware.get(&machine.arch).cloned(),
            qemu: spec.qemu.get(&machine.arch).cloned(),
            accel: spec.accel,
        };
        match inner.machines.get(&machine.name) {
            Some(known) => known.redesign(design),
            None => {
                let fresh = Machine::new(design.clone(), inner.machines.len(), Arc::clone(&self.commons));
                let differs = fresh.redesign(design);
                inner.machines.insert(machine.name.clone(), Arc::new(fresh));
                differs
            }
        }
    }

    fn machine(&self, name: &str) -> Result<Arc<Machine>, Refusal> {
        let inner = self.lock();
        inner.machines.get(name).cloned().ok_or_else(|| Refusal::NoSuchMachine {
            name: name.into(),
            known: inner.machines.keys().cloned().collect(),
        })
    }

    /// Does what a client asks, but for the requests that turn the connection into a stream.
    pub(super) fn answer(&self, request: Request) -> Reply {
        let done = |result: Result<(), Refusal>| result.map(|()| Reply::Done);
        let result = match request {
            Request::Start { spec } => self.start(*spec).map(Reply::Started),
            Request::PowerOn { machine } => self.power_on(&machine).map(|()| Reply::Done),
            Request::PowerOff { machine, grace_ms } => {
                done(self.machine(&machine).and_then(|m| m.power_off(Duration::from_millis(grace_ms))))
            }
            Request::Kill { machine } => done(self.machine(&machine).and_then(|m| m.kill())),
            Request::Cut { machine, seed } => {
                self.machine(&machine).and_then(|m| m.cut(seed)).map(Reply::Cut)
            }
            Request::CutAt { machine, point, seed, timeout_ms } => self
                .machine(&machine)
                .and_then(|m| m.cut_at(&point, seed, Duration::from_millis(timeout_ms)))
                .map(Reply::Cut),
            Request::Wait { machine, marker, timeout_ms } => self
                .machine(&machine)
                .and_then(|m| m.wait(&marker, Duration::from_millis(timeout_ms)))
                .map(Reply::Line),
            Request::Snapshot { machine, label } => {
                done(self.machine(&machine).and_then(|m| m.snapshot(&label)))
            }
            Request::Restore { machine, label } => {
                done(self.machine(&machine).and_then(|m| m.restore(&label)))
            }
            Request::Flash { machine, pieces, zeros } => {
                done(self.machine(&machine).and_then(|m| m.flash(&pieces, &zeros)))
            }
            Request::Status => Ok(Reply::Status(self.status())),
            Request::Down { grace_ms } => done(self.down(Duration::from_millis(grace_ms))),
            Request::Follow | Request::Console { .. } => {
                Err(Refusal::BadSpec { what: "a stream was asked for where none can be".into() })
            }
        };
        result.unwrap_or_else(Reply::Refused)
    }

    fn start(&self, spec: LabSpec) -> Result<StartReport, Refusal> {
        spec.check()?;
        let mut inner = self.lock();
        // First all that can fail without leaving a trace; machines that run are not touched by any of it.
        for machine in &spec.machines {
            qemu::find(machine.arch, spec.qemu.get(&machine.arch).map(PathBuf::as_path))?;
            if machine.boot == Boot::Firmware && !spec.firmware.contains_key(&machine.arch) {
                return Err(Refusal::NoFirmware { arch: machine.arch });
            }
        }
        let no_room = || Refusal::BadSpec { what: format!("{} has no address for the gateway", spec.subnet) };
        let gateway = GatewaySite::of(&spec).ok_or_else(no_room)?;
        self.set_gateway(&mut inner, gateway)?;
        self.set_forwards(&mut inner, &spec)?;

        let mut report = StartReport { gateway: spec.effective_gateway(), ..StartReport::default() };
        let spec = LabSpec { forwards: inner.forwards.iter().map(|(f, _)| f.clone()).collect(), ..spec };
        report.forwards.clone_from(&spec.forwards);
        for machine in &spec.machines {
            report.differs.extend(self.adopt(&mut inner, &spec, machine));
        }
        report.absent = inner.machines.keys().filter(|name| spec.machine(name).is_none()).cloned().collect();
        self.write_spec(&spec)?;
        let machines: Vec<Arc<Machine>> =
            spec.machines.iter().filter_map(|m| inner.machines.get(&m.name).cloned()).collect();
        let names: Vec<String> = spec.machines.iter().map(|m| m.name.clone()).collect();
        inner.spec = Some(spec);
        drop(inner);
        for (name, machine) in names.iter().zip(&machines) {
            if machine.make()? {
                report.created.push(name.clone());
            }
        }
        let before = self.no_hypervisor();
        for (name, machine) in names.into_iter().zip(&machines) {
            if machine.power_on()? {
                report.powered_on.push(name);
            } else {
                report.already_on.push(name);
            }
        }
        if let (None, Some(why)) = (before, self.no_hypervisor()) {
            let first = why.lines().next().unwrap_or_default();
            report.differs.push(format!(
                "machines are emulated, which is slow; this computer's hypervisor says: {first}"
            ));
        }
        Ok(report)
    }

    fn no_hypervisor(&self) -> Option<String> {
        self.commons.no_hypervisor.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn write_spec(&self, spec: &LabSpec) -> Result<(), Refusal> {
        let path = self.commons.layout.spec();
        let write = || replace(&path, &serde_json::to_vec_pretty(spec)?);
        write().map_err(|e| Refusal::io("write", &path, &e))
    }

    fn set_gateway(&self, inner: &mut Inner, fresh: GatewaySite) -> Result<(), Refusal> {
        match &mut inner.gateway {
            Some((present, gateway)) if present.same_gateway(&fresh) => {
                if *present != fresh {
                    gateway.update(fresh.clone());
                    *present = fresh;
                }
                return Ok(());
            }
            Some(_) if inner.machines.values().any(|m| m.is_on()) => {
                return Err(Refusal::SiteChanged { what: "subnet or gateway".into() });
            }
            _ => {}
        }
        inner.gateway = None;
        let gateway = Gateway::start(fresh.clone(), Arc::clone(&self.commons.switch))
            .map_err(|e| Refusal::io("start the gateway of", self.commons.layout.dir(), &e))?;
        inner.gateway = Some((fresh, gateway));
        Ok(())
    }

    /// Listens where the description says, and leaves ports alone that lead where they did.
    fn set_forwards(&self, inner: &mut Inner, spec: &LabSpec) -> Result<(), Refusal> {
        let earlier = inner.spec.as_ref().map(|s| s.forwards.clone()).unwrap_or_default();
        let mut kept = Vec::new();
        for wanted in &spec.forwards {
            let same = |f: &Forward| f.node == wanted.node && f.port == wanted.port;
            let fits = |f: &Forward| same(f) && (wanted.host_port == 0 || f.host_port == wanted.host_port);
            if let Some(at) = inner.forwards.iter().position(|(f, _)| fits(f)) {
                kept.push(inner.forwards.swap_remove(at));
                continue;
            }
            // A port that was chosen at an earlier start is taken again if it can be: kubeconfigs name it.
            let before =
                earlier.iter().find(|f| same(f)).map(|f| f.host_port).filter(|_| wanted.host_port == 0);
            let listener = before
                .and_then(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
                .map_or_else(|| TcpListener::bind((Ipv4Addr::LOCALHOST, wanted.host_port)), Ok);
            let listener = match listener.and_then(|l| Ok((l.local_addr()?.port(), l))) {
                Ok((host_port, listener)) => (Forward { host_port, ..wanted.clone() }, listener),
                Err(error) => {
                    // What was taken over so far stays as it was.
                    inner.forwards.append(&mut kept);
                    return Err(port_refusal(wanted, &error));
                }
            };
            kept.push(listener);
        }
        inner.forwards = kept;
        let Some((_, gateway)) = &inner.gateway else { return Ok(()) };
        let mut targets = Vec::new();
        for (forward, listener) in &inner.forwards {
            if let Some(machine) = spec.machine(&forward.node) {
                let listener = listener.try_clone().map_err(|e| port_refusal(forward, &e))?;
                targets.push((listener, (machine.address, forward.port)));
            }
        }
        let path = self.commons.layout.dir();
        gateway.set_forwards(targets).map_err(|e| Refusal::io("forward ports of", path, &e))
    }

    /// One machine, also when the host is fresh and nobody started the lab yet.
    fn power_on(&self, name: &str) -> Result<(), Refusal> {
        let machine = self.machine(name)?;
        let mut inner = self.lock();
        if let (None, Some(spec)) = (&inner.gateway, inner.spec.clone())
            && let Some(gateway) = GatewaySite::of(&spec)
        {
            self.set_gateway(&mut inner, gateway)?;
            self.set_forwards(&mut inner, &spec)?;
        }
        drop(inner);
        machine.power_on().map(|_| ())
    }

    fn status(&self) -> Vec<MachineStatus> {
        let inner = self.lock();
        let of =
            |name: &str| inner.forwards.iter().map(|(f, _)| f).filter(|f| f.node == name).cloned().collect();
        inner.machines.iter().map(|(name, m)| MachineStatus { forwards: of(name), ..m.status() }).collect()
    }

    /// Switches everything off, all machines at the same time.
    fn down(&self, grace: Duration) -> Result<(), Refusal> {
        let machines: Vec<Arc<Machine>> = self.lock().machines.values().cloned().collect();
        std::thread::scope(|scope| {
            let off = |machine: Arc<Machine>| {
                scope.spawn(move || {
                    if !grace.is_zero() && machine.power_off(grace).is_ok() {
                        return Ok(());
                    }
                    machine.kill()
                })
            };
            let threads: Vec<_> = machines.into_iter().map(off).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
        })
    }

    /// The present state and stage of every machine as events, and the queue of what follows.
    pub(super) fn follow(&self) -> (Vec<LabEvent>, std::sync::mpsc::Receiver<LabEvent>) {
        let events = self.commons.hub.follow();
        let mut first = Vec::new();
        for status in self.status() {
            let machine = status.name;
            first.push(LabEvent::State { machine: machine.clone(), state: status.state });
            if let Some(stage) = status.stage {
                first.push(LabEvent::Stage {
                    machine,
                    stage,
                    uptime: status.stage_uptime,
                    text: status.stage_text,
                });
            }
        }
        (first, events)
    }

    /// Attaches a client to a console; gives the machine's input.
    pub(super) fn attach(&self, machine: &str, client: UnixStream) -> Result<UnixStream, Refusal> {
        self.machine(machine)?.attach(client)
    }
}

fn read_spec(layout: &Layout) -> Result<Option<LabSpec>, Refusal> {
    let path = layout.spec();
    match std::fs::read(&path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|e| Refusal::io("read", &path, &e.into()))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Refusal::io("read", &path, &e)),
    }
}

fn port_refusal(forward: &Forward, error: &io::Error) -> Refusal {
    if error.kind() == io::ErrorKind::AddrInUse {
        return Refusal::PortInUse { port: forward.host_port, node: forward.node.clone() };
    }
    Refusal::io("listen at", &PathBuf::from(format!("127.0.0.1:{}", forward.host_port)), error)
}
