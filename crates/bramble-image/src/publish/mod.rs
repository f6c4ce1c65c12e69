//! From a build to a directory of static files that machines update themselves from.
//!
//! ```text
//! keys                        which keys may sign (only when a root key exists)
//! amd64/latest                the offer: which release is the newest
//! amd64/000007/manifest       what a slot must hold
//! amd64/000007/pack           the bytes: whole, and as differences
//! amd64/000007/index          hashes of all blocks; for the next release, as are the following
//! amd64/000007/placement.zst
//! amd64/000007/sbom.json.zst
//! amd64/000007/report.json
//! ```
//!
//! What a release's directory holds never changes. `latest` is written last: a reader sees the old release whole or the
//! new one whole.

mod bounds;
mod store;

pub use bounds::Bounds;
pub use bramble_pack::write::Settings;
pub use store::Before;

use crate::release::Release;
use bramble_api::layout::BLOCK;
use bramble_api::manifest::{Manifest, verity_blocks};
use bramble_api::release::{Digest, Offer, Part, Signed, file};
use bramble_debian::tree::Content;
use bramble_pack::ImageKind;
use bramble_pack::write::{self, Blocks, Change, Image};
use bramble_secrets::Secret;
use ed25519_dalek::SigningKey;
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// What is published, and how.
#[derive(Debug)]
pub struct PublishInput<'a> {
    /// The build.
    pub release: &'a Release,
    /// Releases that machines may have, newest first: a recipe is made from each.
    pub before: &'a [Before],
    /// The key that signed the build.
    pub signing_key: &'a Secret<[u8; 32]>,
    /// The statement of keys, as signed.
    pub statement: Option<&'a [u8]>,
    /// The directory that a web server serves.
    pub out: &'a Path,
    /// Seconds since the epoch.
    pub now: u64,
    /// Seconds for which the offer is good.
    pub valid: Option<u64>,
    /// How the pack is made.
    pub settings: Settings,
    /// Packs that stay: of the newest releases. The rest of older releases stays always.
    pub keep: usize,
}

/// A release could not be published. The offer is then still the old one.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it must be.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
    /// Another release with this number is there.
    #[error("{} holds another release {version}: numbers are never used twice", path.display())]
    Taken {
        /// Its directory.
        path: PathBuf,
        /// The number.
        version: u64,
    },
    /// A newer release was published.
    #[error("release {newest} was published already, and this is {version}")]
    Older {
        /// The newest.
        newest: u64,
        /// This one.
        version: u64,
    },
    /// The build is signed with another key.
    #[error("the build is not signed with the release key that is in use")]
    Key,
    /// A document does not fit its place.
    #[error(transparent)]
    TooLong(#[from] bramble_api::release::TooLong),
}

impl PublishError {
    fn read(path: &Path, source: io::Error) -> PublishError {
        PublishError::Read { path: path.to_path_buf(), source }
    }

    fn write(path: &Path) -> impl FnOnce(io::Error) -> PublishError + use<> {
        let path = path.to_path_buf();
        move |source| PublishError::Write { path, source }
    }
}

/// What a release costs; `report.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// The release.
    pub version: u64,
    /// Bytes that a machine without any earlier release fetches.
    pub full: u64,
    /// Bytes of root, boot image and kernel image as they lie in a slot.
    pub slot: u64,
    /// Bytes of the pack.
    pub pack: u64,
    /// By the earlier releases, newest first.
    pub from: Vec<Cost>,
    /// Against the newest of them, when its bytes are at hand.
    pub bounds: Option<Bounds>,
}

/// What it costs to get from one release to another. Bytes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Cost {
    /// The earlier release.
    pub version: u64,
    /// Fetched by a machine that runs it: head, recipe, table and frames.
    pub wire: u64,
    /// Written to the root of a slot that holds it.
    pub root: u64,
    /// Written to that slot's hash tree.
    pub tree: u64,
    /// Written to its boot image.
    pub boot: u64,
    /// Runs of the recipe.
    pub runs: u64,
}

