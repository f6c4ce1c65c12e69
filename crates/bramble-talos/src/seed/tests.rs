use super::*;
use std::fs::File;
use std::io::Write as _;
use std::process::Command;

const MIB: u64 = 1 << 20;
const DISK: u64 = 8 << 30;

/// The layout of a downloaded image (`facts` of Talos' imager): a Pi's with GRUB, a PC's with systemd-boot.
fn image(pi: bool, loader: &str) -> File {
    let (esp, rest): (u64, &[(&str, u64)]) = match pi {
        true => (100, &[("BIOS", 1), ("BOOT", 2000), ("META", 1)]),
        false => (2101, &[("META", 1)]),
    };
    let size = 2246 * MIB;
    let mut file = tempfile::tempfile().unwrap();
    file.set_len(size).unwrap();
    let mut partitions = Vec::new();
    let mut at = MIB;
    for (name, mib) in [("EFI", esp)].iter().chain(rest) {
        let number = partitions.len() as u32 + 1;
        let guid = Guid([number as u8; 16]);
        partitions.push(Partition {
            number,
            type_guid: BASIC_DATA,
            guid,
            start: at,
            size: mib * MIB,
            attributes: 0,
            name: (*name).into(),
        });
        at += mib * MIB;
    }
    let table = Table { disk_guid: Guid([9; 16]), partitions };
    put(&mut file, &table.writes(size).unwrap());
    let options = Options {
        size: esp * MIB,
        sectors_per_cluster: 8,
        ..Options::new(if pi { FatType::Fat16 } else { FatType::Fat32 })
    };
    let entries = [Entry::file(loader, b"MZ")];
    let volume = Volume::plan(&entries, &options).unwrap();
    file.seek(SeekFrom::Start(MIB)).unwrap();
    for segment in volume.segments() {
        if let bramble_fat::Content::Bytes(bytes) = segment.content {
            file.seek(SeekFrom::Start(MIB + segment.offset)).unwrap();
            file.write_all(bytes).unwrap();
        }
    }
    file
}

fn put(file: &mut File, writes: &[Write]) {
    for write in writes {
        file.seek(SeekFrom::Start(write.offset)).unwrap();
        file.write_all(&write.bytes).unwrap();
    }
}

fn config() -> SecretText {
    SecretText::new("version: v1alpha1\n".repeat(600))
}

fn look(file: &mut File, arch: Arch) -> Result<Image, SeedError> {
    let size = file.metadata().unwrap().len();
    Image::look(file, size, arch)
}

#[test]
fn both_layouts_get_a_seed_that_can_be_read() {
    for (pi, loader, arch) in
        [(true, "EFI/BOOT/BOOTAA64.EFI", Arch::Arm64), (false, "EFI/BOOT/BOOTX64.EFI", Arch::Amd64)]
    {
        let mut file = image(pi, loader);
        let writes = look(&mut file, arch).unwrap().seed(&config(), DISK).unwrap();
        file.set_len(DISK).unwrap();
        put(&mut file, &writes);
        let check = gpt::check(&mut file, DISK).unwrap();
        assert_eq!(check.findings, []);
        let names: Vec<&str> = check.table.partitions.iter().map(|p| p.name.as_str()).collect();
        let seed = check.table.partitions.last().unwrap();
        assert_eq!(names.last(), Some(&PARTITION));
        // Right behind META: what is free stays in one piece.
        let meta = check.table.partitions.iter().find(|p| p.name == "META").unwrap();
        assert_eq!(seed.start, meta.start + meta.size);
        let window = Window { start: seed.start, size: seed.size, source: &mut file, at: 0 };
        assert_eq!(Reader::open(window).unwrap().read(FILE, MIB).unwrap(), config().expose().as_bytes());
        // A second seed is refused, and so is the image of a machine that ran.
        assert!(matches!(look(&mut file, arch), Err(SeedError::Seeded)));
        foreign_tools_agree(&mut file, seed);
    }
}

/// `sgdisk` and `fsck.vfat`, where they are installed.
fn foreign_tools_agree(file: &mut File, seed: &Partition) {
    let directory = tempfile::tempdir().unwrap();
    let (disk, part) = (directory.path().join("disk"), directory.path().join("part"));
    let mut copy = File::create(&disk).unwrap();
    copy.set_len(DISK).unwrap();
    for (start, size) in [(0, MIB), (seed.start, seed.size), (DISK - MIB, MIB)] {
        let mut bytes = vec![0; size as usize];
        file.seek(SeekFrom::Start(start)).unwrap();
        file.read_exact(&mut bytes).unwrap();
        copy.seek(SeekFrom::Start(start)).unwrap();
        copy.write_all(&bytes).unwrap();
        if start == seed.start {
            std::fs::write(&part, &bytes).unwrap();
        }
    }
    for (program, arguments, path) in [("sgdisk", "-v", &disk), ("fsck.vfat", "-n", &part)] {
        match Command::new(program).arg(arguments).arg(path).output() {
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stdout);
                assert!(output.status.success(), "{program}: {said}");
                assert!(program != "sgdisk" || said.contains("No problems found"), "{said}");
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => panic!("{program}: {error}"),
        }
    }
}

#[test]
fn images_that_are_not_what_they_should_be_are_refused() {
    let mut good = image(true, "EFI/BOOT/BOOTAA64.EFI");
    assert!(
        matches!(look(&mut good, Arch::Amd64), Err(SeedError::Architecture { found, .. }) if found == "arm64")
    );
    let whole = look(&mut good, Arch::Arm64).unwrap();
    assert!(matches!(whole.seed(&config(), 4 << 30), Err(SeedError::TooSmall { .. })));
    assert!(matches!(whole.seed(&SecretText::new("x".repeat(20 << 20)), DISK), Err(SeedError::Volume(_))));
    let length = good.metadata().unwrap().len();
    for cut in [length - MIB, length / 2] {
        good.set_len(cut).unwrap();
        let error = look(&mut good, Arch::Arm64).unwrap_err();
        assert!(matches!(error, SeedError::Length { .. } | SeedError::NoTable(_)), "{error}");
    }
    let mut nothing = tempfile::tempfile().unwrap();
    nothing.set_len(64 * MIB).unwrap();
    assert!(matches!(look(&mut nothing, Arch::Arm64), Err(SeedError::NoTable(_))));
    let mut foreign = image(true, "EFI/OTHER/X.EFI");
    assert!(matches!(look(&mut foreign, Arch::Arm64), Err(SeedError::Architecture { .. })));
}
