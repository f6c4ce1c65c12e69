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
  - "@./patches/variables.yaml"
  - "@patches/template.yaml"
  - "@patches/secret.sops.yaml"
  - "@patches/dollars.yaml"
  - "@patches/gone.yaml"
inlineManifests:
  - { name: a, contents: "kind: Namespace" }
  - { name: b, contents: "@manifests/b.yaml" }
  - { name: c, contents: "@ manifests/b.yaml", skipEnvsubst: true }
  - { name: d, contents: "@manifests/secret.sops.yaml" }
  - { name: e, contents: "@manifests/gone.yaml" }
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

fn file(path: &str) -> Result<String, String> {
    Ok(match path {
        "patches/all.yaml" => "# $COMMENT\nmachine: {certSANs: [a]}\n",
        "patches/variables.yaml" => "machine: {certSANs: [\"${DOMAIN}\", \"${A:-b}\"]}\n",
        "patches/template.yaml" => "machine: {certSANs: [{{ .X }}]}\n",
        "patches/dollars.yaml" => "machine: {env: {A: $$B}}\n",
        "patches/secret.sops.yaml" | "manifests/secret.sops.yaml" => "a: ENC[$X]\nsops:\n    mac: x\n",
        "manifests/b.yaml" => "name: $NAME\n",
        _ => return Err("it is not there".into()),
    }
    .to_string())
}

fn variable(name: &str) -> Option<String> {
    (name == "NAME").then(|| "home".to_string())
}

fn imported(text: &str) -> Result<Imported, ImportError> {
    import(text, &Surroundings { file: &file, variable: &variable })
}

#[test]
fn a_talconfig_becomes_a_file_that_passes() {
    let imported = imported(TALCONFIG).unwrap();
    bramble_spec::parse(&imported.file, "bramble.yaml").unwrap_or_else(|e| panic!("{e}\n{}", imported.file));
    insta::assert_snapshot!(format!(
        "{}\nchanged:\n{}\n\nlost:\n{}\n\nfiles:\n{}",
        imported.file,
        imported.changed.join("\n"),
        imported.lost.join("\n"),
        imported.files.join("\n")
    ));
}

#[test]
fn variables_are_those_of_talhelper() {
    let value = |name: &str| match name {
        "A" => Some("1".to_string()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    for (text, becomes) in [
        ("a ${A} $A/$A.", "a 1 1/1."),
        ("${B:-2} ${B-2} ${B:=2} ${B=2} ${EMPTY:-2} ${A:-2}", "2 2 2 2 2 1"),
        ("${A:+2}${B:+2} ${A+2}${B+2}", "2 2"),
        ("${B:-$A}", "1"),
        ("$$A $$$A $5 ${5} ${ x $ $_", "$A $1 $5 ${5} ${ x $ $_"),
        ("# $B\na: b # ${B}\n", "# $B\na: b # ${B}\n"),
    ] {
        let (out, used) = substitute(text, &value).unwrap_or_else(|e| panic!("{text}: {e}"));
        assert_eq!(out, becomes, "{text}");
        assert!(used.iter().all(|name| ["A", "B", "EMPTY"].contains(&name.as_str())), "{used:?}");
    }
    let missing = substitute("${B} $C ${EMPTY} ${D:-$E} \"a # $F\"", &value).unwrap_err().to_string();
    assert!(missing.ends_with("B, C, D, EMPTY, F"), "{missing}");
}

#[test]
fn something_else_is_said_to_be() {
    for (text, says) in
        [("a: [", "YAML"), ("a: 1", "clusterName"), ("clusterName: a\nendpoint: b\n", "nodes")]
    {
        let error = imported(text).unwrap_err().to_string();
        assert!(error.contains(says), "{error}");
    }
}
