//! Reads .deb files: the container of `deb(5)`, the control archive and the entries of the data archive.
//!
//! The data archive is kept uncompressed in the cache and mapped; the contents of the files of a tree are ranges of
//! that mapping, so that a second build neither decompresses nor copies anything.

mod ar;
mod entries;
mod unpacked;

pub use entries::Entry;
pub use unpacked::Unpacked;

use crate::tree::Content;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

/// Most bytes that one package may unpack to. The largest package anyone puts on a node, all of linux-firmware, has
/// 1.3 GiB; what claims more is a mistake or a decompression bomb.
pub const MAX_DATA: u64 = 2 << 30;

/// Most bytes of a control archive. The largest of the archive (a kernel's list of checksums) has 2 MiB.
pub const MAX_CONTROL: u64 = 32 << 20;

/// Why a package file was refused.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// Reading the package, or reading or writing the cache.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// What was tried: `read`, `write`, ...
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The file is not the one that was locked.
    #[error("{}: not the file that is locked: {what} differs", path.display())]
    NotTheLocked {
        /// The package file.
        path: PathBuf,
        /// `size` or `SHA-256`.
        what: &'static str,
    },
    /// The container does not follow `deb(5)`.
    #[error("{}: {reason}", path.display())]
    Container {
        /// The package file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// An archive inside does not decompress, or is larger than any honest one.
    #[error("{}: cannot decompress {member}", path.display())]
    Decompress {
        /// The package file.
        path: PathBuf,
        /// Member of the container.
        member: String,
        /// Why.
        source: io::Error,
    },
    /// An entry of the data archive that no package may have.
    #[error("{}: entry {entry:?} {reason}", path.display())]
    Entry {
        /// The package file.
        path: PathBuf,
        /// Name of the entry as it stands.
        entry: String,
        /// What is wrong.
        reason: String,
    },
}

/// A package file, read.
#[derive(Clone, Debug)]
pub struct Deb {
    /// Files of the control archive by name: `control`, `postinst`, `md5sums`, ...
    pub control: BTreeMap<String, Content>,
    /// Entries of the data archive in their order.
    pub entries: Vec<Entry>,
    /// The unpacked form was in the cache already.
    pub was_cached: bool,
}

impl Deb {
    /// Reads a package file through the cache directory `cache`, which is made if missing. `sha256` (hexadecimal)
    /// and `size` are those of the lock; both are checked whenever the file itself is read, which is only when the
    /// cache has no unpacked form under that digest.
    ///
    /// # Errors
    /// See [`DebError`]; nothing of a refused package stays in the cache.
    pub fn read(path: &Path, sha256: &str, size: u64, cache: &Path) -> Result<Deb, DebError> {
        let (unpacked, was_cached) = Unpacked::open_or_make(path, sha256, size, cache)?;
        let control = entries::control(path, &unpacked.control)?;
        if !control.contains_key("control") {
            return Err(DebError::Container { path: path.into(), reason: "has no control file".into() });
        }
        let entries = entries::data(path, &unpacked.data)?;
        Ok(Deb { control, entries, was_cached })
    }

    /// A file of the control archive as text; empty when there is none. Bytes that are not UTF-8 are replaced: old
    /// changelog encodings turn up in descriptions, never in what is looked for.
    pub fn text(&self, name: &str) -> String {
        self.control
            .get(name)
            .map(|content| String::from_utf8_lossy(content).into_owned())
            .unwrap_or_default()
    }

    /// The value of a field of the control file, continuation lines included.
    pub fn field(&self, name: &str) -> Option<String> {
        field(&self.text("control"), name)
    }
}

/// The value of a field in a stanza (RFC 822 style, `deb-control(5)`), names compared without regard to case.
pub fn field(stanza: &str, name: &str) -> Option<String> {
    let mut lines = stanza.lines();
    while let Some(line) = lines.next() {
        let Some((key, value)) = line.split_once(':') else { continue };
        if line.starts_with([' ', '\t']) || !key.eq_ignore_ascii_case(name) {
            continue;
        }
        let mut out = value.trim().to_string();
        for more in lines.by_ref().take_while(|more| more.starts_with([' ', '\t'])) {
            out.push('\n');
            out.push_str(more.trim());
        }
        return Some(out);
    }
    None
}

#[cfg(test)]
mod tests;
