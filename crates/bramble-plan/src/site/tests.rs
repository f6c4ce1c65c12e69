//! The planner by examples; flows over several plans are the simulator's.

use super::fixture::*;
use super::{Asked, Difference, diff, differences};
use bramble_api::names::Arch;
use bramble_api::site::{
    Budget, Certificate, Cordon, DiskContents, Holder, Identity, Member, Os, Permission, Power, Release,
    WaitingOn,
};

fn asked(allow: &[&str]) -> Asked {
    Asked {
        who: "anna@desk".into(),
        allow: allow.iter().map(|p| p.parse().unwrap()).collect(),
        ..Asked::default()
    }
}

#[test]
fn a_site_that_is_as_wanted_has_an_empty_plan() {
    for os in [Os::Bramble(7), Os::Talos(v("v1.14.1"))] {
        let wanted = wanted(3, 2, &os, "v1.36.3");
        let plan = make(&wanted, &settled(&wanted), at(0, 12), &asked(&[]));
        assert_eq!((ids(&plan).len(), held(&plan).len()), (0, 0), "{plan:#?}");
    }
}

#[test]
fn only_the_system_changes_a_worker_first_control_planes_last() {
    let old = wanted(3, 2, &Os::Bramble(7), "v1.36.3");
    let mut new = wanted(3, 2, &Os::Bramble(8), "v1.36.3");
    let mut seen = settled(&old);
    seen.releases = settled(&new).releases;
    let plan = make(&new, &seen, at(0, 12), &asked(&[]));
    let order = ["w1", "w2", "cp1", "cp2", "cp3"].map(|n| format!("upgrade-os/{n}/release-8"));
    assert_eq!(ids(&plan), order);
    assert_eq!(plan.steps[4].after, [plan.steps[3].id.clone()]);
    assert!(plan.steps.iter().all(|s| s.drain && s.restart));
    // The window is shut: all of it waits, and says until when.
    new.nodes.iter_mut().for_each(|n| n.window = night());
    let plan = make(&new, &seen, at(0, 12), &asked(&[]));
    assert_eq!(ids(&plan), [""; 0]);
    assert_eq!(held(&plan)[0], "cp1 os: canary window");
    assert_eq!(held(&plan)[4], "w2 os: window");
    // It opens, and the night is too short for all of them: six minutes each.
    new.nodes.iter_mut().for_each(|n| n.window.as_mut().unwrap().to = 120 + 20);
    let plan = make(&new, &seen, at(0, 2), &asked(&[]));
    assert_eq!(ids(&plan), &order[..3]);
    assert_eq!(held(&plan), ["cp2 os: window-too-short", "cp3 os: window-too-short"]);
    let all = make(&new, &seen, at(0, 12), &Asked { now: true, ..asked(&[]) });
    assert_eq!(ids(&all), order);
}

#[test]
fn kubernetes_changes_control_planes_first_and_hops_are_inserted() {
    let old = wanted(1, 2, &Os::Bramble(7), "v1.34.2");
    let new = wanted(1, 2, &Os::Bramble(12), "v1.36.3");
    let mut seen = settled(&old);
    let goal = settled(&new).releases;
    seen.releases = goal;
    let plan = make(&new, &seen, at(0, 12), &asked(&[]));
    assert_eq!(ids(&plan), [""; 0]);
    assert_eq!(held(&plan)[0], "cp1 os: release");
    let between = Release { arch: Arch::Arm64, version: 9, kubernetes: Some(v("v1.35.1")) };
    seen.releases.value.as_mut().unwrap().push(between);
    let plan = make(&new, &seen, at(0, 12), &asked(&[]));
    assert_eq!(
        ids(&plan),
        [
            "upgrade-os/cp1/release-9",
            "upgrade-os/w1/release-9",
            "upgrade-os/w2/release-9",
            "upgrade-os/cp1/release-12",
            "upgrade-os/w1/release-12",
            "upgrade-os/w2/release-12"
        ]
    );
    assert!(!plan.steps[0].drain && plan.steps[1].drain, "pods stay on the only control plane");
    // One sleeps: the others go one hop and wait for it.
    seen.machines.get_mut("w2").unwrap().power.becomes(Power::Asleep);
    let plan = make(&new, &seen, at(0, 12), &asked(&[]));
    assert_eq!(ids(&plan), ["upgrade-os/cp1/release-9", "upgrade-os/w1/release-9"]);
    assert_eq!(held(&plan), ["cp1 os: everywhere", "w1 os: everywhere api-server", "w2 os: asleep"]);
}

