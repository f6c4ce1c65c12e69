//! Random houses with random changes and faults, and what must hold for every one of them:
//!
//! - the checks of the plan find no error, and every difference that stays has a reason;
//! - what a run did is what the plan showed, in its order; a run that stopped did the beginning of it, and nothing else;
//! - the house became what the plan said that it would, and nothing is left to do but what waited;
//! - nothing that must never happen happened ([`House::broken`](super::House));
//! - a run that is killed before any of its moves, and run again, ends as one that was not.

use super::{Fault, House, Real, run};
use crate::Random;
use bramble_api::names::{Arch, Role};
use bramble_api::site::{
    Budget, Certificate, Cordon, DiskContents, Holder, Identity, Inventory, Machine, Os, Permission, Release,
    Severity, SitePlan, Version, WaitingOn,
};
use bramble_plan::Sources;
use bramble_plan::site::{self, Asked, Node};
use std::collections::BTreeMap;

/// Rounds after which a house that still changes counts as one that never settles.
const ROUNDS: usize = 60;

/// What a campaign tries.
#[derive(Clone, Copy, Debug)]
pub struct Campaign {
    /// Where randomness begins. Site number `n` has the seed `seed + n`.
    pub seed: u64,
    /// Sites to plan for and run.
    pub sites: u64,
    /// Plans that are killed before each of their moves.
    pub killed: u64,
}

/// What a campaign found.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Sites tried.
    pub sites: u64,
    /// Sites with a fault in a machine.
    pub faulty: u64,
    /// Steps shown.
    pub shown: u64,
    /// Steps done.
    pub done: u64,
    /// Differences that waited.
    pub held: u64,
    /// Runs that stopped.
    pub stopped: u64,
    /// Plans that were killed.
    pub killed_plans: u64,
    /// Runs that were killed.
    pub killed_runs: u64,
    /// How often each kind of act was done.
    pub acts: BTreeMap<String, u64>,
    /// How often each reason was given.
    pub reasons: BTreeMap<String, u64>,
    /// What did not hold, with its seed.
    pub failures: Vec<String>,
}

/// Runs a campaign; `tell` is called now and then.
pub fn run(campaign: &Campaign, mut tell: impl FnMut(&Found)) -> Found {
    let mut found = Found::default();
    for n in 0..campaign.sites {
        let seed = campaign.seed.wrapping_add(n);
        one(seed, &mut found);
        if n % 1000 == 999 {
            tell(&found);
        }
    }
    let mut seed = campaign.seed;
    while found.killed_plans < campaign.killed {
        kill(seed, &mut found);
        seed = seed.wrapping_add(1);
    }
    found
}

/// One house: planned, run, looked at.
fn one(seed: u64, found: &mut Found) {
    let (mut house, asked) = house(seed, true);
    found.sites += 1;
    found.faulty += u64::from(house.machines.values().any(|m| !m.faults.is_empty()));
    let seen = house.look();
    let (plan, _) = site::plan(&house.wanted, &Sources::default(), &seen, house.time(), &asked, seed);
    let (again, _) = site::plan(&house.wanted, &Sources::default(), &seen, house.time(), &asked, seed);
    let mut fail = |what: String| {
        if found.failures.len() < 20 {
            found.failures.push(format!("seed {seed}: {what}"));
        }
    };
    if plan != again {
        fail("the same arguments gave another plan".to_string());
    }
    for note in plan.notes.iter().filter(|n| n.severity == Severity::Error) {
        fail(format!("{}: {}", note.check, note.text));
    }
    let silent =
        plan.held.iter().filter(|h| h.waiting.is_empty() || h.waiting.contains(&WaitingOn::Unexplained));
    silent.for_each(|held| fail(format!("{} of {} has no reason", held.change, held.node)));

    let outcome = run::apply(&mut house, &plan, &asked, None);
    let shown: Vec<_> = plan.steps.iter().map(|s| s.id.clone()).collect();
    match &outcome.stopped {
        None if outcome.did != shown => fail(format!("showed {shown:?}, did {:?}", outcome.did)),
        Some((at, _)) if shown[..outcome.did.len()] != outcome.did || shown[outcome.did.len()] != *at => {
            fail(format!("showed {shown:?}, did {:?}, stopped at {at}", outcome.did));
        }
        _ => {}
    }
    // What happened to the machines themselves: the same, and at most the step at which it stopped beside.
    let acts: Vec<String> = shown.iter().map(|id| id.0.clone()).collect();
    if !acts.starts_with(&house.done) || house.done.len() > outcome.did.len() + 1 {
        fail(format!("showed {acts:?}, the house saw {:?}", house.done));
    }
    house.broken.iter().for_each(|broken| fail(broken.clone()));
    if outcome.stopped.is_none() {
        let mut as_said = seen.clone();
        for step in &plan.steps {
            site::project(&mut as_said, &house.wanted, step, house.now);
        }
        let became = house.look();
        if let Some(other) = unlike(&as_said, &became) {
            fail(format!("became other than the plan said: {other}"));
        }
        let second = run::plan(&mut house, &asked);
        // Time passed meanwhile: what waited for the time may go now.
        let timed = |node: &str| plan.held.iter().any(|h| h.node == node && waits_for_time(&h.waiting));
        let anyone = plan.held.iter().any(|h| waits_for_time(&h.waiting));
        for step in second.steps.iter().filter(|s| !timed(&s.node) && !anyone) {
            fail(format!("the second plan has {}", step.id));
        }
    }
    found.shown += shown.len() as u64;
    found.done += outcome.did.len() as u64;
    found.held += plan.held.len() as u64;
    found.stopped += u64::from(outcome.stopped.is_some());
    count(&plan, found);
}

