//! A node's disk as a list of runs: what is served to a virtual machine, written to a file, or flashed.
//!
//! Only what must be so is in the list. Everything else keeps what the medium held, or reads as zeros in a new file.

pub use crate::bmap::bmap;
use crate::derive;
use crate::release::Release;
use crate::verity::is_zero;
use bramble_api::document::identity_header;
use bramble_api::layout::{
    self, BLOCK, Code, DiskTooSmall, IDENTITY_SIZE, Kind, MANIFEST_SIZE, Partition, SECTOR,
};
use bramble_api::names::{Board, Slot};
use bramble_partition::{Guid, Write, gpt, mbr};
use bramble_secrets::SecretBytes;
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::ops::{Deref, Range};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are cleared at the head of data, and before the table at the disk's end: more than any file system or
/// volume manager keeps of its superblock there.
const CLEARED: u64 = 1 << 20;
/// Bytes copied at a time.
pub(crate) const STEP: usize = 1 << 20;

/// Where the bytes of a run come from.
#[derive(Clone, Debug)]
pub enum Source {
    /// A file of the release.
    File {
        /// The file.
        path: PathBuf,
        /// First byte in it.
        offset: u64,
    },
    /// These bytes.
    Bytes(Run),
}

/// Bytes that may be the machine's keys: shared, not shown by `Debug`, wiped after use.
#[derive(Clone, Debug)]
pub struct Run(Arc<SecretBytes>);

impl Deref for Run {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.0.expose()
    }
}

/// A run of bytes of the disk.
#[derive(Clone, Debug)]
pub struct Segment {
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// What is there.
    pub source: Source,
}

/// A whole disk.
#[derive(Clone, Debug)]
pub struct DiskMap {
    /// Bytes of the disk.
    pub size: u64,
    /// Runs ascending by start, without overlap.
    pub segments: Vec<Segment>,
    /// Where zeros must be, ascending, apart from each other and from the runs. A fresh file has them; a medium that
    /// was used before must be given them.
    pub zeros: Vec<Range<u64>>,
}

/// What is particular to one disk.
#[derive(Debug)]
pub struct DiskInput<'a> {
    /// What slot A holds.
    pub release: &'a Release,
    /// The board, which the layout follows from.
    pub board: Board,
    /// The incarnation's name, as in the machine document: the identifiers of disk and partitions follow from it, so
    /// that no two disks share one.
    pub incarnation: &'a str,
    /// Size of the disk in bytes.
    pub size: u64,
    /// The machine document as JSON, or none for a disk without identity.
    pub document: Option<&'a SecretBytes>,
    /// Leave the data partition as it is.
    pub keep_data: bool,
}

