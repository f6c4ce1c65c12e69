//! Planning a volume: every byte known, file contents borrowed.

use std::collections::{HashMap, HashSet};
use std::io::{self, Write};

use crate::format::{
    ATTR_ARCHIVE, ATTR_DIRECTORY, ATTR_VOLUME, BACKUP_SECTOR, Extent, FATS, FILE_MAX, FSINFO_SECTOR, FatType,
    Geometry, ROOT_ENTRIES, SECTOR, SECTOR_BYTES, SLOT, date_time,
};
use crate::name::{self, Short};

/// First cluster of a volume.
const FIRST_CLUSTER: u64 = 2;
/// Most entries of a directory: its size must fit 16 bits of entries.
const DIRECTORY_MAX: usize = 65536;

/// What a volume is made with, besides its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Which FAT; the number of clusters must agree.
    pub fat_type: FatType,
    /// Size of the volume in bytes, a multiple of [`SECTOR`].
    pub size: u64,
    /// 1, 2, 4, ... 128.
    pub sectors_per_cluster: u8,
    /// Volume serial number.
    pub serial: u32,
    /// Volume label: at most 11 characters of capital letters, digits, space, `-` and `_`; empty for none.
    pub label: String,
    /// Seconds since 1970, the time of all files; before 1980 becomes 1980.
    pub time: u64,
    /// Sectors of the disk before the volume. Only old boot code looks at it.
    pub hidden_sectors: u32,
}

impl Options {
    /// 1 sector a cluster, size 0 (which must be set), and nothing else.
    pub fn new(fat_type: FatType) -> Self {
        Self {
            fat_type,
            size: 0,
            sectors_per_cluster: 1,
            serial: 0,
            label: String::new(),
            time: 0,
            hidden_sectors: 0,
        }
    }
}

/// A file or directory of the volume to be.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    path: &'a str,
    kind: Kind<'a>,
}

#[derive(Clone, Copy, Debug)]
enum Kind<'a> {
    Directory,
    File { content: &'a [u8], size: u64, region: u64, from: u64 },
}

impl<'a> Entry<'a> {
    /// A directory. Those on the way to a file need not be stated.
    pub fn directory(path: &'a str) -> Self {
        Self { path, kind: Kind::Directory }
    }

    /// A file; its path has `/` between names and none in front.
    pub fn file(path: &'a str, content: &'a [u8]) -> Self {
        Self { path, kind: Kind::File { content, size: content.len() as u64, region: 0, from: 0 } }
    }

    /// Makes the file at least `bytes` long, zeros following its content, so that it can later be overwritten by
    /// something longer. Nothing for a directory.
    pub fn padded_to(mut self, bytes: u64) -> Self {
        if let Kind::File { size, .. } = &mut self.kind {
            *size = bytes.max(*size);
        }
        self
    }

    /// Gives the file one or more regions of `bytes` to itself: it begins on a multiple of `bytes` from the start of the
    /// volume and nothing else lies in what it began. Flash cards program more than a sector at once, so a cut while a file
    /// is rewritten can spoil its neighbours. Nothing for a directory.
    pub fn alone_in(mut self, bytes: u64) -> Self {
        if let Kind::File { region, .. } = &mut self.kind {
            *region = bytes;
        }
        self
    }

    /// Keeps the file from beginning before byte `offset` of the volume, so that a file with a region of its own has a
    /// place that does not depend on what else is there. Only for those: nothing for the others, or a directory.
    pub fn not_before(mut self, offset: u64) -> Self {
        if let Kind::File { from, .. } = &mut self.kind {
            *from = offset;
        }
        self
    }
}

