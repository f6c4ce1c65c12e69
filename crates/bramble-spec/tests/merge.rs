//! Cluster, role and machine merged: the nearest wins, lists replace, mappings merge by key.

use bramble_spec::{Addressing, Board, EffectiveNode, parse};

fn nodes(text: &str) -> Vec<EffectiveNode> {
    parse(text, "bramble.yaml").unwrap_or_else(|found| panic!("{found}")).cluster.effective_nodes()
}

const FILE: &str = r#"
apiVersion: bramble.home.arpa/v1alpha1
kind: Cluster
metadata: { name: home }
spec:
  kubernetes: { version: v1.36.3, scheduleOnControlPlane: false }
  network: { subnet: 192.168.1.0/24, gateway: 192.168.1.1 }
  board: pi4
  labels: { site: home, tier: none }
  os:
    packages: [open-iscsi]
    sysctls: { vm.swappiness: 1, net.core.somaxconn: 1024 }
    ssh: { authorizedKeys: ["ssh-ed25519 AAAA me"] }
    timezone: Europe/Berlin
  defaults:
    worker:
      addressing: dhcp
      labels: { tier: shelf }
      taints: ["a:NoSchedule"]
      os: { packages: [nfs-common], sysctls: { vm.swappiness: 10 } }
  nodes:
    - { name: n1, role: control-plane, address: 192.168.1.11, os: { ssh: none } }
    - name: n2
      role: worker
      board: uefi-amd64
      address: 192.168.1.12
      mac: dc:a6:32:00:00:02
      labels: { disk: ssd }
      taints: []
      os: { packages: [], kernelArgs: [quiet], timezone: Etc/UTC }
    - { name: n3, role: worker, address: 192.168.1.13, mac: "dc:a6:32:00:00:03" }
"#;

#[test]
fn nearest_wins() {
    let nodes = nodes(FILE);
    let labels =
        |index: usize| nodes[index].labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>();
    assert_eq!(labels(0), ["site=home", "tier=none"]);
    assert_eq!(labels(1), ["disk=ssd", "site=home", "tier=shelf"]);
    assert_eq!(labels(2), ["site=home", "tier=shelf"]);
    assert_eq!([nodes[0].board, nodes[1].board, nodes[2].board], [Board::Pi4, Board::UefiAmd64, Board::Pi4]);
    assert_eq!(nodes[0].addressing, Addressing::Static);
    assert_eq!(nodes[2].addressing, Addressing::Dhcp);
}

#[test]
fn lists_replace_even_by_nothing() {
    let nodes = nodes(FILE);
    assert_eq!(nodes[0].packages, ["open-iscsi"]);
    assert_eq!(nodes[1].packages, [""; 0]);
    assert_eq!(nodes[2].packages, ["nfs-common"]);
    assert!(nodes[1].taints.is_empty());
    assert_eq!(nodes[2].taints[0].to_string(), "a:NoSchedule");
    assert_eq!(nodes[1].kernel_args, ["quiet"]);
}

#[test]
fn mappings_merge_and_none_switches_off() {
    let nodes = nodes(FILE);
    assert_eq!(nodes[1].sysctls["vm.swappiness"], "10");
    assert_eq!(nodes[1].sysctls["net.core.somaxconn"], "1024");
    assert!(nodes[0].ssh.is_none());
    assert!(nodes[1].ssh.is_some());
    assert_eq!(nodes[1].timezone.as_str(), "Etc/UTC");
    assert_eq!(nodes[2].timezone.as_str(), "Europe/Berlin");
}

#[test]
fn a_reserved_control_plane_is_tainted() {
    let taints: Vec<_> = nodes(FILE)[0].taints.iter().map(ToString::to_string).collect();
    assert_eq!(taints, ["node-role.kubernetes.io/control-plane:NoSchedule"]);
}

/// A thousand machines are within the budget of a plan (100 ms in a release build); debug builds get room.
#[test]
fn a_thousand_machines() {
    let mut text =
        FILE.split("  nodes:").next().expect("has nodes").replace("192.168.1.0/24", "192.168.0.0/16");
    text = text.replace("network: {", "network: { pods: 10.64.0.0/12,");
    text.push_str("  nodes:\n    - { name: c, role: control-plane, address: 192.168.250.1 }\n");
    for n in 0..999 {
        let (a, b) = (n / 250, n % 250 + 2);
        text.push_str(&format!("    - {{ name: w{n}, role: worker, address: 192.168.{a}.{b}, mac: \"02:00:00:00:{a:02x}:{b:02x}\" }}\n"));
    }
    assert_eq!(nodes(&text).len(), 1000);
}
