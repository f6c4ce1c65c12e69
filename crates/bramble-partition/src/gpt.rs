//! GPT: two copies of a table, each with checksums, and a protective MBR in front.
//!
//! A disk of 512-byte sectors: protective MBR in sector 0, primary header in 1, its entries from 2 on; the backup's
//! entries before the last sector, its header in the last one.
//!
//! **Invariant of every list of writes from [`Check::repair_writes`]:** at each moment one copy of the table is whole and
//! is where [`check`] looks for it, so a power cut between two writes, or in the middle of one, leaves a disk whose table
//! reads the same. Running check and repair again finishes the work.

use std::io::{Read, Seek};

use crate::{Guid, ReadError, SECTOR, Write, mbr, read, u32_at, u64_at};

const SIGNATURE: &[u8; 8] = b"EFI PART";
const REVISION: u32 = 0x0001_0000;
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES: usize = 128;
/// What every tool writes, and the least the specification allows.
const ENTRIES: u32 = 128;
/// More entries than this are not believed; it bounds what is read to 128 KiB.
const ENTRIES_MAX: u32 = 1024;
const PRIMARY_HEADER: u64 = 1;
const PRIMARY_ENTRIES: u64 = 2;
/// UTF-16 units of a name.
const NAME_UNITS: usize = 36;

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number, 1 to 128: `p1` of the kernel.
    pub number: u32,
    /// What it is for.
    pub type_guid: Guid,
    /// Its own identity, `PARTUUID`.
    pub guid: Guid,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
    /// Attribute bits (UEFI specification, table 5.8).
    pub attributes: u64,
    /// `PARTLABEL`, at most 36 UTF-16 units.
    pub name: String,
}

/// What both copies say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Identity of the disk.
    pub disk_guid: Guid,
    /// Partitions by number.
    pub partitions: Vec<Partition>,
}

/// A table cannot be written to a disk of this size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// The disk cannot hold two tables.
    #[error("a disk of {disk} bytes is too small for a partition table")]
    DiskTooSmall {
        /// Size in bytes.
        disk: u64,
    },
    /// A partition's number, place, size or name is impossible.
    #[error("partition {number}: {reason}")]
    BadPartition {
        /// Its number.
        number: u32,
        /// What is wrong.
        reason: &'static str,
    },
    /// Two partitions share blocks or a number.
    #[error("partitions {first} and {second} overlap or have one number")]
    Overlap {
        /// Number of the first.
        first: u32,
        /// Number of the second.
        second: u32,
    },
}

/// No table could be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The device failed. Nothing is known about the table.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Neither copy is whole.
    #[error("no partition table: the primary is bad ({primary}), the backup too ({backup})")]
    NoTable {
        /// What is wrong with the primary.
        primary: Defect,
        /// What is wrong with the backup.
        backup: Defect,
    },
    /// The copy that is whole does not fit this disk: it was made for a larger one.
    #[error("the partition table does not fit this disk")]
    DoesNotFit(#[source] TableError),
}

/// What is wrong with one copy of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Defect {
    /// No signature, or it is for another place.
    #[error("no header")]
    NoHeader,
    /// The header's checksum is wrong.
    #[error("wrong checksum of the header")]
    HeaderChecksum,
    /// The header's fields contradict each other.
    #[error("impossible header")]
    ImpossibleHeader,
    /// The entries' checksum is wrong.
    #[error("wrong checksum of the entries")]
    EntriesChecksum,
    /// An entry lies outside the disk or over another.
    #[error("impossible entry")]
    ImpossibleEntry,
}

