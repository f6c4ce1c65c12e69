//! The signed manifest of a release: what a slot must hold, and who says so.
//!
//! On disk it lies in the last [`crate::layout::MANIFEST_SIZE`] bytes of a root slot:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 16 | [`crate::layout::MANIFEST_MAGIC`] |
//! | 16 | 4 | length of the JSON, little-endian |
//! | 20 | 4 | zero |
//! | 24 | 32 | first 32 bytes of SHA-256 of the signing public key (its name) |
//! | 56 | 64 | Ed25519 signature over [`SIGNATURE_DOMAIN`] followed by the JSON |
//! | 120 | n | the JSON, exactly as signed |
//!
//! A slot whose manifest area is zero is empty: it is never started.

use crate::layout::{MANIFEST_MAGIC, MANIFEST_SIZE};
use crate::names::{Arch, Board};
use serde::{Deserialize, Serialize};

/// Put before the JSON when it is signed, so that the signature can serve nothing else.
pub const SIGNATURE_DOMAIN: &[u8] = b"bramble release manifest v1\n";

/// What one release consists of. Signed as the bytes of its JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Format of this document: 1.
    pub format: u32,
    /// Cluster the release was built for.
    pub cluster: String,
    /// Monotonic number of the release; a higher one is newer.
    pub version: u64,
    /// Seconds since the epoch; no machine's clock starts before it.
    pub time: u64,
    /// Architecture of the programs.
    pub arch: Arch,
    /// Boards the release starts on.
    pub boards: Vec<Board>,
    /// Bytes of the EROFS image; the verity tree follows it directly.
    pub root_size: u64,
    /// dm-verity: bytes of the hash tree.
    pub verity_size: u64,
    /// dm-verity: root hash, SHA-256, hexadecimal.
    pub verity_root: String,
    /// dm-verity: salt, hexadecimal.
    pub verity_salt: String,
    /// The unified kernel image without its padding; none in a release for Pis alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uki: Option<Image>,
    /// BOOT-A and BOOT-B up to the end of their last file; none in a release for no Pi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Image>,
    /// Kernel release, as `uname -r` says it.
    pub kernel: String,
    /// Kubernetes version with `v`, if the release carries one.
    pub kubernetes: Option<String>,
    /// Version of the tool that built it.
    pub tool: String,
}

/// What a boot loader starts, as the manifest vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

/// A manifest area that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The area is all zero: the slot is empty.
    #[error("the slot is empty")]
    Empty,
    /// No magic where it must be.
    #[error("no manifest found: wrong magic")]
    Magic,
    /// The length does not fit the area.
    #[error("manifest length {0} does not fit its area")]
    Length(u32),
}

/// A manifest as it lies on disk, its signature not yet checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// SHA-256 of the public key that is said to have signed.
    pub key: [u8; 32],
    /// Ed25519 signature.
    pub signature: [u8; 64],
    /// The JSON, exactly as signed.
    pub json: Vec<u8>,
}

impl Signed {
    /// Reads a manifest area. Trusts nothing in it.
    pub fn parse(area: &[u8]) -> Result<Signed, Unreadable> {
        if area.len() < 120 || area[..16] != MANIFEST_MAGIC[..] {
            return Err(if area.iter().all(|b| *b == 0) { Unreadable::Empty } else { Unreadable::Magic });
        }
        let mut word = [0; 4];
        word.copy_from_slice(&area[16..20]);
        let length = u32::from_le_bytes(word);
        let json = area
            .get(120..120usize.saturating_add(length as usize))
            .ok_or(Unreadable::Length(length))?
            .to_vec();
        let (mut key, mut signature) = ([0; 32], [0; 64]);
        key.copy_from_slice(&area[24..56]);
        signature.copy_from_slice(&area[56..120]);
        Ok(Signed { key, signature, json })
    }

    /// The area as it is written: [`MANIFEST_SIZE`] bytes. `None` when the JSON is too long for it.
    pub fn to_area(&self) -> Option<Vec<u8>> {
        let mut area = vec![0; MANIFEST_SIZE as usize];
        area.get_mut(120..120 + self.json.len())?.copy_from_slice(&self.json);
        area[..16].copy_from_slice(MANIFEST_MAGIC);
        area[16..20].copy_from_slice(&u32::try_from(self.json.len()).ok()?.to_le_bytes());
        area[24..56].copy_from_slice(&self.key);
        area[56..120].copy_from_slice(&self.signature);
        Some(area)
    }

    /// The bytes that the signature covers.
    pub fn message(&self) -> Vec<u8> {
        [SIGNATURE_DOMAIN, &self.json].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_area_reads_back_and_odd_ones_are_refused() {
        let signed = Signed { key: [1; 32], signature: [2; 64], json: b"{}".to_vec() };
        let area = signed.to_area().unwrap();
        assert_eq!(Signed::parse(&area), Ok(signed));
        assert_eq!(Signed::parse(&vec![0; 65536]), Err(Unreadable::Empty));
        assert_eq!(Signed::parse(&[1; 200]), Err(Unreadable::Magic));
        let mut long = area.clone();
        long[16..20].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Signed::parse(&long), Err(Unreadable::Length(u32::MAX)));
        assert!(Signed { key: [0; 32], signature: [0; 64], json: vec![0; 65536] }.to_area().is_none());
    }
}
