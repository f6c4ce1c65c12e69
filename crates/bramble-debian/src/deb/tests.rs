use super::*;
use crate::tree::Kind;
use sha2::{Digest, Sha256};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory of this test's own, taken away at its end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("bramble-deb-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        Scratch(dir)
    }

    fn read(&self, deb: &[u8]) -> Result<Deb, DebError> {
        let path = self.0.join("x.deb");
        std::fs::write(&path, deb).unwrap();
        Deb::read(&path, &hex::encode(Sha256::digest(deb)), deb.len() as u64, &self.0)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn tar_of(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, kind, text) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        let body: &[u8] = if kind.is_file() { text.as_bytes() } else { b"" };
        if !kind.is_file() && !text.is_empty() {
            header.set_link_name_literal(text).unwrap();
        }
        header.set_size(body.len() as u64);
        // Written into the field itself: the builder refuses the names that the reader must refuse.
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        out.append(&header, body).unwrap();
    }
    out.into_inner().unwrap()
}

fn ar_of(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = b"!<arch>\n".to_vec();
    for (name, bytes) in members {
        out.extend(
            format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", bytes.len()).bytes(),
        );
        out.extend(*bytes);
        if bytes.len() % 2 == 1 {
            out.push(b'\n');
        }
    }
    out
}

fn deb_of(entries: &[(&str, tar::EntryType, &str)]) -> Vec<u8> {
    let control = tar_of(&[("./control", F, "Package: x\nMulti-Arch: same\n")]);
    ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &control), ("data.tar", &tar_of(entries))])
}

const F: tar::EntryType = tar::EntryType::Regular;
const D: tar::EntryType = tar::EntryType::Directory;
const S: tar::EntryType = tar::EntryType::Symlink;
const H: tar::EntryType = tar::EntryType::Link;

#[test]
fn a_package_is_read_and_the_second_time_from_the_cache() {
    let scratch = Scratch::new();
    let bytes = deb_of(&[("./", D, ""), ("./a", F, "hello"), ("./b", H, "./a"), ("./c", S, "/etc")]);
    let first = scratch.read(&bytes).unwrap();
    assert!(!first.was_cached);
    let second = scratch.read(&bytes).unwrap();
    assert!(second.was_cached);
    assert_eq!(second.field("multi-arch").as_deref(), Some("same"));
    let kinds: Vec<&Kind> = second.entries.iter().map(|e| &e.node.kind).collect();
    assert_eq!(kinds[1], &Kind::File(Content::from("hello")));
    assert_eq!(kinds[2], &Kind::Hardlink(crate::tree::TreePath::new("a").unwrap()));
    assert_eq!(kinds[3], &Kind::Symlink(b"/etc".to_vec()));
}

#[test]
fn every_compression_gives_the_same_entries() {
    use std::io::Write;
    let data = tar_of(&[("./a", F, "hello")]);
    let control = tar_of(&[("./control", F, "Package: x\n")]);
    let mut xz = liblzma::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(&data).unwrap();
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&data).unwrap();
    let compressed = [
        ("data.tar.xz", xz.finish().unwrap()),
        ("data.tar.gz", gz.finish().unwrap()),
        ("data.tar.zst", zstd::encode_all(&data[..], 1).unwrap()),
    ];
    for (name, bytes) in &compressed {
        let scratch = Scratch::new();
        let deb = ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &control), (name, bytes)]);
        let read = scratch.read(&deb).unwrap();
        assert_eq!(read.entries[0].node.kind, Kind::File(Content::from("hello")), "{name}");
    }
}

#[test]
fn a_shortened_file_of_the_cache_is_made_again() {
    let scratch = Scratch::new();
    let bytes = deb_of(&[("./a", F, "hello")]);
    scratch.read(&bytes).unwrap();
    let cached = std::fs::read_dir(scratch.0.join("unpacked")).unwrap().next().unwrap().unwrap().path();
    let whole = std::fs::read(&cached).unwrap();
    std::fs::write(&cached, &whole[..whole.len() - 512]).unwrap();
    let again = scratch.read(&bytes).unwrap();
    assert!(!again.was_cached);
    assert_eq!(std::fs::read(&cached).unwrap(), whole);
}

#[test]
fn what_no_package_may_hold_is_refused_and_leaves_no_trace() {
    for (entries, reason) in [
        (vec![("./../etc/passwd", F, "")], "climbs out of the tree"),
        (vec![("/etc/passwd", F, "")], "is an absolute path"),
        (vec![("./a", F, ""), ("./a", F, "")], "occurs twice"),
        (vec![("./a", F, ""), ("a", D, "")], "occurs twice"),
        (vec![("./a", H, "../../etc/shadow")], "is a hard link out of the tree"),
        (vec![("./a", H, "./b"), ("./b", F, "")], "is a hard link to no earlier file of the package"),
        (vec![("./dev/sda", tar::EntryType::Block, "")], "is of a type that packages do not have"),
    ] {
        let scratch = Scratch::new();
        let error = scratch.read(&deb_of(&entries)).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn a_damaged_container_is_named() {
    let control = tar_of(&[("./control", F, "Package: x\n")]);
    let good = deb_of(&[("./a", F, "hello")]);
    for (bytes, reason) in [
        (b"PK\x03\x04".to_vec(), "is not an ar archive"),
        (good[..good.len() - 600].to_vec(), "ends inside"),
        (ar_of(&[("debian-binary", b"3.0\n")]), "format 2"),
        (ar_of(&[("debian-binary", b"2.0\n"), ("control.tar", &control)]), "has no data.tar"),
        (ar_of(&[("debian-binary", b"2.0\n"), ("evil", b"")]), "where control.tar is due"),
    ] {
        let scratch = Scratch::new();
        let error = scratch.read(&bytes).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
}

#[test]
fn another_file_than_the_locked_one_is_refused() {
    let scratch = Scratch::new();
    let path = scratch.0.join("x.deb");
    let bytes = deb_of(&[("./a", F, "hello")]);
    std::fs::write(&path, &bytes).unwrap();
    let size = Deb::read(&path, &"0".repeat(64), 1, &scratch.0).unwrap_err();
    assert!(matches!(size, DebError::NotTheLocked { what: "size", .. }));
    let digest = Deb::read(&path, &"0".repeat(64), bytes.len() as u64, &scratch.0).unwrap_err();
    assert!(matches!(digest, DebError::NotTheLocked { what: "SHA-256", .. }));
    assert_eq!(std::fs::read_dir(scratch.0.join("unpacked")).unwrap().count(), 0);
}

#[test]
fn a_bomb_fails_instead_of_filling_the_disk() {
    use std::io::Read;
    let bytes = zstd::encode_all(std::io::repeat(0).take(1 << 20), 1).unwrap();
    let mut out = Vec::new();
    let mut reader = ar::decompressor("data.tar.zst", &bytes, 1 << 19).unwrap();
    assert_eq!(reader.read_to_end(&mut out).unwrap_err().kind(), std::io::ErrorKind::FileTooLarge);
}
