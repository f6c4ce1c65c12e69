//! How firmware chooses what to boot from a disk, as pure functions of the disk.
//!
//! - [`pi`]: the firmware of the Raspberry Pi 3, 4 and 5 families.
//! - [`systemd_boot`]: systemd-boot, once UEFI has started it.
//! - [`fdt`]: the device tree that firmware hands to the kernel, as far as boot selection shows in it.
//!
//! The models read; they never write. They believe nothing they find on the disk, end on any content, and what they
//! assume where no source says how the real firmware behaves is told in the [`Trace`] as a doubt.

pub mod fdt;
pub mod pi;
pub mod systemd_boot;

mod trace;
mod volume;

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;

pub use trace::{Kind, Line, Trace};
pub use volume::{FileRef, Place};

/// Bytes of a sector; media with larger ones are not modelled.
pub const SECTOR: u64 = 512;

/// A disk as firmware sees it. Implementations may be shared by threads: reading moves nothing.
pub trait ReadAt {
    /// Size in bytes.
    fn size(&self) -> u64;
    /// Fills `buffer` from byte `offset` on.
    ///
    /// # Errors
    /// What the medium says; [`io::ErrorKind::UnexpectedEof`] beyond its end.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
}

impl ReadAt for [u8] {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let from = usize::try_from(offset).ok().and_then(|at| self.get(at..)?.get(..buffer.len()));
        buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

impl ReadAt for Vec<u8> {
    fn size(&self) -> u64 {
        self.len() as u64
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buffer)
    }
}

/// An image file or a block device.
impl ReadAt for File {
    fn size(&self) -> u64 {
        // A block device's metadata has no length. A disk whose end cannot be found holds nothing.
        (&*self).seek(SeekFrom::End(0)).unwrap_or(0)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

impl<D: ReadAt + ?Sized> ReadAt for &D {
    fn size(&self) -> u64 {
        (**self).size()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }
}

/// A part of a disk as a stream, for readers that want one.
pub(crate) struct Window<'d, D: ?Sized> {
    disk: &'d D,
    start: u64,
    size: u64,
    position: u64,
}

impl<'d, D: ReadAt + ?Sized> Window<'d, D> {
    pub(crate) fn new(disk: &'d D, start: u64, size: u64) -> Self {
        Self { disk, start, size, position: 0 }
    }

    pub(crate) fn whole(disk: &'d D) -> Self {
        Self::new(disk, 0, disk.size())
    }
}

impl<D: ReadAt + ?Sized> Read for Window<'_, D> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.size.saturating_sub(self.position).min(buffer.len() as u64) as usize;
        if length > 0 {
            self.disk.read_at(self.start.saturating_add(self.position), &mut buffer[..length])?;
            self.position += length as u64;
        }
        Ok(length)
    }
}

impl<D: ReadAt + ?Sized> Seek for Window<'_, D> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let position = match to {
            SeekFrom::Start(offset) => Some(offset),
            SeekFrom::End(delta) => self.size.checked_add_signed(delta),
            SeekFrom::Current(delta) => self.position.checked_add_signed(delta),
        };
        self.position = position.ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_where_its_part_ends() {
        let disk: Vec<u8> = (0..100).collect();
        let mut window = Window::new(&disk, 10, 20);
        let mut all = Vec::new();
        assert_eq!(window.read_to_end(&mut all).unwrap(), 20);
        assert_eq!((all[0], all[19]), (10, 29));
        window.seek(SeekFrom::End(-1)).unwrap();
        assert!(window.read_exact(&mut [0; 2]).is_err());
        assert_eq!(window.seek(SeekFrom::Start(u64::MAX)).unwrap(), u64::MAX);
        assert_eq!(window.read(&mut [0; 2]).unwrap(), 0);
        // A partition that claims more than the disk has.
        assert!(Window::new(&disk, 90, 20).read_exact(&mut [0; 20]).is_err());
        assert!(disk.read_at(u64::MAX, &mut [0; 1]).is_err());
    }

    #[test]
    fn a_file_is_a_disk() {
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, b"0123456789").unwrap();
        let mut two = [0; 2];
        ReadAt::read_at(&file, 8, &mut two).unwrap();
        assert_eq!((&two, ReadAt::size(&file)), (b"89", 10));
        assert!(ReadAt::read_at(&file, 9, &mut two).is_err());
    }
}
