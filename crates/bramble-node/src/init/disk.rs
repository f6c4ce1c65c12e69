//! Which disk is ours, and its partition table.

use super::block::{self, Device};
use super::firmware::Booted;
use crate::refused::{At, Refused, line};
use bramble_api::layout::pi::{AUTOBOOT_OFFSET, autoboot_slot};
use bramble_api::layout::{self, Code, Kind, SECTOR, TYPE_DATA, TYPE_ESP, TYPE_IDENTITY, TYPE_ROOT};
use bramble_api::names::Slot;
use bramble_partition::gpt::{self, Check, CheckError, Finding, Partition};
use bramble_partition::mbr;
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
    table: Table,
}

/// The table of a disk.
enum Table {
    /// With UEFI firmware.
    Gpt(Check),
    /// On a Pi.
    Mbr(mbr::Table),
}

/// What is known of the disk that was started from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Origin {
    /// The EFI system partition, by its unique GUID.
    pub esp: Option<[u8; 16]>,
    /// What a Pi's firmware says.
    pub booted: Booted,
}

impl Disk {
    /// Waits for the disk that was booted from: the one with the boot loader's EFI system partition, or where no
    /// loader says which, the only one with all of Bramble's partitions.
    pub fn find(origin: Origin) -> Result<Disk, DiskError> {
        let deadline = Instant::now() + DISK_LIMIT;
        loop {
            let mut ours = Vec::new();
            let mut seen = Vec::new();
            for device in block::disks(Path::new(SYSFS)) {
                match read_table(&device) {
                    Ok(table) if table.is_ours(origin.esp) => ours.push(Disk { device, table }),
                    Ok(_) => seen.push(format!("{} (another's)", device.name)),
                    Err(why) => seen.push(format!("{} ({why})", device.name)),
                }
            }
            // A card and a stick that was left in: firmware may know which.
            if ours.len() > 1 && ours.iter().any(|disk| origin.booted.from(&disk.device.name)) {
                ours.retain(|disk| origin.booted.from(&disk.device.name));
            }
            match (ours.pop(), ours.pop()) {
                (Some(b), Some(a)) => return Err(DiskError::Two(a.device.name, b.device.name)),
                (Some(disk), None) => return Ok(disk),
                _ if Instant::now() >= deadline => {
                    let seen = if seen.is_empty() { "no disk at all".into() } else { seen.join(", ") };
                    return Err(DiskError::None { seen });
                }
                _ => std::thread::sleep(POLL),
            }
        }
    }

    /// Mends the table where it is out of order (each write made durable before the next, see
    /// [`Check::repair_writes`]). Gives what was mended, one sentence each. An MBR has no second copy to mend it from.
    pub fn repair(&mut self) -> Result<Vec<String>, Refused> {
        let Table::Gpt(check) = &mut self.table else { return Ok(Vec::new()) };
        if check.findings.is_empty() {
            return Ok(Vec::new());
        }
        let path = self.device.path();
        let disk = File::options().read(true).write(true).open(&path).at("open", &path)?;
        for write in check.repair_writes() {
            disk.write_all_at(&write.bytes, write.offset).at("mend the partition table of", &path)?;
            disk.sync_data().at("mend the partition table of", &path)?;
        }
        let said = check.findings.iter().map(sentence).collect();
        check.findings.clear();
        Ok(said)
    }

    /// The disk of this name, as the running system knows it.
    pub fn named(name: &str) -> Result<Disk, DiskError> {
        let device = block::disks(Path::new(SYSFS)).into_iter().find(|device| device.name == name);
        let device = device.ok_or_else(|| DiskError::None { seen: format!("no {name}") })?;
        let table = read_table(&device).map_err(|seen| DiskError::None { seen })?;
        Ok(Disk { device, table })
    }

    /// Whether it is a disk for UEFI firmware; else it is a Pi's.
    pub fn is_gpt(&self) -> bool {
        matches!(self.table, Table::Gpt(_))
    }

