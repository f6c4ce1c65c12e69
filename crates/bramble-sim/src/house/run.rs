//! Runs a plan on a house, move by move, as an executor does: before each step the site is looked at and planned anew, and a
//! step that the new plan would not do is not done. It can be killed before any move.

use super::{Fault, House, LEASE};
use bramble_api::plan::StepId;
use bramble_api::site::{Act, Cordon, Holder, Permission, SitePlan, SiteStep};
use bramble_plan::Sources;
use bramble_plan::site::{self, Asked};
use bramble_upgrade::rollout::{self, Kept, Lease, Move, Seen, Target, Trouble, Work, carry_out};

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

/// The machine of one step.
struct Machine<'a, 'r> {
    run: &'a mut Run<'r>,
    step: &'a SiteStep,
    acted: bool,
    looks: u32,
}

impl Target for Machine<'_, '_> {
    fn look(&mut self) -> Result<Seen, Trouble> {
        self.looks += 1;
        if self.looks > LOOKS {
            return Err(Trouble::Failed("the Kubernetes API does not answer".to_string()));
        }
        Ok(self.run.seen(self.step, self.acted))
    }

    fn make(&mut self, what: Move) -> Result<(), Trouble> {
        let run = &mut *self.run;
        if run.kill == Some(run.outcome.moves) {
            return Err(Trouble::Interrupted);
        }
        run.outcome.moves += 1;
        self.acted |= what == Move::Act;
        run.make(what, self.step);
        self.away();
        Ok(())
    }

    fn wait(&mut self, _: &str) -> Result<(), Trouble> {
        self.run.pass();
        self.away();
        Ok(())
    }

    fn now(&self) -> u64 {
        self.run.house.now
    }
}

impl Machine<'_, '_> {
    /// A machine that restarts is looked at again when it answers.
    fn away(&mut self) {
        while self.acted
            && self.run.is_away(self.step)
            && self.run.house.now < self.run.house.machines[&self.step.node].ready_at
        {
            self.run.pass();
        }
    }
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
        let mut target = Machine { run: self, step, acted: false, looks: 0 };
        match carry_out(&work, &mut target) {
            rollout::End::Done => End::Done,
            rollout::End::Stopped(why) => End::Stopped(why),
            rollout::End::Interrupted => End::Killed,
        }
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
        // It came back as it was.
        let back = (acted && result.is_none()).then(String::new);
        let ready = match step.act {
            _ if machine.is_some_and(|m| !m.on) => false,
            // Until it is founded there is nothing to be Ready in.
            Act::Add { .. } if house.voices().0 == 0 => true,
            _ if machine.is_some_and(|m| !m.joined) => true,
            _ => house.is_ready(&step.node),
        };
        Seen {
            lease,
            kept,
            pods: machine.filter(|_| api).map(|m| m.pods),
            under_way: None,
            back,
            result,
            ready,
        }
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
