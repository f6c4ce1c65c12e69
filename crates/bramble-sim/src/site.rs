//! A machine's disk as `flash` leaves it, and the releases that are published for it. Small, in the real layout: tables,
//! offsets, file systems and sizes of slots are those of `bramble_api::layout`.

use crate::Random;
use crate::disk::Disk;
use bramble_api::layout::{self, BLOCK, Code, Kind, MANIFEST_SIZE, pi};
use bramble_api::names::{Arch, Slot};
use bramble_fat::{Content, Entry, FatType, Options, Volume};
use bramble_partition::{Guid, gpt, mbr};
use bramble_upgrade::engine::Release;
use bramble_upgrade::journal::{COPIES, COPY};
use bramble_upgrade::media::{Area, Scheme};
use bramble_upgrade::state::Target;
use bramble_upgrade::verity;
use sha2::{Digest, Sha256};

/// Blocks of a root.
const ROOT_BLOCKS: usize = 24;
/// Bytes of the place of a UKI: 16 blocks of 4 KiB stand for 48 MiB.
const UKI_ROOM: u64 = 64 << 10;
/// Bytes of a BOOT partition that are looked at: both FATs and all files lie in them.
const BOOT_ROOM: u64 = 3 << 20;
/// Size of the disk.
const DISK: u64 = 8 << 30;

/// What a release does when it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kindness {
    /// It becomes healthy.
    Good,
    /// Its kernel dies, or hangs until a watchdog bites.
    Dead,
    /// It starts, and does not become healthy.
    Unhealthy,
}

/// A published release.
#[derive(Clone, Debug)]
pub struct Published {
    /// As the engine wants it.
    pub release: Release,
    /// The root image.
    pub root: Vec<u8>,
    /// What firmware loads: a UKI, or the head of a BOOT partition.
    pub boot: Vec<u8>,
    /// What it does.
    pub kindness: Kindness,
}

/// Where the parts of a machine's disk lie.
#[derive(Clone, Debug)]
pub struct Site {
    /// How its firmware is told.
    pub scheme: Scheme,
    /// The disk with release 1 in slot A.
    pub disk: Disk,
    /// All releases, 1 first.
    pub published: Vec<Published>,
    places: Vec<(Area, u64, u64)>,
    journal: u64,
}

impl Site {
    /// A machine with release 1, and releases 2 and on, which do what `kinds` says.
    pub fn new(scheme: Scheme, seed: u64, kinds: &[Kindness]) -> Site {
        let mut random = Random(seed);
        let mut published: Vec<Published> = Vec::new();
        for (index, kindness) in [Kindness::Good].iter().chain(kinds).enumerate() {
            let before = published.last();
            let next = publish(scheme, index as u64 + 1, *kindness, before, &mut random);
            published.push(next);
        }
        match scheme {
            Scheme::Uefi => uefi(published),
            Scheme::Pi => raspberry(published),
        }
    }

    /// First byte and length of an area.
    pub fn place(&self, area: Area) -> (u64, u64) {
        let found = self.places.iter().find(|(known, ..)| *known == area);
        found.map_or((0, 0), |(_, start, size)| (*start, *size))
    }

    /// First byte of a copy of the journal.
    pub fn journal(&self, copy: usize) -> u64 {
        self.journal + (copy * COPY) as u64
    }

    /// Whether a sector belongs to root or boot of a slot.
    pub fn is_of(&self, slot: Slot, sector: u64) -> bool {
        [Area::Root(slot), Area::Boot(slot)].into_iter().any(|area| {
            let (start, size) = self.place(area);
            (start..start + size).contains(&(sector * 512))
        })
    }

    /// The release whose manifest this is.
    pub fn release(&self, manifest: &[u8]) -> Option<&Published> {
        self.published.iter().find(|published| published.release.manifest == manifest)
    }

    /// The release with this number.
    pub fn numbered(&self, version: u64) -> Option<&Published> {
        self.published.iter().find(|published| published.release.target.version == version)
    }

    fn put(&mut self, area: Area, offset: u64, bytes: &[u8]) {
        let (start, _) = self.place(area);
        self.disk.write(start + offset, bytes);
    }

