//! /etc as a pure function of the release and the machine document.
//!
//! The image's own /etc lies underneath; what is rendered here comes on top, and what Kubernetes needs comes from
//! `bramble-kube`. Nothing here reads the machine.

mod network;
mod ssh;
mod system;
mod write;

pub use write::write;

use bramble_api::document::MachineDocument;
use bramble_api::manifest::Manifest;

/// Something to be put into /etc.
#[derive(Clone, PartialEq, Eq)]
pub enum Entry {
    /// A regular file, in place of one that the image has.
    File {
        /// Absolute path on the machine.
        path: String,
        /// Permission bits; the owner is root.
        mode: u32,
        /// Contents.
        content: Vec<u8>,
    },
    /// A symbolic link, in place of what the image has.
    Link {
        /// Absolute path on the machine.
        path: String,
        /// What it points to.
        target: String,
    },
    /// More text for a file that the image has.
    Append {
        /// Absolute path on the machine.
        path: String,
        /// What comes after the image's own contents.
        content: Vec<u8>,
    },
}

impl Entry {
    /// Absolute path on the machine.
    pub fn path(&self) -> &str {
        match self {
            Entry::File { path, .. } | Entry::Link { path, .. } | Entry::Append { path, .. } => path,
        }
    }
}

/// A file that everybody may read.
fn file(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Entry {
    Entry::File { path: path.into(), mode: 0o644, content: content.into() }
}

/// A file that only root may read.
fn private(path: impl Into<String>, content: impl Into<Vec<u8>>) -> Entry {
    Entry::File { path: path.into(), mode: 0o600, content: content.into() }
}

fn link(path: impl Into<String>, target: impl Into<String>) -> Entry {
    Entry::Link { path: path.into(), target: target.into() }
}

/// Everything that goes on top of the image's /etc, in the order in which it is written.
pub fn render(manifest: &Manifest, document: &MachineDocument) -> Vec<Entry> {
    let mut entries = system::render(manifest, document);
    entries.extend(network::render(&document.network));
    entries.extend(ssh::render(document.ssh.as_ref()));
    // Each gives nothing for a machine of another distribution.
    for kubernetes in [bramble_kube::upstream::render(document), bramble_kube::k3s::render(document)] {
        entries.extend(kubernetes.files.into_iter().map(|file| Entry::File {
            path: file.path,
            mode: file.mode,
            content: file.content,
        }));
        entries.extend(kubernetes.links.into_iter().map(|(path, target)| link(path, target)));
    }
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use bramble_api::document::Ssh;
    use std::collections::BTreeSet;

    #[test]
    fn every_path_is_below_etc_and_written_once() {
        let mut document = fixture::document();
        document.ssh = Some(Ssh {
            authorized_keys: vec!["ssh-ed25519 AAAA me".into()],
            host_key: "key".into(),
            host_key_public: "public".into(),
        });
        document.system.trusted_cas = vec!["pem".into()];
        document.system.initiator_name = Some("iqn.2026-01.home.arpa:n1".into());
        document.network.proxy.insert("http_proxy".into(), "http://proxy:3128".into());
        let entries = render(&fixture::manifest(), &document);
        let paths: BTreeSet<&str> = entries.iter().map(Entry::path).collect();
        assert_eq!(paths.len(), entries.len(), "a path is written twice");
        for path in paths {
            assert!(path.starts_with("/etc/") && !path.contains(".."), "{path}");
        }
    }
}
