//! `spec.os`, and `os` of a role or machine.

use crate::decode::{Context, Decode, Definitions, Refusal, Scalar, decode_scalar, record, words};
use crate::diagnostic::Diagnostic;
use crate::scalar::{OrNone, Period, Text, Timezone, Url, Window};
use crate::tree::{Node, Value, shorten};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;

record! {
    /// The operating system of every machine.
    #[derive(Default)]
    pub struct ClusterOs {
        /// Debian's release that Bramble OS is made from.
        "release" release: Release = Release::Trixie,
        /// Maintainer scripts that the user has read and decided about.
        "acceptScripts" accept_scripts: Vec<AcceptedScript> = Vec::new(),
    } with {
        /// What a role or machine may state too.
        settings: OsSettings,
    }
}

words! {
    /// A release of Debian.
    pub enum Release {
        /// Debian 13.
        Trixie = "trixie",
    }
}

#[expect(clippy::derivable_impls, reason = "the macro that declares words has no default among them")]
impl Default for Release {
    fn default() -> Self {
        Release::Trixie
    }
}

record! {
    /// What the operating system is told. The nearest of machine, role and cluster wins; lists replace, mappings
    /// merge by key.
    #[derive(Default)]
    pub struct OsSettings {
        /// Debian packages beside Bramble OS' own.
        "packages" packages: Option<Vec<PackageName>> = None,
        /// Time zone, a name of the tz database. `Etc/UTC` when absent.
        "timezone" timezone: Option<Timezone> = None,
        /// Words for the kernel's command line.
        "kernelArgs" kernel_args: Option<Vec<Word>> = None,
        /// Kernel modules to load.
        "modules" modules: Option<Vec<Word>> = None,
        /// Kernel settings, as sysctl names them.
        "sysctls" sysctls: Sysctls = Sysctls::default(),
        /// Lines for a Pi's config.txt.
        "firmware" firmware: Option<Vec<Text>> = None,
        /// Remote shell. Absent or `none`: no sshd is started.
        "ssh" ssh: Option<OrNone<Ssh>> = None,
        /// Run Debian's prometheus-node-exporter, port 9100. Only management machines do when absent.
        "nodeExporter" node_exporter: Option<bool> = None,
        /// Unattended updates. Absent or `none`: the system changes only when told.
        "updates" updates: Option<OrNone<Updates>> = None,
    }
}

record! {
    /// Remote shell for root, with keys only.
    pub struct Ssh {
        /// Lines of `authorized_keys`.
        "authorizedKeys" authorized_keys: Vec<AuthorizedKey>,
    }
}

record! {
    /// Unattended updates.
    pub struct Updates {
        /// Directory of releases on a web server.
        "source" source: Url,
        /// When a machine may restart, local time: `02:00-05:00`, `Sat,Sun 02:00-05:00`. Any time when absent.
        "window" window: Option<Window> = None,
        /// How long pods may take to leave a machine before it restarts.
        "drainTimeout" drain_timeout: Period = Period(Duration::from_secs(15 * 60)),
        /// The oldest release that may run where a newer one was committed; the cluster's counts.
        "floor" floor: u32 = 0,
    }
}

record! {
    /// A maintainer script that the user has read and decided about.
    pub struct AcceptedScript {
        /// Debian package it belongs to.
        "package" package: PackageName,
        /// SHA-256 of the script, 64 hexadecimal digits.
        "sha256" sha256: Digest,
        /// What is done in its place: nothing, or the substitutes named.
        "as" substitutes: Substitutes,
    }
}

/// What is done in the place of a maintainer script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Substitutes {
    /// Nothing.
    None,
    /// Substitutes of Bramble's table, by name.
    Named(Vec<String>),
}

impl Serialize for Substitutes {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Substitutes::None => serializer.serialize_str("none"),
            Substitutes::Named(names) => names.serialize(serializer),
        }
    }
}

impl Decode for Substitutes {
    fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, .. } if text == "none" => Some(Substitutes::None),
            Value::List(_) => Vec::decode(node, cx).map(Substitutes::Named),
            _ => {
                cx.wrong_type(node, "`none` or a list of substitutes");
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> serde_json::Value {
        json!({ "oneOf": [{ "const": "none" }, { "type": "array", "items": { "type": "string" } }] })
    }
}

/// Kernel settings by sysctl name: `net.ipv4.ip_forward`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Sysctls(pub BTreeMap<String, String>);

