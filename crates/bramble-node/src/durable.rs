//! Files that are whole after a power cut.

use crate::refused::{At, Refused};
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

/// Replaces a file; what was there stays until the new bytes are on the disk.
pub fn replace(path: &Path, bytes: &[u8]) -> Result<(), Refused> {
    let new = path.with_extension("new");
    let mut file = File::create(&new).at("make", &new)?;
    file.write_all(bytes).at("write to", &new)?;
    file.sync_data().at("flush", &new)?;
    fs::rename(&new, path).at("put in place", path)
}
