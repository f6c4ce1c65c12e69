//! Packs, made and read back; and what is not one.

use bramble_api::release::Digest;
use bramble_pack::write::{self, Image, Settings};
use bramble_pack::{
    Applied, BLOCK, Earlier, Fetch, Frames, Head, ImageKind, Index, MAX_FRAME_BLOCKS, Place, Recipe, Way,
    apply, apply_full,
};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::io;

const SALT: &[u8] = &[0x5a; 32];
const QUICK: Settings = Settings { level: 1, frame_blocks: 4 };

/// Images by kind; the bytes need not be whole blocks.
type Images = BTreeMap<ImageKind, Vec<u8>>;

fn images(images: &Images) -> Vec<Image<'_>> {
    images.iter().map(|(kind, bytes)| Image { kind: *kind, bytes }).collect()
}

fn earlier(version: u64, before: &Images) -> write::Earlier {
    write::Earlier { version, manifest: name(version), images: write::index(SALT, &images(before)) }
}

fn name(version: u64) -> Digest {
    Digest::of(&version.to_le_bytes())
}

fn pack(now: &Images, before: &[write::Earlier]) -> (Vec<u8>, write::Written) {
    let mut bytes = Vec::new();
    let written = write::write(&mut bytes, 9, SALT, &images(now), before, &QUICK).unwrap();
    assert_eq!(written.size, bytes.len() as u64);
    assert_eq!(written.sha256, Digest::of(&bytes));
    (bytes, written)
}

/// A pack in memory.
struct Bytes<'a>(&'a [u8]);

impl Fetch for Bytes<'_> {
    fn fetch(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let from = self.0.get(offset as usize..).unwrap_or_default();
        let bytes = from.get(..out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }
}

/// Images in memory: the earlier release, or the slot that is written.
#[derive(Clone, Default)]
struct Slot {
    images: Images,
    keeps: bool,
}

