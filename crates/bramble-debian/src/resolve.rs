//! From a list of wanted packages to the list of all that they need.
//!
//! Depth first, first alternative, as Debian's own tools do for a fresh tree; no back-tracking. That is enough for
//! a curated list whose result is locked, it is the same on every host, and when it cannot go on it can say why in
//! the words of the archive. `Recommends` are not followed: what is wanted is asked for by name.

mod error;
mod relation;

pub use error::{Clash, Offer, ResolveError, UnknownPackage, UnmetDependency};

use crate::index::{Index, Package};
use bramble_api::lock::{LockedPackage, PackageSet};
use bramble_api::names::Arch;
use relation::{Alternative, Clause};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Suites whose packages are taken only when asked for by `name/suite`, and for what such packages need: the
/// archive marks them `NotAutomatic`.
const NOT_AUTOMATIC: &str = "-backports";

/// What is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Request {
    /// For which architecture.
    pub arch: Arch,
    /// Names, or `name/suite` to take the package from that suite.
    pub packages: Vec<String>,
    /// Also every package marked `Essential`.
    pub include_essential: bool,
    /// Packages that must not come in. A dependency which one of them would meet counts as met.
    pub exclude: Vec<String>,
    /// Packages to choose where a dependency leaves the choice.
    pub prefer: Vec<String>,
}

impl Request {
    /// Digest of what is asked for: while it stays the same, a lock need not be resolved again. Order and
    /// repetition do not count.
    pub fn digest(&self) -> String {
        let mut hasher = Sha256::new();
        let mut put = |text: &str| {
            hasher.update(text.as_bytes());
            hasher.update([0]);
        };
        put("bramble package request 1");
        put(self.arch.debian());
        put(if self.include_essential { "essential" } else { "plain" });
        for list in [&self.packages, &self.exclude, &self.prefer] {
            let mut sorted: Vec<&String> = list.iter().collect();
            sorted.sort();
            sorted.dedup();
            for item in sorted {
                put(item);
            }
            put("");
        }
        hex::encode(hasher.finalize())
    }
}

/// Resolves a request into what is written to the lock.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_set(index: &Index<'_>, request: &Request) -> Result<PackageSet, ResolveError> {
    Ok(PackageSet { request: request.digest(), snapshot: index.date(), packages: resolve(index, request)? })
}

/// Finds every package that the request needs. The result is sorted by name and depends on nothing but the
/// arguments.
///
/// # Errors
/// A name that the archive does not have, a dependency that nothing meets, packages that exclude each other, or a
/// relation field that cannot be read. Each says who asked for it.
pub fn resolve(index: &Index<'_>, request: &Request) -> Result<Vec<LockedPackage>, ResolveError> {
    if index.arch() != request.arch {
        return Err(ResolveError::OtherArch { index: index.arch(), request: request.arch });
    }
    if index.is_empty() {
        return Err(ResolveError::Empty { arch: request.arch });
    }
    let mut walk = Walk::new(index, request);
    let mut wanted: Vec<&str> = request.packages.iter().map(String::as_str).collect();
    // Packages tied to a suite go first: what they need decides over what would be taken by default. The names
    // are sorted, so that moving a line in the user's file changes nothing.
    wanted.sort_by_key(|name| (!name.contains('/'), *name));
    let mut essential: Vec<&str> = Vec::new();
    if request.include_essential {
        let all = index.packages().iter().filter(|p| p.essential && automatic(p)).map(|p| p.name);
        essential.extend(all.filter(|name| !walk.excluded.contains(name)));
        essential.sort_unstable();
        // They come in any case, so that they decide between alternatives as if asked for.
        walk.asked.extend(&essential);
    }
    for name in wanted.into_iter().chain(essential) {
        walk.want(name)?;
    }
    walk.check()?;
    Ok(walk.chosen.values().map(|choice| lock(choice.package)).collect())
}

fn lock(package: &Package<'_>) -> LockedPackage {
    LockedPackage {
        name: package.name.to_string(),
        version: package.version.to_string(),
        arch: package.arch.to_string(),
        suite: package.suite.to_string(),
        filename: package.filename.to_string(),
        size: package.size,
        sha256: package.sha256.to_ascii_lowercase(),
    }
}

fn automatic(package: &Package<'_>) -> bool {
    !package.suite.ends_with(NOT_AUTOMATIC)
}

/// The suite besides the automatic ones from which a package's dependencies may come: its own.
fn opened<'a>(package: &Package<'a>) -> Option<&'a str> {
    (!automatic(package)).then_some(package.suite)
}

struct Choice<'p, 'a> {
    package: &'p Package<'a>,
    /// Who needed it first; `None` if it was asked for.
    parent: Option<&'a str>,
}

struct Walk<'p, 'a> {
    index: &'p Index<'a>,
    chosen: BTreeMap<&'a str, Choice<'p, 'a>>,
    /// Provided name to chosen packages that provide it.
    provided: HashMap<&'a str, Vec<&'a str>>,
    /// Names asked for, without suite.
    asked: HashSet<&'p str>,
    /// Names asked for from one suite.
    tied: HashMap<&'p str, &'p str>,
    excluded: HashSet<&'p str>,
    preferred: HashSet<&'p str>,
}

