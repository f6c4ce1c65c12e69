//! The words of the on-disk format, from `fs/erofs/erofs_fs.h`. All integers are little-endian.

/// Bytes in a block, of data and of directories.
pub const BLOCK: u64 = 4096;
/// [`BLOCK`] for indexing.
pub(crate) const BLOCK_BYTES: usize = 4096;
/// `blkszbits`: binary logarithm of [`BLOCK`].
pub(crate) const BLOCK_BITS: u8 = 12;
/// Where the superblock lies in block 0.
pub(crate) const SUPER_OFFSET: usize = 1024;
/// Bytes of the superblock.
pub(crate) const SUPER_BYTES: usize = 128;
pub(crate) const MAGIC: u32 = 0xE0F5_E1E2;
/// The superblock carries a CRC32C.
pub(crate) const COMPAT_CHECKSUM: u32 = 1;
/// Inode times are modification times.
pub(crate) const COMPAT_MTIME: u32 = 2;
/// An inode number counts slots of this many bytes from `meta_blkaddr`.
pub(crate) const SLOT_BYTES: usize = 32;
/// Inode slots in a block.
pub(crate) const SLOTS_IN_BLOCK: u64 = BLOCK / SLOT_BYTES as u64;
/// Bytes of a directory entry.
pub(crate) const DIRENT_BYTES: usize = 12;
/// Longest name (`EROFS_NAME_LEN`).
pub(crate) const NAME_MAX: usize = 255;
/// Longest target of a symbolic link: Linux' `PATH_MAX` less the final zero.
pub(crate) const SYMLINK_MAX: usize = 4095;

/// `EROFS_INODE_FLAT_PLAIN`: data in consecutive blocks.
pub(crate) const LAYOUT_PLAIN: u16 = 0;
/// `EROFS_INODE_FLAT_INLINE`: the tail of the data follows the inode.
pub(crate) const LAYOUT_INLINE: u16 = 2;

const S_IFIFO: u16 = 0o010_000;
const S_IFCHR: u16 = 0o020_000;
const S_IFDIR: u16 = 0o040_000;
const S_IFBLK: u16 = 0o060_000;
const S_IFREG: u16 = 0o100_000;
const S_IFLNK: u16 = 0o120_000;
const S_IFSOCK: u16 = 0o140_000;
const S_IFMT: u16 = 0o170_000;

/// What an inode is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A character device.
    CharDevice,
    /// A block device.
    BlockDevice,
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
    /// A symbolic link.
    Symlink,
}

impl FileType {
    /// The `file_type` of a directory entry (`FT_*` in the kernel's `fs_types.h`).
    pub(crate) fn dirent(self) -> u8 {
        match self {
            Self::File => 1,
            Self::Directory => 2,
            Self::CharDevice => 3,
            Self::BlockDevice => 4,
            Self::Fifo => 5,
            Self::Socket => 6,
            Self::Symlink => 7,
        }
    }

    pub(crate) fn from_dirent(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::File,
            2 => Self::Directory,
            3 => Self::CharDevice,
            4 => Self::BlockDevice,
            5 => Self::Fifo,
            6 => Self::Socket,
            7 => Self::Symlink,
            _ => return None,
        })
    }

    /// The type bits of `st_mode`.
    pub(crate) fn mode(self) -> u16 {
        match self {
            Self::File => S_IFREG,
            Self::Directory => S_IFDIR,
            Self::CharDevice => S_IFCHR,
            Self::BlockDevice => S_IFBLK,
            Self::Fifo => S_IFIFO,
            Self::Socket => S_IFSOCK,
            Self::Symlink => S_IFLNK,
        }
    }

    pub(crate) fn from_mode(mode: u16) -> Option<Self> {
        Some(match mode & S_IFMT {
            S_IFREG => Self::File,
            S_IFDIR => Self::Directory,
            S_IFCHR => Self::CharDevice,
            S_IFBLK => Self::BlockDevice,
            S_IFIFO => Self::Fifo,
            S_IFSOCK => Self::Socket,
            S_IFLNK => Self::Symlink,
            _ => return None,
        })
    }
}

/// The fields of a superblock that vary.
pub(crate) struct SuperBlock {
    pub root_nid: u16,
    pub inodes: u64,
    pub build_time: u64,
    pub blocks: u32,
    pub uuid: [u8; 16],
    pub label: [u8; 16],
}

