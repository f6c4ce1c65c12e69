//! A thousand evenings with disks: none of them writes a byte to a disk that was not confirmed.
//!
//! The judge is apart from the guard: it knows which medium physically lay behind what was confirmed, and what each
//! medium really is. `BRAMBLE_SIM_SEEDS=FIRST..LAST` runs other ones.

use super::choose::{ChooseError, Person, Typed, choose};
use super::guard::{Confirmed, Expect, How, KnownCard, Question, Request, token};
use super::journal::Journals;
use super::reason::Refusal;
use super::sim::{Image, MARK, Random, SIZE, World};
use super::write::*;
use crate::card::{self, Card, CardId, State};
use crate::device::{Device, Site};
use bramble_effects::Cancel;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

const SHARED: &str = "shared-0001";

/// Somebody at the terminal: mostly careful, sometimes not.
struct Somebody {
    world: World,
    random: Random,
    /// Puts this medium in when asked for a card.
    card: usize,
    cancel: Cancel,
    /// Types the right word without looking.
    careless: bool,
    /// What was typed rightly, as the medium that the question was about.
    said: Vec<usize>,
}

/// The medium that was looked at; the simulated fingerprint begins with it.
fn medium_of(device: &Device) -> usize {
    usize::from(device.seen().unwrap().fingerprint[0])
}

impl Person for Somebody {
    fn tell(&mut self, text: &str) {
        assert!(!text.is_empty());
    }

    fn show(&mut self, _: &[&Device], _: &[(&Device, Refusal)]) {}

    fn ask(&mut self, question: &Question) -> Option<String> {
        // Time passes while the question stands there.
        for _ in 0..self.random.below(4) {
            self.world.pause(Duration::from_secs(2));
        }
        let about = medium_of(question.device());
        let right = question.word.text().to_string();
        match self.random.below(10) {
            0 => Some("y".to_string()),
            1 => None,
            _ if about == self.card || self.careless => {
                self.said.push(about);
                Some(right)
            }
            _ => Some("no".to_string()),
        }
    }

    fn typed(&mut self, within: Duration) -> Typed {
        self.world.pause(within);
        let mut state = self.world.state();
        if state.calls > 400 {
            self.cancel.cancel();
        }
        match self.random.below(12) {
            0 => {
                let letter = char::from(b'a' + self.random.below(5) as u8);
                Typed::Line(format!("sd{letter}"))
            }
            1 => Typed::Line(["", "../../etc", "sd\u{202e}a", "loop0"][self.random.below(4)].to_string()),
            2 if state.calls > 350 => Typed::Closed,
            // Puts the card in, if it lies about and a reader is free.
            3..8 => {
                let free = state.slots.iter().position(|s| s.reader && s.medium.is_none());
                let lies = state.loose.iter().position(|m| *m == self.card);
                if let (Some(slot), Some(lies)) = (free, lies) {
                    let medium = state.loose.remove(lies);
                    state.insert(slot, medium);
                }
                Typed::Nothing
            }
            _ => Typed::Nothing,
        }
    }
}

fn record(state: State, id: u8, node: &str) -> Card {
    Card {
        id: CardId([id; 16]),
        state,
        cluster: "home".into(),
        node: node.into(),
        incarnation: "aa".into(),
        size: SIZE,
        written_at: 7,
    }
}

