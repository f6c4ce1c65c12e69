//! A simulated computer: disks come, go, take each other's names, share serials, and sometimes lie.
//!
//! It follows the kernel in what matters here: a name and a number go to whoever comes next; a count of media rises
//! with every medium put in; a descriptor whose medium was changed fails (`sd` refuses until the disk is opened anew),
//! or, on a sloppy kernel, writes to whatever lies there now.

use super::content::Content;
use crate::card::{self, Card};
use crate::device::*;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Bytes of every simulated medium.
pub(super) const SIZE: u64 = 6 << 20;

/// SplitMix64: small, and the same everywhere.
#[derive(Clone, Debug)]
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

/// Something that holds bytes.
#[derive(Clone)]
pub(super) struct Store {
    /// Shared with whoever remembers how it was, until it is written.
    pub(super) bytes: Arc<Vec<u8>>,
    /// Ranges that were written or discarded, in order.
    pub(super) touched: Vec<Range<u64>>,
    /// Writes that were flushed: the others are lost in a power cut.
    pub(super) flushed: usize,
    /// From here on it gives back what lies at its beginning, as a counterfeit does.
    pub(super) wraps_at: Option<u64>,
    /// Flips a bit of the next reads below this many.
    pub(super) flips: u32,
}

/// Where a medium lies.
#[derive(Clone)]
pub(super) struct Slot {
    /// Another number for every time it was attached.
    pub(super) attachment: u64,
    pub(super) letter: u8,
    pub(super) sequence: u64,
    pub(super) reader: bool,
    pub(super) port: String,
    pub(super) serial: String,
    pub(super) medium: Option<usize>,
    pub(super) mounted: bool,
}

pub(super) struct State {
    pub(super) random: Random,
    pub(super) clock: Duration,
    pub(super) stores: Vec<Store>,
    pub(super) slots: Vec<Slot>,
    /// Devices and media that are in no slot, with what they need to come back.
    pub(super) drawer: Vec<Slot>,
    pub(super) loose: Vec<usize>,
    pub(super) counter: u64,
    pub(super) counts_media: bool,
    pub(super) sloppy: bool,
    /// Chance of something happening at each call, in thousandths.
    pub(super) chaos: u64,
    /// Which attachment is held open exclusively.
    pub(super) held: Vec<u64>,
    /// After this many writes every call fails: the power is cut.
    pub(super) cut_after: Option<usize>,
    pub(super) writes: usize,
    pub(super) calls: u64,
    /// Descriptors that were opened to write, by medium.
    pub(super) opened: Vec<usize>,
}

/// The simulated computer.
#[derive(Clone)]
pub(super) struct World(pub(super) Arc<Mutex<State>>);

impl World {
    pub(super) fn new(seed: u64) -> World {
        World(Arc::new(Mutex::new(State {
            random: Random(seed),
            clock: Duration::ZERO,
            stores: vec![],
            slots: vec![],
            drawer: vec![],
            loose: vec![],
            counter: 100,
            counts_media: true,
            sloppy: false,
            chaos: 0,
            held: vec![],
            cut_after: None,
            writes: 0,
            calls: 0,
            opened: vec![],
        })))
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }
}

impl State {
    /// A medium with something of its own at its head, in the middle and at its end.
    pub(super) fn add_store(&mut self) -> usize {
        let index = self.stores.len();
        let mut bytes = vec![0; SIZE as usize];
        for at in [4096, SIZE as usize / 2, SIZE as usize - 4096] {
            bytes[at..at + 64].fill(index as u8 + 1);
        }
        self.stores.push(Store {
            bytes: Arc::new(bytes),
            touched: vec![],
            flushed: 0,
            wraps_at: None,
            flips: 0,
        });
        index
    }

    pub(super) fn attach(&mut self, mut slot: Slot) {
        self.counter += 1;
        slot.attachment = self.counter;
        slot.sequence = self.counter;
        slot.mounted = false;
        // The lowest free letter: names move.
        slot.letter = (b'a'..=b'z').find(|l| !self.slots.iter().any(|s| s.letter == *l)).unwrap();
        self.slots.push(slot);
    }

