//! Identifiers that follow from what they name.
//!
//! A build takes no randomness: the same release has the same salt, UUIDs and serial numbers wherever and whenever it
//! is built.

use sha2::{Digest as _, Sha256};

/// 32 bytes for `purpose`, from what the identified thing is. Parts are length-prefixed, so that no two lists of
/// parts run together.
pub(crate) fn bytes(purpose: &str, parts: &[&str]) -> [u8; 32] {
    let mut hash = Sha256::new_with_prefix(b"bramble derived identifier v1\n");
    for part in [purpose].iter().chain(parts) {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

/// A UUID of version 8 (RFC 9562, 5.8: made in the implementer's own way), in the order of its text.
pub(crate) fn uuid(purpose: &str, parts: &[&str]) -> [u8; 16] {
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&bytes(purpose, parts)[..16]);
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    uuid
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_things_have_different_names() {
        assert_ne!(bytes("salt", &["ab", "c"]), bytes("salt", &["a", "bc"]));
        assert_ne!(bytes("salt", &["a"]), bytes("uuid", &["a"]));
        let uuid = uuid("disk", &["n1"]);
        assert_eq!((uuid[6] >> 4, uuid[8] >> 6), (8, 2));
    }
}