impl<'p, 'a> Walk<'p, 'a> {
    fn new(index: &'p Index<'a>, request: &'p Request) -> Self {
        let names = |list: &'p [String]| list.iter().map(|name| bare(name)).collect();
        Walk {
            index,
            chosen: BTreeMap::new(),
            provided: HashMap::new(),
            asked: names(&request.packages),
            tied: request.packages.iter().filter_map(|name| name.split_once('/')).collect(),
            excluded: names(&request.exclude),
            preferred: names(&request.prefer),
        }
    }

    /// Chooses a package that was asked for, and all it needs.
    fn want(&mut self, wanted: &str) -> Result<(), ResolveError> {
        let (name, suite) = match wanted.split_once('/') {
            Some((name, suite)) => (name, Some(suite)),
            None => (wanted, None),
        };
        if let Some(present) = self.chosen.get(name) {
            return match suite {
                Some(suite) if present.package.suite != suite => Err(ResolveError::TwoSuites {
                    name: name.to_string(),
                    suite: suite.to_string(),
                    chosen: present.package.suite.to_string(),
                    chain: self.chain(Some(present.package.name)),
                }),
                _ => Ok(()),
            };
        }
        if self.excluded.contains(name) {
            return Err(ResolveError::AskedAndExcluded { name: name.to_string() });
        }
        let found = match suite {
            Some(suite) => self.index.versions(name).find(|p| p.suite == suite),
            None => self.index.versions(name).find(|p| automatic(p)),
        };
        let Some(package) = found else {
            let offered: Vec<Offer> = self.index.versions(name).map(Offer::of).collect();
            let providers: Vec<String> = self.index.providers(name).map(|p| p.name.to_string()).collect();
            // The name is right if anything goes by it.
            let nearest = if offered.is_empty() && providers.is_empty() {
                self.index.nearest(name)
            } else {
                Vec::new()
            };
            return Err(ResolveError::Unknown(Box::new(UnknownPackage {
                name: name.to_string(),
                suite: suite.map(str::to_string),
                arch: self.index.arch(),
                offered,
                providers,
                nearest,
            })));
        };
        self.take(package)
    }