/// Why a list of files cannot become a volume.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// Size or cluster size cannot be.
    #[error("a volume of {size} bytes with {sectors_per_cluster} sectors a cluster cannot be made")]
    BadGeometry {
        /// Size in bytes.
        size: u64,
        /// Sectors per cluster.
        sectors_per_cluster: u8,
    },
    /// Readers would take the volume for another FAT. With 128 MiB, for example, only one or two sectors a cluster make a
    /// FAT32.
    #[error("{clusters} clusters do not make a {wanted:?}")]
    WrongType {
        /// Clusters the volume would have.
        clusters: u64,
        /// The type that was asked for.
        wanted: FatType,
    },
    /// The label has more than 11 characters, or ones that are not allowed.
    #[error("{label:?} cannot be a volume label")]
    BadLabel {
        /// The label.
        label: String,
    },
    /// A path cannot be stored.
    #[error("{path}: {reason}")]
    BadPath {
        /// The path.
        path: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two entries have names that differ in case only, or not at all.
    #[error("{path}: stated twice (FAT does not tell case apart)")]
    Duplicate {
        /// The path.
        path: String,
    },
    /// The files need more clusters than there are.
    #[error("the volume is full: {needed} clusters needed, {clusters} there")]
    Full {
        /// Clusters needed up to the file that did not fit.
        needed: u64,
        /// Clusters of the volume.
        clusters: u64,
    },
}

/// A piece of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment<'s> {
    /// First byte in the volume.
    pub offset: u64,
    /// What lies there.
    pub content: Content<'s>,
}

/// What a [`Segment`] holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'s> {
    /// These bytes.
    Bytes(&'s [u8]),
    /// This many zeros.
    Zeros(u64),
}

impl Content<'_> {
    /// Length in bytes.
    #[expect(clippy::len_without_is_empty, reason = "no segment is empty")]
    pub fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(count) => *count,
        }
    }
}

/// A planned volume.
#[derive(Debug)]
pub struct Volume<'a> {
    size: u64,
    extents: Vec<(&'a str, Extent)>,
    free_clusters: u64,
    /// Boot sectors, FATs and directories.
    metadata: Vec<u8>,
    /// Ascending by offset, without overlap.
    pieces: Vec<(u64, Source<'a>)>,
}

#[derive(Clone, Copy, Debug)]
enum Source<'a> {
    /// From, to in `metadata`.
    Metadata(usize, usize),
    File(&'a [u8]),
}

/// A directory or file with its place.
struct Item<'a> {
    name: &'a str,
    /// Children of a directory, by index; `None` for a file.
    children: Option<Vec<usize>>,
    parent: usize,
    short: Short,
    long: bool,
    size: u64,
    first_cluster: u32,
    clusters: u64,
}

/// The root directory is the first item.
const ROOT: usize = 0;

