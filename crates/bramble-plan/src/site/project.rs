//! What a step makes of a site: the planner and its checks look at the site as it will be, and the simulator compares the
//! site as it became with this.

use super::wanted::Wanted;
use bramble_api::names::Role;
use bramble_api::site::{
    Act, Cordon, Identity, Inventory, Machine, Member, Os, Power, SiteStep, Stage, Version,
};

/// Seconds for which a certificate is issued that the tool renews: a year.
pub const CERTIFICATE_LIFE: u64 = 365 * 86_400;

/// Has a step happen.
pub fn project(seen: &mut Inventory, wanted: &Wanted, step: &SiteStep, now: u64) {
    let founds = matches!(step.act, Act::Found);
    let founded = founds || seen.voters().0 > 0;
    let Some(machine) = seen.machines.get_mut(&step.node) else { return };
    match &step.act {
        Act::Adopt => {
            if let Some(Identity::Ours { incarnation, .. }) = machine.identity.get().cloned() {
                machine.identity.becomes(Identity::Ours { incarnation, adopted: true });
            }
        }
        Act::Add { os, .. } => added(machine, wanted, &step.node, os, founded),
        Act::Found => joins(machine, wanted, &step.node),
        Act::Configure { live, fixed } => {
            machine.live.becomes(live.clone());
            machine.fixed.becomes(fixed.clone());
        }
        Act::UpgradeOs { to, kubernetes, .. } => {
            machine.os.becomes(to.clone());
            if let Some(kubernetes) = kubernetes {
                machine.kubernetes.becomes(kubernetes.clone());
            }
        }
        Act::UpgradeKubernetes { to, .. } => machine.kubernetes.becomes(to.clone()),
        Act::Relabel { labels, taints } => {
            machine.labels.becomes(labels.clone());
            machine.taints.becomes(taints.clone());
        }
        Act::RenewCertificates { names } => renew(machine, |c| names.contains(&c.name), None, now),
        Act::RotateAuthority { name, to, stage } => rotate(machine, name, *to, *stage, now),
        Act::Replace { .. } | Act::Remove { .. } => {
            machine.joined.becomes(false);
            machine.member.becomes(Member::None);
            machine.cordon.becomes(Cordon::None);
        }
        Act::Reset => machine.identity.becomes(Identity::Absent),
        Act::Uncordon => machine.cordon.becomes(Cordon::None),
    }
    // A step that keeps pods off lets them on again when the machine is Ready.
    if step.drain && matches!(machine.cordon.get(), Some(Cordon::Ours { .. })) {
        machine.cordon.becomes(Cordon::None);
    }
    if let Some(api) = api_server(seen, wanted) {
        seen.api.becomes(api);
    }
}

/// A machine that was given its configuration is what the file says.
fn added(machine: &mut Machine, wanted: &Wanted, name: &str, os: &Os, founded: bool) {
    let Some(node) = wanted.node(name) else { return };
    machine.power.becomes(Power::On);
    machine.identity.becomes(Identity::Ours { incarnation: node.incarnation, adopted: true });
    machine.os.becomes(os.clone());
    machine.live.becomes(node.live.clone());
    machine.fixed.becomes(node.fixed.clone());
    machine.trusts.becomes(wanted.authorities.iter().map(|(name, to)| (name.clone(), vec![*to])).collect());
    machine.certificates.becomes(Vec::new());
    if node.role == Role::Management {
        return;
    }
    machine.kubernetes.becomes(wanted.kubernetes.clone());
    machine.cordon.becomes(Cordon::None);
    if founded {
        joins(machine, wanted, name);
    } else {
        machine.joined.becomes(false);
        machine.ready.becomes(false);
        machine.member.becomes(Member::None);
    }
}

fn joins(machine: &mut Machine, wanted: &Wanted, name: &str) {
    let Some(node) = wanted.node(name) else { return };
    machine.joined.becomes(true);
    machine.ready.becomes(true);
    machine.labels.becomes(node.labels.clone());
    machine.taints.becomes(node.taints.clone());
    machine.member.becomes(if node.is_control_plane() { Member::Voter } else { Member::None });
}

fn renew(
    machine: &mut Machine,
    which: impl Fn(&bramble_api::site::Certificate) -> bool,
    generation: Option<u32>,
    now: u64,
) {
    let Some(mut all) = machine.certificates.get().cloned() else { return };
    for certificate in all.iter_mut().filter(|c| which(c)) {
        certificate.not_before = now;
        certificate.not_after = now + CERTIFICATE_LIFE;
        certificate.generation = generation.unwrap_or(certificate.generation);
    }
    machine.certificates.becomes(all);
}

fn rotate(machine: &mut Machine, name: &str, to: u32, stage: Stage, now: u64) {
    let mut trusts = machine.trusts.get().cloned().unwrap_or_default();
    match stage {
        Stage::Trust => {
            let all = trusts.entry(name.to_string()).or_default();
            if !all.contains(&to) {
                all.push(to);
            }
        }
        Stage::Issue => renew(machine, |c| c.authority == name, Some(to), now),
        Stage::Distrust => {
            trusts.insert(name.to_string(), vec![to]);
        }
    }
    machine.trusts.becomes(trusts);
}

/// The oldest API server: what a kubelet must not be newer than.
pub(super) fn api_server(seen: &Inventory, wanted: &Wanted) -> Option<Version> {
    let servers = wanted.nodes.iter().filter(|n| n.is_control_plane());
    let machines = servers.filter_map(|n| seen.machines.get(&n.name)).filter(|m| m.joined.is(&true));
    machines.filter_map(|m| m.kubernetes.get()).min().cloned()
}