    pub(super) fn new_slot(&mut self, reader: bool, serial: &str, medium: Option<usize>) {
        self.counter += 1;
        let port = format!("usb:1-{}:0", self.counter);
        let serial = serial.to_string();
        let (letter, attachment, sequence) = (0, 0, 0);
        self.attach(Slot { attachment, letter, sequence, reader, port, serial, medium, mounted: false });
    }

    pub(super) fn detach(&mut self, index: usize) {
        let slot = self.slots.remove(index);
        self.drawer.push(slot);
    }

    pub(super) fn insert(&mut self, slot: usize, medium: usize) {
        self.counter += 1;
        self.slots[slot].sequence = self.counter;
        self.slots[slot].medium = Some(medium);
        self.slots[slot].mounted = false;
    }

    /// Something happens, perhaps.
    pub(super) fn happen(&mut self) {
        self.calls += 1;
        self.clock += Duration::from_millis(1);
        if self.random.next() % 1000 >= self.chaos {
            return;
        }
        let slots = self.slots.len();
        match self.random.below(8) {
            0 if slots > 0 => {
                let index = self.random.below(slots);
                self.detach(index);
            }
            1 | 2 if !self.drawer.is_empty() => {
                let index = self.random.below(self.drawer.len());
                let slot = self.drawer.remove(index);
                self.attach(slot);
            }
            3 if slots > 0 => {
                let index = self.random.below(slots);
                if self.slots[index].reader
                    && let Some(medium) = self.slots[index].medium.take()
                {
                    self.loose.push(medium);
                }
            }
            4 | 5 => {
                let empty: Vec<usize> =
                    (0..slots).filter(|i| self.slots[*i].reader && self.slots[*i].medium.is_none()).collect();
                if !empty.is_empty() && !self.loose.is_empty() {
                    let slot = empty[self.random.below(empty.len())];
                    let medium = self.random.below(self.loose.len());
                    let medium = self.loose.remove(medium);
                    self.insert(slot, medium);
                }
            }
            // Two disks change names: both out, and in again the other way round.
            6 if slots > 1 => {
                let first = self.random.below(slots);
                let a = self.slots.remove(first);
                let second = self.random.below(slots - 1);
                let b = self.slots.remove(second);
                self.attach(b);
                self.attach(a);
            }
            7 if slots > 0 => {
                let index = self.random.below(slots);
                self.slots[index].mounted = !self.slots[index].mounted;
            }
            _ => {}
        }
    }

    fn device(&self, slot: &Slot) -> Device {
        let name = format!("sd{}", char::from(slot.letter));
        let at = format!("/media/{name}");
        let mounted = slot.mounted && slot.medium.is_some();
        Device {
            number: Number { major: 8, minor: u32::from(slot.letter - b'a') * 16 },
            sequence: self.counts_media.then_some(slot.sequence),
            size: slot.medium.map_or(0, |_| SIZE),
            sector: 512,
            physical_sector: 512,
            bus: Bus::Usb,
            port: slot.port.clone(),
            vendor: Foreign::new("Sim"),
            model: Foreign::new(if slot.reader { "Reader" } else { "Cruzer" }),
            serials: vec![Foreign::new(&slot.serial)],
            wwids: vec![],
            medium: if slot.reader { Medium::Changeable } else { Medium::Own },
            removable: true,
            read_only: false,
            uses: if mounted { vec![Use::Mounted { name: name.clone(), at }] } else { vec![] },
            backing: None,
            partitions: vec![],
            discard_max: 1 << 30,
            contents: None,
            name,
        }
    }

    fn by_name(&self, name: &str) -> Option<&Slot> {
        self.slots.iter().find(|s| name.strip_prefix("sd") == Some(&char::from(s.letter).to_string()))
    }
}

