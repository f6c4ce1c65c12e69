//! Which disk is ours, and its partition table.

use super::block::{self, Device};
use crate::refused::{At, Refused, line};
use bramble_api::layout::{TYPE_DATA, TYPE_ESP, TYPE_IDENTITY, TYPE_ROOT};
use bramble_api::names::Slot;
use bramble_partition::gpt::{self, Check, CheckError, Finding, Partition};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where sysfs is mounted.
pub const SYSFS: &str = "/sys";

/// How long a disk may take to appear. Worn SD cards and USB bridges have been seen to need ten seconds and more
/// after the kernel's start; a wrong answer costs a trip to the machine, waiting longer costs nothing.
const DISK_LIMIT: Duration = Duration::from_secs(60);
/// How long a partition of a known disk may take: the kernel has only to read the table.
const PARTITION_LIMIT: Duration = Duration::from_secs(10);
/// Between two looks at sysfs.
const POLL: Duration = Duration::from_millis(50);

/// Why there is no disk to go on with.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// None of the disks is ours.
    #[error("no Bramble disk appeared within {} seconds; seen: {seen}", DISK_LIMIT.as_secs())]
    None {
        /// What was seen of each disk.
        seen: String,
    },
    /// More than one could be ours, and the boot loader named none.
    #[error(
        "two disks carry Bramble's partitions, {0} and {1}, and the boot loader does not say which; take one out"
    )]
    Two(String, String),
    /// A partition is missing from the table.
    #[error("the partition table of {disk} has no {what} partition")]
    Missing {
        /// The disk.
        disk: String,
        /// Which partition.
        what: String,
    },
    /// The kernel does not show a partition of the table.
    #[error("the kernel does not show the {what} partition of {disk}")]
    Unseen {
        /// The disk.
        disk: String,
        /// Which partition.
        what: String,
    },
    /// An act was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// Our disk and its table.
pub struct Disk {
    /// The whole disk.
    pub device: Device,
    check: Check,
}

