//! The one stream of events that progress bars, JSON lines, dashboard and journal all draw.

use crate::plan::{StepId, StepKind};
use crate::stage::Stage;
use serde::{Deserialize, Serialize};

/// Something that happened while a plan ran. Never carries a secret.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Event {
    /// A plan begins.
    PlanStarted {
        /// What was asked for.
        purpose: String,
        /// Number of its steps.
        steps: usize,
    },
    /// A step begins.
    StepStarted {
        /// Which.
        step: StepId,
        /// What it does.
        kind: StepKind,
    },
    /// A step on a machine of the site begins.
    ActStarted {
        /// Which.
        step: StepId,
        /// On which machine.
        node: String,
        /// What is done, for a person.
        what: String,
    },
    /// A step has come further.
    Progress {
        /// Which.
        step: StepId,
        /// Units done.
        done: u64,
        /// Units in all; 0 when unknown.
        total: u64,
        /// What is counted.
        unit: Unit,
        /// What is at work now: a file, a package.
        detail: String,
    },
    /// Bytes are on their way to a disk, or back from it.
    Transfer {
        /// Which step.
        step: StepId,
        /// Which way.
        phase: TransferPhase,
        /// Bytes done of this phase.
        done: u64,
        /// Bytes of this phase.
        total: u64,
        /// Bytes a second, so far in this phase.
        bytes_per_second: u64,
        /// Seconds that the rest of this phase takes at that speed.
        seconds_left: u64,
    },
    /// Something a person wants to know about a step.
    Note {
        /// Which.
        step: StepId,
        /// One sentence.
        text: String,
    },
    /// Something that is not as it should be, though the step goes on.
    Warning {
        /// Which.
        step: StepId,
        /// One sentence.
        text: String,
    },
    /// A machine has come to a stage of its boot.
    MachineStage {
        /// Which machine.
        node: String,
        /// How far it is.
        stage: Stage,
        /// Seconds since its kernel started.
        uptime: f64,
        /// Its own words.
        text: String,
    },
    /// A machine's last console line.
    MachineConsole {
        /// Which machine.
        node: String,
        /// The line, control characters removed.
        line: String,
    },
    /// A step is done.
    StepFinished {
        /// Which.
        step: StepId,
        /// How it ended.
        outcome: Outcome,
        /// Milliseconds it took.
        millis: u64,
    },
    /// A step failed; later runs take it up again.
    StepFailed {
        /// Which.
        step: StepId,
        /// What failed, one line.
        error: String,
    },
    /// Something wanted is not there yet, and the run goes on looking.
    Waiting {
        /// What is not there.
        subject: String,
        /// What it waits for, one sentence.
        on: String,
    },
    /// A plan ends.
    PlanFinished {
        /// Steps that did something.
        done: usize,
        /// Steps that found their result already there.
        unchanged: usize,
        /// Steps that failed or were not reached.
        left: usize,
    },
}

/// What a progress event counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// Packages, files, modules.
    Items,
}

/// Which way bytes go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TransferPhase {
    /// The disk is told what it need not keep.
    Discard,
    /// To the disk.
    Write,
    /// Back from it, to be compared.
    Verify,
}

/// How a step ended well.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did its act.
    Done,
    /// Its result was already there.
    Unchanged,
}
