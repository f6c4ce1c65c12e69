//! `bramble apply`: does what the plan of the site says, one machine at a time.

use super::house::{House, asked, passes};
use crate::cli::Apply;
use crate::hands::{self, Hands, Session};
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use bramble_api::event::{Event, Outcome};
use bramble_api::site::{Act, Permission, SitePlan, SiteStep, WaitingOn};
use bramble_console::Exit;
use bramble_effects::{Cancel, Failure, Sink};
use bramble_plan::site::{Asked, inputs};
use bramble_spec::Distribution;
use bramble_upgrade::rollout::{End, Work, carry_out};
use std::path::Path;
use std::time::{Duration, Instant};

/// Largest plan that is read.
const LARGEST: u64 = 64 << 20;
/// How long Kubernetes may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);

/// Plans, asks, does.
pub(crate) fn run(args: &Apply, settings: &Settings) -> Result<Exit, Problem> {
    let distribution = Site::load(settings)?.cluster.spec.kubernetes.distribution;
    if distribution == Distribution::Talos {
        return super::apply_talos::run(args, settings);
    }
    let talos = [("--dry-run", args.dry_run), ("--find", args.find), ("--reboot", args.reboot)];
    if let Some((word, _)) = talos.iter().find(|(_, said)| *said) {
        return Err(Failure::user(format!("{word} is for machines of Talos"))
            .hint("`bramble plan` shows what would be done")
            .into());
    }
    let house = House::open(settings, args.lab)?;
    let asked = asked(&args.asking, &house.site)?;
    let plan = match &args.plan {
        Some(file) => of_file(file, &house, &asked)?,
        None => house.plan(&house.look(), &asked),
    };
    bramble_console::say(&bramble_console::site::plan(&plan, bramble_console::width()));
    passes(&plan)?;
    if plan.steps.is_empty() {
        return Ok(Exit::Done);
    }
    if let Some(step) = plan.steps.iter().find(|step| !is_served(&step.act)) {
        return Err(Failure::user(format!("this version does not do `{}` on a running site", step.act))
            .hint(format!("`--node` leaves {} out", step.node))
            .into());
    }
    if !args.yes {
        let answer = bramble_console::ask("Do this? (y/n)", "n").ok_or_else(|| {
            Failure::user("nobody is there to ask").hint("`--yes` does what the plan shows without asking")
        })?;
        if !matches!(answer.as_str(), "y" | "Y" | "yes") {
            bramble_console::say("nothing was done");
            return Ok(Exit::User);
        }
    }
    let session = Session::begin(settings, "apply")?;
    carry(&house, &plan, &asked, &session, &session.cancel)
}

/// What the hands of a running site do.
fn is_served(act: &Act) -> bool {
    matches!(
        act,
        Act::UpgradeOs { .. }
            | Act::Configure { .. }
            | Act::Relabel { .. }
            | Act::Uncordon
            | Act::Remove { member: false }
    )
}

/// A plan that was written, if it would still be made of the same decisions.
fn of_file(file: &Path, house: &House<'_>, asked: &Asked) -> Result<SitePlan, Problem> {
    let name = file.display();
    let failed = |source: std::io::Error| Failure::user(format!("cannot read {name}")).source(source);
    if std::fs::metadata(file).map_err(failed)?.len() > LARGEST {
        return Err(Failure::user(format!("{name} is too large for a plan")).into());
    }
    let text = std::fs::read(file).map_err(failed)?;
    let plan: SitePlan = serde_json::from_slice(&text)
        .map_err(|e| Failure::user(format!("{name} is no plan")).source(std::io::Error::other(e)))?;
    if plan.inputs != inputs(&house.wanted, &house.site.sources(), asked) {
        let what = format!("{name} was made from another file, lock or wish than there is now");
        return Err(Failure::user(what)
            .hint("plan again; `apply` takes the same --allow, --now and --node as `plan` did")
            .into());
    }
    Ok(plan)
}

