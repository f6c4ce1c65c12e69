//! A release on a web server: what is offered, and its pack, read with resume.

use super::http::{Body, Client, Fault, Url};
use bramble_api::layout::MANIFEST_SIZE;
use bramble_api::manifest::Manifest;
use bramble_api::names::Arch;
use bramble_api::release::{Digest, KeyRing, MAX_PACK_HEAD, Machine, Offer, Refusal, Signed, file};
use bramble_pack::{Applied, ApplyError, Earlier, Fetch, Head, ImageKind, Place, Way, apply, apply_full};
use bramble_upgrade::media::{Area, Content, Media, Sink};
use bramble_upgrade::reason::Reason;
use bramble_upgrade::state::Verdict;
use std::io::{self, Read};
use std::time::{Duration, Instant};

/// Times that a download goes on without a single byte having come.
const TRIES: u32 = 6;
/// The pause before the second of them; each further one is twice as long.
const PAUSE: Duration = Duration::from_secs(2);
/// A source that gives less than this over [`SLOW_TIME`] drips: the next look may find a better one.
const SLOW_BYTES: u64 = 256 << 10;
const SLOW_TIME: Duration = Duration::from_secs(120);
/// A server without ranges is read on over this much rather than asked anew.
const SKIP_MAX: u64 = 4 << 30;

/// Why there is nothing to install.
#[derive(Debug, thiserror::Error)]
pub enum NoOffer {
    /// The source.
    #[error(transparent)]
    Fault(#[from] Fault),
    /// What it offers is not for this machine.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// The pack.
    #[error(transparent)]
    Damaged(#[from] bramble_pack::Damaged),
}

impl NoOffer {
    /// The stable word.
    pub fn word(&self) -> &'static str {
        match self {
            NoOffer::Fault(Fault::Redirected(_)) => Reason::Redirected.word(),
            NoOffer::Fault(_) => Reason::Source.word(),
            NoOffer::Refusal(refusal) => refusal.code(),
            NoOffer::Damaged(_) => Reason::BadPack.word(),
        }
    }
}

/// What is offered, verified.
pub struct Offered {
    /// The offer.
    pub offer: Offer,
    /// Its manifest.
    pub manifest: Manifest,
    /// The manifest as it lies in a slot.
    pub area: Vec<u8>,
    /// SHA-256 of the manifest's JSON.
    pub digest: Digest,
}

/// The statement of keys at the source, if it has one that is newer than what is known. Its absence is no fault.
pub fn take_keys(client: &mut Client, base: &Url, ring: &mut KeyRing) -> Result<Option<Vec<u8>>, NoOffer> {
    let bytes = match client.get(&base.join(file::KEYS), MANIFEST_SIZE) {
        Ok(bytes) => bytes,
        Err(Fault::Status { status: 404, .. }) => return Ok(None),
        Err(fault) => return Err(fault.into()),
    };
    Ok(ring.take(&bytes)?.then_some(bytes))
}

/// Asks what is the newest release. `None`: what runs.
pub fn look(
    client: &mut Client,
    base: &Url,
    arch: Arch,
    ring: &KeyRing,
    machine: &Machine,
    own: &Digest,
) -> Result<Option<Offered>, NoOffer> {
    let bytes = client.get(&base.join(&file::latest(arch)), MANIFEST_SIZE)?;
    let offer = Offer::accept(&bytes, ring, machine)?;
    if offer.version == machine.running {
        return Ok(None);
    }
    let bytes = client.get(&base.join(&offer.manifest.path), MANIFEST_SIZE)?;
    let (signed, manifest) = offer.accept_manifest(&bytes, ring, machine)?;
    let digest = Digest::of(&signed.json);
    if digest == *own {
        return Ok(None);
    }
    let area = Signed::to_area(&signed).unwrap_or_default();
    Ok(Some(Offered { offer, manifest, area, digest }))
}

/// A pack on its way into a slot.
pub struct Download<'a, M> {
    client: &'a mut Client,
    url: Url,
    offer: &'a Offer,
    /// What firmware loads on this machine.
    kind: ImageKind,
    /// The running release's digest: recipes begin with it, and its blocks are read from its slot.
    have: Digest,
    running: bramble_api::names::Slot,
    earlier: &'a mut M,
    body: Option<Body>,
    /// Called with bytes that came over the network.
    tell: &'a mut dyn FnMut(u64),
    /// What was done.
    pub applied: Applied,
}

