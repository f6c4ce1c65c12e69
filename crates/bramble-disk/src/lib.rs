//! Block devices: find, guard, write, verify; and what firmware boots from them.
//!
//! - [`device`]: which disks there are, what lies on them, what uses them.
//! - [`flash`]: a node onto a confirmed disk, written, read back, resumable.
//! - [`card`]: the record by which a card is known again.
//! - [`firmware`]: models of how a machine's firmware chooses what to boot from a disk.

pub mod card;
pub mod device;
pub mod firmware;
pub mod flash;
