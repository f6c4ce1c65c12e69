//! Why a request cannot be resolved, in the words of the archive.

use crate::index::Package;
use bramble_api::names::Arch;
use std::fmt;
use thiserror::Error;

/// A request that cannot be resolved.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ResolveError {
    /// The index is for another architecture than the request.
    #[error("the package index is for {index}, but packages for {request} were asked for")]
    OtherArch {
        /// Of the index.
        index: Arch,
        /// Of the request.
        request: Arch,
    },
    /// The index has nothing in it.
    #[error("the package index for {arch} is empty")]
    Empty {
        /// Of the index.
        arch: Arch,
    },
    /// A package that was asked for is not there.
    #[error("{}", unknown(.name, .suite.as_deref(), *.arch, .offered, .providers, .nearest))]
    Unknown {
        /// What was asked for.
        name: String,
        /// From which suite.
        suite: Option<String>,
        /// For which architecture.
        arch: Arch,
        /// What the other suites have under that name.
        offered: Vec<Offer>,
        /// Packages that provide it as a virtual name.
        providers: Vec<String>,
        /// Names like it.
        nearest: Vec<String>,
    },
    /// A package was asked for and excluded.
    #[error("the package {name} is asked for and excluded at once")]
    AskedAndExcluded {
        /// Its name.
        name: String,
    },
    /// A package was asked for from a suite, after another one was chosen.
    #[error(
        "the package {name} is asked for from {suite}, but {} takes it from {chosen}",
        who(.chain)
    )]
    TwoSuites {
        /// Its name.
        name: String,
        /// The suite asked for.
        suite: String,
        /// The suite it was taken from.
        chosen: String,
        /// Who needed it, the package asked for first.
        chain: Vec<String>,
    },
    /// Nothing meets a dependency.
    #[error("{}", unmet(.chain, .package, .version, .clause, .offered, .nearest))]
    Unmet {
        /// Who needed the package, the package asked for first, the package itself last.
        chain: Vec<String>,
        /// The package whose dependency it is.
        package: String,
        /// Its version.
        version: String,
        /// The dependency as the archive states it.
        clause: String,
        /// What there is under those names.
        offered: Vec<Offer>,
        /// Names like those.
        nearest: Vec<String>,
    },
    /// Chosen packages exclude each other.
    #[error("{}", clashes(.0))]
    Clashes(Vec<Clash>),
    /// A relation field that does not follow Debian's policy.
    #[error("the package {package} {version} has a field {field} that cannot be read: {text}")]
    Malformed {
        /// The package.
        package: String,
        /// Its version.
        version: String,
        /// The field.
        field: &'static str,
        /// The part of it.
        text: String,
    },
}

impl ResolveError {
    /// What to try.
    pub fn hint(&self) -> &'static str {
        match self {
            ResolveError::Unknown { suite: Some(_), .. } => {
                "leave out the suite, or name one that has the package"
            }
            ResolveError::Unknown { providers, .. } if !providers.is_empty() => {
                "it is a virtual name: ask for one of the packages that provide it"
            }
            ResolveError::Unknown { .. } => "see packages.debian.org for the packages of this release",
            ResolveError::Unmet { .. } => {
                "the mirror may be half way through an update: try again later, or ask for the package from backports as NAME/SUITE"
            }
            ResolveError::Clashes(_) => "leave out one of the two packages",
            ResolveError::AskedAndExcluded { .. } | ResolveError::TwoSuites { .. } => {
                "ask for the package once"
            }
            ResolveError::Empty { .. } | ResolveError::OtherArch { .. } | ResolveError::Malformed { .. } => {
                "use another mirror"
            }
        }
    }
}

/// A package that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: String,
    /// Where it stands.
    pub suite: String,
    /// The version that had been chosen already, if any.
    pub chosen: Option<String>,
}

impl Offer {
    pub(super) fn of(package: &Package<'_>) -> Offer {
        Offer {
            name: package.name.to_string(),
            version: package.version.to_string(),
            suite: package.suite.to_string(),
            chosen: None,
        }
    }
}

impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} ({})", self.name, self.version, self.suite)?;
        match &self.chosen {
            Some(version) => write!(f, ", {version} was chosen before"),
            None => Ok(()),
        }
    }
}

/// Two chosen packages that exclude each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clash {
    /// Who states it.
    pub package: String,
    /// `Conflicts` or `Breaks`.
    pub field: &'static str,
    /// With what.
    pub relation: String,
    /// The package that it hits.
    pub other: String,
    /// Who needed the first.
    pub chain: Vec<String>,
    /// Who needed the second.
    pub other_chain: Vec<String>,
}

/// Longest list that a message shows; the fields have all of it.
const SHOWN: usize = 5;

fn list<T: fmt::Display>(items: &[T]) -> String {
    let mut text: Vec<String> = items.iter().take(SHOWN).map(T::to_string).collect();
    if items.len() > SHOWN {
        text.push(format!("{} more", items.len() - SHOWN));
    }
    text.join(", ")
}

fn who(chain: &[String]) -> String {
    match chain {
        [] => "the request".to_string(),
        [only] => format!("the request for {only}"),
        more => format!("the request for {}", more.join(" -> ")),
    }
}

fn unknown(
    name: &str,
    suite: Option<&str>,
    arch: Arch,
    offered: &[Offer],
    providers: &[String],
    nearest: &[String],
) -> String {
    let place = suite.map_or_else(|| "the archive".to_string(), |suite| format!("the suite {suite}"));
    let mut text = format!("there is no package {name} for {arch} in {place}");
    if !offered.is_empty() {
        text += &format!("; offered: {}", list(offered));
    }
    if !providers.is_empty() {
        text += &format!("; provided by {}", list(providers));
    }
    if !nearest.is_empty() {
        text += &format!("; nearest: {}", list(nearest));
    }
    text
}

fn unmet(
    chain: &[String],
    package: &str,
    version: &str,
    clause: &str,
    offered: &[Offer],
    nearest: &[String],
) -> String {
    let mut text = format!("{package} {version} needs {clause}, which nothing meets ({})", who(chain));
    if offered.is_empty() {
        text += "; the archive has no such package";
    } else {
        text += &format!("; offered: {}", list(offered));
    }
    if !nearest.is_empty() {
        text += &format!("; nearest: {}", list(nearest));
    }
    text
}

fn clashes(clashes: &[Clash]) -> String {
    let lines: Vec<String> = clashes
        .iter()
        .map(|c| {
            format!(
                "{} ({}: {}) against {} ({}, {})",
                c.package,
                c.field,
                c.relation,
                c.other,
                who(&c.chain),
                who(&c.other_chain)
            )
        })
        .collect();
    format!("packages exclude each other: {}", list(&lines))
}
