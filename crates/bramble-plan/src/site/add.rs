//! Machines that are to be part of the cluster: adopt, found, add. A card is written by a person, so for Bramble OS the
//! plan says whose; a Talos machine that waits for its configuration is given it.

use super::gates::takes;
use super::wanted::Node;
use super::{Builder, How};
use bramble_api::names::Role;
use bramble_api::site::inventory::quorum;
use bramble_api::site::{Act, DiskContents, Identity, Machine, Member, Os, Permission, Power, WaitingOn};

impl Builder<'_> {
    pub(super) fn do_adopt(&mut self) -> usize {
        let open = self.open("adopt");
        for (name, _) in &open {
            let shut = self.reach(name, &self.machine(name));
            if shut.is_empty() {
                let how = How { takes: takes::TELL, ..How::default() };
                self.step(
                    name,
                    "",
                    Act::Adopt,
                    "it runs as a part of this cluster, installed otherwise",
                    how,
                );
            } else {
                self.hold(name, "adopt", shut);
            }
        }
        open.len()
    }

    pub(super) fn do_add(&mut self) -> usize {
        let open = self.open("join");
        let wanted = self.wanted;
        // Who founds comes first: nobody joins a cluster that is not there.
        let founder = wanted.nodes.iter().find(|n| n.is_control_plane()).map(|n| n.name.clone());
        let mut names: Vec<&str> = open.iter().map(|(name, _)| name.as_str()).collect();
        names.sort_by_key(|name| founder.as_deref() != Some(*name));
        for name in names {
            let Some(node) = wanted.node(name) else { continue };
            let shut = self.join(node, founder.as_deref());
            if !shut.is_empty() {
                self.hold(name, "join", shut);
            }
        }
        open.len()
    }

    /// Brings one machine in as far as it goes; what is left has the reasons.
    fn join(&mut self, node: &Node, founder: Option<&str>) -> Vec<WaitingOn> {
        let machine = self.machine(&node.name);
        match machine.identity.get() {
            None | Some(Identity::Absent) => self.absent(node, &machine),
            Some(Identity::Foreign { .. }) => self.reach(&node.name, &machine),
            Some(Identity::Waiting) => self.add(node, &machine, founder),
            Some(Identity::Ours { .. }) => self.comes(node, &machine, founder),
        }
    }

    fn absent(&self, node: &Node, machine: &Machine) -> Vec<WaitingOn> {
        if machine.joined.is(&true) && !machine.is_on() {
            // It was a node of the cluster: it has a card, and is not there to be asked.
            return self.reach(&node.name, machine);
        }
        let mut shut = self.always(&node.name);
        match machine.power.get() {
            Some(Power::On) => shut.push(WaitingOn::Unknown {
                node: node.name.clone(),
                fact: "identity".to_string(),
                why: machine.identity.why.clone(),
            }),
            _ => shut.push(WaitingOn::Flash { node: node.name.clone() }),
        }
        shut
    }

    /// A machine that waits for its configuration.
    fn add(&mut self, node: &Node, machine: &Machine, founder: Option<&str>) -> Vec<WaitingOn> {
        let mut shut = self.reach(&node.name, machine);
        let Some(os) = node.os.clone() else {
            let (fact, why) = ("the release to install".to_string(), "the file names none".to_string());
            shut.push(WaitingOn::Unknown { node: node.name.clone(), fact, why });
            return shut;
        };
        let kubelet = node.role != Role::Management;
        let founds = founder == Some(node.name.as_str());
        if kubelet && !founds && !self.founded() {
            shut.push(WaitingOn::Founding { node: founder.unwrap_or("a control plane").to_string() });
        }
        if kubelet && self.founded() && self.seen.api.get().is_none() {
            shut.push(WaitingOn::Api { why: self.seen.api.why.clone() });
        }
        if node.is_control_plane() && self.founded() {
            shut.extend(self.another_voice(&node.name));
        }
        let erases = machine.disk.is(&DiskContents::Foreign);
        let wipe = Permission::Wipe(node.name.clone());
        if erases && !self.asked.allow.contains(&wipe) {
            shut.push(WaitingOn::Permission { allow: wipe });
        } else if machine.disk.get().is_none() {
            let (fact, why) = ("its disk".to_string(), machine.disk.why.clone());
            shut.push(WaitingOn::Unknown { node: node.name.clone(), fact, why });
        }
        if shut.is_empty() && founds && !self.founded() {
            shut.extend(self.may_found(node));
        }
        if !shut.is_empty() {
            return shut;
        }
        // Members join one after another: a datastore learns from one newcomer at a time.
        let how = How { takes: takes::INSTALL, chained: node.is_control_plane(), ..How::default() };
        let act = Act::Add { os: os.clone(), erases };
        self.step(&node.name, "", act, added_because(&os, erases), how);
        if founds && !self.founded() {
            self.found(node);
        }
        Vec::new()
    }

    /// A machine with our keys that is no node yet.
    fn comes(&mut self, node: &Node, machine: &Machine, founder: Option<&str>) -> Vec<WaitingOn> {
        let mut shut = self.reach(&node.name, machine);
        if self.founded() && machine.joined.get().is_none() {
            shut.push(WaitingOn::Api { why: machine.joined.why.clone() });
            return shut;
        }
        let founds = founder == Some(node.name.as_str());
        match (self.founded(), founds) {
            (true, _) => shut.push(WaitingOn::Starting { node: node.name.clone() }),
            (false, false) => {
                shut.push(WaitingOn::Founding { node: founder.unwrap_or("a control plane").to_string() });
            }
            // The card of Bramble OS founds by itself.
            (false, true) if node.card => shut.push(WaitingOn::Starting { node: node.name.clone() }),
            (false, true) => {
                shut.extend(self.may_found(node));
                if shut.is_empty() {
                    self.found(node);
                }
            }
        }
        shut
    }

    fn found(&mut self, node: &Node) {
        let how = How { takes: takes::INSTALL, chained: true, ..How::default() };
        self.step(&node.name, "", Act::Found, "the cluster has no member yet", how);
    }

    /// A second founding would make another cluster of the same name beside the first. So no control plane that has our
    /// keys may be one of which nobody knows whether it is a member.
    fn may_found(&self, node: &Node) -> Option<WaitingOn> {
        let servers = self.wanted.nodes.iter().filter(|n| n.is_control_plane() && n.name != node.name);
        let mut ours = servers.filter_map(|n| self.seen.machines.get(&n.name).map(|m| (n, m)));
        if let Some((other, machine)) = ours.find(|(_, m)| m.is_ours() && m.member.get().is_none()) {
            let (fact, why) = ("membership".to_string(), machine.member.why.clone());
            return Some(WaitingOn::Unknown { node: other.name.clone(), fact, why });
        }
        let allow = Permission::Found(node.name.clone());
        (self.wanted.founded && !self.asked.allow.contains(&allow)).then_some(WaitingOn::Permission { allow })
    }

    /// Whether there is a cluster to join: a member of its datastore was seen.
    fn founded(&self) -> bool {
        self.seen.voters().0 > 0
    }

    /// Whether the datastore bears one more voice.
    fn another_voice(&self, name: &str) -> Option<WaitingOn> {
        let (voters, healthy) = self.seen.voters();
        let needed = quorum(voters + 1);
        let lost = self.seen.machines.values().any(|m| m.member.is(&Member::Lost));
        (lost && healthy < needed).then(|| WaitingOn::Quorum {
            node: name.to_string(),
            voters,
            healthy,
            needed,
        })
    }
}

fn added_because(os: &Os, erases: bool) -> String {
    match erases {
        true => format!("it waits for its configuration; its disk is erased and gets {os}"),
        false => "it waits for its configuration".to_string(),
    }
}
