//! Board models, and what their boot loaders of each date can do.

use std::fmt;
use std::str::FromStr;

/// A calendar day: the build date of a boot loader or of `start*.elf`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Date {
    year: u16,
    month: u8,
    day: u8,
}

impl Date {
    /// A day; nobody checks that the month has it.
    pub const fn new(year: u16, month: u8, day: u8) -> Self {
        Self { year, month, day }
    }

    /// Seconds from 1970-01-01 to this day's begin, UTC; days after Howard Hinnant, `days_from_civil`.
    pub fn unix(self) -> u64 {
        let (month, day) = (u64::from(self.month), u64::from(self.day));
        let year = u64::from(self.year) - u64::from(month <= 2);
        let shifted = if month > 2 { month - 3 } else { month + 9 };
        let day_of_year = (153 * shifted + 2) / 5 + day.saturating_sub(1);
        let day_of_era = (year % 400) * 365 + (year % 400) / 4 - (year % 400) / 100 + day_of_year;
        ((year / 400) * 146_097 + day_of_era).saturating_sub(719_468) * 86_400
    }
}

impl fmt::Display for Date {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}-{:02}", self.year, self.month, self.day)
    }
}

/// A text that is no day such as `2025-08-20`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a day such as 2025-08-20")]
pub struct BadDate {
    /// What was given.
    pub text: String,
}

impl FromStr for Date {
    type Err = BadDate;

    fn from_str(text: &str) -> Result<Self, BadDate> {
        let bad = || BadDate { text: text.to_owned() };
        let mut parts = text.split('-');
        let mut next = |digits| parts.next().filter(|p| p.len() == digits)?.parse::<u16>().ok();
        let (year, month, day) = (next(4), next(2), next(2));
        match (year, month, day, parts.next()) {
            (Some(year @ 1970..), Some(month @ 1..=12), Some(day @ 1..=31), None) => {
                Ok(Self::new(year, month as u8, day as u8))
            }
            _ => Err(bad()),
        }
    }
}

/// Which program chooses the partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// Mask ROM, then `bootcode.bin` from the first FAT partition, then `start.elf`.
    Bootcode,
    /// Boot loader in an EEPROM, then `start4.elf` from the chosen partition.
    Eeprom2711,
    /// Boot loader in an EEPROM that starts the kernel itself.
    Eeprom2712,
}

/// A board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the boards'")]
pub enum Model {
    Pi3B,
    Pi3BPlus,
    Pi3APlus,
    Cm3,
    Cm3Plus,
    Zero2W,
    Pi4B,
    Pi400,
    Cm4,
    Cm4S,
    /// With the C0 or C1 stepping of the processor.
    Pi5,
    /// With the D0 stepping: 2 and 16 GB, and newer ones of 4 and 8 GB.
    Pi5D0,
    Pi500,
    Cm5,
    /// Without eMMC.
    Cm5Lite,
}

/// Everything that a model decides.
pub(super) struct Facts {
    pub(super) name: &'static str,
    pub(super) family: Family,
    /// Type field of the revision code ("Raspberry Pi revision codes", new-style codes), for `[board-type=]`.
    pub(super) board_type: u32,
    /// Model filters whose settings it sees ("Conditional filters", table of model filters).
    pub(super) filters: &'static [&'static str],
    /// Device trees by the names of the board maker's kernel, then of Linux itself.
    pub(super) tree: &'static [&'static str],
    pub(super) upstream_tree: &'static [&'static str],
}

impl Model {
    /// All models.
    pub const ALL: [Model; 15] = [
        Model::Pi3B,
        Model::Pi3BPlus,
        Model::Pi3APlus,
        Model::Cm3,
        Model::Cm3Plus,
        Model::Zero2W,
        Model::Pi4B,
        Model::Pi400,
        Model::Cm4,
        Model::Cm4S,
        Model::Pi5,
        Model::Pi5D0,
        Model::Pi500,
        Model::Cm5,
        Model::Cm5Lite,
    ];

    /// Which program chooses the partition.
    pub fn family(self) -> Family {
        self.facts().family
    }

