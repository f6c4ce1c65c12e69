//! Runs a plan on a house, move by move, as an executor does: before each step the site is looked at and planned anew, and a
//! step that the new plan would not do is not done. It can be killed before any move.

use super::{Fault, House, LEASE};
use bramble_api::plan::StepId;
use bramble_api::site::{Act, Cordon, Holder, Permission, SitePlan, SiteStep};
use bramble_plan::Sources;
use bramble_plan::site::{self, Asked};
use bramble_upgrade::rollout::{Kept, Lease, Move, Next, Seen, Stop, Work, next};

/// Seconds between two looks while something is waited for.
const LOOK: u64 = 10;
/// Seconds for which pods may take to leave.
const DRAIN: u64 = 300;
/// Looks at one step: more than every deadline needs.
const LOOKS: u32 = 1000;

/// How a run ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Steps that were done, in order.
    pub did: Vec<StepId>,
    /// Steps whose result was there.
    pub unchanged: Vec<StepId>,
    /// The step at which it stopped, and why.
    pub stopped: Option<(StepId, String)>,
    /// It was killed.
    pub killed: bool,
    /// Moves that were made.
    pub moves: usize,
}

/// The plan of a house as it is now.
pub fn plan(house: &mut House, asked: &Asked) -> SitePlan {
    let seen = house.look();
    site::plan(&house.wanted, &Sources::default(), &seen, house.time(), asked, 0).0
}

/// Runs a plan; killed before move number `kill`.
pub fn apply(house: &mut House, plan: &SitePlan, asked: &Asked, kill: Option<usize>) -> Outcome {
    house.asked = asked.clone();
    let mut run = Run { house, asked, kill, outcome: Outcome::default() };
    for step in &plan.steps {
        match run.step(step) {
            End::Done => run.outcome.did.push(step.id.clone()),
            End::Unchanged => run.outcome.unchanged.push(step.id.clone()),
            End::Stopped(why) => {
                run.outcome.stopped = Some((step.id.clone(), why));
                break;
            }
            End::Killed => {
                run.outcome.killed = true;
                return run.outcome;
            }
        }
    }
    let Run { house, asked, outcome, .. } = run;
    if matches!(&house.lease, Holder::Is { who, .. } if *who == asked.who) {
        house.lease = Holder::Nobody;
    }
    outcome
}

struct Run<'a> {
    house: &'a mut House,
    asked: &'a Asked,
    kill: Option<usize>,
    outcome: Outcome,
}

enum End {
    Done,
    Unchanged,
    Stopped(String),
    Killed,
}

