//! The machine changes its own release: looks, loads, tries, keeps or goes back. What it may do is decided by
//! `bramble-upgrade`; here is who does it.
//!
//! A thread of its own, for a download takes minutes and a look at the machine does not. It hears from the agent's rounds
//! through [`Shared`], and tells them what it does.

mod device;
mod flag;
mod http;
mod source;

use crate::power::restart;
use crate::refused::{Refused, line};
use crate::{clock, console};
use bramble_api::document::MachineDocument;
use bramble_api::manifest::Manifest;
use bramble_api::names::{Role, Slot, path};
use bramble_api::release::{AGENT, Anchor, Digest, KeyRing, Machine};
use bramble_api::stage::Boot;
use bramble_pack::ImageKind;
use bramble_upgrade::engine::{Engine, Now, Release, Stop};
use bramble_upgrade::gate::{self, Before, Gate};
use bramble_upgrade::media::{Area, BootFlag, Media, Scheme};
use bramble_upgrade::reason::Reason;
use bramble_upgrade::state::{Phase, Record, Started, Target, Verdict};
use bramble_upgrade::verity::Tree;
use bramble_upgrade::when::{self, Facts, Kubernetes, Local, May};
use device::Devices;
use flag::{EfiVariables, Mailbox};
use http::{Client, Url};
use serde::Serialize;
use source::{Download, NoOffer, Offered};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks at what the agent has seen.
const BEAT: Duration = Duration::from_secs(2);
/// The statement of keys that was believed last.
const KEYS: &str = "/data/bramble/release-keys";
/// Bytes that come between two words on the console.
const TELL: u64 = 64 << 20;

/// What the agent saw in a round, as far as updates care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What does not work, in the order in which it must, and why.
    pub broken: Vec<(gate::Part, String)>,
    /// The API server's version, where somebody asked.
    pub api_version: Option<String>,
}

/// What `bramble-node status` says of updates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// What the journal says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub journal: Option<Record>,
    /// What is being done, or waited for.
    pub doing: String,
    /// Why the last thing that did not work did not, with its stable word before it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_fault: Option<String>,
    /// Seconds since the epoch of the last look at the source.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub looked: Option<u64>,
    /// Bytes of packs that came over the network since this start.
    pub fetched: u64,
    /// Bytes that updates wrote to flash since this start.
    pub written: u64,
}

/// What the agent's rounds and the updater tell each other.
#[derive(Clone, Default)]
pub struct Shared(Arc<(Mutex<Slate>, Condvar)>);

#[derive(Default)]
struct Slate {
    seen: Option<Seen>,
    status: Status,
    on_trial: bool,
    /// Nothing was begun, and nothing is to be judged: the Node takes pods.
    settled: bool,
    /// A person asked for a look now.
    asked: bool,
    /// No restart into another release before this, seconds since the epoch.
    hold: u64,
}

impl Shared {
    /// The agent has looked.
    pub fn saw(&self, seen: Seen) {
        self.slate().seen = Some(seen);
    }

    /// A release is being judged: the agent must look more often than at rest.
    pub fn is_judging(&self) -> bool {
        self.slate().on_trial
    }

    /// A restart is near, or was one and is not judged yet: the Node stays marked if it was.
    pub fn keeps_pods_away(&self) -> bool {
        !self.slate().settled
    }

    /// What updates are at.
    pub fn status(&self) -> Status {
        self.slate().status.clone()
    }

    /// Somebody asks for a look at the source now, whatever the window says. Gives what updates are at.
    pub fn ask(&self) -> String {
        let mut slate = self.slate();
        slate.asked = true;
        self.0.1.notify_all();
        slate.status.doing.clone()
    }

    /// No restart into another release before `until`, seconds since the epoch; 0 ends a hold. Outlives a restart.
    pub fn hold(&self, until: u64) -> Result<(), Refused> {
        crate::durable::replace(Path::new(path::HOLD), format!("{until}\n").as_bytes())?;
        self.slate().hold = until;
        Ok(())
    }

    /// Until when there is a hold; 0 without one.
    pub fn held(&self) -> u64 {
        self.slate().hold
    }

    /// Whether somebody asked for a look, and until when there is a hold. One lock for both: a second one in the same
    /// statement would wait for the first for ever.
    fn wishes(&self) -> (bool, u64) {
        let slate = self.slate();
        (slate.asked, slate.hold)
    }

    fn slate(&self) -> std::sync::MutexGuard<'_, Slate> {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sleeps, unless somebody asks.
    fn rest(&self, time: Duration) {
        let rested = self.0.1.wait_timeout_while(self.slate(), time, |slate| !slate.asked);
        drop(rested);
    }

