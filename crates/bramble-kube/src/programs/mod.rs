//! The programs of a Kubernetes machine that do not come from Debian: built from their Go modules, taken from the
//! projects' release files, or from a directory.
//!
//! runc is not among them: it comes from Debian, which builds it with seccomp for every architecture (a static one with
//! seccomp needs a C cross-compiler for each).

mod directory;
mod go;
mod place;
mod recipe;
mod release;
mod store;

pub use place::{Placed, images, place};
pub use recipe::{SUPPORTED, Supported};
pub(crate) use release::load_release_file;

use bramble_api::names::Arch;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;

const ETCD: &str = "v3.6.8";
const CONTAINERD: &str = "v2.4.2";
const CNI: &str = "v1.9.1";
const KINE: &str = "v0.16.4";
const FLANNEL: &str = "v0.28.4";
const COREDNS: &str = "v1.13.2";

/// The programs that Kubernetes' release has apart and our build has in one file, `kube`, that looks at its name.
const KUBE: &[&str] = &[
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-proxy",
    "kube-scheduler",
    "kubectl",
    "kubelet",
];

/// Where the programs come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Built from their modules with the Go tool of this computer.
    Modules,
    /// The projects' release files, checked against the sums they publish. This way was never run by us: the machines
    /// this was made on reach no release files.
    Release,
    /// Files that lie in a directory under the names of the programs.
    Directory(PathBuf),
}

/// One program, as a file of this computer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    /// File name.
    pub name: String,
    /// Version with `v`; of a directory's files that of Kubernetes, since nothing else is known.
    pub version: String,
    /// `modules`, `release` or `directory`.
    pub source: &'static str,
    /// Content key of what it was made from, hexadecimal; its own digest where there is no such thing.
    pub key: String,
    /// Where it lies.
    pub path: PathBuf,
    /// SHA-256, hexadecimal.
    pub sha256: String,
}

/// How far a fetch is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Group of programs at work.
    pub recipe: &'a str,
    /// Packages compiled, or bytes loaded.
    pub done: u64,
    /// How many there are; 0 while that is not known. Packages compiled earlier count too, so a fetch may end early.
    pub total: u64,
    /// What is being done: a package's or a file's name.
    pub line: &'a str,
}

/// Why there are no programs.
#[derive(Debug, thiserror::Error)]
pub enum ProgramsError {
    /// No recipe for this version.
    #[error("Kubernetes {asked} is not one that this tool can make; it can make {}", available.join(", "))]
    UnknownVersion {
        /// What was asked for.
        asked: String,
        /// What there is.
        available: Vec<&'static str>,
    },
    /// No Go tool in the search path.
    #[error("there is no `go` on this computer to build Kubernetes with")]
    NoGo,
    /// The Go tool is not, and does not become, the compiler that is built with.
    #[error(
        "the `go` of this computer answers as {found:?}, but {} is built with, which a Go from 1.21 on fetches",
        go::TOOLCHAIN
    )]
    OldGo {
        /// How it names itself.
        found: String,
    },
    /// The Go tool cannot be run.
    #[error("running `go`")]
    RunGo {
        /// Cause.
        source: io::Error,
    },
    /// A build ended with an error.
    #[error("building {recipe} for {arch} failed:\n{output}")]
    Build {
        /// Group of programs.
        recipe: &'static str,
        /// For which processor.
        arch: Arch,
        /// The last lines of output.
        output: String,
    },
    /// The cache cannot be read or written.
    #[error("the cache of programs at {}", path.display())]
    Store {
        /// Which file or directory.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// A release file cannot be loaded.
    #[error("loading {url}")]
    Load {
        /// Its address.
        url: String,
        /// Cause.
        source: Box<ureq::Error>,
    },
    /// A release file is not what its project says it is.
    #[error("{url} has SHA-256 {found}, but its project publishes {expected}")]
    Digest {
        /// Its address.
        url: String,
        /// As published.
        expected: String,
        /// As loaded.
        found: String,
    },
    /// A list of sums does not name the file.
    #[error("{url} has no sum for {file}")]
    NoSum {
        /// Address of the list.
        url: String,
        /// The file.
        file: String,
    },
    /// A program is not where it should be.
    #[error("there is no {name:?} in {}", place.display())]
    Missing {
        /// The program.
        name: String,
        /// Directory or archive.
        place: PathBuf,
    },
    /// A file is no program for the architecture.
    #[error("{} is no program for {arch}", path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What was wanted.
        arch: Arch,
    },
    /// Asked to stop.
    #[error("stopped")]
    Cancelled,
}

