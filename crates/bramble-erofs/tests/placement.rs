//! What a next release changes, block by block.

use std::collections::BTreeMap;

use bramble_erofs::{Content, Entry, FileType, Image, Kind, Layout, Options, PlanError};
use proptest::prelude::*;

const BLOCK: usize = 4096;

type Files = BTreeMap<String, Vec<u8>>;

fn options() -> Options {
    Options { label: "stable".into(), size_multiple: 64 << 10, ..Options::default() }
}

/// Entries of files and of the directories on the way to them.
fn entries(files: &Files) -> Vec<Entry<'_>> {
    let mut entries: BTreeMap<&[u8], Entry<'_>> = BTreeMap::new();
    for (path, content) in files {
        for (at, _) in path.match_indices('/') {
            let parent = &path.as_bytes()[..at];
            entries.insert(parent, Entry::new(parent, Kind::Directory, 0o755));
        }
        entries.insert(path.as_bytes(), Entry::new(path.as_bytes(), Kind::File(content), 0o644));
    }
    entries.into_values().collect()
}

fn image(layout: &Layout<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    layout.write_to(&mut bytes).unwrap();
    bytes
}

/// Blocks of `new` that are not the same in `old`.
fn changed(old: &[u8], new: &[u8]) -> usize {
    let old = old.chunks(BLOCK).map(Some).chain(std::iter::repeat(None));
    new.chunks(BLOCK).zip(old).filter(|(new, old)| Some(*new) != *old).count()
}

/// What an image holds, read back.
fn contents(bytes: &[u8]) -> Files {
    let image = Image::open(bytes).unwrap();
    let mut files = Files::new();
    image
        .walk(|path, inode| {
            if inode.file_type == FileType::File {
                let data = image.data(inode).unwrap().into_owned();
                files.insert(String::from_utf8(path.to_vec()).unwrap(), data);
            }
        })
        .unwrap();
    files
}

fn tree() -> Files {
    let path = |n: usize| format!("d{}/e{}/file-{n}", n % 7, n % 13);
    (0..400).map(|n| (path(n), vec![n as u8; n * 97])).collect()
}

#[test]
fn a_changed_file_costs_its_own_blocks() {
    let old = tree();
    let first = Layout::plan(entries(&old), &options(), None).unwrap();
    let mut new = old.clone();
    new.get_mut("d1/e5/file-57").unwrap().fill(0xee);
    let second = Layout::plan(entries(&new), &options(), Some(first.placement())).unwrap();
    assert_eq!(changed(&image(&first), &image(&second)), (57 * 97usize).div_ceil(BLOCK));
    assert_eq!(first.placement(), second.placement());
}

#[test]
fn grown_new_and_lost_files_leave_the_others_alone() {
    let options = Options { size_multiple: 4 << 20, ..options() };
    let old = tree();
    let first = Layout::plan(entries(&old), &options, None).unwrap();
    let mut new = old.clone();
    new.remove("d0/e0/file-0");
    new.remove("d0/e3/file-315");
    new.insert("d1/e5/file-57".into(), vec![1; 57 * 97 + 20 * BLOCK]);
    new.insert("d1/e5/new".into(), vec![2; 3 * BLOCK]);
    let second = Layout::plan(entries(&new), &options, Some(first.placement())).unwrap();
    assert!(!second.compacted());
    assert_eq!(contents(&image(&second)), new);
    let own = 3 + (57 * 97 + 20 * BLOCK).div_ceil(BLOCK);
    // The blocks of the lost file and the old ones of the grown one become zeros. Inode blocks: of the lost two, the grown and the new one. Directories: three.
    // And the superblock, which counts inodes.
    let lost = (315 * 97usize).div_ceil(BLOCK) + (57 * 97usize).div_ceil(BLOCK);
    let cost = changed(&image(&first), &image(&second));
    assert!(cost <= own + lost + 4 + 3 + 1, "{cost} blocks changed, {own} are new content");
    for (path, place) in &second.placement().places {
        let before = first.placement().places.get(path);
        let moved = before.is_some_and(|before| before != place);
        assert!(!moved || path == b"d1/e5/file-57", "{} moved", String::from_utf8_lossy(path));
    }
}

