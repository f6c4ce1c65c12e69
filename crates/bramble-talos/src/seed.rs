//! The seed: a small partition on the flashed medium from which Talos takes its config at its first start.
//!
//! Talos started with `talos.config=metal-iso` looks for a volume whose partition is called `metal-iso` and reads
//! `config.yaml` in its root (`platform/metal` and `blockutils` of Talos). A raw image has about 143 MiB free behind its
//! last partition; the seed goes right behind META there, so that the free rest of the disk stays in one piece for
//! STATE and EPHEMERAL, which Talos makes itself.
//!
//! The seed holds the machine's secrets in clear, as the card of every installer does, until it is removed. It is read
//! only while STATE has no config.

use bramble_fat::{Entry, FatType, Options, PlanError, Reader, Volume};
use bramble_partition::gpt::{self, CheckError, Finding, Partition, Table, TableError};
use bramble_partition::{Guid, SECTOR, Write};
use bramble_secrets::SecretText;
use bramble_spec::Arch;
use sha2::{Digest, Sha256};
use std::io::{self, Read, Seek, SeekFrom};

/// Name of the partition. Talos looks for it.
pub const PARTITION: &str = "metal-iso";
/// Name of the file in it.
pub const FILE: &str = "config.yaml";
/// Size of the partition: the least that is FAT16 with small clusters, and hundreds of configs.
const SIZE: u64 = 16 << 20;
/// Partitions begin at multiples of this, as Talos' own do.
const ALIGN: u64 = 1 << 20;
/// Basic data: what a FAT volume is.
const BASIC_DATA: Guid =
    Guid([0xa2, 0xa0, 0xd0, 0xeb, 0xe5, 0xb9, 0x33, 0x44, 0x87, 0xc0, 0x68, 0xb6, 0xb7, 0x26, 0x99, 0xc7]);

/// What an image must be before a seed is put on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its partition table.
    pub table: Table,
    /// Its size in bytes.
    pub size: u64,
}

