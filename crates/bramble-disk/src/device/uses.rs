//! What uses a disk: file systems, swap, RAID, LVM, encryption. From /proc and sysfs.

use super::Number;
use std::collections::{BTreeMap, BTreeSet};

/// Why a disk is not free.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// This computer runs from it.
    System {
        /// The mount point that says so.
        at: String,
    },
    /// A file system on it is mounted.
    Mounted {
        /// Kernel name of what is mounted.
        name: String,
        /// Where.
        at: String,
    },
    /// Swap.
    Swap {
        /// Kernel name of what is swapped to.
        name: String,
    },
    /// A part of something bigger that is active.
    Member {
        /// `LVM`, `software RAID`, `LUKS`, `multipath`, `device-mapper`, `btrfs`.
        of: &'static str,
        /// Name of the bigger thing.
        name: String,
    },
}

/// Where a computer keeps itself. A disk that carries one of these is never written.
const SYSTEM: &[&str] = &[
    "/",
    "/boot",
    "/boot/efi",
    "/boot/firmware",
    "/efi",
    "/home",
    "/nix",
    "/nix/store",
    "/opt",
    "/srv",
    "/sysroot",
    "/usr",
    "/var",
    "/var/lib",
];

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    /// Its device; major 0 where the file system has none of its own (btrfs, overlay, ZFS).
    pub(super) number: Number,
    /// What was mounted.
    pub(super) source: String,
    /// Where.
    pub(super) at: String,
}

/// Reads `/proc/PID/mountinfo` (proc_pid_mountinfo(5)); lines of another form are passed over.
pub(super) fn mounts(text: &str) -> Vec<Mount> {
    let one = |line: &str| {
        let (before, after) = line.split_once(" - ")?;
        let mut fields = before.split(' ').skip(2);
        let (major, minor) = fields.next()?.split_once(':')?;
        let at = unescape(fields.nth(1)?);
        let source = unescape(after.split(' ').nth(1)?);
        let number = Number { major: major.parse().ok()?, minor: minor.parse().ok()? };
        Some(Mount { number, source, at })
    };
    text.lines().filter_map(one).collect()
}

/// Paths of active swap, from `/proc/swaps`.
pub(super) fn swaps(text: &str) -> Vec<String> {
    text.lines().skip(1).filter_map(|l| l.split_whitespace().next()).map(unescape).collect()
}

/// Undoes the kernel's octal escapes.
fn unescape(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 4).filter(|d| d.iter().all(|b| (b'0'..=b'7').contains(b)));
        match digits {
            Some(d) if bytes[at] == b'\\' => {
                let value = d.iter().fold(0u32, |v, b| v * 8 + u32::from(b - b'0'));
                out.push(value as u8);
                at += 4;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// A block device as a node of the graph of who lies on whom.
#[derive(Clone, Debug, Default)]
pub(super) struct Layer {
    /// Device-mapper's `uuid`, whose prefix names the owner.
    pub(super) dm_uuid: Option<String>,
    /// Device-mapper's or md's own name for it.
    pub(super) title: Option<String>,
    /// It is a software RAID.
    pub(super) md: bool,
    /// Kernel names of what lies on it.
    pub(super) holders: Vec<String>,
    /// Where it is mounted.
    pub(super) mounted: Vec<String>,
    /// It is swapped to.
    pub(super) swap: bool,
    /// It belongs to a mounted btrfs with this identifier.
    pub(super) btrfs: Option<String>,
}

/// Everything that uses `names` (a disk and its partitions), followed upwards.
pub(super) fn of(layers: &BTreeMap<String, Layer>, names: &[String]) -> Vec<Use> {
    let mut found = BTreeSet::new();
    let mut todo: Vec<(String, bool)> = names.iter().map(|n| (n.clone(), true)).collect();
    let mut seen = BTreeSet::new();
    while let Some((name, own)) = todo.pop() {
        let Some(layer) = layers.get(&name) else { continue };
        if !seen.insert(name.clone()) {
            continue;
        }
        let title = layer.title.clone().unwrap_or_else(|| name.clone());
        if !own {
            found.insert(Use::Member { of: kind(layer), name: title });
        }
        if let Some(id) = &layer.btrfs {
            found.insert(Use::Member { of: "btrfs", name: id.clone() });
        }
        for at in &layer.mounted {
            found.insert(Use::Mounted { name: name.clone(), at: at.clone() });
            if SYSTEM.contains(&at.as_str()) {
                found.insert(Use::System { at: at.clone() });
            }
        }
        if layer.swap {
            found.insert(Use::Swap { name: name.clone() });
        }
        todo.extend(layer.holders.iter().map(|h| (h.clone(), false)));
    }
    // `Use::System` sorts first: the weightiest reason is the one to tell.
    found.into_iter().collect()
}

fn kind(layer: &Layer) -> &'static str {
    let uuid = layer.dm_uuid.as_deref().unwrap_or_default();
    match uuid.split('-').next().unwrap_or_default() {
        _ if layer.md => "software RAID",
        "LVM" => "LVM",
        "CRYPT" => "LUKS",
        "mpath" => "multipath",
        _ => "device-mapper",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_and_swaps_are_read_with_odd_names() {
        let text = "36 35 98:0 /mnt1 /mnt/a\\040b rw,noatime master:1 - ext3 /dev/root rw,errors=continue\n\
                    37 35 0:21 / /mnt2 rw - btrfs /dev/sd\\134b rw\nnonsense\n";
        let mounts = mounts(text);
        assert_eq!(mounts.len(), 2);
        assert_eq!((mounts[0].at.as_str(), mounts[0].number), ("/mnt/a b", Number { major: 98, minor: 0 }));
        assert_eq!(mounts[1].source, "/dev/sd\\b");
        let swap = "Filename\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/sda3 partition 1 0 -2\n";
        assert_eq!(swaps(swap), ["/dev/sda3"]);
        assert_eq!(swaps(""), [] as [&str; 0]);
    }

    #[test]
    fn a_root_on_lvm_on_luks_on_raid_makes_both_disks_the_system() {
        let layer = |title: &str, uuid: Option<&str>, holders: &[&str]| Layer {
            title: Some(title.into()),
            dm_uuid: uuid.map(Into::into),
            holders: holders.iter().map(ToString::to_string).collect(),
            ..Layer::default()
        };
        let mut layers = BTreeMap::new();
        for part in ["sda1", "sdb1"] {
            layers.insert(part.to_string(), layer(part, None, &["md0"]));
        }
        layers.insert("md0".into(), Layer { md: true, ..layer("home:0", None, &["dm-0"]) });
        layers.insert("dm-0".into(), layer("cryptroot", Some("CRYPT-LUKS2-11"), &["dm-1"]));
        let root = Layer { mounted: vec!["/".into()], ..layer("vg-root", Some("LVM-xy"), &[]) };
        layers.insert("dm-1".into(), root);
        for disk in ["sda", "sdb"] {
            let uses = of(&layers, &[disk.to_string(), format!("{disk}1")]);
            assert_eq!(uses[0], Use::System { at: "/".into() });
            let members: Vec<_> = uses
                .iter()
                .filter_map(|u| match u {
                    Use::Member { of, .. } => Some(*of),
                    _ => None,
                })
                .collect();
            assert_eq!(members, ["LUKS", "LVM", "software RAID"]);
        }
        assert_eq!(of(&layers, &["sdc".into()]), []);
    }
}
