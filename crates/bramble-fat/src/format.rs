//! The words of the on-disk format and the arithmetic of a volume's areas.

/// Bytes of a sector.
pub const SECTOR: u64 = 512;
pub(crate) const SECTOR_BYTES: usize = 512;
/// Bytes of a directory entry.
pub(crate) const SLOT: usize = 32;
/// Two copies of the FAT, as every reader expects.
pub(crate) const FATS: u64 = 2;
/// Entries of a FAT16 root directory: the specification's recommendation.
pub(crate) const ROOT_ENTRIES: u16 = 512;
/// Sector of FSInfo, and of the second copy of boot sector and FSInfo.
pub(crate) const FSINFO_SECTOR: usize = 1;
pub(crate) const BACKUP_SECTOR: usize = 6;
/// Largest size of a file.
pub(crate) const FILE_MAX: u64 = u32::MAX as u64;

pub(crate) const ATTR_VOLUME: u8 = 0x08;
pub(crate) const ATTR_DIRECTORY: u8 = 0x10;
pub(crate) const ATTR_ARCHIVE: u8 = 0x20;
/// All of read-only, hidden, system and volume: the mark of a piece of a long name.
pub(crate) const ATTR_LONG_NAME: u8 = 0x0f;
/// Bits of byte 12: the base or the extension of a short name is shown in lower case.
pub(crate) const LOWER_BASE: u8 = 0x08;
pub(crate) const LOWER_EXTENSION: u8 = 0x10;

/// Which FAT. A reader tells them apart by the number of clusters alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatType {
    /// 4,085 to 65,524 clusters.
    Fat16,
    /// 65,525 clusters and more.
    Fat32,
}

impl FatType {
    /// The type of a volume with so many clusters; `None` for FAT12.
    pub(crate) fn of(clusters: u64) -> Option<Self> {
        match clusters {
            0..4085 => None,
            4085..65525 => Some(Self::Fat16),
            _ => Some(Self::Fat32),
        }
    }

    /// Bytes of an entry of the FAT.
    pub(crate) fn entry_bytes(self) -> u64 {
        match self {
            Self::Fat16 => 2,
            Self::Fat32 => 4,
        }
    }

    /// The largest number of clusters: beyond it numbers have a meaning of their own.
    pub(crate) fn clusters_max(self) -> u64 {
        match self {
            Self::Fat16 => 65524,
            Self::Fat32 => 0x0fff_fff5 - 2,
        }
    }

    /// From this value on, an entry ends a chain.
    pub(crate) fn end_of_chain(self) -> u32 {
        match self {
            Self::Fat16 => 0xfff8,
            Self::Fat32 => 0x0fff_fff8,
        }
    }
}

/// A run of bytes of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First byte, from the start of the volume.
    pub offset: u64,
    /// Length in bytes.
    pub length: u64,
}

/// Where the areas of a volume lie, in sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Geometry {
    pub fat_type: FatType,
    pub total: u64,
    pub sectors_per_cluster: u64,
    /// Before the first FAT.
    pub reserved: u64,
    /// Of one FAT.
    pub fat: u64,
    /// Of the root directory of FAT16.
    pub root: u64,
    pub clusters: u64,
}

impl Geometry {
    /// First sector of the clusters.
    pub(crate) fn data(&self) -> u64 {
        self.reserved + FATS * self.fat + self.root
    }

    pub(crate) fn cluster_bytes(&self) -> u64 {
        self.sectors_per_cluster * SECTOR
    }

    /// First byte of a cluster; the first one has number 2.
    pub(crate) fn cluster_offset(&self, cluster: u32) -> u64 {
        self.data() * SECTOR + (u64::from(cluster) - 2) * self.cluster_bytes()
    }

    /// The geometry of a new volume; `None` if nothing is left for clusters. Clusters begin on a multiple of 4 KiB and of
    /// their own size, which is what flash likes.
    pub(crate) fn new(fat_type: FatType, total: u64, sectors_per_cluster: u64) -> Option<Self> {
        let (reserved, root) = match fat_type {
            FatType::Fat16 => (1, u64::from(ROOT_ENTRIES) * SLOT as u64 / SECTOR),
            FatType::Fat32 => (32, 0),
        };
        let mut geometry = Self { fat_type, total, sectors_per_cluster, reserved, fat: 1, root, clusters: 0 };
        // Grows to a fixed point: a longer FAT leaves fewer clusters to describe.
        loop {
            geometry.clusters = total.checked_sub(geometry.data())? / sectors_per_cluster;
            let needed = ((geometry.clusters + 2) * fat_type.entry_bytes()).div_ceil(SECTOR);
            if needed <= geometry.fat {
                break;
            }
            geometry.fat = needed;
        }
        let align = sectors_per_cluster.max(8);
        geometry.reserved += geometry.data().next_multiple_of(align) - geometry.data();
        geometry.clusters = total.checked_sub(geometry.data())? / sectors_per_cluster;
        Some(geometry)
    }
}

/// FAT's date and time of a moment, in two seconds' steps; moments outside 1980 to 2107 become the nearest inside.
pub(crate) fn date_time(unix: u64) -> (u16, u16) {
    const FIRST: u64 = 315_532_800;
    const LAST: u64 = 4_354_819_198;
    let unix = unix.clamp(FIRST, LAST);
    let (days, second) = (unix / 86400, unix % 86400);
    // Days to a date: Howard Hinnant's `civil_from_days`, for days after 1970 only.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let date = ((year - 1980) << 9) | (month << 5) | day;
    let time = ((second / 3600) << 11) | ((second / 60 % 60) << 5) | (second % 60 / 2);
    (date as u16, time as u16)
}

pub(crate) fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates() {
        let date = |year: u16, month: u16, day: u16| (year - 1980) << 9 | month << 5 | day;
        assert_eq!(date_time(0), (date(1980, 1, 1), 0));
        assert_eq!(date_time(1_709_210_096), (date(2024, 2, 29), 12 << 11 | 34 << 5 | 28));
        assert_eq!(date_time(u64::MAX), (date(2107, 12, 31), 23 << 11 | 59 << 5 | 29));
    }

    #[test]
    fn fat_holds_every_cluster() {
        for (fat_type, total, sectors_per_cluster) in [
            (FatType::Fat16, 131_072, 4),
            (FatType::Fat32, 262_144, 1),
            (FatType::Fat32, 1_048_576, 8),
            (FatType::Fat16, 8192, 1),
        ] {
            let geometry = Geometry::new(fat_type, total, sectors_per_cluster).unwrap();
            assert!((geometry.clusters + 2) * fat_type.entry_bytes() <= geometry.fat * SECTOR);
            assert!(geometry.data() + geometry.clusters * sectors_per_cluster <= total);
            assert_eq!(geometry.data() % sectors_per_cluster.max(8), 0);
        }
        assert_eq!(Geometry::new(FatType::Fat32, 16, 1), None);
    }
}