#[test]
fn growth_inside_the_room_at_the_end_keeps_the_size() {
    let options = Options { size_multiple: 4 << 20, ..options() };
    let old = tree();
    let first = Layout::plan(entries(&old), &options, None).unwrap();
    let mut new = old.clone();
    new.insert("d1/e5/new".into(), vec![2; BLOCK]);
    let second = Layout::plan(entries(&new), &options, Some(first.placement())).unwrap();
    assert_eq!(first.size(), second.size());
    assert_eq!(first.size() % (4 << 20), 0);
}

#[test]
fn an_image_of_holes_is_laid_out_afresh() {
    let old = tree();
    let first = Layout::plan(entries(&old), &options(), None).unwrap();
    let new: Files = old.clone().into_iter().filter(|(path, _)| path.ends_with('7')).collect();
    let second = Layout::plan(entries(&new), &options(), Some(first.placement())).unwrap();
    assert!(second.compacted());
    assert!(second.size() < first.size() / 4);
    assert_eq!(contents(&image(&second)), new);
    let fresh = Layout::plan(entries(&new), &options(), None).unwrap();
    assert_eq!(image(&second), image(&fresh));
}

#[test]
fn many_new_inodes_overflow_into_other_blocks_and_stay_there() {
    let old = tree();
    let first = Layout::plan(entries(&old), &options(), None).unwrap();
    let mut new = old.clone();
    new.extend((0..1000).map(|n| (format!("d1/e5/new-{n}"), vec![n as u8; 10])));
    let all = Options { compact_above_percent: 1000, ..options() };
    let second = Layout::plan(entries(&new), &all, Some(first.placement())).unwrap();
    assert!(!second.compacted());
    assert_eq!(contents(&image(&second)), new);
    let third = Layout::plan(entries(&new), &all, Some(second.placement())).unwrap();
    assert_eq!(image(&second), image(&third));
    let outside = u64::from(second.placement().inode_blocks + 1) * 128;
    assert!(second.placement().places.values().any(|place| place.nid >= outside));
}

#[test]
fn a_placement_that_lies_costs_stability_only() {
    let files = tree();
    let first = Layout::plan(entries(&files), &options(), None).unwrap();
    let mut lie = first.placement().clone();
    let there = lie.places[&b"d1/e5/file-57"[..]];
    for place in lie.places.values_mut() {
        *place = there;
    }
    let second = Layout::plan(entries(&files), &options(), Some(&lie)).unwrap();
    assert_eq!(contents(&image(&second)), files);
    lie = first.placement().clone();
    (lie.inode_blocks, lie.data_start, lie.blocks) = (u32::MAX - 1, u32::MAX - 1, u32::MAX);
    let third = Layout::plan(entries(&files), &options(), Some(&lie)).unwrap();
    assert!(third.compacted());
    assert_eq!(contents(&image(&third)), files);
}

