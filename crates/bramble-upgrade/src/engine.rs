//! The order of writes.
//!
//! **Invariant.** At every instant, whatever subset of the unflushed writes is on the medium and whatever the switch's
//! sector holds, every slot that firmware can start is whole: its boot image, root and tree are those of one signed
//! manifest. And the committed slot is never written.
//!
//! 1. journal: writing;
//! 2. the other slot's boot head and manifest are zeroed, flush: it starts no more, so that it may be torn;
//! 3. root, tree on the way, then the boot image without its head, then zeros behind it; flush;
//! 4. the manifest; flush; everything is read back from the medium and held against the manifest;
//! 5. the boot head; flush; read back: from here on the slot starts;
//! 6. journal: staged; journal: trying, which counts a try; variables that are stronger than the switch are removed;
//!    the trial is asked for;
//! 7. in the trial: journal only, and only when it goes back;
//! 8. healthy: variables again, the switch's one sector, flush, read back; journal: committed.
//!
//! A trial that failed is made unbootable (2) before the journal says so: with garbage in the switch a boot loader
//! takes the newest slot that has a head.

use crate::gate::Before;
use crate::journal::{self, COPY, Entry, Found};
use crate::media::{Area, BootFlag, Content, Media, Refusal, Sink};
use crate::reason::Reason;
use crate::state::{First, NoEdge, Phase, Record, Started, Target, Verdict};
use crate::verity;
use bramble_api::layout::{BLOCK, MANIFEST_SIZE, SECTOR};
use sha2::{Digest, Sha256};

/// What is written last of a boot image, and zeroed to make it unbootable: the sector with the signature of a PE file, or
/// of a FAT. One sector, because a cut may leave any part of a longer write: with the first of eight sectors on the medium
/// systemd-boot lists a UKI whose rest is not there (found by the simulator).
pub const HEAD: u64 = SECTOR;
/// Bytes that are read, compared and written at once: enough to keep a card busy, small for a machine of 512 MiB.
const STEP: usize = 1 << 20;
/// Written bytes between two flushes: a card that is told late has much to lose, one that is told often is slow.
const FLUSH: u64 = 16 << 20;

/// A release as it must lie in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its names.
    pub target: Target,
    /// Root and tree.
    pub verity: verity::Tree,
    /// Bytes of what firmware loads, without padding.
    pub boot_size: u64,
    /// Their SHA-256.
    pub boot_sha256: [u8; 32],
    /// The signed manifest as it lies at the end of the slot, [`MANIFEST_SIZE`] bytes.
    pub manifest: Vec<u8>,
}

/// Why the engine stopped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The release, the source or the medium; it is in the journal, where that could be written.
    #[error("{0}")]
    Verdict(Verdict),
    /// The machine is elsewhere.
    #[error(transparent)]
    NoEdge(#[from] NoEdge),
    /// The journal is of a newer agent.
    #[error("the journal has format {0}, which is newer than this agent")]
    TooNew(u32),
}

impl Stop {
    /// The reason, where there is one.
    pub fn reason(&self) -> Option<Reason> {
        match self {
            Stop::Verdict(verdict) => Some(verdict.reason),
            Stop::NoEdge(_) | Stop::TooNew(_) => None,
        }
    }
}

/// What a start comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Now {
    /// The committed slot runs.
    Settled,
    /// This is the trial of a release.
    Trial,
}

/// Called with bytes done and bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(u64, u64);

/// The journal in hand, and the media under it.
pub struct Engine<M, F> {
    /// The disk.
    pub media: M,
    /// The firmware's own memory.
    pub flag: F,
    entry: Entry,
    /// What was out of order and was put right, or what a person should know; one sentence each.
    pub notes: Vec<String>,
    written: u64,
    /// How much of `written` is in the journal.
    counted: u64,
}

impl<M: Media, F: BootFlag> Engine<M, F> {
    /// Reads the journal; a machine without one is taken as it runs.
    ///
    /// # Errors
    /// The journal is newer than this agent, or cannot be written: then nothing may be begun.
    pub fn open(mut media: M, flag: F, running: Record) -> Result<Self, Stop> {
        let copies = media.journals();
        let mut notes = Vec::new();
        let found = journal::read([&copies[0], &copies[1]]);
        let (entry, is_new) = match found {
            Found::Newest(entry) => (entry, false),
            Found::TooNew(format) => return Err(Stop::TooNew(format)),
            Found::Nothing => (Entry { number: 0, record: running }, true),
            Found::Lost => {
                notes.push("the journal of updates was lost; what runs is taken as committed".into());
                (Entry { number: 0, record: running }, true)
            }
        };
        let mut engine = Engine { media, flag, entry, notes, written: 0, counted: 0 };
        if is_new {
            let record = engine.entry.record.clone();
            engine.save(record)?;
        }
        Ok(engine)
    }

