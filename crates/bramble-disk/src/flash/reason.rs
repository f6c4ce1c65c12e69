//! Why a disk is not written, in a person's words, each with what to try.

use crate::card::CardId;
use crate::device::{Foreign, size_text};
use std::path::PathBuf;

/// Why a disk is not written. Nothing on it was changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is nothing of that name.
    #[error("there is no {}", shown(path))]
    Missing {
        /// What was named.
        path: PathBuf,
    },
    /// A link.
    #[error("{} is a link: where it leads can change while one looks", shown(path))]
    Link {
        /// What was named.
        path: PathBuf,
        /// Where it leads now.
        to: Option<PathBuf>,
    },
    /// A file.
    #[error("{} is a file, not a disk", shown(path))]
    File {
        /// What was named.
        path: PathBuf,
    },
    /// Something else that is no disk.
    #[error("{} is no disk", shown(path))]
    NoDisk {
        /// What was named.
        path: PathBuf,
    },
    /// A partition.
    #[error("{name} is a partition; a node takes a whole disk")]
    Partition {
        /// Its name.
        name: String,
        /// Its disk.
        disk: String,
    },
    /// The disk went away between looking and writing.
    #[error("{name} is gone")]
    Gone {
        /// Its name.
        name: String,
    },
    /// Another disk, or another medium, than the one that was confirmed.
    #[error("{name} is not the disk that was confirmed: {what}")]
    Changed {
        /// Its name.
        name: String,
        /// What differs.
        what: String,
    },
    /// A disk that exists in memory, over the network, or on top of others.
    #[error("{name} is no disk that can be taken out of this computer")]
    Virtual {
        /// Its name.
        name: String,
    },
    /// A loop device.
    #[error("{name} is a file of this computer shown as a disk{}", backed(file.as_ref()))]
    Loop {
        /// Its name.
        name: String,
        /// The file.
        file: Option<PathBuf>,
    },
    /// A loop device over a file that belongs to the project.
    #[error("{name} shows {}, which belongs to this project", shown(file))]
    OwnImage {
        /// Its name.
        name: String,
        /// The file.
        file: PathBuf,
    },
    /// No medium.
    #[error("{name} has no medium in it")]
    Empty {
        /// Its name.
        name: String,
    },
    /// The system's own disk.
    #[error("{name} carries {at} of this computer")]
    System {
        /// Its name.
        name: String,
        /// A mount point.
        at: String,
    },
    /// Mounted.
    #[error("{part} of {name} is mounted at {}", Foreign::new(at))]
    Mounted {
        /// Its name.
        name: String,
        /// What is mounted.
        part: String,
        /// Where.
        at: String,
    },
    /// Swap.
    #[error("this computer swaps to {part} of {name}")]
    Swap {
        /// Its name.
        name: String,
        /// What is swapped to.
        part: String,
    },
    /// Part of something bigger.
    #[error("{name} is part of {of} ({})", Foreign::new(whole))]
    Member {
        /// Its name.
        name: String,
        /// Of what kind.
        of: &'static str,
        /// The bigger thing's name.
        whole: String,
    },
    /// The kernel refuses to write.
    #[error("{name} is read-only")]
    ReadOnly {
        /// Its name.
        name: String,
    },
    /// Sectors that the layout does not fit.
    #[error("{name} has sectors of {sector} bytes; the layout needs 512")]
    Sector {
        /// Its name.
        name: String,
        /// Bytes of its sector.
        sector: u32,
    },
    /// Too small.
    #[error("{name} has {}; the layout needs {}", size_text(*size), size_text(*needs))]
    TooSmall {
        /// Its name.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// Bytes needed.
        needs: u64,
    },
    /// A built-in disk.
    #[error("{name} is a built-in disk ({bus})")]
    Fixed {
        /// Its name.
        name: String,
        /// How it is attached.
        bus: &'static str,
    },
    /// It cannot be told from another.
    #[error("{name} has no serial number: it cannot be told from another disk")]
    NoSerial {
        /// Its name.
        name: String,
    },
    /// Another serial than the file says.
    #[error("the file wants {wants} for {node}; {name} has {}", or_none(has.as_ref()))]
    OtherSerial {
        /// Its name.
        name: String,
        /// The node.
        node: String,
        /// What the file wants.
        wants: String,
        /// What it has.
        has: Option<Foreign>,
        /// What it has may be a reader's.
        reader: bool,
    },
    /// Another size than the file says.
    #[error("the file wants a disk of {} for {node}; {name} has {}", size_text(*wants), size_text(*has))]
    OtherSize {
        /// Its name.
        name: String,
        /// The node.
        node: String,
        /// What the file wants, in bytes.
        wants: u64,
        /// What it has, in bytes.
        has: u64,
    },
    /// The disk of another node.
    #[error("{name} is the disk of {owner}, by its {by}")]
    OtherNode {
        /// Its name.
        name: String,
        /// The other node.
        owner: String,
        /// `serial number`, `Bramble card id`.
        by: &'static str,
        /// What `--yes-erase` takes, where that helps.
        token: Option<String>,
    },
    /// Two disks say that they are the same.
    #[error("{name} and {other} have the same {what} ({id})")]
    Shared {
        /// Its name.
        name: String,
        /// The other one's.
        other: String,
        /// `serial number`, `Bramble card id`.
        what: &'static str,
        /// The number.
        id: String,
    },
    /// It could not be looked at.
    #[error("it cannot be seen what lies on {name}: {why}")]
    Unseen {
        /// Its name.
        name: String,
        /// Why.
        why: String,
    },
    /// It holds what cards do not usually hold.
    #[error("{name} holds {holds}")]
    Precious {
        /// Its name.
        name: String,
        /// What.
        holds: String,
        /// What `--yes-erase` takes.
        token: String,
    },
    /// Larger than cards are.
    #[error("{name} has {}: more than cards usually have", size_text(*size))]
    Large {
        /// Its name.
        name: String,
        /// Its size in bytes.
        size: u64,
        /// What `--yes-erase` takes.
        token: String,
    },
    /// `--keep-data` where there is none.
    #[error("{name} has no data of a Bramble node to keep")]
    NothingToKeep {
        /// Its name.
        name: String,
    },
    /// Meant for two nodes in one run.
    #[error("{name} is already taken for {owner}")]
    Taken {
        /// Its name.
        name: String,
        /// The other node.
        owner: String,
    },
    /// Nobody confirmed it.
    #[error("nobody has confirmed {name} for {node}")]
    NotConfirmed {
        /// Its name.
        name: String,
        /// The node.
        node: String,
        /// What `--confirm` takes.
        token: String,
    },
    /// The typed answer is not the asked one.
    #[error("that is not what was asked for; {name} is left as it is")]
    WrongAnswer {
        /// Its name.
        name: String,
    },
    /// More than one disk fits.
    #[error("more than one disk fits {node}: {}", names.join(", "))]
    Ambiguous {
        /// The node.
        node: String,
        /// Their names.
        names: Vec<String>,
    },
    /// No disk fits.
    #[error("no disk for {node} is there{}", wanted(wants.as_deref()))]
    NothingFits {
        /// The node.
        node: String,
        /// What the file wants.
        wants: Option<String>,
    },
    /// Nobody said which disk.
    #[error("it is not said which disk is to become {node}")]
    NotChosen {
        /// The node.
        node: String,
    },
}