    /// Names of device trees in the order in which the firmware looks for them.
    ///
    /// Source: "config.txt", `upstream_kernel`: with it the upstream name first, the board maker's as a fallback. The D0
    /// stepping: raspberrypi/firmware#2018 (`bcm2712-d-` upstream; one tree and the overlay `bcm2712d0` downstream). Old
    /// firmware did not know the upstream name of the CM4: firmware#1660.
    pub fn device_trees(self, upstream: bool) -> Vec<&'static str> {
        let facts = self.facts();
        let mut names = Vec::new();
        if upstream {
            names.extend(facts.upstream_tree);
        }
        names.extend(facts.tree.iter().filter(|name| !upstream || !facts.upstream_tree.contains(name)));
        names
    }

    pub(super) fn facts(self) -> Facts {
        use Family::{Bootcode, Eeprom2711, Eeprom2712};
        let of = |name, family, board_type, filters, tree, upstream_tree| Facts {
            name,
            family,
            board_type,
            filters,
            tree,
            upstream_tree,
        };
        match self {
            Model::Pi3B => of(
                "Raspberry Pi 3B",
                Bootcode,
                0x08,
                &["pi3"],
                &["bcm2710-rpi-3-b.dtb"],
                &["bcm2837-rpi-3-b.dtb"],
            ),
            Model::Pi3BPlus => of(
                "Raspberry Pi 3B+",
                Bootcode,
                0x0d,
                &["pi3", "pi3+"],
                &["bcm2710-rpi-3-b-plus.dtb"],
                &["bcm2837-rpi-3-b-plus.dtb"],
            ),
            Model::Pi3APlus => of(
                "Raspberry Pi 3A+",
                Bootcode,
                0x0e,
                &["pi3", "pi3+"],
                &["bcm2710-rpi-3-b-plus.dtb"],
                &["bcm2837-rpi-3-a-plus.dtb"],
            ),
            Model::Cm3 => of(
                "Compute Module 3",
                Bootcode,
                0x0a,
                &["pi3", "cm3"],
                &["bcm2710-rpi-cm3.dtb"],
                &["bcm2837-rpi-cm3-io3.dtb"],
            ),
            Model::Cm3Plus => of(
                "Compute Module 3+",
                Bootcode,
                0x10,
                &["pi3", "pi3+", "cm3", "cm3+"],
                &["bcm2710-rpi-cm3.dtb"],
                &["bcm2837-rpi-cm3-io3.dtb"],
            ),
            Model::Zero2W => of(
                "Raspberry Pi Zero 2 W",
                Bootcode,
                0x12,
                &["pi0", "pi0w", "pi02"],
                &["bcm2710-rpi-zero-2-w.dtb", "bcm2710-rpi-zero-2.dtb"],
                &["bcm2837-rpi-zero-2-w.dtb"],
            ),
            Model::Pi4B => of(
                "Raspberry Pi 4B",
                Eeprom2711,
                0x11,
                &["pi4"],
                &["bcm2711-rpi-4-b.dtb"],
                &["bcm2711-rpi-4-b.dtb"],
            ),
            Model::Pi400 => of(
                "Raspberry Pi 400",
                Eeprom2711,
                0x13,
                &["pi4", "pi400"],
                &["bcm2711-rpi-400.dtb"],
                &["bcm2711-rpi-400.dtb"],
            ),
            Model::Cm4 => of(
                "Compute Module 4",
                Eeprom2711,
                0x14,
                &["pi4", "cm4"],
                &["bcm2711-rpi-cm4.dtb"],
                &["bcm2711-rpi-cm4-io.dtb"],
            ),
            Model::Cm4S => {
                of("Compute Module 4S", Eeprom2711, 0x15, &["pi4", "cm4s"], &["bcm2711-rpi-cm4s.dtb"], &[])
            }
            Model::Pi5 => of(
                "Raspberry Pi 5",
                Eeprom2712,
                0x17,
                &["pi5"],
                &["bcm2712-rpi-5-b.dtb"],
                &["bcm2712-rpi-5-b.dtb"],
            ),
            Model::Pi5D0 => of(
                "Raspberry Pi 5 (D0)",
                Eeprom2712,
                0x17,
                &["pi5"],
                &["bcm2712-rpi-5-b.dtb"],
                &["bcm2712-d-rpi-5-b.dtb"],
            ),
            Model::Pi500 => {
                of("Raspberry Pi 500", Eeprom2712, 0x19, &["pi5", "pi500"], &["bcm2712-rpi-500.dtb"], &[])
            }
            Model::Cm5 => {
                of("Compute Module 5", Eeprom2712, 0x18, &["pi5", "cm5"], &["bcm2712-rpi-cm5-cm5io.dtb"], &[])
            }
            Model::Cm5Lite => of(
                "Compute Module 5 Lite",
                Eeprom2712,
                0x1a,
                &["pi5", "cm5"],
                &["bcm2712-rpi-cm5l-cm5io.dtb"],
                &[],
            ),
        }
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.facts().name)
    }
}

