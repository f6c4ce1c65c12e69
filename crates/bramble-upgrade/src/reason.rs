//! Why a release was not written or not kept: stable words, for the journal, for `status` and for people's searches.
//! Why one was not taken at all has its own words, `bramble_api`'s.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Why a release was not written, or not kept. The word of each is part of the interface: it is never
/// changed and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// It must not follow what runs: it skips a minor version of Kubernetes.
    Skips,
    /// It does not fit this disk.
    SlotTooSmall,
    /// The source does not answer, breaks off, or is too slow.
    Source,
    /// The source led elsewhere: to plain http, or to another release.
    Redirected,
    /// What was loaded is not what the manifest says.
    BadPack,
    /// The journal cannot be written: data is full, read-only or gone.
    NoJournal,
    /// The medium does not give back what was written.
    ReadBack,
    /// The medium refuses a read or a write.
    Medium,
    /// The firmware did not take the request for a trial.
    NotApplied,
    /// The trial was asked for, and nothing was ever heard of it: its kernel died, or the power went.
    NoWord,
    /// The trial's system started, and did not become healthy in time.
    Unhealthy,
    /// The release that ran cannot be started any more.
    SlotDamaged,
    /// A person asked to go back.
    Asked,
}

impl Reason {
    /// Every reason.
    pub const ALL: [Reason; 13] = [
        Reason::Skips,
        Reason::SlotTooSmall,
        Reason::Source,
        Reason::Redirected,
        Reason::BadPack,
        Reason::NoJournal,
        Reason::ReadBack,
        Reason::Medium,
        Reason::NotApplied,
        Reason::NoWord,
        Reason::Unhealthy,
        Reason::SlotDamaged,
        Reason::Asked,
    ];

    /// The stable word.
    pub fn word(self) -> &'static str {
        match self {
            Reason::Skips => "skips",
            Reason::SlotTooSmall => "slot-too-small",
            Reason::Source => "source",
            Reason::Redirected => "redirected",
            Reason::BadPack => "bad-pack",
            Reason::NoJournal => "no-journal",
            Reason::ReadBack => "read-back",
            Reason::Medium => "medium",
            Reason::NotApplied => "not-applied",
            Reason::NoWord => "no-word",
            Reason::Unhealthy => "unhealthy",
            Reason::SlotDamaged => "slot-damaged",
            Reason::Asked => "asked",
        }
    }

    /// Whether it counts against the release. What the network, the power or a server did does not: a release is not
    /// given up for the weather.
    pub fn counts(self) -> bool {
        matches!(
            self,
            Reason::BadPack
                | Reason::ReadBack
                | Reason::NotApplied
                | Reason::NoWord
                | Reason::Unhealthy
                | Reason::SlotDamaged
                | Reason::Asked
        )
    }

    /// Whether the slot may hold something that starts and is bad, so that it must be made unbootable.
    ///
    /// A trial that was never heard of may have had its power cut: it may be tried once more as it is.
    pub fn condemns(self) -> bool {
        !matches!(self, Reason::NotApplied | Reason::NoWord)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_what_is_stored() {
        for reason in Reason::ALL {
            assert_eq!(serde_json::to_string(&reason).unwrap(), format!("\"{}\"", reason.word()));
        }
        let mut words = Reason::ALL.map(Reason::word);
        words.sort();
        assert!(words.windows(2).all(|pair| pair[0] != pair[1]));
    }
}
