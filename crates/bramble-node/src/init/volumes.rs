//! Disks beside the one with the system: state on a disk of its own, and volumes.
//!
//! **A disk is formatted only when nothing at all is known to be on it**: head and end are zeros (or as erased flash
//! reads), or hold our own mark that a making had begun. Everything else is left as it is and said: another system's
//! table, file system or volume manager, a Bramble card, a torn superblock, an ext4 that is not this node's. A volume
//! is known by the UUID of its file system, which follows from cluster, node and name: a new card of the node finds it
//! again.

use super::ext4::{self, Head};
use super::media;
use super::state::Incarnation;
use crate::console::note;
use crate::refused::{At, Refused};
use bramble_api::document::{DiskName, MachineDocument};
use bramble_api::layout::{BLOCK, DATA_MARK};
use bramble_api::names::path;
use bramble_disk::device::linux::Linux;
use bramble_disk::device::{Contents, Device, Site};
use bramble_disk::flash::Expect;
use bramble_disk::flash::guard::has;
use rustix::mount::{MountFlags, mount};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a disk may take to appear: a hard disk behind USB has to spin up.
const LIMIT: Duration = Duration::from_secs(30);
/// Between two looks.
const POLL: Duration = Duration::from_millis(250);
/// Whose state a data disk holds: the incarnation of the card that used it last.
const OWNER: &str = ".bramble-incarnation";

/// What to do with a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Act {
    /// Nothing is on it.
    Make,
    /// It is the one, to be checked first when its superblock asks for it.
    Mount(ext4::Superblock),
    /// It is left as it is.
    Leave(String),
}

/// Decides from what is seen.
fn decide(device: &Device, contents: &Contents, head: &Head, uuid: &Incarnation) -> Act {
    let leave = |why: String| Act::Leave(format!("{why}; it is left as it is"));
    if !device.uses.is_empty() {
        return leave("it is in use".into());
    }
    if device.read_only {
        return leave("it cannot be written".into());
    }
    if contents.card.is_some() || contents.bramble {
        return leave("it is a Bramble card".into());
    }
    if contents.table.is_some() || !device.partitions.is_empty() {
        return leave("it has a partition table".into());
    }
    match head {
        Head::Ext4(superblock) if superblock.uuid == *uuid => Act::Mount(*superblock),
        Head::Ext4(_) => leave("it has a file system that is not this node's".into()),
        // Unlike data beside the system, which a first boot may make again: years may lie here.
        Head::Torn { .. } => {
            leave("its file system is damaged: repair it with e2fsck on another computer".into())
        }
        Head::Marked | Head::Empty | Head::Foreign => {
            let known: Vec<&str> = contents.signatures.iter().map(|s| s.kind.name()).collect();
            if !known.is_empty() {
                return leave(format!("it holds {}", known.join(", ")));
            }
            match head {
                Head::Marked => Act::Make,
                _ if contents.blank => Act::Make,
                _ => leave("it holds something that is not known; clear it to have it used".into()),
            }
        }
    }
}

/// The UUID of a file system of a node, whatever card the node has.
fn uuid(document: &MachineDocument, kind: &str, name: &str) -> Incarnation {
    let words = ["bramble volume", &document.cluster, &document.machine.name, kind, name].join("\0");
    let digest = Sha256::digest(words.as_bytes());
    let mut uuid = [0; 16];
    uuid.copy_from_slice(&digest[..16]);
    uuid
}

/// The disk that the file names, waited for.
fn find(site: &Linux, disk: &DiskName) -> Result<Device, String> {
    let expect = match disk {
        DiskName::Serial(serial) => Expect::Serial(serial.clone()),
        DiskName::Wwid(wwid) => Expect::Wwid(wwid.clone()),
    };
    let until = site.elapsed() + LIMIT;
    loop {
        let devices = site.devices().map_err(|e| e.to_string())?;
        let mut fitting = devices.into_iter().filter(|d| d.size > 0 && has(d, &expect));
        match (fitting.next(), fitting.next()) {
            (Some(device), None) => return Ok(device),
            // Cheap bridges share serials: nobody can say which is meant.
            (Some(a), Some(b)) => return Err(format!("{} and {} both say that they are it", a.name, b.name)),
            _ if site.elapsed() >= until => {
                return Err(format!("it did not appear within {} s", LIMIT.as_secs()));
            }
            _ => site.pause(POLL),
        }
    }
}

