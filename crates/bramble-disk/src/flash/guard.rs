//! Which disk may be written. Decisions only: what is there, what the file says, what a person said, and out comes
//! a verdict.
//!
//! A medium is confirmed in one of three ways:
//! - its own serial number or WWID stands in the file (never that of a card reader: it is the same for every card);
//! - it has the Bramble card id that the node's last flash gave it;
//! - a person said so, of exactly this medium: by its own serial, or by port, size and the kernel's count of media,
//!   which is another one whenever something was put in.
//!
//! A [`Confirmed`] keeps the disk's whole identity, which is compared again on the open descriptor before each batch.

use super::reason::{Refusal, card_text};
use crate::card::{Card, CardId, State};
use crate::device::{Bus, Device, Facts, Foreign, Medium, Named, Number, Use, size_text};
use std::path::{Path, PathBuf};

/// Larger media need a word of their own: cards of this size are rare, disks of it are full of somebody's work.
const LARGE: u64 = 256_100_000_000;

/// Which disk the file means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The one with this serial number.
    Serial(String),
    /// The one with this world wide identifier.
    Wwid(String),
    /// One of this size in bytes, as printed on it.
    Size(u64),
}

impl Expect {
    fn text(&self) -> String {
        match self {
            Expect::Serial(serial) => format!("serial {}", Foreign::new(serial)),
            Expect::Wwid(wwid) => format!("WWID {}", Foreign::new(wwid)),
            Expect::Size(size) => format!("a disk of {}", size_text(*size)),
        }
    }
}

/// A card that was flashed before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownCard {
    /// Its name.
    pub id: CardId,
    /// Whose it is.
    pub node: String,
}

/// What is asked for.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The node that is to be written.
    pub node: String,
    /// What the person named, if anything.
    pub device: Option<PathBuf>,
    /// What the file says of the node's disk.
    pub expects: Option<Expect>,
    /// What the file says of the other nodes' disks.
    pub others: Vec<(String, Expect)>,
    /// Cards of this project.
    pub cards: Vec<KnownCard>,
    /// Words of `--confirm`.
    pub confirm: Vec<String>,
    /// Words of `--yes-erase`.
    pub erase: Vec<String>,
    /// Built-in disks may be written.
    pub allow_fixed: bool,
    /// Loop devices may be written: rehearsals and tests.
    pub allow_loop: bool,
    /// The data partition is to stay.
    pub keep_data: bool,
    /// Bytes that the layout needs at least.
    pub needs: u64,
    /// Directories whose files must not be behind the disk.
    pub own: Vec<PathBuf>,
    /// Disks that other nodes of this run have, with the node.
    pub taken: Vec<(String, Identity)>,
}

/// Everything by which a disk is known again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Kernel name.
    pub name: String,
    /// Its node.
    pub number: Number,
    /// The kernel's count of disks and media.
    pub sequence: Option<u64>,
    /// Bytes.
    pub size: u64,
    /// Where it is attached.
    pub port: String,
    /// Its serials.
    pub serials: Vec<Foreign>,
    /// Its world wide identifiers.
    pub wwids: Vec<Foreign>,
    /// SHA-256 of its head and end when it was confirmed.
    pub fingerprint: [u8; 32],
}

impl Identity {
    fn of(device: &Device, fingerprint: [u8; 32]) -> Identity {
        Identity {
            name: device.name.clone(),
            number: device.number,
            sequence: device.sequence,
            size: device.size,
            port: device.port.clone(),
            serials: device.serials.clone(),
            wwids: device.wwids.clone(),
            fingerprint,
        }
    }

    /// What differs in a device, or nothing. What lies on it is compared when `contents` says so.
    pub fn differs(&self, device: &Device, contents: bool) -> Option<String> {
        let differs = |what: &str| Some(what.to_string());
        if self.number != device.number || self.sequence != device.sequence {
            differs("another medium was put in")
        } else if self.size != device.size {
            differs("its size is another")
        } else if self.port != device.port {
            differs("it is attached elsewhere")
        } else if self.serials != device.serials || self.wwids != device.wwids {
            differs("its serial number is another")
        } else if contents && device.seen().is_none_or(|c| c.fingerprint != self.fingerprint) {
            differs("what lies on it is another")
        } else {
            None
        }
    }