fn shown(path: &std::path::Path) -> Foreign {
    Foreign::new(&path.to_string_lossy())
}

fn backed(file: Option<&PathBuf>) -> String {
    file.map(|f| format!(" ({})", shown(f))).unwrap_or_default()
}

fn or_none(has: Option<&Foreign>) -> String {
    has.map_or("none".to_string(), ToString::to_string)
}

fn wanted(wants: Option<&str>) -> String {
    wants.map(|w| format!(": the file wants {w}")).unwrap_or_default()
}

impl Refusal {
    /// What to try.
    pub fn hint(&self) -> String {
        let list = "`bramble flash --list` shows the disks that are there";
        match self {
            Refusal::Missing { .. } | Refusal::NoDisk { .. } => list.to_string(),
            Refusal::Link { to: Some(to), .. } => format!("name the disk itself; now that is {}", shown(to)),
            Refusal::Link { to: None, .. } => "name the disk itself".to_string(),
            Refusal::File { .. } => "`bramble build --node NODE` writes an image file".to_string(),
            Refusal::Partition { disk, .. } => format!("name the whole disk: /dev/{disk}"),
            Refusal::Gone { .. } => "put it in and run the command again".to_string(),
            Refusal::Changed { .. } => {
                "look at the disks again with `bramble flash --list`, then confirm anew".to_string()
            }
            Refusal::Virtual { .. } | Refusal::Loop { .. } => list.to_string(),
            Refusal::OwnImage { name, .. } => format!("detach it: losetup -d /dev/{name}"),
            Refusal::Empty { .. } => {
                "put a card in, and leave the device out: the command waits for it".to_string()
            }
            Refusal::System { .. } => "choose another disk; this one is never written".to_string(),
            Refusal::Mounted { part, .. } => {
                format!(
                    "if it is the right disk: umount /dev/{part}, and keep the desktop from mounting it again"
                )
            }
            Refusal::Swap { part, .. } => format!("if it is the right disk: swapoff /dev/{part}"),
            Refusal::Member { of, .. } => match *of {
                "LVM" => "if it is the right disk: vgchange -an its volume group".to_string(),
                "software RAID" => "if it is the right disk: mdadm --stop the array".to_string(),
                "LUKS" => "if it is the right disk: cryptsetup close it".to_string(),
                _ => "if it is the right disk: take it out of what it is part of".to_string(),
            },
            Refusal::ReadOnly { .. } => {
                "an SD card has a lock on its side; a worn card locks itself for good".to_string()
            }
            Refusal::Sector { .. } => "use another disk, or set it to 512-byte sectors".to_string(),
            Refusal::TooSmall { .. } => "use a larger card".to_string(),
            Refusal::Fixed { .. } => "if it is the right disk, add --allow-fixed".to_string(),
            Refusal::NoSerial { .. } => "attach it so that its serial shows, or use another disk".to_string(),
            Refusal::OtherSerial { reader: true, .. } => {
                "a card reader shows its own serial, not the card's: give `size` instead in `disks.boot`"
                    .to_string()
            }
            Refusal::OtherSerial { has: Some(has), .. } if has.is_plain() => {
                format!(
                    "put the right disk in; or, if this one is right, write {has} into `disks.boot` of the file"
                )
            }
            Refusal::OtherSerial { .. } => {
                "put the right disk in, or correct `disks.boot` in the file".to_string()
            }
            Refusal::OtherSize { .. } => {
                "put the right card in, or correct `disks.boot` in the file".to_string()
            }
            Refusal::OtherNode { token: Some(token), .. }
            | Refusal::Precious { token, .. }
            | Refusal::Large { token, .. } => {
                format!("if all that is on it may go: --yes-erase {token}")
            }
            Refusal::OtherNode { token: None, owner, .. } => {
                format!("flash {owner} onto it, or correct `disks.boot` in the file")
            }
            Refusal::Shared { .. } => "take one of the two out".to_string(),
            Refusal::Unseen { name, .. } => {
                format!("let yourself read and write it: sudo setfacl -m u:$USER:rw /dev/{name}")
            }
            Refusal::NothingToKeep { .. } => "leave --keep-data out".to_string(),
            Refusal::Taken { .. } => "every node needs a disk of its own".to_string(),
            Refusal::NotConfirmed { token, .. } => {
                format!("if it is the right disk, say so: --confirm {token}")
            }
            Refusal::WrongAnswer { .. } => {
                "look at the label of the disk, then run the command again".to_string()
            }
            Refusal::Ambiguous { .. } => "name one of them".to_string(),
            Refusal::NothingFits { .. } => format!("put it in; {list}"),
            Refusal::NotChosen { .. } => {
                format!("name it, and add --confirm with what identifies it; {list}")
            }
        }
    }
}

/// Text of a card's name for people.
pub(super) fn card_text(id: CardId) -> String {
    format!("card-{id}")
}
