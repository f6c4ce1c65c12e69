//! Whom a slot belongs to: the signed manifest at its end.

use bramble_api::manifest::{Manifest, Signed};
use bramble_api::names::Arch;
use bramble_api::release::{PublicKey, Refusal};

/// The manifest in a slot's manifest area, once a key of `keys` is found to have signed it and it fits a machine of
/// `arch` and a slot of `slot_size` bytes; and its JSON as signed.
pub fn verify(
    area: &[u8],
    keys: &[PublicKey],
    arch: Arch,
    slot_size: u64,
) -> Result<(Manifest, Vec<u8>), Refusal> {
    let signed = Signed::parse(area)?;
    let manifest = signed.open(keys)?;
    manifest.check_fit(arch, slot_size)?;
    Ok((manifest, signed.json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::manifest;
    use bramble_api::release::Unreadable;
    use ed25519_dalek::SigningKey;

    const SLOT: u64 = 64 << 20;

    fn area(key: &SigningKey, json: Vec<u8>) -> Vec<u8> {
        Signed::sign_json(json, key).to_area().unwrap()
    }

    fn signed(change: impl FnOnce(&mut Manifest)) -> Vec<u8> {
        let mut manifest = manifest();
        change(&mut manifest);
        area(&key(), serde_json::to_vec(&manifest).unwrap())
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn open(area: &[u8]) -> Result<(Manifest, Vec<u8>), Refusal> {
        let keys = [SigningKey::from_bytes(&[8; 32]), key()];
        verify(area, &keys.map(|key| PublicKey(key.verifying_key().to_bytes())), Arch::Amd64, SLOT)
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
        assert!(matches!(open(&stranger), Err(Refusal::UnknownKey { known: 2, .. })));
        assert!(matches!(open(&vec![0; 65536]), Err(Refusal::Unreadable(Unreadable::Empty))));
    }

    #[test]
    fn a_release_that_does_not_fit_is_refused() {
        let sizes =
            |area: &[u8]| matches!(open(area), Err(Refusal::Impossible { .. } | Refusal::TooLarge { .. }));
        assert!(matches!(open(&signed(|m| m.arch = Arch::Arm64)), Err(Refusal::Arch { .. })));
        assert!(sizes(&signed(|m| m.root_size = 4097)));
        assert!(sizes(&signed(|m| m.root_size = u64::MAX - 4095)));
        assert!(sizes(&signed(|m| m.root_size = SLOT)));
        assert!(sizes(&signed(|m| m.verity_size = 8 * 4096)));
        assert!(sizes(&signed(|m| m.verity_root = "ab".repeat(31))));
        assert!(sizes(&signed(|m| m.verity_root = "zz".repeat(32))));
        assert!(sizes(&signed(|m| m.verity_salt = "a b".into())));
        let newer = area(&key(), br#"{"format":2,"shape":"unknown"}"#.to_vec());
        assert!(matches!(open(&newer), Err(Refusal::Format { format: 2, .. })));
        assert!(matches!(open(&area(&key(), b"[]".to_vec())), Err(Refusal::Json(_))));
    }
}
