//! The packages that an archive offers: a scan of `Packages` files that borrows from their text.
//!
//! Format: Debian Policy 5.1 (paragraphs of fields) and the repository format at
//! <https://wiki.debian.org/DebianRepository/Format#A.22Packages.22_Indices>.

use crate::version;
use bramble_api::names::Arch;
use std::collections::HashMap;
use thiserror::Error;

/// The text of one `Packages` file, whose digest was checked.
#[derive(Clone, Debug)]
pub struct PackagesText {
    /// Suite it belongs to, such as `trixie-security`.
    pub suite: String,
    /// Component, such as `main`.
    pub component: String,
    /// The file.
    pub text: String,
}

/// All `Packages` files of one architecture.
#[derive(Clone, Debug)]
pub struct IndexTexts {
    /// Whose packages they list.
    pub arch: Arch,
    /// The newest `Date` of the releases they came from, in seconds since the epoch.
    pub date: u64,
    /// The files. Earlier ones win between equal versions.
    pub texts: Vec<PackagesText>,
}

/// A `Packages` file that cannot be read, though its digest is right.
#[derive(Debug, Error)]
#[error("the package {package} in {suite}/{component} has no usable field {field}")]
pub struct MalformedIndex {
    /// Name of the package, or its place in the file if it has none.
    pub package: String,
    /// Suite of the file.
    pub suite: String,
    /// Component of the file.
    pub component: String,
    /// The field that is missing or unreadable.
    pub field: &'static str,
}

/// How much a package belongs to a usual system; earlier is more (Debian Policy 2.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Priority {
    /// Needed for the system to work.
    Required,
    /// Expected on any such system.
    Important,
    /// Of a small but not too limited system.
    Standard,
    /// The default.
    Optional,
    /// An old word for optional packages that conflict with others.
    Extra,
}

impl Priority {
    fn parse(text: &str) -> Priority {
        match text {
            "required" => Priority::Required,
            "important" => Priority::Important,
            "standard" => Priority::Standard,
            "extra" => Priority::Extra,
            _ => Priority::Optional,
        }
    }
}

/// One package as the archive describes it. Relation fields are kept as text: only the few packages that are
/// looked at have them parsed.
#[derive(Clone, Debug)]
pub struct Package<'a> {
    /// Name.
    pub name: &'a str,
    /// Full version.
    pub version: &'a str,
    /// `amd64`, `arm64` or `all`.
    pub arch: &'a str,
    /// Suite it stands in.
    pub suite: &'a str,
    /// Its priority.
    pub priority: Priority,
    /// `Essential: yes`.
    pub essential: bool,
    /// `Pre-Depends`.
    pub pre_depends: &'a str,
    /// `Depends`.
    pub depends: &'a str,
    /// `Provides`.
    pub provides: &'a str,
    /// `Conflicts`.
    pub conflicts: &'a str,
    /// `Breaks`.
    pub breaks: &'a str,
    /// Path below the archive's root.
    pub filename: &'a str,
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: &'a str,
    /// KiB on disk when unpacked, as its maintainer's tools counted.
    pub installed_kib: u64,
}

/// What is offered for one architecture.
#[derive(Debug)]
pub struct Index<'a> {
    arch: Arch,
    date: u64,
    packages: Vec<Package<'a>>,
    by_name: HashMap<&'a str, Vec<u32>>,
    providers: HashMap<&'a str, Vec<u32>>,
}

impl<'a> Index<'a> {
    /// Scans the texts.
    ///
    /// # Errors
    /// A paragraph lacks a field that every package has, or states one for another architecture.
    pub fn new(texts: &'a IndexTexts) -> Result<Self, MalformedIndex> {
        let mut index = Index {
            arch: texts.arch,
            date: texts.date,
            packages: Vec::new(),
            by_name: HashMap::new(),
            providers: HashMap::new(),
        };
        for source in &texts.texts {
            // A paragraph takes about 800 bytes in Debian's own files.
            index.packages.reserve(source.text.len() / 800);
            for paragraph in paragraphs(&source.text) {
                let package = scan(paragraph, source, texts.arch)?;
                let id = u32::try_from(index.packages.len()).unwrap_or(u32::MAX);
                index.by_name.entry(package.name).or_default().push(id);
                for name in provided_names(package.provides) {
                    index.providers.entry(name).or_default().push(id);
                }
                index.packages.push(package);
            }
        }
        let packages = &index.packages;
        for ids in index.by_name.values_mut() {
            // Stable: of equal versions the one from the earlier text stays in front.
            ids.sort_by(|a, b| {
                version::compare(packages[*b as usize].version, packages[*a as usize].version)
            });
        }
        Ok(index)
    }

