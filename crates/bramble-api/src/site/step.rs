//! Acts on a site, and the plan of them.

use super::change::{Change, from_to};
use super::version::{Os, Version};
use super::waiting::{Permission, WaitingOn};
use crate::plan::{NotServed, StepId};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// One idempotent act on one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SiteStep {
    /// Its name, unique in its plan and stable over runs: `upgrade-os/n2/release-14`.
    pub id: StepId,
    /// Which machine.
    pub node: String,
    /// What is done, with everything needed to do it.
    pub act: Act,
    /// Steps that come before.
    pub after: Vec<StepId>,
    /// Why it is in the plan, one sentence.
    pub why: String,
    /// Pods leave the machine first.
    pub drain: bool,
    /// The machine restarts.
    pub restart: bool,
    /// About so many seconds. Windows are held against it.
    pub takes: u64,
}

/// What is done to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Act {
    /// Drive a machine by this file that was installed otherwise. Changes nothing on it.
    Adopt,
    /// Give a waiting machine its configuration.
    Add {
        /// System that it installs.
        os: Os,
        /// What was on its disk is erased.
        erases: bool,
    },
    /// Found the cluster.
    Found,
    /// Send a new configuration.
    Configure {
        /// Digest of the part that is applied while it runs.
        live: String,
        /// Digest of the part that needs a restart.
        fixed: String,
    },
    /// Install another release of the system, and restart into it.
    UpgradeOs {
        /// What runs.
        from: Os,
        /// What will.
        to: Os,
        /// Kubernetes that comes with it.
        kubernetes: Option<Version>,
    },
    /// Change Kubernetes alone.
    UpgradeKubernetes {
        /// What runs.
        from: Version,
        /// What will.
        to: Version,
    },
    /// Set labels and taints.
    Relabel {
        /// All labels that are ours to set.
        labels: BTreeMap<String, String>,
        /// All taints.
        taints: Vec<String>,
    },
    /// Issue certificates anew, by the authorities' newest generations that the site trusts.
    RenewCertificates {
        /// Which.
        names: Vec<String>,
    },
    /// A stage of giving an authority a new generation.
    RotateAuthority {
        /// Which authority.
        name: String,
        /// The new generation.
        to: u32,
        /// How far.
        stage: Stage,
    },
    /// Forget a machine's card, so that the next one takes its place.
    Replace {
        /// The card that goes.
        from: u32,
        /// The card that comes.
        to: u32,
        /// It has a voice in the datastore that is taken from it.
        member: bool,
    },
    /// Take a machine out of the cluster.
    Remove {
        /// It has a voice in the datastore that is taken from it.
        member: bool,
    },
    /// Erase a machine that is not ours any more.
    Reset,
    /// Let pods onto a machine again that a step of ours kept them off.
    Uncordon,
}

/// How far an authority's new generation is. Each stage is done on every machine before the next one begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// The new one is trusted beside the old one.
    Trust,
    /// Certificates are issued by the new one.
    Issue,
    /// The old one is not trusted any more.
    Distrust,
}

impl Stage {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Stage::Trust => "trust",
            Stage::Issue => "issue",
            Stage::Distrust => "distrust",
        }
    }
}

impl Act {
    /// The word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Act::Adopt => "adopt",
            Act::Add { .. } => "add",
            Act::Found => "found",
            Act::Configure { .. } => "configure",
            Act::UpgradeOs { .. } => "upgrade-os",
            Act::UpgradeKubernetes { .. } => "upgrade-kubernetes",
            Act::Relabel { .. } => "relabel",
            Act::RenewCertificates { .. } => "renew-certificates",
            Act::RotateAuthority { .. } => "rotate-authority",
            Act::Replace { .. } => "replace",
            Act::Remove { .. } => "remove",
            Act::Reset => "reset",
            Act::Uncordon => "uncordon",
        }
    }

    /// The permission without which it must not be done, whatever else is said.
    pub fn needs(&self, node: &str) -> Option<Permission> {
        match self {
            Act::Add { erases: true, .. } | Act::Reset => Some(Permission::Wipe(node.to_string())),
            Act::Remove { .. } => Some(Permission::Remove(node.to_string())),
            _ => None,
        }
    }
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Act::Adopt => f.write_str("adopt as it is"),
            Act::Add { os, .. } => write!(f, "add with {os}"),
            Act::Found => f.write_str("found the cluster"),
            Act::Configure { .. } => f.write_str("configuration"),
            Act::UpgradeOs { from, to, kubernetes } => {
                f.write_str(&from_to(Some(from), to))?;
                match kubernetes {
                    Some(kubernetes) => write!(f, ", kubernetes {kubernetes}"),
                    None => Ok(()),
                }
            }
            Act::UpgradeKubernetes { from, to } => write!(f, "kubernetes {from} -> {to}"),
            Act::Relabel { .. } => f.write_str("labels and taints"),
            Act::RenewCertificates { names } => write!(f, "renew {}", names.join(", ")),
            Act::RotateAuthority { name, to, stage } => write!(f, "authority {name} {to}: {}", stage.word()),
            Act::Replace { from, to, .. } => write!(f, "replace card {from} by {to}"),
            Act::Remove { .. } => f.write_str("remove from the cluster"),
            Act::Reset => f.write_str("erase"),
            Act::Uncordon => f.write_str("uncordon"),
        }
    }
}