    fn seen(&self) -> Option<Seen> {
        self.slate().seen.clone()
    }

    fn doing(&self, text: impl Into<String>) {
        self.slate().status.doing = text.into();
    }

    fn fault(&self, text: String) {
        let known = self.slate().status.last_fault.replace(text.clone());
        if known.as_ref() != Some(&text) {
            console::note(&format!("update: {text}"));
        }
    }
}

/// The firmware of either scheme.
enum Flag {
    Efi(EfiVariables),
    Pi(Mailbox),
}

impl BootFlag for Flag {
    fn clear_overrides(&mut self) -> Result<Vec<String>, bramble_upgrade::media::Refusal> {
        match self {
            Flag::Efi(flag) => flag.clear_overrides(),
            Flag::Pi(flag) => flag.clear_overrides(),
        }
    }

    fn ask(&mut self, slot: Slot) -> Result<(), bramble_upgrade::media::Refusal> {
        match self {
            Flag::Efi(flag) => flag.ask(slot),
            Flag::Pi(flag) => flag.ask(slot),
        }
    }

    fn pending(&mut self) -> Result<bool, bramble_upgrade::media::Refusal> {
        match self {
            Flag::Efi(flag) => flag.pending(),
            Flag::Pi(flag) => flag.pending(),
        }
    }

    fn withdraw(&mut self) -> Result<(), bramble_upgrade::media::Refusal> {
        match self {
            Flag::Efi(flag) => flag.withdraw(),
            Flag::Pi(flag) => flag.withdraw(),
        }
    }
}

/// What the machine is, read once.
struct Own {
    document: MachineDocument,
    manifest: Manifest,
    /// Of the running manifest's JSON.
    digest: Digest,
    boot: Boot,
}

impl Own {
    fn target(&self) -> Target {
        Target { version: self.manifest.version, digest: self.digest.to_string(), floor: self.manifest.floor }
    }

    fn kind(&self) -> ImageKind {
        if self.document.machine.board.is_pi() { ImageKind::Boot } else { ImageKind::Uki }
    }

    fn kubernetes(&self) -> Option<Kubernetes> {
        self.manifest.kubernetes.as_ref().and_then(|kubernetes| Kubernetes::parse(&kubernetes.version))
    }
}

