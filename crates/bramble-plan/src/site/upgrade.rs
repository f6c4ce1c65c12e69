//! Releases of the system and of Kubernetes, hop by hop.
//!
//! The planner goes over the machines that are behind again and again, and moves each by one hop when nothing is in the
//! way, until nothing moves. What was in the way at the last look is why the rest waits. The rules:
//!
//! - no machine skips a minor of Kubernetes, and none begins one while another is still before the one in between;
//! - a kubelet is never newer than any API server: control planes go first when Kubernetes changes;
//! - when only the system changes, one worker is the canary, and control planes come last;
//! - Talos goes through every minor, and its Kubernetes is always one that it runs.

use super::gates::takes;
use super::project::api_server;
use super::wanted::Node;
use super::{Builder, How};
use bramble_api::names::Role;
use bramble_api::site::{Act, Cordon, Machine, Os, Permission, Version, WaitingOn};
use std::collections::BTreeSet;

/// One hop of one machine.
#[derive(Clone, Debug)]
struct Hop {
    act: Act,
    /// Kubernetes after it, when it changes.
    kubernetes: Option<Version>,
}

/// What the rules look at over all machines; made anew after every step that changes Kubernetes.
struct Level {
    /// The oldest Kubernetes that a node runs.
    lowest: Option<Version>,
    /// Nodes whose Kubernetes is not known.
    unknown: Vec<String>,
    /// The oldest API server.
    api: Option<Version>,
}

impl<'a> Builder<'a> {
    pub(super) fn do_upgrade(&mut self) -> usize {
        let open: Vec<_> = [self.open("os"), self.open("kubernetes")].concat();
        let mut behind: BTreeSet<String> = open.iter().map(|(name, _)| name.clone()).collect();
        let mut level = self.level();
        loop {
            let before = self.steps.len();
            for node in self.in_order(&behind) {
                let machine = self.machine(&node.name);
                if self.upgrade(node, &machine, &level) && self.moved_kubernetes() {
                    level = self.level();
                }
            }
            if self.steps.len() == before {
                break;
            }
            let open: Vec<_> = [self.open("os"), self.open("kubernetes")].concat();
            behind = open.into_iter().map(|(name, _)| name).collect();
        }
        open.len()
    }

    fn moved_kubernetes(&self) -> bool {
        self.steps.last().is_some_and(|step| {
            matches!(step.act, Act::UpgradeKubernetes { .. } | Act::UpgradeOs { kubernetes: Some(_), .. })
        })
    }