/// Something that [`Check::repair_writes`] mends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finding {
    /// Sector 0 does not protect the disk from tools that know no GPT.
    NoProtectiveMbr,
    /// The primary is bad; the backup was used.
    PrimaryBad(Defect),
    /// The backup at the end of the disk is bad; the primary was used.
    BackupBad(Defect),
    /// The primary says that the backup is elsewhere than at the end of the disk: the disk has grown, or the image was
    /// copied to a larger one.
    BackupNotAtEnd {
        /// Byte where the primary expects the backup's header.
        expected: u64,
        /// First byte of the disk's last sector, where it belongs.
        end: u64,
    },
    /// Both copies are whole but not equal. The primary was used, as firmware does.
    CopiesDiffer,
}

/// A table that was read, and what is to be mended about it.
#[derive(Clone, Debug)]
pub struct Check {
    /// The table.
    pub table: Table,
    /// Empty if all is well.
    pub findings: Vec<Finding>,
    writes: Vec<Write>,
}

impl Check {
    /// What to write so that a next [`check`] finds nothing; empty if nothing was found.
    ///
    /// Order: the copy that is not relied on, backup first if it is not where it belongs; then the header of the copy
    /// that was relied on, one sector; the protective MBR last. A header follows its entries. See the module for
    /// the invariant. What lies in the boot code of sector 0 stays. A backup at the old end of a disk that has grown is left
    /// alone: nothing looks there, and a partition may have grown over it.
    pub fn repair_writes(&self) -> &[Write] {
        &self.writes
    }
}

/// What one header says beside the table.
struct Copy {
    table: Table,
    /// The entries as they are on disk, whole sectors. Repair copies these: other tools may have left more in them than
    /// we understand, and both headers carry a checksum over all of it.
    bytes: Vec<u8>,
    entries: u32,
    first_usable: u64,
    alternate: u64,
}

/// A table as bytes.
struct Encoded {
    primary_header: Vec<u8>,
    backup_header: Vec<u8>,
    entries: Vec<u8>,
    backup_header_at: u64,
    backup_entries_at: u64,
}

impl Table {
    /// Everything to write for this table on a disk of `disk` bytes (a last part of a sector is not used).
    ///
    /// Order: backup, protective MBR, primary with its header last, so that a cut leaves no table, or one that a repair
    /// completes. What lay in sector 0 is overwritten.
    pub fn writes(&self, disk: u64) -> Result<Vec<Write>, TableError> {
        let encoded = self.encode(disk, ENTRIES, PRIMARY_ENTRIES + entry_sectors(ENTRIES), None)?;
        let mbr = mbr::protective(disk / SECTOR, &[0; SECTOR as usize]);
        Ok(vec![
            write(encoded.backup_entries_at, &encoded.entries, "backup entries"),
            write(encoded.backup_header_at, &encoded.backup_header, "backup header"),
            write(0, &mbr, "protective MBR"),
            write(PRIMARY_ENTRIES, &encoded.entries, "primary entries"),
            write(PRIMARY_HEADER, &encoded.primary_header, "primary header"),
        ])
    }

