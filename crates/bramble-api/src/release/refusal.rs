//! Why a release is not taken.

use super::Unreadable;
use crate::names::{Arch, Board};

/// Why a release, an offer or a statement of keys is not taken. One line for a person; [`Refusal::code`] for programs.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The bytes are no signed document.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// Signed with a key that is not believed: unknown, or revoked.
    #[error("the {what} is signed with the key {key}, which is none of the {known} that are trusted here")]
    UnknownKey {
        /// Kind of document.
        what: &'static str,
        /// First 8 bytes of the key's SHA-256, hexadecimal.
        key: String,
        /// How many keys there are.
        known: usize,
    },
    /// The signature does not fit.
    #[error("the {0}'s signature is wrong")]
    Signature(&'static str),
    /// What was signed is no document of its kind.
    #[error("the {0} cannot be read")]
    Json(&'static str),
    /// Another format than this program reads.
    #[error("the {what} has format {format}, and this program reads format {known}")]
    Format {
        /// Kind of document.
        what: &'static str,
        /// What it says.
        format: u32,
        /// What is read here.
        known: u32,
    },
    /// The same document can be written in another way, and was.
    #[error("the {0} is not in its canonical form")]
    NotCanonical(&'static str),
    /// Other bytes than the signed offer promised.
    #[error("the {what} is not the one that the offer names: {why}")]
    NotAsOffered {
        /// Which file.
        what: &'static str,
        /// `size`, `hash`, `version`.
        why: &'static str,
    },
    /// For another cluster.
    #[error("the {what} is for the cluster {offered:?}, and this is {own:?}")]
    Cluster {
        /// Kind of document.
        what: &'static str,
        /// What it says.
        offered: String,
        /// The machine's.
        own: String,
    },
    /// For another processor.
    #[error("the release is for {release}, and this machine is {machine}")]
    Arch {
        /// What it says.
        release: Arch,
        /// The machine's.
        machine: Arch,
    },
    /// The release does not start on this board.
    #[error("release {version} is not for the board {board}")]
    Board {
        /// The release.
        version: u64,
        /// The machine's.
        board: Board,
    },
    /// A statement of keys that a newer one has replaced.
    #[error("the statement of keys has number {offered}, and {known} is known already")]
    OldKeys {
        /// What was offered.
        offered: u64,
        /// What is known.
        known: u64,
    },
    /// Older than releases may be here.
    #[error("release {version} is older than the floor {floor}")]
    Floor {
        /// The release.
        version: u64,
        /// The oldest that may run.
        floor: u64,
    },
    /// Older than what runs.
    #[error("release {version} is older than {running}, which is running")]
    Older {
        /// The release.
        version: u64,
        /// What runs.
        running: u64,
    },
    /// The offer was to be renewed, and was not: somebody may be holding newer ones back.
    #[error(
        "the offer of release {version} was good until {best_before} (seconds since 1970), and it is {now}"
    )]
    Stale {
        /// The release.
        version: u64,
        /// When it went stale.
        best_before: u64,
        /// What the clock says.
        now: u64,
    },
    /// The running agent is too old for it.
    #[error(
        "release {version} needs an agent of level {needed}, and this one has {own}: an earlier release comes first"
    )]
    Agent {
        /// The release.
        version: u64,
        /// What it needs.
        needed: u32,
        /// What runs.
        own: u32,
    },
    /// It does not fit its place on this machine's disk.
    #[error("the release's {what} has {size} bytes, and its place on this machine has {room}")]
    TooLarge {
        /// `root`, `kernel image`, `boot partition`, `pack`.
        what: &'static str,
        /// Its bytes.
        size: u64,
        /// Bytes there are.
        room: u64,
    },
    /// Sizes, hashes or paths that cannot be.
    #[error("the {what} says what cannot be: {why}")]
    Impossible {
        /// Kind of document.
        what: &'static str,
        /// What is wrong.
        why: &'static str,
    },
}

impl Refusal {
    /// A short word that does not change between versions.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::Unreadable(Unreadable::Empty) => "empty",
            Refusal::Unreadable(_) => "unreadable",
            Refusal::UnknownKey { .. } => "unknown-key",
            Refusal::Signature(_) => "signature",
            Refusal::Json(_) => "unreadable",
            Refusal::Format { .. } => "format",
            Refusal::NotCanonical(_) => "not-canonical",
            Refusal::NotAsOffered { .. } => "not-as-offered",
            Refusal::Cluster { .. } => "other-cluster",
            Refusal::Arch { .. } => "other-arch",
            Refusal::Board { .. } => "other-board",
            Refusal::OldKeys { .. } => "old-keys",
            Refusal::Floor { .. } => "below-floor",
            Refusal::Older { .. } => "older",
            Refusal::Stale { .. } => "stale",
            Refusal::Agent { .. } => "agent-too-old",
            Refusal::TooLarge { .. } => "too-large",
            Refusal::Impossible { .. } => "impossible",
        }
    }
}
