//! Kubernetes as its own project releases it, laid out as plain systemd units.
//!
//! Units are static and lie in the root image ([`image_files`]); what differs between machines (flags, configuration,
//! certificates, and which units start at all) is rendered from the machine document ([`render`]). Units order
//! themselves with `After=` and restart for ever; none requires another, because every part of Kubernetes retries.

pub(crate) mod control_plane;
pub(crate) mod image;
mod node;

#[cfg(test)]
mod tests;

pub use image::image_files;

use crate::names::ETC;
use bramble_api::document::{Distribution, Kubernetes, MachineDocument};

/// A file to be written.
#[derive(Clone, PartialEq, Eq)]
pub struct RenderedFile {
    /// Absolute path on the machine.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Contents.
    pub content: Vec<u8>,
}

/// Files and links of a machine. May hold keys, so it has no `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Regular files, sorted by path. Parents that are missing are directories of mode 0755.
    pub files: Vec<RenderedFile>,
    /// Symbolic links, sorted: absolute path and target.
    pub links: Vec<(String, String)>,
}

impl Rendered {
    pub(crate) fn file(&mut self, path: impl Into<String>, mode: u32, content: impl Into<Vec<u8>>) {
        self.files.push(RenderedFile { path: path.into(), mode, content: content.into() });
    }

    pub(crate) fn json(&mut self, path: impl Into<String>, value: &serde_json::Value) {
        // `{:#}` is the indented form; the programs read it as the YAML it also is.
        self.file(path, 0o644, format!("{value:#}\n"));
    }

    /// One variable `ARGS`, one flag a line, in the format of systemd's `EnvironmentFile=` (systemd.exec(5)).
    fn args(&mut self, unit: &str, args: &[String]) {
        self.file(format!("{ETC}/env/{unit}.env"), 0o644, format!("ARGS={}\n", args.join(" \\\n")));
    }

    pub(crate) fn enable(&mut self, unit: &str) {
        self.links.push((
            format!("/etc/systemd/system/multi-user.target.wants/{unit}"),
            format!("/usr/lib/systemd/system/{unit}"),
        ));
    }

    pub(crate) fn sort(mut self) -> Self {
        self.files.sort_by(|a, b| a.path.cmp(&b.path));
        self.links.sort();
        self
    }
}

/// One machine, as the parts of this module see it.
struct Node<'a> {
    document: &'a MachineDocument,
    kubernetes: &'a Kubernetes,
}

impl Node<'_> {
    fn name(&self) -> &str {
        &self.document.machine.name
    }

    fn is_control_plane(&self) -> bool {
        self.kubernetes.control_plane.is_some()
    }
}

/// Everything below /etc that makes this machine a node: a pure function of its document.
///
/// Empty for a machine without Kubernetes or with another distribution.
pub fn render(document: &MachineDocument) -> Rendered {
    let mut rendered = Rendered::default();
    let Some(kubernetes) = document.kubernetes.as_ref().filter(|k| k.distribution == Distribution::Upstream)
    else {
        return rendered;
    };
    for (path, content) in &kubernetes.files {
        // Certificates and public keys are for everyone to read. Whatever else may come is taken for a secret.
        let public = path.ends_with(".crt") || path.ends_with(".pub");
        rendered.file(format!("{ETC}/{path}"), if public { 0o644 } else { 0o600 }, content.as_str());
    }
    let node = Node { document, kubernetes };
    node::render(&node, &mut rendered);
    if let Some(control_plane) = &kubernetes.control_plane {
        control_plane::render(&node, control_plane, &mut rendered);
    }
    rendered.sort()
}