fn count(plan: &SitePlan, found: &mut Found) {
    for step in &plan.steps {
        *found.acts.entry(step.act.kind().to_string()).or_default() += 1;
    }
    for reason in plan.held.iter().flat_map(|h| &h.waiting) {
        *found.reasons.entry(reason.code().to_string()).or_default() += 1;
    }
}

fn waits_for_time(reasons: &[WaitingOn]) -> bool {
    reasons.iter().any(|r| {
        r.is_window()
            || matches!(r, WaitingOn::Hold { .. } | WaitingOn::Starting { .. } | WaitingOn::NotReady { .. })
            || matches!(r, WaitingOn::Holder { .. } | WaitingOn::Attention { .. } | WaitingOn::Earlier { .. })
            || matches!(
                r,
                WaitingOn::Everywhere { .. } | WaitingOn::ApiServer { .. } | WaitingOn::Asleep { .. }
            )
    })
}

/// A plan of a house without faults, killed before each of its moves.
fn kill(seed: u64, found: &mut Found) {
    let (mut whole, asked) = house(seed, false);
    let begin = whole.clone();
    let plan = run::plan(&mut whole, &asked);
    if plan.steps.is_empty() {
        return;
    }
    found.killed_plans += 1;
    let moves = run::apply(&mut whole, &plan, &asked, None).moves;
    let settled = settle(&mut whole, &asked);
    let mut fail = |what: String| {
        if found.failures.len() < 20 {
            found.failures.push(format!("seed {seed}: {what}"));
        }
    };
    if let Some(steps) = settled {
        fail(format!("never settles: still {steps}"));
    }
    for at in 0..moves {
        let mut cut = begin.clone();
        let plan = run::plan(&mut cut, &asked);
        run::apply(&mut cut, &plan, &asked, Some(at));
        if let Some(steps) = settle(&mut cut, &asked) {
            fail(format!("killed before move {at}: never settles: still {steps}"));
        }
        if plain(&cut) != plain(&whole) {
            fail(format!("killed before move {at}: {:?} instead of {:?}", plain(&cut), plain(&whole)));
        }
        cut.broken.iter().for_each(|broken| fail(format!("killed before move {at}: {broken}")));
        found.killed_runs += 1;
    }
}

/// Runs the same command again and again until it has nothing to do. Gives what it would still do after so many rounds.
fn settle(house: &mut House, asked: &Asked) -> Option<String> {
    let (mut quiet, mut last) = (0, String::new());
    for _ in 0..ROUNDS {
        let plan = run::plan(house, asked);
        if plan.steps.is_empty() {
            quiet += 1;
            if quiet == 3 {
                return None;
            }
        } else {
            quiet = 0;
            let outcome = run::apply(house, &plan, asked, None);
            let steps: Vec<String> = plan.steps.iter().map(|s| s.id.to_string()).collect();
            last = format!("{}; stopped: {:?}", steps.join(" "), outcome.stopped);
        }
        house.now += 600;
    }
    Some(last)
}

