//! Any bytes as a disk: a table that reads can be repaired, and then nothing is found wrong with it.
#![no_main]

use std::io::Cursor;

use bramble_partition::{gpt, mbr};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let size = bytes.len() as u64;
    let _ = mbr::Table::read(&mut Cursor::new(bytes), size);
    let Ok(check) = gpt::check(&mut Cursor::new(bytes), size) else { return };
    let mut disk = bytes.to_vec();
    for write in check.repair_writes() {
        let at = write.offset as usize;
        disk[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
    let again = gpt::check(&mut Cursor::new(&disk), size).expect("a repaired table reads");
    assert_eq!(again.table, check.table);
    assert!(again.findings.is_empty());
});
