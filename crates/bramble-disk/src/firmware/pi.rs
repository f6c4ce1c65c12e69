//! How the firmware of a Raspberry Pi chooses what to boot.
//!
//! [`decide`] is a pure function of a disk, a [`Board`] and the [`BootFlags`] in its reset register. It goes the way of the
//! real programs:
//!
//! 1. Pi 3: the mask ROM takes `bootcode.bin` from the first FAT partition of an MBR; without it nothing starts.
//! 2. The boot loader reads `autoboot.txt` of the first FAT partition and has a number: that given to `reboot`, else
//!    `boot_partition`, else `PARTITION` of the EEPROM, else 0, the default partition.
//! 3. It looks whether that partition is bootable: has `start.elf` (Pi 3), `start4.elf` (Pi 4), or `config.txt` and a
//!    device tree of the board (Pi 5). If not, it may try partition 1, and then walk over partitions up to 8.
//! 4. `config.txt`, or `tryboot.txt` in a trial without `tryboot_a_b`, says which kernel, device tree, initramfs and
//!    command line are loaded from there. From here on nothing falls back any more.
//!
//! Sources: Raspberry Pi documentation (`config_txt/autoboot.adoc`, `config_txt/boot.adoc`, `config_txt/conditional.adoc`,
//! `raspberry-pi/bootflow-eeprom.adoc`, `raspberry-pi/eeprom-bootloader.adoc`) and the release notes of
//! raspberrypi/rpi-eeprom; issues are named where a rule rests on one. No board has been asked: see `docs/`.
//!
//! Not modelled: other boot modes than the disk (network, `rpiboot`), the order among several disks, `boot.img` and secure
//! boot, FAT12, `recovery.bin` and updates of the EEPROM, what overlays do to the device tree.

mod board;
mod config;
mod os;
mod partitions;
#[cfg(test)]
mod tests;

use std::fmt;

use bramble_fat::FatType;

pub use board::{BadDate, Board, DEBIAN_13_START, Date, Eeprom, Family, Medium, Model, Quirks, RECENT};
pub use config::{AUTOBOOT_MAX, LINE_MAX};
pub use os::{OsFailure, Start};

use super::fdt::Bootloader;
use super::trace::Trace;
use super::volume::Volume;
use super::{Place, ReadAt};
use board::Behaviour;
use config::{Dialect, Facts, Settings};
use partitions::Table;

/// The number that asks the boot loader to halt (drivers/watchdog/bcm2835_wdt.c, "63 = halt").
const HALT: u32 = 63;
/// The largest number that means a partition; above it are marks for the EEPROM's `PARTITION`.
const PARTITION_MAX: u32 = 31;
/// "the bootloader will check each partition in turn (up to 8 and wrapping to 0)".
const WALK_MAX: u32 = 8;

/// What the reset register says at the moment of the reset. After a power cut it says nothing: the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BootFlags {
    /// The one-shot flag: `reboot "0 tryboot"`. "Cleared before starting the firmware": the next boot has none.
    pub tryboot: bool,
    /// The number: `reboot "3"`; 0 is none.
    pub partition: u32,
    /// `boot_count`.
    pub boot_count: u32,
    /// `boot_arg1`.
    pub boot_arg1: u32,
}

/// What happens, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens.
    pub outcome: Outcome,
    /// Why, for a person.
    pub trace: Trace,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A kernel is started.
    Starts(Box<Start>),
    /// Nothing is started from this disk.
    Fails(Failure),
}

/// Why nothing is started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// `reboot 63`.
    #[error("the board was asked to halt")]
    Halted,
    /// The first sector says of no partition, and is no FAT volume either.
    #[error("the disk has no partition table that this board reads")]
    NoTable,
    /// There is no partition whose type says FAT.
    #[error("the disk has no FAT partition")]
    NoFatPartition,
    /// The mask ROM finds no second stage.
    #[error("partition {partition} has no bootcode.bin that the mask ROM can read: {why}")]
    NoBootcode {
        /// The first FAT partition.
        partition: u32,
        /// What is wrong.
        why: String,
    },
    /// No partition that was tried can be booted. The boot loader goes on to other boot modes, or stays here.
    #[error("none of the partitions that were tried can be booted ({})", tried_text(.tried))]
    NothingBootable {
        /// Partition numbers as they were tried, and what was missing.
        tried: Vec<(u32, NotBootable)>,
    },
    /// A partition was chosen, and what it says to load cannot be started. Nothing falls back from here.
    #[error("partition {partition}: {why}")]
    Stuck {
        /// The partition that was chosen.
        partition: u32,
        /// What cannot be started.
        why: OsFailure,
    },
}

