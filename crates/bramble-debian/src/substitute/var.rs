//! What the image has below /var, as rules for systemd-tmpfiles.
//!
//! /var is a tmpfs with some persistent directories bound into it, so whatever packages and their scripts put there
//! would be gone; every boot makes it again from these rules.

use super::{SubstituteError, tree, users::Accounts, words};
use crate::tree::{Kind, Tree, TreePath};
use std::collections::BTreeSet;

const SELF: &str = "var";
const FILE: &str = "/usr/lib/tmpfiles.d/bramble-var.conf";
/// Where systemd-tmpfiles copies from, by its own convention.
const FACTORY: &str = "/usr/share/factory";

/// Writes the rules; a path that a rule of Debian's names already is left to that.
///
/// # Errors
/// A refusal of the tree.
pub fn apply(root: &mut Tree, accounts: &Accounts) -> Result<(), SubstituteError> {
    let taken = named(root);
    let dir = TreePath::new("var").unwrap_or_default();
    let mut rules = String::from("# What the image holds below /var; made when it was built.\n");
    let mut copies = Vec::new();
    for (path, node) in root.below(&dir) {
        let at = path.to_text();
        // The stamp is for those who look at the image itself; the units that would read it are masked.
        if taken.contains(&at) || at == "/var/.updated" || at.contains(char::is_whitespace) {
            continue;
        }
        let user = accounts.user_name(node.uid).map_or(node.uid.to_string(), str::to_string);
        let group = accounts.group_name(node.gid).map_or(node.gid.to_string(), str::to_string);
        let rule = match &node.kind {
            Kind::Dir => format!("d {at} {:04o} {user} {group} -", node.mode),
            Kind::Symlink(target) => format!("L {at} - - - - {}", String::from_utf8_lossy(target)),
            Kind::File(content) if content.is_empty() => format!("f {at} {:04o} {user} {group} -", node.mode),
            Kind::File(_) | Kind::Hardlink(_) => {
                copies.push(path.clone());
                format!("C {at} {:04o} {user} {group} -", node.mode)
            }
            Kind::CharDev { .. } => continue,
        };
        rules += &rule;
        rules.push('\n');
    }
    for path in copies {
        if let Some(content) = root.read(path.as_bytes()).cloned() {
            root.file(format!("{FACTORY}{}", path.to_text()), 0o644, content).map_err(tree(SELF))?;
        }
    }
    root.file(FILE, 0o644, rules).map_err(tree(SELF))?;
    Ok(())
}

/// Paths below /var that rules of `tmpfiles.d(5)` make. Lines that only adjust (`z`, `h`, `e`, ...) make nothing.
fn named(root: &Tree) -> BTreeSet<String> {
    let mut out = BTreeSet::new();
    for (file, _) in root.list("/usr/lib/tmpfiles.d") {
        for line in root.read_text(file.as_bytes()).unwrap_or_default().lines() {
            let words = words(line);
            if let [kind, path, ..] = words.as_slice()
                && kind.starts_with(['d', 'D', 'q', 'Q', 'v', 'f', 'L', 'C'])
                && path.starts_with("/var")
            {
                out.insert(path.trim_end_matches('/').to_string());
            }
        }
    }
    out
}
