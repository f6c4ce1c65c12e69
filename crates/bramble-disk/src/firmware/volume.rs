//! A FAT volume of a disk, read the way boot loaders do: whole small files, and heads of large ones.

use std::fmt;
use std::io::{Read, Seek, SeekFrom};

use bramble_fat::{FatType, ReadError, Reader};

use super::{ReadAt, Window};

/// A part of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Number of the partition; 0 for a disk without a table, which is one volume.
    pub number: u32,
    /// First byte.
    pub start: u64,
    /// Length in bytes.
    pub size: u64,
}

/// A file that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileRef {
    /// Its path from the root of the volume, without a leading slash.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
}

impl fmt::Display for FileRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({} bytes)", self.path, self.size)
    }
}

impl Place {
    /// The content of a file of the FAT volume that lies here, if it has at most `limit` bytes.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn read<D: ReadAt + ?Sized>(&self, disk: &D, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        Volume::open(disk, *self)?.read(path, limit)
    }
}

/// An open volume.
pub(crate) struct Volume<'d, D: ?Sized> {
    disk: &'d D,
    pub(crate) place: Place,
    fat: Reader<Window<'d, D>>,
}

impl<'d, D: ReadAt + ?Sized> Volume<'d, D> {
    pub(crate) fn open(disk: &'d D, place: Place) -> Result<Self, ReadError> {
        let fat = Reader::open(Window::new(disk, place.start, place.size))?;
        Ok(Self { disk, place, fat })
    }

    pub(crate) fn fat_type(&self) -> FatType {
        self.fat.fat_type()
    }

    /// A file, if the path leads to one. A directory, a damaged directory and an empty name lead to none.
    pub(crate) fn file(&mut self, path: &str) -> Option<FileRef> {
        let path = path.trim_start_matches('/');
        let node = self.fat.find(path).ok().filter(|node| !node.is_directory)?;
        Some(FileRef { path: path.to_owned(), size: node.size.into() })
    }

    /// Names in a directory that are files.
    pub(crate) fn files(&mut self, path: &str) -> Result<Vec<(String, u64)>, ReadError> {
        let nodes = self.fat.list(path)?;
        Ok(nodes.into_iter().filter(|node| !node.is_directory).map(|n| (n.name, n.size.into())).collect())
    }

    pub(crate) fn read(&mut self, path: &str, limit: u64) -> Result<Vec<u8>, ReadError> {
        self.fat.read(path, limit)
    }

    /// The first `most` bytes of a file, or all of a shorter one.
    pub(crate) fn head(&mut self, path: &str, most: usize) -> Result<Vec<u8>, ReadError> {
        self.part(path, 0, most)
    }

    /// At most `most` bytes of a file from `skip` on.
    pub(crate) fn part(&mut self, path: &str, mut skip: u64, most: usize) -> Result<Vec<u8>, ReadError> {
        let mut bytes = Vec::new();
        for extent in self.fat.extents(path)? {
            if skip >= extent.length {
                skip -= extent.length;
                continue;
            }
            let offset = extent.offset + skip;
            let length = (extent.length - skip).min((most - bytes.len()) as u64) as usize;
            skip = 0;
            let at = bytes.len();
            bytes.resize(at + length, 0);
            let mut window = Window::new(self.disk, self.place.start, self.place.size);
            window
                .seek(SeekFrom::Start(offset))
                .and_then(|_| window.read_exact(&mut bytes[at..]))
                .map_err(|source| ReadError::Device { offset, length, source })?;
            if bytes.len() == most {
                break;
            }
        }
        Ok(bytes)
    }
}
