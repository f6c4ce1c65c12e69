//! dm-verity by ioctl: the root as a device whose every block is checked against the manifest's root hash.
//!
//! Formats: linux/dm-ioctl.h; the kernel's Documentation/admin-guide/device-mapper/verity.rst.
#![expect(unsafe_code, reason = "device-mapper is driven by ioctl")]

use crate::refused::{At, Refused};
use bramble_api::layout::{BLOCK, SECTOR};
use bramble_api::manifest::Manifest;
use rustix::fs::{FileType, Mode};
use std::fs::File;
use std::io;

/// Name of the device-mapper device of the root, and of its node below /dev/mapper.
pub const NAME: &str = "bramble-root";
/// Node of the root device.
pub const NODE: &str = "/dev/mapper/bramble-root";
const CONTROL: &str = "/dev/mapper/control";

/// `struct dm_ioctl` (312 bytes) and room for one target with its table line.
const HEADER: usize = 312;
const TARGET: usize = 40;
const BUFFER: usize = 4096;

const DM_DEV_CREATE: u8 = 3;
const DM_DEV_SUSPEND: u8 = 6;
const DM_TABLE_LOAD: u8 = 9;
const DM_READONLY_FLAG: u32 = 1;

/// The table line of a manifest's root on the block device `major:minor`, which holds the EROFS image and directly
/// after it the tree (without superblock).
///
/// `panic_on_corruption`: the default answers EIO and leaves a machine that is half dead; a panic restarts it.
pub fn table(manifest: &Manifest, device: (u32, u32)) -> String {
    let (major, minor) = device;
    let blocks = manifest.root_size / BLOCK;
    let salt = if manifest.verity_salt.is_empty() { "-" } else { &manifest.verity_salt };
    format!(
        "1 {major}:{minor} {major}:{minor} {BLOCK} {BLOCK} {blocks} {blocks} sha256 {} {salt} 1 panic_on_corruption",
        manifest.verity_root
    )
}

/// Makes [`NODE`] from the slot on `device`.
pub fn activate(manifest: &Manifest, device: (u32, u32)) -> Result<(), Refused> {
    make_control_node()?;
    let control = File::options().read(true).write(true).open(CONTROL).at("open", CONTROL)?;
    let created = ioctl::<DM_DEV_CREATE>(&control, &request(0, &[])).at("create the device", NODE)?;
    let target = target(manifest.root_size / SECTOR, "verity", &table(manifest, device));
    ioctl::<DM_TABLE_LOAD>(&control, &request(DM_READONLY_FLAG, &target))
        .at("load the verity table of", NODE)?;
    ioctl::<DM_DEV_SUSPEND>(&control, &request(DM_READONLY_FLAG, &[])).at("start the device", NODE)?;
    make_node(NODE, FileType::BlockDevice, decode(created))
}

/// devtmpfs makes the control node where dm-mod is loaded; where it did not, /proc/misc says its number.
fn make_control_node() -> Result<(), Refused> {
    if std::path::Path::new(CONTROL).exists() {
        return Ok(());
    }
    let misc = std::fs::read_to_string("/proc/misc").at("read", "/proc/misc")?;
    let minor = misc_minor(&misc, "device-mapper")
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the kernel has no device-mapper"))
        .at("find", CONTROL)?;
    make_node(CONTROL, FileType::CharacterDevice, (10, minor))
}

fn misc_minor(misc: &str, name: &str) -> Option<u32> {
    misc.lines().find_map(|line| {
        let (minor, found) = line.trim().split_once(' ')?;
        (found.trim() == name).then(|| minor.parse().ok())?
    })
}

fn make_node(path: &str, kind: FileType, (major, minor): (u32, u32)) -> Result<(), Refused> {
    std::fs::create_dir_all("/dev/mapper").at("make", "/dev/mapper")?;
    let mode = Mode::RUSR | Mode::WUSR;
    match rustix::fs::mknodat(rustix::fs::CWD, path, kind, mode, rustix::fs::makedev(major, minor)) {
        Err(rustix::io::Errno::EXIST) => Ok(()),
        answer => answer.at("make the node", path),
    }
}

