//! The plan of the whole site: from what is wanted, seen, asked and the time to steps, and to a reason for every
//! difference that stays.
//!
//! The planner ([`plan`]) is a straight run of parts, each of which looks at one kind of difference. It works on a copy of
//! the inventory in which every step that it makes has already happened ([`project`]), so that later parts see the site as
//! it will be. What still differs at the end ([`differences`]) is held, with every reason that was found on the way.

mod add;
mod cards;
mod certificates;
mod configure;
mod diff;
mod differences;
mod gates;
mod leave;
mod lint;
mod project;
mod status;
mod upgrade;
mod wanted;

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;

pub use diff::{Difference, diff};
pub use differences::differences;
pub use lint::lint;
pub use project::{CERTIFICATE_LIFE, project};
pub use status::status;
pub use wanted::{Documents, Node, Wanted, wanted};

use crate::{Sources, digest};
use bramble_api::plan::StepId;
use bramble_api::site::{
    Act, Change, Git, Held, Inventory, Machine, Os, Part, Permission, Power, Report, SitePlan, SiteStep,
    Summary, WaitingOn,
};
use bramble_api::window::Local;
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// The time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Seconds since the epoch.
    pub epoch: u64,
    /// The site's local time; none while it cannot be known.
    pub local: Option<Local>,
}

/// What a person asked for beside the file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Asked {
    /// Who asks: a person at a computer, or the controller. Whoever holds the roll-out under this name goes on with it.
    pub who: String,
    /// What is permitted beyond what is always permitted.
    pub allow: BTreeSet<Permission>,
    /// Do not wait for windows.
    pub now: bool,
    /// Only these machines; all when empty.
    pub only: BTreeSet<String>,
    /// Machines that are to be left alone, until seconds since the epoch.
    pub holds: BTreeMap<String, u64>,
    /// Machines that need not wait for their windows, until seconds since the epoch.
    pub run_now: BTreeMap<String, u64>,
    /// Machines that are to get another card than this one.
    pub replace: BTreeMap<String, u32>,
    /// The machine on which the tool runs, when it is one of the site.
    pub here: Option<String>,
}

/// Makes the plan. Pure: the same arguments give the same plan. `seed` chooses the canary among the workers; keep it the
/// same for one roll-out.
pub fn plan(
    wanted: &Wanted,
    sources: &Sources,
    inventory: &Inventory,
    now: Now,
    asked: &Asked,
    seed: u64,
) -> (SitePlan, Report) {
    let mut builder = Builder::new(wanted, inventory, now, asked, seed);
    builder.part("adopt", Builder::do_adopt);
    // A voice that comes may let another one go, and the other way round.
    loop {
        let before = builder.steps.len();
        builder.part("replace", Builder::do_replace);
        builder.part("add", Builder::do_add);
        builder.part("remove", Builder::do_remove);
        if builder.steps.len() == before {
            break;
        }
    }
    builder.part("erase", Builder::do_erase);
    builder.part("labels", Builder::do_labels);
    builder.part("certificates", Builder::do_certificates);
    builder.part("authorities", Builder::do_authorities);
    builder.part("upgrade", Builder::do_upgrade);
    builder.part("configure", Builder::do_configure);
    builder.part("uncordon", Builder::do_uncordon);
    let held = builder.held();
    let mut plan = SitePlan {
        format: 1,
        site: summary(wanted, inventory, now),
        inputs: inputs(wanted, sources, asked),
        steps: builder.steps,
        held,
        allowed: asked.allow.iter().cloned().collect(),
        notes: Vec::new(),
        not_served: wanted.not_served.clone(),
    };
    plan.notes = lint(&plan, wanted, inventory, now, asked);
    (plan, builder.report)
}

/// Digest of everything that a plan is made from but the time and what was seen: what a person decided.
pub fn inputs(wanted: &Wanted, sources: &Sources, asked: &Asked) -> String {
    digest(&(wanted, sources, asked))
}

fn summary(wanted: &Wanted, inventory: &Inventory, now: Now) -> Summary {
    let with = |power: Power| {
        let machines = wanted.nodes.iter().filter_map(|n| inventory.machines.get(&n.name));
        machines.filter(|m| m.power.is(&power)).count()
    };
    let commit = match inventory.git.get() {
        Some(Git { commit, .. }) if commit.is_empty() => String::new(),
        Some(Git { commit, dirty: true }) => format!("{commit}, changed since"),
        Some(Git { commit, dirty: false }) => commit.clone(),
        None => String::new(),
    };
    Summary {
        cluster: wanted.cluster.clone(),
        nodes: wanted.nodes.len(),
        asleep: with(Power::Asleep),
        silent: with(Power::Silent),
        spec: wanted.spec.chars().take(8).collect(),
        lock: wanted.lock.clone(),
        commit,
        observed_at: inventory.observed_at,
        made_at: now.epoch,
    }
}

