//! MBR: four primary partitions, one of them perhaps extended with a chain of logical ones. There is no second copy.

use std::io::{Read, Seek};

use crate::{ReadError, SECTOR, Write, read, u32_at};

const BOOT_SIGNATURE: [u8; 2] = [0x55, 0xaa];
/// First entry of the table in its sector.
const TABLE: usize = 446;
const ENTRY_BYTES: usize = 16;
/// Whole-disk partition that guards a GPT.
const PROTECTIVE: u8 = 0xee;
/// Extended, as the links of a chain are marked.
const EXTENDED_CHS: u8 = 0x05;
/// Extended, as Windows and Linux tools write it today.
const EXTENDED_LBA: u8 = 0x0f;
/// Longest chain that is followed; Linux itself stops at 256 partitions.
const LOGICAL_MAX: usize = 60;
/// The sector that describes a logical partition lies this far before it where there is room, as with other tools.
const LINK_GAP: u64 = 2048;
/// Longest sector number that an entry can hold, plus one.
const SECTORS_MAX: u64 = 1 << 32;

/// A partition of an MBR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// 1 to 4: primary; from 5 on: logical, in the order of the chain.
    pub number: u8,
    /// What it holds: 0x0c FAT32, 0x0e FAT16, 0x83 Linux, 0x0f or 0x05 extended.
    pub kind: u8,
    /// Marked active.
    pub bootable: bool,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

/// An MBR with its chain of logical partitions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Disk signature: `PARTUUID` is this in hexadecimal, `-`, and the number of the partition.
    pub signature: u32,
    /// Partitions by number.
    pub partitions: Vec<Partition>,
}

/// A table cannot be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("partition {number}: {reason}")]
pub struct TableError {
    /// Number of the partition.
    pub number: u8,
    /// What is wrong.
    pub reason: &'static str,
}

/// No table could be read.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    /// The device failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Sector 0 holds no MBR.
    #[error("no MBR")]
    NoTable,
    /// The MBR only guards a GPT.
    #[error("the disk has a GPT")]
    Gpt,
    /// A partition lies outside the disk or over another, or the chain of logical ones runs in a circle.
    #[error("bad MBR: {0}")]
    Bad(TableError),
}

impl Partition {
    fn is_extended(&self) -> bool {
        matches!(self.kind, EXTENDED_CHS | EXTENDED_LBA)
    }

    fn end(&self) -> u64 {
        self.start.saturating_add(self.size)
    }
}

impl Table {
    /// Everything to write for this table on a disk of `disk` bytes.
    ///
    /// Order: the chain of logical partitions from its end, the MBR itself last: it is the one sector that makes them all
    /// appear. Boot code is zero.
    pub fn writes(&self, disk: u64) -> Result<Vec<Write>, TableError> {
        self.validate(disk)?;
        let mut writes = Vec::new();
        if let Some(extended) = self.partitions.iter().find(|partition| partition.is_extended()) {
            let logical: Vec<&Partition> = self.logical().collect();
            let links = links(extended, &logical)?;
            let next = links.iter().zip(&logical).skip(1).map(Some).chain([None]);
            for ((link, partition), next) in links.iter().zip(&logical).zip(next) {
                let mut sector = vec![0; SECTOR as usize];
                put(&mut sector, 0, partition, *link);
                if let Some((next_link, next)) = next {
                    // A link counts from the extended partition and spans to the end of what it describes.
                    let size = next.end() - next_link * SECTOR;
                    let next = Partition {
                        number: 0,
                        kind: EXTENDED_CHS,
                        bootable: false,
                        start: next_link * SECTOR,
                        size,
                    };
                    put(&mut sector, 1, &next, extended.start / SECTOR);
                }
                sector[510..].copy_from_slice(&BOOT_SIGNATURE);
                writes.push(Write { offset: link * SECTOR, bytes: sector, what: "logical partition" });
            }
            writes.reverse();
            if logical.is_empty() {
                // Else an old chain could come back to life.
                let mut sector = vec![0; SECTOR as usize];
                sector[510..].copy_from_slice(&BOOT_SIGNATURE);
                writes.push(Write {
                    offset: extended.start,
                    bytes: sector,
                    what: "empty extended partition",
                });
            }
        }
        let mut sector = vec![0; SECTOR as usize];
        sector[440..444].copy_from_slice(&self.signature.to_le_bytes());
        for partition in self.partitions.iter().filter(|partition| partition.number <= 4) {
            put(&mut sector, usize::from(partition.number) - 1, partition, 0);
        }
        sector[510..].copy_from_slice(&BOOT_SIGNATURE);
        writes.push(Write { offset: 0, bytes: sector, what: "MBR" });
        Ok(writes)
    }

    /// Logical partitions in their order.
    fn logical(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.iter().filter(|partition| partition.number > 4)
    }

    fn validate(&self, disk: u64) -> Result<(), TableError> {
        let extended = self.partitions.iter().find(|partition| partition.is_extended());
        let mut number = 0;
        for partition in &self.partitions {
            let bad = |reason| Err(TableError { number: partition.number, reason });
            if partition.number <= number || (partition.number > 5 && partition.number != number + 1) {
                return bad("numbers must ascend, those of logical partitions without a gap from 5 on");
            }
            number = partition.number;
            if partition.kind == 0 || partition.kind == PROTECTIVE {
                return bad("its type is that of an unused entry or of a GPT");
            }
            if partition.start % SECTOR != 0 || partition.size % SECTOR != 0 || partition.size == 0 {
                return bad("its place or size is not whole sectors");
            }
            if partition.start == 0 || partition.end() > disk.min(SECTORS_MAX * SECTOR) {
                return bad("it does not lie on the disk, after the MBR and below 2 TiB");
            }
            if partition.number > 4 {
                let inside = |extended: &Partition| {
                    partition.start > extended.start && partition.end() <= extended.end()
                };
                if !extended.is_some_and(inside) || partition.is_extended() {
                    return bad("a logical partition must lie in an extended one");
                }
            } else if partition.is_extended()
                && extended.is_some_and(|first| first.number != partition.number)
            {
                return bad("a second extended partition");
            }
        }
        let (mut primary, logical): (Vec<&Partition>, Vec<&Partition>) =
            self.partitions.iter().partition(|p| p.number <= 4);
        primary.sort_unstable_by_key(|partition| partition.start);
        for pair in primary.windows(2).chain(logical.windows(2)) {
            if pair[0].end() > pair[1].start {
                return Err(TableError {
                    number: pair[1].number,
                    reason: "it overlaps another, or is out of order",
                });
            }
        }
        Ok(())
    }

