//! Where things lie in an image, remembered for the next release.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A run of blocks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Extent {
    /// First block.
    pub start: u32,
    /// Number of blocks; 0 for what has no blocks of its own.
    pub blocks: u32,
}

/// Where one inode and its data lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The inode number: slots of 32 bytes from the start of the image.
    pub nid: u64,
    /// How many such slots it takes.
    pub slots: u32,
    /// The blocks of its data.
    pub data: Extent,
}

/// Where everything of an image lies. It is made by planning an image and given when the next one is planned.
///
/// As text ([`fmt::Display`], [`FromStr`]) it has a head line and one line for every inode, ascending by path:
///
/// ```text
/// bramble-erofs placement 1 blocks=96512 inode-blocks=141 data-start=2304
/// 128 1 142 1
/// 129 1 2304 310 usr/bin/bash
/// ```
///
/// The fields are inode number, slots, first block, blocks, path (the root's is empty). In paths `%`, control characters
/// and bytes outside ASCII are written as `%` and two hexadecimal digits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Blocks of the whole image.
    pub blocks: u32,
    /// Blocks after the superblock that hold inodes only.
    pub inode_blocks: u32,
    /// Where the area of regular files begins; inodes and directories lie before it while there is room.
    pub data_start: u32,
    /// Places by path.
    pub places: BTreeMap<Vec<u8>, Place>,
}

/// A text is not a placement.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the placement: {reason}")]
pub struct ParsePlacementError {
    /// Line, counted from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: &'static str,
}

const HEAD: &str = "bramble-erofs placement 1 ";

impl fmt::Display for Placement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blocks, inode_blocks, data_start, places } = self;
        writeln!(f, "{HEAD}blocks={blocks} inode-blocks={inode_blocks} data-start={data_start}")?;
        for (path, Place { nid, slots, data }) in places {
            write!(f, "{nid} {slots} {} {} ", data.start, data.blocks)?;
            for byte in path {
                match byte {
                    b'%' | 0..=0x20 | 0x7f.. => write!(f, "%{byte:02x}")?,
                    _ => write!(f, "{}", char::from(*byte))?,
                }
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

impl FromStr for Placement {
    type Err = ParsePlacementError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
        let head = lines.next().and_then(|(_, line)| line.strip_prefix(HEAD)).and_then(head);
        let (blocks, inode_blocks, data_start) =
            head.ok_or(ParsePlacementError { line: 1, reason: "not the head of a placement" })?;
        let mut placement = Self { blocks, inode_blocks, data_start, places: BTreeMap::new() };
        for (line, text) in lines {
            let error = |reason| ParsePlacementError { line, reason };
            let (path, place) = entry(text).ok_or_else(|| error("not `nid slots start blocks path`"))?;
            let end = u64::from(place.data.start) + u64::from(place.data.blocks);
            if end > u64::from(blocks) || place.nid / crate::format::SLOTS_IN_BLOCK >= u64::from(blocks) {
                return Err(error("outside the image"));
            }
            if placement.places.insert(path, place).is_some() {
                return Err(error("a path is stated twice"));
            }
        }
        Ok(placement)
    }
}

fn head(text: &str) -> Option<(u32, u32, u32)> {
    let mut fields = text.split(' ');
    let mut field = |name: &str| fields.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok();
    let numbers = (field("blocks")?, field("inode-blocks")?, field("data-start")?);
    let (blocks, inode_blocks, data_start) = numbers;
    (fields.next().is_none() && inode_blocks < data_start && data_start <= blocks).then_some(numbers)
}

fn entry(line: &str) -> Option<(Vec<u8>, Place)> {
    let mut fields = line.splitn(5, ' ');
    let nid = fields.next()?.parse().ok()?;
    let slots = fields.next()?.parse().ok()?;
    let start = fields.next()?.parse().ok()?;
    let blocks = fields.next()?.parse().ok()?;
    let path = unescape(fields.next()?)?;
    Some((path, Place { nid, slots, data: Extent { start, blocks } }))
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut path = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        path.push(match byte {
            b'%' => {
                let high = char::from(bytes.next()?).to_digit(16)?;
                let low = char::from(bytes.next()?).to_digit(16)?;
                (high * 16 + low) as u8
            }
            _ => byte,
        });
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_survives() {
        let mut placement =
            Placement { blocks: 40, inode_blocks: 2, data_start: 10, places: BTreeMap::new() };
        let names: [&[u8]; 4] = [b"", b"a b/\n%41\xff", b"usr/bin/bash", "gr\u{fc}n".as_bytes()];
        for (index, name) in names.into_iter().enumerate() {
            let data = Extent { start: 10 + index as u32, blocks: 1 };
            placement.places.insert(name.to_vec(), Place { nid: 128 + index as u64, slots: 1, data });
        }
        let text = placement.to_string();
        assert_eq!(text.lines().count(), 5, "{text}");
        assert_eq!(text.parse::<Placement>().unwrap(), placement);
    }

    #[test]
    fn bad_text_names_its_line() {
        let head = "bramble-erofs placement 1 blocks=40 inode-blocks=2 data-start=10\n";
        for (text, line) in [
            ("".to_owned(), 1),
            ("bramble-erofs placement 2 blocks=40 inode-blocks=2 data-start=10".to_owned(), 1),
            ("bramble-erofs placement 1 blocks=40 inode-blocks=12 data-start=10".to_owned(), 1),
            (format!("{head}128 1 10 31 a"), 2),
            (format!("{head}5120 1 10 1 a"), 2),
            (format!("{head}128 1 10 1 a\n129 1 11 1 a"), 3),
            (format!("{head}128 1 10 1 a%4"), 2),
            (format!("{head}128 1 10"), 2),
        ] {
            assert_eq!(text.parse::<Placement>().unwrap_err().line, line, "{text}");
        }
    }
}