/// A plan that is being made.
pub(super) struct Builder<'a> {
    wanted: &'a Wanted,
    now: Now,
    asked: &'a Asked,
    seed: u64,
    /// The site as it will be after the steps so far.
    seen: Inventory,
    steps: Vec<SiteStep>,
    /// Why a kind of difference of a machine stays.
    reasons: BTreeMap<(String, &'static str), Vec<WaitingOn>>,
    /// The last step that something may notice: the next one comes after it.
    chain: Option<StepId>,
    /// Seconds that the chain takes so far.
    elapsed: u64,
    /// Machines of the cluster that are not Ready, without which nobody permitted to go on.
    unready: Vec<WaitingOn>,
    /// Releases that failed, and where.
    failed: Vec<(String, Os)>,
    report: Report,
}

impl<'a> Builder<'a> {
    fn new(wanted: &'a Wanted, inventory: &Inventory, now: Now, asked: &'a Asked, seed: u64) -> Builder<'a> {
        let mut builder = Builder {
            wanted,
            now,
            asked,
            seed,
            seen: inventory.clone(),
            steps: Vec::new(),
            reasons: BTreeMap::new(),
            chain: None,
            elapsed: 0,
            unready: Vec::new(),
            failed: failed(inventory),
            report: Report::default(),
        };
        builder.unready = builder.not_ready();
        builder
    }

    /// Runs a part, and writes down what it did.
    fn part(&mut self, name: &str, run: impl FnOnce(&mut Builder<'a>) -> usize) {
        let (steps, before) = (self.steps.len(), self.reasons.clone());
        let looked_at = run(self);
        let left = self.reasons.iter().filter(|(key, reasons)| before.get(*key) != Some(*reasons));
        let mut words: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for ((node, _), reasons) in left {
            words.entry(node.clone()).or_default().extend(reasons.iter().map(|r| r.code().to_string()));
        }
        let steps: Vec<StepId> = self.steps[steps..].iter().map(|s| s.id.clone()).collect();
        match self.report.parts.iter_mut().find(|part| part.name == name) {
            // Once more.
            Some(part) => {
                part.steps.extend(steps);
                part.left.extend(words);
            }
            None => self.report.parts.push(Part { name: name.to_string(), looked_at, steps, left: words }),
        }
    }

    /// A machine as it will be; one that was never seen has no facts.
    fn machine(&self, name: &str) -> Machine {
        self.seen.machines.get(name).cloned().unwrap_or_default()
    }

    /// Says why a kind of difference stays.
    fn hold(&mut self, node: &str, kind: &'static str, reasons: Vec<WaitingOn>) {
        self.reasons.insert((node.to_string(), kind), reasons);
    }

    /// Adds a step, and has it happen in the copy of the site.
    fn step(&mut self, node: &str, what: &str, act: Act, why: impl Into<String>, how: How) -> StepId {
        let id = match what {
            "" => format!("{}/{node}", act.kind()),
            what => format!("{}/{node}/{what}", act.kind()),
        };
        let mut step = SiteStep {
            id: StepId(id),
            node: node.to_string(),
            act,
            after: how.after,
            why: why.into(),
            drain: how.drain,
            restart: how.restart,
            takes: how.takes,
        };
        if step.disrupts() || how.chained {
            step.after.extend(self.chain.replace(step.id.clone()));
            self.elapsed += step.takes;
        }
        let id = step.id.clone();
        project(&mut self.seen, self.wanted, &step, self.now.epoch);
        self.steps.push(step);
        id
    }

    /// Every difference that stays, with its reasons.
    fn held(&self) -> Vec<Held> {
        let stays = differences(self.wanted, &self.seen, self.now.epoch, self.asked);
        let held = stays.into_iter().map(|(node, change)| {
            let key = (node.clone(), change.kind());
            let mut waiting = self.reasons.get(&key).cloned().unwrap_or_default();
            if waiting.is_empty() {
                waiting.push(WaitingOn::Unexplained);
            }
            Held { node, change, waiting }
        });
        held.collect()
    }

    /// Differences of one kind, as the site will be.
    fn open(&self, kind: &str) -> Vec<(String, Change)> {
        let mut all = differences(self.wanted, &self.seen, self.now.epoch, self.asked);
        all.retain(|(_, change)| change.kind() == kind);
        all
    }
}

/// Releases that failed as often as is tried, and where.
fn failed(inventory: &Inventory) -> Vec<(String, Os)> {
    let of = |(name, machine): (&String, &Machine)| -> Vec<(String, Os)> {
        let all = machine.skipped.get().map(Vec::as_slice).unwrap_or_default();
        all.iter().map(|os| (name.clone(), os.clone())).collect()
    };
    inventory.machines.iter().flat_map(of).collect()
}

/// How a step is done.
#[derive(Clone, Debug, Default)]
pub(super) struct How {
    drain: bool,
    restart: bool,
    takes: u64,
    /// It goes one after another with the disruptive ones although nothing notices it.
    chained: bool,
    after: Vec<StepId>,
}
