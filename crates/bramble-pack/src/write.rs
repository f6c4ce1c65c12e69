//! Making packs.
//!
//! A pack is a pure function of what is given: the same images, earlier releases and settings give the same bytes,
//! whatever the number of processors.

use crate::head::{Head, ImageKind, ImageSize, RecipeEntry, Section, Stream};
use crate::index::Index;
use crate::recipe::{From, Run};
use crate::{BLOCK, MAX_FRAME_BLOCKS, MAX_RECIPE, varint};
use bramble_api::release::{Digest, Pack};
use rayon::prelude::*;
use std::collections::HashMap;
use std::io::{self, Write};

/// An image of the release that is packed.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    /// Which.
    pub kind: ImageKind,
    /// Its bytes; what lacks to whole blocks is zeros.
    pub bytes: &'a [u8],
}

/// Blocks of an image by their hashes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// Which image.
    pub kind: ImageKind,
    /// The entry of each block in its release's index.
    pub entries: Vec<[u8; 8]>,
}

/// An earlier release, as far as a recipe needs it.
#[derive(Clone, Debug)]
pub struct Earlier {
    /// Its version.
    pub version: u64,
    /// SHA-256 of its manifest's JSON.
    pub manifest: Digest,
    /// Its images, in the order of their kinds.
    pub images: Vec<Blocks>,
}

/// How a pack is made.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Level of Zstandard, 1 to 22.
    pub level: i32,
    /// Blocks of a frame at most. Longer ones compress better; a machine that loses its connection fetches one again.
    pub frame_blocks: u32,
}

impl Default for Settings {
    /// Level 19: a pack is made once and fetched by every machine. Frames of 1 MiB.
    fn default() -> Self {
        Settings { level: 19, frame_blocks: 256 }
    }
}

/// A pack that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Bytes of the file.
    pub size: u64,
    /// SHA-256 of it.
    pub sha256: Digest,
    /// Its head.
    pub head: Head,
    /// Bytes of the head.
    pub head_size: u64,
    /// SHA-256 of them.
    pub head_sha256: Digest,
    /// What a slot that holds an earlier release is changed by, in the order of the head's recipes.
    pub changes: Vec<Change>,
}

/// What becomes of a slot that holds an earlier release.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Version of the earlier release.
    pub from: u64,
    /// Blocks that are written.
    pub written: u64,
    /// Of these, such that come from elsewhere in the earlier release.
    pub copied: u64,
    /// Of these, zeros.
    pub zeros: u64,
    /// Runs of the recipe.
    pub runs: u64,
    /// Bytes on the wire, the pack's head not counted.
    pub wire: u64,
}

/// The indexes of images, in parallel.
pub fn index(salt: &[u8], images: &[Image<'_>]) -> Vec<Blocks> {
    let of = |image: &Image<'_>| Blocks {
        kind: image.kind,
        entries: image
            .bytes
            .par_chunks(BLOCK)
            .map(|block| padded(block, |b| Index::entry(salt, b)))
            .collect(),
    };
    images.iter().map(of).collect()
}

/// A block, filled up.
fn padded<T>(block: &[u8], then: impl FnOnce(&[u8]) -> T) -> T {
    if block.len() == BLOCK {
        return then(block);
    }
    let mut whole = [0; BLOCK];
    whole[..block.len()].copy_from_slice(block);
    then(&whole)
}

/// Writes the pack of a release: its images in the order of their kinds, and the recipes from `earlier` ones, newest first.
///
/// # Errors
/// The file cannot be written, or there is more than a pack can hold.
pub fn write(
    out: &mut impl Write,
    version: u64,
    salt: &[u8],
    images: &[Image<'_>],
    earlier: &[Earlier],
    settings: &Settings,
) -> io::Result<Written> {
    let indexes = index(salt, images);
    let zeros = Index::of_zeros(salt);
    let mut body = Body::default();
    let mut recipes = Vec::new();
    let mut changes = Vec::new();
    for release in earlier {
        let Recipe { runs, bytes, new } = recipe(&indexes, &release.images, zeros);
        if bytes.len() as u64 > MAX_RECIPE {
            continue;
        }
        let recipe = body.section(bytes);
        let blocks: Vec<&[u8]> = new.iter().map(|(image, at)| block(&images[*image], *at)).collect();
        let stream = body.stream(&blocks, settings)?;
        let count = |wanted: fn(&From) -> bool| {
            runs.iter().filter(|run| wanted(&run.from)).map(|run| u64::from(run.blocks)).sum::<u64>()
        };
        changes.push(Change {
            from: release.version,
            written: count(|from| *from != From::Same),
            copied: count(|from| matches!(from, From::Copy(_))),
            zeros: count(|from| *from == From::Zeros),
            runs: runs.len() as u64,
            wire: recipe.size + stream.bytes(),
        });
        recipes.push(RecipeEntry {
            from: release.version,
            manifest: release.manifest,
            images: sizes(&release.images),
            recipe,
            stream,
        });
    }
    let index =
        body.section(indexes.iter().flat_map(|image| image.entries.iter().flatten().copied()).collect());
    let all: Vec<&[u8]> = images.iter().flat_map(|image| image.bytes.chunks(BLOCK)).collect();
    let full = body.stream(&all, settings)?;
    let head = Head::new(version, sizes(&indexes), recipes, index, full);
    let bytes = head.to_bytes().ok_or_else(|| io::Error::other("the pack's head is too long"))?;

    let mut hash = Hashing { out, hash: Default::default(), size: 0 };
    hash.write_all(&bytes)?;
    for part in &body.parts {
        hash.write_all(part)?;
    }
    hash.flush()?;
    let (size, sha256) = hash.done();
    // What a reader would refuse is not published.
    let head = Head::parse(&bytes, size).map_err(io::Error::other)?;
    Ok(Written {
        size,
        sha256,
        head,
        head_size: bytes.len() as u64,
        head_sha256: Digest::of(&bytes),
        changes,
    })
}

impl Written {
    /// What an offer says of the pack.
    pub fn offered(&self, path: String) -> Pack {
        Pack {
            path,
            size: self.size,
            sha256: self.sha256,
            head_size: self.head_size,
            head_sha256: self.head_sha256,
        }
    }
}

fn sizes(images: &[Blocks]) -> Vec<ImageSize> {
    images.iter().map(|image| ImageSize { kind: image.kind, blocks: image.entries.len() as u32 }).collect()
}

fn block<'a>(image: &Image<'a>, at: u32) -> &'a [u8] {
    let start = at as usize * BLOCK;
    &image.bytes[start..image.bytes.len().min(start + BLOCK)]
}

