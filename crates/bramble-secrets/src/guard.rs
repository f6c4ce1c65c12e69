//! Whether a file that is called encrypted is: looked at without any key.

use crate::rules::Rule;
use crate::tree::{Kind, Line, Map, Node, Scalar, find};
use crate::{cipher, yaml};
use std::path::Path;

/// A file that says `.sops.` in its name and is not encrypted. Names places, never values.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unencrypted {
    /// sops never wrote it.
    #[error("it was not written by sops")]
    NoSops,
    /// A value lies in clear where the file's own rule wants it encrypted.
    #[error("`{at}` lies in clear")]
    Clear {
        /// Keys to the value, joined with dots.
        at: String,
    },
}

/// Whether a file of this name is one that must be encrypted: `*.sops.*`, but not sops' own settings.
pub fn must_be_encrypted(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.find(".sops.").is_some_and(|at| at > 0 && at + 6 < name.len())
}

/// Looks at a file of such a name. What sops encrypts as one piece (binary files, `.env`, `.ini`) is taken by sops'
/// mark; YAML and JSON are looked at value by value.
pub fn check_encrypted(path: &Path, text: &str) -> Result<(), Unencrypted> {
    let extension = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    match extension.as_str() {
        "env" => mark(text.lines().any(|l| l.starts_with("sops_mac="))),
        "ini" => mark(text.lines().any(|l| l.trim() == "[sops]")),
        _ => {
            // Several documents, or YAML that sops reads and we do not: sops' mark has to do.
            let Ok(top) = yaml::parse(text) else {
                return mark(text.contains("ENC[AES256_GCM,") && text.contains("sops"));
            };
            let Some(Node::Map(section)) = find(&top, "sops") else { return Err(Unencrypted::NoSops) };
            mark(find(section, "mac").is_some())?;
            let Ok(rule) = Rule::of(section) else { return Ok(()) };
            map(&top, &rule, &mut Vec::new())
        }
    }
}

fn mark(there: bool) -> Result<(), Unencrypted> {
    if there { Ok(()) } else { Err(Unencrypted::NoSops) }
}

fn map(top: &Map, rule: &Rule, keys: &mut Vec<String>) -> Result<(), Unencrypted> {
    for line in top {
        if let Line::Entry((key, value)) = line {
            if keys.is_empty() && key == "sops" {
                continue;
            }
            keys.push(key.clone());
            node(value, rule, keys)?;
            keys.pop();
        }
    }
    Ok(())
}

fn node(value: &Node, rule: &Rule, keys: &mut Vec<String>) -> Result<(), Unencrypted> {
    match value {
        Node::Map(inner) => map(inner, rule, keys),
        Node::List(items) => {
            for line in items {
                if let Line::Entry(item) = line {
                    node(item, rule, keys)?;
                }
            }
            Ok(())
        }
        Node::Scalar(Scalar { raw: Some(raw), .. }) => {
            let null = raw.plain && yaml::plain_kind(&raw.text) == Some(Kind::Null);
            let open = !null && !raw.text.is_empty() && !cipher::is_sealed(&raw.text);
            if open && rule.encrypts(keys) {
                return Err(Unencrypted::Clear { at: keys.join(".") });
            }
            Ok(())
        }
        Node::Scalar(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str) -> Result<(), Unencrypted> {
        check_encrypted(Path::new(name), text)
    }

    #[test]
    fn names_that_promise_encryption() {
        for name in ["a.sops.yaml", "d/x.sops.json", "c.sops.env"] {
            assert!(must_be_encrypted(Path::new(name)), "{name}");
        }
        for name in [".sops.yaml", "sops.yaml", "d/.sops.yaml", "a.yaml", "a.sops.", "sopsxa.yaml"] {
            assert!(!must_be_encrypted(Path::new(name)), "{name}");
        }
    }

    #[test]
    fn what_lies_in_clear_is_named_and_not_quoted() {
        const ENC: &str = "ENC[AES256_GCM,data:YQ==,iv:YQ==,tag:YQ==,type:str]";
        assert_eq!(check("a.sops.yaml", "a: hunter2\n"), Err(Unencrypted::NoSops));
        assert_eq!(check("a.sops.yaml", "not even: [yaml\n"), Err(Unencrypted::NoSops));
        let good = format!("a: {ENC}\nb_unencrypted: x\nc: null\nd: ''\nsops:\n    mac: {ENC}\n");
        assert_eq!(check("a.sops.yaml", &good), Ok(()));
        assert_eq!(
            check("a.sops.json", &format!("{{\"a\": \"{ENC}\", \"sops\": {{\"mac\": \"{ENC}\"}}}}")),
            Ok(())
        );
        let pasted = good.replace("c: null", "c:\n    - hunter2");
        assert_eq!(check("a.sops.yaml", &pasted), Err(Unencrypted::Clear { at: "c".into() }));
        let partial =
            format!("kind: Secret\ndata: {ENC}\nsops:\n    mac: {ENC}\n    encrypted_regex: ^data$\n");
        assert_eq!(check("a.sops.yaml", &partial), Ok(()));
        assert_eq!(check("a.sops.env", "A=1\n"), Err(Unencrypted::NoSops));
        assert_eq!(check("a.sops.env", "A=1\nsops_mac=x\n"), Ok(()));
    }
}
