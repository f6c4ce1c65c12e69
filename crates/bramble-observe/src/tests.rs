use super::cluster::{Seen, mark};
use super::*;
use bramble_api::names::annotation;
use bramble_api::site::{Cordon, Identity, Power};
use bramble_rpc::node::StatusReply;

fn target(name: &str, written: bool) -> Target {
    Target {
        name: name.into(),
        role: Role::Worker,
        place: Ok("192.0.2.1:7017".into()),
        label_keys: ["tier".to_string()].into(),
        written,
    }
}

fn node(annotations: &[(&str, &str)]) -> Seen {
    Seen {
        ready: Some(true),
        kubelet: "v1.36.3".parse().ok(),
        labels: [("tier", "shelf"), ("old", "yes"), ("kubernetes.io/os", "linux")]
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .into(),
        taints: vec![],
        unschedulable: true,
        annotations: annotations.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
    }
}

fn cluster(nodes: &[(&str, Seen)]) -> Result<Cluster, String> {
    Ok(Cluster {
        version: "v1.36.3".parse().ok(),
        nodes: nodes.iter().map(|(name, seen)| (name.to_string(), seen.clone())).collect(),
        ..Cluster::default()
    })
}

fn answers(list: &[(&str, Answer)]) -> BTreeMap<String, Answer> {
    list.iter().map(|(name, answer)| (name.to_string(), answer.clone())).collect()
}

#[test]
fn what_nobody_said_is_unknown_with_the_reason() {
    let (machines, api, budgets, holder) =
        join(&[target("n1", true)], &answers(&[("n1", Err("refused".into()))]), &Err("no route".into()), 7);
    let n1 = &machines["n1"];
    assert_eq!(n1.power.get(), Some(&Power::Silent));
    assert_eq!(n1.identity.why, "it does not answer: refused");
    assert_eq!(n1.joined.why, "no route");
    assert_eq!(
        (api.why.as_str(), budgets.why.as_str(), holder.why.as_str()),
        ("no route", "no route", "no route")
    );
}

#[test]
fn a_machine_without_a_card_is_absent_and_one_whose_kubelet_is_well_is_not_off() {
    let silent: Answer = Err("refused".into());
    let targets = [target("n1", false), target("n2", true)];
    let both = answers(&[("n1", silent.clone()), ("n2", silent)]);
    let (machines, ..) = join(&targets, &both, &cluster(&[("n2", node(&[(annotation::CARD, "3")]))]), 7);
    assert_eq!(machines["n1"].identity.get(), Some(&Identity::Absent));
    assert_eq!(machines["n1"].joined.get(), Some(&false));
    assert_eq!(machines["n2"].identity.get(), Some(&Identity::Ours { incarnation: 3, adopted: true }));
    assert_eq!(machines["n2"].power.get(), None);
}

#[test]
fn labels_are_ours_by_the_file_the_document_or_the_nodes_own_word() {
    let reply = StatusReply { card: 1, release: 4, settings: "ab".into(), ..StatusReply::default() };
    let labels = |reply: StatusReply, annotations: &[(&str, &str)]| {
        let all = answers(&[("n1", Ok(reply))]);
        let (machines, ..) = join(&[target("n1", true)], &all, &cluster(&[("n1", node(annotations))]), 7);
        machines["n1"].labels.get().unwrap().keys().cloned().collect::<Vec<_>>()
    };
    assert_eq!(labels(reply.clone(), &[]), ["tier"]);
    assert_eq!(labels(reply.clone(), &[(annotation::LABELS, "old,tier")]), ["old", "tier"]);
    assert_eq!(labels(StatusReply { label_keys: vec!["old".into()], ..reply }, &[]), ["old", "tier"]);
}

#[test]
fn only_a_roll_outs_mark_is_ours_to_take_back() {
    let cordon = |annotations: &[(&str, &str)]| {
        let all = answers(&[("n1", Ok(StatusReply::default()))]);
        let (machines, ..) = join(&[target("n1", true)], &all, &cluster(&[("n1", node(annotations))]), 7);
        machines["n1"].cordon.get().cloned().unwrap()
    };
    assert_eq!(cordon(&[]), Cordon::Other);
    assert_eq!(cordon(&[(annotation::CORDONED, "update")]), Cordon::Other);
    let ours = mark("ann at desk", 5);
    assert_eq!(
        cordon(&[(annotation::CORDONED, &ours)]),
        Cordon::Ours { holder: "ann at desk".into(), at: 5 }
    );
}

#[test]
fn a_node_that_is_in_no_file_is_seen() {
    let (machines, ..) = join(&[], &BTreeMap::new(), &cluster(&[("old", node(&[]))]), 7);
    assert_eq!(machines["old"].joined.get(), Some(&true));
}
