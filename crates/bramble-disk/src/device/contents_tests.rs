#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use super::*;
use crate::card::{CardId, State};

const SIZE: u64 = 16 << 20;

fn look(disk: &[u8], partitions: &[Range<u64>]) -> Contents {
    probe(disk.len() as u64, partitions, &mut |offset, out| {
        out.copy_from_slice(&disk[offset as usize..offset as usize + out.len()]);
        Ok(())
    })
    .unwrap()
}

fn blank() -> Vec<u8> {
    vec![0; SIZE as usize]
}

fn put(disk: &mut [u8], at: usize, bytes: &[u8]) {
    disk[at..at + bytes.len()].copy_from_slice(bytes);
}

#[test]
fn a_blank_disk_and_a_card_are_told() {
    let mut disk = blank();
    let seen = look(&disk, &[]);
    assert!(seen.blank && seen.signatures.is_empty() && seen.table.is_none());
    assert_eq!(seen.to_string(), "blank");
    let card = Card {
        id: CardId([1; 16]),
        state: State::Writing,
        cluster: "home".into(),
        node: "n\u{202e}1".into(),
        incarnation: String::new(),
        size: SIZE,
        written_at: 0,
    };
    put(&mut disk, card::OFFSET as usize, &card.encode());
    let again = look(&disk, &[]);
    assert_eq!(again.to_string(), "Bramble card of n\u{fffd}1 in home, unfinished");
    assert_eq!(again.card, Some(card));
    assert_ne!(again.fingerprint, seen.fingerprint);
    assert_eq!(look(&vec![0xff; SIZE as usize], &[]).to_string(), "blank");
}

#[test]
fn every_magic_is_seen_on_the_disk_and_in_a_partition() {
    for (at, magic, kind) in MAGICS {
        let mut disk = blank();
        put(&mut disk, *at, magic);
        let seen = look(&disk, &[]);
        assert_eq!(seen.signatures, [Signature { kind: *kind, place: Place::Disk }], "{kind:?} at {at}");
        let mut disk = blank();
        put(&mut disk, (4 << 20) + at, magic);
        let seen = look(&disk, std::slice::from_ref(&(4 << 20..8 << 20)));
        let wanted = [Signature { kind: *kind, place: Place::Partition(1) }];
        assert_eq!(seen.signatures, wanted, "{kind:?} in a partition at {at}");
    }
}

#[test]
fn what_lies_at_the_end_is_seen() {
    let size = SIZE as usize;
    let cases = [
        (size - 512, 0xde11_de11_u32.to_be_bytes().to_vec(), SignatureKind::Raid),
        (size - 1024, b"Intel Raid ISM Cfg Sig. ".to_vec(), SignatureKind::Raid),
        (size - (8 << 10), MD.to_vec(), SignatureKind::Raid),
        (size - (64 << 10), MD.to_vec(), SignatureKind::Raid),
        (size - (256 << 10) + (128 << 10), 0x00ba_b10c_u64.to_le_bytes().to_vec(), SignatureKind::Zfs),
        (size - (512 << 10) + (130 << 10), 0x00ba_b10c_u64.to_be_bytes().to_vec(), SignatureKind::Zfs),
    ];
    for (at, bytes, kind) in cases {
        let mut disk = blank();
        put(&mut disk, at, &bytes);
        assert_eq!(look(&disk, &[]).signatures, [Signature { kind, place: Place::Disk }], "{kind:?} at {at}");
    }
    let mut disk = blank();
    put(&mut disk, (8 << 20) - (8 << 10), &MD);
    let seen = look(&disk, std::slice::from_ref(&(4 << 20..8 << 20)));
    assert_eq!(seen.signatures, [Signature { kind: SignatureKind::Raid, place: Place::Partition(1) }]);
}

