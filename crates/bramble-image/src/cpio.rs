//! cpio archives in the `newc` form, which the kernel unpacks as its initramfs
//! (`Documentation/driver-api/early-userspace/buffer-format.rst` in the Linux source).
//!
//! Deterministic: inode numbers count up, all times are zero, everything is root's.

use std::collections::BTreeSet;

const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// An archive in the making.
#[derive(Debug, Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    inode: u32,
    directories: BTreeSet<String>,
}

impl Archive {
    /// Adds a directory of mode 0755 and those above it, unless they are there.
    pub(crate) fn directory(&mut self, path: &str) {
        let path = path.trim_start_matches('/');
        for (end, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let part = &path[..end];
            if !part.is_empty() && self.directories.insert(part.to_string()) {
                self.entry(part, DIRECTORY | 0o755, 2, (0, 0), &[]);
            }
        }
    }

    /// Adds a file, and the directories above it.
    pub(crate) fn file(&mut self, path: &str, mode: u32, data: &[u8]) {
        self.parents(path);
        self.entry(path.trim_start_matches('/'), FILE | mode, 1, (0, 0), data);
    }

    /// Adds a character device, and the directories above it.
    pub(crate) fn device(&mut self, path: &str, mode: u32, major: u32, minor: u32) {
        self.parents(path);
        self.entry(path.trim_start_matches('/'), CHARACTER_DEVICE | mode, 1, (major, minor), &[]);
    }

    fn parents(&mut self, path: &str) {
        if let Some((directory, _)) = path.rsplit_once('/') {
            self.directory(directory);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, links: u32, device: (u32, u32), data: &[u8]) {
        self.inode += 1;
        self.raw(path, self.inode, mode, links, device, data);
    }

    fn raw(&mut self, path: &str, inode: u32, mode: u32, links: u32, device: (u32, u32), data: &[u8]) {
        // inode, mode, uid, gid, links, time, size, device, device of a special file, name's size, checksum
        let size = data.len() as u32;
        let name = path.len() as u32 + 1;
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad(4);
        self.bytes.extend(data);
        self.pad(4);
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// The finished archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.raw("TRAILER!!!", 0, 0, 1, (0, 0), &[]);
        self.pad(512);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::process::{Command, Stdio};

    fn sample() -> Vec<u8> {
        let mut archive = Archive::default();
        archive.device("/dev/console", 0o600, 5, 1);
        archive.file("/etc/bramble/keys/a", 0o644, b"12345");
        archive.file("/init", 0o755, b"x");
        archive.directory("/etc/bramble/keys");
        archive.finish()
    }

    #[test]
    fn entries_are_aligned_and_directories_come_first_and_once() {
        let bytes = sample();
        assert_eq!(bytes.len() % 512, 0);
        let mut at = 0;
        let mut seen = Vec::new();
        let number = |from: usize| {
            usize::from_str_radix(std::str::from_utf8(&bytes[from..from + 8]).unwrap(), 16).unwrap()
        };
        while bytes.get(at..at + 6) == Some(b"070701") {
            let (mode, size, name) = (number(at + 14), number(at + 54), number(at + 94));
            let path = std::str::from_utf8(&bytes[at + 110..at + 110 + name - 1]).unwrap();
            seen.push(format!("{path} {mode:o} {size}"));
            at = (at + 110 + name).next_multiple_of(4);
            at = (at + size).next_multiple_of(4);
        }
        let expected = [
            "dev 40755 0",
            "dev/console 20600 0",
            "etc 40755 0",
            "etc/bramble 40755 0",
            "etc/bramble/keys 40755 0",
            "etc/bramble/keys/a 100644 5",
            "init 100755 1",
            "TRAILER!!! 0 0",
        ];
        assert_eq!(seen, expected);
    }

    #[test]
    #[ignore = "needs the program cpio"]
    fn cpio_lists_it() {
        let mut child = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&sample()).unwrap();
        let out = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        assert!(out.contains("5,   1") && out.contains("etc/bramble/keys/a"), "{out}");
    }
}
