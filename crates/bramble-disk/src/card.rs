//! The record by which a card is known: one block in the gap between partition table and first partition.
//!
//! A reader hides what a card is; this block says it. It carries no secret and is read from cards that anyone may have
//! written, so nothing in it is believed beyond its form.
//!
//! Format, little-endian, [`CARD_SIZE`] bytes at [`CARD_OFFSET`]: magic (12 bytes), version 1 (4), length of the JSON
//! (4), its SHA-256 (32), the JSON, zeros.

use bramble_api::layout::{CARD_OFFSET, CARD_SIZE};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;

const MAGIC: &[u8; 12] = b"BRAMBLECARD\0";
const HEADER: usize = 52;

/// First byte of the record on a disk.
pub const OFFSET: u64 = CARD_OFFSET;
/// Bytes of the record.
pub const SIZE: u64 = CARD_SIZE;

/// Name of a card: random, made at its first flash, kept at later ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CardId(pub [u8; 16]);

impl fmt::Display for CardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for CardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CardId({self})")
    }
}

/// Not the name of a card.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a card's name has 32 hexadecimal digits")]
pub struct NoCardId;

impl FromStr for CardId {
    type Err = NoCardId;
    fn from_str(text: &str) -> Result<Self, NoCardId> {
        let mut id = [0; 16];
        hex::decode_to_slice(text, &mut id).map_err(|_| NoCardId)?;
        Ok(CardId(id))
    }
}

impl Serialize for CardId {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for CardId {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// How far writing came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Not all of it is there: the disk must not start a machine.
    Writing,
    /// All of it was written and read back.
    Done,
}

/// What a card says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Card {
    /// Its name.
    pub id: CardId,
    /// How far writing came.
    pub state: State,
    /// Cluster it was written for.
    pub cluster: String,
    /// Node it was written for.
    pub node: String,
    /// The node's incarnation, as in its machine document.
    pub incarnation: String,
    /// Bytes of the disk it was written to.
    pub size: u64,
    /// Seconds since the epoch when writing began.
    pub written_at: u64,
}

impl Card {
    /// The record's block.
    ///
    /// # Panics
    /// Never: names of clusters and nodes are DNS labels, which the block has room for; longer ones are cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut card = self.clone();
        for text in [&mut card.cluster, &mut card.node, &mut card.incarnation] {
            *text = text.chars().take(255).collect();
        }
        let json = serde_json::to_vec(&card).unwrap_or_default();
        let mut block = Vec::with_capacity(SIZE as usize);
        block.extend_from_slice(MAGIC);
        block.extend_from_slice(&1u32.to_le_bytes());
        block.extend_from_slice(&(json.len() as u32).to_le_bytes());
        block.extend_from_slice(&Sha256::digest(&json));
        block.extend_from_slice(&json);
        block.resize(SIZE as usize, 0);
        block
    }

    /// Reads a record; `None` when there is none, it is damaged, or of another version.
    pub fn decode(block: &[u8]) -> Option<Card> {
        if block.get(..12)? != MAGIC || block.get(12..16)? != 1u32.to_le_bytes() {
            return None;
        }
        let length = u32::from_le_bytes(block.get(16..20)?.try_into().ok()?) as usize;
        let json = block.get(HEADER..HEADER.checked_add(length)?)?;
        if Sha256::digest(json).as_slice() != block.get(20..HEADER)? {
            return None;
        }
        serde_json::from_slice(json).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn card() -> Card {
        Card {
            id: CardId([7; 16]),
            state: State::Writing,
            cluster: "home".into(),
            node: "n1".into(),
            incarnation: "ab".repeat(16),
            size: 31_914_983_424,
            written_at: 1_800_000_000,
        }
    }

    #[test]
    fn a_record_reads_back_and_every_damaged_byte_of_it_is_seen() {
        let block = card().encode();
        assert_eq!(block.len() as u64, SIZE);
        assert_eq!(Card::decode(&block), Some(card()));
        let used = block.iter().rposition(|b| *b != 0).unwrap() + 1;
        for at in 0..used {
            let mut bad = block.clone();
            bad[at] ^= 1;
            assert_eq!(Card::decode(&bad), None, "byte {at}");
        }
        for cut in 0..used {
            assert_eq!(Card::decode(&block[..cut]), None);
        }
    }

    #[test]
    fn names_that_are_too_long_still_fit() {
        let long = Card { cluster: "\u{10348}".repeat(4000), ..card() };
        let read = Card::decode(&long.encode()).unwrap();
        assert_eq!(read.cluster.chars().count(), 255);
    }
}
