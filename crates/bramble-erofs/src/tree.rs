//! From a list of entries to a checked tree.

use std::collections::HashMap;

use crate::directory;
use crate::format::{self, BLOCK, FileType, NAME_MAX, SLOT_BYTES, SYMLINK_MAX};

/// One file, directory, link or device of the image to be.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Path from the root, without a leading or closing `/`; empty for the root directory itself.
    pub path: &'a [u8],
    /// What it is.
    pub kind: Kind<'a>,
    /// Permission bits, at most `0o7777`. Not looked at for hard links.
    pub mode: u16,
    /// Owner. Not looked at for hard links.
    pub uid: u32,
    /// Group. Not looked at for hard links.
    pub gid: u32,
    /// Modification time in seconds since 1970; `None` means the image's build time, which makes the smaller inode. Not
    /// looked at for hard links.
    pub mtime: Option<u64>,
}

impl<'a> Entry<'a> {
    /// An entry that belongs to root and bears the image's build time.
    pub fn new(path: &'a [u8], kind: Kind<'a>, mode: u16) -> Self {
        Self { path, kind, mode, uid: 0, gid: 0, mtime: None }
    }
}

/// What an [`Entry`] is.
#[derive(Clone, Copy, Debug)]
pub enum Kind<'a> {
    /// A directory.
    Directory,
    /// A regular file and its content.
    File(&'a [u8]),
    /// A symbolic link and its target, 1 to 4095 bytes.
    Symlink(&'a [u8]),
    /// Another name for the entry of this path, which is neither a directory nor a hard link.
    HardLink(&'a [u8]),
    /// A character device.
    CharDevice {
        /// Major number, 12 bits.
        major: u32,
        /// Minor number, 20 bits.
        minor: u32,
    },
    /// A block device.
    BlockDevice {
        /// Major number, 12 bits.
        major: u32,
        /// Minor number, 20 bits.
        minor: u32,
    },
    /// A named pipe.
    Fifo,
    /// A socket.
    Socket,
}

/// Why a list of entries cannot become an image.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A path is absolute, has an empty, `.` or `..` component, a zero byte, or a name of more than 255 bytes.
    #[error("{path}: not a path this image can hold ({reason})")]
    BadPath {
        /// The path, lossily decoded.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two entries have one path.
    #[error("{path}: stated twice")]
    Duplicate {
        /// The path, lossily decoded.
        path: String,
    },
    /// The directory of an entry was not given, or is something else.
    #[error("{path}: its parent is not a directory of this image")]
    NoParent {
        /// The path, lossily decoded.
        path: String,
    },
    /// A hard link's target was not given, or is a directory or another hard link.
    #[error("{path}: hard link to {target}, which is not a file of this image")]
    BadLink {
        /// The path, lossily decoded.
        path: String,
        /// What it links to, lossily decoded.
        target: String,
    },
    /// Something of an entry does not fit its field.
    #[error("{path}: {reason}")]
    BadEntry {
        /// The path, lossily decoded.
        path: String,
        /// What does not fit.
        reason: &'static str,
    },
    /// The label is longer than 16 bytes.
    #[error("the label {label:?} is longer than 16 bytes")]
    LabelTooLong {
        /// The label.
        label: String,
    },
    /// More than 2^32 blocks.
    #[error("the image would be larger than 16 TiB")]
    TooLarge,
}

/// Index of a node in [`Tree::nodes`].
pub(crate) type NodeId = usize;

/// The root is the first node.
pub(crate) const ROOT: NodeId = 0;

/// One inode.
pub(crate) struct Node<'a> {
    pub path: &'a [u8],
    pub body: Body<'a>,
    pub mode: u16,
    pub uid: u32,
    pub gid: u32,
    pub mtime: Option<u64>,
    pub nlink: u32,
}

/// What is behind an inode.
pub(crate) enum Body<'a> {
    Directory(Directory<'a>),
    File(&'a [u8]),
    Symlink(&'a [u8]),
    /// Type and encoded device number (0 for pipes and sockets).
    Special(FileType, u32),
}

/// The children of a directory, `.` and `..` among them, ascending by name.
pub(crate) struct Directory<'a> {
    pub children: Vec<(&'a [u8], NodeId)>,
    pub size: u64,
}

/// A checked tree: every directory exists, every name is unique. Nodes ascend by path.
pub(crate) struct Tree<'a> {
    pub nodes: Vec<Node<'a>>,
}

impl<'a> Tree<'a> {
    pub(crate) fn build(mut entries: Vec<Entry<'a>>) -> Result<Self, PlanError> {
        for entry in &entries {
            check(entry)?;
        }
        entries.sort_unstable_by_key(|entry| entry.path);
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(PlanError::Duplicate { path: lossy(pair[0].path) });
        }
        // The root may be left out; it then is what most roots are.
        if entries.first().is_none_or(|entry| !entry.path.is_empty()) {
            entries.insert(0, Entry::new(b"", Kind::Directory, 0o755));
        }

        let (mut nodes, ids) = inodes(&entries)?;
        // Nodes were made in the order of the entries.
        let mut fresh = 0..nodes.len();
        for entry in &entries {
            let id = match entry.kind {
                Kind::HardLink(target) => {
                    let id = ids.get(target).copied().filter(|id| !nodes[*id].is_directory());
                    let id = id.ok_or_else(|| bad_link(entry.path, target))?;
                    nodes[id].nlink += 1;
                    id
                }
                _ => fresh.next().unwrap_or(ROOT),
            };
            if entry.path.is_empty() {
                continue;
            }
            let (parent, name) = split(entry.path);
            let parent = ids.get(parent).copied();
            let parent = parent.ok_or_else(|| PlanError::NoParent { path: lossy(entry.path) })?;
            let is_directory = nodes[id].is_directory();
            let holder = &mut nodes[parent];
            holder.nlink += u32::from(is_directory);
            match &mut holder.body {
                Body::Directory(directory) => directory.children.push((name, id)),
                _ => return Err(PlanError::NoParent { path: lossy(entry.path) }),
            }
            if let Body::Directory(directory) = &mut nodes[id].body {
                directory.children.push((b"..", parent));
            }
        }
        if let Body::Directory(root) = &mut nodes[ROOT].body {
            root.children.push((b"..", ROOT));
        }
        let mut lengths = Vec::new();
        for (id, node) in nodes.iter_mut().enumerate() {
            if let Body::Directory(directory) = &mut node.body {
                directory.children.push((b".", id));
                directory.children.sort_unstable_by_key(|(name, _)| *name);
                lengths.clear();
                lengths.extend(directory.children.iter().map(|(name, _)| name.len()));
                directory.size = directory::size(&lengths);
            }
        }
        Ok(Self { nodes })
    }
}

/// Nodes by path.
type Ids<'a> = HashMap<&'a [u8], NodeId>;

/// A node for every entry that is not a hard link, and where each path went.
fn inodes<'a>(entries: &[Entry<'a>]) -> Result<(Vec<Node<'a>>, Ids<'a>), PlanError> {
    let mut nodes = Vec::with_capacity(entries.len());
    let mut ids = HashMap::with_capacity(entries.len());
    for entry in entries {
        let (body, nlink) = match entry.kind {
            Kind::HardLink(_) => continue,
            Kind::Directory => (Body::Directory(Directory { children: Vec::new(), size: 0 }), 2),
            Kind::File(data) => (Body::File(data), 1),
            Kind::Symlink(target) => (Body::Symlink(target), 1),
            Kind::CharDevice { major, minor } => {
                (Body::Special(FileType::CharDevice, format::encode_device(major, minor)), 1)
            }
            Kind::BlockDevice { major, minor } => {
                (Body::Special(FileType::BlockDevice, format::encode_device(major, minor)), 1)
            }
            Kind::Fifo => (Body::Special(FileType::Fifo, 0), 1),
            Kind::Socket => (Body::Special(FileType::Socket, 0), 1),
        };
        if entry.path.is_empty() && !matches!(body, Body::Directory(_)) {
            return Err(PlanError::BadEntry { path: "/".into(), reason: "the root must be a directory" });
        }
        ids.insert(entry.path, nodes.len());
        nodes.push(Node {
            path: entry.path,
            body,
            mode: entry.mode,
            uid: entry.uid,
            gid: entry.gid,
            mtime: entry.mtime,
            nlink,
        });
    }
    if !matches!(nodes.first(), Some(Node { path: b"", .. })) {
        return Err(PlanError::BadEntry { path: "/".into(), reason: "the root must be a directory" });
    }
    Ok((nodes, ids))
}