impl Earlier for Slot {
    fn read(&mut self, image: ImageKind, at: u32, out: &mut [u8]) -> io::Result<()> {
        let bytes = &self.images[&image];
        let start = at as usize * BLOCK;
        out.copy_from_slice(bytes.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl Place for Slot {
    fn put(&mut self, image: ImageKind, at: u32, blocks: &[u8]) -> io::Result<()> {
        let bytes = self.images.entry(image).or_default();
        let start = at as usize * BLOCK;
        let end = start + blocks.len();
        bytes.resize(bytes.len().max(end), 0);
        bytes[start..end].copy_from_slice(blocks);
        Ok(())
    }

    fn keeps(&mut self, _: ImageKind, _: u32, _: u32) -> bool {
        !self.keeps
    }
}

fn whole(images: &Images) -> Images {
    let fill = |(kind, bytes): (&ImageKind, &Vec<u8>)| {
        let mut bytes = bytes.clone();
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        (*kind, bytes)
    };
    images.iter().map(fill).collect()
}

/// The images that a pack makes from an earlier release, in a slot that held it or nothing.
fn made(bytes: &[u8], number: usize, before: &Images, in_place: bool) -> (Images, Applied) {
    let head = Head::parse(bytes, bytes.len() as u64).unwrap();
    let mut old = Slot { images: whole(before), keeps: false };
    let mut slot = if in_place { Slot { keeps: true, ..old.clone() } } else { Slot::default() };
    let applied = apply(&head, &head.recipes[number], &mut Bytes(bytes), &mut old, &mut slot).unwrap();
    // What a shorter image leaves behind its end is another's matter.
    for image in &head.images {
        slot.images.get_mut(&image.kind).unwrap().truncate(image.blocks as usize * BLOCK);
    }
    slot.images.retain(|kind, _| head.images.iter().any(|image| image.kind == *kind));
    (slot.images, applied)
}

/// Blocks that are numbered by their content; 0 is zeros.
fn blocks(numbers: &[u8]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|n| (0..BLOCK).map(move |i| if *n == 0 { 0 } else { n ^ (i / 251) as u8 }))
        .collect()
}

fn root(numbers: &[u8]) -> Images {
    BTreeMap::from([(ImageKind::Root, blocks(numbers))])
}

#[test]
fn a_release_follows_from_the_one_before() {
    let before = root(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let mut now = root(&[1, 2, 9, 4, 7, 8, 0, 8, 9, 10]);
    now.insert(ImageKind::Uki, b"kernel".to_vec());
    let (bytes, written) = pack(&now, &[earlier(4, &before)]);
    for in_place in [true, false] {
        let (images, applied) = made(&bytes, 0, &before, in_place);
        assert!(images == whole(&now), "in place: {in_place}");
        assert_eq!(applied.kept, if in_place { 4 } else { 0 });
        assert_eq!(applied.fetched, written.changes[0].wire);
    }
    let change = written.changes[0];
    // 9, 9 and 10 and the kernel are new; 7, 8 were elsewhere; one is zeros.
    assert_eq!((change.from, change.written, change.copied, change.zeros), (4, 7, 2, 1));
    assert_eq!(written.head.recipes[0].stream.blocks, 4);
}

#[test]
fn the_whole_release_needs_nothing() {
    let now = BTreeMap::from([
        (ImageKind::Root, blocks(&[1, 2, 3, 4, 5, 6, 7, 8, 9])),
        (ImageKind::Uki, vec![7; 5000]),
        (ImageKind::Boot, vec![8; 4096]),
    ]);
    let (bytes, written) = pack(&now, &[]);
    let mut slot = Slot::default();
    let applied = apply_full(&written.head, &mut Bytes(&bytes), &mut slot).unwrap();
    assert!(slot.images == whole(&now));
    assert_eq!((applied.put, applied.kept), (12, 0));
    assert_eq!(applied.fetched, written.head.full.bytes());
}

#[test]
fn the_cheapest_way_is_the_first() {
    let noise: Vec<u8> = (0..64u32).flat_map(|n| Digest::of(&n.to_le_bytes()).0).collect();
    let now = BTreeMap::from([(ImageKind::Root, noise.repeat(16))]);
    let same = earlier(8, &now);
    let other = earlier(7, &root(&[1]));
    let (bytes, _) = pack(&now, &[same, other]);
    let head = Head::parse(&bytes, bytes.len() as u64).unwrap();
    assert!(matches!(head.ways(&[])[..], [Way::Full { .. }]));
    let ways = head.ways(&[name(7), name(8)]);
    assert!(matches!(ways[0], Way::Recipe { number: 0, .. }), "{ways:?}");
    assert_eq!(ways.len(), 3);
    assert!(ways.is_sorted_by_key(|way| way.bytes()));
    assert!(ways[0].bytes() < 16, "{ways:?}");
}

#[test]
fn the_index_is_the_beginning_of_the_salted_hashes() {
    let now = root(&[1, 0]);
    let (bytes, written) = pack(&now, &[]);
    let section = written.head.index;
    let start = written.head.at(section.offset) as usize;
    let index = Index::open(&written.head, &bytes[start..start + section.size as usize]).unwrap();
    let expected = [Index::entry(SALT, &now[&ImageKind::Root][..BLOCK]), Index::of_zeros(SALT)];
    assert_eq!(index.entries(), expected);
}

#[test]
fn the_same_input_makes_the_same_pack() {
    let before = root(&[1, 2, 3]);
    let now = root(&[3, 2, 1, 5, 6, 7, 8, 9, 10, 11, 12]);
    let one = pack(&now, &[earlier(1, &before)]);
    let pool = rayon::ThreadPoolBuilder::new().num_threads(5).build().unwrap();
    assert!(pool.install(|| pack(&now, &[earlier(1, &before)])) == one);
}

#[test]
fn every_wrong_byte_is_found_before_it_is_used() {
    let before = root(&[1, 2, 3]);
    let now = root(&[1, 2, 4, 5, 6, 7, 8]);
    let (good, written) = pack(&now, &[earlier(1, &before)]);
    let offered = written.offered("pack".into());
    let mut old = Slot { images: before, keeps: false };
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        let Ok(head) = Head::open(&bad[..written.head_size as usize], &offered) else { continue };
        let mut slot = Slot::default();
        let by_recipe = apply(&head, &head.recipes[0], &mut Bytes(&bad), &mut old, &mut slot);
        let mut full_slot = Slot::default();
        let full = apply_full(&head, &mut Bytes(&bad), &mut full_slot);
        let index = head.at(head.index.offset) as usize;
        let index = Index::open(&head, &bad[index..index + head.index.size as usize]);
        assert_eq!(
            [by_recipe.is_err(), full.is_err(), index.is_err()].iter().filter(|e| **e).count(),
            1,
            "byte {at} belongs to one way"
        );
        // What was put before the damage was met is right.
        for (slot, images) in [(&slot, &now), (&full_slot, &now)] {
            for (kind, bytes) in &slot.images {
                assert!(images[kind].starts_with(bytes), "byte {at}");
            }
        }
    }
    for cut in 0..good.len() {
        let short = &good[..cut];
        if let Ok(head) = Head::open(&short[..cut.min(written.head_size as usize)], &offered) {
            let mut slot = Slot::default();
            assert!(apply_full(&head, &mut Bytes(short), &mut slot).is_err(), "cut at {cut}");
        }
    }
}

fn any_root() -> impl Strategy<Value = Images> {
    (proptest::collection::vec(0u8..12, 1..60), 0usize..3, 0usize..9000).prop_map(|(numbers, extra, uki)| {
        let mut images = root(&numbers);
        if extra > 0 {
            images.insert([ImageKind::Uki, ImageKind::Boot][extra - 1], vec![extra as u8; uki + 1]);
        }
        images
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any release follows from any other, and from several at once.
    #[test]
    fn releases_follow_from_each_other(now in any_root(), one in any_root(), two in any_root()) {
        let (bytes, written) = pack(&now, &[earlier(2, &two), earlier(1, &one)]);
        for (number, before) in [&two, &one].into_iter().enumerate() {
            for in_place in [true, false] {
                let (images, applied) = made(&bytes, number, before, in_place);
                prop_assert!(images == whole(&now));
                if in_place {
                    prop_assert_eq!(applied.put, written.changes[number].written);
                }
            }
        }
        let mut slot = Slot::default();
        apply_full(&written.head, &mut Bytes(&bytes), &mut slot).unwrap();
        prop_assert!(slot.images == whole(&now));
    }

    /// Bytes that somebody else wrote, tables and recipes believed: errors, no panics, no more memory than stated.
    #[test]
    fn hostile_packs_do_no_harm(
        now in any_root(),
        one in any_root(),
        damage in proptest::collection::vec((any::<u32>(), any::<u8>()), 1..20),
    ) {
        let (mut bytes, written) = pack(&now, &[earlier(1, &one)]);
        let head = written.head;
        let begin = written.head_size as usize;
        let room = bytes.len() - begin;
        for (at, byte) in damage {
            bytes[begin + at as usize % room] = byte;
        }
        let part = |offset: u64, size: u64| bytes[head.at(offset) as usize..head.at(offset + size) as usize].to_vec();
        let entry = &head.recipes[0];
        if let Ok(recipe) = Recipe::parse(&head, entry, part(entry.recipe.offset, entry.recipe.size)) {
            let blocks: u64 = recipe.runs().map(|run| u64::from(run.blocks)).sum();
            prop_assert_eq!(blocks, head.blocks());
        }
        let table = &head.full.table;
        if let Ok(frames) = Frames::parse(&head.full, &part(table.offset, table.size)) {
            for frame in frames.all() {
                prop_assert!(frame.blocks <= MAX_FRAME_BLOCKS);
                let mut content = Vec::new();
                let from = head.at(frame.offset) as usize;
                let _ = frame.decode(&bytes[from..from + frame.size as usize], &mut content);
                prop_assert!(content.capacity() <= MAX_FRAME_BLOCKS as usize * BLOCK);
            }
        }
    }

    /// Not even a valid head.
    #[test]
    fn noise_is_no_pack(bytes in proptest::collection::vec(any::<u8>(), 0..400), size in any::<u64>()) {
        prop_assert!(Head::parse(&bytes, size).is_err());
        let mut begun = b"bramble-pack\0\0\0\0".to_vec();
        begun.extend(&bytes);
        prop_assert!(Head::parse(&begun, size).is_err());
    }
}
