//! `bramble.lock`: everything that was resolved, and everything that was allocated and must never be reused.

use crate::names::Arch;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The lock file. Written as TOML, committed to git.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// Format of this document: 1.
    pub format: u32,
    /// Version of the tool that wrote it.
    pub tool: String,
    /// What was allocated to nodes and to the cluster.
    #[serde(default)]
    pub allocated: Allocated,
    /// System users and groups of the image: name to number. A number never moves between images.
    #[serde(default)]
    pub users: BTreeMap<String, u32>,
    /// Programs that do not come from Debian.
    #[serde(default)]
    pub programs: BTreeMap<Arch, Vec<LockedProgram>>,
    /// Debian packages.
    #[serde(default)]
    pub packages: BTreeMap<Arch, PackageSet>,
    /// Debian packages whose files the lab uses on this computer: UEFI firmware for the machines. Never installed.
    #[serde(default)]
    pub lab: BTreeMap<Arch, PackageSet>,
}

/// What was allocated once and is never reused or renumbered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Allocated {
    /// The cluster has been founded: ranges, domain and datastore are fixed.
    #[serde(default)]
    pub founded: bool,
    /// Next node number that was never given.
    #[serde(default)]
    pub next_number: u32,
    /// The newest release of each architecture.
    #[serde(default)]
    pub releases: BTreeMap<Arch, AllocatedRelease>,
    /// Whose card founds the cluster; fixed when the first server's first card is written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub founder: Option<Founder>,
    /// By node name; a deleted node's entry stays, so that its number is not given again.
    #[serde(default)]
    pub nodes: BTreeMap<String, AllocatedNode>,
}

/// What one node was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllocatedNode {
    /// Its number.
    pub number: u32,
    /// Its range of pods.
    pub pod_range: Ipv4Net,
    /// How many cards it has had: 1 for the first.
    pub incarnation: u32,
    /// Its last card may start a machine. A card that was not written to its end never counts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub written: bool,
}

/// The card that founds the cluster: no other card ever does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Founder {
    /// The server.
    pub node: String,
    /// Which of its cards.
    pub incarnation: u32,
}

/// The number of a release, and what it was made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AllocatedRelease {
    /// Monotonic version; a release from other inputs gets a higher one.
    pub version: u64,
    /// Digest of the inputs, hexadecimal.
    pub inputs: String,
    /// SHA-256 of the placement of the release before, hexadecimal, when files were placed by it: the one thing beside
    /// the inputs that the bytes depend on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub placed_by: Option<String>,
}

/// The Debian packages of one architecture.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackageSet {
    /// Digest of what was asked for (names, suites); a change means that the set is to be resolved again.
    pub request: String,
    /// Seconds since the epoch of the newest index used: the time to look for in an archive snapshot, and the
    /// time stamp of every file of the image.
    pub snapshot: u64,
    /// Sorted by name.
    #[serde(default, rename = "package")]
    pub packages: Vec<LockedPackage>,
}

/// One Debian package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedPackage {
    /// Name.
    pub name: String,
    /// Full version with epoch and revision.
    pub version: String,
    /// Debian architecture of the file: `amd64`, `arm64`, `all`.
    pub arch: String,
    /// Suite it came from: `trixie`, `trixie-security`, `trixie-backports`.
    pub suite: String,
    /// Path below the archive's root.
    pub filename: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}

/// One program that does not come from Debian.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LockedProgram {
    /// File name on the machine.
    pub name: String,
    /// Version with `v`.
    pub version: String,
    /// How it was got: `release` or `modules`.
    pub source: String,
    /// Content key of its inputs (recipe, versions, compiler), hexadecimal.
    pub key: String,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
}
