//! A dm-verity tree checked in one pass over data and tree, as the kernel will check it block by block.
//!
//! Format: SHA-256, blocks of 4096 bytes for data and hashes, format 1, no superblock: levels from the one under the
//! root down to the one over the data, each block full of digests (128) or filled with zeros, a digest is
//! `SHA-256(salt || block)`. See the kernel's `Documentation/admin-guide/device-mapper/verity.rst`.

use bramble_api::layout::BLOCK;
use sha2::{Digest, Sha256};

const BLOCK_BYTES: usize = BLOCK as usize;
const HASH_BYTES: usize = 32;
const PER_BLOCK: u64 = BLOCK / HASH_BYTES as u64;

/// What is not as the root hash says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong<E> {
    /// A block.
    #[error("block {block} of the {part} does not fit the root hash")]
    Block {
        /// `root` or `tree`.
        part: &'static str,
        /// Its number there.
        block: u64,
    },
    /// Sizes that no tree has.
    #[error("the sizes of root and tree do not fit each other")]
    Sizes,
    /// The medium.
    #[error(transparent)]
    Read(E),
}

/// What is to be checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// Bytes of data.
    pub data: u64,
    /// Bytes of the tree, which follows the data.
    pub tree: u64,
    /// Root hash.
    pub root: [u8; 32],
    /// Salt.
    pub salt: Vec<u8>,
}

/// Blocks of each level, from the one over the data up to the one block under the root.
fn levels(mut blocks: u64) -> Vec<u64> {
    let mut levels = Vec::new();
    while blocks > 1 {
        blocks = blocks.div_ceil(PER_BLOCK);
        levels.push(blocks);
    }
    levels
}

impl Tree {
    /// Reads everything with `read(offset, out)` and checks it; `step` bytes of data at a time.
    ///
    /// # Errors
    /// The first block that is wrong.
    pub fn check<E>(
        &self,
        step: usize,
        mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<(), Wrong<E>> {
        let blocks = self.data / BLOCK;
        let levels = levels(blocks);
        if blocks == 0 || !self.data.is_multiple_of(BLOCK) || levels.iter().sum::<u64>() * BLOCK > self.tree {
            return Err(Wrong::Sizes);
        }
        // From the top down: the digests of a level lie in the one before it, so a pass needs one block of each.
        let mut above: Option<u64> = None;
        let mut first = 0;
        for count in levels.iter().rev() {
            let place = |block: u64| self.data + block * BLOCK;
            let mut bytes = [0; BLOCK_BYTES];
            let mut digests = [0; BLOCK_BYTES];
            for block in 0..*count {
                read(place(first + block), &mut bytes).map_err(Wrong::Read)?;
                let expected = self.expected(above.map(place), block, &mut digests, &mut read)?;
                if self.digest(&bytes) != expected {
                    return Err(Wrong::Block { part: "tree", block: first + block });
                }
            }
            above = Some(first);
            first += count;
        }
        let mut digests = [0; BLOCK_BYTES];
        let mut bytes = vec![0; step.max(BLOCK_BYTES) / BLOCK_BYTES * BLOCK_BYTES];
        let mut block = 0;
        while block < blocks {
            let length = ((blocks - block) * BLOCK).min(bytes.len() as u64) as usize;
            read(block * BLOCK, &mut bytes[..length]).map_err(Wrong::Read)?;
            for data in bytes[..length].chunks_exact(BLOCK_BYTES) {
                let parent = above.map(|first| self.data + first * BLOCK);
                if self.digest(data) != self.expected(parent, block, &mut digests, &mut read)? {
                    return Err(Wrong::Block { part: "root", block });
                }
                block += 1;
            }
        }
        Ok(())
    }

    /// The digest that block number `block` of a level must have; `level` is where the one above it begins.
    fn expected<E>(
        &self,
        level: Option<u64>,
        block: u64,
        digests: &mut [u8; BLOCK_BYTES],
        read: &mut impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    ) -> Result<[u8; HASH_BYTES], Wrong<E>> {
        let Some(level) = level else { return Ok(self.root) };
        if block.is_multiple_of(PER_BLOCK) {
            read(level + block / PER_BLOCK * BLOCK, digests).map_err(Wrong::Read)?;
        }
        let at = (block % PER_BLOCK) as usize * HASH_BYTES;
        let mut digest = [0; HASH_BYTES];
        digest.copy_from_slice(&digests[at..at + HASH_BYTES]);
        Ok(digest)
    }

    fn digest(&self, block: &[u8]) -> [u8; HASH_BYTES] {
        digest(&self.salt, block)
    }
}

/// Makes a tree while its data goes by, with one block of memory for each level.
pub struct Builder {
    salt: Vec<u8>,
    levels: Vec<Level>,
    /// Blocks of data that there must be, and have been.
    blocks: u64,
    seen: u64,
}

/// The block of a level that is being filled.
struct Level {
    /// Where the level begins in the tree, in blocks, and which of its blocks this is.
    first: u64,
    block: u64,
    bytes: Vec<u8>,
}

impl Builder {
    /// For `data` bytes, which are whole blocks.
    pub fn new(salt: &[u8], data: u64) -> Builder {
        let counts = levels(data / BLOCK);
        let mut first = counts.iter().sum::<u64>();
        let levels = counts.iter().map(|count| {
            // The level over the data lies last.
            first -= count;
            Level { first, block: 0, bytes: Vec::with_capacity(BLOCK_BYTES) }
        });
        Builder { salt: salt.to_vec(), levels: levels.collect(), blocks: data / BLOCK, seen: 0 }
    }

