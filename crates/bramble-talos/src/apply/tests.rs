use super::*;
use crate::machine::{CallError, Disk, Fingerprint, Running, Stage};

/// A machine of the file; its card ends in its number.
fn wanted(number: u8, role: Role) -> Wanted {
    Wanted {
        name: format!("n{number}"),
        address: SocketAddr::from(([10, 0, 0, number], 50_000)),
        role,
        version: "v1.14.1".parse().unwrap(),
        known_by: KnownBy { macs: vec![format!("02:00:00:00:00:0{number}")], ..KnownBy::default() },
        config: SecretText::new("machine: {}".into()),
    }
}

/// Three control planes and a worker.
fn site() -> Vec<Wanted> {
    let role = |n| if n < 4 { Role::ControlPlane } else { Role::Worker };
    (1..=4).map(|n| wanted(n, role(n))).collect()
}

fn running(version: &str) -> Running {
    Running { version: version.into(), arch: "arm64".into(), platform: "metal".into() }
}

fn waits(number: u8) -> Seen {
    let macs = vec![format!("02:00:00:00:00:0{number}")];
    Seen::Maintenance {
        address: SocketAddr::from(([10, 0, 0, number], 50_000)),
        fingerprint: Fingerprint(format!("key{number}")),
        running: running("v1.14.1"),
        hardware: Hardware { macs, ..Hardware::default() },
    }
}

fn silent() -> Seen {
    let address = SocketAddr::from(([10, 0, 0, 9], 50_000));
    let source = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    Seen::Silent(CallError::Unreachable { address, source })
}

fn ours() -> Ours {
    Ours {
        running: running("v1.14.1"),
        stage: Stage {
            stage: "booting".into(),
            ready: false,
            unmet: vec!["services: etcd not running".into()],
        },
        difference: vec![],
        member: false,
        members: vec![],
    }
}

fn begun() -> Seen {
    Seen::Ours(ours())
}

fn ready(member: bool) -> Seen {
    let stage = Stage { stage: "running".into(), ready: true, unmet: vec![] };
    Seen::Ours(Ours { stage, member, ..ours() })
}

fn founder(name: &str) -> Founding {
    Founding { founder: Some(name.into()), founded: false }
}

/// What is decided, in words.
fn said(seen: &[Seen], founding: &Founding) -> Vec<String> {
    let decision = decide(&site(), seen, founding);
    let act = |act: &Act| match act {
        Act::Push { node, fingerprint, .. } => format!("push {node} {fingerprint}"),
        Act::Configure { node, difference } => format!("configure {node} {}", difference.len()),
        Act::Bootstrap { node } => format!("bootstrap {node}"),
    };
    let waiting = decision.waiting.iter().map(|w| format!("{} waits for {}", w.subject, w.on));
    decision.acts.iter().map(act).chain(waiting).collect()
}

fn has(said: &[String], part: &str) -> bool {
    said.iter().any(|line| line.contains(part))
}

#[test]
fn a_new_site_goes_from_step_to_step() {
    let none = Founding::default();
    let first = said(&[waits(1), waits(2), waits(3), waits(4)], &none);
    assert_eq!(first[..4], ["push n1 key1", "push n2 key2", "push n3 key3", "push n4 key4"]);
    assert_eq!(first[4..], ["etcd waits for n1, which begins it"]);
    let second = said(&[begun(), begun(), begun(), begun()], &none);
    assert_eq!(second[0], "bootstrap n1");
    assert!(has(&second, "n2 waits for services: etcd not running (stage booting)"), "{second:?}");
    assert!(!has(&second, "n1 waits"), "{second:?}");
    let third = decide(&site(), &[ready(true), ready(true), ready(true), ready(false)], &none);
    assert!(third.settled() && third.founding.founded);
}

#[test]
fn no_second_cluster_is_founded_while_a_control_plane_is_not_seen() {
    let seen = [begun(), silent(), begun(), begun()];
    let unknown = said(&seen, &Founding::default());
    assert!(!has(&unknown, "bootstrap"), "{unknown:?}");
    assert!(has(&unknown, "etcd waits for every control plane to be seen once"), "{unknown:?}");
    // Written down before the first try: from then on only that one is ever told to.
    assert!(has(&said(&seen, &founder("n1")), "bootstrap n1"));
    assert!(has(&said(&seen, &founder("n2")), "etcd waits for n2, which begins it"));
    assert!(has(&said(&seen, &founder("gone")), "etcd waits for gone"));
    // Foreign or of other hardware is not seen either.
    for hidden in [Seen::Foreign, waits(7)] {
        assert!(!has(&said(&[begun(), begun(), hidden, begun()], &Founding::default()), "bootstrap"));
    }
    // A worker does not matter.
    assert!(has(&said(&[begun(), begun(), begun(), silent()], &Founding::default()), "bootstrap n1"));
}