    /// Whose packages these are.
    pub fn arch(&self) -> Arch {
        self.arch
    }

    /// The newest date of the releases it came from, in seconds since the epoch.
    pub fn date(&self) -> u64 {
        self.date
    }

    /// How many packages there are, each version and suite counted.
    pub fn len(&self) -> usize {
        self.packages.len()
    }

    /// Nothing is offered.
    pub fn is_empty(&self) -> bool {
        self.packages.is_empty()
    }

    /// The versions of one package, newest first.
    pub fn versions(&self, name: &str) -> impl Iterator<Item = &Package<'a>> {
        self.by_name.get(name).into_iter().flatten().map(|id| &self.packages[*id as usize])
    }

    /// Packages that state to provide `name`, in the order of the files.
    pub fn providers(&self, name: &str) -> impl Iterator<Item = &Package<'a>> {
        self.providers.get(name).into_iter().flatten().map(|id| &self.packages[*id as usize])
    }

    /// All packages in the order of the files.
    pub fn packages(&self) -> &[Package<'a>] {
        &self.packages
    }

    /// The names that look most like `name`, nearest first, at most three.
    pub fn nearest(&self, name: &str) -> Vec<String> {
        // A third of the letters may differ: more is another word.
        let limit = (name.len() / 3).max(1);
        let mut near: Vec<(usize, &str)> = self
            .by_name
            .keys()
            .filter(|other| other.len().abs_diff(name.len()) <= limit)
            .map(|other| (strsim::osa_distance(name, other), *other))
            .filter(|(distance, _)| *distance <= limit)
            .collect();
        near.sort_unstable();
        near.into_iter().take(3).map(|(_, other)| other.to_string()).collect()
    }
}

/// Paragraphs of a control file: groups of lines between empty lines.
fn paragraphs(text: &str) -> impl Iterator<Item = &str> {
    text.split("\n\n").map(|p| p.trim_matches('\n')).filter(|p| !p.is_empty())
}

/// Fields of one paragraph, continuation lines included.
fn fields(paragraph: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut rest = paragraph;
    std::iter::from_fn(move || {
        while !rest.is_empty() {
            let mut end = rest.find('\n').unwrap_or(rest.len());
            // Lines that begin with a blank continue the field.
            while rest[end..].starts_with("\n ") || rest[end..].starts_with("\n\t") {
                end = rest[end + 1..].find('\n').map_or(rest.len(), |next| end + 1 + next);
            }
            let line = &rest[..end];
            rest = rest.get(end + 1..).unwrap_or_default();
            if let Some((name, value)) = line.split_once(':') {
                return Some((name, value.trim()));
            }
        }
        None
    })
}

fn scan<'a>(paragraph: &'a str, source: &'a PackagesText, arch: Arch) -> Result<Package<'a>, MalformedIndex> {
    let mut package = Package {
        name: "",
        version: "",
        arch: "",
        suite: &source.suite,
        priority: Priority::Optional,
        essential: false,
        pre_depends: "",
        depends: "",
        provides: "",
        conflicts: "",
        breaks: "",
        filename: "",
        size: 0,
        sha256: "",
        installed_kib: 0,
    };
    for (name, value) in fields(paragraph) {
        match name {
            "Package" => package.name = value,
            "Version" => package.version = value,
            "Architecture" => package.arch = value,
            "Priority" => package.priority = Priority::parse(value),
            "Essential" => package.essential = value == "yes",
            "Pre-Depends" => package.pre_depends = value,
            "Depends" => package.depends = value,
            "Provides" => package.provides = value,
            "Conflicts" => package.conflicts = value,
            "Breaks" => package.breaks = value,
            "Filename" => package.filename = value,
            "Size" => package.size = value.parse().unwrap_or(0),
            "SHA256" => package.sha256 = value,
            "Installed-Size" => package.installed_kib = value.parse().unwrap_or(0),
            _ => {}
        }
    }
    let malformed = |field| MalformedIndex {
        package: if package.name.is_empty() { first_line(paragraph) } else { package.name.to_string() },
        suite: source.suite.clone(),
        component: source.component.clone(),
        field,
    };
    if package.name.is_empty() {
        return Err(malformed("Package"));
    }
    if package.version.is_empty() {
        return Err(malformed("Version"));
    }
    if package.arch != arch.debian() && package.arch != "all" {
        return Err(malformed("Architecture"));
    }
    if package.size == 0 {
        return Err(malformed("Size"));
    }
    if package.sha256.len() != 64 || !package.sha256.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(malformed("SHA256"));
    }
    // The path becomes part of an address: it must stay below the archive's root.
    let path_is_safe = !package.filename.is_empty()
        && !package.filename.starts_with('/')
        && !package.filename.split('/').any(|part| part == "..")
        && package.filename.bytes().all(|b| b.is_ascii_graphic() && !b"?#\\".contains(&b));
    if !path_is_safe {
        return Err(malformed("Filename"));
    }
    Ok(package)
}

