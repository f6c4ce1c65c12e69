//! What could be read of a file, however much of it is wrong.
//!
//! The checks that compare values look at this and not at the decoded [`crate::Cluster`], because one misspelt
//! address would leave no cluster to look at, and its other errors would come one run at a time.

use crate::decode::{Context, Decode};
use crate::tree::{Entry, Node, Value};
use crate::types::{Board, DiskSelector, Distribution, Role};
use std::net::Ipv4Addr;

/// A value somewhere in the file.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    /// Its path, for [`crate::Places`].
    pub(super) path: String,
}

/// The file's tree, asked by path.
pub(super) struct View<'t> {
    root: &'t Node,
    pub(super) nodes: Vec<Machine<'t>>,
}

/// A machine, as far as it could be read.
pub(super) struct Machine<'t> {
    pub(super) path: String,
    node: &'t Node,
    pub(super) name: Option<String>,
    pub(super) role: Option<Role>,
    pub(super) address: Option<Ipv4Addr>,
}

impl Machine<'_> {
    /// Its name, or its place in the list.
    pub(super) fn title(&self) -> String {
        match &self.name {
            Some(name) => format!("`{name}`"),
            None => self.path.replace("spec.", ""),
        }
    }

    /// A value of its own, when it is stated and can be read.
    pub(super) fn own<T: Decode>(&self, path: &str) -> Option<At<T>> {
        let entry = find(self.node, path)?;
        Some(At { value: quiet(&entry.value)?, path: format!("{}.{path}", self.path) })
    }

    /// Whether it states something, right or wrong.
    pub(super) fn states(&self, path: &str) -> bool {
        find(self.node, path).is_some_and(|e| !e.value.is_null())
    }
}

/// Reads a value without a word about what is wrong with it: the decoder has said that.
fn quiet<T: Decode>(node: &Node) -> Option<T> {
    let mut cx = Context::default();
    let value = T::decode(node, &mut cx)?;
    cx.findings.is_empty().then_some(value)
}

/// The entry at a path of keys with dots between.
fn find<'t>(node: &'t Node, path: &str) -> Option<&'t Entry> {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let entry = node.get(first)?;
    match rest {
        Some(rest) => find(&entry.value, rest),
        None => Some(entry),
    }
}

impl<'t> View<'t> {
    pub(super) fn of(root: &'t Node) -> Self {
        let items = match find(root, "spec.nodes").map(|e| &e.value.value) {
            Some(Value::List(items)) => items.as_slice(),
            _ => &[],
        };
        let machine = |(index, node): (usize, &'t Node)| {
            let read = |key| find(node, key).map(|e| &e.value);
            Machine {
                path: format!("spec.nodes[{index}]"),
                node,
                name: read("name").and_then(quiet::<crate::Name>).map(|n| n.to_string()),
                role: read("role").and_then(quiet),
                address: read("address").and_then(quiet),
            }
        };
        View { root, nodes: items.iter().enumerate().map(machine).collect() }
    }

    /// A value when it is stated and can be read.
    pub(super) fn read<T: Decode>(&self, path: &str) -> Option<At<T>> {
        let entry = find(self.root, path)?;
        Some(At { value: quiet(&entry.value)?, path: path.to_string() })
    }

    /// A value or its default; `None` when it is stated and cannot be read.
    pub(super) fn read_or<T: Decode>(&self, path: &str, default: T) -> Option<T> {
        match find(self.root, path) {
            Some(entry) if !entry.value.is_null() => quiet(&entry.value),
            _ => Some(default),
        }
    }

    /// Whether something is stated, right or wrong.
    pub(super) fn states(&self, path: &str) -> bool {
        find(self.root, path).is_some_and(|e| !e.value.is_null())
    }

    pub(super) fn distribution(&self) -> Option<Distribution> {
        self.read_or("spec.kubernetes.distribution", Distribution::Upstream)
    }

    /// Paths at which a machine's value may stand, nearest first.
    fn levels(&self, machine: &Machine<'_>, path: &str) -> Vec<String> {
        let role = machine.role.map(|role| format!("spec.defaults.{role}.{path}"));
        [Some(format!("{}.{path}", machine.path)), role, Some(format!("spec.{path}"))]
            .into_iter()
            .flatten()
            .collect()
    }

    /// A machine's value after merging; `None` when it is stated nowhere or cannot be read.
    pub(super) fn effective<T: Decode>(&self, machine: &Machine<'_>, path: &str) -> Option<At<T>> {
        if machine.states(path) {
            return machine.own(path);
        }
        let level = self.levels(machine, path).into_iter().skip(1).find(|p| self.states(p))?;
        self.read(&level)
    }

    /// Whether a machine's value is stated anywhere, right or wrong. True while the role is not known.
    pub(super) fn is_stated(&self, machine: &Machine<'_>, path: &str) -> bool {
        machine.role.is_none()
            || machine.states(path)
            || self.levels(machine, path).iter().skip(1).any(|p| self.states(p))
    }

    pub(super) fn board(&self, machine: &Machine<'_>) -> Option<Board> {
        self.effective(machine, "board").map(|at| at.value)
    }

    pub(super) fn disk(&self, machine: &Machine<'_>, key: &str) -> Option<At<DiskSelector>> {
        self.effective(machine, &format!("disks.{key}"))
    }

    pub(super) fn with_role(&self, role: Role) -> impl Iterator<Item = &Machine<'t>> {
        self.nodes.iter().filter(move |m| m.role == Some(role))
    }
}