    /// The slot that `loader.conf` or `autoboot.txt` names, where it is as we wrote it.
    pub fn committed(&self) -> Result<Option<Slot>, Refused> {
        match &self.table {
            Table::Gpt(_) => Ok(self.committed_by_loader()),
            Table::Mbr(_) => {
                let Some((select, _)) = self.table.place(Kind::BootSelect) else { return Ok(None) };
                let path = self.device.path();
                let mut sector = [0; SECTOR as usize];
                let disk = File::open(&path).at("open", &path)?;
                disk.read_exact_at(&mut sector, select + AUTOBOOT_OFFSET).at("read", &path)?;
                Ok(autoboot_slot(&sector))
            }
        }
    }

    /// An ESP that cannot be read names no slot; the boot loader could read it, so that is a wonder and no reason to stop.
    fn committed_by_loader(&self) -> Option<Slot> {
        let esp = File::open(self.partition(Kind::Esp).ok()?.path()).ok()?;
        let bytes = bramble_fat::Reader::open(esp).ok()?.read(layout::LOADER_CONF, SECTOR).ok()?;
        [Slot::A, Slot::B].into_iter().find(|slot| layout::loader_conf(*slot)[..] == bytes)
    }

    /// A partition by its purpose.
    pub fn of(&self, kind: Kind) -> Result<Device, DiskError> {
        self.partition(kind)
    }

    /// The root slot's partition.
    pub fn root(&self, slot: Slot) -> Result<Device, DiskError> {
        self.partition(Kind::Root(slot))
    }

    /// The identity partition.
    pub fn identity(&self) -> Result<Device, DiskError> {
        self.partition(Kind::Identity)
    }

    /// The data partition.
    pub fn data(&self) -> Result<Device, DiskError> {
        self.partition(Kind::Data)
    }

    fn partition(&self, kind: Kind) -> Result<Device, DiskError> {
        let disk = || self.device.name.clone();
        let what = name_of(kind);
        let (start, size) =
            self.table.place(kind).ok_or_else(|| DiskError::Missing { disk: disk(), what: what.into() })?;
        let look = || block::partition(Path::new(SYSFS), &self.device, start, size);
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

fn name_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Esp => "bramble-esp",
        Kind::BootSelect => "bramble-boot-select",
        Kind::Boot(Slot::A) => "bramble-boot-a",
        Kind::Boot(Slot::B) => "bramble-boot-b",
        Kind::Extended => "bramble-extended",
        Kind::Root(Slot::A) => "bramble-root-a",
        Kind::Root(Slot::B) => "bramble-root-b",
        Kind::Identity => "bramble-identity",
        Kind::Data => "bramble-data",
    }
}

/// Ours is tried first as an MBR: a Pi's disk may have been a PC's, whose GPT nobody takes for its table any more.
fn read_table(device: &Device) -> Result<Table, String> {
    let path = device.path();
    let mut disk = File::open(&path).map_err(|error| error.to_string())?;
    let mbr = mbr::Table::read(&mut disk, device.size).ok().map(Table::Mbr);
    if let Some(table) = mbr
        && table.is_ours(None)
    {
        return Ok(table);
    }
    gpt::check(&mut disk, device.size).map(Table::Gpt).map_err(|error: CheckError| line(&error))
}

impl Table {
    fn is_ours(&self, esp: Option<[u8; 16]>) -> bool {
        match (self, esp) {
            (Table::Gpt(check), esp) => is_ours(check, esp),
            // Whoever started from an EFI system partition did not start from here.
            (Table::Mbr(_), Some(_)) => false,
            // An MBR says little of its partitions, so all of it must be as we write it.
            (Table::Mbr(table), None) => layout::pi(layout::pi::DISK_MIN_SIZE).is_ok_and(|ours| {
                table.partitions.len() == ours.len()
                    && table.partitions.iter().zip(&ours).all(|(found, ours)| {
                        let grows = matches!(ours.kind, Kind::Extended | Kind::Data);
                        (found.number, Code::Mbr(found.kind), found.start)
                            == (ours.number, ours.code, ours.start)
                            && (found.size == ours.size || grows && found.size > ours.size)
                    })
            }),
        }
    }

