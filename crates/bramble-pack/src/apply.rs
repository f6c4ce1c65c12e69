//! Making images from a pack: one frame in memory at a time.

use crate::frame::Frames;
use crate::head::{Head, ImageKind, RecipeEntry, Section};
use crate::recipe::{From, Recipe, Run};
use crate::{BLOCK, Damaged};
use std::io;

/// Where the pack comes from.
pub trait Fetch {
    /// Fills `out` with the bytes of the file from `offset` on.
    ///
    /// # Errors
    /// They cannot be had now.
    fn fetch(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

/// The images of the release that a recipe begins with.
pub trait Earlier {
    /// Fills `out` with whole blocks of an image, from block `at` on.
    ///
    /// # Errors
    /// They cannot be read.
    fn read(&mut self, image: ImageKind, at: u32, out: &mut [u8]) -> io::Result<()>;
}

/// The place that the images are put.
pub trait Place {
    /// Puts blocks (whole ones) into an image, from block `at` on; in ascending order in each image.
    ///
    /// # Errors
    /// They cannot be written.
    fn put(&mut self, image: ImageKind, at: u32, blocks: &[u8]) -> io::Result<()>;

    /// These blocks are as the earlier release had them. Nothing is to be done where the place holds that release.
    /// Says whether they must be put nevertheless.
    fn keeps(&mut self, image: ImageKind, at: u32, blocks: u32) -> bool;
}

/// The images could not be made. What was put stays put.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// Wrong bytes.
    #[error(transparent)]
    Damaged(#[from] Damaged),
    /// The pack cannot be read.
    #[error("cannot fetch {size} bytes of the pack at {offset}")]
    Fetch {
        /// First byte.
        offset: u64,
        /// Bytes.
        size: usize,
        /// Why.
        source: io::Error,
    },
    /// The earlier release cannot be read.
    #[error("cannot read block {at} of the earlier release")]
    Earlier {
        /// Block.
        at: u32,
        /// Why.
        source: io::Error,
    },
    /// The place cannot be written.
    #[error("cannot write block {at}")]
    Put {
        /// Block.
        at: u32,
        /// Why.
        source: io::Error,
    },
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Bytes fetched.
    pub fetched: u64,
    /// Blocks put.
    pub put: u64,
    /// Blocks left as they were.
    pub kept: u64,
}

/// Blocks that are copied at once.
const COPY: u32 = 64;

/// Makes the images by a recipe.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply(
    head: &Head,
    entry: &RecipeEntry,
    fetch: &mut dyn Fetch,
    earlier: &mut dyn Earlier,
    place: &mut dyn Place,
) -> Result<Applied, ApplyError> {
    let mut worker = Worker::new(head, fetch, place);
    let recipe = Recipe::open(head, entry, worker.section(&entry.recipe)?)?;
    let table = worker.section(&entry.stream.table)?;
    let frames = Frames::open(&entry.stream, &table)?;
    drop(table);
    for run in recipe.runs() {
        let Run { image, at, blocks, from } = run;
        match from {
            From::Same if !worker.place.keeps(image, at, blocks) => worker.done.kept += u64::from(blocks),
            From::Same => worker.copy(earlier, image, at, at, blocks)?,
            From::Copy(start) => worker.copy(earlier, image, start, at, blocks)?,
            From::Zeros => worker.zeros(image, at, blocks)?,
            From::New(first) => worker.new_blocks(&frames, first, image, at, blocks)?,
        }
    }
    Ok(worker.done)
}

/// Makes the images without any earlier release.
///
/// # Errors
/// See [`ApplyError`].
pub fn apply_full(head: &Head, fetch: &mut dyn Fetch, place: &mut dyn Place) -> Result<Applied, ApplyError> {
    let mut worker = Worker::new(head, fetch, place);
    let table = worker.section(&head.full.table)?;
    let frames = Frames::open(&head.full, &table)?;
    let mut first = 0;
    for image in &head.images {
        worker.new_blocks(&frames, first, image.kind, 0, image.blocks)?;
        first += image.blocks;
    }
    Ok(worker.done)
}

struct Worker<'a> {
    head: &'a Head,
    fetch: &'a mut dyn Fetch,
    place: &'a mut dyn Place,
    done: Applied,
    compressed: Vec<u8>,
    /// The content of one frame, and its first block in the stream.
    content: Vec<u8>,
    loaded: Option<u32>,
    buffer: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(head: &'a Head, fetch: &'a mut dyn Fetch, place: &'a mut dyn Place) -> Worker<'a> {
        Worker {
            head,
            fetch,
            place,
            done: Applied::default(),
            compressed: Vec::new(),
            content: Vec::new(),
            loaded: None,
            buffer: Vec::new(),
        }
    }

    fn get(&mut self, offset: u64, size: usize) -> Result<(), ApplyError> {
        let offset = self.head.at(offset);
        self.compressed.clear();
        self.compressed.resize(size, 0);
        let failed = |source| ApplyError::Fetch { offset, size, source };
        self.fetch.fetch(offset, &mut self.compressed).map_err(failed)?;
        self.done.fetched += size as u64;
        Ok(())
    }

    fn section(&mut self, section: &Section) -> Result<Vec<u8>, ApplyError> {
        // Sizes were checked with the head: a recipe has at most 4 MiB, a table 24 bytes a block.
        self.get(section.offset, section.size as usize)?;
        Ok(std::mem::take(&mut self.compressed))
    }

    fn put(
        &mut self,
        image: ImageKind,
        at: u32,
        range: std::ops::Range<usize>,
        content: bool,
    ) -> Result<(), ApplyError> {
        let blocks = if content { &self.content[range] } else { &self.buffer[range] };
        self.done.put += (blocks.len() / BLOCK) as u64;
        self.place.put(image, at, blocks).map_err(|source| ApplyError::Put { at, source })
    }

    fn copy(
        &mut self,
        earlier: &mut dyn Earlier,
        image: ImageKind,
        start: u32,
        at: u32,
        blocks: u32,
    ) -> Result<(), ApplyError> {
        let mut done = 0;
        while done < blocks {
            let now = (blocks - done).min(COPY);
            let from = start + done;
            self.buffer.resize(now as usize * BLOCK, 0);
            earlier
                .read(image, from, &mut self.buffer)
                .map_err(|source| ApplyError::Earlier { at: from, source })?;
            self.put(image, at + done, 0..now as usize * BLOCK, false)?;
            done += now;
        }
        Ok(())
    }

    fn zeros(&mut self, image: ImageKind, at: u32, blocks: u32) -> Result<(), ApplyError> {
        self.buffer.clear();
        self.buffer.resize(COPY as usize * BLOCK, 0);
        let mut done = 0;
        while done < blocks {
            let now = (blocks - done).min(COPY);
            self.put(image, at + done, 0..now as usize * BLOCK, false)?;
            done += now;
        }
        Ok(())
    }

    fn new_blocks(
        &mut self,
        frames: &Frames,
        first: u32,
        image: ImageKind,
        at: u32,
        blocks: u32,
    ) -> Result<(), ApplyError> {
        let mut done = 0;
        while done < blocks {
            let frame = *frames.holding(first + done).ok_or(Damaged::Length("stream"))?;
            if self.loaded != Some(frame.first) {
                self.loaded = None;
                self.get(frame.offset, frame.size as usize)?;
                frame.decode(&self.compressed, &mut self.content)?;
                self.loaded = Some(frame.first);
            }
            let skip = first + done - frame.first;
            let now = (frame.blocks - skip).min(blocks - done);
            let range = skip as usize * BLOCK..(skip + now) as usize * BLOCK;
            self.put(image, at + done, range, true)?;
            done += now;
        }
        Ok(())
    }
}
