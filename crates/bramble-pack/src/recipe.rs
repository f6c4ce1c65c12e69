//! How a release follows from an earlier one.

use crate::head::{Head, ImageKind, RecipeEntry};
use crate::{Damaged, impossible, varint};

/// Where the blocks of a run come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The same place of the earlier release's image of the same kind.
    Same,
    /// This place of it.
    Copy(u32),
    /// They are zeros.
    Zeros,
    /// This block of the recipe's stream, and those behind it.
    New(u32),
}

/// Blocks of an image that come from one place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// The image.
    pub image: ImageKind,
    /// First block.
    pub at: u32,
    /// How many.
    pub blocks: u32,
    /// Where from.
    pub from: From,
}

/// A recipe, checked: its runs fill every image, and lie in the earlier release's.
#[derive(Clone, Debug)]
pub struct Recipe {
    bytes: Vec<u8>,
    images: Vec<(ImageKind, u32, u32)>,
}

impl Recipe {
    /// A recipe as it was fetched.
    ///
    /// # Errors
    /// Another length or hash than the head says; or it does not make the images.
    pub fn open(head: &Head, entry: &RecipeEntry, bytes: Vec<u8>) -> Result<Recipe, Damaged> {
        entry.recipe.check("recipe", &bytes)?;
        Recipe::parse(head, entry, bytes)
    }

    /// As [`Recipe::open`], the hash believed.
    ///
    /// # Errors
    /// It does not make the images.
    pub fn parse(head: &Head, entry: &RecipeEntry, bytes: Vec<u8>) -> Result<Recipe, Damaged> {
        let earlier =
            |kind| entry.images.iter().find(|image| image.kind == kind).map_or(0, |image| image.blocks);
        let images = head.images.iter().map(|image| (image.kind, image.blocks, earlier(image.kind)));
        let recipe = Recipe { images: images.collect(), bytes };
        let mut new = 0;
        let mut runs = recipe.steps();
        for run in &mut runs {
            let run = run?;
            if let From::New(_) = run.from {
                new += run.blocks;
            }
        }
        if !runs.rest.is_empty() {
            return Err(wrong("runs behind the last image"));
        }
        if new != entry.stream.blocks {
            return Err(wrong("another number of new blocks than its stream has"));
        }
        Ok(recipe)
    }

    /// The runs in order: image after image, block after block. They do not fail: the recipe was checked.
    pub fn runs(&self) -> impl Iterator<Item = Run> {
        self.steps().map_while(Result::ok)
    }

    fn steps(&self) -> Steps<'_> {
        Steps { images: &self.images, rest: &self.bytes, at: 0, new: 0 }
    }
}

fn wrong(why: &'static str) -> Damaged {
    impossible("recipe", why)
}

/// Reads runs. Each is checked as it is read; after an error there is none.
struct Steps<'r> {
    /// Kind, blocks, blocks of the earlier one.
    images: &'r [(ImageKind, u32, u32)],
    rest: &'r [u8],
    at: u32,
    new: u32,
}

impl Steps<'_> {
    fn step(&mut self, (image, size, earlier): (ImageKind, u32, u32)) -> Result<Run, Damaged> {
        let word = varint::take(&mut self.rest).ok_or_else(|| wrong("it ends too early"))?;
        let at = self.at;
        let blocks = u32::try_from(word >> 2).ok().filter(|blocks| *blocks > 0 && *blocks <= size - at);
        let blocks = blocks.ok_or_else(|| wrong("a run that leaves its image"))?;
        let inside = |start: u32| start.checked_add(blocks).is_some_and(|end| end <= earlier);
        let from = match word & 3 {
            0 if inside(at) => From::Same,
            1 => {
                let distance = varint::take(&mut self.rest).ok_or_else(|| wrong("it ends too early"))?;
                let start = i64::from(at).checked_add(varint::unzigzag(distance));
                let start = start.and_then(|start| u32::try_from(start).ok()).filter(|start| inside(*start));
                From::Copy(start.ok_or_else(|| wrong("a copy from outside the earlier image"))?)
            }
            2 => From::Zeros,
            3 => {
                let first = self.new;
                // Images have at most 2^20 blocks together, so this cannot be too large.
                self.new = first.checked_add(blocks).ok_or_else(|| wrong("too many new blocks"))?;
                From::New(first)
            }
            _ => return Err(wrong("blocks that the earlier image does not have")),
        };
        self.at += blocks;
        Ok(Run { image, at, blocks, from })
    }
}

impl Iterator for Steps<'_> {
    type Item = Result<Run, Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        let (image, rest) = self.images.split_first()?;
        let run = self.step(*image);
        if run.is_err() {
            self.images = &[];
        } else if self.at == image.1 {
            (self.images, self.at) = (rest, 0);
        }
        Some(run)
    }
}