    /// With the `bytes` of the entries, if they are known already.
    fn encode(
        &self,
        disk: u64,
        entries: u32,
        first_usable: u64,
        bytes: Option<Vec<u8>>,
    ) -> Result<Encoded, TableError> {
        let sectors = disk / SECTOR;
        let table = entry_sectors(entries);
        // Two tables, the MBR, and one sector to use.
        if sectors < 2 * (table + 1) + 2 {
            return Err(TableError::DiskTooSmall { disk });
        }
        let last = sectors - 1;
        let last_usable = last - table - 1;
        self.validate(entries, first_usable, last_usable)?;

        let bytes = bytes.unwrap_or_else(|| {
            let mut bytes = vec![0; table as usize * SECTOR as usize];
            for partition in &self.partitions {
                let at = (partition.number as usize - 1) * ENTRY_BYTES;
                partition.encode(&mut bytes[at..at + ENTRY_BYTES]);
            }
            bytes
        });
        let checksum = crc32fast::hash(&bytes[..entries as usize * ENTRY_BYTES]);
        let header = |own: u64, alternate: u64, entries_at: u64| {
            let mut header = vec![0; SECTOR as usize];
            header[0..8].copy_from_slice(SIGNATURE);
            header[8..12].copy_from_slice(&REVISION.to_le_bytes());
            header[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
            header[24..32].copy_from_slice(&own.to_le_bytes());
            header[32..40].copy_from_slice(&alternate.to_le_bytes());
            header[40..48].copy_from_slice(&first_usable.to_le_bytes());
            header[48..56].copy_from_slice(&last_usable.to_le_bytes());
            header[56..72].copy_from_slice(&self.disk_guid.0);
            header[72..80].copy_from_slice(&entries_at.to_le_bytes());
            header[80..84].copy_from_slice(&entries.to_le_bytes());
            header[84..88].copy_from_slice(&(ENTRY_BYTES as u32).to_le_bytes());
            header[88..92].copy_from_slice(&checksum.to_le_bytes());
            let own_checksum = crc32fast::hash(&header[..HEADER_BYTES]);
            header[16..20].copy_from_slice(&own_checksum.to_le_bytes());
            header
        };
        let backup_entries_at = last - table;
        Ok(Encoded {
            primary_header: header(PRIMARY_HEADER, last, PRIMARY_ENTRIES),
            backup_header: header(last, PRIMARY_HEADER, backup_entries_at),
            entries: bytes,
            backup_header_at: last,
            backup_entries_at,
        })
    }

    fn validate(&self, entries: u32, first_usable: u64, last_usable: u64) -> Result<(), TableError> {
        for partition in &self.partitions {
            let bad = |reason| Err(TableError::BadPartition { number: partition.number, reason });
            let Partition { number, type_guid, start, size, name, .. } = partition;
            if !(1..=entries).contains(number) {
                return bad("its number is not 1 to 128");
            }
            if *type_guid == Guid::NIL {
                return bad("its type is that of an unused entry");
            }
            if start % SECTOR != 0 || size % SECTOR != 0 || *size == 0 {
                return bad("its place or size is not whole sectors");
            }
            let last = start.checked_add(*size).map(|end| end / SECTOR - 1);
            if start / SECTOR < first_usable || last.is_none_or(|last| last > last_usable) {
                return bad("it does not lie between the two tables");
            }
            if name.encode_utf16().count() > NAME_UNITS || name.contains('\0') {
                return bad("its name has more than 36 UTF-16 units, or a zero");
            }
        }
        let mut order: Vec<&Partition> = self.partitions.iter().collect();
        order.sort_unstable_by_key(|partition| partition.start);
        for pair in order.windows(2) {
            if pair[0].start + pair[0].size > pair[1].start {
                return Err(TableError::Overlap { first: pair[0].number, second: pair[1].number });
            }
        }
        order.sort_unstable_by_key(|partition| partition.number);
        match order.windows(2).find(|pair| pair[0].number == pair[1].number) {
            Some(pair) => Err(TableError::Overlap { first: pair[0].number, second: pair[1].number }),
            None => Ok(()),
        }
    }
}

impl Partition {
    fn encode(&self, out: &mut [u8]) {
        out[0..16].copy_from_slice(&self.type_guid.0);
        out[16..32].copy_from_slice(&self.guid.0);
        out[32..40].copy_from_slice(&(self.start / SECTOR).to_le_bytes());
        out[40..48].copy_from_slice(&((self.start + self.size) / SECTOR - 1).to_le_bytes());
        out[48..56].copy_from_slice(&self.attributes.to_le_bytes());
        for (unit, bytes) in self.name.encode_utf16().zip(out[56..].chunks_exact_mut(2)) {
            bytes.copy_from_slice(&unit.to_le_bytes());
        }
    }

