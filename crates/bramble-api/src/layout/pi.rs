//! The layout of Raspberry Pis: an MBR, because the ROM of a Pi 3 reads nothing else.
//!
//! | number | what | type |
//! |---|---|---|
//! | 1 | BOOTSEL: first stage, `autoboot.txt`, rescue | 0x0c, FAT32 |
//! | 2, 3 | BOOT-A, BOOT-B: firmware, device trees, kernel, initramfs of a slot | 0x0c, FAT32 |
//! | 4 | extended | 0x0f |
//! | 5, 6 | root A, root B | 0x83 |
//! | 7 | identity | 0xda |
//! | 8 | data | 0x83 |
//!
//! See `docs/adr/0008-pi-layout.md`.

use super::*;

/// Size of BOOTSEL.
pub const BOOT_SELECT_SIZE: u64 = 128 << 20;
/// Size of BOOT-A and of BOOT-B.
pub const BOOT_SIZE: u64 = 128 << 20;
/// Sectors of a cluster of BOOTSEL, BOOT-A and BOOT-B: the one shape that no firmware of any model misreads. The type
/// of a FAT follows from the number of clusters alone, and with 128 MiB four sectors would make it a FAT16.
pub const SECTORS_PER_CLUSTER: u8 = 1;
/// Name of the file that says which slot to start, in the root directory of BOOTSEL.
pub const AUTOBOOT: &str = "autoboot.txt";
/// Where the one sector of [`AUTOBOOT`] lies in BOOTSEL: a commit writes it, and nothing else of the partition is ever
/// written. It has [`ALIGNMENT`] to itself, for a card programs more than a sector at once.
pub const AUTOBOOT_OFFSET: u64 = BOOT_SELECT_SIZE - ALIGNMENT;
/// Smallest disk the layout fits on, in bytes.
pub const DISK_MIN_SIZE: u64 = DATA_START + DATA_MIN_SIZE + ALIGNMENT;

const BOOT_A_START: u64 = ALIGNMENT + BOOT_SELECT_SIZE;
const BOOT_B_START: u64 = BOOT_A_START + BOOT_SIZE;
const EXTENDED_START: u64 = BOOT_B_START + BOOT_SIZE;
// Before each logical partition there is room for the sector that describes it.
const ROOT_A_START: u64 = EXTENDED_START + ALIGNMENT;
const ROOT_B_START: u64 = ROOT_A_START + ROOT_SIZE + ALIGNMENT;
const IDENTITY_START: u64 = ROOT_B_START + ROOT_SIZE + ALIGNMENT;
const DATA_START: u64 = IDENTITY_START + IDENTITY_SIZE + ALIGNMENT;

/// At least so much lies behind data: other systems (RAID, ZFS, the second copy of a GPT) keep words at a disk's end that
/// must not lie in it.
const TAIL: u64 = 1 << 20;

/// An MBR counts sectors in 32 bits; what lies beyond is not used.
const DISK_MAX_SIZE: u64 = (1 << 32) * SECTOR;

const FAT32: Code = Code::Mbr(0x0c);
const EXTENDED: Code = Code::Mbr(0x0f);
const LINUX: Code = Code::Mbr(0x83);
const NO_FILE_SYSTEM: Code = Code::Mbr(0xda);

/// The layout of a Pi's disk of `disk` bytes, by number. Data takes what is left up to 2 TiB, but for the last MiB.
///
/// # Errors
/// The disk is too small.
pub fn pi(disk: u64) -> Result<[Partition; 8], DiskTooSmall> {
    if disk < DISK_MIN_SIZE {
        return Err(DiskTooSmall { disk, needed: DISK_MIN_SIZE });
    }
    let end = (disk.min(DISK_MAX_SIZE) - TAIL) / ALIGNMENT * ALIGNMENT;
    let partition =
        |number, kind, name, code, start, size| Partition { kind, name, number, code, start, size };
    Ok([
        partition(1, Kind::BootSelect, "bramble-boot-select", FAT32, ALIGNMENT, BOOT_SELECT_SIZE),
        partition(2, Kind::Boot(Slot::A), "bramble-boot-a", FAT32, BOOT_A_START, BOOT_SIZE),
        partition(3, Kind::Boot(Slot::B), "bramble-boot-b", FAT32, BOOT_B_START, BOOT_SIZE),
        partition(4, Kind::Extended, "bramble-extended", EXTENDED, EXTENDED_START, end - EXTENDED_START),
        partition(5, Kind::Root(Slot::A), "bramble-root-a", LINUX, ROOT_A_START, ROOT_SIZE),
        partition(6, Kind::Root(Slot::B), "bramble-root-b", LINUX, ROOT_B_START, ROOT_SIZE),
        partition(7, Kind::Identity, "bramble-identity", NO_FILE_SYSTEM, IDENTITY_START, IDENTITY_SIZE),
        partition(8, Kind::Data, "bramble-data", LINUX, DATA_START, end - DATA_START),
    ])
}