/// Publishes a release, unless it is the newest already: then only the offer is signed anew. Gives the report, and whether
/// anything but the offer was new.
///
/// # Errors
/// See [`PublishError`].
pub fn publish(input: &PublishInput<'_>) -> Result<(Report, bool), PublishError> {
    let release = input.release;
    let manifest = &release.manifest;
    if !release.is_signed_by(input.signing_key) {
        return Err(PublishError::Key);
    }
    let (arch, version) = (manifest.arch, manifest.version);
    let there = Before::find(input.out, arch)?;
    if let Some(newest) =
        there.first().map(|before| before.manifest.version).filter(|newest| *newest > version)
    {
        return Err(PublishError::Older { newest, version });
    }
    let below = file::directory(arch, version);
    let directory = input.out.join(&below);
    let same = there.iter().find(|before| before.manifest.version == version);
    if same.is_some_and(|before| before.json != release.json()) {
        return Err(PublishError::Taken { path: directory, version });
    }
    let pack_path = directory.join(file::PACK);
    let finished = || read_offer(&directory, same?);
    let (offer, report, new) = match finished() {
        Some((offer, report)) => (offer, report, false),
        None => {
            fs::create_dir_all(&directory).map_err(PublishError::write(&directory))?;
            let (offer, report) = make(input, &below, &directory, &pack_path)?;
            (offer, report, true)
        }
    };
    let offer = Offer { issued: input.now, best_before: input.valid.map(|valid| input.now + valid), ..offer };
    if let Some(statement) = input.statement {
        replace(&input.out.join(file::KEYS), statement)?;
    }
    let key = SigningKey::from_bytes(input.signing_key.expose());
    let signed = Signed::sign(&offer, &key)?;
    replace(&input.out.join(file::latest(arch)), &signed.to_bytes())?;
    // Nobody is sent to these any more.
    for old in
        there.iter().filter(|before| before.manifest.version < version).skip(input.keep.saturating_sub(1))
    {
        let _ = fs::remove_file(old.directory.join(file::PACK));
    }
    Ok((report, new))
}

/// What the directory of a release says it was offered as: a pack that is whole, and its report.
fn read_offer(directory: &Path, before: &Before) -> Option<(Offer, Report)> {
    let text = fs::read(directory.join(store::REPORT)).ok()?;
    let kept: Kept = serde_json::from_slice(&text).ok()?;
    let whole = fs::metadata(directory.join(file::PACK)).ok()?.len() == kept.offer.pack.size;
    (whole && kept.offer.version == before.manifest.version).then_some((kept.offer, kept.report))
}

/// `report.json`: the report, and the offer as it was first made, so that it can be signed anew.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kept {
    report: Report,
    offer: Offer,
}

fn make(
    input: &PublishInput<'_>,
    below: &str,
    directory: &Path,
    pack_path: &Path,
) -> Result<(Offer, Report), PublishError> {
    let release = input.release;
    let manifest = &release.manifest;
    let salt = salt(manifest)?;
    let mapped = Mapped::of(release)?;
    let mut earlier = Vec::new();
    for before in input.before {
        // A machine that runs this very release needs no way to it.
        if before.manifest.cluster == manifest.cluster && before.manifest.version < manifest.version {
            earlier.push(before.blocks()?);
        }
    }
    let partial = directory.join("pack.partial");
    let mut out =
        io::BufWriter::with_capacity(1 << 20, File::create(&partial).map_err(PublishError::write(&partial))?);
    let written =
        write::write(&mut out, manifest.version, &salt, &mapped.images(), &earlier, &input.settings);
    let written = written.map_err(PublishError::write(&partial))?;
    let synced = out.into_inner().map_err(|e| e.into_error()).and_then(|file| file.sync_all());
    synced.and_then(|()| fs::rename(&partial, pack_path)).map_err(PublishError::write(pack_path))?;

    let now = mapped.index(&salt);
    let index: Vec<u8> = now.iter().flat_map(|image| image.entries.iter().flatten().copied()).collect();
    replace(&directory.join(store::INDEX), &index)?;
    let squeeze = |name: &str, bytes: &[u8]| {
        let path = directory.join(name);
        let bytes = zstd::bulk::compress(bytes, 19).map_err(PublishError::write(&path))?;
        replace(&path, &bytes)
    };
    squeeze(store::PLACEMENT, release.placement_text().unwrap_or_default().as_bytes())?;
    squeeze(store::SBOM, &release.sbom().unwrap_or_default())?;
    let bytes = release.manifest_bytes();
    let path = directory.join(file::MANIFEST);
    replace(&path, &bytes)?;

    let newest = input.before.iter().find(|before| before.manifest.version < manifest.version);
    let from = written.changes.iter().filter_map(|change| {
        let before = earlier.iter().find(|before| before.version == change.from)?;
        Some(cost(change, written.head_size, manifest, &now, &before.images))
    });
    let report = Report {
        version: manifest.version,
        full: written.head_size + written.head.full.bytes(),
        slot: store::images(manifest).iter().map(|(_, size)| size).sum::<u64>() + manifest.verity_size,
        pack: written.size,
        from: from.collect(),
        bounds: newest.map(|before| Bounds::between(before, release)).transpose()?.flatten(),
    };
    let offer = Offer {
        format: 1,
        cluster: manifest.cluster.clone(),
        arch: manifest.arch,
        version: manifest.version,
        manifest: Part {
            path: format!("{below}/{}", file::MANIFEST),
            size: bytes.len() as u64,
            sha256: Digest::of(&bytes),
        },
        pack: written.offered(format!("{below}/{}", file::PACK)),
        issued: input.now,
        best_before: None,
    };
    let kept = Kept { report, offer };
    let text = serde_json::to_vec_pretty(&kept)
        .map_err(|e| PublishError::Write { path: directory.join(store::REPORT), source: e.into() })?;
    replace(&directory.join(store::REPORT), &text)?;
    Ok((kept.offer, kept.report))
}

