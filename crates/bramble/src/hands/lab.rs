//! Performs the lab's steps; what must be built for them goes to the builder.

use super::LabOptions;
use crate::commands::lab::failure;
use bramble_api::event::{Event, Outcome, Unit};
use bramble_api::names::Arch;
use bramble_api::plan::{CardStart, Step, StepKind};
use bramble_api::stage::Stage;
use bramble_effects::{Context, Failure, Hand};
use bramble_exec::Builder;
use bramble_lab::{
    AccelChoice, BaseSegment, Boot, Dhcp, Firmware, Forward, Lab, LabEvent, LabMachine, LabSpec,
    MachineState, NetworkTime, PiBoard, PiHardware, Rtc,
};
use bramble_plan::NextCard;
use bramble_spec::EffectiveNode;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// Bytes of a lab machine's disk: the layout, and room for images of pods. It is sparse on this computer.
const DISK_SIZE: u64 = 16 << 30;

/// Performs the lab's steps.
pub(super) struct LabHand<'a> {
    /// Builds what the machines start from.
    pub(super) builder: &'a Builder<'a>,
    /// The lab's directory.
    pub(super) directory: &'a Path,
    /// How it is brought up.
    pub(super) options: LabOptions,
    /// When the first machine was looked at: what was built before does not count against them.
    pub(super) began: OnceLock<Instant>,
}

impl Hand for LabHand<'_> {
    fn perform(&self, step: &Step, context: &Context<'_>) -> Result<Outcome, Failure> {
        match &step.kind {
            StepKind::LabDisk { node } => self.disk(node, context),
            StepKind::LabFlash { node, start } => self.flash(node, *start, context),
            StepKind::LabStart => self.start(context),
            StepKind::LabPower { node } => self.power(node),
            StepKind::LabReady { node } => self.ready(node, context),
            _ => self.builder.perform(step, context),
        }
    }
}