/// The number of a slot's BOOT partition: what `boot_partition=` says, and what firmware reports in the device tree.
pub fn boot_partition(slot: Slot) -> u8 {
    match slot {
        Slot::A => 2,
        Slot::B => 3,
    }
}

/// The slot whose BOOT partition has this number.
pub fn slot_of(boot_partition: u32) -> Option<Slot> {
    [Slot::A, Slot::B].into_iter().find(|slot| u32::from(self::boot_partition(*slot)) == boot_partition)
}

/// [`AUTOBOOT`] that starts `slot`, and the other one when a trial was asked for. Both texts have the same length, less
/// than a sector, so that the change from one to the other is one sector's write.
///
/// Format: raspberrypi.com, "config.txt", section `autoboot.txt`; at most 512 bytes.
pub fn autoboot(slot: Slot) -> String {
    let (committed, other) = (boot_partition(slot), boot_partition(slot.other()));
    format!("[all]\ntryboot_a_b=1\nboot_partition={committed}\n[tryboot]\nboot_partition={other}\n")
}

/// The sector at [`AUTOBOOT_OFFSET`] that starts `slot`: [`autoboot`], and zeros.
pub fn autoboot_sector(slot: Slot) -> [u8; SECTOR as usize] {
    let mut sector = [0; SECTOR as usize];
    let text = autoboot(slot);
    sector[..text.len()].copy_from_slice(text.as_bytes());
    sector
}

/// The slot that a sector of [`AUTOBOOT`] starts; `None` when it is not one that we wrote, whatever firmware would make
/// of it.
pub fn autoboot_slot(sector: &[u8]) -> Option<Slot> {
    [Slot::A, Slot::B].into_iter().find(|slot| autoboot_sector(*slot) == *sector)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_aligned_apart_and_have_room_for_their_links() {
        for disk in [DISK_MIN_SIZE, 8 << 30, 7_948_206_080, 32_000_000_512, 4 << 40] {
            let table = pi(disk).unwrap();
            let mut end = SECTOR;
            for (index, p) in table.iter().enumerate() {
                assert_eq!(usize::from(p.number), index + 1);
                assert_eq!((p.start % ALIGNMENT, p.size % ALIGNMENT), (0, 0), "{}", p.name);
                if p.kind == Kind::Extended {
                    assert_eq!(p.start + p.size, table[7].start + table[7].size, "data ends it");
                    end = p.start;
                    continue;
                }
                let gap = if p.number > 4 { ALIGNMENT } else { 0 };
                assert!(p.start >= end + gap, "{}", p.name);
                end = p.start + p.size;
            }
            assert!(end < disk && end <= DISK_MAX_SIZE && table[7].size >= DATA_MIN_SIZE);
        }
        let small = pi(DISK_MIN_SIZE - 1).unwrap_err();
        assert_eq!(small.needed, DISK_MIN_SIZE);
        // What is sold as 8 GB.
        assert!(pi(7_700_000_000).is_ok());
    }

    #[test]
    fn a_commit_changes_one_sector_and_is_read_back() {
        let [a, b] = [Slot::A, Slot::B].map(autoboot);
        assert_eq!(a.len(), b.len());
        assert!(a.len() < SECTOR as usize);
        assert_ne!(a, b);
        for slot in [Slot::A, Slot::B] {
            assert_eq!(autoboot_slot(&autoboot_sector(slot)), Some(slot));
            assert_eq!(slot_of(boot_partition(slot).into()), Some(slot));
        }
        let mut torn = autoboot_sector(Slot::A);
        torn[100] = 1;
        assert_eq!(autoboot_slot(&torn), None);
        assert_eq!(autoboot_slot(&[]), None);
        assert_eq!((slot_of(0), slot_of(1), slot_of(4)), (None, None, None));
    }
}