#[test]
fn a_table_of_our_own_and_a_foreign_one_are_told_apart() {
    let mut disk = blank();
    for (index, kind) in [TYPE_ROOT, TYPE_DATA].iter().enumerate() {
        let at = 1024 + index * 128;
        put(&mut disk, at, kind);
        put(&mut disk, at + 32, &(8192 * (1 + index as u64)).to_le_bytes());
        put(&mut disk, at + 40, &(8192 * (2 + index as u64) - 1).to_le_bytes());
    }
    put(&mut disk, 512, b"EFI PART");
    put(&mut disk, 512 + 72, &2u64.to_le_bytes());
    put(&mut disk, 512 + 80, &128u32.to_le_bytes());
    put(&mut disk, 512 + 84, &128u32.to_le_bytes());
    let seen = look(&disk, &[]);
    assert!(seen.bramble && seen.table == Some(TableKind::Gpt));
    // The kernel saw no partition: the table's own are looked into.
    put(&mut disk, (4 << 20) + 3, b"NTFS    ");
    assert!(look(&disk, &[]).signatures.iter().any(|s| s.kind == SignatureKind::Ntfs));
    let apfs: [u8; 16] = hex::decode("ef57347c0000aa11aa1100306543ecac").unwrap().try_into().unwrap();
    put(&mut disk, 1024, &apfs);
    assert!(look(&disk, &[]).signatures.iter().any(|s| s.kind == SignatureKind::Apfs));
}

#[test]
fn a_boot_sector_of_fat_is_no_partition_table() {
    let mut disk = blank();
    put(&mut disk, 0, &[0xeb, 0x58, 0x90]);
    put(&mut disk, 82, b"FAT32   ");
    put(&mut disk, 446, &[0x17; 64]);
    put(&mut disk, 510, &[0x55, 0xaa]);
    let seen = look(&disk, &[]);
    assert_eq!((seen.table, seen.to_string().as_str()), (None, "FAT"));
    let mut disk = blank();
    put(&mut disk, 446, &[0x80, 0, 0, 0, 0x0c, 0, 0, 0, 0, 8, 0, 0, 0, 8, 0, 0]);
    put(&mut disk, 510, &[0x55, 0xaa]);
    assert_eq!(look(&disk, &[]).table, Some(TableKind::Mbr));
}

#[test]
fn tables_of_nonsense_lead_nowhere() {
    let mut disk = vec![0xff; SIZE as usize];
    put(&mut disk, 512, b"EFI PART");
    let seen = look(&disk, &[]);
    assert_eq!(seen.table, Some(TableKind::Gpt));
    // Too small for anything.
    assert!(look(&[0; 512], &[]).blank);
    look(&[], &[]);
}

/// The real tools' file systems are recognised; those that are not installed are named.
#[test]
fn file_systems_of_the_real_tools_are_recognised() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("disk");
    let tools: [(&str, &[&str], SignatureKind); 8] = [
        ("mkfs.ext4", &["-q", "-F"], SignatureKind::Ext),
        ("mkfs.vfat", &[], SignatureKind::Fat),
        ("mkswap", &[], SignatureKind::Swap),
        ("mkfs.ntfs", &["-q", "-F"], SignatureKind::Ntfs),
        ("mkfs.exfat", &[], SignatureKind::Exfat),
        ("mkfs.btrfs", &["-q", "-f"], SignatureKind::Btrfs),
        ("mkfs.xfs", &["-q", "-f"], SignatureKind::Xfs),
        ("mkfs.f2fs", &["-q", "-f"], SignatureKind::F2fs),
    ];
    let mut missing = Vec::new();
    for (tool, arguments, kind) in tools {
        let file = std::fs::File::create(&path).unwrap();
        file.set_len(512 << 20).unwrap();
        let paths = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
        match std::process::Command::new(tool).args(arguments).arg(&path).env("PATH", paths).output() {
            Ok(made) if made.status.success() => {}
            Ok(made) => panic!("{tool} failed: {}", String::from_utf8_lossy(&made.stderr)),
            Err(_) => {
                missing.push(tool);
                continue;
            }
        }
        let file = std::fs::File::open(&path).unwrap();
        let seen = probe(512 << 20, &[], &mut |offset, out| {
            std::os::unix::fs::FileExt::read_exact_at(&file, out, offset)
        })
        .unwrap();
        assert_eq!(seen.signatures, [Signature { kind, place: Place::Disk }], "{tool}");
    }
    if !missing.is_empty() {
        println!("SKIPPED in part: {} not installed", missing.join(", "));
    }
}
