//! Whether a snapshot of etcd is whole: pages of 512 bytes, then the SHA-256 of them all (etcd's
//! `client/v3/snapshot`).

use sha2::{Digest, Sha256};

const SUM: usize = 32;
const PAGE: u64 = 512;

/// Looks at a snapshot as it passes.
#[derive(Default)]
pub(super) struct Check {
    hash: Sha256,
    /// The last bytes so far: the sum, when nothing follows.
    held: Vec<u8>,
    length: u64,
}

impl Check {
    /// Takes the next piece.
    pub(super) fn take(&mut self, piece: &[u8]) {
        self.length += piece.len() as u64;
        self.held.extend_from_slice(piece);
        let sure = self.held.len().saturating_sub(SUM);
        self.hash.update(&self.held[..sure]);
        self.held.drain(..sure);
    }

    /// The length of a whole snapshot, or what is wrong with this one.
    pub(super) fn end(self) -> Result<u64, &'static str> {
        if self.length % PAGE != SUM as u64 || self.length < PAGE {
            return Err("the snapshot is cut short");
        }
        if self.hash.finalize().as_slice() != self.held {
            return Err("the snapshot does not fit its check sum");
        }
        Ok(self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pieces: &[&[u8]]) -> Result<u64, &'static str> {
        let mut check = Check::default();
        pieces.iter().for_each(|piece| check.take(piece));
        check.end()
    }

    #[test]
    fn a_snapshot_is_whole_or_is_refused() {
        let pages = [7; 1024];
        let sum = Sha256::digest(pages);
        assert_eq!(check(&[&pages, &sum]), Ok(1056));
        assert_eq!(check(&[&pages[..3], &pages[3..], &sum[..31], &sum[31..]]), Ok(1056));
        assert!(check(&[&pages]).is_err_and(|e| e.contains("short")));
        assert!(check(&[]).is_err_and(|e| e.contains("short")));
        assert!(check(&[&pages, &sum[..31]]).is_err_and(|e| e.contains("short")));
        assert!(check(&[&pages[..512], &sum]).is_err_and(|e| e.contains("check sum")));
    }
}