/// Mounts the file system of a disk, making it where nothing is. `true` when it was made.
fn settle(
    root: &Path,
    disk: &DiskName,
    uuid: &Incarnation,
    label: &str,
    target: &Path,
) -> Result<bool, String> {
    let site = Linux::default();
    let device = find(&site, disk)?;
    let contents = site.look(&device)?;
    let node = device.path();
    let head = read_head(&node).map_err(|e| e.to_string())?;
    let superblock = match decide(&device, &contents, &ext4::parse(&head), uuid) {
        Act::Leave(why) => return Err(format!("{}: {why}", device.name)),
        Act::Mount(superblock) => Some(superblock),
        Act::Make => {
            note(&format!("making a file system on {}", device.name));
            mark_begun(&node).map_err(|e| e.to_string())?;
            media::mkfs(root, &node, label, uuid, || ()).map_err(|e| e.to_string())?;
            None
        }
    };
    if superblock.is_some_and(|s| s.needs_check) {
        note(&format!("checking the file system on {}", device.name));
        if let Some(said) = media::fsck(root, &node)? {
            note(&format!("{}: {said}", device.name));
        }
    }
    fs::create_dir_all(target).map_err(|e| e.to_string())?;
    mount(&node, target, c"ext4", MountFlags::NOATIME, c"errors=remount-ro")
        .map_err(|e| format!("{}: it cannot be mounted: {}", device.name, std::io::Error::from(e)))?;
    Ok(superblock.is_none())
}

fn read_head(node: &Path) -> std::io::Result<[u8; ext4::HEAD]> {
    let mut head = [0; ext4::HEAD];
    File::open(node)?.read_exact_at(&mut head, 0)?;
    Ok(head)
}

fn mark_begun(node: &Path) -> std::io::Result<()> {
    let mut block = [0; BLOCK as usize];
    block[..DATA_MARK.len()].copy_from_slice(DATA_MARK);
    let file = File::options().write(true).open(node)?;
    file.write_all_at(&block, 0)?;
    file.sync_all()
}

/// Mounts the disk of state over the place where state lies beside the system. A machine without its state must not
/// start: it would begin anew beside what it had.
pub fn mount_data(root: &Path, document: &MachineDocument) -> Result<(), String> {
    let Some(disk) = &document.system.disks.data else { return Ok(()) };
    let target = below(root, path::PERSIST);
    let made = settle(root, disk, &uuid(document, "data", ""), "bramble-state", &target)
        .map_err(|why| format!("the disk for state cannot be used: {why}"))?;
    let machine = &document.machine;
    let owner = fs::read_to_string(target.join(OWNER)).ok();
    match may_take(made, bare(&target), owner.as_deref(), &machine.incarnation, machine.keep_data) {
        Take::Ours => Ok(()),
        Take::Over => put_owner(&target, &machine.incarnation)
            .map_err(|e| format!("the disk for state cannot be written: {e}")),
        Take::Not => Err(
            "the disk for state holds that of an earlier card: flash with --keep-data to go on with it, or \
                          clear the disk"
                .into(),
        ),
    }
}

/// Whether the state on a disk is this card's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Take {
    Ours,
    Over,
    Not,
}

fn may_take(made: bool, bare: bool, owner: Option<&str>, incarnation: &str, keep: bool) -> Take {
    match owner {
        Some(owner) if owner.trim() == incarnation => Take::Ours,
        // Made now, or by a boot that was cut before it said whose it is.
        None if made || bare => Take::Over,
        _ if keep => Take::Over,
        _ => Take::Not,
    }
}

/// Whether a file system holds nothing but what mkfs puts there.
fn bare(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| {
        entries.all(|e| {
            e.is_ok_and(|e| e.file_name() == "lost+found" || e.file_name() == format!("{OWNER}.new").as_str())
        })
    })
}

fn put_owner(directory: &Path, incarnation: &str) -> std::io::Result<()> {
    let (path, new) = (directory.join(OWNER), directory.join(format!("{OWNER}.new")));
    let mut file = File::create(&new)?;
    file.write_all(incarnation.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, &path)?;
    File::open(directory)?.sync_all()
}

/// Mounts the volumes, and names those that are used as they are. What cannot be had is said, one sentence each, and
/// its place is closed, so that nothing is written beside it into memory.
pub fn mount_volumes(root: &Path, document: &MachineDocument) -> Result<Vec<String>, Refused> {
    let mut noticed = Vec::new();
    for volume in &document.system.disks.volumes {
        let name = &volume.name;
        let done = match &volume.mount {
            Some(place) => {
                let target = below(root, place);
                let uuid = uuid(document, "volume", name);
                let label: String = name.chars().take(16).collect();
                let done = settle(root, &volume.disk, &uuid, &label, &target).map(drop);
                if done.is_err() {
                    close(&target)?;
                }
                done
            }
            None => link(name, &volume.disk),
        };
        if let Err(why) = done {
            noticed.push(format!("the volume {name} is not there: {why}"));
        }
    }
    Ok(noticed)
}

/// An empty place that nobody can write to.
fn close(target: &Path) -> Result<(), Refused> {
    fs::create_dir_all(target).at("make", target)?;
    mount(
        c"tmpfs",
        target,
        c"tmpfs",
        MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID,
        c"mode=0555",
    )
    .at("mount", target)
}

/// A stable name for a disk that is used as it is, by something that knows what to do with it. Nothing is written.
fn link(name: &str, disk: &DiskName) -> Result<(), String> {
    let device = find(&Linux::default(), disk)?;
    if !device.uses.is_empty() {
        return Err(format!("{}: it is in use", device.name));
    }
    let directory = Path::new("/dev/disk/bramble");
    let linked = fs::create_dir_all(directory).and_then(|()| {
        match fs::remove_file(directory.join(name)) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        std::os::unix::fs::symlink(format!("../../{}", device.name), directory.join(name))
    });
    linked.map_err(|e| e.to_string())
}

