//! The head of a pack: what is in it, and where.

use crate::{Damaged, MAX_BLOCKS, MAX_FRAME_BLOCKS, MAX_RECIPE, impossible};
use bramble_api::release::{Digest, MAX_PACK_HEAD, Pack};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

const MAGIC: &[u8; 16] = b"bramble-pack\0\0\0\0";
/// Bytes before the JSON.
const PREFIX: usize = 24;
/// Bytes of a frame in a table.
pub(crate) const FRAME_ENTRY: u64 = 24;

/// An image that a release consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ImageKind {
    /// The root file system, without its hash tree.
    Root,
    /// The unified kernel image.
    Uki,
    /// BOOT-A and BOOT-B, up to the end of their last file.
    Boot,
}

/// An image and its length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ImageSize {
    /// Which.
    pub kind: ImageKind,
    /// Its blocks.
    pub blocks: u32,
}

/// A run of bytes of the pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Section {
    /// First byte, counted from the end of the head.
    pub offset: u64,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of them.
    pub sha256: Digest,
}

/// Blocks in order, cut into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Stream {
    /// The table of frames, which vouches for them.
    pub table: Section,
    /// First byte of the first frame, counted from the end of the head.
    pub offset: u64,
    /// Bytes of all frames.
    pub size: u64,
    /// Blocks of all frames.
    pub blocks: u32,
}

/// A way from one earlier release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecipeEntry {
    /// Version of the earlier release, for people.
    pub from: u64,
    /// SHA-256 of its manifest's JSON.
    pub manifest: Digest,
    /// Its images.
    pub images: Vec<ImageSize>,
    /// The recipe.
    pub recipe: Section,
    /// Its new blocks.
    pub stream: Stream,
}

/// What is in a pack, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Head {
    /// Format of the pack: 1.
    pub format: u32,
    /// Version of the release, for people.
    pub version: u64,
    /// Its images: each kind at most once, the root first.
    pub images: Vec<ImageSize>,
    /// Ways from earlier releases, newest first.
    pub recipes: Vec<RecipeEntry>,
    /// Hashes of all blocks.
    pub index: Section,
    /// All blocks.
    pub full: Stream,
    /// Bytes of the head, not part of its JSON.
    #[serde(skip)]
    length: u64,
}

/// A way to a release, and what it costs on the wire, without the pack's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the recipe with this number.
    Recipe {
        /// Its place in [`Head::recipes`].
        number: usize,
        /// Bytes.
        bytes: u64,
    },
    /// Everything.
    Full {
        /// Bytes.
        bytes: u64,
    },
}

impl Way {
    /// Bytes to fetch.
    pub fn bytes(self) -> u64 {
        match self {
            Way::Recipe { bytes, .. } | Way::Full { bytes } => bytes,
        }
    }
}

impl Section {
    /// Whether these are its bytes.
    ///
    /// # Errors
    /// Another length or hash.
    pub fn check(&self, what: &'static str, bytes: &[u8]) -> Result<(), Damaged> {
        if bytes.len() as u64 != self.size {
            return Err(Damaged::Length(what));
        }
        if Digest::of(bytes) != self.sha256 {
            return Err(Damaged::Hash(what));
        }
        Ok(())
    }

    fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.size)
    }
}

impl Stream {
    /// Bytes to fetch for all of it.
    pub fn bytes(&self) -> u64 {
        self.table.size + self.size
    }

    fn check(&self, room: u64) -> Result<(), Damaged> {
        let ends = [self.table.end(), self.offset.checked_add(self.size)];
        if ends.iter().any(|end| end.is_none_or(|end| end > room)) {
            return Err(impossible("head", "a stream outside the pack"));
        }
        let frames = self.table.size / FRAME_ENTRY;
        if !self.table.size.is_multiple_of(FRAME_ENTRY) || frames > u64::from(self.blocks) {
            return Err(impossible("head", "the size of a table"));
        }
        if frames * u64::from(MAX_FRAME_BLOCKS) < u64::from(self.blocks) {
            return Err(impossible("head", "fewer frames than the blocks need"));
        }
        Ok(())
    }
}

/// Blocks of all images; each kind may stand once.
fn blocks(images: &[ImageSize]) -> Result<u64, Damaged> {
    if !images.is_sorted_by(|a, b| a.kind < b.kind) {
        return Err(impossible("head", "images twice or out of order"));
    }
    if images.iter().any(|image| image.blocks == 0) {
        return Err(impossible("head", "an empty image"));
    }
    let blocks = images.iter().map(|image| u64::from(image.blocks)).sum();
    if blocks > MAX_BLOCKS {
        Err(impossible("head", "more blocks than a disk has room for"))
    } else {
        Ok(blocks)
    }
}

