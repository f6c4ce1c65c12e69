//! A machine that takes the releases that are published, good ones and bad ones, until nothing is left to do.

use crate::machine::{Handle, Machine};
use crate::site::{Kindness, Published, Site};
use crate::start::{self, Started, Whole};
use bramble_api::names::Slot;
use bramble_upgrade::engine::{Engine, Now};
use bramble_upgrade::gate::Before;
use bramble_upgrade::media::{Area, BootFlag, Content, Media, Sink};
use bramble_upgrade::reason::Reason;
use bramble_upgrade::state::{Phase, Record, Started as Seen, Target, Verdict};

/// More starts than any life needs: a machine that goes round for ever is stopped here.
const STARTS_MAX: u32 = 40;

/// A life, as far as it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Story {
    /// Starts, rescues counted.
    pub starts: u32,
    /// Starts until the first release under way was kept or its failure was in the journal.
    pub told: Option<u32>,
    /// Trials of each bad release, by version.
    pub trials: std::collections::BTreeMap<u64, u32>,
    /// The release that runs in the end.
    pub runs: Option<u64>,
    /// What the journal says in the end.
    pub record: Option<Record>,
    /// What went wrong for good.
    pub broken: Option<String>,
}

/// The source of a release, which may break off.
struct Source<'p> {
    published: &'p Published,
    /// Bytes until it breaks off.
    left: Option<usize>,
}

/// Blocks that come at once.
const CHUNK: usize = 8 * 4096;

