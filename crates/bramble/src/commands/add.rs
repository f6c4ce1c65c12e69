//! `bramble add node`: adds a node to the file and keeps its comments and order.

use super::init::parse;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site;
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_spec::{EditError, NewNode};

/// The words given for a node.
pub(crate) struct Words {
    /// Its name.
    pub(crate) name: String,
    /// Its role.
    pub(crate) role: String,
    /// Its board.
    pub(crate) board: String,
    /// Its address.
    pub(crate) address: String,
    /// Its hardware address.
    pub(crate) mac: Option<String>,
}

/// Adds it, unless the file would have errors then.
pub(crate) fn node(settings: &Settings, words: &Words) -> Result<Exit, Problem> {
    let source = site::read_file(settings)?;
    let new = NewNode {
        name: words.name.clone(),
        role: parse(&words.role, "role")?,
        board: Some(parse(&words.board, "board")?),
        address: parse(&words.address, "address")?,
        mac: words.mac.as_deref().map(|m| parse(m, "MAC")).transpose()?,
        labels: vec![],
        taints: vec![],
    };
    let name = settings.file_name();
    let edited = bramble_spec::add_node(&source, &new).map_err(|error| {
        match &error {
            EditError::Before(found) => bramble_console::diagnostics(&name, &source, &found.list),
            EditError::After { text, findings, .. } => {
                bramble_console::diagnostics(&name, text, &findings.list)
            }
            _ => {}
        }
        Failure::user(format!("cannot add {} to {name}; it is left as it was", new.name)).source(error)
    })?;
    bramble_exec::replace(&settings.project.file, edited.as_bytes(), 0o644)?;
    bramble_console::say(&format!("{name}: node {} added", words.name));
    Ok(Exit::Done)
}
