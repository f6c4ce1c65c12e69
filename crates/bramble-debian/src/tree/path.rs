//! Paths inside a tree.

use std::borrow::Borrow;

/// A path inside a tree: components joined by `/`, no leading or trailing slash, no empty, `.` or `..` component.
/// The root of the tree is the empty path. Bytes, because Linux says nothing about their encoding.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Vec<u8>);

impl TreePath {
    /// The root of a tree.
    pub fn root() -> Self {
        TreePath(Vec::new())
    }

    /// Normalises a path: slashes at either end and `.` components are dropped. `None` when a component is `..` or
    /// the path holds a NUL byte, which no file system can name.
    pub fn new(path: impl AsRef<[u8]>) -> Option<Self> {
        let path = path.as_ref();
        if path.contains(&0) {
            return None;
        }
        let mut out = Vec::with_capacity(path.len());
        for part in path.split(|b| *b == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return None,
                part => push(&mut out, part),
            }
        }
        Some(TreePath(out))
    }

    /// The bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// This is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the root on.
    pub fn components(&self) -> impl Iterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|part| !part.is_empty())
    }

    /// The last component; empty for the root.
    pub fn name(&self) -> &[u8] {
        self.0.rsplit(|b| *b == b'/').next().unwrap_or_default()
    }

    /// The directory that holds it; `None` for the root.
    pub fn parent(&self) -> Option<TreePath> {
        if self.is_root() {
            return None;
        }
        let end = self.0.iter().rposition(|b| *b == b'/').unwrap_or(0);
        Some(TreePath(self.0[..end].to_vec()))
    }

    /// This path with one more component. `None` when `name` is not a plain component.
    pub fn join(&self, name: impl AsRef<[u8]>) -> Option<TreePath> {
        let name = name.as_ref();
        if matches!(name, b"" | b"." | b"..") || name.iter().any(|b| matches!(b, 0 | b'/')) {
            return None;
        }
        Some(self.with(name))
    }

    /// As `join`, for a component that is known to be plain.
    pub(super) fn with(&self, name: &[u8]) -> TreePath {
        let mut out = Vec::with_capacity(self.0.len() + 1 + name.len());
        out.extend_from_slice(&self.0);
        push(&mut out, name);
        TreePath(out)
    }

    /// It is `dir` itself or lies below it.
    pub fn starts_with(&self, dir: &TreePath) -> bool {
        match self.0.strip_prefix(dir.as_bytes()) {
            Some(rest) => rest.is_empty() || dir.is_root() || rest[0] == b'/',
            None => false,
        }
    }

    /// As text with a leading slash, bytes that are not UTF-8 replaced.
    pub fn to_text(&self) -> String {
        format!("/{}", String::from_utf8_lossy(&self.0))
    }
}

fn push(out: &mut Vec<u8>, part: &[u8]) {
    if !out.is_empty() {
        out.push(b'/');
    }
    out.extend_from_slice(part);
}

impl Borrow<[u8]> for TreePath {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for TreePath {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Display for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.to_text())
    }
}

impl std::fmt::Debug for TreePath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_and_never_climb() {
        assert_eq!(TreePath::new("/usr//./lib/").unwrap().as_bytes(), b"usr/lib");
        assert!(TreePath::new("./").unwrap().is_root());
        assert!(TreePath::new("usr/../etc").is_none());
        assert!(TreePath::new(b"a\0b").is_none());
        assert!(TreePath::root().join("..").is_none());
        assert_eq!(TreePath::new("a").unwrap().parent(), Some(TreePath::root()));
        assert_eq!(TreePath::new("a/b").unwrap().name(), b"b");
    }

    #[test]
    fn below_is_by_component() {
        let dir = TreePath::new("usr/lib").unwrap();
        assert!(TreePath::new("usr/lib/x").unwrap().starts_with(&dir));
        assert!(!TreePath::new("usr/lib64").unwrap().starts_with(&dir));
        assert!(dir.starts_with(&TreePath::root()));
    }
}
