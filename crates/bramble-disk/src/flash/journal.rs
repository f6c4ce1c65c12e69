//! What was written to a card already, so that a run that broke off goes on.
//!
//! One file a card, named by its card id; one JSON object a line for each piece. A line is a hint and no more: a piece
//! that it names is read back from the card before it is left as it is.

use crate::card::CardId;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A directory of journals.
#[derive(Clone, Debug)]
pub struct Journals {
    directory: PathBuf,
}

/// Journals of cards that nobody finished are kept this long, in number.
const KEPT: usize = 32;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    start: u64,
    length: u64,
    sha256: String,
}

impl Journals {
    /// In this directory, which is made when the first journal is.
    pub fn new(directory: &Path) -> Journals {
        Journals { directory: directory.to_path_buf() }
    }

    fn path(&self, card: CardId) -> PathBuf {
        self.directory.join(format!("{card}.jsonl"))
    }

    /// Opens the journal of a card to go on with it. What cannot be read of it is passed over: then more is written.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn open(&self, card: CardId) -> io::Result<Journal> {
        fs::create_dir_all(&self.directory)?;
        let path = self.path(card);
        let text = fs::read(&path).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default();
        let mut written = BTreeMap::new();
        for line in text.lines().filter_map(|l| serde_json::from_str::<Line>(l).ok()) {
            let mut sha256 = [0; 32];
            if hex::decode_to_slice(&line.sha256, &mut sha256).is_ok() {
                written.insert((line.start, line.length), sha256);
            }
        }
        self.tidy();
        let mut file = OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        if !text.is_empty() && !text.ends_with('\n') {
            // Cut in the middle of a line.
            file.write_all(b"\n")?;
        }
        Ok(Journal { written, file, path })
    }

    /// Only tidying: what cannot be removed stays.
    fn tidy(&self) {
        let entries = fs::read_dir(&self.directory).into_iter().flatten().flatten();
        let mut old: Vec<_> = entries
            .filter(|e| e.path().extension().is_some_and(|x| x == "jsonl"))
            .filter_map(|e| Some((e.metadata().ok()?.modified().ok()?, e.path())))
            .collect();
        old.sort();
        let surplus = old.len().saturating_sub(KEPT);
        for (_, path) in old.into_iter().take(surplus) {
            let _ = fs::remove_file(path);
        }
    }
}

/// The journal of one card.
#[derive(Debug)]
pub struct Journal {
    written: BTreeMap<(u64, u64), [u8; 32]>,
    file: File,
    path: PathBuf,
}

impl Journal {
    /// Whether this piece was written with these bytes, as far as is known.
    pub fn has(&self, piece: &Range<u64>, sha256: &[u8; 32]) -> bool {
        self.written.get(&(piece.start, piece.end - piece.start)) == Some(sha256)
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// When the file cannot be written; the card can be finished without.
    pub fn add(&mut self, piece: &Range<u64>, sha256: [u8; 32]) -> io::Result<()> {
        let length = piece.end - piece.start;
        self.written.insert((piece.start, length), sha256);
        let line = Line { start: piece.start, length, sha256: hex::encode(sha256) };
        let mut text = serde_json::to_vec(&line)?;
        text.push(b'\n');
        self.file.write_all(&text)
    }

    /// Forgets everything: the card is no longer what it was written for, or it is finished.
    pub fn clear(&mut self) {
        self.written.clear();
        // What is left behind names pieces that are read back before they are believed.
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_goes_on_after_a_torn_line() {
        let dir = tempfile::tempdir().unwrap();
        let journals = Journals::new(&dir.path().join("flash"));
        let card = CardId([3; 16]);
        let mut journal = journals.open(card).unwrap();
        journal.add(&(0..512), [1; 32]).unwrap();
        journal.add(&(512..1024), [2; 32]).unwrap();
        drop(journal);
        let path = journals.path(card);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 10]).unwrap();
        let mut journal = journals.open(card).unwrap();
        assert!(journal.has(&(0..512), &[1; 32]));
        assert!(!journal.has(&(0..512), &[2; 32]) && !journal.has(&(512..1024), &[2; 32]));
        journal.add(&(512..1024), [2; 32]).unwrap();
        let mut journal = journals.open(card).unwrap();
        assert!(journal.has(&(512..1024), &[2; 32]));
        journal.clear();
        assert!(!path.exists());
    }
}
