//! Directory blocks. Each block stands alone: entries of 12 bytes first, their names after them. Names ascend by
//! bytes through the whole directory, "." and ".." among them, because the kernel searches by halves, first for the
//! block and then in it (`fs/erofs/namei.c`).

use crate::format::{BLOCK_BYTES, DIRENT_BYTES};

/// One line of a directory.
#[derive(Clone, Copy)]
pub(crate) struct Line<'a> {
    pub name: &'a [u8],
    pub nid: u64,
    pub file_type: u8,
}

/// How many of `lengths` (of names) fit in one block, and how many bytes they take.
fn fit(lengths: impl Iterator<Item = usize>) -> (usize, usize) {
    let mut count = 0;
    let mut used = 0;
    for length in lengths {
        let more = used + DIRENT_BYTES + length;
        if more > BLOCK_BYTES {
            break;
        }
        used = more;
        count += 1;
    }
    (count, used)
}

/// Size in bytes of a directory with names of these lengths, in their order: full blocks but for the last.
pub(crate) fn size(lengths: &[usize]) -> u64 {
    let mut rest = lengths;
    let mut size = 0;
    loop {
        let (count, used) = fit(rest.iter().copied());
        rest = &rest[count..];
        if rest.is_empty() {
            return size + used as u64;
        }
        size += BLOCK_BYTES as u64;
    }
}

/// Appends the blocks of a directory to `out`, the last filled up with zeros.
pub(crate) fn encode(lines: &[Line<'_>], out: &mut Vec<u8>) {
    let mut rest = lines;
    while !rest.is_empty() {
        let (count, _) = fit(rest.iter().map(|line| line.name.len()));
        let (now, later) = rest.split_at(count);
        let start = out.len();
        let mut name_offset = count * DIRENT_BYTES;
        for line in now {
            out.extend_from_slice(&line.nid.to_le_bytes());
            // A block has 4096 bytes, so an offset in it fits 16 bits.
            out.extend_from_slice(&(name_offset as u16).to_le_bytes());
            out.extend_from_slice(&[line.file_type, 0]);
            name_offset += line.name.len();
        }
        for line in now {
            out.extend_from_slice(line.name);
        }
        out.resize(start + BLOCK_BYTES, 0);
        rest = later;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn size_agrees_with_encoding() {
        for (count, length) in [(2, 1), (300, 1), (15, 255), (16, 255), (400, 100), (315, 1), (316, 1)] {
            let name = vec![b'a'; length];
            let lines: Vec<_> = (0..count).map(|nid| Line { name: &name, nid, file_type: 1 }).collect();
            let lengths = vec![length; count as usize];
            let mut out = Vec::new();
            encode(&lines, &mut out);
            let size = size(&lengths);
            assert_eq!(size.div_ceil(4096) * 4096, out.len() as u64, "{count} x {length}");
            assert!(out[size as usize..].iter().all(|byte| *byte == 0));
            assert_ne!(out[size as usize - 1], 0);
        }
    }
}
