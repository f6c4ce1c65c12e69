//! A planned image: every byte known, nothing copied yet but inodes and directories.

use std::collections::BTreeMap;
use std::io::{self, Write};

use crate::directory::{self, Line};
use crate::format::SLOTS_IN_BLOCK;
use crate::format::{
    BLOCK, BLOCK_BYTES, FileType, LAYOUT_INLINE, LAYOUT_PLAIN, RawInode, SLOT_BYTES, SuperBlock,
};
use crate::place::{self, Places};
use crate::placement::{Place, Placement};
use crate::tree::{Body, Entry, Node, PlanError, ROOT, Tree};

/// What an image is made with, besides its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Volume UUID, in the order of its text.
    pub uuid: [u8; 16],
    /// Volume label, at most 16 bytes.
    pub label: String,
    /// Seconds since 1970: the time of every entry that has none of its own.
    pub build_time: u64,
    /// The image is filled up with zeros to a multiple of this many bytes (which is rounded up to whole blocks). The
    /// room at the end takes the growth of later releases, so that their size, and with it the shape of a hash tree
    /// over the image, stays the same.
    pub size_multiple: u64,
    /// With a previous placement: lay everything out afresh when the image would be more than this many percent larger
    /// than a fresh one.
    pub compact_above_percent: u32,
}

impl Default for Options {
    /// No UUID, no label, time 0, a multiple of 4 MiB, compaction above 25 %.
    fn default() -> Self {
        Self {
            uuid: [0; 16],
            label: String::new(),
            build_time: 0,
            size_multiple: 4 << 20,
            compact_above_percent: 25,
        }
    }
}

/// A piece of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'s> {
    /// First byte in the image.
    pub offset: u64,
    /// What lies there.
    pub content: Content<'s>,
}

/// What a [`Segment`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'s> {
    /// These bytes.
    Bytes(&'s [u8]),
    /// This many zeros. They are part of the image, and of any hash over it.
    Zeros(u64),
}

impl Content<'_> {
    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no segment is empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(count) => *count,
        }
    }
}

/// A planned image. It borrows the content of files and is `Sync`, so that several threads can copy it out.
#[derive(Debug)]
pub struct Layout<'a> {
    placement: Placement,
    compacted: bool,
    /// Superblock, inodes and directories.
    metadata: Vec<u8>,
    /// Ascending by block, without overlap.
    pieces: Vec<Piece<'a>>,
}

#[derive(Clone, Copy, Debug)]
struct Piece<'a> {
    start: u32,
    source: Source<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// From, to in `metadata`.
    Metadata(usize, usize),
    File(&'a [u8]),
}