    /// Reads the table of a disk of `disk` bytes.
    pub fn read(source: &mut (impl Read + Seek), disk: u64) -> Result<Self, CheckError> {
        let sector = read(source, 0, SECTOR as usize)?;
        if sector[510..] != BOOT_SIGNATURE {
            return Err(CheckError::NoTable);
        }
        if is_protective(&sector) {
            return Err(CheckError::Gpt);
        }
        let mut table = Self { signature: u32_at(&sector, 440), partitions: Vec::new() };
        table.partitions.extend((0..4).filter_map(|index| get(&sector, index, index as u8 + 1, 0)));
        let extended = table.partitions.iter().find(|partition| partition.is_extended()).copied();
        if let Some(extended) = extended {
            // Checks the place of the extended partition before anything is read from there.
            table.validate(disk).map_err(CheckError::Bad)?;
            let mut link = extended.start / SECTOR;
            for number in 5.. {
                let sector = read(source, link, SECTOR as usize)?;
                if sector[510..] != BOOT_SIGNATURE {
                    break;
                }
                table.partitions.extend(get(&sector, 0, number, link));
                let Some(next) = get(&sector, 1, 0, extended.start / SECTOR) else { break };
                let reason =
                    "the chain of logical partitions does not lead forward, or out of the extended one";
                let forward = next.start > link * SECTOR && next.start < extended.end();
                if !forward || usize::from(number) > LOGICAL_MAX {
                    return Err(CheckError::Bad(TableError { number, reason }));
                }
                link = next.start / SECTOR;
            }
        }
        table.validate(disk).map_err(CheckError::Bad)?;
        Ok(table)
    }
}

/// The sectors that describe each logical partition: the first at the start of the extended one.
fn links(extended: &Partition, logical: &[&Partition]) -> Result<Vec<u64>, TableError> {
    let mut links = Vec::new();
    let mut end = extended.start / SECTOR;
    for partition in logical {
        let start = partition.start / SECTOR;
        let link = if links.is_empty() { end } else { end.max(start.saturating_sub(LINK_GAP)) };
        if link >= start {
            return Err(TableError {
                number: partition.number,
                reason: "no free sector before it to describe it in",
            });
        }
        links.push(link);
        end = partition.end() / SECTOR;
    }
    Ok(links)
}

/// Writes an entry that counts from sector `base`.
fn put(sector: &mut [u8], index: usize, partition: &Partition, base: u64) {
    let entry = &mut sector[TABLE + index * ENTRY_BYTES..][..ENTRY_BYTES];
    entry[0] = if partition.bootable { 0x80 } else { 0 };
    // Cylinders, heads and sectors: "beyond what can be said", so that readers look at the sector numbers.
    entry[1..4].copy_from_slice(&[0xfe, 0xff, 0xff]);
    entry[4] = partition.kind;
    entry[5..8].copy_from_slice(&[0xfe, 0xff, 0xff]);
    // `validate` has bounded both below 2^32 sectors.
    entry[8..12].copy_from_slice(&((partition.start / SECTOR - base) as u32).to_le_bytes());
    entry[12..16].copy_from_slice(&((partition.size / SECTOR) as u32).to_le_bytes());
}

/// Reads an entry that counts from sector `base`; `None` if unused.
fn get(sector: &[u8], index: usize, number: u8, base: u64) -> Option<Partition> {
    let entry = &sector[TABLE + index * ENTRY_BYTES..][..ENTRY_BYTES];
    let size = u64::from(u32_at(entry, 12)) * SECTOR;
    let start = (u64::from(u32_at(entry, 8)) + base) * SECTOR;
    (entry[4] != 0 && size != 0).then_some(Partition {
        number,
        kind: entry[4],
        bootable: entry[0] == 0x80,
        start,
        size,
    })
}

/// Whether this sector 0 guards a GPT, alone or as a hybrid.
pub(crate) fn is_protective(sector: &[u8]) -> bool {
    sector[510..] == BOOT_SIGNATURE
        && (0..4).any(|index| sector[TABLE + index * ENTRY_BYTES + 4] == PROTECTIVE)
}

/// A sector 0 that guards a GPT on a disk of so many sectors, with the boot code of `old`.
pub(crate) fn protective(sectors: u64, old: &[u8]) -> Vec<u8> {
    let mut sector = old.to_vec();
    sector[440..].fill(0);
    let size = (sectors - 1).min(SECTORS_MAX - 1) * SECTOR;
    put(&mut sector, 0, &Partition { number: 1, kind: PROTECTIVE, bootable: false, start: SECTOR, size }, 0);
    // The one place where the specification wants a true CHS: sector 1 of the disk.
    sector[TABLE + 1..TABLE + 4].copy_from_slice(&[0x00, 0x02, 0x00]);
    sector[TABLE + 5..TABLE + 8].fill(0xff);
    sector[510..].copy_from_slice(&BOOT_SIGNATURE);
    sector
}
