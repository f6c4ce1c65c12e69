//! The EFI system partition: systemd-boot, its configuration, and one unified kernel image a slot.
//!
//! Every file is one run of sectors whose place does not change over the life of the disk, so that an update writes
//! an image in place and a commit writes one sector, and neither touches a FAT or a directory.

use bramble_api::layout::{ALIGNMENT, ESP_SIZE, loader_path, uki_path, uki_size};
use bramble_api::names::{Arch, Slot};
use bramble_fat::{Entry, FatType, Options, PlanError, Volume};

pub use bramble_api::layout::{LOADER_CONF, loader_conf};

/// What lies on the partition of a new disk.
#[derive(Clone, Copy, Debug)]
pub struct Esp<'a> {
    /// Architecture, for the loader's path.
    pub arch: Arch,
    /// systemd-boot.
    pub loader: &'a [u8],
    /// The unified kernel image of slot A, without padding.
    pub uki: &'a [u8],
    /// [`loader_conf`] of slot A.
    pub conf: &'a [u8],
    /// Serial number of the FAT.
    pub serial: u32,
    /// Time of all files, seconds since the epoch.
    pub time: u64,
}

impl<'a> Esp<'a> {
    /// Plans the volume: [`ESP_SIZE`] bytes of FAT32. Slot B is there and holds nothing but zeros, which systemd-boot
    /// passes over because it is no PE image.
    ///
    /// # Errors
    /// What does not fit.
    pub fn plan(&self) -> Result<Volume<'a>, PlanError> {
        let options = Options {
            size: ESP_SIZE,
            // 4 KiB: the largest that keeps 512 MiB a FAT32 with room to spare, and a flash page.
            sectors_per_cluster: 8,
            serial: self.serial,
            label: "BRAMBLE".to_string(),
            time: self.time,
            hidden_sectors: (ALIGNMENT / bramble_api::layout::SECTOR) as u32,
            ..Options::new(FatType::Fat32)
        };
        let entries = [
            Entry::file(loader_path(self.arch), self.loader),
            Entry::file(uki_path(Slot::A), self.uki).padded_to(uki_size(self.arch)),
            Entry::file(uki_path(Slot::B), &[]).padded_to(uki_size(self.arch)),
            // A cut while this sector is written may spoil what a flash card programs with it.
            Entry::file(LOADER_CONF, self.conf).alone_in(ALIGNMENT),
        ];
        Volume::plan(&entries, &options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bramble_fat::Reader;
    use std::os::unix::fs::FileExt;

    #[test]
    fn firmware_and_loader_find_their_files() {
        let conf = loader_conf(Slot::A);
        let esp = Esp {
            arch: Arch::Arm64,
            loader: b"MZloader",
            uki: b"MZuki",
            conf: &conf,
            serial: 7,
            time: 1 << 30,
        };
        let volume = esp.plan().unwrap();
        let hot = volume.extent(LOADER_CONF).unwrap();
        assert_eq!((hot.length, hot.offset % ALIGNMENT), (512, 0));
        let room = uki_size(Arch::Arm64);
        let b = volume.extent(uki_path(Slot::B)).unwrap();
        assert_eq!(b.length, room);
        for (path, other) in volume.extents() {
            let apart = other.offset + other.length <= hot.offset || other.offset >= hot.offset + ALIGNMENT;
            assert!(path == LOADER_CONF || apart, "{path} lies beside the hot sector");
        }
        // The volume is mostly zeros: a sparse file holds it.
        let file = tempfile::tempfile().unwrap();
        file.set_len(ESP_SIZE).unwrap();
        for segment in volume.segments() {
            if let bramble_fat::Content::Bytes(content) = segment.content {
                file.write_all_at(content, segment.offset).unwrap();
            }
        }
        let mut reader = Reader::open(file).unwrap();
        assert_eq!(reader.read("EFI/BOOT/BOOTAA64.EFI", 1 << 20).unwrap(), b"MZloader");
        assert_eq!(reader.read(LOADER_CONF, 1 << 20).unwrap(), conf);
        let uki = reader.read(uki_path(Slot::A), room).unwrap();
        assert!(uki.starts_with(b"MZuki\0") && uki.len() as u64 == room);
        let empty = reader.read(uki_path(Slot::B), room).unwrap();
        assert!(crate::verity::is_zero(&empty) && empty.len() as u64 == room);
        assert!(reader.read("loader/random-seed", 1 << 20).is_err());
    }
}
