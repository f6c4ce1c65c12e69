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
    #[error("{0}")]
    Unknown(Box<UnknownPackage>),
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
    #[error("{0}")]
    Unmet(Box<UnmetDependency>),
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
            ResolveError::Unknown(unknown) if unknown.suite.is_some() => {
                "leave out the suite, or name one that has the package"
            }
            ResolveError::Unknown(unknown) if !unknown.providers.is_empty() => {
                "it is a virtual name: ask for one of the packages that provide it"
            }
            ResolveError::Unknown(_) => "see packages.debian.org for the packages of this release",
            ResolveError::Unmet(_) => {
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

/// A package that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownPackage {
    /// What was asked for.
    pub name: String,
    /// From which suite.
    pub suite: Option<String>,
    /// For which architecture.
    pub arch: Arch,
    /// What the other suites have under that name.
    pub offered: Vec<Offer>,
    /// Packages that provide it as a virtual name.
    pub providers: Vec<String>,
    /// Names like it, if nothing goes by that name.
    pub nearest: Vec<String>,
}

/// A dependency that nothing meets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnmetDependency {
    /// Who needed the package, the package asked for first, the package itself last.
    pub chain: Vec<String>,
    /// The package whose dependency it is.
    pub package: String,
    /// Its version.
    pub version: String,
    /// The dependency as the archive states it.
    pub clause: String,
    /// What there is under those names.
    pub offered: Vec<Offer>,
    /// Names like those that nothing goes by.
    pub nearest: Vec<String>,
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

impl fmt::Display for UnknownPackage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "there is no package {} for {} in ", self.name, self.arch)?;
        match &self.suite {
            Some(suite) => write!(f, "the suite {suite}")?,
            None => f.write_str("the archive")?,
        }
        write_list(f, "offered", &self.offered)?;
        write_list(f, "provided by", &self.providers)?;
        write_list(f, "nearest", &self.nearest)
    }
}

impl fmt::Display for UnmetDependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let UnmetDependency { package, version, clause, chain, .. } = self;
        write!(f, "{package} {version} needs {clause}, which nothing meets ({})", who(chain))?;
        if self.offered.is_empty() {
            f.write_str("; the archive has no such package")?;
        }
        write_list(f, "offered", &self.offered)?;
        write_list(f, "nearest", &self.nearest)
    }
}

fn write_list<T: fmt::Display>(f: &mut fmt::Formatter<'_>, title: &str, items: &[T]) -> fmt::Result {
    if items.is_empty() { Ok(()) } else { write!(f, "; {title}: {}", list(items)) }
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
