//! The one table of offsets, types and sizes of a Bramble OS disk. Nothing else states offsets.
//!
//! Two layouts: [`uefi()`] (GPT, `docs/adr/0002-disk-layout.md`) and [`pi()`] (MBR, `docs/adr/0008-pi-layout.md`). What
//! both have is here.

pub mod pi;
mod uefi;

pub use pi::pi;
pub use uefi::{
    DISK_MIN_SIZE, ESP_SIZE, LOADER_CONF, TYPE_DATA, TYPE_ESP, TYPE_IDENTITY, TYPE_ROOT, UKI_SIZE,
    loader_conf, loader_path, uefi, uki_path, uki_size,
};

use crate::names::{Board, Slot};

/// Bytes in a logical sector; 4Kn disks are refused by `flash`.
pub const SECTOR: u64 = 512;
/// Every partition starts and ends on a multiple of this.
pub const ALIGNMENT: u64 = 4 << 20;
/// Size of one root slot: EROFS image, verity tree, manifest. Fixed for a card's life.
pub const ROOT_SIZE: u64 = 2 << 30;
/// Size of the identity partition.
pub const IDENTITY_SIZE: u64 = 32 << 20;
/// Smallest data partition that is accepted.
pub const DATA_MIN_SIZE: u64 = 2 << 30;
/// A build fails when a release fills more than this share of a slot, in percent.
pub const SLOT_FULL_PERCENT: u64 = 60;
/// Bytes in a file system and verity block.
pub const BLOCK: u64 = 4096;
/// The signed manifest lies in the last this many bytes of a root slot.
pub const MANIFEST_SIZE: u64 = 64 << 10;
/// The record by which `flash` knows a card again lies here, between the partition table and the first partition, on
/// every board. Nothing else is there.
pub const CARD_OFFSET: u64 = 512 << 10;
/// Bytes of that record.
pub const CARD_SIZE: u64 = BLOCK;

/// One partition of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// What it is for.
    pub kind: Kind,
    /// What it is called: in a GPT also by the table, and by the kernel as `PARTNAME`.
    pub name: &'static str,
    /// Its number in the table, which the kernel appends to the disk's name.
    pub number: u8,
    /// What the table says it is.
    pub code: Code,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

/// What a table says of a partition's purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// GPT partition type, as on disk.
    Gpt([u8; 16]),
    /// MBR partition type.
    Mbr(u8),
}

/// The purpose of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// EFI system partition.
    Esp,
    /// What a Pi's firmware looks at first: which slot to start, and a rescue.
    BootSelect,
    /// A Pi's firmware, kernel and initramfs of a slot.
    Boot(Slot),
    /// Holds the partitions from number 5 on. Nothing of its own but the sectors that describe those.
    Extended,
    /// A root slot.
    Root(Slot),
    /// First machine document.
    Identity,
    /// ext4, made at first boot.
    Data,
}

/// The disk is smaller than its layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a disk of {disk} bytes is too small: the layout needs {needed}")]
pub struct DiskTooSmall {
    /// Size of the disk in bytes.
    pub disk: u64,
    /// Size that the layout needs, in bytes.
    pub needed: u64,
}

/// The layout of a board's disk of `disk` bytes, by number.
///
/// # Errors
/// The disk is too small for it.
pub fn of(board: Board, disk: u64) -> Result<Vec<Partition>, DiskTooSmall> {
    if board.is_pi() { pi(disk).map(Vec::from) } else { uefi(disk).map(Vec::from) }
}

/// Smallest disk that a board's layout fits on, in bytes.
pub const fn disk_min_size(board: Board) -> u64 {
    if board.is_pi() { pi::DISK_MIN_SIZE } else { DISK_MIN_SIZE }
}

/// What lies in the first block of a data partition while `mkfs` runs: an interrupted run may format again.
pub const DATA_MARK: &[u8; 32] = b"bramble: mkfs of data has begun\n";

/// Magic of the identity partition's header (one [`BLOCK`], see [`crate::document`]).
pub const IDENTITY_MAGIC: &[u8; 16] = b"bramble-identity";

/// Magic at the head of the manifest area of a slot (see [`crate::manifest`]).
pub const MANIFEST_MAGIC: &[u8; 16] = b"bramble-manifest";