impl<'a> Volume<'a> {
    /// Plans a volume. Directories lie first, then files in the order given, those with regions of their own last.
    pub fn plan(entries: &[Entry<'a>], options: &Options) -> Result<Self, PlanError> {
        let geometry = geometry(options)?;
        let label = label(&options.label)?;
        let mut tree = Tree::build(entries)?;
        let (runs, free_from) = tree.allocate(entries, &geometry, label.is_some())?;

        let mut volume = Self {
            size: options.size,
            extents: Vec::new(),
            free_clusters: geometry.clusters - runs.iter().map(|(_, count)| count).sum::<u64>(),
            metadata: Vec::new(),
            pieces: Vec::new(),
        };
        let boot = boot_sector(options, &geometry, label.unwrap_or(*b"NO NAME    "));
        volume.push(0, &boot);
        if geometry.fat_type == FatType::Fat32 {
            let info = fsinfo(volume.free_clusters, free_from);
            volume.push(FSINFO_SECTOR as u64 * SECTOR, &info);
            volume.push(BACKUP_SECTOR as u64 * SECTOR, &boot);
            volume.push((BACKUP_SECTOR + FSINFO_SECTOR) as u64 * SECTOR, &info);
        }
        let fat = fat(geometry.fat_type, &runs);
        for copy in 0..FATS {
            volume.push((geometry.reserved + copy * geometry.fat) * SECTOR, &fat);
        }
        let moment = date_time(options.time);
        for (index, item) in tree.items.iter().enumerate() {
            let Some(children) = &item.children else { continue };
            let mut slots = Vec::new();
            if index == ROOT {
                if let Some(label) = label {
                    slots.extend_from_slice(&slot(&label, ATTR_VOLUME, 0, 0, moment));
                }
            } else {
                // The parent of a first-level directory is 0, whatever cluster the root has.
                let parent = if item.parent == ROOT { 0 } else { tree.items[item.parent].first_cluster };
                slots.extend_from_slice(&slot(b".          ", ATTR_DIRECTORY, item.first_cluster, 0, moment));
                slots.extend_from_slice(&slot(b"..         ", ATTR_DIRECTORY, parent, 0, moment));
            }
            for child in children {
                let child = &tree.items[*child];
                if child.long {
                    name::encode_long(child.name, &child.short, &mut slots);
                }
                let attributes = if child.children.is_some() { ATTR_DIRECTORY } else { ATTR_ARCHIVE };
                slots.extend_from_slice(&slot(
                    &child.short,
                    attributes,
                    child.first_cluster,
                    child.size,
                    moment,
                ));
            }
            let offset = match item.first_cluster {
                0 => (geometry.data() - geometry.root) * SECTOR,
                cluster => geometry.cluster_offset(cluster),
            };
            volume.push(offset, &slots);
        }
        for (entry, index) in entries.iter().zip(&tree.index) {
            let Kind::File { content, size, .. } = entry.kind else { continue };
            let offset = match tree.items[*index].first_cluster {
                0 => 0,
                cluster => geometry.cluster_offset(cluster),
            };
            volume.extents.push((entry.path, Extent { offset, length: size }));
            if !content.is_empty() {
                volume.pieces.push((offset, Source::File(content)));
            }
        }
        volume.pieces.sort_unstable_by_key(|(offset, _)| *offset);
        Ok(volume)
    }

    fn push(&mut self, offset: u64, bytes: &[u8]) {
        let from = self.metadata.len();
        self.metadata.extend_from_slice(bytes);
        self.pieces.push((offset, Source::Metadata(from, self.metadata.len())));
    }

    /// Bytes of the volume.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Clusters that hold nothing.
    pub fn free_clusters(&self) -> u64 {
        self.free_clusters
    }

    /// Where a file lies, padding counted; `None` if no file was given under exactly this path. An empty file lies at 0.
    pub fn extent(&self, path: &str) -> Option<Extent> {
        self.extents().find(|(name, _)| *name == path).map(|(_, extent)| extent)
    }

    /// Where every file lies, in the order given.
    pub fn extents(&self) -> impl Iterator<Item = (&'a str, Extent)> + '_ {
        self.extents.iter().copied()
    }

    /// The whole volume in ascending order and without gaps.
    pub fn segments(&self) -> impl Iterator<Item = Segment<'_>> {
        let mut at = 0;
        let pieces = self.pieces.iter().map(|(offset, source)| {
            let bytes = match source {
                Source::Metadata(from, to) => self.metadata.get(*from..*to).unwrap_or_default(),
                Source::File(bytes) => bytes,
            };
            (*offset, bytes)
        });
        pieces.chain([(self.size, &[][..])]).flat_map(move |(offset, bytes)| {
            let gap = Segment { offset: at, content: Content::Zeros(offset - at) };
            at = offset + bytes.len() as u64;
            let segment = Segment { offset, content: Content::Bytes(bytes) };
            [gap, segment].into_iter().filter(|segment| segment.content.len() > 0)
        })
    }

    /// Writes the whole volume.
    pub fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        const ZEROS: &[u8] = &[0; 64 << 10];
        for segment in self.segments() {
            match segment.content {
                Content::Bytes(bytes) => out.write_all(bytes)?,
                Content::Zeros(mut count) => {
                    while count > 0 {
                        let now = count.min(ZEROS.len() as u64);
                        out.write_all(&ZEROS[..now as usize])?;
                        count -= now;
                    }
                }
            }
        }
        Ok(())
    }
}

