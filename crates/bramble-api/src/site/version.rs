//! Releases, and what goes with what. The tables are data: whoever plans is given them.

use crate::names::UnknownName;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// A release of Kubernetes, k3s or Talos: `v1.36.3`, `v1.36.4+k3s1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Version {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number.
    pub patch: u16,
    /// What follows `+`, empty when there is none: `k3s1`.
    pub build: String,
}

impl Version {
    /// Both have the same first two numbers.
    pub fn same_minor(&self, other: &Version) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
    }

    /// First two numbers, `1.36`.
    pub fn line(&self) -> String {
        format!("{}.{}", self.major, self.minor)
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)?;
        if !self.build.is_empty() {
            write!(f, "+{}", self.build)?;
        }
        Ok(())
    }
}

impl FromStr for Version {
    type Err = UnknownName;
    fn from_str(text: &str) -> Result<Version, UnknownName> {
        let read = || {
            let rest = text.strip_prefix('v')?;
            let (numbers, build) = rest.split_once('+').unwrap_or((rest, ""));
            let mut numbers = numbers.split('.').map(|n| n.parse::<u16>().ok());
            let version = Version {
                major: numbers.next()??,
                minor: numbers.next()??,
                patch: numbers.next()??,
                build: build.to_string(),
            };
            numbers.next().is_none().then_some(version)
        };
        read().ok_or_else(|| UnknownName { kind: "version", name: text.to_string() })
    }
}

impl TryFrom<String> for Version {
    type Error = UnknownName;
    fn try_from(text: String) -> Result<Version, UnknownName> {
        text.parse()
    }
}

impl From<Version> for String {
    fn from(version: Version) -> String {
        version.to_string()
    }
}

/// The operating system of a machine, with its release. Which family a machine belongs to is which of these it wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Os {
    /// Bramble OS: the monotonic number of the release. Its Kubernetes is part of it.
    Bramble(u64),
    /// Talos. Its Kubernetes is chosen apart.
    Talos(Version),
}

impl Os {
    /// Whether both are of one family.
    pub fn same_family(&self, other: &Os) -> bool {
        matches!((self, other), (Os::Bramble(_), Os::Bramble(_)) | (Os::Talos(_), Os::Talos(_)))
    }
}

impl fmt::Display for Os {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Os::Bramble(release) => write!(f, "release {release}"),
            Os::Talos(version) => write!(f, "talos {version}"),
        }
    }
}

/// A line of Talos releases.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TalosLine {
    /// Its minor.
    pub minor: u16,
    /// The newest patch that is known; hops go through it.
    pub newest: u16,
    /// The oldest minor that it upgrades from.
    pub upgrades_from: u16,
    /// Minors of Kubernetes 1 that it runs, first and last.
    pub kubernetes: (u16, u16),
}

/// Which release follows which.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionTable {
    /// Lines of Talos, oldest first.
    pub talos: Vec<TalosLine>,
    /// Newest known patch of a minor of Kubernetes 1; `.0` is taken where none is known.
    pub kubernetes: std::collections::BTreeMap<u16, u16>,
}

impl VersionTable {
    /// The line that a release of Talos belongs to.
    pub fn line(&self, version: &Version) -> Option<&TalosLine> {
        self.talos.iter().find(|line| version.major == 1 && line.minor == version.minor)
    }

    /// The next release of Talos on the way: every minor is gone through. `None` when there is no way.
    pub fn next_talos(&self, from: &Version, to: &Version) -> Option<Version> {
        if from.same_minor(to) {
            return Some(to.clone());
        }
        let minor = from.minor + 1;
        let line = self.talos.iter().find(|line| line.minor == minor)?;
        if from.major != 1 || to.major != 1 || to.minor < minor || line.upgrades_from > from.minor {
            return None;
        }
        Some(match to.minor == minor {
            true => to.clone(),
            false => Version { major: 1, minor, patch: line.newest, build: String::new() },
        })
    }

    /// The next release of Kubernetes on the way: one minor after another.
    pub fn next_kubernetes(&self, from: &Version, to: &Version) -> Version {
        if from.minor + 1 >= to.minor {
            return to.clone();
        }
        let minor = from.minor + 1;
        let patch = self.kubernetes.get(&minor).copied().unwrap_or(0);
        Version { major: to.major, minor, patch, build: to.build.clone() }
    }

    /// Whether a Talos runs a Kubernetes. A Talos that the table does not know runs none.
    pub fn runs(&self, talos: &Version, kubernetes: &Version) -> bool {
        self.line(talos).is_some_and(|line| {
            kubernetes.major == 1 && (line.kubernetes.0..=line.kubernetes.1).contains(&kubernetes.minor)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Version {
        text.parse().unwrap()
    }

    #[test]
    fn versions_read_write_and_order() {
        for text in ["v1.36.3", "v1.36.4+k3s1"] {
            assert_eq!(v(text).to_string(), text);
            assert_eq!(
                serde_json::from_str::<Version>(&serde_json::to_string(&v(text)).unwrap()).unwrap(),
                v(text)
            );
        }
        assert!(v("v1.9.0") < v("v1.36.0"));
        for text in ["1.36.3", "v1.36", "v1.36.3.4", "v1.x.0"] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
    }

    #[test]
    fn hops_go_through_every_minor() {
        let line =
            |minor, newest, kubernetes| TalosLine { minor, newest, upgrades_from: minor - 2, kubernetes };
        let table = VersionTable {
            talos: vec![line(12, 11, (30, 35)), line(13, 9, (31, 36)), line(14, 1, (32, 37))],
            kubernetes: [(35, 7)].into(),
        };
        assert_eq!(table.next_talos(&v("v1.12.3"), &v("v1.14.1")), Some(v("v1.13.9")));
        assert_eq!(table.next_talos(&v("v1.13.2"), &v("v1.14.0")), Some(v("v1.14.0")));
        assert_eq!(table.next_talos(&v("v1.14.0"), &v("v1.15.0")), None);
        assert_eq!(table.next_talos(&v("v1.9.0"), &v("v1.14.0")), None);
        assert_eq!(table.next_kubernetes(&v("v1.34.1"), &v("v1.36.3")), v("v1.35.7"));
        assert_eq!(table.next_kubernetes(&v("v1.33.1"), &v("v1.36.3")), v("v1.34.0"));
        assert!(table.runs(&v("v1.13.9"), &v("v1.36.0")) && !table.runs(&v("v1.13.9"), &v("v1.37.0")));
    }
}
