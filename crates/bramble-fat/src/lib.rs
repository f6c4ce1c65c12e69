//! A deterministic FAT16 and FAT32 writer, and a reader.
