//! A signed document: head, signature and the JSON that it covers.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 16 | [`Document::MAGIC`] |
//! | 16 | 4 | length of the JSON, little-endian |
//! | 20 | 4 | zero |
//! | 24 | 32 | SHA-256 of the signing public key (its name) |
//! | 56 | 64 | Ed25519 signature (RFC 8032) over [`Document::DOMAIN`] followed by the JSON |
//! | 120 | n | the JSON |
//!
//! The JSON has one form: what [`serde_json::to_vec`] makes of the document, which is its fields in the order of their
//! declaration, without space between. Anything else with a good signature is refused, so that one document has one
//! hash.

use super::{PublicKey, Refusal};
use crate::layout::MANIFEST_SIZE;
use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::marker::PhantomData;

/// Bytes before the JSON.
pub const HEAD: usize = 120;

/// A kind of document that is signed.
pub trait Document: Serialize + DeserializeOwned {
    /// First bytes of the file.
    const MAGIC: &'static [u8; 16];
    /// Put before the JSON when it is signed, so that a signature serves one kind of document only.
    const DOMAIN: &'static [u8];
    /// What it is called in messages.
    const NAME: &'static str;
    /// The format that this version reads and writes: the JSON's field `format`.
    const FORMAT: u32;
}

/// Bytes are no signed document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// All zero: the slot is empty.
    #[error("the slot is empty")]
    Empty,
    /// No magic where it must be.
    #[error("no {0} found: wrong magic")]
    Magic(&'static str),
    /// The length does not fit what is there.
    #[error("the {0}'s length {1} does not fit its place")]
    Length(&'static str, u32),
}

/// A document with its head is longer than [`MANIFEST_SIZE`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the {0} does not fit {MANIFEST_SIZE} bytes")]
pub struct TooLong(pub &'static str);

/// A document as it lies in a file or a slot, its signature not yet checked.
pub struct Signed<D> {
    /// SHA-256 of the public key that is said to have signed.
    pub key: [u8; 32],
    /// Ed25519 signature.
    pub signature: [u8; 64],
    /// The JSON, exactly as signed.
    pub json: Vec<u8>,
    kind: PhantomData<fn() -> D>,
}

impl<D: Document> Signed<D> {
    /// Signs a document.
    ///
    /// # Errors
    /// It is too long for its place.
    pub fn sign(document: &D, key: &SigningKey) -> Result<Signed<D>, TooLong> {
        let json = serde_json::to_vec(document).map_err(|_| TooLong(D::NAME))?;
        if (HEAD + json.len()) as u64 > MANIFEST_SIZE {
            return Err(TooLong(D::NAME));
        }
        Ok(Signed::sign_json(json, key))
    }

    /// Signs bytes as they are, whatever they say.
    pub fn sign_json(json: Vec<u8>, key: &SigningKey) -> Signed<D> {
        let name = PublicKey(key.verifying_key().to_bytes()).name();
        let mut signed = Signed { key: name, signature: [0; 64], json, kind: PhantomData };
        signed.signature = key.sign(&signed.message()).to_bytes();
        signed
    }

    /// Reads a file or a slot's manifest area; what follows the JSON is not looked at. Trusts nothing in it.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(bytes: &[u8]) -> Result<Signed<D>, Unreadable> {
        if bytes.len() < HEAD || bytes[..16] != D::MAGIC[..] {
            let empty = !bytes.is_empty() && bytes.iter().all(|b| *b == 0);
            return Err(if empty { Unreadable::Empty } else { Unreadable::Magic(D::NAME) });
        }
        let mut word = [0; 4];
        word.copy_from_slice(&bytes[16..20]);
        let length = u32::from_le_bytes(word);
        let end = HEAD.saturating_add(length as usize);
        let json = bytes.get(HEAD..end).filter(|_| end as u64 <= MANIFEST_SIZE);
        let json = json.ok_or(Unreadable::Length(D::NAME, length))?.to_vec();
        let (mut key, mut signature) = ([0; 32], [0; 64]);
        key.copy_from_slice(&bytes[24..56]);
        signature.copy_from_slice(&bytes[56..120]);
        Ok(Signed { key, signature, json, kind: PhantomData })
    }

    /// As a file: head and JSON.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; HEAD];
        bytes[..16].copy_from_slice(D::MAGIC);
        // `sign` and `parse` let nothing through that is longer than 64 KiB.
        bytes[16..20].copy_from_slice(&(self.json.len() as u32).to_le_bytes());
        bytes[24..56].copy_from_slice(&self.key);
        bytes[56..120].copy_from_slice(&self.signature);
        bytes.extend_from_slice(&self.json);
        bytes
    }

    /// As a slot has it: [`MANIFEST_SIZE`] bytes, zeros behind the JSON. `None` when the JSON is too long for it.
    pub fn to_area(&self) -> Option<Vec<u8>> {
        let mut area = self.to_bytes();
        let size = MANIFEST_SIZE as usize;
        (area.len() <= size).then(|| area.resize(size, 0))?;
        Some(area)
    }

    /// The bytes that the signature covers.
    pub fn message(&self) -> Vec<u8> {
        [D::DOMAIN, &self.json].concat()
    }

    /// The key of `keys` that signed it.
    ///
    /// # Errors
    /// It is signed with none of them, or the signature is wrong.
    pub fn signer<'k>(&self, keys: &'k [PublicKey]) -> Result<&'k PublicKey, Refusal> {
        let unknown = || Refusal::UnknownKey { what: D::NAME, key: hex(&self.key[..8]), known: keys.len() };
        let key = keys.iter().find(|key| key.name() == self.key).ok_or_else(unknown)?;
        let wrong = || Refusal::Signature(D::NAME);
        let point = VerifyingKey::from_bytes(&key.0).map_err(|_| wrong())?;
        // Strict: no signature that another implementation would refuse.
        point.verify_strict(&self.message(), &Signature::from_bytes(&self.signature)).map_err(|_| wrong())?;
        Ok(key)
    }

    /// The document, once a key of `keys` is found to have signed it.
    ///
    /// # Errors
    /// As [`Signed::signer`]; or what was signed is of another format, or not in its one form.
    pub fn open(&self, keys: &[PublicKey]) -> Result<D, Refusal> {
        self.signer(keys)?;
        self.read()
    }

    /// The document, whoever signed it.
    ///
    /// # Errors
    /// It is of another format, or not in its one form.
    pub fn read(&self) -> Result<D, Refusal> {
        /// The format before the rest: a newer one may have fields that are unknown here.
        #[derive(Deserialize)]
        struct Head {
            format: u32,
        }
        let unreadable = |_| Refusal::Json(D::NAME);
        let head: Head = serde_json::from_slice(&self.json).map_err(unreadable)?;
        if head.format != D::FORMAT {
            return Err(Refusal::Format { what: D::NAME, format: head.format, known: D::FORMAT });
        }
        let document: D = serde_json::from_slice(&self.json).map_err(unreadable)?;
        let canonical = serde_json::to_vec(&document).map_err(unreadable)?;
        if canonical == self.json { Ok(document) } else { Err(Refusal::NotCanonical(D::NAME)) }
    }
}

impl<D> Clone for Signed<D> {
    fn clone(&self) -> Self {
        Signed { key: self.key, signature: self.signature, json: self.json.clone(), kind: PhantomData }
    }
}

impl<D> PartialEq for Signed<D> {
    fn eq(&self, other: &Self) -> bool {
        (&self.key, &self.signature, &self.json) == (&other.key, &other.signature, &other.json)
    }
}

impl<D> Eq for Signed<D> {}

impl<D: Document> fmt::Debug for Signed<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed {} by {}: {}", D::NAME, hex(&self.key[..8]), String::from_utf8_lossy(&self.json))
    }
}

/// A SHA-256 digest; in JSON 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// The digest of these bytes.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// From 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<Digest> {
        unhex(text).map(Digest)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<T: serde::Deserializer<'de>>(deserializer: T) -> Result<Self, T::Error> {
        let text = String::deserialize(deserializer)?;
        Digest::parse(&text).ok_or_else(|| serde::de::Error::custom("not 64 hexadecimal digits"))
    }
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// 32 bytes from hexadecimal digits.
pub(super) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |at: usize| char::from(pair[at]).to_digit(16);
        *byte = (digit(0)? * 16 + digit(1)?) as u8;
    }
    Some(bytes)
}
