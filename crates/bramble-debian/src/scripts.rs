//! The gate: which maintainer scripts of a package set are known to be stood for.
//!
//! No script is ever run. Each preinst and postinst is normalised (debhelper's generated blocks are cut, since what
//! they do is known by the generator's name) and hashed. A script whose remainder is not in the reviewed list, and
//! which the user has not accepted, stops the build: skipping it might leave out something that the package needs.
//! prerm and postrm are not looked at, because nothing is ever removed or upgraded inside an image.

mod normal;
mod reviewed;

pub(crate) use normal::blocks_of;
pub use normal::{BLOCKS, Script, ScriptKind};
pub use reviewed::{Reviewed, ReviewedError, ReviewedScript};

use crate::substitute::NAMES;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// One entry of `os.acceptScripts`: a script that the user has read and takes responsibility for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acceptance {
    /// Package.
    pub package: String,
    /// SHA-256 of the normalised text, hexadecimal.
    pub sha256: String,
    /// Names of the substitutes that stand for it; none when it does nothing that an image needs.
    #[serde(default, rename = "as")]
    pub stands: Vec<String>,
}

/// A script that nobody has reviewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownScript {
    /// The script, with its package, digest and normalised text.
    pub script: Script,
    /// How it differs from the last reviewed script of that package and kind, a line each: `+` and the text for what
    /// is new, `-` and a line number for what is gone (the list keeps digests of lines, not Debian's text), a space
    /// for context. The whole text with `+` when none was reviewed.
    pub diff: Vec<String>,
    /// The entry that would accept it as doing nothing that an image needs.
    pub acceptance: Acceptance,
}

/// Why the gate did not open.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum GateError {
    /// Scripts that nobody reviewed; all of them, so that one look settles it.
    #[error("{}", list_unknown(unknown))]
    Unknown {
        /// In the order of packages.
        unknown: Vec<UnknownScript>,
    },
    /// An acceptance names a substitute that does not exist.
    #[error("acceptScripts: {package}: there is no substitute {name:?}; there are: {}", NAMES.join(", "))]
    NoSuchSubstitute {
        /// Package of the entry.
        package: String,
        /// The name as it stands.
        name: String,
    },
}

fn list_unknown(unknown: &[UnknownScript]) -> String {
    let list: Vec<String> = unknown
        .iter()
        .map(|u| format!("{} {} ({})", u.script.package, u.script.kind, &u.script.sha256))
        .collect();
    format!("maintainer scripts that nobody has reviewed: {}", list.join(", "))
}

/// What the gate found out about a set.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// For each package the substitutes that stand for its scripts' remainders.
    pub stands: BTreeMap<String, BTreeSet<String>>,
    /// Acceptances that no script of the set needs any more.
    pub unused: Vec<Acceptance>,
}

/// Holds the scripts of a set against the reviewed list and the user's acceptances.
///
/// # Errors
/// Every unknown script at once; an acceptance that names no substitute.
pub fn check(scripts: &[Script], reviewed: &Reviewed, accepted: &[Acceptance]) -> Result<Passed, GateError> {
    for entry in accepted {
        if let Some(name) = entry.stands.iter().find(|name| !NAMES.contains(&name.as_str())) {
            return Err(GateError::NoSuchSubstitute { package: entry.package.clone(), name: name.clone() });
        }
    }
    let mut passed = Passed { unused: accepted.to_vec(), ..Passed::default() };
    let mut unknown = Vec::new();
    for script in scripts.iter().filter(|script| !script.is_empty()) {
        let by_user = accepted.iter().find(|a| a.package == script.package && a.sha256 == script.sha256);
        let stands = match (by_user, reviewed.find(script)) {
            (Some(entry), _) => {
                passed.unused.retain(|unused| unused != entry);
                &entry.stands
            }
            (None, Some(entry)) => &entry.stands,
            (None, None) => {
                unknown.push(UnknownScript {
                    script: script.clone(),
                    diff: reviewed.diff(script),
                    acceptance: Acceptance {
                        package: script.package.clone(),
                        sha256: script.sha256.clone(),
                        stands: Vec::new(),
                    },
                });
                continue;
            }
        };
        passed.stands.entry(script.package.clone()).or_default().extend(stands.iter().cloned());
    }
    if unknown.is_empty() { Ok(passed) } else { Err(GateError::Unknown { unknown }) }
}

#[cfg(test)]
mod tests;