#[test]
fn talos_and_its_kubernetes_take_turns() {
    let old = wanted(1, 1, &Os::Talos(v("v1.12.0")), "v1.31.0");
    let new = wanted(1, 1, &Os::Talos(v("v1.14.1")), "v1.33.0");
    let plan = make(&new, &settled(&old), at(0, 12), &asked(&[]));
    assert_eq!(
        ids(&plan),
        [
            "upgrade-os/w1/talos-v1.13.9",
            "upgrade-os/cp1/talos-v1.13.9",
            "upgrade-kubernetes/cp1/v1.32.0",
            "upgrade-kubernetes/w1/v1.32.0",
            "upgrade-os/w1/talos-v1.14.1",
            "upgrade-os/cp1/talos-v1.14.1",
            "upgrade-kubernetes/cp1/v1.33.0",
            "upgrade-kubernetes/w1/v1.33.0",
        ]
    );
    let back = make(&old, &settled(&new), at(0, 12), &asked(&[]));
    assert_eq!(held(&back)[0], "cp1 os: back");
}

#[test]
fn a_machine_that_is_not_ready_stops_the_others_and_not_itself() {
    let old = wanted(3, 2, &Os::Bramble(7), "v1.36.3");
    let new = wanted(3, 2, &Os::Bramble(8), "v1.36.3");
    let mut seen = settled(&old);
    seen.releases = settled(&new).releases;
    seen.machines.get_mut("w2").unwrap().ready.becomes(false);
    let plan = make(&new, &seen, at(0, 12), &asked(&[]));
    assert_eq!(ids(&plan), ["upgrade-os/w2/release-8"]);
    assert_eq!(held(&plan)[3], "w1 os: not-ready");
    let plan = make(&new, &seen, at(0, 12), &asked(&["without=w2"]));
    assert_eq!(plan.steps.len(), 5);
}

#[test]
fn quorum_is_kept() {
    let old = wanted(3, 0, &Os::Bramble(7), "v1.36.3");
    let new = wanted(3, 0, &Os::Bramble(8), "v1.36.3");
    let mut seen = settled(&old);
    seen.releases = settled(&new).releases;
    let lost = seen.machines.get_mut("cp3").unwrap();
    lost.member.becomes(Member::Lost);
    lost.power.becomes(Power::Silent);
    let plan = make(&new, &seen, at(0, 12), &asked(&["without=cp3"]));
    assert_eq!(held(&plan), ["cp1 os: quorum", "cp2 os: quorum", "cp3 os: silent"]);
    // It is replaced: forgotten first, then the others may restart; two voices are still too few.
    let mut replace = asked(&["without=cp3"]);
    replace.replace.insert("cp3".into(), 1);
    let plan = make(&new, &seen, at(0, 12), &replace);
    assert_eq!(ids(&plan), ["replace/cp3/card-2"]);
    assert_eq!(held(&plan), ["cp1 os: quorum", "cp2 os: quorum", "cp3 card: flash"]);
}

#[test]
fn what_stops_a_drain_is_seen_before_anything_is_loaded() {
    let old = wanted(1, 2, &Os::Bramble(7), "v1.36.3");
    let new = wanted(1, 2, &Os::Bramble(8), "v1.36.3");
    let mut seen = settled(&old);
    seen.releases = settled(&new).releases;
    let budget = Budget { namespace: "db".into(), name: "pg".into(), nodes: vec!["w1".into()] };
    seen.budgets.becomes(vec![budget]);
    let plan = make(&new, &seen, at(0, 12), &asked(&[]));
    assert_eq!(ids(&plan), ["upgrade-os/w2/release-8", "upgrade-os/cp1/release-8"]);
    assert_eq!(held(&plan), ["w1 os: budget"]);
    assert_eq!(make(&new, &seen, at(0, 12), &asked(&["evict=w1"])).steps.len(), 3);
    seen.machines.get_mut("w2").unwrap().free.becomes(1 << 20);
    let plan = make(&new, &seen, at(0, 12), &asked(&[]));
    assert_eq!(held(&plan), ["cp1 os: canary", "w1 os: budget", "w2 os: space"]);
}

