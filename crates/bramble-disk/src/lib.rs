//! Block devices: find, guard, write, verify; and what firmware boots from them.
//!
//! - [`firmware`]: models of how a machine's firmware chooses what to boot from a disk.

pub mod firmware;