impl Node<'_> {
    pub(crate) fn file_type(&self) -> FileType {
        match &self.body {
            Body::Directory(_) => FileType::Directory,
            Body::File(_) => FileType::File,
            Body::Symlink(_) => FileType::Symlink,
            Body::Special(file_type, _) => *file_type,
        }
    }

    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.body, Body::Directory(_))
    }

    /// `i_size` in bytes.
    pub(crate) fn size(&self) -> u64 {
        match &self.body {
            Body::Directory(directory) => directory.size,
            Body::File(data) | Body::Symlink(data) => data.len() as u64,
            Body::Special(..) => 0,
        }
    }

    /// Whether the compact inode is too small. It has no time of its own and 16-bit owners and link counts.
    pub(crate) fn extended(&self, build_time: u64) -> bool {
        self.mtime.is_some_and(|mtime| mtime != build_time)
            || self.uid > u32::from(u16::MAX)
            || self.gid > u32::from(u16::MAX)
            || self.nlink > u32::from(u16::MAX)
            || self.size() > u64::from(u32::MAX)
    }

    /// Whether the data follows the inode. Only for symbolic links: they are names, not content, and a block each would
    /// cost megabytes in a Debian tree and a read for every link that is followed.
    pub(crate) fn is_inline(&self) -> bool {
        // Half a block: a longer one would leave too much of its inode block unusable.
        matches!(self.body, Body::Symlink(target) if target.len() <= 2048)
    }

    /// Inode slots, inline data counted.
    pub(crate) fn slots(&self, build_time: u64) -> u32 {
        let inline = if self.is_inline() { self.size() as usize } else { 0 };
        (format::RawInode::bytes(self.extended(build_time)) + inline).div_ceil(SLOT_BYTES) as u32
    }

    /// Blocks of its own.
    pub(crate) fn blocks(&self) -> u64 {
        if self.is_inline() { 0 } else { self.size().div_ceil(BLOCK) }
    }
}