/// What the disk is connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Medium {
    /// A card in the board's slot.
    #[default]
    Sd,
    /// Flash soldered to the module.
    Emmc,
    /// A USB mass storage device.
    Usb,
    /// An NVMe disk.
    Nvme,
}

/// Settings in the EEPROM ("Raspberry Pi bootloader configuration"); boards without one have none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Eeprom {
    /// `PARTITION`.
    pub partition: u32,
    /// `PARTITION_WALK`; `None` is the boot loader's default, which its date decides.
    pub partition_walk: Option<bool>,
    /// `BOOTVAR0`.
    pub bootvar0: u32,
}

/// Behaviour that no source settles: what the model assumes when nothing is said, and what a test may assume instead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quirks {
    /// The flag is stored but not acted on. One careful report says so of the Zero 2 W; `None`: that board only.
    pub ignores_tryboot: Option<bool>,
    /// When the partition that `autoboot.txt` names cannot be booted, partition 1 is tried. `None`: not before the Pi 4.
    pub failover: Option<bool>,
    /// The mask ROM reads no FAT16 from eMMC: some early CM3 (raspberrypi/firmware#1738). `None`: it does read it.
    pub rom_needs_fat32: Option<bool>,
}

/// A board with the programs that start it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Board {
    /// Which board.
    pub model: Model,
    /// Build date of the boot loader in the EEPROM; of `bootcode.bin` where there is no EEPROM.
    pub bootloader: Date,
    /// Build date of the `start*.elf` on the boot partition, which reads `config.txt` on boards before the Pi 5. It is
    /// not read from the disk: the file does not say it in a documented form.
    pub start_elf: Date,
    /// What the disk is connected to.
    pub medium: Medium,
    /// Serial number of the processor, for the serial filter; `None`: unlike any in a filter.
    pub serial: Option<u64>,
    /// EEPROM settings.
    pub eeprom: Eeprom,
    /// What is assumed where no source settles it.
    pub quirks: Quirks,
}

/// The boot loader that boards are taken to have when nothing is said: `PARTITION_WALK` is on and mended.
pub const RECENT: Date = Date::new(2026, 5, 26);
/// `start*.elf` of Debian 13's package `raspi-firmware` 1.20240424.
pub const DEBIAN_13_START: Date = Date::new(2024, 4, 24);

impl Board {
    /// A board with a recent boot loader, Debian 13's `start*.elf` and a card in its slot.
    pub const fn new(model: Model) -> Self {
        Self {
            model,
            bootloader: RECENT,
            start_elf: DEBIAN_13_START,
            medium: Medium::Sd,
            serial: None,
            eeprom: Eeprom { partition: 0, partition_walk: None, bootvar0: 0 },
            quirks: Quirks { ignores_tryboot: None, failover: None, rom_needs_fat32: None },
        }
    }

    pub(super) fn behaviour(&self) -> Behaviour {
        Behaviour::of(self)
    }
}

