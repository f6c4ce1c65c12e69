//! Partition tables as the firmware walks over them: with less suspicion than a tool that would write there.

use bramble_partition::{Guid, gpt};

use crate::firmware::trace::Trace;
use crate::firmware::{Place, ReadAt, SECTOR, Window};

/// A table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Table {
    pub(super) is_gpt: bool,
    pub(super) entries: Vec<Entry>,
}

/// A partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) place: Place,
    /// Its type says that it is FAT, or may be.
    pub(super) is_fat: bool,
}

impl Table {
    /// The default partition: "the first bootable FAT partition".
    pub(super) fn first_fat(&self) -> Option<Entry> {
        self.entries.iter().find(|entry| entry.is_fat).copied()
    }

    /// 0 is the default partition.
    pub(super) fn number(&self, number: u32) -> Option<Entry> {
        match number {
            0 => self.first_fat(),
            _ => self.entries.iter().find(|entry| entry.place.number == number).copied(),
        }
    }

    /// rpi-eeprom#705: on the 2711 a partition that does not lie where its number would put it was not found again.
    pub(super) fn is_in_disk_order(&self) -> bool {
        self.entries.is_sorted_by_key(|entry| entry.place.start)
    }
}

/// Types that the boot loaders take for FAT: FAT12, FAT16 and FAT32 of every flavour, and the EFI system partition
/// (rpi-eeprom release notes, 2020-05-26).
const FAT_TYPES: [u8; 7] = [0x01, 0x04, 0x06, 0x0b, 0x0c, 0x0e, 0xef];
const EXTENDED: [u8; 3] = [0x05, 0x0f, 0x85];
const GUARD: u8 = 0xee;
/// Longer chains are not followed; the boot loaders know at most 8 partitions anyhow.
const LOGICAL_MAX: u32 = 32;

fn u32_at(sector: &[u8; 512], at: usize) -> u64 {
    sector[at..at + 4].iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// The four entries of a boot record, as kind, first sector and length; `None` without its signature.
fn record<D: ReadAt + ?Sized>(disk: &D, sector: u64) -> Option<[(u8, u64, u64); 4]> {
    let mut bytes = [0; 512];
    disk.read_at(sector.checked_mul(SECTOR)?, &mut bytes).ok()?;
    (bytes[510..] == [0x55, 0xaa]).then(|| {
        [0, 1, 2, 3].map(|index| {
            let at = 446 + 16 * index;
            (bytes[at + 4], u32_at(&bytes, at + 8), u32_at(&bytes, at + 12))
        })
    })
}

fn entry(number: u32, kind: u8, start: u64, sectors: u64) -> Entry {
    let place = Place { number, start: start * SECTOR, size: sectors * SECTOR };
    Entry { place, is_fat: FAT_TYPES.contains(&kind) }
}

/// The four primary partitions and the logical ones, from 5 on, in the order of their chain.
///
/// The hybrid's guard of a GPT is left out, as a boot loader that knows no GPT does.
pub(super) fn mbr<D: ReadAt + ?Sized>(disk: &D) -> Option<Table> {
    let primary = record(disk, 0)?;
    let mut table = Table::default();
    let mut extended = None;
    for (index, (kind, start, sectors)) in primary.into_iter().enumerate() {
        if EXTENDED.contains(&kind) {
            extended = extended.or(Some(start));
        }
        if kind != 0 && kind != GUARD && sectors != 0 {
            table.entries.push(entry(index as u32 + 1, kind, start, sectors));
        }
    }
    if let Some(base) = extended {
        let mut link = base;
        for number in 5..5 + LOGICAL_MAX {
            let Some([logical, next, ..]) = record(disk, link) else { break };
            if logical.0 != 0 && logical.2 != 0 {
                table.entries.push(entry(number, logical.0, link.saturating_add(logical.1), logical.2));
            }
            let next = (EXTENDED.contains(&next.0) && next.2 != 0).then_some(base.saturating_add(next.1));
            match next.filter(|next| *next > link) {
                Some(next) => link = next,
                None => break,
            }
        }
    }
    Some(table)
}

/// Whether the boot record only guards a GPT, alone or as a hybrid.
pub(super) fn is_guarded<D: ReadAt + ?Sized>(disk: &D) -> bool {
    record(disk, 0).is_some_and(|entries| entries.iter().any(|entry| entry.0 == GUARD))
}

/// GPT: the types that a log of the boot loader matches (rpi-eeprom#818): basic data and EFI system partition.
pub(super) fn gpt<D: ReadAt + ?Sized>(disk: &D, trace: &mut Trace) -> Option<Table> {
    let check = match gpt::check(&mut Window::whole(disk), disk.size()) {
        Ok(check) => check,
        Err(error) => {
            trace.step(format_args!("no GPT: {error}"));
            return None;
        }
    };
    if !check.findings.is_empty() {
        let findings = &check.findings;
        trace.doubt(format_args!(
            "the GPT has defects ({findings:?}); the firmware is taken to read it all the same"
        ));
    }
    let fat_types = ["c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7"];
    let entries = check.table.partitions.iter().map(|partition| Entry {
        place: Place { number: partition.number, start: partition.start, size: partition.size },
        is_fat: fat_types.iter().any(|fat| fat.parse::<Guid>().as_ref() == Ok(&partition.type_guid)),
    });
    Some(Table { is_gpt: true, entries: entries.collect() })
}