    /// Whether an open descriptor is of this disk.
    pub fn is(&self, facts: &Facts) -> bool {
        self.number == facts.number && self.sequence == facts.sequence && self.size == facts.size
    }
}

/// How a disk was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// By its own serial or WWID in the file.
    File,
    /// By the card id of the node's last flash.
    Card,
    /// By a person.
    Person,
    /// It was confirmed before, pulled, and put back.
    PutBack,
}

/// A disk that may be written. Made by this module alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Confirmed {
    identity: Identity,
    device: Device,
    how: How,
}

impl Confirmed {
    /// By what it is known again.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The disk as it was seen.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// How it was confirmed.
    pub fn how(&self) -> How {
        self.how
    }

    /// The record on it.
    pub fn card(&self) -> Option<&Card> {
        self.device.seen().and_then(|c| c.card.as_ref())
    }

    /// The same disk after it was pulled and put back, known by the record that this run wrote on it: one disk and
    /// no more has that card id, its size is the same, and so are its serials if they are its own.
    pub fn put_back(&self, id: CardId, devices: &[Device], request: &Request) -> Option<Confirmed> {
        let is_it = |d: &&Device| {
            card_of(d).is_some_and(|c| c.id == id && c.state == State::Writing)
                && d.size == self.identity.size
                && d.medium == self.device.medium
                && (d.medium == Medium::Changeable || d.serials == self.identity.serials)
        };
        let mut found = devices.iter().filter(is_it);
        let device = found.next()?;
        // Numbers are given anew when disks come back, so those of the other nodes' disks say nothing now.
        let request = Request { taken: Vec::new(), ..request.clone() };
        if found.next().is_some() || own_standing(device, &request).is_err() {
            return None;
        }
        let fingerprint = device.seen()?.fingerprint;
        Some(Confirmed {
            identity: Identity::of(device, fingerprint),
            device: device.clone(),
            how: How::PutBack,
        })
    }
}

/// What a person must say before a disk is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    device: Device,
    identity: Identity,
    /// What to type, and what it is.
    pub word: Word,
}

/// What a person types to confirm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// The last characters of the serial number.
    SerialEnd(String),
    /// The last characters of the card id.
    CardEnd(String),
    /// The port that a reader is attached to.
    Port(String),
}

impl Word {
    /// The characters.
    pub fn text(&self) -> &str {
        match self {
            Word::SerialEnd(text) | Word::CardEnd(text) | Word::Port(text) => text,
        }
    }

    /// What is asked for.
    pub fn asks(&self) -> String {
        match self {
            Word::SerialEnd(text) => {
                format!("the last {} characters of its serial number", text.chars().count())
            }
            Word::CardEnd(text) => format!("the last {} characters of its card id", text.chars().count()),
            Word::Port(_) => "the port that it is in".to_string(),
        }
    }
}

impl Question {
    /// The disk that it is about.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// Judges what was typed, against the disks as they are now.
    ///
    /// # Errors
    /// A wrong answer, or a disk that is no longer the one that was asked about.
    pub fn answer(&self, typed: &str, now: &[Device], request: &Request) -> Result<Confirmed, Refusal> {
        let name = self.device.name.clone();
        if typed.trim() != self.word.text() {
            return Err(Refusal::WrongAnswer { name });
        }
        let Some(device) = now.iter().find(|d| d.name == name) else { return Err(Refusal::Gone { name }) };
        if let Some(what) = self.identity.differs(device, true) {
            return Err(Refusal::Changed { name, what });
        }
        standing(device, now, request)?;
        Ok(Confirmed { identity: self.identity.clone(), device: device.clone(), how: How::Person })
    }
}

/// What is decided about a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may be written.
    Confirmed(Box<Confirmed>),
    /// A person must say so first.
    Ask(Box<Question>),
    /// Nothing is there yet that could be it, or nobody said which it is.
    Wait(Refusal),
}

/// Decides. `devices` are all whole disks; those that [`worth_looking`] passes have been looked at.
///
/// # Errors
/// Why nothing may be written.
pub fn judge(devices: &[Device], named: Option<&Named>, request: &Request) -> Result<Verdict, Refusal> {
    match (named, &request.device) {
        (Some(named), Some(path)) => {
            let device = pick(devices, named, path)?;
            standing(device, devices, request)?;
            decide(device, request)
        }
        _ => search(devices, request),
    }
}

