//! The layout of machines with UEFI firmware: a GPT (UEFI specification 2.10, chapter 5) with ESP, root A, root B,
//! identity and data. See `docs/adr/0002-disk-layout.md`.

use super::*;
use crate::names::Arch;

/// Size of the EFI system partition: systemd-boot, two UKIs of fixed size, a rescue UKI to come.
pub const ESP_SIZE: u64 = 512 << 20;
/// Space kept for one UKI on the ESP; a UKI is padded with zeros to this size, so that it can be overwritten in place.
pub const UKI_SIZE: u64 = 112 << 20;

/// Bytes of a slot's UKI file, padding counted, at most [`UKI_SIZE`]. Firmware reads the whole file at every start, so
/// the room for later releases costs time: about two and a half times of what a release has today.
pub const fn uki_size(arch: Arch) -> u64 {
    match arch {
        // 18 MB today; the kernel is compressed.
        Arch::Amd64 => 48 << 20,
        // 56 MB today; the kernel is not.
        Arch::Arm64 => UKI_SIZE,
    }
}
/// GPT partition type of the EFI system partition.
pub const TYPE_ESP: [u8; 16] =
    guid(0xC12A7328, 0xF81F, 0x11D2, [0xBA, 0x4B, 0x00, 0xA0, 0xC9, 0x3E, 0xC9, 0x3B]);
/// GPT partition type of a Bramble root slot (own type: systemd's generators must not know it).
pub const TYPE_ROOT: [u8; 16] =
    guid(0x6B7E1F3A, 0x42C5, 0x4D0E, [0x9A, 0x51, 0xB2, 0xA8, 0xB1, 0xE0, 0x00, 0x01]);
/// GPT partition type of the identity partition.
pub const TYPE_IDENTITY: [u8; 16] =
    guid(0x6B7E1F3A, 0x42C5, 0x4D0E, [0x9A, 0x51, 0xB2, 0xA8, 0xB1, 0xE0, 0x00, 0x02]);
/// GPT partition type of the data partition.
pub const TYPE_DATA: [u8; 16] =
    guid(0x6B7E1F3A, 0x42C5, 0x4D0E, [0x9A, 0x51, 0xB2, 0xA8, 0xB1, 0xE0, 0x00, 0x03]);

/// A GUID as it lies on disk: the first three fields little-endian (UEFI specification, appendix A).
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> [u8; 16] {
    let a = a.to_le_bytes();
    let b = b.to_le_bytes();
    let c = c.to_le_bytes();
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// Smallest disk the layout fits on, in bytes.
pub const DISK_MIN_SIZE: u64 =
    ALIGNMENT + ESP_SIZE + 2 * ROOT_SIZE + IDENTITY_SIZE + DATA_MIN_SIZE + ALIGNMENT;

/// The UEFI layout for a disk of `disk` bytes. Data takes what is left, ending on the alignment before the backup GPT.
pub fn uefi(disk: u64) -> Result<[Partition; 5], DiskTooSmall> {
    if disk < DISK_MIN_SIZE {
        return Err(DiskTooSmall { disk, needed: DISK_MIN_SIZE });
    }
    let esp = ALIGNMENT;
    let a = esp + ESP_SIZE;
    let b = a + ROOT_SIZE;
    let identity = b + ROOT_SIZE;
    let data = identity + IDENTITY_SIZE;
    // The backup GPT takes the last 33 sectors.
    let end = (disk - 33 * SECTOR) / ALIGNMENT * ALIGNMENT;
    let partition = |number, kind, name, guid, start, size| Partition {
        kind,
        name,
        number,
        code: Code::Gpt(guid),
        start,
        size,
    };
    Ok([
        partition(1, Kind::Esp, "bramble-esp", TYPE_ESP, esp, ESP_SIZE),
        partition(2, Kind::Root(Slot::A), "bramble-root-a", TYPE_ROOT, a, ROOT_SIZE),
        partition(3, Kind::Root(Slot::B), "bramble-root-b", TYPE_ROOT, b, ROOT_SIZE),
        partition(4, Kind::Identity, "bramble-identity", TYPE_IDENTITY, identity, IDENTITY_SIZE),
        partition(5, Kind::Data, "bramble-data", TYPE_DATA, data, end - data),
    ])
}

/// Path of a slot's UKI on the ESP, below the root, with `/`.
pub fn uki_path(slot: Slot) -> &'static str {
    match slot {
        Slot::A => "EFI/Linux/slot-a.efi",
        Slot::B => "EFI/Linux/slot-b.efi",
    }
}

/// Path of the boot loader on the ESP that firmware starts without any variable.
pub fn loader_path(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "EFI/BOOT/BOOTX64.EFI",
        Arch::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
    }
}

/// Path of systemd-boot's configuration on the ESP.
pub const LOADER_CONF: &str = "loader/loader.conf";

/// The configuration that starts `slot`: always one sector, so that it changes whole or not at all.
///
/// No menu and no editor (who sits at the keyboard must not change the command line), and no entry for the
/// firmware's own menu. Line ends fill the rest: systemd-boot passes over empty lines.
pub fn loader_conf(slot: Slot) -> [u8; SECTOR as usize] {
    let entry = uki_path(slot).rsplit('/').next().unwrap_or_default();
    let text = format!("default {entry}\ntimeout 0\neditor no\nauto-firmware no\n");
    let mut sector = [b'\n'; SECTOR as usize];
    sector[..text.len()].copy_from_slice(text.as_bytes());
    sector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_one_sector_of_text() {
        let (a, b) = (loader_conf(Slot::A), loader_conf(Slot::B));
        assert!(a.starts_with(b"default slot-a.efi\ntimeout 0\n") && b.starts_with(b"default slot-b.efi\n"));
        assert!(a.iter().all(|c| *c == b'\n' || (b' '..=b'~').contains(c)));
    }

    #[test]
    fn partitions_are_aligned_and_do_not_overlap() {
        for disk in [DISK_MIN_SIZE, 32_000_000_000, 8_589_934_592, 8_589_934_592 + 512] {
            let table = uefi(disk).unwrap();
            let mut end = 0;
            for p in table {
                assert_eq!(p.start % ALIGNMENT, 0, "{}", p.name);
                assert_eq!(p.size % ALIGNMENT, 0, "{}", p.name);
                assert!(p.start >= end, "{}", p.name);
                end = p.start + p.size;
            }
            assert!(end + 33 * SECTOR <= disk);
        }
        assert!(uefi(DISK_MIN_SIZE - 1).is_err());
    }
}
