//! A machine's disk: a medium ([`overlay`]) under a volatile cache.
//!
//! A write lands in the cache: its bytes go to the end of a journal file, so that memory stays small however much a
//! guest writes, and reads see it from there. A flush moves the cache to the medium. When the power is cut, a
//! seeded subset of what is still in the cache reaches the medium ([`fate`]) and the rest is lost; when the host
//! process dies, all of it is lost. Both are what a real drive may do.

mod extents;
mod fate;
mod overlay;
pub mod server;
pub(crate) mod snapshot;

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc::Sender;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Refusal;
use crate::spec::BaseSegment;
use crate::wire::CutReport;
use extents::{Extents, Source};
use fate::{Fate, fates, sector_kept};
pub(crate) use overlay::DiskRecord;
use overlay::Overlay;

/// The smallest thing a disk writes in one piece.
const SECTOR: u64 = 512;

/// A drive moves its cache to the medium when it is full, unasked. Drives have up to 256 MiB.
const CACHE_BYTES: u64 = 256 << 20;
/// Bounds the memory for the list of writes to about 10 MiB.
const CACHE_WRITES: usize = 100_000;

/// Bytes moved from journal to medium at a time.
const MOVE_BYTES: u64 = 1 << 20;

/// Why a request of the guest was not served.
#[derive(Debug)]
pub(crate) enum DiskError {
    /// The range is not on the disk.
    Outside,
    /// The disk has no power.
    NoPower,
    /// This computer said no.
    System(io::Error),
}

impl From<io::Error> for DiskError {
    fn from(error: io::Error) -> DiskError {
        DiskError::System(error)
    }
}

/// One disk. Its methods are atomic towards each other.
#[derive(Debug)]
pub(crate) struct Disk {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    medium: Overlay,
    journal: File,
    journal_end: u64,
    /// What was written since the last flush, oldest first.
    cached: Vec<Write>,
    cached_bytes: u64,
    /// The same, by place: what a read sees.
    current: Extents,
    powered: bool,
    /// A planned cut: writes left until the power goes, and who wants to know.
    fuse: Option<(u32, Sender<()>)>,
}

#[derive(Clone, Debug)]
struct Write {
    range: Range<u64>,
    source: Source,
    /// Forced to the medium by the guest: a cut keeps it, in its place among the others.
    forced: bool,
}

impl Disk {
    /// Opens the disk of a directory; what was in the cache when the last host died is lost.
    pub(crate) fn open(machine: &str, dir: &Path, record: &DiskRecord) -> Result<Disk, Refusal> {
        let medium = Overlay::open(machine, dir, record)?;
        let path = dir.join("disk.cache");
        let journal = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .map_err(|e| Refusal::io("make", &path, &e))?;
        let state = State {
            medium,
            journal,
            journal_end: 0,
            cached: Vec::new(),
            cached_bytes: 0,
            current: Extents::default(),
            powered: true,
            fuse: None,
        };
        Ok(Disk { state: Mutex::new(state) })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held is a bug, but the state is changed last in every method.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Bytes of the disk.
    pub(crate) fn size(&self) -> u64 {
        self.lock().medium.size()
    }

    /// Writes in the cache, and their bytes.
    pub(crate) fn unflushed(&self) -> (usize, u64) {
        let state = self.lock();
        (state.cached.len(), state.cached_bytes)
    }

    /// Reads.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let state = self.lock();
        let range = state.range(offset, buffer.len() as u64)?;
        if state.current.is_empty() {
            return Ok(state.medium.read(offset, buffer)?);
        }
        for (piece, source) in state.current.pieces(range) {
            let part = &mut buffer[(piece.start - offset) as usize..(piece.end - offset) as usize];
            match source {
                None => state.medium.read(piece.start, part)?,
                Some(Source::Zero) => part.fill(0),
                Some(Source::Journal(at)) => state.journal.read_exact_at(part, at)?,
            }
        }
        Ok(())
    }

