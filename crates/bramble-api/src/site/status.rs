//! The table that a person reads.

use super::change::Change;
use super::waiting::WaitingOn;
use crate::names::Role;
use serde::{Deserialize, Serialize};
use std::fmt;

/// How a machine is, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It does what it should.
    Ready,
    /// It is part of the cluster and not Ready.
    NotReady,
    /// Pods are kept off it.
    Cordoned,
    /// It starts for the first time, or waits for its configuration.
    Joining,
    /// It sleeps.
    Asleep,
    /// It does not answer.
    Silent,
    /// Another machine answers in its place.
    Foreign,
    /// It was never seen.
    Missing,
    /// It is on; whether it is Ready is not known.
    Unknown,
    /// It is in the cluster and not in the file.
    Leaving,
}

impl fmt::Display for NodeState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NodeState::Ready => "Ready",
            NodeState::NotReady => "not Ready",
            NodeState::Cordoned => "cordoned",
            NodeState::Joining => "joining",
            NodeState::Asleep => "asleep",
            NodeState::Silent => "silent",
            NodeState::Foreign => "foreign",
            NodeState::Missing => "never seen",
            NodeState::Unknown => "unknown",
            NodeState::Leaving => "leaving",
        })
    }
}

/// One machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StatusRow {
    /// Which machine.
    pub node: String,
    /// What it does; none for one that is not in the file.
    pub role: Option<Role>,
    /// How it is.
    pub state: NodeState,
    /// What it runs, empty when unknown.
    pub version: String,
    /// Kubernetes that it runs, empty when unknown or without.
    pub kubernetes: String,
    /// Seconds since it was seen; none when it never was.
    pub age: Option<u64>,
    /// What the plan would do to it now, or what it does.
    pub doing: Vec<String>,
    /// Differences that stay, with every reason.
    pub waiting: Vec<(Change, Vec<WaitingOn>)>,
}

/// All machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Status {
    /// Format of this document: 1.
    pub format: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Seconds since the epoch.
    pub now: u64,
    /// The API server, or why it is not known.
    pub api: String,
    /// Machines in the file's order, then those that leave.
    pub rows: Vec<StatusRow>,
}
