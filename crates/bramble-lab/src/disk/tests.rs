//! The cache's promises, checked against a plain array for thousands of seeds.

use super::*;
use proptest::prelude::*;
use std::sync::mpsc::channel;

const SIZE: u64 = 64 * 1024;

fn base_byte(i: u64) -> u8 {
    (i % 251) as u8 + 1
}

/// A disk whose second quarter comes from a file, and the array that it must look like.
fn fresh(dir: &Path) -> (Disk, Vec<u8>) {
    let file = dir.join("base");
    std::fs::write(&file, (0..SIZE).map(base_byte).collect::<Vec<u8>>()).unwrap();
    let (start, length, offset) = (SIZE / 4 + 512, SIZE / 4, 1000);
    let base = [crate::BaseSegment { start, length, path: file, offset }];
    let record = DiskRecord::create(dir, SIZE, &base).unwrap();
    let mut model = vec![0; SIZE as usize];
    for i in 0..length {
        model[(start + i) as usize] = base_byte(offset + i);
    }
    (Disk::open("m", dir, &record).unwrap(), model)
}

fn content(disk: &Disk) -> Vec<u8> {
    let mut all = vec![0xee; SIZE as usize];
    disk.read(0, &mut all).unwrap();
    all
}

#[derive(Clone, Debug)]
enum Op {
    Write { sector: u64, sectors: u64, fill: u8, force: bool },
    Zero { sector: u64, sectors: u64 },
    Flush,
}

fn op() -> impl Strategy<Value = Op> {
    let place = || (0..SIZE / 512 - 20, 1u64..20);
    prop_oneof![
        6 => (place(), 1u8..=255, 0u8..8)
            .prop_map(|((sector, sectors), fill, f)| Op::Write { sector, sectors, fill, force: f == 0 }),
        2 => place().prop_map(|(sector, sectors)| Op::Zero { sector, sectors }),
        1 => Just(Op::Flush),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Reads see every write. After a cut each sector holds what the last flush left there or what one of the
    /// later writes put there; nothing older than a write that was forced; and never anything else.
    #[test]
    fn a_cut_leaves_only_what_a_drive_may_leave(ops in proptest::collection::vec(op(), 1..60), seed: u64) {
        let dir = tempfile::tempdir().unwrap();
        let (disk, mut model) = fresh(dir.path());
        // For each sector: what may be there if the power goes now.
        let sector = |all: &[u8], i: u64| all[(i * 512) as usize..][..512].to_vec();
        let mut allowed: Vec<Vec<Vec<u8>>> = (0..SIZE / 512).map(|i| vec![sector(&model, i)]).collect();
        for op in ops {
            match op {
                Op::Write { sector: s, sectors, fill, force } => {
                    let bytes = vec![fill; (sectors * 512) as usize];
                    disk.write(s * 512, &bytes, force).unwrap();
                    model[(s * 512) as usize..][..bytes.len()].copy_from_slice(&bytes);
                    for i in s..s + sectors {
                        if force {
                            allowed[i as usize].clear();
                        }
                        allowed[i as usize].push(vec![fill; 512]);
                    }
                }
                Op::Zero { sector: s, sectors } => {
                    disk.zero(s * 512, sectors * 512, false).unwrap();
                    model[(s * 512) as usize..][..(sectors * 512) as usize].fill(0);
                    for i in s..s + sectors {
                        allowed[i as usize].push(vec![0; 512]);
                    }
                }
                Op::Flush => {
                    disk.flush().unwrap();
                    allowed = (0..SIZE / 512).map(|i| vec![sector(&model, i)]).collect();
                }
            }
        }
        prop_assert!(content(&disk) == model, "a read missed a write");
        disk.stop();
        prop_assert!(matches!(disk.read(0, &mut [0; 512]), Err(DiskError::NoPower)));
        prop_assert!(matches!(disk.write(0, &[0; 512], false), Err(DiskError::NoPower)));
        disk.settle(seed).unwrap();
        drop(disk);
        let record = DiskRecord::read(dir.path()).unwrap().unwrap();
        let after = content(&Disk::open("m", dir.path(), &record).unwrap());
        for i in 0..SIZE / 512 {
            let found = sector(&after, i);
            prop_assert!(allowed[i as usize].contains(&found), "sector {} holds {:?}", i, &found[..4]);
        }
    }
}

#[test]
fn the_death_of_the_host_loses_the_cache_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, mut model) = fresh(dir.path());
    disk.write(100, b"kept by a flush", false).unwrap();
    model[100..115].copy_from_slice(b"kept by a flush");
    disk.flush().unwrap();
    disk.write(40_000, b"forced", true).unwrap();
    model[40_000..40_006].copy_from_slice(b"forced");
    disk.write(100, b"lost", false).unwrap();
    drop(disk);
    let record = DiskRecord::read(dir.path()).unwrap().unwrap();
    assert!(content(&Disk::open("m", dir.path(), &record).unwrap()) == model);
}

