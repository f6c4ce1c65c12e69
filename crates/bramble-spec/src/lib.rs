//! The user's file: types, defaults, validation with file, line and hint.
//!
//! Takes text and gives types: no file system, no network, no clock. [`parse`] reads `bramble.yaml` and reports
//! all of its errors at once; [`Cluster::effective_nodes`] answers what each machine is after cluster, role and
//! machine have been merged; [`add_node`] edits the text; [`json_schema`] and [`template`] write what editors and
//! newcomers need. Nothing here knows any other crate of the project.

mod check;
mod decode;
mod diagnostic;
mod edit;
mod effective;
mod labels;
mod places;
mod scalar;
mod schema;
mod secrets;
mod served;
mod template;
mod tree;
mod types;
mod version;

pub use check::OWN_FIRMWARE_WORDS;
pub use decode::Refusal;
pub use diagnostic::{Diagnostic, Diagnostics, Severity};
pub use edit::{EditError, NewNode, add_node};
pub use effective::{EffectiveNode, ResolvedEndpoint};
pub use labels::Labels;
pub use places::{Place, Places};
pub use scalar::{
    AddressRange, Domain, Host, Mac, Name, OrNone, Period, Raw, Size, Taint, Text, Timezone, ToolVersion,
    Url, Version, Weekday, Window, Written,
};
pub use schema::json_schema;
pub use secrets::SecretRef;
pub use served::NotServed;
pub use template::{InitOptions, template};
pub use types::*;

use decode::{Context, Decode};
use tree::Mark;

/// Files beyond this many bytes are refused; ask the file system before reading one. A thousand machines with
/// everything stated are half of it.
pub const MAX_BYTES: usize = 4 << 20;

/// A file without errors.
#[derive(Clone, Debug)]
pub struct Checked {
    /// What it says.
    pub cluster: Cluster,
    /// What a person should look at, in the file's order.
    pub warnings: Vec<Diagnostic>,
    /// What is accepted and kept but not acted upon by this version, in the file's order.
    pub not_served: Vec<NotServed>,
    /// Every `{ secret: name }`, in the file's order.
    pub secrets_wanted: Vec<SecretRef>,
    /// Where each value stands.
    pub places: Places,
}

/// Reads and checks a file. `name` is what the findings call it.
///
/// # Errors
/// All errors of the file, and its warnings, in the file's order. A syntax error ends reading, so that it comes
/// with those before it only.
pub fn parse(source: &str, name: &str) -> Result<Checked, Diagnostics> {
    let refuse = |mut list: Vec<Diagnostic>| {
        list.sort_by_key(|d| (d.line, d.column));
        Err(Diagnostics { name: name.to_string(), list })
    };
    let start = Mark { line: 1, column: 1, length: 1, start: 0, end: 0 };
    if source.len() > MAX_BYTES {
        let message = format!("the file has {} bytes, more than the {MAX_BYTES} that are read", source.len());
        return refuse(vec![
            Diagnostic::error("too-large", start, message)
                .hint("is it the right file? One file describes one cluster"),
        ]);
    }
    // Editors on some systems put a byte order mark first. It says nothing in UTF-8.
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let (root, mut findings) = tree::read(source);
    let Some(root) = root else {
        if findings.is_empty() {
            findings.push(
                Diagnostic::error("empty-file", start, "the file is empty").hint("`bramble init` writes one"),
            );
        }
        return refuse(findings);
    };
    let mut cx = Context { findings };
    if !version::accept(&root, &mut cx) {
        return refuse(cx.findings);
    }
    let places = Places::of(&root);
    let cluster = Cluster::decode(&root, &mut cx);
    check::check(&root, &places, &mut cx);
    let errors = cx.findings.iter().any(|d| d.severity == Severity::Error);
    match cluster {
        Some(cluster) if !errors => {
            let mut warnings = cx.findings;
            warnings.sort_by_key(|d| (d.line, d.column));
            let not_served = served::not_served(&cluster, &places);
            let secrets_wanted = secrets::wanted(&root);
            Ok(Checked { cluster, warnings, not_served, secrets_wanted, places })
        }
        _ => refuse(cx.findings),
    }
}
