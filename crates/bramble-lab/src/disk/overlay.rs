//! What is on the medium: the files the disk was made from, under a sparse file of what was written since.
//!
//! Two files hold the writes: `disk.data`, sparse, a byte of the disk at the same place; and `disk.map`, one bit
//! for each 4 KiB granule that says whether the granule is in `disk.data`. Data is written before its bit. The
//! host process may die between any two lines: a granule whose bit is missing then reads as before the write,
//! which was not acknowledged yet. (Nothing is synced to this computer's own disk: a lab survives the death of
//! its host process, not a power cut of the computer, and a guest's flush costs no real one.)

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use crate::error::Refusal;
use crate::layout::replace;
use crate::spec::BaseSegment;

/// Guests write pages, so that a granule of one page is hardly ever copied up; the map of 32 GiB is 1 MiB.
const GRANULE: u64 = 4096;

/// What a disk was made from. Kept beside it, because it never changes while the disk exists.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DiskRecord {
    /// Bytes.
    pub(crate) size: u64,
    /// What it was made from.
    pub(crate) base: Vec<BaseSegment>,
    /// Length and time of change, in nanoseconds, of each base file when the disk was made.
    seen: Vec<(u64, i128)>,
}

impl DiskRecord {
    /// The record of the disk in a directory; `None` when there is no disk.
    pub(crate) fn read(dir: &Path) -> Result<Option<DiskRecord>, Refusal> {
        let path = dir.join("disk.json");
        match std::fs::read(&path) {
            Ok(bytes) => {
                serde_json::from_slice(&bytes).map(Some).map_err(|e| Refusal::io("read", &path, &e.into()))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Refusal::io("read", &path, &e)),
        }
    }

    /// Makes an empty disk over `base`. The record comes last: without it there is no disk.
    pub(crate) fn create(dir: &Path, size: u64, base: &[BaseSegment]) -> Result<DiskRecord, Refusal> {
        let mut seen = Vec::new();
        for segment in base {
            let file = File::open(&segment.path).map_err(|e| Refusal::io("open", &segment.path, &e))?;
            let meta = file.metadata().map_err(|e| Refusal::io("look at", &segment.path, &e))?;
            if meta.is_file() && meta.len() < segment.offset.saturating_add(segment.length) {
                let e = io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    "it is shorter than the part that is asked for",
                );
                return Err(Refusal::io("use", &segment.path, &e));
            }
            seen.push(identity(&meta));
        }
        for name in ["disk.data", "disk.map"] {
            let path = dir.join(name);
            let file = private().create(true).truncate(true).open(&path);
            let length = if name == "disk.data" { size } else { map_bytes(size) };
            file.and_then(|f| f.set_len(length)).map_err(|e| Refusal::io("make", &path, &e))?;
        }
        let record = DiskRecord { size, base: base.to_vec(), seen };
        let path = dir.join("disk.json");
        let text = serde_json::to_vec_pretty(&record).map_err(|e| Refusal::io("write", &path, &e.into()))?;
        replace(&path, &text).map_err(|e| Refusal::io("write", &path, &e))?;
        Ok(record)
    }
}

fn identity(meta: &std::fs::Metadata) -> (u64, i128) {
    (meta.len(), i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec()))
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

fn map_bytes(size: u64) -> u64 {
    size.div_ceil(GRANULE).div_ceil(64) * 8
}

/// The medium of one disk.
#[derive(Debug)]
pub(crate) struct Overlay {
    size: u64,
    base: Vec<(BaseSegment, File)>,
    data: File,
    map: File,
    bits: Vec<u64>,
}

impl Overlay {
    /// Opens the disk of a directory.
    pub(crate) fn open(machine: &str, dir: &Path, record: &DiskRecord) -> Result<Overlay, Refusal> {
        let mut base = Vec::new();
        for (segment, seen) in record.base.iter().zip(&record.seen) {
            let path = &segment.path;
            let file = File::open(path).map_err(|e| Refusal::io("open", path, &e))?;
            let meta = file.metadata().map_err(|e| Refusal::io("look at", path, &e))?;
            if identity(&meta) != *seen {
                return Err(Refusal::BaseChanged { machine: machine.into(), path: path.clone() });
            }
            base.push((segment.clone(), file));
        }
        base.sort_by_key(|(segment, _)| segment.start);
        let open = |name| {
            let path = dir.join(name);
            private().open(&path).map_err(|e| Refusal::io("open", &path, &e))
        };
        let (data, map) = (open("disk.data")?, open("disk.map")?);
        let mut bytes = vec![0; map_bytes(record.size) as usize];
        map.read_exact_at(&mut bytes, 0).map_err(|e| Refusal::io("read", &dir.join("disk.map"), &e))?;
        let bits =
            bytes.chunks_exact(8).map(|c| c.iter().rev().fold(0, |w, b| w << 8 | u64::from(*b))).collect();
        Ok(Overlay { size: record.size, base, data, map, bits })
    }