/// The disk that a person named.
fn pick<'a>(devices: &'a [Device], named: &Named, path: &Path) -> Result<&'a Device, Refusal> {
    let path = path.to_path_buf();
    match named {
        Named::Missing => Err(Refusal::Missing { path }),
        Named::Link { to } => Err(Refusal::Link { path, to: to.clone() }),
        Named::File => Err(Refusal::File { path }),
        Named::NoDisk => Err(Refusal::NoDisk { path }),
        Named::Partition { name, disk } => Err(Refusal::Partition { name: name.clone(), disk: disk.clone() }),
        Named::Disk(name) => {
            devices.iter().find(|d| d.name == *name).ok_or(Refusal::Gone { name: name.clone() })
        }
    }
}

/// Without a named disk: the one that the file or its card id says, else nothing by itself.
fn search(devices: &[Device], request: &Request) -> Result<Verdict, Refusal> {
    let fits: Vec<&Device> =
        devices.iter().filter(|d| evidence(d, request).is_some() || said(d, request)).collect();
    let node = request.node.clone();
    match fits[..] {
        [device] => {
            standing(device, devices, request)?;
            decide(device, request)
        }
        [] => {
            let could_be = devices.iter().any(|d| standing(d, devices, request).is_ok());
            Ok(Verdict::Wait(match (&request.expects, could_be) {
                (Some(expect @ (Expect::Serial(_) | Expect::Wwid(_))), _) => {
                    Refusal::NothingFits { node, wants: Some(expect.text()) }
                }
                (expect, false) => Refusal::NothingFits { node, wants: expect.as_ref().map(Expect::text) },
                (_, true) => Refusal::NotChosen { node },
            }))
        }
        _ => {
            // One of them may be refused for a better reason, such as a serial that is not unique.
            for device in &fits {
                standing(device, devices, request)?;
            }
            let names = fits.iter().map(|d| d.name.clone()).collect();
            Err(Refusal::Ambiguous { node, names })
        }
    }
}

/// Whether looking at what lies on it can matter: everything else spoke for it so far.
pub fn worth_looking(device: &Device, request: &Request) -> bool {
    own_standing(device, request).is_ok()
}

/// Disks that a person may choose from, with what speaks against the others.
pub fn candidates<'a>(
    devices: &'a [Device],
    request: &Request,
) -> (Vec<&'a Device>, Vec<(&'a Device, Refusal)>) {
    let mut good = Vec::new();
    let mut bad = Vec::new();
    for device in devices {
        match standing(device, devices, request) {
            Ok(()) => good.push(device),
            Err(refusal) => bad.push((device, refusal)),
        }
    }
    (good, bad)
}

/// What identifies a disk exactly, for `--confirm` and `--yes-erase`: its own serial, or where, how large and which
/// medium by the kernel's count.
pub fn token(device: &Device) -> String {
    match (device.medium, plain_serial(device)) {
        (Medium::Own, Some(serial)) => serial.to_string(),
        _ => match card_of(device) {
            Some(card) => card_text(card.id),
            None => {
                // Without a count of media the contents tell two media of one size apart.
                let count = device.sequence.map_or_else(
                    || device.seen().map_or("0".to_string(), |c| hex::encode(&c.fingerprint[..8])),
                    |s| s.to_string(),
                );
                format!("{}/{}/{count}", device.port, device.size)
            }
        },
    }
}

/// A serial that can be typed as it is shown.
fn plain_serial(device: &Device) -> Option<&str> {
    let fits = |s: &&Foreign| s.is_plain() && !s.raw().contains(char::is_whitespace);
    device.serials.iter().find(fits).map(Foreign::raw)
}

fn card_of(device: &Device) -> Option<&Card> {
    device.seen().and_then(|c| c.card.as_ref())
}