/// Machines without what only says when.
fn plain(house: &House) -> BTreeMap<String, Real> {
    let mut machines = house.machines.clone();
    for machine in machines.values_mut() {
        (machine.ready_at, machine.result_at, machine.pods, machine.failed) = (0, None, 0, None);
        for certificate in &mut machine.certificates {
            (certificate.not_before, certificate.not_after) = (0, 0);
        }
    }
    machines
}

/// The first machine that is other than was said. Of what was not known nothing was said.
fn unlike(said: &Inventory, became: &Inventory) -> Option<String> {
    said.machines.iter().find_map(|(name, said)| {
        let became = became.machines.get(name).cloned().unwrap_or_default();
        // What is gone says nothing any more.
        if said.identity.is(&Identity::Absent) {
            return None;
        }
        let generations = |m: &Machine| -> Option<Vec<(String, u32)>> {
            m.certificates
                .get()
                .map(|all| all.iter().map(|c: &Certificate| (c.name.clone(), c.generation)).collect())
        };
        let facts = [
            other("identity", said.identity.get(), became.identity.get()),
            other("system", said.os.get(), became.os.get()),
            other("kubernetes", said.kubernetes.get(), became.kubernetes.get()),
            other("configuration", said.live.get(), became.live.get()),
            other("configuration", said.fixed.get(), became.fixed.get()),
            other("labels", said.labels.get(), became.labels.get()),
            other("taints", said.taints.get(), became.taints.get()),
            other("joined", said.joined.get(), became.joined.get()),
            other("member", said.member.get(), became.member.get()),
            other("cordon", said.cordon.get(), became.cordon.get()),
            other("trust", said.trusts.get(), became.trusts.get()),
            other("certificates", generations(said).as_ref(), generations(&became).as_ref()),
        ];
        facts.into_iter().flatten().next().map(|what| format!("{name}: {what}"))
    })
}

fn other<T: PartialEq + std::fmt::Debug>(what: &str, said: Option<&T>, became: Option<&T>) -> Option<String> {
    (said.is_some() && said != became).then(|| format!("{what} is {became:?} instead of {said:?}"))
}

/// A house and what is asked of it.
pub fn house(seed: u64, faults: bool) -> (House, Asked) {
    // Neighbouring seeds give strangers.
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut dice = Dice(&mut random);
    let talos = dice.one_in(2);
    let v = |(minor, patch): (u16, u16)| Version { major: 1, minor, patch, build: String::new() };
    let (old, kubernetes) = match talos {
        true => (Os::Talos(v(*dice.of(&[(12, 0), (13, 2), (14, 0)]))), v(*dice.of(&[(34, 1), (35, 2)]))),
        false => (Os::Bramble(7), v(*dice.of(&[(34, 1), (35, 2), (36, 3)]))),
    };
    let mut house = House::new(old.clone(), kubernetes.clone());
    let servers = *dice.of(&[1, 1, 1, 3, 3, 5]);
    let workers = dice.below(5);
    for n in 1..=servers {
        house.wanted.nodes.push(node(&format!("cp{n}"), Role::ControlPlane, &old));
    }
    for n in 1..=workers {
        house.wanted.nodes.push(node(&format!("w{n}"), Role::Worker, &old));
    }
    if dice.one_in(5) {
        let own = if talos { Os::Bramble(7) } else { old.clone() };
        house.wanted.nodes.push(node("mgmt", Role::Management, &own));
    }
    let release = |version, kubernetes: &Version| Release {
        arch: Arch::Arm64,
        version,
        kubernetes: Some(kubernetes.clone()),
    };
    house.releases.push(release(7, &kubernetes));
    house.settle();
    if talos && dice.one_in(8) {
        blank(&mut house, &mut dice);
    } else {
        wants(&mut house, &mut dice, talos, &kubernetes);
        machines(&mut house, &mut dice);
    }
    let mut asked = house.asked.clone();
    person(&mut house, &mut asked, &mut dice, faults);
    if faults && dice.one_in(3) {
        let all = [Fault::Dies, Fault::GoesBack, Fault::NeverReady, Fault::StuckDrain, Fault::Slow];
        let fault = *dice.of(&all);
        if let Some(machine) = dice.machine(&mut house) {
            machine.faults.insert(fault);
        }
    }
    (house, asked)
}

