//! The bytes of a release in one file: whole, and as differences to earlier releases.
//!
//! A pack lies on any web server and is read by HTTP Range. A machine fetches its head, chooses the way that costs the
//! fewest bytes ([`Head::ways`]), and fetches the sections of that way. Nothing in a pack is believed before its hash
//! was compared: the signed offer has the head's hash, the head those of the sections, tables those of the frames.
//! The last word is the manifest's: the root hash over the written slot, and the hash of the boot image.
//!
//! # Format
//!
//! A pack describes *images*: the root file system (without its hash tree, which the machine computes), and what its
//! boot loader starts, [`ImageKind`]. An image is a number of 4096-byte blocks; the last one is filled up with zeros.
//! Numbers are little-endian. `varint` is LEB128 of at most 64 bits.
//!
//! ```text
//! 0    16  "bramble-pack" and four zero bytes
//! 16    4  length of the JSON
//! 20    4  zero
//! 24    n  JSON of [`Head`]; head ends at 24 + n
//!          sections, in this order: for each recipe, newest first: recipe, table, frames; index; full table, full frames
//! ```
//!
//! Offsets in the head count from its end. What most machines need comes first, so that a server without Range costs
//! little: the reader stops when it has what it wanted.
//!
//! **Stream**: blocks in order, cut into *frames* of at most [`MAX_FRAME_BLOCKS`]. Its table has 24 bytes for each:
//! length of the compressed frame (4), blocks (4), first 16 bytes of the SHA-256 of the compressed frame. A frame is one
//! Zstandard frame (RFC 8878), single segment, with its content size and without dictionary: it can be fetched and
//! decompressed by itself, with no more memory than its content.
//!
//! **Full**: the stream of all blocks of all images, in the order of the head's list.
//!
//! **Recipe**: how the images follow from those of one earlier release, named by the hash of its manifest's JSON. For each
//! image of the head's list, runs until the image is full. A run is `varint(blocks << 2 | kind)`:
//!
//! | kind | what | more |
//! |---|---|---|
//! | 0 | the blocks at the same place in the earlier release's image of the same kind | |
//! | 1 | blocks at another place of that image | `varint(zigzag(place there - place here))` |
//! | 2 | zeros | |
//! | 3 | the next blocks of the recipe's stream | |
//!
//! **Index**: 8 bytes for each block of all images, in order: the first of `SHA-256(salt || block)`, where the salt is
//! the manifest's. For the root that is the beginning of the block's entry in the lowest level of its dm-verity tree, and
//! the salt is the same in all releases of a cluster: a machine compares the index with the tree that it has on its disk
//! already, and reads no data.
#![forbid(unsafe_code)]

mod apply;
mod frame;
mod head;
mod index;
mod recipe;
mod varint;
#[cfg(feature = "write")]
pub mod write;

pub use apply::{Applied, ApplyError, Earlier, Fetch, Place, apply, apply_full};
pub use frame::{Frame, Frames};
pub use head::{Head, ImageKind, ImageSize, RecipeEntry, Section, Stream, Way};
pub use index::Index;
pub use recipe::{From, Recipe, Run};

/// Bytes in a block.
pub const BLOCK: usize = bramble_api::layout::BLOCK as usize;
/// Blocks of a frame at most: what a reader must be ready to hold, 4 MiB.
pub const MAX_FRAME_BLOCKS: u32 = 1024;
/// Bytes of a compressed frame at most: its content, and what Zstandard adds to the incompressible.
pub const MAX_FRAME_BYTES: usize = MAX_FRAME_BLOCKS as usize * BLOCK + (64 << 10);
/// Bytes of a recipe at most. A longer one is no way worth going.
pub const MAX_RECIPE: u64 = 4 << 20;
/// Blocks of all images together at most: what a slot and its boot image can hold, 4 GiB.
pub const MAX_BLOCKS: u64 = 1 << 20;

/// Bytes are not what a pack has there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// Other bytes than the hash promised.
    #[error("the pack's {0} has the wrong hash")]
    Hash(&'static str),
    /// Another length than was promised.
    #[error("the pack's {0} has the wrong length")]
    Length(&'static str),
    /// What is there says what cannot be.
    #[error("the pack's {what} says what cannot be: {why}")]
    Impossible {
        /// Which part.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
    /// A frame cannot be decompressed.
    #[error("a frame of the pack cannot be decompressed")]
    Frame,
}

pub(crate) fn impossible(what: &'static str, why: &'static str) -> Damaged {
    Damaged::Impossible { what, why }
}
