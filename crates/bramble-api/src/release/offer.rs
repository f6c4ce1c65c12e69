//! Which release is the newest, and where its bytes lie.

use super::{Digest, Document, KeyRing, Refusal, Signed};
use crate::layout::{BLOCK, MANIFEST_SIZE, ROOT_SIZE};
use crate::manifest::Manifest;
use crate::names::{Arch, Board};
use serde::{Deserialize, Serialize};

/// An offer that is stale by less than this is taken: home clocks and static sites are not punctual. Seconds.
const TOLERANCE: u64 = 24 * 3600;

/// The newest release of an architecture. It is signed anew whenever `bramble release` runs, also without a new
/// release: that is what its [`Offer::best_before`] is for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Offer {
    /// Format of this document: 1.
    pub format: u32,
    /// Cluster the release was built for.
    pub cluster: String,
    /// Architecture.
    pub arch: Arch,
    /// The release's monotonic number.
    pub version: u64,
    /// The file with the signed manifest.
    pub manifest: Part,
    /// The file with the bytes.
    pub pack: Pack,
    /// Seconds since the epoch when this was signed.
    pub issued: u64,
    /// Seconds since the epoch after which a machine with a right clock does not believe that nothing newer exists.
    /// Absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_before: Option<u64>,
}

/// A file, named and vouched for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// Path below the source's address: segments of lower-case letters, digits, `.`, `_`, `-`, with `/` between.
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
}

/// A pack, and its head, which vouches for every section by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pack {
    /// Path below the source's address, as in [`Part::path`].
    pub path: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256 of the file.
    pub sha256: Digest,
    /// Bytes of the head, which are the file's first.
    pub head_size: u64,
    /// SHA-256 of the head.
    pub head_sha256: Digest,
}

impl Document for Offer {
    const MAGIC: &'static [u8; 16] = b"bramble-offer\0\0\0";
    const DOMAIN: &'static [u8] = b"bramble release offer v1\n";
    const NAME: &'static str = "offer";
    const FORMAT: u32 = 1;
}

/// What of a machine decides whether it takes a release.
#[derive(Clone, Copy, Debug)]
pub struct Machine {
    /// Processor.
    pub arch: Arch,
    /// Board.
    pub board: Board,
    /// Bytes of a root slot.
    pub slot_size: u64,
    /// [`super::AGENT`] of the agent that runs.
    pub agent: u32,
    /// Version of the running release.
    pub running: u64,
    /// The oldest version that may run: the highest floor that any committed release had.
    pub floor: u64,
    /// Seconds since the epoch; `None` while the clock is not known to be right. Staleness is then not judged.
    pub now: Option<u64>,
}

/// Bytes of a pack's head at most.
pub const MAX_PACK_HEAD: u64 = 256 << 10;

impl Offer {
    /// An offer as it was fetched. The same version as the running one is taken too: the caller sees that nothing is
    /// to be done.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn accept(bytes: &[u8], ring: &KeyRing, machine: &Machine) -> Result<Offer, Refusal> {
        let offer = Signed::<Offer>::parse(bytes)?.open(ring.keys())?;
        let Offer { version, .. } = offer;
        if offer.cluster != ring.cluster() {
            let own = ring.cluster().to_string();
            return Err(Refusal::Cluster { what: Offer::NAME, offered: offer.cluster, own });
        }
        if offer.arch != machine.arch {
            return Err(Refusal::Arch { release: offer.arch, machine: machine.arch });
        }
        if version < machine.floor {
            return Err(Refusal::Floor { version, floor: machine.floor });
        }
        if version < machine.running {
            return Err(Refusal::Older { version, running: machine.running });
        }
        if let (Some(best_before), Some(now)) = (offer.best_before, machine.now)
            && now > best_before.saturating_add(TOLERANCE)
        {
            return Err(Refusal::Stale { version, best_before, now });
        }
        let impossible = |why| Err(Refusal::Impossible { what: Offer::NAME, why });
        if !is_path(&offer.manifest.path) || !is_path(&offer.pack.path) {
            return impossible("a path that leads elsewhere");
        }
        let Pack { size, head_size, .. } = offer.pack;
        if head_size > size || head_size > MAX_PACK_HEAD {
            return impossible("the size of the pack's head");
        }
        // Even incompressible content of every place fits twice.
        if size > 2 * (ROOT_SIZE + (1 << 30)) {
            return impossible("the size of the pack");
        }
        if offer.manifest.size > MANIFEST_SIZE {
            return impossible("the size of the manifest");
        }
        Ok(offer)
    }

    /// The manifest that this offer names, as it was fetched, and its verified document: as
    /// [`Manifest::accept`], and it is the one that was offered.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn accept_manifest(
        &self,
        bytes: &[u8],
        ring: &KeyRing,
        machine: &Machine,
    ) -> Result<(Signed<Manifest>, Manifest), Refusal> {
        let not_as_offered = |why| Refusal::NotAsOffered { what: Manifest::NAME, why };
        if bytes.len() as u64 != self.manifest.size {
            return Err(not_as_offered("size"));
        }
        if Digest::of(bytes) != self.manifest.sha256 {
            return Err(not_as_offered("hash"));
        }
        let (signed, manifest) = Manifest::accept(bytes, ring, machine)?;
        if manifest.version != self.version {
            return Err(not_as_offered("version"));
        }
        Ok((signed, manifest))
    }
}

impl Manifest {
    /// A release's manifest, for a machine that could install it.
    ///
    /// # Errors
    /// See [`Refusal`].
    pub fn accept(
        bytes: &[u8],
        ring: &KeyRing,
        machine: &Machine,
    ) -> Result<(Signed<Manifest>, Manifest), Refusal> {
        let signed = Signed::<Manifest>::parse(bytes)?;
        let manifest = signed.open(ring.keys())?;
        if manifest.cluster != ring.cluster() {
            let own = ring.cluster().to_string();
            return Err(Refusal::Cluster { what: Manifest::NAME, offered: manifest.cluster, own });
        }
        manifest.check_fit(machine.arch, machine.slot_size)?;
        let Manifest { version, .. } = manifest;
        if !manifest.boards.contains(&machine.board) {
            return Err(Refusal::Board { version, board: machine.board });
        }
        let image = if machine.board.is_pi() { &manifest.boot } else { &manifest.uki };
        if image.is_none() {
            return Err(Refusal::Impossible {
                what: Manifest::NAME,
                why: "nothing to start on a board it names",
            });
        }
        if version < machine.floor {
            return Err(Refusal::Floor { version, floor: machine.floor });
        }
        if version < machine.running {
            return Err(Refusal::Older { version, running: machine.running });
        }
        if manifest.min_agent > machine.agent {
            return Err(Refusal::Agent { version, needed: manifest.min_agent, own: machine.agent });
        }
        Ok((signed, manifest))
    }
}

/// A path that stays below the source: no empty, hidden or upward segment, no character that a URL would change.
fn is_path(path: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '_' | '-');
    path.len() <= 200 && path.split('/').all(|s| !s.is_empty() && !s.starts_with('.') && s.chars().all(plain))
}

/// Whole blocks, and some.
pub(crate) fn is_blocks(size: u64) -> bool {
    size > 0 && size.is_multiple_of(BLOCK)
}
