//! What to do about the machine document and the data partition: the decision, apart from the acts.

use std::fmt;

/// Random name of an installation, 16 bytes; also the UUID of the data file system that it makes.
pub type Incarnation = [u8; 16];

/// What the identity partition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IdentityState {
    /// A whole document that no boot has taken yet.
    Unconsumed {
        /// Of the document.
        incarnation: Incarnation,
        /// The document allows data of another incarnation to be taken over.
        keep_data: bool,
    },
    /// A whole header, but the document behind it does not fit its hash: a wipe that was cut, or damage.
    Torn {
        /// SHA-256 of the document, from the header.
        sha256: [u8; 32],
    },
    /// Zeros: taken by an earlier boot.
    Consumed,
    /// Something else; the text says what.
    Broken(String),
}

/// What the data partition holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DataState {
    /// The head is zero: fresh, or a `mkfs` that did not reach its last write.
    Empty,
    /// Our mark: a `mkfs` that had only begun.
    Marked,
    /// The superblock of an ext4 that does not fit its checksum.
    TornSuperblock {
        /// From the superblock.
        uuid: Incarnation,
    },
    /// An ext4 that is mounted.
    Ext4 {
        /// From the superblock.
        uuid: Incarnation,
        /// The document on it.
        document: Kept,
    },
    /// An ext4 that cannot be checked or mounted; the text says why.
    Damaged(String),
    /// Neither of these.
    Foreign,
}

/// The machine document on a data file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// There is none.
    None,
    /// One that can be read.
    Document {
        /// Of the document.
        incarnation: Incarnation,
        /// Of its JSON.
        sha256: [u8; 32],
    },
    /// One that cannot be read; the text says why.
    Unreadable(String),
}

/// What pid 1 does about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the data file system, then as [`Action::Copy`].
    Make,
    /// Copy the document to data, then as [`Action::FinishWipe`].
    Copy,
    /// Wipe the identity partition; the document is on data.
    FinishWipe,
    /// Go on with the document on data.
    Normal,
    /// Touch nothing and say why.
    Fail(Reason),
}

/// Why a machine cannot go on by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The identity partition is unreadable.
    Identity(String),
    /// The document was consumed, and data does not hold it.
    DocumentLost(&'static str),
    /// Data belongs to another installation.
    OtherIncarnation,
    /// Data is an ext4 that cannot be used.
    DataDamaged(String),
    /// Data holds something that is not ours.
    DataForeign,
    /// The document on data is unreadable.
    DocumentUnreadable(String),
}