/// A disk cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// Too small for the layout.
    #[error(transparent)]
    TooSmall(#[from] DiskTooSmall),
    /// The release does not start on the board.
    #[error("the release is not for the board {board}")]
    Board {
        /// The board.
        board: Board,
    },
    /// The partition table refused.
    #[error("cannot lay out the partition table")]
    Gpt(#[from] gpt::TableError),
    /// The partition table of a Pi refused.
    #[error("cannot lay out the partition table")]
    Mbr(#[from] mbr::TableError),
    /// The document does not fit its partition.
    #[error("the machine document has {length} bytes; its partition takes {}", IDENTITY_SIZE - BLOCK)]
    Document {
        /// Bytes of the document.
        length: u64,
    },
    /// A file of the release, or the image, cannot be read or written.
    #[error("cannot {act} {}", path.display())]
    Io {
        /// `read`, `write`.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The disk of a node on its first day: slot A holds the release, slot B is empty and invalid.
///
/// # Errors
/// A disk that is too small, a document that is too long, a release that is not for the board.
pub fn map(input: &DiskInput<'_>) -> Result<DiskMap, DiskError> {
    let (release, board) = (input.release, input.board);
    if !release.manifest.boards.contains(&board) {
        return Err(DiskError::Board { board });
    }
    let partitions = layout::of(board, input.size)?;
    let mut map = Builder::default();
    let table = if board.is_pi() {
        // A GPT that was here before would be found again behind its protective MBR.
        map.zeros(SECTOR, CLEARED - SECTOR);
        mbr_table(&partitions, input.incarnation).writes(input.size)?
    } else {
        gpt_table(&partitions, input.incarnation).writes(input.size)?
    };
    // An MBR has no second copy at the end.
    let backup = if board.is_pi() { 0 } else { 33 };
    let end_of_rest = (input.size / SECTOR - backup) * SECTOR;
    for Write { offset, bytes, .. } in table {
        map.bytes(offset, bytes);
    }
    let mut data_end = 0;
    for partition in &partitions {
        match partition.kind {
            Kind::Esp => release.place_esp(partition.start, &mut map),
            Kind::BootSelect => release.place_boot_select(partition.start, &mut map),
            Kind::Boot(Slot::A) => release.place_boot(partition.start, &mut map),
            // No boot sector, nor the copy of it: no FAT.
            Kind::Boot(Slot::B) => map.zeros(partition.start, BLOCK),
            // The sectors that describe what is in it belong to the table.
            Kind::Extended => {}
            Kind::Root(Slot::A) => release.place_root(partition.start, partition.size, &mut map),
            Kind::Root(Slot::B) => {
                // No file system, no manifest: it is never started.
                map.zeros(partition.start, BLOCK);
                map.zeros(partition.start + partition.size - MANIFEST_SIZE, MANIFEST_SIZE);
            }
            Kind::Identity => identity(partition, input.document, &mut map)?,
            Kind::Data => {
                if !input.keep_data {
                    map.zeros(partition.start, CLEARED);
                }
                data_end = partition.start + partition.size;
            }
        }
    }
    // What other systems keep at a disk's end (RAID, ZFS) would claim the disk at the next start.
    let tail = data_end.max(end_of_rest.saturating_sub(CLEARED));
    map.zeros(tail, end_of_rest - tail);
    Ok(map.finish(input.size))
}

/// Writes the disk as a new sparse file of mode 0600: under another name first, so that it is there whole or not at
/// all. An existing file is replaced.
///
/// # Errors
/// Whatever the system says of reading or writing.
pub fn write(map: &DiskMap, path: &Path) -> Result<(), DiskError> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let failed = |source| DiskError::Io { act: "write", path: path.to_path_buf(), source };
    // Left by a run that was killed; its holes may not be ours.
    match fs::remove_file(&partial) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(e)),
        _ => {}
    }
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial).map_err(failed)?;
    let written = write_into(map, &file, failed).and_then(|()| fs::rename(&partial, path).map_err(failed));
    if written.is_err() {
        // Best effort: the first error is the one to report, and the file may hold keys.
        let _ = fs::remove_file(&partial);
    }
    written
}

fn write_into(map: &DiskMap, file: &File, failed: impl Fn(io::Error) -> DiskError) -> Result<(), DiskError> {
    file.set_len(map.size).map_err(&failed)?;
    let mut buffer = vec![0; STEP];
    for segment in &map.segments {
        let mut at = 0;
        while at < segment.length {
            let part = &mut buffer[..(segment.length - at).min(STEP as u64) as usize];
            segment.read_at(at, part)?;
            write_sparse(file, segment.start + at, part).map_err(&failed)?;
            at += part.len() as u64;
        }
    }
    // Not flushed to the medium: an image can be made again, and a flush would cost more than the writing.
    Ok(())
}

impl DiskMap {
    /// Reads from the disk; what is in no run is zeros.
    ///
    /// # Errors
    /// A file of the release that cannot be read.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), DiskError> {
        out.fill(0);
        let end = offset + out.len() as u64;
        let first = self.segments.partition_point(|s| s.start + s.length <= offset);
        for segment in self.segments[first..].iter().take_while(|s| s.start < end) {
            let from = segment.start.max(offset);
            let to = (segment.start + segment.length).min(end);
            let part = &mut out[(from - offset) as usize..(to - offset) as usize];
            segment.read_at(from - segment.start, part)?;
        }
        Ok(())
    }

    /// Every range that must be as the map says, runs and zeros, rounded to blocks of 4 KiB and joined.
    pub(crate) fn mapped_blocks(&self) -> Vec<Range<u64>> {
        let runs = self.segments.iter().map(|s| s.start..s.start + s.length);
        let mut ranges: Vec<_> = runs.chain(self.zeros.iter().cloned()).collect();
        ranges.sort_by_key(|r| r.start);
        let mut blocks: Vec<Range<u64>> = Vec::new();
        for range in ranges {
            let (start, end) = (range.start / BLOCK, range.end.div_ceil(BLOCK));
            match blocks.last_mut() {
                Some(last) if start <= last.end => last.end = last.end.max(end),
                _ => blocks.push(start..end),
            }
        }
        blocks
    }
}