fn first_line(paragraph: &str) -> String {
    paragraph.lines().next().unwrap_or_default().chars().take(60).collect()
}

/// The names in a `Provides` field, without versions.
fn provided_names(provides: &str) -> impl Iterator<Item = &str> {
    provides
        .split(',')
        .map(|item| item.trim().split([' ', '(', ':', '\n', '\t']).next().unwrap_or_default())
        .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(text: &str) -> IndexTexts {
        IndexTexts {
            arch: Arch::Amd64,
            date: 0,
            texts: vec![PackagesText { suite: "trixie".into(), component: "main".into(), text: text.into() }],
        }
    }

    const HASH: &str = "7e3248d03a84dcdda88c567aa8c4038f2e7795d2dd167b112c56f8901b6f513f";

    fn paragraph(name: &str, version: &str, more: &str) -> String {
        format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\n{more}Filename: pool/{name}.deb\nSize: 5\nSHA256: {HASH}\n\n"
        )
    }

    #[test]
    fn reads_fields_and_sorts_versions() {
        let text = paragraph("a", "1.9", "") + &paragraph("a", "1.10", "") + &paragraph("b", "1", "");
        let texts = texts(&text);
        let index = Index::new(&texts).unwrap();
        let versions: Vec<_> = index.versions("a").map(|p| p.version).collect();
        assert_eq!(versions, ["1.10", "1.9"]);
        assert_eq!(index.len(), 3);
        assert_eq!(index.versions("b").next().unwrap().filename, "pool/b.deb");
    }

    #[test]
    fn folded_fields_and_strange_line_ends() {
        let text = paragraph(
            "a",
            "1",
            "Provides: awk,\n virt (= 2),\n\tother\nDescription: x\n Depends: not-a-field\n",
        );
        let texts = texts(&format!("\n\n{}\n", text.trim_end()));
        let index = Index::new(&texts).unwrap();
        for name in ["awk", "virt", "other"] {
            assert_eq!(index.providers(name).count(), 1, "{name}");
        }
        assert_eq!(index.packages()[0].depends, "");
    }

    #[test]
    fn refuses_what_could_leave_the_archive() {
        for filename in ["../etc/passwd", "/etc/passwd", "pool/a b.deb", "pool/a.deb?x", "pool/\u{e9}"] {
            let text = paragraph("a", "1", "").replace("pool/a.deb", filename);
            let texts = texts(&text);
            assert_eq!(Index::new(&texts).unwrap_err().field, "Filename", "{filename}");
        }
    }

    #[test]
    fn names_the_missing_field() {
        for (gone, field) in [
            ("Version: 1\n", "Version"),
            (HASH, "SHA256"),
            ("Size: 5\n", "Size"),
            ("Package: a\n", "Package"),
        ] {
            let text = paragraph("a", "1", "").replace(gone, "");
            let texts = texts(&text);
            assert_eq!(Index::new(&texts).unwrap_err().field, field);
        }
    }

    #[test]
    fn nearest_names() {
        let text = ["open-iscsi", "openssl", "nfs-common"].map(|n| paragraph(n, "1", "")).concat();
        let texts = texts(&text);
        let index = Index::new(&texts).unwrap();
        assert_eq!(index.nearest("open-icsi"), ["open-iscsi"]);
        assert!(index.nearest("zzzzzz").is_empty());
    }
}