fn carry(
    house: &House<'_>,
    plan: &SitePlan,
    asked: &Asked,
    sink: &dyn Sink,
    cancel: &Cancel,
) -> Result<Exit, Problem> {
    let way = house.way.as_ref().map_err(|why| Failure::user(why.clone()))?;
    let kubeconfig = way.kubeconfig(house.settings, &house.site)?;
    let client = bramble_observe::cluster::client(kubeconfig.expose(), DEADLINE);
    let client = house
        .runtime
        .block_on(client)
        .map_err(|why| Failure::retry("Kubernetes cannot be asked").source(std::io::Error::other(why)))?;
    sink.event(Event::PlanStarted { purpose: "apply".to_string(), steps: plan.steps.len() });
    let (mut done, mut unchanged) = (0, 0);
    let mut ended = Ok(Exit::Done);
    for step in &plan.steps {
        let began = Instant::now();
        let (node, what) = (step.node.clone(), step.act.to_string());
        sink.event(Event::ActStarted { step: step.id.clone(), node, what });
        let end = match patiently(house, step, asked, sink, cancel) {
            Again::Same => one(house, &client, step, asked, sink, cancel)?,
            Again::There => {
                unchanged += 1;
                let (step, millis) = (step.id.clone(), 0);
                sink.event(Event::StepFinished { step, outcome: Outcome::Unchanged, millis });
                continue;
            }
            Again::Not(why) => End::Stopped(why),
        };
        match end {
            End::Done => {
                done += 1;
                let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                let step = step.id.clone();
                sink.event(Event::StepFinished { step, outcome: Outcome::Done, millis });
            }
            End::Stopped(why) => {
                sink.event(Event::StepFailed { step: step.id.clone(), error: why.clone() });
                let failure = Failure::retry(format!("{}: {why}", step.id));
                ended = Err(failure.hint(format!("`bramble why {}` says more", step.node)).into());
                break;
            }
            End::Interrupted => {
                ended = Err(Failure::interrupted().into());
                break;
            }
        }
    }
    // Whoever comes next need not wait until ours is over. What keeps pods off a machine stays on it and is gone on with.
    let _ = house.runtime.block_on(hands::give_back(&client, &asked.who));
    sink.event(Event::PlanFinished { done, unchanged, left: plan.steps.len() - done - unchanged });
    ended
}

/// How long what is over by itself is waited for: pods that start elsewhere, a node that comes back.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks meanwhile.
const LOOK: Duration = Duration::from_secs(10);

/// Whether a step may be done now. What is over by itself is waited for a while.
fn patiently(house: &House<'_>, step: &SiteStep, asked: &Asked, sink: &dyn Sink, cancel: &Cancel) -> Again {
    let until = Instant::now() + PATIENCE;
    let mut said = String::new();
    loop {
        let (again, passes) = again(house, step, asked);
        let Again::Not(why) = &again else { return again };
        if !passes || cancel.is_cancelled() || Instant::now() >= until {
            return again;
        }
        if *why != said {
            sink.event(Event::Waiting { subject: step.id.to_string(), on: why.clone() });
            said.clone_from(why);
        }
        let next = Instant::now() + LOOK;
        while Instant::now() < next && !cancel.is_cancelled() {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// Whether waiting helps, without anybody's hand.
fn is_over_by_itself(reason: &WaitingOn) -> bool {
    matches!(
        reason,
        WaitingOn::Budget { .. }
            | WaitingOn::NotReady { .. }
            | WaitingOn::Unknown { .. }
            | WaitingOn::Api { .. }
            | WaitingOn::Silent { .. }
            | WaitingOn::Trial { .. }
    )
}

enum Again {
    /// A plan of now has the step.
    Same,
    /// Nothing is left to do.
    There,
    /// It does not, and why.
    Not(String),
}

/// Looks and plans again: a step is done only if a plan of this moment would do it. With it, whether waiting may help.
fn again(house: &House<'_>, step: &SiteStep, asked: &Asked) -> (Again, bool) {
    let fresh = house.plan(&house.look(), asked);
    if fresh.steps.iter().any(|s| s.id == step.id && s.act == step.act) {
        return (Again::Same, false);
    }
    if fresh.steps.iter().any(|s| s.node == step.node) {
        return (Again::Not("another plan would be made now: plan again".to_string()), false);
    }
    let held: Vec<&WaitingOn> =
        fresh.held.iter().filter(|h| h.node == step.node).flat_map(|h| &h.waiting).collect();
    if held.is_empty() {
        return (Again::There, false);
    }
    let passes = held.iter().all(|reason| is_over_by_itself(reason));
    (Again::Not(held.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ")), passes)
}

fn one(
    house: &House<'_>,
    client: &kube::Client,
    step: &SiteStep,
    asked: &Asked,
    sink: &dyn Sink,
    cancel: &Cancel,
) -> Result<End, Problem> {
    let way = house.way.as_ref().map_err(|why| Failure::user(why.clone()))?;
    let drain = house.site.cluster.effective_nodes().into_iter().find(|n| n.name == step.node);
    let drain_deadline =
        drain.and_then(|n| n.updates).map_or(DRAIN, |updates| updates.drain_timeout.0.as_secs());
    let work = Work {
        drain: step.drain,
        drain_deadline,
        evict: asked.allow.contains(&Permission::Evict(step.node.clone())),
        ready: step.restart,
    };
    let mut hands = Hands {
        settings: house.settings,
        site: &house.site,
        way,
        lab: house.lab,
        runtime: &house.runtime,
        client,
        asked,
        step,
        wanted: house.wanted.node(&step.node),
        sink,
        cancel,
        acted: None,
        result: None,
        boot: String::new(),
    };
    Ok(carry_out(&work, &mut hands))
}

/// Seconds for which pods may take to leave a machine of which the file does not say it.
const DRAIN: u64 = 900;