    /// Release 1 into slot A; slot B stays empty; the journal is made blank.
    fn install_first(mut self) -> Site {
        let first = self.published[0].clone();
        self.put(Area::Root(Slot::A), 0, &first.root);
        let data = first.root.len() as u64;
        let mut builder = verity::Builder::new(&first.release.verity.salt, data);
        let mut tree: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut emit = |at: u64, block: &[u8]| -> Result<(), std::convert::Infallible> {
            tree.push((at, block.to_vec()));
            Ok(())
        };
        let Ok(()) = builder.push(&first.root, &mut emit);
        let Ok(_) = builder.finish(&mut emit);
        for (at, block) in tree {
            self.put(Area::Root(Slot::A), data + at, &block);
        }
        let (_, size) = self.place(Area::Root(Slot::A));
        self.put(Area::Root(Slot::A), size - MANIFEST_SIZE, &first.release.manifest);
        self.put(Area::Boot(Slot::A), 0, &whole_sectors(first.boot));
        let switch = self.scheme.switch(Slot::A);
        self.put(Area::Switch, 0, &switch);
        self
    }
}

fn whole_sectors(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

/// A release: most of its root is that of the one before.
fn publish(
    scheme: Scheme,
    version: u64,
    kindness: Kindness,
    before: Option<&Published>,
    random: &mut Random,
) -> Published {
    let data = ROOT_BLOCKS * BLOCK as usize;
    let mut root = before.map_or_else(|| random.bytes(data), |before| before.root[..data].to_vec());
    if before.is_some() {
        for _ in 0..8 {
            let block = random.below(ROOT_BLOCKS as u64) as usize * BLOCK as usize;
            root[block..block + BLOCK as usize].copy_from_slice(&random.bytes(BLOCK as usize));
        }
    }
    let salt = random.bytes(32);
    let (tree_size, hash) = tree(&salt, &root);
    let boot = match scheme {
        Scheme::Uefi => uki(version, random),
        Scheme::Pi => boot_partition(version, random),
    };
    // Stands for the signed one; that a signature is checked is tested where it is done.
    let mut manifest = format!("manifest of release {version}, root {hash:02x?}").into_bytes();
    manifest.resize(MANIFEST_SIZE as usize, 0);
    let digest = Sha256::digest(&manifest).iter().map(|byte| format!("{byte:02x}")).collect();
    Published {
        release: Release {
            target: Target { version, digest, floor: 0 },
            verity: verity::Tree { data: data as u64, tree: tree_size, root: hash, salt },
            boot_size: boot.len() as u64,
            boot_sha256: Sha256::digest(&boot).into(),
            manifest,
        },
        root,
        boot,
        kindness,
    }
}

/// Bytes of the tree over a root, and its root hash.
fn tree(salt: &[u8], root: &[u8]) -> (u64, [u8; 32]) {
    let mut size = 0;
    let mut emit = |at: u64, block: &[u8]| -> Result<(), std::convert::Infallible> {
        size = size.max(at + block.len() as u64);
        Ok(())
    };
    let mut builder = verity::Builder::new(salt, root.len() as u64);
    let Ok(()) = builder.push(root, &mut emit);
    let Ok(hash) = builder.finish(&mut emit);
    (size, hash.unwrap_or_default())
}

/// A PE file with the sections that systemd-boot looks at (Microsoft "PE Format", sections 3 and 4), and noise.
fn uki(version: u64, random: &mut Random) -> Vec<u8> {
    let osrel = format!("ID=bramble\nPRETTY_NAME=\"Bramble\"\nIMAGE_VERSION={version}\n").into_bytes();
    let length = 20_000 + random.below(8000) as usize;
    let noise = random.bytes(length);
    let sections: [(&[u8], Vec<u8>); 2] = [(b".osrel", osrel), (b".linux", noise)];
    let mut bytes = pe(sections.len());
    for (index, (name, content)) in sections.into_iter().enumerate() {
        let at = 0x58 + 112 + index * 40;
        let (offset, length) = (bytes.len() as u32, content.len() as u32);
        bytes[at..at + name.len()].copy_from_slice(name);
        for (field, value) in [(8, length), (16, length.next_multiple_of(512)), (20, offset)] {
            bytes[at + field..at + field + 4].copy_from_slice(&value.to_le_bytes());
        }
        bytes.extend(content);
        bytes = whole_sectors(bytes);
    }
    bytes
}

/// The headers of a PE32+ program for x86-64.
fn pe(sections: usize) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x44..0x46].copy_from_slice(&0x8664u16.to_le_bytes());
    bytes[0x46..0x48].copy_from_slice(&(sections as u16).to_le_bytes());
    bytes[0x54..0x56].copy_from_slice(&112u16.to_le_bytes());
    bytes[0x58..0x5a].copy_from_slice(&0x20bu16.to_le_bytes());
    bytes
}

