//! Kubernetes as its own project releases it, laid out as plain systemd units.

use bramble_api::document::MachineDocument;

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

/// What a machine gets below /etc for Kubernetes.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Rendered {
    /// Regular files, sorted by path. Parents are made with mode 0755.
    pub files: Vec<RenderedFile>,
    /// Symbolic links: absolute path and target.
    pub links: Vec<(String, String)>,
}

/// Everything below /etc that makes this machine a node: a pure function of its document.
///
/// Empty for a machine without Kubernetes.
pub fn render(document: &MachineDocument) -> Rendered {
    let _ = document.kubernetes.as_ref();
    Rendered::default()
}

/// What every machine's root image holds for Kubernetes, whatever its role: units, kernel settings, helpers.
pub fn image_files() -> Rendered {
    Rendered::default()
}
