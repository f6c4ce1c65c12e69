//! Whole disks from sysfs (the kernel's Documentation/ABI/stable/sysfs-block and testing/sysfs-class-*).
//!
//! udev is not asked: it may be absent, and what it adds is in sysfs too.

use super::uses::{self, Layer};
use super::{Bus, Device, Foreign, Medium, Number, Partition};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::PathBuf;

/// Where the kernel tells about itself; other directories in tests.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    /// `/sys`
    pub(super) sys: PathBuf,
    /// `/proc`
    pub(super) proc: PathBuf,
    /// `/dev`
    pub(super) dev: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Roots { sys: "/sys".into(), proc: "/proc".into(), dev: "/dev".into() }
    }
}

/// One directory of sysfs.
struct Node {
    name: String,
    /// Where `/sys/class/block/NAME` leads: the way through the buses.
    path: PathBuf,
}

impl Node {
    fn raw(&self, attribute: &str) -> Option<Vec<u8>> {
        fs::read(self.path.join(attribute)).ok()
    }

    fn text(&self, attribute: &str) -> Option<String> {
        let text = String::from_utf8_lossy(&self.raw(attribute)?).trim_end_matches('\n').to_string();
        (!text.is_empty()).then_some(text)
    }

    fn number<T: std::str::FromStr>(&self, attribute: &str) -> Option<T> {
        self.text(attribute)?.trim().parse().ok()
    }

    fn words(&self, attribute: &str) -> Foreign {
        self.text(attribute).map(|t| Foreign::new(&t)).unwrap_or_default()
    }

    fn device_number(&self) -> Option<Number> {
        let text = self.text("dev")?;
        let (major, minor) = text.trim().split_once(':')?;
        Some(Number { major: major.parse().ok()?, minor: minor.parse().ok()? })
    }

