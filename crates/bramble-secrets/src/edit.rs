//! A secret in a person's editor, without ever lying on a disk.
//!
//! Editors want a file with a name beside which they can put their own, so a descriptor without one does not do: the
//! file lies in a directory of its own (0700), in a file system that is made of memory, and only there. It is
//! overwritten and removed afterwards. What memory the kernel puts out to swap it puts there, as it does with this
//! program's own: encrypt swap.

use crate::secret::{Secret, SecretText, random_hex};
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

/// An editor, and where its file may lie.
#[derive(Clone, Debug)]
pub struct Editor {
    /// The program and its first arguments.
    pub words: Vec<OsString>,
    /// Directories to look through for one that is made of memory.
    pub places: Vec<PathBuf>,
}

/// A secret could not be edited. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum EditError {
    /// Every place for the file lies on a disk.
    #[error("no directory made of memory to edit in; looked at: {}", looked.join(", "))]
    OnDisk {
        /// The places, each with what it is.
        looked: Vec<String>,
    },
    /// The file cannot be used.
    #[error("cannot use {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The editor cannot be started.
    #[error("cannot start the editor {program:?}")]
    Start {
        /// The program.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The editor failed.
    #[error("the editor ended with {0}: nothing was changed")]
    Failed(ExitStatus),
}

impl Editor {
    /// The person's editor (`SOPS_EDITOR`, `VISUAL`, `EDITOR`, else vi), and this computer's places.
    pub fn of_process() -> Editor {
        let set = |name| std::env::var(name).ok().filter(|v| !v.trim().is_empty());
        let text = ["SOPS_EDITOR", "VISUAL", "EDITOR"].into_iter().find_map(set);
        let mut words: Vec<OsString> =
            text.as_deref().unwrap_or("vi").split_whitespace().map(OsString::from).collect();
        let name = Path::new(&words[0]).file_name().unwrap_or_default().to_string_lossy().into_owned();
        // These keep what they saw in the home directory: registers, undo files, backups.
        if ["vi", "vim", "nvim", "view"].contains(&name.as_str()) {
            let quiet = ["-n", "-i", "NONE", "-c", "set nobackup nowritebackup noundofile"];
            words.extend(quiet.map(OsString::from));
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let places = runtime.into_iter().chain([PathBuf::from("/dev/shm")]).collect();
        Editor { words, places }
    }

    /// Lets a person edit the text; gives back what they saved.
    pub fn edit(&self, text: &SecretText, name: &str) -> Result<SecretText, EditError> {
        let place = self.place()?;
        let suffix = random_hex(8)
            .map_err(|e| EditError::File { path: place.clone(), source: io::Error::other(e) })?;
        let directory = Directory(place.join(format!("bramble-{}", suffix.expose())));
        let failed = |source| EditError::File { path: directory.0.clone(), source };
        fs::DirBuilder::new().mode(0o700).create(&directory.0).map_err(failed)?;
        let path = directory.0.join(name);
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        file.write_all(text.expose().as_bytes()).map_err(failed)?;
        let status =
            Command::new(&self.words[0]).args(&self.words[1..]).arg(&path).status().map_err(|source| {
                EditError::Start { program: self.words[0].to_string_lossy().into_owned(), source }
            })?;
        if !status.success() {
            return Err(EditError::Failed(status));
        }
        // By its name: many editors write a new file and rename it.
        let mut edited = String::new();
        File::open(&path).and_then(|mut f| f.read_to_string(&mut edited)).map_err(failed)?;
        let edited = Secret::new(edited);
        wipe(&mut file);
        Ok(edited)
    }

    fn place(&self) -> Result<PathBuf, EditError> {
        let mut looked = Vec::new();
        for place in &self.places {
            match made_of_memory(place) {
                Ok(true) => return Ok(place.clone()),
                Ok(false) => looked.push(format!("{} (on a disk)", place.display())),
                Err(e) => looked.push(format!("{} ({e})", place.display())),
            }
        }
        if self.places.is_empty() {
            looked.push("XDG_RUNTIME_DIR (not set)".into());
        }
        Err(EditError::OnDisk { looked })
    }
}

/// Removed with all that the editor left in it, overwritten first, however editing ends.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
            if let Ok(mut file) = OpenOptions::new().write(true).open(entry.path()) {
                wipe(&mut file);
            }
        }
        // Nobody is left to tell; it lies in memory and goes with the power at the latest.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn wipe(file: &mut File) {
    let length = file.metadata().map_or(0, |m| m.len());
    let zeros = vec![0; length.min(16 << 20) as usize];
    // Best effort: the file goes away next.
    let _ = file.seek(SeekFrom::Start(0)).and_then(|_| file.write_all(&zeros));
}

/// Whether a directory lies in a file system that is made of memory.
#[cfg(target_os = "linux")]
fn made_of_memory(directory: &Path) -> io::Result<bool> {
    // linux/magic.h: TMPFS_MAGIC, RAMFS_MAGIC.
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    let kind = rustix::fs::statfs(directory)?.f_type as u64 & 0xffff_ffff;
    Ok(kind == TMPFS || kind == RAMFS)
}

/// Other systems have no such file systems by themselves.
#[cfg(not(target_os = "linux"))]
fn made_of_memory(_: &Path) -> io::Result<bool> {
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn editor(directory: &Path, script: &str, places: Vec<PathBuf>) -> Editor {
        let path = directory.join("editor");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        Editor { words: vec!["/bin/sh".into(), path.into()], places }
    }

    fn left(place: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(place).unwrap().flatten();
        entries.map(|e| e.path()).filter(|p| p.to_string_lossy().contains("/bramble-")).collect()
    }

    #[test]
    fn a_disk_is_refused_and_nothing_is_started() {
        let dir = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        if made_of_memory(dir.path()).unwrap() {
            return;
        }
        let started = dir.path().join("started");
        let editor =
            editor(dir.path(), &format!("touch {}", started.display()), vec![dir.path().to_path_buf()]);
        let error = editor.edit(&Secret::new("hunter2".into()), "a.yaml").unwrap_err();
        assert!(error.to_string().contains("(on a disk)"), "{error}");
        assert!(!started.exists());
    }

    #[test]
    fn what_was_edited_comes_back_and_nothing_stays() {
        let place = Path::new("/dev/shm");
        if !made_of_memory(place).unwrap_or(false) {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        // Written anew and renamed, with a backup beside it, as editors do.
        let script = "test \"$(stat -c %a \"$1\")\" = 600 || exit 9\n\
            cp \"$1\" \"$1~\"; sed s/old/new/ \"$1\" > \"$1.tmp\"; mv \"$1.tmp\" \"$1\"";
        let place = vec![place.to_path_buf()];
        let before = left(&place[0]);
        let edited = editor(dir.path(), script, place.clone())
            .edit(&Secret::new("old: 1\n".into()), "a.yaml")
            .unwrap();
        assert_eq!(edited.expose(), "new: 1\n");
        let refused = editor(dir.path(), "exit 3", place.clone()).edit(&Secret::new("x".into()), "a.yaml");
        assert!(matches!(refused, Err(EditError::Failed(s)) if s.code() == Some(3)));
        assert_eq!(left(&place[0]), before);
    }
}
