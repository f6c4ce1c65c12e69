//! Reads as much of an ext4 superblock as pid 1 needs to decide. Formats: the kernel's
//! Documentation/filesystems/ext4/super.rst; all little-endian, 1024 bytes from byte 1024 of the partition.

use bramble_api::layout::DATA_MARK;

/// Bytes from the start of the partition that are looked at.
pub const HEAD: usize = 4096;

/// What the first [`HEAD`] bytes of the data partition say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// All zero.
    Empty,
    /// Our mark and nothing else.
    Marked,
    /// An ext4 superblock whose checksum fits.
    Ext4(Superblock),
    /// An ext4 superblock whose checksum does not fit.
    Torn {
        /// UUID of the file system.
        uuid: [u8; 16],
    },
    /// Something else.
    Foreign,
}

/// What matters of a superblock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// UUID of the file system.
    pub uuid: [u8; 16],
    /// Bytes that the file system spans.
    pub size: u64,
    /// Whether `e2fsck` should see it before it is mounted: not cleanly unmounted, or errors were met.
    pub needs_check: bool,
}

/// `s_feature_incompat`: the journal holds what is not yet in place.
const INCOMPAT_RECOVER: u32 = 0x4;
/// `s_feature_incompat`: block numbers have 64 bits.
const INCOMPAT_64BIT: u32 = 0x80;
/// `s_feature_ro_compat`: metadata carry checksums.
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;
/// `s_state`: cleanly unmounted.
const STATE_VALID: u16 = 1;
/// `s_state`: errors were met.
const STATE_ERROR: u16 = 2;

/// Reads the head of the data partition.
pub fn parse(head: &[u8; HEAD]) -> Head {
    if head.iter().all(|byte| *byte == 0) {
        return Head::Empty;
    }
    let (mark, rest) = head.split_at(DATA_MARK.len());
    if mark == DATA_MARK && rest.iter().all(|byte| *byte == 0) {
        return Head::Marked;
    }
    let block = &head[1024..2048];
    let half = |at: usize| u16::from_le_bytes([block[at], block[at + 1]]);
    let word = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    if half(0x38) != 0xEF53 {
        return Head::Foreign;
    }
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&block[0x68..0x78]);
    // Made by our mkfs, so it has checksums; without them it may be anybody's, and the kernel is the judge.
    if word(0x64) & RO_COMPAT_METADATA_CSUM != 0 && crc32c(&block[..0x3FC]) != word(0x3FC) {
        return Head::Torn { uuid };
    }
    let high = if word(0x60) & INCOMPAT_64BIT != 0 { u64::from(word(0x150)) << 32 } else { 0 };
    let Some(block_size) = 1024u64.checked_shl(word(0x18)).filter(|size| *size <= 65536) else {
        return Head::Foreign;
    };
    let state = half(0x3A);
    Head::Ext4(Superblock {
        uuid,
        size: (high | u64::from(word(0x4))).saturating_mul(block_size),
        needs_check: word(0x60) & INCOMPAT_RECOVER != 0
            || state & STATE_VALID == 0
            || state & STATE_ERROR != 0,
    })
}

/// CRC-32C (Castagnoli), begun with all ones and not inverted at the end, as ext4 stores it.
fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82F6_3B78 & 0u32.wrapping_sub(crc & 1)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// The head of a file system as the real `mkfs.ext4` makes it.
    fn made() -> [u8; HEAD] {
        let directory = std::env::temp_dir().join(format!(
            "bramble-ext4-{}-{:?}",
            std::process::id(),
            std::thread::current().id()
        ));
        std::fs::create_dir_all(&directory).unwrap();
        let image = directory.join("data");
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let made = Command::new("mkfs.ext4")
            .args(["-q", "-F", "-b", "4096", "-U", "00112233-4455-6677-8899-aabbccddeeff"])
            .arg(&image)
            .env("PATH", "/usr/sbin:/sbin:/usr/bin:/bin")
            .status()
            .expect("mkfs.ext4 is installed (e2fsprogs)");
        assert!(made.success());
        let bytes = std::fs::read(&image).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        bytes[..HEAD].try_into().unwrap()
    }

    #[test]
    fn a_real_superblock_is_read() {
        let Head::Ext4(found) = parse(&made()) else { panic!("no ext4") };
        assert_eq!(hex::encode(found.uuid), "00112233445566778899aabbccddeeff");
        assert_eq!(found.size, 64 << 20);
        assert!(!found.needs_check);
    }

    #[test]
    fn a_half_written_superblock_is_torn() {
        let mut head = made();
        head[1024 + 512..2048].fill(0);
        assert!(matches!(parse(&head), Head::Torn { uuid } if uuid[1] == 0x11));
        // The other half alone has no magic.
        let mut head = made();
        head[1024..1024 + 512].fill(0);
        assert_eq!(parse(&head), Head::Foreign);
    }

    #[test]
    fn marks_zeros_and_strangers_are_told_apart() {
        let mut head = [0; HEAD];
        assert_eq!(parse(&head), Head::Empty);
        head[..DATA_MARK.len()].copy_from_slice(DATA_MARK);
        assert_eq!(parse(&head), Head::Marked);
        head[4000] = 1;
        assert_eq!(parse(&head), Head::Foreign);
        assert_eq!(parse(&[0xFF; HEAD]), Head::Foreign);
    }
}
