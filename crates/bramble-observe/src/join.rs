//! One inventory from what everybody said.

use crate::cluster::{Cluster, Seen, label_keys, read_mark};
use crate::{Answer, Target, known};
use bramble_api::names::{Role, annotation};
use bramble_api::site::{
    Budget, Cordon, Fact, Holder, Identity, Machine, Member, Os, Power, Source, Trial, Version,
};
use bramble_rpc::node::StatusReply;
use std::collections::{BTreeMap, BTreeSet};

/// Facts of machines and of the cluster.
pub type Joined = (BTreeMap<String, Machine>, Fact<Version>, Fact<Vec<Budget>>, Fact<Holder>);

/// Puts answers together. Pure.
pub fn join(
    targets: &[Target],
    answers: &BTreeMap<String, Answer>,
    cluster: &Result<Cluster, String>,
    now: u64,
) -> Joined {
    let mut machines = BTreeMap::new();
    for target in targets {
        let nobody = Err("was not asked".to_string());
        let answer = answers.get(&target.name).unwrap_or(&nobody);
        machines.insert(target.name.clone(), machine(target, answer, cluster, now));
    }
    let kubernetes = |why: &String| (why.clone(), Source::Kubernetes, now);
    match cluster {
        Ok(cluster) => {
            for (name, seen) in &cluster.nodes {
                machines.entry(name.clone()).or_insert_with(|| stranger(seen, now));
            }
            let api = match &cluster.version {
                Some(version) => known(version.clone(), Source::Kubernetes, now),
                None => Fact::unknown("it says no version", Source::Kubernetes, now),
            };
            let budgets = known(cluster.budgets.clone(), Source::Kubernetes, now);
            let holder = cluster.holder.clone().unwrap_or(Holder::Nobody);
            (machines, api, budgets, known(holder, Source::Kubernetes, now))
        }
        Err(why) => {
            let (why, source, now) = kubernetes(why);
            let unknown = Fact::unknown(why.clone(), source, now);
            (machines, unknown, Fact::unknown(why.clone(), source, now), Fact::unknown(why, source, now))
        }
    }
}

fn machine(target: &Target, answer: &Answer, cluster: &Result<Cluster, String>, now: u64) -> Machine {
    let node = cluster.as_ref().ok().and_then(|c| c.nodes.get(&target.name));
    let mut machine = Machine::default();
    match answer {
        Ok(reply) => says(&mut machine, reply, now),
        Err(why) => silent(&mut machine, target, node, why, now),
    }
    if target.role == Role::Management {
        return machine;
    }
    let keys: BTreeSet<&str> = target
        .label_keys
        .iter()
        .map(String::as_str)
        .chain(answer.iter().flat_map(|reply| reply.label_keys.iter().map(String::as_str)))
        .collect();
    match (cluster, node) {
        (Ok(_), Some(node)) => registered(&mut machine, target.role, node, keys, now),
        (Ok(_), None) => {
            machine.joined = known(false, Source::Kubernetes, now);
            machine.ready = known(false, Source::Kubernetes, now);
            machine.member = known(Member::None, Source::Datastore, now);
        }
        (Err(why), _) => {
            let why = || why.clone();
            machine.joined = Fact::unknown(why(), Source::Kubernetes, now);
            machine.ready = Fact::unknown(why(), Source::Kubernetes, now);
            machine.kubernetes = Fact::unknown(why(), Source::Kubernetes, now);
            machine.labels = Fact::unknown(why(), Source::Kubernetes, now);
            machine.taints = Fact::unknown(why(), Source::Kubernetes, now);
            machine.cordon = Fact::unknown(why(), Source::Kubernetes, now);
            machine.member = Fact::unknown(why(), Source::Datastore, now);
        }
    }
    machine
}