#[test]
fn impossible_entries_are_refused() {
    let plan =
        |entries: &[Entry<'_>]| Layout::plan(entries.to_vec(), &options(), None).map(|_| ()).unwrap_err();
    let file = |path: &'static [u8]| Entry::new(path, Kind::File(b""), 0o644);
    for path in [&b"/a"[..], b"a/", b"a//b", b"./a", b"a/../b", b"a\0", &[b'a'; 256]] {
        let path: &'static [u8] = path.to_vec().leak();
        assert!(matches!(plan(&[file(path)]), PlanError::BadPath { .. }));
    }
    assert!(matches!(plan(&[file(b"a"), file(b"a")]), PlanError::Duplicate { .. }));
    assert!(matches!(plan(&[file(b"a/b")]), PlanError::NoParent { .. }));
    assert!(matches!(plan(&[file(b"a"), file(b"a/b")]), PlanError::NoParent { .. }));
    assert!(matches!(plan(&[file(b"")]), PlanError::BadEntry { .. }));
    let link = |target: &'static [u8]| Entry::new(b"l", Kind::HardLink(target), 0);
    assert!(matches!(plan(&[link(b"missing")]), PlanError::BadLink { .. }));
    assert!(matches!(plan(&[link(b"l")]), PlanError::BadLink { .. }));
    assert!(matches!(plan(&[link(b"")]), PlanError::BadLink { .. }));
    assert!(matches!(plan(&[Entry::new(b"s", Kind::Symlink(b""), 0o777)]), PlanError::BadEntry { .. }));
    assert!(matches!(plan(&[Entry::new(b"m", Kind::Fifo, 0o10000)]), PlanError::BadEntry { .. }));
    let long = Options { label: "seventeen letters".into(), ..options() };
    assert!(matches!(Layout::plan(vec![], &long, None), Err(PlanError::LabelTooLong { .. })));
}

fn any_files() -> impl Strategy<Value = Files> {
    let file = ("[ab]{1,2}/[!-.0-~]{1,40}|[c-f]{1,9}", 0usize..30_000, any::<u8>());
    let file = file.prop_filter("dots", |(path, ..)| !path.split('/').any(|name| matches!(name, "." | "..")));
    let file = file.prop_map(|(path, length, byte)| (path, vec![byte; length]));
    proptest::collection::vec(file, 0..60).prop_map(|files| files.into_iter().collect())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    /// Three releases in a row: each reads back whole, whatever the order of entries and the way it is copied out.
    #[test]
    fn releases_read_back(releases in proptest::collection::vec(any_files(), 3), seed in any::<u64>()) {
        let mut previous = None;
        for files in &releases {
            let layout = Layout::plan(entries(files), &options(), previous.as_ref()).unwrap();
            let bytes = image(&layout);
            prop_assert_eq!(bytes.len() as u64, layout.size());
            prop_assert_eq!(&contents(&bytes), files);

            let mut shuffled = entries(files);
            let count = shuffled.len().max(1);
            shuffled.rotate_left(seed as usize % count);
            let again = Layout::plan(shuffled, &options(), previous.as_ref()).unwrap();
            prop_assert!(image(&again) == bytes);

            let step = 1 + seed as usize % 10_000;
            let mut filled = vec![0xaa; bytes.len()];
            for (index, part) in filled.chunks_mut(step).enumerate() {
                layout.fill((index * step) as u64, part);
            }
            prop_assert!(filled == bytes);
            let mut at = 0;
            for segment in layout.segments() {
                prop_assert_eq!(segment.offset, at);
                at += segment.content.len();
                if let Content::Bytes(part) = segment.content {
                    prop_assert!(&bytes[segment.offset as usize..][..part.len()] == part);
                }
            }
            prop_assert_eq!(at, layout.size());
            let text = layout.placement().to_string();
            prop_assert_eq!(&text.parse::<bramble_erofs::Placement>().unwrap(), layout.placement());
            previous = Some(layout.placement().clone());
        }
    }

    /// Damage is an error or other content, never a panic or endless work.
    #[test]
    fn hostile_images_do_no_harm(files in any_files(), damage in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..40)) {
        let mut bytes = image(&Layout::plan(entries(&files), &options(), None).unwrap());
        // Most damage goes to inodes and directories, where it hurts.
        let metadata = bytes.len().min(64 * BLOCK);
        for (at, byte) in damage {
            bytes[BLOCK + at as usize % (metadata - BLOCK)] = byte;
        }
        if let Ok(image) = Image::open(&bytes) {
            let mut read = 0;
            let _ = image.walk(|_, inode| read += image.data(inode).map_or(0, |data| data.len()));
        }
    }

    /// Not even a valid head.
    #[test]
    fn noise_is_not_an_image(bytes in proptest::collection::vec(any::<u8>(), 0..9000)) {
        prop_assert!(Image::open(&bytes).is_err());
    }
}
