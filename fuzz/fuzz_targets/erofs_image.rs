//! Any bytes as an EROFS image: walking it and reading all it holds ends, and never panics.
#![no_main]

use bramble_erofs::Image;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(image) = Image::open(bytes) else { return };
    let _ = image.walk(|path, inode| {
        let _ = image.data(inode);
        let _ = inode.device();
        // What is shown by walking is found by name, however odd the name.
        assert!(path.is_empty() || image.find(path).is_ok());
    });
});
