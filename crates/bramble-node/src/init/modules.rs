//! Loads the kernel modules that the initramfs carries.

use crate::refused::{At, Refused};
use std::fs::File;
use std::path::Path;

/// `MODULE_INIT_COMPRESSED_FILE` of linux/module.h: the kernel unpacks the file itself.
const COMPRESSED: i32 = 4;

/// Loads the modules that `list` names, one absolute path a line, in order. Gives what could not be loaded.
///
/// A module that refuses is no reason to stop: drivers say "no such device" on machines without theirs, and what
/// is really missing shows at the act that needs it, with this answer beside it.
pub fn load(list: &Path) -> Result<Vec<Refused>, Refused> {
    let text = std::fs::read_to_string(list).at("read", list)?;
    Ok(text
        .lines()
        .map(str::trim)
        .filter(|path| !path.is_empty())
        .filter_map(|path| insert(path).err())
        .collect())
}

fn insert(path: &str) -> Result<(), Refused> {
    let file = File::open(path).at("open the module", path)?;
    let flags = if path.ends_with(".ko") { 0 } else { COMPRESSED };
    match rustix::system::finit_module(&file, c"", flags) {
        // Built in, or loaded by an earlier line's dependency.
        Err(rustix::io::Errno::EXIST) => Ok(()),
        answer => answer.at("load the module", path),
    }
}
