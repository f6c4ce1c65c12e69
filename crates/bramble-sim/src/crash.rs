//! Every state that a cut may leave of a life.
//!
//! A life is recorded as writes, flushes, and changes of the firmware's memory. Between two flushes a medium may have
//! kept any subset of the sectors that were written; the states tried are
//!
//! - every prefix of the writes, and of the sectors of the last write (torn);
//! - random subsets of the sectors between two flushes, of whole writes and of single sectors;
//! - the same with one flush that did nothing (the medium lied): the writes before it are still in the air;
//!
//! and each of them with the switch's sector as it is, as zeros, as ones, as noise with its neighbours, and half gone. In
//! each the machine must start a slot that is whole.

use crate::Random;
use crate::disk::{Disk, Layer, Sector};
use crate::life::{Story, Way, live};
use crate::machine::{Act, Flags, Handle, Mistake};
use crate::site::{Kindness, Site};
use crate::start::{Started, Whole, rescue, start};
use bramble_api::names::Slot;
use bramble_disk::firmware::ReadAt;
use bramble_upgrade::journal::{self, COPY, Found};
use bramble_upgrade::media::{Area, Scheme};
use bramble_upgrade::state::TRIES_MAX;
use std::collections::HashSet;

/// Sectors from the switch on that are spoilt with it: what a card programs at once.
const NEIGHBOURS: u64 = 64;
/// Starts in which a machine that got its power back must be done, or have said why not.
const TOLD_MAX: u32 = 4;
/// So many failures are kept.
const SHOWN: usize = 12;

/// What is to be tried.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// The first seed; each life takes the next.
    pub seed: u64,
    /// Distinct states after which no new life begins.
    pub states: u64,
    /// Random subsets between two flushes.
    pub subsets: u32,
    /// Each so many-th state is lived on to the end.
    pub lived: u64,
    /// The mistake that is made.
    pub mistake: Option<Mistake>,
}

/// How it went.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Lives that were cut.
    pub lives: u64,
    /// States that were tried.
    pub tried: u64,
    /// States that differ in what is durable of slots, switch, journal or firmware's memory.
    pub distinct: u64,
    /// Of these, with the switch's sector as the writes left it.
    pub unspoilt: u64,
    /// States in which a Pi went by way of its rescue.
    pub rescued: u64,
    /// States after a flush that did nothing, in which a trial found its slot torn and the next start was whole.
    pub second_start: u64,
    /// States that were lived on to the end.
    pub lived: u64,
    /// States in which the switch was spoilt while a release with a dead kernel was on trial under UEFI: two faults at
    /// once. systemd-boot starts the newest entry again and again, and a hand is needed. Counted, not failed.
    pub two_faults: u64,
    /// The most starts until done or told.
    pub told_max: u32,
    /// How many failed.
    pub failures: u64,
    /// The first of them, in words.
    pub shown: Vec<String>,
}

impl Report {
    fn fail(&mut self, why: String) {
        self.failures += 1;
        if self.shown.len() < SHOWN {
            self.shown.push(why);
        }
    }
}

/// The releases of a life and how far it is lived: each `(versions' kinds, newest by newest)`.
const LIVES: [(&[Kindness], &[u64]); 4] = [
    (&[Kindness::Good, Kindness::Good], &[2, 3]),
    (&[Kindness::Dead, Kindness::Good], &[2, 3]),
    (&[Kindness::Unhealthy, Kindness::Good], &[2, 3]),
    (&[Kindness::Good, Kindness::Dead, Kindness::Good], &[2, 3, 4]),
];

/// Cuts lives until enough distinct states were tried. `tell` hears of each life.
pub fn run(plan: &Plan, mut tell: impl FnMut(&Report)) -> Report {
    let mut report = Report::default();
    let mut seen = HashSet::new();
    let mut seed = plan.seed;
    while report.lives == 0 || report.distinct < plan.states {
        for scheme in [Scheme::Uefi, Scheme::Pi] {
            for (kinds, newest) in LIVES {
                let site = Site::new(scheme, seed, kinds);
                cut_life(&site, newest, seed, plan, &mut seen, &mut report);
                report.lives += 1;
                tell(&report);
            }
        }
        seed = seed.wrapping_add(1);
    }
    report
}

