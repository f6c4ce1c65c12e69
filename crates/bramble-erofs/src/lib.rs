//! Write and read EROFS images with stable placement.
//!
//! The writer makes uncompressed images with blocks of 4 KiB. Every regular file begins on a block of its own and
//! shares no block with another, so a file that changed costs its own blocks and nothing else. Given the [`Placement`]
//! of the release before, files, directories and inodes stay where they were: an update that is sent or written block by
//! block then touches little more than the blocks of changed files.
//!
//! The image is a pure function of entries, [`Options`] and previous placement: same input, same bytes, whatever the
//! order of the entries.
//!
//! ```
//! use bramble_erofs::{Entry, Image, Kind, Layout, Options};
//!
//! let entries = vec![Entry::new(b"hello", Kind::File(b"world"), 0o644)];
//! let first = Layout::plan(entries, &Options::default(), None)?;
//! let mut image = Vec::new();
//! first.write_to(&mut image)?;
//! let read = Image::open(&image)?;
//! let hello = read.find(b"hello")?;
//! assert_eq!(read.data(&hello)?.as_ref(), b"world");
//!
//! // The next release puts what it shares with this one in the same blocks.
//! let entries = vec![Entry::new(b"hello", Kind::File(b"there"), 0o644)];
//! let _next = Layout::plan(entries, &Options::default(), Some(first.placement()))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Format: `fs/erofs/erofs_fs.h` of the Linux kernel (5.4 and later read what is written here). Extended attributes,
//! compression, chunks and devices are neither written nor read.
#![forbid(unsafe_code)]

mod directory;
mod format;
mod layout;
mod place;
mod placement;
mod reader;
mod tree;

pub use format::{BLOCK, FileType};
pub use layout::{Content, Layout, Options, Segment};
pub use placement::{Extent, ParsePlacementError, Place, Placement};
pub use reader::{DirEntry, Image, Inode, ReadError};
pub use tree::{Entry, Kind, PlanError};
