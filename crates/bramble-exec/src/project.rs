//! A project directory: where its files lie, and the lock that keeps two runs apart.

use bramble_api::lock::Lock;
use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

/// Where everything of one project lies. Resolved once, from arguments and environment.
#[derive(Clone, Debug)]
pub struct Project {
    /// The user's file.
    pub file: PathBuf,
    /// Directory of the file: patches, the lock and the secrets lie beside it.
    pub directory: PathBuf,
    /// Downloads and builds that can be made again; shared by all projects; safe to delete.
    pub cache: PathBuf,
}

impl Project {
    /// `bramble.lock`.
    pub fn lock_file(&self) -> PathBuf {
        self.directory.join("bramble.lock")
    }

    /// `bramble.secrets.sops.yaml`.
    pub fn secrets_file(&self) -> PathBuf {
        self.directory.join("bramble.secrets.sops.yaml")
    }

    /// Tool's own files of the project: journals, the lab. Git-ignored.
    pub fn state(&self) -> PathBuf {
        self.directory.join(".bramble")
    }

    /// Images and releases. Git-ignored.
    pub fn build(&self) -> PathBuf {
        self.directory.join("build")
    }

    /// Journals of runs.
    pub fn journals(&self) -> PathBuf {
        self.state().join("journal")
    }
}

/// A project file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// Another run holds the project.
    #[error("another bramble ({holder}) works on {path}")]
    Busy {
        /// The project directory.
        path: PathBuf,
        /// What the lock file says of it: a process id and a purpose.
        holder: String,
    },
    /// The file system said no.
    #[error("cannot {act} {path}")]
    Io {
        /// What was being done.
        act: &'static str,
        /// To what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// The lock file is not one, or of a newer tool.
    #[error("{path} cannot be read as a lock file: {reason}")]
    Lock {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Held for as long as a run changes the project.
#[derive(Debug)]
pub struct Guard {
    _file: File,
}

impl Project {
    /// Takes the project for one run, or says who has it.
    ///
    /// The kernel drops the lock when its holder ends, however it ends: there is no stale lock.
    pub fn acquire(&self, purpose: &str) -> Result<Guard, ProjectError> {
        let state = self.state();
        let io = |act, path: &Path| {
            let path = path.to_path_buf();
            move |source| ProjectError::Io { act, path, source }
        };
        std::fs::create_dir_all(&state).map_err(io("create", &state))?;
        let path = state.join("run.lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&path)
            .map_err(io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(std::fs::TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&path).unwrap_or_default().trim().to_string();
                return Err(ProjectError::Busy { path: self.directory.clone(), holder });
            }
            Err(std::fs::TryLockError::Error(source)) => {
                return Err(ProjectError::Io { act: "lock", path, source });
            }
        }
        // Who holds it is for people only; a disk too full to say so must not stop the run.
        let _ = file.set_len(0);
        let _ = file.seek(SeekFrom::Start(0));
        let _ = write!(file, "process {}, {purpose}", std::process::id());
        Ok(Guard { _file: file })
    }

    /// Reads the lock; a missing file is an empty lock.
    pub fn read_lock(&self) -> Result<Lock, ProjectError> {
        let path = self.lock_file();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Lock { format: 1, ..Lock::default() });
            }
            Err(source) => return Err(ProjectError::Io { act: "read", path, source }),
        };
        let lock: Lock = toml::from_str(&text)
            .map_err(|e| ProjectError::Lock { path: path.clone(), reason: e.message().to_string() })?;
        if lock.format != 1 {
            let reason = format!("format {} is of a newer tool ({})", lock.format, lock.tool);
            return Err(ProjectError::Lock { path, reason });
        }
        Ok(lock)
    }

    /// Writes the lock whole or not at all. Does nothing when it would not change.
    pub fn write_lock(&self, lock: &Lock) -> Result<(), ProjectError> {
        let path = self.lock_file();
        let body = toml::to_string(lock)
            .map_err(|e| ProjectError::Lock { path: path.clone(), reason: e.to_string() })?;
        let text = format!("# Written by bramble; commit it. `bramble lock --update` chooses anew.\n{body}");
        if std::fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        replace(&path, text.as_bytes(), 0o644)
    }
}

/// Replaces a file whole: a reader sees the old bytes or the new ones, also after a power cut.
pub fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), ProjectError> {
    use std::os::unix::fs::OpenOptionsExt;
    let io = |act| {
        let path = path.to_path_buf();
        move |source| ProjectError::Io { act, path, source }
    };
    // A bare name has an empty parent.
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(io("create the directory of"))?;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let fresh = directory.join(format!(".{name}.{}.new", std::process::id()));
    let written = (|| {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(mode).open(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&fresh, path)?;
        File::open(directory)?.sync_all()
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&fresh);
    }
    written.map_err(io("write"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(directory: &Path) -> Project {
        Project {
            file: directory.join("bramble.yaml"),
            directory: directory.to_path_buf(),
            cache: directory.join("cache"),
        }
    }

    #[test]
    fn a_second_run_is_told_who_holds_the_project() {
        let dir = tempfile::tempdir().unwrap();
        let project = project(dir.path());
        let guard = project.acquire("build").unwrap();
        let error = project.acquire("lab up").unwrap_err();
        assert!(matches!(&error, ProjectError::Busy { holder, .. } if holder.contains("build")), "{error}");
        drop(guard);
        project.acquire("lab up").unwrap();
    }

    #[test]
    fn the_lock_reads_back_and_a_newer_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let project = project(dir.path());
        let mut lock = project.read_lock().unwrap();
        lock.tool = "0.1.0".into();
        lock.users.insert("messagebus".into(), 999);
        project.write_lock(&lock).unwrap();
        assert_eq!(project.read_lock().unwrap(), lock);
        lock.format = 2;
        project.write_lock(&lock).unwrap();
        assert!(project.read_lock().unwrap_err().to_string().contains("newer tool"));
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_litter() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        replace(&path, b"old", 0o600).unwrap();
        // A directory cannot be renamed over.
        std::fs::create_dir(dir.path().join("taken")).unwrap();
        assert!(replace(&dir.path().join("taken"), b"new", 0o600).is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }
}
