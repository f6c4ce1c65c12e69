//! Versions of the format. A newer format is added here: the tree of an older file is rewritten to the newest
//! shape before it is decoded, so that the rest of the program knows one shape only.

use crate::decode::Context;
use crate::diagnostic::Diagnostic;
use crate::tree::{Node, Value, shorten};
use crate::types::ApiVersion;

/// Whether the file is of a format this version can decode; says what is wrong when it is not.
///
/// The keys of an unknown format may mean anything, so that decoding it would only add noise.
pub(crate) fn accept(root: &Node, cx: &mut Context) -> bool {
    let Value::Map(_) = &root.value else {
        cx.wrong_type(root, "a mapping with `apiVersion`, `kind`, `metadata` and `spec`");
        return false;
    };
    let Some(entry) = root.get("apiVersion") else { return true };
    let Value::Scalar { text, .. } = &entry.value.value else { return true };
    if ApiVersion::ALL.iter().any(|known| known.name() == text) {
        return true;
    }
    let known = ApiVersion::V1Alpha1.name();
    let same_group = text.split_once('/').is_some_and(|(group, _)| known.starts_with(&format!("{group}/")));
    let hint = match same_group {
        true => format!("this version of Bramble reads `{known}`; a newer one may have written the file"),
        false => format!("write `apiVersion: {known}`"),
    };
    cx.push(
        Diagnostic::error(
            "unknown-api-version",
            entry.value.mark,
            format!("`{}` is not a known format", shorten(text)),
        )
        .label("unknown format")
        .hint(hint),
    );
    false
}
