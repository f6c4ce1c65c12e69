//! What the format's own tools make of our images: `fsck.erofs` (erofs-utils) must be installed.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use bramble_erofs::{Entry, FileType, Image, Kind, Layout, Options};

fn run(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}; install erofs-utils"));
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {text}");
    text
}

fn options() -> Options {
    Options { uuid: [7; 16], label: "conformance".into(), build_time: 1_700_000_000, ..Options::default() }
}

/// Names that sort before `.` and after it, several directory blocks, every size around a block, links of all kinds.
fn entries<'a>(names: &'a [String], content: &'a [u8], target: &'a [u8]) -> Vec<Entry<'a>> {
    let mut entries = vec![
        Entry::new(b"usr", Kind::Directory, 0o755),
        Entry::new(b"usr/bin", Kind::Directory, 0o755),
        Entry::new(b"usr-before-slash", Kind::File(b"x"), 0o600),
        Entry::new(b"usr/bin/true", Kind::File(&content[..4096]), 0o4755),
        Entry::new(b"usr/bin/false", Kind::HardLink(b"usr/bin/true"), 0),
        Entry::new(b"empty", Kind::File(b""), 0o644),
        Entry::new(b"large", Kind::File(content), 0o644),
        Entry::new(b"link", Kind::Symlink(b"usr/bin/true"), 0o777),
        Entry::new(b"long-link", Kind::Symlink(target), 0o777),
        Entry::new(b"nothing-in-it", Kind::Directory, 0o1777),
        Entry { mtime: Some(1_600_000_000), ..Entry::new(b"old", Kind::File(b"old"), 0o644) },
        Entry { uid: 70_000, gid: 80_000, ..Entry::new(b"owned", Kind::File(b"owned"), 0o644) },
        Entry::new(b"many", Kind::Directory, 0o755),
    ];
    entries.extend(
        names.iter().map(|name| Entry::new(name.as_bytes(), Kind::File(&content[..name.len()]), 0o644)),
    );
    entries
}

fn names() -> Vec<String> {
    let plain = (0..500).map(|n| format!("many/a-name-of-some-length-{n}"));
    let odd = ["many/!", "many/-dash", "many/+", "many/.dot", "many/..dots", "many/~", "many/gr\u{fc}n"]
        .map(String::from);
    plain.chain(odd).collect()
}

fn content() -> Vec<u8> {
    (0..20_000u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()).collect()
}

#[test]
fn fsck_extracts_what_was_put_in() {
    let (names, content) = (names(), content());
    // Beyond 2 KiB a target has a block of its own.
    let target = vec![b't'; 3000];
    let layout = Layout::plan(entries(&names, &content, &target), &options(), None).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    layout.write_to(&mut file).unwrap();
    file.flush().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    let image = file.path().to_str().unwrap();
    run("fsck.erofs", &["--no-preserve-owner", &format!("--extract={}", root.display()), image]);
    for entry in entries(&names, &content, &target) {
        let path = root.join(std::str::from_utf8(entry.path).unwrap());
        let metadata = fs::symlink_metadata(&path).unwrap();
        match entry.kind {
            Kind::File(bytes) => {
                assert!(fs::read(&path).unwrap() == bytes, "{path:?}");
                assert_eq!(metadata.permissions().mode() & 0o777, u32::from(entry.mode) & 0o777, "{path:?}");
                assert_eq!(metadata.mtime() as u64, entry.mtime.unwrap_or(1_700_000_000), "{path:?}");
            }
            Kind::HardLink(_) => assert!(fs::read(&path).unwrap() == content[..4096]),
            Kind::Symlink(target) => {
                assert_eq!(fs::read_link(&path).unwrap().to_str().unwrap().as_bytes(), target);
            }
            _ => assert!(metadata.is_dir(), "{path:?}"),
        }
    }
    let found = fs::read_dir(root.join("many")).unwrap().count();
    assert_eq!(found, names.len());
}

#[test]
fn fsck_accepts_devices_and_the_checksum() {
    let entries = vec![
        Entry::new(b"null", Kind::CharDevice { major: 1, minor: 3 }, 0o666),
        Entry::new(b"nvme0n1p300", Kind::BlockDevice { major: 259, minor: 300 }, 0o660),
        Entry::new(b"pipe", Kind::Fifo, 0o600),
        Entry::new(b"socket", Kind::Socket, 0o600),
    ];
    let mut image = Vec::new();
    Layout::plan(entries, &options(), None).unwrap().write_to(&mut image).unwrap();
    let read = Image::open(&image).unwrap();
    assert_eq!(read.find(b"null").unwrap().device(), Some((1, 3)));
    assert_eq!(read.find(b"nvme0n1p300").unwrap().device(), Some((259, 300)));
    assert_eq!(read.find(b"pipe").unwrap().file_type, FileType::Fifo);
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(&image).unwrap();
    let path = file.path().to_str().unwrap();
    let verdict = run("fsck.erofs", &[path]);
    assert!(!verdict.contains("chksum"), "{verdict}");
    let summary = run("dump.erofs", &["-s", file.path().to_str().unwrap()]);
    assert!(summary.contains("07070707-0707-0707-0707-070707070707"), "{summary}");
    image[1024 + 64] ^= 1;
    fs::write(file.path(), &image).unwrap();
    // Some versions say it and still succeed; the kernel refuses to mount.
    let output = Command::new("fsck.erofs").arg(file.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stderr).contains("chksum"), "{output:?}");
    assert!(Image::open(&image).is_err());
}

/// `mkfs.erofs` puts the tails of files behind their inodes, which our writer never does for files.
#[test]
fn reads_what_mkfs_writes() {
    let content = content();
    let directory = tempfile::tempdir().unwrap();
    let root = directory.path().join("root");
    fs::create_dir_all(root.join("a/b")).unwrap();
    for length in [0, 1, 100, 4095, 4096, 4097, 8192, 70_000] {
        fs::write(root.join(format!("a/b/{length}")), &content[..length]).unwrap();
    }
    std::os::unix::fs::symlink("b/100", root.join("a/link")).unwrap();
    let image = directory.path().join("image");
    run("mkfs.erofs", &["-T1600000000", image.to_str().unwrap(), root.to_str().unwrap()]);
    let bytes = fs::read(&image).unwrap();
    let image = Image::open(&bytes).unwrap();
    let mut paths = Vec::new();
    image
        .walk(|path, inode| {
            let path = String::from_utf8(path.to_vec()).unwrap();
            if inode.file_type == FileType::File {
                let length =
                    Path::new(&path).file_name().unwrap().to_str().unwrap().parse::<usize>().unwrap();
                assert!(*image.data(inode).unwrap() == content[..length], "{path}");
                assert_eq!(inode.mtime, 1_600_000_000);
            }
            paths.push(path);
        })
        .unwrap();
    assert_eq!(paths[..4], ["", "a", "a/b", "a/b/0"]);
    assert_eq!(paths.len(), 12);
    assert_eq!(*image.data(&image.find(b"a/link").unwrap()).unwrap(), *b"b/100");
}
