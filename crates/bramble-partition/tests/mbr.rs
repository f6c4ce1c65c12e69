//! MBR: against `sfdisk` (fdisk), which must be installed, and against hostile chains.

use std::io::Cursor;
use std::process::Command;

use bramble_partition::mbr::{CheckError, Partition, Table};
use bramble_partition::{SECTOR, gpt};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;
const DISK: u64 = 64 * MIB;

/// The shape of a Pi's card: three FAT partitions, the rest logical.
fn table() -> Table {
    let partition = |number: u8, kind: u8, start: u64, size: u64| Partition {
        number,
        kind,
        bootable: number == 1,
        start: start * MIB,
        size: size * MIB,
    };
    let partitions = vec![
        partition(1, 0x0e, 4, 4),
        partition(2, 0x0c, 8, 4),
        partition(3, 0x0c, 12, 4),
        partition(4, 0x0f, 16, 48),
        partition(5, 0x83, 20, 8),
        partition(6, 0x83, 32, 8),
        partition(7, 0x83, 44, 20),
    ];
    Table { signature: 0x1234_5678, partitions }
}

fn written(table: &Table) -> Vec<u8> {
    let mut disk = vec![0; DISK as usize];
    for write in table.writes(DISK).unwrap() {
        let at = write.offset as usize;
        disk[at..at + write.bytes.len()].copy_from_slice(&write.bytes);
    }
    disk
}

fn read(disk: &[u8]) -> Result<Table, CheckError> {
    Table::read(&mut Cursor::new(disk), DISK)
}

fn sfdisk(disk: &[u8], args: &[&str]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), disk).unwrap();
    let output = Command::new("sfdisk").args(args).arg(file.path()).output();
    let output = output.unwrap_or_else(|error| panic!("sfdisk: {error}; install fdisk"));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}");
    text
}

#[test]
fn sfdisk_agrees() {
    let disk = written(&table());
    let verdict = sfdisk(&disk, &["--verify"]);
    assert!(verdict.contains("No errors detected"), "{verdict}");
    let dump = sfdisk(&disk, &["--dump"]);
    let lines: Vec<_> = dump.lines().filter(|line| line.contains("start=")).collect();
    assert_eq!(lines.len(), 7, "{dump}");
    for (line, partition) in lines.iter().zip(&table().partitions) {
        let line = line.replace(' ', "");
        for fact in [
            format!("start={},", partition.start / SECTOR),
            format!("size={},", partition.size / SECTOR),
            format!("type={:x}", partition.kind),
        ] {
            assert!(line.contains(&fact), "{fact} in {line}");
        }
        assert_eq!(line.contains("bootable"), partition.bootable);
    }
    assert!(dump.contains("label-id: 0x12345678"), "{dump}");
    assert_eq!(read(&disk).unwrap(), table());
}

#[test]
fn what_sfdisk_writes_is_read() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(DISK).unwrap();
    let script = "label: dos\nlabel-id: 0xcafe\n,8M,c,*\n,8M,83\n,,E\n,4M,83\n,4M,83\n,,83\n";
    let mut child = Command::new("sfdisk")
        .arg("--quiet")
        .arg(file.path())
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
    let table = read(&std::fs::read(file.path()).unwrap()).unwrap();
    assert_eq!(table.signature, 0xcafe);
    let numbers: Vec<_> = table.partitions.iter().map(|p| (p.number, p.kind, p.bootable)).collect();
    assert_eq!(
        numbers,
        [
            (1, 0x0c, true),
            (2, 0x83, false),
            (3, 5, false),
            (5, 0x83, false),
            (6, 0x83, false),
            (7, 0x83, false)
        ]
    );
    assert_eq!(table.partitions[3].size, 4 * MIB);
}

/// The MBR comes last, so a cut leaves the old table or the whole new one.
#[test]
fn a_cut_shows_no_table_or_the_table() {
    let writes = table().writes(DISK).unwrap();
    assert_eq!(writes.last().unwrap().offset, 0);
    assert_eq!(writes.len(), 4);
}

#[test]
fn chains_that_mislead_are_refused() {
    let disk = written(&table());
    let first_link = (16 * MIB) as usize;
    // Back to itself, back to the start, and out of the extended partition.
    for next in [0u32, 1, u32::MAX / 2] {
        let mut disk = disk.clone();
        disk[first_link + 446 + 16 + 8..][..4].copy_from_slice(&next.to_le_bytes());
        match read(&disk) {
            Err(CheckError::Bad(error)) => assert_eq!(error.number, 5),
            // One sector on lies no link, so the chain ends there.
            Ok(table) => assert_eq!((next, table.partitions.len()), (1, 5)),
            Err(error) => panic!("{error}"),
        }
    }
    let mut outside = disk;
    outside[446 + 12..][..4].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(matches!(read(&outside), Err(CheckError::Bad(error)) if error.number == 1));
}

#[test]
fn a_gpt_is_no_mbr() {
    let mut disk = vec![0; DISK as usize];
    assert!(matches!(read(&disk), Err(CheckError::NoTable)));
    let table = gpt::Table { disk_guid: bramble_partition::Guid([1; 16]), partitions: Vec::new() };
    for write in table.writes(DISK).unwrap() {
        disk[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
    }
    assert!(matches!(read(&disk), Err(CheckError::Gpt)));
}

#[test]
fn impossible_tables_are_refused() {
    type Change = fn(&mut Table);
    let changes: [(u8, Change); 8] = [
        (2, |t| t.partitions[1].start = 7 * MIB),
        (7, |t| t.partitions[6].start = 36 * MIB),
        (7, |t| t.partitions[6].size += SECTOR),
        (5, |t| t.partitions[4].start = 16 * MIB),
        (7, |t| t.partitions[6].start = 40 * MIB),
        (1, |t| t.partitions[0].kind = 0xee),
        (1, |t| t.partitions[0].size = 1),
        (9, |t| t.partitions[6].number = 9),
    ];
    for (number, change) in changes {
        let mut table = table();
        change(&mut table);
        assert_eq!(table.writes(DISK).unwrap_err().number, number);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    /// Damaged tables are refused or read as tables that could be written; never a panic, never endless work.
    #[test]
    fn damage_does_no_harm(damage in proptest::collection::vec((0usize..4, 446usize..512, any::<u8>()), 1..8)) {
        let writes = table().writes(DISK).unwrap();
        let mut disk = vec![0; DISK as usize];
        for (sector, at, byte) in damage {
            for write in &writes {
                disk[write.offset as usize..][..512].copy_from_slice(&write.bytes);
            }
            disk[writes[sector].offset as usize + at] = byte;
            if let Ok(table) = read(&disk) {
                for partition in table.partitions {
                    prop_assert!(partition.start + partition.size <= DISK);
                }
            }
        }
    }
}
