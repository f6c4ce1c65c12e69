//! What differs between a site as it is wanted and as it was seen. The planner's end, `status` and the checks all use this
//! one definition.

use super::Asked;
use super::wanted::{Node, Wanted};
use bramble_api::names::Role;
use bramble_api::site::{Card, Certificate, Change, Cordon, Identity, Inventory, Machine, Os};

/// Every difference: machines of the file in its order, then those that are not in it by name.
pub fn differences(wanted: &Wanted, seen: &Inventory, now: u64, asked: &Asked) -> Vec<(String, Change)> {
    let never = Machine::default();
    let mut all = Vec::new();
    for node in &wanted.nodes {
        let machine = seen.machines.get(&node.name).unwrap_or(&never);
        let changes = of_node(wanted, node, machine, now, asked.replace.get(&node.name).copied());
        all.extend(changes.into_iter().map(|change| (node.name.clone(), change)));
    }
    for (name, machine) in seen.machines.iter().filter(|(name, _)| wanted.node(name).is_none()) {
        if machine.joined.is(&true) || machine.votes() {
            all.push((name.clone(), Change::Leave));
        } else if machine.is_ours() && machine.is_on() {
            all.push((name.clone(), Change::Erase));
        }
    }
    all
}

fn of_node(wanted: &Wanted, node: &Node, machine: &Machine, now: u64, replace: Option<u32>) -> Vec<Change> {
    let Some(Identity::Ours { incarnation, adopted }) = machine.identity.get() else {
        return vec![Change::Join];
    };
    let mut changes = Vec::new();
    if !adopted {
        changes.push(Change::Adopt);
    }
    let card = replace.map_or(node.incarnation, |from| node.incarnation.max(from + 1));
    if *incarnation != card {
        // Whatever else differs goes with the card.
        changes.push(Change::Card(Card { from: *incarnation, to: card }));
        return changes;
    }
    let kubelet = node.role != Role::Management;
    if kubelet && !machine.joined.is(&true) {
        changes.push(Change::Join);
        return changes;
    }
    changes.extend(system(wanted, node, machine));
    let restart = !machine.fixed.is(&node.fixed);
    if restart || !machine.live.is(&node.live) {
        changes.push(Change::Configuration { restart });
    }
    if kubelet && (!machine.labels.is(&node.labels) || !machine.taints.is(&node.taints)) {
        changes.push(Change::Labels);
    }
    let old: Vec<String> = due(machine, now).map(|c| c.name.clone()).collect();
    if !old.is_empty() {
        changes.push(Change::Certificates { names: old });
    }
    for (name, generation) in &wanted.authorities {
        if !rotated(machine, name, *generation) {
            changes.push(Change::Authority { name: name.clone(), to: *generation });
        }
    }
    if matches!(machine.cordon.get(), Some(Cordon::Ours { .. })) {
        changes.push(Change::Cordon);
    }
    changes
}

/// The system and Kubernetes. Bramble OS brings its Kubernetes, so that only a release with the wrong one is a difference
/// of its own.
fn system(wanted: &Wanted, node: &Node, machine: &Machine) -> Vec<Change> {
    let mut changes = Vec::new();
    let os = node.os.as_ref().filter(|os| !machine.os.is(os));
    if let Some(to) = os {
        changes.push(Change::Os { from: machine.os.get().cloned(), to: to.clone() });
    }
    let own = matches!(node.os, Some(Os::Talos(_)));
    if node.role != Role::Management && (own || os.is_none()) && !machine.kubernetes.is(&wanted.kubernetes) {
        changes.push(Change::Kubernetes {
            from: machine.kubernetes.get().cloned(),
            to: wanted.kubernetes.clone(),
        });
    }
    changes
}

/// Certificates beyond two thirds of their lives: a third is left to be away from home in.
pub(super) fn due(machine: &Machine, now: u64) -> impl Iterator<Item = &Certificate> {
    let all = machine.certificates.get().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(move |c| {
        let life = c.not_after.saturating_sub(c.not_before);
        now >= c.not_before.saturating_add(life / 3 * 2)
    })
}

/// Whether a machine trusts this generation of an authority alone, and has no certificate of another one. An authority
/// that never was rotated needs no look.
fn rotated(machine: &Machine, authority: &str, generation: u32) -> bool {
    let trusts = match machine.trusts.get() {
        Some(trusts) => trusts.get(authority).is_none_or(|all| *all == [generation]),
        None => generation == 1,
    };
    trusts && issued(machine, authority, generation)
}

/// Whether all of a machine's certificates of an authority are of this generation.
pub(super) fn issued(machine: &Machine, authority: &str, generation: u32) -> bool {
    let all = machine.certificates.get().map(Vec::as_slice).unwrap_or_default();
    all.iter().filter(|c| c.authority == authority).all(|c| c.generation == generation)
}