/// Decides from what is found.
///
/// Data is formatted only while the document is unconsumed, and only over zeros, over our own mark, or over a
/// superblock that this very incarnation's `mkfs` was cut in (its UUID is the incarnation's, and nothing but pid 1
/// has ever written there: systemd is started only after the wipe).
pub fn decide(identity: &IdentityState, data: &DataState) -> Action {
    use Action::{Copy, Fail, FinishWipe, Make, Normal};
    match (identity, data) {
        (IdentityState::Broken(why), _) => Fail(Reason::Identity(why.clone())),
        (_, DataState::Foreign) => Fail(Reason::DataForeign),
        (_, DataState::Damaged(why)) => Fail(Reason::DataDamaged(why.clone())),

        (IdentityState::Unconsumed { .. }, DataState::Empty | DataState::Marked) => Make,
        (IdentityState::Unconsumed { incarnation, .. }, DataState::TornSuperblock { uuid })
            if uuid == incarnation =>
        {
            Make
        }
        (_, DataState::TornSuperblock { .. }) => {
            Fail(Reason::DataDamaged("the superblock does not fit its checksum".into()))
        }
        (IdentityState::Unconsumed { incarnation, keep_data }, DataState::Ext4 { uuid, document }) => {
            let ours = match document {
                Kept::Document { incarnation: found, .. } if found == incarnation => return FinishWipe,
                Kept::Document { .. } => false,
                // Cut between mkfs and the copy.
                Kept::None | Kept::Unreadable(_) => uuid == incarnation,
            };
            if ours || *keep_data { Copy } else { Fail(Reason::OtherIncarnation) }
        }

        // The wipe zeroes the document before its header, so the header still says what the document was.
        (
            IdentityState::Torn { sha256 },
            DataState::Ext4 { document: Kept::Document { sha256: found, .. }, .. },
        ) if found == sha256 => FinishWipe,
        (IdentityState::Torn { .. }, _) => {
            Fail(Reason::Identity("the machine document does not fit its hash".into()))
        }

        (IdentityState::Consumed, DataState::Ext4 { document, .. }) => match document {
            Kept::Document { .. } => Normal,
            Kept::None => Fail(Reason::DocumentLost("has no machine document")),
            Kept::Unreadable(why) => Fail(Reason::DocumentUnreadable(why.clone())),
        },
        (IdentityState::Consumed, DataState::Empty) => Fail(Reason::DocumentLost("is empty")),
        (IdentityState::Consumed, DataState::Marked) => Fail(Reason::DocumentLost("is half made")),
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Reason::Identity(why) => write!(f, "identity: {why}; flash this machine again"),
            Reason::DocumentLost(what) => write!(
                f,
                "the machine document was taken by an earlier boot, but the data partition {what}; flash this machine again"
            ),
            Reason::OtherIncarnation => f.write_str(
                "the data partition belongs to another installation; it was left alone. Flash with --keep-data to take it over, or without to erase it",
            ),
            Reason::DataDamaged(why) => {
                write!(f, "the data partition is damaged and was not formatted: {why}; restore it, or flash this machine again")
            }
            Reason::DataForeign => f.write_str(
                "the data partition holds something that is not Bramble's; it was left alone. Flash this machine again to erase it",
            ),
            Reason::DocumentUnreadable(why) => {
                write!(f, "the machine document on the data partition cannot be read: {why}; flash this machine again")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: Incarnation = [1; 16];
    const OTHER: Incarnation = [2; 16];
    const SHA: [u8; 32] = [3; 32];

    fn identities() -> Vec<(&'static str, IdentityState)> {
        vec![
            ("fresh", IdentityState::Unconsumed { incarnation: OURS, keep_data: false }),
            ("fresh-keep", IdentityState::Unconsumed { incarnation: OURS, keep_data: true }),
            ("torn", IdentityState::Torn { sha256: SHA }),
            ("torn-else", IdentityState::Torn { sha256: [9; 32] }),
            ("consumed", IdentityState::Consumed),
            ("broken", IdentityState::Broken("odd".into())),
        ]
    }

    fn datas() -> Vec<(&'static str, DataState)> {
        let ext4 = |uuid, document| DataState::Ext4 { uuid, document };
        let document = |incarnation| Kept::Document { incarnation, sha256: SHA };
        vec![
            ("empty", DataState::Empty),
            ("marked", DataState::Marked),
            ("cut-ours", DataState::TornSuperblock { uuid: OURS }),
            ("cut-other", DataState::TornSuperblock { uuid: OTHER }),
            ("bare-ours", ext4(OURS, Kept::None)),
            ("bare-other", ext4(OTHER, Kept::None)),
            ("odd-ours", ext4(OURS, Kept::Unreadable("odd".into()))),
            ("odd-other", ext4(OTHER, Kept::Unreadable("odd".into()))),
            ("doc-ours", ext4(OURS, document(OURS))),
            ("doc-other", ext4(OTHER, document(OTHER))),
            ("taken-over", ext4(OTHER, document(OURS))),
            ("damaged", DataState::Damaged("io".into())),
            ("foreign", DataState::Foreign),
        ]
    }

    /// Every combination, written out: a row an identity, a column a data state in the order of `datas`.
    #[test]
    fn every_combination_has_its_answer() {
        let table = [
            ("fresh", "make make make fail copy fail copy fail finish fail finish fail fail"),
            ("fresh-keep", "make make make fail copy copy copy copy finish copy finish fail fail"),
            ("torn", "fail fail fail fail fail fail fail fail finish finish finish fail fail"),
            ("torn-else", "fail fail fail fail fail fail fail fail fail fail fail fail fail"),
            ("consumed", "fail fail fail fail fail fail fail fail normal normal normal fail fail"),
            ("broken", "fail fail fail fail fail fail fail fail fail fail fail fail fail"),
        ];
        assert_eq!(table.len(), identities().len());
        for ((name, identity), (row, answers)) in identities().iter().zip(table) {
            assert_eq!(*name, row);
            let answers: Vec<&str> = answers.split(' ').collect();
            assert_eq!(answers.len(), datas().len());
            for ((column, data), expected) in datas().iter().zip(answers) {
                let word = match decide(identity, data) {
                    Action::Make => "make",
                    Action::Copy => "copy",
                    Action::FinishWipe => "finish",
                    Action::Normal => "normal",
                    Action::Fail(_) => "fail",
                };
                assert_eq!(word, expected, "identity {name}, data {column}");
            }
        }
    }

    #[test]
    fn nothing_is_formatted_once_the_document_is_consumed() {
        for (name, identity) in identities() {
            for (column, data) in datas() {
                let makes = decide(&identity, &data) == Action::Make;
                assert!(!makes || matches!(identity, IdentityState::Unconsumed { .. }), "{name} {column}");
            }
        }
    }

    #[test]
    fn a_failure_says_what_to_do() {
        for (_, identity) in identities() {
            for (_, data) in datas() {
                if let Action::Fail(reason) = decide(&identity, &data) {
                    let text = reason.to_string();
                    assert!(text.contains("lash"), "{text}");
                    assert!(!text.contains('\n'));
                }
            }
        }
    }
}
