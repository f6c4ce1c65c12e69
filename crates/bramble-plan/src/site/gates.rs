//! What must be so before a machine is touched. Every gate that is shut is named, not only the first.

use super::Builder;
use super::wanted::Node;
use bramble_api::names::Role;
use bramble_api::site::inventory::quorum;
use bramble_api::site::waiting::window_words;
use bramble_api::site::{Holder, Identity, Machine, Member, Os, Permission, Power, Trial, WaitingOn};

/// Seconds for which a look counts. Long enough for a person to read a plan and say yes, short enough that a machine that
/// went away meanwhile is not counted on.
pub const FRESH: u64 = 600;

/// Bytes that must be free for another release of Talos: its installer image, unpacked. Bramble OS writes into a slot
/// that is there already, and needs only its journal.
const SPACE_TALOS: u64 = 1 << 30;
const SPACE_BRAMBLE: u64 = 16 << 20;

/// About how long things take on a Pi 4 with a card, in seconds. Windows are held against these, and people told.
pub mod takes {
    /// Pods leave a machine.
    pub const DRAIN: u64 = 120;
    /// A restart until Ready.
    pub const RESTART: u64 = 180;
    /// Another release is written, apart from drain and restart.
    pub const WRITE: u64 = 60;
    /// Kubernetes' own parts are exchanged on one machine.
    pub const KUBERNETES: u64 = 120;
    /// Something that is only told.
    pub const TELL: u64 = 5;
    /// A machine installs itself and joins.
    pub const INSTALL: u64 = 300;
}