impl<'a, M: Media> Download<'a, M> {
    /// A download of `offer`'s pack; blocks of the running release are read through `earlier`.
    pub fn new(
        client: &'a mut Client,
        base: &Url,
        offer: &'a Offer,
        kind: ImageKind,
        (have, running): (Digest, bramble_api::names::Slot),
        earlier: &'a mut M,
        tell: &'a mut dyn FnMut(u64),
    ) -> Self {
        let url = base.join(&offer.pack.path);
        Download {
            client,
            url,
            offer,
            kind,
            have,
            running,
            earlier,
            body: None,
            tell,
            applied: Applied::default(),
        }
    }
}

/// Reads a file at rising offsets over connections that break.
struct Wire<'a> {
    client: &'a mut Client,
    url: &'a Url,
    body: &'a mut Option<Body>,
    tell: &'a mut dyn FnMut(u64),
    pace: Pace,
}

/// How much comes in how much time of waiting for it. The time in between, in which a slow card is written, is not the
/// source's.
#[derive(Default)]
struct Pace {
    waited: Duration,
    came: u64,
}

impl Pace {
    /// So much came after so much waiting. Whether the source drips.
    fn drips(&mut self, waited: Duration, came: u64) -> bool {
        self.waited += waited;
        self.came += came;
        if self.waited < SLOW_TIME {
            return false;
        }
        std::mem::take(self).came < SLOW_BYTES
    }
}

impl Wire<'_> {
    fn open(&mut self, offset: u64) -> Result<(), Fault> {
        let near = self.body.as_ref().is_some_and(|body| body.at <= offset && offset - body.at <= 1 << 20);
        if !near {
            // Dropped first: some servers have one connection for each of their customers.
            *self.body = None;
            *self.body = Some(self.client.open(self.url, offset)?);
        }
        let Some(body) = self.body.as_mut() else { return Ok(()) };
        let skip = offset.saturating_sub(body.at);
        if skip > SKIP_MAX {
            return Err(Fault::TooLarge(self.url.to_string()));
        }
        let network = |source| Fault::Network { url: self.url.to_string(), source };
        let skipped = io::copy(&mut body.by_ref().take(skip), &mut io::sink()).map_err(network)?;
        match skipped == skip {
            true => Ok(()),
            false => Err(network(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// As much as comes in one go.
    fn some(&mut self, offset: u64, out: &mut [u8]) -> Result<usize, Fault> {
        self.open(offset)?;
        let network = |source| Fault::Network { url: self.url.to_string(), source };
        let Some(body) = self.body.as_mut() else { return Ok(0) };
        match body.read(out).map_err(network)? {
            0 => Err(network(io::ErrorKind::UnexpectedEof.into())),
            got => Ok(got),
        }
    }
}

impl Fetch for Wire<'_> {
    fn fetch(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut done = 0;
        let mut tries = 0;
        while done < out.len() {
            let began = Instant::now();
            match self.some(offset + done as u64, &mut out[done..]) {
                Ok(got) => {
                    done += got;
                    tries = 0;
                    (self.tell)(got as u64);
                    if self.pace.drips(began.elapsed(), got as u64) {
                        return Err(io::Error::new(io::ErrorKind::TimedOut, "the source only drips"));
                    }
                }
                // What it says will not change by asking again.
                Err(fault @ (Fault::Status { .. } | Fault::Redirected(_) | Fault::TooLarge(_))) => {
                    return Err(io::Error::other(fault));
                }
                Err(fault) => {
                    *self.body = None;
                    tries += 1;
                    if tries >= TRIES {
                        return Err(io::Error::other(fault));
                    }
                    // A connection that gave something and broke is made anew at once.
                    if tries > 1 {
                        std::thread::sleep(PAUSE * (1 << (tries - 2)));
                    }
                }
            }
        }
        Ok(())
    }
}

/// Hands blocks on to the engine, in order; those of other machines' images are dropped.
struct Filling<'a> {
    sink: &'a mut dyn Sink,
    kind: ImageKind,
    /// What the sink said; the pack's own error knows only that it failed.
    said: Option<Verdict>,
}

impl Place for Filling<'_> {
    fn put(&mut self, image: ImageKind, _: u32, blocks: &[u8]) -> io::Result<()> {
        let put = match image {
            ImageKind::Root => self.sink.root(blocks),
            image if image == self.kind => self.sink.boot(blocks),
            _ => return Ok(()),
        };
        put.map_err(|verdict| {
            let text = verdict.to_string();
            self.said = Some(verdict);
            io::Error::other(text)
        })
    }

    /// Everything is put: the tree is made of all blocks, and what lies there already is not written again.
    fn keeps(&mut self, _: ImageKind, _: u32, _: u32) -> bool {
        true
    }
}

