//! Putting a release where machines fetch it.

use super::Builder;
use crate::keys::ReleaseKeys;
use bramble_api::event::{Outcome, Unit};
use bramble_api::names::Arch;
use bramble_effects::{Context, Failure};
use bramble_image::publish::{self, Before, Cost, PublishInput, Report};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};

/// Where releases come from and go to.
#[derive(Clone, Debug, Default)]
pub struct Publishing {
    /// Directories with earlier releases: published ones, or builds.
    pub from: Vec<PathBuf>,
    /// The directory that a web server serves.
    pub out: PathBuf,
    /// Seconds for which an offer is good; for ever when `None`.
    pub valid: Option<u64>,
    /// Recipes are made from at most this many earlier releases, and as many packs stay.
    pub keep: usize,
    /// Level of compression.
    pub level: i32,
}

/// Releases in a directory that `bramble release` wrote, for a cluster: number and Kubernetes.
///
/// # Errors
/// A file cannot be read, or is damaged.
pub fn published(directory: &Path, cluster: &str, arch: Arch) -> Result<Vec<(u64, Option<String>)>, Failure> {
    let found = Before::find(directory, arch).map_err(|e| {
        Failure::user(format!("cannot read the releases in {}", directory.display())).source(e)
    })?;
    let of_cluster = found.into_iter().map(|before| before.manifest).filter(|m| m.cluster == cluster);
    Ok(of_cluster.map(|m| (m.version, m.kubernetes.map(|kubernetes| kubernetes.version))).collect())
}

/// A text of where files lie, and its digest.
pub(super) struct PlacedBy {
    pub(super) digest: String,
    pub(super) placement: bramble_erofs::Placement,
    pub(super) version: u64,
}

impl Builder<'_> {
    /// Earlier releases of this cluster that are at hand, newest first, each once.
    fn before(&self, arch: Arch) -> Result<Vec<Before>, Failure> {
        let cluster = self.cluster.metadata.name.to_string();
        let mut found: Vec<Before> = Vec::new();
        for directory in &self.publishing.from {
            let here = Before::find(directory, arch).map_err(|e| {
                Failure::user(format!("cannot use the releases in {}", directory.display())).source(e)
            })?;
            for before in here {
                if before.manifest.cluster == cluster
                    && found.iter().all(|other| other.name() != before.name())
                {
                    found.push(before);
                }
            }
        }
        found.sort_by_key(|before| std::cmp::Reverse(before.manifest.version));
        Ok(found)
    }

    /// Number of the newest earlier release that is at hand; 0 when none is.
    pub(super) fn newest(&self, arch: Arch) -> Result<u64, Failure> {
        Ok(self.before(arch)?.first().map_or(0, |before| before.manifest.version))
    }

    /// The placement of the newest earlier release, or the one with this digest.
    pub(super) fn placed_by(&self, arch: Arch, wanted: Option<&str>) -> Result<Option<PlacedBy>, Failure> {
        for before in self.before(arch)? {
            let Some(text) = before.placement_text() else { continue };
            let digest = hex::encode(Sha256::digest(text.as_bytes()));
            if wanted.is_some_and(|wanted| wanted != digest) {
                continue;
            }
            let Ok(placement) = text.parse() else { continue };
            return Ok(Some(PlacedBy { digest, placement, version: before.manifest.version }));
        }
        Ok(None)
    }

    /// Publishes the release of an architecture as it was built.
    pub(super) fn publish_release(&self, arch: Arch, context: &Context<'_>) -> Result<Outcome, Failure> {
        let Publishing { out, valid, keep, level, .. } = &self.publishing;
        let release = self.release(arch)?;
        let vault = (self.vault)()?;
        let key = vault.signing_key()?;
        let keys = ReleaseKeys::of(vault)?;
        let mut before = self.before(arch)?;
        before.retain(|before| before.manifest.version < release.manifest.version);
        before.truncate(*keep);
        context.progress(0, 0, Unit::Items, "compressing the release");
        let input = PublishInput {
            release: &release,
            before: &before,
            signing_key: &key,
            statement: keys.statement.as_deref(),
            out,
            now: self.clock.now(),
            valid: *valid,
            settings: publish::Settings { level: *level, ..publish::Settings::default() },
            keep: *keep,
        };
        let (report, new) = publish::publish(&input).map_err(|e| {
            Failure::user(format!("cannot publish release {} in {}", release.manifest.version, out.display()))
                .source(e)
        })?;
        for sentence in sentences(&report) {
            context.note(sentence);
        }
        Ok(if new { Outcome::Done } else { Outcome::Unchanged })
    }
}

/// A report in a few lines.
fn sentences(report: &Report) -> Vec<String> {
    let Report { version, full, slot, pack, from, bounds } = report;
    let mb = |bytes: u64| format!("{:.2} MB", bytes as f64 / 1e6);
    let mut said = vec![format!(
        "release {version}: {} in a slot, {} on the wire without an earlier release; the pack has {}",
        mb(*slot),
        mb(*full),
        mb(*pack)
    )];
    for Cost { version, wire, root, tree, boot, .. } in from {
        said.push(format!(
            "from {version}: {} on the wire; a slot that holds it is written {} root, {} tree, {} boot",
            mb(*wire),
            mb(*root),
            mb(*tree),
            mb(*boot)
        ));
    }
    if let Some(bounds) = bounds {
        said.push(format!(
            "bounds from {}: {} changed files of {} compressed whole {}, as patches {}; their blocks {}",
            bounds.from,
            bounds.files,
            mb(bounds.bytes),
            mb(bounds.whole),
            mb(bounds.patches),
            mb(bounds.blocks)
        ));
    }
    said
}