/// A `struct dm_ioctl` for [`NAME`] with `payload` behind it.
fn request(flags: u32, payload: &[u8]) -> [u8; BUFFER] {
    let mut buffer = [0; BUFFER];
    let mut word = |at: usize, value: u32| buffer[at..at + 4].copy_from_slice(&value.to_ne_bytes());
    word(0, 4); // version 4.0.0: the kernel accepts every minor version up to its own
    word(12, BUFFER as u32); // data_size
    word(16, HEADER as u32); // data_start
    word(20, u32::from(!payload.is_empty())); // target_count
    word(28, flags);
    buffer[48..48 + NAME.len()].copy_from_slice(NAME.as_bytes());
    buffer[HEADER..HEADER + payload.len()].copy_from_slice(payload);
    buffer
}

/// A `struct dm_target_spec` from sector 0, with its parameters behind it.
fn target(sectors: u64, kind: &str, parameters: &str) -> Vec<u8> {
    let mut spec = vec![0; TARGET];
    spec[8..16].copy_from_slice(&sectors.to_ne_bytes());
    spec[24..24 + kind.len()].copy_from_slice(kind.as_bytes());
    spec.extend(parameters.as_bytes());
    // Closed by a NUL; padded to eight bytes.
    spec.resize((spec.len() + 8) / 8 * 8, 0);
    spec
}

/// Runs one device-mapper command; gives the `dev` field of the answer.
fn ioctl<const NUMBER: u8>(control: &File, request: &[u8; BUFFER]) -> rustix::io::Result<u64> {
    use rustix::ioctl::{Opcode, Updater, opcode};
    const fn code(number: u8) -> Opcode {
        opcode::read_write::<[u8; HEADER]>(0xFD, number)
    }
    // Aligned as the kernel's struct is.
    #[repr(C, align(8))]
    struct Aligned([u8; BUFFER]);
    let mut buffer = Aligned(*request);
    // SAFETY: the opcodes are device-mapper's; each reads and writes a dm_ioctl and at most `data_size` bytes
    // altogether, which `request` sets to the buffer's length.
    unsafe {
        match NUMBER {
            DM_DEV_CREATE => {
                rustix::ioctl::ioctl(control, Updater::<{ code(DM_DEV_CREATE) }, _>::new(&mut buffer))
            }
            DM_TABLE_LOAD => {
                rustix::ioctl::ioctl(control, Updater::<{ code(DM_TABLE_LOAD) }, _>::new(&mut buffer))
            }
            _ => rustix::ioctl::ioctl(control, Updater::<{ code(DM_DEV_SUSPEND) }, _>::new(&mut buffer)),
        }?;
    }
    let mut device = [0; 8];
    device.copy_from_slice(&buffer.0[40..48]);
    Ok(u64::from_ne_bytes(device))
}

/// The kernel's `huge_encode_dev`: twelve bits of major above eight of minor, the minor's rest on top.
fn decode(device: u64) -> (u32, u32) {
    (((device & 0xF_FF00) >> 8) as u32, ((device & 0xFF) | ((device >> 12) & 0xF_FF00)) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_where_data_and_tree_lie() {
        let mut manifest = crate::fixture::manifest();
        manifest.root_size = 8 << 20;
        let root = "ab".repeat(32);
        let salt = "cd".repeat(16);
        let expected =
            format!("1 254:2 254:2 4096 4096 2048 2048 sha256 {root} {salt} 1 panic_on_corruption");
        assert_eq!(table(&manifest, (254, 2)), expected);
        manifest.verity_salt = String::new();
        assert_eq!(table(&manifest, (254, 2)), expected.replace(&salt, "-"));
    }

    #[test]
    fn requests_are_laid_out_as_in_dm_ioctl_h() {
        let target = target(2048, "verity", "1 2 3");
        assert_eq!((target.len(), &target[24..31], &target[40..46]), (48, &b"verity\0"[..], &b"1 2 3\0"[..]));
        let request = request(DM_READONLY_FLAG, &target);
        assert_eq!(request[20], 1);
        assert_eq!(request[28], 1);
        assert_eq!(&request[48..61], b"bramble-root\0");
        assert_eq!(&request[HEADER + 24..HEADER + 30], b"verity");
    }

    #[test]
    fn numbers_are_read_back() {
        assert_eq!(decode(0xFD00), (253, 0));
        assert_eq!(decode(0x1235_FD67), (0x5FD, 0x1_2367));
        assert_eq!(misc_minor(" 61 network\n236 device-mapper\n", "device-mapper"), Some(236));
        assert_eq!(misc_minor("236 device-mapper-x\n", "device-mapper"), None);
    }
}
