//! dm-verity hash trees: SHA-256, blocks of 4096 bytes for data and hashes, format 1, no superblock.
//!
//! The layout is that of the kernel's `dm-verity` target and of `veritysetup --no-superblock`: each block of digests
//! is full (128 of them) or filled with zeros, the level nearest to the root lies first, and a digest is
//! `SHA-256(salt || block)`. See `Documentation/admin-guide/device-mapper/verity.rst` in the Linux source.

use bramble_api::layout::BLOCK;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

/// A SHA-256 digest.
pub type Hash = [u8; 32];
/// The salt of a tree.
pub type Salt = [u8; 32];

const BLOCK_BYTES: usize = BLOCK as usize;
const HASH_BYTES: usize = 32;
const PER_BLOCK: usize = BLOCK_BYTES / HASH_BYTES;

/// Bytes of the hash tree over `data` bytes, which are whole blocks.
pub fn tree_size(data: u64) -> u64 {
    levels(data / BLOCK).iter().sum::<u64>() * BLOCK
}

/// Blocks of each level, from the one over the data up to the one block under the root. None for a single block of
/// data: its digest is the root.
fn levels(mut blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    while blocks > 1 {
        blocks = blocks.div_ceil(PER_BLOCK as u64);
        levels.push(blocks);
    }
    levels
}

/// The digest of one block.
fn hash_block(salt: &Salt, block: &[u8]) -> Hash {
    let mut hash = Sha256::new_with_prefix(salt);
    hash.update(block);
    hash.finalize().into()
}

/// Digests the blocks of `data` (whole blocks) into `digests`, 32 bytes each. For a thread that has just laid out
/// these bytes and finds them in its cache.
///
/// Blocks of zeros are frequent at the end of an image and in the places of removed files; their digest is always
/// the same one.
pub fn hash_blocks(salt: &Salt, data: &[u8], digests: &mut [u8]) {
    let mut of_zeros = None;
    for (block, digest) in data.chunks_exact(BLOCK_BYTES).zip(digests.chunks_exact_mut(HASH_BYTES)) {
        let hash = if is_zero(block) {
            *of_zeros.get_or_insert_with(|| hash_block(salt, block))
        } else {
            hash_block(salt, block)
        };
        digest.copy_from_slice(&hash);
    }
}

/// Every byte is zero.
pub(crate) fn is_zero(bytes: &[u8]) -> bool {
    // By words: a byte-wise `all` costs more than the hash it saves.
    let (head, words, tail) = (bytes.chunks_exact(16), bytes, bytes.len() / 16 * 16);
    words[tail..].iter().all(|b| *b == 0) && head.into_iter().all(|word| word == [0; 16])
}

/// A hash tree, ready to be written behind its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HashTree {
    /// All levels, the top one first: what dm-verity finds at `hash_start_block`.
    pub bytes: Vec<u8>,
    /// The digest that vouches for everything.
    pub root: Hash,
}

impl HashTree {
    /// The tree over digests of all data blocks, 32 bytes each in order.
    pub fn from_digests(salt: &Salt, digests: &[u8]) -> HashTree {
        let mut built: Vec<Vec<u8>> = Vec::new();
        let mut below = digests.to_vec();
        while below.len() > HASH_BYTES {
            below.resize(below.len().next_multiple_of(BLOCK_BYTES), 0);
            let mut next = vec![0; below.len() / PER_BLOCK];
            next.par_chunks_mut(HASH_BYTES)
                .zip(below.par_chunks(BLOCK_BYTES))
                .for_each(|(digest, block)| digest.copy_from_slice(&hash_block(salt, block)));
            built.push(std::mem::replace(&mut below, next));
        }
        let mut root = [0; 32];
        if below.len() == HASH_BYTES {
            root.copy_from_slice(&below);
        }
        built.reverse();
        HashTree { bytes: built.concat(), root }
    }

    /// The tree over `data`, whole blocks, with all processors.
    pub fn over(salt: &Salt, data: &[u8]) -> HashTree {
        let mut digests = vec![0; data.len() / PER_BLOCK];
        digests
            .par_chunks_mut(PER_BLOCK * HASH_BYTES)
            .zip(data.par_chunks(PER_BLOCK * BLOCK_BYTES))
            .for_each(|(digests, data)| hash_blocks(salt, data, digests));
        HashTree::from_digests(salt, &digests)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: Salt = [0x5a; 32];

    fn data(blocks: usize) -> Vec<u8> {
        // Every third block is zeros.
        let byte = |i: usize| if i / BLOCK_BYTES % 3 == 2 { 0 } else { (i / 7 % 251) as u8 + 1 };
        (0..blocks * BLOCK_BYTES).map(byte).collect()
    }

    #[test]
    fn one_block_is_its_own_root() {
        let tree = HashTree::over(&SALT, &data(1));
        assert!(tree.bytes.is_empty());
        assert_eq!(tree.root, hash_block(&SALT, &data(1)));
    }

    #[test]
    fn sizes_are_those_of_the_levels() {
        for (blocks, hash_blocks) in
            [(1, 0), (2, 1), (128, 1), (129, 3), (128 * 128, 129), (128 * 128 + 1, 132)]
        {
            assert_eq!(tree_size(blocks * BLOCK), hash_blocks * BLOCK, "{blocks}");
        }
        for blocks in [1, 2, 128, 129, 300] {
            let tree = HashTree::over(&SALT, &data(blocks));
            assert_eq!(tree.bytes.len() as u64, tree_size((blocks * BLOCK_BYTES) as u64));
        }
    }

    /// Roots by `veritysetup format --no-superblock` (cryptsetup 2.6.1) over the same bytes and salt; `tests/veritysetup.rs` compares afresh where the program is installed.
    #[test]
    fn roots_are_those_of_veritysetup() {
        for (blocks, root) in ROOTS {
            let tree = HashTree::over(&SALT, &data(blocks));
            assert_eq!(hex::encode(tree.root), root, "{blocks} blocks");
        }
    }

    const ROOTS: [(usize, &str); 4] = [
        (2, "0fdb510306a9d2e1ed5acd0a392ab216e9e593023e58168a29a1505568cda3cb"),
        (128, "c048e410f50486e44d0a2c0f2e2851660d498218326159534c42ee6e48a764ce"),
        (129, "a5c4af4add38c0a9249782012bf9f367a3c041e63c59010a8acb4776f6192ee8"),
        (300, "9296a2da584cdc70af461aea35c46b9831c9364ecee6dd7ff917ee27085ef4e1"),
    ];

    #[test]
    fn zeros_are_seen() {
        let mut bytes = [0; 4096 + 5];
        assert!(is_zero(&bytes) && is_zero(&[]));
        for at in [0, 15, 4095, 4100] {
            bytes[at] = 1;
            assert!(!is_zero(&bytes), "{at}");
            bytes[at] = 0;
        }
    }
}
