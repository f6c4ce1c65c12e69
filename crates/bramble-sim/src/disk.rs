//! A sparse disk of sectors, and a layer over it. Sectors that were never written are zero.

use bramble_disk::firmware::ReadAt;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::io;
use std::sync::Arc;

/// Bytes of a sector: what a medium writes whole or not at all.
pub const SECTOR: usize = 512;

/// What one sector holds, where it lies, and a hash of both.
#[derive(Clone, Debug)]
pub struct Sector {
    /// Its number on the disk.
    pub at: u64,
    /// Its bytes.
    pub bytes: Arc<[u8; SECTOR]>,
    /// Of place and bytes; 0 for zeros, which are the same as nothing.
    pub hash: u128,
}

impl Sector {
    /// A sector with these bytes.
    pub fn new(at: u64, bytes: &[u8; SECTOR]) -> Sector {
        let hash = match bytes.iter().all(|byte| *byte == 0) {
            true => 0,
            false => {
                let digest = Sha256::new().chain_update(at.to_le_bytes()).chain_update(bytes).finalize();
                let mut half = [0; 16];
                half.copy_from_slice(&digest[..16]);
                u128::from_le_bytes(half)
            }
        };
        Sector { at, bytes: Arc::new(*bytes), hash }
    }
}

/// Bytes from `offset` on as sectors; both are whole.
pub fn sectors(offset: u64, bytes: &[u8]) -> Vec<Sector> {
    let first = offset / SECTOR as u64;
    let whole = bytes.chunks_exact(SECTOR).enumerate();
    whole
        .filter_map(|(index, chunk)| Some(Sector::new(first + index as u64, chunk.try_into().ok()?)))
        .collect()
}

/// A disk.
#[derive(Clone, Debug, Default)]
pub struct Disk {
    size: u64,
    sectors: HashMap<u64, Sector>,
}

impl Disk {
    /// A disk of zeros.
    pub fn new(size: u64) -> Disk {
        Disk { size, sectors: HashMap::new() }
    }

    /// Writes a sector.
    pub fn put(&mut self, sector: Sector) {
        self.sectors.insert(sector.at, sector);
    }

    /// Writes whole sectors.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) {
        for sector in sectors(offset, bytes) {
            self.put(sector);
        }
    }

    /// The sectors that hold something.
    pub fn iter(&self) -> impl Iterator<Item = &Sector> {
        self.sectors.values()
    }

    fn sector(&self, at: u64) -> Option<&Sector> {
        self.sectors.get(&at)
    }
}

/// A disk with some sectors otherwise: one state that a cut may leave.
#[derive(Clone, Debug)]
pub struct Layer<'d> {
    under: &'d Disk,
    over: HashMap<u64, Sector>,
}

impl<'d> Layer<'d> {
    /// The disk as it is.
    pub fn new(under: &'d Disk) -> Self {
        Layer { under, over: HashMap::new() }
    }

    /// Writes a sector.
    pub fn put(&mut self, sector: Sector) {
        self.over.insert(sector.at, sector);
    }

    /// How the hash of a disk changes with this layer: over all sectors, or those that `of` picks.
    pub fn change(&self, of: impl Fn(u64) -> bool) -> u128 {
        let picked = self.over.values().filter(|sector| of(sector.at));
        picked.fold(0, |sum, sector| {
            sum ^ sector.hash ^ self.under.sector(sector.at).map_or(0, |sector| sector.hash)
        })
    }

    /// The sectors that are otherwise.
    pub fn sectors(&self) -> impl Iterator<Item = &Sector> {
        self.over.values()
    }

    /// A disk of its own.
    pub fn to_disk(&self) -> Disk {
        let mut disk = self.under.clone();
        self.over.values().cloned().for_each(|sector| disk.put(sector));
        disk
    }
}

/// Copies sectors into a buffer that need not begin or end with one.
fn read<'s>(
    size: u64,
    offset: u64,
    out: &mut [u8],
    sector: impl Fn(u64) -> Option<&'s Sector>,
) -> io::Result<()> {
    if offset.checked_add(out.len() as u64).is_none_or(|end| end > size) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let mut done = 0;
    while done < out.len() {
        let at = offset + done as u64;
        let within = (at % SECTOR as u64) as usize;
        let length = (SECTOR - within).min(out.len() - done);
        let place = &mut out[done..done + length];
        match sector(at / SECTOR as u64) {
            Some(sector) => place.copy_from_slice(&sector.bytes[within..within + length]),
            None => place.fill(0),
        }
        done += length;
    }
    Ok(())
}

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        self.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        read(self.size, offset, buffer, |at| self.sector(at))
    }
}

impl ReadAt for Layer<'_> {
    fn size(&self) -> u64 {
        self.under.size
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        read(self.under.size, offset, buffer, |at| self.over.get(&at).or_else(|| self.under.sector(at)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_reads_over_its_disk_and_hashes_as_the_disk_it_makes() {
        let mut disk = Disk::new(8192);
        disk.write(512, &[1; 1024]);
        let mut layer = Layer::new(&disk);
        layer.put(Sector::new(2, &[2; SECTOR]));
        layer.put(Sector::new(1, &[0; SECTOR]));
        let mut bytes = [9; 1536];
        layer.read_at(256, &mut bytes).unwrap();
        assert_eq!((bytes[300], bytes[768], bytes[1280]), (0, 2, 0));
        let hash = |disk: &Disk| disk.iter().fold(0, |sum, sector| sum ^ sector.hash);
        assert_eq!(hash(&disk) ^ layer.change(|_| true), hash(&layer.to_disk()));
        assert_eq!(layer.change(|at| at > 100), 0);
        assert!(layer.read_at(8000, &mut bytes).is_err());
    }
}
