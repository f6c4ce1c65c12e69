//! What lies on a disk: partition tables, file systems, volume managers, a Bramble card. By their magic numbers.
//!
//! Offsets and magics are those of each format's own header (`linux/magic.h`, `fs/*/`, the UEFI specification 5.3,
//! `drivers/md/`, LVM2's `label.h`, OpenZFS' `vdev_impl.h`). Only what guards a disk is looked at: nothing is parsed.

use crate::card::{self, Card};
use bramble_api::layout::{TYPE_DATA, TYPE_IDENTITY, TYPE_ROOT};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::io;
use std::ops::Range;

/// Bytes that are read at a disk's head and at its end.
const EDGE: u64 = 1 << 20;
/// Bytes that are read at the head of a partition: btrfs has its magic above 64 KiB.
const PARTITION_HEAD: u64 = 72 << 10;
/// Partitions that are looked into.
const MOST_PARTITIONS: usize = 32;

/// What was seen on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contents {
    /// Its partition table.
    pub table: Option<TableKind>,
    /// File systems, volume managers and such.
    pub signatures: Vec<Signature>,
    /// The record of a Bramble card.
    pub card: Option<Card>,
    /// The table has Bramble's partitions.
    pub bramble: bool,
    /// Head and end are zeros, or as erased flash reads.
    pub blank: bool,
    /// SHA-256 of head and end.
    pub fingerprint: [u8; 32],
}

/// A kind of partition table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableKind {
    /// GUID partition table.
    Gpt,
    /// Master boot record.
    Mbr,
}

/// Where something lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the disk itself.
    Disk,
    /// In the partition with this number, counted by start.
    Partition(usize),
}

/// Something that was recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// What.
    pub kind: SignatureKind,
    /// Where.
    pub place: Place,
}

/// What can be recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the formats' own")]
pub enum SignatureKind {
    Fat,
    Exfat,
    Ext,
    Iso9660,
    Squashfs,
    Erofs,
    F2fs,
    Swap,
    Ntfs,
    Refs,
    BitLocker,
    Apfs,
    HfsPlus,
    Xfs,
    Btrfs,
    Bcachefs,
    Bcache,
    Luks,
    Lvm,
    Raid,
    Zfs,
}

impl SignatureKind {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            SignatureKind::Fat => "FAT",
            SignatureKind::Exfat => "exFAT",
            SignatureKind::Ext => "ext2/3/4",
            SignatureKind::Iso9660 => "ISO 9660",
            SignatureKind::Squashfs => "squashfs",
            SignatureKind::Erofs => "EROFS",
            SignatureKind::F2fs => "F2FS",
            SignatureKind::Swap => "swap",
            SignatureKind::Ntfs => "NTFS",
            SignatureKind::Refs => "ReFS",
            SignatureKind::BitLocker => "BitLocker",
            SignatureKind::Apfs => "APFS",
            SignatureKind::HfsPlus => "HFS+",
            SignatureKind::Xfs => "XFS",
            SignatureKind::Btrfs => "btrfs",
            SignatureKind::Bcachefs => "bcachefs",
            SignatureKind::Bcache => "bcache",
            SignatureKind::Luks => "LUKS",
            SignatureKind::Lvm => "LVM",
            SignatureKind::Raid => "software RAID",
            SignatureKind::Zfs => "ZFS",
        }
    }

    /// Whether it is what cards do not usually hold: another computer's system, or a part of a bigger store. Such a
    /// disk is erased only when a person says so by its name.
    pub fn precious(self) -> bool {
        !matches!(
            self,
            SignatureKind::Fat
                | SignatureKind::Exfat
                | SignatureKind::Ext
                | SignatureKind::Iso9660
                | SignatureKind::Squashfs
                | SignatureKind::Erofs
                | SignatureKind::F2fs
                | SignatureKind::Swap
        )
    }
}

