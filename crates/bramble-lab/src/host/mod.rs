//! The lab host: the background process that is switch, gateway, disk server and parent of the machines.

use crate::error::Error;
use std::path::Path;

/// Runs the lab host of `dir` until it is told to end.
///
/// # Errors
/// [`Error::File`] when the directory cannot be used.
pub fn run(dir: &Path) -> Result<(), Error> {
    Err(Error::NotRunning { dir: dir.to_path_buf() })
}
