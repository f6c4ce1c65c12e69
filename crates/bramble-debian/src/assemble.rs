//! From package files to a root tree, with no maintainer script run and nothing of the target executed.

use crate::depmod::Kernel;
use crate::scripts::Acceptance;
use crate::tree::{Content, Tree};
use bramble_api::lock::{LockedPackage, LockedProgram};
use bramble_api::names::Arch;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// All that an assembled tree depends on. The same input gives the same tree on any computer, with any number of
/// threads and in any locale.
#[derive(Clone, Debug)]
pub struct AssembleInput {
    /// Architecture of the machines.
    pub arch: Arch,
    /// The locked packages and where their files lie. Their digests have been checked by whoever fetched them; the
    /// size is checked again here.
    pub debs: Vec<(LockedPackage, PathBuf)>,
    /// Programs that do not come from Debian, for the bill of materials only; their files come as `extra_files`.
    pub programs: Vec<LockedProgram>,
    /// Time of every file of the tree, seconds since the epoch.
    pub epoch: u64,
    /// Version of the release, for os-release.
    pub release: String,
    /// System users and groups that earlier images had: name to number.
    pub users: BTreeMap<String, u32>,
    /// Scripts that the user has read and accepted (`os.acceptScripts`).
    pub accepted_scripts: Vec<Acceptance>,
    /// Units to enable beyond what the packages enable.
    pub enable: Vec<String>,
    /// Units to leave disabled whatever the packages say.
    pub disable: Vec<String>,
    /// Units to mask.
    pub mask: Vec<String>,
    /// Files of our own, put after everything of Debian's and before units are enabled.
    pub extra_files: Vec<ExtraFile>,
    /// Directory for unpacked packages and scanned kernels; safe to delete between builds.
    pub cache: PathBuf,
}

/// A file of our own in the tree, owned by root.
#[derive(Clone, Debug)]
pub struct ExtraFile {
    /// Absolute path in the tree.
    pub path: String,
    /// What it is.
    pub body: ExtraBody,
}

/// What an extra file is.
#[derive(Clone, Debug)]
pub enum ExtraBody {
    /// A regular file.
    File {
        /// Permission bits.
        mode: u16,
        /// Bytes.
        content: Content,
    },
    /// A symbolic link.
    Symlink {
        /// Text of the link.
        target: String,
    },
    /// A directory.
    Dir {
        /// Permission bits.
        mode: u16,
    },
}

/// The tree and what goes with it.
#[derive(Clone, Debug)]
pub struct Assembled {
    /// The root file system.
    pub tree: Tree,
    /// System users and groups with the numbers they have now, to be locked.
    pub users: BTreeMap<String, u32>,
    /// The kernel and its modules.
    pub kernel: Kernel,
    /// CycloneDX 1.6 document, JSON.
    pub sbom: Vec<u8>,
    /// What was done.
    pub report: Report,
}

/// What assembling did, in figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Packages laid out.
    pub packages: usize,
    /// Packages whose unpacked form was in the cache.
    pub unpacked_before: usize,
    /// Nodes of the tree.
    pub nodes: usize,
    /// Bytes of regular files.
    pub bytes: u64,
    /// Bytes that were left out of the image on purpose, by reason.
    pub pruned: BTreeMap<&'static str, u64>,
    /// Units enabled.
    pub enabled: Vec<String>,
    /// Units named to be enabled that no file provides.
    pub missing_units: Vec<String>,
    /// Wall time by step, milliseconds.
    pub steps: Vec<(&'static str, u64)>,
}
