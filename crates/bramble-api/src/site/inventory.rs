//! What was seen of a site. It may be partial and stale; every fact says how old it is.

use super::fact::Fact;
use super::version::{Os, Version};
use crate::names::Arch;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// All facts of a site.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inventory {
    /// Format of this document: 1.
    pub format: u32,
    /// Seconds since the epoch when the look ended.
    pub observed_at: u64,
    /// Machines by node name: those of the file, and those that are known although they are not in it.
    #[serde(default)]
    pub machines: BTreeMap<String, Machine>,
    /// Version of the API server that answered.
    #[serde(default)]
    pub api: Fact<Version>,
    /// Budgets of disruption that let go of no pod at all.
    #[serde(default)]
    pub budgets: Fact<Vec<Budget>>,
    /// Who rolls something out.
    #[serde(default)]
    pub holder: Fact<Holder>,
    /// Releases of Bramble OS that machines can fetch.
    #[serde(default)]
    pub releases: Fact<Vec<Release>>,
    /// The working tree.
    #[serde(default)]
    pub git: Fact<Git>,
}

/// Facts of one machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Machine {
    /// Whether it is on.
    pub power: Fact<Power>,
    /// Who it is.
    pub identity: Fact<Identity>,
    /// What it runs.
    pub os: Fact<Os>,
    /// Its kubelet; a control plane's API server has the same.
    pub kubernetes: Fact<Version>,
    /// Digest of the part of its configuration that is applied while it runs.
    pub live: Fact<String>,
    /// Digest of the part of its configuration that needs a restart.
    pub fixed: Fact<String>,
    /// Labels in Kubernetes that are ours to set.
    pub labels: Fact<BTreeMap<String, String>>,
    /// Taints in Kubernetes.
    pub taints: Fact<Vec<String>>,
    /// It is a node of the cluster.
    pub joined: Fact<bool>,
    /// It is Ready.
    pub ready: Fact<bool>,
    /// Whether pods are kept off it.
    pub cordon: Fact<Cordon>,
    /// What it is to the datastore.
    pub member: Fact<Member>,
    /// Certificates that do not renew themselves.
    pub certificates: Fact<Vec<Certificate>>,
    /// Generations of each authority that it trusts.
    pub trusts: Fact<BTreeMap<String, Vec<u32>>>,
    /// What lies on the disk that would be installed to.
    pub disk: Fact<DiskContents>,
    /// Bytes free where a release or an image is put.
    pub free: Fact<u64>,
    /// Releases that failed on it as often as is tried.
    pub skipped: Fact<Vec<Os>>,
    /// A release that it tries now.
    pub trial: Fact<Trial>,
    /// It answers requests from outside for the cluster.
    pub ingress: Fact<bool>,
    /// Volumes whose data lie on it alone.
    pub local_volumes: Fact<u32>,
}

/// Whether a machine is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Power {
    /// It answers.
    On,
    /// It was sent to sleep, and is woken for its window.
    Asleep,
    /// It should answer and does not.
    Silent,
}

/// Who a machine is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Identity {
    /// It has our keys.
    Ours {
        /// Which of its cards.
        incarnation: u32,
        /// It is driven by this file; a machine that was installed otherwise is not yet.
        adopted: bool,
    },
    /// It waits for a configuration and belongs to nobody (Talos' maintenance mode).
    Waiting,
    /// It answers with another authority than ours.
    Foreign {
        /// What it says of itself.
        who: String,
    },
    /// There is none.
    Absent,
}

/// Whether pods are kept off a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Cordon {
    /// They are not.
    None,
    /// By a step of ours, which says so on the node.
    Ours {
        /// Who rolled out.
        holder: String,
        /// Seconds since the epoch.
        at: u64,
    },
    /// By a person: it stays.
    Other,
}

/// What a machine is to the datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Member {
    /// Nothing.
    None,
    /// It learns, and has no voice yet.
    Learner,
    /// It has a voice, and answers.
    Voter,
    /// It has a voice, and does not answer.
    Lost,
}

/// A certificate that does not renew itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Certificate {
    /// What it is for.
    pub name: String,
    /// Name of the authority that issued it.
    pub authority: String,
    /// Which generation of it.
    pub generation: u32,
    /// Seconds since the epoch.
    pub not_before: u64,
    /// Seconds since the epoch.
    pub not_after: u64,
}

/// What lies on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DiskContents {
    /// Nothing that anyone would miss.
    Empty,
    /// An installation of this cluster.
    Ours,
    /// Something of someone else's.
    Foreign,
}

/// A release on trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trial {
    /// None.
    None,
    /// This one, not yet committed.
    Of(Os),
}

/// A budget of disruption that lets go of no pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Budget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Nodes with pods of it.
    pub nodes: Vec<String>,
}

/// Who rolls something out: the Lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Holder {
    /// Nobody.
    Nobody,
    /// Someone.
    Is {
        /// Who: a person at a computer, or the controller.
        who: String,
        /// Seconds since the epoch of the last sign of life.
        renewed: u64,
        /// Seconds for which a sign of life counts.
        lasts: u64,
        /// The node at work, empty when none.
        node: String,
    },
}

/// A release of Bramble OS that machines can fetch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Release {
    /// For which processors.
    pub arch: Arch,
    /// Its number.
    pub version: u64,
    /// Kubernetes in it; none in one for management machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Version>,
}

/// The working tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Git {
    /// The commit, abbreviated; empty outside of a repository.
    pub commit: String,
    /// Something is not committed.
    pub dirty: bool,
}

impl Machine {
    /// Whether it is known to be on.
    pub fn is_on(&self) -> bool {
        self.power.is(&Power::On)
    }

    /// Whether it has our keys, of whichever card.
    pub fn is_ours(&self) -> bool {
        matches!(self.identity.get(), Some(Identity::Ours { .. }))
    }

    /// Whether it has a voice in the datastore, answering or not.
    pub fn votes(&self) -> bool {
        matches!(self.member.get(), Some(Member::Voter | Member::Lost))
    }
}

impl Inventory {
    /// Voices of the datastore: how many there are, and how many answer.
    pub fn voters(&self) -> (usize, usize) {
        let count = |wanted: &[Member]| {
            self.machines.values().filter(|m| m.member.get().is_some_and(|m| wanted.contains(m))).count()
        };
        (count(&[Member::Voter, Member::Lost]), count(&[Member::Voter]))
    }
}

/// How many voices a datastore of so many needs.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}