fn is_sysctl(name: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'*' | b':' | b'/');
    let parts = name.split('.');
    parts.clone().count() > 1 && parts.clone().all(|part| !part.is_empty() && part.bytes().all(inner))
}

impl Decode for Sysctls {
    fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            cx.wrong_type(node, "a mapping of kernel settings");
            return None;
        };
        let mut sysctls = BTreeMap::new();
        let mut sound = true;
        for entry in entries {
            if !is_sysctl(&entry.key) {
                cx.push(
                    Diagnostic::error(
                        "bad-value",
                        entry.key_mark,
                        format!("`{}` is not the name of a kernel setting", shorten(&entry.key)),
                    )
                    .label("wants words with dots between")
                    .hint("as `sysctl -a` names it: `net.ipv4.ip_forward`"),
                );
                sound = false;
            }
            match String::decode(&entry.value, cx) {
                Some(value) => drop(sysctls.insert(entry.key.clone(), value)),
                None => sound = false,
            }
        }
        sound.then_some(Sysctls(sysctls))
    }

    fn schema(_: &mut Definitions) -> serde_json::Value {
        json!({ "type": "object", "additionalProperties": { "type": ["string", "number"] } })
    }
}

/// Texts with a rule of their own that stay plain texts for the rest of the program.
macro_rules! checked_texts {
    ($( $(#[doc = $doc:literal])* $name:ident, $what:literal, $pattern:literal, $check:expr; )*) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
            #[serde(transparent)]
            pub struct $name(pub String);

            impl std::fmt::Display for $name {
                fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.pad(&self.0)
                }
            }

            impl Scalar for $name {
                const WHAT: &'static str = $what;
                fn read(text: &str) -> Result<Self, Refusal> {
                    let check: fn(&str) -> Result<(), Refusal> = $check;
                    check(text).map(|()| $name(text.to_string()))
                }
                fn schema() -> serde_json::Value {
                    json!({ "type": "string", "pattern": $pattern })
                }
            }

            impl Decode for $name {
                fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
                    decode_scalar(node, cx)
                }
                fn schema(_: &mut Definitions) -> serde_json::Value {
                    <Self as Scalar>::schema()
                }
            }
        )*
    };
}

checked_texts! {
    /// Name of a Debian package (Debian policy 5.6.1).
    PackageName, "the name of a Debian package", "^[a-z0-9][a-z0-9+.-]+$", |text| {
        let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.');
        let start = text.bytes().next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
        match text.len() >= 2 && start && text.bytes().all(inner) {
            true => Ok(()),
            false => Err(Refusal::new(format!("`{}` is not the name of a Debian package", shorten(text)))
                .hint("lower case letters, digits, `+`, `-`, `.`; versions come from bramble.lock")),
        }
    };
    /// One word: no space in it, no control character.
    Word, "one word", "^\\S+$", |text| {
        match !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control()) {
            true => Ok(()),
            false => Err(Refusal::new(format!("`{}` is not one word", shorten(text)))
                .hint("one word an item of the list")),
        }
    };
    /// A line of `authorized_keys`: type, key in base64, remark.
    AuthorizedKey, "a public SSH key", "^(ssh|ecdsa|sk)-.+ .+", |text| {
        let mut words = text.split(' ').filter(|w| !w.is_empty());
        let kind = words.next().unwrap_or("");
        let key = words.next().unwrap_or("");
        let refusal = Refusal::new(format!("`{}` is not a public SSH key", shorten(text)));
        if text.contains("PRIVATE KEY") {
            return Err(Refusal::new("this is a private key")
                .hint("the public one belongs here, the line in the `.pub` file; and make a new pair, this one has been shown"));
        }
        let known = ["ssh-", "ecdsa-", "sk-"].iter().any(|start| kind.starts_with(start));
        match known && !key.is_empty() && !text.chars().any(char::is_control) {
            true => Ok(()),
            false => Err(refusal.hint("the line in a `.pub` file: `ssh-ed25519 AAAA... me`")),
        }
    };
    /// SHA-256, 64 lower case hexadecimal digits.
    Digest, "a SHA-256", "^[0-9a-f]{64}$", |text| {
        match text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            true => Ok(()),
            false => Err(Refusal::new(format!("`{}` is not a SHA-256", shorten(text)))
                .hint("64 hexadecimal digits in lower case, as the message about the script prints them")),
        }
    };
}