/// The running release's blocks.
struct Running<'a, M> {
    media: &'a mut M,
    slot: bramble_api::names::Slot,
    kind: ImageKind,
}

impl<M: Media> Earlier for Running<'_, M> {
    fn read(&mut self, image: ImageKind, at: u32, out: &mut [u8]) -> io::Result<()> {
        let area = match image {
            ImageKind::Root => Area::Root(self.slot),
            image if image == self.kind => Area::Boot(self.slot),
            _ => return Err(io::Error::other("not an image of this machine")),
        };
        self.media
            .read(area, u64::from(at) * bramble_pack::BLOCK as u64, out)
            .map_err(|refusal| io::Error::other(refusal.to_string()))
    }
}

impl<M: Media> Content for Download<'_, M> {
    fn pour(&mut self, sink: &mut dyn Sink) -> Result<(), Verdict> {
        let mut wire = Wire {
            client: &mut *self.client,
            url: &self.url,
            body: &mut self.body,
            tell: &mut *self.tell,
            pace: Pace::default(),
        };
        let source = |error: io::Error| Verdict::new(Reason::Source, error.to_string());
        let bad = |error: bramble_pack::Damaged| Verdict::new(Reason::BadPack, error.to_string());
        let mut head = vec![0; self.offer.pack.head_size.min(MAX_PACK_HEAD) as usize];
        wire.fetch(0, &mut head).map_err(source)?;
        let head = Head::open(&head, &self.offer.pack).map_err(bad)?;
        let mut place = Filling { sink, kind: self.kind, said: None };
        let mut running = Running { media: &mut *self.earlier, slot: self.running, kind: self.kind };
        let way = head.ways(&[self.have]).first().copied();
        let entry = match way {
            // The other boards' images of an earlier release are not on this machine.
            Some(Way::Recipe { number, .. }) => {
                head.recipes.get(number).filter(|entry| only_ours(&head, entry.images.iter(), self.kind))
            }
            _ => None,
        };
        let applied = match entry {
            Some(entry) => apply(&head, entry, &mut wire, &mut running, &mut place),
            None => apply_full(&head, &mut wire, &mut place),
        };
        let said = place.said.take();
        match applied {
            Ok(applied) => {
                self.applied = applied;
                Ok(())
            }
            Err(ApplyError::Damaged(damaged)) => Err(bad(damaged)),
            Err(ApplyError::Fetch { source: error, .. }) => Err(source(error)),
            Err(ApplyError::Put { source: error, .. }) => {
                Err(said.unwrap_or_else(|| Verdict::new(Reason::Medium, error.to_string())))
            }
            Err(ApplyError::Earlier { source: error, .. }) => {
                Err(Verdict::new(Reason::Medium, error.to_string()))
            }
        }
    }
}

/// Whether a recipe can be followed with what this machine has: root and its own boot image, and no other.
fn only_ours<'i>(
    head: &Head,
    earlier: impl Iterator<Item = &'i bramble_pack::ImageSize>,
    kind: ImageKind,
) -> bool {
    let ours = |image: &bramble_pack::ImageSize| image.kind == ImageKind::Root || image.kind == kind;
    head.images.iter().all(ours) && earlier.into_iter().all(ours)
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