fn cost(change: &Change, head: u64, manifest: &Manifest, now: &[Blocks], before: &[Blocks]) -> Cost {
    let (mut root, mut tree, mut boot) = (0, 0, 0);
    for now in now {
        let then = before.iter().find(|image| image.kind == now.kind).map_or(&[][..], |image| &image.entries);
        let differs: Vec<bool> =
            now.entries.iter().enumerate().map(|(at, entry)| then.get(at) != Some(entry)).collect();
        let count = differs.iter().filter(|differs| **differs).count() as u64;
        if now.kind == ImageKind::Root {
            root = count;
            // A root of another length has its tree elsewhere, and in another shape.
            let moved = then.len() != now.entries.len();
            tree = if moved { verity_blocks(manifest.root_size / BLOCK) } else { tree_changes(&differs) };
        } else {
            boot += count;
        }
    }
    Cost {
        version: change.from,
        wire: head + change.wire,
        root: root * BLOCK,
        tree: tree * BLOCK,
        boot: boot * BLOCK,
        runs: change.runs,
    }
}

/// Blocks of a hash tree that change when these blocks under it do: on every level those above a change.
pub fn tree_changes(differs: &[bool]) -> u64 {
    let mut level = differs.to_vec();
    let mut changed = 0;
    while level.len() > 1 {
        level = level.chunks((BLOCK / 32) as usize).map(|below| below.iter().any(|b| *b)).collect();
        changed += level.iter().filter(|b| **b).count() as u64;
    }
    changed
}

/// The images of a build, in memory as far as they are looked at.
pub(crate) struct Mapped {
    files: Vec<(ImageKind, Content, u64)>,
}

impl Mapped {
    pub(crate) fn of(release: &Release) -> Result<Mapped, PublishError> {
        let mut files = Vec::new();
        for (kind, size) in store::images(&release.manifest) {
            let path = match kind {
                ImageKind::Root => release.root(),
                ImageKind::Uki => release.uki(),
                ImageKind::Boot => release.boot(),
            };
            let map = map(&path)?;
            if (map.len() as u64) < size {
                return Err(PublishError::Damaged { path, what: "too short" });
            }
            files.push((kind, map, size));
        }
        Ok(Mapped { files })
    }

    fn images(&self) -> Vec<Image<'_>> {
        self.files
            .iter()
            .map(|(kind, map, size)| Image { kind: *kind, bytes: &map[..*size as usize] })
            .collect()
    }

    pub(crate) fn index(&self, salt: &[u8]) -> Vec<Blocks> {
        write::index(salt, &self.images())
    }

    fn image(&self, kind: ImageKind) -> Option<&[u8]> {
        self.images().into_iter().find(|image| image.kind == kind).map(|image| image.bytes)
    }
}

/// A file in memory.
fn map(path: &Path) -> Result<Content, PublishError> {
    let file = File::open(path).map_err(|source| PublishError::read(path, source))?;
    // A build's files are made under another name and renamed: nobody writes to one that is there.
    Content::map(&file).map_err(|source| PublishError::read(path, source))
}

fn salt(manifest: &Manifest) -> Result<Vec<u8>, PublishError> {
    hex::decode(&manifest.verity_salt)
        .map_err(|_| PublishError::Damaged { path: "manifest".into(), what: "the salt is not hexadecimal" })
}

/// Replaces a file whole.
fn replace(path: &Path, bytes: &[u8]) -> Result<(), PublishError> {
    let failed = || PublishError::write(path);
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed())?;
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let mut file = File::create(&partial).map_err(failed())?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed())?;
    fs::rename(&partial, path).map_err(failed())
}

#[cfg(test)]
#[path = "../publish_tests.rs"]
mod tests;
