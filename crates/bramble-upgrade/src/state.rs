//! What is known of the two slots.
//!
//! ```text
//!            begin            written           ask
//!   Idle ───────────► Writing ───────► Staged ───────► Trying ──── keep ───► Idle (the other slot is committed)
//!    ▲                   │               ▲               │
//!    │ ◄──── give_up ────┘               └── try again ──┤  not applied, no word, and tries are left
//!    └───────────────────────────────────────────────────┘  give_up: condemned, or no tries left
//! ```
//!
//! A [`Record`] is saved before the act that it announces and read again at every start ([`crate::journal`]). Each
//! method is one edge; it gives the next record and changes nothing.

use crate::gate::Before;
use crate::reason::Reason;
use bramble_api::names::Slot;
use serde::{Deserialize, Serialize};

/// A release is tried at most so often.
pub const TRIES_MAX: u32 = 2;
/// So many releases that failed are remembered; older ones are below the floor or were taken off the source long ago.
const REMEMBERED: usize = 6;
/// Characters of a detail that are kept.
const DETAIL_MAX: usize = 160;

/// A release, as the journal names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Target {
    /// Its number.
    pub version: u64,
    /// SHA-256 of its manifest's JSON, hexadecimal: a number that was used twice is two releases.
    pub digest: String,
    /// The floor that it raises this machine to once it is kept.
    #[serde(default)]
    pub floor: u64,
}

/// Where a machine is between two releases.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(tag = "phase", rename_all = "kebab-case")]
pub enum Phase {
    /// Nothing is under way. The other slot holds the release before, a condemned one, or nothing.
    Idle,
    /// The other slot is being written, and starts nothing.
    Writing {
        /// What it will hold.
        target: Target,
    },
    /// The other slot holds a release that was read back and found whole.
    Staged {
        /// What it holds.
        target: Target,
    },
    /// A trial of the other slot was asked for, or runs.
    Trying {
        /// What it holds.
        target: Target,
        /// What did not work before it, and does not count against it.
        #[serde(default)]
        before: Before,
        /// What the trial said of itself before it went back.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        verdict: Option<Verdict>,
    },
}

/// Why, and what exactly.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Verdict {
    /// The stable word.
    pub reason: Reason,
    /// For a person, one line.
    pub detail: String,
}

impl Verdict {
    /// One line, cut to what is kept.
    pub fn new(reason: Reason, detail: impl AsRef<str>) -> Verdict {
        let line = detail.as_ref().chars().map(|c| if c.is_control() { ' ' } else { c });
        Verdict { reason, detail: line.take(DETAIL_MAX).collect() }
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.detail.is_empty() {
            true => write!(f, "{}", self.reason),
            false => write!(f, "{} ({})", self.reason, self.detail),
        }
    }
}

/// A release that was tried, and how often in vain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Tried {
    /// Its number.
    pub version: u64,
    /// SHA-256 of its manifest.
    pub digest: String,
    /// Tries that counted.
    pub tries: u32,
    /// How the last one ended; none while it is under way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Verdict>,
}

/// All that is known; what the journal holds.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Record {
    /// The slot that starts unless a trial was asked for.
    pub committed: Slot,
    /// The release in it.
    pub version: u64,
    /// SHA-256 of its manifest's JSON, hexadecimal.
    pub digest: String,
    /// No release below this is ever started again.
    #[serde(default)]
    pub floor: u64,
    /// What is under way.
    #[serde(flatten)]
    pub phase: Phase,
    /// Releases that failed, the latest last.
    #[serde(default)]
    pub tried: Vec<Tried>,
    /// Bytes that updates have written to flash over the life of this record.
    #[serde(default)]
    pub flash_bytes: u64,
}