/// Why there are no updates on this machine.
#[derive(Debug, thiserror::Error)]
enum NoUpdates {
    #[error(transparent)]
    Disk(#[from] device::Unusable),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(transparent)]
    Stop(#[from] Stop),
    #[error("{0} cannot be read")]
    Unreadable(&'static str),
    #[error(transparent)]
    Firmware(#[from] Box<bramble_upgrade::media::Refusal>),
}

/// Moves the machine's pods away, within so long. Gives what stayed, one line each.
pub type Mover = fn(&MachineDocument, Duration) -> Result<Vec<String>, String>;

/// Starts the thread. A machine whose disk cannot be updated says so once, and goes on without.
pub fn start(document: &MachineDocument, manifest: &Manifest, mover: Mover) -> Shared {
    let shared = Shared::default();
    shared.slate().hold =
        std::fs::read_to_string(path::HOLD).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let (document, manifest, to) = (document.clone(), manifest.clone(), shared.clone());
    let spawned = std::thread::Builder::new().name("update".into()).spawn(move || {
        let ended = run(document, manifest, mover, &to);
        to.slate().settled = true;
        if let Err(why) = ended {
            to.doing("off");
            to.fault(format!("off: {}", line(&why)));
        }
    });
    if let Err(error) = spawned {
        shared.fault(format!("off: {error}"));
    }
    shared
}

fn run(
    document: MachineDocument,
    manifest: Manifest,
    mover: Mover,
    shared: &Shared,
) -> Result<(), NoUpdates> {
    let boot = std::fs::read(path::BOOT).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let boot: Boot = boot.ok_or(NoUpdates::Unreadable(path::BOOT))?;
    let json = std::fs::read(path::MANIFEST).map_err(|_| NoUpdates::Unreadable(path::MANIFEST))?;
    let own = Own { document, manifest, digest: Digest::of(&json), boot };
    let devices = Devices::open(&own.boot.disk, Path::new(path::STATE))?;
    let flag = match devices.scheme() {
        Scheme::Uefi => Flag::Efi(EfiVariables::of_machine()),
        Scheme::Pi => Flag::Pi(Mailbox),
    };
    let adopted = Record::adopt(own.boot.slot, own.target());
    let mut engine = Engine::open(devices, flag, adopted)?;
    let started = Started {
        running: own.boot.slot,
        release: own.target(),
        switch: engine.switch()?,
        pending: engine.flag.pending().map_err(Box::new)?,
    };
    let before = engine.record().clone();
    let now = engine.recover(&started)?;
    say_notes(&mut engine, shared);
    if let Some(tried) = engine.record().tried.last().filter(|_| before != *engine.record())
        && let Some(last) = &tried.last
    {
        let tries = tried.tries;
        shared.fault(format!("release {} is not kept: {last}; tries: {tries}", tried.version));
    }
    let mut updater = Updater { own, mover, engine, shared, client: Client::default() };
    match now {
        Now::Trial => updater.trial()?,
        Now::Settled => updater.dismiss_guard(),
    }
    updater.live()
}

fn say_notes<M, F>(engine: &mut Engine<M, F>, shared: &Shared)
where
    M: Media,
    F: BootFlag,
{
    for note in engine.notes.drain(..) {
        console::note(&format!("update: {note}"));
    }
    shared.slate().status.journal = Some(engine.record().clone());
}

struct Updater<'s> {
    own: Own,
    mover: Mover,
    engine: Engine<Devices, Flag>,
    shared: &'s Shared,
    client: Client,
}

impl Updater<'_> {
    fn publish(&mut self) {
        say_notes(&mut self.engine, self.shared);
        self.shared.slate().status.written = self.engine.written();
    }

    /// The guard of trials, which pid 1 has started, finds this and ends.
    fn dismiss_guard(&self) {
        if let Err(error) = std::fs::write(path::KEPT, "") {
            console::note(&format!("update: cannot write {}: {error}", path::KEPT));
        }
    }

    /// Judges the trial that runs. Comes back when the release is kept; else the machine restarts.
    fn trial(&mut self) -> Result<(), NoUpdates> {
        let before = match &self.engine.record().phase {
            Phase::Trying { before, .. } => before.clone(),
            _ => Before::default(),
        };
        let version = self.own.manifest.version;
        console::note(&format!("update: release {version} is on trial"));
        self.shared.slate().on_trial = true;
        let mut good_since: Option<Instant> = None;
        loop {
            std::thread::sleep(BEAT);
            let Some(seen) = self.shared.seen() else { continue };
            let mut now = gate_seen(&seen, self.own.document.machine.role);
            if gate::counting(&before, &now).next().is_some() {
                good_since = None;
            } else {
                now.steady = good_since.get_or_insert_with(Instant::now).elapsed().as_secs();
            }
            match gate::judge(&before, &now) {
                Gate::Wait(what) => self.shared.doing(format!("trial of release {version}: {what}")),
                Gate::Keep => {
                    self.shared.slate().on_trial = false;
                    self.engine.keep()?;
                    self.dismiss_guard();
                    self.publish();
                    console::note(&format!(
                        "update: release {version} is kept in slot {}; {} bytes written to flash in all",
                        self.own.boot.slot.letter(),
                        self.engine.record().flash_bytes
                    ));
                    return Ok(());
                }
                Gate::Back(verdict) => {
                    console::note(&format!("update: release {version} goes back: {verdict}"));
                    // What cannot be written down is no reason to stay.
                    if let Err(stop) = self.engine.judge(verdict) {
                        console::note(&format!("update: {stop}"));
                    }
                    restart();
                }
            }
        }
    }

    /// Looks for releases from now on.
    fn live(&mut self) -> Result<(), NoUpdates> {
        self.shared.slate().settled = true;
        self.publish();
        let Some(updates) = self.own.document.system.updates.clone() else {
            self.shared.doing("off: the file names no source");
            return Ok(());
        };
        let Ok(base) = Url::parse(&updates.source) else {
            self.shared.doing("off");
            self.shared.fault(format!("source: {:?} is no address", updates.source));
            return Ok(());
        };
        let mut ring = read_anchor()?;
        // Kept from an earlier day; one that is older than the release's own is refused, and rightly.
        if let Ok(kept) = std::fs::read(KEYS) {
            let _ = ring.take(&kept);
        }
        let seed = u64::from(self.own.document.machine.number);
        let mut faults = 0;
        loop {
            self.wait_until_settled();
            let looked = self.look(&base, &mut ring);
            self.shared.slate().status.looked = Some(clock::now());
            faults = match looked {
                Ok(()) => 0,
                Err(why) => {
                    self.shared.fault(format!("{}: {}", why.0, why.1));
                    faults + 1
                }
            };
            self.publish();
            let due = match updates.interval {
                Some(interval) if faults == 0 => interval,
                _ => when::interval(seed, faults),
            };
            self.shared.doing(format!("release {} runs; next look in {due} s", self.own.manifest.version));
            self.shared.slate().asked = false;
            self.shared.rest(Duration::from_secs(due));
        }
    }

    /// A machine that is still starting is left alone: what is broken before an update must be known to be.
    fn wait_until_settled(&self) {
        let begun = Instant::now();
        while begun.elapsed().as_secs() < gate::DEADLINE {
            if self.shared.seen().is_some_and(|seen| seen.broken.is_empty()) {
                return;
            }
            self.shared.doing("the machine is starting");
            std::thread::sleep(BEAT);
        }
    }

    /// One look at the source, and all that follows from it. An error has its stable word and its text.
    fn look(&mut self, base: &Url, ring: &mut KeyRing) -> Result<(), (&'static str, String)> {
        self.shared.doing("looking at the source");
        let refused = |why: NoOffer| (why.word(), line(&why));
        if let Some(statement) = source::take_keys(&mut self.client, base, ring).map_err(refused)? {
            // A statement that is not kept is fetched again.
            if let Err(error) = std::fs::write(KEYS, &statement) {
                console::note(&format!("update: cannot keep {KEYS}: {error}"));
            }
        }
        let machine = self.machine();
        let arch = self.own.document.arch();
        let offered = source::look(&mut self.client, base, arch, ring, &machine, &self.own.digest);
        let Some(offered) = offered.map_err(refused)? else { return Ok(()) };
        let (version, digest) = (offered.manifest.version, offered.digest.to_string());
        let verdict = |verdict: Verdict| (verdict.reason.word(), verdict.detail);
        if !self.engine.record().wants(version, &digest).map_err(verdict)? {
            return Ok(());
        }
        console::note(&format!("update: release {version} is offered, {} runs", self.own.manifest.version));
        let may = when::may(&self.facts(&offered)).map_err(verdict)?;
        if let May::Wait(what) = may {
            self.shared.doing(what.to_string());
            console::note(&format!("update: release {version}: {what}"));
            return Ok(());
        }
        let is_staged =
            matches!(&self.engine.record().phase, Phase::Staged { target } if target.digest == digest);
        if !is_staged {
            self.install(base, &offered)?;
        }
        let mut said = String::new();
        loop {
            match when::may(&self.facts(&offered)).map_err(verdict)? {
                May::Go => break,
                May::Load(what) | May::Wait(what) => {
                    let text = what.to_string();
                    self.shared.doing(&text);
                    if text != said {
                        console::note(&format!("update: release {version} is loaded; {text}"));
                        said = text;
                    }
                    self.shared.rest(BEAT * 5);
                }
            }
        }
        self.move_pods_away(version);
        let broken = self.shared.seen().map(|seen| seen.broken.iter().map(|(part, _)| *part).collect());
        let asked = self.engine.ask(Before { broken: broken.unwrap_or_default() });
        self.publish();
        if asked.is_err() {
            self.shared.slate().settled = true;
        }
        asked.map_err(stopped)?;
        console::note(&format!("update: restarting into release {version} for its trial"));
        restart()
    }

    /// Pods that can go elsewhere do. What cannot be moved in time, or with an API that is away, is stopped cleanly by the
    /// restart: a machine must be able to update itself alone.
    fn move_pods_away(&self, version: u64) {
        let limit = self.own.document.system.updates.as_ref().map_or(0, |updates| updates.drain_timeout);
        self.shared.slate().settled = false;
        self.shared.doing(format!("moving pods away before release {version}"));
        let told = match (self.mover)(&self.own.document, Duration::from_secs(limit)) {
            Ok(left) if left.is_empty() => return,
            Ok(left) => format!("after {limit} s: {}", left.join(", ")),
            Err(why) => why,
        };
        console::note(&format!("update: not all pods were moved away: {told}"));
    }

    fn install(&mut self, base: &Url, offered: &Offered) -> Result<(), (&'static str, String)> {
        let Offered { offer, manifest, area, digest } = offered;
        let release = release(manifest, area, digest, self.own.kind())
            .ok_or(("impossible", "the manifest has no image for this machine".to_string()))?;
        let mut earlier = Devices::open(&self.own.boot.disk, Path::new(path::STATE))
            .map_err(|error| (Reason::Medium.word(), line(&error)))?;
        let (shared, version) = (self.shared, manifest.version);
        shared.doing(format!("loading release {version}"));
        let began = Instant::now();
        let mut told = 0;
        let mut tell = |bytes: u64| {
            let mut slate = shared.slate();
            slate.status.fetched += bytes;
            let fetched = slate.status.fetched;
            drop(slate);
            if fetched / TELL > told {
                told = fetched / TELL;
                console::note(&format!("update: {} MiB of release {version} came", fetched >> 20));
            }
        };
        let have = (self.own.digest, self.own.boot.slot);
        let mut download =
            Download::new(&mut self.client, base, offer, self.own.kind(), have, &mut earlier, &mut tell);
        let before = self.engine.written();
        let installed = self.engine.install(&release, &mut download, &mut |_, _| ());
        let applied = download.applied;
        self.publish();
        installed.map_err(stopped)?;
        console::note(&format!(
            "update: release {version} is in slot {} and read back; {} bytes came, {} were written, {} s",
            self.engine.record().other().letter(),
            applied.fetched,
            self.engine.written() - before,
            began.elapsed().as_secs()
        ));
        Ok(())
    }

    fn machine(&self) -> Machine {
        let record = self.engine.record();
        let board = self.own.document.machine.board;
        let now = clock::now();
        Machine {
            arch: board.arch(),
            board,
            slot_size: self.engine.media.size(Area::Root(record.other())),
            agent: AGENT,
            running: record.version,
            floor: record.floor,
            now: clock::implausible(now, self.own.manifest.time).is_none().then_some(now),
        }
    }

    fn facts(&self, offered: &Offered) -> Facts {
        let updates = self.own.document.system.updates.as_ref();
        let version = |kubernetes: &bramble_api::manifest::Kubernetes| Kubernetes::parse(&kubernetes.version);
        let api = self.shared.seen().and_then(|seen| seen.api_version);
        let now = clock::now();
        let (asked, held) = self.shared.wishes();
        Facts {
            role: self.own.document.machine.role,
            offered: offered.manifest.kubernetes.as_ref().and_then(version),
            running: self.own.kubernetes(),
            api: api.and_then(|text| Kubernetes::parse(&text)),
            now: local_time(),
            window: updates.and_then(|updates| updates.window.clone()),
            hold: (held > now).then_some((held, now)),
            metered: false,
            asked,
        }
    }
}

fn stopped(stop: Stop) -> (&'static str, String) {
    (stop.reason().map_or("state", Reason::word), stop.to_string())
}

/// The release as the engine wants it.
fn release(manifest: &Manifest, area: &[u8], digest: &Digest, kind: ImageKind) -> Option<Release> {
    let image = match kind {
        ImageKind::Boot => manifest.boot.as_ref(),
        _ => manifest.uki.as_ref(),
    }?;
    Some(Release {
        target: Target { version: manifest.version, digest: digest.to_string(), floor: manifest.floor },
        verity: Tree {
            data: manifest.root_size,
            tree: manifest.verity_size,
            root: Digest::parse(&manifest.verity_root)?.0,
            salt: hex::decode(&manifest.verity_salt).ok()?,
        },
        boot_size: image.size,
        boot_sha256: Digest::parse(&image.sha256)?.0,
        manifest: area.to_vec(),
    })
}

fn read_anchor() -> Result<KeyRing, NoUpdates> {
    let bytes = std::fs::read(path::ANCHOR).map_err(|_| NoUpdates::Unreadable(path::ANCHOR))?;
    let anchor: Anchor = serde_json::from_slice(&bytes).map_err(|_| NoUpdates::Unreadable(path::ANCHOR))?;
    Ok(KeyRing::new(&anchor))
}

/// What the agent saw, as the gate wants it. A worker's API is another machine.
fn gate_seen(seen: &Seen, role: Role) -> gate::Seen {
    let outside = match role {
        Role::ControlPlane => Default::default(),
        _ => [gate::Part::Api].into(),
    };
    gate::Seen { broken: seen.broken.clone(), outside, uptime: console::uptime() as u64, steady: 0 }
}

/// The machine's local time, by the zone that pid 1 has linked; none while the clock cannot be right.
fn local_time() -> Option<Local> {
    // date(1) knows the zones; the agent does not carry them.
    let output = Command::new("date").arg("+%u %H %M").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut words = text.split_whitespace().map(|word| word.parse::<u16>().ok());
    let (day, hour, minute) = (words.next()??, words.next()??, words.next()??);
    Some(Local { day: u8::try_from(day.checked_sub(1)?).ok()?, minute: hour * 60 + minute })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_wish_is_heard_and_wakes_who_rests() {
        let shared = Shared::default();
        assert_eq!(shared.wishes(), (false, 0));
        assert_eq!(shared.ask(), "");
        // Asked already: no rest at all.
        shared.rest(Duration::from_secs(3600));
        assert_eq!(shared.wishes(), (true, shared.held()));
    }
}