#[test]
fn talos_comes_up_from_nothing() {
    let mut wanted = wanted(3, 1, &Os::Talos(v("v1.14.1")), "v1.36.3");
    wanted.founded = false;
    let mut seen = settled(&wanted);
    for machine in seen.machines.values_mut() {
        let power = machine.power.clone();
        *machine = bramble_api::site::Machine { power, ..Default::default() };
        machine.identity.becomes(Identity::Waiting);
        machine.disk.becomes(DiskContents::Empty);
    }
    seen.machines.get_mut("w1").unwrap().disk.becomes(DiskContents::Foreign);
    let plan = make(&wanted, &seen, at(0, 12), &asked(&[]));
    assert_eq!(ids(&plan), ["add/cp1", "found/cp1", "add/cp2", "add/cp3"]);
    assert_eq!(held(&plan), ["w1 join: permission"]);
    assert_eq!(make(&wanted, &seen, at(0, 12), &asked(&["wipe=w1"])).steps.len(), 5);
    // Someone else's machine, and one that was never seen.
    seen.machines.get_mut("cp1").unwrap().identity.becomes(Identity::Foreign { who: "cluster x".into() });
    seen.machines.remove("cp2");
    let plan = make(&wanted, &seen, at(0, 12), &asked(&[]));
    assert_eq!(
        held(&plan),
        ["cp1 join: foreign", "cp2 join: flash", "cp3 join: founding", "w1 join: founding permission"]
    );
    // The lock says that it was founded: a second founding is a person's word.
    let mut again = wanted.clone();
    again.founded = true;
    seen.machines.get_mut("cp1").unwrap().identity.becomes(Identity::Waiting);
    assert_eq!(held(&make(&again, &seen, at(0, 12), &asked(&[])))[0], "cp1 join: permission");
}

#[test]
fn leaving_and_erasing_have_permissions_of_their_own() {
    let old = wanted(1, 2, &Os::Bramble(7), "v1.36.3");
    let new = wanted(1, 1, &Os::Bramble(7), "v1.36.3");
    let seen = settled(&old);
    assert_eq!(held(&make(&new, &seen, at(0, 12), &asked(&[]))), ["w2 leave: permission"]);
    let plan = make(&new, &seen, at(0, 12), &asked(&["remove=w2"]));
    assert_eq!((ids(&plan), held(&plan)), (vec!["remove/w2"], vec!["w2 erase: permission".to_string()]));
    let plan = make(&new, &seen, at(0, 12), &asked(&["remove=w2", "wipe=w2"]));
    assert_eq!(ids(&plan), ["remove/w2", "reset/w2"]);
    // The last control plane cannot leave.
    let mut none = new.clone();
    none.nodes.retain(|n| n.name != "cp1");
    assert_eq!(
        held(&make(&none, &seen, at(0, 12), &asked(&["remove=cp1"])))[0],
        "cp1 leave: last-control-plane"
    );
}

