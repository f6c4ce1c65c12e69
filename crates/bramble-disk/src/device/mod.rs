//! Block devices: which there are, what they are, what uses them, and how one is held open.
//!
//! Everything goes through [`Site`] and [`Target`], so that what guards and writes runs the same on this computer
//! ([`linux::Linux`]) and on a simulated one.

pub mod contents;
mod foreign;
pub mod linux;
mod sysfs;
mod uses;

pub use contents::{Contents, Place, Signature, SignatureKind, TableKind};
pub use foreign::Foreign;
pub use uses::Use;

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Major and minor number of a device node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Number {
    /// Which driver.
    pub major: u32,
    /// Which of its devices.
    pub minor: u32,
}

/// How a disk is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bus {
    /// USB mass storage or UAS.
    Usb,
    /// An SD card in a slot of this computer.
    Sd,
    /// eMMC, soldered or on a module.
    Emmc,
    /// NVM Express.
    Nvme,
    /// ATA or SATA.
    Ata,
    /// SCSI that is none of the above.
    Scsi,
    /// A virtual machine's disk.
    Virtio,
    /// A file of this computer shown as a disk.
    Loop,
    /// Made from other disks: device-mapper, software RAID.
    Mapped,
    /// In memory, over the network, a drive for discs, or not known.
    Other,
}

impl Bus {
    /// The word for it.
    pub fn name(self) -> &'static str {
        match self {
            Bus::Usb => "usb",
            Bus::Sd => "sd",
            Bus::Emmc => "emmc",
            Bus::Nvme => "nvme",
            Bus::Ata => "ata",
            Bus::Scsi => "scsi",
            Bus::Virtio => "virtio",
            Bus::Loop => "loop",
            Bus::Mapped => "mapped",
            Bus::Other => "other",
        }
    }
}

/// Whose serial number it is that the bus gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Medium {
    /// The medium's own: it cannot be taken out of what carries it.
    Own,
    /// Of what the medium lies in, or it cannot be told: a reader shows its own serial for every card. A USB device
    /// that says "removable" is this unless it is known to be a stick.
    Changeable,
}

/// A partition that the kernel sees.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Kernel name.
    pub name: String,
    /// Its node.
    pub number: Number,
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub size: u64,
}

/// A whole disk, as far as the kernel tells of it, and what was seen on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Kernel name, such as `sdb`. Names move between disks.
    pub name: String,
    /// Its node.
    pub number: Number,
    /// The kernel's count of disks and media (`diskseq`, Linux 5.15): another one for every medium put in.
    pub sequence: Option<u64>,
    /// Bytes; 0 without a medium.
    pub size: u64,
    /// Bytes of a logical sector.
    pub sector: u32,
    /// Bytes of a physical sector.
    pub physical_sector: u32,
    /// How it is attached.
    pub bus: Bus,
    /// Where it is attached: `usb:2-1.4:0`, `mmc:mmc0`, `nvme:0000:01:00.0`.
    pub port: String,
    /// Who made it.
    pub vendor: Foreign,
    /// What it calls itself.
    pub model: Foreign,
    /// Serial numbers that the bus gives; the first is the one to show. For an SD card its CID comes first.
    pub serials: Vec<Foreign>,
    /// World wide identifiers.
    pub wwids: Vec<Foreign>,
    /// Whose serials and identifiers these are.
    pub medium: Medium,
    /// The kernel says that the medium, or the device, can be taken out.
    pub removable: bool,
    /// The kernel refuses to write.
    pub read_only: bool,
    /// What uses it or a part of it.
    pub uses: Vec<Use>,
    /// The file behind a loop device.
    pub backing: Option<PathBuf>,
    /// Partitions that the kernel sees.
    pub partitions: Vec<Partition>,
    /// Largest discard in bytes; 0 when it cannot discard.
    pub discard_max: u64,
    /// What lies on it; `None` while nobody looked.
    pub contents: Option<Result<Contents, String>>,
}