fn uefi(published: Vec<Published>) -> Site {
    let size = DISK;
    let table = layout::uefi(size).unwrap_or_else(|_| panic!("{size} bytes are a disk"));
    let mut disk = Disk::new(size);
    let partitions = table.iter().map(|p| gpt::Partition {
        number: p.number.into(),
        type_guid: match p.code {
            Code::Gpt(guid) => Guid(guid),
            Code::Mbr(_) => Guid([0; 16]),
        },
        guid: Guid([p.number; 16]),
        start: p.start,
        size: p.size,
        attributes: 0,
        name: p.name.into(),
    });
    let gpt = gpt::Table { disk_guid: Guid([9; 16]), partitions: partitions.collect() };
    for write in gpt.writes(size).unwrap_or_default() {
        disk.write(write.offset, &write.bytes);
    }
    let conf = layout::loader_conf(Slot::A);
    let loader = pe(1);
    let [a, b] = [Slot::A, Slot::B].map(layout::uki_path);
    let entries = [
        Entry::file(layout::loader_path(Arch::Amd64), &loader),
        Entry::file(a, &[]).padded_to(UKI_ROOM),
        Entry::file(b, &[]).padded_to(UKI_ROOM),
        Entry::file(layout::LOADER_CONF, &conf).alone_in(layout::ALIGNMENT),
    ];
    let options = Options { size: layout::ESP_SIZE, sectors_per_cluster: 8, ..Options::new(FatType::Fat32) };
    let volume = Volume::plan(&entries, &options).unwrap_or_else(|error| panic!("the ESP: {error}"));
    let start_of = |kind: Kind| table.iter().find(|p| p.kind == kind).map_or(0, |p| p.start);
    let esp = start_of(Kind::Esp);
    lay(&mut disk, esp, &volume);
    let extent = |path: &str| {
        let extent = volume.extent(path).unwrap_or_else(|| panic!("{path}"));
        (esp + extent.offset, extent.length)
    };
    let root = |slot| (start_of(Kind::Root(slot)), layout::ROOT_SIZE);
    let places = vec![
        named(Area::Switch, extent(layout::LOADER_CONF)),
        named(Area::Boot(Slot::A), extent(a)),
        named(Area::Boot(Slot::B), extent(b)),
        named(Area::Root(Slot::A), root(Slot::A)),
        named(Area::Root(Slot::B), root(Slot::B)),
    ];
    let journal = start_of(Kind::Data) + (1 << 20);
    Site { scheme: Scheme::Uefi, disk, published, places, journal }.install_first()
}

fn named(area: Area, (start, size): (u64, u64)) -> (Area, u64, u64) {
    (area, start, size)
}

fn lay(disk: &mut Disk, start: u64, volume: &Volume<'_>) {
    for segment in volume.segments() {
        if let Content::Bytes(bytes) = segment.content {
            disk.write(start + segment.offset, &whole_sectors(bytes.to_vec()));
        }
    }
}

const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const END: u32 = 9;

/// A device tree with nothing but what it fits (Devicetree Specification 0.4, chapter 5).
fn device_tree(compatible: &str) -> Vec<u8> {
    let mut structure: Vec<u8> = Vec::new();
    let mut put = |number: u32| structure.extend(number.to_be_bytes());
    put(BEGIN_NODE);
    put(0);
    put(PROPERTY);
    put(compatible.len() as u32 + 1);
    put(0);
    let mut value = compatible.replace(' ', "\0").into_bytes();
    value.push(0);
    value.resize(value.len().next_multiple_of(4), 0);
    value.chunks_exact(4).for_each(|word| put(u32::from_be_bytes([word[0], word[1], word[2], word[3]])));
    put(END_NODE);
    put(END);
    let strings = b"compatible\0";
    let (structure_at, strings_at) = (56, 56 + structure.len());
    let total = strings_at + strings.len();
    let header =
        [0xd00d_feed, total, structure_at, strings_at, 40, 17, 16, 0, strings.len(), structure.len()];
    let mut out: Vec<u8> = header.iter().flat_map(|number| (*number as u32).to_be_bytes()).collect();
    out.extend([0; 16]);
    out.extend(structure);
    out.extend(strings);
    out
}

