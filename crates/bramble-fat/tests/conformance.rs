//! What other programs make of our volumes: `fsck.vfat` (dosfstools) and `mtype`, `mdir` (mtools) must be installed.

use std::fs::File;
use std::io::{Cursor, Write};
use std::path::Path;
use std::process::Command;

use bramble_fat::{Content, Entry, FatType, Options, Reader, Volume};

const LOADER: &[u8] = b"timeout 0\neditor no\ndefault slot-a.efi\n";

fn bytes(seed: u32, length: usize) -> Vec<u8> {
    let mut state = seed;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(length)
    .collect()
}

fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output = Command::new(program).args(args).env("MTOOLS_SKIP_CHECK", "0").env("TZ", "UTC").output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install dosfstools and mtools"));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{program} {args:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn options(fat_type: FatType, size: u64, sectors_per_cluster: u8) -> Options {
    Options {
        fat_type,
        size,
        sectors_per_cluster,
        serial: 0x1234_abcd,
        label: "BRAMBLE-ESP".into(),
        time: 1_709_210_096,
        hidden_sectors: 8192,
    }
}

/// The shapes of an ESP, of a Pi's BOOTSEL and of its BOOT-A, and one with large clusters.
fn shapes() -> [Options; 4] {
    [
        options(FatType::Fat32, 512 << 20, 8),
        options(FatType::Fat16, 64 << 20, 4),
        options(FatType::Fat32, 128 << 20, 1),
        options(FatType::Fat16, 200 << 20, 16),
    ]
}

#[test]
fn other_programs_agree() {
    let uki = bytes(1, 3_000_001);
    let small = bytes(2, 513);
    let many: Vec<String> =
        (0..300).map(|n| format!("overlays/a-rather-long-overlay-name-{n}.dtbo")).collect();
    let mut entries = vec![
        Entry::file("EFI/BOOT/BOOTX64.EFI", &uki),
        Entry::file("EFI/Linux/slot-a.efi", &uki).padded_to(4 << 20),
        Entry::file("loader/loader.conf", LOADER).padded_to(512).alone_in(4 << 20),
        Entry::file("autoboot.txt", b"[all]\n"),
        Entry::file("config.txt", b""),
        Entry::file("LOADER~1.CON", &small),
        Entry::file("gr\u{fc}n und rot.txt", &small),
        Entry::directory("loader/entries"),
    ];
    entries.extend(many.iter().map(|path| Entry::file(path, &small)));
    for options in shapes() {
        let volume = Volume::plan(&entries, &options).unwrap();
        let mut image = Vec::new();
        volume.write_to(&mut image).unwrap();
        assert_eq!(image.len() as u64, options.size);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&image).unwrap();
        let path = file.path().to_str().unwrap();

        let report = String::from_utf8(run("fsck.vfat", &["-n", "-v", path])).unwrap();
        for complaint in ["differ", "wrong", "Dirty", "Free cluster summary", "Reclaimed", "bad", "corrupt"] {
            assert!(!report.contains(complaint), "{report}");
        }
        let listed = String::from_utf8(run("mdir", &["-/", "-b", "-i", path, "::"])).unwrap();
        for (name, content) in [
            ("EFI/BOOT/BOOTX64.EFI", &uki[..]),
            ("autoboot.txt", b"[all]\n"),
            ("config.txt", b""),
            ("LOADER~1.CON", &small),
            (&many[299], &small),
        ] {
            assert!(listed.contains(&format!("::/{name}\n")), "{name} in {listed}");
            assert!(run("mtype", &["-i", path, &format!("::/{name}")]) == content, "{name}");
        }
        // The name that people type, though the short one is `LOADER~2.CON` or the like.
        let loader = run("mtype", &["-i", path, "::/loader/loader.conf"]);
        assert_eq!(&loader[..LOADER.len()], LOADER);
        assert_eq!(loader.len(), 512);
        let label = String::from_utf8(run("mlabel", &["-s", "-i", path, "::"])).unwrap();
        assert!(label.contains("BRAMBLE-ESP"), "{label}");
    }
}

