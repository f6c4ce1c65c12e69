//! This computer's disks.
#![expect(unsafe_code, reason = "block devices tell their count, size and cache by ioctl")]

use super::sysfs::Roots;
use super::{Contents, Device, Facts, Named, Number, Site, Target, contents};
use rustix::fs::{Advice, FlockOperation, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Getter, NoArg, Opcode, Setter, opcode};
use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

// linux/fs.h
const BLKROGET: Opcode = opcode::none(0x12, 94);
const BLKFLSBUF: Opcode = opcode::none(0x12, 97);
const BLKDISCARD: Opcode = opcode::none(0x12, 119);
const BLKGETSIZE64: Opcode = opcode::read::<usize>(0x12, 114);
const BLKGETDISKSEQ: Opcode = opcode::read::<u64>(0x12, 128);

/// What O_DIRECT wants of memory and places; no disk has larger logical sectors.
const DIRECT: usize = 4096;

/// This computer.
#[derive(Debug)]
pub struct Linux {
    roots: Roots,
    began: Instant,
}

impl Default for Linux {
    fn default() -> Self {
        Linux { roots: Roots::default(), began: Instant::now() }
    }
}

impl Site for Linux {
    fn devices(&self) -> io::Result<Vec<Device>> {
        self.roots.devices()
    }

    fn look(&self, device: &Device) -> Result<Contents, String> {
        let said = |e: io::Error| match e.kind() {
            io::ErrorKind::PermissionDenied => "no permission to read it".to_string(),
            _ => e.to_string(),
        };
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = open(&self.roots.dev.join(&device.name), flags).map_err(said)?;
        let found = facts(&file).map_err(said)?;
        if (found.number, found.sequence, found.size) != (device.number, device.sequence, device.size) {
            return Err("another medium was put in while it was looked at".to_string());
        }
        let partitions: Vec<Range<u64>> =
            device.partitions.iter().map(|p| p.start..p.start.saturating_add(p.size)).collect();
        contents::probe(device.size, &partitions, &mut |offset, out| file.read_exact_at(out, offset))
            .map_err(said)
    }

    fn resolve(&self, path: &Path) -> Named {
        let Ok(found) = std::fs::symlink_metadata(path) else { return Named::Missing };
        let kind = found.file_type();
        if kind.is_symlink() {
            return Named::Link { to: std::fs::canonicalize(path).ok() };
        }
        if kind.is_file() {
            return Named::File;
        }
        if !kind.is_block_device() {
            return Named::NoDisk;
        }
        match self.roots.find(number(found.rdev())) {
            Some((disk, Some(name))) => Named::Partition { name, disk },
            Some((disk, None)) => Named::Disk(disk),
            None => Named::Missing,
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn Target>> {
        let path = self.roots.dev.join(name);
        // Exclusive: refused while anything is mounted from it, swaps to it, or has it open in the same way.
        let flags = OFlags::RDWR | OFlags::EXCL | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let (file, direct) = match open(&path, flags | OFlags::DIRECT) {
            Err(e) if e.raw_os_error() == Some(Errno::INVAL.raw_os_error()) => (open(&path, flags)?, false),
            opened => (opened?, true),
        };
        // udev leaves a locked disk alone; whoever looks at it just now is waited for.
        for attempt in 0..20 {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(Errno::WOULDBLOCK) if attempt < 19 => self.pause(Duration::from_millis(100)),
                Err(Errno::WOULDBLOCK) => return Err(io::Error::from(io::ErrorKind::ResourceBusy)),
                Err(other) => return Err(other.into()),
            }
        }
        Ok(Box::new(Disk { file, reading: None, direct, spare: Aligned::default() }))
    }

    fn pause(&self, time: Duration) {
        std::thread::sleep(time);
    }

    fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }
}

fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    Ok(File::from(rustix::fs::open(path, flags, rustix::fs::Mode::empty())?))
}

fn number(device: u64) -> Number {
    Number { major: rustix::fs::major(device), minor: rustix::fs::minor(device) }
}