impl LabHand<'_> {
    fn lab(&self) -> Result<Lab, Failure> {
        Lab::open(self.directory).map_err(failure)
    }

    /// Where the pieces of a machine's fresh disk lie.
    fn pieces(&self, node: &str) -> std::path::PathBuf {
        self.directory.join("bases").join(node)
    }

    /// Makes the pieces of a fresh disk: links to the release's files, and what only this machine has.
    fn disk(&self, name: &str, context: &Context<'_>) -> Result<Outcome, Failure> {
        let pieces = self.pieces(name);
        let list = pieces.join("segments.json");
        if list.exists() {
            return Ok(Outcome::Unchanged);
        }
        // What no machine has seen yet is still the same card.
        self.builder.begin_card(name, NextCard::GoesOn)?;
        let disk = bramble_exec::node_disk(self.builder, name, DISK_SIZE, false, context)?;
        let io = |source: std::io::Error| {
            Failure::user(format!("cannot make the lab disk of {name} in {}", pieces.display()))
                .source(source)
        };
        std::fs::create_dir_all(&pieces).map_err(io)?;
        let segments = disk.split(&pieces).map_err(io)?;
        let text = serde_json::to_vec(&segments)
            .map_err(|e| Failure::bug("the list of disk segments cannot be written").source(e))?;
        // The list last: without it the step is done again from the start.
        bramble_exec::replace(&list, &text, 0o600).map_err(crate::problem::project_failure)?;
        Ok(Outcome::Done)
    }

    /// Writes the release and a new incarnation over a machine's disk; a machine without one gets a fresh disk.
    fn flash(&self, name: &str, start: CardStart, context: &Context<'_>) -> Result<Outcome, Failure> {
        let lab = self.lab()?;
        let made = lab.spec().map_err(failure)?.is_some_and(|spec| spec.machine(name).is_some());
        if !made {
            return self.disk(name, context);
        }
        self.builder.begin_card(name, super::flash::next_card(start))?;
        let keep_data = start == CardStart::KeepData;
        let disk = bramble_exec::node_disk(self.builder, name, DISK_SIZE, keep_data, context)?;
        let place = self.directory.join("flash").join(name);
        let io = |e: std::io::Error| Failure::user(format!("cannot use {}", place.display())).source(e);
        // What an interrupted run left; it holds keys.
        if place.exists() {
            std::fs::remove_dir_all(&place).map_err(io)?;
        }
        std::fs::create_dir_all(&place).map_err(io)?;
        context.progress(0, 0, Unit::Items, "writing the disk");
        let pieces = segments(disk.split(&place).map_err(io)?);
        lab.flash(name, pieces, disk.zeros().to_vec()).map_err(failure)?;
        std::fs::remove_dir_all(&place).map_err(io)?;
        Ok(Outcome::Done)
    }

    fn base(&self, name: &str) -> Result<Vec<BaseSegment>, Failure> {
        let path = self.pieces(name).join("segments.json");
        let read = || -> Result<Vec<bramble_exec::DiskPiece>, Box<dyn std::error::Error + Send + Sync>> {
            Ok(serde_json::from_slice(&std::fs::read(&path)?)?)
        };
        let pieces = read().map_err(|e| {
            Failure::user(format!("cannot read {}", path.display()))
                .source(e)
                .hint("`bramble lab down --destroy` starts the lab afresh")
        })?;
        Ok(segments(pieces))
    }

    /// The lab as the file describes it, with every machine that has a disk.
    fn spec(&self, context: &Context<'_>) -> Result<LabSpec, Failure> {
        let cluster = self.builder.cluster;
        let network = &cluster.spec.network;
        let nodes: Vec<EffectiveNode> = cluster
            .effective_nodes()
            .into_iter()
            .filter(|n| self.pieces(&n.name).join("segments.json").exists())
            .collect();
        let archs: BTreeSet<Arch> =
            nodes.iter().filter(|n| pi(n).is_none()).map(|n| bramble_plan::arch(n.arch)).collect();
        let mut firmware = BTreeMap::new();
        for arch in archs {
            let (code, vars) = bramble_exec::lab_firmware(self.builder, arch, context)?;
            firmware.insert(arch, Firmware { code, vars });
        }
        let port = cluster.endpoint().map_or(6443, |e| e.port);
        let mut machines = Vec::new();
        let mut forwards = Vec::new();
        for node in &nodes {
            let control_plane = node.role == bramble_spec::Role::ControlPlane;
            let mac = node.mac.map(|m| bramble_lab::Mac(m.0));
            machines.push(LabMachine {
                name: node.name.clone(),
                arch: bramble_plan::arch(node.arch),
                address: node.address,
                mac,
                memory_mib: if control_plane {
                    LabMachine::CONTROL_PLANE_MIB
                } else {
                    LabMachine::WORKER_MIB
                },
                cpus: 2,
                serial: None,
                disk_size: DISK_SIZE,
                base: self.base(&node.name)?,
                dhcp: self.lease(&node.name),
                rtc: self.options.clock.map_or(Rtc::Host, Rtc::At),
                // QEMU's own Pi boards have no network or little memory: the lab plays their firmware on its `virt`.
                boot: pi(node).map_or(Boot::Firmware, |board| Boot::PiFirmware {
                    board,
                    hardware: PiHardware::Virt,
                    bootloader: None,
                }),
            });
            if control_plane {
                forwards.push(Forward { host_port: 0, node: node.name.clone(), port });
            }
            if node.ssh.is_some() {
                forwards.push(Forward { host_port: 0, node: node.name.clone(), port: 22 });
            }
            forwards.push(Forward { host_port: 0, node: node.name.clone(), port: bramble_rpc::PORT });
        }
        let inside = |a: &std::net::Ipv4Addr| network.subnet.contains(a) && Some(*a) != network.gateway;
        let stand_ins: BTreeSet<_> = network
            .dns
            .iter()
            .copied()
            .chain(network.ntp.iter().filter_map(|h| h.to_string().parse().ok()))
            .filter(inside)
            .filter(|a| !nodes.iter().any(|n| n.address == *a))
            .collect();
        Ok(LabSpec {
            name: cluster.metadata.name.to_string(),
            subnet: network.subnet,
            gateway: network.gateway,
            domain: network.domain.to_string(),
            stand_ins: stand_ins.into_iter().collect(),
            time: if self.options.no_time { NetworkTime::Silent } else { NetworkTime::Host },
            machines,
            forwards,
            updates: self.options.updates,
            firmware,
            accel: if self.options.emulate { AccelChoice::Emulation } else { AccelChoice::Auto },
            qemu: BTreeMap::new(),
        })
    }

    /// What the router does for a machine.
    fn lease(&self, name: &str) -> Dhcp {
        let other = self.options.leases.iter().find(|(node, _)| node == name);
        other.map_or(Dhcp::Reserved, |(_, address)| Dhcp::Other(*address))
    }

    fn start(&self, context: &Context<'_>) -> Result<Outcome, Failure> {
        let spec = self.spec(context)?;
        let report = self.lab()?.start(&spec).map_err(failure)?;
        for sentence in &report.differs {
            context.warn(sentence.clone());
        }
        for name in &report.absent {
            context.note(format!("{name} is no longer in the file; its machine is left as it is"));
        }
        Ok(if report.unchanged() { Outcome::Unchanged } else { Outcome::Done })
    }

    fn power(&self, node: &str) -> Result<Outcome, Failure> {
        let lab = self.lab()?;
        let status = lab.status().map_err(failure)?;
        if status.iter().any(|m| m.name == node && m.state.has_power()) {
            return Ok(Outcome::Unchanged);
        }
        lab.power_on(node).map_err(failure)?;
        Ok(Outcome::Done)
    }

    /// Follows the lab until the machine has come to the stage that was asked for.
    fn ready(&self, node: &str, context: &Context<'_>) -> Result<Outcome, Failure> {
        let lab = self.lab()?;
        let now = lab.status().map_err(failure)?;
        if now.iter().any(|m| {
            m.name == node
                && m.state == MachineState::On
                && m.stage.is_some_and(|s| reached(s, self.options.until))
        }) {
            return Ok(Outcome::Unchanged);
        }
        // The lab tells what happens for as long as somebody listens; this thread ends with the channel.
        let (tell, told) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let _ = lab.follow(|event| match tell.send(event) {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            });
        });
        let mut watch = Watch { node, until: self.options.until, stage: None, last: String::new() };
        let deadline = *self.began.get_or_init(Instant::now) + self.options.timeout;
        while !context.cancel.is_cancelled() && Instant::now() < deadline {
            match told.recv_timeout(Duration::from_millis(200)) {
                Ok(event) => {
                    if let Some(result) = watch.see(event, context) {
                        return result;
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Failure::retry("the lab went down while its machines were coming up")
                        .hint("run the command again"));
                }
            }
        }
        if context.cancel.is_cancelled() {
            return Err(Failure::interrupted());
        }
        let stage = watch.stage.map_or("powered on", Stage::name);
        Err(Failure::retry(format!(
            "{node} was not at stage {} after {} s: it is at {stage}; last console line: {}",
            self.options.until.name(),
            self.options.timeout.as_secs(),
            bramble_console::harmless(&watch.last)
        ))
        .hint("it goes on booting: run the command again to wait longer, or look at its console"))
    }
}

