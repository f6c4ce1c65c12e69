//! The real media of a machine, as [`super::first`] wants them.

use super::block::Device;
use super::ext4;
use super::first::{Media, Trouble};
use super::program;
use super::state::Incarnation;
use super::watchdog;
use crate::console::{mark, note};
use crate::refused::{At, Refused};
use bramble_api::layout::BLOCK;
use bramble_api::names::path;
use rustix::mount::{MountFlags, mount};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Megabytes of the journal. mke2fs would take 128 on a 32 GB card, and zeroes it at once: that is 13 s on a card
/// that writes 10 MB/s, for a burst that a home cluster's data never makes.
const JOURNAL_MB: &str = "size=64";

/// The identity and data partitions, and the root whose tools make and check file systems.
pub struct Partitions {
    /// The identity partition.
    pub identity: Device,
    /// The data partition.
    pub data: Device,
    /// The verified root, with /dev and /proc in it.
    pub root: PathBuf,
    /// What went otherwise than it should but did not stop the boot, one sentence each.
    pub noticed: Vec<String>,
}

impl Partitions {
    /// A path of the running system, below the root's mount point.
    fn below(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    fn check(&mut self) -> Result<(), String> {
        note("checking the data file system");
        if let Some(said) = fsck(&self.root, &self.data.path())? {
            self.noticed.push(format!("the data file system was repaired: {said}"));
        }
        Ok(())
    }

    /// Grows the mounted file system to its partition (`EXT4_IOC_RESIZE_FS`). Data that stays small is no reason not
    /// to start.
    fn grow(&mut self, superblock: &ext4::Superblock) {
        // mkfs rounds down, and a last group too small for its own tables is left out: less than one group is no growth.
        const GROUP: u64 = 128 << 20;
        if self.data.size.saturating_sub(superblock.size) < GROUP {
            return;
        }
        let (from, to) = (superblock.size >> 20, self.data.size >> 20);
        let grown =
            File::open(self.below(path::DATA)).and_then(|root| grow::resize(&root, self.data.size / BLOCK));
        self.noticed.push(match grown {
            Ok(()) => format!("the data file system was grown from {from} to {to} MiB"),
            Err(error) => format!("the data file system could not be grown from {from} to {to} MiB: {error}"),
        });
    }
}

impl Media for Partitions {
    fn read_identity(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, Refused> {
        read(&self.identity.path(), offset, length)
    }

    fn write_identity(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        let path = self.identity.path();
        let file = File::options().write(true).open(&path).at("open", &path)?;
        file.write_all_at(bytes, offset).at("write to", &path)
    }

    fn flush_identity(&mut self) -> Result<(), Refused> {
        flush(&self.identity.path())
    }

    fn read_head(&mut self) -> Result<[u8; ext4::HEAD], Refused> {
        let path = self.data.path();
        let mut head = [0; ext4::HEAD];
        head.copy_from_slice(&read(&path, 0, ext4::HEAD)?);
        Ok(head)
    }

    fn write_head(&mut self, block: &[u8; BLOCK as usize]) -> Result<(), Refused> {
        let path = self.data.path();
        let file = File::options().write(true).open(&path).at("open", &path)?;
        file.write_all_at(block, 0).at("write to", &path)?;
        flush(&path)
    }

    fn make(&mut self, uuid: &Incarnation) -> Result<(), Trouble> {
        let node = self.data.path();
        let mut begun = false;
        mkfs(&self.root, &node, "bramble-data", uuid, || {
            // The marker's place is inside the work: after mkfs has taken our own mark away.
            if !begun
                && fs::File::open(&node).and_then(|f| read_exactly(&f, 0, 16)).is_ok_and(|b| b == [0; 16])
            {
                begun = true;
                mark("mkfs-begun");
            }
        })?;
        if !begun {
            mark("mkfs-begun");
        }
        Ok(())
    }

    fn mount(&mut self, superblock: &ext4::Superblock) -> Result<(), String> {
        if superblock.needs_check {
            self.check()?;
        }
        let target = self.below(path::DATA);
        // noatime: a read must not cost a write to flash. After an error nothing more is written.
        mount(self.data.path(), &target, c"ext4", MountFlags::NOATIME, c"errors=remount-ro")
            .map_err(|error| format!("it cannot be mounted: {}", io::Error::from(error)))?;
        self.grow(superblock);
        Ok(())
    }

    fn read_document(&mut self) -> Result<Option<Vec<u8>>, Refused> {
        let path = self.below(path::DOCUMENT);
        let file = match File::open(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            answer => answer.at("open", &path)?,
        };
        // From the medium, not from the cache it was written through. The kernel drops only what is clean, and that it
        // is after the flush in `write_document`.
        let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
        let length = file.metadata().at("look at", &path)?.len();
        read_exactly(&file, 0, length as usize).at("read", &path).map(Some)
    }

    fn write_document(&mut self, bytes: &[u8]) -> Result<(), Refused> {
        let state = self.below(path::STATE);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&state).at("make", &state)?;
        let (current, previous) = (self.below(path::DOCUMENT), self.below(path::DOCUMENT_PREVIOUS));
        let new = current.with_extension("json.new");
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&new)
            .at("make", &new)?;
        file.write_all(bytes).at("write to", &new)?;
        mark("document-copied");
        file.sync_all().at("flush", &new)?;
        if current.exists() {
            // A second name, so that the current one is there at every instant.
            let _ = fs::remove_file(&previous);
            fs::hard_link(&current, &previous).at("keep", &current)?;
        }
        fs::rename(&new, &current).at("put in place", &current)?;
        for directory in [&state, &self.below(path::DATA)] {
            File::open(directory).and_then(|directory| directory.sync_all()).at("flush", directory)?;
        }
        Ok(())
    }
}

