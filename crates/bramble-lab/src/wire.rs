//! What the client and the lab host say to each other: one JSON value a line over a unix socket, one request a
//! connection. Also the reports a caller gets to see.

use bramble_api::stage::Stage;
use serde::{Deserialize, Serialize};
use std::net::Ipv4Addr;
use std::ops::Range;

use crate::error::Refusal;
use crate::spec::{BaseSegment, Forward, LabSpec};

/// What a client asks.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub(crate) enum Request {
    Start { spec: Box<LabSpec> },
    PowerOn { machine: String },
    PowerOff { machine: String, grace_ms: u64 },
    Kill { machine: String },
    Cut { machine: String, seed: u64 },
    CutAt { machine: String, point: CutPoint, seed: u64, timeout_ms: u64 },
    Wait { machine: String, marker: String, timeout_ms: u64 },
    Status,
    Follow,
    Console { machine: String },
    Snapshot { machine: String, label: String },
    Restore { machine: String, label: String },
    Flash { machine: String, pieces: Vec<BaseSegment>, zeros: Vec<Range<u64>> },
    Down { grace_ms: u64 },
}

/// What the host answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "say", content = "with", rename_all = "kebab-case")]
pub(crate) enum Reply {
    Done,
    Started(StartReport),
    Status(Vec<MachineStatus>),
    Cut(CutReport),
    Line(String),
    Event(LabEvent),
    Refused(Refusal),
}

/// What [`crate::Lab::start`] did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StartReport {
    /// Machines whose disks were made now.
    pub created: Vec<String>,
    /// Machines that were switched on now.
    pub powered_on: Vec<String>,
    /// Machines that ran already and were left alone.
    pub already_on: Vec<String>,
    /// Machines of the lab that the description no longer has; they were left as they are.
    pub absent: Vec<String>,
    /// What differs from the description and waits or cannot be had, one sentence each.
    pub differs: Vec<String>,
    /// Every forwarded port, with the chosen numbers.
    pub forwards: Vec<Forward>,
    /// The gateway's address on the segment.
    pub gateway: Option<Ipv4Addr>,
}

impl StartReport {
    /// Whether nothing had to be done.
    pub fn unchanged(&self) -> bool {
        self.created.is_empty() && self.powered_on.is_empty()
    }
}

/// Whether a machine has power.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineState {
    /// No power.
    Off,
    /// QEMU runs.
    On,
    /// QEMU holds the machine still; the text says why, such as a full disk of this computer.
    Paused(String),
    /// QEMU ended by itself with an error; the text is the end of what it wrote.
    Crashed(String),
}

impl MachineState {
    /// Whether QEMU runs.
    pub fn has_power(&self) -> bool {
        matches!(self, MachineState::On | MachineState::Paused(_))
    }
}

/// A machine as it is now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MachineStatus {
    /// Its name.
    pub name: String,
    /// Its stated address.
    pub address: Ipv4Addr,
    /// Whether it has power.
    pub state: MachineState,
    /// QEMU's process id.
    pub pid: Option<i32>,
    /// How guest instructions run: `kvm`, `hvf` or `tcg`.
    pub accel: Option<String>,
    /// The last stage of this power-on that its console named.
    pub stage: Option<Stage>,
    /// The text of that stage line.
    pub stage_text: String,
    /// Seconds since its kernel started, as that line says.
    pub stage_uptime: f64,
    /// Seconds since that stage line came; since power-on while there is none.
    pub stage_age: f64,
    /// The last console line, control characters removed.
    pub last_line: String,
    /// Ports of 127.0.0.1 that lead to it.
    pub forwards: Vec<Forward>,
    /// Writes that the guest has not made durable, and their bytes.
    pub unflushed: (usize, u64),
}

/// Something that happened in the lab.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum LabEvent {
    /// A machine went on, off, or was held.
    State {
        /// Which.
        machine: String,
        /// What it is now.
        state: MachineState,
    },
    /// A stage line came.
    Stage {
        /// Which machine.
        machine: String,
        /// The stage.
        stage: Stage,
        /// Seconds since its kernel started.
        uptime: f64,
        /// The line's text.
        text: String,
    },
    /// A console line came.
    Line {
        /// Which machine.
        machine: String,
        /// The line, control characters removed.
        text: String,
    },
    /// The listener was too slow and this many events were left out.
    Missed {
        /// How many.
        count: u64,
    },
}

/// The instant of a planned power cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CutPoint {
    /// A console line of this power-on that contains this text.
    pub marker: String,
    /// Then so many more writes to the disk; 0 cuts the moment the marker is seen.
    pub after_writes: u32,
}

/// What a power cut did to a disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CutReport {
    /// The seed that chose.
    pub seed: u64,
    /// Unflushed writes that reached the medium whole.
    pub kept: usize,
    /// Unflushed writes of which some sectors reached it.
    pub torn: usize,
    /// Unflushed writes that were lost.
    pub dropped: usize,
}