/// How a scenario ended, for counting.
fn scenario(seed: u64) -> &'static str {
    let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d));
    let world = World::new(random.next());
    let media = 3 + random.below(4);
    let mut own_serials = BTreeMap::new();
    {
        let mut state = world.state();
        for index in 0..media {
            let medium = state.add_store();
            let reader = random.chance(60);
            let serial = if random.chance(30) { SHARED.to_string() } else { format!("serial{index}") };
            if reader {
                state.new_slot(true, &serial, None);
                if random.chance(60) {
                    let slot = state.slots.len() - 1;
                    state.insert(slot, medium);
                } else {
                    state.loose.push(medium);
                }
            } else {
                own_serials.insert(medium, serial.clone());
                state.new_slot(false, &serial, Some(medium));
            }
            // Some were flashed before, one may be a copy of another.
            if random.chance(30) {
                let id = if random.chance(20) { 1 } else { index as u8 + 1 };
                let block = record(State::Done, id, "n1").encode();
                let at = card::OFFSET as usize;
                let bytes = Arc::make_mut(&mut state.stores[medium].bytes);
                bytes[at..at + block.len()].copy_from_slice(&block);
            }
            if random.chance(10) {
                state.stores[medium].wraps_at = Some(SIZE / 2);
            }
            if random.chance(10) {
                state.stores[medium].flips = random.below(3) as u32;
            }
        }
        state.counts_media = random.chance(80);
        // Without a count of media only a kernel that refuses changed media can be relied on.
        state.sloppy = state.counts_media && random.chance(50);
    }
    let meant = random.below(media);
    let mut request =
        Request { node: "n1".into(), needs: 4 << 20, keep_data: random.chance(10), ..Request::default() };
    match random.below(4) {
        0 => request.expects = Some(Expect::Size(SIZE)),
        1 => {
            let serial = own_serials.get(&meant).cloned().unwrap_or(format!("serial{meant}"));
            request.expects = Some(Expect::Serial(serial));
        }
        _ => {}
    }
    if random.chance(30) {
        let id = CardId([meant as u8 + 1; 16]);
        request.cards.push(KnownCard { id, node: if random.chance(80) { "n1" } else { "n2" }.into() });
    }
    // What a person copied from a list some time ago.
    let mut tokens = Vec::new();
    if random.chance(40) {
        let mut devices = world.devices().unwrap();
        for device in &mut devices {
            device.contents = Some(world.look(device));
        }
        let seen = devices.iter().filter(|d| d.seen().is_some() && random.chance(50));
        tokens = seen.map(|d| (token(d), medium_of(d))).collect();
        request.confirm = tokens.iter().map(|t| t.0.clone()).collect();
        if random.chance(30) {
            request.erase = std::mem::take(&mut request.confirm);
        }
    }
    if random.chance(40) {
        let letter = char::from(b'a' + random.below(media) as u8);
        request.device = Some(format!("/dev/sd{letter}").into());
    }
    world.state().chaos = [0, 10, 40, 100][random.below(4)];
    let before: Vec<Arc<Vec<u8>>> = world.state().stores.iter().map(|s| s.bytes.clone()).collect();
    let cancel = Cancel::default();
    let mut somebody = Somebody {
        world: world.clone(),
        random: Random(random.next()),
        card: meant,
        cancel: cancel.clone(),
        careless: random.chance(30),
        said: vec![],
    };
    let person: Option<&mut dyn Person> = if random.chance(80) { Some(&mut somebody) } else { None };
    let chosen = choose(&world, &request, person, &cancel);
    let untouched = |world: &World, but: Option<usize>| {
        for (medium, store) in world.state().stores.iter().enumerate().filter(|(m, _)| Some(*m) != but) {
            assert!(store.touched.is_empty(), "seed {seed}: medium {medium} was written");
            assert!(store.bytes == before[medium], "seed {seed}: medium {medium} changed");
        }
    };
    let confirmed: Confirmed = match chosen {
        Ok(confirmed) => confirmed,
        Err(error) => {
            untouched(&world, None);
            assert!(world.state().opened.is_empty(), "seed {seed}");
            return match error {
                ChooseError::Interrupted => "waited in vain",
                ChooseError::Refused(Refusal::Shared { .. }) => "shared",
                _ => "refused",
            };
        }
    };
    let medium = medium_of(confirmed.device());
    let id_there = Card::decode(&before[medium][card::OFFSET as usize..(card::OFFSET + card::SIZE) as usize]);
    match confirmed.how() {
        How::File => {
            let own = own_serials.get(&medium).expect("a card in a reader was confirmed by the file");
            assert_eq!(request.expects, Some(Expect::Serial(own.clone())), "seed {seed}");
        }
        How::Card => {
            let known = &request.cards[0];
            assert!(known.node == "n1" && id_there.is_some_and(|c| c.id == known.id), "seed {seed}");
        }
        How::Person => {
            let typed = somebody.said.contains(&medium);
            let copied = tokens.iter().any(|(token, m)| {
                // A stick's own serial, or a card's id, names it wherever it is; what names a place names one medium.
                let by_name = own_serials.get(&medium) == Some(token) || token.starts_with("card-");
                request.confirm.iter().chain(&request.erase).any(|t| t == token) && (*m == medium || by_name)
            });
            assert!(typed || copied, "seed {seed}: nobody said so of medium {medium}");
        }
        How::PutBack => panic!("seed {seed}: nothing was pulled yet"),
    }
    let image = Image::new(seed);
    let dir = tempfile::tempdir().unwrap();
    let journals = Journals::new(dir.path());
    let id = CardId([200; 16]);
    let card = Card { id, ..record(State::Writing, 200, "n1") };
    let job = Job {
        confirmed,
        content: &image,
        card: card.clone(),
        journals: &journals,
        patience: Duration::from_secs(120),
    };
    let done = flash(&world, &request, &job, &cancel, &|_| {});
    untouched(&world, Some(medium));
    let state = world.state();
    assert!(state.opened.iter().all(|m| *m == medium || state.stores[*m].touched.is_empty()));
    let now = &state.stores[medium].bytes;
    let whole = image.applied(now, &Card { state: State::Done, ..card });
    match done {
        Ok(report) => {
            assert!(**now == whole, "seed {seed}: done, and not what it should be");
            if report.pulled > 0 { "done after pulling" } else { "done" }
        }
        Err(error) => {
            assert!(!now.starts_with(MARK) || **now == whole, "seed {seed}: it starts unfinished");
            match error {
                FlashError::Lies { .. } => "lies",
                FlashError::Gone { .. } => "gone",
                FlashError::Refused(_) => {
                    assert!(state.stores[medium].touched.is_empty(), "seed {seed}: refused after writing");
                    "changed before writing"
                }
                FlashError::Busy { .. } => "busy",
                _ => "failed",
            }
        }
    }
}