impl<'a> Layout<'a> {
    /// Plans an image.
    ///
    /// The order of `entries` does not matter. Every directory on the way to an entry must be an entry itself, but for
    /// the root, which is `0755 root:root` if it is left out. A hard link's data, owner and place are those of its target.
    ///
    /// With the placement of the `previous` release, what is still there keeps its place (see [`Placement`]).
    pub fn plan(
        entries: Vec<Entry<'a>>,
        options: &Options,
        previous: Option<&Placement>,
    ) -> Result<Self, PlanError> {
        let mut label = [0; 16];
        let long = || PlanError::LabelTooLong { label: options.label.clone() };
        label.get_mut(..options.label.len()).ok_or_else(long)?.copy_from_slice(options.label.as_bytes());

        let tree = Tree::build(entries)?;
        let multiple = options.size_multiple.div_ceil(BLOCK).max(1);
        let round_up = |blocks: u64| {
            let blocks =
                blocks.checked_next_multiple_of(multiple).and_then(|blocks| u32::try_from(blocks).ok());
            blocks.ok_or(PlanError::TooLarge)
        };
        // A placement that promises far more inodes than there are is of little use, or not ours.
        let usable = previous.filter(|previous| previous.inode_blocks as usize <= tree.nodes.len() + 64);
        let mut compacted = usable.is_none() && previous.is_some();
        let mut places = place::place(&tree, options.build_time, usable)?;
        let mut blocks = round_up(places.end.into())?;
        if let Some(previous) = usable {
            // The image never shrinks by itself: its size is what the shape of a hash tree over it depends on.
            blocks = blocks.max(previous.blocks);
            let fresh = place::place(&tree, options.build_time, None)?;
            let fresh_blocks = round_up(fresh.end.into())?;
            let percent = u64::from(options.compact_above_percent);
            if u64::from(blocks) > u64::from(fresh_blocks) + u64::from(fresh_blocks) * percent / 100 {
                compacted = true;
                places = fresh;
                blocks = fresh_blocks;
            }
        }

        let mut metadata = SuperBlock {
            root_nid: u16::try_from(places.places[ROOT].nid).map_err(|_| PlanError::TooLarge)?,
            inodes: tree.nodes.len() as u64,
            build_time: options.build_time,
            blocks,
            uuid: options.uuid,
            label,
        }
        .encode();
        let mut pieces = vec![Piece { start: 0, source: Source::Metadata(0, metadata.len()) }];
        encode_inodes(&tree, options.build_time, &places, &mut metadata, &mut pieces);
        encode_data(&tree, &places, &mut metadata, &mut pieces);
        pieces.sort_unstable_by_key(|piece| piece.start);

        let Places { places, inode_blocks, data_start, .. } = places;
        let places = tree.nodes.iter().map(|node| node.path.to_vec()).zip(places).collect();
        let placement = Placement { blocks, inode_blocks, data_start, places };
        Ok(Self { placement, compacted, metadata, pieces })
    }

    /// Bytes of the image: a multiple of [`Options::size_multiple`] unless the previous image was larger.
    pub fn size(&self) -> u64 {
        u64::from(self.placement.blocks) * BLOCK
    }

    /// Where everything lies, for planning the next release.
    pub fn placement(&self) -> &Placement {
        &self.placement
    }

    /// Whether the previous placement was given up, because too much of the image would have been holes.
    pub fn compacted(&self) -> bool {
        self.compacted
    }

    /// Bytes of files, directories and inodes, the ends of their last blocks not counted.
    pub fn content_size(&self) -> u64 {
        self.pieces.iter().map(|piece| self.bytes(piece).len() as u64).sum()
    }

    fn bytes(&self, piece: &Piece<'a>) -> &[u8] {
        match piece.source {
            Source::Metadata(from, to) => self.metadata.get(from..to).unwrap_or_default(),
            Source::File(bytes) => bytes,
        }
    }

    /// The whole image in ascending order and without gaps. Free blocks are zeros.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut at = 0;
        let last = Some((self.size(), &[][..]));
        let pieces = self.pieces.iter().map(|piece| (u64::from(piece.start) * BLOCK, self.bytes(piece)));
        pieces.chain(last).flat_map(move |(start, bytes)| {
            let gap = Segment { offset: at, content: Content::Zeros(start - at) };
            at = start + bytes.len() as u64;
            let segment = Segment { offset: start, content: Content::Bytes(bytes) };
            [gap, segment].into_iter().filter(|segment| segment.content.len() > 0)
        })
    }

    /// Writes what the image holds from byte `offset` on over all of `out`; bytes after the image's end are zeros.
    ///
    /// Several threads can fill ranges of one mapped file, each hashing its range while it is warm.
    pub fn fill(&self, offset: u64, out: &mut [u8]) {
        let end = offset + out.len() as u64;
        let after = self.pieces.partition_point(|piece| u64::from(piece.start) * BLOCK <= offset);
        let mut at = 0;
        for piece in &self.pieces[after.saturating_sub(1)..] {
            let start = u64::from(piece.start) * BLOCK;
            if start >= end {
                break;
            }
            let bytes = self.bytes(piece);
            let skip = offset.saturating_sub(start).min(bytes.len() as u64) as usize;
            let to = start.saturating_sub(offset) as usize;
            let bytes = &bytes[skip..];
            let count = bytes.len().min(out.len() - to);
            out[at.min(to)..to].fill(0);
            out[to..to + count].copy_from_slice(&bytes[..count]);
            at = to + count;
        }
        out[at..].fill(0);
    }

    /// Writes the whole image.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; 64 << 10];
        for segment in self.segments() {
            match segment.content {
                Content::Bytes(bytes) => out.write_all(bytes)?,
                Content::Zeros(mut count) => {
                    while count > 0 {
                        let now = count.min(ZEROS.len() as u64);
                        out.write_all(&ZEROS[..now as usize])?;
                        count -= now;
                    }
                }
            }
        }
        Ok(())
    }
}

