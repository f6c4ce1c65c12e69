//! dpkg's database, written from the packages' own control files (formats: `dpkg-query(1)`, `deb-md5sums(5)`, dpkg's
//! `lib/dpkg`).
//!
//! It lies in /usr, because it describes the files of the image and must be switched with them; `/var/lib/dpkg` is a
//! link to it. It describes what is there: files that the image leaves out are not listed, so that `dpkg -V` reports
//! real damage only.

use crate::deb::field;
use crate::scripts::ScriptKind;
use crate::substitute::identity::{OS_RELEASE, OS_RELEASE_DIVERTED};
use crate::substitute::{Package, SubstituteError, tree};
use crate::tree::{Tree, TreePath};
use bramble_api::names::Arch;
use md5::{Digest, Md5};
use std::collections::{BTreeMap, BTreeSet};

const SELF: &str = "dpkg";

/// Where the database lies.
pub const DATABASE: &str = "/usr/lib/dpkg-db";

/// Where dpkg and scanners look for it.
const LINK: &str = "/var/lib/dpkg";

/// Makes the link and the directories. Must come before anything writes into the database.
///
/// # Errors
/// A refusal of the tree.
pub fn prepare(root: &mut Tree) -> Result<(), SubstituteError> {
    let tree = tree(SELF);
    // The dpkg package ships empty directories here.
    if let Some(at) = TreePath::new(LINK) {
        root.remove(&at);
    }
    root.dir(DATABASE, 0o755).map_err(tree)?;
    for dir in ["alternatives", "info", "parts", "triggers", "updates"] {
        root.dir(format!("{DATABASE}/{dir}"), 0o755).map_err(tree)?;
    }
    root.symlink(LINK, "../../usr/lib/dpkg-db").map_err(tree)?;
    Ok(())
}

/// Writes the database of the packages as they lie in the tree now.
/// `statoverride` is written as it is.
///
/// # Errors
/// A refusal of the tree.
pub fn write(
    root: &mut Tree,
    packages: &[Package],
    arch: Arch,
    statoverride: &str,
) -> Result<(), SubstituteError> {
    let tree = tree(SELF);
    let mut status = String::new();
    for package in packages {
        let base = info_name(package);
        let present: BTreeSet<&TreePath> =
            package.deb.entries.iter().map(|entry| &entry.path).filter(|path| is_there(root, path)).collect();
        let info = |file: &str| format!("{DATABASE}/info/{base}.{file}");
        let mut files: BTreeMap<String, (u16, Vec<u8>)> = BTreeMap::new();
        for (name, content) in &package.deb.control {
            let (mode, text) = match name.as_str() {
                "control" | "conffiles" => continue,
                "md5sums" => (0o644, filter_lines(content, |line| md5_path(line), &present)),
                // Kept for whoever reads them; nothing in the image ever runs them.
                name if ScriptKind::ALL.iter().any(|kind| kind.name() == name) => (0o755, content.to_vec()),
                "prerm" | "postrm" | "config" => (0o755, content.to_vec()),
                _ => (0o644, content.to_vec()),
            };
            files.insert(name.clone(), (mode, text));
        }
        // dpkg --audit misses the list of a package that has none.
        files.entry("md5sums".into()).or_insert((0o644, Vec::new()));
        files.insert("list".into(), (0o644, list(&present)));
        let conffiles = conffiles(root, package);
        if !conffiles.is_empty() {
            let text: String = conffiles.iter().map(|(path, _)| format!("{path}\n")).collect();
            files.insert("conffiles".into(), (0o644, text.into_bytes()));
        }
        for (name, (mode, text)) in files {
            root.file(info(&name), mode, text).map_err(tree)?;
        }
        status += &stanza(&package.deb.text("control"), &conffiles);
        status.push('\n');
    }
    let diversions = format!("{OS_RELEASE}\n{OS_RELEASE_DIVERTED}\n:\n");
    for (file, text) in [
        ("arch-native", format!("{}\n", arch.debian())),
        ("available", String::new()),
        ("diversions", diversions),
        ("info/format", "1\n".to_string()),
        ("statoverride", statoverride.to_string()),
        ("status", status),
        ("triggers/File", String::new()),
        ("triggers/Unincorp", String::new()),
    ] {
        root.file(format!("{DATABASE}/{file}"), 0o644, text).map_err(tree)?;
    }
    Ok(())
}

/// Packages of which several architectures can be installed side by side carry theirs in the name of their files.
fn info_name(package: &Package) -> String {
    match package.deb.field("Multi-Arch").as_deref() {
        Some("same") => format!("{}:{}", package.name(), package.locked.arch),
        _ => package.name().to_string(),
    }
}

fn is_there(root: &Tree, path: &TreePath) -> bool {
    root.resolve_parent(path.as_bytes()).is_ok_and(|at| root.get(&at).is_some())
}

fn list(present: &BTreeSet<&TreePath>) -> Vec<u8> {
    let mut out = Vec::new();
    for path in present {
        if path.is_root() {
            out.extend_from_slice(b"/.\n");
        } else {
            out.push(b'/');
            out.extend_from_slice(path.as_bytes());
            out.push(b'\n');
        }
    }
    out
}

/// The path in a line of `md5sums`: 32 digits, two blanks, the path without its leading slash.
fn md5_path(line: &[u8]) -> Option<&[u8]> {
    line.get(34..)
}

fn filter_lines<'a>(
    text: &'a [u8],
    path: impl Fn(&'a [u8]) -> Option<&'a [u8]>,
    present: &BTreeSet<&TreePath>,
) -> Vec<u8> {
    let mut out = Vec::new();
    for line in text.split_inclusive(|b| *b == b'\n') {
        let there =
            path(line.trim_ascii_end()).and_then(TreePath::new).is_some_and(|path| present.contains(&path));
        if there {
            out.extend_from_slice(line);
        }
    }
    out
}

/// Configuration files that are in the image, with the MD5 of what the package ships.
fn conffiles(root: &Tree, package: &Package) -> Vec<(String, String)> {
    let text = package.deb.text("conffiles");
    // `remove-on-upgrade /path` is for what older versions had.
    let paths = text.lines().map(str::trim).filter(|line| line.starts_with('/'));
    let mut out = Vec::new();
    for path in paths {
        let shipped = TreePath::new(path)
            .and_then(|path| package.deb.entries.iter().find(|entry| entry.path == path))
            .and_then(|entry| match &entry.node.kind {
                crate::tree::Kind::File(content) => Some(content),
                _ => None,
            });
        if let Some(content) = shipped
            && root.exists(path)
        {
            out.push((path.to_string(), hex::encode(Md5::digest(content))));
        }
    }
    out
}

/// A stanza of `status`: the control file with the state after the name, and the conffiles at the end.
fn stanza(control: &str, conffiles: &[(String, String)]) -> String {
    let mut out = String::new();
    for (at, line) in control.lines().filter(|line| !line.trim().is_empty()).enumerate() {
        out += &format!("{line}\n");
        if at == 0 {
            out += "Status: install ok installed\n";
        }
    }
    if !conffiles.is_empty() {
        out += "Conffiles:\n";
        for (path, md5) in conffiles {
            out += &format!(" {path} {md5}\n");
        }
    }
    out
}

/// Names of the packages whose files a package may overwrite (`Replaces`).
pub(crate) fn replaces(package: &Package) -> Vec<String> {
    let value = field(&package.deb.text("control"), "Replaces").unwrap_or_default();
    let names = value.split(',').filter_map(|item| item.split_whitespace().next());
    names.map(|name| name.split(':').next().unwrap_or(name).to_string()).collect()
}
