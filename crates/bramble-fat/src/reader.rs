//! Reading a volume without trusting a byte of it.

use std::io::{self, Read, Seek, SeekFrom};

use crate::format::{
    ATTR_DIRECTORY, ATTR_LONG_NAME, ATTR_VOLUME, Extent, FATS, FatType, Geometry, SECTOR, SECTOR_BYTES, SLOT,
    u16_at, u32_at,
};
use crate::name::{self, LongName, Short};

/// Bytes of a directory that are looked at: as many as it may have entries.
const DIRECTORY_MAX: u64 = 65536 * SLOT as u64;

/// A volume could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The device failed, or ends before the volume does.
    #[error("cannot read {length} bytes at {offset}")]
    Device {
        /// First byte.
        offset: u64,
        /// How many were wanted.
        length: usize,
        /// What the device said.
        #[source]
        source: io::Error,
    },
    /// Not a FAT16 or FAT32 volume.
    #[error("not a FAT16 or FAT32 volume: {reason}")]
    NotFat {
        /// What is missing.
        reason: &'static str,
    },
    /// The path does not exist, or leads through a file.
    #[error("{path}: not found")]
    NotFound {
        /// The path.
        path: String,
    },
    /// A directory where a file is wanted, or the reverse.
    #[error("{path}: {reason}")]
    WrongKind {
        /// The path.
        path: String,
        /// What it is.
        reason: &'static str,
    },
    /// The file is larger than the caller allows.
    #[error("{path}: {size} bytes, more than the {limit} allowed")]
    TooLarge {
        /// The path.
        path: String,
        /// Its size.
        size: u64,
        /// The caller's limit.
        limit: u64,
    },
    /// A chain of clusters leaves the volume, runs in a circle, or has another length than its file.
    #[error("the chain of clusters from {cluster} on is broken")]
    BrokenChain {
        /// First cluster.
        cluster: u32,
    },
}

/// A file or directory that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its long name, or the short one where there is no long one.
    pub name: String,
    /// Whether it is a directory.
    pub is_directory: bool,
    /// Size of a file in bytes.
    pub size: u32,
    first_cluster: u32,
}

/// An opened volume. It holds one sector of the FAT and nothing else, so it is small enough for an init process.
#[derive(Debug)]
pub struct Reader<S> {
    source: S,
    geometry: Geometry,
    root_cluster: u32,
    /// Sector of the FAT that is in `cache`.
    cached: Option<u64>,
    cache: [u8; SECTOR_BYTES],
}

impl<S: Read + Seek> Reader<S> {
    /// Opens the volume that begins at byte 0 of `source`.
    pub fn open(mut source: S) -> Result<Self, ReadError> {
        let mut boot = [0; SECTOR_BYTES];
        read(&mut source, 0, &mut boot)?;
        let not = |reason| Err(ReadError::NotFat { reason });
        if boot[510..] != [0x55, 0xaa]
            || u64::from(u16_at(&boot, 11)) != SECTOR
            || u64::from(boot[16]) != FATS
        {
            return not("no boot sector with sectors of 512 bytes and two FATs");
        }
        let sectors_per_cluster = u64::from(boot[13]);
        if !sectors_per_cluster.is_power_of_two() {
            return not("sectors per cluster");
        }
        let either = |small: u16, large: u32| if small != 0 { u64::from(small) } else { u64::from(large) };
        let mut geometry = Geometry {
            fat_type: FatType::Fat16,
            total: either(u16_at(&boot, 19), u32_at(&boot, 32)),
            sectors_per_cluster,
            reserved: u16_at(&boot, 14).into(),
            fat: either(u16_at(&boot, 22), u32_at(&boot, 36)),
            root: (u64::from(u16_at(&boot, 17)) * SLOT as u64).div_ceil(SECTOR),
            clusters: 0,
        };
        let Some(data) = geometry.total.checked_sub(geometry.data()) else {
            return not("areas larger than the volume");
        };
        geometry.clusters = data / sectors_per_cluster;
        let Some(fat_type) = FatType::of(geometry.clusters) else { return not("a FAT12") };
        geometry.fat_type = fat_type;
        let root_cluster = match fat_type {
            FatType::Fat16 => 0,
            FatType::Fat32 => u32_at(&boot, 44),
        };
        let fat_fits = (geometry.clusters + 2) * fat_type.entry_bytes() <= geometry.fat * SECTOR;
        let root_fits = (fat_type == FatType::Fat16) == (geometry.root > 0);
        if geometry.reserved == 0 || !fat_fits || !root_fits || geometry.clusters > fat_type.clusters_max() {
            return not("areas that contradict each other");
        }
        Ok(Self { source, geometry, root_cluster, cached: None, cache: [0; SECTOR_BYTES] })
    }

