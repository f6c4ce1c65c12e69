//! How a [`Record`] lies on data: two copies in turn, so that a cut while one is written leaves the other.
//!
//! Each copy is one block of [`COPY`] bytes:
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 16 | [`MAGIC`] |
//! | 16 | 4 | format, little-endian: [`FORMAT`] |
//! | 20 | 4 | length of the JSON, little-endian |
//! | 24 | 8 | number of the record, little-endian; its lowest bit says which copy it is |
//! | 32 | 32 | SHA-256 of the bytes 0 to 31 and of the JSON |
//! | 64 | n | the JSON of a [`Record`], then zeros |
//!
//! A release that goes back leaves its record to an older agent, so a field is only ever added, older readers pass
//! over what they do not know, and [`FORMAT`] changes only when an old reader must not go on.

use crate::state::Record;
use sha2::{Digest, Sha256};

/// Bytes of one copy: a block of every medium that is in use.
pub const COPY: usize = 4096;
/// Copies.
pub const COPIES: usize = 2;
/// At the head of each copy.
pub const MAGIC: &[u8; 16] = b"bramble-upgrades";
/// The format this crate writes, and the highest that it reads.
pub const FORMAT: u32 = 1;

const HEADER: usize = 64;

/// A record, and its number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Grows by one with each record.
    pub number: u64,
    /// What it says.
    pub record: Record,
}

/// What is in the copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing was ever written.
    Nothing,
    /// The newest whole record.
    Newest(Entry),
    /// Something was written, and no copy is whole.
    Lost,
    /// Written by a newer agent, in a format that this one must not go on from.
    TooNew(u32),
}

/// A record that does not fit a copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a journal record of {0} bytes does not fit its copy")]
pub struct TooLong(pub usize);

/// Which copy holds the record of this number.
pub fn copy_of(number: u64) -> usize {
    (number % COPIES as u64) as usize
}

/// The bytes of a copy.
///
/// # Errors
/// The record does not fit.
pub fn encode(entry: &Entry) -> Result<[u8; COPY], TooLong> {
    let json = serde_json::to_vec(&entry.record).unwrap_or_default();
    let mut copy = [0; COPY];
    let place = copy.get_mut(HEADER..HEADER + json.len()).filter(|_| !json.is_empty());
    place.ok_or(TooLong(json.len()))?.copy_from_slice(&json);
    copy[..16].copy_from_slice(MAGIC);
    copy[16..20].copy_from_slice(&FORMAT.to_le_bytes());
    copy[20..24].copy_from_slice(&(json.len() as u32).to_le_bytes());
    copy[24..32].copy_from_slice(&entry.number.to_le_bytes());
    let sum = sum(&copy, &json);
    copy[32..64].copy_from_slice(&sum);
    Ok(copy)
}

fn sum(copy: &[u8], json: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(&copy[..32]);
    hash.update(json);
    hash.finalize().into()
}

/// What one copy holds.
enum Copy {
    Blank,
    Whole(Entry),
    TooNew(u32),
    Damaged,
}

fn decode(copy: &[u8]) -> Copy {
    if copy.iter().all(|byte| *byte == 0) {
        return Copy::Blank;
    }
    whole(copy).unwrap_or(Copy::Damaged)
}

fn whole(copy: &[u8]) -> Option<Copy> {
    let word = |at: usize| Some(u32::from_le_bytes(copy.get(at..at + 4)?.try_into().ok()?));
    if copy.get(..16)? != MAGIC {
        return None;
    }
    let json = copy.get(HEADER..HEADER.checked_add(word(20)? as usize)?)?;
    if copy.get(32..64)? != sum(copy, json) {
        return None;
    }
    // After the sum: what only looks like a newer format is damage.
    match word(16)? {
        0 => None,
        FORMAT => {
            let number = u64::from_le_bytes(copy.get(24..32)?.try_into().ok()?);
            Some(Copy::Whole(Entry { number, record: serde_json::from_slice(json).ok()? }))
        }
        newer => Some(Copy::TooNew(newer)),
    }
}