impl Source<'_> {
    fn take(&mut self, length: usize) -> Result<(), Verdict> {
        match &mut self.left {
            Some(left) if *left < length => Err(Verdict::new(Reason::Source, "broke off")),
            Some(left) => {
                *left -= length;
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl Content for Source<'_> {
    fn pour(&mut self, sink: &mut dyn Sink) -> Result<(), Verdict> {
        let published = self.published;
        for chunk in published.root.chunks(CHUNK) {
            self.take(chunk.len())?;
            sink.root(chunk)?;
        }
        let mut boot = published.boot.clone();
        boot.resize(boot.len().next_multiple_of(4096), 0);
        for chunk in boot.chunks(CHUNK) {
            self.take(chunk.len())?;
            sink.boot(chunk)?;
        }
        Ok(())
    }
}

/// What is offered, and how the source behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct Way {
    /// The newest release that is published; the machine is offered it and none before it.
    pub newest: u64,
    /// The source breaks off after so many bytes, once.
    pub breaks: Option<usize>,
}

/// Lives until the newest release is kept or given up. The machine begins switched off.
pub fn live(handle: &Handle<'_>, way: Way, story: &mut Story) {
    let site = handle.site;
    let mut breaks = way.breaks;
    let mut whole = Whole::default();
    let begin = story.starts;
    while story.starts < begin + STARTS_MAX {
        story.starts += 1;
        let mut flags = handle.machine.borrow().flags.clone();
        let started = {
            let machine = handle.machine.borrow();
            let hash = |slot: Slot| slot_hash(site, &machine, slot);
            start::start(site, &machine.disk, &mut flags, &mut whole, hash)
        };
        handle.set_flags(flags);
        let (slot, version) = match started {
            Started::Slot(slot, version) => (slot, version),
            Started::Rescue => {
                let slot = {
                    let disk = &handle.machine.borrow().disk;
                    let versions = [Slot::A, Slot::B].map(|slot| start::examine(site, disk, slot).ok());
                    start::rescue(site, disk, versions)
                };
                let Some(slot) = slot else {
                    story.broken = Some("the rescue finds no slot".into());
                    return;
                };
                let mut media = handle.clone();
                let sector = site.scheme.switch(slot);
                let _ = media.write(Area::Switch, 0, &sector).and_then(|()| media.flush());
                handle.restart();
                continue;
            }
            Started::Torn(slot, why) => {
                story.broken = Some(format!("slot {} is started and torn: {why}", slot.letter()));
                return;
            }
            Started::Nothing(why) => {
                story.broken = Some(format!("nothing is started: {why}"));
                return;
            }
        };
        let Some(published) = site.numbered(version) else { return };
        if published.kindness != Kindness::Good {
            *story.trials.entry(version).or_default() += 1;
        }
        if published.kindness == Kindness::Dead {
            // A watchdog or panic=10: nothing was written.
            continue;
        }
        match day(handle, slot, published, way, &mut breaks, story) {
            Ok(true) => return,
            Ok(false) => handle.restart(),
            Err(why) => {
                story.broken = Some(why);
                return;
            }
        }
    }
    story.broken = Some(format!("not done after {STARTS_MAX} starts"));
}

fn slot_hash(site: &Site, machine: &Machine, slot: Slot) -> u128 {
    let of_slot = machine.disk.iter().filter(|sector| site.is_of(slot, sector.at));
    of_slot.fold(0, |sum, sector| sum ^ sector.hash)
}

/// What an agent does between a start and a restart. `true` when nothing is left to do.
fn day(
    handle: &Handle<'_>,
    slot: Slot,
    running: &Published,
    way: Way,
    breaks: &mut Option<usize>,
    story: &mut Story,
) -> Result<bool, String> {
    let site = handle.site;
    let own = Target { floor: 0, ..running.release.target.clone() };
    let adopted = Record::adopt(slot, own.clone());
    let mut engine =
        Engine::open(handle.clone(), handle.clone(), adopted).map_err(|stop| stop.to_string())?;
    let switch = engine.switch().map_err(|stop| stop.to_string())?;
    let pending = engine.flag.pending().map_err(|refusal| refusal.to_string())?;
    let seen = Seen { running: slot, release: own, switch, pending };
    let now = engine.recover(&seen).map_err(|stop| stop.to_string())?;
    if now == Now::Trial {
        if running.kindness == Kindness::Unhealthy {
            let verdict = Verdict::new(Reason::Unhealthy, "the node is not ready");
            engine.judge(verdict).map_err(|stop| stop.to_string())?;
            return Ok(false);
        }
        engine.keep().map_err(|stop| stop.to_string())?;
    }
    let tell = |record: &Record, story: &mut Story| {
        let failed = record.tried.iter().any(|tried| tried.last.is_some());
        if story.told.is_none() && (record.version == way.newest || failed) {
            story.told = Some(story.starts);
        }
    };
    tell(engine.record(), story);
    loop {
        let record = engine.record().clone();
        story.runs = Some(running.release.target.version);
        story.record = Some(record.clone());
        let Some(offered) = site.numbered(way.newest) else { return Ok(true) };
        let target = &offered.release.target;
        match record.wants(target.version, &target.digest) {
            Ok(true) => {}
            Ok(false) | Err(_) => return Ok(true),
        }
        let staged = matches!(&record.phase, Phase::Staged { target: staged } if staged == target);
        if !staged {
            handle.announce(&offered.boot);
            let mut source = Source { published: offered, left: breaks.take() };
            match engine.install(&offered.release, &mut source, &mut |_, _| ()) {
                Ok(()) => {}
                Err(stop) if stop.reason() == Some(Reason::Source) => {
                    tell(engine.record(), story);
                    continue;
                }
                Err(stop) => {
                    tell(engine.record(), story);
                    if stop.reason().is_some_and(Reason::counts) {
                        continue;
                    }
                    return Err(stop.to_string());
                }
            }
        }
        match engine.ask(Before::default()) {
            Ok(()) => return Ok(false),
            Err(stop) if stop.reason() == Some(Reason::NotApplied) => tell(engine.record(), story),
            Err(stop) => return Err(stop.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::Flags;
    use bramble_upgrade::media::Scheme;
    use bramble_upgrade::state::TRIES_MAX;

    const SCHEMES: [Scheme; 2] = [Scheme::Uefi, Scheme::Pi];

    fn story(scheme: Scheme, kinds: &[Kindness], ways: &[Way], deaf: bool) -> Story {
        let site = Site::new(scheme, 5, kinds);
        let handle = Handle::new(&site, site.disk.clone(), Flags::default());
        handle.machine.borrow_mut().deaf = deaf;
        let mut story = Story::default();
        for way in ways {
            live(&handle, *way, &mut story);
            assert_eq!(story.broken, None, "{scheme:?} {kinds:?}");
        }
        story
    }

    fn to(newest: u64) -> Way {
        Way { newest, ..Way::default() }
    }

    #[test]
    fn good_releases_are_kept_one_after_another_in_either_slot() {
        for scheme in SCHEMES {
            let story = story(scheme, &[Kindness::Good; 3], &[to(2), to(3), to(4)], false);
            let record = story.record.unwrap();
            assert_eq!((story.runs, record.version, record.committed), (Some(4), 4, Slot::B));
            assert_eq!(
                story.starts,
                2 + 2 + 2,
                "one restart each; the last start of each is the next one's first"
            );
        }
    }

    #[test]
    fn a_bad_release_is_tried_twice_and_the_machine_is_back() {
        for scheme in SCHEMES {
            for (kind, reason) in [(Kindness::Dead, Reason::NoWord), (Kindness::Unhealthy, Reason::Unhealthy)]
            {
                let story = story(scheme, &[kind, Kindness::Good], &[to(2), to(2), to(3)], false);
                assert_eq!(story.trials.get(&2), Some(&TRIES_MAX), "{scheme:?} {kind:?}");
                assert_eq!(story.runs, Some(3));
                let record = story.record.unwrap();
                assert_eq!(record.tried[0].last.as_ref().unwrap().reason, reason);
            }
        }
    }

    #[test]
    fn a_deaf_firmware_and_a_source_that_breaks_are_said() {
        for scheme in SCHEMES {
            let story = story(scheme, &[Kindness::Good], &[to(2)], true);
            let tried = &story.record.as_ref().unwrap().tried[0];
            assert_eq!(tried.last.as_ref().unwrap().reason, Reason::NotApplied);
            assert_eq!((tried.tries, story.runs), (TRIES_MAX, Some(1)));
        }
        for scheme in SCHEMES {
            let way = Way { newest: 2, breaks: Some(50_000) };
            assert_eq!(story(scheme, &[Kindness::Good], &[way], false).runs, Some(2));
        }
    }

    /// Issue 6: outside of the other slot an update makes one write of 512 bytes to boot media.
    #[test]
    fn an_update_writes_one_sector_outside_of_the_other_slot() {
        use crate::machine::Act;
        for scheme in SCHEMES {
            let site = Site::new(scheme, 6, &[Kindness::Good]);
            let handle = Handle::new(&site, site.disk.clone(), Flags::default());
            live(&handle, to(2), &mut Story::default());
            let machine = handle.machine.borrow();
            let (mut switch, mut records, mut flags) = (0, 0, 0);
            for act in &machine.acts {
                match act {
                    Act::Write(sectors) => {
                        let at = sectors[0].at * 512;
                        if site.is_of(Slot::B, sectors[0].at) {
                            continue;
                        }
                        if at == site.place(Area::Switch).0 {
                            switch += 1;
                            assert_eq!(sectors.len(), 1);
                        } else {
                            let journal = site.journal(0)..site.journal(0) + crate::site::JOURNAL;
                            assert!(journal.contains(&at), "{scheme:?} writes at {at}");
                        }
                    }
                    Act::Recorded(_) => records += 1,
                    Act::Flags(_) => flags += 1,
                    Act::Flush | Act::Restart => {}
                }
            }
            // First record, writing, staged, trying, kept.
            assert_eq!((switch, records), (1, 5));
            // Set by the agent, taken by the boot loader.
            assert_eq!(flags, 2);
        }
    }
}
