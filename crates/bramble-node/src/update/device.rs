//! The machine's disk and journal as the engine wants them: raw devices past the page cache, and a file on data that is
//! overwritten in place. The ESP and BOOTSEL are never mounted.

use crate::init::{Device, Disk, DiskError};
use crate::refused::{At, Refused, line};
use bramble_api::layout::{self, BLOCK, Kind, SECTOR, pi};
use bramble_api::names::Slot;
use bramble_upgrade::journal::{COPIES, COPY};
use bramble_upgrade::media::{Area, Media, Refusal, Scheme};
use rustix::fs::OFlags;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes that go through the aligned buffer at once.
const STEP: usize = 1 << 20;
/// What memory must be aligned to for O_DIRECT: no disk has larger sectors than a page.
const ALIGNMENT: usize = 4096;

/// Why the disk cannot be used for updates.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// The disk.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// An act was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// A file that must lie in one run on the ESP does not.
    #[error("{path} on the ESP is not one run of sectors: {why}")]
    Extent {
        /// The file.
        path: String,
        /// What was found.
        why: String,
    },
}

/// A part of a device.
struct Place {
    device: usize,
    start: u64,
    size: u64,
}

/// The machine's disk and journal.
pub struct Devices {
    scheme: Scheme,
    /// Open devices, with their nodes.
    open: Vec<(PathBuf, File, bool)>,
    places: Vec<(Area, Place)>,
    journal: PathBuf,
    buffer: Buffer,
}

/// Memory aligned for O_DIRECT.
struct Buffer(Vec<u8>);

impl Buffer {
    fn new() -> Buffer {
        Buffer(vec![0; STEP + ALIGNMENT])
    }

    fn slice(&mut self, length: usize) -> &mut [u8] {
        let skip = self.0.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
        &mut self.0[skip..skip + length]
    }
}

impl Devices {
    /// The disk of this name, with the journal in `state`.
    ///
    /// # Errors
    /// A partition is missing, or a file of the ESP lies in pieces.
    pub fn open(disk: &str, state: &Path) -> Result<Devices, Unusable> {
        let disk = Disk::named(disk)?;
        let scheme = if disk.is_gpt() { Scheme::Uefi } else { Scheme::Pi };
        let mut devices = Devices {
            scheme,
            open: Vec::new(),
            places: Vec::new(),
            journal: state.join("upgrades.journal"),
            buffer: Buffer::new(),
        };
        for slot in [Slot::A, Slot::B] {
            let root = disk.root(slot)?;
            devices.add(Area::Root(slot), &root, 0, root.size)?;
        }
        match scheme {
            Scheme::Uefi => {
                let esp = disk.of(Kind::Esp)?;
                for slot in [Slot::A, Slot::B] {
                    let (start, size) = extent(&esp, layout::uki_path(slot))?;
                    devices.add(Area::Boot(slot), &esp, start, size)?;
                }
                let (start, _) = extent(&esp, layout::LOADER_CONF)?;
                devices.add(Area::Switch, &esp, start, SECTOR)?;
            }
            Scheme::Pi => {
                for slot in [Slot::A, Slot::B] {
                    let boot = disk.of(Kind::Boot(slot))?;
                    devices.add(Area::Boot(slot), &boot, 0, boot.size)?;
                }
                let select = disk.of(Kind::BootSelect)?;
                devices.add(Area::Switch, &select, pi::AUTOBOOT_OFFSET, SECTOR)?;
            }
        }
        devices.make_journal(state)?;
        Ok(devices)
    }

    fn add(&mut self, area: Area, on: &Device, start: u64, size: u64) -> Result<(), Refused> {
        let path = on.path();
        let device = match self.open.iter().position(|(known, ..)| *known == path) {
            Some(device) => device,
            None => {
                let direct = OFlags::DIRECT.bits() as i32;
                let file = OpenOptions::new().read(true).write(true).custom_flags(direct).open(&path);
                self.open.push((path.clone(), file.at("open", &path)?, false));
                self.open.len() - 1
            }
        };
        self.places.push((area, Place { device, start, size }));
        Ok(())
    }

    /// The journal's file keeps its place on the disk from here on: each record overwrites blocks that are there, so
    /// that no table of the file system changes with it.
    fn make_journal(&self, state: &Path) -> Result<(), Refused> {
        let path = &self.journal;
        let whole = (COPIES * COPY) as u64;
        if fs::metadata(path).is_ok_and(|meta| meta.len() == whole) {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(state).at("make", state)?;
        let new = path.with_extension("new");
        let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new);
        let file = file.at("make", &new)?;
        file.write_all_at(&vec![0; whole as usize], 0).at("write to", &new)?;
        file.sync_all().at("flush", &new)?;
        fs::rename(&new, path).at("put in place", path)?;
        File::open(state).and_then(|state| state.sync_all()).at("flush", state)
    }

    fn place(&self, area: Area) -> Option<&Place> {
        self.places.iter().find(|(known, _)| *known == area).map(|(_, place)| place)
    }