/// Refusals that need no look at the other disks or at what lies on it.
fn own_standing(device: &Device, request: &Request) -> Result<(), Refusal> {
    let name = device.name.clone();
    match device.bus {
        Bus::Mapped | Bus::Other if !request.allow_loop || device.bus == Bus::Other => {
            return Err(Refusal::Virtual { name });
        }
        Bus::Loop => {
            let own = |f: &&PathBuf| request.own.iter().any(|o| f.starts_with(o));
            if let Some(file) = device.backing.as_ref().filter(own) {
                return Err(Refusal::OwnImage { name, file: file.clone() });
            }
            if !request.allow_loop {
                return Err(Refusal::Loop { name, file: device.backing.clone() });
            }
        }
        _ => {}
    }
    match device.uses.first() {
        Some(Use::System { at }) => return Err(Refusal::System { name, at: at.clone() }),
        Some(Use::Mounted { name: part, at }) => {
            return Err(Refusal::Mounted { name, part: part.clone(), at: at.clone() });
        }
        Some(Use::Swap { name: part }) => return Err(Refusal::Swap { name, part: part.clone() }),
        Some(Use::Member { of, name: whole }) => {
            return Err(Refusal::Member { name, of, whole: whole.clone() });
        }
        None => {}
    }
    if device.size == 0 {
        return Err(Refusal::Empty { name });
    }
    if device.read_only {
        return Err(Refusal::ReadOnly { name });
    }
    if device.sector != 512 {
        return Err(Refusal::Sector { name, sector: device.sector });
    }
    let needs = request.needs.max(2 << 20);
    if device.size < needs {
        return Err(Refusal::TooSmall { name, size: device.size, needs });
    }
    let fixed = !matches!(device.bus, Bus::Usb | Bus::Sd | Bus::Loop | Bus::Mapped);
    if fixed && !request.allow_fixed {
        return Err(Refusal::Fixed { name, bus: device.bus.name() });
    }
    if device.medium == Medium::Own && plain_serial(device).is_none() && device.wwids.is_empty() {
        return Err(Refusal::NoSerial { name });
    }
    if let Some((owner, _)) = request.taken.iter().find(|(_, i)| i.number == device.number) {
        return Err(Refusal::Taken { name, owner: owner.clone() });
    }
    match &request.expects {
        Some(Expect::Size(wants)) if !near(*wants, device.size) => {
            Err(Refusal::OtherSize { name, node: request.node.clone(), wants: *wants, has: device.size })
        }
        Some(expect @ (Expect::Serial(_) | Expect::Wwid(_))) if !has(device, expect) => {
            Err(Refusal::OtherSerial {
                name,
                node: request.node.clone(),
                wants: expect.text(),
                has: device.serials.first().cloned(),
                reader: device.medium == Medium::Changeable,
            })
        }
        _ => Ok(()),
    }
}

/// Everything that speaks against a disk, whoever wants it.
fn standing(device: &Device, all: &[Device], request: &Request) -> Result<(), Refusal> {
    own_standing(device, request)?;
    let name = device.name.clone();
    if device.medium == Medium::Own {
        if let Some((other, serial)) = twin(device, all) {
            let what = "serial number";
            return Err(Refusal::Shared { name, other: other.name.clone(), what, id: serial.to_string() });
        }
        let owner = request.others.iter().find(|(_, e)| !matches!(e, Expect::Size(_)) && has(device, e));
        if let Some((owner, _)) = owner {
            return Err(Refusal::OtherNode { name, owner: owner.clone(), by: "serial number", token: None });
        }
    }
    let contents = match &device.contents {
        Some(Ok(contents)) => contents,
        Some(Err(why)) => return Err(Refusal::Unseen { name, why: why.clone() }),
        None => return Err(Refusal::Unseen { name, why: "nobody looked".to_string() }),
    };
    let token = token(device);
    let erased = request.erase.contains(&token);
    if let Some(card) = &contents.card {
        let clone = |d: &&Device| d.name != device.name && card_of(d).is_some_and(|c| c.id == card.id);
        if let Some(other) = all.iter().find(clone) {
            let (what, id) = ("Bramble card id", card.id.to_string());
            return Err(Refusal::Shared { name, other: other.name.clone(), what, id });
        }
        let known = request.cards.iter().find(|k| k.id == card.id && k.node != request.node);
        if let Some(known) = known.filter(|_| !erased) {
            let (owner, by) = (known.node.clone(), "Bramble card id");
            return Err(Refusal::OtherNode { name, owner, by, token: Some(token) });
        }
    }
    if let Some(precious) = contents.signatures.iter().find(|s| s.kind.precious()).filter(|_| !erased) {
        return Err(Refusal::Precious { name, holds: precious.kind.name().to_string(), token });
    }
    let meant = evidence(device, request).is_some();
    if device.size > LARGE && !meant && !erased {
        return Err(Refusal::Large { name, size: device.size, token });
    }
    if request.keep_data && !contents.bramble && contents.card.is_none() {
        return Err(Refusal::NothingToKeep { name });
    }
    Ok(())
}