impl SiteStep {
    /// Whether something that runs on the machine may notice it. Such steps go one after another over the whole site.
    pub fn disrupts(&self) -> bool {
        self.restart || self.drain || matches!(self.act, Act::UpgradeKubernetes { .. })
    }
}

/// A difference that is not removed now, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Held {
    /// Which machine.
    pub node: String,
    /// What differs.
    pub change: Change,
    /// Every reason; never empty.
    pub waiting: Vec<WaitingOn>,
}

/// The first lines of a plan: what it was made from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Summary {
    /// Name of the cluster.
    pub cluster: String,
    /// Machines of the file.
    pub nodes: usize,
    /// Of them asleep.
    pub asleep: usize,
    /// Of them silent.
    pub silent: usize,
    /// Digest of the file and all it names, abbreviated.
    pub spec: String,
    /// What is wrong with the lock; empty when nothing is.
    pub lock: String,
    /// The working tree, when it is known.
    pub commit: String,
    /// Seconds since the epoch when the site was looked at.
    pub observed_at: u64,
    /// Seconds since the epoch when the plan was made.
    pub made_at: u64,
}

/// What will be done to a site, and what will not, and why. Immutable once made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SitePlan {
    /// Format of this document: 1.
    pub format: u32,
    /// What it was made from.
    pub site: Summary,
    /// Digest of everything that it was made from but the time, hexadecimal SHA-256; `apply` refuses a plan whose inputs
    /// changed.
    pub inputs: String,
    /// Steps in an order that respects [`SiteStep::after`].
    pub steps: Vec<SiteStep>,
    /// Differences that stay, each with its reasons.
    pub held: Vec<Held>,
    /// Permissions that were given.
    pub allowed: Vec<Permission>,
    /// What a person should know beside.
    pub notes: Vec<Note>,
    /// Parts of the file that this version does not act on.
    pub not_served: Vec<NotServed>,
}

/// How much a note matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Worth knowing.
    Note,
    /// Worth a thought before going on.
    Warning,
    /// The plan must not run.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        }
    }
}

/// What a check of a plan found.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Note {
    /// How much it matters.
    pub severity: Severity,
    /// Stable word of the check.
    pub check: String,
    /// Which machine; empty for the site.
    pub node: String,
    /// One sentence.
    pub text: String,
}

/// What one part of the planner did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// Which part.
    pub name: String,
    /// Differences that it looked at.
    pub looked_at: usize,
    /// Steps that it made.
    pub steps: Vec<StepId>,
    /// Nodes that it left, with the words of the reasons.
    pub left: BTreeMap<String, Vec<String>>,
}

/// What each part of the planner did, in the order in which they ran.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Report {
    /// The parts.
    pub parts: Vec<Part>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_act_that_erases_names_its_permission() {
        let os = Os::Bramble(3);
        assert_eq!(Act::Add { os: os.clone(), erases: false }.needs("n2"), None);
        assert_eq!(Act::Add { os, erases: true }.needs("n2"), Some(Permission::Wipe("n2".into())));
        assert_eq!(Act::Reset.needs("n2"), Some(Permission::Wipe("n2".into())));
        assert_eq!(Act::Remove { member: false }.needs("n2"), Some(Permission::Remove("n2".into())));
        assert_eq!(Act::Uncordon.needs("n2"), None);
    }
}