/// What a Pi 4 and a Pi 5 start from a partition.
fn pi_files(cmdline: &str, random: &mut Random) -> Vec<(&'static str, Vec<u8>)> {
    let length = 9000 + random.below(4000) as usize;
    let mut kernel = random.bytes(length);
    kernel[..2].copy_from_slice(b"MZ");
    kernel[56..60].copy_from_slice(b"ARM\x64");
    vec![
        ("start4.elf", b"\x7fELF4".to_vec()),
        ("fixup4.dat", b"f".to_vec()),
        (
            "config.txt",
            b"arm_64bit=1\nupstream_kernel=1\nkernel=vmlinuz\ninitramfs initrd followkernel\n".to_vec(),
        ),
        ("cmdline.txt", cmdline.as_bytes().to_vec()),
        ("vmlinuz", kernel),
        ("initrd", random.bytes(3000)),
        ("bcm2711-rpi-4-b.dtb", device_tree("raspberrypi,4-model-b brcm,bcm2711")),
        ("bcm2712-rpi-5-b.dtb", device_tree("raspberrypi,5-model-b brcm,bcm2712")),
    ]
}

/// BOOT-A or BOOT-B up to the end of its last file.
fn boot_partition(version: u64, random: &mut Random) -> Vec<u8> {
    let files = pi_files(&format!("quiet release={version}\n"), random);
    let entries: Vec<Entry<'_>> = files.iter().map(|(path, content)| Entry::file(path, content)).collect();
    let options = Options { size: pi::BOOT_SIZE, serial: version as u32, ..Options::new(FatType::Fat32) };
    let volume = Volume::plan(&entries, &options).unwrap_or_else(|error| panic!("BOOT: {error}"));
    let end = volume.extents().map(|(_, extent)| extent.offset + extent.length).max().unwrap_or(0);
    let mut bytes = vec![0; end.next_multiple_of(512) as usize];
    for segment in volume.segments() {
        if let Content::Bytes(content) = segment.content {
            let at = segment.offset as usize;
            bytes[at..at + content.len()].copy_from_slice(content);
        }
    }
    bytes
}

fn raspberry(published: Vec<Published>) -> Site {
    let size = DISK;
    let table = layout::pi(size).unwrap_or_else(|_| panic!("{size} bytes are a card"));
    let mut disk = Disk::new(size);
    let partitions = table.iter().map(|p| mbr::Partition {
        number: p.number,
        kind: match p.code {
            Code::Mbr(kind) => kind,
            Code::Gpt(_) => 0,
        },
        bootable: false,
        start: p.start,
        size: p.size,
    });
    let mbr = mbr::Table { signature: 7, partitions: partitions.collect() };
    for write in mbr.writes(size).unwrap_or_default() {
        disk.write(write.offset, &write.bytes);
    }
    let start_of = |kind: Kind| table.iter().find(|p| p.kind == kind).map_or(0, |p| p.start);
    let select = start_of(Kind::BootSelect);
    let mut files = pi_files("quiet bramble.rescue\n", &mut Random(0));
    // The rescue is there in a trial as well, as in the real image.
    let config = files.iter().find(|(name, _)| *name == "config.txt").map(|(_, config)| config.clone());
    files.push(("tryboot.txt", config.unwrap_or_default()));
    let autoboot = pi::autoboot(Slot::A);
    let mut entries: Vec<Entry<'_>> =
        files.iter().map(|(path, content)| Entry::file(path, content)).collect();
    entries.push(
        Entry::file(pi::AUTOBOOT, autoboot.as_bytes())
            .alone_in(layout::ALIGNMENT)
            .not_before(pi::AUTOBOOT_OFFSET),
    );
    let options = Options { size: pi::BOOT_SELECT_SIZE, ..Options::new(FatType::Fat32) };
    let volume = Volume::plan(&entries, &options).unwrap_or_else(|error| panic!("BOOTSEL: {error}"));
    lay(&mut disk, select, &volume);
    let boot = |slot| (start_of(Kind::Boot(slot)), BOOT_ROOM);
    let root = |slot| (start_of(Kind::Root(slot)), layout::ROOT_SIZE);
    let places = vec![
        named(Area::Switch, (select + pi::AUTOBOOT_OFFSET, 512)),
        named(Area::Boot(Slot::A), boot(Slot::A)),
        named(Area::Boot(Slot::B), boot(Slot::B)),
        named(Area::Root(Slot::A), root(Slot::A)),
        named(Area::Root(Slot::B), root(Slot::B)),
    ];
    let journal = start_of(Kind::Data) + (1 << 20);
    Site { scheme: Scheme::Pi, disk, published, places, journal }.install_first()
}

/// Bytes of both copies of the journal.
pub const JOURNAL: u64 = (COPIES * COPY) as u64;
