//! Every rule on disks that are written here, and properties over many disks.

use std::io::Write as _;

use bramble_fat::{Entry, FatType, Options};
use bramble_partition::{gpt, mbr};
use proptest::prelude::*;

use super::super::fdt::tests::tree;
use super::super::trace::Kind;
use super::*;

const MIB: u64 = 1 << 20;

/// A kernel as its header shows it.
fn image() -> Vec<u8> {
    let mut bytes = vec![0; 4096];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[56..60].copy_from_slice(b"ARM\x64");
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

type Files = Vec<(&'static str, Vec<u8>)>;

fn text(name: &'static str, text: &str) -> (&'static str, Vec<u8>) {
    (name, text.as_bytes().to_vec())
}

/// What a slot of ours has for every board, configured as the images are.
fn slot(name: &str) -> Files {
    vec![
        ("bootcode.bin", b"code".to_vec()),
        ("start.elf", b"\x7fELF3".to_vec()),
        ("fixup.dat", b"f".to_vec()),
        ("start4.elf", b"\x7fELF4".to_vec()),
        ("fixup4.dat", b"f".to_vec()),
        text("config.txt", "arm_64bit=1\nupstream_kernel=1\nkernel=vmlinuz\ninitramfs initrd followkernel\n"),
        text("cmdline.txt", &format!("console=ttyS1 slot={name}\n")),
        ("vmlinuz", image()),
        ("initrd", b"cpio".to_vec()),
        ("bcm2837-rpi-3-b.dtb", tree("raspberrypi,3-model-b brcm,bcm2837", true)),
        ("bcm2711-rpi-4-b.dtb", tree("raspberrypi,4-model-b brcm,bcm2711", true)),
        ("bcm2712-rpi-5-b.dtb", tree("raspberrypi,5-model-b brcm,bcm2712", true)),
        ("bcm2712-d-rpi-5-b.dtb", tree("raspberrypi,5-model-b brcm,bcm2712", true)),
    ]
}

const AUTOBOOT: &str = "[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n";

/// A first partition without firmware of its own for the Pi 4 and 5.
fn selector(autoboot: &str) -> Files {
    vec![("bootcode.bin", b"code".to_vec()), text("autoboot.txt", autoboot)]
}

fn fat(files: &Files, fat_type: FatType, size: u64) -> Vec<u8> {
    let options = Options { size, sectors_per_cluster: 1, ..Options::new(fat_type) };
    let entries: Vec<Entry> = files.iter().map(|(name, content)| Entry::file(name, content)).collect();
    let mut bytes = Vec::new();
    bramble_fat::Volume::plan(&entries, &options).unwrap().write_to(&mut bytes).unwrap();
    bytes
}

fn fat16(files: &Files) -> Vec<u8> {
    fat(files, FatType::Fat16, 3 * MIB)
}

/// A disk with an MBR: partition n holds volume n; `None` is a Linux partition with noise.
fn disk(volumes: &[Option<Vec<u8>>]) -> Vec<u8> {
    let noise = vec![0xa5; MIB as usize];
    let mut bytes = vec![0; MIB as usize];
    let mut partitions = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        // The fourth is extended, and what follows lies in it.
        let number = index as u8 + if index < 3 { 1 } else { 2 };
        if index == 3 {
            partitions.push(mbr::Partition {
                number: 4,
                kind: 0x0f,
                bootable: false,
                start: bytes.len() as u64,
                size: 0,
            });
        }
        if index >= 3 {
            bytes.resize(bytes.len() + MIB as usize, 0);
        }
        let kind = if volume.is_some() { 0x0c } else { 0x83 };
        let content = volume.as_ref().unwrap_or(&noise);
        let (start, size) = (bytes.len() as u64, content.len() as u64);
        partitions.push(mbr::Partition { number, kind, bootable: false, start, size });
        bytes.extend(content);
    }
    let end = bytes.len() as u64;
    partitions.iter_mut().filter(|p| p.number == 4).for_each(|p| p.size = end - p.start);
    bytes.resize(bytes.len() + MIB as usize, 0);
    let table = mbr::Table { signature: 1, partitions };
    for write in table.writes(bytes.len() as u64).unwrap() {
        bytes[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
    }
    bytes
}

fn gpt_disk(volumes: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = vec![0; MIB as usize];
    let mut partitions = Vec::new();
    for (index, volume) in volumes.iter().enumerate() {
        partitions.push(gpt::Partition {
            number: index as u32 + 1,
            type_guid: "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7".parse().unwrap(),
            guid: format!("00000000-0000-0000-0000-00000000000{index}").parse().unwrap(),
            start: bytes.len() as u64,
            size: volume.len() as u64,
            attributes: 0,
            name: String::new(),
        });
        bytes.extend(volume);
    }
    bytes.resize(bytes.len() + MIB as usize, 0);
    let table = gpt::Table { disk_guid: "00000000-0000-0000-0000-0000000000aa".parse().unwrap(), partitions };
    for write in table.writes(bytes.len() as u64).unwrap() {
        bytes[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
    }
    bytes
}

/// Selector, slot A, slot B.
fn ab() -> Vec<u8> {
    disk(&[Some(fat16(&selector(AUTOBOOT))), Some(fat16(&slot("a"))), Some(fat16(&slot("b")))])
}

const TRY: BootFlags = BootFlags { tryboot: true, partition: 0, boot_count: 0, boot_arg1: 0 };

fn to(partition: u32) -> BootFlags {
    BootFlags { partition, ..BootFlags::default() }
}

fn old(model: Model, date: &str) -> Board {
    Board { bootloader: date.parse().unwrap(), ..Board::new(model) }
}

/// The partition that is started from, and the command line's last word; or the failure.
fn boots(disk: &[u8], board: &Board, flags: BootFlags) -> Result<(u32, String), Failure> {
    let decision = decide(disk, board, flags);
    match decision.outcome {
        Outcome::Starts(start) => {
            let word = start.cmdline.rsplit(' ').next().unwrap_or_default().to_owned();
            Ok((start.place.number, word))
        }
        Outcome::Fails(failure) => Err(failure),
    }
}

fn from(number: u32, word: &str) -> Result<(u32, String), Failure> {
    Ok((number, word.to_owned()))
}

fn boards() -> [Board; 4] {
    [Model::Pi3B, Model::Pi4B, Model::Pi5, Model::Pi5D0].map(Board::new)
}

/// "System boots from partition 3 because the `[tryboot]` filter evaluates to true in tryboot mode"; and the flag is one-shot.
#[test]
fn a_trial_starts_the_other_slot_and_only_once() {
    let disk = ab();
    for board in boards() {
        assert_eq!(boots(&disk, &board, BootFlags::default()), from(2, "slot=a"), "{}", board.model);
        assert_eq!(boots(&disk, &board, TRY), from(3, "slot=b"), "{}", board.model);
        let decision = decide(&disk, &board, TRY);
        let start = decision.start().unwrap();
        assert_eq!(
            (start.config.as_str(), start.bootloader.partition, start.bootloader.tryboot),
            ("config.txt", 3, true)
        );
    }
}

/// What the model shows a person.
#[test]
fn the_trace_tells_the_way() {
    let decision = decide(&ab(), &Board::new(Model::Pi4B), TRY);
    assert_eq!(
        decision.to_string(),
        "Raspberry Pi 4B, boot loader of 2026-05-26
MBR with 3 partitions
partition 1: autoboot.txt says 3 in a trial, tryboot_a_b
boots from partition 3 (autoboot.txt)
partition 3: reads config.txt (75 bytes)
partition 3: firmware start4.elf (5 bytes)
partition 3 can be booted
kernel vmlinuz (4096 bytes)
device tree bcm2711-rpi-4-b.dtb (151 bytes)
initramfs initrd (4 bytes)
command line from cmdline.txt
starts partition 3: vmlinuz (4096 bytes), bcm2711-rpi-4-b.dtb (151 bytes), initrd (4 bytes), command line \
         \"console=ttyS1 slot=b\"\n"
    );
    assert_eq!(decision.trace.of(Kind::Doubt).count(), 0);
}

/// "tryboot.txt to be loaded instead of config.txt", without `tryboot_a_b` and with boot loaders that do not know it.
#[test]
fn tryboot_txt_without_a_b() {
    let mut files = slot("x");
    files.push(text("tryboot.txt", "kernel=vmlinuz\narm_64bit=1\nupstream_kernel=1\ncmdline=try.txt\n"));
    files.push(text("try.txt", "slot=try"));
    let plain = disk(&[Some(fat16(&files))]);
    for board in boards() {
        assert_eq!(boots(&plain, &board, BootFlags::default()), from(1, "slot=x"));
        assert_eq!(boots(&plain, &board, TRY), from(1, "slot=try"));
    }
    // rpi-eeprom#504: the old boot loader knows neither `[tryboot]` nor `tryboot_a_b`.
    let selected = disk(&[Some(fat16(&selector(AUTOBOOT))), Some(fat16(&files)), Some(fat16(&slot("b")))]);
    assert_eq!(boots(&selected, &old(Model::Pi4B, "2022-10-17"), TRY), from(2, "slot=try"));
    assert_eq!(boots(&selected, &old(Model::Pi4B, "2022-10-18"), TRY), from(3, "slot=b"));
    // Before the flag existed, and on the board where it was seen to do nothing.
    assert_eq!(boots(&selected, &old(Model::Pi4B, "2020-10-27"), TRY), from(2, "slot=x"));
    let lost = Quirks { ignores_tryboot: Some(true), ..Quirks::default() };
    assert_eq!(boots(&selected, &Board { quirks: lost, ..Board::new(Model::Pi5) }, TRY), from(2, "slot=x"));
}

/// "unless the partition number was already specified as a parameter to the reboot command".
#[test]
fn the_number_given_to_reboot_comes_first() {
    let disk = ab();
    for board in boards() {
        assert_eq!(boots(&disk, &board, to(3)), from(3, "slot=b"));
        assert_eq!(boots(&disk, &board, to(63)), Err(Failure::Halted));
    }
    // raspberrypi/firmware#1853.
    assert_eq!(boots(&disk, &old(Model::Pi5, "2023-12-13"), to(3)), from(2, "slot=a"));
    // rpi-eeprom#575.
    let decision = decide(&disk, &old(Model::Pi5, "2024-05-12"), BootFlags::default());
    assert_eq!(decision.start().unwrap().bootloader.partition, 0);
}

/// "PARTITION ... if it has not explicitly been set by the reboot command or by boot_partition=N in autoboot.txt", and the
/// numbers above 31.
#[test]
fn partition_of_the_eeprom() {
    let with = |board: Board| Board { eeprom: Eeprom { partition: 3, ..Eeprom::default() }, ..board };
    let none = disk(&[Some(fat16(&slot("r"))), Some(fat16(&slot("a"))), Some(fat16(&slot("b")))]);
    assert_eq!(boots(&none, &with(Board::new(Model::Pi4B)), BootFlags::default()), from(3, "slot=b"));
    assert_eq!(boots(&ab(), &with(Board::new(Model::Pi4B)), BootFlags::default()), from(2, "slot=a"));
    assert_eq!(boots(&none, &with(Board::new(Model::Pi4B)), to(2)), from(2, "slot=a"));
    assert_eq!(boots(&none, &with(Board::new(Model::Pi4B)), to(62)), from(3, "slot=b"));
    // rpi-eeprom release notes of 2025-08-27: the property had been lost for 0.
    assert_eq!(boots(&none, &with(old(Model::Pi4B, "2025-08-26")), BootFlags::default()), from(1, "slot=r"));
    assert_eq!(boots(&none, &with(old(Model::Pi4B, "2025-02-10")), BootFlags::default()), from(3, "slot=b"));
    // A Pi 3 has no EEPROM.
    assert_eq!(boots(&none, &with(Board::new(Model::Pi3B)), BootFlags::default()), from(1, "slot=r"));
}

/// "Fix failover to partition 1 if the boot_partition points to non-bootable partition."
#[test]
fn failover_to_the_first_partition() {
    let mut rescue = slot("rescue");
    rescue.push(text("autoboot.txt", AUTOBOOT));
    let mut bad_a = slot("a");
    bad_a.retain(|(name, _)| !name.starts_with("start") && *name != "config.txt");
    for (bad, why) in
        [(fat16(&bad_a), "no firmware"), (vec![0xa5; 3 << 20], "no FAT"), (fat16(&vec![]), "empty")]
    {
        let disk = disk(&[Some(fat16(&rescue)), Some(bad), Some(fat16(&slot("b")))]);
        for model in [Model::Pi4B, Model::Pi5] {
            assert_eq!(
                boots(&disk, &Board::new(model), BootFlags::default()),
                from(1, "slot=rescue"),
                "{model} {why}"
            );
        }
        assert_eq!(
            boots(&disk, &old(Model::Pi4B, "2022-10-18"), BootFlags::default()),
            from(1, "slot=rescue")
        );
        assert!(boots(&disk, &old(Model::Pi4B, "2022-10-17"), BootFlags::default()).is_err());
        // Nobody has told what a Pi 3 does; both can be assumed.
        assert!(boots(&disk, &Board::new(Model::Pi3B), BootFlags::default()).is_err());
        let hopeful = Quirks { failover: Some(true), ..Quirks::default() };
        let hopeful = Board { quirks: hopeful, ..Board::new(Model::Pi3B) };
        assert_eq!(boots(&disk, &hopeful, BootFlags::default()), from(1, "slot=rescue"));
    }
}

/// A number that the table does not have: "Fix failover to partition zero if the partition number is invalid".
#[test]
fn a_number_that_does_not_exist() {
    let plain = disk(&[Some(fat16(&slot("r"))), Some(fat16(&slot("a")))]);
    assert_eq!(boots(&plain, &Board::new(Model::Pi4B), to(7)), from(1, "slot=r"));
    assert_eq!(boots(&plain, &old(Model::Pi4B, "2020-10-28"), to(7)), from(1, "slot=r"));
    let failure = boots(&plain, &old(Model::Pi4B, "2020-10-27"), to(9)).unwrap_err();
    assert_eq!(failure, Failure::NothingBootable { tried: vec![(9, NotBootable::Missing)] });
}

/// `PARTITION_WALK`, "where autoboot.txt is missing / corrupted", and its order as rpi-eeprom#738 shows it.
#[test]
fn the_walk_finds_what_is_left() {
    let no_firmware = selector("boot_partition=2\n");
    let only_b = disk(&[Some(fat16(&no_firmware)), Some(fat16(&vec![])), Some(fat16(&slot("b")))]);
    for model in [Model::Pi4B, Model::Pi5] {
        assert_eq!(boots(&only_b, &Board::new(model), BootFlags::default()), from(3, "slot=b"));
        assert!(
            boots(&only_b, &old(model, "2025-08-12"), BootFlags::default()).is_err(),
            "not yet the default"
        );
    }
    let decision = decide(&only_b, &Board::new(Model::Pi4B), BootFlags::default());
    let tried: Vec<&str> =
        decision.trace.of(Kind::Step).filter(|line| line.contains("cannot be booted")).collect();
    let expected = [
        "partition 2 cannot be booted: no start4.elf",
        "failover: partition 1 cannot be booted: no start4.elf",
    ];
    assert_eq!(tried, expected);
    // The bug of the first Pi 4 boot loaders with a walk: nothing is found after a FAT partition.
    let failure = boots(&only_b, &old(Model::Pi4B, "2025-08-19"), BootFlags::default()).unwrap_err();
    assert!(
        matches!(&failure, Failure::NothingBootable { tried } if tried.contains(&(3, NotBootable::WalkBug)))
    );
    assert_eq!(boots(&only_b, &old(Model::Pi5, "2025-08-19"), BootFlags::default()), from(3, "slot=b"));
    // The walk begins where the boot was asked for, and wraps.
    let both = |first| disk(&[Some(first), None, Some(fat16(&slot("c"))), Some(fat16(&slot("e")))]);
    let broken = vec![0; 3 << 20];
    assert_eq!(boots(&both(broken.clone()), &Board::new(Model::Pi4B), to(5)), from(5, "slot=e"));
    assert_eq!(boots(&both(broken), &Board::new(Model::Pi4B), BootFlags::default()), from(3, "slot=c"));
    // "The autoboot.txt file is not scanned during the partition-walk phase".
    let mut leads = slot("l");
    leads.push(text("autoboot.txt", "boot_partition=3\n"));
    let chain = disk(&[Some(vec![0; 3 << 20]), Some(fat16(&leads)), Some(fat16(&slot("c")))]);
    assert_eq!(boots(&chain, &Board::new(Model::Pi4B), BootFlags::default()), from(2, "slot=l"));
    // A Pi 3 has no walk: without its first partition it is dead.
    assert!(matches!(
        boots(&chain, &Board::new(Model::Pi3B), BootFlags::default()),
        Err(Failure::NoBootcode { partition: 1, .. })
    ));
}

/// Logical partitions have the numbers from 5 on, as in Linux.
#[test]
fn logical_partitions() {
    let disk = disk(&[
        Some(fat16(&selector("boot_partition=6\n"))),
        None,
        None,
        Some(fat16(&slot("five"))),
        Some(fat16(&slot("six"))),
    ]);
    for board in boards() {
        assert_eq!(boots(&disk, &board, BootFlags::default()), from(6, "slot=six"));
        assert_eq!(boots(&disk, &board, to(5)), from(5, "slot=five"));
    }
}

#[test]
fn gpt_and_its_bugs() {
    let disk = gpt_disk(&[fat16(&selector(AUTOBOOT)), fat16(&slot("a")), fat16(&slot("b"))]);
    let date = |date: &str| {
        let date = date.parse().unwrap();
        Board { bootloader: date, start_elf: date, ..Board::new(Model::Pi4B) }
    };
    assert_eq!(boots(&disk, &date("2025-01-22"), TRY), from(3, "slot=b"));
    assert_eq!(boots(&disk, &Board::new(Model::Pi5), TRY), from(3, "slot=b"));
    // rpi-eeprom#654: everything but start4.elf comes from the first partition, where nothing is.
    assert!(matches!(
        boots(&disk, &date("2025-01-21"), TRY),
        Err(Failure::Stuck { partition: 3, why: OsFailure::NoKernel(_) })
    ));
    // FAT16 within GPT, then GPT at all.
    assert!(matches!(boots(&disk, &date("2021-10-03"), TRY), Err(Failure::NothingBootable { .. })));
    assert!(matches!(boots(&disk, &date("2020-09-02"), TRY), Err(Failure::NoFatPartition)));
    assert_eq!(boots(&disk, &Board::new(Model::Pi3B), TRY), Err(Failure::NoFatPartition));
    // A hybrid: the guard and one FAT entry, for the mask ROM.
    let mut hybrid = gpt_disk(&[fat16(&slot("h"))]);
    let mut second: Vec<u8> = hybrid[446..462].to_vec();
    second[4] = 0x0c;
    second[8..12].copy_from_slice(&2048u32.to_le_bytes());
    second[12..16].copy_from_slice(&6144u32.to_le_bytes());
    hybrid[462..478].copy_from_slice(&second);
    assert_eq!(boots(&hybrid, &Board::new(Model::Pi3B), BootFlags::default()), from(2, "slot=h"));
    assert_eq!(boots(&hybrid, &Board::new(Model::Pi5), BootFlags::default()), from(1, "slot=h"));
}

/// "decides FAT type by cluster count" (rpi-eeprom#818), the ROM of early CM3 (firmware#1738), and other media.
#[test]
fn fat_traps() {
    // 40 MiB of FAT32 with one sector a cluster is FAT32; said to have two, it has too few clusters to be one.
    let mut small = fat(&slot("s"), FatType::Fat32, 40 * MIB);
    let good = disk(&[Some(small.clone())]);
    assert_eq!(boots(&good, &Board::new(Model::Pi4B), BootFlags::default()), from(1, "slot=s"));
    small[13] = 2;
    let bad = disk(&[Some(small)]);
    assert!(matches!(
        boots(&bad, &Board::new(Model::Pi4B), BootFlags::default()),
        Err(Failure::NothingBootable { .. })
    ));

    let cm3 = Board { medium: Medium::Emmc, ..Board::new(Model::Cm3) };
    let mut files = slot("cm");
    files.push(("bcm2837-rpi-cm3-io3.dtb", tree("raspberrypi,3-compute-module brcm,bcm2837", false)));
    let fat16_disk = disk(&[Some(fat16(&files))]);
    let decision = decide(&fat16_disk, &cm3, BootFlags::default());
    assert!(decision.start().is_some() && decision.trace.of(Kind::Doubt).any(|line| line.contains("1738")));
    let early = Board { quirks: Quirks { rom_needs_fat32: Some(true), ..Quirks::default() }, ..cm3 };
    assert!(matches!(boots(&fat16_disk, &early, BootFlags::default()), Err(Failure::NoBootcode { .. })));
    let fat32_disk = disk(&[Some(fat(&files, FatType::Fat32, 40 * MIB))]);
    assert_eq!(boots(&fat32_disk, &early, BootFlags::default()), from(1, "slot=cm"));

    // A disk that is one volume; an empty one.
    assert_eq!(boots(&fat16(&slot("w")), &Board::new(Model::Pi4B), BootFlags::default()), from(0, "slot=w"));
    assert_eq!(
        boots(&vec![0; 1 << 20], &Board::new(Model::Pi4B), BootFlags::default()),
        Err(Failure::NoTable)
    );
    assert_eq!(boots(&[], &Board::new(Model::Pi4B), BootFlags::default()), Err(Failure::NoTable));
    assert_eq!(
        boots(&disk(&[None]), &Board::new(Model::Pi5), BootFlags::default()),
        Err(Failure::NoFatPartition)
    );
    // A FAT volume whose type says Linux.
    let mut typed = disk(&[Some(fat16(&selector("boot_partition=2\n"))), Some(fat16(&slot("a")))]);
    typed[446 + 16 + 4] = 0x83;
    assert!(boots(&typed, &old(Model::Pi4B, "2025-08-01"), BootFlags::default()).is_err());
}

/// A slot changed in one way, booted alone.
fn alone(board: &Board, change: impl FnOnce(&mut Files)) -> Decision {
    let mut files = slot("x");
    change(&mut files);
    decide(&disk(&[Some(fat16(&files))]), board, BootFlags::default())
}

fn replace(files: &mut Files, name: &'static str, content: &[u8]) {
    files.retain(|(other, _)| *other != name);
    files.push((name, content.to_vec()));
}

fn stuck(decision: &Decision) -> &OsFailure {
    match &decision.outcome {
        Outcome::Fails(Failure::Stuck { why, .. }) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn kernels_and_their_names() {
    let pi4 = Board::new(Model::Pi4B);
    let unnamed = |board: &Board, names: &[&'static str], config: &str| {
        let decision = alone(board, |files| {
            files.retain(|(name, _)| *name != "vmlinuz");
            replace(files, "config.txt", format!("upstream_kernel=1\n{config}").as_bytes());
            names.iter().for_each(|name| files.push((name, image())));
        });
        decision.start().map(|start| start.kernel.path.clone()).ok_or_else(|| decision.outcome.clone())
    };
    let pi5 = Board::new(Model::Pi5);
    assert_eq!(unnamed(&pi5, &["kernel8.img", "kernel_2712.img"], "").unwrap(), "kernel_2712.img");
    assert_eq!(unnamed(&pi5, &["kernel8.img"], "").unwrap(), "kernel8.img");
    assert_eq!(unnamed(&pi4, &["kernel8.img"], "").unwrap(), "kernel8.img");
    assert!(unnamed(&pi4, &["kernel_2712.img"], "").is_err());
    let pi3 = Board::new(Model::Pi3B);
    assert_eq!(unnamed(&pi3, &["kernel8.img"], "arm_64bit=1\n").unwrap(), "kernel8.img");
    assert_eq!(unnamed(&pi3, &["kernel8.img"], "kernel=kernel8.img\n").unwrap(), "kernel8.img");
    assert!(unnamed(&pi3, &["kernel8.img"], "").is_err());

    // A Pi 3 without arm_64bit starts our kernel in the wrong mode.
    let no_mode = "upstream_kernel=1\nkernel=vmlinuz\n";
    let decision = alone(&pi3, |files| replace(files, "config.txt", no_mode.as_bytes()));
    assert_eq!(*stuck(&decision), OsFailure::Mode("vmlinuz".into()));
    assert!(alone(&pi4, |files| replace(files, "config.txt", no_mode.as_bytes())).start().is_some());

    let packed = alone(&pi4, |files| replace(files, "vmlinuz", &gzip(&image())));
    assert!(packed.start().unwrap().kernel_gzip);
    let mut efi = image();
    efi[4..8].copy_from_slice(b"zimg");
    for bad in [&b""[..], b"text", &vec![0; 4096], &gzip(b"text"), b"\x28\xb5\x2f\xfd", &efi] {
        let decision = alone(&pi4, |files| replace(files, "vmlinuz", bad));
        assert_eq!(*stuck(&decision), OsFailure::BadKernel("vmlinuz".into()));
    }
    let gone = alone(&pi4, |files| files.retain(|(name, _)| *name != "vmlinuz"));
    assert_eq!(*stuck(&gone), OsFailure::NoKernel("vmlinuz".into()));
}

#[test]
fn firmware_files() {
    let pi4 = Board::new(Model::Pi4B);
    let not_there = |decision: &Decision, file: &str| match &decision.outcome {
        Outcome::Fails(Failure::NothingBootable { tried }) => tried[0].1 == NotBootable::NoFile(file.into()),
        other => panic!("{other:?}"),
    };
    let config = |extra: &str| format!("arm_64bit=1\nupstream_kernel=1\nkernel=vmlinuz\n{extra}\n");
    let with = |board: &Board, extra: &str, files: &[&'static str]| {
        alone(board, |all| {
            all.retain(|(name, _)| !name.starts_with("start"));
            replace(all, "config.txt", config(extra).as_bytes());
            files.iter().for_each(|name| all.push((name, b"\x7fELF".to_vec())));
        })
    };
    assert!(with(&pi4, "start_file=start_ours.elf", &["start_ours.elf"]).start().is_some());
    assert!(with(&pi4, "start_x=1", &["start4x.elf"]).start().is_some());
    assert!(with(&pi4, "start_x=1", &["start_x.elf"]).start().is_some());
    assert!(with(&pi4, "gpu_mem=16", &["start4cd.elf"]).start().is_some());
    assert!(not_there(&with(&pi4, "gpu_mem=16", &["start4.elf"]), "start_cd.elf"));
    assert!(not_there(&with(&pi4, "", &["start.elf"]), "start4.elf"));
    assert!(not_there(&with(&Board::new(Model::Pi3B), "", &["start4.elf"]), "start.elf"));
    assert!(with(&Board::new(Model::Pi5), "", &[]).start().is_some(), "a Pi 5 needs none");
    assert!(not_there(&alone(&pi4, |files| replace(files, "start4.elf", &[0; 100])), "start4.elf"));
    let no_fixup = alone(&pi4, |files| files.retain(|(name, _)| *name != "fixup4.dat"));
    assert!(
        no_fixup.start().is_some()
            && no_fixup.trace.of(Kind::Warning).any(|line| line.contains("fixup4.dat"))
    );
    let empty = alone(&Board::new(Model::Pi3B), |files| replace(files, "bootcode.bin", b""));
    assert!(matches!(empty.outcome, Outcome::Fails(Failure::NoBootcode { .. })));
}

#[test]
fn device_trees() {
    let [pi3, pi4, pi5, d0] = boards();
    let tree_of = |decision: &Decision| decision.start().map(|start| start.device_tree.path.clone());
    let with = |board: &Board, config: &str| {
        let config = format!("arm_64bit=1\nkernel=vmlinuz\n{config}\n");
        alone(board, |files| replace(files, "config.txt", config.as_bytes()))
    };
    assert_eq!(tree_of(&with(&pi3, "upstream_kernel=1")).unwrap(), "bcm2837-rpi-3-b.dtb");
    // Without it the board maker's name is looked for, which Debian's kernel does not have.
    assert_eq!(*stuck(&with(&pi3, "")), OsFailure::NoDeviceTree("bcm2710-rpi-3-b.dtb".into()));
    assert_eq!(tree_of(&with(&pi4, "")).unwrap(), "bcm2711-rpi-4-b.dtb");
    assert_eq!(tree_of(&with(&d0, "upstream_kernel=1")).unwrap(), "bcm2712-d-rpi-5-b.dtb");
    let c0 = with(&d0, "");
    assert_eq!(tree_of(&c0).unwrap(), "bcm2712-rpi-5-b.dtb");
    assert!(c0.trace.of(Kind::Doubt).any(|line| line.contains("2018")));
    assert_eq!(tree_of(&with(&pi4, "device_tree=bcm2837-rpi-3-b.dtb")).unwrap(), "bcm2837-rpi-3-b.dtb");
    assert!(matches!(stuck(&with(&pi4, "device_tree=none.dtb")), OsFailure::NoDeviceTree(_)));
    assert!(matches!(stuck(&with(&pi4, "device_tree=")), OsFailure::NoDeviceTree(_)));
    assert!(matches!(stuck(&with(&pi4, "device_tree=vmlinuz")), OsFailure::NoDeviceTree(_)));

    // A Pi 5 does not start from a partition without a tree of its own.
    let foreign = with(&pi5, "device_tree=bcm2711-rpi-4-b.dtb");
    let Outcome::Fails(Failure::NothingBootable { tried }) = &foreign.outcome else { panic!("{foreign}") };
    assert_eq!(tried[0], (0, NotBootable::NoDeviceTree));
    assert!(with(&pi5, "os_check=0\ndevice_tree=bcm2711-rpi-4-b.dtb").start().is_some());
    let overlay = with(&pi4, "dtoverlay=disable-bt");
    assert_eq!(overlay.start().unwrap().overlays, ["disable-bt"]);
    assert_eq!(overlay.trace.of(Kind::Doubt).count(), 1);
}

/// "Any value in os_prefix is prepended to the name of any operating system files"; "unless the expected kernel and .dtb can
/// be found at the new location/name, the prefix is ignored".
#[test]
fn prefixes() {
    let pi4 = Board::new(Model::Pi4B);
    let with = |config: &str, more: &[(&'static str, Vec<u8>)]| {
        let config = format!("kernel=vmlinuz\ninitramfs initrd followkernel\n{config}\n");
        alone(&pi4, |files| {
            replace(files, "config.txt", config.as_bytes());
            files.extend(more.iter().cloned());
        })
    };
    let four = tree("raspberrypi,4-model-b brcm,bcm2711", true);
    let next: [(&'static str, Vec<u8>); 4] = [
        ("next/vmlinuz", image()),
        ("next/bcm2711-rpi-4-b.dtb", four.clone()),
        ("next/initrd", b"two".to_vec()),
        text("next/cmdline.txt", "slot=next"),
    ];
    let decision = with("os_prefix=next/", &next);
    let start = decision.start().unwrap();
    let paths = (start.kernel.path.as_str(), start.initramfs[0].path.as_str(), start.cmdline.as_str());
    assert_eq!(paths, ("next/vmlinuz", "next/initrd", "slot=next"));
    // A kernel or a tree too few, and it is ignored.
    for missing in [0, 1] {
        let some: Files =
            next.iter().enumerate().filter(|(index, _)| *index != missing).map(|(_, f)| f.clone()).collect();
        let decision = with("os_prefix=next/", &some);
        assert_eq!(decision.start().unwrap().kernel.path, "vmlinuz");
        assert_eq!(decision.trace.of(Kind::Warning).count(), 1);
    }
    // "it could also be part of the filename such as test-"; "absolute path" goes past it.
    let test = [("test-vmlinuz", image()), ("test-bcm2711-rpi-4-b.dtb", four.clone())];
    let decision = with("os_prefix=test-\ncmdline=/cmdline.txt", &test);
    let start = decision.start().unwrap();
    assert_eq!(
        (start.kernel.path.as_str(), start.cmdline.as_str()),
        ("test-vmlinuz", "console=ttyS1 slot=x")
    );
    assert!(start.initramfs.is_empty(), "test-initrd is not there");
    // `upstream_kernel=1` means `upstream/`, where something is there.
    let upstream = [("upstream/vmlinuz", image()), ("upstream/bcm2711-rpi-4-b.dtb", four)];
    assert_eq!(with("upstream_kernel=1", &upstream).start().unwrap().kernel.path, "upstream/vmlinuz");
    assert_eq!(with("upstream_kernel=1", &upstream[..1]).start().unwrap().kernel.path, "vmlinuz");
}

#[test]
fn initramfs_and_command_line() {
    let with_date = |date: &str, config: &str, more: &[(&'static str, Vec<u8>)]| {
        let date = date.parse().unwrap();
        let board = Board { bootloader: date, start_elf: date, ..Board::new(Model::Pi4B) };
        alone(&board, |files| {
            replace(files, "config.txt", config.as_bytes());
            files.extend(more.iter().cloned());
        })
    };
    let with = |config: &str, more: &[(&'static str, Vec<u8>)]| with_date("2026-07-01", config, more);
    let names = |decision: &Decision| -> Vec<String> {
        decision.start().unwrap().initramfs.iter().map(|file| file.path.clone()).collect()
    };
    let eight = [("kernel8.img", image()), ("initramfs8", b"8".to_vec()), text("two", "2")];
    assert_eq!(
        names(&with("kernel=vmlinuz\ninitramfs initrd,two followkernel\n", &eight)),
        ["initrd", "two"]
    );
    assert_eq!(names(&with("kernel=vmlinuz\nramfsfile=initrd\n", &eight)), ["initrd"]);
    assert_eq!(names(&with("auto_initramfs=1\n", &eight)), ["initramfs8"]);
    assert_eq!(names(&with("auto_initramfs=1\ninitramfs initrd 0\n", &eight)), ["initrd"]);
    assert_eq!(names(&with("auto_initramfs=1\nkernel=vmlinuz\n", &eight)), [""; 0]);
    assert_eq!(names(&with("kernel=vmlinuz\n", &eight)), [""; 0]);
    let missing = with("kernel=vmlinuz\ninitramfs none followkernel\n", &eight);
    assert_eq!((names(&missing).len(), missing.trace.of(Kind::Doubt).count()), (0, 1));
    // The release notes of 2026-06-29, "Fix auto_initramfs take 3".
    let prefixed = [
        ("p/kernel8.img", image()),
        ("p/initramfs8", b"8".to_vec()),
        ("p/bcm2711-rpi-4-b.dtb", tree("raspberrypi,4-model-b brcm,bcm2711", true)),
    ];
    let config = "auto_initramfs=1\nos_prefix=p/\n";
    assert_eq!(names(&with_date("2026-06-29", config, &prefixed)), ["p/initramfs8"]);
    assert_eq!(names(&with_date("2026-06-28", config, &prefixed)), [""; 0]);

    let line = with("kernel=vmlinuz\ncmdline=c.txt\n", &[text("c.txt", " one two \r\nthree\n")]);
    assert_eq!(line.start().unwrap().cmdline, "one two");
    assert_eq!(line.trace.of(Kind::Warning).count(), 1);
    let none = with("kernel=vmlinuz\ncmdline=none.txt\n", &[]);
    assert_eq!(none.start().unwrap().cmdline, "");
    assert!(matches!(stuck(&with("boot_ramdisk=1\n", &eight)), OsFailure::NotModelled(_)));
}

/// `[boot_partition=N]` picks the command line of the slot (rpi-eeprom release notes of 2025-03-10).
#[test]
fn one_config_for_both_slots() {
    let both = || {
        let mut files = slot("none");
        let config =
            "[boot_partition=2]\ncmdline=a.txt\n[boot_partition=3]\ncmdline=b.txt\n[all]\nkernel=vmlinuz\n";
        replace(&mut files, "config.txt", config.as_bytes());
        files.extend([text("a.txt", "slot=A"), text("b.txt", "slot=B")]);
        Some(fat16(&files))
    };
    let disk = disk(&[Some(fat16(&selector(AUTOBOOT))), both(), both()]);
    let pi5 = Board::new(Model::Pi5);
    assert_eq!(boots(&disk, &pi5, BootFlags::default()), from(2, "slot=A"));
    assert_eq!(boots(&disk, &pi5, TRY), from(3, "slot=B"));
    assert_eq!(boots(&disk, &old(Model::Pi5, "2025-03-09"), TRY), from(3, "slot=none"));
    // On a Pi 4 start4.elf decides, and Debian 13's is of 2024.
    assert_eq!(boots(&disk, &Board::new(Model::Pi4B), TRY), from(3, "slot=none"));
}

/// "autoboot.txt is limited to 512 bytes".
#[test]
fn what_autoboot_may_look_like() {
    let with = |content: Vec<u8>| {
        let files: Files = vec![("bootcode.bin", b"c".to_vec()), ("autoboot.txt", content)];
        let mut first = slot("r");
        first.retain(|(name, _)| *name != "bootcode.bin");
        first.extend(files);
        disk(&[Some(fat16(&first)), Some(fat16(&slot("a"))), Some(fat16(&slot("b")))])
    };
    let pi4 = Board::new(Model::Pi4B);
    let mut padded = b"boot_partition=2\n".to_vec();
    for (fill, length) in [(b'\n', 512), (b' ', 512), (b'#', 512), (0, 512)] {
        padded.resize(17, 0);
        padded.resize(length, fill);
        assert_eq!(boots(&with(padded.clone()), &pi4, BootFlags::default()), from(2, "slot=a"), "{fill}");
    }
    padded.truncate(17);
    padded.resize(520, b'\n');
    padded.extend(b"boot_partition=3\n");
    assert_eq!(boots(&with(padded), &pi4, BootFlags::default()), from(2, "slot=a"));
    // Garbage, nothing, and no number: the first partition itself.
    for text in [
        &b""[..],
        &[0xff; 512],
        b"boot_partition=two\n",
        b"boot_partition=0\n",
        b"[none]\nboot_partition=2\n",
    ] {
        assert_eq!(boots(&with(text.to_vec()), &pi4, BootFlags::default()), from(1, "slot=r"), "{text:?}");
    }
}

/// A slot of which any part may be damaged.
fn any_slot() -> impl Strategy<Value = Option<Vec<u8>>> {
    let damage =
        prop_oneof![Just("none"), Just("header"), Just("config.txt"), Just("start4.elf"), Just("empty")];
    damage.prop_map(|damage| {
        let mut files = slot("x");
        files.retain(|(name, _)| {
            damage != "empty" && *name != damage && (damage != "config.txt" || !name.starts_with("start"))
        });
        let mut volume = fat16(&files);
        if damage == "header" {
            volume[..4096].fill(0);
        }
        Some(volume)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever one sector of `autoboot.txt` holds, a recent Pi 4 or 5 starts something if a slot can be started at all,
    /// and what it starts is whole.
    #[test]
    fn a_whole_slot_is_found(
        a in any_slot(), b in any_slot(), hot in proptest::collection::vec(any::<u8>(), 0..512),
        tryboot: bool, pi5: bool,
    ) {
        let mut first = selector("");
        first[1].1 = hot;
        let board = Board::new(if pi5 { Model::Pi5 } else { Model::Pi4B });
        let whole = |volume: &Option<Vec<u8>>| {
            let alone = disk(std::slice::from_ref(volume));
            decide(&alone, &board, BootFlags::default()).start().is_some()
        };
        let any = whole(&a) || whole(&b);
        let disk = disk(&[Some(fat16(&first)), a.clone(), b.clone()]);
        // A trial needs `tryboot_a_b`, which noise does not say.
        let flags = BootFlags { tryboot, ..BootFlags::default() };
        let decision = decide(&disk, &board, flags);
        if any && !tryboot {
            prop_assert!(decision.start().is_some(), "{decision}");
        }
        if let Some(start) = decision.start() {
            prop_assert!(whole(if start.place.number == 2 { &a } else { &b }) || tryboot, "{}", decision);
        }
        // The same disk, the same answer, with and without a trace.
        let again = outcome(&disk, &board, flags, &mut Trace::off());
        prop_assert_eq!(again, decision.outcome);
    }

    /// Noise anywhere: the model ends, and does not panic.
    #[test]
    fn any_damage_ends(
        noise in proptest::collection::vec((0usize..5 << 20, any::<u8>()), 1..60),
        model in 0..Model::ALL.len(), tryboot: bool, partition in 0u32..70, gpt: bool,
    ) {
        let mut disk = if gpt {
            gpt_disk(&[fat16(&selector(AUTOBOOT)), fat16(&slot("a"))])
        } else {
            disk(&[Some(fat16(&selector(AUTOBOOT))), Some(fat16(&slot("a"))), None, Some(fat16(&slot("b")))])
        };
        for (at, byte) in noise {
            // Half of it where the structures are.
            let at = if at % 2 == 0 { at } else { (at % 3) << 20 | (at >> 8 & 0x3fff) };
            let length = disk.len();
            disk[at % length] = byte;
        }
        let flags = BootFlags { tryboot, partition, ..BootFlags::default() };
        let decision = decide(&disk, &Board::new(Model::ALL[model]), flags);
        prop_assert!(!decision.to_string().is_empty());
    }
}