#[test]
fn the_same_seed_leaves_the_same_disk_and_seeds_differ() {
    let outcome = |seed| {
        let dir = tempfile::tempdir().unwrap();
        let (disk, _) = fresh(dir.path());
        for i in 0..40u64 {
            disk.write(i * 1024, &[i as u8 + 1; 4096], false).unwrap();
        }
        disk.stop();
        let report = disk.settle(seed).unwrap();
        assert_eq!(report.kept + report.torn + report.dropped, 40);
        let record = DiskRecord::read(dir.path()).unwrap().unwrap();
        content(&Disk::open("m", dir.path(), &record).unwrap())
    };
    assert!(outcome(11) == outcome(11));
    let all: std::collections::BTreeSet<Vec<u8>> = (0..20).map(outcome).collect();
    assert!(all.len() > 10, "{} outcomes of 20 seeds", all.len());
}

#[test]
fn a_planned_cut_takes_effect_between_two_writes() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _) = fresh(dir.path());
    let (told, cut) = channel();
    disk.stop_after(2, told);
    disk.write(0, &[1; 512], false).unwrap();
    assert!(cut.try_recv().is_err());
    disk.write(512, &[2; 512], false).unwrap();
    cut.try_recv().unwrap();
    assert!(matches!(disk.write(1024, &[3; 512], false), Err(DiskError::NoPower)));
    assert!(matches!(disk.flush(), Err(DiskError::NoPower)));
    assert_eq!(disk.unflushed(), (2, 1024));
}

#[test]
fn a_full_cache_moves_to_the_medium_unasked() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _) = fresh(dir.path());
    for _ in 0..=CACHE_WRITES {
        disk.write(0, &[7; 512], false).unwrap();
    }
    assert_eq!(disk.unflushed(), (0, 0));
}

#[test]
fn outside_is_outside() {
    let dir = tempfile::tempdir().unwrap();
    let (disk, _) = fresh(dir.path());
    for (offset, length) in [(SIZE, 1), (SIZE - 1, 2), (u64::MAX, 2), (u64::MAX - 1, 1)] {
        assert!(matches!(disk.read(offset, &mut vec![0; length]), Err(DiskError::Outside)), "{offset}");
        assert!(matches!(disk.write(offset, &vec![0; length], false), Err(DiskError::Outside)));
        assert!(matches!(disk.zero(offset, length as u64, true), Err(DiskError::Outside)));
    }
    disk.read(SIZE, &mut []).unwrap();
}

#[test]
fn a_base_that_changed_or_is_too_short_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    drop(fresh(dir.path()));
    let record = DiskRecord::read(dir.path()).unwrap().unwrap();
    std::fs::write(dir.path().join("base"), b"another").unwrap();
    let refused = Disk::open("m", dir.path(), &record).unwrap_err();
    assert!(matches!(refused, Refusal::BaseChanged { .. }), "{refused}");
    let refused = DiskRecord::create(dir.path(), SIZE, &record.base).unwrap_err();
    assert!(refused.to_string().contains("shorter"), "{refused}");
}

#[test]
fn a_snapshot_brings_everything_back() {
    let (dir, saved) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (disk, _) = fresh(dir.path());
    std::fs::write(dir.path().join("vars.fd"), b"one").unwrap();
    disk.write(5000, &[9; 9000], false).unwrap();
    disk.keep().unwrap();
    let before = content(&disk);
    snapshot::copy(dir.path(), saved.path()).unwrap();
    disk.write(0, &[1; 60_000], true).unwrap();
    drop(disk);
    std::fs::write(dir.path().join("vars.fd"), b"two").unwrap();
    snapshot::copy(saved.path(), dir.path()).unwrap();
    let record = DiskRecord::read(dir.path()).unwrap().unwrap();
    assert!(content(&Disk::open("m", dir.path(), &record).unwrap()) == before);
    assert_eq!(std::fs::read(dir.path().join("vars.fd")).unwrap(), b"one");
}
