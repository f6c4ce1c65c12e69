//! Deciding where inodes and data lie: pure, and the same for the same input.

use std::collections::BTreeMap;

use crate::format::{FileType, SLOTS_IN_BLOCK};
use crate::placement::{Extent, Place, Placement};
use crate::tree::{Node, PlanError, ROOT, Tree};

/// Block 0 holds the superblock.
const FIRST_FREE: u32 = 1;
/// One part in this many is left free among the inodes and after the directories, for what later releases add: a
/// Debian release of security fixes adds a handful of files, a point release some hundreds in 14,000.
const SLACK_PART: u32 = 8;

/// Behind a file one block in this many is left free, so that one that is rebuilt a little larger stays where it is. It
/// costs 3 % of the image, in zeros.
const FILE_SLACK_PART: u32 = 32;

/// Free runs of blocks, without an end.
struct Free {
    runs: BTreeMap<u32, u32>,
}

impl Free {
    fn from(start: u32) -> Self {
        Self { runs: BTreeMap::from([(start, u32::MAX)]) }
    }

    /// Takes exactly this extent, if all of it is free.
    fn take(&mut self, extent: Extent) -> bool {
        let Some(end) = extent.start.checked_add(extent.blocks) else { return false };
        let Some((&start, &run_end)) = self.runs.range(..=extent.start).next_back() else { return false };
        if end > run_end {
            return false;
        }
        self.runs.remove(&start);
        if start < extent.start {
            self.runs.insert(start, extent.start);
        }
        if end < run_end {
            self.runs.insert(end, run_end);
        }
        true
    }

    /// Takes up to `blocks` that are free from `start` on.
    fn reserve(&mut self, start: u32, blocks: u32) {
        let free = self.runs.get(&start).map_or(0, |end| end - start);
        let _ = self.take(Extent { start, blocks: blocks.min(free) });
    }

    /// Takes the first run of `blocks` that begins at `from` or later.
    fn first_fit(&mut self, blocks: u32, from: u32) -> Result<Extent, PlanError> {
        let before = self.runs.range(..from).next_back().map(|(start, end)| (*start, *end));
        let after = self.runs.range(from..).map(|(start, end)| (*start, *end));
        let fit = before
            .into_iter()
            .chain(after)
            .map(|(start, end)| (start.max(from), end))
            .find(|(start, end)| end.saturating_sub(*start) >= blocks);
        let extent = Extent { start: fit.ok_or(PlanError::TooLarge)?.0, blocks };
        if self.take(extent) { Ok(extent) } else { Err(PlanError::TooLarge) }
    }
}

/// Which slots of the inode blocks are in use: a bit a slot, since a block has 128 of them.
#[derive(Default)]
struct Slots {
    blocks: BTreeMap<u32, u128>,
    /// No run of one slot is free in blocks before this one.
    first_open: u32,
}

const _: () = assert!(SLOTS_IN_BLOCK == 128);

/// `slots` ones; a longer inode than a block cannot be.
fn mask(slots: u32) -> u128 {
    u128::MAX.checked_shr(u128::BITS.saturating_sub(slots)).unwrap_or(0)
}

impl Slots {
    fn take(&mut self, nid: u64, slots: u32) -> bool {
        let block = u32::try_from(nid / SLOTS_IN_BLOCK).ok();
        let Some(used) = block.and_then(|block| self.blocks.get_mut(&block)) else { return false };
        let shift = (nid % SLOTS_IN_BLOCK) as u32;
        let wanted = mask(slots) << shift;
        if shift + slots > u128::BITS || *used & wanted != 0 {
            return false;
        }
        *used |= wanted;
        true
    }

    /// The first place for an inode in the blocks there are. An inode never crosses a block: inline data may not.
    fn first_fit(&mut self, slots: u32) -> Option<u64> {
        let wanted = mask(slots);
        let mut leading_full = true;
        for (block, used) in self.blocks.range_mut(self.first_open..) {
            if leading_full && *used == u128::MAX {
                self.first_open = *block;
                continue;
            }
            leading_full = false;
            let mut shift = used.trailing_ones();
            while shift + slots <= u128::BITS {
                let collision = (*used >> shift) & wanted;
                if collision == 0 {
                    *used |= wanted << shift;
                    return Some(u64::from(*block) * SLOTS_IN_BLOCK + u64::from(shift));
                }
                // Past the last slot in the way.
                shift += u128::BITS - collision.leading_zeros();
            }
        }
        None
    }
}

/// The answer: a place for every node, by index.
pub(crate) struct Places {
    pub places: Vec<Place>,
    pub inode_blocks: u32,
    pub data_start: u32,
    /// Block after the last one in use.
    pub end: u32,
}

