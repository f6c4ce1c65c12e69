//! The journal of a run: every event but progress, one JSON object a line, kept for the last runs.

use bramble_api::event::Event;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Runs whose journals are kept; an evening of trying needs about this many.
const KEPT: usize = 20;

/// An open journal file.
#[derive(Debug)]
pub struct Journal {
    path: PathBuf,
    file: Mutex<File>,
}

/// The journal cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the journal {path}")]
pub struct JournalError {
    /// Where it was to be.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: std::io::Error,
}

impl Journal {
    /// Opens a new journal below `dir` for a run that began at `now` (seconds since the epoch), and removes the
    /// oldest ones beyond the last [`KEPT`].
    pub fn open(dir: &Path, now: u64) -> Result<Journal, JournalError> {
        let path = dir.join(format!("{now:012}-{}.jsonl", std::process::id()));
        let error = |source| JournalError { path: path.clone(), source };
        std::fs::create_dir_all(dir).map_err(error)?;
        let file = OpenOptions::new().create(true).append(true).open(&path).map_err(error)?;
        // Only tidying: a journal that cannot be removed does not stop a build.
        if let Ok(entries) = std::fs::read_dir(dir) {
            let mut old: Vec<PathBuf> = entries
                .filter_map(|e| e.ok().map(|e| e.path()))
                .filter(|p| p.extension().is_some_and(|e| e == "jsonl"))
                .collect();
            old.sort();
            let surplus = old.len().saturating_sub(KEPT);
            for path in old.into_iter().take(surplus) {
                let _ = std::fs::remove_file(path);
            }
        }
        Ok(Journal { path, file: Mutex::new(file) })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds an event. A full disk must not fail the run, so errors are passed over: the events also went to the
    /// console.
    pub fn record(&self, event: &Event) {
        if let (Ok(mut line), Ok(mut file)) = (serde_json::to_vec(event), self.file.lock()) {
            line.push(b'\n');
            let _ = file.write_all(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_runs_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        for now in 0..KEPT as u64 + 5 {
            Journal::open(dir.path(), now).unwrap();
        }
        let count = std::fs::read_dir(dir.path()).unwrap().count();
        assert_eq!(count, KEPT);
    }
}