impl SuperBlock {
    /// Block 0, with its checksum.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut block = vec![0; BLOCK_BYTES];
        let sb = &mut block[SUPER_OFFSET..SUPER_OFFSET + SUPER_BYTES];
        sb[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        sb[8..12].copy_from_slice(&(COMPAT_CHECKSUM | COMPAT_MTIME).to_le_bytes());
        sb[12] = BLOCK_BITS;
        sb[14..16].copy_from_slice(&self.root_nid.to_le_bytes());
        sb[16..24].copy_from_slice(&self.inodes.to_le_bytes());
        sb[24..32].copy_from_slice(&self.build_time.to_le_bytes());
        sb[36..40].copy_from_slice(&self.blocks.to_le_bytes());
        // meta_blkaddr (40..44) stays 0: inode numbers count from the start of the image, so that an inode can lie in any block.
        sb[48..64].copy_from_slice(&self.uuid);
        sb[64..80].copy_from_slice(&self.label);
        let sum = crc32c(&block[SUPER_OFFSET..]);
        block[SUPER_OFFSET + 4..SUPER_OFFSET + 8].copy_from_slice(&sum.to_le_bytes());
        block
    }
}

/// An inode about to be written.
pub(crate) struct RawInode {
    pub extended: bool,
    pub layout: u16,
    pub mode: u16,
    pub nlink: u32,
    pub size: u64,
    /// First block, or the device number of a device.
    pub union: u32,
    pub ino: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: u64,
}

impl RawInode {
    /// Bytes of the inode without inline data.
    pub(crate) fn bytes(extended: bool) -> usize {
        if extended { 64 } else { 32 }
    }

    /// Writes into `out`, which is as long as [`Self::bytes`] says. A compact inode's fields must fit, see `Node::extended`.
    pub(crate) fn encode(&self, out: &mut [u8]) {
        let format = u16::from(self.extended) | self.layout << 1;
        out[0..2].copy_from_slice(&format.to_le_bytes());
        out[4..6].copy_from_slice(&self.mode.to_le_bytes());
        out[16..20].copy_from_slice(&self.union.to_le_bytes());
        out[20..24].copy_from_slice(&self.ino.to_le_bytes());
        if self.extended {
            out[8..16].copy_from_slice(&self.size.to_le_bytes());
            out[24..28].copy_from_slice(&self.uid.to_le_bytes());
            out[28..32].copy_from_slice(&self.gid.to_le_bytes());
            out[32..40].copy_from_slice(&self.mtime.to_le_bytes());
            out[44..48].copy_from_slice(&self.nlink.to_le_bytes());
        } else {
            out[6..8].copy_from_slice(&(self.nlink as u16).to_le_bytes());
            out[8..12].copy_from_slice(&(self.size as u32).to_le_bytes());
            out[24..26].copy_from_slice(&(self.uid as u16).to_le_bytes());
            out[26..28].copy_from_slice(&(self.gid as u16).to_le_bytes());
        }
    }
}

/// A device number as the kernel's `new_encode_dev` packs it.
pub(crate) fn encode_device(major: u32, minor: u32) -> u32 {
    (minor & 0xff) | (major << 8) | ((minor & !0xff) << 12)
}

/// The reverse of [`encode_device`]: (major, minor).
pub(crate) fn decode_device(device: u32) -> (u32, u32) {
    ((device & 0xfff00) >> 8, (device & 0xff) | ((device >> 12) & 0xfff00))
}

/// CRC32C as the kernel's `crc32c(~0, ...)` gives it: Castagnoli, reflected, *not* inverted at the end.
/// Bit by bit, since it only ever runs over one superblock.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0u32, |mut crc, byte| {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        }
        crc
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc32c_is_castagnoli() {
        // RFC 3720, appendix B.4: 32 bytes of zeros; the published value is inverted.
        assert_eq!(!crc32c(&[0; 32]), 0x8A91_36AA);
        assert_eq!(!crc32c(b"123456789"), 0xE306_9283);
    }

    #[test]
    fn device_numbers_survive() {
        for (major, minor) in [(1, 3), (8, 0), (259, 1), (4095, 0xfffff), (0, 256)] {
            assert_eq!(decode_device(encode_device(major, minor)), (major, minor));
        }
    }
}