    /// Takes the next blocks of the data; gives finished blocks of the tree to `emit`, with their byte in the tree.
    ///
    /// # Errors
    /// Those of `emit`.
    pub fn push<E>(
        &mut self,
        data: &[u8],
        mut emit: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        for block in data.chunks(BLOCK_BYTES) {
            self.seen += 1;
            let digest = digest(&self.salt, block);
            self.add(0, digest, &mut emit)?;
        }
        Ok(())
    }

    fn add<E>(
        &mut self,
        number: usize,
        digest: [u8; HASH_BYTES],
        emit: &mut impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let Some(level) = self.levels.get_mut(number) else { return Ok(()) };
        level.bytes.extend(digest);
        if level.bytes.len() < BLOCK_BYTES || number + 1 == self.levels.len() {
            return Ok(());
        }
        self.close(number, emit)
    }

    fn close<E>(
        &mut self,
        number: usize,
        emit: &mut impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let level = &mut self.levels[number];
        level.bytes.resize(BLOCK_BYTES, 0);
        emit((level.first + level.block) * BLOCK, &level.bytes)?;
        let above = digest(&self.salt, &level.bytes);
        level.block += 1;
        level.bytes.clear();
        self.add(number + 1, above, emit)
    }

    /// Gives the rest of the tree to `emit`, and the root hash; `None` when there was not as much data as there must be.
    ///
    /// # Errors
    /// Those of `emit`.
    pub fn finish<E>(
        mut self,
        mut emit: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<Option<[u8; HASH_BYTES]>, E> {
        if self.seen != self.blocks || self.levels.is_empty() {
            return Ok(None);
        }
        for number in 0..self.levels.len() - 1 {
            if !self.levels[number].bytes.is_empty() {
                self.close(number, &mut emit)?;
            }
        }
        let salt = std::mem::take(&mut self.salt);
        let Some(top) = self.levels.last_mut() else { return Ok(None) };
        top.bytes.resize(BLOCK_BYTES, 0);
        emit(top.first * BLOCK, &top.bytes)?;
        Ok(Some(digest(&salt, &top.bytes)))
    }
}

fn digest(salt: &[u8], block: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::new().chain_update(salt).chain_update(block).finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All at once, another way than the builder's.
    fn build(data: &[u8]) -> (Vec<u8>, [u8; 32]) {
        let digest = |block: &[u8]| digest(b"salt", block);
        let mut built: Vec<Vec<u8>> = Vec::new();
        let mut level: Vec<u8> = data.chunks(BLOCK_BYTES).flat_map(digest).collect();
        while level.len() > HASH_BYTES {
            level.resize(level.len().next_multiple_of(BLOCK_BYTES), 0);
            let next = level.chunks(BLOCK_BYTES).flat_map(digest).collect();
            built.push(std::mem::replace(&mut level, next));
        }
        built.reverse();
        (built.concat(), level.try_into().unwrap())
    }

    fn slot(blocks: usize) -> (Vec<u8>, Tree) {
        let data: Vec<u8> = (0..blocks * BLOCK_BYTES).map(|at| (at / 97) as u8).collect();
        let (tree, root) = build(&data);
        let size = (data.len() as u64, tree.len() as u64);
        ([data, tree].concat(), Tree { data: size.0, tree: size.1, root, salt: b"salt".to_vec() })
    }

    fn check(bytes: &[u8], tree: &Tree) -> Result<(), Wrong<()>> {
        tree.check(3 * BLOCK_BYTES, |offset, out| {
            let at = offset as usize;
            out.copy_from_slice(bytes.get(at..at + out.len()).ok_or(())?);
            Ok(())
        })
    }

    #[test]
    fn every_block_of_data_and_tree_counts() {
        for blocks in [2, 127, 128, 129, 300] {
            let (bytes, tree) = slot(blocks);
            assert_eq!(check(&bytes, &tree), Ok(()), "{blocks}");
            for block in 0..bytes.len() / BLOCK_BYTES {
                let mut bad = bytes.clone();
                bad[block * BLOCK_BYTES + 5] ^= 1;
                assert!(matches!(check(&bad, &tree), Err(Wrong::Block { .. })), "{blocks} {block}");
            }
        }
    }

    #[test]
    fn a_tree_is_made_while_data_goes_by() {
        for blocks in [2, 127, 128, 129, 300, 128 * 128, 128 * 128 + 1] {
            let (bytes, tree) = slot(blocks);
            let (data, wanted) = bytes.split_at(tree.data as usize);
            let mut made = vec![0; wanted.len()];
            let mut emit = |at: u64, block: &[u8]| -> Result<(), ()> {
                made[at as usize..at as usize + block.len()].copy_from_slice(block);
                Ok(())
            };
            let mut builder = Builder::new(b"salt", tree.data);
            data.chunks(3 * BLOCK_BYTES).for_each(|chunk| builder.push(chunk, &mut emit).unwrap());
            assert_eq!(builder.finish(&mut emit), Ok(Some(tree.root)), "{blocks}");
            assert!(made == wanted, "{blocks}");
            let mut short = Builder::new(b"salt", tree.data);
            short.push(&data[BLOCK_BYTES..], |_, _| Ok::<(), ()>(())).unwrap();
            assert_eq!(short.finish(|_, _| Ok::<(), ()>(())), Ok(None));
        }
    }

    #[test]
    fn odd_sizes_and_short_media_are_refused() {
        let (bytes, tree) = slot(130);
        assert_eq!(check(&bytes, &Tree { tree: BLOCK, ..tree.clone() }), Err(Wrong::Sizes));
        assert_eq!(check(&bytes, &Tree { data: tree.data + 1, ..tree.clone() }), Err(Wrong::Sizes));
        assert_eq!(check(&bytes[..bytes.len() - 1], &tree), Err(Wrong::Read(())));
    }
}