/// All directories and files, and which item each entry became.
struct Tree<'a> {
    items: Vec<Item<'a>>,
    index: Vec<usize>,
}

impl<'a> Tree<'a> {
    fn build(entries: &[Entry<'a>]) -> Result<Self, PlanError> {
        let item = |name, parent, directory: bool, size| Item {
            name,
            children: directory.then(Vec::new),
            parent,
            short: [b' '; 11],
            long: false,
            size,
            first_cluster: 0,
            clusters: 0,
        };
        let mut tree = Self { items: vec![item("", ROOT, true, 0)], index: Vec::new() };
        // Items by parent and folded name.
        let mut known: HashMap<(usize, String), usize> = HashMap::new();
        let mut stated = HashSet::new();
        for entry in entries {
            let bad = |reason| PlanError::BadPath { path: entry.path.to_owned(), reason };
            let mut at = ROOT;
            let mut names = entry.path.split('/').peekable();
            while let Some(name) = names.next() {
                if let Some(reason) = name::defect(name) {
                    return Err(bad(reason));
                }
                let last = names.peek().is_none();
                let (directory, size) = match entry.kind {
                    Kind::File { size, .. } if last => (false, size),
                    _ => (true, 0),
                };
                let next = tree.items.len();
                let child = *known.entry((at, name::fold(name))).or_insert(next);
                if child == next {
                    if size > FILE_MAX {
                        return Err(bad("a file of 4 GiB or more"));
                    }
                    tree.items.push(item(name, at, directory, size));
                    match &mut tree.items[at].children {
                        Some(children) => children.push(child),
                        None => return Err(bad("it lies below a file")),
                    }
                } else if tree.items[child].children.is_some() != directory {
                    let path = entry.path.to_owned();
                    return Err(if last {
                        PlanError::Duplicate { path }
                    } else {
                        bad("it lies below a file")
                    });
                }
                at = child;
            }
            if !stated.insert(at) {
                return Err(PlanError::Duplicate { path: entry.path.to_owned() });
            }
            tree.index.push(at);
        }
        tree.name()?;
        Ok(tree)
    }

    /// Gives every item its short name.
    fn name(&mut self) -> Result<(), PlanError> {
        for directory in 0..self.items.len() {
            let children = self.items[directory].children.clone().unwrap_or_default();
            // Names that are short ones by themselves come first, so that no generated one takes theirs.
            let by_itself = |child: &usize| name::own_short(self.items[*child].name).is_some();
            let (own, generated): (Vec<usize>, Vec<usize>) = children.into_iter().partition(by_itself);
            let mut taken = HashSet::new();
            for child in own.into_iter().chain(generated) {
                let item = &mut self.items[child];
                let shortened = name::shorten(item.name, |short| taken.contains(short));
                let full =
                    || PlanError::BadPath { path: item.name.to_owned(), reason: "a million names like it" };
                (item.short, item.long) = shortened.ok_or_else(full)?;
                taken.insert(item.short);
            }
        }
        Ok(())
    }

    /// Gives every item its clusters. Returns the runs, ascending, and the cluster after the last.
    fn allocate(
        &mut self,
        entries: &[Entry<'a>],
        geometry: &Geometry,
        label: bool,
    ) -> Result<(Vec<(u64, u64)>, u64), PlanError> {
        let mut runs: Vec<(u64, u64)> = Vec::new();
        let mut next = FIRST_CLUSTER;
        let mut take = |next: &mut u64, count: u64| {
            let first = *next;
            let full = PlanError::Full { needed: first + count - FIRST_CLUSTER, clusters: geometry.clusters };
            if first + count - FIRST_CLUSTER > geometry.clusters {
                return Err(full);
            }
            if count > 0 {
                runs.push((first, count));
                *next += count;
            }
            // The number of clusters is below 2^28.
            Ok(if count == 0 { 0 } else { first as u32 })
        };
        for index in 0..self.items.len() {
            let Some(children) = &self.items[index].children else { continue };
            let own = if index == ROOT { usize::from(label) } else { 2 };
            let slots = |child: &usize| {
                let item = &self.items[*child];
                1 + if item.long { name::pieces(item.name) } else { 0 }
            };
            let slots = own + children.iter().map(slots).sum::<usize>();
            let fixed_root = index == ROOT && geometry.fat_type == FatType::Fat16;
            if slots > if fixed_root { usize::from(ROOT_ENTRIES) } else { DIRECTORY_MAX } {
                let path = self.items[index].name.to_owned();
                return Err(PlanError::BadPath {
                    path,
                    reason: "more names in it than a directory can hold",
                });
            }
            if !fixed_root {
                // A directory has a cluster even when it is empty.
                let clusters = ((slots * SLOT) as u64).div_ceil(geometry.cluster_bytes()).max(1);
                self.items[index].clusters = clusters;
                self.items[index].first_cluster = take(&mut next, clusters)?;
            }
        }
        for alone in [false, true] {
            for (entry, index) in entries.iter().zip(&self.index) {
                let Kind::File { size, region, from, .. } = entry.kind else { continue };
                if (region > 0) != alone {
                    continue;
                }
                let clusters = size.div_ceil(geometry.cluster_bytes());
                if alone {
                    let first =
                        from.saturating_sub(geometry.data() * SECTOR).div_ceil(geometry.cluster_bytes());
                    next = align(next.max(first + FIRST_CLUSTER), region, geometry).ok_or_else(|| {
                        PlanError::BadPath {
                            path: entry.path.to_owned(),
                            reason: "its region is not a multiple of the cluster size",
                        }
                    })?;
                }
                let item = &mut self.items[*index];
                item.clusters = clusters;
                item.first_cluster = take(&mut next, clusters)?;
                if alone {
                    next = align(next, region, geometry).unwrap_or(next);
                }
            }
        }
        let end = runs.last().map_or(FIRST_CLUSTER, |(first, count)| first + count);
        Ok((runs, end))
    }
}

/// The first cluster from `cluster` on that begins on a multiple of `region` bytes of the volume.
fn align(cluster: u64, region: u64, geometry: &Geometry) -> Option<u64> {
    if !region.is_multiple_of(geometry.cluster_bytes()) {
        return None;
    }
    let data = geometry.data() * SECTOR;
    let offset = data + (cluster - FIRST_CLUSTER) * geometry.cluster_bytes();
    // The data area begins on a multiple of the cluster size, so this is whole clusters.
    Some((offset.checked_next_multiple_of(region)? - data) / geometry.cluster_bytes() + FIRST_CLUSTER)
}

fn geometry(options: &Options) -> Result<Geometry, PlanError> {
    let Options { fat_type, size, sectors_per_cluster, .. } = *options;
    let bad = PlanError::BadGeometry { size, sectors_per_cluster };
    let sectors = size / SECTOR;
    if size % SECTOR != 0 || sectors > u64::from(u32::MAX) || !sectors_per_cluster.is_power_of_two() {
        return Err(bad);
    }
    let geometry = Geometry::new(fat_type, sectors, sectors_per_cluster.into()).ok_or(bad)?;
    let clusters = geometry.clusters;
    if FatType::of(clusters) != Some(fat_type) || clusters > fat_type.clusters_max() {
        return Err(PlanError::WrongType { clusters, wanted: fat_type });
    }
    Ok(geometry)
}

fn label(text: &str) -> Result<Option<Short>, PlanError> {
    let allowed = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || " -_".contains(c);
    if text.len() > 11 || !text.chars().all(allowed) || text.starts_with(' ') {
        return Err(PlanError::BadLabel { label: text.to_owned() });
    }
    let mut label = [b' '; 11];
    label[..text.len()].copy_from_slice(text.as_bytes());
    Ok((!text.is_empty()).then_some(label))
}

fn slot(short: &Short, attributes: u8, cluster: u32, size: u64, (date, time): (u16, u16)) -> [u8; SLOT] {
    let mut slot = [0; SLOT];
    slot[..11].copy_from_slice(short);
    slot[11] = attributes;
    slot[14..16].copy_from_slice(&time.to_le_bytes());
    slot[16..18].copy_from_slice(&date.to_le_bytes());
    slot[18..20].copy_from_slice(&date.to_le_bytes());
    slot[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    slot[22..24].copy_from_slice(&time.to_le_bytes());
    slot[24..26].copy_from_slice(&date.to_le_bytes());
    slot[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
    slot[28..32].copy_from_slice(&(size as u32).to_le_bytes());
    slot
}

fn boot_sector(options: &Options, geometry: &Geometry, label: Short) -> Vec<u8> {
    let mut sector = vec![0; SECTOR_BYTES];
    let mut put = |at: usize, bytes: &[u8]| sector[at..at + bytes.len()].copy_from_slice(bytes);
    // The name that the specification recommends; some readers look at it.
    put(3, b"MSWIN4.1");
    put(11, &(SECTOR as u16).to_le_bytes());
    put(13, &[options.sectors_per_cluster]);
    put(14, &(geometry.reserved as u16).to_le_bytes());
    put(16, &[FATS as u8]);
    put(21, &[0xf8]);
    // Sectors a track and heads, as every large disk pretends.
    put(24, &63u16.to_le_bytes());
    put(26, &255u16.to_le_bytes());
    put(28, &options.hidden_sectors.to_le_bytes());
    match u16::try_from(geometry.total) {
        Ok(total) if geometry.fat_type == FatType::Fat16 => put(19, &total.to_le_bytes()),
        _ => put(32, &(geometry.total as u32).to_le_bytes()),
    }
    // Drive, signature, serial, label and type, which lie further behind in a FAT32.
    let tail = match geometry.fat_type {
        FatType::Fat16 => {
            put(0, &[0xeb, 0x3c, 0x90]);
            put(17, &ROOT_ENTRIES.to_le_bytes());
            put(22, &(geometry.fat as u16).to_le_bytes());
            36
        }
        FatType::Fat32 => {
            put(0, &[0xeb, 0x58, 0x90]);
            put(36, &(geometry.fat as u32).to_le_bytes());
            put(44, &(FIRST_CLUSTER as u32).to_le_bytes());
            put(48, &(FSINFO_SECTOR as u16).to_le_bytes());
            put(50, &(BACKUP_SECTOR as u16).to_le_bytes());
            64
        }
    };
    put(tail, &[0x80, 0, 0x29]);
    put(tail + 3, &options.serial.to_le_bytes());
    put(tail + 7, &label);
    put(tail + 18, if geometry.fat_type == FatType::Fat16 { b"FAT16   " } else { b"FAT32   " });
    put(510, &[0x55, 0xaa]);
    sector
}

fn fsinfo(free: u64, next: u64) -> Vec<u8> {
    let mut sector = vec![0; SECTOR_BYTES];
    sector[0..4].copy_from_slice(b"RRaA");
    sector[484..488].copy_from_slice(b"rrAa");
    sector[488..492].copy_from_slice(&(free as u32).to_le_bytes());
    sector[492..496].copy_from_slice(&(next as u32).to_le_bytes());
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

/// One FAT up to its last used entry.
fn fat(fat_type: FatType, runs: &[(u64, u64)]) -> Vec<u8> {
    let mut fat = Vec::new();
    let mut push = |value: u32| match fat_type {
        FatType::Fat16 => fat.extend_from_slice(&(value as u16).to_le_bytes()),
        FatType::Fat32 => fat.extend_from_slice(&(value & 0x0fff_ffff).to_le_bytes()),
    };
    // The media byte, and "cleanly unmounted, no errors".
    push(0xffff_fff8);
    push(u32::MAX);
    let mut at = FIRST_CLUSTER;
    for (first, count) in runs {
        (at..*first).for_each(|_| push(0));
        (first + 1..first + count).for_each(|next| push(next as u32));
        push(u32::MAX);
        at = first + count;
    }
    fat
}