/// What a machine says of itself.
fn says(machine: &mut Machine, reply: &StatusReply, now: u64) {
    let api = Source::NodeApi;
    machine.power = known(Power::On, api, now);
    machine.identity = known(Identity::Ours { incarnation: reply.card, adopted: true }, api, now);
    machine.os = known(Os::Bramble(reply.release), api, now);
    machine.live = known(String::new(), api, now);
    machine.fixed = known(reply.settings.clone(), api, now);
    let trial = if reply.trial { Trial::Of(Os::Bramble(reply.release)) } else { Trial::None };
    machine.trial = known(trial, api, now);
    machine.skipped = known(reply.given_up.iter().copied().map(Os::Bramble).collect(), api, now);
}

/// What can be said of one that says nothing.
fn silent(machine: &mut Machine, target: &Target, node: Option<&Seen>, why: &str, now: u64) {
    let api = Source::NodeApi;
    let unknown = || format!("it does not answer: {why}");
    machine.os = Fact::unknown(unknown(), api, now);
    machine.fixed = Fact::unknown(unknown(), api, now);
    machine.live = Fact::unknown(unknown(), api, now);
    machine.trial = Fact::unknown(unknown(), api, now);
    machine.skipped = Fact::unknown(unknown(), api, now);
    match node {
        Some(node) => {
            machine.identity = known(of_node(node), Source::Kubernetes, now);
            machine.power = match node.ready {
                // Its kubelet is well, so it is on; what asks it is shut out.
                Some(true) => Fact::unknown(unknown(), api, now),
                _ => known(Power::Silent, api, now),
            };
        }
        None if target.written => {
            machine.identity = Fact::unknown(unknown(), api, now);
            machine.power = known(Power::Silent, api, now);
        }
        None => {
            machine.identity = known(Identity::Absent, Source::Lock, now);
            machine.power = known(Power::Silent, api, now);
        }
    }
}

/// A node that is in no file.
fn stranger(node: &Seen, now: u64) -> Machine {
    Machine {
        power: Fact::unknown("it is not in the file: nobody knows its address", Source::Nobody, now),
        identity: known(of_node(node), Source::Kubernetes, now),
        joined: known(true, Source::Kubernetes, now),
        ready: known(node.ready == Some(true), Source::Kubernetes, now),
        // A control plane that left the file may still have a voice; whether it has is asked elsewhere.
        member: known(Member::None, Source::Datastore, now),
        ..Machine::default()
    }
}

fn of_node(node: &Seen) -> Identity {
    let card = node.annotations.get(annotation::CARD).and_then(|card| card.parse().ok());
    Identity::Ours { incarnation: card.unwrap_or(1), adopted: true }
}

/// What Kubernetes says of a machine.
fn registered<'a>(machine: &mut Machine, role: Role, node: &'a Seen, mut keys: BTreeSet<&'a str>, now: u64) {
    let api = Source::Kubernetes;
    machine.joined = known(true, api, now);
    machine.ready = match node.ready {
        Some(ready) => known(ready, api, now),
        None => Fact::unknown("its kubelet has not said so yet", api, now),
    };
    machine.kubernetes = match &node.kubelet {
        Some(version) => known(version.clone(), api, now),
        None => Fact::unknown("its kubelet says no version", api, now),
    };
    keys.extend(label_keys(node));
    let labels = node.labels.iter().filter(|(key, _)| keys.contains(key.as_str()));
    machine.labels = known(labels.map(|(k, v)| (k.clone(), v.clone())).collect(), api, now);
    machine.taints = known(node.taints.clone(), api, now);
    let cordon = match node.annotations.get(annotation::CORDONED).and_then(|mark| read_mark(mark)) {
        Some((holder, at)) if node.unschedulable => Cordon::Ours { holder, at },
        // A person's, or the machine's own, which it takes back by itself.
        _ if node.unschedulable => Cordon::Other,
        _ => Cordon::None,
    };
    machine.cordon = known(cordon, api, now);
    // The API answered, so its datastore does; more than one control plane is not served yet.
    let member = if role == Role::ControlPlane { Member::Voter } else { Member::None };
    machine.member = known(member, Source::Datastore, now);
}