/// An image that a seed cannot be put on, or a disk that it does not fit.
#[derive(Debug, thiserror::Error)]
pub enum SeedError {
    /// Reading failed.
    #[error("the image cannot be read")]
    Read(#[source] io::Error),
    /// No partition table.
    #[error("it is no disk image: it has no partition table that is whole")]
    NoTable(#[source] CheckError),
    /// The table is of another length.
    #[error(
        "the image is cut short or has grown: its partition table is for {expected} bytes, and it has {found}"
    )]
    Length {
        /// What the table says.
        expected: u64,
        /// What it is.
        found: u64,
    },
    /// The table has another flaw.
    #[error("the partition table of the image is damaged")]
    Damaged,
    /// No partitions of Talos.
    #[error("it is no image of Talos: it has no partition {0:?}")]
    NotTalos(&'static str),
    /// A seed is there already.
    #[error("the image already carries a seed; take the image as it was downloaded")]
    Seeded,
    /// A machine's own state is there.
    #[error("the image is of a machine that has run: it has a partition {0:?}")]
    Used(&'static str),
    /// Another architecture.
    #[error("the image is for {found}, and the machine is {wanted}")]
    Architecture {
        /// What the image is for.
        found: String,
        /// What the machine is.
        wanted: Arch,
    },
    /// The config does not fit.
    #[error("the config cannot be put into a volume")]
    Volume(#[from] PlanError),
    /// The disk is too small.
    #[error("the disk of {disk} bytes is too small for the image and its seed")]
    TooSmall {
        /// Size in bytes.
        disk: u64,
    },
    /// The table does not fit.
    #[error("the partition table cannot be written")]
    Table(#[source] TableError),
}

impl Image {
    /// Looks at an image of `size` bytes and refuses what a seed does not belong on.
    ///
    /// # Errors
    /// Images that are cut short, are not Talos', are for another architecture, have a seed, or were a machine's.
    pub fn look(source: &mut (impl Read + Seek), size: u64, wanted: Arch) -> Result<Image, SeedError> {
        let check = gpt::check(source, size).map_err(|e| match e {
            CheckError::Read(e) => SeedError::Read(e.source),
            other => SeedError::NoTable(other),
        })?;
        for finding in &check.findings {
            match finding {
                // Firmware and kernels do without; the image's own maker may have.
                Finding::NoProtectiveMbr => {}
                Finding::BackupNotAtEnd { expected, .. } => {
                    return Err(SeedError::Length { expected: expected + SECTOR, found: size });
                }
                _ => return Err(SeedError::Damaged),
            }
        }
        let table = check.table;
        let named = |name: &str| table.partitions.iter().find(|p| p.name == name);
        if named(PARTITION).is_some() {
            return Err(SeedError::Seeded);
        }
        for name in ["STATE", "EPHEMERAL"] {
            if named(name).is_some() {
                return Err(SeedError::Used(name));
            }
        }
        named("META").ok_or(SeedError::NotTalos("META"))?;
        let esp = named("EFI").ok_or(SeedError::NotTalos("EFI"))?;
        architecture(source, esp, wanted)?;
        Ok(Image { table, size })
    }

    /// The seed on a disk of `disk` bytes: what to write after the image was, in this order. The volume comes first and
    /// the table last, so that a cut leaves the image as it was downloaded, or the image with its seed.
    ///
    /// # Errors
    /// A disk that is too small.
    pub fn seed(&self, config: &SecretText, disk: u64) -> Result<Vec<Write>, SeedError> {
        let end = self.table.partitions.iter().map(|p| p.start + p.size).max().unwrap_or(0);
        let start = end.next_multiple_of(ALIGN);
        let volume = volume(config, start)?;
        let mut table = self.table.clone();
        let number = table.partitions.iter().map(|p| p.number).max().unwrap_or(0) + 1;
        table.partitions.push(Partition {
            number,
            type_guid: BASIC_DATA,
            guid: identity(&self.table),
            start,
            size: SIZE,
            attributes: 0,
            name: PARTITION.into(),
        });
        // Talos makes STATE (100 MiB) and EPHEMERAL (2 GiB at least) behind it at its first start.
        let needed = start + SIZE + (100 << 20) + (2 << 30) + (2 << 20);
        if disk < needed.max(self.size) {
            return Err(SeedError::TooSmall { disk });
        }
        let mut writes = vec![Write { offset: start, bytes: volume, what: "seed" }];
        writes.extend(table.writes(disk).map_err(SeedError::Table)?);
        Ok(writes)
    }
}

/// What the firmware would start from the image says for which architecture it is.
fn architecture(source: &mut (impl Read + Seek), esp: &Partition, wanted: Arch) -> Result<(), SeedError> {
    let window = Window { source, start: esp.start, size: esp.size, at: 0 };
    let mut reader = Reader::open(window).map_err(|_| SeedError::NotTalos("EFI"))?;
    let loader = |arch: Arch| match arch {
        Arch::Amd64 => "EFI/BOOT/BOOTX64.EFI",
        Arch::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
    };
    if reader.find(loader(wanted)).is_ok() {
        return Ok(());
    }
    let other = match wanted {
        Arch::Amd64 => Arch::Arm64,
        Arch::Arm64 => Arch::Amd64,
    };
    let found = match reader.find(loader(other)) {
        Ok(_) => other.to_string(),
        Err(_) => "no architecture that is known".to_string(),
    };
    Err(SeedError::Architecture { found, wanted })
}

fn volume(config: &SecretText, start: u64) -> Result<Vec<u8>, PlanError> {
    let digest = Sha256::digest(config.expose());
    let options = Options {
        size: SIZE,
        sectors_per_cluster: 4,
        serial: u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]]),
        hidden_sectors: u32::try_from(start / SECTOR).unwrap_or(0),
        ..Options::new(FatType::Fat16)
    };
    let entries = [Entry::file(FILE, config.expose().as_bytes())];
    let mut bytes = Vec::with_capacity(SIZE as usize);
    let volume = Volume::plan(&entries, &options)?;
    // Writing into memory does not fail.
    let _ = volume.write_to(&mut bytes);
    Ok(bytes)
}

/// An identity of the partition that is the same for the same image.
fn identity(table: &Table) -> Guid {
    let digest = Sha256::new().chain_update(b"bramble seed 1").chain_update(table.disk_guid.0).finalize();
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    // Version 8, of one's own making (RFC 9562).
    uuid[6] = uuid[6] & 0x0f | 0x80;
    uuid[8] = uuid[8] & 0x3f | 0x80;
    Guid::from_uuid(uuid)
}

/// A part of something that can be read.
struct Window<'a, S> {
    source: &'a mut S,
    start: u64,
    size: u64,
    at: u64,
}

impl<S: Read + Seek> Read for Window<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = self.size.saturating_sub(self.at);
        let want = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        self.source.seek(SeekFrom::Start(self.start + self.at))?;
        let read = self.source.read(&mut buffer[..want])?;
        self.at += read as u64;
        Ok(read)
    }
}

impl<S: Read + Seek> Seek for Window<'_, S> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let target = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::End(back) => self.size.checked_add_signed(back),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
        };
        self.at = target.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests;
