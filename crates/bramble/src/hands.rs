//! Puts a plan, the hands and the progress together. What runs is decided in the plan; what is drawn, in the console.

mod flash;
mod house;
mod lab;
mod talos;

use crate::problem::Problem;
use crate::settings::{self, Settings};
use crate::site::Site;
use bramble_api::event::Event;
use bramble_api::names::Arch;
use bramble_api::plan::Plan;
use bramble_api::stage::Stage;
use bramble_console::Progress;
use bramble_effects::{Cancel, Clock, Failure, Hand, Sink};
use bramble_exec::{Builder, Journal, LabCards, Publishing, Vault};
use bramble_secrets::SecretText;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

pub(crate) use flash::{FlashTarget, cards, choose_failure};
pub(crate) use house::{Hands, give_back};
pub(crate) use talos::TalosHand;

/// How the lab is brought up.
#[derive(Clone, Debug)]
pub(crate) struct LabOptions {
    /// The stage that every machine must reach.
    pub(crate) until: Stage,
    /// How long all of it may take.
    pub(crate) timeout: Duration,
    /// Emulate processors even where this computer could run them.
    pub(crate) emulate: bool,
    /// Where the machines' hardware clocks start, seconds since 1970; else at this computer's time.
    pub(crate) clock: Option<u64>,
    /// Addresses that the router leases against the reservations.
    pub(crate) leases: Vec<(String, Ipv4Addr)>,
    /// No time server answers.
    pub(crate) no_time: bool,
    /// The port of this computer that the machines' update source is answered from.
    pub(crate) updates: Option<u16>,
}

impl Default for LabOptions {
    fn default() -> LabOptions {
        LabOptions {
            until: Stage::Ready,
            timeout: Duration::from_secs(1200),
            emulate: false,
            clock: None,
            leases: vec![],
            no_time: false,
            updates: None,
        }
    }
}

/// This computer's clock.
struct Wall;

impl Clock for Wall {
    fn now(&self) -> u64 {
        crate::commands::now()
    }
}

/// Draws events as they come.
struct Drawn(Progress);

impl Sink for Drawn {
    fn event(&self, event: Event) {
        self.0.event(&event);
    }
}

/// Builds for the machines of the house, with the keys of the house.
fn house_builder<'a>(
    settings: &'a Settings,
    site: &'a Site,
    vault: &'a (dyn Fn() -> Result<&'a Vault, Failure> + Sync),
) -> Builder<'a> {
    Builder {
        project: &settings.project,
        cluster: &site.cluster,
        lock: Mutex::new(site.lock.clone()),
        vault,
        out: settings.project.build(),
        publishing: Publishing::default(),
        agent: &settings::agent,
        cmdline: vec![],
        lab: None,
        updates_source: None,
        clock: &Wall,
    }
}

/// Runs a plan of building steps; gives the site back with the lock as the run left it.
pub(crate) fn run_build(
    settings: &Settings,
    site: Site,
    plan: &Plan,
    publishing: Publishing,
) -> Result<Site, Problem> {
    let vault = OnceLock::new();
    let open = || open_once(&vault, || Vault::open(&settings.project.secrets_file()));
    let builder = Builder { publishing, ..house_builder(settings, &site, &open) };
    run(settings, plan, &builder, &open)?;
    builder.keep_lock()?;
    let lock = builder.lock().clone();
    Ok(Site { lock, ..site })
}

/// Runs a plan that writes confirmed disks.
pub(crate) fn run_flash(
    settings: &Settings,
    site: &Site,
    plan: &Plan,
    disks: Vec<FlashTarget>,
) -> Result<(), Problem> {
    let vault = OnceLock::new();
    let open = || open_once(&vault, || Vault::open(&settings.project.secrets_file()));
    let builder = house_builder(settings, site, &open);
    let hand = flash::FlashHand::new(&builder, settings, disks);
    run(settings, plan, &hand, &open)?;
    builder.keep_lock()?;
    Ok(())
}

/// Where lab machines look for releases: the lab's own gateway. A rehearsal must not ask the house's source.
fn lab_updates(cluster: &bramble_spec::Cluster) -> Option<String> {
    let network = &cluster.spec.network;
    let gateway = network.gateway.or_else(|| network.subnet.hosts().next())?;
    Some(format!("http://{gateway}:{}/", bramble_lab::UPDATES_PORT))
}