#[test]
fn certificates_are_renewed_at_two_thirds_and_authorities_in_three_stages() {
    let mut wanted = wanted(1, 1, &Os::Bramble(7), "v1.36.3");
    let mut seen = settled(&wanted);
    let day = 86_400;
    let certificate = |age: u64| Certificate {
        name: "node-api".into(),
        authority: "kubelet-clients".into(),
        generation: 1,
        not_before: NOW - age * day,
        not_after: NOW - age * day + 300 * day,
    };
    seen.machines.get_mut("w1").unwrap().certificates.becomes(vec![certificate(199)]);
    assert_eq!(make(&wanted, &seen, at(0, 12), &asked(&[])).steps.len(), 0);
    seen.machines.get_mut("w1").unwrap().certificates.becomes(vec![certificate(200)]);
    let plan = make(&wanted, &seen, at(0, 12), &asked(&[]));
    assert_eq!(ids(&plan), ["renew-certificates/w1"]);
    assert!(plan.steps[0].why.contains("100 days"));
    seen.machines.get_mut("w1").unwrap().certificates.becomes(vec![certificate(1)]);
    wanted.authorities.insert("kubelet-clients".into(), 2);
    let plan = make(&wanted, &seen, at(0, 12), &asked(&[]));
    let id = |node: &str, stage: &str| format!("rotate-authority/{node}/kubelet-clients-2-{stage}");
    assert_eq!(
        ids(&plan),
        [
            id("cp1", "trust"),
            id("w1", "trust"),
            id("w1", "issue"),
            id("cp1", "distrust"),
            id("w1", "distrust")
        ]
    );
    seen.machines.get_mut("cp1").unwrap().power.becomes(Power::Asleep);
    let plan = make(&wanted, &seen, at(0, 12), &asked(&[]));
    assert_eq!(ids(&plan), [id("w1", "trust")]);
    assert_eq!(held(&plan), ["cp1 authority: asleep", "w1 authority: everywhere"]);
}

#[test]
fn another_operator_is_left_alone_and_a_dead_one_wants_a_look() {
    let old = wanted(1, 1, &Os::Bramble(7), "v1.36.3");
    let new = wanted(1, 1, &Os::Bramble(8), "v1.36.3");
    let mut seen = settled(&old);
    seen.releases = settled(&new).releases;
    seen.machines
        .get_mut("w1")
        .unwrap()
        .cordon
        .becomes(Cordon::Ours { holder: "bert@lap".into(), at: NOW - 9 });
    let holder = |renewed| Holder::Is { who: "bert@lap".into(), renewed, lasts: 60, node: "w1".into() };
    seen.holder.becomes(holder(NOW - 10));
    let plan = make(&new, &seen, at(0, 12), &asked(&[]));
    assert_eq!(held(&plan), ["cp1 os: canary holder", "w1 os: holder", "w1 cordon: holder"]);
    seen.holder.becomes(holder(NOW - 61));
    let plan = make(&new, &seen, at(0, 12), &asked(&[]));
    assert_eq!(held(&plan)[1..], ["w1 os: attention", "w1 cordon: attention"]);
    let plan = make(&new, &seen, at(0, 12), &asked(&["takeover=bert@lap"]));
    assert_eq!(ids(&plan), ["upgrade-os/w1/release-8", "upgrade-os/cp1/release-8"]);
    // The holder goes on with its own.
    let mut bert = asked(&[]);
    bert.who = "bert@lap".into();
    assert_eq!(make(&new, &seen, at(0, 12), &bert).steps.len(), 2);
    // Nothing is left to do there: what it was kept from is undone.
    let plan = make(&old, &seen, at(0, 12), &bert);
    assert_eq!(ids(&plan), ["uncordon/w1"]);
}

#[test]
fn stale_and_unknown_facts_are_not_acted_on() {
    let old = wanted(1, 1, &Os::Bramble(7), "v1.36.3");
    let new = wanted(1, 1, &Os::Bramble(8), "v1.36.3");
    let mut seen = settled(&old);
    seen.releases = settled(&new).releases;
    seen.machines.get_mut("w1").unwrap().power.at = NOW - 601;
    assert_eq!(held(&make(&new, &seen, at(0, 12), &asked(&[])))[1], "w1 os: stale");
    let machine = seen.machines.get_mut("w1").unwrap();
    machine.power.at = NOW;
    machine.os = bramble_api::site::Fact::unknown("refused", Default::default(), NOW);
    assert_eq!(held(&make(&new, &seen, at(0, 12), &asked(&[])))[1], "w1 os: unknown");
}