fn check(entry: &Entry<'_>) -> Result<(), PlanError> {
    let bad = |reason| Err(PlanError::BadPath { path: lossy(entry.path), reason });
    if !entry.path.is_empty() {
        for name in entry.path.split(|byte| *byte == b'/') {
            match name {
                b"" => return bad("absolute, or an empty name"),
                b"." | b".." => return bad("`.` or `..` in it"),
                _ if name.len() > NAME_MAX => return bad("a name of more than 255 bytes"),
                _ if name.contains(&0) => return bad("a zero byte"),
                _ => {}
            }
        }
    }
    let bad = |reason| Err(PlanError::BadEntry { path: lossy(entry.path), reason });
    match entry.kind {
        Kind::Symlink(target) if target.is_empty() || target.len() > SYMLINK_MAX => {
            bad("a symbolic link's target has 1 to 4095 bytes")
        }
        Kind::Symlink(target) if target.contains(&0) => bad("a zero byte in the link's target"),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor }
            if major > 0xfff || minor > 0xf_ffff =>
        {
            bad("a device has a major number of 12 bits and a minor one of 20")
        }
        Kind::HardLink(_) => Ok(()),
        _ if entry.mode > 0o7777 => bad("the mode has more than permission bits"),
        _ => Ok(()),
    }
}

/// Parent and name.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

fn bad_link(path: &[u8], target: &[u8]) -> PlanError {
    PlanError::BadLink { path: lossy(path), target: lossy(target) }
}

pub(crate) fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}
