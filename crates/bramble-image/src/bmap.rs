//! Block maps: which blocks of an image must be written, and their checksums.
//!
//! The format is version 2.0 of `bmaptool` (<https://github.com/yoctoproject/bmaptool>, `BmapCreate.py`): the checksum
//! of the file itself is taken with zeros in its place.

use crate::disk::{DiskError, DiskMap, STEP};
use bramble_api::layout::BLOCK;
use rayon::prelude::*;
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// The block map of the image that was written from `map` to `image`, as XML text.
///
/// Blocks that must be zero are mapped: a card that held something else has to be given them.
///
/// # Errors
/// The image cannot be read.
pub fn bmap(map: &DiskMap, image: &Path) -> Result<String, DiskError> {
    let failed = |source| DiskError::Io { act: "read", path: image.to_path_buf(), source };
    let file = File::open(image).map_err(failed)?;
    let ranges = map.mapped_blocks();
    let sums = ranges
        .par_iter()
        .map(|range| checksum(&file, range, map.size))
        .collect::<io::Result<Vec<_>>>()
        .map_err(failed)?;
    Ok(text(map.size, &ranges, &sums))
}

fn checksum(file: &File, blocks: &Range<u64>, size: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; STEP];
    let (mut at, end) = (blocks.start * BLOCK, (blocks.end * BLOCK).min(size));
    while at < end {
        let part = &mut buffer[..(end - at).min(STEP as u64) as usize];
        file.read_exact_at(part, at)?;
        hash.update(&*part);
        at += part.len() as u64;
    }
    Ok(hex::encode(hash.finalize()))
}

fn text(size: u64, ranges: &[Range<u64>], sums: &[String]) -> String {
    let mapped: u64 = ranges.iter().map(|r| r.end - r.start).sum();
    let mut out = String::from("<?xml version=\"1.0\" ?>\n<bmap version=\"2.0\">\n");
    let zeros = "0".repeat(64);
    for (name, value) in [
        ("ImageSize", size.to_string()),
        ("BlockSize", BLOCK.to_string()),
        ("BlocksCount", size.div_ceil(BLOCK).to_string()),
        ("MappedBlocksCount", mapped.to_string()),
        ("ChecksumType", "sha256".to_string()),
        ("BmapFileChecksum", zeros.clone()),
    ] {
        out.push_str(&format!("    <{name}> {value} </{name}>\n"));
    }
    out.push_str("    <BlockMap>\n");
    for (range, sum) in ranges.iter().zip(sums) {
        let last = range.end - 1;
        let blocks = if last == range.start { last.to_string() } else { format!("{}-{last}", range.start) };
        out.push_str(&format!("        <Range chksum=\"{sum}\"> {blocks} </Range>\n"));
    }
    out.push_str("    </BlockMap>\n</bmap>\n");
    let own = hex::encode(Sha256::digest(&out));
    out.replacen(&format!("<BmapFileChecksum> {zeros} "), &format!("<BmapFileChecksum> {own} "), 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_vouches_for_itself() {
        let made = text(4096 * 10 + 512, &[0..1, 4..11], &["aa".to_string(), "bb".to_string()]);
        assert!(made.contains("<BlocksCount> 11 <") && made.contains("<MappedBlocksCount> 8 <"));
        assert!(
            made.contains("<Range chksum=\"aa\"> 0 </Range>")
                && made.contains("<Range chksum=\"bb\"> 4-10 <")
        );
        let at = made.find("<BmapFileChecksum> ").unwrap() + 19;
        let mut zeroed = made.clone();
        zeroed.replace_range(at..at + 64, &"0".repeat(64));
        assert_eq!(hex::encode(Sha256::digest(&zeroed)), made[at..at + 64]);
    }
}
