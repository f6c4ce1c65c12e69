//! The signed manifest of a release: what a slot must hold, and who says so.
//!
//! It is a [`Signed`](crate::release::Signed) document with [`crate::layout::MANIFEST_MAGIC`]. On disk it lies in the last
//! [`crate::layout::MANIFEST_SIZE`] bytes of a root slot, zeros behind it. A slot whose manifest area is zero is empty: it
//! is never started.

use crate::document::Distribution;
use crate::layout::pi::BOOT_SIZE;
use crate::layout::{BLOCK, MANIFEST_MAGIC, MANIFEST_SIZE, uki_size};
use crate::names::{Arch, Board, Role};
use crate::release::{self, Document, Refusal, is_blocks};
use serde::{Deserialize, Serialize};

pub use crate::release::Unreadable;

/// Put before the JSON when it is signed, so that the signature can serve nothing else.
pub const SIGNATURE_DOMAIN: &[u8] = b"bramble release manifest v1\n";

/// A manifest as it lies on disk, its signature not yet checked.
pub type Signed = release::Signed<Manifest>;

impl Document for Manifest {
    const MAGIC: &'static [u8; 16] = MANIFEST_MAGIC;
    const DOMAIN: &'static [u8] = SIGNATURE_DOMAIN;
    const NAME: &'static str = "manifest";
    const FORMAT: u32 = 1;
}

/// What one release consists of. Signed as the bytes of its JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Format of this document: 1.
    pub format: u32,
    /// Cluster the release was built for.
    pub cluster: String,
    /// Monotonic number of the release; a higher one is newer.
    pub version: u64,
    /// The oldest version that may run on a machine that has committed this one; 0: any.
    pub floor: u64,
    /// Seconds since the epoch; no machine's clock starts before it.
    pub time: u64,
    /// Architecture of the programs.
    pub arch: Arch,
    /// Boards the release starts on.
    pub boards: Vec<Board>,
    /// The least [`release::AGENT`] that may install it.
    pub min_agent: u32,
    /// Bytes of the EROFS image; the verity tree follows it directly.
    pub root_size: u64,
    /// dm-verity: bytes of the hash tree.
    pub verity_size: u64,
    /// dm-verity: root hash, SHA-256, hexadecimal.
    pub verity_root: String,
    /// dm-verity: salt, hexadecimal.
    pub verity_salt: String,
    /// The unified kernel image without its padding; none in a release for Pis alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uki: Option<Image>,
    /// BOOT-A and BOOT-B up to the end of their last file; none in a release for no Pi.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<Image>,
    /// Kernel release, as `uname -r` says it.
    pub kernel: String,
    /// The Kubernetes that it carries, if it carries one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
    /// Version of the tool that built it.
    pub tool: String,
}

/// The Kubernetes of a release, and in which order machines may take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// Whose it is.
    pub distribution: Distribution,
    /// Version with `v`.
    pub version: String,
    /// Who goes first when the release changes [`Kubernetes::version`]: a kubelet must not be newer than its API server
    /// (Kubernetes' version skew policy).
    pub first_when_changed: Role,
    /// Who goes first when it does not: the canary.
    pub first_otherwise: Role,
}

/// What a boot loader starts, as the manifest vouches for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Image {
    /// SHA-256, hexadecimal.
    pub sha256: String,
    /// Bytes.
    pub size: u64,
}

impl Manifest {
    /// Whether everything in it can be, for a machine of `arch` with root slots of `slot_size` bytes.
    ///
    /// # Errors
    /// It is for another architecture, does not fit, or says what cannot be.
    pub fn check_fit(&self, arch: Arch, slot_size: u64) -> Result<(), Refusal> {
        let impossible = |why| Err(Refusal::Impossible { what: Self::NAME, why });
        if self.arch != arch {
            return Err(Refusal::Arch { release: self.arch, machine: arch });
        }
        let Manifest { root_size, verity_size, .. } = *self;
        if !is_blocks(root_size) || !is_blocks(verity_size) {
            return impossible("sizes that are not whole blocks");
        }
        let size = root_size.saturating_add(verity_size).saturating_add(MANIFEST_SIZE);
        if size > slot_size {
            return Err(Refusal::TooLarge { what: "root", size, room: slot_size });
        }
        if verity_size != verity_blocks(root_size / BLOCK) * BLOCK {
            return impossible("a verity tree that does not fit the root");
        }
        let hexadecimal = |text: &str| text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if self.verity_root.len() != 64 || !hexadecimal(&self.verity_root) {
            return impossible("a verity root that is no SHA-256");
        }
        // The kernel takes at most 256 bytes of salt.
        let salt = &self.verity_salt;
        if salt.len() > 512 || !salt.len().is_multiple_of(2) || !hexadecimal(salt) {
            return impossible("a verity salt that is not hexadecimal");
        }
        for (image, what, room) in
            [(&self.uki, "kernel image", uki_size(arch)), (&self.boot, "boot partition", BOOT_SIZE)]
        {
            let Some(image) = image else { continue };
            if image.size == 0 || image.sha256.len() != 64 || !hexadecimal(&image.sha256) {
                return impossible("an image without size or hash");
            }
            if image.size > room {
                return Err(Refusal::TooLarge { what, size: image.size, room });
            }
        }
        if self.boards.is_empty() || self.boards.iter().any(|board| board.arch() != arch) {
            return impossible("boards of another architecture");
        }
        if self.floor > self.version {
            return impossible("a floor above itself");
        }
        Ok(())
    }
}

/// Blocks of a dm-verity tree over `data` blocks: 128 hashes of 32 bytes fit a block, each level is rounded up, and
/// the top level is one block.
pub fn verity_blocks(data: u64) -> u64 {
    let mut level = data;
    let mut blocks = 0;
    while level > 1 {
        level = level.div_ceil(BLOCK / 32);
        blocks += level;
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verity_trees_are_as_long_as_veritysetup_makes_them() {
        // One level for 128 blocks, two for 1024 (8 + 1), three for 131072 (1024 + 8 + 1).
        assert_eq!([128, 1024, 131_072].map(verity_blocks), [1, 9, 1033]);
    }
}
