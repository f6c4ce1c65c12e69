//! From package files to a root tree, with no maintainer script run and nothing of the target executed.

mod layout;

use crate::deb::{Deb, DebError};
use crate::depmod::{self, Kernel, KernelError};
use crate::scripts::{self, Acceptance, GateError, Reviewed, ReviewedError, Script, ScriptKind};
use crate::substitute::units::Wishes;
use crate::substitute::{
    Package, SubstituteError, alternatives, certificates, defaults, identity, ldcache, modes, pam, prune,
    units, users, var,
};
use crate::tree::{Content, Node, Tree, TreeError};
use crate::{dpkg, sbom};
use bramble_api::lock::{LockedPackage, LockedProgram};
use bramble_api::names::Arch;
use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

pub use layout::LayoutError;

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
    /// Kernel modules that stay in the image whatever the table of unneeded ones says, with all that they need.
    pub modules: Vec<String>,
    /// Files of our own, put after everything of Debian's and before accounts, units and links are worked out, so
    /// that a `sysusers.d` file or a unit among them counts.
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
    /// Entries of `acceptScripts` that no script needs any more.
    pub unused_acceptances: Vec<Acceptance>,
    /// Wall time by step, milliseconds.
    pub steps: Vec<(&'static str, u64)>,
}

/// Why no tree came out.
#[derive(Debug, thiserror::Error)]
pub enum AssembleError {
    /// A package file was refused.
    #[error("package {package} cannot be used")]
    Deb {
        /// Its name.
        package: String,
        /// Why.
        source: DebError,
    },
    /// A control file says something else than the lock.
    #[error("package {package}: the file says {found:?} where the lock says {locked:?}")]
    NotTheLocked {
        /// Name in the lock.
        package: String,
        /// What the lock says: name, version and architecture.
        locked: String,
        /// What the file says.
        found: String,
    },
    /// The reviewed list that came with the tool is damaged.
    #[error(transparent)]
    Reviewed(#[from] ReviewedError),
    /// The gate for maintainer scripts did not open.
    #[error(transparent)]
    Gate(#[from] GateError),
    /// Packages do not fit beside each other.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A substitute could not do its work.
    #[error(transparent)]
    Substitute(#[from] SubstituteError),
    /// The kernel or its modules are not what was expected.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// A file of our own cannot be put where it should be.
    #[error("extra file {path}")]
    Extra {
        /// Path in the tree.
        path: String,
        /// Why.
        source: TreeError,
    },
}

/// Lays out the packages and does what their scripts would do. See the module.
///
/// # Errors
/// See [`AssembleError`].
pub fn assemble(input: &AssembleInput) -> Result<Assembled, AssembleError> {
    let mut clock = Clock::start();
    let packages = read(input)?;
    clock.step("read packages");

    let scripts: Vec<Script> = packages.iter().flat_map(scripts_of).collect();
    let passed = scripts::check(&scripts, &Reviewed::shipped()?, &input.accepted_scripts)?;
    clock.step("hold scripts against the reviewed list");

    let mut tree = layout::lay_out(&packages)?;
    let mut pruned = prune::apply(&mut tree);
    for extra in &input.extra_files {
        put(&mut tree, extra).map_err(|source| AssembleError::Extra { path: extra.path.clone(), source })?;
    }
    clock.step("lay out");

    // The kernel leaves the root before anything counts what is there; what is left of its modules is what every
    // later step sees.
    let kernel = depmod::take(&mut tree, &packages, &input.modules, &input.cache, &mut pruned)?;
    clock.step("modules");

    dpkg::prepare(&mut tree)?;
    let accounts = users::apply(&mut tree, &packages, &input.users)?;
    defaults::apply(&mut tree, &packages)?;
    let statoverride = modes::apply(&mut tree, &packages, &accounts)?;
    alternatives::apply(&mut tree, &packages, &passed)?;
    pam::apply(&mut tree)?;
    certificates::apply(&mut tree)?;
    let wishes = Wishes { enable: &input.enable, disable: &input.disable, mask: &input.mask };
    let enabled = units::apply(&mut tree, &packages, wishes)?;
    ldcache::apply(&mut tree, input.arch)?;
    identity::apply(&mut tree, &input.release, input.epoch)?;
    var::apply(&mut tree, &accounts)?;
    clock.step("substitutes");

    dpkg::write(&mut tree, &packages, input.arch, &statoverride)?;
    tree.stamp(input.epoch);
    clock.step("package database");
    let sbom = sbom::document(&packages, &input.programs, input.arch, &input.release);
    clock.step("bill of materials");

    let report = Report {
        packages: packages.len(),
        unpacked_before: packages.iter().filter(|package| package.deb.was_cached).count(),
        nodes: tree.len(),
        bytes: tree.bytes(),
        pruned,
        enabled: enabled.units,
        missing_units: enabled.missing,
        unused_acceptances: passed.unused,
        steps: clock.steps,
    };
    Ok(Assembled { users: accounts.locked().clone(), tree, kernel, sbom, report })
}

/// Reads every package, those that are not in the cache in parallel, the largest first so that it does not come last
/// and alone. Sorted by name, base-files first: it brings the links of the merged /usr that all others rely on.
fn read(input: &AssembleInput) -> Result<Vec<Package>, AssembleError> {
    let mut debs: Vec<&(LockedPackage, PathBuf)> = input.debs.iter().collect();
    debs.sort_by_key(|(locked, _)| (std::cmp::Reverse(locked.size), &locked.name));
    let mut packages: Vec<Package> = debs
        .into_par_iter()
        .with_max_len(1)
        .map(|(locked, path)| {
            let deb = Deb::read(path, &locked.sha256, locked.size, &input.cache)
                .map_err(|source| AssembleError::Deb { package: locked.name.clone(), source })?;
            let field = |name| deb.field(name).unwrap_or_default();
            let found = format!("{} {} {}", field("Package"), field("Version"), field("Architecture"));
            let expected = format!("{} {} {}", locked.name, locked.version, locked.arch);
            if found != expected {
                return Err(AssembleError::NotTheLocked {
                    package: locked.name.clone(),
                    locked: expected,
                    found,
                });
            }
            Ok(Package { locked: locked.clone(), deb })
        })
        .collect::<Result<_, _>>()?;
    packages.sort_by(|a, b| (a.name() != "base-files", a.name()).cmp(&(b.name() != "base-files", b.name())));
    Ok(packages)
}

/// The scripts of a package that the gate looks at, normalised.
pub fn scripts_of(package: &Package) -> Vec<Script> {
    let kinds = ScriptKind::ALL.into_iter().filter(|kind| package.deb.control.contains_key(kind.name()));
    kinds.map(|kind| Script::new(package.name(), kind, &package.deb.text(kind.name()))).collect()
}

fn put(tree: &mut Tree, extra: &ExtraFile) -> Result<(), TreeError> {
    let node = match &extra.body {
        ExtraBody::File { mode, content } => Node::file(*mode, content.clone()),
        ExtraBody::Symlink { target } => Node::symlink(target),
        ExtraBody::Dir { mode } => return tree.dir(&extra.path, *mode).map(drop),
    };
    tree.insert(&extra.path, node).map(drop)
}

/// Wall time by step.
struct Clock {
    last: Instant,
    steps: Vec<(&'static str, u64)>,
}

impl Clock {
    fn start() -> Self {
        Clock { last: Instant::now(), steps: Vec::new() }
    }

    fn step(&mut self, name: &'static str) {
        let now = Instant::now();
        self.steps.push((name, now.duration_since(self.last).as_millis() as u64));
        self.last = now;
    }
}