/// Which Pi a node is, if it is one.
fn pi(node: &EffectiveNode) -> Option<PiBoard> {
    match node.board {
        bramble_spec::Board::Pi3 => Some(PiBoard::Pi3),
        bramble_spec::Board::Pi4 => Some(PiBoard::Pi4),
        bramble_spec::Board::Pi5 => Some(PiBoard::Pi5),
        bramble_spec::Board::UefiAmd64 | bramble_spec::Board::UefiArm64 => None,
    }
}

/// Pieces as the lab takes them.
fn segments(pieces: Vec<bramble_exec::DiskPiece>) -> Vec<BaseSegment> {
    pieces
        .into_iter()
        .map(|p| BaseSegment { start: p.start, length: p.length, path: p.path, offset: p.offset })
        .collect()
}

/// What is seen of one machine while it comes up.
struct Watch<'a> {
    node: &'a str,
    until: Stage,
    stage: Option<Stage>,
    last: String,
}

/// Whether a machine that is at `stage` has come as far as `until`.
fn reached(stage: Stage, until: Stage) -> bool {
    stage != Stage::Failed && stage >= until
}

impl Watch<'_> {
    /// Passes an event on; gives the step's result when the machine is there, or will not come.
    fn see(&mut self, event: LabEvent, context: &Context<'_>) -> Option<Result<Outcome, Failure>> {
        let node = self.node;
        let log = format!("`bramble lab logs {node}` shows its console");
        match event {
            LabEvent::Stage { machine, stage, uptime, text } => {
                let mine = machine == node;
                let said = text.clone();
                context.sink.event(Event::MachineStage { node: machine, stage, uptime, text });
                if !mine {
                    return None;
                }
                self.stage = Some(stage);
                if stage == Stage::Failed {
                    return Some(Err(Failure::user(format!("{node} cannot go on: {said}")).hint(log)));
                }
                reached(stage, self.until).then_some(Ok(Outcome::Done))
            }
            LabEvent::Line { machine, text } => {
                if machine == node {
                    self.last = text.clone();
                }
                context.sink.event(Event::MachineConsole { node: machine, line: text });
                None
            }
            LabEvent::State { machine, state } if machine == node && !state.has_power() => {
                let why = match state {
                    MachineState::Crashed(why) => why,
                    _ => "it went off".to_string(),
                };
                Some(Err(Failure::user(format!("{node} did not come up: {why}")).hint(log)))
            }
            LabEvent::State { .. } | LabEvent::Missed { .. } => None,
        }
    }
}
