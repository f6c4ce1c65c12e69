use super::*;

const TALCONFIG: &str = r#"
clusterName: home
talosVersion: v1.13.9
kubernetesVersion: v1.36.3
endpoint: https://10.0.20.10:6443
allowSchedulingOnControlPlanes: true
additionalApiServerCertSans: [k8s.home.arpa]
clusterPodNets: [10.244.0.0/16]
cniConfig: { name: none }
patches:
  - "@patches/all.yaml"
  - |-
    machine:
      features: { diskQuotaSupport: true }
  - "{{ template }}"
imageFactory: { registryURL: factory.example.org }
controlPlane:
  schematic:
    customization:
      extraKernelArgs: [net.ifnames=0]
      systemExtensions: { officialExtensions: [siderolabs/i915] }
      meta: [{ key: 12, value: x }]
  ingressFirewall:
    defaultAction: block
    rules: [{ name: kubelet, portSelector: { ports: [10250], protocol: tcp }, ingress: [{ subnet: 10.0.20.0/24 }] }]
worker:
  kernelModules: [{ name: nbd }, { name: drbd, parameters: [a=b] }]
nodes:
  - hostname: n1
    ipAddress: 10.0.20.11
    controlPlane: true
    installDiskSelector: { serial: S1 }
    networkInterfaces:
      - deviceSelector: { hardwareAddr: "EC:b1:d7:00:00:01" }
        addresses: [10.0.20.11/24]
        routes: [{ network: 0.0.0.0/0, gateway: 10.0.20.1 }]
        mtu: 9000
  - hostname: n2
    ipAddress: "10.0.20.12, fd00::12"
    controlPlane: false
    installDisk: /dev/nvme0n1
    nodeLabels: { tier: shelf }
    nodeTaints: { dedicated: "media:NoSchedule" }
    userVolumes: [{ name: data, provisioning: { minSize: 1GiB } }]
    networkInterfaces: [{ interface: bond0, bond: { mode: 802.3ad, interfaces: [a, b] }, dhcp: true }]
    extraManifests: [x.yaml]
    frobnicate: 1
"#;

#[test]
fn a_talconfig_becomes_a_file_that_passes() {
    let imported = import(TALCONFIG).unwrap();
    bramble_spec::parse(&imported.file, "bramble.yaml").unwrap_or_else(|e| panic!("{e}\n{}", imported.file));
    insta::assert_snapshot!(format!(
        "{}\nchanged:\n{}\n\nlost:\n{}",
        imported.file,
        imported.changed.join("\n"),
        imported.lost.join("\n")
    ));
}

#[test]
fn variables_are_those_of_a_shell() {
    let value = |name: &str| (name == "A").then(|| "1".to_string());
    let (text, used) = substitute("a ${A} $A ${B:-2} $$ $5 ${ x", &value).unwrap();
    assert_eq!(text, "a 1 1 2 $$ $5 ${ x");
    assert_eq!(used, ["A", "B"]);
    let missing = substitute("${B} $C", &value).unwrap_err().to_string();
    assert!(missing.contains("B, C"), "{missing}");
}

#[test]
fn something_else_is_said_to_be() {
    for (text, says) in
        [("a: [", "YAML"), ("a: 1", "clusterName"), ("clusterName: a\nendpoint: b\n", "nodes")]
    {
        let error = import(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