#[test]
fn free_count_is_what_mtools_counts() {
    for options in shapes() {
        let content = bytes(3, 100_000);
        let entries = [Entry::file("a/b/c.txt", &content), Entry::file("z", &content).alone_in(1 << 20)];
        let volume = Volume::plan(&entries, &options).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        volume.write_to(&mut File::create(file.path()).unwrap()).unwrap();
        let listed = String::from_utf8(run("mdir", &["-i", file.path().to_str().unwrap(), "::"])).unwrap();
        let digits: String = listed
            .lines()
            .rfind(|line| line.contains("bytes free"))
            .unwrap()
            .chars()
            .filter(char::is_ascii_digit)
            .collect();
        let free = volume.free_clusters() * u64::from(options.sectors_per_cluster) * 512;
        assert_eq!(digits.parse::<u64>().unwrap(), free, "{listed}");
    }
}

#[test]
fn a_file_is_rewritten_in_place() {
    let options = options(FatType::Fat16, 64 << 20, 4);
    let entries = [
        Entry::file("EFI/BOOT/BOOTX64.EFI", b"MZ"),
        Entry::file("loader/loader.conf", LOADER).padded_to(512).alone_in(4 << 20),
    ];
    let volume = Volume::plan(&entries, &options).unwrap();
    let hot = volume.extent("loader/loader.conf").unwrap();
    assert_eq!((hot.offset % (4 << 20), hot.length), (0, 512));
    let mut image = Vec::new();
    volume.write_to(&mut image).unwrap();
    let neighbours = hot.offset as usize..hot.offset as usize + (4 << 20);
    assert!(image[neighbours].iter().skip(LOADER.len()).all(|byte| *byte == 0));
    let mut changed = LOADER.to_vec();
    changed.resize(512, b'\n');
    image[hot.offset as usize..][..512].copy_from_slice(&changed);
    let mut reader = Reader::open(Cursor::new(image)).unwrap();
    assert_eq!(reader.read("LOADER/loader.conf", 512).unwrap(), changed);
    assert_eq!(reader.extents("loader/LOADER~1.CON").unwrap(), [hot]);
}

#[test]
fn reads_what_others_write() {
    for (size, args) in [(64u64 << 20, ["-F", "16", "-s", "4"]), (128 << 20, ["-F", "32", "-s", "1"])] {
        let content = bytes(4, 70_000);
        let source = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(source.path(), &content).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(size).unwrap();
        let path = |path: &Path| path.to_str().unwrap().to_owned();
        let image = path(file.path());
        run("mkfs.vfat", &[&args[..], &[&image]].concat());
        run("mmd", &["-i", &image, "::/EFI", "::/EFI/Debian und mehr"]);
        run("mcopy", &["-i", &image, &path(source.path()), "::/EFI/Debian und mehr/Some Long Name.efi"]);
        let mut reader = Reader::open(File::open(file.path()).unwrap()).unwrap();
        assert!(reader.read("efi/debian UND mehr/some long name.EFI", 70_000).unwrap() == content);
        assert!(reader.read("efi/debian und mehr/some long name.efi", 69_999).is_err());
        assert_eq!(reader.list("EFI").unwrap()[0].name, "Debian und mehr");
        let extents = reader.extents("EFI/Debian und mehr/Some Long Name.efi").unwrap();
        assert_eq!(extents.iter().map(|extent| extent.length).sum::<u64>(), 70_000);
    }
}

#[test]
fn segments_cover_everything_once() {
    for options in shapes() {
        let content = bytes(5, 10_000);
        let entries = [Entry::file("a", &content), Entry::file("b", &content).padded_to(1 << 20)];
        let volume = Volume::plan(&entries, &options).unwrap();
        let mut at = 0;
        let mut zeros = 0;
        for segment in volume.segments() {
            assert_eq!(segment.offset, at);
            at += segment.content.len();
            if let Content::Zeros(count) = segment.content {
                zeros += count;
            }
        }
        assert_eq!(at, volume.size());
        assert!(zeros > volume.size() - (2 << 20), "unused space must cost nothing");
    }
}
