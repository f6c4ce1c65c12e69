//! From an identity partition and a data partition to a mounted data file system that holds the machine document.
//!
//! **Invariant.** At every instant either the identity partition holds the whole document durably, or the data
//! partition does. **Order of writes**, each line durable before the next begins:
//!
//! 1. our mark into the head of data;
//! 2. `mkfs`, which zeroes the head first and writes the superblock last, after a flush (seen with strace,
//!    e2fsprogs 1.47): until then the head is the mark or zeros, and both may be formatted again;
//! 3. the document under a temporary name, flushed, renamed, its directory flushed, and read back from the medium;
//! 4. zeros over the document in the identity partition;
//! 5. zeros over its header. The header comes last because it holds the hash by which an interrupted wipe is known
//!    to be one: with the header gone first, a cut would leave keys on the medium that no later boot looks for.
//!
//! systemd starts only after 5, so whatever lies on data before is pid 1's own work.

use super::ext4;
use super::state::{self, Action, DataState, IdentityState, Incarnation, Kept, Reason};
use crate::console::mark;
use crate::refused::Refused;
use bramble_api::document::{IdentityError, MachineDocument, parse_identity_header};
use bramble_api::layout::{BLOCK, DATA_MARK};
use sha2::{Digest, Sha256};

/// The media of a machine, as far as this module touches them. Writes are durable after the matching `flush`.
pub trait Media {
    /// Reads `length` bytes at `offset` of the identity partition.
    fn read_identity(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, Refused>;
    /// Writes into the identity partition.
    fn write_identity(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Refused>;
    /// Makes what was written into the identity partition durable.
    fn flush_identity(&mut self) -> Result<(), Refused>;
    /// Reads the first bytes of the data partition.
    fn read_head(&mut self) -> Result<[u8; ext4::HEAD], Refused>;
    /// Writes the first block of the data partition, durably.
    fn write_head(&mut self, block: &[u8; BLOCK as usize]) -> Result<(), Refused>;
    /// Makes an ext4 with this UUID on the data partition, durably.
    fn make(&mut self, uuid: &Incarnation) -> Result<(), Trouble>;
    /// Checks the ext4 if its superblock asks for it, and mounts it. An error is the file system's, in words.
    fn mount(&mut self, superblock: &ext4::Superblock) -> Result<(), String>;
    /// The stored document with its header, if there is one.
    fn read_document(&mut self) -> Result<Option<Vec<u8>>, Refused>;
    /// Stores a document with its header durably, in place of the one before, which is kept beside it.
    fn write_document(&mut self, bytes: &[u8]) -> Result<(), Refused>;
}

/// Why there is no data file system with a document.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// The decision was to stop.
    #[error("{0}")]
    Decided(Reason),
    /// An act was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A program of the root image failed.
    #[error("{program} failed: {why}")]
    Program {
        /// Its name.
        program: &'static str,
        /// Its exit status and last words.
        why: String,
    },
    /// What was written did not read back.
    #[error("{0} did not read back as it was written: the medium is failing")]
    ReadBack(&'static str),
}

/// What [`settle`] ends with.
pub struct Settled {
    /// The machine document.
    pub document: MachineDocument,
    /// What was out of order and put right, one sentence each.
    pub repaired: Vec<String>,
}

/// Brings the media to their normal state (identity wiped, data mounted, document on it) and gives the document.
///
/// `making` is called when the file system is about to be made, which takes a while.
pub fn settle(media: &mut impl Media, mut making: impl FnMut()) -> Result<Settled, Trouble> {
    let identity = look_at_identity(media)?;
    let (mut data, superblock) = look_at_head(media)?;
    // A file system that will not be used is not checked, replayed or mounted.
    if let Some(superblock) = &superblock
        && !matches!(identity.state, IdentityState::Broken(_))
    {
        data = look_into_data(media, superblock)?;
    }

    let mut repaired = Vec::new();
    let action = state::decide(&identity.state, &data);
    match (&action, &data) {
        (Action::Fail(reason), _) => return Err(Trouble::Decided(reason.clone())),
        (Action::Make, DataState::Marked | DataState::TornSuperblock { .. }) => {
            repaired.push("the data file system was made again: its first making was interrupted".into());
        }
        (Action::Copy, DataState::Ext4 { uuid, .. }) if Some(*uuid) == identity.incarnation() => {
            repaired.push("the machine document was copied again: its first copying was interrupted".into());
        }
        (Action::Copy, _) => repaired.push("data of an earlier installation was taken over".into()),
        (Action::FinishWipe, _) => repaired.push("the wipe of the identity partition was finished".into()),
        _ => {}
    }
    if action == Action::Make
        && let Some(incarnation) = identity.incarnation()
    {
        making();
        make(media, &incarnation)?;
    }
    if matches!(action, Action::Make | Action::Copy) {
        copy(media, &identity.bytes)?;
    }
    let stored = media.read_document()?.ok_or(Trouble::ReadBack("the machine document"))?;
    let document = parse(&stored).map_err(|why| Trouble::Decided(Reason::DocumentUnreadable(why)))?;
    if matches!(action, Action::Make | Action::Copy | Action::FinishWipe) {
        mark("before-wipe");
        wipe(media, identity.length)?;
        mark("wiped");
    }
    Ok(Settled { document, repaired })
}

/// The identity partition as found.
struct Identity {
    state: IdentityState,
    /// Bytes of the document, from its header; 0 without one.
    length: u64,
    /// Header block and document, when both are whole.
    bytes: Vec<u8>,
}

impl Identity {
    fn incarnation(&self) -> Option<Incarnation> {
        match self.state {
            IdentityState::Unconsumed { incarnation, .. } => Some(incarnation),
            _ => None,
        }
    }
}

fn look_at_identity(media: &mut impl Media) -> Result<Identity, Trouble> {
    let header = media.read_identity(0, BLOCK as usize)?;
    let (length, sha256) = match parse_identity_header(&header) {
        Ok(found) => found,
        Err(IdentityError::Consumed) => {
            return Ok(Identity { state: IdentityState::Consumed, length: 0, bytes: Vec::new() });
        }
        Err(error) => {
            return Ok(Identity {
                state: IdentityState::Broken(error.to_string()),
                length: 0,
                bytes: Vec::new(),
            });
        }
    };
    let json = media.read_identity(BLOCK, length as usize)?;
    if Sha256::digest(&json)[..] != sha256 {
        return Ok(Identity { state: IdentityState::Torn { sha256 }, length, bytes: Vec::new() });
    }
    let bytes = [header, json].concat();
    let state =
        match parse(&bytes).and_then(|document| Ok((incarnation(&document)?, document.machine.keep_data))) {
            Ok((incarnation, keep_data)) => IdentityState::Unconsumed { incarnation, keep_data },
            Err(why) => IdentityState::Broken(why),
        };
    Ok(Identity { state, length, bytes })
}

fn look_at_head(media: &mut impl Media) -> Result<(DataState, Option<ext4::Superblock>), Trouble> {
    Ok(match ext4::parse(&media.read_head()?) {
        ext4::Head::Empty => (DataState::Empty, None),
        ext4::Head::Marked => (DataState::Marked, None),
        ext4::Head::Torn { uuid } => (DataState::TornSuperblock { uuid }, None),
        ext4::Head::Foreign => (DataState::Foreign, None),
        ext4::Head::Ext4(superblock) => {
            (DataState::Ext4 { uuid: superblock.uuid, document: Kept::None }, Some(superblock))
        }
    })
}

fn look_into_data(media: &mut impl Media, superblock: &ext4::Superblock) -> Result<DataState, Trouble> {
    if let Err(why) = media.mount(superblock) {
        return Ok(DataState::Damaged(why));
    }
    let document = match media.read_document()? {
        None => Kept::None,
        Some(bytes) => match parse(&bytes).and_then(|document| incarnation(&document)) {
            Ok(incarnation) => {
                Kept::Document { incarnation, sha256: Sha256::digest(&bytes[BLOCK as usize..]).into() }
            }
            Err(why) => Kept::Unreadable(why),
        },
    };
    Ok(DataState::Ext4 { uuid: superblock.uuid, document })
}

/// The document in a header block and what follows it.
pub fn parse(bytes: &[u8]) -> Result<MachineDocument, String> {
    let (header, json) = bytes.split_at_checked(BLOCK as usize).ok_or("it is too short")?;
    let (length, sha256) = parse_identity_header(header).map_err(|error| error.to_string())?;
    if json.len() as u64 != length || Sha256::digest(json)[..] != sha256 {
        return Err("it does not fit its hash".into());
    }
    // serde's message quotes the offending value only for scalars of the wrong type; none of the keys can be one.
    serde_json::from_slice(json).map_err(|error| IdentityError::Unreadable(error.to_string()).to_string())
}

fn incarnation(document: &MachineDocument) -> Result<Incarnation, String> {
    let mut incarnation = [0; 16];
    hex::decode_to_slice(&document.machine.incarnation, &mut incarnation)
        .map_err(|_| "its incarnation is not 32 hexadecimal digits")?;
    Ok(incarnation)
}

fn make(media: &mut impl Media, incarnation: &Incarnation) -> Result<(), Trouble> {
    let mut block = [0; BLOCK as usize];
    block[..DATA_MARK.len()].copy_from_slice(DATA_MARK);
    media.write_head(&block)?;
    mark("data-marked");
    media.make(incarnation)?;
    mark("mkfs-done");
    let (data, superblock) = look_at_head(media)?;
    let Some(superblock) =
        superblock.filter(|_| matches!(data, DataState::Ext4 { uuid, .. } if uuid == *incarnation))
    else {
        return Err(Trouble::ReadBack("the data file system"));
    };
    media.mount(&superblock).map_err(|why| Trouble::Program { program: "mount", why })
}

fn copy(media: &mut impl Media, bytes: &[u8]) -> Result<(), Trouble> {
    media.write_document(bytes)?;
    mark("document-synced");
    if media.read_document()?.as_deref() != Some(bytes) {
        return Err(Trouble::ReadBack("the machine document"));
    }
    Ok(())
}

fn wipe(media: &mut impl Media, length: u64) -> Result<(), Trouble> {
    let blocks = length.div_ceil(BLOCK) as usize;
    for (offset, length) in [(BLOCK, blocks * BLOCK as usize), (0, BLOCK as usize)] {
        media.write_identity(offset, &vec![0; length])?;
        media.flush_identity()?;
        if media.read_identity(offset, length)?.iter().any(|byte| *byte != 0) {
            return Err(Trouble::ReadBack("the wiped identity partition"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "first_tests.rs"]
mod tests;
