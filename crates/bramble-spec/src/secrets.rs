//! Which values of a file lie in the secrets file.

use crate::tree::{Node, Value};
use serde::Serialize;

/// A place that wants a secret: `{ secret: name }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SecretRef {
    /// Name in the secrets file.
    pub name: String,
    /// What wants it: `spec.nodes[1].interfaces[0].wifi.psk`.
    pub path: String,
    /// Line in the file, from 1.
    pub line: u32,
}

/// Every `{ secret: name }` of the tree, in the file's order, also below what is kept as it stands.
pub(crate) fn wanted(root: &Node) -> Vec<SecretRef> {
    let mut found = Vec::new();
    walk(root, &mut String::new(), &mut found);
    found
}

fn walk(node: &Node, path: &mut String, found: &mut Vec<SecretRef>) {
    let length = path.len();
    match &node.value {
        Value::Scalar { .. } | Value::Alias => {}
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                path.push_str(&format!("[{index}]"));
                walk(item, path, found);
                path.truncate(length);
            }
        }
        Value::Map(entries) => {
            if let [entry] = entries.as_slice()
                && let Value::Scalar { text, .. } = &entry.value.value
                && entry.key == "secret"
            {
                found.push(SecretRef { name: text.clone(), path: path.clone(), line: entry.key_mark.line });
                return;
            }
            for entry in entries {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(&entry.key);
                walk(&entry.value, path, found);
                path.truncate(length);
            }
        }
    }
}
