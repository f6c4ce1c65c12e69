//! What a machine starts: the firmware's model chooses, and what it chose is held against the manifest of its slot as
//! dm-verity and the boot loader would find it.

use crate::machine::Flags;
use crate::site::Site;
use bramble_api::layout::{MANIFEST_SIZE, pi as layout};
use bramble_api::names::Slot;
use bramble_disk::firmware::pi::{Board, BootFlags, Model, Outcome};
use bramble_disk::firmware::systemd_boot::{Arch, Loader};
use bramble_disk::firmware::{ReadAt, Trace, pi, systemd_boot};
use bramble_upgrade::journal::{COPY, Found};
use bramble_upgrade::media::{Area, Scheme};
use bramble_upgrade::{journal, state};
use sha2::{Digest, Sha256};
use std::collections::HashMap;

/// Debian 13's.
const LOADER: Loader = Loader { arch: Arch::Amd64, version: 257 };
/// Bytes of a boot image that are hashed at once.
const STEP: u64 = 64 << 10;

/// What a start comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    /// A slot, whole: root and boot image are those of this release.
    Slot(Slot, u64),
    /// A slot that is not.
    Torn(Slot, String),
    /// A Pi's rescue.
    Rescue,
    /// Nothing.
    Nothing(String),
}

/// Whether slots are whole, remembered: most states share them.
#[derive(Default)]
pub struct Whole(HashMap<(Slot, u128), Result<u64, String>>);

impl Whole {
    /// The release in a slot. `hash` is that of the slot's areas.
    pub fn of(&mut self, site: &Site, disk: &impl ReadAt, slot: Slot, hash: u128) -> Result<u64, String> {
        self.0.entry((slot, hash)).or_insert_with(|| examine(site, disk, slot)).clone()
    }
}

/// The release in a slot, every byte of it read.
pub fn examine(site: &Site, disk: &impl ReadAt, slot: Slot) -> Result<u64, String> {
    let (start, size) = site.place(Area::Root(slot));
    let mut area = vec![0; MANIFEST_SIZE as usize];
    let read = |offset: u64, out: &mut [u8]| disk.read_at(offset, out).map_err(|error| error.to_string());
    read(start + size - MANIFEST_SIZE, &mut area)?;
    let published = site.release(&area).ok_or("no signed manifest")?;
    let release = &published.release;
    let verity = release.verity.check(1 << 20, |offset, out| disk.read_at(start + offset, out).map_err(drop));
    verity.map_err(|wrong| match wrong {
        bramble_upgrade::verity::Wrong::Block { part, block } => format!("block {block} of the {part}"),
        _ => "it cannot be read".to_string(),
    })?;
    let (start, _) = site.place(Area::Boot(slot));
    let mut hash = Sha256::new();
    let mut at = 0;
    while at < release.boot_size {
        let mut bytes = vec![0; (release.boot_size - at).min(STEP) as usize];
        read(start + at, &mut bytes)?;
        hash.update(&bytes);
        at += bytes.len() as u64;
    }
    match hash.finalize()[..] == release.boot_sha256 {
        true => Ok(release.target.version),
        false => Err("its boot image is torn".into()),
    }
}

/// Starts the machine once. `hash` gives the hash of a slot's areas.
pub fn start(
    site: &Site,
    disk: &impl ReadAt,
    flags: &mut Flags,
    whole: &mut Whole,
    hash: impl Fn(Slot) -> u128,
) -> Started {
    let slot = match chosen(site, disk, flags) {
        Ok(Some(slot)) => slot,
        Ok(None) => return Started::Rescue,
        Err(why) => return Started::Nothing(why),
    };
    match whole.of(site, disk, slot, hash(slot)) {
        Ok(version) => Started::Slot(slot, version),
        Err(why) => Started::Torn(slot, why),
    }
}

/// The slot that firmware chooses; `None` is a Pi's rescue.
fn chosen(site: &Site, disk: &impl ReadAt, flags: &mut Flags) -> Result<Option<Slot>, String> {
    let mut trace = Trace::off();
    match site.scheme {
        Scheme::Uefi => {
            let (outcome, after) = systemd_boot::outcome(disk, LOADER, &flags.variables, &mut trace);
            flags.variables = after;
            let start = outcome.map_err(|failure| failure.to_string())?;
            match start.id.as_str() {
                "slot-a.efi" => Ok(Some(Slot::A)),
                "slot-b.efi" => Ok(Some(Slot::B)),
                other => Err(format!("starts {other}")),
            }
        }
        Scheme::Pi => {
            let asked = BootFlags { tryboot: std::mem::take(&mut flags.tryboot), ..BootFlags::default() };
            match pi::outcome(disk, &Board::new(Model::Pi4B), asked, &mut trace) {
                Outcome::Starts(start) => Ok(layout::slot_of(start.place.number)),
                Outcome::Fails(failure) => Err(failure.to_string()),
            }
        }
    }
}

/// What the rescue writes into the switch, as [`state::rescue`] decides: it reads the journal, where data can be mounted.
pub fn rescue(site: &Site, disk: &impl ReadAt, versions: [Option<u64>; 2]) -> Option<Slot> {
    let copies = [0, 1].map(|copy| {
        let mut bytes = vec![0; COPY];
        match disk.read_at(site.journal(copy), &mut bytes) {
            Ok(()) => bytes,
            Err(_) => Vec::new(),
        }
    });
    match journal::read([&copies[0], &copies[1]]) {
        Found::Newest(entry) => state::rescue(Some(&entry.record), versions),
        _ => state::rescue(None, versions),
    }
}