    /// First byte and size of a partition.
    fn place(&self, kind: Kind) -> Option<(u64, u64)> {
        match self {
            Table::Gpt(check) => {
                let name = name_of(kind);
                let wanted = |p: &&Partition| match kind {
                    Kind::Root(_) => p.type_guid.0 == TYPE_ROOT && p.name == name,
                    Kind::Identity => p.type_guid.0 == TYPE_IDENTITY,
                    Kind::Data => p.type_guid.0 == TYPE_DATA,
                    _ => p.name == name,
                };
                check.table.partitions.iter().find(wanted).map(|p| (p.start, p.size))
            }
            Table::Mbr(table) => {
                let ours = layout::pi(layout::pi::DISK_MIN_SIZE).ok()?;
                let number = ours.iter().find(|p| p.kind == kind)?.number;
                table.partitions.iter().find(|p| p.number == number).map(|p| (p.start, p.size))
            }
        }
    }
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
    use bramble_partition::{Guid, gpt};
    use std::io::Cursor;

    fn guid(code: Code) -> [u8; 16] {
        let Code::Gpt(guid) = code else { panic!("{code:?} in a GPT") };
        guid
    }

    fn check(esp: [u8; 16], kinds: impl Fn(Kind) -> bool) -> Check {
        let size = layout::DISK_MIN_SIZE;
        let partitions = layout::uefi(size).unwrap().into_iter().enumerate().filter(|(_, p)| kinds(p.kind));
        let partitions = partitions.map(|(index, p)| Partition {
            number: p.number.into(),
            type_guid: Guid(guid(p.code)),
            guid: if p.kind == Kind::Esp { Guid(esp) } else { Guid([index as u8 + 1; 16]) },
            start: p.start,
            size: p.size,
            attributes: 0,
            name: p.name.into(),
        });
        let table = gpt::Table { disk_guid: Guid([1; 16]), partitions: partitions.collect() };
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

    fn pi_table(disk: u64) -> mbr::Table {
        let partition = |p: layout::Partition| {
            let Code::Mbr(kind) = p.code else { panic!("{p:?} in an MBR") };
            mbr::Partition { number: p.number, kind, bootable: false, start: p.start, size: p.size }
        };
        mbr::Table { signature: 7, partitions: layout::pi(disk).unwrap().map(partition).to_vec() }
    }

    #[test]
    fn a_pi_s_disk_is_known_by_the_whole_of_its_table() {
        let table = pi_table(32_000_000_000);
        let ours = Table::Mbr(table.clone());
        assert!(ours.is_ours(None) && !ours.is_ours(Some([7; 16])));
        let [.., data] = layout::pi(32_000_000_000).unwrap();
        assert_eq!(ours.place(Kind::Data), Some((data.start, data.size)));
        assert_eq!(ours.place(Kind::Root(Slot::B)).unwrap().1, layout::ROOT_SIZE);
        assert_eq!(ours.place(Kind::Esp), None);
        let changed = |change: fn(&mut Vec<mbr::Partition>)| {
            let mut table = table.clone();
            change(&mut table.partitions);
            Table::Mbr(table).is_ours(None)
        };
        assert!(!changed(|p| p[5].start += 512));
        assert!(!changed(|p| p[1].kind = 0x83));
        assert!(!changed(|p| p[6].size /= 2));
        assert!(!changed(|p| p.truncate(p.len() - 1)));
    }

    #[test]
    fn what_was_mended_is_said() {
        let mended: Vec<String> = check([7; 16], |_| true).findings.iter().map(sentence).collect();
        assert_eq!(mended, ["the partition table's backup was written again: no header"]);
    }
}
