//! Tree, kernel and machine document to partitions to a disk image.
//!
//! [`release`] makes what all machines of an architecture share; [`disk`] lays it out on one machine's disk, with that
//! machine's document. The other modules are the formats between: each is useful, and tested, by itself.

mod bmap;
mod cpio;
mod derive;
pub mod devicetree;
pub mod disk;
pub mod esp;
pub mod firmware;
pub mod initramfs;
pub mod modules;
pub mod publish;
pub mod release;
mod root;
pub mod uki;
pub mod verity;