/// Reads the copies, trusting none of them. A copy that cannot be read is given as empty.
pub fn read(copies: [&[u8]; COPIES]) -> Found {
    let mut newest: Option<Entry> = None;
    let mut damaged = false;
    for copy in copies {
        match decode(copy) {
            // A copy that cannot be read is empty, and no blank one either.
            Copy::Blank => damaged |= copy.is_empty(),
            Copy::Damaged => damaged = true,
            Copy::TooNew(format) => return Found::TooNew(format),
            Copy::Whole(entry) => {
                if newest.as_ref().is_none_or(|known| known.number < entry.number) {
                    newest = Some(entry);
                }
            }
        }
    }
    match newest {
        Some(entry) => Found::Newest(entry),
        None if damaged => Found::Lost,
        None => Found::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::Reason;
    use crate::state::{Target, Verdict};
    use bramble_api::names::Slot;
    use proptest::prelude::*;

    fn entry(number: u64) -> Entry {
        Entry { number, record: Record::adopt(Slot::A, target(number)) }
    }

    fn target(version: u64) -> Target {
        Target { version, digest: format!("{version:064x}"), floor: 0 }
    }

    const BLANK: [u8; COPY] = [0; COPY];

    #[test]
    fn the_newest_whole_copy_counts() {
        let (old, new) = (encode(&entry(6)).unwrap(), encode(&entry(7)).unwrap());
        assert_eq!((copy_of(6), copy_of(7)), (0, 1));
        assert_eq!(read([&old, &new]), Found::Newest(entry(7)));
        assert_eq!(read([&BLANK, &new]), Found::Newest(entry(7)));
        assert_eq!(read([&BLANK, &BLANK]), Found::Nothing);
        assert_eq!(read([&[], &old]), Found::Newest(entry(6)));
        assert_eq!(read([&[], &BLANK]), Found::Lost);
        assert_eq!(read([&[1; COPY], &BLANK]), Found::Lost);
    }

    #[test]
    fn a_torn_copy_leaves_the_other() {
        let (old, new) = (encode(&entry(6)).unwrap(), encode(&entry(7)).unwrap());
        let next = encode(&entry(8)).unwrap();
        for sectors in 0..=8 {
            let mut torn = old;
            torn[..sectors * 512].copy_from_slice(&next[..sectors * 512]);
            let wanted = match torn == next {
                true => entry(8),
                false => entry(7),
            };
            assert_eq!(read([&torn, &new]), Found::Newest(wanted));
        }
    }

    #[test]
    fn a_newer_format_is_not_overwritten_by_guesses() {
        let mut copy = encode(&entry(9)).unwrap();
        copy[16] = 2;
        assert_eq!(read([&BLANK, &copy]), Found::Lost, "the sum covers the format");
        let json = serde_json::to_vec(&entry(9).record).unwrap();
        let sum = sum(&copy, &json);
        copy[32..64].copy_from_slice(&sum);
        assert_eq!(read([&BLANK, &copy]), Found::TooNew(2));
    }

    /// A release that went back may have known more.
    #[test]
    fn fields_of_later_releases_are_passed_over() {
        let record = Record::adopt(Slot::B, target(4))
            .begin(Target { version: 5, digest: "d".into(), floor: 3 })
            .unwrap();
        let mut json: serde_json::Value = serde_json::to_value(&record).unwrap();
        json["later"] = "more".into();
        assert_eq!(serde_json::from_value::<Record>(json).unwrap(), record);
    }

    #[test]
    fn the_longest_record_fits() {
        let mut record = Record::adopt(Slot::A, target(u64::MAX));
        for version in 0..40 {
            let digest = format!("{version:064x}");
            let target = Target { version: u64::MAX - version, digest, floor: u64::MAX };
            let detail = "\"".repeat(300);
            record = record.begin(target).unwrap().give_up(Verdict::new(Reason::BadPack, detail)).unwrap();
        }
        record.flash_bytes = u64::MAX;
        // Quotation marks are doubled in JSON: the worst a line can be.
        let encoded = encode(&Entry { number: u64::MAX, record });
        assert!(encoded.is_ok(), "{encoded:?}");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_stop(a in prop::collection::vec(any::<u8>(), 0..200), b in any::<u8>()) {
            let _ = read([&a, &[b; COPY]]);
        }

        #[test]
        fn any_single_flip_is_noticed(at in 0usize..400, bit in 0u8..8) {
            let (old, mut new) = (encode(&entry(6)).unwrap(), encode(&entry(7)).unwrap());
            let end = HEADER + serde_json::to_vec(&entry(7).record).unwrap().len();
            prop_assume!(at < end);
            new[at] ^= 1 << bit;
            prop_assert_eq!(read([&old, &new]), Found::Newest(entry(6)));
        }
    }
}
