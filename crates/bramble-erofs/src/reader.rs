//! Reading images, ours and others', without trusting a byte of them.

use std::borrow::Cow;
use std::collections::HashSet;

use crate::format::{
    self, BLOCK, BLOCK_BITS, BLOCK_BYTES, COMPAT_CHECKSUM, DIRENT_BYTES, FileType, LAYOUT_INLINE,
    LAYOUT_PLAIN, MAGIC, RawInode, SLOT_BYTES, SUPER_BYTES, SUPER_OFFSET,
};
use crate::tree::lossy;

/// Longest path that [`Image::walk`] follows, as Linux' `PATH_MAX`.
const PATH_MAX: usize = 4096;

/// An image could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It is no EROFS image, or a damaged one.
    #[error("not an EROFS image: {reason}")]
    NotErofs {
        /// What is wrong.
        reason: &'static str,
    },
    /// It is an EROFS image with something that this reader does not know.
    #[error("an EROFS image with {what}, which cannot be read")]
    Unsupported {
        /// The unknown.
        what: &'static str,
    },
    /// An inode or what it leads to is damaged.
    #[error("inode {nid}: {reason}")]
    Corrupt {
        /// Its number.
        nid: u64,
        /// What is wrong.
        reason: &'static str,
    },
    /// A path does not exist.
    #[error("{path}: not found")]
    NotFound {
        /// The path, lossily decoded.
        path: String,
    },
}

/// An opened image, in memory or mapped.
#[derive(Clone, Debug)]
pub struct Image<'a> {
    bytes: &'a [u8],
    /// Where inode number 0 would lie.
    metadata: u64,
    root: u64,
    build_time: u64,
    uuid: [u8; 16],
    label: Vec<u8>,
    inodes: u64,
}

/// What is known of a file, directory, link or device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inode {
    /// Its number.
    pub nid: u64,
    /// What it is.
    pub file_type: FileType,
    /// Permission bits.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Modification time, seconds since 1970.
    pub mtime: u64,
    /// Number of names.
    pub nlink: u32,
    /// Bytes of content, of a directory's blocks, or of a link's target.
    pub size: u64,
    layout: u16,
    /// First block, or device number.
    union: u32,
    /// First byte behind inode and attributes.
    end: u64,
}

impl Inode {
    /// Major and minor number of a device.
    pub fn device(&self) -> Option<(u32, u32)> {
        let is_device = matches!(self.file_type, FileType::CharDevice | FileType::BlockDevice);
        is_device.then(|| format::decode_device(self.union))
    }

    /// First block of content that lies in blocks of its own.
    pub fn start_block(&self) -> Option<u32> {
        let in_blocks = matches!(self.file_type, FileType::File | FileType::Directory | FileType::Symlink);
        (in_blocks && self.size > 0 && (self.layout == LAYOUT_PLAIN || self.size >= BLOCK))
            .then_some(self.union)
    }
}

/// A line of a directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirEntry<'a> {
    /// The name, never empty, without `/` and zero.
    pub name: &'a [u8],
    /// Inode number.
    pub nid: u64,
    /// What the directory says that it is.
    pub file_type: FileType,
}

