//! Files that are whole after a power cut.

use crate::refused::{At, Refused};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Replaces a file, for root's eyes only; what was there stays until the new bytes are on the disk.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Refused> {
    let new = path.with_extension("new");
    // What a cut left may have another mode.
    let _ = fs::remove_file(&new);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&new).at("make", &new)?;
    file.write_all(bytes).at("write to", &new)?;
    file.sync_data().at("flush", &new)?;
    fs::rename(&new, path).at("put in place", path)?;
    let directory = path.parent().unwrap_or(Path::new("/"));
    File::open(directory).and_then(|directory| directory.sync_all()).at("flush", directory)
}
