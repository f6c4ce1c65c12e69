//! update-alternatives: the `--install` lines of scripts, read as text and never run.

use super::{Package, SubstituteError, tree, words};
use crate::dpkg::DATABASE;
use crate::scripts::{Passed, ScriptKind, blocks_of};
use crate::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};

const SELF: &str = "alternatives";

/// One of the choices for a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Choice {
    /// The highest is taken.
    pub priority: i32,
    /// The program.
    pub path: String,
    /// Name, link and path of what goes with it.
    pub slaves: Vec<(String, String, String)>,
}

/// A name with its choices.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// The generic path.
    pub link: String,
    /// All choices.
    pub choices: BTreeSet<Choice>,
}

/// Reads the `update-alternatives ... --install` commands of a shell text.
pub fn parse(text: &str) -> BTreeMap<String, Group> {
    let mut out: BTreeMap<String, Group> = BTreeMap::new();
    let joined = text.replace("\\\n", " ");
    for line in joined.lines() {
        let Some(command) = line.trim().strip_prefix("update-alternatives ") else { continue };
        // What follows the command itself: `|| true`, `; then`.
        let command = command.split(['|', ';', '&']).next().unwrap_or_default();
        let words = words(command);
        let mut words = words.iter().map(String::as_str).skip_while(|word| *word != "--install").skip(1);
        let (Some(link), Some(name), Some(path), Some(priority)) =
            (words.next(), words.next(), words.next(), words.next().and_then(|p| p.parse().ok()))
        else {
            continue;
        };
        let mut slaves = Vec::new();
        while words.next() == Some("--slave") {
            if let (Some(link), Some(name), Some(path)) = (words.next(), words.next(), words.next()) {
                slaves.push((name.to_string(), link.to_string(), path.to_string()));
            }
        }
        let group = out.entry(name.to_string()).or_default();
        group.link = link.to_string();
        group.choices.insert(Choice { priority, path: path.to_string(), slaves });
    }
    out
}

/// Makes the links and dpkg's records of them, for packages whose script is known to call update-alternatives: in a
/// block of debhelper's, or in a remainder that was reviewed (or accepted) as such.
///
/// # Errors
/// A refusal of the tree.
pub fn apply(root: &mut Tree, packages: &[Package], passed: &Passed) -> Result<(), SubstituteError> {
    let mut groups: BTreeMap<String, Group> = BTreeMap::new();
    for package in packages {
        let text = package.deb.text(ScriptKind::Postinst.name());
        let known = passed.stands.get(package.name()).is_some_and(|names| names.contains(SELF));
        let text = if known {
            text
        } else {
            blocks_of(&text, "dh_installalternatives").collect::<Vec<_>>().join("\n")
        };
        for (name, group) in parse(&text) {
            let all = groups.entry(name).or_default();
            all.link = group.link;
            all.choices.extend(group.choices);
        }
    }
    let tree = tree(SELF);
    for (name, mut group) in groups {
        // A choice whose file is not in the image (a manual page) is none.
        group.choices.retain(|choice| root.exists(&choice.path));
        let Some(best) = group.choices.iter().max_by_key(|choice| choice.priority).cloned() else { continue };
        root.symlink(format!("/etc/alternatives/{name}"), &best.path).map_err(tree)?;
        root.symlink(&group.link, format!("/etc/alternatives/{name}")).map_err(tree)?;
        for (slave, link, path) in &best.slaves {
            if root.exists(path) {
                root.symlink(format!("/etc/alternatives/{slave}"), path).map_err(tree)?;
                root.symlink(link, format!("/etc/alternatives/{slave}")).map_err(tree)?;
            }
        }
        root.file(format!("{DATABASE}/alternatives/{name}"), 0o644, record(root, &group)).map_err(tree)?;
    }
    Ok(())
}

/// The administrative file of one name (format: `update-alternatives.c`, `alternative_save`).
fn record(root: &Tree, group: &Group) -> String {
    let mut slaves: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, link, path) in group.choices.iter().flat_map(|choice| &choice.slaves) {
        if root.exists(path) {
            slaves.insert(name, link);
        }
    }
    let mut out = format!("auto\n{}\n", group.link);
    for (name, link) in &slaves {
        out += &format!("{name}\n{link}\n");
    }
    out += "\n";
    let mut choices: Vec<&Choice> = group.choices.iter().collect();
    choices.sort_by(|a, b| a.path.cmp(&b.path));
    for choice in choices {
        out += &format!("{}\n{}\n", choice.path, choice.priority);
        for name in slaves.keys() {
            let path = choice.slaves.iter().find(|(slave, ..)| slave == name).map_or("", |(.., path)| path);
            out += &format!("{path}\n");
        }
    }
    out + "\n"
}
