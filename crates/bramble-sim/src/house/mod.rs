//! A house as a model: machines, their disks, the API server, the datastore's members, a lease, a clock, and faults.
//!
//! What is real is here ([`House`]); what is seen of it is an inventory ([`House::look`]); plans are made by the planner
//! itself and run by [`run`], move by move, in the order that `bramble-upgrade` decides. Whatever is done to the house is
//! watched: a datastore without its quorum, data erased that nobody permitted to erase, two machines away at once.

mod act;
mod look;
pub mod random;
pub mod run;
pub mod script;

use bramble_api::document::Window;
use bramble_api::names::Role;
use bramble_api::site::inventory::quorum;
use bramble_api::site::{
    Budget, Certificate, Cordon, DiskContents, Holder, Identity, Inventory, Os, Permission, Release,
    TalosLine, Version, VersionTable,
};
use bramble_api::window::Local;
use bramble_plan::site::{Asked, Node, Now, Wanted};
use std::collections::{BTreeMap, BTreeSet};

/// Monday, 12:00, some day.
pub const START: u64 = 1_800_000_000;
/// Minute of the week at [`START`].
const START_MINUTE: u64 = 12 * 60;
/// Seconds for which a sign of life of the holder counts.
const LEASE: u64 = 60;

/// What is wrong with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// It does not come back from its next restart.
    Dies,
    /// It goes back to the release of before.
    GoesBack,
    /// It comes back, and is never Ready.
    NeverReady,
    /// A pod on it never leaves.
    StuckDrain,
    /// Everything takes three times as long.
    Slow,
}

/// A machine as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Real {
    /// It has power.
    pub on: bool,
    /// It was sent to sleep.
    pub asleep: bool,
    /// Who it is.
    pub identity: Identity,
    /// What it runs.
    pub os: Option<Os>,
    /// Its Kubernetes.
    pub kubernetes: Option<Version>,
    /// Digest of its configuration.
    pub live: String,
    /// Digest of its configuration.
    pub fixed: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints.
    pub taints: Vec<String>,
    /// It is a node of the cluster.
    pub joined: bool,
    /// Seconds since the epoch from which on it is Ready, if nothing is wrong with it.
    pub ready_at: u64,
    /// Who keeps pods off.
    pub cordon: Cordon,
    /// It has a voice in the datastore.
    pub voter: bool,
    /// Certificates.
    pub certificates: Vec<Certificate>,
    /// Generations that it trusts.
    pub trusts: BTreeMap<String, Vec<u32>>,
    /// What lies on its disk.
    pub disk: DiskContents,
    /// Bytes free.
    pub free: u64,
    /// Releases that failed twice.
    pub skipped: Vec<Os>,
    /// How often the release failed that was tried last.
    pub failed: Option<(Os, u32)>,
    /// Pods that have to leave.
    pub pods: u32,
    /// It answers requests from outside.
    pub ingress: bool,
    /// Volumes that lie on it alone.
    pub volumes: u32,
    /// What is wrong with it.
    pub faults: BTreeSet<Fault>,
    /// Cards that are written, and not yet put in.
    pub result_at: Option<u64>,
}

/// A house as it is.
#[derive(Clone, Debug)]
pub struct House {
    /// Seconds since the epoch.
    pub now: u64,
    /// What the file wants.
    pub wanted: Wanted,
    /// What a person asks beside the file, kept over commands.
    pub asked: Asked,
    /// Machines.
    pub machines: BTreeMap<String, Real>,
    /// Who rolls out.
    pub lease: Holder,
    /// Budgets that let no pod go.
    pub budgets: Vec<Budget>,
    /// Releases that can be fetched.
    pub releases: Vec<Release>,
    /// The local time cannot be known.
    pub no_clock: bool,
    /// What was seen last: a machine that is silent is what it was.
    seen: Inventory,
    /// What must never happen and did.
    pub broken: Vec<String>,
    /// Everything that was done to machines, in order: `act/node/...`.
    pub done: Vec<String>,
}

impl House {
    /// An empty house, whose file wants this system and this Kubernetes.
    pub fn new(os: Os, kubernetes: Version) -> House {
        let _ = os;
        House {
            now: START,
            wanted: Wanted {
                cluster: "home".to_string(),
                spec: "4f2c".to_string(),
                lock: String::new(),
                founded: false,
                members: true,
                kubernetes,
                nodes: Vec::new(),
                authorities: [("machines".to_string(), 1)].into(),
                table: table(),
                not_served: Vec::new(),
            },
            asked: Asked { who: "anna@desk".to_string(), ..Asked::default() },
            machines: BTreeMap::new(),
            lease: Holder::Nobody,
            budgets: Vec::new(),
            releases: Vec::new(),
            no_clock: false,
            seen: Inventory::default(),
            broken: Vec::new(),
            done: Vec::new(),
        }
    }

