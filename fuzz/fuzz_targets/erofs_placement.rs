//! Any text as a placement: it is refused, or survives being written, or at worst costs a fresh layout.
#![no_main]

use bramble_erofs::{Entry, Image, Kind, Layout, Options, Placement};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(placement) = text.parse::<Placement>() else { return };
    assert_eq!(placement.to_string().parse::<Placement>().as_ref(), Ok(&placement));
    let entries = vec![
        Entry::new(b"a", Kind::File(&[1; 9000]), 0o644),
        Entry::new(b"d", Kind::Directory, 0o755),
        Entry::new(b"d/b", Kind::File(b"b"), 0o644),
    ];
    let Ok(layout) = Layout::plan(entries, &Options::default(), Some(&placement)) else { return };
    // A placement may ask for an image of terabytes, up to what compaction allows; only small ones are written.
    if layout.size() <= 64 << 20 {
        let mut bytes = Vec::new();
        layout.write_to(&mut bytes).expect("memory takes all");
        let image = Image::open(&bytes).expect("what was written is read");
        let inode = image.find(b"d/b").expect("it was given");
        assert_eq!(*image.data(&inode).expect("it is whole"), *b"b");
    }
});
