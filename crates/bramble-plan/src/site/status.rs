//! The table that a person reads: facts and plan, put together.

use super::wanted::Wanted;
use bramble_api::names::Role;
use bramble_api::site::{
    Change, Cordon, Identity, Inventory, Machine, NodeState, Power, SitePlan, Status, StatusRow, Trial,
    WaitingOn,
};

/// Every machine in the file's order, then those that leave. `plan` is of the same inventory.
pub fn status(wanted: &Wanted, inventory: &Inventory, plan: &SitePlan, now: u64) -> Status {
    let never = Machine::default();
    let mut rows: Vec<StatusRow> = Vec::new();
    for node in &wanted.nodes {
        let machine = inventory.machines.get(&node.name).unwrap_or(&never);
        rows.push(row(&node.name, Some(node.role), machine, plan, now));
    }
    let known = |name: &str| wanted.node(name).is_some();
    for (name, machine) in inventory.machines.iter().filter(|(name, _)| !known(name)) {
        rows.push(row(name, None, machine, plan, now));
    }
    let api = match inventory.api.get() {
        Some(version) => format!("kubernetes {version}"),
        None => format!("no answer: {}", inventory.api.why),
    };
    Status { format: 1, cluster: wanted.cluster.clone(), now, api, rows }
}

fn row(name: &str, role: Option<Role>, machine: &Machine, plan: &SitePlan, now: u64) -> StatusRow {
    let mut doing: Vec<String> = Vec::new();
    if let Some(Trial::Of(os)) = machine.trial.get() {
        doing.push(format!("tries {os}"));
    }
    doing.extend(plan.steps.iter().filter(|s| s.node == name).map(|s| s.act.to_string()));
    let waiting: Vec<(Change, Vec<WaitingOn>)> =
        plan.held.iter().filter(|h| h.node == name).map(|h| (h.change.clone(), h.waiting.clone())).collect();
    StatusRow {
        node: name.to_string(),
        role,
        state: state(role, machine),
        version: machine.os.get().map(ToString::to_string).unwrap_or_default(),
        kubernetes: machine.kubernetes.get().map(ToString::to_string).unwrap_or_default(),
        age: seen(machine, now),
        doing,
        waiting,
    }
}

/// Seconds since it was seen. That it is silent or asleep was seen of others; what it said itself is older.
fn seen(machine: &Machine, now: u64) -> Option<u64> {
    match machine.power.get()? {
        Power::On => Some(machine.power.age(now)),
        Power::Asleep | Power::Silent => machine.identity.get().map(|_| machine.identity.age(now)),
    }
}

/// What matters most comes first.
fn state(role: Option<Role>, machine: &Machine) -> NodeState {
    match (machine.identity.get(), machine.power.get()) {
        (Some(Identity::Foreign { .. }), _) => return NodeState::Foreign,
        (_, Some(Power::Asleep)) => return NodeState::Asleep,
        (None | Some(Identity::Absent), _) => return NodeState::Missing,
        (_, Some(Power::Silent)) => return NodeState::Silent,
        (Some(Identity::Waiting), _) => return NodeState::Joining,
        _ => {}
    }
    let Some(role) = role else { return NodeState::Leaving };
    if role == Role::Management {
        return if machine.is_on() { NodeState::Ready } else { NodeState::Unknown };
    }
    match (machine.joined.get(), machine.ready.get(), machine.cordon.get()) {
        (Some(false), _, _) => NodeState::Joining,
        (None, _, _) | (_, None, _) => NodeState::Unknown,
        (_, Some(false), _) => NodeState::NotReady,
        (_, _, Some(Cordon::Ours { .. } | Cordon::Other)) => NodeState::Cordoned,
        _ => NodeState::Ready,
    }
}
