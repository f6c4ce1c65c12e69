//! A root file system in memory.
//!
//! Every path is resolved inside the tree, the way a process with this root would see it: an absolute symbolic link
//! of the target never leads into the file system of the computer that builds (that mistake silently lost 21 of 148
//! certificate links in an experiment with tools of the host).

mod content;
mod path;

pub use content::Content;
pub use path::TreePath;

use std::collections::BTreeMap;
use std::ops::Bound;

/// Links followed in one look-up before it is called a loop; Linux's own limit (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;

/// A file, directory, link or device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Permission bits with set-id and sticky bits: at most `0o7777`.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Seconds since the epoch.
    pub mtime: u64,
    /// What it is.
    pub kind: Kind,
}

/// What a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A directory.
    Dir,
    /// A regular file.
    File(Content),
    /// A symbolic link and the text it holds.
    Symlink(Vec<u8>),
    /// Another name of the regular file at this path, which is never itself a `Hardlink`. Mode, owner and time of
    /// this node equal that file's.
    Hardlink(TreePath),
    /// A character device.
    CharDev {
        /// Driver.
        major: u32,
        /// Unit.
        minor: u32,
    },
}

impl Node {
    /// A directory of root's.
    pub fn dir(mode: u16) -> Self {
        Node { mode, uid: 0, gid: 0, mtime: 0, kind: Kind::Dir }
    }

    /// A file of root's.
    pub fn file(mode: u16, content: impl Into<Content>) -> Self {
        Node { mode, uid: 0, gid: 0, mtime: 0, kind: Kind::File(content.into()) }
    }

    /// A symbolic link.
    pub fn symlink(target: impl AsRef<[u8]>) -> Self {
        Node { mode: 0o777, uid: 0, gid: 0, mtime: 0, kind: Kind::Symlink(target.as_ref().to_vec()) }
    }

    /// The same node with another owner.
    pub fn owned(self, uid: u32, gid: u32) -> Self {
        Node { uid, gid, ..self }
    }

    /// It is a directory.
    pub fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Dir)
    }
}

/// Why a tree refused an act.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// The path climbs with `..` or holds a NUL byte.
    #[error("{path:?} is not a path inside a tree")]
    BadPath {
        /// As given.
        path: String,
    },
    /// Links lead in a circle, or through more than 40 links.
    #[error("{path}: too many levels of symbolic links")]
    Loop {
        /// Where the look-up began.
        path: TreePath,
    },
    /// A component on the way is neither a directory nor a link to one.
    #[error("{path}: {at} is not a directory")]
    NotADirectory {
        /// What was to be reached.
        path: TreePath,
        /// What stood in the way.
        at: TreePath,
    },
    /// A directory would be replaced by something else, or something else by a directory.
    #[error("{path}: a directory and something else want the same place")]
    Clash {
        /// Where.
        path: TreePath,
    },
    /// Nothing is there.
    #[error("{path}: no such file")]
    Missing {
        /// Where.
        path: TreePath,
    },
}

/// A root file system in memory: paths to nodes. Iteration is by bytes of the path, so a directory comes before what
/// it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    nodes: BTreeMap<TreePath, Node>,
}

impl Default for Tree {
    fn default() -> Self {
        Tree::new()
    }
}

impl Tree {
    /// A tree that holds nothing but its root directory.
    pub fn new() -> Self {
        Tree { nodes: BTreeMap::from([(TreePath::root(), Node::dir(0o755))]) }
    }

    /// Every path with its node, the root first.
    pub fn iter(&self) -> impl Iterator<Item = (&TreePath, &Node)> {
        self.nodes.iter()
    }