    /// What the journal says.
    pub fn record(&self) -> &Record {
        &self.entry.record
    }

    /// Bytes that this engine wrote to flash.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// The slot that the switch names now.
    ///
    /// # Errors
    /// The medium's refusal.
    pub fn switch(&mut self) -> Result<Option<bramble_api::names::Slot>, Stop> {
        let mut sector = [0; SECTOR as usize];
        self.media.read(Area::Switch, 0, &mut sector).map_err(medium)?;
        Ok(self.media.scheme().slot_of(&sector))
    }

    /// Puts right what a cut has left, once after each start and before anything else.
    ///
    /// # Errors
    /// The medium, the firmware or the journal refuse; the next start does it again.
    pub fn recover(&mut self, started: &Started) -> Result<Now, Stop> {
        let record = self.entry.record.clone();
        match record.after(started) {
            First::Nothing => self.mend_switch(started)?,
            First::Judge => {
                // With garbage there the boot loader took the newest slot, and would take it again when this trial goes
                // back.
                if started.switch.is_none() {
                    self.mend_switch(started)?;
                }
                if matches!(record.phase, Phase::Staged { .. }) {
                    self.notes.push("the switch was garbage, and what was staged is on trial".into());
                    self.save(record.ask(Before::default())?)?;
                }
                return Ok(Now::Trial);
            }
            First::Keep => self.save(record.keep()?)?,
            First::Over(verdict) => {
                if started.pending {
                    self.flag.withdraw().map_err(medium)?;
                }
                self.mend_switch(started)?;
                self.end(verdict)?;
            }
            First::FellOver(verdict) => {
                self.notes.push(format!("slot {} runs: {verdict}", started.running.letter()));
                self.set_switch(started.running)?;
                self.save(record.fell_over(started.release.clone(), verdict))?;
            }
        }
        Ok(Now::Settled)
    }

    /// The trial is over and the committed slot runs.
    fn end(&mut self, verdict: Verdict) -> Result<(), Stop> {
        let record = self.entry.record.clone();
        if record.may_try_again(&verdict) {
            return self.save(record.try_again(verdict)?);
        }
        self.condemn()?;
        let record = record.give_up(verdict)?;
        self.save(record)
    }

    /// Writes a release into the other slot, reads it back, and says that it is staged.
    ///
    /// # Errors
    /// What is wrong with the release, its source or the medium. The slot then starts nothing, and the journal says why.
    pub fn install(
        &mut self,
        release: &Release,
        content: &mut dyn Content,
        progress: Progress<'_>,
    ) -> Result<(), Stop> {
        self.check_room(release)?;
        self.save(self.entry.record.begin(release.target.clone())?)?;
        match self.write(release, content, progress) {
            Ok(()) => self.save(self.entry.record.written()?),
            Err(verdict) => {
                let record = self.entry.record.give_up(verdict.clone())?;
                self.save(record)?;
                Err(Stop::Verdict(verdict))
            }
        }
    }

    fn check_room(&self, release: &Release) -> Result<(), Stop> {
        let other = self.entry.record.other();
        let root = release.verity.data.saturating_add(release.verity.tree);
        let room = self.media.size(Area::Root(other)).saturating_sub(MANIFEST_SIZE);
        let boot = self.media.size(Area::Boot(other));
        let verdict = if root > room || release.manifest.len() as u64 != MANIFEST_SIZE {
            Verdict::new(Reason::SlotTooSmall, format!("the root has {root} bytes, its slot {room}"))
        } else if release.boot_size > boot || release.boot_size <= HEAD {
            let size = release.boot_size;
            Verdict::new(Reason::SlotTooSmall, format!("the boot image has {size} bytes, its place {boot}"))
        } else {
            return Ok(());
        };
        Err(Stop::Verdict(verdict))
    }