impl Site for World {
    fn devices(&self) -> io::Result<Vec<Device>> {
        let mut state = self.state();
        state.happen();
        let devices = state.slots.iter().map(|s| state.device(s)).collect();
        Ok(devices)
    }

    fn look(&self, device: &Device) -> Result<Contents, String> {
        let mut state = self.state();
        state.happen();
        let slot = state.by_name(&device.name).ok_or("gone")?;
        let now = state.device(slot);
        if (now.number, now.sequence, now.size) != (device.number, device.sequence, device.size) {
            return Err("another medium".to_string());
        }
        let medium = slot.medium.ok_or("no medium")?;
        let store = &state.stores[medium];
        let record = &store.bytes[card::OFFSET as usize..(card::OFFSET + card::SIZE) as usize];
        let mut fingerprint = [0; 32];
        // The medium's own number first: who judges the run reads it from there.
        fingerprint[0] = medium as u8;
        // Not every byte: a thousand evenings look often.
        let edges = store.bytes[..1 << 20].iter().chain(&store.bytes[5 << 20..]).step_by(64);
        for (at, byte) in edges.chain(&record[..512]).enumerate() {
            fingerprint[1 + at % 31] = fingerprint[1 + at % 31].rotate_left(3) ^ byte;
        }
        Ok(Contents {
            table: None,
            signatures: vec![],
            card: Card::decode(record),
            bramble: false,
            blank: false,
            fingerprint,
        })
    }

