//! Saving and putting back a disk that nobody uses.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

use crate::error::Refusal;

/// The files of a disk, and the firmware's variables that belong to the same instant.
const FILES: [&str; 4] = ["disk.data", "disk.map", "disk.json", "vars.fd"];

/// Copies a machine's disk and variables from one directory to another. Where the file system can share blocks the
/// copy costs nothing, else only what was written is copied.
pub(crate) fn copy(from: &Path, to: &Path) -> Result<(), Refusal> {
    for name in FILES {
        let (source, target) = (from.join(name), to.join(name));
        match File::open(&source) {
            Ok(file) => copy_sparse(&file, &target).map_err(|e| Refusal::io("write", &target, &e))?,
            Err(e) if e.kind() == io::ErrorKind::NotFound && name == "vars.fd" => {}
            Err(e) => return Err(Refusal::io("read", &source, &e)),
        }
    }
    Ok(())
}

/// Copies a file, leaving its holes out.
pub(crate) fn copy_sparse(source: &File, target: &Path) -> io::Result<()> {
    let target = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(target)?;
    let length = source.metadata()?.len();
    #[cfg(target_os = "linux")]
    if rustix::fs::ioctl_ficlone(&target, source).is_ok() {
        return Ok(());
    }
    target.set_len(length)?;
    let mut buffer = vec![0; 1 << 20];
    let mut at = 0;
    while let Some((start, end)) = next_data(source, at, length)? {
        at = start;
        while at < end {
            let part = (end - at).min(buffer.len() as u64) as usize;
            source.read_exact_at(&mut buffer[..part], at)?;
            target.write_all_at(&buffer[..part], at)?;
            at += part as u64;
        }
    }
    Ok(())
}

/// The next run of the file that is no hole.
fn next_data(file: &File, from: u64, length: u64) -> io::Result<Option<(u64, u64)>> {
    use rustix::fs::{SeekFrom, seek};
    if from >= length {
        return Ok(None);
    }
    match seek(file, SeekFrom::Data(from)) {
        Ok(start) => Ok(Some((start, seek(file, SeekFrom::Hole(start))?))),
        Err(rustix::io::Errno::NXIO) => Ok(None),
        // The file system knows of no holes.
        Err(rustix::io::Errno::INVAL) => Ok(Some((from, length))),
        Err(error) => Err(error.into()),
    }
}
