//! The table of k3s' own flags, and rendered configurations held against it.
//!
//! The tables lie in `dist/k3s/`, made from k3s' source by `dist/k3s/flags.py`; each line names file and line. k3s
//! itself would not do: a server passes over keys it does not know with a warning (`stripInvalidFlags` in
//! `pkg/configfilearg/parser.go`), so that a wrong key is a setting that silently is not there.

use super::ETC;
use crate::upstream::Rendered;
use bramble_api::names::Role;
use serde_json::Value;
use std::collections::BTreeMap;

const TABLES: [(&str, &str); 3] = [
    ("v1.34.", include_str!("../../../../dist/k3s/flags-1.34.tsv")),
    ("v1.35.", include_str!("../../../../dist/k3s/flags-1.35.tsv")),
    ("v1.36.", include_str!("../../../../dist/k3s/flags-1.36.tsv")),
];

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A whole number.
    Int,
    /// A length of time, `5m0s`.
    Duration,
    /// A text.
    Text,
    /// A text, as often as wished.
    Texts,
}

/// One flag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Flag {
    /// What it takes.
    pub kind: Kind,
    /// Where k3s declares it: `pkg/cli/cmds/server.go:325`.
    pub declared: String,
}

/// The flags of one minor release.
#[derive(Clone, Debug, Default)]
pub struct Table {
    flags: BTreeMap<(String, String), Flag>,
}

/// Why a configuration is not one that k3s would take whole.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlagError {
    /// There is no table for the release.
    #[error("there is no table of the flags of k3s {0}")]
    NoTable(String),
    /// A line of a table cannot be read.
    #[error("a line of the table of flags cannot be read: {0:?}")]
    Line(String),
    /// k3s has no such flag.
    #[error("`k3s {command}` has no flag {key:?}")]
    Unknown {
        /// `server` or `agent`.
        command: &'static str,
        /// The key.
        key: String,
    },
    /// The flag takes something else.
    #[error("{key:?} is set to {value}, but takes {kind:?} ({declared})")]
    Value {
        /// The key.
        key: String,
        /// What it was set to.
        value: String,
        /// What it takes.
        kind: Kind,
        /// Where k3s declares it.
        declared: String,
    },
    /// There is no configuration, or it cannot be read.
    #[error("there is no configuration of k3s that can be read")]
    Configuration,
}

impl Table {
    /// The table for a release, `v1.36.4+k3s1`. Flags of one minor release stay as they are but for additions.
    pub fn of(version: &str) -> Result<Table, FlagError> {
        let known = TABLES.iter().find(|(prefix, _)| version.starts_with(prefix));
        Table::read(known.ok_or_else(|| FlagError::NoTable(version.to_string()))?.1)
    }

    fn read(text: &str) -> Result<Table, FlagError> {
        let mut table = Table::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let unreadable = || FlagError::Line(line.to_string());
            let [command, name, kind, number, file]: [&str; 5] =
                line.split('\t').collect::<Vec<_>>().try_into().map_err(|_| unreadable())?;
            let kind = match kind {
                "Bool" => Kind::Bool,
                "Int" => Kind::Int,
                "Duration" => Kind::Duration,
                "String" => Kind::Text,
                "StringSlice" => Kind::Texts,
                _ => return Err(unreadable()),
            };
            let flag = Flag { kind, declared: format!("{file}:{number}") };
            table.flags.insert((command.to_string(), name.to_string()), flag);
        }
        Ok(table)
    }

    /// A flag of `server` or `agent`.
    pub fn get(&self, command: &str, name: &str) -> Option<&Flag> {
        self.flags.get(&(command.to_string(), name.to_string()))
    }

    /// Holds the `config.yaml` of a rendered machine against the table: every key is a flag of its command, and every
    /// value what the flag takes.
    pub fn check(&self, role: Role, rendered: &Rendered) -> Result<(), FlagError> {
        let path = format!("{ETC}/config.yaml");
        let file = rendered.files.iter().find(|file| file.path == path).ok_or(FlagError::Configuration)?;
        let read: Value = serde_json::from_slice(&file.content).map_err(|_| FlagError::Configuration)?;
        let command = if role == Role::ControlPlane { "server" } else { "agent" };
        for (key, value) in read.as_object().ok_or(FlagError::Configuration)? {
            let unknown = || FlagError::Unknown { command, key: key.clone() };
            let flag = self.get(command, key).ok_or_else(unknown)?;
            let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
            let fits = match flag.kind {
                Kind::Bool => value.is_boolean(),
                Kind::Int => value.is_i64(),
                Kind::Duration | Kind::Text => text(value),
                Kind::Texts => value.as_array().is_some_and(|list| !list.is_empty() && list.iter().all(text)),
            };
            if !fits {
                return Err(FlagError::Value {
                    key: key.clone(),
                    value: value.to_string(),
                    kind: flag.kind,
                    declared: flag.declared.clone(),
                });
            }
        }
        Ok(())
    }
}
