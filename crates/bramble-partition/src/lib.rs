//! Write and read GPT and MBR partition tables with their backups.
//!
//! Everything here is a decision: writers return the [`Write`]s to make, in order, and never touch a device. Readers take
//! any [`std::io::Read`] + [`std::io::Seek`], read a bounded number of sectors and believe nothing they find there.
//!
//! - [`gpt`]: UEFI specification 2.10, chapter 5. Primary and backup table, protective MBR, checking and repair.
//! - [`mbr`]: the older table, with logical partitions in an extended one.
//!
//! Sectors have 512 bytes. Places and sizes are in bytes and multiples of a sector.
#![forbid(unsafe_code)]

pub mod gpt;
mod guid;
pub mod mbr;

use std::io::{self, Read, Seek, SeekFrom};

pub use guid::{Guid, ParseGuidError};

/// Bytes of a logical sector.
pub const SECTOR: u64 = 512;

/// Something to write to a disk. Writes are made in the order given, **each made durable before the next** (`fdatasync`
/// or a flush of the device), else what a function promises about power cuts does not hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// First byte on the disk, a multiple of [`SECTOR`].
    pub offset: u64,
    /// What to write there, whole sectors.
    pub bytes: Vec<u8>,
    /// What it is, for a log.
    pub what: &'static str,
}

/// Reading a disk failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {length} bytes at {offset}")]
pub struct ReadError {
    /// First byte.
    pub offset: u64,
    /// How many were wanted.
    pub length: usize,
    /// What the device said.
    #[source]
    pub source: io::Error,
}

fn read(disk: &mut (impl Read + Seek), sector: u64, length: usize) -> Result<Vec<u8>, ReadError> {
    let offset = sector.saturating_mul(SECTOR);
    let mut bytes = vec![0; length];
    let result = disk.seek(SeekFrom::Start(offset)).and_then(|_| disk.read_exact(&mut bytes));
    result.map_err(|source| ReadError { offset, length, source })?;
    Ok(bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}