#[test]
fn a_thousand_random_evenings_write_no_byte_to_an_unconfirmed_disk() {
    let seeds = std::env::var("BRAMBLE_SIM_SEEDS").ok().and_then(|text| {
        let (first, last) = text.split_once("..")?;
        Some(first.parse::<u64>().ok()?..last.parse::<u64>().ok()?)
    });
    let seeds = seeds.unwrap_or(0..1000);
    let many = seeds.end - seeds.start >= 1000;
    let mut ends: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in seeds {
        *ends.entry(scenario(seed)).or_default() += 1;
    }
    // Every end is reached, else the evenings prove nothing about it.
    let wanted = [
        "done",
        "done after pulling",
        "refused",
        "shared",
        "waited in vain",
        "changed before writing",
        "lies",
        "gone",
    ];
    if many {
        for end in wanted {
            assert!(ends.get(end).is_some_and(|n| *n >= 5), "{end} was seldom reached: {ends:?}");
        }
    }
}

#[test]
fn the_judge_sees_a_byte_on_the_wrong_disk() {
    let world = World::new(1);
    let medium = world.state().add_store();
    world.state().new_slot(true, "x", Some(medium));
    let mut target = world.open("sda").unwrap();
    target.write(512, &[0; 512]).unwrap();
    // The bytes are the same as before; the touch is seen all the same.
    assert_eq!(world.state().stores[medium].touched, std::slice::from_ref(&(512..1024)));
}