/// What a board's programs can do, by their dates. Sources are the release notes of raspberrypi/rpi-eeprom
/// (`firmware-2711/` and `firmware-2712/release-notes.md`), named by their dates, unless another is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Behaviour {
    /// Reads GPT: 2711 from 2020-09-03 on; the mask ROM of older boards never.
    pub(super) gpt: bool,
    /// Reads FAT16 within GPT: 2711 from 2021-10-04 on.
    pub(super) gpt_fat16: bool,
    /// The number of the chosen GPT partition reaches `start4.elf`: "GPT autoboot/reboot partition number fixes for Pi4 and
    /// older", 2025-01-22. Before, it loads everything from the first partition (rpi-eeprom#654, #668).
    pub(super) gpt_numbers: bool,
    /// Knows the tryboot flag: 2711 from 2020-10-28 on; "also supports Pi3 and earlier", 2020-11-24.
    pub(super) tryboot: bool,
    /// Knows `[tryboot]` and `tryboot_a_b`: 2711 from 2022-10-18 on (rpi-eeprom#504 is an older one).
    pub(super) tryboot_a_b: bool,
    /// "Fix failover to partition 1 if the `boot_partition` points to non-bootable partition", 2711 from 2022-10-18 on.
    pub(super) failover: bool,
    /// Fails over to the default partition when a number does not exist: 2711 from 2020-10-28 on.
    pub(super) failover_to_default: bool,
    /// `PARTITION_WALK`: option from 2025-01-27 (2712) and 2025-02-11 (2711) on, default from 2025-08-13 on.
    pub(super) walk: bool,
    /// The walk finds firmware after a partition that was FAT but not bootable: 2711 from 2025-08-20 on (rpi-eeprom#738).
    pub(super) walk_after_fat: bool,
    /// The number given to `reboot` is seen: 2712 from 2023-12-14 on (raspberrypi/firmware#1853).
    pub(super) reboot_partition: bool,
    /// `/chosen/bootloader/partition` is right: 2712 from 2024-05-13 on (rpi-eeprom#575).
    pub(super) reports_partition: bool,
    /// `PARTITION` counts when `reboot` gave 0: not from 2025-02-11 until the fix of 2025-08-27.
    pub(super) property_at_zero: bool,
    /// `PARTITION` replaces numbers above 31: from 2025-02-11 on.
    pub(super) property_above_31: bool,
    /// `[boot_count]`, `[boot_arg1]`, `[partition]` filters: 2712 from 2025-02-11 on.
    pub(super) expressions: bool,
    /// `[boot_partition=N]`: from 2025-03-10 on; before the Pi 5 it is `start*.elf` that reads `config.txt`.
    pub(super) boot_partition_filter: bool,
    /// `[bootvar0]`: 2712 from 2025-07-17 on, 2711 from 2025-11-27 on.
    pub(super) bootvar0: bool,
    /// `auto_initramfs` with an `os_prefix` works: from 2026-06-29 on; doubled or ignored prefixes before.
    pub(super) auto_initramfs_prefix: bool,
}

