//! What an update costs at least: the yardsticks beside which a release's own figures stand.

use super::{Before, Mapped, PublishError};
use crate::release::Release;
use bramble_api::layout::BLOCK;
use bramble_debian::tree::Content;
use bramble_erofs::{FileType, Image};
use bramble_pack::{Fetch, Head, ImageKind, Place, apply_full};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Level of Zstandard for both bounds: the pack's own.
const LEVEL: i32 = 19;
/// The longest window for which a patch refers to an old file: 128 MiB, as `zstd --patch-from` has it by default.
const WINDOW_LOG: u32 = 27;

/// Two lower bounds of the bytes on the wire, and one of those that are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Bounds {
    /// The earlier release.
    pub from: u64,
    /// Files of the root that are new or other than they were, and boot images that are.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their blocks, in bytes: each file in blocks of its own.
    pub blocks: u64,
    /// LB1: each of them compressed whole.
    pub whole: u64,
    /// LB2: each of them compressed with the file of the same name as it was, as `zstd --patch-from` does.
    pub patches: u64,
}

impl Bounds {
    /// The bounds from an earlier release to a build. `None` when the earlier one's bytes are not at hand.
    ///
    /// # Errors
    /// They cannot be read, or are no image.
    pub(super) fn between(before: &Before, now: &Release) -> Result<Option<Bounds>, PublishError> {
        let Some(old) = Old::of(before)? else { return Ok(None) };
        let new = Mapped::of(now)?;
        let mut pairs: Vec<(&[u8], &[u8])> = Vec::new();
        let new_root = new.image(ImageKind::Root).unwrap_or_default();
        let unreadable = |what| PublishError::Damaged { path: before.directory.clone(), what };
        let old_image = Image::open(old.root()).map_err(|_| unreadable("its root is no EROFS image"))?;
        let new_image = Image::open(new_root).map_err(|_| unreadable("the new root is no EROFS image"))?;
        let old_files = contents(&old_image).map_err(|_| unreadable("its root cannot be read"))?;
        let new_files = contents(&new_image).map_err(|_| unreadable("the new root cannot be read"))?;
        let known: HashSet<[u8; 32]> =
            old_files.par_iter().map(|(_, bytes)| Sha256::digest(bytes).into()).collect();
        let changed: Vec<&Named<'_>> = new_files
            .par_iter()
            .filter(|(_, bytes)| {
                !bytes.is_empty() && !known.contains(&<[u8; 32]>::from(Sha256::digest(bytes)))
            })
            .collect();
        let by_path: BTreeMap<&[u8], &[u8]> = old_files.iter().map(|(p, b)| (&p[..], &b[..])).collect();
        for (path, bytes) in changed {
            pairs.push((by_path.get(&path[..]).copied().unwrap_or_default(), &bytes[..]));
        }
        for kind in [ImageKind::Uki, ImageKind::Boot] {
            let (then, now) = (old.image(kind).unwrap_or_default(), new.image(kind).unwrap_or_default());
            if !now.is_empty() && then != now {
                pairs.push((then, now));
            }
        }
        let failed = |e| PublishError::Write { path: before.directory.clone(), source: e };
        let sums = pairs
            .par_iter()
            .map(|(old, new)| {
                let whole = zstd::bulk::compress(new, LEVEL)?.len() as u64;
                let patch = if old.is_empty() { whole } else { patch(old, new)?.min(whole) };
                Ok((whole, patch))
            })
            .collect::<io::Result<Vec<_>>>()
            .map_err(failed)?;
        let sum = |value: fn(&[u8]) -> u64| pairs.iter().map(|(_, new)| value(new)).sum::<u64>();
        Ok(Some(Bounds {
            from: before.manifest.version,
            files: pairs.len() as u64,
            bytes: sum(|new| new.len() as u64),
            blocks: sum(|new| (new.len() as u64).next_multiple_of(BLOCK)),
            whole: sums.iter().map(|(whole, _)| whole).sum(),
            patches: sums.iter().map(|(_, patch)| patch).sum(),
        }))
    }
}

/// A file's path and its bytes.
type Named<'a> = (Vec<u8>, Cow<'a, [u8]>);

/// Every regular file, by path.
fn contents<'a>(image: &Image<'a>) -> Result<Vec<Named<'a>>, bramble_erofs::ReadError> {
    let mut files = Vec::new();
    let mut failed = None;
    image.walk(|path, inode| {
        if inode.file_type == FileType::File {
            match image.data(inode) {
                Ok(data) => files.push((path.to_vec(), data)),
                Err(e) => failed = Some(e),
            }
        }
    })?;
    match failed {
        Some(e) => Err(e),
        None => Ok(files),
    }
}