    fn resolve(&self, path: &Path) -> Named {
        let state = self.state();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        state.by_name(name).map_or(Named::Missing, |_| Named::Disk(name.to_string()))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Target>> {
        let mut state = self.state();
        state.happen();
        let slot = state.by_name(name).cloned().ok_or(io::ErrorKind::NotFound)?;
        let medium = slot.medium.ok_or(io::ErrorKind::NotFound)?;
        if slot.mounted || state.held.contains(&slot.attachment) {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        state.held.push(slot.attachment);
        state.opened.push(medium);
        Ok(Box::new(Open { world: self.clone(), attachment: slot.attachment, medium, changed: false }))
    }

    fn pause(&self, time: Duration) {
        let mut state = self.state();
        state.clock += time;
        state.happen();
    }

    fn elapsed(&self) -> Duration {
        self.state().clock
    }
}

/// An open descriptor.
struct Open {
    world: World,
    attachment: u64,
    medium: usize,
    changed: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.world.state().held.retain(|a| *a != self.attachment);
    }
}

impl Open {
    /// The medium that answers now.
    fn medium(&mut self, state: &mut State, happens: bool) -> io::Result<usize> {
        if happens {
            state.happen();
        }
        if state.cut_after.is_some_and(|n| state.writes >= n) {
            return Err(io::Error::other("the power is cut"));
        }
        let gone = || io::Error::other("no such device");
        let slot = state.slots.iter().find(|s| s.attachment == self.attachment).ok_or_else(gone)?;
        let medium = slot.medium.ok_or_else(gone)?;
        self.changed |= medium != self.medium;
        if self.changed && !state.sloppy {
            return Err(io::Error::other("the medium was changed"));
        }
        Ok(medium)
    }
}

impl Target for Open {
    fn facts(&mut self) -> io::Result<Facts> {
        let world = self.world.clone();
        let mut state = world.state();
        state.happen();
        let slot = state.slots.iter().find(|s| s.attachment == self.attachment);
        let slot = slot.ok_or_else(|| io::Error::other("no such device"))?;
        let device = state.device(slot);
        Ok(Facts {
            number: device.number,
            sequence: device.sequence,
            size: device.size,
            sector: 512,
            read_only: false,
        })
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(offset.is_multiple_of(512) && bytes.len().is_multiple_of(512), "whole sectors");
        let world = self.world.clone();
        let mut state = world.state();
        let happens = !state.sloppy;
        let medium = self.medium(&mut state, happens)?;
        state.writes += 1;
        let store = &mut state.stores[medium];
        let end = offset + bytes.len() as u64;
        assert!(end <= SIZE, "beyond the end");
        store.touched.push(offset..end);
        let at = match store.wraps_at {
            Some(border) if offset >= border => offset - border,
            _ => offset,
        } as usize;
        Arc::make_mut(&mut store.bytes)[at..at + bytes.len()].copy_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let world = self.world.clone();
        let mut state = world.state();
        let medium = self.medium(&mut state, true)?;
        let store = &mut state.stores[medium];
        let at = match store.wraps_at {
            Some(border) if offset >= border => offset - border,
            _ => offset,
        } as usize;
        bytes.copy_from_slice(&store.bytes[at..at + bytes.len()]);
        if store.flips > 0 {
            store.flips -= 1;
            bytes[bytes.len() / 2] ^= 4;
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let world = self.world.clone();
        let mut state = world.state();
        let medium = self.medium(&mut state, true)?;
        let store = &mut state.stores[medium];
        store.flushed = store.touched.len();
        Ok(())
    }

    fn discard(&mut self, range: Range<u64>) -> io::Result<()> {
        let world = self.world.clone();
        let mut state = world.state();
        let happens = !state.sloppy;
        let medium = self.medium(&mut state, happens)?;
        let store = &mut state.stores[medium];
        store.touched.push(range.clone());
        // What a discarded range reads as is the device's choice.
        Arc::make_mut(&mut store.bytes)[range.start as usize..range.end as usize].fill(0xd5);
        Ok(())
    }

    fn forget(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A small image: a head with a mark that firmware would start from, three ranges, zeros among them.
pub(super) struct Image {
    pub(super) seed: u64,
    pub(super) ranges: Vec<Range<u64>>,
    pub(super) broken_at: Option<u64>,
}

/// The mark in the head.
pub(super) const MARK: &[u8] = b"a table that firmware starts from";

impl Image {
    pub(super) fn new(seed: u64) -> Image {
        let ranges = vec![
            0..34 * 512,
            (1 << 20)..(1 << 20) + 200 * 512,
            (3 << 20) + 512..(4 << 20) + 3 * 512,
            // Zeros, as at the head of a data partition.
            (4 << 20) + (1 << 19)..(4 << 20) + (3 << 18),
            SIZE - 33 * 512..SIZE,
        ];
        Image { seed, ranges, broken_at: None }
    }

    /// The whole disk as it must be, with `old` where nothing is said.
    pub(super) fn applied(&self, old: &[u8], card: &Card) -> Vec<u8> {
        let mut bytes = old.to_vec();
        bytes[..1 << 20].fill(0);
        for range in &self.ranges {
            let at = range.start as usize..range.end as usize;
            self.read(range.start, &mut bytes[at]).unwrap();
        }
        let record = card::OFFSET as usize..(card::OFFSET + card::SIZE) as usize;
        bytes[record].copy_from_slice(&card.encode());
        bytes
    }
}

impl Content for Image {
    fn size(&self) -> u64 {
        SIZE
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        self.ranges.clone()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if self.broken_at.is_some_and(|at| (offset..offset + out.len() as u64).contains(&at)) {
            return Err(io::Error::other("the release is gone"));
        }
        out.fill(0);
        for (index, range) in self.ranges.iter().enumerate().filter(|(i, _)| *i != 3) {
            let (from, to) = (range.start.max(offset), range.end.min(offset + out.len() as u64));
            for sector in (from..to).step_by(512) {
                let mut random = Random(self.seed ^ sector ^ (index as u64) << 40);
                let part = &mut out[(sector - offset) as usize..(sector - offset + 512) as usize];
                for word in part.chunks_mut(8) {
                    word.copy_from_slice(&random.next().to_le_bytes());
                }
            }
        }
        if offset == 0 && out.len() >= MARK.len() {
            out[..MARK.len()].copy_from_slice(MARK);
        }
        Ok(())
    }
}
