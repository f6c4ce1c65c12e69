//! What still differs from what is wanted.

use super::version::{Os, Version};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One difference of one machine. The plan has a step or a reason for each.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Change {
    /// It is not a node of the cluster yet.
    Join,
    /// It runs, and this file does not drive it yet.
    Adopt,
    /// It is to have another card.
    Card(Card),
    /// It runs another system than it should.
    Os {
        /// What it runs, when that is known.
        from: Option<Os>,
        /// What it should.
        to: Os,
    },
    /// It runs another Kubernetes than it should.
    Kubernetes {
        /// What it runs, when that is known.
        from: Option<Version>,
        /// What it should.
        to: Version,
    },
    /// Its configuration differs.
    Configuration {
        /// The difference needs a restart.
        restart: bool,
    },
    /// Labels or taints differ.
    Labels,
    /// Certificates are beyond two thirds of their lives.
    Certificates {
        /// Which.
        names: Vec<String>,
    },
    /// An authority has a new generation.
    Authority {
        /// Which.
        name: String,
        /// The generation that is to be the only one.
        to: u32,
    },
    /// Pods are kept off it by a step of ours that did not end.
    Cordon,
    /// It is in the cluster and not in the file.
    Leave,
    /// It has our keys and data, and is not in the file.
    Erase,
}

/// From which card to which.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Card {
    /// Number of the card that runs.
    pub from: u32,
    /// Number of the card that should.
    pub to: u32,
}

impl Change {
    /// A word for its kind, the same for all of it.
    pub fn kind(&self) -> &'static str {
        match self {
            Change::Join => "join",
            Change::Adopt => "adopt",
            Change::Card(_) => "card",
            Change::Os { .. } => "os",
            Change::Kubernetes { .. } => "kubernetes",
            Change::Configuration { .. } => "configuration",
            Change::Labels => "labels",
            Change::Certificates { .. } => "certificates",
            Change::Authority { .. } => "authority",
            Change::Cordon => "cordon",
            Change::Leave => "leave",
            Change::Erase => "erase",
        }
    }
}

/// `release 12 -> 14`, `talos v1.13.9 -> v1.14.1`: the family once.
pub fn from_to(from: Option<&Os>, to: &Os) -> String {
    match (from, to) {
        (Some(Os::Bramble(from)), Os::Bramble(to)) => format!("release {from} -> {to}"),
        (Some(Os::Talos(from)), Os::Talos(to)) => format!("talos {from} -> {to}"),
        (Some(from), to) => format!("{from} -> {to}"),
        (None, to) => format!("? -> {to}"),
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Change::Join => f.write_str("join"),
            Change::Adopt => f.write_str("adopt"),
            Change::Card(card) => write!(f, "card {} -> {}", card.from, card.to),
            Change::Os { from, to } => f.write_str(&from_to(from.as_ref(), to)),
            Change::Kubernetes { from: Some(from), to } => write!(f, "kubernetes {from} -> {to}"),
            Change::Kubernetes { from: None, to } => write!(f, "kubernetes ? -> {to}"),
            Change::Configuration { .. } => f.write_str("configuration"),
            Change::Labels => f.write_str("labels and taints"),
            Change::Certificates { names } => write!(f, "renew {}", names.join(", ")),
            Change::Authority { name, to } => write!(f, "authority {name} {to}"),
            Change::Cordon => f.write_str("uncordon"),
            Change::Leave => f.write_str("leave"),
            Change::Erase => f.write_str("erase"),
        }
    }
}