    /// Which FAT it is.
    pub fn fat_type(&self) -> FatType {
        self.geometry.fat_type
    }

    /// Bytes of the volume.
    pub fn size(&self) -> u64 {
        self.geometry.total * SECTOR
    }

    /// What a path leads to; names are separated by `/`, and case does not matter. The empty path is the root.
    pub fn find(&mut self, path: &str) -> Result<Node, ReadError> {
        let mut node =
            Node { name: String::new(), is_directory: true, size: 0, first_cluster: self.root_cluster };
        for wanted in path.split('/').filter(|name| !name.is_empty()) {
            let missing = || ReadError::NotFound { path: path.to_owned() };
            if !node.is_directory {
                return Err(missing());
            }
            let wanted = name::fold(wanted);
            let mut found = None;
            self.each(&node, |child, short| {
                if found.is_none() && (name::fold(&child.name) == wanted || short == wanted) {
                    found = Some(child);
                }
            })?;
            node = found.ok_or_else(missing)?;
        }
        Ok(node)
    }

    /// What is in a directory, in its order, `.`, `..` and the label left out.
    pub fn list(&mut self, path: &str) -> Result<Vec<Node>, ReadError> {
        let node = self.find(path)?;
        if !node.is_directory {
            return Err(ReadError::WrongKind { path: path.to_owned(), reason: "a file, not a directory" });
        }
        let mut nodes = Vec::new();
        self.each(&node, |child, _| nodes.push(child))?;
        Ok(nodes)
    }

    /// Where a file's content lies, neighbouring clusters joined. Together exactly the size of the file.
    pub fn extents(&mut self, path: &str) -> Result<Vec<Extent>, ReadError> {
        let node = self.find(path)?;
        if node.is_directory {
            return Err(ReadError::WrongKind { path: path.to_owned(), reason: "a directory, not a file" });
        }
        let size = u64::from(node.size);
        let mut extents =
            self.chain(node.first_cluster, size.div_ceil(self.geometry.cluster_bytes()), true)?;
        let mut rest = size;
        for extent in &mut extents {
            extent.length = extent.length.min(rest);
            rest -= extent.length;
        }
        Ok(extents)
    }

    /// A file's content, if it is not larger than `limit` bytes.
    pub fn read(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        let node = self.find(path)?;
        if u64::from(node.size) > limit {
            return Err(ReadError::TooLarge { path: path.to_owned(), size: node.size.into(), limit });
        }
        let mut bytes = Vec::new();
        for extent in self.extents(path)? {
            let at = bytes.len();
            bytes.resize(at + extent.length as usize, 0);
            read(&mut self.source, extent.offset, &mut bytes[at..])?;
        }
        Ok(bytes)
    }

