//! `bramble apply` of Talos: the machines of a Talos site become what the file says. Looks, decides, acts, and looks again,
//! until everything is there or the time is over.

use crate::cli::Apply as Args;
use crate::hands::{Session, TalosHand};
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use crate::talos;
use bramble_api::event::Event;
use bramble_api::plan::{Plan, Step, StepId, StepKind, Waiting};
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_exec::Vault;
use bramble_spec::{DiskSelector, EffectiveNode, Role};
use bramble_talos::apply::{self, Act, Decision, Founding, KnownBy, Wanted};
use bramble_talos::machine::{Credentials, PORT};
use bramble_talos::site::Site as TalosSite;
use bramble_talos::{config, pki};
use std::net::SocketAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long this run's way in is good for; longer than any run.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// Between two looks. A machine that installs takes minutes.
const PAUSE: Duration = Duration::from_secs(2);
/// The largest network, as the length of its prefix, that is searched: a thousand addresses.
const SEARCHED: u8 = 22;
/// How often the flag of Ctrl-C is looked at meanwhile.
const TICK: Duration = Duration::from_millis(50);

/// Applies the file.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    let site = Site::load(settings)?;
    let asking = &args.asking;
    if args.lab || args.plan.is_some() || asking.now || !asking.allow.is_empty() || !asking.nodes.is_empty() {
        return Err(
            Failure::user("a written plan, --lab, --allow, --now and --node are not for Talos yet").into()
        );
    }
    let vault = Vault::open(&settings.project.secrets_file())?;
    let bundle = talos::bundle(&vault, settings)?;
    let sources = talos::Project { directory: settings.project.directory.clone(), vault: Some(&vault) };
    let rendered = TalosSite::new(&site.cluster, &bundle, &sources).map_err(talos::refused)?;
    let mut wanted = Vec::new();
    for node in talos::nodes(&site.cluster) {
        let config = rendered.render(&node).map_err(talos::refused)?.text();
        wanted.push(machine(node, config)?);
    }
    let client = pki::client_certificate(&bundle.machine, &[pki::ADMIN], super::now(), LIFE)
        .map_err(|e| Failure::user("cannot issue a certificate for the machine API").source(e))?;
    let credentials = Credentials { authority: bundle.machine.certificate.clone(), client };
    let session = Session::begin(settings, "apply")?;
    let hand = TalosHand {
        project: &settings.project,
        lock: Mutex::new(site.lock.clone()),
        wanted: &wanted,
        credentials: &credentials,
        reboot: args.reboot,
        said: Mutex::default(),
    };
    let places = if args.find { places(&site)? } else { Vec::new() };
    Rounds { args, site: &site, session: &session, hand: &hand, places }.run()
}

/// One machine as the file wants it.
fn machine(node: EffectiveNode, config: bramble_secrets::SecretText) -> Result<Wanted, Failure> {
    let known_by = known_by(&node);
    let version =
        node.talos.version.ok_or_else(|| Failure::bug("a config without a release was rendered"))?;
    let role = match node.role {
        Role::ControlPlane => config::Role::ControlPlane,
        Role::Worker | Role::Management => config::Role::Worker,
    };
    let address = SocketAddr::from((node.address, PORT));
    Ok(Wanted { name: node.name, address, role, version, known_by, config })
}

/// What the file says of a machine's hardware.
fn known_by(node: &EffectiveNode) -> KnownBy {
    // A VLAN is known by the card below it, which may be the first.
    let cards = node.mac.iter().chain(node.interfaces.iter().filter_map(|i| i.mac.as_ref()));
    let macs: Vec<String> = cards.map(|mac| mac.to_string().to_lowercase()).collect();
    if !macs.is_empty() {
        // Disks move between machines and are spelt in several ways; a card's address is enough.
        return KnownBy { macs, ..KnownBy::default() };
    }
    let mut known = KnownBy::default();
    match &node.boot_disk {
        Some(DiskSelector::Serial(serial)) => known.serials.push(serial.clone()),
        Some(DiskSelector::Wwid(wwid)) => known.wwids.push(wwid.clone()),
        Some(DiskSelector::Size(_)) | None => {}
    }
    if let Some(install) = &node.talos.install {
        known.serials.extend(install.disk.serial.clone());
        known.wwids.extend(install.disk.wwid.clone());
    }
    known
}

/// Every address of the site's network.
fn places(site: &Site) -> Result<Vec<SocketAddr>, Failure> {
    let subnet = site.cluster.spec.network.subnet;
    if subnet.prefix_len() < SEARCHED {
        return Err(Failure::user(format!("{subnet} is too large to look for machines at every address"))
            .hint("reserve each machine its stated address at the router; `bramble network reservations` has the table"));
    }
    Ok(subnet.hosts().map(|host| SocketAddr::from((host, PORT))).collect())
}

struct Rounds<'a> {
    args: &'a Args,
    site: &'a Site,
    session: &'a Session,
    hand: &'a TalosHand<'a>,
    /// Where machines are looked for that are not at their addresses.
    places: Vec<SocketAddr>,
}

