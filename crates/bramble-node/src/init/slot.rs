//! Whom a slot belongs to: the signed manifest at its end.

use bramble_api::layout::{BLOCK, MANIFEST_SIZE};
use bramble_api::manifest::{Manifest, Signed, Unreadable};
use bramble_api::names::Arch;
use ed25519_dalek::{Signature, VerifyingKey};
use sha2::{Digest, Sha256};

/// Why a slot is not started.
#[derive(Debug, thiserror::Error)]
pub enum Distrust {
    /// No manifest lies where it must.
    #[error("the slot has no manifest")]
    Unreadable(#[from] Unreadable),
    /// Signed with a key that this machine does not have.
    #[error("the release is signed with the key {key}, which is none of the {known} this machine trusts")]
    UnknownKey {
        /// First 8 bytes of the key's SHA-256, hexadecimal.
        key: String,
        /// How many keys the initramfs holds.
        known: usize,
    },
    /// The signature does not fit.
    #[error("the release's signature is wrong")]
    Signature,
    /// The signed JSON is no manifest of this format.
    #[error("the release's manifest cannot be read")]
    Json(#[from] serde_json::Error),
    /// A manifest of another format.
    #[error("the release's manifest has format {0}, and this program reads format 1")]
    Format(u32),
    /// A release for another processor.
    #[error("the release is for {release}, and this machine is {machine}")]
    Arch {
        /// What the manifest says.
        release: Arch,
        /// What this program was built for.
        machine: Arch,
    },
    /// Sizes that cannot be.
    #[error("the release's sizes are impossible: {0}")]
    Sizes(&'static str),
}

/// The manifest in a slot's manifest area, once a key of `keys` (raw Ed25519 public keys) is found to have signed it
/// and it fits a machine of `arch` and a slot of `slot_size` bytes.
pub fn verify(
    area: &[u8],
    keys: &[[u8; 32]],
    arch: Arch,
    slot_size: u64,
) -> Result<(Manifest, Vec<u8>), Distrust> {
    let signed = Signed::parse(area)?;
    let key = keys
        .iter()
        .find(|key| Sha256::digest(key)[..] == signed.key)
        .ok_or_else(|| Distrust::UnknownKey { key: hex::encode(&signed.key[..8]), known: keys.len() })?;
    let key = VerifyingKey::from_bytes(key).map_err(|_| Distrust::Signature)?;
    // Strict: no signature that another implementation would refuse.
    key.verify_strict(&signed.message(), &Signature::from_bytes(&signed.signature))
        .map_err(|_| Distrust::Signature)?;

    // Format and architecture before the rest: a newer format may have fields that are unknown here.
    #[derive(serde::Deserialize)]
    struct Head {
        format: u32,
    }
    let head: Head = serde_json::from_slice(&signed.json)?;
    if head.format != 1 {
        return Err(Distrust::Format(head.format));
    }
    let manifest: Manifest = serde_json::from_slice(&signed.json)?;
    if manifest.arch != arch {
        return Err(Distrust::Arch { release: manifest.arch, machine: arch });
    }
    check_sizes(&manifest, slot_size)?;
    Ok((manifest, signed.json))
}

fn check_sizes(manifest: &Manifest, slot_size: u64) -> Result<(), Distrust> {
    let Manifest { root_size, verity_size, .. } = *manifest;
    if root_size == 0 || root_size % BLOCK != 0 || verity_size == 0 || verity_size % BLOCK != 0 {
        return Err(Distrust::Sizes("not whole blocks"));
    }
    let end = root_size.checked_add(verity_size).and_then(|end| end.checked_add(MANIFEST_SIZE));
    if end.is_none_or(|end| end > slot_size) {
        return Err(Distrust::Sizes("larger than the slot"));
    }
    if verity_size < verity_blocks(root_size / BLOCK) * BLOCK {
        return Err(Distrust::Sizes("the verity tree is too short for the root"));
    }
    let hexadecimal = |text: &str, max: usize| text.len() <= max && hex::decode(text).is_ok();
    if manifest.verity_root.len() != 64 || !hexadecimal(&manifest.verity_root, 64) {
        return Err(Distrust::Sizes("the verity root is no SHA-256"));
    }
    // The kernel takes at most 256 bytes of salt.
    if !hexadecimal(&manifest.verity_salt, 512) {
        return Err(Distrust::Sizes("the verity salt is not hexadecimal"));
    }
    Ok(())
}

/// Blocks of a dm-verity tree over `data` blocks: 128 hashes of 32 bytes fit a block, each level is rounded up, and
/// the top level is one block.
fn verity_blocks(data: u64) -> u64 {
    let mut level = data;
    let mut blocks = 0;
    while level > 1 {
        level = level.div_ceil(BLOCK / 32);
        blocks += level;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::manifest;
    use ed25519_dalek::{Signer, SigningKey};

    const SLOT: u64 = 64 << 20;

    fn area(key: &SigningKey, json: Vec<u8>) -> Vec<u8> {
        let mut signed =
            Signed { key: Sha256::digest(key.verifying_key().as_bytes()).into(), signature: [0; 64], json };
        signed.signature = key.sign(&signed.message()).to_bytes();
        signed.to_area().unwrap()
    }

    fn signed(change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
        let mut manifest = manifest();
        change(&mut manifest);
        area(&key(), serde_json::to_vec(&manifest).unwrap())
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn open(area: &[u8]) -> Result<(Manifest, Vec<u8>), Distrust> {
        let other = SigningKey::from_bytes(&[8; 32]).verifying_key().to_bytes();
        verify(area, &[other, key().verifying_key().to_bytes()], Arch::Amd64, SLOT)
    }

    #[test]
    fn a_signed_manifest_is_taken() {
        assert_eq!(open(&signed(|_| ())).unwrap().0, manifest());
    }

    #[test]
    fn every_flipped_bit_of_json_and_signature_is_seen() {
        let good = signed(|_| ());
        let end = 120 + serde_json::to_vec(&manifest()).unwrap().len();
        for at in 24..end {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(open(&bad).is_err(), "byte {at}");
        }
    }

    #[test]
    fn a_stranger_s_signature_is_refused() {
        let stranger = area(&SigningKey::from_bytes(&[9; 32]), serde_json::to_vec(&manifest()).unwrap());
        assert!(matches!(open(&stranger), Err(Distrust::UnknownKey { known: 2, .. })));
        assert!(matches!(open(&vec![0; 65536]), Err(Distrust::Unreadable(Unreadable::Empty))));
    }

    #[test]
    fn a_release_that_does_not_fit_is_refused() {
        let sizes = |area: &[u8]| matches!(open(area), Err(Distrust::Sizes(_)));
        assert!(matches!(open(&signed(|m| m.arch = Arch::Arm64)), Err(Distrust::Arch { .. })));
        assert!(sizes(&signed(|m| m.root_size = 4097)));
        assert!(sizes(&signed(|m| m.root_size = u64::MAX - 4095)));
        assert!(sizes(&signed(|m| m.root_size = SLOT)));
        assert!(sizes(&signed(|m| m.verity_size = 8 * 4096)));
        assert!(sizes(&signed(|m| m.verity_root = "ab".repeat(31))));
        assert!(sizes(&signed(|m| m.verity_root = "zz".repeat(32))));
        assert!(sizes(&signed(|m| m.verity_salt = "a b".into())));
        let newer = area(&key(), br#"{"format":2,"shape":"unknown"}"#.to_vec());
        assert!(matches!(open(&newer), Err(Distrust::Format(2))));
        assert!(matches!(open(&area(&key(), b"[]".to_vec())), Err(Distrust::Json(_))));
    }

    #[test]
    fn verity_trees_are_as_long_as_veritysetup_makes_them() {
        // One level for 128 blocks, two for 1024 (8 + 1), three for 131072 (1024 + 8 + 1).
        assert_eq!([128, 1024, 131_072].map(verity_blocks), [1, 9, 1033]);
    }
}