impl Head {
    /// The head of an offered pack: its first [`Pack::head_size`] bytes.
    ///
    /// # Errors
    /// They are not the ones that were offered, or say what cannot be.
    pub fn open(bytes: &[u8], offered: &Pack) -> Result<Head, Damaged> {
        if bytes.len() as u64 != offered.head_size {
            return Err(Damaged::Length("head"));
        }
        if Digest::of(bytes) != offered.head_sha256 {
            return Err(Damaged::Hash("head"));
        }
        Head::parse(bytes, offered.size)
    }

    /// A head that begins `bytes`, of a pack of `size` bytes. Believes its hashes, and checks everything else: what it
    /// names lies in the pack, and no table is longer than its blocks allow.
    ///
    /// # Errors
    /// It is none, or says what cannot be.
    pub fn parse(bytes: &[u8], size: u64) -> Result<Head, Damaged> {
        let json = Head::json(bytes)?;
        let mut head: Head =
            serde_json::from_slice(json).map_err(|_| impossible("head", "no JSON of a head"))?;
        head.length = (PREFIX + json.len()) as u64;
        head.check(size)?;
        Ok(head)
    }

    /// The length of the head that begins so; 24 bytes are enough.
    ///
    /// # Errors
    /// It is none, or longer than any head.
    pub fn length_of(prefix: &[u8]) -> Result<u64, Damaged> {
        let (Some(magic), Some(length)) = (prefix.get(..16), prefix.get(16..20)) else {
            return Err(Damaged::Length("head"));
        };
        if magic != MAGIC {
            return Err(impossible("head", "wrong magic"));
        }
        let mut word = [0; 4];
        word.copy_from_slice(length);
        let length = PREFIX as u64 + u64::from(u32::from_le_bytes(word));
        if length > MAX_PACK_HEAD { Err(Damaged::Length("head")) } else { Ok(length) }
    }

    fn json(bytes: &[u8]) -> Result<&[u8], Damaged> {
        let length = Head::length_of(bytes)?;
        bytes.get(PREFIX..length as usize).ok_or(Damaged::Length("head"))
    }

    fn check(&self, size: u64) -> Result<(), Damaged> {
        if self.format != 1 {
            return Err(impossible("head", "a format that this program does not read"));
        }
        let room = size.checked_sub(self.length).ok_or(Damaged::Length("head"))?;
        let all = blocks(&self.images)?;
        if self.images.first().is_none_or(|image| image.kind != ImageKind::Root) {
            return Err(impossible("head", "no root"));
        }
        if self.index.end().is_none_or(|end| end > room) || self.index.size != all * 8 {
            return Err(impossible("head", "the size of the index"));
        }
        self.full.check(room)?;
        if u64::from(self.full.blocks) != all {
            return Err(impossible("head", "not all blocks"));
        }
        for entry in &self.recipes {
            blocks(&entry.images)?;
            entry.stream.check(room)?;
            let recipe = &entry.recipe;
            if recipe.end().is_none_or(|end| end > room) || recipe.size > MAX_RECIPE {
                return Err(impossible("head", "the size of a recipe"));
            }
            if u64::from(entry.stream.blocks) > all {
                return Err(impossible("head", "more new blocks than there are blocks"));
            }
        }
        Ok(())
    }

    /// The head as bytes.
    #[cfg(feature = "write")]
    pub(crate) fn to_bytes(&self) -> Option<Vec<u8>> {
        let json = serde_json::to_vec(self).ok()?;
        let mut bytes = MAGIC.to_vec();
        bytes.extend(u32::try_from(json.len()).ok()?.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(json);
        (bytes.len() as u64 <= MAX_PACK_HEAD).then_some(bytes)
    }

    #[cfg(feature = "write")]
    pub(crate) fn new(
        version: u64,
        images: Vec<ImageSize>,
        recipes: Vec<RecipeEntry>,
        index: Section,
        full: Stream,
    ) -> Head {
        Head { format: 1, version, images, recipes, index, full, length: 0 }
    }

    /// Where an offset of the head lies in the file.
    pub fn at(&self, offset: u64) -> u64 {
        self.length + offset
    }

    /// Bytes of the head.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Blocks of all images.
    pub fn blocks(&self) -> u64 {
        self.images.iter().map(|image| u64::from(image.blocks)).sum()
    }

    /// The ways for a machine that has the releases with these manifests (SHA-256 of their JSON), cheapest first. The
    /// full one is always among them.
    pub fn ways(&self, have: &[Digest]) -> Vec<Way> {
        let recipes = self.recipes.iter().enumerate().filter(|(_, entry)| have.contains(&entry.manifest));
        let mut ways: Vec<Way> = recipes
            .map(|(number, entry)| Way::Recipe { number, bytes: entry.recipe.size + entry.stream.bytes() })
            .collect();
        ways.push(Way::Full { bytes: self.full.bytes() });
        // A stable order: of equal ones the newer release's, which runs, before the older one's.
        ways.sort_by_key(|way| (way.bytes(), Reverse(matches!(way, Way::Recipe { .. }))));
        ways
    }
}