    fn write(
        &mut self,
        release: &Release,
        content: &mut dyn Content,
        progress: Progress<'_>,
    ) -> Result<(), Verdict> {
        let other = self.entry.record.other();
        let (root, boot) = (Area::Root(other), Area::Boot(other));
        let manifest_at = self.media.size(root) - MANIFEST_SIZE;
        self.condemn().map_err(verdict_of)?;
        self.put(root, manifest_at, &vec![0; BLOCK as usize])?;
        self.flush()?;

        let mut writer = Writer::new(self, release, progress);
        content.pour(&mut writer)?;
        let head = writer.finish()?;
        self.flush()?;
        self.put(root, manifest_at, &release.manifest)?;
        self.flush()?;
        self.read_back(release, &head)?;
        self.put(boot, 0, &head)?;
        self.flush()?;
        self.expect(boot, 0, &head, "the head of the boot image")
    }

    /// Holds what is on the medium against the manifest, but for the boot head, which is not there yet.
    fn read_back(&mut self, release: &Release, head: &[u8]) -> Result<(), Verdict> {
        let other = self.entry.record.other();
        let (root, boot) = (Area::Root(other), Area::Boot(other));
        let manifest_at = self.media.size(root) - MANIFEST_SIZE;
        self.expect(root, manifest_at, &release.manifest, "the manifest")?;
        let media = &mut self.media;
        // What came in had this root hash: what is wrong here is the medium's doing.
        release.verity.check(STEP, |offset, out| media.read(root, offset, out)).map_err(
            |wrong| match wrong {
                verity::Wrong::Read(refusal) => of_medium(refusal),
                wrong => Verdict::new(Reason::ReadBack, wrong.to_string()),
            },
        )?;
        let mut hash = Sha256::new_with_prefix(head);
        let mut bytes = vec![0; STEP];
        let mut at = HEAD;
        while at < release.boot_size {
            // Whole sectors are read; the image may end within one.
            let length = (release.boot_size - at).min(STEP as u64) as usize;
            let whole = length.next_multiple_of(SECTOR as usize);
            self.media.read(boot, at, &mut bytes[..whole]).map_err(of_medium)?;
            hash.update(&bytes[..length]);
            at += length as u64;
        }
        match hash.finalize()[..] == release.boot_sha256 {
            true => Ok(()),
            false => {
                Err(Verdict::new(Reason::ReadBack, "the boot image did not read back as it was written"))
            }
        }
    }

    /// Counts a try and asks for the trial of what is staged. The machine must then restart cleanly. `before` is what does
    /// not work now.
    ///
    /// # Errors
    /// The firmware does not take the request; nothing is staged.
    pub fn ask(&mut self, before: Before) -> Result<(), Stop> {
        self.save(self.entry.record.ask(before)?)?;
        let slot = self.entry.record.other();
        let asked = self.clear_overrides().and_then(|()| self.flag.ask(slot).map_err(medium));
        let Err(stop) = asked else { return Ok(()) };
        let why = Verdict::new(Reason::NotApplied, stop.to_string());
        // It may stand half: what is taken back now cannot surprise at the next start.
        let _ = self.flag.withdraw();
        self.end(why.clone())?;
        Err(Stop::Verdict(why))
    }

    /// The trial goes back and says why; the machine must then restart. What cannot be written is no reason to stay.
    ///
    /// # Errors
    /// The journal cannot be written.
    pub fn judge(&mut self, verdict: Verdict) -> Result<(), Stop> {
        self.save(self.entry.record.judge(verdict)?)
    }

    /// The trial is healthy: its slot is the committed one from here on.
    ///
    /// # Errors
    /// The medium, the firmware or the journal refuse; the next start, of either slot, goes on from there.
    pub fn keep(&mut self) -> Result<(), Stop> {
        let next = self.entry.record.keep()?;
        self.set_switch(next.committed)?;
        self.save(next)
    }

    /// A person asks to go back to the release before. The machine must then restart.
    ///
    /// # Errors
    /// Something is under way, or the other slot is not whole.
    pub fn go_back(&mut self, other: Target, whole: bool) -> Result<(), Stop> {
        let record = self.entry.record.clone();
        if record.phase != Phase::Idle || !whole {
            let why = "the other slot holds no whole release, or something is under way";
            return Err(Stop::Verdict(Verdict::new(Reason::Asked, why)));
        }
        self.set_switch(record.other())?;
        self.save(record.fell_over(other, Verdict::new(Reason::Asked, "a person went back")))?;
        // It is newer than what is committed now: with garbage in the switch a boot loader would take it. Its kernel
        // runs from memory.
        self.condemn()
    }

