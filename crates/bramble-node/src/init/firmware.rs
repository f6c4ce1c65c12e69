//! What a Raspberry Pi's firmware left in the device tree: which partition it started, from which kind of medium, and
//! whether that was a trial.
//!
//! Format: raspberrypi.com's documentation of the device tree, section "Firmware parameters", `/chosen/bootloader`; each
//! property is a big-endian number of 32 bits. Boot loaders of a Pi 5 before 2024-05-13 say 0 for the partition.

use bramble_api::layout::pi;
use bramble_api::names::Slot;
use std::path::Path;

/// Where the kernel shows the node.
pub const NODE: &str = "/proc/device-tree/chosen/bootloader";

/// The partition with the rescue.
const BOOT_SELECT: u32 = 1;

/// What the firmware says about this boot; nothing where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Booted {
    /// Number of the partition that was started; 0 is "the first that starts" and says nothing.
    partition: Option<u32>,
    /// A trial was asked for.
    tryboot: bool,
    /// Kind of medium, as in `BOOT_ORDER`.
    mode: Option<u32>,
}

/// Reads the node.
pub fn read(node: &Path) -> Booted {
    let number = |name: &str| {
        let bytes = std::fs::read(node.join(name)).ok()?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    };
    Booted {
        partition: number("partition"),
        tryboot: number("tryboot").is_some_and(|n| n != 0),
        mode: number("boot-mode"),
    }
}

impl Booted {
    /// The slot whose partition was started.
    pub fn slot(&self) -> Option<Slot> {
        self.partition.and_then(pi::slot_of)
    }

    /// Firmware found no slot to start, or was told not to.
    pub fn rescue(&self) -> bool {
        self.partition == Some(BOOT_SELECT)
    }

    /// The slot that was started, when `committed` is the one that `autoboot.txt` names.
    pub fn follows(&self, committed: Slot) -> Slot {
        if self.tryboot { committed.other() } else { committed }
    }

    /// Whether the disk of this name is of the kind that was started from; also when the kind is not known.
    pub fn from(&self, disk: &str) -> bool {
        // Numbers of `BOOT_ORDER`; network boot has no disk.
        match self.mode {
            Some(1) => disk.starts_with("mmcblk"),
            Some(4 | 5) => disk.starts_with("sd"),
            Some(6) => disk.starts_with("nvme"),
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_names_the_slot() {
        let node = std::env::temp_dir().join(format!("bramble-bootloader-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&node);
        assert_eq!(read(&node), Booted::default());
        std::fs::create_dir_all(&node).unwrap();
        std::fs::write(node.join("partition"), [0, 0, 0, 3]).unwrap();
        std::fs::write(node.join("tryboot"), [0, 0, 0, 1]).unwrap();
        std::fs::write(node.join("boot-mode"), [0, 0, 0, 6]).unwrap();
        let booted = read(&node);
        assert_eq!((booted.slot(), booted.rescue()), (Some(Slot::B), false));
        assert!(booted.from("nvme0n1") && !booted.from("mmcblk0"));
        std::fs::write(node.join("partition"), [0, 0, 0, 1]).unwrap();
        assert!(read(&node).rescue());
        // Too short to be a number.
        std::fs::write(node.join("partition"), [2]).unwrap();
        assert_eq!(read(&node).slot(), None);
        std::fs::remove_dir_all(&node).unwrap();
    }

    #[test]
    fn without_a_number_the_slot_follows_from_what_was_committed() {
        let old = Booted { partition: Some(0), ..Booted::default() };
        assert_eq!((old.slot(), old.rescue()), (None, false));
        assert_eq!(old.follows(Slot::B), Slot::B);
        assert_eq!(Booted { tryboot: true, ..old }.follows(Slot::B), Slot::A);
        assert!(old.from("vda"));
    }
}