impl Run<'_> {
    fn step(&mut self, step: &SiteStep) -> End {
        let fresh = plan(self.house, self.asked);
        if !fresh.steps.iter().any(|s| s.id == step.id) {
            let held: Vec<String> = fresh
                .held
                .iter()
                .filter(|h| h.node == step.node)
                .flat_map(|h| h.waiting.iter().map(ToString::to_string))
                .collect();
            if fresh.steps.iter().any(|s| s.node == step.node) {
                return End::Stopped("another plan would be made now: run it again".to_string());
            }
            return if held.is_empty() { End::Unchanged } else { End::Stopped(held.join("; ")) };
        }
        let work = Work {
            drain: step.drain,
            drain_deadline: DRAIN,
            evict: self.asked.allow.contains(&Permission::Evict(step.node.clone())),
            ready: step.restart
                || matches!(step.act, Act::UpgradeKubernetes { .. } | Act::Add { .. } | Act::Found),
        };
        let mut acted = false;
        for _ in 0..LOOKS {
            let seen = self.seen(step, acted);
            match next(&work, &seen, self.house.now) {
                Next::Do(what) => {
                    if self.kill == Some(self.outcome.moves) {
                        return End::Killed;
                    }
                    self.outcome.moves += 1;
                    if what == Move::Act && acted {
                        // It came back as it was.
                        self.let_on(step);
                        return End::Stopped("it went back to what it was".to_string());
                    }
                    acted |= what == Move::Act;
                    self.make(what, step);
                }
                Next::Wait(_) => self.pass(),
                Next::Done => return End::Done,
                Next::Stop { undo, why } => {
                    if undo {
                        self.let_on(step);
                    }
                    return End::Stopped(words(&why));
                }
            }
            // A machine that restarts is looked at again when it answers.
            while acted && self.is_away(step) && self.house.now < self.house.machines[&step.node].ready_at {
                self.pass();
            }
        }
        End::Stopped("the Kubernetes API does not answer".to_string())
    }

    fn is_away(&self, step: &SiteStep) -> bool {
        self.house.machines.get(&step.node).is_some_and(|m| m.on) && self.house.now > 0
    }

    fn seen(&self, step: &SiteStep, acted: bool) -> Seen {
        let house = &*self.house;
        let api = house.api_answers();
        let machine = house.machines.get(&step.node);
        let lease = match &house.lease {
            _ if house.voices().0 == 0 => Lease::Mine,
            _ if !api => Lease::Unknown,
            Holder::Nobody => Lease::Free,
            Holder::Is { who, .. } if *who == self.asked.who => Lease::Mine,
            Holder::Is { who, .. } if self.asked.allow.contains(&Permission::Takeover(who.clone())) => {
                Lease::Free
            }
            Holder::Is { who, renewed, lasts, .. } if house.now > renewed + lasts => Lease::Dead(who.clone()),
            Holder::Is { who, .. } => Lease::Other(who.clone()),
        };
        let kept = match machine.map(|m| &m.cordon) {
            _ if !api => Kept::Unknown,
            None | Some(Cordon::None) => Kept::Off,
            Some(Cordon::Ours { at, .. }) => Kept::Ours(*at),
            Some(Cordon::Other) => Kept::Other,
        };
        let result = machine.filter(|_| acted && has(house, step)).and_then(|m| m.result_at);
        let ready = match step.act {
            _ if machine.is_some_and(|m| !m.on) => false,
            // Until it is founded there is nothing to be Ready in.
            Act::Add { .. } if house.voices().0 == 0 => true,
            _ if machine.is_some_and(|m| !m.joined) => true,
            _ => house.is_ready(&step.node),
        };
        Seen { lease, kept, pods: machine.filter(|_| api).map(|m| m.pods), result, ready }
    }

    fn make(&mut self, what: Move, step: &SiteStep) {
        let (now, who) = (self.house.now, self.asked.who.clone());
        let stuck = self.house.budgets.iter().any(|b| b.nodes.contains(&step.node));
        match what {
            Move::Lease => {
                let node = step.node.clone();
                self.house.lease = Holder::Is { who, renewed: now, lasts: LEASE, node };
            }
            Move::Act => self.house.act(step),
            _ => {
                let Some(machine) = self.house.machines.get_mut(&step.node) else { return };
                match what {
                    Move::Cordon => machine.cordon = Cordon::Ours { holder: who, at: now },
                    Move::Drain if stuck || machine.faults.contains(&Fault::StuckDrain) => machine.pods = 1,
                    Move::Drain | Move::Evict => machine.pods = 0,
                    Move::Uncordon => self.let_on(step),
                    Move::Lease | Move::Act => {}
                }
                if what == Move::Drain {
                    self.pass();
                }
            }
        }
    }

    /// What we keep off is let on; what a person keeps off stays.
    fn let_on(&mut self, step: &SiteStep) {
        if let Some(machine) = self.house.machines.get_mut(&step.node)
            && matches!(machine.cordon, Cordon::Ours { .. })
        {
            machine.cordon = Cordon::None;
            machine.pods = 3;
        }
    }

    fn pass(&mut self) {
        self.house.now += LOOK;
        let now = self.house.now;
        if let Holder::Is { who, renewed, .. } = &mut self.house.lease
            && *who == self.asked.who
        {
            *renewed = now;
        }
    }
}

fn words(why: &Stop) -> String {
    why.to_string()
}

/// Whether a step's result is there.
fn has(house: &House, step: &SiteStep) -> bool {
    let Some(machine) = house.machines.get(&step.node) else { return false };
    match &step.act {
        Act::UpgradeOs { to, .. } => machine.os.as_ref() == Some(to),
        Act::UpgradeKubernetes { to, .. } => machine.kubernetes.as_ref() == Some(to),
        Act::Configure { live, fixed } => (&machine.live, &machine.fixed) == (live, fixed),
        _ => true,
    }
}