/// Makes an ext4 on `node`, durably, `then` being called while it is made.
pub fn mkfs(
    root: &Path,
    node: &Path,
    label: &str,
    uuid: &Incarnation,
    then: impl FnMut(),
) -> Result<(), Trouble> {
    let _petting = watchdog::pet();
    let uuid = uuid_text(uuid);
    // Lazy tables: an 8 GB card's would take minutes. No discard: some cards hang in it. No reserved blocks: every
    // writer here is root, whom a reserve does not hold back.
    let arguments = ["-q", "-F", "-L", label, "-m", "0", "-U", &uuid, "-J", JOURNAL_MB, "-E"];
    let node_text = node.to_string_lossy();
    let arguments = [&arguments[..], &["lazy_itable_init=1,nodiscard", &node_text]].concat();
    let (code, said) = program::run(root, "mkfs.ext4", &arguments, then)?;
    if code != 0 {
        return Err(Trouble::Program { program: "mkfs.ext4", why: format!("exit code {code}: {said}") });
    }
    Ok(flush(node)?)
}

/// Checks the ext4 on `node`; gives what was repaired, in e2fsck's words.
pub fn fsck(root: &Path, node: &Path) -> Result<Option<String>, String> {
    let _petting = watchdog::pet();
    let arguments = ["-p", &node.to_string_lossy()];
    let (code, said) = program::run(root, "e2fsck", &arguments, || ()).map_err(|error| error.to_string())?;
    // Bits, from e2fsck(8): 1 corrected, 2 corrected and restart a mounted root, 4 left uncorrected, 8 and more
    // could not work.
    match code {
        0 => Ok(None),
        1..=3 => Ok(Some(said)),
        _ => Err(format!("e2fsck gave up ({code}): {said}")),
    }
}

fn read(path: &Path, offset: u64, length: usize) -> Result<Vec<u8>, Refused> {
    let file = File::open(path).at("open", path)?;
    let _ = rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed);
    read_exactly(&file, offset, length).at("read", path)
}

fn read_exactly(file: &File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

fn flush(path: &Path) -> Result<(), Refused> {
    File::open(path).and_then(|file| file.sync_all()).at("flush", path)
}

fn uuid_text(uuid: &Incarnation) -> String {
    let text = hex::encode(uuid);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

mod grow {
    #![expect(unsafe_code, reason = "ext4 is grown by ioctl")]

    use std::fs::File;
    use std::io;

    /// Grows the file system that `root` is a directory of to `blocks` blocks.
    pub fn resize(root: &File, blocks: u64) -> io::Result<()> {
        use rustix::ioctl::{Setter, opcode};
        // SAFETY: EXT4_IOC_RESIZE_FS (linux/ext4.h) reads one u64.
        unsafe {
            rustix::ioctl::ioctl(root, Setter::<{ opcode::write::<u64>(b'f', 16) }, u64>::new(blocks))?
        };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_incarnation_is_written_as_a_uuid() {
        let uuid = std::array::from_fn(|index| index as u8 * 0x11);
        assert_eq!(uuid_text(&uuid), "00112233-4455-6677-8899-aabbccddeeff");
    }
}
