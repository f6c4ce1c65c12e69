//! The gate: which maintainer scripts of a package set are known to be stood for.

use serde::{Deserialize, Serialize};

/// One entry of `os.acceptScripts`: a script that the user has read and takes responsibility for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Acceptance {
    /// Package.
    pub package: String,
    /// SHA-256 of the normalised text, hexadecimal.
    pub sha256: String,
    /// Names of the substitutes that stand for it; none when it does nothing that an image needs.
    #[serde(default, rename = "as")]
    pub stands: Vec<String>,
}