    /// Writes into the cache, and through it when `force` is set.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8], force: bool) -> Result<(), DiskError> {
        let mut state = self.lock();
        let range = state.range(offset, bytes.len() as u64)?;
        let at = state.journal_end;
        state.journal.write_all_at(bytes, at)?;
        if force {
            state.medium.write(offset, bytes)?;
        }
        state.journal_end += bytes.len() as u64;
        state.admit(Write { range, source: Source::Journal(at), forced: force })
    }

    /// Makes a range zero, in the same way. Discarded ranges are made zero too.
    pub(crate) fn zero(&self, offset: u64, length: u64, force: bool) -> Result<(), DiskError> {
        let mut state = self.lock();
        let range = state.range(offset, length)?;
        if force {
            state.medium.zero(offset, length)?;
        }
        state.admit(Write { range, source: Source::Zero, forced: force })
    }

    /// Moves the cache to the medium. When that fails the cache is as before, and a later flush tries again.
    pub(crate) fn flush(&self) -> Result<(), DiskError> {
        let mut state = self.lock();
        state.powered.then_some(()).ok_or(DiskError::NoPower)?;
        Ok(state.destage()?)
    }

    /// Takes the power away now: no request is served any more. What is in the cache waits for [`Disk::settle`].
    pub(crate) fn stop(&self) {
        let mut state = self.lock();
        state.powered = false;
        state.fuse = None;
    }

    /// Takes the power away after so many more writes, and says so then; at once for 0.
    pub(crate) fn stop_after(&self, writes: u32, told: Sender<()>) {
        let mut state = self.lock();
        if writes == 0 {
            state.powered = false;
            // Nobody waits any more when the channel is closed.
            let _ = told.send(());
        } else {
            state.fuse = Some((writes, told));
        }
    }

    /// Takes a planned cut back.
    pub(crate) fn disarm(&self) {
        self.lock().fuse = None;
    }

    /// Lets `seed` decide what of the cache reached the medium, and forgets the rest. Call it when nobody uses the
    /// disk any more.
    pub(crate) fn settle(&self, seed: u64) -> io::Result<CutReport> {
        self.lock().settle(seed)
    }

    /// Writes pieces of files, and zeros, straight to the medium.
    pub(crate) fn flash(&self, pieces: &[BaseSegment], zeros: &[Range<u64>]) -> Result<(), Refusal> {
        let mut state = self.lock();
        let size = state.medium.size();
        let inside = |start: u64, length: u64| start.checked_add(length).is_some_and(|end| end <= size);
        if !pieces.iter().all(|p| inside(p.start, p.length)) || !zeros.iter().all(|z| z.end <= size) {
            return Err(Refusal::BadSpec {
                what: format!("a piece passes the end of a disk of {size} bytes"),
            });
        }
        for range in zeros.iter().filter(|z| !z.is_empty()) {
            let zeroed = state.medium.zero(range.start, range.end - range.start);
            zeroed.map_err(|e| Refusal::io("write", Path::new("the disk"), &e))?;
        }
        let mut buffer = Vec::new();
        for piece in pieces {
            let failed = |e: &io::Error| Refusal::io("copy", &piece.path, e);
            let file = File::open(&piece.path).map_err(|e| failed(&e))?;
            let mut done = 0;
            while done < piece.length {
                let part = (piece.length - done).min(MOVE_BYTES);
                buffer.resize(part as usize, 0);
                file.read_exact_at(&mut buffer, piece.offset + done).map_err(|e| failed(&e))?;
                state.medium.write(piece.start + done, &buffer).map_err(|e| failed(&e))?;
                done += part;
            }
        }
        Ok(())
    }

    /// Moves the whole cache to the medium: the machine stopped, the disk kept its power.
    pub(crate) fn keep(&self) -> io::Result<()> {
        self.lock().destage()
    }
}

impl State {
    fn range(&self, offset: u64, length: u64) -> Result<Range<u64>, DiskError> {
        if !self.powered {
            return Err(DiskError::NoPower);
        }
        match offset.checked_add(length) {
            Some(end) if end <= self.medium.size() => Ok(offset..end),
            _ => Err(DiskError::Outside),
        }
    }

    /// Takes a write whose bytes are in the journal into the cache.
    fn admit(&mut self, write: Write) -> Result<(), DiskError> {
        if matches!(write.source, Source::Journal(_)) {
            self.cached_bytes += write.range.end - write.range.start;
        }
        self.current.insert(write.range.clone(), write.source);
        self.cached.push(write);
        if let Some((left, told)) = &mut self.fuse {
            *left -= 1;
            if *left == 0 {
                let _ = told.send(());
                self.powered = false;
                self.fuse = None;
                return Ok(());
            }
        }
        if self.cached_bytes > CACHE_BYTES || self.cached.len() > CACHE_WRITES {
            self.destage()?;
        }
        Ok(())
    }

    fn destage(&mut self) -> io::Result<()> {
        let mut buffer = Vec::new();
        for (range, source) in self.current.iter() {
            store(&mut self.medium, &self.journal, &mut buffer, range, source)?;
        }
        self.forget()
    }

    fn settle(&mut self, seed: u64) -> io::Result<CutReport> {
        let sectors = |r: &Range<u64>| r.end.div_ceil(SECTOR) - r.start / SECTOR;
        let counts: Vec<u64> = self.cached.iter().map(|w| sectors(&w.range)).collect();
        let mut report = CutReport { seed, ..CutReport::default() };
        let mut buffer = Vec::new();
        // In the order they came: where two kept writes overlap, the later one is on the medium.
        for (write, fate) in self.cached.iter().zip(fates(seed, &counts)) {
            let whole = |medium: &mut Overlay, buffer: &mut Vec<u8>| {
                store(medium, &self.journal, buffer, write.range.clone(), write.source)
            };
            match fate {
                _ if write.forced => {
                    whole(&mut self.medium, &mut buffer)?;
                    report.kept += 1;
                }
                Fate::Kept => {
                    whole(&mut self.medium, &mut buffer)?;
                    report.kept += 1;
                }
                Fate::Dropped => report.dropped += 1,
                Fate::Torn(which) => {
                    let (first, count) = (write.range.start / SECTOR, sectors(&write.range));
                    for index in (0..count).filter(|i| sector_kept(which, *i, count)) {
                        let start = ((first + index) * SECTOR).max(write.range.start);
                        let end = ((first + index + 1) * SECTOR).min(write.range.end);
                        let source = write.source.skip(start - write.range.start);
                        store(&mut self.medium, &self.journal, &mut buffer, start..end, source)?;
                    }
                    report.torn += 1;
                }
            }
        }
        self.forget()?;
        Ok(report)
    }

    /// Empties the cache.
    fn forget(&mut self) -> io::Result<()> {
        self.current.clear();
        self.cached.clear();
        self.cached_bytes = 0;
        self.journal_end = 0;
        self.journal.set_len(0)
    }
}

/// Copies one range to the medium.
fn store(
    medium: &mut Overlay,
    journal: &File,
    buffer: &mut Vec<u8>,
    range: Range<u64>,
    source: Source,
) -> io::Result<()> {
    let Source::Journal(at) = source else {
        return medium.zero(range.start, range.end - range.start);
    };
    let mut done = 0;
    while done < range.end - range.start {
        let part = (range.end - range.start - done).min(MOVE_BYTES);
        buffer.resize(part as usize, 0);
        journal.read_exact_at(buffer, at + done)?;
        medium.write(range.start + done, buffer)?;
        done += part;
    }
    Ok(())
}

#[cfg(test)]
mod tests;