    fn names(&self, directory: &str) -> Vec<String> {
        let entries = fs::read_dir(self.path.join(directory)).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.filter_map(|e| e.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    fn is_partition(&self) -> bool {
        self.path.join("partition").exists()
    }

    /// Name of the disk that a partition belongs to.
    fn disk(&self) -> Option<String> {
        self.path.parent()?.file_name()?.to_str().map(str::to_string)
    }

    /// Steps of the way through the buses.
    fn steps(&self) -> Vec<&str> {
        self.path.iter().filter_map(|s| s.to_str()).collect()
    }
}

impl Roots {
    fn node(&self, name: &str) -> Option<Node> {
        let path = fs::canonicalize(self.sys.join("class/block").join(name)).ok()?;
        Some(Node { name: name.to_string(), path })
    }

    fn nodes(&self) -> io::Result<Vec<Node>> {
        let mut nodes = Vec::new();
        for entry in fs::read_dir(self.sys.join("class/block"))? {
            // What goes away while it is listed is not there.
            let name = entry?.file_name();
            nodes.extend(name.to_str().and_then(|n| self.node(n)));
        }
        nodes.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(nodes)
    }

    /// Every whole disk.
    pub(super) fn devices(&self) -> io::Result<Vec<Device>> {
        let nodes = self.nodes()?;
        let layers = self.layers(&nodes);
        let mut devices: Vec<Device> = nodes
            .iter()
            .filter(|n| {
                !n.is_partition() && !is_boot_area(&n.name) && n.text("hidden").as_deref() != Some("1")
            })
            .filter_map(|n| self.device(n, &nodes, &layers))
            .collect();
        // More than one slot in one USB device: it is a reader, whatever it is called.
        let slots = |port: &str| port.rsplit_once(':').map(|(device, _)| device.to_string());
        let mut count: BTreeMap<String, usize> = BTreeMap::new();
        for device in devices.iter().filter(|d| d.bus == Bus::Usb) {
            *count.entry(slots(&device.port).unwrap_or_default()).or_default() += 1;
        }
        for device in devices.iter_mut().filter(|d| d.bus == Bus::Usb) {
            if count.get(&slots(&device.port).unwrap_or_default()).is_some_and(|c| *c > 1) {
                device.medium = Medium::Changeable;
            }
        }
        Ok(devices)
    }

    /// Names of disk and partition for a number; the partition is `None` for a whole disk.
    pub(super) fn find(&self, number: Number) -> Option<(String, Option<String>)> {
        let link = self.sys.join(format!("dev/block/{}:{}", number.major, number.minor));
        let path = fs::canonicalize(link).ok()?;
        let name = path.file_name()?.to_str()?.to_string();
        let node = Node { name: name.clone(), path };
        if node.is_partition() { Some((node.disk()?, Some(name))) } else { Some((name, None)) }
    }

    fn device(&self, node: &Node, nodes: &[Node], layers: &BTreeMap<String, Layer>) -> Option<Device> {
        let number = node.device_number()?;
        let of_disk = |n: &&Node| n.is_partition() && n.disk().as_deref() == Some(&node.name);
        let partitions: Vec<Partition> = nodes
            .iter()
            .filter(of_disk)
            .filter_map(|n| {
                Some(Partition {
                    name: n.name.clone(),
                    number: n.device_number()?,
                    // sysfs counts in 512 bytes, whatever the sector.
                    start: n.number::<u64>("start")? * 512,
                    size: n.number::<u64>("size")? * 512,
                })
            })
            .collect();
        let mut names = vec![node.name.clone()];
        names.extend(partitions.iter().map(|p| p.name.clone()));
        let place = place(node);
        let usb = place.usb.as_ref().map(|path| Node { name: String::new(), path: path.clone() });
        let removable = node.number::<u8>("removable") == Some(1);
        let (vendor, model) = titles(node, usb.as_ref());
        let said = [&vendor, &model].map(|t| t.raw().to_lowercase()).join(" ");
        Some(Device {
            number,
            sequence: node.number("diskseq"),
            size: node.number::<u64>("size")? * 512,
            sector: node.number("queue/logical_block_size").unwrap_or(512),
            physical_sector: node.number("queue/physical_block_size").unwrap_or(512),
            bus: place.bus,
            port: place.port,
            serials: serials(node, usb.as_ref(), place.bus),
            wwids: wwids(node),
            medium: medium(place.bus, removable, &said),
            removable,
            vendor,
            model,
            read_only: node.number::<u8>("ro") == Some(1),
            uses: uses::of(layers, &names),
            backing: node.text("loop/backing_file").map(PathBuf::from),
            partitions,
            discard_max: node.number("queue/discard_max_bytes").unwrap_or(0),
            contents: None,
            name: node.name.clone(),
        })
    }

    fn read(&self, path: &str) -> String {
        fs::read(self.proc.join(path)).map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
    }

    /// Kernel name of a device that something calls by a path.
    fn called(&self, path: &str) -> Option<String> {
        let inside = path.strip_prefix("/dev/")?;
        let real = fs::canonicalize(self.dev.join(inside)).unwrap_or_else(|_| PathBuf::from(path));
        real.file_name()?.to_str().map(str::to_string)
    }

    fn layers(&self, nodes: &[Node]) -> BTreeMap<String, Layer> {
        let mut layers: BTreeMap<String, Layer> = nodes
            .iter()
            .map(|n| {
                let layer = Layer {
                    dm_uuid: n.text("dm/uuid"),
                    title: n.text("dm/name"),
                    md: n.path.join("md").is_dir(),
                    holders: n.names("holders"),
                    ..Layer::default()
                };
                (n.name.clone(), layer)
            })
            .collect();
        let numbers: BTreeMap<Number, &str> =
            nodes.iter().filter_map(|n| Some((n.device_number()?, n.name.as_str()))).collect();
        // Of this process and, where it may be seen, of the first one: a container sees less than is mounted.
        let mut seen = BTreeSet::new();
        for table in ["self/mountinfo", "1/mountinfo"] {
            for mount in uses::mounts(&self.read(table)) {
                let by_number = numbers.get(&mount.number).map(|n| n.to_string());
                let name = by_number.or_else(|| self.called(&mount.source));
                if let Some(layer) = name.and_then(|n| layers.get_mut(&n))
                    && (seen.insert((mount.number, mount.at.clone())) || !layer.mounted.contains(&mount.at))
                {
                    layer.mounted.push(mount.at);
                }
            }
        }
        for path in uses::swaps(&self.read("swaps")) {
            if let Some(layer) = self.called(&path).and_then(|n| layers.get_mut(&n)) {
                layer.swap = true;
            }
        }
        for id in fs::read_dir(self.sys.join("fs/btrfs")).into_iter().flatten().flatten() {
            let id_text = id.file_name().to_string_lossy().into_owned();
            for device in fs::read_dir(id.path().join("devices")).into_iter().flatten().flatten() {
                if let Some(layer) = device.file_name().to_str().and_then(|n| layers.get_mut(n)) {
                    layer.btrfs = Some(id_text.clone());
                }
            }
        }
        layers
    }
}

/// Where a disk hangs.
struct Hangs {
    bus: Bus,
    port: String,
    /// The USB device's own directory.
    usb: Option<PathBuf>,
}

fn place(node: &Node) -> Hangs {
    let steps = node.steps();
    let plain = |bus: Bus, at: &str| Hangs { bus, port: format!("{}:{at}", bus.name()), usb: None };
    // 5 is a drive for discs (SCSI peripheral device types), on whatever bus.
    if node.number::<u8>("device/type") == Some(5) {
        return plain(Bus::Other, &node.name);
    }
    let scsi = steps.iter().rev().find(|s| s.split(':').count() == 4 && s.split(':').all(digits));
    // The last USB device on the way: hubs come before it. Its interfaces have a colon.
    if let Some(at) = steps.iter().rposition(|s| is_usb_port(s)) {
        let lun = scsi.and_then(|s| s.rsplit(':').next()).unwrap_or("0");
        let path = steps[..=at].iter().collect();
        return Hangs { bus: Bus::Usb, port: format!("usb:{}:{lun}", steps[at]), usb: Some(path) };
    }
    if let Some(at) = steps.iter().position(|s| *s == "mmc_host") {
        let host = steps.get(at + 1).copied().unwrap_or(node.name.as_str());
        let soldered = node.text("device/type").as_deref() == Some("MMC");
        return plain(if soldered { Bus::Emmc } else { Bus::Sd }, host);
    }
    if let Some(at) = steps.iter().position(|s| *s == "nvme" || *s == "nvme-subsystem") {
        return plain(Bus::Nvme, steps.get(at.wrapping_sub(1)).copied().unwrap_or(node.name.as_str()));
    }
    if steps.contains(&"virtual") || node.path.join("dm").is_dir() || node.path.join("md").is_dir() {
        let mapped = node.path.join("dm").is_dir() || node.path.join("md").is_dir();
        let looped = node.name.strip_prefix("loop").is_some_and(digits);
        let bus = if mapped {
            Bus::Mapped
        } else if looped {
            Bus::Loop
        } else {
            Bus::Other
        };
        return plain(bus, &node.name);
    }
    if let Some(virtio) = steps.iter().find(|s| s.strip_prefix("virtio").is_some_and(digits)) {
        return match scsi {
            Some(scsi) => plain(Bus::Scsi, scsi),
            None => plain(Bus::Virtio, virtio),
        };
    }
    if let Some(ata) = steps.iter().find_map(|s| s.strip_prefix("ata").filter(|n| digits(n))) {
        return plain(Bus::Ata, ata);
    }
    match scsi {
        Some(scsi) => plain(Bus::Scsi, scsi),
        None => plain(Bus::Other, &node.name),
    }
}

fn digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `2-1.4`: the bus, then the ports of hubs down to the device.
fn is_usb_port(step: &str) -> bool {
    step.split_once('-').is_some_and(|(bus, ports)| digits(bus) && ports.split('.').all(digits))
}

/// `mmcblk0boot0`, `mmcblk0rpmb`: areas of an eMMC that firmware uses.
fn is_boot_area(name: &str) -> bool {
    let rest = name.strip_prefix("mmcblk").map(|r| r.trim_start_matches(|c: char| c.is_ascii_digit()));
    rest.is_some_and(|r| r.starts_with("boot") || r.starts_with("rpmb") || r.starts_with("gp"))
}

fn titles(node: &Node, usb: Option<&Node>) -> (Foreign, Foreign) {
    let vendor = node.words("device/vendor");
    // A virtual machine's disk has a number of PCI there.
    let vendor = if vendor.raw().starts_with("0x") { Foreign::default() } else { vendor };
    let mut model = node.words("device/model");
    if model.is_empty() {
        model = node.words("device/name");
    }
    let Some(usb) = usb else { return (vendor, model) };
    let (maker, product) = (usb.words("manufacturer"), usb.words("product"));
    // What the USB device calls itself says more than its SCSI side, which is often "Mass Storage".
    (if maker.is_empty() { vendor } else { maker }, if product.is_empty() { model } else { product })
}

fn serials(node: &Node, usb: Option<&Node>, bus: Bus) -> Vec<Foreign> {
    let page = node.raw("device/vpd_pg80").and_then(|page| {
        let length = usize::from(*page.get(3)?);
        Some(Foreign::new(&String::from_utf8_lossy(page.get(4..4 + length)?)))
    });
    let of_usb = usb.map(|u| u.words("serial"));
    let mut serials: Vec<Foreign> = match bus {
        // A card's name and serial repeat; its whole register does not.
        Bus::Sd | Bus::Emmc => vec![node.words("device/cid")],
        Bus::Usb => [of_usb, page].into_iter().flatten().collect(),
        _ => page.into_iter().chain([node.words("device/serial"), node.words("serial")]).collect(),
    };
    serials.retain(|s| !s.is_empty() && !s.raw().chars().all(|c| c == '0'));
    serials.dedup();
    serials
}

fn wwids(node: &Node) -> Vec<Foreign> {
    let mut wwids = vec![node.words("wwid"), node.words("device/wwid")];
    wwids.retain(|w| !w.is_empty());
    wwids.dedup();
    wwids
}

/// Whose serial the bus gives. The safe answer is that the medium can be changed.
fn medium(bus: Bus, removable: bool, said: &str) -> Medium {
    const READER: &[&str] =
        &["reader", "card", "sd/mmc", "sdxc", "microsd", "multi", "crw", "cf/md", "transcend tf"];
    const STICK: &[&str] = &[
        "flash drive",
        "flash disk",
        "flashdrive",
        "datatraveler",
        "cruzer",
        "jumpdrive",
        "usb stick",
        "ultra fit",
    ];
    let says = |words: &[&str]| words.iter().any(|w| said.contains(w));
    match bus {
        Bus::Usb if !removable && !says(READER) => Medium::Own,
        Bus::Usb if says(STICK) && !says(READER) => Medium::Own,
        Bus::Usb | Bus::Loop => Medium::Changeable,
        Bus::Mapped | Bus::Other => Medium::Changeable,
        Bus::Sd | Bus::Emmc | Bus::Nvme | Bus::Ata | Bus::Scsi | Bus::Virtio => Medium::Own,
    }
}

#[cfg(test)]
#[path = "sysfs_tests.rs"]
mod tests;