impl Rounds<'_> {
    fn run(&self) -> Result<Exit, Problem> {
        let until = Instant::now() + Duration::from_secs(self.args.timeout);
        let mut asked = self.args.yes;
        let mut said: Vec<apply::Waiting> = Vec::new();
        let mut did = false;
        loop {
            let decision = self.decide();
            if self.session.cancel.is_cancelled() {
                return Err(Failure::interrupted().into());
            }
            if self.args.dry_run {
                return Ok(self.show(&decision));
            }
            if decision.founding.founded {
                self.hand.keep(|lock| lock.allocated.founded = true)?;
            }
            for waiting in decision.waiting.iter().filter(|w| !said.contains(w)) {
                self.session
                    .tell(Event::Waiting { subject: waiting.subject.clone(), on: waiting.on.clone() });
            }
            said.clone_from(&decision.waiting);
            if decision.settled() {
                let what = if did {
                    "every machine is as the file says"
                } else {
                    "nothing to do: every machine is as the file says"
                };
                bramble_console::say(what);
                return Ok(Exit::Done);
            }
            if !decision.acts.is_empty() {
                if !asked {
                    self.ask(&decision)?;
                    asked = true;
                }
                self.session.run(&self.plan(&decision), self.hand)?;
                did = true;
            }
            if Instant::now() >= until {
                return Err(self.late(&decision));
            }
            self.pause();
        }
    }

    fn decide(&self) -> Decision {
        let stop = self.session.cancel.shared();
        let mut seen = apply::look(self.hand.wanted, self.hand.credentials, super::now(), &stop);
        if self.args.find {
            seen = apply::find(self.hand.wanted, seen, &self.places, super::now(), &stop);
        }
        let allocated = self.hand.lock.lock().unwrap_or_else(PoisonError::into_inner).allocated.clone();
        let founding = Founding {
            founder: allocated.founder.as_ref().map(|f| f.node.clone()),
            founded: allocated.founded,
        };
        apply::decide(self.hand.wanted, &seen, &founding)
    }

    fn plan(&self, decision: &Decision) -> Plan {
        let waiting = decision.waiting.iter();
        Plan {
            format: 1,
            cluster: self.site.cluster.name().to_string(),
            purpose: "apply".into(),
            inputs: bramble_plan::digest(&self.site.cluster),
            steps: decision.acts.iter().map(step).collect(),
            not_served: self.site.not_served.clone(),
            // What a machine says of itself is a stranger's text.
            waiting: waiting
                .map(|w| Waiting { subject: w.subject.clone(), on: bramble_console::harmless(&w.on) })
                .collect(),
        }
    }

    fn show(&self, decision: &Decision) -> Exit {
        let plan = self.plan(decision);
        bramble_console::data(&super::plan::text(&plan));
        for act in &decision.acts {
            if let Act::Configure { node, difference } = act {
                bramble_console::data(&format!("{node}:\n  {}", difference.join("\n  ")));
            }
        }
        let pending = self.args.exit_code && !plan.steps.is_empty();
        if pending { Exit::Pending } else { Exit::Done }
    }

    /// Asks once, before the first thing is done.
    fn ask(&self, decision: &Decision) -> Result<(), Problem> {
        bramble_console::say(&super::plan::text(&self.plan(decision)));
        if decision.acts.iter().any(|act| matches!(act, Act::Push { .. })) {
            bramble_console::warning(
                "a machine that gets its first config installs Talos: what is on that disk is lost",
            );
        }
        match bramble_console::ask("go on, also with machines that appear later?", "no") {
            Some(word) if matches!(word.as_str(), "y" | "yes") => Ok(()),
            Some(_) => Err(Failure::user("nothing was done").into()),
            None => Err(Failure::user("nothing was done: nobody can be asked here")
                .hint("`bramble apply --yes` does not ask; --dry-run only looks")
                .into()),
        }
    }

    fn late(&self, decision: &Decision) -> Problem {
        let subjects: Vec<&str> = decision.waiting.iter().map(|w| w.subject.as_str()).collect();
        let what = format!("not everything is there after {} s: {}", self.args.timeout, subjects.join(", "));
        let causes: Vec<String> =
            decision.waiting.iter().map(|w| format!("{} waits for {}", w.subject, w.on)).collect();
        let failure = Failure::retry(what).hint("run the same command again: it goes on from here");
        if causes.is_empty() { failure.into() } else { failure.source(causes.join("; ")).into() }
    }

    fn pause(&self) {
        let until = Instant::now() + PAUSE;
        while Instant::now() < until && !self.session.cancel.is_cancelled() {
            std::thread::sleep(TICK);
        }
    }
}

/// An act as a step.
fn step(act: &Act) -> Step {
    let (id, kind, why) = match act {
        Act::Push { node, address, fingerprint } => (
            format!("talos-push/{node}"),
            StepKind::TalosPush { node: node.clone(), address: *address, fingerprint: fingerprint.clone() },
            format!("{node} is in maintenance mode at {}, its key is {fingerprint}", address.ip()),
        ),
        Act::Configure { node, difference } => (
            format!("talos-configure/{node}"),
            StepKind::TalosConfigure { node: node.clone() },
            match difference.len() {
                1 => format!("its config differs in one place: {}", difference.concat()),
                many => format!("its config differs in {many} places"),
            },
        ),
        Act::Bootstrap { node } => (
            format!("talos-bootstrap/{node}"),
            StepKind::TalosBootstrap { node: node.clone() },
            "no machine has etcd yet".to_string(),
        ),
    };
    Step { id: StepId(id), kind, after: vec![], why }
}