impl fmt::Display for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(card) = &self.card {
            let state = if card.state == card::State::Writing { ", unfinished" } else { "" };
            let [node, cluster] = [&card.node, &card.cluster].map(|t| super::Foreign::new(t));
            return write!(f, "Bramble card of {node} in {cluster}{state}");
        }
        if self.bramble {
            return f.write_str("a Bramble disk");
        }
        let mut words: Vec<&str> = Vec::new();
        match self.table {
            Some(TableKind::Gpt) => words.push("GPT"),
            Some(TableKind::Mbr) => words.push("MBR"),
            None => {}
        }
        for signature in &self.signatures {
            if !words.contains(&signature.kind.name()) {
                words.push(signature.kind.name());
            }
        }
        match words.is_empty() {
            true if self.blank => f.write_str("blank"),
            true => f.write_str("nothing known"),
            false => f.write_str(&words.join(", ")),
        }
    }
}

/// Looks at a disk of `size` bytes; `partitions` are those that the kernel sees, in bytes.
///
/// # Errors
/// What `read` says, which is given an offset and fills the buffer.
pub fn probe(
    size: u64,
    partitions: &[Range<u64>],
    read: &mut dyn FnMut(u64, &mut [u8]) -> io::Result<()>,
) -> io::Result<Contents> {
    let mut fetch = |range: Range<u64>| -> io::Result<Vec<u8>> {
        let range = range.start.min(size)..range.end.min(size);
        let mut bytes = vec![0; (range.end - range.start) as usize];
        if !bytes.is_empty() {
            read(range.start, &mut bytes)?;
        }
        Ok(bytes)
    };
    let head = fetch(0..EDGE)?;
    // Aligned, because the disk may be read past the cache.
    let end_start = size.saturating_sub(EDGE) / 4096 * 4096;
    let end = fetch(end_start..size)?;
    let mut hasher = Sha256::new();
    hasher.update(size.to_le_bytes());
    hasher.update(&head);
    hasher.update(&end);
    let same = |value: u8| head.iter().chain(&end).all(|b| *b == value);
    let mut contents = Contents {
        table: table(&head, &end),
        signatures: Vec::new(),
        card: head.get(card::OFFSET as usize..(card::OFFSET + card::SIZE) as usize).and_then(Card::decode),
        bramble: false,
        blank: same(0) || same(0xff),
        fingerprint: hasher.finalize().into(),
    };
    let tail = Tail { start: end_start, bytes: &end, size };
    recognise(&head, size, &tail, Place::Disk, &mut contents.signatures);
    let mut areas: Vec<Range<u64>> = partitions.to_vec();
    for (kind, area) in entries(&head, contents.table) {
        contents.bramble |= kind.bramble;
        if let Some(kind) = kind.signature {
            contents.signatures.push(Signature { kind, place: Place::Disk });
        }
        if !areas.iter().any(|a| a.start == area.start) {
            areas.push(area);
        }
    }
    areas.retain(|a| a.start > 0 && a.start < size && a.end > a.start);
    areas.sort_by_key(|a| a.start);
    for (index, area) in areas.into_iter().take(MOST_PARTITIONS).enumerate() {
        let length = area.end - area.start;
        let head = fetch(area.start..area.start + PARTITION_HEAD.min(length))?;
        // RAID of the oldest and the 1.0 kind lies at its partition's end.
        let tail_start = (area.end.min(size)).saturating_sub(128 << 10).max(area.start) / 4096 * 4096;
        let tail = fetch(tail_start..area.end)?;
        let tail = Tail { start: tail_start.wrapping_sub(area.start), bytes: &tail, size: length };
        recognise(&head, length, &tail, Place::Partition(index + 1), &mut contents.signatures);
    }
    contents.signatures.dedup();
    Ok(contents)
}

/// The last bytes of a disk or partition.
struct Tail<'a> {
    start: u64,
    bytes: &'a [u8],
    size: u64,
}

impl Tail<'_> {
    fn has(&self, offset: u64, magic: &[u8]) -> bool {
        let Some(at) = offset.checked_sub(self.start) else { return false };
        has(self.bytes, at as usize, magic)
    }
}

fn has(bytes: &[u8], at: usize, magic: &[u8]) -> bool {
    bytes.get(at..at.saturating_add(magic.len())) == Some(magic)
}