/// Bytes of `new` compressed with `old` in sight.
fn patch(old: &[u8], new: &[u8]) -> io::Result<u64> {
    let mut encoder = zstd::stream::Encoder::with_ref_prefix(Vec::new(), LEVEL, old)?;
    let log = usize::BITS - (old.len() + new.len()).leading_zeros();
    encoder.window_log(log.clamp(20, WINDOW_LOG))?;
    encoder.long_distance_matching(true)?;
    encoder.set_pledged_src_size(Some(new.len() as u64))?;
    encoder.write_all(new)?;
    Ok(encoder.finish()?.len() as u64)
}

/// The images of an earlier release.
enum Old {
    Built(Mapped),
    /// Unpacked into one file, which has no name any more.
    Unpacked {
        content: Content,
        images: Vec<(ImageKind, usize, usize)>,
    },
}

impl Old {
    fn of(before: &Before) -> Result<Option<Old>, PublishError> {
        if let Some(release) = before.built() {
            return Mapped::of(release).map(|mapped| Some(Old::Built(mapped)));
        }
        let path = before.directory.join(bramble_api::release::file::PACK);
        let Ok(mut pack) = File::open(&path) else { return Ok(None) };
        unpack(&mut pack, &path, before).map(Some)
    }

    fn root(&self) -> &[u8] {
        self.image(ImageKind::Root).unwrap_or_default()
    }

    fn image(&self, kind: ImageKind) -> Option<&[u8]> {
        match self {
            Old::Built(mapped) => mapped.image(kind),
            Old::Unpacked { content, images } => {
                let (_, start, size) = images.iter().find(|(k, ..)| *k == kind)?;
                content.get(*start..start + size)
            }
        }
    }
}

/// Unpacks the whole of a pack beside it.
fn unpack(pack: &mut File, path: &Path, before: &Before) -> Result<Old, PublishError> {
    let damaged = |what| PublishError::Damaged { path: path.to_path_buf(), what };
    let read = |source| PublishError::read(path, source);
    let size = pack.metadata().map_err(read)?.len();
    let mut head = vec![0; 24];
    pack.read_exact_at(&mut head, 0).map_err(read)?;
    let length = Head::length_of(&head).map_err(|_| damaged("not a pack"))?;
    head.resize(length as usize, 0);
    pack.read_exact_at(&mut head, 0).map_err(read)?;
    let head = Head::parse(&head, size).map_err(|_| damaged("not a pack"))?;
    let mut images = Vec::new();
    let mut end = 0;
    for (image, (kind, size)) in head.images.iter().zip(super::store::images(&before.manifest)) {
        if image.kind != kind {
            return Err(damaged("other images than its manifest has"));
        }
        images.push((kind, end, size as usize));
        end += image.blocks as usize * BLOCK as usize;
    }
    let temporary = path.with_extension("unpacked");
    let out = File::options().create(true).truncate(true).read(true).write(true).open(&temporary);
    let out = out.map_err(PublishError::write(&temporary))?;
    // Gone when the last who has it open is.
    fs::remove_file(&temporary).map_err(PublishError::write(&temporary))?;
    out.set_len(end as u64).map_err(PublishError::write(&temporary))?;
    let mut place = Unpacked { out: &out, images: &images };
    apply_full(&head, &mut FromFile(pack), &mut place).map_err(|_| damaged("it cannot be unpacked"))?;
    let content = Content::map(&out).map_err(PublishError::write(&temporary))?;
    Ok(Old::Unpacked { content, images })
}

struct FromFile<'f>(&'f File);

impl Fetch for FromFile<'_> {
    fn fetch(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(out, offset)
    }
}

struct Unpacked<'f> {
    out: &'f File,
    images: &'f [(ImageKind, usize, usize)],
}

impl Place for Unpacked<'_> {
    fn put(&mut self, image: ImageKind, at: u32, blocks: &[u8]) -> io::Result<()> {
        let start = self.images.iter().find(|(kind, ..)| *kind == image).map_or(0, |(_, start, _)| *start);
        self.out.write_all_at(blocks, start as u64 + u64::from(at) * BLOCK)
    }

    fn keeps(&mut self, _: ImageKind, _: u32, _: u32) -> bool {
        true
    }
}
