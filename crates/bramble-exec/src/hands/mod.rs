//! The hands that build: each performs the steps of one kind, and looks first whether the result is there.

mod image;
mod k3s;
mod packages;
mod programs;
mod publish;
mod release;

use crate::cards::LabCards;
use crate::project::{Project, ProjectError};
use crate::vault::Vault;
use bramble_api::event::Outcome;
use bramble_api::lock::Lock;
use bramble_api::names::Arch;
use bramble_api::plan::{Step, StepKind};
use bramble_effects::{Clock, Context, Failure, Hand};
use bramble_plan::NextCard;
use bramble_spec::{Cluster, EffectiveNode};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

pub use image::{DiskPiece, NodeDisk, node_disk, node_document, node_settings};
pub use packages::lab_firmware;
use programs::ProgramFiles;
pub use programs::kubectl;
pub use publish::{Publishing, published};

/// Everything that the building steps work with. Made once for a run.
pub struct Builder<'a> {
    /// Where everything lies.
    pub project: &'a Project,
    /// The checked file.
    pub cluster: &'a Cluster,
    /// The lock, as this run leaves it.
    pub lock: Mutex<Lock>,
    /// Keys of the house, or of the lab. Opened when first needed.
    pub vault: &'a (dyn Fn() -> Result<&'a Vault, Failure> + Sync),
    /// Where releases go.
    pub out: PathBuf,
    /// Where earlier releases are looked for, so that files keep their places and machines get differences; and where the
    /// new one is published.
    pub publishing: Publishing,
    /// The agent for an architecture.
    pub agent: &'a (dyn Fn(Arch) -> Option<PathBuf> + Sync),
    /// Words for the kernel's command line beside the file's.
    pub cmdline: Vec<String>,
    /// The lab's own count of cards, when the releases go to lab machines.
    pub lab: Option<LabCards>,
    /// Where machines look for releases in place of what the file says: a lab's must not ask the house's source.
    pub updates_source: Option<String>,
    /// Tells the time.
    pub clock: &'a dyn Clock,
}

impl Builder<'_> {
    /// The lock as it is now.
    pub fn lock(&self) -> MutexGuard<'_, Lock> {
        // Steps change the lock by whole assignments; after a panic elsewhere it is still one of them.
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the lock, if it changed. What a lab did to cards stays in the lab.
    pub fn keep_lock(&self) -> Result<(), Failure> {
        // Held over the writing: disks are written side by side, and an older lock must not come last.
        let lock = self.lock();
        match &self.lab {
            None => self.project.write_lock(&lock).map_err(from_project),
            Some(lab) => {
                lab.keep(&lock.allocated)?;
                self.project.write_lock(&lab.of_house(&lock)).map_err(from_project)
            }
        }
    }

    /// Counts a card of a node that is about to be written, durably, and gives it a new nonce unless it goes on.
    pub fn begin_card(&self, node: &str, card: NextCard) -> Result<(), Failure> {
        {
            let mut lock = self.lock();
            lock.allocated = bramble_plan::begin_card(&lock.allocated, self.cluster, node, card);
        }
        self.keep_lock()?;
        if card == NextCard::GoesOn {
            return Ok(());
        }
        let vault = (self.vault)()?;
        vault.renew_incarnation(node)?;
        vault.save(self.clock.now())
    }

    /// Takes the last card of a node back: it was not written to its end.
    pub fn card_unfinished(&self, node: &str) -> Result<(), Failure> {
        {
            let mut lock = self.lock();
            lock.allocated = bramble_plan::card_unfinished(&lock.allocated, node);
        }
        self.keep_lock()
    }

    /// A node of the file.
    fn node(&self, name: &str) -> Result<EffectiveNode, Failure> {
        self.cluster
            .effective_nodes()
            .into_iter()
            .find(|n| n.name == name)
            .ok_or_else(|| Failure::bug(format!("the plan names {name}, which the file does not have")))
    }
}

/// A project error as a failure of a step.
pub(crate) fn from_project(error: ProjectError) -> Failure {
    match error {
        ProjectError::Io { act, path, source } => {
            Failure::user(format!("cannot {act} {}", path.display())).source(source)
        }
        other => Failure::user(other.to_string()),
    }
}

impl Hand for Builder<'_> {
    fn perform(&self, step: &Step, context: &Context<'_>) -> Result<Outcome, Failure> {
        match &step.kind {
            StepKind::LockPackages { arch } => self.lock_packages(*arch, context),
            StepKind::FetchPackages { arch } => self.fetch_packages(*arch, context),
            StepKind::FetchPrograms { arch, version } => self.fetch_programs(*arch, version, context),
            StepKind::BuildRelease { arch } => self.build_release(*arch, context),
            StepKind::PublishRelease { arch } => self.publish_release(*arch, context),
            StepKind::IssueIdentity { node } => self.issue_identity(node),
            StepKind::WriteImage { node } => self.write_image(node, context),
            StepKind::LabStart
            | StepKind::LabDisk { .. }
            | StepKind::LabFlash { .. }
            | StepKind::LabPower { .. }
            | StepKind::LabReady { .. } => {
                Err(Failure::bug(format!("step {} belongs to the lab, not to the builder", step.id)))
            }
            StepKind::TalosPush { .. }
            | StepKind::TalosConfigure { .. }
            | StepKind::TalosBootstrap { .. } => {
                Err(Failure::bug(format!("step {} is for a machine that runs, not for the builder", step.id)))
            }
            StepKind::FlashDisk { .. } => Err(Failure::bug(format!(
                "step {} needs a confirmed disk, which the builder has not",
                step.id
            ))),
        }
    }
}