fn table(head: &[u8], end: &[u8]) -> Option<TableKind> {
    const GPT: &[u8] = b"EFI PART";
    let backup = end.len().checked_sub(512).is_some_and(|at| has(end, at, GPT));
    if has(head, 512, GPT) || has(head, 4096, GPT) || backup {
        return Some(TableKind::Gpt);
    }
    // A FAT boot sector ends in the same two bytes; its "entries" are code.
    let entries = head.get(446..510)?;
    let plausible = |e: &[u8]| e[0] & 0x7f == 0 && (e[4] == 0) == (e[12..16] == [0; 4]);
    let some = entries.chunks(16).any(|e| e[4] != 0);
    (has(head, 510, &[0x55, 0xaa]) && some && entries.chunks(16).all(plausible)).then_some(TableKind::Mbr)
}

/// What a partition's type says.
#[derive(Clone, Copy, Default)]
struct TypeSays {
    bramble: bool,
    signature: Option<SignatureKind>,
}

/// Partitions of the table in the head, with what their types say.
fn entries(head: &[u8], table: Option<TableKind>) -> Vec<(TypeSays, Range<u64>)> {
    let u32_at = |at: usize| head.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
    let mut found = Vec::new();
    match table {
        Some(TableKind::Gpt) if has(head, 512, b"EFI PART") => {
            let length = (u32_at(512 + 84) as usize).clamp(128, 4096);
            let count = (u32_at(512 + 80) as usize).min(128);
            let first = (u64_at(512 + 72) as usize).saturating_mul(512);
            for index in 0..count {
                let at = first.saturating_add(index * length);
                let Some(kind) = head.get(at..at.saturating_add(16)).filter(|k| **k != [0; 16]) else {
                    continue;
                };
                let (start, last) = (u64_at(at + 32), u64_at(at + 40));
                let range = start.saturating_mul(512)..last.saturating_add(1).saturating_mul(512);
                found.push((gpt_type(kind), range));
            }
        }
        Some(TableKind::Mbr) => {
            for at in (446..510).step_by(16) {
                let (start, sectors) = (u64::from(u32_at(at + 8)), u64::from(u32_at(at + 12)));
                if head[at + 4] != 0 {
                    let signature = match head[at + 4] {
                        0x8e => Some(SignatureKind::Lvm),
                        0xfd => Some(SignatureKind::Raid),
                        0xaf => Some(SignatureKind::HfsPlus),
                        _ => None,
                    };
                    let says = TypeSays { bramble: false, signature };
                    found.push((says, start * 512..(start + sectors) * 512));
                }
            }
        }
        _ => {}
    }
    found
}

fn gpt_type(kind: &[u8]) -> TypeSays {
    let bramble = [TYPE_ROOT, TYPE_IDENTITY, TYPE_DATA].iter().any(|t| kind == t);
    // The text form's first three fields are little-endian on disk (UEFI specification, appendix A).
    const TYPES: &[(&str, SignatureKind)] = &[
        ("ef57347c0000aa11aa1100306543ecac", SignatureKind::Apfs),
        ("005346480000aa11aa1100306543ecac", SignatureKind::HfsPlus),
        ("aac808588f7ee04285d2e1e90434cfb3", SignatureKind::Ntfs), // LDM metadata
        ("a0609baf3114624fbc683311714a69ad", SignatureKind::Ntfs), // LDM data
        ("79d3d6e607f5c244a23c238f2a3df928", SignatureKind::Lvm),
        ("0f889da1fc053b4da006743f0f84911e", SignatureKind::Raid),
        ("cb7c7dcaed63534c861c1742536059cc", SignatureKind::Luks),
        ("c38c896ad21db21199a6080020736631", SignatureKind::Zfs),
    ];
    let text = hex::encode(kind);
    let signature = TYPES.iter().find(|(t, _)| *t == text).map(|(_, s)| *s);
    TypeSays { bramble, signature }
}

