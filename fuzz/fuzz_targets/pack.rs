//! A pack whose hashes are all believed: head, tables, recipes, frames. No bytes make it panic, or take more memory than
//! a frame has.
#![no_main]

use bramble_pack::{BLOCK, Frames, Head, MAX_FRAME_BLOCKS, Recipe};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(head) = Head::parse(bytes, bytes.len() as u64) else { return };
    let part = |offset: u64, size: u64| {
        let start = usize::try_from(head.at(offset)).ok()?;
        bytes.get(start..start.checked_add(usize::try_from(size).ok()?)?)
    };
    for way in head.ways(&head.recipes.iter().map(|entry| entry.manifest).collect::<Vec<_>>()) {
        assert!(way.bytes() <= 2 * bytes.len() as u64);
    }
    for entry in &head.recipes {
        let recipe = part(entry.recipe.offset, entry.recipe.size).expect("the head was checked");
        if let Ok(recipe) = Recipe::parse(&head, entry, recipe.to_vec()) {
            assert_eq!(recipe.runs().map(|run| u64::from(run.blocks)).sum::<u64>(), head.blocks());
        }
    }
    let streams = head.recipes.iter().map(|entry| &entry.stream).chain([&head.full]);
    for stream in streams {
        let table = part(stream.table.offset, stream.table.size).expect("the head was checked");
        let Ok(frames) = Frames::parse(stream, table) else { continue };
        let mut content = Vec::new();
        for frame in frames.all() {
            let compressed = part(frame.offset, frame.size.into()).expect("the table was checked");
            if frame.decompress(compressed, &mut content).is_ok() {
                assert_eq!(content.len(), frame.blocks as usize * BLOCK);
            }
            assert!(content.capacity() <= MAX_FRAME_BLOCKS as usize * BLOCK);
        }
    }
});