/// An edge that does not exist.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEdge {
    /// Not from here.
    #[error("cannot {edge}: the machine is {phase}")]
    Phase {
        /// What was wanted.
        edge: &'static str,
        /// Where it is.
        phase: &'static str,
    },
    /// The release failed too often.
    #[error("release {version} failed {tries} times, the last time: {last}")]
    Skipped {
        /// Its number.
        version: u64,
        /// How often.
        tries: u32,
        /// Why.
        last: String,
    },
    /// Below the floor.
    #[error("release {version} is below the floor {floor}")]
    BelowFloor {
        /// Its number.
        version: u64,
        /// The floor.
        floor: u64,
    },
}

impl Phase {
    /// For people.
    pub fn name(&self) -> &'static str {
        match self {
            Phase::Idle => "idle",
            Phase::Writing { .. } => "writing",
            Phase::Staged { .. } => "staged",
            Phase::Trying { .. } => "trying",
        }
    }

    /// What is under way.
    pub fn target(&self) -> Option<&Target> {
        match self {
            Phase::Idle => None,
            Phase::Writing { target } | Phase::Staged { target } | Phase::Trying { target, .. } => {
                Some(target)
            }
        }
    }
}

impl Record {
    /// Of a machine that has no journal yet, or lost it: what runs is what is committed.
    pub fn adopt(running: Slot, release: Target) -> Record {
        let floor = release.floor.min(release.version);
        Record {
            committed: running,
            version: release.version,
            digest: release.digest,
            floor,
            phase: Phase::Idle,
            tried: Vec::new(),
            flash_bytes: 0,
        }
    }

    /// The slot that updates are written to.
    pub fn other(&self) -> Slot {
        self.committed.other()
    }

    /// Whether a release was given up, and why.
    pub fn skipped(&self, digest: &str) -> Option<&Tried> {
        self.tried.iter().find(|tried| tried.digest == digest && tried.tries >= TRIES_MAX)
    }

    /// Whether an offered release is to be taken: `Ok(false)` when it runs already.
    ///
    /// # Errors
    /// It was given up.
    pub fn wants(&self, version: u64, digest: &str) -> Result<bool, Verdict> {
        if digest == self.digest || version <= self.version {
            return Ok(false);
        }
        match self.skipped(digest) {
            None => Ok(true),
            Some(tried) => {
                let last = tried.last.clone().unwrap_or_else(|| Verdict::new(Reason::NoWord, ""));
                let detail =
                    format!("release {version} was given up after {} tries: {}", tried.tries, last.detail);
                Err(Verdict::new(last.reason, detail))
            }
        }
    }

    /// How often a release was tried.
    pub fn tries(&self, digest: &str) -> u32 {
        self.tried.iter().find(|tried| tried.digest == digest).map_or(0, |tried| tried.tries)
    }

    /// The other slot is about to be made unbootable and written. From everywhere but a trial: a release that is
    /// staged gives way to a newer one, and writing that was cut begins again.
    ///
    /// # Errors
    /// A trial is under way; the release was given up; it is below the floor.
    pub fn begin(&self, target: Target) -> Result<Record, NoEdge> {
        if matches!(self.phase, Phase::Trying { .. }) {
            return Err(self.no_edge("begin"));
        }
        self.check(&target)?;
        Ok(self.with(Phase::Writing { target }))
    }

    /// The other slot was read back and is whole.
    ///
    /// # Errors
    /// Nothing was being written.
    pub fn written(&self) -> Result<Record, NoEdge> {
        match &self.phase {
            Phase::Writing { target } => Ok(self.with(Phase::Staged { target: target.clone() })),
            _ => Err(self.no_edge("stage")),
        }
    }

    /// A trial is about to be asked for. It counts from here: whatever happens after this record is one try.
    ///
    /// # Errors
    /// Nothing is staged; the tries are used up.
    pub fn ask(&self, before: Before) -> Result<Record, NoEdge> {
        let Phase::Staged { target } = &self.phase else { return Err(self.no_edge("try")) };
        self.check(target)?;
        let mut next = self.with(Phase::Trying { target: target.clone(), before, verdict: None });
        next.count(target, None);
        Ok(next)
    }

