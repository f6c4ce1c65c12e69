//! Edits of the text that keep comments and style.
//!
//! A machine is spliced into the text at the place the tree gives. Nothing is re-rendered, so that comments, order
//! and quotes of everything else stay byte for byte; the result is read again and compared with what was there.

use crate::diagnostic::Diagnostics;
use crate::scalar::{Mac, Taint};
use crate::tree::{self, Node, Value};
use crate::types::{Board, Role};
use serde_json::json;
use std::net::Ipv4Addr;

/// A machine to be added to a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewNode {
    /// Host name and Kubernetes node name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// What it is; absent where cluster or role state it.
    pub board: Option<Board>,
    /// Its address.
    pub address: Ipv4Addr,
    /// Hardware address of its first interface.
    pub mac: Option<Mac>,
    /// Labels in Kubernetes, in the order to be written.
    pub labels: Vec<(String, String)>,
    /// Taints in Kubernetes.
    pub taints: Vec<Taint>,
}

/// Why a file was not edited.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The file has errors of its own; mend them first.
    #[error("the file has errors before anything is added")]
    Before(Diagnostics),
    /// The file would have errors with the machine in it.
    #[error("the file would have errors with the machine {node} in it")]
    After {
        /// Name of the machine.
        node: String,
        /// The text as it would be, which the findings point into.
        text: String,
        /// The findings.
        findings: Diagnostics,
    },
    /// The edit would have changed something else than the list of machines.
    #[error("the list of machines on line {line} is written in a way that cannot be edited safely")]
    Style {
        /// Line of `nodes`, from 1.
        line: u32,
    },
}

/// What findings call the file.
const FILE: &str = "bramble.yaml";

/// Errors that a file has for want of the machine that is being added.
const MENDED_BY_A_NODE: [&str; 2] = ["no-nodes", "no-control-plane"];

/// Adds a machine at the end of `spec.nodes`. Comments, order and style of the rest stay; the result is read
/// again and compared.
///
/// # Errors
/// See [`EditError`]; the text is then to be left as it is.
pub fn add_node(source: &str, node: &NewNode) -> Result<String, EditError> {
    if let Err(found) = crate::parse(source, FILE) {
        let other = |d: &crate::Diagnostic| {
            d.severity == crate::Severity::Error && !MENDED_BY_A_NODE.contains(&d.code)
        };
        if found.list.iter().any(other) {
            return Err(EditError::Before(found));
        }
    }
    let plain = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mark_bytes = source.len() - plain.len();
    let (Some(root), _) = tree::read(plain) else { return Err(EditError::Style { line: 1 }) };
    let Some(nodes) = root.get("spec").and_then(|e| e.value.get("nodes")) else {
        return Err(EditError::Style { line: 1 });
    };
    let style = EditError::Style { line: nodes.key_mark.line };
    let Value::List(items) = &nodes.value.value else { return Err(style) };
    let newline = if plain.contains("\r\n") { "\r\n" } else { "\n" };

    let (at, insert) = match items.last() {
        None => {
            // `[]` gives way to a list with one item a line.
            let indent = " ".repeat(nodes.key_mark.column as usize + 1);
            let Some(open) = plain[nodes.key_mark.end..].find('[').map(|at| nodes.key_mark.end + at) else {
                return Err(style);
            };
            let Some(close) = plain[open..].find(']').map(|at| open + at + 1) else { return Err(style) };
            let before = plain[..open].trim_end_matches(' ');
            let item = block_item(node, &indent, "- ").join(newline);
            let text = format!("{}{before}{newline}{item}{}", &source[..mark_bytes], &plain[close..]);
            return compare(source, text, node, style);
        }
        Some(last) => {
            let line_start = plain[..last.mark.start].rfind('\n').map_or(0, |at| at + 1);
            let before = &plain[line_start..last.mark.start];
            let Some((indent, dash)) = before.find('-').map(|at| before.split_at(at)) else {
                return flow_list(plain, source, node, last, style);
            };
            if !indent.chars().all(|c| c == ' ') || !dash[1..].chars().all(|c| c == ' ') {
                return flow_list(plain, source, node, last, style);
            }
            let lines = match plain[last.mark.start..].starts_with('{') {
                true => vec![format!("{indent}- {}", flow_item(node))],
                false => block_item(node, indent, dash),
            };
            let at = end_of_item(plain, last, indent.len());
            (at, lines.join(newline))
        }
    };
    let head = &plain[..at];
    let text = match head.ends_with('\n') {
        true => format!("{}{head}{insert}{newline}{}", &source[..mark_bytes], &plain[at..]),
        false => format!("{}{head}{newline}{insert}{newline}{}", &source[..mark_bytes], &plain[at..]),
    };
    compare(source, text, node, style)
}