    /// Makes the other slot start nothing.
    fn condemn(&mut self) -> Result<(), Stop> {
        let boot = Area::Boot(self.entry.record.other());
        let zeros = vec![0; HEAD as usize];
        let mut now = vec![0; HEAD as usize];
        self.media.read(boot, 0, &mut now).map_err(medium)?;
        if now != zeros {
            self.put(boot, 0, &zeros).map_err(Stop::Verdict)?;
        }
        self.flush().map_err(Stop::Verdict)?;
        self.expect(boot, 0, &zeros, "the zeroed head").map_err(Stop::Verdict)
    }

    fn mend_switch(&mut self, started: &Started) -> Result<(), Stop> {
        let committed = self.entry.record.committed;
        if started.switch == Some(committed) {
            return Ok(());
        }
        self.notes.push(format!("the switch did not name slot {}, and was mended", committed.letter()));
        self.set_switch(committed)
    }

    fn set_switch(&mut self, slot: bramble_api::names::Slot) -> Result<(), Stop> {
        self.clear_overrides()?;
        let sector = self.media.scheme().switch(slot);
        self.put(Area::Switch, 0, &sector).map_err(Stop::Verdict)?;
        self.flush().map_err(Stop::Verdict)?;
        self.expect(Area::Switch, 0, &sector, "the switch").map_err(Stop::Verdict)
    }

    fn clear_overrides(&mut self) -> Result<(), Stop> {
        for name in self.flag.clear_overrides().map_err(medium)? {
            self.notes
                .push(format!("the firmware variable {name} was stronger than the switch, and was removed"));
        }
        Ok(())
    }

    /// Writes the record as the next one; the copy that holds the latest is not touched.
    fn save(&mut self, record: Record) -> Result<(), Stop> {
        // With the record itself.
        let written = self.written + COPY as u64;
        let record = record.spent(written - self.counted);
        let entry = Entry { number: self.entry.number + 1, record };
        let refused = |why: String| Stop::Verdict(Verdict::new(Reason::NoJournal, why));
        let bytes = journal::encode(&entry).map_err(|error| refused(error.to_string()))?;
        let copy = journal::copy_of(entry.number);
        self.media.write_journal(copy, &bytes).map_err(|refusal| refused(refusal.to_string()))?;
        (self.written, self.counted) = (written, written);
        self.entry = entry;
        Ok(())
    }

    /// Writes the blocks that the medium does not hold yet: each write wears a card, and most of a release is the one
    /// before. Gives the bytes written.
    fn put_changed(&mut self, area: Area, at: u64, new: &[u8], old: &mut Vec<u8>) -> Result<u64, Verdict> {
        old.resize(new.len(), 0);
        self.media.read(area, at, old).map_err(of_medium)?;
        let block = BLOCK as usize;
        let end = |from: usize| new.len().min(from + block);
        let changed = |from: usize| new[from..end(from)] != old[from..end(from)];
        let mut written = 0;
        let mut from = 0;
        while from < new.len() {
            if !changed(from) {
                from += block;
                continue;
            }
            let start = from;
            while from < new.len() && changed(from) {
                from += block;
            }
            let end = from.min(new.len());
            self.put(area, at + start as u64, &new[start..end])?;
            written += (end - start) as u64;
        }
        Ok(written)
    }

    fn put(&mut self, area: Area, at: u64, bytes: &[u8]) -> Result<(), Verdict> {
        self.written += bytes.len() as u64;
        self.media.write(area, at, bytes).map_err(of_medium)
    }

    fn flush(&mut self) -> Result<(), Verdict> {
        self.media.flush().map_err(of_medium)
    }

    fn expect(&mut self, area: Area, at: u64, bytes: &[u8], what: &str) -> Result<(), Verdict> {
        let mut read = vec![0; bytes.len()];
        self.media.read(area, at, &mut read).map_err(of_medium)?;
        match read == bytes {
            true => Ok(()),
            false => {
                Err(Verdict::new(Reason::ReadBack, format!("{what} did not read back as it was written")))
            }
        }
    }
}

/// Lays a release down: what changes, flushed now and then, the head of the boot image kept back.
struct Writer<'e, M, F> {
    engine: &'e mut Engine<M, F>,
    release: &'e Release,
    progress: Progress<'e>,
    tree: verity::Builder,
    hash: Sha256,
    head: Vec<u8>,
    /// Bytes of root and boot image that came.
    root: u64,
    boot: u64,
    old: Vec<u8>,
    since_flush: u64,
}

impl<'e, M: Media, F: BootFlag> Writer<'e, M, F> {
    fn new(engine: &'e mut Engine<M, F>, release: &'e Release, progress: Progress<'e>) -> Self {
        Writer {
            tree: verity::Builder::new(&release.verity.salt, release.verity.data),
            engine,
            release,
            progress,
            hash: Sha256::new(),
            head: Vec::new(),
            root: 0,
            boot: 0,
            old: Vec::new(),
            since_flush: 0,
        }
    }

