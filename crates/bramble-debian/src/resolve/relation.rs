//! Relation fields: `Depends: a (>= 1) | b, c:any` (Debian Policy 7.1).

use super::ResolveError;
use crate::index::Package;
use crate::version::Relation;
use std::fmt;

/// One package name with the versions that will do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alternative<'a> {
    pub(super) name: &'a str,
    pub(super) bound: Option<(Relation, &'a str)>,
}

impl Alternative<'_> {
    /// Whether a package of that name in this version will do.
    pub(super) fn admits(&self, version: &str) -> bool {
        self.bound.is_none_or(|(relation, bound)| relation.holds(version, bound))
    }
}

impl fmt::Display for Alternative<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bound {
            Some((relation, version)) => write!(f, "{} ({relation} {version})", self.name),
            None => f.write_str(self.name),
        }
    }
}

/// What stands between two commas: any one of the alternatives will do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Clause<'a> {
    pub(super) text: &'a str,
    pub(super) alternatives: Vec<Alternative<'a>>,
}

/// Parses one relation field of a package.
pub(super) fn clauses<'a>(
    package: &Package<'a>,
    field: &'static str,
    text: &'a str,
) -> Result<Vec<Clause<'a>>, ResolveError> {
    text.split(',')
        .map(str::trim)
        // A trailing comma is allowed by the tools that write these files.
        .filter(|clause| !clause.is_empty())
        .map(|clause| {
            let alternatives = clause
                .split('|')
                .map(|word| alternative(word.trim()))
                .collect::<Option<Vec<_>>>()
                .ok_or_else(|| ResolveError::Malformed {
                    package: package.name.to_string(),
                    version: package.version.to_string(),
                    field,
                    text: clause.chars().take(120).collect(),
                })?;
            Ok(Clause { text: clause, alternatives })
        })
        .collect()
}

/// What a package provides, each with the version it states.
pub(super) fn provided<'a>(package: &Package<'a>) -> Result<Vec<Alternative<'a>>, ResolveError> {
    let clauses = clauses(package, "Provides", package.provides)?;
    Ok(clauses.into_iter().flat_map(|clause| clause.alternatives).collect())
}

/// Whether a package provides what the alternative asks for. A bound is met only by a provided version
/// (Policy 7.5): the version of the package itself says nothing about the virtual one.
pub(super) fn provides(package: &Package<'_>, wanted: &Alternative<'_>) -> Result<bool, ResolveError> {
    Ok(provided(package)?.iter().filter(|p| p.name == wanted.name).any(|p| match (wanted.bound, p.bound) {
        (None, _) => true,
        (Some((relation, bound)), Some((Relation::Equal, version))) => relation.holds(version, bound),
        (Some(_), _) => false,
    }))
}

fn alternative(text: &str) -> Option<Alternative<'_>> {
    let end = text.find(|c: char| !is_name(c)).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    // `:any`, `:native`, `:amd64`: an image has one architecture, so that the qualifier cannot change the choice.
    if let Some(qualified) = rest.strip_prefix(':') {
        let end = qualified.find(|c: char| !c.is_ascii_alphanumeric() && c != '-').unwrap_or(qualified.len());
        if end == 0 {
            return None;
        }
        rest = &qualified[end..];
    }
    rest = rest.trim_start();
    if rest.is_empty() {
        return Some(Alternative { name, bound: None });
    }
    let inner = rest.strip_prefix('(')?.strip_suffix(')')?.trim();
    let (relation, version) = Relation::take(inner)?;
    let version = version.trim();
    let good =
        !version.is_empty() && version.bytes().all(|b| b.is_ascii_alphanumeric() || b".+-:~".contains(&b));
    good.then_some(Alternative { name, bound: Some((relation, version)) })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_policy_allows() {
        for (text, name, bound) in [
            ("libc6", "libc6", None),
            ("python3:any", "python3", None),
            ("libc6 (>= 2.38)", "libc6", Some((Relation::LaterOrEqual, "2.38"))),
            ("gcc-14:amd64 (= 14.2.0-19)", "gcc-14", Some((Relation::Equal, "14.2.0-19"))),
            ("libstdc++6(>>1:1~)", "libstdc++6", Some((Relation::Later, "1:1~"))),
        ] {
            assert_eq!(alternative(text), Some(Alternative { name, bound }), "{text}");
        }
    }

    #[test]
    fn refuses_the_rest() {
        for text in
            ["", "(>= 1)", "a (1)", "a (>= )", "a (>= 1", "a: (>= 1)", "a b", "a (>= 1) x", "a [amd64]"]
        {
            assert_eq!(alternative(text), None, "{text}");
        }
    }
}
