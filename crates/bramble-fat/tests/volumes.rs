//! Round trips, refusals, and hostile volumes.

use std::collections::BTreeMap;
use std::io::Cursor;

use bramble_fat::{Entry, FatType, Options, PlanError, ReadError, Reader, Volume};
use proptest::prelude::*;

/// A FAT16 of little more than the least size.
fn small() -> Options {
    Options { size: 2_200_000 / 512 * 512, label: "SMALL".into(), ..Options::new(FatType::Fat16) }
}

/// A FAT32 of little more than the least size.
fn large() -> Options {
    Options { size: 34 << 20, ..Options::new(FatType::Fat32) }
}

fn image(entries: &[Entry<'_>], options: &Options) -> Vec<u8> {
    let mut bytes = Vec::new();
    Volume::plan(entries, options).unwrap().write_to(&mut bytes).unwrap();
    bytes
}

fn refused(entries: &[Entry<'_>], options: &Options) -> PlanError {
    Volume::plan(entries, options).map(|_| ()).unwrap_err()
}

#[test]
fn every_file_is_one_run_and_says_where() {
    let content = vec![7; 5000];
    for options in [small(), large()] {
        let entries = [
            Entry::file("a/b/c", &content),
            Entry::file("empty", b""),
            Entry::file("padded", &content).padded_to(100_000),
            Entry::file("A/d", &content),
        ];
        let volume = Volume::plan(&entries, &options).unwrap();
        let mut reader = Reader::open(Cursor::new(image(&entries, &options))).unwrap();
        assert_eq!((reader.fat_type(), reader.size()), (options.fat_type, options.size));
        for (path, extent) in volume.extents().filter(|(path, _)| *path != "empty") {
            assert_eq!(reader.extents(path).unwrap(), [extent], "{path}");
        }
        assert_eq!(reader.extents("empty").unwrap(), []);
        let padded = reader.read("padded", 100_000).unwrap();
        assert!(padded[..5000] == content && padded[5000..].iter().all(|byte| *byte == 0));
        let names: Vec<_> = reader.list("").unwrap().into_iter().map(|node| node.name).collect();
        assert_eq!(names, ["a", "empty", "padded"]);
        let names: Vec<_> = reader.list("a").unwrap().into_iter().map(|node| node.name).collect();
        assert_eq!(names, ["b", "d"]);
    }
}

#[test]
fn the_wrong_type_is_refused() {
    // 128 MiB with four sectors a cluster is just too few clusters for a FAT32 (65,488).
    let pi = Options { size: 128 << 20, sectors_per_cluster: 4, ..Options::new(FatType::Fat32) };
    assert!(matches!(refused(&[], &pi), PlanError::WrongType { wanted: FatType::Fat32, .. }));
    let too_small = Options { size: 1 << 20, ..small() };
    assert!(matches!(refused(&[], &too_small), PlanError::WrongType { .. }));
    for (size, sectors_per_cluster) in
        [(0, 1), (513, 1), (2 << 20, 3), (2 << 20, 0), (4096, 1), (3 << 40, 128)]
    {
        let options = Options { size, sectors_per_cluster, ..small() };
        assert!(
            matches!(refused(&[], &options), PlanError::BadGeometry { .. }),
            "{size} {sectors_per_cluster}"
        );
    }
}

#[test]
fn impossible_entries_are_refused() {
    let file = |path| Entry::file(path, b"x");
    for path in ["", "/a", "a/", "a//b", "../a", "a:b", "a/b.", "con\u{1}"] {
        assert!(matches!(refused(&[file(path)], &small()), PlanError::BadPath { .. }), "{path:?}");
    }
    assert!(matches!(refused(&[file("a"), file("a/b")], &small()), PlanError::BadPath { .. }));
    assert!(matches!(refused(&[file("a/b"), file("A")], &small()), PlanError::Duplicate { .. }));
    assert!(matches!(
        refused(&[file("Gr\u{fc}n"), file("GR\u{dc}N")], &small()),
        PlanError::Duplicate { .. }
    ));
    let twice = [Entry::directory("d"), Entry::directory("D")];
    assert!(matches!(refused(&twice, &small()), PlanError::Duplicate { .. }));
    let big = vec![0; 3 << 20];
    assert!(matches!(refused(&[Entry::file("big", &big)], &small()), PlanError::Full { .. }));
    let huge = Entry::file("huge", b"").padded_to(4 << 30);
    assert!(matches!(refused(&[huge], &small()), PlanError::BadPath { .. }));
    assert!(matches!(refused(&[file("a").alone_in(1000)], &small()), PlanError::BadPath { .. }));
    for label in ["TWELVE CHARS", "lower", " FRONT", "\u{fc}"] {
        let options = Options { label: label.into(), ..small() };
        assert!(matches!(refused(&[], &options), PlanError::BadLabel { .. }), "{label}");
    }
    // The root of a FAT16 cannot grow; a long name takes several of its 512 places.
    let names: Vec<String> = (0..200).map(|n| format!("a name of many letters {n}")).collect();
    let entries: Vec<_> = names.iter().map(|name| file(name)).collect();
    assert!(matches!(refused(&entries, &small()), PlanError::BadPath { .. }));
    assert!(Volume::plan(&entries, &large()).is_ok());
}

#[test]
fn what_is_missing_is_said() {
    let mut reader = Reader::open(Cursor::new(image(&[Entry::file("a/b", b"x")], &small()))).unwrap();
    assert!(matches!(reader.read("a/c", 1), Err(ReadError::NotFound { .. })));
    assert!(matches!(reader.read("a/b/c", 1), Err(ReadError::NotFound { .. })));
    assert!(matches!(reader.read("a", 1), Err(ReadError::WrongKind { .. })));
    assert!(matches!(reader.list("a/b"), Err(ReadError::WrongKind { .. })));
    assert!(matches!(reader.read("a/b", 0), Err(ReadError::TooLarge { size: 1, limit: 0, .. })));
    assert!(matches!(Reader::open(Cursor::new([0; 4096])), Err(ReadError::NotFat { .. })));
    assert!(matches!(Reader::open(Cursor::new([0; 100])), Err(ReadError::Device { .. })));
}

#[test]
fn a_chain_in_a_circle_is_an_error() {
    let content = vec![1; 4096];
    let entries = [Entry::file("file", &content)];
    let volume = Volume::plan(&entries, &small()).unwrap();
    let mut bytes = image(&entries, &small());
    let fat = u16::from_le_bytes([bytes[14], bytes[15]]) as usize * 512;
    // The only chain begins at cluster 2 and has eight clusters: the last leads back, then out of the volume.
    assert_eq!(volume.extent("file").unwrap().length, 4096);
    for next in [2u16, 0, 1, 0xfff0] {
        bytes[fat + 2 * 9..][..2].copy_from_slice(&next.to_le_bytes());
        let mut reader = Reader::open(Cursor::new(&bytes)).unwrap();
        assert!(matches!(reader.read("file", 1 << 20), Err(ReadError::BrokenChain { cluster: 2 })), "{next}");
    }
}

fn any_files() -> impl Strategy<Value = BTreeMap<String, Vec<u8>>> {
    let file = ("([a-c]{1,2}/){0,2}[d-z]([a-zA-Z0-9 ._+-]{0,30}[a-z])?", 0usize..9000, any::<u8>());
    proptest::collection::vec(file, 0..40).prop_map(|files| {
        let mut seen = std::collections::HashSet::new();
        let files = files.into_iter().filter(|(path, ..)| seen.insert(path.to_uppercase()));
        files.map(|(path, length, byte)| (path, vec![byte; length])).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn files_read_back(files in any_files()) {
        let entries: Vec<_> = files.iter().map(|(path, content)| Entry::file(path, content)).collect();
        let bytes = image(&entries, &small());
        prop_assert!(bytes == image(&entries, &small()));
        let mut reader = Reader::open(Cursor::new(bytes)).unwrap();
        for (path, content) in &files {
            prop_assert_eq!(&reader.read(&path.to_uppercase(), 1 << 20).unwrap(), content);
        }
    }

    /// Damage is an error or other content, never a panic or endless work.
    #[test]
    fn hostile_volumes_do_no_harm(files in any_files(), damage in proptest::collection::vec((0usize..60_000, any::<u8>()), 1..60)) {
        let entries: Vec<_> = files.iter().map(|(path, content)| Entry::file(path, content)).collect();
        let mut bytes = image(&entries, &small());
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        if let Ok(mut reader) = Reader::open(Cursor::new(&bytes)) {
            let _ = reader.list("");
            for path in files.keys() {
                let _ = reader.read(path, 1 << 20);
            }
        }
    }

    /// A boot sector of chance.
    #[test]
    fn noise_is_refused_or_harmless(mut bytes in proptest::collection::vec(any::<u8>(), 4096), field in 0u8..8) {
        bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
        bytes[11..13].copy_from_slice(&512u16.to_le_bytes());
        bytes[13] = 1 << field;
        bytes[16] = 2;
        if let Ok(mut reader) = Reader::open(Cursor::new(&bytes)) {
            let _ = reader.read("a/b", 1 << 20);
        }
    }
}