    fn area(&self, of: fn(bramble_api::names::Slot) -> Area) -> Area {
        of(self.engine.entry.record.other())
    }

    fn put(&mut self, area: Area, at: u64, bytes: &[u8]) -> Result<(), Verdict> {
        for (index, step) in bytes.chunks(STEP).enumerate() {
            let at = at + (index * STEP) as u64;
            self.since_flush += self.engine.put_changed(area, at, step, &mut self.old)?;
            if self.since_flush >= FLUSH {
                self.since_flush = 0;
                self.engine.flush()?;
            }
        }
        Ok(())
    }

    /// The image's bytes as they come must be whole blocks, and no more than there are.
    fn check(&self, at: u64, bytes: &[u8], size: u64) -> Result<(), Verdict> {
        let end = at + bytes.len() as u64;
        match (bytes.len() as u64).is_multiple_of(BLOCK) && end <= size.next_multiple_of(BLOCK) {
            true => Ok(()),
            false => Err(Verdict::new(Reason::BadPack, "the pack has more than the manifest says")),
        }
    }

    fn tell(&mut self) {
        let total = self.release.verity.data + self.release.boot_size;
        (self.progress)((self.root + self.boot).min(total), total);
    }

    /// Writes the rest of the tree, zeros behind the boot image; gives the boot image's head.
    fn finish(mut self) -> Result<Vec<u8>, Verdict> {
        let tree = std::mem::replace(&mut self.tree, verity::Builder::new(&[], 0));
        let (area, start) = (self.area(Area::Root), self.release.verity.data);
        let root = tree.finish(|at, block| self.put(area, start + at, block))?;
        if root != Some(self.release.verity.root) {
            return Err(Verdict::new(Reason::BadPack, "the root is not the manifest's"));
        }
        let hash = std::mem::replace(&mut self.hash, Sha256::new()).finalize();
        if self.boot < self.release.boot_size || hash[..] != self.release.boot_sha256 {
            return Err(Verdict::new(Reason::BadPack, "the boot image is not the manifest's"));
        }
        // What an earlier and longer image left: a UKI's place is zeros to its end.
        let area = self.area(Area::Boot);
        let room = self.engine.media.size(area);
        let zeros = vec![0; STEP];
        let mut at = self.boot;
        while at < room {
            let length = (room - at).min(STEP as u64);
            self.put(area, at, &zeros[..length as usize])?;
            at += length;
        }
        Ok(self.head)
    }
}

impl<M: Media, F: BootFlag> Sink for Writer<'_, M, F> {
    fn root(&mut self, blocks: &[u8]) -> Result<(), Verdict> {
        self.check(self.root, blocks, self.release.verity.data)?;
        let (area, start) = (self.area(Area::Root), self.release.verity.data);
        self.put(area, self.root, blocks)?;
        self.root += blocks.len() as u64;
        let mut tree = std::mem::replace(&mut self.tree, verity::Builder::new(&[], 0));
        let pushed = tree.push(blocks, |at, block| self.put(area, start + at, block));
        self.tree = tree;
        self.tell();
        pushed
    }

    fn boot(&mut self, blocks: &[u8]) -> Result<(), Verdict> {
        self.check(self.boot, blocks, self.release.boot_size)?;
        let counted = self.release.boot_size.saturating_sub(self.boot).min(blocks.len() as u64);
        self.hash.update(&blocks[..counted as usize]);
        let area = self.area(Area::Boot);
        // The head apart: all other bytes of the image are on the medium before it.
        let kept = match self.boot {
            0 => blocks.len().min(HEAD as usize),
            _ => 0,
        };
        self.head.extend_from_slice(&blocks[..kept]);
        self.put(area, self.boot + kept as u64, &blocks[kept..])?;
        self.boot += blocks.len() as u64;
        self.tell();
        Ok(())
    }
}

fn of_medium(refusal: Refusal) -> Verdict {
    Verdict::new(Reason::Medium, refusal.to_string())
}

fn medium(refusal: Refusal) -> Stop {
    Stop::Verdict(of_medium(refusal))
}

fn verdict_of(stop: Stop) -> Verdict {
    match stop {
        Stop::Verdict(verdict) => verdict,
        other => Verdict::new(Reason::Medium, other.to_string()),
    }
}
