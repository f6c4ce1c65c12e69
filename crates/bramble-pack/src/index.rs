//! Hashes of all blocks, cut short.

use crate::head::Head;
use crate::{BLOCK, Damaged};
use sha2::{Digest as _, Sha256};

/// The first 8 bytes of every block's salted hash, in the order of the full stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index(Vec<[u8; 8]>);

impl Index {
    /// The index as it was fetched.
    ///
    /// # Errors
    /// Another length or hash than the head says.
    pub fn open(head: &Head, bytes: &[u8]) -> Result<Index, Damaged> {
        head.index.check("index", bytes)?;
        let entry = |chunk: &[u8]| {
            let mut entry = [0; 8];
            entry.copy_from_slice(chunk);
            entry
        };
        Ok(Index(bytes.chunks_exact(8).map(entry).collect()))
    }

    /// From hashes that are known.
    pub fn from_entries(entries: Vec<[u8; 8]>) -> Index {
        Index(entries)
    }

    /// The entry for a block with this salt.
    pub fn entry(salt: &[u8], block: &[u8]) -> [u8; 8] {
        let mut hash = Sha256::new_with_prefix(salt);
        hash.update(block);
        let mut entry = [0; 8];
        entry.copy_from_slice(&hash.finalize()[..8]);
        entry
    }

    /// In order.
    pub fn entries(&self) -> &[[u8; 8]] {
        &self.0
    }

    /// The entry of a block of zeros.
    pub fn of_zeros(salt: &[u8]) -> [u8; 8] {
        Index::entry(salt, &[0; BLOCK])
    }
}
