//! How firmware chooses what to boot from a disk, as pure functions of the disk.