    /// How many nodes, the root counted.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Nothing but the root.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() == 1
    }

    /// The node at exactly this path; links are not followed.
    pub fn get(&self, path: &TreePath) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// The node at exactly this path, to change its mode, owner or time.
    pub fn get_mut(&mut self, path: &TreePath) -> Option<&mut Node> {
        self.nodes.get_mut(path)
    }

    /// Where a path leads when every link in it, the last too, is followed inside the tree. What does not exist yet
    /// is kept as it stands, so this also says where a new file would land.
    ///
    /// # Errors
    /// A loop of links, or a component that is no directory.
    pub fn resolve(&self, path: impl AsRef<[u8]>) -> Result<TreePath, TreeError> {
        self.walk(path.as_ref(), true)
    }

    /// As [`Tree::resolve`], but the last component is not followed: where a link itself lies.
    ///
    /// # Errors
    /// A loop of links, or a component that is no directory.
    pub fn resolve_parent(&self, path: impl AsRef<[u8]>) -> Result<TreePath, TreeError> {
        self.walk(path.as_ref(), false)
    }

    fn walk(&self, path: &[u8], follow_last: bool) -> Result<TreePath, TreeError> {
        let asked = || TreePath::new(path).unwrap_or_default();
        if path.contains(&0) {
            return Err(TreeError::BadPath { path: String::from_utf8_lossy(path).into_owned() });
        }
        // Components still to go, the next one last.
        let mut todo: Vec<Vec<u8>> = split_reversed(path);
        let mut at = TreePath::root();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == b".." {
                // At the root `..` is the root, as in a chroot.
                at = at.parent().unwrap_or_default();
                continue;
            }
            let next = at.with(&part);
            match self.nodes.get(&next).map(|node| &node.kind) {
                Some(Kind::Symlink(target)) if follow_last || !todo.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(TreeError::Loop { path: asked() });
                    }
                    if target.starts_with(b"/") {
                        at = TreePath::root();
                    }
                    todo.extend(split_reversed(target));
                }
                Some(Kind::Dir) | None => at = next,
                Some(_) if todo.is_empty() => at = next,
                Some(_) => return Err(TreeError::NotADirectory { path: asked(), at: next }),
            }
        }
        Ok(at)
    }

    /// The node a path leads to, links followed.
    pub fn lookup(&self, path: impl AsRef<[u8]>) -> Option<(TreePath, &Node)> {
        let path = self.resolve(path).ok()?;
        let node = self.nodes.get(&path)?;
        Some((path, node))
    }

    /// The bytes of the file a path leads to, symbolic and hard links followed.
    pub fn read(&self, path: impl AsRef<[u8]>) -> Option<&Content> {
        let path = self.resolve(path).ok()?;
        self.content(self.nodes.get(&path)?)
    }

    /// As [`Tree::read`], as text; `None` also when it is not UTF-8.
    pub fn read_text(&self, path: impl AsRef<[u8]>) -> Option<&str> {
        std::str::from_utf8(self.read(path)?).ok()
    }

    /// The bytes of a node of this tree that is a regular file or another name of one.
    pub fn content<'a>(&'a self, node: &'a Node) -> Option<&'a Content> {
        match &node.kind {
            Kind::File(content) => Some(content),
            Kind::Hardlink(target) => match &self.nodes.get(target)?.kind {
                Kind::File(content) => Some(content),
                _ => None,
            },
            _ => None,
        }
    }

    /// Something stands at the path, links followed.
    pub fn exists(&self, path: impl AsRef<[u8]>) -> bool {
        self.lookup(path).is_some()
    }

    /// Names and nodes of what lies directly in a directory (links to it followed), by name.
    pub fn list(&self, dir: impl AsRef<[u8]>) -> Vec<(TreePath, &Node)> {
        let Ok(dir) = self.resolve(dir) else { return Vec::new() };
        self.below(&dir)
            .filter(|(path, _)| path.parent().as_ref() == Some(&dir))
            .map(|(p, n)| (p.clone(), n))
            .collect()
    }

    /// Everything below a directory, at any depth, without the directory itself. The path is taken as it stands.
    pub fn below<'a>(&'a self, dir: &TreePath) -> impl Iterator<Item = (&'a TreePath, &'a Node)> {
        // `dir/` sorts after `dir-x` and before `dir0`: a range of exactly what lies below.
        let (low, high) = range_below(dir);
        let bounds = (Bound::Excluded(low), high.map_or(Bound::Unbounded, Bound::Excluded));
        self.nodes.range::<[u8], _>((as_ref_bound(&bounds.0), as_ref_bound(&bounds.1)))
    }

    /// Puts a node at a path, whose directory is resolved inside the tree and made (0755, root) where missing. A
    /// file, link or device that was there is replaced; a directory over a directory only takes the new mode and
    /// owner.
    ///
    /// # Errors
    /// A path that climbs, a loop, a file on the way, or a directory where something else stands.
    pub fn insert(&mut self, path: impl AsRef<[u8]>, node: Node) -> Result<TreePath, TreeError> {
        let path = path.as_ref();
        if TreePath::new(path).is_none() {
            return Err(TreeError::BadPath { path: String::from_utf8_lossy(path).into_owned() });
        }
        let at = self.resolve_parent(path)?;
        if self.nodes.get(&at).is_some_and(|old| old.is_dir() != node.is_dir()) {
            return Err(TreeError::Clash { path: at });
        }
        if let Some(parent) = at.parent() {
            self.make_dirs(&parent)?;
        }
        if matches!(self.nodes.get(&at), Some(Node { kind: Kind::File(_), .. })) {
            self.promote_links_to(&at);
        }
        self.nodes.insert(at.clone(), node);
        Ok(at)
    }

    fn make_dirs(&mut self, dir: &TreePath) -> Result<(), TreeError> {
        match self.nodes.get(dir) {
            Some(node) if node.is_dir() => return Ok(()),
            Some(_) => return Err(TreeError::NotADirectory { path: dir.clone(), at: dir.clone() }),
            None => {}
        }
        if let Some(parent) = dir.parent() {
            self.make_dirs(&parent)?;
        }
        self.nodes.insert(dir.clone(), Node::dir(0o755));
        Ok(())
    }

    /// Puts a file of root's.
    ///
    /// # Errors
    /// As [`Tree::insert`].
    pub fn file(
        &mut self,
        path: impl AsRef<[u8]>,
        mode: u16,
        content: impl Into<Content>,
    ) -> Result<TreePath, TreeError> {
        self.insert(path, Node::file(mode, content))
    }

    /// Puts a symbolic link.
    ///
    /// # Errors
    /// As [`Tree::insert`].
    pub fn symlink(
        &mut self,
        path: impl AsRef<[u8]>,
        target: impl AsRef<[u8]>,
    ) -> Result<TreePath, TreeError> {
        self.insert(path, Node::symlink(target))
    }

    /// Puts a directory, following a link that leads to one.
    ///
    /// # Errors
    /// As [`Tree::insert`].
    pub fn dir(&mut self, path: impl AsRef<[u8]>, mode: u16) -> Result<TreePath, TreeError> {
        let at = self.resolve(path)?;
        self.insert(at, Node::dir(mode))
    }

    /// Changes mode and owner of what a path leads to.
    ///
    /// # Errors
    /// Nothing is there.
    pub fn own(&mut self, path: impl AsRef<[u8]>, uid: u32, gid: u32, mode: u16) -> Result<(), TreeError> {
        let at = self.resolve(path)?;
        let file = match self.nodes.get(&at).map(|n| &n.kind) {
            Some(Kind::Hardlink(target)) => target.clone(),
            Some(Kind::File(_)) => at.clone(),
            Some(_) => {
                if let Some(node) = self.nodes.get_mut(&at) {
                    (node.mode, node.uid, node.gid) = (mode, uid, gid);
                }
                return Ok(());
            }
            None => return Err(TreeError::Missing { path: at }),
        };
        for (path, node) in &mut self.nodes {
            if *path == file || matches!(&node.kind, Kind::Hardlink(target) if *target == file) {
                (node.mode, node.uid, node.gid) = (mode, uid, gid);
            }
        }
        Ok(())
    }

    /// Takes away what lies at exactly this path and everything below it; says how many nodes that were. Other names
    /// of a file keep its bytes.
    pub fn remove(&mut self, path: &TreePath) -> usize {
        if path.is_root() {
            return 0;
        }
        let path = path.clone();
        self.prune(|at, _| at.starts_with(&path))
    }

    /// Takes away every node that `drop` says so of, with all that lies below it; the root stays. Says how many nodes
    /// that were. Other names of a dropped file keep its bytes.
    pub fn prune(&mut self, mut drop: impl FnMut(&TreePath, &Node) -> bool) -> usize {
        let mut gone: Vec<TreePath> = Vec::new();
        let mut dir: Option<TreePath> = None;
        for (path, node) in &self.nodes {
            let inside = dir.as_ref().is_some_and(|dir| path.starts_with(dir));
            if !path.is_root() && (inside || drop(path, node)) {
                if !inside && node.is_dir() {
                    dir = Some(path.clone());
                }
                gone.push(path.clone());
            }
        }
        let mut files: BTreeMap<TreePath, Node> = BTreeMap::new();
        for path in &gone {
            if let Some(node) = self.nodes.remove(path)
                && matches!(node.kind, Kind::File(_))
            {
                files.insert(path.clone(), node);
            }
        }
        self.adopt(files);
        gone.len()
    }

    /// Another name of the file at `at` becomes the file itself, because `at` is about to be replaced.
    fn promote_links_to(&mut self, at: &TreePath) {
        if let Some(node) = self.nodes.get(at).cloned() {
            self.adopt(BTreeMap::from([(at.clone(), node)]));
        }
    }

    /// The first of the names that pointed at each lost file becomes that file, the others point at it.
    fn adopt(&mut self, lost: BTreeMap<TreePath, Node>) {
        if lost.is_empty() {
            return;
        }
        let mut heirs: BTreeMap<TreePath, TreePath> = BTreeMap::new();
        for (path, node) in &mut self.nodes {
            let Kind::Hardlink(target) = &node.kind else { continue };
            let Some(file) = lost.get(target) else { continue };
            let heir = heirs.entry(target.clone()).or_insert_with(|| path.clone());
            node.kind = if heir == path { file.kind.clone() } else { Kind::Hardlink(heir.clone()) };
        }
    }

    /// Gives every node this time.
    pub fn stamp(&mut self, mtime: u64) {
        for node in self.nodes.values_mut() {
            node.mtime = mtime;
        }
    }

    /// Bytes of all regular files, each counted once however many names it has.
    pub fn bytes(&self) -> u64 {
        self.nodes
            .values()
            .map(|node| if let Kind::File(content) = &node.kind { content.len() as u64 } else { 0 })
            .sum()
    }
}

fn split_reversed(path: &[u8]) -> Vec<Vec<u8>> {
    path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b".")).rev().map(<[u8]>::to_vec).collect()
}

fn range_below(dir: &TreePath) -> (Vec<u8>, Option<Vec<u8>>) {
    if dir.is_root() {
        return (Vec::new(), None);
    }
    let mut low = dir.as_bytes().to_vec();
    low.push(b'/');
    let mut high = dir.as_bytes().to_vec();
    high.push(b'/' + 1);
    (low, Some(high))
}

fn as_ref_bound(bound: &Bound<Vec<u8>>) -> Bound<&[u8]> {
    match bound {
        Bound::Included(b) => Bound::Included(b.as_slice()),
        Bound::Excluded(b) => Bound::Excluded(b.as_slice()),
        Bound::Unbounded => Bound::Unbounded,
    }
}

#[cfg(test)]
mod tests;
