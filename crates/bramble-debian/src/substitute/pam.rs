//! pam-auth-update: the profiles of `/usr/share/pam-configs` merged into the `common-*` templates.

use super::{SubstituteError, tree};
use crate::tree::Tree;
use std::collections::BTreeMap;

const SELF: &str = "pam";

/// Template, and the kind of the modules in it.
const FILES: [(&str, &str); 5] = [
    ("common-account", "Account"),
    ("common-auth", "Auth"),
    ("common-password", "Password"),
    ("common-session", "Session"),
    ("common-session-noninteractive", "Session"),
];

/// Fields of a profile; those that hold modules have a line each.
type Profile = BTreeMap<String, Vec<String>>;

/// Writes the five files, for whatever profiles are on by default.
///
/// # Errors
/// A refusal of the tree.
pub fn apply(root: &mut Tree) -> Result<(), SubstituteError> {
    let mut profiles: Vec<Profile> = root
        .list("/usr/share/pam-configs")
        .iter()
        .filter_map(|(path, _)| root.read_text(path.as_bytes()))
        .map(parse)
        .filter(|profile| first(profile, "Default") == "yes")
        .collect();
    // As pam-auth-update does: the higher priority first, names decide between equals.
    profiles.sort_by_key(|profile| {
        let priority: i64 = first(profile, "Priority").parse().unwrap_or(0);
        (std::cmp::Reverse(priority), first(profile, "Name").to_string())
    });
    for (file, kind) in FILES {
        let Some(template) = root.read_text(format!("/usr/share/pam/{file}")) else { continue };
        let text = fill(template, kind, &profiles, file.ends_with("noninteractive"));
        root.file(format!("/etc/pam.d/{file}"), 0o644, text).map_err(tree(SELF))?;
    }
    Ok(())
}

fn first<'a>(profile: &'a Profile, field: &str) -> &'a str {
    profile.get(field).and_then(|lines| lines.first()).map_or("", String::as_str)
}

fn parse(text: &str) -> Profile {
    let mut out = Profile::new();
    let mut field = String::new();
    for line in text.lines() {
        if line.starts_with([' ', '\t']) {
            out.entry(field.clone()).or_default().push(line.trim().to_string());
        } else if let Some((name, value)) = line.split_once(':') {
            field = name.to_string();
            let lines = out.entry(field.clone()).or_default();
            if !value.trim().is_empty() {
                lines.push(value.trim().to_string());
            }
        }
    }
    out
}

fn fill(template: &str, kind: &str, profiles: &[Profile], noninteractive: bool) -> String {
    let mut out = String::new();
    for line in template.lines() {
        match line.strip_prefix('$') {
            Some(place) if place.ends_with("_primary") => {
                out += &stack(kind, "Primary", profiles, noninteractive)
            }
            Some(place) if place.ends_with("_additional") => {
                out += &stack(kind, "Additional", profiles, noninteractive);
            }
            _ => {
                out += line;
                out.push('\n');
            }
        }
    }
    out
}

/// The module lines of one block. The first profile of a block gives its `-Initial` lines if it has some; `end` as a
/// jump becomes the number of lines to the end of the block.
fn stack(kind: &str, block: &str, profiles: &[Profile], noninteractive: bool) -> String {
    let mine = profiles.iter().filter(|profile| {
        first(profile, &format!("{kind}-Type")) == block
            && !(noninteractive && first(profile, "Session-Interactive-Only") == "yes")
    });
    let mut lines: Vec<&str> = Vec::new();
    for (at, profile) in mine.enumerate() {
        let initial = profile.get(&format!("{kind}-Initial")).filter(|lines| at == 0 && !lines.is_empty());
        let modules = initial.or_else(|| profile.get(kind));
        lines.extend(modules.into_iter().flatten().map(String::as_str));
    }
    if lines.is_empty() && block == "Primary" {
        // pam-auth-update's stock line: without it the fallback behind the block, pam_deny, refuses everybody.
        return format!("{}\t[default=1]\t\t\tpam_permit.so\n", kind.to_lowercase());
    }
    let count = lines.len();
    let lines = lines.iter().enumerate();
    lines
        .map(|(at, line)| {
            format!("{}\t{}\n", kind.to_lowercase(), line.replace("=end", &format!("={}", count - at)))
        })
        .collect()
}