/// A Talos site of which nothing is installed.
fn blank(house: &mut House, dice: &mut Dice) {
    house.wanted.founded = dice.one_in(6);
    let cards: Vec<bool> = house.wanted.nodes.iter().map(|n| n.card).collect();
    for (machine, card) in house.machines.values_mut().zip(cards) {
        machine.identity = if dice.one_in(8) || card { Identity::Absent } else { Identity::Waiting };
        machine.disk = if dice.one_in(6) { DiskContents::Foreign } else { DiskContents::Empty };
        (machine.os, machine.kubernetes, machine.joined, machine.voter) = (None, None, false, false);
        machine.on = machine.identity == Identity::Waiting;
        machine.certificates.clear();
    }
}

/// The file changes.
fn wants(house: &mut House, dice: &mut Dice, talos: bool, kubernetes: &Version) {
    let newer = |minor: u16, patch| Version { major: 1, minor, patch, build: String::new() };
    if dice.one_in(2) {
        house.wanted.kubernetes = newer(kubernetes.minor + dice.below(3) as u16, 5);
    }
    let goal = house.wanted.kubernetes.clone();
    if !talos && dice.chance(7) {
        let to = 8 + dice.below(4);
        house.wanted.nodes.iter_mut().for_each(|n| n.os = Some(Os::Bramble(to)));
        let mut publish = |version, minor| {
            let kubernetes = if minor == goal.minor { goal.clone() } else { newer(minor, 9) };
            house.releases.push(Release { arch: Arch::Arm64, version, kubernetes: Some(kubernetes) });
        };
        if dice.chance(9) {
            publish(to, goal.minor);
        }
        if goal.minor > kubernetes.minor + 1 && to > 8 && dice.chance(7) {
            publish(8, kubernetes.minor + 1);
        }
    } else if talos && dice.chance(7) {
        let to: Version =
            Version { major: 1, minor: 13 + dice.below(2) as u16, patch: 3, build: String::new() };
        let talos = house.wanted.nodes.iter_mut().filter(|n| !n.card);
        talos.for_each(|n| n.os = Some(Os::Talos(to.clone())));
    }
    for at in 0..house.wanted.nodes.len() {
        let node = &mut house.wanted.nodes[at];
        if dice.one_in(4) {
            node.labels.insert("tier".to_string(), "shelf".to_string());
        }
        if dice.one_in(6) {
            node.fixed = "b".to_string();
        }
        if dice.one_in(6) {
            node.live = "b".to_string();
        }
    }
    if dice.one_in(6) {
        let generation = 2;
        house.wanted.authorities.insert("machines".to_string(), generation);
    }
    if dice.one_in(6) {
        let at = dice.below(house.wanted.nodes.len() as u64) as usize;
        if house.wanted.nodes.len() > 1 {
            house.wanted.nodes.remove(at);
        }
    }
    if dice.one_in(5) {
        add(house, dice);
    }
}

/// A machine that is new in the file.
fn add(house: &mut House, dice: &mut Dice) {
    let Some(like) = house.wanted.nodes.first().cloned() else { return };
    let role = if dice.one_in(4) && house.wanted.members { Role::ControlPlane } else { Role::Worker };
    let new = Node { name: "new".to_string(), role, ..like };
    let mut machine = house.as_wanted(&new);
    machine.identity = if new.card || dice.one_in(4) { Identity::Absent } else { Identity::Waiting };
    machine.disk = if dice.one_in(3) { DiskContents::Foreign } else { DiskContents::Empty };
    (machine.joined, machine.voter, machine.os, machine.kubernetes) = (false, false, None, None);
    machine.on = machine.identity == Identity::Waiting;
    machine.certificates.clear();
    house.wanted.nodes.push(new);
    house.machines.insert("new".to_string(), machine);
}

