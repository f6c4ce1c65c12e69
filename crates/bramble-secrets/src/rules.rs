//! Which values of a file are encrypted, and the `.sops.yaml` that tells `sops` so.

use crate::identity::Recipient;
use crate::tree::{Map, find};
use regex_lite::Regex;

/// The rule of a file: at most one of the four settings that sops has for it.
pub(crate) enum Rule {
    UnencryptedSuffix(String),
    EncryptedSuffix(String),
    UnencryptedRegex(Regex),
    EncryptedRegex(Regex),
}

/// sops' own rule for files that state none.
pub(crate) const DEFAULT_SUFFIX: &str = "_unencrypted";

impl Rule {
    /// The rule stated in a `sops` section. The error names the setting that cannot be followed.
    pub(crate) fn of(section: &Map) -> Result<Rule, &'static str> {
        let text = |key: &'static str| {
            find(section, key).and_then(|n| n.raw_text()).filter(|t| !t.is_empty()).map(|t| (key, t))
        };
        for key in ["unencrypted_comment_regex", "encrypted_comment_regex"] {
            if text(key).is_some() {
                return Err(key);
            }
        }
        let stated: Vec<_> =
            ["unencrypted_suffix", "encrypted_suffix", "unencrypted_regex", "encrypted_regex"]
                .into_iter()
                .filter_map(text)
                .collect();
        let regex = |key, pattern: &str| Regex::new(pattern).map_err(|_| key);
        match stated.as_slice() {
            [] => Ok(Rule::UnencryptedSuffix(DEFAULT_SUFFIX.into())),
            [(key @ "unencrypted_regex", pattern)] => Ok(Rule::UnencryptedRegex(regex(*key, pattern)?)),
            [(key @ "encrypted_regex", pattern)] => Ok(Rule::EncryptedRegex(regex(*key, pattern)?)),
            [("encrypted_suffix", suffix)] => Ok(Rule::EncryptedSuffix((*suffix).into())),
            [(_, suffix)] => Ok(Rule::UnencryptedSuffix((*suffix).into())),
            [_, (second, _), ..] => Err(second),
        }
    }

    /// Whether the value at `path` is encrypted. One key of the path that matches decides.
    pub(crate) fn encrypts<S: AsRef<str>>(&self, path: &[S]) -> bool {
        let any = |test: &dyn Fn(&str) -> bool| path.iter().any(|key| test(key.as_ref()));
        match self {
            Rule::UnencryptedSuffix(suffix) => !any(&|key| key.ends_with(suffix)),
            Rule::EncryptedSuffix(suffix) => any(&|key| key.ends_with(suffix)),
            Rule::UnencryptedRegex(regex) => !any(&|key| regex.is_match(key)),
            Rule::EncryptedRegex(regex) => any(&|key| regex.is_match(key)),
        }
    }
}

/// The text of a `.sops.yaml` with which `sops` edits and makes the file named `file_name` for these recipients.
pub fn creation_rules(file_name: &str, recipients: &[Recipient]) -> String {
    let mut pattern = String::from("(^|/)");
    for c in file_name.chars() {
        if !c.is_ascii_alphanumeric() && !"_-/".contains(c) {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern.push('$');
    let mut out = String::from("creation_rules:\n");
    // Single quotes: the pattern holds backslashes.
    out.push_str(&format!("  - path_regex: '{}'\n    age: >-\n", pattern.replace('\'', "''")));
    let last = recipients.len().saturating_sub(1);
    for (i, recipient) in recipients.iter().enumerate() {
        out.push_str(&format!("      {recipient}{}\n", if i == last { "" } else { "," }));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<Rule, &'static str> {
        Rule::of(&crate::yaml::parse(text).unwrap())
    }

    #[test]
    fn one_rule_is_followed() {
        assert!(rule("mac: x\n").unwrap().encrypts(&["a", "b"]));
        assert!(!rule("mac: x\n").unwrap().encrypts(&["a_unencrypted", "b"]));
        assert!(rule("encrypted_suffix: _s\n").unwrap().encrypts(&["a_s", "b"]));
        assert!(!rule("encrypted_suffix: _s\n").unwrap().encrypts(&["a"]));
        assert!(rule("encrypted_regex: ^(data|key)$\n").unwrap().encrypts(&["x", "key"]));
        assert!(!rule("unencrypted_regex: ^kind$\n").unwrap().encrypts(&["kind"]));
    }

    #[test]
    fn what_cannot_be_followed_is_named() {
        assert_eq!(rule("encrypted_comment_regex: x\n").err(), Some("encrypted_comment_regex"));
        assert_eq!(rule("encrypted_regex: '('\n").err(), Some("encrypted_regex"));
        assert_eq!(rule("encrypted_regex: a\nencrypted_suffix: b\n").err(), Some("encrypted_regex"));
    }
}