impl Segment {
    /// Reads from byte `at` of the run on.
    fn read_at(&self, at: u64, out: &mut [u8]) -> Result<(), DiskError> {
        match &self.source {
            Source::Bytes(bytes) => {
                let from = at as usize;
                out.copy_from_slice(&bytes[from..from + out.len()]);
            }
            Source::File { path, offset } => {
                let failed = |source| DiskError::Io { act: "read", path: path.clone(), source };
                File::open(path).and_then(|f| f.read_exact_at(out, offset + at)).map_err(failed)?;
            }
        }
        Ok(())
    }
}

/// Writes all but the blocks of zeros: those are holes of a new file.
pub(crate) fn write_sparse(file: &File, offset: u64, bytes: &[u8]) -> io::Result<()> {
    // Smaller holes save little and cost a write each.
    const PIECE: usize = 64 << 10;
    let mut run = 0..0;
    for (index, piece) in bytes.chunks(PIECE).enumerate() {
        let start = index * PIECE;
        if is_zero(piece) {
            if !run.is_empty() {
                file.write_all_at(&bytes[run.clone()], offset + run.start as u64)?;
            }
            run = start + piece.len()..start + piece.len();
        } else {
            run.end = start + piece.len();
        }
    }
    if !run.is_empty() {
        file.write_all_at(&bytes[run.clone()], offset + run.start as u64)?;
    }
    Ok(())
}

fn gpt_table(partitions: &[Partition], incarnation: &str) -> gpt::Table {
    let uuid = |what: &str| Guid::from_uuid(derive::uuid(what, &[incarnation]));
    let partitions = partitions.iter().filter_map(|p| {
        let Code::Gpt(type_guid) = p.code else { return None };
        Some(gpt::Partition {
            number: p.number.into(),
            type_guid: Guid(type_guid),
            guid: uuid(p.name),
            start: p.start,
            size: p.size,
            attributes: 0,
            name: p.name.to_string(),
        })
    });
    gpt::Table { disk_guid: uuid("disk"), partitions: partitions.collect() }
}

fn mbr_table(partitions: &[Partition], incarnation: &str) -> mbr::Table {
    let [a, b, c, d, ..] = derive::bytes("disk signature", &[incarnation]);
    let partitions = partitions.iter().filter_map(|p| {
        let Code::Mbr(kind) = p.code else { return None };
        Some(mbr::Partition { number: p.number, kind, bootable: false, start: p.start, size: p.size })
    });
    mbr::Table { signature: u32::from_le_bytes([a, b, c, d]), partitions: partitions.collect() }
}

fn identity(
    partition: &Partition,
    document: Option<&SecretBytes>,
    map: &mut Builder,
) -> Result<(), DiskError> {
    let mut used = 0;
    if let Some(document) = document {
        let json = document.expose();
        let length = json.len() as u64;
        if length > IDENTITY_SIZE - BLOCK {
            return Err(DiskError::Document { length });
        }
        let mut bytes = identity_header(length, &Sha256::digest(json).into());
        bytes.reserve_exact(json.len() + BLOCK as usize);
        bytes.extend_from_slice(json);
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        used = bytes.len() as u64;
        map.bytes(partition.start, bytes);
    }
    // Keys of an earlier machine may lie here.
    map.zeros(partition.start + used, CLEARED.max(used).min(partition.size) - used);
    Ok(())
}

/// Collects runs in any order.
#[derive(Default)]
pub(crate) struct Builder {
    segments: Vec<Segment>,
    zeros: Vec<Range<u64>>,
}

impl Builder {
    pub(crate) fn bytes(&mut self, start: u64, bytes: Vec<u8>) {
        let length = bytes.len() as u64;
        self.push(start, length, Source::Bytes(Run(Arc::new(SecretBytes::new(bytes)))));
    }

    pub(crate) fn zeros(&mut self, start: u64, length: u64) {
        if length > 0 {
            self.zeros.push(start..start + length);
        }
    }

    pub(crate) fn file(&mut self, start: u64, length: u64, path: &Path, offset: u64) {
        self.push(start, length, Source::File { path: path.to_path_buf(), offset });
    }

    fn push(&mut self, start: u64, length: u64, source: Source) {
        if length > 0 {
            self.segments.push(Segment { start, length, source });
        }
    }

    fn finish(mut self, size: u64) -> DiskMap {
        self.segments.sort_by_key(|s| s.start);
        self.zeros.sort_by_key(|r| r.start);
        DiskMap { size, segments: self.segments, zeros: self.zeros }
    }
}
