//! Which of the unflushed writes a byte of the disk comes from: a map of ranges where the latest insert wins.

use std::collections::BTreeMap;
use std::ops::Range;

/// Where a range's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// In the journal, from this byte on.
    Journal(u64),
    /// Nowhere: they are zero.
    Zero,
}

impl Source {
    /// The source of what lies `by` bytes further on.
    pub(crate) fn skip(self, by: u64) -> Source {
        match self {
            Source::Journal(at) => Source::Journal(at + by),
            Source::Zero => Source::Zero,
        }
    }
}

/// Ranges of a disk that do not overlap, each with its source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Extents {
    by_start: BTreeMap<u64, (u64, Source)>,
}

impl Extents {
    /// Lays a range over what is there.
    pub(crate) fn insert(&mut self, range: Range<u64>, source: Source) {
        if range.is_empty() {
            return;
        }
        let first = self.by_start.range(..range.start).next_back().map(|(s, _)| *s).unwrap_or(range.start);
        let hit: Vec<(u64, u64, Source)> = self
            .by_start
            .range(first..range.end)
            .filter(|(_, (end, _))| *end > range.start)
            .map(|(start, (end, source))| (*start, *end, *source))
            .collect();
        for (start, end, old) in hit {
            self.by_start.remove(&start);
            if start < range.start {
                self.by_start.insert(start, (range.start, old));
            }
            if end > range.end {
                self.by_start.insert(range.end, (end, old.skip(range.end - start)));
            }
        }
        self.by_start.insert(range.start, (range.end, source));
    }

    /// Cuts a range into pieces in order: those that are here, and the gaps between them (`None`).
    pub(crate) fn pieces(&self, range: Range<u64>) -> Vec<(Range<u64>, Option<Source>)> {
        let mut pieces = Vec::new();
        let mut at = range.start;
        let first = self.by_start.range(..=range.start).next_back().map(|(s, _)| *s).unwrap_or(range.start);
        for (&start, &(end, source)) in self.by_start.range(first..range.end) {
            if end <= at {
                continue;
            }
            if start > at {
                pieces.push((at..start, None));
                at = start;
            }
            let stop = end.min(range.end);
            pieces.push((at..stop, Some(source.skip(at - start))));
            at = stop;
        }
        if at < range.end {
            pieces.push((at..range.end, None));
        }
        pieces
    }

    /// Everything that is here, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Range<u64>, Source)> + '_ {
        self.by_start.iter().map(|(start, (end, source))| (*start..*end, *source))
    }

    /// Whether nothing is here.
    pub(crate) fn is_empty(&self) -> bool {
        self.by_start.is_empty()
    }

    /// Forgets everything.
    pub(crate) fn clear(&mut self) {
        self.by_start.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// Against the plainest model: an array that says for each byte which byte of which insert it shows.
        #[test]
        fn the_latest_insert_wins(inserts in proptest::collection::vec((0u64..200, 1u64..60, any::<bool>()), 0..40)) {
            let mut extents = Extents::default();
            let mut model = [None; 260];
            for (number, (start, length, zero)) in inserts.into_iter().enumerate() {
                let base = number as u64 * 1000;
                let source = if zero { Source::Zero } else { Source::Journal(base) };
                extents.insert(start..start + length, source);
                for i in 0..length {
                    model[(start + i) as usize] = Some(source.skip(i));
                }
            }
            for (from, to) in [(0, 260), (13, 14), (50, 120)] {
                let mut at = from;
                for (range, source) in extents.pieces(from..to) {
                    prop_assert_eq!(range.start, at);
                    for i in range.clone() {
                        prop_assert_eq!(model[i as usize], source.map(|s| s.skip(i - range.start)));
                    }
                    at = range.end;
                }
                prop_assert_eq!(at, to);
            }
        }
    }
}
