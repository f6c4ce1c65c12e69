//! Sites for tests.

use super::wanted::{Node, Wanted};
use super::{Asked, Now, Sources, plan};
use bramble_api::document::Window;
use bramble_api::names::{Arch, Role};
use bramble_api::site::{
    Budget, Cordon, DiskContents, Fact, Identity, Inventory, Machine, Member, Os, Power, Release, SitePlan,
    Source, TalosLine, Trial, Version, VersionTable,
};
use bramble_api::window::Local;

pub(super) const NOW: u64 = 1_800_000_000;

pub(super) fn v(text: &str) -> Version {
    text.parse().unwrap()
}

pub(super) fn at(day: u8, hour: u16) -> Now {
    Now { epoch: NOW, local: Some(Local { day, minute: hour * 60 }) }
}

pub(super) fn table() -> VersionTable {
    let line = |minor, newest, kubernetes| TalosLine { minor, newest, upgrades_from: minor - 2, kubernetes };
    VersionTable {
        talos: vec![line(12, 11, (30, 35)), line(13, 9, (31, 36)), line(14, 1, (32, 37))],
        kubernetes: [(35, 7), (36, 3)].into(),
    }
}

/// Machines `cp1..` and `w1..`, as the file wants them.
pub(super) fn wanted(servers: usize, workers: usize, os: &Os, kubernetes: &str) -> Wanted {
    let names = (1..=servers).map(|i| (format!("cp{i}"), Role::ControlPlane));
    let names = names.chain((1..=workers).map(|i| (format!("w{i}"), Role::Worker)));
    let node = |(name, role)| Node {
        name,
        role,
        arch: Arch::Arm64,
        os: Some(os.clone()),
        card: matches!(os, Os::Bramble(_)),
        live: "live".into(),
        fixed: "fixed".into(),
        labels: [("tier".to_string(), "shelf".to_string())].into(),
        taints: vec![],
        incarnation: 1,
        window: None,
    };
    Wanted {
        cluster: "home".into(),
        spec: "4f2c".into(),
        lock: String::new(),
        founded: true,
        members: servers > 1,
        kubernetes: v(kubernetes),
        nodes: names.map(node).collect(),
        authorities: [("kubelet-clients".to_string(), 1)].into(),
        table: table(),
        not_served: vec![],
    }
}

pub(super) fn night() -> Option<Window> {
    Some(Window { days: vec![], from: 120, to: 300 })
}

fn known<T>(value: T) -> Fact<T> {
    Fact::known(value, Source::NodeApi, NOW)
}

/// A site that is what is wanted.
pub(super) fn settled(wanted: &Wanted) -> Inventory {
    let machine = |node: &Node| Machine {
        power: known(Power::On),
        identity: known(Identity::Ours { incarnation: node.incarnation, adopted: true }),
        os: known(node.os.clone().unwrap()),
        kubernetes: known(wanted.kubernetes.clone()),
        live: known(node.live.clone()),
        fixed: known(node.fixed.clone()),
        labels: known(node.labels.clone()),
        taints: known(node.taints.clone()),
        joined: known(node.role != Role::Management),
        ready: known(true),
        cordon: known(Cordon::None),
        member: known(if node.is_control_plane() { Member::Voter } else { Member::None }),
        certificates: known(vec![]),
        trusts: known(wanted.authorities.iter().map(|(n, g)| (n.clone(), vec![*g])).collect()),
        disk: known(DiskContents::Ours),
        free: known(8 << 30),
        skipped: known(vec![]),
        trial: known(Trial::None),
        ingress: known(false),
        local_volumes: known(0),
    };
    let release = |version, kubernetes: &Version| Release {
        arch: Arch::Arm64,
        version,
        kubernetes: Some(kubernetes.clone()),
    };
    let releases = match wanted.nodes[0].os {
        Some(Os::Bramble(n)) => vec![release(n, &wanted.kubernetes)],
        _ => vec![],
    };
    Inventory {
        format: 1,
        observed_at: NOW,
        machines: wanted.nodes.iter().map(|n| (n.name.clone(), machine(n))).collect(),
        api: known(wanted.kubernetes.clone()),
        budgets: known(Vec::<Budget>::new()),
        holder: known(bramble_api::site::Holder::Nobody),
        releases: known(releases),
        git: Fact::default(),
    }
}

/// A plan without errors of its linter.
pub(super) fn make(wanted: &Wanted, seen: &Inventory, now: Now, asked: &Asked) -> SitePlan {
    let (plan, report) = plan(wanted, &Sources::default(), seen, now, asked, 0);
    let errors: Vec<_> =
        plan.notes.iter().filter(|n| n.severity == bramble_api::site::Severity::Error).collect();
    assert!(errors.is_empty(), "{errors:#?}\n{plan:#?}");
    assert_eq!(report.parts.len(), 11);
    assert_eq!(report.parts.iter().map(|p| p.steps.len()).sum::<usize>(), plan.steps.len());
    plan
}

pub(super) fn ids(plan: &SitePlan) -> Vec<&str> {
    plan.steps.iter().map(|s| s.id.0.as_str()).collect()
}

/// `node change: codes` of everything that is held.
pub(super) fn held(plan: &SitePlan) -> Vec<String> {
    let line = |h: &bramble_api::site::Held| {
        let codes: Vec<&str> = h.waiting.iter().map(|w| w.code()).collect();
        format!("{} {}: {}", h.node, h.change.kind(), codes.join(" "))
    };
    plan.held.iter().map(line).collect()
}
