//! Bytes of a file, shared and never copied.

#![expect(unsafe_code, reason = "a file of the cache is mapped, so that 400 MB of contents cost no copy")]

use memmap2::Mmap;
use std::fs::File;
use std::io;
use std::ops::{Deref, Range};
use std::sync::Arc;

/// Bytes of a file: either owned, or a range of a mapped file of the cache. Cloning is cheap and shares them.
#[derive(Clone)]
pub struct Content {
    bytes: Bytes,
    range: Range<usize>,
}

#[derive(Clone)]
enum Bytes {
    Owned(Arc<[u8]>),
    Mapped(Arc<Mmap>),
}

impl Content {
    /// No bytes.
    pub fn empty() -> Self {
        Content::from(Vec::new())
    }

    /// Maps the whole of an open file.
    ///
    /// The file must be one that nobody writes to while it is mapped: the cache's files are made under another name
    /// and then renamed, and are never opened for writing again.
    ///
    /// # Errors
    /// Whatever the system says of the mapping.
    pub fn map(file: &File) -> io::Result<Self> {
        if file.metadata()?.len() == 0 {
            // An empty mapping is refused by the kernel.
            return Ok(Content::empty());
        }
        // SAFETY: the file is complete and immutable by the cache's rule above, so its bytes do not change under the
        // shared reference; a person who truncates the cache during a build gets SIGBUS, not wrong bytes.
        let map = unsafe { Mmap::map(file)? };
        let range = 0..map.len();
        Ok(Content { bytes: Bytes::Mapped(Arc::new(map)), range })
    }

    /// The part `range` of these bytes, sharing them. `None` when it reaches beyond the end.
    pub fn slice(&self, range: Range<usize>) -> Option<Self> {
        if range.start > range.end || range.end > self.len() {
            return None;
        }
        let start = self.range.start + range.start;
        Some(Content { bytes: self.bytes.clone(), range: start..start + range.len() })
    }

    /// The bytes.
    pub fn as_slice(&self) -> &[u8] {
        let whole: &[u8] = match &self.bytes {
            Bytes::Owned(bytes) => bytes,
            Bytes::Mapped(map) => map,
        };
        &whole[self.range.clone()]
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// No bytes at all.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }
}

impl Deref for Content {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl AsRef<[u8]> for Content {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}

impl From<Vec<u8>> for Content {
    fn from(bytes: Vec<u8>) -> Self {
        let range = 0..bytes.len();
        Content { bytes: Bytes::Owned(bytes.into()), range }
    }
}

impl From<String> for Content {
    fn from(text: String) -> Self {
        Content::from(text.into_bytes())
    }
}

impl From<&str> for Content {
    fn from(text: &str) -> Self {
        Content::from(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Content {
    fn from(bytes: &[u8]) -> Self {
        Content::from(bytes.to_vec())
    }
}

impl PartialEq for Content {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Content {}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({} bytes)", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_slice_of_a_slice_is_relative_to_it() {
        let whole = Content::from("0123456789");
        let part = whole.slice(2..8).unwrap();
        assert_eq!(part.slice(1..3).unwrap().as_slice(), b"34");
        assert!(part.slice(1..7).is_none());
    }

    #[test]
    fn a_mapped_file_reads_like_an_owned_one() {
        let path = std::env::temp_dir().join(format!("bramble-content-{}", std::process::id()));
        File::create(&path).unwrap().write_all(b"mapped").unwrap();
        let mapped = Content::map(&File::open(&path).unwrap()).unwrap();
        File::create(&path).unwrap();
        let empty = Content::map(&File::open(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(mapped.len(), 6);
        assert!(empty.is_empty());
    }
}
