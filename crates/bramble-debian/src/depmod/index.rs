//! The binary form of kmod's tables: a trie, written depth first (`libkmod/libkmod-index.h` of kmod).
//!
//! Words are big-endian. A node is its prefix (text up to a NUL) if it has one, then the range of first letters and
//! an offset for each, if it has children, then the number of its values and each with its priority. The offset of a
//! node has three flags in its highest bits that say which of these it has.

use std::collections::BTreeMap;

const MAGIC: u32 = 0xB007_F457;
/// Major 2, minor 1.
const VERSION: u32 = 0x0002_0001;
const HAS_PREFIX: u32 = 0x8000_0000;
const HAS_VALUES: u32 = 0x4000_0000;
const HAS_CHILDREN: u32 = 0x2000_0000;

/// A table under construction.
#[derive(Default)]
pub(super) struct Index {
    keys: BTreeMap<Vec<u8>, Vec<(u32, String)>>,
}

impl Index {
    /// Adds a value to a key. Values of one key are tried by priority, lowest first. Keys that are not ASCII cannot
    /// be in such a table and are left out, as depmod does.
    pub(super) fn insert(&mut self, key: &str, value: &str, priority: u32) {
        if !key.is_ascii() {
            return;
        }
        let values = self.keys.entry(key.as_bytes().to_vec()).or_default();
        // Before those of equal priority: the order that depmod's own list gives.
        let at = values.iter().position(|(p, _)| *p >= priority).unwrap_or(values.len());
        values.insert(at, (priority, value.to_string()));
    }

    /// The file.
    pub(super) fn write(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for word in [MAGIC, VERSION, 0] {
            out.extend_from_slice(&word.to_be_bytes());
        }
        let entries: Vec<Entry<'_>> =
            self.keys.iter().map(|(key, values)| (key.as_slice(), values.as_slice())).collect();
        // The root never has a prefix, even where all keys begin alike.
        let root = write_node(&entries, 0, 0, &mut out);
        out[8..12].copy_from_slice(&root.to_be_bytes());
        out
    }
}

/// A key and its values.
type Entry<'a> = (&'a [u8], &'a [(u32, String)]);

/// Writes the node of `entries`, which agree up to `start`; the node's prefix reaches from there to `end`.
fn write_node(entries: &[Entry<'_>], start: usize, end: usize, out: &mut Vec<u8>) -> u32 {
    let (values, longer) = match entries.first() {
        Some((key, values)) if key.len() == end => (*values, &entries[1..]),
        _ => (&[][..], entries),
    };
    // Children first, since their offsets stand in this node.
    let mut children: BTreeMap<u8, u32> = BTreeMap::new();
    for group in longer.chunk_by(|a, b| a.0[end] == b.0[end]) {
        let letter = group[0].0[end];
        let shared = end + 1 + common_prefix(group, end + 1);
        children.insert(letter, write_node(group, end + 1, shared, out));
    }
    let mut offset = out.len() as u32;
    if let Some((key, _)) = entries.first()
        && end > start
    {
        out.extend_from_slice(&key[start..end]);
        out.push(0);
        offset |= HAS_PREFIX;
    }
    if let (Some((first, _)), Some((last, _))) = (children.first_key_value(), children.last_key_value()) {
        out.extend_from_slice(&[*first, *last]);
        for letter in *first..=*last {
            out.extend_from_slice(&children.get(&letter).copied().unwrap_or(0).to_be_bytes());
        }
        offset |= HAS_CHILDREN;
    }
    if !values.is_empty() {
        out.extend_from_slice(&(values.len() as u32).to_be_bytes());
        for (priority, value) in values {
            out.extend_from_slice(&priority.to_be_bytes());
            out.extend_from_slice(value.as_bytes());
            out.push(0);
        }
        offset |= HAS_VALUES;
    }
    offset
}

/// How many bytes from `from` on all keys of a group share. They are sorted, so the first and the last decide.
fn common_prefix(group: &[Entry<'_>], from: usize) -> usize {
    let (Some((first, _)), Some((last, _))) = (group.first(), group.last()) else { return 0 };
    first[from..].iter().zip(&last[from..]).take_while(|(a, b)| a == b).count()
}
