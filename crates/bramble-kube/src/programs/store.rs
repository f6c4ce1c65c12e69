//! A cache of results by the content of their inputs: `ROOT/KEY/` holds files and `index.json`, whole or not at all.
//!
//! Invariant: a directory under its final name is complete and on disk. It is made under another name, synced, and
//! renamed last; whoever makes it holds `KEY.lock`, so that two processes do the work once.

use super::ProgramsError;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const INDEX: &str = "index.json";
/// How often a waiting process looks whether the other is done or it shall stop.
const LOOK: Duration = Duration::from_millis(200);

/// A file of a result.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stored {
    pub(super) name: String,
    pub(super) version: String,
    pub(super) size: u64,
    pub(super) sha256: String,
}

/// The files that a maker left in the directory it was given, with their versions.
pub(super) type Made = Vec<(String, String)>;

/// Gives the result for `key`, made by `make` in an empty directory if it is not there yet.
pub(super) fn get(
    root: &Path,
    key: &str,
    cancel: &AtomicBool,
    make: impl FnOnce(&Path) -> Result<Made, ProgramsError>,
) -> Result<(PathBuf, Vec<Stored>), ProgramsError> {
    let done = root.join(key);
    if let Some(files) = complete(&done) {
        return Ok((done, files));
    }
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| ProgramsError::Store { path, source }
    };
    fs::create_dir_all(root).map_err(failed(root))?;
    let lock_path = root.join(format!("{key}.lock"));
    let lock = File::options().create(true).append(true).open(&lock_path).map_err(failed(&lock_path))?;
    loop {
        match lock.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if cancel.load(Ordering::SeqCst) => {
                return Err(ProgramsError::Cancelled);
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK),
            Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
        }
    }
    // Somebody else may have made it while we waited.
    if let Some(files) = complete(&done) {
        return Ok((done, files));
    }
    let prefix = format!(".making-{key}-");
    sweep(root, &prefix);
    let making = tempfile::Builder::new().prefix(&prefix).tempdir_in(root).map_err(failed(root))?;
    let made = make(making.path())?;
    let mut files = Vec::new();
    for (name, version) in made {
        let path = making.path().join(&name);
        let (sha256, size) = digest(&path).map_err(failed(&path))?;
        files.push(Stored { name, version, size, sha256 });
    }
    seal(making.path(), &files).map_err(failed(making.path()))?;
    if done.exists() {
        // Incomplete, or `complete` would have taken it: something outside touched it.
        fs::remove_dir_all(&done).map_err(failed(&done))?;
    }
    let making = making.keep();
    fs::rename(&making, &done).map_err(failed(&done))?;
    File::open(root).and_then(|d| d.sync_all()).map_err(failed(root))?;
    Ok((done, files))
}

/// SHA-256 (hexadecimal) and length of a file.
pub(super) fn digest(path: &Path) -> io::Result<(String, u64)> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    let mut size = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((hex::encode(hash.finalize()), size)),
            n => {
                hash.update(&buffer[..n]);
                size += n as u64;
            }
        }
    }
}

/// The files of a complete result. Sizes only: the digests were taken when it was made, and hashing 400 MB at each build
/// would cost more than the build.
fn complete(directory: &Path) -> Option<Vec<Stored>> {
    let files: Vec<Stored> = serde_json::from_slice(&fs::read(directory.join(INDEX)).ok()?).ok()?;
    let whole =
        |f: &Stored| fs::metadata(directory.join(&f.name)).is_ok_and(|m| m.is_file() && m.len() == f.size);
    files.iter().all(whole).then_some(files)
}

fn seal(directory: &Path, files: &[Stored]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for file in files {
        let path = directory.join(&file.name);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
        File::open(&path)?.sync_all()?;
    }
    let index = directory.join(INDEX);
    fs::write(&index, serde_json::to_vec_pretty(files)?)?;
    File::open(&index)?.sync_all()?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o755))?;
    File::open(directory)?.sync_all()
}

/// Removes what a killed process left. We hold the key's lock, so nobody is at it.
fn sweep(root: &Path, prefix: &str) {
    let Ok(entries) = fs::read_dir(root) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            // What cannot be removed only takes room.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn make(path: &Path) -> Result<Made, ProgramsError> {
        fs::write(path.join("tool"), b"tool")
            .map_err(|source| ProgramsError::Store { path: path.into(), source })?;
        Ok(vec![("tool".into(), "v1".into())])
    }

    fn never(_: &Path) -> Result<Made, ProgramsError> {
        Err(ProgramsError::Cancelled)
    }

    #[test]
    fn a_result_is_made_once() -> Result<(), Box<dyn std::error::Error>> {
        let root = tempfile::tempdir()?;
        let cancel = AtomicBool::new(false);
        let (path, files) = get(root.path(), "k", &cancel, make)?;
        assert_eq!(fs::read(path.join("tool"))?, b"tool");
        assert_eq!(files[0].sha256, hex::encode(Sha256::digest(b"tool")));
        assert_eq!(get(root.path(), "k", &cancel, never)?.1, files);
        Ok(())
    }

    #[test]
    fn a_failed_or_damaged_result_is_made_again() -> Result<(), Box<dyn std::error::Error>> {
        let root = tempfile::tempdir()?;
        let cancel = AtomicBool::new(false);
        fs::create_dir(root.path().join(".making-k-dead"))?;
        assert!(get(root.path(), "k", &cancel, never).is_err());
        assert!(!root.path().join("k").exists());
        let (path, _) = get(root.path(), "k", &cancel, make)?;
        fs::write(path.join("tool"), b"to")?;
        get(root.path(), "k", &cancel, make)?;
        assert_eq!(fs::read(path.join("tool"))?, b"tool");
        let left: Vec<_> = fs::read_dir(root.path())?.flatten().map(|e| e.file_name()).collect();
        assert!(left.iter().all(|n| !n.to_string_lossy().starts_with(".making")), "{left:?}");
        Ok(())
    }

    #[test]
    fn two_at_once_make_it_once() -> Result<(), Box<dyn std::error::Error>> {
        let root = tempfile::tempdir()?;
        let cancel = AtomicBool::new(false);
        let count = std::sync::atomic::AtomicU32::new(0);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let made = get(root.path(), "k", &cancel, |path| {
                        count.fetch_add(1, Ordering::SeqCst);
                        make(path)
                    });
                    assert!(made.is_ok());
                });
            }
        });
        assert_eq!(count.load(Ordering::SeqCst), 1);
        Ok(())
    }

    #[test]
    fn waiting_can_be_cancelled() -> Result<(), Box<dyn std::error::Error>> {
        let root = tempfile::tempdir()?;
        let lock = File::create(root.path().join("k.lock"))?;
        lock.lock()?;
        let outcome = get(root.path(), "k", &AtomicBool::new(true), make);
        assert!(matches!(outcome, Err(ProgramsError::Cancelled)));
        Ok(())
    }
}
