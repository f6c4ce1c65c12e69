//! `bramble plan --inventory` through the real program: what it says, and what it refuses.

use std::path::Path;
use std::process::{Command, Output};

const FILE: &str = "apiVersion: bramble.home.arpa/v1alpha1
kind: Cluster
metadata: { name: home }
spec:
  kubernetes: { distribution: talos, version: v1.36.3 }
  network: { subnet: 192.168.1.0/24, gateway: 192.168.1.1, dns: [192.168.1.1] }
  board: uefi-amd64
  talos: { version: v1.14.1 }
  nodes:
    - { name: n1, role: control-plane, address: 192.168.1.11, talos: { install: { disk: { serial: S1 } } } }
    - { name: n2, role: worker, address: 192.168.1.12, talos: { install: { disk: { serial: S2 } } } }
";

fn plan(directory: &Path, inventory: &str, more: &[&str]) -> Output {
    std::fs::write(directory.join("bramble.yaml"), FILE).unwrap();
    std::fs::write(directory.join("seen.json"), inventory).unwrap();
    Command::new(env!("CARGO_BIN_EXE_bramble"))
        .current_dir(directory)
        .args(["plan", "--inventory", "seen.json"])
        .args(more)
        .output()
        .unwrap()
}

/// A machine that waits for its configuration, seen just now.
fn waiting(disk: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let fact = |value: &str| format!(r#"{{"value":{value},"source":"talos-api","at":{now}}}"#);
    format!(
        r#"{{"format":1,"observedAt":{now},"machines":{{"n1":{{"power":{},"identity":{},"disk":{}}}}}}}"#,
        fact("\"on\""),
        fact("\"waiting\""),
        fact(disk)
    )
}

#[test]
fn what_was_never_seen_waits_for_a_card_and_what_waits_is_added() {
    let directory = tempfile::tempdir().unwrap();
    let said = plan(directory.path(), r#"{"format":1,"observedAt":0}"#, &["--exit-code"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.status.code(), Some(0), "{text}{}", String::from_utf8_lossy(&said.stderr));
    assert!(text.contains("n1  join  waiting: a card for n1"), "{text}");
    assert!(text.contains("Nothing to do now, 2 held. Nothing is erased."), "{text}");

    let said = plan(directory.path(), &waiting("\"empty\""), &["--exit-code"]);
    let text = String::from_utf8_lossy(&said.stdout).into_owned();
    assert_eq!(said.status.code(), Some(2), "{text}");
    assert!(text.contains("add with talos v1.14.1") && text.contains("found the cluster"), "{text}");

    let foreign = plan(directory.path(), &waiting("\"foreign\""), &["-o", "json"]);
    let value: serde_json::Value = serde_json::from_slice(&foreign.stdout).unwrap();
    assert_eq!(value["held"][0]["waiting"][0]["allow"], "wipe=n1");
    let allowed = plan(directory.path(), &waiting("\"foreign\""), &["-o", "name", "--allow", "wipe=n1"]);
    assert_eq!(String::from_utf8_lossy(&allowed.stdout), "add/n1\nfound/n1\n");
}

#[test]
fn what_cannot_be_read_is_refused_with_its_reason() {
    let directory = tempfile::tempdir().unwrap();
    let cases: [(&str, &[&str], &str); 5] = [
        ("{", &[], "seen.json is no inventory"),
        (r#"{"format":1,"observedAt":0,"machnes":{}}"#, &[], "machnes"),
        (r#"{"format":2,"observedAt":0}"#, &[], "of format 2"),
        (r#"{"format":1,"observedAt":0}"#, &["--allow", "burn=n1"], "is no permission"),
        (r#"{"format":1,"observedAt":0}"#, &["--node", "n9"], "no node"),
    ];
    for (inventory, more, wanted) in cases {
        let said = plan(directory.path(), inventory, more);
        let text = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(1), "{text}");
        assert!(text.contains(wanted), "{wanted}: {text}");
    }
}

#[test]
fn a_site_without_keys_is_planned_for_and_says_why_nothing_is_known() {
    let directory = tempfile::tempdir().unwrap();
    let file = FILE
        .replace("distribution: talos", "distribution: upstream")
        .replace("  talos: { version: v1.14.1 }\n", "")
        .replace(", talos: { install: { disk: { serial: S1 } } }", "")
        .replace(", talos: { install: { disk: { serial: S2 } } }", "");
    std::fs::write(directory.path().join("bramble.yaml"), file).unwrap();
    let bramble = |arguments: &[&str]| {
        let said = Command::new(env!("CARGO_BIN_EXE_bramble"))
            .current_dir(directory.path())
            .args(arguments)
            .output()
            .unwrap();
        (said.status.code(), String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned())
    };
    let (code, text) = bramble(&["plan", "--exit-code"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("a card for n1") && text.contains("a card for n2"), "{text}");
    let (code, text) = bramble(&["why", "n2"]);
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("no secrets file"), "{text}");
    let (code, text) = bramble(&["apply", "--find"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("for machines of Talos"), "{text}");
    // A plan of other wishes is not this one.
    assert_eq!(bramble(&["plan", "--out", "plan.json"]).0, Some(0));
    assert_eq!(bramble(&["apply", "plan.json"]).0, Some(0));
    let (code, text) = bramble(&["apply", "plan.json", "--now"]);
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("made from another file, lock or wish"), "{text}");
}
