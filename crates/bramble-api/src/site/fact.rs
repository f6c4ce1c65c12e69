//! A thing that was looked at.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Who said so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Source {
    /// Nobody: it was not looked at.
    #[default]
    Nobody,
    /// The node's own API.
    NodeApi,
    /// Talos' machine API.
    TalosApi,
    /// The Kubernetes API.
    Kubernetes,
    /// The datastore's members.
    Datastore,
    /// The local network: an answer on a port, an ARP entry.
    Lan,
    /// Where releases are fetched.
    UpdateSource,
    /// The working tree.
    Git,
    /// The lock.
    Lock,
}

impl Source {
    /// What a person calls it.
    pub fn words(self) -> &'static str {
        match self {
            Source::Nobody => "nobody",
            Source::NodeApi => "node API",
            Source::TalosApi => "Talos API",
            Source::Kubernetes => "Kubernetes API",
            Source::Datastore => "datastore",
            Source::Lan => "local network",
            Source::UpdateSource => "update source",
            Source::Git => "git",
            Source::Lock => "lock",
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.words())
    }
}

/// A thing that was looked at: its value, or why it is not known; who said so, and when.
///
/// Unknown is a value like others: nothing is ever assumed in its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fact<T> {
    /// What it is, when it is known.
    #[serde(default = "nothing", skip_serializing_if = "Option::is_none")]
    pub value: Option<T>,
    /// Why it is not known; empty when it is.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
    /// Who said so.
    #[serde(default)]
    pub source: Source,
    /// Seconds since the epoch when it was true.
    #[serde(default)]
    pub at: u64,
}

fn nothing<T>() -> Option<T> {
    None
}

impl<T> Default for Fact<T> {
    fn default() -> Fact<T> {
        Fact { value: None, why: "was not looked at".to_string(), source: Source::Nobody, at: 0 }
    }
}

impl<T> Fact<T> {
    /// A known value.
    pub fn known(value: T, source: Source, at: u64) -> Fact<T> {
        Fact { value: Some(value), why: String::new(), source, at }
    }

    /// Looked for, and not learned.
    pub fn unknown(why: impl Into<String>, source: Source, at: u64) -> Fact<T> {
        Fact { value: None, why: why.into(), source, at }
    }

    /// The value.
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Seconds between the look and now.
    pub fn age(&self, now: u64) -> u64 {
        now.saturating_sub(self.at)
    }

    /// Changes the value and keeps who said so and when: what a step will have made of it.
    pub fn becomes(&mut self, value: T) {
        self.value = Some(value);
        self.why.clear();
    }
}

impl<T: PartialEq> Fact<T> {
    /// Whether it is known to be this.
    pub fn is(&self, value: &T) -> bool {
        self.value.as_ref() == Some(value)
    }
}
