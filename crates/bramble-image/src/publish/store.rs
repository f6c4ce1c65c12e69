//! A directory of published releases: what is in it, and what a next release needs of it.

use super::PublishError;
use crate::release::{self, Release};
use bramble_api::layout::{BLOCK, MANIFEST_SIZE};
use bramble_api::manifest::{Manifest, Signed};
use bramble_api::names::Arch;
use bramble_api::release::{Digest, file};
use bramble_erofs::Placement;
use bramble_pack::ImageKind;
use bramble_pack::write::{Blocks, Earlier};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Hashes of all blocks, as in the pack: kept beside it, so that a pack can be deleted and its release still be one that
/// others follow from.
pub(super) const INDEX: &str = "index";
/// Where files lie, compressed: what the next release is placed by.
pub(super) const PLACEMENT: &str = "placement.zst";
/// Bill of materials, compressed.
pub(super) const SBOM: &str = "sbom.json.zst";
/// What the release costs, for people and programs.
pub(super) const REPORT: &str = "report.json";

/// Bytes of an unpacked placement at most: 14,000 files take 0.7 MB.
const PLACEMENT_MAX: u64 = 64 << 20;

/// A release that a next one can follow from: published, or built.
#[derive(Clone, Debug)]
pub struct Before {
    /// Its files.
    pub directory: PathBuf,
    /// What it consists of.
    pub manifest: Manifest,
    /// The manifest's JSON.
    pub(super) json: Vec<u8>,
    built: Option<Release>,
}

impl Before {
    /// Releases of an architecture in a directory, newest first: one that `bramble release` wrote, or one that holds the
    /// build of a single release, or a release's own directory. Nothing there is no error.
    ///
    /// # Errors
    /// A file cannot be read, or is damaged.
    pub fn find(directory: &Path, arch: Arch) -> Result<Vec<Before>, PublishError> {
        let mut found = Vec::new();
        for place in [directory.to_path_buf(), directory.join(arch.debian())] {
            if let Ok(release) = release::open(&place) {
                found.push(Before {
                    directory: place.clone(),
                    manifest: release.manifest.clone(),
                    json: release.json().to_vec(),
                    built: Some(release),
                });
            } else if place.join(file::MANIFEST).is_file() {
                found.push(Before::published(&place)?);
            }
        }
        let listed = directory.join(arch.debian());
        match fs::read_dir(&listed) {
            Ok(entries) => {
                for entry in entries {
                    let path = entry.map_err(|source| PublishError::read(&listed, source))?.path();
                    if path.join(file::MANIFEST).is_file() {
                        found.push(Before::published(&path)?);
                    }
                }
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
            Err(source) => return Err(PublishError::read(&listed, source)),
        }
        found.retain(|before| before.manifest.arch == arch);
        found.sort_by_key(|before| std::cmp::Reverse(before.manifest.version));
        Ok(found)
    }

    fn published(directory: &Path) -> Result<Before, PublishError> {
        let path = directory.join(file::MANIFEST);
        let bytes = read(&path, MANIFEST_SIZE)?;
        let damaged = || PublishError::Damaged { path: path.clone(), what: "not a manifest" };
        let signed = Signed::parse(&bytes).map_err(|_| damaged())?;
        let manifest = signed.read().map_err(|_| damaged())?;
        Ok(Before { directory: directory.to_path_buf(), manifest, json: signed.json, built: None })
    }

    /// SHA-256 of the manifest's JSON: the release's name in packs.
    pub fn name(&self) -> Digest {
        Digest::of(&self.json)
    }

    /// Where it had its files, as text; `None` when that is not known any more.
    pub fn placement_text(&self) -> Option<String> {
        match &self.built {
            Some(release) => release.placement_text(),
            None => {
                let file = fs::File::open(self.directory.join(PLACEMENT)).ok()?;
                let mut text = String::new();
                let decoder = zstd::stream::Decoder::new(file).ok()?;
                decoder.take(PLACEMENT_MAX).read_to_string(&mut text).ok()?;
                Some(text)
            }
        }
    }

    /// Where it had its files.
    pub fn placement(&self) -> Option<Placement> {
        self.placement_text()?.parse().ok()
    }

    /// The build that it is, if it is one.
    pub(super) fn built(&self) -> Option<&Release> {
        self.built.as_ref()
    }

    /// Its blocks by their hashes.
    ///
    /// # Errors
    /// They cannot be read, or are not those of its images.
    pub(super) fn blocks(&self) -> Result<Earlier, PublishError> {
        let sizes = images(&self.manifest);
        let images = match &self.built {
            Some(release) => super::Mapped::of(release)?.index(&super::salt(&self.manifest)?),
            None => {
                let path = self.directory.join(INDEX);
                let all: u64 = sizes.iter().map(|(_, size)| size.div_ceil(BLOCK) * 8).sum();
                let bytes = read(&path, all)?;
                if bytes.len() as u64 != all {
                    return Err(PublishError::Damaged { path, what: "another length than its images need" });
                }
                let mut rest = &bytes[..];
                sizes
                    .iter()
                    .map(|(kind, size)| {
                        let (now, later) = rest.split_at((size.div_ceil(BLOCK) * 8) as usize);
                        rest = later;
                        let entry = |e: &[u8]| [e[0], e[1], e[2], e[3], e[4], e[5], e[6], e[7]];
                        Blocks { kind: *kind, entries: now.chunks_exact(8).map(entry).collect() }
                    })
                    .collect()
            }
        };
        Ok(Earlier { version: self.manifest.version, manifest: self.name(), images })
    }
}

/// The images of a release in the order of a pack, with their bytes.
pub(super) fn images(manifest: &Manifest) -> Vec<(ImageKind, u64)> {
    let mut images = vec![(ImageKind::Root, manifest.root_size)];
    images.extend(manifest.uki.as_ref().map(|image| (ImageKind::Uki, image.size)));
    images.extend(manifest.boot.as_ref().map(|image| (ImageKind::Boot, image.size)));
    images
}

/// A file of at most `max` bytes.
fn read(path: &Path, max: u64) -> Result<Vec<u8>, PublishError> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).map_err(|source| PublishError::read(path, source))?;
    file.take(max + 1).read_to_end(&mut bytes).map_err(|source| PublishError::read(path, source))?;
    if bytes.len() as u64 > max {
        return Err(PublishError::Damaged { path: path.to_path_buf(), what: "too long" });
    }
    Ok(bytes)
}