    /// `None` if the entry cannot be, or is unused (then the type is nil, which the caller has looked at).
    fn decode(number: u32, entry: &[u8]) -> Option<Self> {
        let guid = |at: usize| {
            let mut guid = [0; 16];
            guid.copy_from_slice(&entry[at..at + 16]);
            Guid(guid)
        };
        let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
        let start = first.checked_mul(SECTOR)?;
        let size = last.checked_sub(first)?.checked_add(1)?.checked_mul(SECTOR)?;
        start.checked_add(size)?;
        let units = entry[56..ENTRY_BYTES].chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
        let name = char::decode_utf16(units.take_while(|unit| *unit != 0));
        let name = name.map(|unit| unit.unwrap_or(char::REPLACEMENT_CHARACTER)).collect();
        Some(Self {
            number,
            type_guid: guid(0),
            guid: guid(16),
            start,
            size,
            attributes: u64_at(entry, 48),
            name,
        })
    }
}

/// Reads the table of a disk of `disk` bytes: the primary, or the backup if that is bad.
pub fn check(source: &mut (impl Read + Seek), disk: u64) -> Result<Check, CheckError> {
    let sectors = disk / SECTOR;
    if sectors < PRIMARY_ENTRIES + 1 {
        return Err(CheckError::NoTable { primary: Defect::NoHeader, backup: Defect::NoHeader });
    }
    let end = sectors - 1;
    let old_mbr = read(source, 0, SECTOR as usize)?;
    let primary = read_copy(source, PRIMARY_HEADER, sectors)?;
    let mut backup = read_copy(source, end, sectors)?;
    let mut findings = Vec::new();
    // Whether the backup that is relied on lies elsewhere than at the end.
    let mut displaced = false;
    if let (Err(Bad { alternate: Some(at), .. }), Err(_)) = (&primary, &backup)
        && *at != end
    {
        // The primary's header is whole, so it can be believed about the backup's place; only its entries are not.
        backup = read_copy(source, *at, sectors)?;
        displaced = backup.is_ok();
    }

    let (used, writes_primary_entries) = match (primary, &backup) {
        (Ok(primary), backup) => {
            if primary.alternate != end {
                findings.push(Finding::BackupNotAtEnd {
                    expected: primary.alternate * SECTOR,
                    end: end * SECTOR,
                });
            } else {
                match backup {
                    Err(bad) => findings.push(Finding::BackupBad(bad.defect)),
                    Ok(backup)
                        if (backup.table.disk_guid, &backup.bytes)
                            != (primary.table.disk_guid, &primary.bytes) =>
                    {
                        findings.push(Finding::CopiesDiffer)
                    }
                    Ok(_) => {}
                }
            }
            (primary, false)
        }
        (Err(primary), Ok(_)) => {
            findings.push(Finding::PrimaryBad(primary.defect));
            if let (true, Some(at)) = (displaced, primary.alternate) {
                findings.push(Finding::BackupNotAtEnd { expected: at * SECTOR, end: end * SECTOR });
            }
            match backup {
                Ok(backup) => (backup, true),
                Err(backup) => {
                    return Err(CheckError::NoTable { primary: primary.defect, backup: backup.defect });
                }
            }
        }
        (Err(primary), Err(backup)) => {
            return Err(CheckError::NoTable { primary: primary.defect, backup: backup.defect });
        }
    };
    let Copy { table, bytes, entries, first_usable, .. } = used;
    let encoded = table.encode(disk, entries, first_usable, Some(bytes)).map_err(CheckError::DoesNotFit)?;
    let new_mbr = if mbr::is_protective(&old_mbr) {
        old_mbr
    } else {
        findings.push(Finding::NoProtectiveMbr);
        mbr::protective(sectors, &old_mbr)
    };

    let mut writes = Vec::new();
    if !findings.is_empty() {
        let backup = [
            write(encoded.backup_entries_at, &encoded.entries, "backup entries"),
            write(encoded.backup_header_at, &encoded.backup_header, "backup header"),
        ];
        if writes_primary_entries {
            // Relied on: the backup, which stays untouched where it is until the primary is whole.
            writes.push(write(PRIMARY_ENTRIES, &encoded.entries, "primary entries"));
            if displaced {
                // The old primary header now covers whole entries and still names the old backup.
                writes.extend(backup);
            }
        } else {
            // Relied on: the primary. Its entries stay as they are; its header follows a whole backup.
            writes.extend(backup);
        }
        writes.push(write(PRIMARY_HEADER, &encoded.primary_header, "primary header"));
        writes.push(write(0, &new_mbr, "protective MBR"));
    }
    Ok(Check { table, findings, writes })
}

/// A copy that cannot be used.
struct Bad {
    defect: Defect,
    /// Where its header, if that was whole, says the other copy is: a sector of the disk.
    alternate: Option<u64>,
}

fn read_copy(source: &mut (impl Read + Seek), at: u64, sectors: u64) -> Result<Result<Copy, Bad>, ReadError> {
    let bad = |defect| Ok(Err(Bad { defect, alternate: None }));
    let mut header = read(source, at, SECTOR as usize)?;
    if &header[0..8] != SIGNATURE || u64_at(&header, 24) != at {
        return bad(Defect::NoHeader);
    }
    let length = u32_at(&header, 12) as usize;
    if !(HEADER_BYTES..=SECTOR as usize).contains(&length) {
        return bad(Defect::ImpossibleHeader);
    }
    let stated = u32_at(&header, 16);
    header[16..20].fill(0);
    if crc32fast::hash(&header[..length]) != stated {
        return bad(Defect::HeaderChecksum);
    }
    let (alternate, first_usable, last_usable) =
        (u64_at(&header, 32), u64_at(&header, 40), u64_at(&header, 48));
    let (entries_at, entries) = (u64_at(&header, 72), u32_at(&header, 80));
    let table = entry_sectors(entries.min(ENTRIES_MAX));
    let fits = u32_at(&header, 84) as usize == ENTRY_BYTES
        && (1..=ENTRIES_MAX).contains(&entries)
        && entries_at.checked_add(table).is_some_and(|end| end <= sectors)
        // Other places for the primary's entries are allowed, but nothing we repair has them.
        && (at != PRIMARY_HEADER || entries_at == PRIMARY_ENTRIES)
        && first_usable >= PRIMARY_ENTRIES + table
        && last_usable < sectors
        && alternate != at;
    if !fits {
        return bad(Defect::ImpossibleHeader);
    }
    let alternate_on_disk =
        Some(alternate).filter(|alternate| (PRIMARY_ENTRIES..sectors).contains(alternate));
    let bad = |defect| Ok(Err(Bad { defect, alternate: alternate_on_disk }));
    let bytes = read(source, entries_at, table as usize * SECTOR as usize)?;
    let used = &bytes[..entries as usize * ENTRY_BYTES];
    if crc32fast::hash(used) != u32_at(&header, 88) {
        return bad(Defect::EntriesChecksum);
    }
    let mut guid = [0; 16];
    guid.copy_from_slice(&header[56..72]);
    let mut partitions = Vec::new();
    for (number, entry) in (1..).zip(used.chunks_exact(ENTRY_BYTES)) {
        if entry[..16].iter().all(|byte| *byte == 0) {
            continue;
        }
        let Some(partition) = Partition::decode(number, entry) else {
            return bad(Defect::ImpossibleEntry);
        };
        partitions.push(partition);
    }
    let table = Table { disk_guid: Guid(guid), partitions };
    if table.validate(entries, first_usable, last_usable).is_err() {
        return bad(Defect::ImpossibleEntry);
    }
    Ok(Ok(Copy { table, bytes, entries, first_usable, alternate }))
}

fn entry_sectors(entries: u32) -> u64 {
    (u64::from(entries) * ENTRY_BYTES as u64).div_ceil(SECTOR)
}

fn write(sector: u64, bytes: &[u8], what: &'static str) -> Write {
    Write { offset: sector * SECTOR, bytes: bytes.to_vec(), what }
}
