//! What acts do to a house, with the faults of its machines; and what must never happen, looked at after each.

use super::{Fault, House, Real};
use bramble_api::names::Role;
use bramble_api::site::inventory::quorum;
use bramble_api::site::{Act, Certificate, Cordon, DiskContents, Identity, Permission, SiteStep, Stage};
use bramble_plan::site::CERTIFICATE_LIFE;

/// Releases that failed so often on a machine are not tried again.
const TRIES: u32 = 2;

impl House {
    /// Does what a step says, now. What it takes is for the clock: the machine is not Ready before.
    pub(crate) fn act(&mut self, step: &SiteStep) {
        self.watch(step);
        self.done.push(step.id.0.clone());
        let (now, founded) = (self.now, self.voices().0 > 0);
        let wanted = self.wanted.node(&step.node).cloned();
        let like = wanted.as_ref().map(|node| self.as_wanted(node));
        let Some(machine) = self.machines.get_mut(&step.node) else { return };
        let slow = if machine.faults.contains(&Fault::Slow) { 3 } else { 1 };
        let until = now + step.takes * slow;
        machine.result_at = Some(now);
        match &step.act {
            Act::Adopt => {
                if let Identity::Ours { incarnation, .. } = machine.identity {
                    machine.identity = Identity::Ours { incarnation, adopted: true };
                }
            }
            Act::Add { os, .. } => {
                let Some(like) = like else { return };
                *machine = Real { os: Some(os.clone()), faults: machine.faults.clone(), ..like };
                (machine.joined, machine.voter) = (false, false);
                machine.certificates.clear();
                if founded {
                    let voter = wanted.is_some_and(|n| n.is_control_plane());
                    (machine.joined, machine.voter) = (true, voter);
                }
                machine.ready_at = until;
                machine.result_at = Some(now);
            }
            Act::Found => {
                (machine.joined, machine.voter, machine.ready_at) = (true, true, until);
                self.wanted.founded = true;
            }
            Act::Configure { live, fixed } => {
                (machine.live, machine.fixed) = (live.clone(), fixed.clone());
                if step.restart {
                    restart(machine, until);
                }
            }
            Act::UpgradeOs { to, kubernetes, .. } => {
                if !machine.faults.contains(&Fault::GoesBack) {
                    machine.os = Some(to.clone());
                    if kubernetes.is_some() {
                        machine.kubernetes = kubernetes.clone();
                    }
                } else {
                    let before = machine.failed.take().filter(|(os, _)| os == to).map_or(0, |(_, n)| n);
                    machine.failed = Some((to.clone(), before + 1));
                    if before + 1 >= TRIES {
                        machine.skipped.push(to.clone());
                    }
                }
                restart(machine, until);
            }
            Act::UpgradeKubernetes { to, .. } => {
                machine.kubernetes = Some(to.clone());
                machine.ready_at = until;
            }
            Act::Relabel { labels, taints } => {
                (machine.labels, machine.taints) = (labels.clone(), taints.clone());
            }
            Act::RenewCertificates { names } => {
                let all = machine.certificates.iter_mut().filter(|c| names.contains(&c.name));
                all.for_each(|c| renew(c, now, None));
            }
            Act::RotateAuthority { name, to, stage } => match stage {
                Stage::Trust => machine.trusts.entry(name.clone()).or_default().push(*to),
                Stage::Issue => {
                    let all = machine.certificates.iter_mut().filter(|c| c.authority == *name);
                    all.for_each(|c| renew(c, now, Some(*to)));
                }
                Stage::Distrust => {
                    machine.trusts.insert(name.clone(), vec![*to]);
                }
            },
            Act::Replace { .. } | Act::Remove { .. } => {
                (machine.joined, machine.voter) = (false, false);
                (machine.cordon, machine.pods) = (Cordon::None, 0);
                // The lock has the number of the next card from here on.
                if let Act::Replace { to, .. } = step.act
                    && let Some(node) = self.wanted.nodes.iter_mut().find(|n| n.name == step.node)
                {
                    node.incarnation = to;
                }
            }
            Act::Reset => {
                machine.identity = Identity::Absent;
                machine.disk = DiskContents::Empty;
                machine.on = false;
            }
            Act::Uncordon => (machine.cordon, machine.pods) = (Cordon::None, 3),
        }
        self.watch_quorum(step);
    }

