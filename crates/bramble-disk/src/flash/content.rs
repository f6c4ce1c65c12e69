//! What is written: ranges of a disk, cut into pieces of one size.

use std::io;
use std::ops::Range;

/// Bytes that are written and read at a time: large enough for a card's own erase blocks, small enough that a broken
/// one names its place.
pub const PIECE: u64 = 4 << 20;
/// The part that is written last: without it no firmware starts the disk.
pub const HEAD: u64 = 1 << 20;
/// A second partition table lies here; firmware may start from it when the first is gone.
pub const TAIL: u64 = 1 << 20;
const SECTOR: u64 = 512;

/// What is to be on a disk.
pub trait Content: Sync {
    /// Bytes of the disk that it is laid out for.
    fn size(&self) -> u64;
    /// Ranges that must be as [`Content::read`] gives them, zeros among them, ascending. All else keeps what the
    /// disk held.
    fn ranges(&self) -> Vec<Range<u64>>;
    /// Reads; what is in no range is zeros.
    ///
    /// # Errors
    /// What the files behind it say.
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()>;
}

/// The pieces in the order of writing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pieces {
    /// Everything but head and tail.
    pub body: Vec<Range<u64>>,
    /// The end of the disk.
    pub tail: Vec<Range<u64>>,
    /// The head, whole.
    pub head: Range<u64>,
}

impl Pieces {
    /// Cuts what must be written.
    pub fn of(content: &dyn Content) -> Pieces {
        let size = content.size();
        let tail_start = size.saturating_sub(TAIL) / 4096 * 4096;
        let (mut body, mut tail) = (Vec::new(), Vec::new());
        for range in joined(content.ranges(), size) {
            let mut at = range.start.max(HEAD);
            while at < range.end {
                let border = if at < tail_start { tail_start } else { u64::MAX };
                let end = range.end.min((at / PIECE + 1) * PIECE).min(border);
                if at < tail_start {
                    body.push(at..end)
                } else {
                    tail.push(at..end)
                }
                at = end;
            }
        }
        Pieces { body, tail, head: 0..HEAD.min(size) }
    }

    /// Bytes of all pieces.
    pub fn bytes(&self) -> u64 {
        self.body.iter().chain(&self.tail).chain([&self.head]).map(|r| r.end - r.start).sum()
    }
}

/// Ranges on whole sectors, none beside another.
fn joined(ranges: Vec<Range<u64>>, size: u64) -> Vec<Range<u64>> {
    let mut ranges: Vec<_> = ranges
        .into_iter()
        .map(|r| r.start / SECTOR * SECTOR..r.end.next_multiple_of(SECTOR).min(size))
        .filter(|r| r.start < r.end)
        .collect();
    ranges.sort_by_key(|r| r.start);
    let mut out: Vec<Range<u64>> = Vec::new();
    for range in ranges {
        match out.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => out.push(range),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Ranges(u64, Vec<Range<u64>>);
    impl Content for Ranges {
        fn size(&self) -> u64 {
            self.0
        }
        fn ranges(&self) -> Vec<Range<u64>> {
            self.1.clone()
        }
        fn read(&self, _: u64, out: &mut [u8]) -> io::Result<()> {
            out.fill(0);
            Ok(())
        }
    }

    #[test]
    fn pieces_cover_every_wanted_sector_once_and_no_other() {
        let size = (64 << 20) + 512 * 3;
        let wanted = vec![
            0..700,
            700..1024,
            (3 << 20) + 100..(13 << 20) + 5,
            (62 << 20)..size - 512,
            size - 512..size,
        ];
        let pieces = Pieces::of(&Ranges(size, wanted.clone()));
        let all: Vec<_> = pieces.body.iter().chain(&pieces.tail).cloned().collect();
        assert!(all.windows(2).all(|w| w[0].end <= w[1].start));
        assert!(all.iter().all(|r| r.end - r.start <= PIECE && r.start % 512 == 0 && r.end % 512 == 0));
        for sector in (HEAD..size).step_by(512) {
            let want = wanted.iter().any(|r| r.start < sector + 512 && sector < r.end);
            let have = all.iter().filter(|r| r.contains(&sector)).count();
            assert_eq!(have, usize::from(want), "sector at {sector}");
        }
        let border = (size - TAIL) / 4096 * 4096;
        assert!(pieces.body.iter().all(|r| r.end <= border) && pieces.tail.iter().all(|r| r.start >= border));
        assert_eq!(pieces.head, 0..HEAD);
    }
}