/// Adds to `nodes: [{ ... }]`.
fn flow_list(
    plain: &str,
    source: &str,
    node: &NewNode,
    last: &Node,
    style: EditError,
) -> Result<String, EditError> {
    let at = last.mark.end;
    if !plain.is_char_boundary(at) || !plain[..at].ends_with('}') {
        return Err(style);
    }
    let text = format!(
        "{}{}, {}{}",
        &source[..source.len() - plain.len()],
        &plain[..at],
        flow_item(node),
        &plain[at..]
    );
    compare(source, text, node, style)
}

/// The byte where the line after an item begins, its deeper comments included.
fn end_of_item(plain: &str, item: &Node, indent: usize) -> usize {
    let end = last_byte(item).clamp(item.mark.start, plain.len());
    let end = plain[..end].trim_end().len();
    let mut at = plain[end..].find('\n').map_or(plain.len(), |n| end + n + 1);
    // A comment further in than the dash belongs to the machine above it.
    for line in plain[at..].split_inclusive('\n') {
        let text = line.trim_start_matches(' ');
        if !text.starts_with('#') || line.len() - text.len() <= indent {
            break;
        }
        at += line.len();
    }
    at
}

/// The byte after the last thing that is written in a value.
fn last_byte(node: &Node) -> usize {
    // The mark of a block ends where the next thing begins; only scalars and brackets know their own end.
    match &node.value {
        Value::Scalar { .. } | Value::Alias => node.mark.end,
        Value::List(items) => items.last().map_or(node.mark.end, last_byte),
        Value::Map(entries) => entries.last().map_or(node.mark.end, |entry| match entry.value.is_null() {
            true => entry.key_mark.end,
            false => last_byte(&entry.value),
        }),
    }
}

/// Reads the new text and holds it against the old one.
fn compare(source: &str, text: String, node: &NewNode, style: EditError) -> Result<String, EditError> {
    let read =
        |text: &str| tree::read(text.strip_prefix('\u{feff}').unwrap_or(text)).0.map(|root| root.to_json());
    let (Some(before), Some(mut after)) = (read(source), read(&text)) else { return Err(style) };
    let added = after["spec"]["nodes"].as_array_mut().and_then(Vec::pop);
    if before != after || added != Some(as_json(node)) {
        return Err(style);
    }
    match crate::parse(&text, FILE) {
        Ok(_) => Ok(text),
        Err(findings) => Err(EditError::After { node: node.name.clone(), text, findings }),
    }
}

fn as_json(node: &NewNode) -> serde_json::Value {
    let mut value = json!({ "name": node.name, "role": node.role.name() });
    if let Some(board) = node.board {
        value["board"] = board.name().into();
    }
    value["address"] = node.address.to_string().into();
    if let Some(mac) = node.mac {
        value["mac"] = mac.to_string().into();
    }
    if !node.labels.is_empty() {
        value["labels"] = serde_json::Value::Object(
            node.labels.iter().map(|(key, value)| (key.clone(), value.as_str().into())).collect(),
        );
    }
    if !node.taints.is_empty() {
        value["taints"] = node.taints.iter().map(Taint::to_string).collect();
    }
    value
}

/// A machine as keys and values, each on one line.
fn pairs(node: &NewNode) -> Vec<(&'static str, String)> {
    let mut pairs = vec![("name", quote(&node.name)), ("role", node.role.to_string())];
    pairs.extend(node.board.map(|board| ("board", board.to_string())));
    pairs.push(("address", node.address.to_string()));
    pairs.extend(node.mac.map(|mac| ("mac", quote(&mac.to_string()))));
    if !node.labels.is_empty() {
        let labels: Vec<_> = node.labels.iter().map(|(k, v)| format!("{}: {}", quote(k), quote(v))).collect();
        pairs.push(("labels", format!("{{ {} }}", labels.join(", "))));
    }
    if !node.taints.is_empty() {
        let taints: Vec<_> = node.taints.iter().map(|t| format!("\"{t}\"")).collect();
        pairs.push(("taints", format!("[{}]", taints.join(", "))));
    }
    pairs
}

fn flow_item(node: &NewNode) -> String {
    let pairs: Vec<_> = pairs(node).into_iter().map(|(key, value)| format!("{key}: {value}")).collect();
    format!("{{ {} }}", pairs.join(", "))
}

/// A machine as an item of a list, one key a line. `dash` is `-` and the spaces after it.
pub(crate) fn block_item(node: &NewNode, indent: &str, dash: &str) -> Vec<String> {
    let rest = " ".repeat(dash.len());
    let line = |(index, (key, value)): (usize, (&str, String))| {
        let lead = if index == 0 { dash } else { rest.as_str() };
        format!("{indent}{lead}{key}: {value}")
    };
    pairs(node).into_iter().enumerate().map(line).collect()
}

/// A text as YAML, in quotes where any reader could take it for something else.
pub(crate) fn quote(text: &str) -> String {
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':'))
        && !text.ends_with(':');
    let taken = ["true", "false", "yes", "no", "on", "off", "y", "n", "null"];
    match word && !taken.contains(&text.to_lowercase().as_str()) {
        true => text.to_string(),
        // A JSON string is a YAML double-quoted text.
        false => serde_json::Value::from(text).to_string(),
    }
}