/// Machines are not as they should.
fn machines(house: &mut House, dice: &mut Dice) {
    let now = house.now;
    for machine in house.machines.values_mut().filter(|m| m.joined) {
        if dice.one_in(12) && !machine.voter {
            machine.asleep = true;
        } else if dice.one_in(25) {
            machine.on = false;
        }
        if dice.one_in(10) {
            for c in &mut machine.certificates {
                (c.not_before, c.not_after) = (now - 250 * 86_400, now + 115 * 86_400);
            }
        }
        if dice.one_in(20) {
            machine.identity = Identity::Ours { incarnation: 1, adopted: false };
        }
        if dice.one_in(20) {
            machine.free = 1 << 20;
        }
        if dice.one_in(25) {
            machine.cordon = Cordon::Other;
        } else if dice.one_in(25) {
            machine.cordon = Cordon::Ours { holder: "anna@desk".to_string(), at: now - 100 };
        }
        machine.ingress = dice.one_in(3);
        machine.volumes = dice.below(3) as u32;
    }
}

/// A person asks, permits, holds; another one may be at it.
fn person(house: &mut House, asked: &mut Asked, dice: &mut Dice, timed: bool) {
    let names: Vec<String> = house.machines.keys().cloned().collect();
    for name in &names {
        let all: [fn(String) -> Permission; 6] = [
            Permission::Wipe,
            Permission::Remove,
            Permission::Outage,
            Permission::Without,
            Permission::Evict,
            Permission::Found,
        ];
        for permission in all {
            if dice.one_in(5) {
                asked.allow.insert(permission(name.clone()));
            }
        }
        if dice.one_in(20) && house.machines[name].joined {
            asked.replace.insert(name.clone(), 1);
        }
    }
    if dice.one_in(12) {
        let nodes = names.iter().filter(|_| dice.one_in(2)).cloned().collect();
        house.budgets.push(Budget { namespace: "db".to_string(), name: "pg".to_string(), nodes });
    }
    if !timed {
        asked.now = true;
        return;
    }
    if dice.one_in(5) {
        let window =
            bramble_api::document::Window { days: Vec::new(), from: 600 + dice.below(240) as u16, to: 860 };
        house.wanted.nodes.iter_mut().for_each(|n| n.window = Some(window.clone()));
        asked.now = dice.one_in(3);
        house.no_clock = dice.one_in(10);
    }
    if dice.one_in(12) {
        asked.holds.insert(dice.of(&names).clone(), house.now + 3600);
    }
    if dice.one_in(15) {
        asked.only.insert(dice.of(&names).clone());
    }
    if dice.one_in(20) {
        let renewed = house.now - dice.below(120);
        house.lease =
            Holder::Is { who: "bert@lap".to_string(), renewed, lasts: 60, node: dice.of(&names).clone() };
    }
}

/// A house of so many machines, three control planes among them, of which each is to get another release.
pub fn many(machines: u64) -> House {
    let (old, kubernetes) = (Os::Bramble(7), Version { major: 1, minor: 36, patch: 3, build: String::new() });
    let mut house = House::new(old.clone(), kubernetes.clone());
    for n in 0..machines {
        let role = if n < 3 { Role::ControlPlane } else { Role::Worker };
        house.wanted.nodes.push(node(&format!("n{n}"), role, &old));
    }
    house.settle();
    house.releases.push(Release { arch: Arch::Arm64, version: 8, kubernetes: Some(kubernetes) });
    house.wanted.nodes.iter_mut().for_each(|n| n.os = Some(Os::Bramble(8)));
    house
}

fn node(name: &str, role: Role, os: &Os) -> Node {
    Node {
        name: name.to_string(),
        role,
        arch: Arch::Arm64,
        os: Some(os.clone()),
        card: matches!(os, Os::Bramble(_)),
        live: "a".to_string(),
        fixed: "a".to_string(),
        labels: BTreeMap::new(),
        taints: Vec::new(),
        incarnation: 1,
        window: None,
    }
}

struct Dice<'a>(&'a mut Random);

impl Dice<'_> {
    fn below(&mut self, end: u64) -> u64 {
        self.0.below(end)
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn chance(&mut self, of_ten: u64) -> bool {
        self.below(10) < of_ten
    }

    fn of<'t, T>(&mut self, all: &'t [T]) -> &'t T {
        &all[self.below(all.len() as u64) as usize]
    }

    fn machine<'h>(&mut self, house: &'h mut House) -> Option<&'h mut Real> {
        let at = self.below(house.machines.len() as u64) as usize;
        house.machines.values_mut().nth(at)
    }
}
