//! Tree, kernel and machine document to partitions to a disk image.