    /// Shows every entry of a directory with its folded short name.
    fn each(&mut self, directory: &Node, mut show: impl FnMut(Node, &str)) -> Result<(), ReadError> {
        let extents = if directory.first_cluster == 0 && self.geometry.fat_type == FatType::Fat16 {
            let offset = (self.geometry.data() - self.geometry.root) * SECTOR;
            vec![Extent { offset, length: self.geometry.root * SECTOR }]
        } else {
            let clusters = DIRECTORY_MAX.div_ceil(self.geometry.cluster_bytes());
            self.chain(directory.first_cluster, clusters, false)?
        };
        let mut long = LongName::default();
        let mut sector = [0; SECTOR_BYTES];
        for extent in extents {
            for offset in (extent.offset..extent.offset + extent.length).step_by(SECTOR_BYTES) {
                read(&mut self.source, offset, &mut sector)?;
                for slot in sector.chunks_exact(SLOT) {
                    match (slot[0], slot[11]) {
                        (0, _) => return Ok(()),
                        (0xe5, _) => long = LongName::default(),
                        (_, attributes) if attributes & 0x3f == ATTR_LONG_NAME => long.push(slot),
                        (_, attributes) if attributes & ATTR_VOLUME != 0 => long = LongName::default(),
                        (b'.', _) => long = LongName::default(),
                        (_, attributes) => {
                            let (node, short) = self.node(slot, attributes, &mut long);
                            show(node, &short);
                        }
                    }
                }
            }
        }
        Ok(())
    }

    fn node(&self, slot: &[u8], attributes: u8, long: &mut LongName) -> (Node, String) {
        let mut short: Short = [0; 11];
        short.copy_from_slice(&slot[..11]);
        let long = long.take(&short);
        let high = match self.geometry.fat_type {
            FatType::Fat16 => 0,
            FatType::Fat32 => u32::from(u16_at(slot, 20)) << 16,
        };
        let is_directory = attributes & ATTR_DIRECTORY != 0;
        let first_cluster = match u32::from(u16_at(slot, 26)) | high {
            // It would be taken for the root; 1 is no cluster of any volume.
            0 if is_directory => 1,
            cluster => cluster,
        };
        let node = Node {
            name: long.unwrap_or_else(|| name::display_short(&short, slot[12])),
            is_directory,
            size: u32_at(slot, 28),
            first_cluster,
        };
        (node, name::fold(&name::display_short(&short, 0)))
    }

    /// The clusters of a chain as extents: `exactly` so many, or at most.
    fn chain(&mut self, first: u32, clusters: u64, exactly: bool) -> Result<Vec<Extent>, ReadError> {
        let broken = ReadError::BrokenChain { cluster: first };
        let mut extents: Vec<Extent> = Vec::new();
        let cluster_bytes = self.geometry.cluster_bytes();
        let mut cluster = first;
        let mut count = 0;
        // An empty file has no chain at all.
        while count < clusters {
            let index = u64::from(cluster).checked_sub(2);
            if index.is_none_or(|index| index >= self.geometry.clusters) {
                return Err(broken);
            }
            let offset = self.geometry.cluster_offset(cluster);
            match extents.last_mut() {
                Some(last) if last.offset + last.length == offset => last.length += cluster_bytes,
                _ => extents.push(Extent { offset, length: cluster_bytes }),
            }
            count += 1;
            cluster = self.next(cluster)?;
            if cluster >= self.geometry.fat_type.end_of_chain() {
                let whole = !exactly || count == clusters;
                return if whole { Ok(extents) } else { Err(broken) };
            }
        }
        // Longer than its file or than any directory, which is also what a circle looks like.
        if clusters == 0 && first == 0 { Ok(extents) } else { Err(broken) }
    }

    /// The FAT's entry of a cluster of the volume.
    fn next(&mut self, cluster: u32) -> Result<u32, ReadError> {
        let at = u64::from(cluster) * self.geometry.fat_type.entry_bytes();
        let sector = self.geometry.reserved + at / SECTOR;
        if self.cached != Some(sector) {
            self.cached = None;
            read(&mut self.source, sector * SECTOR, &mut self.cache)?;
            self.cached = Some(sector);
        }
        let at = (at % SECTOR) as usize;
        Ok(match self.geometry.fat_type {
            FatType::Fat16 => u16_at(&self.cache, at).into(),
            FatType::Fat32 => u32_at(&self.cache, at) & 0x0fff_ffff,
        })
    }
}

fn read(source: &mut (impl Read + Seek), offset: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
    let result = source.seek(SeekFrom::Start(offset)).and_then(|_| source.read_exact(bytes));
    result.map_err(|source| ReadError::Device { offset, length: bytes.len(), source })
}