impl Disk {
    /// Waits for the disk that was booted from: the one with the boot loader's EFI system partition, or where no
    /// loader says which, the only one with all of Bramble's partitions.
    pub fn find(esp: Option<[u8; 16]>) -> Result<Disk, DiskError> {
        let deadline = Instant::now() + DISK_LIMIT;
        loop {
            let mut ours = Vec::new();
            let mut seen = Vec::new();
            for device in block::disks(Path::new(SYSFS)) {
                match read_table(&device) {
                    Ok(check) if is_ours(&check, esp) => ours.push(Disk { device, check }),
                    Ok(_) => seen.push(format!("{} (another's)", device.name)),
                    Err(why) => seen.push(format!("{} ({why})", device.name)),
                }
            }
            let second = ours.pop();
            match (ours.pop(), second) {
                (Some(a), Some(b)) => return Err(DiskError::Two(a.device.name, b.device.name)),
                (None, Some(disk)) => return Ok(disk),
                _ if Instant::now() >= deadline => {
                    let seen = if seen.is_empty() { "no disk at all".into() } else { seen.join(", ") };
                    return Err(DiskError::None { seen });
                }
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// Mends the table where it is out of order (each write made durable before the next, see
    /// [`Check::repair_writes`]). Gives what was mended, one sentence each.
    pub fn repair(&mut self) -> Result<Vec<String>, Refused> {
        if self.check.findings.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.device.path();
        let disk = File::options().read(true).write(true).open(&path).at("open", &path)?;
        for write in self.check.repair_writes() {
            disk.write_all_at(&write.bytes, write.offset).at("mend the partition table of", &path)?;
            disk.sync_data().at("mend the partition table of", &path)?;
        }
        let said = self.check.findings.iter().map(sentence).collect();
        self.check.findings.clear();
        Ok(said)
    }

    /// The root slot's partition.
    pub fn root(&self, slot: Slot) -> Result<Device, DiskError> {
        let name = format!("bramble-root-{}", slot.letter());
        self.partition(&name, |p| p.type_guid.0 == TYPE_ROOT && p.name == name)
    }

    /// The identity partition.
    pub fn identity(&self) -> Result<Device, DiskError> {
        self.partition("bramble-identity", |p| p.type_guid.0 == TYPE_IDENTITY)
    }

    /// The data partition.
    pub fn data(&self) -> Result<Device, DiskError> {
        self.partition("bramble-data", |p| p.type_guid.0 == TYPE_DATA)
    }

    fn partition(&self, what: &str, wanted: impl Fn(&Partition) -> bool) -> Result<Device, DiskError> {
        let disk = || self.device.name.clone();
        let found = self.check.table.partitions.iter().find(|partition| wanted(partition));
        let found = found.ok_or_else(|| DiskError::Missing { disk: disk(), what: what.into() })?;
        let look = || block::partition(Path::new(SYSFS), &self.device, found.start, found.size);
        if let Some(device) = look() {
            return Ok(device);
        }
        // Linux shows nothing of a disk whose primary table was bad: it is told to look again, now that it is mended.
        let path = self.device.path();
        block::reread_table(&File::open(&path).at("open", &path)?, &path)?;
        let deadline = Instant::now() + PARTITION_LIMIT;
        loop {
            // sysfs may be ahead of devtmpfs.
            if let Some(device) = look().filter(|device| device.path().exists()) {
                return Ok(device);
            }
            if Instant::now() >= deadline {
                return Err(DiskError::Unseen { disk: disk(), what: what.into() });
            }
            std::thread::sleep(POLL);
        }
    }
}

fn read_table(device: &Device) -> Result<Check, String> {
    let path = device.path();
    let mut disk = File::open(&path).map_err(|error| error.to_string())?;
    gpt::check(&mut disk, device.size).map_err(|error: CheckError| line(&error))
}

fn is_ours(check: &Check, esp: Option<[u8; 16]>) -> bool {
    let has = |kind: &[u8; 16]| check.table.partitions.iter().any(|partition| partition.type_guid.0 == *kind);
    match esp {
        Some(esp) => check.table.partitions.iter().any(|p| p.guid.0 == esp && p.type_guid.0 == TYPE_ESP),
        None => [TYPE_ROOT, TYPE_IDENTITY, TYPE_DATA].iter().all(has),
    }
}

fn sentence(finding: &Finding) -> String {
    match finding {
        Finding::NoProtectiveMbr => "the protective MBR was written again".into(),
        Finding::PrimaryBad(why) => format!("the partition table was restored from its backup: {why}"),
        Finding::BackupBad(why) => format!("the partition table's backup was written again: {why}"),
        Finding::BackupNotAtEnd { .. } => {
            "the partition table's backup was moved to the end of the disk".into()
        }
        Finding::CopiesDiffer => "the partition table's backup was brought in line with it".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bramble_api::layout::{self, Kind};
    use bramble_partition::Guid;
    use bramble_partition::gpt::Table;
    use std::io::Cursor;

    fn check(esp: [u8; 16], kinds: impl Fn(Kind) -> bool) -> Check {
        let size = layout::DISK_MIN_SIZE;
        let partitions = layout::uefi(size).unwrap().into_iter().enumerate().filter(|(_, p)| kinds(p.kind));
        let partitions = partitions.map(|(index, p)| Partition {
            number: index as u32 + 1,
            type_guid: Guid(p.type_guid),
            guid: if p.kind == Kind::Esp { Guid(esp) } else { Guid([index as u8 + 1; 16]) },
            start: p.start,
            size: p.size,
            attributes: 0,
            name: p.name.into(),
        });
        let table = Table { disk_guid: Guid([1; 16]), partitions: partitions.collect() };
        // Only the table's own sectors: the disk is read as if the rest were not there.
        let mut disk = vec![0; 34 * 512];
        for write in table.writes(size).unwrap() {
            if let Some(place) =
                disk.get_mut(write.offset as usize..write.offset as usize + write.bytes.len())
            {
                place.copy_from_slice(&write.bytes);
            }
        }
        struct Sparse(Cursor<Vec<u8>>);
        impl std::io::Read for Sparse {
            fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
                let got = self.0.read(out)?;
                if got == 0 {
                    out.fill(0);
                    return Ok(out.len());
                }
                Ok(got)
            }
        }
        impl std::io::Seek for Sparse {
            fn seek(&mut self, to: std::io::SeekFrom) -> std::io::Result<u64> {
                self.0.seek(to)
            }
        }
        gpt::check(&mut Sparse(Cursor::new(disk)), size).unwrap()
    }

    #[test]
    fn the_loader_s_disk_is_ours_and_else_the_one_with_our_partitions() {
        let whole = check([7; 16], |_| true);
        assert!(is_ours(&whole, Some([7; 16])));
        assert!(!is_ours(&whole, Some([8; 16])));
        assert!(is_ours(&whole, None));
        assert!(!is_ours(&check([7; 16], |kind| kind != Kind::Data), None));
        // A root slot's own GUID is no ESP.
        assert!(!is_ours(&whole, Some([2; 16])));
    }

    #[test]
    fn what_was_mended_is_said() {
        let mended: Vec<String> = check([7; 16], |_| true).findings.iter().map(sentence).collect();
        assert_eq!(mended, ["the partition table's backup was written again: no header"]);
    }
}
