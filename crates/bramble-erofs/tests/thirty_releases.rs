//! Thirty releases in a row: what an update writes, and whether the placement decays.
//!
//! The trees are synthetic, with the proportions of a Debian root: many small files and few large ones; in a release of
//! security fixes a few packages are rebuilt, so that some files change throughout and grow or shrink by a block or two;
//! every sixth release is a point release with a new kernel, whose modules lie in a directory of another name.

use bramble_erofs::{Entry, Kind, Layout, Options};
use std::collections::{BTreeMap, BTreeSet};

const BLOCK: usize = 4096;
const RELEASES: usize = 30;

/// Numbers that look random and are the same each time (Knuth's MMIX generator).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % end
    }
}

/// Path to length and build: the content follows from both.
type Tree = BTreeMap<String, (usize, u64)>;

fn content(length: usize, build: u64, path: &str) -> Vec<u8> {
    let mut numbers =
        Numbers(build ^ path.bytes().fold(7, |n: u64, b| n.wrapping_mul(31).wrapping_add(b.into())));
    let mut bytes = vec![0; length];
    for block in bytes.chunks_mut(BLOCK) {
        let stamp = (numbers.below(1 << 31) as u64 + 1).to_le_bytes();
        let end = block.len().min(8);
        block[..end].copy_from_slice(&stamp[..end]);
    }
    bytes
}

fn length(numbers: &mut Numbers) -> usize {
    match numbers.below(100) {
        0..60 => 100 + numbers.below(8_000),
        60..90 => 8_000 + numbers.below(40_000),
        90..99 => 50_000 + numbers.below(400_000),
        _ => 1_000_000 + numbers.below(1_000_000),
    }
}

fn modules(tree: &mut Tree, numbers: &mut Numbers, release: usize) {
    tree.retain(|path, _| !path.starts_with("modules/"));
    for n in 0..60 {
        tree.insert(
            format!("modules/6.12.{release}/m{n}.ko"),
            (20_000 + numbers.below(60_000), release as u64),
        );
    }
}

fn first(numbers: &mut Numbers) -> Tree {
    let mut tree = Tree::new();
    for n in 0..900 {
        tree.insert(format!("usr/p{}/file{n}", n / 12), (length(numbers), 0));
    }
    modules(&mut tree, numbers, 0);
    tree
}

/// The next release: packages are directories, and what is rebuilt is one of them as a whole.
fn next(tree: &Tree, numbers: &mut Numbers, release: usize) -> Tree {
    let point = release.is_multiple_of(6);
    let mut next = tree.clone();
    for _ in 0..if point { 12 } else { 2 } {
        let package = format!("usr/p{}/", numbers.below(75));
        for (_, file) in next.iter_mut().filter(|(path, _)| path.starts_with(&package)) {
            let change = numbers.below(3 * BLOCK);
            // More often a little larger than smaller.
            file.0 =
                if numbers.below(3) == 0 { file.0.saturating_sub(change).max(50) } else { file.0 + change };
            file.1 = release as u64;
        }
        if numbers.below(2) == 0 {
            next.insert(format!("{package}new{release}"), (length(numbers), release as u64));
        }
        if numbers.below(4) == 0
            && let Some(path) = next.keys().find(|path| path.starts_with(&package)).cloned()
        {
            next.remove(&path);
        }
    }
    if point {
        modules(&mut next, numbers, release);
    }
    next
}

fn image(
    contents: &BTreeMap<&str, Vec<u8>>,
    previous: Option<&bramble_erofs::Placement>,
) -> (Vec<u8>, Placed) {
    let mut entries: BTreeMap<&[u8], Entry<'_>> = BTreeMap::new();
    for (path, content) in contents {
        for (at, _) in path.match_indices('/') {
            let parent = &path.as_bytes()[..at];
            entries.insert(parent, Entry::new(parent, Kind::Directory, 0o755));
        }
        entries.insert(path.as_bytes(), Entry::new(path.as_bytes(), Kind::File(content), 0o644));
    }
    let options = Options { size_multiple: 1 << 20, ..Options::default() };
    let layout = Layout::plan(entries.into_values().collect(), &options, previous).unwrap();
    let mut bytes = Vec::new();
    layout.write_to(&mut bytes).unwrap();
    (bytes, Placed { placement: layout.placement().clone(), compacted: layout.compacted() })
}

struct Placed {
    placement: bramble_erofs::Placement,
    compacted: bool,
}

/// What one update is measured by, in blocks.
#[derive(Debug, Default)]
struct Cost {
    /// Other than they were at the same place.
    written: usize,
    /// Of files that are new or changed.
    own: usize,
    /// Of files that are as they were, and lie elsewhere.
    moved: usize,
}

fn blocks(length: usize) -> usize {
    length.div_ceil(BLOCK)
}

#[test]
fn placement_does_not_decay() {
    let mut numbers = Numbers(1);
    let mut tree = first(&mut numbers);
    let mut before: Option<(Tree, Vec<u8>, Placed)> = None;
    let mut total = Cost::default();
    let mut told = Vec::new();
    let mut compactions = BTreeSet::new();
    for release in 0..=RELEASES {
        if release > 0 {
            tree = next(&tree, &mut numbers, release);
        }
        let contents: BTreeMap<&str, Vec<u8>> =
            tree.iter().map(|(path, (length, build))| (&path[..], content(*length, *build, path))).collect();
        let (bytes, placed) = image(&contents, before.as_ref().map(|(_, _, placed)| &placed.placement));
        let (fresh, _) = image(&contents, None);
        assert!(
            bytes.len() * 100 <= fresh.len() * 125 + (100 << 20),
            "release {release}: {} bytes, {} when laid out afresh",
            bytes.len(),
            fresh.len()
        );
        if let Some((old_tree, old_bytes, old)) = &before {
            let mut cost = Cost::default();
            let old_blocks = old_bytes.chunks(BLOCK).map(Some).chain(std::iter::repeat(None));
            cost.written =
                bytes.chunks(BLOCK).zip(old_blocks).filter(|(new, old)| Some(*new) != *old).count();
            for (path, file) in &tree {
                if old_tree.get(path) != Some(file) {
                    cost.own += blocks(file.0);
                } else if old.placement.places[path.as_bytes()].data
                    != placed.placement.places[path.as_bytes()].data
                {
                    cost.moved += blocks(file.0);
                }
            }
            if placed.compacted {
                compactions.insert(release);
            } else {
                assert_eq!(cost.moved, 0, "release {release}: what did not change stays");
                total.written += cost.written;
                total.own += cost.own;
            }
            told.push(format!(
                "release {release}: {cost:?}, {} KiB of {}",
                bytes.len() >> 10,
                fresh.len() >> 10
            ));
        }
        before = Some((tree.clone(), bytes, placed));
    }
    let told = told.join("\n");
    assert!(compactions.len() <= 1, "compacted at {compactions:?}\n{told}");
    let percent = total.written * 100 / total.own;
    assert!(percent <= 130, "{percent} % of the blocks of changed files were written: {total:?}\n{told}");
}