#[test]
fn two_plans_are_compared() {
    let old = wanted(1, 1, &Os::Bramble(7), "v1.36.3");
    let new = wanted(1, 1, &Os::Bramble(8), "v1.36.3");
    let mut seen = settled(&old);
    seen.releases = settled(&new).releases;
    let before = make(&new, &seen, at(0, 12), &asked(&[]));
    assert_eq!(diff(&before, &before), []);
    seen.machines.get_mut("cp1").unwrap().power.becomes(Power::Silent);
    let after = make(&new, &seen, at(0, 12), &asked(&[]));
    let words: Vec<String> = diff(&before, &after).iter().map(ToString::to_string).collect();
    assert_eq!(words[0], "- w1  release 7 -> 8");
    assert!(words.iter().any(|w| w.starts_with("? cp1  release 7 -> 8: waiting: ")), "{words:#?}");
    assert!(diff(&after, &before).iter().any(|d| matches!(d, Difference::Free(_))));
}

/// A plan with each fault is caught by the check that is for it.
#[test]
fn the_checks_find_what_the_planner_would_not_make() {
    let old = wanted(3, 2, &Os::Bramble(7), "v1.36.3");
    let new = wanted(3, 2, &Os::Bramble(8), "v1.36.3");
    let mut seen = settled(&old);
    seen.releases = settled(&new).releases;
    let person = asked(&[]);
    let good = make(&new, &seen, at(0, 12), &person);
    let check =
        |plan: &bramble_api::site::SitePlan, seen: &bramble_api::site::Inventory, wanted: &super::Wanted| {
            let notes = super::lint(plan, wanted, seen, at(0, 12), &person);
            let errors = notes.into_iter().filter(|n| n.severity == bramble_api::site::Severity::Error);
            errors.map(|n| n.check).collect::<std::collections::BTreeSet<_>>()
        };
    let has = |found: std::collections::BTreeSet<String>, word: &str| {
        assert!(found.contains(word), "{word}: {found:?}")
    };
    let mut plan = good.clone();
    plan.steps.reverse();
    has(check(&plan, &seen, &new), "order");
    has(check(&plan, &seen, &new), "canary");
    let mut plan = good.clone();
    plan.steps.pop();
    has(check(&plan, &seen, &new), "unexplained");
    let mut plan = good.clone();
    plan.steps[1].after.clear();
    has(check(&plan, &seen, &new), "one-at-a-time");
    let mut plan = good.clone();
    plan.steps[0].why.clear();
    plan.steps[1].id = plan.steps[0].id.clone();
    has(check(&plan, &seen, &new), "no-reason");
    has(check(&plan, &seen, &new), "duplicate");
    let mut foreign = seen.clone();
    foreign.machines.get_mut("w1").unwrap().identity.becomes(Identity::Foreign { who: "x".into() });
    has(check(&good, &foreign, &new), "foreign");
    let mut lost = seen.clone();
    lost.machines.get_mut("cp3").unwrap().member.becomes(Member::Lost);
    has(check(&good, &lost, &new), "quorum");
    let mut plan = good.clone();
    plan.steps[0].act = bramble_api::site::Act::Reset;
    has(check(&plan, &seen, &new), "permission");
    let mut plan = good.clone();
    if let bramble_api::site::Act::UpgradeOs { kubernetes, .. } = &mut plan.steps[0].act {
        *kubernetes = Some(v("v1.38.0"));
    }
    has(check(&plan, &seen, &new), "skew");
    let mut night_only = new.clone();
    night_only.nodes.iter_mut().for_each(|n| n.window = night());
    has(check(&good, &seen, &night_only), "window");
    let mut off = seen.clone();
    off.machines.get_mut("w1").unwrap().power.becomes(Power::Silent);
    has(check(&good, &off, &new), "silent");
    let mut plan = good.clone();
    if let bramble_api::site::Act::UpgradeOs { to, .. } = &mut plan.steps[0].act {
        *to = Os::Bramble(6);
    }
    has(check(&plan, &seen, &new), "path");
}

#[test]
fn no_difference_is_ever_without_a_reason() {
    let wanted = wanted(1, 1, &Os::Bramble(8), "v1.36.3");
    let nothing = bramble_api::site::Inventory::default();
    let plan = make(&wanted, &nothing, at(0, 12), &asked(&[]));
    assert_eq!(differences(&wanted, &nothing, NOW, &asked(&[])).len(), plan.held.len());
    assert!(plan.held.iter().all(|h| !h.waiting.is_empty() && !h.waiting.contains(&WaitingOn::Unexplained)));
    let _ = Permission::Wipe(String::new());
}