    /// A person's card: another one than before, written and put in.
    pub fn card(&mut self, name: &str) {
        let Some(node) = self.wanted.nodes.iter_mut().find(|n| n.name == name) else { return };
        let before = self.machines.get(name);
        let last = node.incarnation;
        if before
            .is_some_and(|m| matches!(m.identity, Identity::Ours { incarnation, .. } if incarnation >= last))
        {
            node.incarnation += 1;
        }
        let node = node.clone();
        let founds = self.voices().0 == 0 && node.is_control_plane();
        let mut machine = self.as_wanted(&node);
        machine.ready_at = self.now + 300;
        machine.voter = node.is_control_plane();
        if founds {
            self.wanted.founded = true;
        }
        machine.joined = node.role != Role::Management;
        self.machines.insert(name.to_string(), machine);
    }

    fn watch(&mut self, step: &SiteStep) {
        let Some(machine) = self.machines.get(&step.node) else {
            self.broken.push(format!("{}: there is no such machine", step.id));
            return;
        };
        if matches!(machine.identity, Identity::Foreign { .. }) {
            self.broken.push(format!("{}: someone else's machine", step.id));
        }
        let erases = match &step.act {
            Act::Add { .. } => machine.disk == DiskContents::Foreign,
            Act::Reset => true,
            _ => false,
        };
        if erases && !self.permits(&Permission::Wipe(step.node.clone())) {
            self.broken.push(format!("{}: erased without permission", step.id));
        }
        if matches!(step.act, Act::Remove { .. }) && !self.permits(&Permission::Remove(step.node.clone())) {
            self.broken.push(format!("{}: removed without permission", step.id));
        }
        if step.drain
            && machine.pods > 0
            && machine.on
            && !self.permits(&Permission::Evict(step.node.clone()))
        {
            self.broken.push(format!("{}: pods were still on it", step.id));
        }
        let away: Vec<&String> = self
            .machines
            .iter()
            .filter(|(name, m)| **name != step.node && m.joined && m.on && !m.asleep && !self.is_ready(name))
            .map(|(name, _)| name)
            // One that leaves is nobody's to wait for.
            .filter(|name| self.wanted.node(name).is_some())
            .filter(|name| !self.permits(&Permission::Without((*name).clone())))
            .collect();
        // What leaves for good, or gets another card, does so at a person's word.
        let asked = matches!(step.act, Act::Replace { .. } | Act::Remove { .. });
        if step.disrupts() && !asked && !away.is_empty() {
            self.broken.push(format!("{}: begun while {away:?} was not Ready", step.id));
        }
    }

    fn watch_quorum(&mut self, step: &SiteStep) {
        let (voters, up) = self.voices();
        let permitted = self.permits(&Permission::Outage(step.node.clone()));
        let single = voters <= 1 || matches!(step.act, Act::Add { .. } | Act::Found);
        if step.restart && !single && up < quorum(voters) && !permitted {
            self.broken.push(format!("{}: {up} of {voters} voices are left", step.id));
        }
        if self.wanted.founded && voters == 0 && !matches!(step.act, Act::Add { .. }) {
            self.broken.push(format!("{}: the datastore has no member", step.id));
        }
    }
}

fn restart(machine: &mut Real, until: u64) {
    if machine.faults.contains(&Fault::Dies) {
        machine.on = false;
    }
    machine.ready_at = until;
}

fn renew(certificate: &mut Certificate, now: u64, generation: Option<u32>) {
    certificate.not_before = now;
    certificate.not_after = now + CERTIFICATE_LIFE;
    certificate.generation = generation.unwrap_or(certificate.generation);
}