impl ProgramsError {
    /// What a person may try, where there is something.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            ProgramsError::UnknownVersion { .. } => Some("set `kubernetes.version` to one of them"),
            ProgramsError::NoGo | ProgramsError::OldGo { .. } => Some(
                "install a newer Go (https://go.dev/dl), or take the programs from releases or a directory",
            ),
            ProgramsError::Build { .. } => Some(
                "modules are loaded through GOPROXY: see that it is reachable, then run the same command again",
            ),
            ProgramsError::Load { .. } => Some("run the same command again; what was loaded before is kept"),
            ProgramsError::Digest { .. } => Some("somebody changed the file on its way: try another network"),
            ProgramsError::Missing { .. } | ProgramsError::Foreign { .. } => {
                Some("the directory must hold all programs, built for the machine's processor")
            }
            _ => None,
        }
    }
}

/// What this tool knows of a version of Kubernetes, with `v`.
pub fn supported(version: &str) -> Result<&'static Supported, ProgramsError> {
    SUPPORTED.iter().find(|s| s.version == version).ok_or_else(|| ProgramsError::UnknownVersion {
        asked: version.to_string(),
        available: SUPPORTED.iter().map(|s| s.version).collect(),
    })
}

/// Gives every program of a machine, from the cache where it is there.
///
/// `version` is Kubernetes', with `v`. Results lie below `CACHE/programs`, the compiler's own cache in `CACHE/go-build`;
/// both may be deleted at any time when nothing runs. Sorted by name.
pub fn fetch(
    arch: Arch,
    version: &str,
    source: &Source,
    cache: &Path,
    progress: &dyn Fn(Progress<'_>),
    cancel: &AtomicBool,
) -> Result<Vec<Program>, ProgramsError> {
    let known = supported(version)?;
    let mut programs = match source {
        Source::Modules => modules(arch, cache, progress, cancel)?,
        Source::Release => release::fetch(arch, known, cache, progress, cancel)?,
        Source::Directory(directory) => directory::take(arch, version, directory)?,
    };
    programs.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(programs)
}

fn modules(
    arch: Arch,
    cache: &Path,
    progress: &dyn Fn(Progress<'_>),
    cancel: &AtomicBool,
) -> Result<Vec<Program>, ProgramsError> {
    let root = cache.join("programs");
    let mut programs = Vec::new();
    // One after the other: each build uses every core by itself, and the largest needs 2.5 GB.
    for recipe in recipe::RECIPES {
        let key = go::key(recipe, arch);
        let build = |out: &Path| go::Go::find()?.build(recipe, arch, cache, out, progress, cancel);
        let (directory, files) = store::get(&root, &key, cancel, build)?;
        programs.extend(stored(&directory, &key, "modules", files));
    }
    Ok(programs)
}

/// SHA-256 of a file, hexadecimal.
pub(crate) fn sha256_of(path: &Path) -> Result<String, ProgramsError> {
    store::digest(path)
        .map(|(sha256, _)| sha256)
        .map_err(|source| ProgramsError::Store { path: path.to_path_buf(), source })
}

fn stored<'a>(
    directory: &'a Path,
    key: &'a str,
    source: &'static str,
    files: Vec<store::Stored>,
) -> impl Iterator<Item = Program> + 'a {
    files.into_iter().map(move |file| Program {
        path: directory.join(&file.name),
        name: file.name,
        version: file.version,
        source,
        key: key.to_string(),
        sha256: file.sha256,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_version_is_answered_with_those_there_are() {
        let error = fetch(
            Arch::Amd64,
            "v1.2.3",
            &Source::Modules,
            Path::new("/nowhere"),
            &|_| {},
            &AtomicBool::new(false),
        );
        let text = error.map(|_| ()).map_err(|e| e.to_string());
        assert_eq!(
            text,
            Err("Kubernetes v1.2.3 is not one that this tool can make; it can make v1.36.3".to_string())
        );
    }
}