/// Lives once, records, and cuts the record everywhere.
fn cut_life(
    site: &Site,
    newest: &[u64],
    seed: u64,
    plan: &Plan,
    seen: &mut HashSet<u128>,
    report: &mut Report,
) {
    let handle = Handle::new(site, site.disk.clone(), Flags::default()).with(plan.mistake);
    let mut acts: Vec<(u64, Act)> = Vec::new();
    for version in newest {
        let mut story = Story::default();
        live(&handle, Way { newest: *version, ..Way::default() }, &mut story);
        acts.extend(handle.machine.borrow_mut().acts.drain(..).map(|act| (*version, act)));
        if let Some(why) = story.broken {
            report.fail(format!("{:?} seed {seed}: without any cut: {why}", site.scheme));
            break;
        }
        for (bad, trials) in story.trials.iter().filter(|(_, trials)| **trials > TRIES_MAX) {
            report.fail(format!("{:?} seed {seed}: release {bad} was tried {trials} times", site.scheme));
        }
    }
    let mut cutter = Cutter {
        site,
        plan,
        seed,
        random: Random(seed ^ 0x6272_616d_626c_6573),
        whole: Whole::default(),
        durable: site.disk.clone(),
        base: site.disk.iter().fold(0, |sum, sector| sum ^ sector.hash),
        slots: [0; 2],
        pending: Vec::new(),
        ghosts: Vec::new(),
        flags: Flags::default(),
        recorded: 0,
        newest: 1,
        seen,
        report,
    };
    cutter.slots = [Slot::A, Slot::B].map(|slot| cutter.durable_hash(slot));
    for (version, act) in acts {
        cutter.newest = version;
        cutter.act(act);
    }
}

/// A record that is cut: what is durable, and what is in the air.
struct Cutter<'a> {
    site: &'a Site,
    plan: &'a Plan,
    seed: u64,
    random: Random,
    whole: Whole,
    durable: Disk,
    /// Hash of what is durable, and of its slots.
    base: u128,
    slots: [u128; 2],
    /// Writes since the last flush.
    pending: Vec<Vec<Sector>>,
    /// Writes before the last flush, in case it did nothing, and the disk as it was before them.
    ghosts: Vec<Vec<Sector>>,
    flags: Flags,
    /// Number of the last record whose flush returned.
    recorded: u64,
    newest: u64,
    seen: &'a mut HashSet<u128>,
    report: &'a mut Report,
}

/// What of a state may be expected.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Medium {
    /// It kept its word.
    Honest,
    /// A flush did nothing.
    Lied,
}

