//! GPT: against `sgdisk` (gdisk), which must be installed, and against power cuts.

use std::io::Cursor;
use std::process::Command;

use bramble_partition::gpt::{CheckError, Defect, Finding, Partition, Table, TableError, check};
use bramble_partition::{Guid, SECTOR, Write};
use proptest::prelude::*;

const UNIT: u64 = 64 << 10;
/// 4 MiB: small, so that hundreds of cuts can be tried.
const DISK: u64 = 64 * UNIT;

fn guid(byte: u8) -> Guid {
    Guid([byte; 16])
}

fn table() -> Table {
    let partition = |number: u32, name: &str, start: u64, size: u64| Partition {
        number,
        type_guid: "C12A7328-F81F-11D2-BA4B-00A0C93EC93B".parse().unwrap(),
        guid: guid(number as u8),
        start,
        size,
        attributes: 1 << 60,
        name: name.into(),
    };
    let partitions = vec![
        partition(1, "bramble-esp", 4 * UNIT, 8 * UNIT),
        partition(2, "bramble-root-a", 12 * UNIT, 16 * UNIT),
        partition(5, "gr\u{fc}n \u{1f347}", 32 * UNIT, 28 * UNIT),
    ];
    Table { disk_guid: guid(0xdd), partitions }
}

fn apply(disk: &mut [u8], writes: &[Write]) {
    for write in writes {
        let at = write.offset as usize;
        disk[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
}

fn written() -> Vec<u8> {
    let mut disk = vec![0; DISK as usize];
    apply(&mut disk, &table().writes(DISK).unwrap());
    disk
}

fn checked(disk: &[u8]) -> Result<bramble_partition::gpt::Check, CheckError> {
    check(&mut Cursor::new(disk), disk.len() as u64)
}

fn sgdisk(disk: &[u8], args: &[&str]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), disk).unwrap();
    let output = Command::new("sgdisk").args(args).arg(file.path()).output();
    let output = output.unwrap_or_else(|error| panic!("sgdisk: {error}; install gdisk"));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

/// Damages, each with what is found.
fn damages() -> Vec<(&'static str, Vec<u8>, Vec<Finding>)> {
    let whole = written();
    let damage = |at: u64| {
        let mut disk = whole.clone();
        disk[at as usize] ^= 0x55;
        disk
    };
    let end = DISK - SECTOR;
    let mut longer = whole.clone();
    longer.resize(2 * DISK as usize, 0);
    let moved = Finding::BackupNotAtEnd { expected: end, end: 2 * DISK - SECTOR };
    let mut longer_and_bad = longer.clone();
    longer_and_bad[1024] ^= 1;
    let mut no_mbr = whole.clone();
    no_mbr[..512].fill(0);
    no_mbr[..4].copy_from_slice(b"boot");
    let mut differs = whole.clone();
    let mut other = table();
    other.partitions[0].name = "other".into();
    apply(&mut differs, &other.writes(DISK).unwrap()[..2]);
    vec![
        ("primary header", damage(512 + 56), vec![Finding::PrimaryBad(Defect::HeaderChecksum)]),
        ("primary signature", damage(512), vec![Finding::PrimaryBad(Defect::NoHeader)]),
        ("primary entries", damage(1024 + 60), vec![Finding::PrimaryBad(Defect::EntriesChecksum)]),
        ("backup header", damage(end + 56), vec![Finding::BackupBad(Defect::HeaderChecksum)]),
        ("backup entries", damage(end - 1), vec![Finding::BackupBad(Defect::EntriesChecksum)]),
        ("larger disk", longer, vec![moved]),
        (
            "larger disk, primary entries",
            longer_and_bad,
            vec![Finding::PrimaryBad(Defect::EntriesChecksum), moved],
        ),
        ("protective MBR", no_mbr, vec![Finding::NoProtectiveMbr]),
        ("two tables", differs, vec![Finding::CopiesDiffer]),
    ]
}

#[test]
fn sgdisk_accepts_what_is_written() {
    let disk = written();
    let verdict = sgdisk(&disk, &["-v"]);
    assert!(verdict.contains("No problems found"), "{verdict}");
    let printed = sgdisk(&disk, &["-p", "-i", "5"]);
    for fact in
        ["DDDDDDDD-DDDD-DDDD-DDDD-DDDDDDDDDDDD", "bramble-root-a", "First sector: 4096", "1000000000000000"]
    {
        assert!(printed.contains(fact), "{fact} in {printed}");
    }
    assert!(checked(&disk).unwrap().findings.is_empty());
    assert_eq!(checked(&disk).unwrap().table, table());
}

#[test]
fn what_sgdisk_writes_is_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(DISK).unwrap();
    let args =
        ["-a", "8", "-n", "1:2048:+1M", "-c", "1:first", "-t", "1:ef00", "-n", "3:0:0", "-c", "3:third"];
    assert!(Command::new("sgdisk").args(args).arg(file.path()).output().unwrap().status.success());
    let check = checked(&std::fs::read(file.path()).unwrap()).unwrap();
    assert_eq!(check.findings, []);
    let partitions = &check.table.partitions;
    assert_eq!((partitions[0].number, partitions[0].start, partitions[0].size), (1, 1 << 20, 1 << 20));
    assert_eq!((partitions[1].number, &*partitions[1].name), (3, "third"));
    assert_eq!(partitions[0].type_guid.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
}

#[test]
fn damage_is_found_and_mended() {
    for (what, mut disk, findings) in damages() {
        let check = checked(&disk).unwrap();
        assert_eq!(check.findings, findings, "{what}");
        assert_eq!(check.table, table(), "{what}");
        apply(&mut disk, check.repair_writes());
        assert_eq!(checked(&disk).unwrap().findings, [], "{what}");
        let verdict = sgdisk(&disk, &["-v"]);
        assert!(verdict.contains("No problems found"), "{what}: {verdict}");
        assert_eq!(&disk[..4], if what == "protective MBR" { *b"boot" } else { [0; 4] }, "{what}");
    }
}

/// Other tools leave things behind names and in unused entries, and name partitions in no UTF-16 at all.
#[test]
fn what_is_not_understood_survives_a_repair() {
    let mut disk = written();
    let entries = 1024..1024 + 128 * 128;
    disk[1024 + 126..1024 + 128].fill(0x41);
    disk[1024 + 3 * 128 + 40] = 0x42;
    // An unpaired surrogate.
    disk[1024 + 128 + 56..1024 + 128 + 58].copy_from_slice(&0xd800u16.to_le_bytes());
    let sum = crc32fast::hash(&disk[entries.clone()]);
    disk[512 + 88..512 + 92].copy_from_slice(&sum.to_le_bytes());
    disk[512 + 16..512 + 20].fill(0);
    let sum = crc32fast::hash(&disk[512..512 + 92]);
    disk[512 + 16..512 + 20].copy_from_slice(&sum.to_le_bytes());
    let before = disk[entries.clone()].to_vec();
    let check = checked(&disk).unwrap();
    assert_eq!(check.findings, [Finding::CopiesDiffer]);
    apply(&mut disk, check.repair_writes());
    assert_eq!(checked(&disk).unwrap().findings, []);
    assert!(disk[entries] == before);
}

/// A cut after each write, and in the middle of each, with the sector that was being written spoiled.
#[test]
fn a_cut_during_repair_loses_nothing() {
    let mut cuts = 0;
    for (what, disk, _) in damages() {
        let writes = checked(&disk).unwrap().repair_writes().to_vec();
        for (index, torn) in writes.iter().enumerate() {
            for sectors in 0..=torn.bytes.len() / SECTOR as usize {
                let mut cut = disk.clone();
                apply(&mut cut, &writes[..index]);
                let done = sectors * SECTOR as usize;
                let at = torn.offset as usize;
                cut[at..at + done].copy_from_slice(&torn.bytes[..done]);
                if done < torn.bytes.len() {
                    cut[at + done..at + done + SECTOR as usize].fill(0x5a);
                }
                let check =
                    checked(&cut).unwrap_or_else(|error| panic!("{what}, {}, {sectors}: {error}", torn.what));
                assert_eq!(check.table, table(), "{what}, {}, {sectors}", torn.what);
                apply(&mut cut, check.repair_writes());
                assert_eq!(checked(&cut).unwrap().findings, [], "{what}, {}, {sectors}", torn.what);
                cuts += 1;
            }
        }
    }
    assert!(cuts > 300, "{cuts}");
}

#[test]
fn a_first_write_shows_no_table_or_the_table() {
    let writes = table().writes(DISK).unwrap();
    for count in 0..=writes.len() {
        let mut disk = vec![0; DISK as usize];
        apply(&mut disk, &writes[..count]);
        match checked(&disk) {
            Ok(check) => assert_eq!(check.table, table()),
            Err(CheckError::NoTable { .. }) => assert!(count < 2),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn impossible_tables_are_refused() {
    let bad = |change: fn(&mut Table)| {
        let mut table = table();
        change(&mut table);
        table.writes(DISK).unwrap_err()
    };
    assert_eq!(table().writes(30_000), Err(TableError::DiskTooSmall { disk: 30_000 }));
    assert_eq!(bad(|t| t.partitions[1].start -= SECTOR), TableError::Overlap { first: 1, second: 2 });
    assert_eq!(bad(|t| t.partitions[1].number = 5), TableError::Overlap { first: 5, second: 5 });
    let changes: [fn(&mut Table); 8] = [
        |t| t.partitions[0].number = 0,
        |t| t.partitions[0].number = 129,
        |t| t.partitions[0].start = 33 * SECTOR,
        |t| t.partitions[0].size = 0,
        |t| t.partitions[0].size += 1,
        |t| t.partitions[2].size = 32 * UNIT - 32 * SECTOR,
        |t| t.partitions[0].name = "x".repeat(37),
        |t| t.partitions[0].type_guid = Guid::NIL,
    ];
    for change in changes {
        assert!(matches!(bad(change), TableError::BadPartition { .. }));
    }
    // The last sector before the backup may be used.
    let mut fits = table();
    fits.partitions[2].size = 32 * UNIT - 33 * SECTOR;
    assert!(fits.writes(DISK).is_ok());
}

#[test]
fn a_smaller_disk_is_an_error() {
    let disk = &written()[..48 * UNIT as usize];
    assert!(matches!(checked(disk), Err(CheckError::NoTable { primary: Defect::ImpossibleHeader, .. })));
    assert!(matches!(checked(&vec![0; DISK as usize]), Err(CheckError::NoTable { .. })));
    assert!(matches!(checked(&[]), Err(CheckError::NoTable { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any damage to one copy leaves the table readable; to both, an error. Never a panic, never another table.
    #[test]
    fn damage_never_yields_another_table(damage in proptest::collection::vec((any::<bool>(), 0usize..33 * 512, any::<u8>()), 1..20)) {
        let mut reader = Sparse { head: vec![0; UNIT as usize], tail: vec![0; UNIT as usize], at: 0 };
        for write in table().writes(DISK).unwrap() {
            reader.put(write.offset, &write.bytes);
        }
        for (front, at, byte) in damage {
            let place = if front { &mut reader.head[512 + at..][..1] } else { &mut reader.tail[UNIT as usize - 33 * 512 + at..][..1] };
            place[0] = byte;
        }
        if let Ok(check) = check(&mut reader, DISK) {
            prop_assert_eq!(check.table, table());
        }
    }
}

/// A disk of which only the first and last unit exist.
struct Sparse {
    head: Vec<u8>,
    tail: Vec<u8>,
    at: u64,
}

impl Sparse {
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        let (part, at) =
            if offset < UNIT { (&mut self.head, offset) } else { (&mut self.tail, offset + UNIT - DISK) };
        part[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
    }
}

impl std::io::Read for Sparse {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let (part, at) =
            if self.at < UNIT { (&self.head, self.at) } else { (&self.tail, self.at + UNIT - DISK) };
        let mut rest = &part[at as usize..];
        let count = rest.read(buffer)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl std::io::Seek for Sparse {
    fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
        if let std::io::SeekFrom::Start(at) = to {
            self.at = at;
        }
        Ok(self.at)
    }
}