fn encode_inodes(
    tree: &Tree<'_>,
    build_time: u64,
    places: &Places,
    metadata: &mut Vec<u8>,
    pieces: &mut Vec<Piece<'_>>,
) {
    // Where each inode block lies in `metadata`.
    let mut blocks: BTreeMap<u32, usize> = BTreeMap::new();
    for place in &places.places {
        blocks.insert((place.nid / SLOTS_IN_BLOCK) as u32, 0);
    }
    for (block, at) in &mut blocks {
        *at = metadata.len();
        metadata.resize(*at + BLOCK_BYTES, 0);
        pieces.push(Piece { start: *block, source: Source::Metadata(*at, *at + BLOCK_BYTES) });
    }
    for (node, place) in tree.nodes.iter().zip(&places.places) {
        let block = blocks.get(&((place.nid / SLOTS_IN_BLOCK) as u32)).copied().unwrap_or_default();
        let at = block + (place.nid % SLOTS_IN_BLOCK) as usize * SLOT_BYTES;
        let inode = raw(node, place, build_time);
        let end = at + RawInode::bytes(inode.extended);
        inode.encode(&mut metadata[at..end]);
        if let (true, Body::Symlink(target)) = (node.is_inline(), &node.body) {
            metadata[end..end + target.len()].copy_from_slice(target);
        }
    }
}

fn raw(node: &Node<'_>, place: &Place, build_time: u64) -> RawInode {
    let permissions = match node.file_type() {
        // What Linux shows for every symbolic link.
        FileType::Symlink => 0o777,
        _ => node.mode,
    };
    RawInode {
        extended: node.extended(build_time),
        layout: if node.is_inline() { LAYOUT_INLINE } else { LAYOUT_PLAIN },
        mode: node.file_type().mode() | permissions,
        nlink: node.nlink,
        size: node.size(),
        union: match node.body {
            Body::Special(_, device) => device,
            _ => place.data.start,
        },
        // Only 32-bit programs see it; the slot is as unique as a counter and does not move between releases.
        ino: place.nid as u32,
        uid: node.uid,
        gid: node.gid,
        mtime: node.mtime.unwrap_or(build_time),
    }
}

fn encode_data<'a>(tree: &Tree<'a>, places: &Places, metadata: &mut Vec<u8>, pieces: &mut Vec<Piece<'a>>) {
    let mut lines = Vec::new();
    for (node, place) in tree.nodes.iter().zip(&places.places) {
        if place.data.blocks == 0 {
            continue;
        }
        let source = match &node.body {
            Body::File(bytes) | Body::Symlink(bytes) => Source::File(bytes),
            Body::Directory(directory) => {
                lines.clear();
                lines.extend(directory.children.iter().map(|&(name, id)| Line {
                    name,
                    nid: places.places[id].nid,
                    file_type: tree.nodes[id].file_type().dirent(),
                }));
                let from = metadata.len();
                directory::encode(&lines, metadata);
                Source::Metadata(from, metadata.len())
            }
            Body::Special(..) => continue,
        };
        pieces.push(Piece { start: place.data.start, source });
    }
}