/// Another disk that says it is this one. Loop devices and mapped ones repeat what lies below them, and do not count.
fn twin<'a>(device: &'a Device, all: &'a [Device]) -> Option<(&'a Device, &'a Foreign)> {
    all.iter().filter(|o| o.name != device.name && !matches!(o.bus, Bus::Loop | Bus::Mapped)).find_map(|o| {
        Some((
            o,
            device
                .serials
                .iter()
                .chain(&device.wwids)
                .find(|s| o.serials.contains(s) || o.wwids.contains(s))?,
        ))
    })
}

/// What confirms a disk of good standing without asking.
fn evidence(device: &Device, request: &Request) -> Option<How> {
    let by_file = |e: &&Expect| !matches!(e, Expect::Size(_)) && has(device, e);
    if device.medium == Medium::Own && request.expects.as_ref().is_some_and(|e| by_file(&e)) {
        return Some(How::File);
    }
    let card = card_of(device)?;
    let known = request.cards.iter().any(|k| k.id == card.id && k.node == request.node);
    (known && own_standing(device, request).is_ok()).then_some(How::Card)
}

/// Whether a person said exactly this disk on the command line.
fn said(device: &Device, request: &Request) -> bool {
    // Nothing can be meant exactly before it was looked at.
    let token = device.seen().map(|_| token(device));
    token.is_some_and(|t| request.confirm.iter().chain(&request.erase).any(|said| *said == t))
}

fn decide(device: &Device, request: &Request) -> Result<Verdict, Refusal> {
    let how = evidence(device, request).or(said(device, request).then_some(How::Person));
    let Some(contents) = device.seen() else {
        return Err(Refusal::Unseen { name: device.name.clone(), why: "nobody looked".to_string() });
    };
    let identity = Identity::of(device, contents.fingerprint);
    Ok(match how {
        Some(how) => Verdict::Confirmed(Box::new(Confirmed { identity, device: device.clone(), how })),
        None => Verdict::Ask(Box::new(Question { word: word(device), identity, device: device.clone() })),
    })
}

/// What is typed at a terminal: short, and to be read off the disk or its place, never just "y".
fn word(device: &Device) -> Word {
    let end = |text: &str| {
        let count = text.chars().count();
        text.chars().skip(count.saturating_sub(4)).collect::<String>()
    };
    match (device.medium, plain_serial(device), card_of(device)) {
        (Medium::Own, Some(serial), _) => Word::SerialEnd(end(serial)),
        (_, _, Some(card)) => Word::CardEnd(end(&card.id.to_string())),
        _ => Word::Port(device.port.clone()),
    }
}

/// Whether the disk has the serial or identifier. `lsblk` shows WWIDs as `0x…` where the kernel says `naa.…`.
pub fn has(device: &Device, expect: &Expect) -> bool {
    let bare = |text: &str| {
        let lower = text.trim().to_lowercase();
        ["0x", "naa.", "eui.", "nvme."]
            .iter()
            .find_map(|p| lower.strip_prefix(p).map(str::to_string))
            .unwrap_or(lower)
    };
    match expect {
        Expect::Serial(serial) => device.serials.iter().any(|s| s.raw() == serial.trim()),
        Expect::Wwid(wwid) => device.wwids.iter().any(|w| bare(w.raw()) == bare(wwid)),
        Expect::Size(size) => near(*size, device.size),
    }
}

/// Whether a disk is what is sold as this size: makers round up, people mix GB and GiB.
fn near(printed: u64, has: u64) -> bool {
    let (printed, has) = (u128::from(printed), u128::from(has));
    has * 100 >= printed * 87 && has * 100 <= printed * 108
}
