//! Any bytes as a FAT volume: listing and reading end, and never panic.
#![no_main]

use std::io::Cursor;

use bramble_fat::Reader;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut reader) = Reader::open(Cursor::new(bytes)) else { return };
    for node in reader.list("").unwrap_or_default().into_iter().take(16) {
        if node.is_directory {
            let _ = reader.list(&node.name);
        } else {
            let _ = reader.extents(&node.name);
            let _ = reader.read(&node.name, 1 << 20);
        }
    }
});