/// What `with` does with what builds for the house, or for the lab.
pub(crate) fn with_builder<T>(
    settings: &Settings,
    site: &Site,
    lab: bool,
    with: impl FnOnce(&Builder<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let directory = crate::commands::lab::directory(settings);
    let vault = OnceLock::new();
    let open = || {
        open_once(&vault, || match lab {
            true => Vault::of_lab(&directory, crate::commands::now()),
            false => Vault::open(&settings.project.secrets_file()),
        })
    };
    let builder = house_builder(settings, site, &open);
    if !lab {
        return with(&builder);
    }
    let (cards, lock) = LabCards::open(&directory, &site.lock)?;
    let updates_source = lab_updates(&site.cluster);
    with(&Builder { lock: Mutex::new(lock), lab: Some(cards), updates_source, ..builder })
}

/// Runs a plan of the lab.
pub(crate) fn run_lab(
    settings: &Settings,
    site: Site,
    plan: &Plan,
    options: LabOptions,
    publishing: Publishing,
) -> Result<(), Problem> {
    let directory = crate::commands::lab::directory(settings);
    let vault = OnceLock::new();
    let open = || open_once(&vault, || Vault::of_lab(&directory, crate::commands::now()));
    let (cards, lock) = LabCards::open(&directory, &site.lock)?;
    let builder = Builder {
        project: &settings.project,
        cluster: &site.cluster,
        lock: Mutex::new(lock),
        vault: &open,
        out: directory.join("release"),
        publishing,
        agent: &settings::agent,
        // The lab's power cuts aim at the marks of the first boot.
        cmdline: vec!["bramble.marks".into()],
        lab: Some(cards),
        updates_source: lab_updates(&site.cluster),
        clock: &Wall,
    };
    let hand = lab::LabHand { builder: &builder, directory: &directory, options, began: OnceLock::new() };
    run(settings, plan, &hand, &open)?;
    builder.keep_lock()?;
    Ok(())
}

fn open_once(
    cell: &OnceLock<Vault>,
    open: impl FnOnce() -> Result<Vault, Failure>,
) -> Result<&Vault, Failure> {
    if let Some(vault) = cell.get() {
        return Ok(vault);
    }
    let vault = open()?;
    Ok(cell.get_or_init(|| vault))
}

/// Holds the project, journals, draws, and stops at Ctrl-C at the next safe place.
fn run<'v>(
    settings: &Settings,
    plan: &Plan,
    hand: &dyn Hand,
    open: &dyn Fn() -> Result<&'v Vault, Failure>,
) -> Result<(), Problem> {
    let session = Session::begin(settings, &plan.purpose)?;
    if plan.steps.iter().any(|step| step.kind.needs_secrets()) {
        open()?;
    }
    session.run(plan, hand)
}

/// A run that holds the project, of one plan or of several, one after the other.
pub(crate) struct Session {
    _guard: bramble_exec::Guard,
    journal: Journal,
    sink: Drawn,
    /// Set by Ctrl-C.
    pub(crate) cancel: Cancel,
}

impl Session {
    /// Takes the project, opens a journal, listens for signals.
    pub(crate) fn begin(settings: &Settings, purpose: &str) -> Result<Session, Problem> {
        let guard = settings.project.acquire(purpose)?;
        let journal = Journal::open(&settings.project.journals(), crate::commands::now())
            .map_err(|e| Failure::user(e.to_string()).source(e.source))?;
        let cancel = cancel_at_signals()?;
        Ok(Session { _guard: guard, journal, sink: Drawn(Progress::new(settings.progress)), cancel })
    }

    /// Runs one plan.
    pub(crate) fn run(&self, plan: &Plan, hand: &dyn Hand) -> Result<(), Problem> {
        bramble_exec::run(plan, hand, &self.journal, &self.sink, &self.cancel)?;
        Ok(())
    }

    /// Tells an event between two plans.
    pub(crate) fn tell(&self, event: Event) {
        self.journal.record(&event);
        self.sink.event(event);
    }
}

impl Sink for Session {
    fn event(&self, event: Event) {
        self.tell(event);
    }
}

/// Set at Ctrl-C, for the next safe place.
pub(crate) fn cancel_at_signals() -> Result<Cancel, Problem> {
    let cancel = Cancel::default();
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        // The second one ends the program at once: whoever asks twice means it, and every write is whole or
        // nothing.
        let registered = signal_hook::flag::register_conditional_shutdown(
            signal,
            bramble_console::Exit::Interrupted as i32,
            cancel.shared(),
        )
        .and_then(|_| signal_hook::flag::register(signal, cancel.shared()));
        registered.map_err(|e| Failure::bug("cannot listen for signals").source(e))?;
    }
    Ok(cancel)
}

/// Where a node's image is written.
pub(crate) fn image_path(settings: &Settings, node: &str) -> PathBuf {
    settings.project.build().join(format!("{node}.img"))
}

/// Copies every locked package into a directory, for the day the archive has dropped them.
pub(crate) fn keep(settings: &Settings, site: &Site, directory: &Path) -> Result<usize, Problem> {
    let failed = |e| Failure::user(format!("cannot keep packages in {}", directory.display())).source(e);
    std::fs::create_dir_all(directory).map_err(failed)?;
    let cache = bramble_debian::fetch::Cache::new(&settings.project.cache);
    let mut copied = 0;
    for package in site.lock.packages.values().chain(site.lock.lab.values()).flat_map(|set| &set.packages) {
        let to = directory.join(format!("{}.deb", package.sha256));
        if !to.exists() {
            std::fs::copy(cache.deb(package), &to).map_err(failed)?;
        }
        copied += 1;
    }
    Ok(copied)
}

/// A kubeconfig of the lab's administrator.
pub(crate) fn lab_kubeconfig(
    settings: &Settings,
    site: &Site,
    server: &str,
    hours: u64,
) -> Result<SecretText, Problem> {
    let vault = Vault::of_lab(&crate::commands::lab::directory(settings), crate::commands::now())?;
    let name = site.cluster.metadata.name.to_string();
    let text = vault.admin_kubeconfig(&format!("{name}-lab"), server, crate::commands::now(), hours)?;
    Ok(text)
}

/// kubectl: the one built for this computer's processor, else the one in the search path.
pub(crate) fn kubectl(settings: &Settings, site: &Site) -> Result<Command, Problem> {
    let here = std::env::consts::ARCH.parse::<Arch>().ok();
    let built = here.and_then(|arch| bramble_exec::kubectl(&settings.project, &site.lock, arch));
    match built {
        Some(path) => {
            let mut command = Command::new(path);
            command.arg("kubectl");
            Ok(command)
        }
        None => Ok(Command::new("kubectl")),
    }
}
