//! `mkerofs IMAGE DIRECTORY [PREVIOUS-PLACEMENT [NEW-PLACEMENT]]`: a directory as an image, for comparison with `mkfs.erofs`.
#![expect(clippy::print_stdout, reason = "an example talks to its user")]
#![expect(unsafe_code, reason = "a mapped file may change underneath; the trees compared here do not")]

use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use bramble_erofs::{Content, Entry, Kind, Layout, Options, Placement};
use memmap2::Mmap;

/// Files from here on are mapped, as the tool maps its cache: memory for a copy of each would cost more than writing the
/// image does. Below, a mapping costs more than reading.
const MAPPED_FROM: u64 = 64 << 10;

/// Something found in the directory.
struct Found {
    path: Vec<u8>,
    source: PathBuf,
    metadata: fs::Metadata,
    /// Content of a file, target of a link.
    data: Data,
}

enum Data {
    Read(Vec<u8>),
    Mapped(Mmap),
}

impl std::ops::Deref for Data {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Read(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let [image, directory, placements @ ..] = &args[..] else {
        return Err("usage: mkerofs IMAGE DIRECTORY [PREVIOUS-PLACEMENT [NEW-PLACEMENT]]".into());
    };
    let began = Instant::now();
    let mut found = Vec::new();
    walk(Path::new(directory), Vec::new(), &mut found)?;
    let walked = began.elapsed();
    load(&mut found)?;
    let loaded = began.elapsed();

    let previous = match placements.first() {
        Some(path) if !path.is_empty() => Some(fs::read_to_string(path)?.parse::<Placement>()?),
        _ => None,
    };
    let options = Options { label: "mkerofs".into(), ..Options::default() };
    let layout = Layout::plan(entries(&found), &options, previous.as_ref())?;
    let planned = began.elapsed();
    write(&layout, Path::new(image))?;
    println!(
        "{} entries, {} bytes{}; walked {walked:?}, loaded {loaded:?}, planned {planned:?}, written {:?}",
        found.len(),
        layout.size(),
        if layout.compacted() { ", compacted" } else { "" },
        began.elapsed()
    );
    if let Some(path) = placements.get(1) {
        fs::write(path, layout.placement().to_string())?;
    }
    Ok(())
}

fn walk(source: &Path, path: Vec<u8>, found: &mut Vec<Found>) -> std::io::Result<()> {
    let metadata = source.symlink_metadata()?;
    let is_dir = metadata.is_dir();
    found.push(Found { path: path.clone(), source: source.into(), metadata, data: Data::Read(Vec::new()) });
    if is_dir {
        for entry in fs::read_dir(source)? {
            let name = entry?.file_name();
            let mut child = path.clone();
            if !child.is_empty() {
                child.push(b'/');
            }
            child.extend_from_slice(name.as_bytes());
            walk(&source.join(&name), child, found)?;
        }
    }
    Ok(())
}

/// Reads contents on all cores.
fn load(found: &mut [Found]) -> std::io::Result<()> {
    let part = found.len().div_ceil(threads());
    std::thread::scope(|scope| {
        let parts: Vec<_> = found
            .chunks_mut(part)
            .map(|part| {
                scope.spawn(|| {
                    for item in part {
                        if item.metadata.is_file() {
                            item.data = content(&item.source, item.metadata.len())?;
                        } else if item.metadata.is_symlink() {
                            item.data = Data::Read(fs::read_link(&item.source)?.into_os_string().into_vec());
                        }
                    }
                    Ok(())
                })
            })
            .collect();
        parts
            .into_iter()
            .try_for_each(|part| part.join().unwrap_or_else(|_| Err(std::io::Error::other("a reader died"))))
    })
}

fn content(path: &Path, length: u64) -> std::io::Result<Data> {
    let mut file = File::open(path)?;
    if length >= MAPPED_FROM {
        // SAFETY: nobody writes to the tree while it is compared; a file cut short would end this example, no more.
        return Ok(Data::Mapped(unsafe { Mmap::map(&file)? }));
    }
    let mut bytes = Vec::with_capacity(length as usize);
    file.read_to_end(&mut bytes)?;
    Ok(Data::Read(bytes))
}

fn entries(found: &[Found]) -> Vec<Entry<'_>> {
    let mut links: std::collections::HashMap<(u64, u64), &[u8]> = std::collections::HashMap::new();
    found
        .iter()
        .map(|item| {
            let device = item.metadata.rdev();
            let major = ((device >> 8) & 0xfff) as u32;
            let minor = ((device & 0xff) | ((device >> 12) & 0xfff00)) as u32;
            let file_type = item.metadata.file_type();
            let kind = if file_type.is_dir() {
                Kind::Directory
            } else if file_type.is_symlink() {
                Kind::Symlink(&item.data)
            } else if file_type.is_block_device() {
                Kind::BlockDevice { major, minor }
            } else if file_type.is_char_device() {
                Kind::CharDevice { major, minor }
            } else if file_type.is_fifo() {
                Kind::Fifo
            } else if file_type.is_socket() {
                Kind::Socket
            } else {
                match links.entry((item.metadata.dev(), item.metadata.ino())) {
                    std::collections::hash_map::Entry::Occupied(first) => Kind::HardLink(first.get()),
                    std::collections::hash_map::Entry::Vacant(slot) => {
                        slot.insert(&item.path[..]);
                        Kind::File(&item.data)
                    }
                }
            };
            Entry {
                path: &item.path,
                kind,
                mode: (item.metadata.mode() & 0o7777) as u16,
                uid: item.metadata.uid(),
                gid: item.metadata.gid(),
                mtime: Some(item.metadata.mtime().max(0) as u64),
            }
        })
        .collect()
}

/// Writes on all cores; zeros become holes.
fn write(layout: &Layout<'_>, image: &Path) -> std::io::Result<()> {
    let file = File::create(image)?;
    file.set_len(layout.size())?;
    let segments: Vec<_> = layout.segments().collect();
    let (next, failed) = (AtomicUsize::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..threads() {
            scope.spawn(|| {
                while let Some(segment) = segments.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if let Content::Bytes(bytes) = segment.content
                        && file.write_all_at(bytes, segment.offset).is_err()
                    {
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    if failed.into_inner() == 0 { Ok(()) } else { Err(std::io::Error::other("writing the image failed")) }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, Into::into)
}