    /// The time, as the planner wants it.
    pub fn time(&self) -> Now {
        let local = Local { day: 0, minute: 0 }.after(START_MINUTE + (self.now - START) / 60);
        Now { epoch: self.now, local: (!self.no_clock).then_some(local) }
    }

    /// A machine that is exactly what the file wants, as a part of the cluster.
    pub fn as_wanted(&self, node: &Node) -> Real {
        let kubelet = node.role != Role::Management;
        let certificate = Certificate {
            name: "node-api".to_string(),
            authority: "machines".to_string(),
            generation: self.wanted.authorities.get("machines").copied().unwrap_or(1),
            not_before: self.now,
            not_after: self.now + 365 * 86_400,
        };
        Real {
            on: true,
            asleep: false,
            identity: Identity::Ours { incarnation: node.incarnation, adopted: true },
            os: node.os.clone(),
            kubernetes: kubelet.then(|| self.wanted.kubernetes.clone()),
            live: node.live.clone(),
            fixed: node.fixed.clone(),
            labels: node.labels.clone(),
            taints: node.taints.clone(),
            joined: kubelet,
            ready_at: 0,
            cordon: Cordon::None,
            voter: node.is_control_plane(),
            certificates: vec![certificate],
            trusts: self.wanted.authorities.iter().map(|(name, to)| (name.clone(), vec![*to])).collect(),
            disk: DiskContents::Ours,
            free: 8 << 30,
            skipped: Vec::new(),
            failed: None,
            pods: if kubelet { 3 } else { 0 },
            ingress: false,
            volumes: 0,
            faults: BTreeSet::new(),
            result_at: None,
        }
    }

    /// The house is what the file wants.
    pub fn settle(&mut self) {
        self.wanted.founded = true;
        let machines = self.wanted.nodes.iter().map(|n| (n.name.clone(), self.as_wanted(n)));
        self.machines = machines.collect();
        self.look();
    }

    /// Whether the machine takes part in what happens.
    pub(crate) fn is_up(&self, name: &str) -> bool {
        self.machines.get(name).is_some_and(|m| m.on && !m.asleep)
    }

    /// Whether the machine is Ready.
    pub(crate) fn is_ready(&self, name: &str) -> bool {
        self.machines.get(name).is_some_and(|m| {
            m.on && !m.asleep && m.joined && self.now >= m.ready_at && !m.faults.contains(&Fault::NeverReady)
        })
    }

    /// Voices of the datastore, and those that answer.
    pub(crate) fn voices(&self) -> (usize, usize) {
        let voters = self.machines.iter().filter(|(_, m)| m.voter);
        let up = voters.clone().filter(|(_, m)| m.on && !m.asleep && self.now >= m.ready_at);
        (voters.count(), up.count())
    }

    /// Whether the Kubernetes API answers.
    pub fn api_answers(&self) -> bool {
        let (voters, up) = self.voices();
        voters > 0 && up >= quorum(voters)
    }

    /// Whether something was permitted.
    pub(crate) fn permits(&self, permission: &Permission) -> bool {
        self.asked.allow.contains(permission)
    }
}

/// Lines of Talos as `bramble-talos` has them; scripts name releases of it.
pub fn table() -> VersionTable {
    let line = |minor, newest, kubernetes| TalosLine { minor, newest, upgrades_from: minor - 2, kubernetes };
    VersionTable {
        talos: vec![line(12, 11, (30, 35)), line(13, 9, (31, 36)), line(14, 1, (32, 37))],
        kubernetes: [(35, 7), (36, 3), (37, 0)].into(),
    }
}

/// `02:00-05:00`; none when it is not one.
pub(crate) fn window(text: &str) -> Option<Window> {
    let minute = |t: &str| {
        let (hour, minute) = t.split_once(':')?;
        Some(hour.parse::<u16>().ok()? * 60 + minute.parse::<u16>().ok()?)
    };
    let (from, to) = text.split_once('-')?;
    Some(Window { days: Vec::new(), from: minute(from)?, to: minute(to)? })
}