    /// Bytes of the disk.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    fn has(&self, granule: u64) -> bool {
        self.bits[(granule / 64) as usize] >> (granule % 64) & 1 == 1
    }

    /// Reads; the range lies within the disk.
    pub(crate) fn read(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        let mut at = offset;
        while at < end {
            let here = self.has(at / GRANULE);
            let mut stop = (at / GRANULE + 1) * GRANULE;
            while stop < end && self.has(stop / GRANULE) == here {
                stop += GRANULE;
            }
            let stop = stop.min(end);
            let part = &mut buffer[(at - offset) as usize..(stop - offset) as usize];
            if here {
                self.data.read_exact_at(part, at)?;
            } else {
                self.read_base(at, part)?;
            }
            at = stop;
        }
        Ok(())
    }

    fn read_base(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        let mut at = offset;
        let first = self.base.partition_point(|(s, _)| s.start + s.length <= offset);
        for (segment, file) in &self.base[first..] {
            if segment.start >= end {
                break;
            }
            let from = segment.start.max(at);
            let to = (segment.start + segment.length).min(end);
            buffer[(at - offset) as usize..(from - offset) as usize].fill(0);
            let part = &mut buffer[(from - offset) as usize..(to - offset) as usize];
            file.read_exact_at(part, segment.offset + (from - segment.start))?;
            at = to;
        }
        buffer[(at - offset) as usize..].fill(0);
        Ok(())
    }

    /// Writes; the range lies within the disk.
    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.copy_up_edges(offset, end)?;
        self.data.write_all_at(bytes, offset)?;
        self.mark(offset, end)
    }

    /// Writes zeros; the range lies within the disk.
    pub(crate) fn zero(&mut self, offset: u64, length: u64) -> io::Result<()> {
        let end = offset + length;
        self.copy_up_edges(offset, end)?;
        punch(&self.data, offset, length)?;
        self.mark(offset, end)
    }

    /// The first and last granule may be covered in part only: the rest of them comes up from the base.
    fn copy_up_edges(&mut self, offset: u64, end: u64) -> io::Result<()> {
        for edge in [offset, end] {
            let granule = edge / GRANULE;
            if edge % GRANULE != 0 && !self.has(granule) {
                let start = granule * GRANULE;
                let length = GRANULE.min(self.size - start);
                let mut buffer = [0; GRANULE as usize];
                let part = &mut buffer[..length as usize];
                self.read_base(start, part)?;
                self.data.write_all_at(part, start)?;
                self.mark(start, start + length)?;
            }
        }
        Ok(())
    }

    fn mark(&mut self, offset: u64, end: u64) -> io::Result<()> {
        if end <= offset {
            return Ok(());
        }
        let (first, last) = (offset / GRANULE, (end - 1) / GRANULE);
        let words = (first / 64) as usize..=(last / 64) as usize;
        let mut changed: Option<(usize, usize)> = None;
        let mut fresh = Vec::new();
        for word in words {
            let low = first.saturating_sub(word as u64 * 64).min(63);
            let high = (last - (word as u64 * 64).min(last)).min(63);
            let mask = (u64::MAX << low) & (u64::MAX >> (63 - high));
            let value = self.bits[word] | mask;
            if value != self.bits[word] && changed.is_none() {
                changed = Some((word, word));
            }
            if let Some((_, until)) = &mut changed {
                *until = word;
                fresh.push(value);
            }
        }
        let Some((from, until)) = changed else { return Ok(()) };
        let bytes: Vec<u8> = fresh.iter().flat_map(|w| w.to_le_bytes()).collect();
        self.map.write_all_at(&bytes, from as u64 * 8)?;
        self.bits[from..=until].copy_from_slice(&fresh);
        Ok(())
    }
}

/// Makes a range of the file a hole.
#[cfg(target_os = "linux")]
fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    use rustix::fs::{FallocateFlags, fallocate};
    match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, length) {
        Err(rustix::io::Errno::OPNOTSUPP) => write_zeros(file, offset, length),
        other => Ok(other?),
    }
}

#[cfg(not(target_os = "linux"))]
fn punch(file: &File, offset: u64, length: u64) -> io::Result<()> {
    write_zeros(file, offset, length)
}

fn write_zeros(file: &File, offset: u64, length: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut done = 0;
    while done < length {
        let part = (length - done).min(zeros.len() as u64);
        file.write_all_at(&zeros[..part as usize], offset + done)?;
        done += part;
    }
    Ok(())
}