/// A path of the running system, below the root's mount point.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bramble_disk::device::{Bus, Medium, Number, Partition, Place, Signature, SignatureKind, TableKind};

    const OURS: Incarnation = [7; 16];

    fn device() -> Device {
        Device {
            name: "sda".into(),
            number: Number { major: 8, minor: 0 },
            sequence: None,
            size: 1 << 40,
            sector: 512,
            physical_sector: 4096,
            bus: Bus::Usb,
            port: "usb:1-1:0".into(),
            vendor: Default::default(),
            model: Default::default(),
            serials: vec![],
            wwids: vec![],
            medium: Medium::Own,
            removable: false,
            read_only: false,
            uses: vec![],
            backing: None,
            partitions: vec![],
            discard_max: 0,
            contents: None,
        }
    }

    fn contents() -> Contents {
        Contents {
            table: None,
            signatures: vec![],
            card: None,
            bramble: false,
            blank: true,
            fingerprint: [0; 32],
        }
    }

    fn ext4(uuid: Incarnation) -> Head {
        Head::Ext4(ext4::Superblock { uuid, size: 1 << 40, needs_check: false })
    }

    /// The rule of this module: over all that can be seen, a disk is made anew only when nothing is on it.
    #[test]
    fn nothing_but_an_empty_disk_is_ever_formatted() {
        let heads =
            [Head::Empty, Head::Marked, Head::Foreign, Head::Torn { uuid: OURS }, ext4(OURS), ext4([9; 16])];
        let signature = Signature { kind: SignatureKind::Luks, place: Place::Disk };
        for head in &heads {
            for bits in 0..32u8 {
                let on = |bit: u8| bits & (1 << bit) != 0;
                let (mut device, mut seen) = (device(), contents());
                seen.blank = on(0);
                seen.table = on(1).then_some(TableKind::Gpt);
                seen.bramble = on(2);
                seen.signatures = if on(3) { vec![signature] } else { vec![] };
                if on(4) {
                    device.partitions = vec![Partition { start: 1 << 20, size: 1 << 30, ..partition() }];
                }
                let nothing = !on(1) && !on(2) && !on(3) && !on(4);
                let empty = nothing
                    && match head {
                        Head::Marked => true,
                        Head::Empty | Head::Foreign => on(0),
                        _ => false,
                    };
                let act = decide(&device, &seen, head, &OURS);
                assert_eq!(act == Act::Make, empty, "{head:?} {bits:05b}: {act:?}");
            }
        }
    }

    fn partition() -> Partition {
        Partition { name: "sda1".into(), number: Number { major: 8, minor: 1 }, start: 0, size: 0 }
    }

    #[test]
    fn a_volume_is_known_by_its_file_system_and_not_by_its_label() {
        let mut seen = contents();
        seen.blank = false;
        seen.signatures = vec![Signature { kind: SignatureKind::Ext, place: Place::Disk }];
        assert!(matches!(decide(&device(), &seen, &ext4(OURS), &OURS), Act::Mount(_)));
        assert!(matches!(decide(&device(), &seen, &ext4([1; 16]), &OURS), Act::Leave(_)));
        let document = crate::fixture::document();
        let mut other = document.clone();
        other.machine.incarnation = "f".repeat(32);
        assert_eq!(uuid(&document, "volume", "a"), uuid(&other, "volume", "a"));
        assert_ne!(uuid(&document, "volume", "a"), uuid(&document, "volume", "b"));
        assert_ne!(uuid(&document, "volume", ""), uuid(&document, "data", ""));
        other.machine.name = "n9".into();
        assert_ne!(uuid(&document, "volume", "a"), uuid(&other, "volume", "a"));
    }

    #[test]
    fn state_of_an_earlier_card_is_taken_over_only_when_that_was_asked_for() {
        assert_eq!(may_take(true, true, None, "a", false), Take::Over);
        assert_eq!(may_take(false, true, None, "a", false), Take::Over);
        assert_eq!(may_take(false, false, Some("a\n"), "a", false), Take::Ours);
        assert_eq!(may_take(false, false, Some("b"), "a", false), Take::Not);
        assert_eq!(may_take(false, false, Some("b"), "a", true), Take::Over);
        assert_eq!(may_take(false, false, None, "a", false), Take::Not);
    }

    #[test]
    fn whose_a_disk_is_survives_and_is_no_content() {
        let directory = std::env::temp_dir().join(format!("bramble-owner-{}", std::process::id()));
        fs::create_dir_all(directory.join("lost+found")).unwrap();
        assert!(bare(&directory));
        put_owner(&directory, "abc").unwrap();
        assert_eq!(fs::read_to_string(directory.join(OWNER)).unwrap(), "abc");
        assert!(!bare(&directory));
        fs::remove_dir_all(directory).unwrap();
    }
}