fn facts(file: &File) -> io::Result<Facts> {
    let found = file.metadata()?;
    if !found.file_type().is_block_device() {
        return Err(io::Error::other("it is no block device"));
    }
    // SAFETY: the kernel writes one unsigned long for BLKGETSIZE64 (linux/fs.h).
    let size = unsafe { rustix::ioctl::ioctl(file, Getter::<BLKGETSIZE64, usize>::new()) }? as u64;
    // SAFETY: the kernel writes one int for BLKROGET.
    let read_only = unsafe { rustix::ioctl::ioctl(file, Getter::<BLKROGET, i32>::new()) }? != 0;
    // SAFETY: the kernel writes one u64 for BLKGETDISKSEQ.
    let sequence = match unsafe { rustix::ioctl::ioctl(file, Getter::<BLKGETDISKSEQ, u64>::new()) } {
        Ok(sequence) => NonZeroU64::new(sequence).map(NonZeroU64::get),
        Err(Errno::NOTTY | Errno::INVAL) => None,
        Err(e) => return Err(e.into()),
    };
    let sector = rustix::fs::ioctl_blksszget(file)?;
    Ok(Facts { number: number(found.rdev()), sequence, size, sector, read_only })
}

/// A disk that is held open.
struct Disk {
    file: File,
    /// Reads what was written: opened after the cache was dropped.
    reading: Option<File>,
    direct: bool,
    spare: Aligned,
}

/// Memory that begins where O_DIRECT wants it.
#[derive(Default)]
struct Aligned(Vec<u8>);

impl Aligned {
    fn get(&mut self, length: usize) -> &mut [u8] {
        if self.0.len() < length + DIRECT {
            self.0 = vec![0; length + DIRECT];
        }
        let start = self.0.as_ptr().align_offset(DIRECT).min(DIRECT);
        &mut self.0[start..start + length]
    }
}

fn aligned(bytes: &[u8]) -> bool {
    bytes.as_ptr().align_offset(DIRECT) == 0
}

impl Target for Disk {
    fn facts(&mut self) -> io::Result<Facts> {
        facts(&self.file)
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if self.direct && !aligned(bytes) {
            let copy = self.spare.get(bytes.len());
            copy.copy_from_slice(bytes);
            return self.file.write_all_at(copy, offset);
        }
        self.file.write_all_at(bytes, offset)
    }

    fn read(&mut self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let file = self.reading.as_ref().unwrap_or(&self.file);
        if self.direct && !aligned(bytes) {
            let copy = self.spare.get(bytes.len());
            file.read_exact_at(copy, offset)?;
            bytes.copy_from_slice(copy);
            return Ok(());
        }
        if !self.direct {
            let length = NonZeroU64::new(bytes.len() as u64);
            rustix::fs::fadvise(file, offset, length, Advice::DontNeed)?;
        }
        file.read_exact_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_all()
    }

    fn discard(&mut self, range: Range<u64>) -> io::Result<()> {
        // SAFETY: the kernel reads two u64 for BLKDISCARD, start and length (linux/fs.h).
        unsafe {
            let argument = Setter::<BLKDISCARD, [u64; 2]>::new([range.start, range.end - range.start]);
            rustix::ioctl::ioctl(&self.file, argument)?;
        }
        Ok(())
    }

    fn forget(&mut self) -> io::Result<()> {
        self.sync()?;
        // SAFETY: BLKFLSBUF takes no argument.
        let flushed = unsafe { rustix::ioctl::ioctl(&self.file, NoArg::<BLKFLSBUF>::new()) };
        match flushed {
            // Only an administrator may; reads past the cache do not need it.
            Ok(()) | Err(Errno::ACCESS | Errno::PERM) => {}
            Err(e) => return Err(e.into()),
        }
        if !self.direct {
            rustix::fs::fadvise(&self.file, 0, None, Advice::DontNeed)?;
        }
        // A descriptor that read nothing yet; the first one keeps the disk.
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&self.file));
        let flags =
            OFlags::RDONLY | OFlags::CLOEXEC | if self.direct { OFlags::DIRECT } else { OFlags::empty() };
        let fresh = open(Path::new(&again), flags)?;
        if facts(&fresh)? != facts(&self.file)? {
            return Err(io::Error::other("another medium answers"));
        }
        self.reading = Some(fresh);
        Ok(())
    }

    fn note(&self) -> Option<String> {
        let cached = "this disk cannot be written past the cache; it is read back after the cache is dropped";
        (!self.direct).then(|| cached.to_string())
    }
}
