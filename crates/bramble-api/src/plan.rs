//! A plan: what will be done, in which order, and why. Printable, diffable, complete.

use crate::names::Arch;
use serde::{Deserialize, Serialize};

/// What will be done. Immutable once made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Plan {
    /// Format of this document: 1.
    pub format: u32,
    /// Cluster it is for.
    pub cluster: String,
    /// What was asked for: `build`, `fetch`, `lab up`.
    pub purpose: String,
    /// Digest of everything the plan was made from, hexadecimal SHA-256; `apply` refuses a plan whose inputs changed.
    pub inputs: String,
    /// Steps in an order that respects [`Step::after`].
    pub steps: Vec<Step>,
    /// Parts of the file that this version does not act on.
    pub not_served: Vec<NotServed>,
    /// What is not done now, and what it waits for.
    pub waiting: Vec<Waiting>,
}

/// Name of a step, unique in its plan and stable over runs: `build-release/amd64`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepId(pub String);

impl std::fmt::Display for StepId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// One idempotent act.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Step {
    /// Its name.
    pub id: StepId,
    /// What is done, with everything needed to do it.
    pub kind: StepKind,
    /// Steps that come before.
    pub after: Vec<StepId>,
    /// Why it is in the plan, one sentence.
    pub why: String,
}

/// The kinds of act this version knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum StepKind {
    /// Choose packages from the signed indexes and write them to the lock.
    LockPackages {
        /// For which architecture.
        arch: Arch,
    },
    /// Download the locked packages, verified.
    FetchPackages {
        /// For which architecture.
        arch: Arch,
    },
    /// Download or build the Kubernetes programs.
    FetchPrograms {
        /// For which architecture.
        arch: Arch,
        /// Version with `v`.
        version: String,
    },
    /// Lay out root, verity tree, unified kernel image and manifest of one architecture.
    BuildRelease {
        /// For which architecture.
        arch: Arch,
    },
    /// Put the release of one architecture where machines fetch it: manifest, pack, offer.
    PublishRelease {
        /// For which architecture.
        arch: Arch,
    },
    /// Make the keys and certificates of a node that has none, into the secrets file.
    IssueIdentity {
        /// For which node.
        node: String,
    },
    /// Write the disk image of one node, with its identity.
    WriteImage {
        /// For which node.
        node: String,
    },
    /// Write a new incarnation of a node onto a disk that was confirmed, and read it back.
    FlashDisk {
        /// For which node.
        node: String,
        /// Kernel name of the disk, for people: what is written is known by more than its name.
        disk: String,
        /// What the new card starts with.
        start: CardStart,
    },
    /// Give a Talos machine in maintenance mode its first config; it installs.
    TalosPush {
        /// Which node.
        node: String,
        /// Address and port at which it is now.
        address: std::net::SocketAddr,
        /// The key of its certificate, as its console shows it.
        fingerprint: String,
    },
    /// Give a Talos machine another config.
    TalosConfigure {
        /// Which node.
        node: String,
    },
    /// Tell a Talos control plane to begin etcd: it founds the cluster.
    TalosBootstrap {
        /// Which node.
        node: String,
    },
    /// Start the lab's switch, gateway and disk server.
    LabStart,
    /// Make a lab machine's disk from the release, if it has none.
    LabDisk {
        /// For which node.
        node: String,
    },
    /// Write the release and a new incarnation of the node over its lab machine's disk.
    LabFlash {
        /// For which node.
        node: String,
        /// What the new card starts with.
        start: CardStart,
    },
    /// Power a lab machine on.
    LabPower {
        /// For which node.
        node: String,
    },
    /// Wait until the node is Ready in the lab's API.
    LabReady {
        /// For which node.
        node: String,
    },
}

/// What the machine of a new card starts with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CardStart {
    /// Without data; it comes back to the cluster that is there.
    #[default]
    Empty,
    /// With the data partition as it is on the disk.
    KeepData,
    /// Without data; it founds the cluster, of which nothing is left.
    Found,
}

impl StepKind {
    /// Whether steps of this kind that follow each other run at the same time: each waits for a device of its own.
    pub fn side_by_side(&self) -> bool {
        matches!(self, StepKind::FlashDisk { .. })
    }

    /// Whether steps of this kind need the secrets file of the house, so that a run without it need not begin: what
    /// comes before them may take an hour.
    pub fn needs_secrets(&self) -> bool {
        matches!(
            self,
            StepKind::BuildRelease { .. }
                | StepKind::PublishRelease { .. }
                | StepKind::IssueIdentity { .. }
                | StepKind::WriteImage { .. }
                | StepKind::FlashDisk { .. }
                | StepKind::TalosPush { .. }
                | StepKind::TalosConfigure { .. }
                | StepKind::TalosBootstrap { .. }
        )
    }
}

/// A part of the file that this version keeps but does not act on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct NotServed {
    /// Where it stands: `spec.power`.
    pub path: String,
    /// Line in the file, from 1.
    pub line: u32,
}

/// Something wanted that is not done now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// What is not done.
    pub subject: String,
    /// What it waits for, one sentence.
    pub on: String,
}