/// Magics at fixed places of a head.
const MAGICS: &[(usize, &[u8], SignatureKind)] = &[
    (0, b"LUKS\xba\xbe", SignatureKind::Luks),
    (0, b"XFSB", SignatureKind::Xfs),
    (0, b"hsqs", SignatureKind::Squashfs),
    (3, b"NTFS    ", SignatureKind::Ntfs),
    (3, b"EXFAT   ", SignatureKind::Exfat),
    (3, b"-FVE-FS-", SignatureKind::BitLocker),
    (3, b"ReFS\0\0\0\0", SignatureKind::Refs),
    (32, b"NXSB", SignatureKind::Apfs),
    (54, b"FAT12   ", SignatureKind::Fat),
    (54, b"FAT16   ", SignatureKind::Fat),
    (82, b"FAT32   ", SignatureKind::Fat),
    (0x438, &[0x53, 0xef], SignatureKind::Ext),
    (1024, &0xe0f5_e1e2_u32.to_le_bytes(), SignatureKind::Erofs),
    (1024, &0xf2f5_2010_u32.to_le_bytes(), SignatureKind::F2fs),
    (1024, b"H+\0\x04", SignatureKind::HfsPlus),
    (1024, b"HX\0\x05", SignatureKind::HfsPlus),
    (4086, b"SWAPSPACE2", SignatureKind::Swap),
    (4086, b"SWAP-SPACE", SignatureKind::Swap),
    (65526, b"SWAPSPACE2", SignatureKind::Swap),
    (32769, b"CD001", SignatureKind::Iso9660),
    (0x10040, b"_BHRfS_M", SignatureKind::Btrfs),
    (0, &MD, SignatureKind::Raid),
    (4096, &MD, SignatureKind::Raid),
    (4096 + 24, b"\xc6\x85\x73\xf6\x66\xce\x90\xa9\xd9\x6a\x60\xcf\x80\x3d\xf7\xef", SignatureKind::Bcachefs),
    (4096 + 24, b"\xc6\x85\x73\xf6\x4e\x1a\x45\xca\x82\x65\xf5\x7f\x48\xba\x6d\x81", SignatureKind::Bcache),
];

/// `MD_SB_MAGIC`, as it lies on little-endian machines.
const MD: [u8; 4] = 0xa92b_4efc_u32.to_le_bytes();

fn recognise(head: &[u8], size: u64, tail: &Tail<'_>, place: Place, found: &mut Vec<Signature>) {
    let mut add = |kind| {
        let signature = Signature { kind, place };
        if !found.contains(&signature) {
            found.push(signature);
        }
    };
    for (at, magic, kind) in MAGICS {
        if has(head, *at, magic) {
            add(*kind);
        }
    }
    if (0..4).any(|sector| has(head, sector * 512, b"LABELONE")) {
        add(SignatureKind::Lvm);
    }
    let raid_1_0 = (size.saturating_sub(8 << 10)) & !4095;
    let raid_0_90 = (size & !0xffff).saturating_sub(64 << 10);
    let end = tail.size;
    if tail.has(raid_1_0, &MD)
        || tail.has(raid_0_90, &MD)
        || tail.has(raid_0_90, &0xa92b_4efc_u32.to_be_bytes())
        || tail.has(end.saturating_sub(1024), b"Intel Raid ISM Cfg Sig.")
        || tail.has(end.saturating_sub(512), &0xde11_de11_u32.to_be_bytes())
    {
        add(SignatureKind::Raid);
    }
    // A label of ZFS is 256 KiB: two at the head, two at the end, each with a ring of uberblocks in its second half.
    let ring = |bytes: &[u8], base: usize| {
        bytes.get(base + (128 << 10)..).is_some_and(|ring| {
            ring[..ring.len().min(128 << 10)].chunks(1024).any(|block| {
                has(block, 0, &0x00ba_b10c_u64.to_le_bytes()) || has(block, 0, &0x00ba_b10c_u64.to_be_bytes())
            })
        })
    };
    let late = (end & !0x3_ffff).saturating_sub(512 << 10);
    let in_tail = late.checked_sub(tail.start).map(|at| at as usize);
    if ring(head, 0)
        || ring(head, 256 << 10)
        || in_tail.is_some_and(|at| ring(tail.bytes, at) || ring(tail.bytes, at + (256 << 10)))
        // A partition's head is read too short for the ring: its label's list is enough.
        || has(head, 16 << 10, b"\x01\x01\0\0\0\0\0\0\0\0\0\x01")
    {
        add(SignatureKind::Zfs);
    }
}

#[cfg(test)]
#[path = "contents_tests.rs"]
mod tests;