    /// Machines in the order in which they are tried. A machine that a run of before left in the middle comes first.
    fn in_order(&self, behind: &BTreeSet<String>) -> Vec<&'a Node> {
        let wanted = self.wanted;
        let mut nodes: Vec<(usize, &Node)> =
            wanted.nodes.iter().enumerate().filter(|(_, n)| behind.contains(&n.name)).collect();
        let workers = wanted.nodes.iter().filter(|n| n.role == Role::Worker).count().max(1);
        let turn = (self.seed % workers as u64) as usize;
        nodes.sort_by_cached_key(|(at, node)| {
            let machine = self.seen.machines.get(&node.name);
            let begun = machine.is_some_and(|m| matches!(m.cordon.get(), Some(Cordon::Ours { .. })));
            let changes =
                machine.and_then(|m| self.hop(node, m).ok()).is_some_and(|h| h.kubernetes.is_some());
            let rank = match (node.role, changes) {
                (Role::ControlPlane, true) => 0,
                (Role::Worker, false) => 1,
                (Role::Worker, true) => 2,
                (Role::ControlPlane, false) => 3,
                (Role::Management, _) => 4,
            };
            // Another worker is the canary for another seed.
            let place =
                if node.role == Role::Worker { (at + turn) % (wanted.nodes.len().max(1)) } else { *at };
            (rank, !begun, place)
        });
        nodes.into_iter().map(|(_, node)| node).collect()
    }

    fn level(&self) -> Level {
        let (mut lowest, mut unknown) = (None::<Version>, Vec::new());
        for node in self.wanted.nodes.iter().filter(|n| n.role != Role::Management) {
            let Some(machine) = self.seen.machines.get(&node.name) else { continue };
            if !machine.joined.is(&true) {
                continue;
            }
            match machine.kubernetes.get() {
                Some(version) if lowest.as_ref().is_none_or(|l| version < l) => {
                    lowest = Some(version.clone())
                }
                Some(_) => {}
                None => unknown.push(node.name.clone()),
            }
        }
        Level { lowest, unknown, api: api_server(&self.seen, self.wanted) }
    }

    /// Moves a machine by one hop, or says what is in the way. True when it moved.
    fn upgrade(&mut self, node: &Node, machine: &Machine, level: &Level) -> bool {
        let (hop, mut shut) = match self.hop(node, machine) {
            Ok(hop) => (Some(hop), Vec::new()),
            Err(reason) => (None, vec![reason]),
        };
        let Some(hop) = hop else {
            shut.extend(self.reach(&node.name, machine));
            self.hold_upgrade(node, shut);
            return false;
        };
        let how = self.how(node, &hop.act);
        shut.extend(self.order(node, &hop, level));
        shut.extend(self.disrupt(node, machine, &how));
        if let Act::UpgradeOs { to, .. } = &hop.act {
            shut.extend(self.upgrade_gates(node, machine, to));
        }
        if !shut.is_empty() {
            self.hold_upgrade(node, shut);
            return false;
        }
        let (what, why) = match &hop.act {
            Act::UpgradeOs { to, .. } => {
                let last = node.os.as_ref() == Some(to);
                (
                    to.to_string().replace(' ', "-"),
                    if last { "the file wants it" } else { "no minor is skipped" },
                )
            }
            Act::UpgradeKubernetes { to, .. } => {
                let last = *to == self.wanted.kubernetes;
                (to.to_string(), if last { "the file wants it" } else { "no minor is skipped" })
            }
            _ => return false,
        };
        self.step(&node.name, &what, hop.act, why, how);
        true
    }

    fn hold_upgrade(&mut self, node: &Node, shut: Vec<WaitingOn>) {
        self.hold(&node.name, "os", shut.clone());
        self.hold(&node.name, "kubernetes", shut);
    }

    fn how(&self, node: &Node, act: &Act) -> How {
        let restart = matches!(act, Act::UpgradeOs { .. });
        let drain = restart && self.should_drain(node);
        let takes = match restart {
            true => takes::WRITE + takes::RESTART + if drain { takes::DRAIN } else { 0 },
            false => takes::KUBERNETES,
        };
        How { drain, restart, takes, ..How::default() }
    }

    /// The next hop of a machine, or why there is none.
    fn hop(&self, node: &Node, machine: &Machine) -> Result<Hop, WaitingOn> {
        let unknown = |fact: &str, why: &str| WaitingOn::Unknown {
            node: node.name.clone(),
            fact: fact.to_string(),
            why: why.to_string(),
        };
        let from = machine.os.get().ok_or_else(|| unknown("system", &machine.os.why))?;
        match (from, &node.os) {
            (Os::Bramble(from), Some(Os::Bramble(to))) => self.bramble_hop(node, machine, *from, *to),
            (Os::Talos(from), Some(Os::Talos(to))) => {
                let kubernetes = machine.kubernetes.get();
                let running = kubernetes.ok_or_else(|| unknown("Kubernetes", &machine.kubernetes.why))?;
                self.talos_hop(from, to, running)
            }
            (from, Some(to)) => Err(WaitingOn::NoWay {
                from: from.to_string(),
                to: to.to_string(),
                why: "another family is another installation".to_string(),
            }),
            (_, None) => Err(unknown("the release to install", "none was built yet")),
        }
    }

    /// Bramble OS: the wanted release, or one at the update source with the next minor of Kubernetes.
    fn bramble_hop(&self, node: &Node, machine: &Machine, from: u64, to: u64) -> Result<Hop, WaitingOn> {
        let wanted = &self.wanted.kubernetes;
        if from > to {
            return Err(WaitingOn::Back {
                from: Os::Bramble(from).to_string(),
                to: Os::Bramble(to).to_string(),
            });
        }
        if from == to {
            // Only a release brings another Kubernetes.
            let kubernetes = wanted.to_string().trim_start_matches('v').to_string();
            return Err(WaitingOn::Release { kubernetes, after: from });
        }
        let Some(releases) = self.seen.releases.get() else {
            let (fact, why) = ("what the update source has".to_string(), self.seen.releases.why.clone());
            return Err(WaitingOn::Unknown { node: String::new(), fact, why });
        };
        let ours = releases.iter().filter(|r| r.arch == node.arch);
        let goal = ours.clone().find(|r| r.version == to);
        let goal = goal.ok_or(WaitingOn::NotPublished { release: to })?;
        let hop = |release: u64, kubernetes: Option<&Version>| {
            let changed =
                kubernetes.filter(|k| node.role != Role::Management && !machine.kubernetes.is(k)).cloned();
            let (from, to) = (Os::Bramble(from), Os::Bramble(release));
            Hop { act: Act::UpgradeOs { from, to, kubernetes: changed.clone() }, kubernetes: changed }
        };
        let (Some(has), Some(running)) = (&goal.kubernetes, machine.kubernetes.get()) else {
            return Ok(hop(to, goal.kubernetes.as_ref()));
        };
        if node.role == Role::Management || has.minor <= running.minor + 1 {
            if has < running && node.role != Role::Management {
                return Err(WaitingOn::Back { from: running.to_string(), to: has.to_string() });
            }
            return Ok(hop(to, Some(has)));
        }
        let next = running.minor + 1;
        let between = ours.filter(|r| r.version > from && r.version < to);
        let between = between.filter(|r| r.kubernetes.as_ref().is_some_and(|k| k.minor == next));
        match between.max_by_key(|r| r.version) {
            Some(release) => Ok(hop(release.version, release.kubernetes.as_ref())),
            None => Err(WaitingOn::Release { kubernetes: format!("{}.{next}", running.major), after: from }),
        }
    }

    /// Talos: the system first, as far as it runs today's Kubernetes; then Kubernetes.
    fn talos_hop(&self, from: &Version, to: &Version, running: &Version) -> Result<Hop, WaitingOn> {
        let (table, wanted) = (&self.wanted.table, &self.wanted.kubernetes);
        if from > to {
            return Err(WaitingOn::Back { from: format!("talos {from}"), to: format!("talos {to}") });
        }
        if running > wanted {
            let (from, to) = (format!("kubernetes {running}"), format!("kubernetes {wanted}"));
            return Err(WaitingOn::Back { from, to });
        }
        if from != to {
            let next = table.next_talos(from, to).ok_or_else(|| WaitingOn::NoWay {
                from: format!("talos {from}"),
                to: format!("talos {to}"),
                why: "a minor in between is not in the table of this version of bramble".to_string(),
            })?;
            if table.runs(&next, running) {
                let act =
                    Act::UpgradeOs { from: Os::Talos(from.clone()), to: Os::Talos(next), kubernetes: None };
                return Ok(Hop { act, kubernetes: None });
            }
        }
        if running == wanted {
            let (from, why) = (format!("talos {from}"), format!("it does not run kubernetes {running}"));
            return Err(WaitingOn::NoWay { from, to: format!("talos {to}"), why });
        }
        let next = table.next_kubernetes(running, wanted);
        let act = Act::UpgradeKubernetes { from: running.clone(), to: next.clone() };
        Ok(Hop { act, kubernetes: Some(next) })
    }

    /// Rules over all machines.
    fn order(&self, node: &Node, hop: &Hop, level: &Level) -> Vec<WaitingOn> {
        let mut shut = Vec::new();
        if node.role == Role::Management {
            return shut;
        }
        let Some(to) = &hop.kubernetes else {
            shut.extend(self.canary(node, hop));
            return shut;
        };
        if !level.unknown.is_empty() {
            let (what, missing) = (format!("a known Kubernetes before {to}"), level.unknown.clone());
            shut.push(WaitingOn::Everywhere { what, missing });
        }
        if let Some(lowest) = level.lowest.as_ref().filter(|l| l.minor + 1 < to.minor) {
            let line = format!("{}.{}", to.major, to.minor - 1);
            let missing = self.where_kubernetes(|k| k.minor == lowest.minor || k.minor + 1 < to.minor);
            shut.push(WaitingOn::Everywhere { what: format!("kubernetes {line}"), missing });
        }
        if let Act::UpgradeKubernetes { .. } = hop.act {
            let missing = self.where_talos_cannot(to);
            if !missing.is_empty() {
                let line = self
                    .wanted
                    .table
                    .talos
                    .iter()
                    .find(|l| (l.kubernetes.0..=l.kubernetes.1).contains(&to.minor));
                let what = line.map_or("a newer talos".to_string(), |l| format!("talos 1.{}", l.minor));
                shut.push(WaitingOn::Everywhere { what, missing });
            }
        }
        if !node.is_control_plane() && level.api.as_ref().is_none_or(|api| api < to) {
            let servers = self.wanted.nodes.iter().filter(|n| n.is_control_plane());
            let behind = servers.filter(|n| self.machine(&n.name).kubernetes.get().is_none_or(|k| k < to));
            let behind = behind.map(|n| n.name.clone()).collect();
            shut.push(WaitingOn::ApiServer { needs: to.clone(), has: level.api.clone(), behind });
        }
        shut
    }

    fn where_kubernetes(&self, is: impl Fn(&Version) -> bool) -> Vec<String> {
        let nodes = self.wanted.nodes.iter().filter(|n| n.role != Role::Management);
        let behind = nodes.filter(|n| {
            let machine = self.seen.machines.get(&n.name);
            machine.is_some_and(|m| m.joined.is(&true) && m.kubernetes.get().is_some_and(&is))
        });
        behind.map(|n| n.name.clone()).collect()
    }

    fn where_talos_cannot(&self, kubernetes: &Version) -> Vec<String> {
        let nodes = self.wanted.nodes.iter().filter(|n| n.role != Role::Management && !n.card);
        let cannot = nodes.filter(|n| match self.seen.machines.get(&n.name).and_then(|m| m.os.get()) {
            Some(Os::Talos(version)) => !self.wanted.table.runs(version, kubernetes),
            // A node of the cluster whose system is not known may be one that cannot.
            _ => self.seen.machines.get(&n.name).is_some_and(|m| m.joined.is(&true)),
        });
        cannot.map(|n| n.name.clone()).collect()
    }

    /// A release that changes only the system is tried on a worker before any control plane has it.
    fn canary(&self, node: &Node, hop: &Hop) -> Option<WaitingOn> {
        let Act::UpgradeOs { to, .. } = &hop.act else { return None };
        if !node.is_control_plane() {
            return None;
        }
        let of_kind = |n: &&Node| n.role == Role::Worker && n.arch == node.arch && n.card == node.card;
        let able = |n: &&Node| {
            let Some(m) = self.seen.machines.get(&n.name) else { return false };
            let permitted = self.asked.allow.contains(&Permission::Without(n.name.clone()));
            m.joined.is(&true) && !permitted
        };
        let workers: Vec<&Node> = self.wanted.nodes.iter().filter(of_kind).filter(able).collect();
        let has = |n: &&Node| {
            let Some(m) = self.seen.machines.get(&n.name) else { return false };
            m.os.get().is_some_and(|os| os.same_family(to) && os >= to)
        };
        if workers.is_empty() || workers.iter().any(has) {
            return None;
        }
        let workers = workers.iter().map(|n| n.name.clone()).collect();
        Some(WaitingOn::Canary { os: to.clone(), workers })
    }
}