    /// The trial says of itself why it goes back; it is about to restart.
    ///
    /// # Errors
    /// No trial is under way.
    pub fn judge(&self, verdict: Verdict) -> Result<Record, NoEdge> {
        match &self.phase {
            Phase::Trying { target, before, .. } => {
                let (target, before) = (target.clone(), before.clone());
                Ok(self.with(Phase::Trying { target, before, verdict: Some(verdict) }))
            }
            _ => Err(self.no_edge("judge")),
        }
    }

    /// The trial is healthy and the switch names its slot.
    ///
    /// # Errors
    /// No trial is under way.
    pub fn keep(&self) -> Result<Record, NoEdge> {
        let Phase::Trying { target, .. } = &self.phase else { return Err(self.no_edge("keep")) };
        let mut next = self.with(Phase::Idle);
        next.committed = self.other();
        next.version = target.version;
        next.digest = target.digest.clone();
        next.floor = self.floor.max(target.floor.min(target.version));
        next.tried.retain(|tried| tried.digest != target.digest);
        Ok(next)
    }

    /// Whether an ended trial leaves its slot as it is, to be tried once more.
    pub fn may_try_again(&self, verdict: &Verdict) -> bool {
        let tries = self.phase.target().map_or(TRIES_MAX, |target| self.tries(&target.digest));
        matches!(self.phase, Phase::Trying { .. }) && !verdict.reason.condemns() && tries < TRIES_MAX
    }

    /// The trial is over, the committed slot runs, and what was tried stays staged.
    ///
    /// # Errors
    /// No trial is under way, or it may not be tried again.
    pub fn try_again(&self, verdict: Verdict) -> Result<Record, NoEdge> {
        match &self.phase {
            Phase::Trying { target, .. } if self.may_try_again(&verdict) => {
                let mut next = self.with(Phase::Staged { target: target.clone() });
                next.say(target, verdict);
                Ok(next)
            }
            _ => Err(self.no_edge("try again")),
        }
    }

    /// What is under way is given up. The other slot was made unbootable before.
    ///
    /// A trial was counted when it was asked for; writing counts here, where the release is to blame.
    ///
    /// # Errors
    /// Nothing is under way.
    pub fn give_up(&self, verdict: Verdict) -> Result<Record, NoEdge> {
        let target = self.phase.target().ok_or_else(|| self.no_edge("give up"))?.clone();
        let mut next = self.with(Phase::Idle);
        match (&self.phase, verdict.reason.counts()) {
            (Phase::Writing { .. } | Phase::Staged { .. }, true) => next.count(&target, Some(verdict)),
            _ => next.say(&target, verdict),
        }
        Ok(next)
    }

    /// The other slot's release is the committed one from now on, and not because it is better: the firmware started
    /// it by itself, or a person asked to go back. What was committed counts as tried; by a person, as given up.
    pub fn fell_over(&self, release: Target, verdict: Verdict) -> Record {
        let mut next = self.with(Phase::Idle);
        let lost = Target { version: self.version, digest: self.digest.clone(), floor: 0 };
        let is_asked = verdict.reason == Reason::Asked;
        next.count(&lost, Some(verdict));
        if is_asked {
            next.entry(&lost).tries = TRIES_MAX;
        }
        next.committed = self.other();
        next.version = release.version;
        next.digest = release.digest;
        next
    }

    /// With so many bytes more written to flash.
    pub fn spent(mut self, bytes: u64) -> Record {
        self.flash_bytes = self.flash_bytes.saturating_add(bytes);
        self
    }

    fn with(&self, phase: Phase) -> Record {
        Record { phase, ..self.clone() }
    }

    fn no_edge(&self, edge: &'static str) -> NoEdge {
        NoEdge::Phase { edge, phase: self.phase.name() }
    }