impl Device {
    /// Path of its node.
    pub fn path(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// Vendor and model in one line, shown harmlessly.
    pub fn title(&self) -> String {
        let words = [&self.vendor, &self.model].map(ToString::to_string);
        let title = words.join(" ").trim().to_string();
        if title.is_empty() { "unnamed".to_string() } else { title }
    }

    /// What was seen on it, if it could be looked at.
    pub fn seen(&self) -> Option<&Contents> {
        self.contents.as_ref().and_then(|c| c.as_ref().ok())
    }
}

/// A size as people say it of disks: decimal.
pub fn size_text(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_000_000 => (1_000, "kB"),
        1_000_000..1_000_000_000 => (1_000_000, "MB"),
        1_000_000_000..1_000_000_000_000 => (1_000_000_000, "GB"),
        _ => (1_000_000_000_000, "TB"),
    };
    let tenths = bytes / (unit / 10);
    if tenths >= 1000 || tenths.is_multiple_of(10) {
        format!("{} {name}", tenths / 10)
    } else {
        format!("{}.{} {name}", tenths / 10, tenths % 10)
    }
}

/// What a person named as the device to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Named {
    /// A whole disk, by its kernel name.
    Disk(String),
    /// A partition.
    Partition {
        /// Its kernel name.
        name: String,
        /// Kernel name of its disk.
        disk: String,
    },
    /// A symbolic link.
    Link {
        /// Where it leads now.
        to: Option<PathBuf>,
    },
    /// A regular file.
    File,
    /// A directory, a character device, a socket.
    NoDisk,
    /// Nothing is there.
    Missing,
}

/// What an open descriptor tells of its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The node that was opened.
    pub number: Number,
    /// The kernel's count; `None` before Linux 5.15.
    pub sequence: Option<u64>,
    /// Bytes.
    pub size: u64,
    /// Bytes of a logical sector.
    pub sector: u32,
    /// The kernel refuses to write.
    pub read_only: bool,
}

/// A disk that is held open for writing, by nobody else.
pub trait Target: Send {
    /// What the descriptor tells now.
    fn facts(&mut self) -> io::Result<Facts>;
    /// Writes all bytes. Offset and length are multiples of the sector.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Reads from the medium, past every cache of this computer.
    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()>;
    /// Waits until what was written is on the medium.
    fn sync(&mut self) -> io::Result<()>;
    /// Tells the device that a range is not needed. What it reads as afterwards is not known.
    fn discard(&mut self, range: Range<u64>) -> io::Result<()>;
    /// Makes the next reads come from the medium.
    fn forget(&mut self) -> io::Result<()>;
    /// Something to tell a person of how it is written, such as a cache that cannot be passed by.
    fn note(&self) -> Option<String> {
        None
    }
}

/// A computer with disks.
pub trait Site: Sync {
    /// Every whole disk, without what lies on it: listing must not wake sleeping disks.
    fn devices(&self) -> io::Result<Vec<Device>>;
    /// Looks what lies on a disk.
    fn look(&self, device: &Device) -> Result<Contents, String>;
    /// What a path names.
    fn resolve(&self, path: &Path) -> Named;
    /// Opens a disk to write it, shutting out everyone else. Writes nothing.
    fn open(&self, name: &str) -> io::Result<Box<dyn Target>>;
    /// Waits.
    fn pause(&self, time: Duration);
    /// Time since some moment.
    fn elapsed(&self) -> Duration;
}

#[cfg(test)]
mod tests {
    use super::size_text;

    #[test]
    fn sizes_are_said_as_they_are_printed_on_cards() {
        assert_eq!(size_text(31_914_983_424), "31.9 GB");
        assert_eq!(size_text(4_000_000_000_000), "4 TB");
        assert_eq!(size_text(512_000), "512 kB");
        assert_eq!(size_text(256_060_514_304), "256 GB");
    }
}
