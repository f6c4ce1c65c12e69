//! What stands for Debian's maintainer scripts: one small file for each matter, each a plain change of the tree.
//!
//! Every substitute does what the scripts do on a first install into an empty root, no more: nothing is upgraded,
//! asked, started or removed in an image. The table of matters is that of an experiment which compared the result
//! file by file with what mmdebstrap makes of the same list.

pub mod alternatives;
pub mod certificates;
pub mod defaults;
pub mod elf;
pub mod identity;
pub mod ldcache;
pub mod modes;
pub mod pam;
pub mod prune;
pub mod units;
pub mod users;
pub mod var;

use crate::deb::Deb;
use crate::tree::{TreeError, TreePath};
use bramble_api::lock::LockedPackage;

/// Names by which the reviewed list and `os.acceptScripts` call the substitutes.
pub const NAMES: &[&str] = &[
    "alternatives",
    "certificates",
    "defaults",
    "depmod",
    "ldcache",
    "machine-document",
    "machine-id",
    "modes",
    "pam",
    "units",
    "users",
    "usr-merge",
    "var",
];

/// A package of the set, read.
#[derive(Clone, Debug)]
pub struct Package {
    /// As locked.
    pub locked: LockedPackage,
    /// Its file.
    pub deb: Deb,
}

impl Package {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.locked.name
    }
}

/// Why a substitute could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum SubstituteError {
    /// The tree refused.
    #[error("{substitute}: the tree refuses")]
    Tree {
        /// Name of the substitute.
        substitute: &'static str,
        /// Why.
        source: TreeError,
    },
    /// A file that it reads is missing or not understood.
    #[error("{substitute}: {path}: {reason}")]
    Input {
        /// Name of the substitute.
        substitute: &'static str,
        /// The file.
        path: TreePath,
        /// What is wrong.
        reason: String,
    },
    /// Two system users or groups would have one number, or a locked number is taken.
    #[error("users: number {id} of {name} belongs to {holder}")]
    IdTaken {
        /// Who wants it.
        name: String,
        /// The number.
        id: u32,
        /// Who has it.
        holder: String,
    },
    /// A substitute needs a user or group that no package makes.
    #[error("{substitute}: there is no user or group {name}")]
    NoSuchName {
        /// Name of the substitute.
        substitute: &'static str,
        /// The user or group.
        name: String,
    },
    /// All numbers for system users are given.
    #[error("users: no number is left for {name}")]
    NoIdLeft {
        /// Who wants one.
        name: String,
    },
}

/// For `map_err`: a refusal of the tree, seen from one substitute.
pub(crate) fn tree(substitute: &'static str) -> impl Fn(TreeError) -> SubstituteError + Copy {
    move |source| SubstituteError::Tree { substitute, source }
}

/// The package of this name.
pub(crate) fn find<'a>(packages: &'a [Package], name: &str) -> Option<&'a Package> {
    packages.iter().find(|package| package.name() == name)
}

/// Splits a line into words as systemd's configuration files do: blanks separate, double or single quotes hold
/// together.
pub(crate) fn words(line: &str) -> Vec<String> {
    let mut out = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    for c in line.chars() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (Some(_), c) => word.get_or_insert_default().push(c),
            (None, '"' | '\'') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (None, c) => word.get_or_insert_default().push(c),
        }
    }
    out.extend(word);
    out
}

#[cfg(test)]
mod tests;
