//! Any bytes as the two copies of an upgrade's journal: they are read, and what is read can be written again.
#![no_main]

use bramble_upgrade::journal::{self, COPY, Found};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let (first, second) = bytes.split_at(bytes.len().min(COPY));
    if let Found::Newest(entry) = journal::read([first, second]) {
        if let Ok(copy) = journal::encode(&entry) {
            assert_eq!(journal::read([&copy, &[]]), Found::Newest(entry));
        }
    }
});
