//! update-ca-certificates: one bundle and one link for each authority.
//!
//! The links by hash of the subject, which OpenSSL uses for a directory of certificates, are left out: OpenSSL itself
//! finds the bundle through `/usr/lib/ssl/cert.pem`, Go and curl read the bundle.

use super::{SubstituteError, tree};
use crate::tree::{Kind, Tree, TreePath};

const SELF: &str = "certificates";
/// Where authorities lie: Debian's, then those that somebody added (`trustedCAs`).
const SOURCES: [&str; 2] = ["usr/share/ca-certificates", "usr/local/share/ca-certificates"];
const TO: &str = "/etc/ssl/certs";

/// Writes the bundle, the links and the list of what is trusted.
///
/// # Errors
/// A certificate that is not PEM, or a refusal of the tree.
pub fn apply(root: &mut Tree) -> Result<(), SubstituteError> {
    let mut bundle = Vec::new();
    let mut list = String::new();
    let mut links: Vec<(String, String)> = Vec::new();
    for source in SOURCES {
        let dir = TreePath::new(source).unwrap_or_default();
        for (path, node) in root.below(&dir) {
            if !matches!(node.kind, Kind::File(_)) || !path.name().ends_with(b".crt") {
                continue;
            }
            let pem =
                root.content(node).map(|content| content.as_slice().trim_ascii_end()).unwrap_or_default();
            if !pem.trim_ascii_start().starts_with(b"-----BEGIN CERTIFICATE-----") {
                return Err(SubstituteError::Input {
                    substitute: SELF,
                    path: path.clone(),
                    reason: "is not a certificate in PEM".into(),
                });
            }
            bundle.extend_from_slice(pem);
            bundle.push(b'\n');
            let text = path.to_text();
            let name = String::from_utf8_lossy(path.name()).replace(' ', "_").replace(['(', ')'], "=");
            links.push((format!("{TO}/{}.pem", name.trim_end_matches(".crt")), text.clone()));
            if let Some(name) = text.strip_prefix("/usr/share/ca-certificates/") {
                list += &format!("{name}\n");
            }
        }
    }
    if links.is_empty() {
        return Ok(());
    }
    let tree = tree(SELF);
    root.file(format!("{TO}/ca-certificates.crt"), 0o644, bundle).map_err(tree)?;
    root.file("/etc/ca-certificates.conf", 0o644, list).map_err(tree)?;
    for (link, target) in links {
        root.symlink(link, target).map_err(tree)?;
    }
    Ok(())
}