impl<'a> Image<'a> {
    /// Looks at the superblock and its checksum.
    pub fn open(bytes: &'a [u8]) -> Result<Self, ReadError> {
        let not = |reason| ReadError::NotErofs { reason };
        let block = bytes.get(..BLOCK_BYTES).ok_or(not("shorter than a block"))?;
        let sb = &block[SUPER_OFFSET..SUPER_OFFSET + SUPER_BYTES];
        if u32_at(sb, 0) != MAGIC {
            return Err(not("no magic number"));
        }
        if sb[12] != BLOCK_BITS {
            return Err(ReadError::Unsupported { what: "blocks of another size than 4 KiB" });
        }
        if u32_at(sb, 8) & COMPAT_CHECKSUM != 0 {
            let mut copy = block[SUPER_OFFSET..].to_vec();
            copy[4..8].fill(0);
            if format::crc32c(&copy) != u32_at(sb, 4) {
                return Err(not("wrong checksum of the superblock"));
            }
        }
        // Each bit is a change of format that a reader must know.
        if u32_at(sb, 80) != 0 || sb[90] != 0 {
            return Err(ReadError::Unsupported { what: "features of compressed or newer images" });
        }
        let blocks = u64::from(u32_at(sb, 36));
        let bytes = usize::try_from(blocks * BLOCK).ok().and_then(|length| bytes.get(..length));
        let bytes = bytes.ok_or(not("shorter than its superblock says"))?;
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&sb[48..64]);
        Ok(Self {
            bytes,
            metadata: u64::from(u32_at(sb, 40)) * BLOCK,
            root: u16_at(sb, 14).into(),
            build_time: u64_at(sb, 24),
            uuid,
            label: sb[64..80].split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
            inodes: u64_at(sb, 16),
        })
    }

    /// Bytes of the image; what follows in the slice it was opened from is not looked at.
    pub fn size(&self) -> u64 {
        self.bytes.len() as u64
    }

    /// Volume UUID.
    pub fn uuid(&self) -> [u8; 16] {
        self.uuid
    }

    /// Volume label.
    pub fn label(&self) -> &[u8] {
        &self.label
    }

    /// Number of inodes, as the superblock says.
    pub fn inodes(&self) -> u64 {
        self.inodes
    }

    /// The root directory.
    pub fn root(&self) -> Result<Inode, ReadError> {
        let root = self.inode(self.root)?;
        match root.file_type {
            FileType::Directory => Ok(root),
            _ => Err(ReadError::Corrupt { nid: self.root, reason: "the root is no directory" }),
        }
    }

    /// The inode of this number.
    pub fn inode(&self, nid: u64) -> Result<Inode, ReadError> {
        let corrupt = |reason| ReadError::Corrupt { nid, reason };
        let outside = || corrupt("outside the image");
        let offset = nid.checked_mul(SLOT_BYTES as u64).and_then(|offset| offset.checked_add(self.metadata));
        let offset = offset.ok_or_else(outside)?;
        let head = self.slice(offset, 2).ok_or_else(outside)?;
        let format = u16_at(head, 0);
        let (extended, layout) = (format & 1 == 1, format >> 1);
        if !matches!(layout, LAYOUT_PLAIN | LAYOUT_INLINE) {
            return Err(corrupt("compressed, in chunks, or unknown"));
        }
        let length = RawInode::bytes(extended);
        let raw = self.slice(offset, length as u64).ok_or_else(outside)?;
        let attributes = match u64::from(u16_at(raw, 2)) {
            0 => 0,
            count => 12 + 4 * (count - 1),
        };
        let mode = u16_at(raw, 4);
        let file_type = FileType::from_mode(mode).ok_or(corrupt("of no known type"))?;
        let (size, uid, gid, mtime, nlink) = if extended {
            (u64_at(raw, 8), u32_at(raw, 24), u32_at(raw, 28), u64_at(raw, 32), u32_at(raw, 44))
        } else {
            let [nlink, uid, gid] = [6, 24, 26].map(|at| u32::from(u16_at(raw, at)));
            (u64::from(u32_at(raw, 8)), uid, gid, self.build_time, nlink)
        };
        let end = offset + length as u64 + attributes;
        let mode = mode & 0o7777;
        Ok(Inode { nid, file_type, mode, uid, gid, mtime, nlink, size, layout, union: u32_at(raw, 16), end })
    }

    /// Content of a file, target of a link, blocks of a directory; empty for devices.
    pub fn data(&self, inode: &Inode) -> Result<Cow<'a, [u8]>, ReadError> {
        let corrupt = |reason| ReadError::Corrupt { nid: inode.nid, reason };
        if matches!(
            inode.file_type,
            FileType::CharDevice | FileType::BlockDevice | FileType::Fifo | FileType::Socket
        ) {
            return Ok(Cow::Borrowed(&[]));
        }
        let inline = if inode.layout == LAYOUT_INLINE { inode.size % BLOCK } else { 0 };
        let blocks = match inode.size - inline {
            0 => &[][..],
            length => {
                let start = u64::from(inode.union) * BLOCK;
                self.slice(start, length).ok_or(corrupt("its data lie outside the image"))?
            }
        };
        let tail = self.slice(inode.end, inline).ok_or(corrupt("its data lie outside the image"))?;
        if inline > 0 && inode.end / BLOCK != (inode.end + inline - 1) / BLOCK {
            return Err(corrupt("its inline data cross a block"));
        }
        Ok(match (blocks, tail) {
            (blocks, []) => Cow::Borrowed(blocks),
            ([], tail) => Cow::Borrowed(tail),
            (blocks, tail) => Cow::Owned([blocks, tail].concat()),
        })
    }

    /// Shows what is in a directory, `.` and `..` among it, in ascending order.
    pub fn read_dir(&self, inode: &Inode, mut show: impl FnMut(DirEntry<'_>)) -> Result<(), ReadError> {
        let corrupt = |reason| ReadError::Corrupt { nid: inode.nid, reason };
        if inode.file_type != FileType::Directory {
            return Err(corrupt("not a directory"));
        }
        let data = self.data(inode)?;
        let mut previous: &[u8] = &[];
        for block in data.chunks(BLOCK_BYTES) {
            let names_at = if block.len() < DIRENT_BYTES { 0 } else { usize::from(u16_at(block, 8)) };
            if names_at == 0 || !names_at.is_multiple_of(DIRENT_BYTES) || names_at > block.len() {
                return Err(corrupt("a directory block without entries"));
            }
            let entries = block[..names_at].chunks_exact(DIRENT_BYTES);
            let ends = entries.clone().skip(1).map(|entry| Some(usize::from(u16_at(entry, 8)))).chain([None]);
            for (entry, end) in entries.zip(ends) {
                let name = block.get(usize::from(u16_at(entry, 8))..end.unwrap_or(block.len()));
                let mut name = name.ok_or(corrupt("names out of order"))?;
                if end.is_none() {
                    // The last name ends at a zero or with the block.
                    name = name.split(|byte| *byte == 0).next().unwrap_or_default();
                }
                let file_type =
                    FileType::from_dirent(entry[10]).ok_or(corrupt("an entry of no known type"))?;
                if name.is_empty()
                    || name.len() > format::NAME_MAX
                    || name.contains(&0)
                    || name.contains(&b'/')
                {
                    return Err(corrupt("an impossible name"));
                }
                if name <= previous {
                    return Err(corrupt("names out of order"));
                }
                previous = name;
                show(DirEntry { name, nid: u64_at(entry, 0), file_type });
            }
        }
        Ok(())
    }

    /// The inode behind a path from the root, names separated by `/`. Links are not followed.
    pub fn find(&self, path: &[u8]) -> Result<Inode, ReadError> {
        let missing = || ReadError::NotFound { path: lossy(path) };
        let mut inode = self.root()?;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if inode.file_type != FileType::Directory {
                return Err(missing());
            }
            let mut found = None;
            self.read_dir(&inode, |entry| {
                if entry.name == name {
                    found = Some(entry.nid);
                }
            })?;
            inode = self.inode(found.ok_or_else(missing)?)?;
        }
        Ok(inode)
    }

    /// Shows every path and its inode, the root (whose path is empty) first, a directory before what is in it.
    ///
    /// A directory that is reached twice, and directories that together are longer than the image, are errors, so the
    /// work is bounded by the image's length.
    pub fn walk(&self, mut show: impl FnMut(&[u8], &Inode)) -> Result<(), ReadError> {
        let mut rest = self.size();
        let mut seen = HashSet::new();
        let mut stack = vec![(Vec::new(), self.root()?)];
        while let Some((path, inode)) = stack.pop() {
            show(&path, &inode);
            if inode.file_type != FileType::Directory {
                continue;
            }
            let corrupt = |reason| ReadError::Corrupt { nid: inode.nid, reason };
            if !seen.insert(inode.nid) {
                return Err(corrupt("a directory with two parents"));
            }
            rest = rest.checked_sub(inode.size).ok_or(corrupt("directories longer than the image"))?;
            let mut children = Vec::new();
            self.read_dir(&inode, |entry| {
                if !matches!(entry.name, b"." | b"..") {
                    let mut child = path.clone();
                    if !child.is_empty() {
                        child.push(b'/');
                    }
                    child.extend_from_slice(entry.name);
                    children.push((child, entry.nid, entry.file_type));
                }
            })?;
            for (child, nid, file_type) in children.into_iter().rev() {
                let node = self.inode(nid)?;
                if node.file_type != file_type {
                    return Err(ReadError::Corrupt {
                        nid,
                        reason: "of another type than its directory says",
                    });
                }
                if child.len() > PATH_MAX {
                    return Err(ReadError::Corrupt { nid, reason: "its path is too long" });
                }
                stack.push((child, node));
            }
        }
        Ok(())
    }

    fn slice(&self, offset: u64, length: u64) -> Option<&'a [u8]> {
        let end = usize::try_from(offset.checked_add(length)?).ok()?;
        self.bytes.get(usize::try_from(offset).ok()?..end)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