/// Why a partition cannot be booted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotBootable {
    /// The table has no such partition.
    #[error("it does not exist")]
    Missing,
    /// It is no FAT volume that this board reads.
    #[error("no FAT volume: {0}")]
    NotFat(String),
    /// The file that makes it bootable is missing.
    #[error("no {0}")]
    NoFile(String),
    /// The Pi 5 finds no device tree that fits it.
    #[error("no device tree for this board")]
    NoDeviceTree,
    /// The walk of an older boot loader finds no firmware any more (rpi-eeprom#738).
    #[error("this boot loader loads no firmware in a walk after a FAT partition without any")]
    WalkBug,
}

fn tried_text(tried: &[(u32, NotBootable)]) -> String {
    tried.iter().map(|(number, why)| format!("{number}: {why}")).collect::<Vec<_>>().join("; ")
}

impl Decision {
    /// The start, if there is one.
    pub fn start(&self) -> Option<&Start> {
        match &self.outcome {
            Outcome::Starts(start) => Some(start),
            Outcome::Fails(_) => None,
        }
    }
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.trace)?;
        match &self.outcome {
            Outcome::Starts(start) => writeln!(f, "starts {start}"),
            Outcome::Fails(failure) => writeln!(f, "starts nothing: {failure}"),
        }
    }
}

/// What `board` boots from `disk` with these flags, and the trace of it.
///
/// The outcome depends on nothing else, and every disk has one: damage makes a [`Failure`], not an error. A disk that
/// cannot be read at some place is damaged there.
pub fn decide<D: ReadAt + ?Sized>(disk: &D, board: &Board, flags: BootFlags) -> Decision {
    let mut trace = Trace::on();
    let outcome = outcome(disk, board, flags, &mut trace);
    Decision { outcome, trace }
}

/// The outcome alone, for millions of disks.
pub fn outcome<D: ReadAt + ?Sized>(disk: &D, board: &Board, flags: BootFlags, trace: &mut Trace) -> Outcome {
    let behaviour = board.behaviour();
    let mut boot = Boot { disk, board, behaviour, flags, trace };
    match boot.run() {
        Ok(start) => Outcome::Starts(Box::new(start)),
        Err(failure) => Outcome::Fails(failure),
    }
}

/// What `autoboot.txt` says.
#[derive(Default)]
struct Autoboot {
    partition: Option<u32>,
    tryboot_a_b: bool,
}

struct Boot<'d, 'a, D: ?Sized> {
    disk: &'d D,
    board: &'a Board,
    behaviour: Behaviour,
    flags: BootFlags,
    trace: &'a mut Trace,
}