impl Behaviour {
    fn of(board: &Board) -> Self {
        let family = board.model.family();
        let since = |year, month, day| board.bootloader >= Date::new(year, month, day);
        let on_2711 = |year, month, day| match family {
            Family::Bootcode => false,
            Family::Eeprom2711 => since(year, month, day),
            // Its first release is of 2023.
            Family::Eeprom2712 => true,
        };
        let on_2712 = |year, month, day| family == Family::Eeprom2712 && since(year, month, day);
        // Who reads config.txt in full.
        let reader = if family == Family::Eeprom2712 { board.bootloader } else { board.start_elf };
        let walk_option = match family {
            Family::Bootcode => false,
            Family::Eeprom2711 => since(2025, 2, 11),
            Family::Eeprom2712 => since(2025, 1, 27),
        };
        let eeprom = family != Family::Bootcode;
        let ignores_tryboot = board.quirks.ignores_tryboot.unwrap_or(board.model == Model::Zero2W);
        Self {
            gpt: on_2711(2020, 9, 3),
            gpt_fat16: on_2711(2021, 10, 4),
            gpt_numbers: family == Family::Eeprom2712
                || (board.start_elf >= Date::new(2025, 1, 22) && since(2025, 1, 22)),
            tryboot: !ignores_tryboot && (on_2711(2020, 10, 28) || (!eeprom && since(2020, 11, 24))),
            tryboot_a_b: on_2711(2022, 10, 18) || (!eeprom && since(2022, 10, 18)),
            failover: board.quirks.failover.unwrap_or(on_2711(2022, 10, 18)),
            failover_to_default: on_2711(2020, 10, 28),
            walk: walk_option && board.eeprom.partition_walk.unwrap_or(since(2025, 8, 13)),
            walk_after_fat: family == Family::Eeprom2712 || since(2025, 8, 20),
            reboot_partition: family != Family::Eeprom2712 || since(2023, 12, 14),
            reports_partition: family != Family::Eeprom2712 || since(2024, 5, 13),
            property_at_zero: eeprom && (!since(2025, 2, 11) || since(2025, 8, 27)),
            property_above_31: eeprom && since(2025, 2, 11),
            expressions: on_2712(2025, 2, 11),
            boot_partition_filter: reader >= Date::new(2025, 3, 10),
            bootvar0: on_2712(2025, 7, 17) || (family == Family::Eeprom2711 && since(2025, 11, 27)),
            auto_initramfs_prefix: reader >= Date::new(2026, 6, 29),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days() {
        for (text, unix) in [
            ("1970-01-01", 0),
            ("2000-02-29", 951_782_400),
            ("2025-08-20", 1_755_648_000),
            ("2023-12-31", 1_703_980_800),
        ] {
            let date: Date = text.parse().unwrap();
            assert_eq!((date.to_string(), date.unix()), (text.to_owned(), unix));
        }
        for text in ["", "2025-8-20", "2025-13-01", "1969-01-01", "2025-08-20-1", "+025-08-20x"] {
            assert!(text.parse::<Date>().is_err(), "{text}");
        }
        assert!(Date::new(2024, 12, 31) < Date::new(2025, 1, 1));
    }

    fn at(model: Model, date: &str) -> Behaviour {
        let date = date.parse().unwrap();
        Board { bootloader: date, start_elf: date, ..Board::new(model) }.behaviour()
    }

    /// The day before a change and the day of it.
    fn turns(model: Model, before: &str, day: &str, what: fn(&Behaviour) -> bool) {
        let values = (what(&at(model, before)), what(&at(model, day)));
        assert_eq!(values, (false, true), "{model} {before} {day}");
    }

    #[test]
    fn behaviour_changes_on_the_day_of_the_release() {
        turns(Model::Pi4B, "2020-09-02", "2020-09-03", |b| b.gpt);
        turns(Model::Pi4B, "2021-10-03", "2021-10-04", |b| b.gpt_fat16);
        turns(Model::Pi4B, "2025-01-21", "2025-01-22", |b| b.gpt_numbers);
        turns(Model::Pi4B, "2020-10-27", "2020-10-28", |b| b.tryboot);
        turns(Model::Pi3B, "2020-11-23", "2020-11-24", |b| b.tryboot);
        turns(Model::Pi4B, "2022-10-17", "2022-10-18", |b| b.tryboot_a_b);
        turns(Model::Pi4B, "2022-10-17", "2022-10-18", |b| b.failover);
        turns(Model::Pi4B, "2025-08-12", "2025-08-13", |b| b.walk);
        turns(Model::Pi5, "2025-08-12", "2025-08-13", |b| b.walk);
        turns(Model::Pi4B, "2025-08-19", "2025-08-20", |b| b.walk_after_fat);
        turns(Model::Pi5, "2023-12-13", "2023-12-14", |b| b.reboot_partition);
        turns(Model::Pi5, "2024-05-12", "2024-05-13", |b| b.reports_partition);
        turns(Model::Pi5, "2025-02-10", "2025-02-11", |b| b.expressions);
        turns(Model::Pi5, "2025-03-09", "2025-03-10", |b| b.boot_partition_filter);
        turns(Model::Pi4B, "2025-08-26", "2025-08-27", |b| b.property_at_zero);
        turns(Model::Pi4B, "2025-02-10", "2025-02-11", |b| b.property_above_31);
        turns(Model::Pi4B, "2025-11-26", "2025-11-27", |b| b.bootvar0);
        turns(Model::Pi5, "2026-06-28", "2026-06-29", |b| b.auto_initramfs_prefix);
        assert!(at(Model::Pi4B, "2025-02-10").property_at_zero);
        let pi3 = at(Model::Pi3B, "2026-01-01");
        assert!(!pi3.gpt && !pi3.failover && !pi3.walk && !pi3.expressions && pi3.tryboot_a_b);
        assert!(!at(Model::Zero2W, "2026-01-01").tryboot);
    }

    #[test]
    fn the_walk_can_be_switched() {
        let with = |model, date: &str, walk| {
            let eeprom = Eeprom { partition_walk: Some(walk), ..Eeprom::default() };
            Board { bootloader: date.parse().unwrap(), eeprom, ..Board::new(model) }.behaviour().walk
        };
        assert!(!with(Model::Pi4B, "2026-01-01", false));
        assert!(with(Model::Pi4B, "2025-02-11", true) && !with(Model::Pi4B, "2025-02-10", true));
        assert!(with(Model::Pi5, "2025-01-27", true) && !with(Model::Pi5, "2025-01-26", true));
        assert!(!with(Model::Pi3B, "2026-01-01", true));
    }

    #[test]
    fn names_of_device_trees() {
        assert_eq!(Model::Pi3B.device_trees(true), ["bcm2837-rpi-3-b.dtb", "bcm2710-rpi-3-b.dtb"]);
        assert_eq!(Model::Pi3B.device_trees(false), ["bcm2710-rpi-3-b.dtb"]);
        assert_eq!(Model::Pi4B.device_trees(true), ["bcm2711-rpi-4-b.dtb"]);
        assert_eq!(Model::Pi5D0.device_trees(true), ["bcm2712-d-rpi-5-b.dtb", "bcm2712-rpi-5-b.dtb"]);
        assert!(Model::ALL.iter().all(|model| !model.device_trees(false).is_empty()));
    }
}