#[test]
fn a_founded_cluster_is_never_founded_again() {
    let founded = Founding { founder: Some("n1".into()), founded: true };
    let lost = said(&[begun(), begun(), begun(), begun()], &founded);
    assert!(!has(&lost, "bootstrap") && has(&lost, "restore a snapshot"), "{lost:?}");
    let absent = said(&[begun(), silent(), begun(), begun()], &founded);
    assert!(!has(&absent, "bootstrap") && has(&absent, "n2 did not answer"), "{absent:?}");
    // Etcd that is seen counts as founded, whatever is written down.
    let seen = decide(&site(), &[begun(), ready(true), begun(), begun()], &Founding::default());
    assert!(seen.founding.founded && !seen.acts.iter().any(|a| matches!(a, Act::Bootstrap { .. })));
}

#[test]
fn only_the_machine_that_the_file_means_is_written_to() {
    let none = Founding::default();
    let other = said(&[waits(2), Seen::Foreign, silent(), waits(4)], &none);
    assert!(!has(&other, "push n1") && !has(&other, "push n2") && has(&other, "push n4"), "{other:?}");
    assert!(has(&other, "n1 waits for the machine with the network card 02:00:00:00:00:01"), "{other:?}");
    assert!(has(&other, "fingerprint key2"), "{other:?}");
    assert!(has(&other, "nothing was said to it"), "{other:?}");
    let mut site = site();
    site[0].known_by = KnownBy::default();
    let decision = decide(&site, &[waits(1), waits(2), waits(3), waits(4)], &none);
    assert!(decision.waiting[0].on.starts_with("`mac` in the file"), "{decision:?}");
    assert!(!decision.acts.iter().any(|act| act.node() == "n1"));
}

#[test]
fn a_config_of_another_release_goes_nowhere() {
    let Seen::Maintenance { address, fingerprint, hardware, .. } = waits(1) else { panic!() };
    let old = Seen::Maintenance { address, fingerprint, hardware, running: running("v1.13.9") };
    let first = said(&[old, waits(2), waits(3), waits(4)], &Founding::default());
    assert!(has(&first, "n1 waits for a medium of Talos v1.14.1") && !has(&first, "push n1"), "{first:?}");
    let changed = vec!["~ a: 1 -> 2".to_string()];
    let behind =
        |version| Seen::Ours(Ours { running: running(version), difference: changed.clone(), ..ours() });
    let second =
        said(&[behind("v1.13.9"), behind("v1.14.0"), ready(true), ready(false)], &Founding::default());
    assert!(has(&second, "n1 waits for an upgrade") && !has(&second, "configure n1"), "{second:?}");
    assert!(has(&second, "configure n2 1"), "{second:?}");
}

#[test]
fn a_new_machine_waits_until_etcd_has_forgotten_the_old_one() {
    let Seen::Ours(member) = ready(true) else { panic!() };
    let member = |members: &[&str]| {
        Seen::Ours(Ours { members: members.iter().map(ToString::to_string).collect(), ..member.clone() })
    };
    let seen = |members: &[&str]| [member(members), waits(2), ready(true), ready(false)];
    let founded = Founding { founder: None, founded: true };
    let kept = said(&seen(&["n1", "n2", "n3"]), &founded);
    assert!(has(&kept, "n2 waits for etcd to forget") && !has(&kept, "push"), "{kept:?}");
    assert!(has(&said(&seen(&["n1", "n3"]), &founded), "push n2"));
}

#[test]
fn a_machine_is_known_by_all_that_is_stated() {
    let disk = Disk { serial: "S1".into(), wwid: "eui.1".into(), ..Disk::default() };
    let hardware =
        Hardware { macs: vec!["02:00:00:00:00:01".into()], disks: vec![disk], ..Hardware::default() };
    let known = |macs: &[&str], serials: &[&str], wwids: &[&str]| {
        let own = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        KnownBy { macs: own(macs), serials: own(serials), wwids: own(wwids) }.compare(&hardware)
    };
    assert_eq!(known(&[], &[], &[]), Likeness::Unknown);
    assert_eq!(known(&["02:00:00:00:00:01"], &["S1"], &["eui.1"]), Likeness::Same);
    let others: [(&[&str], &[&str], &[&str]); 3] = [
        (&["02:00:00:00:00:01", "02:00:00:00:00:02"], &["S1"], &[]),
        (&["02:00:00:00:00:01"], &["S2"], &[]),
        (&[], &["S1"], &["eui.2"]),
    ];
    for (macs, serials, wwids) in others {
        assert!(matches!(known(macs, serials, wwids), Likeness::Other { .. }));
    }
}