impl Builder<'_> {
    /// Gates of every act on a machine, whether it answers or not.
    pub(super) fn always(&self, name: &str) -> Vec<WaitingOn> {
        let mut shut = Vec::new();
        if !self.asked.only.is_empty() && !self.asked.only.contains(name) {
            shut.push(WaitingOn::NotAsked);
        }
        if let Some(until) = self.asked.holds.get(name).filter(|until| **until > self.now.epoch) {
            shut.push(WaitingOn::Hold { node: name.to_string(), until: *until });
        }
        shut.extend(self.held_by_another());
        shut
    }

    /// The roll-out of someone else. Whoever shows no sign of life is never taken for gone: what they left in the middle
    /// wants a person's look.
    fn held_by_another(&self) -> Option<WaitingOn> {
        let Some(Holder::Is { who, renewed, lasts, node }) = self.seen.holder.get() else { return None };
        if *who == self.asked.who || self.asked.allow.contains(&Permission::Takeover(who.clone())) {
            return None;
        }
        let silent_for = self.now.epoch.saturating_sub(*renewed);
        Some(match silent_for > *lasts {
            false => WaitingOn::Holder { who: who.clone(), node: node.clone() },
            true => WaitingOn::Attention { who: who.clone(), node: node.clone(), silent_for },
        })
    }

    /// Gates of every act for which a machine must answer.
    pub(super) fn reach(&self, name: &str, machine: &Machine) -> Vec<WaitingOn> {
        let mut shut = self.always(name);
        let node = name.to_string();
        match machine.power.get() {
            Some(Power::On) => {
                let age = machine.power.age(self.now.epoch);
                if age > FRESH {
                    shut.push(WaitingOn::Stale { fact: node.clone(), age, limit: FRESH });
                }
            }
            Some(Power::Asleep) => {
                let window = self.wanted.node(name).and_then(|n| n.window.as_ref());
                let wakes = window.zip(self.now.local);
                let wakes = wakes.map(|(window, local)| self.now.epoch + window.opens_in(local) * 60);
                shut.push(WaitingOn::Asleep { node: node.clone(), wakes });
            }
            Some(Power::Silent) => shut.push(self.silent(name, machine)),
            None => shut.push(WaitingOn::Unknown {
                node: node.clone(),
                fact: "power".to_string(),
                why: machine.power.why.clone(),
            }),
        }
        match machine.identity.get() {
            Some(Identity::Foreign { who }) => {
                shut.push(WaitingOn::Foreign { node: node.clone(), who: who.clone() });
            }
            None if machine.power.get().is_some() => shut.push(WaitingOn::Unknown {
                node: node.clone(),
                fact: "identity".to_string(),
                why: machine.identity.why.clone(),
            }),
            _ => {}
        }
        if let Some(Trial::Of(os)) = machine.trial.get() {
            shut.push(WaitingOn::Trial { node, os: os.clone() });
        }
        shut
    }

    pub(super) fn silent(&self, name: &str, machine: &Machine) -> WaitingOn {
        let seen = machine.identity.get().is_some().then(|| machine.identity.age(self.now.epoch));
        WaitingOn::Silent { node: name.to_string(), for_seconds: seen }
    }

    /// Gates of every act that something may notice.
    pub(super) fn disrupt(&self, node: &Node, machine: &Machine, how: &super::How) -> Vec<WaitingOn> {
        let mut shut = self.reach(&node.name, machine);
        shut.extend(self.window(node, how.takes));
        let others = self.unready.iter().filter(|reason| !is_about(reason, &node.name));
        shut.extend(others.cloned());
        if how.restart {
            shut.extend(self.without_voice(&node.name, machine));
        }
        if how.drain {
            shut.extend(self.drains(&node.name));
        }
        shut
    }

    /// Gates of another release.
    pub(super) fn upgrade_gates(&self, node: &Node, machine: &Machine, to: &Os) -> Vec<WaitingOn> {
        let mut shut = Vec::new();
        let needs = if matches!(to, Os::Talos(_)) { SPACE_TALOS } else { SPACE_BRAMBLE };
        if let Some(free) = machine.free.get().filter(|free| **free < needs) {
            shut.push(WaitingOn::Space { node: node.name.clone(), free: *free, needs });
        }
        // What failed on one machine is not tried on the next without a word.
        let failed = self.failed.iter().filter(|(name, os)| {
            let permitted = self.asked.allow.contains(&Permission::Without(name.clone()));
            os == to && (*name == node.name || !permitted)
        });
        shut.extend(failed.map(|(name, os)| WaitingOn::Skipped { node: name.clone(), os: os.clone() }));
        shut
    }

    /// The window at the time when the step would begin.
    fn window(&self, node: &Node, takes: u64) -> Option<WaitingOn> {
        let window = node.window.as_ref()?;
        let run_now = self.asked.run_now.get(&node.name).is_some_and(|until| *until > self.now.epoch);
        if self.asked.now || run_now {
            return None;
        }
        let Some(local) = self.now.local else { return Some(WaitingOn::Clock) };
        let begins = local.after(self.elapsed / 60);
        let opens_after = |local: bramble_api::window::Local, later: u64| {
            self.now.epoch + (later + window.opens_in(local.after(later))) * 60
        };
        let words = window_words(window);
        let takes = takes.div_ceil(60);
        match window.left(begins) {
            Some(left) if left >= takes => None,
            Some(left) => {
                let opens = opens_after(local, self.elapsed / 60 + left);
                Some(WaitingOn::WindowTooShort { window: words, left, takes, opens })
            }
            None => Some(WaitingOn::Window { window: words, opens: opens_after(local, self.elapsed / 60) }),
        }
    }

    /// Whether the datastore keeps its quorum while this machine is away. The only member has none to keep.
    fn without_voice(&self, name: &str, machine: &Machine) -> Option<WaitingOn> {
        let (voters, healthy) = self.seen.voters();
        let away = usize::from(machine.member.is(&Member::Voter));
        let needed = quorum(voters);
        let permitted = self.asked.allow.contains(&Permission::Outage(name.to_string()));
        if away == 0 || voters <= 1 || healthy - away >= needed || permitted {
            return None;
        }
        Some(WaitingOn::Quorum { node: name.to_string(), voters, healthy, needed })
    }

    /// Whether pods may leave a machine: asked before anything is downloaded.
    pub(super) fn drains(&self, name: &str) -> Vec<WaitingOn> {
        if self.asked.allow.contains(&Permission::Evict(name.to_string())) {
            return Vec::new();
        }
        if self.seen.api.get().is_none() {
            return vec![WaitingOn::Api { why: self.seen.api.why.clone() }];
        }
        let Some(budgets) = self.seen.budgets.get() else {
            let (fact, why) = ("disruption budgets".to_string(), self.seen.budgets.why.clone());
            return vec![WaitingOn::Unknown { node: String::new(), fact, why }];
        };
        let here = budgets.iter().filter(|b| b.nodes.iter().any(|n| n == name));
        here.map(|b| WaitingOn::Budget {
            namespace: b.namespace.clone(),
            name: b.name.clone(),
            node: name.to_string(),
        })
        .collect()
    }

    /// Machines of the cluster that are not Ready: the next one is not begun before they are. One that sleeps is where
    /// it should be.
    pub(super) fn not_ready(&self) -> Vec<WaitingOn> {
        let mut list = Vec::new();
        for node in self.wanted.nodes.iter().filter(|n| n.role != Role::Management) {
            let Some(machine) = self.seen.machines.get(&node.name) else { continue };
            let permitted = self.asked.allow.contains(&Permission::Without(node.name.clone()));
            let part = machine.is_ours() && machine.joined.is(&true);
            if !part || permitted || machine.power.is(&Power::Asleep) {
                continue;
            }
            match (machine.power.get(), machine.ready.get()) {
                (Some(Power::Silent), _) | (_, Some(false)) => {
                    list.push(WaitingOn::NotReady { node: node.name.clone() });
                }
                (_, None) => list.push(WaitingOn::Unknown {
                    node: node.name.clone(),
                    fact: "readiness".to_string(),
                    why: machine.ready.why.clone(),
                }),
                _ => {}
            }
        }
        list
    }

    /// Whether pods are led away before a machine restarts: not from the only node, nor from the only control plane, whose
    /// API is what would lead them.
    pub(super) fn should_drain(&self, node: &Node) -> bool {
        let nodes = self.wanted.nodes.iter().filter(|n| n.role != Role::Management).count();
        let servers = self.wanted.nodes.iter().filter(|n| n.is_control_plane()).count();
        node.role != Role::Management && nodes > 1 && !(node.is_control_plane() && servers == 1)
    }
}

/// Whether a reason not to go on is the machine itself: a step may be what mends it.
fn is_about(reason: &WaitingOn, name: &str) -> bool {
    matches!(reason, WaitingOn::NotReady { node } | WaitingOn::Unknown { node, .. } if node == name)
}