    /// Chooses a package and walks down its dependencies with a stack of its own: a chain in a hostile index must
    /// not exhaust the thread's.
    fn take(&mut self, package: &'p Package<'a>) -> Result<(), ResolveError> {
        let mut stack = vec![self.add(package, None)?];
        while let Some((package, clauses)) = stack.last_mut() {
            let package = *package;
            let Some(clause) = clauses.next() else {
                stack.pop();
                continue;
            };
            if let Some(next) = self.decide(package, &clause)? {
                stack.push(self.add(next, Some(package.name))?);
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        package: &'p Package<'a>,
        parent: Option<&'a str>,
    ) -> Result<(&'p Package<'a>, std::vec::IntoIter<Clause<'a>>), ResolveError> {
        let mut clauses = relation::clauses(package, "Pre-Depends", package.pre_depends)?;
        clauses.extend(relation::clauses(package, "Depends", package.depends)?);
        for provided in relation::provided(package)? {
            self.provided.entry(provided.name).or_default().push(package.name);
        }
        self.chosen.insert(package.name, Choice { package, parent });
        Ok((package, clauses.into_iter()))
    }

    /// What to choose for one clause: nothing if it is met already.
    fn decide(
        &self,
        package: &'p Package<'a>,
        clause: &Clause<'a>,
    ) -> Result<Option<&'p Package<'a>>, ResolveError> {
        if self.met(clause)? {
            return Ok(None);
        }
        let mut candidates = Vec::new();
        for alternative in &clause.alternatives {
            candidates.extend(self.candidates(alternative, opened(package))?);
        }
        let of = |names: &HashSet<&str>| candidates.iter().find(|c| names.contains(c.name)).copied();
        if let Some(choice) = of(&self.asked).or_else(|| of(&self.preferred)) {
            return Ok(Some(choice));
        }
        if clause.alternatives.iter().any(|a| self.excluded.contains(a.name)) {
            return Ok(None);
        }
        if let Some(choice) = candidates.iter().find(|c| !self.excluded.contains(c.name)) {
            return Ok(Some(choice));
        }
        if !candidates.is_empty() {
            // Every provider of a virtual name is excluded: the user has said that nobody needs it.
            return Ok(None);
        }
        Err(self.unmet(package, clause))
    }

    /// Whether a chosen package meets the clause.
    fn met(&self, clause: &Clause<'a>) -> Result<bool, ResolveError> {
        for alternative in &clause.alternatives {
            if self.chosen.get(alternative.name).is_some_and(|c| alternative.admits(c.package.version)) {
                return Ok(true);
            }
            for provider in self.provided.get(alternative.name).into_iter().flatten() {
                if let Some(choice) = self.chosen.get(provider)
                    && relation::provides(choice.package, alternative)?
                {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Packages that meet one alternative and can still be chosen, best first: the package of that name, then the
    /// providers by priority (`awk` means mawk, which is required, before gawk, which is optional) and name.
    fn candidates(
        &self,
        alternative: &Alternative<'a>,
        opened: Option<&str>,
    ) -> Result<Vec<&'p Package<'a>>, ResolveError> {
        let free = |p: &&'p Package<'a>| !self.chosen.contains_key(p.name);
        let mut list: Vec<&'p Package<'a>> = self
            .best(self.index.versions(alternative.name), opened, |p| Ok(alternative.admits(p.version)))?
            .into_iter()
            .filter(free)
            .collect();
        let names: HashSet<&str> = self.index.providers(alternative.name).map(|p| p.name).collect();
        let mut providers = Vec::new();
        for name in names {
            let versions = self.index.versions(name);
            // Only the version that would be chosen counts: an older one that still provides the name does not.
            if let Some(p) = self.best(versions, opened, |p| relation::provides(p, alternative))?
                && free(&p)
            {
                providers.push(p);
            }
        }
        providers.sort_by_key(|p| (p.priority, !p.essential, p.name));
        list.extend(providers);
        Ok(list)
    }

    /// The newest version in the usual suites if `meets` likes it, else the newest in the opened suite if it does.
    fn best(
        &self,
        versions: impl Iterator<Item = &'p Package<'a>>,
        opened: Option<&str>,
        meets: impl Fn(&Package<'a>) -> Result<bool, ResolveError>,
    ) -> Result<Option<&'p Package<'a>>, ResolveError> {
        let (mut usual, mut other) = (None, None);
        for p in versions {
            if let Some(suite) = self.tied.get(p.name) {
                usual = usual.or((p.suite == *suite).then_some(p));
            } else if automatic(p) {
                usual = usual.or(Some(p));
            } else if opened == Some(p.suite) {
                other = other.or(Some(p));
            }
        }
        for p in [usual, other].into_iter().flatten() {
            if meets(p)? {
                return Ok(Some(p));
            }
        }
        Ok(None)
    }

    fn unmet(&self, package: &Package<'a>, clause: &Clause<'a>) -> ResolveError {
        let mut offered: Vec<Offer> = Vec::new();
        let mut nearest = Vec::new();
        for alternative in &clause.alternatives {
            let own = self.index.versions(alternative.name).map(Offer::of);
            let virtually = self.index.providers(alternative.name).map(Offer::of);
            let before = offered.len();
            offered.extend(own.chain(virtually));
            if offered.len() == before {
                nearest.extend(self.index.nearest(alternative.name));
            }
        }
        for offer in &mut offered {
            offer.chosen = self.chosen.get(offer.name.as_str()).map(|c| c.package.version.to_string());
        }
        ResolveError::Unmet(Box::new(UnmetDependency {
            chain: self.chain(Some(package.name)),
            package: package.name.to_string(),
            version: package.version.to_string(),
            clause: clause.text.to_string(),
            offered,
            nearest,
        }))
    }

    /// From the package that was asked for down to `name`.
    fn chain(&self, name: Option<&str>) -> Vec<String> {
        let mut chain = Vec::new();
        let mut at = name;
        while let Some(name) = at {
            chain.push(name.to_string());
            at = self.chosen.get(name).and_then(|choice| choice.parent);
        }
        chain.reverse();
        chain
    }

    /// Looks for chosen packages that exclude each other.
    fn check(&self) -> Result<(), ResolveError> {
        let mut clashes = Vec::new();
        for choice in self.chosen.values() {
            let package = choice.package;
            for (field, text) in [("Conflicts", package.conflicts), ("Breaks", package.breaks)] {
                for clause in relation::clauses(package, field, text)? {
                    for alternative in &clause.alternatives {
                        clashes.extend(self.clashes(package, field, alternative)?);
                    }
                }
            }
        }
        if clashes.is_empty() { Ok(()) } else { Err(ResolveError::Clashes(clashes)) }
    }

    fn clashes(
        &self,
        package: &Package<'a>,
        field: &'static str,
        alternative: &Alternative<'a>,
    ) -> Result<Vec<Clash>, ResolveError> {
        let mut hit: Vec<&str> = Vec::new();
        if let Some(choice) = self.chosen.get(alternative.name)
            && alternative.admits(choice.package.version)
        {
            hit.push(choice.package.name);
        }
        for provider in self.provided.get(alternative.name).into_iter().flatten() {
            if let Some(choice) = self.chosen.get(provider)
                && relation::provides(choice.package, alternative)?
            {
                hit.push(provider);
            }
        }
        // A package that conflicts with a name it provides itself means all the others (Policy 7.6.2).
        hit.retain(|name| *name != package.name);
        hit.dedup();
        Ok(hit
            .into_iter()
            .map(|other| Clash {
                package: package.name.to_string(),
                field,
                relation: alternative.to_string(),
                other: other.to_string(),
                chain: self.chain(Some(package.name)),
                other_chain: self.chain(Some(other)),
            })
            .collect())
    }
}

/// The name without its suite.
fn bare(name: &str) -> &str {
    name.split_once('/').map_or(name, |(name, _)| name)
}

#[cfg(test)]
mod tests;
