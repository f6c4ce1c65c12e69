//! Who may sign a release.
//!
//! A machine trusts what its own release tells it to ([`Anchor`], under the hash of its root): root keys, which are
//! kept offline, and the release keys of the day it was built. A root key signs statements ([`Keys`]) that add release
//! keys and revoke others. Statements are numbered; a machine never goes back to an older one.

use super::signed::{hex, unhex};
use super::{Document, Refusal, Signed};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// An Ed25519 public key; in JSON 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// From 64 hexadecimal digits.
    pub fn parse(text: &str) -> Option<PublicKey> {
        unhex(text).map(PublicKey)
    }

    /// What signed documents call it: the SHA-256 of its bytes.
    pub fn name(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }

    /// The first half of its name, as people see it.
    pub fn short(&self) -> String {
        hex(&self.name()[..8])
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<T: serde::Deserializer<'de>>(deserializer: T) -> Result<Self, T::Error> {
        let text = String::deserialize(deserializer)?;
        PublicKey::parse(&text).ok_or_else(|| serde::de::Error::custom("not 64 hexadecimal digits"))
    }
}

/// What a root key says of release keys. It replaces every statement with a lower number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Keys {
    /// Format of this document: 1.
    pub format: u32,
    /// Cluster it is for.
    pub cluster: String,
    /// Monotonic number of the statement.
    pub number: u64,
    /// Seconds since the epoch when it was made.
    pub time: u64,
    /// Release keys that may sign.
    pub keys: Vec<PublicKey>,
    /// Keys that must not be believed any more, wherever else they stand.
    pub revoked: Vec<PublicKey>,
}

impl Document for Keys {
    const MAGIC: &'static [u8; 16] = b"bramble-keys\0\0\0\0";
    const DOMAIN: &'static [u8] = b"bramble release keys v1\n";
    const NAME: &'static str = "statement of keys";
    const FORMAT: u32 = 1;
}

/// What a release tells its machine to trust: [`crate::names::path::ANCHOR`] in the root image, JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Anchor {
    /// Format of this document: 1.
    pub format: u32,
    /// The cluster.
    pub cluster: String,
    /// Keys that may sign statements of keys. Without one the release keys stay as they are built in.
    pub roots: Vec<PublicKey>,
    /// Release keys of the day the release was built.
    pub keys: Vec<PublicKey>,
    /// Number of the newest statement that was known then; older ones are refused.
    pub statement: u64,
}

/// The release keys that a machine believes now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRing {
    cluster: String,
    roots: Vec<PublicKey>,
    keys: Vec<PublicKey>,
    number: u64,
}

impl KeyRing {
    /// What the running release says, before any statement.
    pub fn new(anchor: &Anchor) -> KeyRing {
        let Anchor { cluster, roots, keys, statement, .. } = anchor.clone();
        KeyRing { cluster, roots, keys, number: statement }
    }

    /// Takes a statement as it was fetched, or as it was kept from an earlier time. Says whether it was newer than
    /// what is known; then it is to be kept. The order in which the kept and the fetched one come does not matter.
    ///
    /// # Errors
    /// No root key signed it, it is for another cluster, or a newer one is known. The ring is then as before.
    pub fn take(&mut self, statement: &[u8]) -> Result<bool, Refusal> {
        let statement = Signed::<Keys>::parse(statement)?.open(&self.roots)?;
        if statement.cluster != self.cluster {
            return Err(Refusal::Cluster {
                what: Keys::NAME,
                offered: statement.cluster,
                own: self.cluster.clone(),
            });
        }
        if statement.number < self.number {
            return Err(Refusal::OldKeys { offered: statement.number, known: self.number });
        }
        let newer = statement.number > self.number;
        // The running release's own keys stay unless they are revoked: a statement must not have to list them all.
        self.keys.extend(statement.keys);
        self.keys.retain(|key| !statement.revoked.contains(key));
        self.keys.sort();
        self.keys.dedup();
        self.number = statement.number;
        Ok(newer)
    }

    /// Keys that may sign a release.
    pub fn keys(&self) -> &[PublicKey] {
        &self.keys
    }

    /// Number of the newest statement.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}
