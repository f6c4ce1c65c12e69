//! Block devices as sysfs shows them: whole disks, their partitions, sizes and numbers.
#![expect(unsafe_code, reason = "a partition table is read again by ioctl")]

use crate::refused::{At, Refused};
use bramble_api::layout::SECTOR;
use std::fs::File;
use std::path::{Path, PathBuf};

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// The kernel's name: `vda`, `mmcblk0p2`.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Major and minor number.
    pub number: (u32, u32),
}

impl Device {
    /// Its node.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    fn at(directory: &Path) -> Option<Device> {
        let read = |name: &str| std::fs::read_to_string(directory.join(name)).ok();
        // sysfs counts 512-byte sectors whatever the disk's own are.
        let size = read("size")?.trim().parse::<u64>().ok()?.checked_mul(SECTOR)?;
        let number = read("dev")?;
        let (major, minor) = number.trim().split_once(':')?;
        Some(Device {
            name: directory.file_name()?.to_str()?.to_string(),
            size,
            number: (major.parse().ok()?, minor.parse().ok()?),
        })
    }
}

/// The whole disks that hang on hardware and hold a medium, by name. Loop, RAM and mapped devices have no `device`.
pub fn disks(sysfs: &Path) -> Vec<Device> {
    let Ok(entries) = std::fs::read_dir(sysfs.join("block")) else {
        return Vec::new();
    };
    let mut disks: Vec<Device> = entries
        .flatten()
        .filter(|entry| entry.path().join("device").exists())
        .filter_map(|entry| Device::at(&entry.path()))
        .filter(|device| device.size > 0)
        .collect();
    disks.sort_by(|a, b| a.name.cmp(&b.name));
    disks
}

/// The partition of `disk` that starts at byte `start` and has `size` bytes, as the kernel sees it now.
///
/// By place, not by number: what matters is that the kernel's idea and the table agree.
pub fn partition(sysfs: &Path, disk: &Device, start: u64, size: u64) -> Option<Device> {
    let directory = sysfs.join("block").join(&disk.name);
    std::fs::read_dir(directory).ok()?.flatten().find_map(|entry| {
        let path = entry.path();
        let first: u64 = std::fs::read_to_string(path.join("start")).ok()?.trim().parse().ok()?;
        let device = Device::at(&path)?;
        (path.join("partition").exists() && first.checked_mul(SECTOR)? == start && device.size == size)
            .then_some(device)
    })
}

/// Makes the kernel read the partition table of a disk again (`BLKRRPART` of linux/fs.h).
pub fn reread_table(disk: &File, path: &Path) -> Result<(), Refused> {
    use rustix::ioctl::{NoArg, opcode};
    // SAFETY: BLKRRPART takes no argument.
    let answer = unsafe { rustix::ioctl::ioctl(disk, NoArg::<{ opcode::none(0x12, 95) }>::new()) };
    answer.at("read the partition table again of", path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sysfs() -> PathBuf {
        let root = std::env::temp_dir().join(format!("bramble-sysfs-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&root);
        let put = |path: &str, text: &str| {
            let path = root.join("block").join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        put("vda/size", "16777216\n");
        put("vda/dev", "254:0\n");
        put("vda/device/x", "");
        put("vda/vda2/start", "1056768\n");
        put("vda/vda2/size", "4194304\n");
        put("vda/vda2/dev", "254:2\n");
        put("vda/vda2/partition", "2\n");
        put("vda/queue/size", "1\n");
        put("loop0/size", "8\n");
        put("loop0/dev", "7:0\n");
        put("sr0/size", "0\n");
        put("sr0/dev", "11:0\n");
        put("sr0/device/x", "");
        root
    }

    #[test]
    fn disks_with_a_medium_and_their_partitions_are_found() {
        let sysfs = sysfs();
        let disks = disks(&sysfs);
        assert_eq!(disks, [Device { name: "vda".into(), size: 8 << 30, number: (254, 0) }]);
        let root = partition(&sysfs, &disks[0], 1056768 * 512, 2 << 30).unwrap();
        assert_eq!((root.path(), root.number), ("/dev/vda2".into(), (254, 2)));
        assert_eq!(partition(&sysfs, &disks[0], 1056768 * 512, 1 << 30), None);
        std::fs::remove_dir_all(sysfs).unwrap();
    }
}