impl<'d, D: ReadAt + ?Sized> Boot<'d, '_, D> {
    fn run(&mut self) -> Result<Start, Failure> {
        let Board { model, bootloader, .. } = *self.board;
        self.trace.step(format_args!("{model}, boot loader of {bootloader}"));
        if self.flags.partition == HALT {
            return Err(Failure::Halted);
        }
        let tryboot = self.tryboot();
        let table = self.table()?;
        if model.family() == Family::Bootcode {
            self.mask_rom(&table)?;
        }
        let autoboot = self.autoboot(&table, tryboot);
        let (requested, given) = self.requested(&autoboot);
        self.trace.step(format_args!("boots from partition {requested} ({given})"));
        // "Set this property to 1 to load the normal config.txt and boot.img files instead of tryboot.txt".
        let config = if tryboot && !autoboot.tryboot_a_b { "tryboot.txt" } else { "config.txt" };
        if tryboot && given == "reboot" {
            self.trace.doubt(format_args!(
                "a number and tryboot together: `tryboot_a_b` is taken to count all the same"
            ));
        }
        let (mut volume, mut settings) = self.choose(&table, requested, config, tryboot)?;
        let chosen = volume.place.number;
        if table.is_gpt && !self.behaviour.gpt_numbers {
            // The boot loader found start4.elf where it should; start4.elf does not learn where that was.
            let first = table.first_fat().map(|first| first.place).filter(|first| *first != volume.place);
            if let Some(first) = first {
                self.trace.warn(format_args!(
                    "start4.elf of {} reads everything else from partition {}, the first of the GPT (rpi-eeprom#654)",
                    self.board.start_elf, first.number
                ));
                volume = Volume::open(self.disk, first).map_err(|why| Failure::Stuck {
                    partition: chosen,
                    why: OsFailure::Unreadable(why.to_string()),
                })?;
                settings = self.settings(&mut volume, config, tryboot).unwrap_or_default();
            }
        }
        let reported = if self.behaviour.reports_partition { chosen } else { 0 };
        let build_timestamp = match model.family() {
            Family::Bootcode => 0,
            _ => bootloader.unix().try_into().unwrap_or(u32::MAX),
        };
        let says = Bootloader { partition: reported, tryboot, build_timestamp };
        os::load(&mut volume, self.board, &self.behaviour, &settings, config, says, self.trace)
            .map_err(|why| Failure::Stuck { partition: chosen, why })
    }

    /// Whether this is a trial.
    fn tryboot(&mut self) -> bool {
        let quirk = self.board.quirks.ignores_tryboot;
        if self.flags.tryboot && !self.behaviour.tryboot {
            self.trace.warn(format_args!("the tryboot flag is set, and this boot loader does not act on it"));
        } else if self.flags.tryboot && quirk.is_none() && self.board.model.family() == Family::Bootcode {
            // "All Raspberry Pi models support tryboot" stands against reports of owners.
            self.trace.doubt(format_args!(
                "tryboot before the Pi 4 is documented, and was not seen on every board"
            ));
        }
        self.flags.tryboot && self.behaviour.tryboot
    }

    fn table(&mut self) -> Result<Table, Failure> {
        if partitions::is_guarded(self.disk) {
            if self.behaviour.gpt {
                if let Some(table) = partitions::gpt(self.disk, self.trace) {
                    self.trace.step(format_args!("GPT with {} partitions", table.entries.len()));
                    return Ok(table);
                }
            } else {
                self.trace.step(format_args!("a GPT, which this board does not read; its hybrid MBR counts"));
            }
        }
        let table = partitions::mbr(self.disk).ok_or(Failure::NoTable)?;
        if table.first_fat().is_none() {
            // "Add support for booting from a superfloppy disk", rpi-eeprom release notes of 2020-05-26.
            let place = Place { number: 0, start: 0, size: self.disk.size() };
            if self.board.model.family() != Family::Bootcode && Volume::open(self.disk, place).is_ok() {
                self.trace.step(format_args!("no partitions: the disk is one FAT volume"));
                let entries = vec![partitions::Entry { place, is_fat: true }];
                return Ok(Table { is_gpt: false, entries });
            }
            return Err(Failure::NoFatPartition);
        }
        self.trace.step(format_args!("MBR with {} partitions", table.entries.len()));
        if self.board.model.family() == Family::Eeprom2711 && !table.is_in_disk_order() {
            self.trace.doubt(format_args!(
                "the partitions do not lie in the order of their numbers; boot loaders of the Pi 4 have failed on that \
                 (rpi-eeprom#705)"
            ));
        }
        Ok(table)
    }

    /// The mask ROM of boards without an EEPROM: "bootcode.bin" of the first FAT partition, and no second try.
    fn mask_rom(&mut self, table: &Table) -> Result<(), Failure> {
        let place = table.first_fat().ok_or(Failure::NoFatPartition)?.place;
        let fail = |why: String| Failure::NoBootcode { partition: place.number, why };
        let mut volume = Volume::open(self.disk, place).map_err(|error| fail(error.to_string()))?;
        if volume.fat_type() == FatType::Fat16 && self.board.medium == Medium::Emmc {
            if self.board.quirks.rom_needs_fat32 == Some(true) {
                return Err(fail("FAT16 on eMMC".to_owned()));
            }
            if self.board.model == Model::Cm3 {
                self.trace.doubt(format_args!(
                    "some early CM3 read no FAT16 from their eMMC (raspberrypi/firmware#1738)"
                ));
            }
        }
        let file = volume.file("bootcode.bin").filter(|file| file.size > 0);
        let file = file.ok_or_else(|| fail("not there".to_owned()))?;
        self.trace.step(format_args!("partition {}: the mask ROM starts {file}", place.number));
        Ok(())
    }

    /// Reads `autoboot.txt` of the default partition.
    fn autoboot(&mut self, table: &Table, tryboot: bool) -> Autoboot {
        let Some(place) = table.first_fat().map(|entry| entry.place) else { return Autoboot::default() };
        let mut volume = match self.open(table, place) {
            Ok(volume) => volume,
            Err(why) => {
                self.trace
                    .step(format_args!("partition {}, where autoboot.txt belongs: {why}", place.number));
                return Autoboot::default();
            }
        };
        let Some(file) = volume.file("autoboot.txt") else {
            self.trace.step(format_args!("partition {}: no autoboot.txt", place.number));
            return Autoboot::default();
        };
        if file.size > AUTOBOOT_MAX {
            self.trace.doubt(format_args!("{file}: the first {AUTOBOOT_MAX} bytes are taken to count"));
        }
        let bytes = match volume.head("autoboot.txt", AUTOBOOT_MAX as usize) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.trace.warn(format_args!("autoboot.txt cannot be read: {error}"));
                return Autoboot::default();
            }
        };
        let mut none = |_: &str, _: u64| None;
        let mut trace = std::mem::take(self.trace);
        let facts = self.facts(tryboot, 0);
        let settings = config::read(&bytes, "autoboot.txt", Dialect::Autoboot, &facts, &mut none, &mut trace);
        *self.trace = trace;
        let autoboot = Autoboot {
            partition: settings.number("boot_partition"),
            tryboot_a_b: settings.is_set("tryboot_a_b") && self.behaviour.tryboot_a_b,
        };
        let partition = settings.text("boot_partition").unwrap_or("none");
        let a_b = if autoboot.tryboot_a_b { ", tryboot_a_b" } else { "" };
        let trial = if tryboot { " in a trial" } else { "" };
        self.trace
            .step(format_args!("partition {}: autoboot.txt says {partition}{trial}{a_b}", place.number));
        if settings.text("boot_partition").is_some() && autoboot.partition.is_none() {
            self.trace.warn(format_args!("autoboot.txt: {partition:?} is no number"));
        }
        if !self.behaviour.tryboot_a_b && settings.is_set("tryboot_a_b") {
            self.trace.warn(format_args!("this boot loader is too old for tryboot_a_b (rpi-eeprom#504)"));
        }
        autoboot
    }

    /// The number of the partition, and who says so.
    fn requested(&mut self, autoboot: &Autoboot) -> (u32, &'static str) {
        let eeprom = self.board.eeprom.partition;
        let mut reset = self.flags.partition;
        if reset != 0 && !self.behaviour.reboot_partition {
            self.trace
                .warn(format_args!("this boot loader loses the number {reset} that was given to reboot"));
            reset = 0;
        }
        if reset > PARTITION_MAX {
            if self.behaviour.property_above_31 && eeprom != 0 {
                return (eeprom, "PARTITION of the EEPROM, for a number above 31");
            }
            self.trace
                .doubt(format_args!("the number {reset} of the reset register is taken for a partition"));
        }
        if reset != 0 {
            return (reset, "reboot");
        }
        match autoboot.partition {
            Some(number) if number != 0 => (number, "autoboot.txt"),
            _ if eeprom != 0 && self.behaviour.property_at_zero => (eeprom, "PARTITION of the EEPROM"),
            _ => (0, "the default"),
        }
    }

    /// The numbers to try, in order. The log in rpi-eeprom#738 shows the order: the partition that was asked for, then 1, then
    /// from the one that was asked for on.
    fn order(&self, table: &Table, requested: u32) -> Vec<(u32, bool)> {
        let mut order = vec![(requested, false)];
        if table.number(requested).is_none() && self.behaviour.failover_to_default {
            order.push((0, false));
        } else if self.behaviour.failover && requested > 1 {
            order.push((1, false));
        }
        if self.behaviour.walk {
            let (after, before) = (requested..=WALK_MAX, 0..requested.min(WALK_MAX + 1));
            order.extend(after.chain(before).map(|number| (number, true)));
        }
        order
    }

    /// The first of the partitions that can be booted.
    fn choose(
        &mut self,
        table: &Table,
        requested: u32,
        config: &str,
        tryboot: bool,
    ) -> Result<(Volume<'d, D>, Settings), Failure> {
        let mut tried: Vec<(u32, NotBootable)> = Vec::new();
        let mut was_fat = false;
        for (number, walking) in self.order(table, requested) {
            if tried.iter().any(|(before, _)| *before == number) {
                continue;
            }
            let result = if walking && was_fat && !self.behaviour.walk_after_fat {
                Err(NotBootable::WalkBug)
            } else {
                self.bootable(table, number, config, tryboot)
            };
            let how = if tried.is_empty() {
                ""
            } else if walking {
                "walk: "
            } else {
                "failover: "
            };
            match result {
                Ok((volume, settings)) => {
                    self.trace.step(format_args!("{how}partition {} can be booted", volume.place.number));
                    return Ok((volume, settings));
                }
                Err(why) => {
                    // Eight numbers of which half do not exist are no news.
                    if !walking || why != NotBootable::Missing {
                        self.trace.step(format_args!("{how}partition {number} cannot be booted: {why}"));
                    }
                    was_fat |= matches!(why, NotBootable::NoFile(_) | NotBootable::NoDeviceTree);
                    tried.push((number, why));
                }
            }
        }
        if self.board.model.family() == Family::Bootcode
            && self.board.quirks.failover.is_none()
            && requested > 1
        {
            self.trace
                .doubt(format_args!("before the Pi 4 no source tells of a second try; none is assumed"));
        }
        tried.retain(|(_, why)| *why != NotBootable::Missing || requested > WALK_MAX);
        Err(Failure::NothingBootable { tried })
    }

    /// Whether a partition can be booted: "formatted as FAT12, FAT16 or FAT32 and contain a start.elf file (or config.txt
    /// file on Raspberry Pi 5)"; what its configuration says, too.
    fn bootable(
        &mut self,
        table: &Table,
        number: u32,
        config: &str,
        tryboot: bool,
    ) -> Result<(Volume<'d, D>, Settings), NotBootable> {
        let entry = table.number(number).ok_or(NotBootable::Missing)?;
        if !entry.is_fat {
            if Volume::open(self.disk, entry.place).is_ok() {
                self.trace.doubt(format_args!(
                    "partition {number} is FAT by content and not by type; it is taken for none"
                ));
            }
            return Err(NotBootable::NotFat("its type says something else".to_owned()));
        }
        let mut volume = self.open(table, entry.place).map_err(NotBootable::NotFat)?;
        let settings = self.settings(&mut volume, config, tryboot);
        if self.board.model.family() == Family::Eeprom2712 {
            let settings = settings.ok_or_else(|| NotBootable::NoFile(config.to_owned()))?;
            // "contains config.txt and a suitable device-tree on Raspberry Pi 5 or later"; `os_check=0` switches it off.
            let unchecked = settings.number("os_check") == Some(0);
            if !unchecked && os::device_tree(&mut volume, self.board, &settings, self.trace).is_none() {
                return Err(NotBootable::NoDeviceTree);
            }
            return Ok((volume, settings));
        }
        if settings.is_none() {
            self.trace.warn(format_args!("partition {number}: no {config}; everything has its default"));
        }
        let settings = settings.unwrap_or_default();
        let name = os::start_file(&mut volume, self.board, &settings);
        let head = volume.head(&name, 4).ok().filter(|head| head == b"\x7fELF");
        head.ok_or_else(|| NotBootable::NoFile(name.clone()))?;
        let file = volume.file(&name).ok_or_else(|| NotBootable::NoFile(name.clone()))?;
        self.trace.step(format_args!("partition {number}: firmware {file}"));
        let fixup = settings.text("fixup_file").map_or_else(|| os::fixup_of(&name), str::to_owned);
        if volume.file(&fixup).is_none() {
            self.trace
                .warn(format_args!("partition {number}: no {fixup}; without it memory is split wrongly"));
        }
        Ok((volume, settings))
    }

    /// What `config.txt` or its like says; `None` if there is none.
    fn settings(&mut self, volume: &mut Volume<D>, config: &str, tryboot: bool) -> Option<Settings> {
        let number = volume.place.number;
        let file = volume.file(config)?;
        let bytes = match volume.read(config, config::FILE_MAX) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.trace.warn(format_args!("partition {number}: {file} cannot be read: {error}"));
                return None;
            }
        };
        self.trace.step(format_args!("partition {number}: reads {file}"));
        let mut load = |name: &str, limit: u64| volume.read(name, limit).ok();
        let mut trace = std::mem::take(self.trace);
        let facts = self.facts(tryboot, number);
        let settings = config::read(&bytes, config, Dialect::Config, &facts, &mut load, &mut trace);
        *self.trace = trace;
        Some(settings)
    }

    fn facts(&self, tryboot: bool, boot_partition: u32) -> Facts<'_> {
        Facts {
            board: self.board,
            behaviour: &self.behaviour,
            tryboot,
            boot_partition,
            reset_partition: self.flags.partition,
            boot_count: self.flags.boot_count,
            boot_arg1: self.flags.boot_arg1,
        }
    }

    /// Opens a FAT volume that this boot loader can read; the reason, if not.
    ///
    /// The type follows from the number of clusters alone (rpi-eeprom#818): a volume that calls itself FAT32 and has too few
    /// of them cannot be read.
    fn open(&self, table: &Table, place: Place) -> Result<Volume<'d, D>, String> {
        let volume = Volume::open(self.disk, place).map_err(|error| error.to_string())?;
        if table.is_gpt && volume.fat_type() == FatType::Fat16 && !self.behaviour.gpt_fat16 {
            return Err("FAT16 within GPT, which this boot loader does not read".to_owned());
        }
        Ok(volume)
    }
}
