//! What becomes of unflushed writes when the power goes: a pure function of a seed.
//!
//! A drive with a volatile cache may have stored any subset of what was sent since the last flush, in any order,
//! and stores nothing smaller than a sector in one piece. The subset's *shape* is drawn first, because an even
//! coin for every write alone would never show the two shapes that find most faults: "nothing arrived" and
//! "everything up to an instant arrived".

/// What becomes of one write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It reached the medium whole.
    Kept,
    /// Some of its sectors did; [`sector_kept`] says which.
    Torn(u64),
    /// None of it did.
    Dropped,
}

/// How the subset of one cut looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shape {
    Nothing,
    Everything,
    /// Writes before this position arrived, the one at it is torn.
    UpTo(usize),
    /// Each write arrived with this chance in 256.
    Chance(u64),
}

/// The fates of `sectors.len()` unflushed writes, oldest first; each entry is the number of 512-byte sectors that
/// the write touches.
pub(crate) fn fates(seed: u64, sectors: &[u64]) -> Vec<Fate> {
    let mut random = Random(seed);
    let shape = match random.next() % 8 {
        0 => Shape::Nothing,
        1 => Shape::Everything,
        2 | 3 if !sectors.is_empty() => Shape::UpTo((random.next() % sectors.len() as u64) as usize),
        _ => Shape::Chance(32 + random.next() % 192),
    };
    sectors
        .iter()
        .enumerate()
        .map(|(i, &sectors)| {
            // Drawn for every write in every shape, so that one fate never shifts the next.
            let (coin, tear, which) = (random.next() % 256, random.next() % 8, random.next());
            let torn = if sectors > 1 { Fate::Torn(which) } else { Fate::Dropped };
            match shape {
                Shape::Nothing => Fate::Dropped,
                Shape::Everything => Fate::Kept,
                Shape::UpTo(n) if i < n => Fate::Kept,
                Shape::UpTo(n) if i == n => torn,
                Shape::UpTo(_) => Fate::Dropped,
                Shape::Chance(_) if tear == 0 && sectors > 1 => torn,
                Shape::Chance(chance) if coin < chance => Fate::Kept,
                Shape::Chance(_) => Fate::Dropped,
            }
        })
        .collect()
}

/// Whether sector `index` of a torn write's `sectors` arrived. Half of the torn writes stop somewhere, the way a
/// head or a controller stops; the others lose sectors here and there, the way a flash drive with many dies does.
pub(crate) fn sector_kept(which: u64, index: u64, sectors: u64) -> bool {
    if which & 1 == 0 {
        index < (which >> 1) % sectors.max(1)
    } else {
        Random(which ^ index.wrapping_mul(0x9e37_79b9_7f4a_7c15)).next() & 1 == 0
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): small, and the same on every computer for ever, which a seed that stands
/// in a record needs.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_recorded_seed_means_the_same_for_ever() {
        let text: Vec<String> = (0..10)
            .map(|seed| {
                fates(seed, &[1, 8, 8, 1, 256, 8])
                    .iter()
                    .map(|f| match f {
                        Fate::Kept => 'k',
                        Fate::Torn(_) => 't',
                        Fate::Dropped => '-',
                    })
                    .collect()
            })
            .collect();
        assert_eq!(text.join(" "), "k-k-kk kkkkkk ------ kt---t kkkkt- kkkkt- ------ kkkkt- kkk--t ------");
    }

    #[test]
    fn every_shape_comes_up() {
        let all: BTreeSet<Vec<bool>> =
            (0..200).map(|seed| fates(seed, &[1; 3]).iter().map(|f| *f == Fate::Kept).collect()).collect();
        assert_eq!(all.len(), 8, "all subsets of three writes");
    }

    #[test]
    fn a_torn_write_is_neither_whole_nor_always_the_same() {
        let patterns: BTreeSet<Vec<bool>> =
            (0..64).map(|which| (0..4).map(|i| sector_kept(which, i, 4)).collect()).collect();
        assert!(patterns.len() > 8);
        assert!(
            (0..64).all(|which| !sector_kept(which * 2, 3, 4)),
            "one that stops never has its last sector"
        );
    }
}
