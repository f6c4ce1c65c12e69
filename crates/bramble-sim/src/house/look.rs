//! What can be seen of a house: the machines that answer, the API while it answers, and what was seen before.

use super::{House, Real};
use bramble_api::names::Role;
use bramble_api::site::{Fact, Identity, Inventory, Machine, Member, Power, Source, Trial};

impl House {
    /// Looks at everything. A machine that is silent keeps what was seen of it, as old as that is.
    pub fn look(&mut self) -> Inventory {
        let api = self.api_answers();
        let mut seen = Inventory { format: 1, observed_at: self.now, ..Inventory::default() };
        for name in self.machines.keys() {
            let before = self.seen.machines.get(name).cloned().unwrap_or_default();
            seen.machines.insert(name.clone(), self.machine(name, before, api));
        }
        let servers = self.wanted.nodes.iter().filter(|n| n.role == Role::ControlPlane);
        let servers = servers.filter_map(|n| self.machines.get(&n.name)).filter(|m| m.joined && m.on);
        let version = servers.filter_map(|m| m.kubernetes.clone()).min();
        seen.api = match version.filter(|_| api) {
            Some(version) => self.fact(version, Source::Kubernetes),
            None => Fact::unknown("no answer", Source::Kubernetes, self.now),
        };
        seen.budgets = self.of_api(api, self.budgets.clone());
        seen.holder = self.of_api(api, self.lease.clone());
        seen.releases = self.fact(self.releases.clone(), Source::UpdateSource);
        self.seen = seen.clone();
        seen
    }

    fn fact<T>(&self, value: T, source: Source) -> Fact<T> {
        Fact::known(value, source, self.now)
    }

    fn of_api<T>(&self, api: bool, value: T) -> Fact<T> {
        match api {
            true => self.fact(value, Source::Kubernetes),
            false => Fact::unknown("the API does not answer", Source::Kubernetes, self.now),
        }
    }

    fn machine(&self, name: &str, before: Machine, api: bool) -> Machine {
        let real = &self.machines[name];
        let mut seen = before;
        seen.power = self.fact(
            match real {
                Real { asleep: true, .. } => Power::Asleep,
                Real { on: true, .. } => Power::On,
                _ => Power::Silent,
            },
            Source::Lan,
        );
        if self.is_up(name) {
            self.own_words(real, &mut seen);
        } else if real.identity == Identity::Absent {
            seen.identity = self.fact(Identity::Absent, Source::Lan);
        }
        if api || real.identity == Identity::Absent {
            self.words_of_api(name, real, &mut seen);
        } else if !real.joined {
            seen.joined = self.of_api(false, false);
        }
        seen.member = match (real.voter, self.is_up(name) && self.now >= real.ready_at) {
            (false, _) => self.fact(Member::None, Source::Datastore),
            (true, true) => self.fact(Member::Voter, Source::Datastore),
            (true, false) => self.fact(Member::Lost, Source::Datastore),
        };
        seen
    }

    /// What the machine says of itself.
    fn own_words(&self, real: &Real, seen: &mut Machine) {
        let source = Source::NodeApi;
        seen.identity = self.fact(real.identity.clone(), source);
        seen.os = match real.os.clone() {
            Some(os) => self.fact(os, source),
            None => Fact::unknown("nothing is installed", source, self.now),
        };
        seen.kubernetes = match real.kubernetes.clone() {
            Some(kubernetes) => self.fact(kubernetes, source),
            None => Fact::unknown("it has none", source, self.now),
        };
        seen.live = self.fact(real.live.clone(), source);
        seen.fixed = self.fact(real.fixed.clone(), source);
        seen.certificates = self.fact(real.certificates.clone(), source);
        seen.trusts = self.fact(real.trusts.clone(), source);
        seen.disk = self.fact(real.disk, source);
        seen.free = self.fact(real.free, source);
        seen.skipped = self.fact(real.skipped.clone(), source);
        seen.trial = self.fact(Trial::None, source);
    }

    /// What the Kubernetes API says of it.
    fn words_of_api(&self, name: &str, real: &Real, seen: &mut Machine) {
        let source = Source::Kubernetes;
        seen.joined = self.fact(real.joined, source);
        seen.ready = self.fact(self.is_ready(name), source);
        seen.cordon = self.fact(real.cordon.clone(), source);
        seen.labels = self.fact(real.labels.clone(), source);
        seen.taints = self.fact(real.taints.clone(), source);
        seen.ingress = self.fact(real.ingress, source);
        seen.local_volumes = self.fact(real.volumes, source);
    }
}