    /// Device, first byte there, checked to lie within the area.
    fn find(&self, area: Area, offset: u64, length: usize, act: &str) -> Result<(usize, u64), Refusal> {
        let refuse = |why: &str| Refusal { act: format!("{act} {area:?}"), why: why.into() };
        let place = self.place(area).ok_or_else(|| refuse("it has no place on this disk"))?;
        match offset.checked_add(length as u64).is_some_and(|end| end <= place.size) {
            true => Ok((place.device, place.start + offset)),
            false => Err(refuse("beyond its end")),
        }
    }

    fn refusal(&self, act: &str, device: usize, error: io::Error) -> Refusal {
        Refusal { act: format!("{act} {}", self.open[device].0.display()), why: error.to_string() }
    }
}

impl Media for Devices {
    fn scheme(&self) -> Scheme {
        self.scheme
    }

    fn size(&self, area: Area) -> u64 {
        self.place(area).map_or(0, |place| place.size)
    }

    fn read(&mut self, area: Area, offset: u64, out: &mut [u8]) -> Result<(), Refusal> {
        let (device, start) = self.find(area, offset, out.len(), "read")?;
        let mut done = 0;
        for chunk in out.chunks_mut(STEP) {
            let bytes = self.buffer.slice(chunk.len());
            if let Err(error) = self.open[device].1.read_exact_at(bytes, start + done) {
                return Err(self.refusal("read", device, error));
            }
            chunk.copy_from_slice(bytes);
            done += chunk.len() as u64;
        }
        Ok(())
    }

    fn write(&mut self, area: Area, offset: u64, bytes: &[u8]) -> Result<(), Refusal> {
        let (device, start) = self.find(area, offset, bytes.len(), "write to")?;
        let mut done = 0;
        for chunk in bytes.chunks(STEP) {
            let aligned = self.buffer.slice(chunk.len());
            aligned.copy_from_slice(chunk);
            if let Err(error) = self.open[device].1.write_all_at(aligned, start + done) {
                return Err(self.refusal("write to", device, error));
            }
            done += chunk.len() as u64;
        }
        self.open[device].2 = true;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Refusal> {
        for device in 0..self.open.len() {
            if self.open[device].2 {
                self.open[device].1.sync_all().map_err(|error| self.refusal("flush", device, error))?;
                self.open[device].2 = false;
            }
        }
        Ok(())
    }

    fn journal(&mut self, copy: usize) -> Vec<u8> {
        let read = || -> io::Result<Vec<u8>> {
            let file = File::open(&self.journal)?;
            let mut bytes = vec![0; COPY];
            file.read_exact_at(&mut bytes, (copy * COPY) as u64)?;
            Ok(bytes)
        };
        read().unwrap_or_default()
    }

    fn write_journal(&mut self, copy: usize, bytes: &[u8; COPY]) -> Result<(), Refusal> {
        let path = &self.journal;
        let written = || -> io::Result<()> {
            let file = OpenOptions::new().write(true).open(path)?;
            file.write_all_at(bytes, (copy * COPY) as u64)?;
            file.sync_data()
        };
        written()
            .map_err(|error| Refusal { act: format!("write to {}", path.display()), why: error.to_string() })
    }
}

/// Where a file of the ESP lies, from the beginning of the partition.
pub fn extent(esp: &Device, path: &str) -> Result<(u64, u64), Unusable> {
    let node = esp.path();
    let file = File::open(&node).at("open", &node)?;
    let broken = |why: String| Unusable::Extent { path: path.into(), why };
    let mut reader = bramble_fat::Reader::open(file).map_err(|error| broken(line(&error)))?;
    let extents = reader.extents(path).map_err(|error| broken(line(&error)))?;
    match extents[..] {
        [extent] if extent.offset % BLOCK == 0 => Ok((extent.offset, extent.length)),
        _ => Err(broken(format!("{} pieces", extents.len()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_is_aligned_and_as_long_as_asked() {
        let mut buffer = Buffer::new();
        for length in [SECTOR as usize, STEP] {
            let slice = buffer.slice(length);
            assert_eq!((slice.len(), slice.as_ptr().align_offset(ALIGNMENT)), (length, 0));
        }
    }

    #[test]
    fn a_journal_is_made_once_and_keeps_its_length() {
        let state = std::env::temp_dir().join(format!("bramble-journal-{}", std::process::id()));
        let mut devices = Devices {
            scheme: Scheme::Uefi,
            open: Vec::new(),
            places: Vec::new(),
            journal: state.join("upgrades.journal"),
            buffer: Buffer::new(),
        };
        assert!(devices.journal(0).is_empty(), "what cannot be read is empty, not blank");
        devices.make_journal(&state).unwrap();
        devices.write_journal(1, &[7; COPY]).unwrap();
        devices.make_journal(&state).unwrap();
        assert_eq!((devices.journal(0), devices.journal(1)), (vec![0; COPY], vec![7; COPY]));
        assert_eq!(fs::metadata(&devices.journal).unwrap().len(), 2 * COPY as u64);
        assert!(devices.read(Area::Switch, 0, &mut [0; 512]).is_err());
        fs::remove_dir_all(state).unwrap();
    }
}