    fn check(&self, target: &Target) -> Result<(), NoEdge> {
        if target.version < self.floor {
            return Err(NoEdge::BelowFloor { version: target.version, floor: self.floor });
        }
        match self.skipped(&target.digest) {
            Some(Tried { version, tries, last, .. }) => Err(NoEdge::Skipped {
                version: *version,
                tries: *tries,
                last: last.as_ref().map_or_else(|| Reason::NoWord.word().into(), ToString::to_string),
            }),
            None => Ok(()),
        }
    }

    /// The entry of a release, last in the list.
    fn entry(&mut self, target: &Target) -> &mut Tried {
        let found = self.tried.iter().position(|tried| tried.digest == target.digest);
        let entry = match found {
            Some(at) => self.tried.remove(at),
            None => Tried { version: target.version, digest: target.digest.clone(), tries: 0, last: None },
        };
        if self.tried.len() >= REMEMBERED {
            self.tried.remove(0);
        }
        self.tried.push(entry);
        let last = self.tried.len() - 1;
        &mut self.tried[last]
    }

    fn count(&mut self, target: &Target, verdict: Option<Verdict>) {
        let entry = self.entry(target);
        entry.tries += 1;
        if verdict.is_some() {
            entry.last = verdict;
        }
    }

    fn say(&mut self, target: &Target, verdict: Verdict) {
        self.entry(target).last = Some(verdict);
    }
}

/// What the start showed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Started {
    /// The slot that runs.
    pub running: Slot,
    /// The release in it.
    pub release: Target,
    /// The slot that the switch names; `None` when it is garbage.
    pub switch: Option<Slot>,
    /// The request for a trial still stands: no boot loader has taken it.
    pub pending: bool,
}

/// What is to be done first after a start, before anything else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum First {
    /// Nothing.
    Nothing,
    /// This is the trial: it is to be judged.
    Judge,
    /// The switch names this slot already, and the journal does not know: it was cut between the two.
    Keep,
    /// A trial is over; this is how it ended.
    Over(Verdict),
    /// The committed slot was not started although nobody asked for the other.
    FellOver(Verdict),
}

impl Record {
    /// Reads the start against the record.
    pub fn after(&self, started: &Started) -> First {
        if started.running == self.committed {
            return match &self.phase {
                Phase::Trying { verdict: Some(verdict), .. } => First::Over(verdict.clone()),
                Phase::Trying { verdict: None, .. } if started.pending => First::Over(Verdict::new(
                    Reason::NotApplied,
                    "the boot loader did not take the request for a trial",
                )),
                Phase::Trying { verdict: None, .. } => First::Over(Verdict::new(
                    Reason::NoWord,
                    "the trial ended without a word: its kernel died, or the power went",
                )),
                _ => First::Nothing,
            };
        }
        match &self.phase {
            Phase::Trying { .. } if started.switch == Some(started.running) => First::Keep,
            Phase::Trying { .. } => First::Judge,
            // With garbage in the switch a boot loader takes the newest: what is staged is then on trial unasked.
            Phase::Staged { target } if target.digest == started.release.digest => First::Judge,
            _ => First::FellOver(Verdict::new(
                Reason::SlotDamaged,
                "the committed slot was not started, and nobody asked for the other",
            )),
        }
    }
}

/// What the rescue of a Pi writes into the switch when firmware could make nothing of it: the committed slot when it is
/// whole, else the other one. `versions` are those of the slots that are whole, A first.
///
/// Without a journal it is the newest, which a boot loader that lists its entries would take as well.
pub fn rescue(record: Option<&Record>, versions: [Option<u64>; 2]) -> Option<Slot> {
    let whole = |slot: Slot| match slot {
        Slot::A => versions[0],
        Slot::B => versions[1],
    };
    let newest = || {
        [Slot::A, Slot::B].into_iter().filter(|slot| whole(*slot).is_some()).max_by_key(|slot| whole(*slot))
    };
    match record {
        Some(record) if whole(record.committed).is_some() => Some(record.committed),
        _ => newest(),
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
