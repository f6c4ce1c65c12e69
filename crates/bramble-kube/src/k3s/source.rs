//! Where the release file comes from: the project's release page, a file, or a directory that holds one for each
//! processor. As loaded it is kept; what it is made of is checked when it is first seen ([`Release::read`]).

use super::release::{Release, ReleaseError};
use crate::programs::{Program, ProgramsError, Progress, load_release_file, sha256_of};
use bramble_api::names::Arch;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

/// Where the release file comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The project's release page, checked against the list of sums that lies beside it. Never run by us: the computers
    /// this was made on do not reach it.
    Release,
    /// The file itself, or a directory that holds it under the project's own name.
    Path(PathBuf),
}

/// Why there is no release file.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It cannot be loaded or read.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// There is nothing at the path.
    #[error("there is no {}", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// It is not what was asked for.
    #[error("{} is not k3s {version} for {arch}", path.display())]
    Unfit {
        /// The file.
        path: PathBuf,
        /// What was asked for, with `v`.
        version: String,
        /// For which processor.
        arch: Arch,
        /// Why not.
        source: Box<ReleaseError>,
    },
    /// The project's file is another one than the lock file has.
    #[error("the release file of k3s {version} for {arch} has SHA-256 {found}, and the lock has {locked}")]
    Changed {
        /// What was asked for, with `v`.
        version: String,
        /// For which processor.
        arch: Arch,
        /// As loaded.
        found: String,
        /// As locked.
        locked: String,
    },
}

impl SourceError {
    /// What a person may try, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            SourceError::Programs(error) => error.hint(),
            SourceError::Missing { .. } => Some(
                "`kubernetes.source: { path: ... }` names k3s' release file, or a directory with `k3s` and `k3s-arm64`",
            ),
            SourceError::Unfit { source, .. } => Some(source.hint()),
            SourceError::Changed { .. } => {
                Some("a release never changes: somebody changed the file, or the lock was edited by hand")
            }
        }
    }
}

/// The project's name for the file of a processor.
pub fn file_name(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "k3s",
        Arch::Arm64 => "k3s-arm64",
    }
}

/// Gives the release file, from the cache where it is there: `CACHE/programs`. `version` has `v`: `v1.36.4+k3s1`;
/// `locked` is the digest that the lock has for this version, hexadecimal.
///
/// The file is not taken apart here; see [`open`].
pub fn fetch(
    arch: Arch,
    version: &str,
    source: &Source,
    locked: Option<&str>,
    cache: &Path,
    progress: &dyn Fn(Progress<'_>),
    cancel: &AtomicBool,
) -> Result<Program, SourceError> {
    let name = file_name(arch);
    match source {
        Source::Release => {
            // A plus sign in a path means itself, but some servers take it for a space.
            let release = version.replace('+', "%2B");
            let base = format!("https://github.com/k3s-io/k3s/releases/download/{release}");
            let sums = format!("{base}/sha256sum-{}.txt", arch.debian());
            let program =
                load_release_file("k3s", version, &format!("{base}/{name}"), &sums, cache, progress, cancel)?;
            match locked {
                Some(locked) if locked != program.sha256 => Err(SourceError::Changed {
                    version: version.to_string(),
                    arch,
                    found: program.sha256,
                    locked: locked.to_string(),
                }),
                _ => Ok(program),
            }
        }
        Source::Path(path) => {
            let path = if path.is_dir() { path.join(name) } else { path.clone() };
            if !path.is_file() {
                return Err(SourceError::Missing { path });
            }
            let sha256 = sha256_of(&path)?;
            Ok(Program {
                name: "k3s".into(),
                version: version.to_string(),
                source: "path",
                key: sha256.clone(),
                path,
                sha256,
            })
        }
    }
}

/// Takes a release file apart, checked.
pub fn open(program: &Program, arch: Arch) -> Result<Release, SourceError> {
    let failed = |source| ProgramsError::Store { path: program.path.clone(), source };
    let file = std::fs::read(&program.path).map_err(failed)?;
    Release::read(&file, arch, &program.version).map_err(|source| SourceError::Unfit {
        path: program.path.clone(),
        version: program.version.clone(),
        arch,
        source: Box::new(source),
    })
}