/// Places every node, keeping what `previous` says where sizes allow.
///
/// 1. What has as many blocks as before, or fewer, stays.
/// 2. What has grown stays if the blocks after it are free.
/// 3. The rest goes to the first hole that is large enough, which at last is the end of the image.
///
/// Behind each file of some size a little is left free, for the second rule.
pub(crate) fn place(
    tree: &Tree<'_>,
    build_time: u64,
    previous: Option<&Placement>,
) -> Result<Places, PlanError> {
    let (inode_blocks, data_start) = match previous {
        Some(previous) => (previous.inode_blocks, previous.data_start),
        None => areas(tree, build_time)?,
    };
    let before: Vec<Option<Place>> = match previous {
        Some(previous) => tree.nodes.iter().map(|node| previous.places.get(node.path).copied()).collect(),
        None => vec![None; tree.nodes.len()],
    };
    let mut free = Free::from(FIRST_FREE);
    let mut slots = inode_area(inode_blocks, &before, &mut free)?;
    let mut extents = vec![None; tree.nodes.len()];
    let blocks = tree.nodes.iter().map(|node| u32::try_from(node.blocks()));
    let blocks = blocks.collect::<Result<Vec<_>, _>>().map_err(|_| PlanError::TooLarge)?;
    keep(&blocks, &before, &mut extents, &mut free, |now, before| now <= before);
    // Only now is it known which blocks are free for inodes that find no slot.
    let nids = number(tree, build_time, &before, &mut slots, &mut free)?;
    keep(&blocks, &before, &mut extents, &mut free, |now, before| now > before);
    let slack = |node: &Node<'_>, blocks: u32| {
        if node.file_type() == FileType::File { blocks / FILE_SLACK_PART } else { 0 }
    };
    // What is new must not be put where others grow to.
    for (node, extent) in tree.nodes.iter().zip(&extents) {
        let Some(extent) = extent else { continue };
        free.reserve(extent.start + extent.blocks, slack(node, extent.blocks));
    }
    let mut data = Vec::with_capacity(extents.len());
    for ((node, extent), blocks) in tree.nodes.iter().zip(extents).zip(blocks) {
        let from = if node.is_directory() { FIRST_FREE } else { data_start };
        data.push(match extent {
            Some(extent) => extent,
            None if blocks == 0 => Extent::default(),
            None => {
                let with_slack = blocks.checked_add(slack(node, blocks)).ok_or(PlanError::TooLarge)?;
                Extent { blocks, ..free.first_fit(with_slack, from)? }
            }
        });
    }

    let end = free.runs.last_key_value().map_or(u32::MAX, |(start, _)| *start).max(data_start);
    let places = tree.nodes.iter().zip(nids).zip(data);
    let places =
        places.map(|((node, nid), data)| Place { nid, slots: node.slots(build_time), data }).collect();
    Ok(Places { places, inode_blocks, data_start, end })
}

/// Sizes of the areas of a fresh image: blocks of inodes, and where files begin.
fn areas(tree: &Tree<'_>, build_time: u64) -> Result<(u32, u32), PlanError> {
    let mut slots = Slots::default();
    let mut blocks = 0;
    for node in &tree.nodes {
        let wanted = node.slots(build_time);
        if slots.first_fit(wanted).is_none() {
            blocks += 1;
            slots.blocks.insert(blocks, mask(wanted));
        }
    }
    let inode_blocks = blocks + blocks / SLACK_PART + 1;
    let directories: u64 = tree.nodes.iter().filter(|node| node.is_directory()).map(Node::blocks).sum();
    let directories = u32::try_from(directories).map_err(|_| PlanError::TooLarge)?;
    let data_start = FIRST_FREE + inode_blocks + directories + directories / SLACK_PART;
    // Files begin on a multiple of 256 KiB, for looks only.
    Ok((inode_blocks, data_start.next_multiple_of(64)))
}

/// Claims the blocks of inodes: the area, and those that inodes overflowed to in an earlier release.
fn inode_area(inode_blocks: u32, before: &[Option<Place>], free: &mut Free) -> Result<Slots, PlanError> {
    let area = Extent { start: FIRST_FREE, blocks: inode_blocks };
    if !free.take(area) {
        return Err(PlanError::TooLarge);
    }
    let mut slots = Slots::default();
    slots.blocks.extend((area.start..area.start + area.blocks).map(|block| (block, 0)));
    for place in before.iter().flatten() {
        let block = u32::try_from(place.nid / SLOTS_IN_BLOCK).unwrap_or(u32::MAX);
        if !slots.blocks.contains_key(&block) && free.take(Extent { start: block, blocks: 1 }) {
            slots.blocks.insert(block, 0);
        }
    }
    Ok(slots)
}

/// Gives every node an inode number.
fn number(
    tree: &Tree<'_>,
    build_time: u64,
    before: &[Option<Place>],
    slots: &mut Slots,
    free: &mut Free,
) -> Result<Vec<u64>, PlanError> {
    let mut nids = vec![None; tree.nodes.len()];
    // The superblock has 16 bits for the root's number, so the root always takes the first slot there is.
    let root = u64::from(FIRST_FREE) * SLOTS_IN_BLOCK;
    if slots.take(root, tree.nodes[ROOT].slots(build_time)) {
        nids[ROOT] = Some(root);
    }
    for ((node, before), nid) in tree.nodes.iter().zip(before).zip(&mut nids).skip(1) {
        let Some(before) = before else { continue };
        if before.slots == node.slots(build_time) && slots.take(before.nid, before.slots) {
            *nid = Some(before.nid);
        }
    }
    let mut all = Vec::with_capacity(nids.len());
    for (node, nid) in tree.nodes.iter().zip(nids) {
        let wanted = node.slots(build_time);
        all.push(match nid.or_else(|| slots.first_fit(wanted)) {
            Some(nid) => nid,
            None => {
                let block = free.first_fit(1, FIRST_FREE)?.start;
                slots.blocks.insert(block, mask(wanted));
                slots.first_open = slots.first_open.min(block);
                u64::from(block) * SLOTS_IN_BLOCK
            }
        });
    }
    Ok(all)
}

/// Lets those stay where they began whose new and old numbers of blocks satisfy `may_stay`, if their blocks are free.
fn keep(
    blocks: &[u32],
    before: &[Option<Place>],
    extents: &mut [Option<Extent>],
    free: &mut Free,
    may_stay: impl Fn(u32, u32) -> bool,
) {
    for ((extent, before), &blocks) in extents.iter_mut().zip(before).zip(blocks) {
        let Some(before) = before else { continue };
        if extent.is_some() || blocks == 0 || before.data.blocks == 0 || !may_stay(blocks, before.data.blocks)
        {
            continue;
        }
        let stays = Extent { start: before.data.start, blocks };
        if free.take(stays) {
            *extent = Some(stays);
        }
    }
}
