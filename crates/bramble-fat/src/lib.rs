//! A deterministic FAT16 and FAT32 writer, and a reader.
//!
//! The writer makes a whole volume at once: every file is one run of clusters whose place is known ([`Volume::extent`]),
//! so that a boot loader's file can later be overwritten in place with one sector-sized write, without a change of FAT or
//! directory. Whatever is free is zeros. The volume is a pure function of entries and [`Options`].
//!
//! ```
//! use bramble_fat::{Entry, FatType, Options, Reader, Volume};
//!
//! let options = Options { size: 64 << 20, sectors_per_cluster: 4, ..Options::new(FatType::Fat16) };
//! let entries = [Entry::file("EFI/BOOT/BOOTX64.EFI", b"MZ"), Entry::file("loader/loader.conf", b"timeout 0\n").padded_to(512)];
//! let volume = Volume::plan(&entries, &options)?;
//! let hot = volume.extent("loader/loader.conf").expect("it was given");
//! assert_eq!(hot.length, 512);
//! let mut bytes = Vec::new();
//! volume.write_to(&mut bytes)?;
//!
//! let mut reader = Reader::open(std::io::Cursor::new(bytes))?;
//! assert_eq!(reader.read("efi/boot/bootx64.efi", 1 << 20)?, b"MZ");
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Format: "Microsoft Extensible Firmware Initiative FAT32 File System Specification", 1.03. FAT12 is neither written nor
//! read. Sectors have 512 bytes.
#![forbid(unsafe_code)]

mod format;
mod name;
mod reader;
mod volume;

pub use format::{Extent, FatType, SECTOR};
pub use reader::{Node, ReadError, Reader};
pub use volume::{Content, Entry, Options, PlanError, Segment, Volume};