struct Recipe {
    runs: Vec<Run>,
    bytes: Vec<u8>,
    /// Image and place of each new block.
    new: Vec<(usize, u32)>,
}

/// How `now` follows from `earlier`.
fn recipe(now: &[Blocks], earlier: &[Blocks], zeros: [u8; 8]) -> Recipe {
    let mut recipe = Recipe { runs: Vec::new(), bytes: Vec::new(), new: Vec::new() };
    for (number, image) in now.iter().enumerate() {
        let before = earlier.iter().find(|e| e.kind == image.kind).map_or(&[][..], |e| &e.entries);
        let mut places: HashMap<[u8; 8], u32> = HashMap::with_capacity(before.len());
        for (at, entry) in before.iter().enumerate() {
            places.entry(*entry).or_insert(at as u32);
        }
        let mut run: Option<Run> = None;
        for (at, entry) in image.entries.iter().enumerate() {
            let place = at as u32;
            // Where the run that goes on would have its next block.
            let next = match run {
                Some(Run { from: From::Copy(start), blocks, .. }) => Some(start + blocks),
                _ => None,
            };
            let goes_on = next.filter(|next| before.get(*next as usize) == Some(entry));
            let from = if before.get(at) == Some(entry) {
                From::Same
            } else if *entry == zeros {
                From::Zeros
            } else if let Some(start) = goes_on.or_else(|| places.get(entry).copied()) {
                From::Copy(start)
            } else {
                recipe.new.push((number, place));
                From::New(recipe.new.len() as u32 - 1)
            };
            match &mut run {
                Some(open) if follows(open, from) => open.blocks += 1,
                _ => {
                    recipe.runs.extend(run.take());
                    run = Some(Run { image: image.kind, at: place, blocks: 1, from });
                }
            }
        }
        recipe.runs.extend(run);
    }
    for run in &recipe.runs {
        let kind = match run.from {
            From::Same => 0,
            From::Copy(_) => 1,
            From::Zeros => 2,
            From::New(_) => 3,
        };
        varint::put(u64::from(run.blocks) << 2 | kind, &mut recipe.bytes);
        if let From::Copy(start) = run.from {
            varint::put(varint::zigzag(i64::from(start) - i64::from(run.at)), &mut recipe.bytes);
        }
    }
    recipe
}

/// Whether one more block from there belongs to the run.
fn follows(run: &Run, from: From) -> bool {
    match (run.from, from) {
        (From::Same, From::Same) | (From::Zeros, From::Zeros) => true,
        (From::Copy(start), From::Copy(next)) | (From::New(start), From::New(next)) => {
            start + run.blocks == next
        }
        _ => false,
    }
}

/// What comes behind the head.
#[derive(Default)]
struct Body {
    parts: Vec<Vec<u8>>,
    length: u64,
}

impl Body {
    fn push(&mut self, bytes: Vec<u8>) -> u64 {
        let offset = self.length;
        self.length += bytes.len() as u64;
        self.parts.push(bytes);
        offset
    }

    fn section(&mut self, bytes: Vec<u8>) -> Section {
        let (size, sha256) = (bytes.len() as u64, Digest::of(&bytes));
        Section { offset: self.push(bytes), size, sha256 }
    }

    fn stream(&mut self, blocks: &[&[u8]], settings: &Settings) -> io::Result<Stream> {
        let length = settings.frame_blocks.clamp(1, MAX_FRAME_BLOCKS) as usize;
        let frames: Vec<(Vec<u8>, usize)> = blocks
            .par_chunks(length)
            .map_init(
                || (zstd::bulk::Compressor::new(settings.level), Vec::new()),
                |(compressor, buffer), blocks| {
                    buffer.clear();
                    for block in blocks {
                        padded(block, |block| buffer.extend_from_slice(block));
                    }
                    let compressor = compressor.as_mut().map_err(|e| io::Error::other(e.to_string()))?;
                    Ok((compressor.compress(buffer)?, blocks.len()))
                },
            )
            .collect::<io::Result<_>>()?;
        let mut table = Vec::with_capacity(frames.len() * 24);
        for (frame, blocks) in &frames {
            table.extend((frame.len() as u32).to_le_bytes());
            table.extend((*blocks as u32).to_le_bytes());
            table.extend(&Digest::of(frame).0[..16]);
        }
        let table = self.section(table);
        let offset = self.length;
        for (frame, _) in frames {
            self.push(frame);
        }
        Ok(Stream { table, offset, size: self.length - offset, blocks: blocks.len() as u32 })
    }
}

/// Hashes what passes.
struct Hashing<'w, W> {
    out: &'w mut W,
    hash: sha2::Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        sha2::Digest::update(&mut self.hash, &bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W> Hashing<'_, W> {
    fn done(self) -> (u64, Digest) {
        (self.size, Digest(sha2::Digest::finalize(self.hash).into()))
    }
}