impl Cutter<'_> {
    fn durable_hash(&self, slot: Slot) -> u128 {
        let of_slot = self.durable.iter().filter(|sector| self.site.is_of(slot, sector.at));
        of_slot.fold(0, |sum, sector| sum ^ sector.hash)
    }

    fn act(&mut self, act: Act) {
        match act {
            Act::Write(sectors) => {
                self.torn(&sectors);
                self.pending.push(sectors);
                self.state(&self.pending.concat(), Medium::Honest);
            }
            Act::Flush => self.flush(),
            Act::Recorded(number) => self.recorded = number,
            Act::Flags(flags) => {
                self.flags = *flags;
                self.state(&self.pending.concat(), Medium::Honest);
                self.state(&[], Medium::Honest);
            }
            Act::Restart => self.state(&[], Medium::Honest),
        }
    }

    /// The last write, cut within: a prefix of its sectors, few of many.
    fn torn(&mut self, last: &[Sector]) {
        let before = self.pending.concat();
        let steps = last.len().min(16);
        for step in 1..steps {
            let kept = last.len() * step / steps;
            let mut landed = before.clone();
            landed.extend_from_slice(&last[..kept]);
            self.state(&landed, Medium::Honest);
        }
    }

    fn flush(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let pending = std::mem::take(&mut self.pending);
        let count: usize = pending.iter().map(Vec::len).sum();
        // Few sectors have few subsets.
        let subsets = self.plan.subsets.min(1 << count.min(16));
        for _ in 0..subsets {
            let landed = self.subset(&pending);
            self.state(&landed, Medium::Honest);
        }
        // The flush before this one did nothing: part of what came before it is missing.
        let ghosts = std::mem::take(&mut self.ghosts);
        if !ghosts.is_empty() {
            for _ in 0..subsets / 4 {
                let lost = self.undo(&ghosts);
                let landed = [lost, self.subset(&pending)].concat();
                self.state(&landed, Medium::Lied);
            }
        }
        self.ghosts = self.before(&pending);
        for sector in pending.into_iter().flatten() {
            let old = self.hash_at(sector.at);
            self.base ^= old ^ sector.hash;
            for slot in [Slot::A, Slot::B] {
                if self.site.is_of(slot, sector.at) {
                    self.slots[slot as usize] ^= old ^ sector.hash;
                }
            }
            self.durable.put(sector);
        }
        self.state(&[], Medium::Honest);
    }

    fn hash_at(&self, at: u64) -> u128 {
        self.old(at).hash
    }

    /// What is durable in a sector.
    fn old(&self, at: u64) -> Sector {
        let mut bytes = [0; 512];
        let _ = self.durable.read_at(at * 512, &mut bytes);
        Sector::new(at, &bytes)
    }

    /// What the writes replace.
    fn before(&self, writes: &[Vec<Sector>]) -> Vec<Vec<Sector>> {
        writes.iter().map(|write| write.iter().map(|sector| self.old(sector.at)).collect()).collect()
    }

    /// A random part of the replaced sectors, back in place: first written, last undone.
    fn undo(&mut self, replaced: &[Vec<Sector>]) -> Vec<Sector> {
        let mut lost: Vec<Sector> = self.subset(replaced);
        lost.reverse();
        lost
    }

    /// Some of the sectors, in order: of whole writes, of runs, or each by itself.
    fn subset(&mut self, writes: &[Vec<Sector>]) -> Vec<Sector> {
        let way = self.random.below(3);
        let mut landed = Vec::new();
        for write in writes {
            match way {
                0 => {
                    if self.random.below(2) == 0 {
                        landed.extend_from_slice(write);
                    }
                }
                // A medium keeps pages rather than sectors.
                1 => {
                    for page in write.chunks(8) {
                        if self.random.below(2) == 0 {
                            landed.extend_from_slice(page);
                        }
                    }
                }
                _ => {
                    let keep = self.random.below(8);
                    landed.extend(write.iter().filter(|_| self.random.below(8) < keep).cloned());
                }
            }
        }
        landed
    }

    /// Tries a state: what is durable and `landed`, with the switch in each condition.
    fn state(&mut self, landed: &[Sector], medium: Medium) {
        let durable = std::mem::take(&mut self.durable);
        let mut layer = Layer::new(&durable);
        for sector in landed {
            layer.put(sector.clone());
        }
        let (switch, _) = self.site.place(Area::Switch);
        let hot = switch / 512;
        let mut now = [0; 512];
        let _ = layer.read_at(switch, &mut now);
        // Half gone. Half old and half new is one of the two: the texts differ in one byte.
        let mut half = now;
        half[..256].fill(0);
        let mut noise = [0; 512];
        noise.copy_from_slice(&self.random.bytes(512));
        for (spoilt, sector) in
            [(false, now), (true, [0; 512]), (true, [0xff; 512]), (true, noise), (true, half)]
        {
            let mut layer = layer.clone();
            if spoilt {
                layer.put(Sector::new(hot, &sector));
                if sector == noise {
                    // Behind it: it is the first sector of the region that it has to itself.
                    (hot + 1..hot + NEIGHBOURS).for_each(|at| layer.put(Sector::new(at, &noise)));
                }
            }
            // A power cut takes a Pi's flag with it; a reset does not. Both are tried where there is one.
            let mut kept = vec![self.flags.clone()];
            if self.flags.tryboot {
                kept.push(Flags { tryboot: false, ..self.flags.clone() });
            }
            for flags in kept {
                self.try_one(&layer, flags, spoilt, medium);
            }
        }
        self.durable = durable;
    }

    fn try_one(&mut self, layer: &Layer<'_>, flags: Flags, spoilt: bool, medium: Medium) {
        self.report.tried += 1;
        let flag = u128::from(flags.tryboot) << 1 | u128::from(flags.variables.one_shot.is_some());
        let hash = (self.base ^ layer.change(|_| true)).wrapping_add(flag);
        if !self.seen.insert(hash) {
            return;
        }
        self.report.distinct += 1;
        self.report.unspoilt += u64::from(!spoilt);
        let what = |why: String| {
            let (scheme, seed, newest) = (self.site.scheme, self.seed, self.newest);
            let spoilt = if spoilt { ", switch spoilt" } else { "" };
            let lied = if medium == Medium::Lied { ", a flush did nothing" } else { "" };
            format!("{scheme:?} seed {seed} to release {newest}{spoilt}{lied}: {why}")
        };
        if medium == Medium::Honest
            && let Err(why) = self.journal(layer)
        {
            self.report.fail(what(why));
        }
        let mut after = flags.clone();
        let slots = [Slot::A, Slot::B]
            .map(|slot| self.slots[slot as usize] ^ layer.change(|sector| self.site.is_of(slot, sector)));
        let mut whole = std::mem::take(&mut self.whole);
        let mut first = start(self.site, layer, &mut after, &mut whole, |slot| slots[slot as usize]);
        if medium == Medium::Lied && matches!(first, Started::Torn(..)) {
            // Nothing can be promised of what a medium says it has and has not; but the trial dies, and then the
            // committed slot is there.
            self.report.second_start += 1;
            first = start(self.site, layer, &mut after, &mut whole, |slot| slots[slot as usize]);
        }
        let versions = match first {
            Started::Rescue => {
                [Slot::A, Slot::B].map(|slot| whole.of(self.site, layer, slot, slots[slot as usize]).ok())
            }
            _ => [None, None],
        };
        self.whole = whole;
        match first {
            Started::Slot(..) => {}
            Started::Rescue => match rescue(self.site, layer, versions) {
                // What it writes is then the switch: a state that is tried by itself.
                Some(_) => self.report.rescued += 1,
                None => self.report.fail(what("the rescue finds no slot that is whole".into())),
            },
            Started::Torn(slot, why) => {
                // Spoilt and lied to at once is more than is promised; it is counted, not failed.
                if medium == Medium::Honest || !spoilt {
                    self.report.fail(what(format!("slot {} is started and torn: {why}", slot.letter())));
                }
            }
            Started::Nothing(why) => self.report.fail(what(format!("nothing is started: {why}"))),
        }
        if medium == Medium::Honest && self.report.distinct.is_multiple_of(self.plan.lived) {
            self.live_on(layer, flags, spoilt, what(String::new()));
        }
    }

    /// A record whose flush returned is there, or a later one.
    fn journal(&self, layer: &Layer<'_>) -> Result<(), String> {
        let copies = [0, 1].map(|copy| {
            let mut bytes = vec![0; COPY];
            let _ = layer.read_at(self.site.journal(copy), &mut bytes);
            bytes
        });
        match journal::read([&copies[0], &copies[1]]) {
            Found::Newest(entry) if entry.number >= self.recorded => Ok(()),
            Found::Nothing | Found::Lost if self.recorded == 0 => Ok(()),
            found => Err(format!("record {} was durable, and the journal gives {found:?}", self.recorded)),
        }
    }

    /// Lives on from here: done, or told, within a few starts, and no bad release tried too often.
    fn live_on(&mut self, layer: &Layer<'_>, flags: Flags, spoilt: bool, what: String) {
        let handle = Handle::new(self.site, layer.to_disk(), flags).with(self.plan.mistake);
        let mut story = Story::default();
        live(&handle, Way { newest: self.newest, ..Way::default() }, &mut story);
        self.report.lived += 1;
        let is_dead =
            |version: &u64| self.site.numbered(*version).is_some_and(|p| p.kindness == Kindness::Dead);
        if spoilt
            && self.site.scheme == Scheme::Uefi
            && story.broken.is_some()
            && story.trials.keys().any(is_dead)
            && story.runs.is_none()
        {
            self.report.two_faults += 1;
            return;
        }
        if let Some(why) = story.broken {
            return self.report.fail(format!("{what}lived on: {why}"));
        }
        let told = story.told.unwrap_or(story.starts);
        self.report.told_max = self.report.told_max.max(told);
        if told > TOLD_MAX {
            self.report.fail(format!("{what}done or told only after {told} starts"));
        }
        for (bad, trials) in story.trials.iter().filter(|(_, trials)| **trials > TRIES_MAX) {
            self.report.fail(format!("{what}release {bad} was tried {trials} times"));
        }
    }
}
