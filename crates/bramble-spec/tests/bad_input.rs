//! What a file that is wrong gets: each case is a sound file with one edit, drawn with its carets.

use bramble_spec::{Diagnostic, Severity, parse};

const SOUND: &str = r#"apiVersion: bramble.home.arpa/v1alpha1
kind: Cluster
metadata:
  name: home
spec:
  kubernetes:
    distribution: upstream
    version: v1.36.3
    endpoint: { address: 192.168.1.11, port: 6443 }
  network:
    subnet: 192.168.1.0/24
    gateway: 192.168.1.1
    dns: [192.168.1.1]
  os:
    packages: [open-iscsi]
  nodes:
    - name: n1
      role: control-plane
      board: uefi-amd64
      address: 192.168.1.11
      mac: dc:a6:32:00:00:01
      disks: { boot: { size: 32GB }, data: { serial: S4EV1 } }
    - name: n2
      role: worker
      board: uefi-amd64
      address: 192.168.1.12
      mac: dc:a6:32:00:00:02
"#;

/// Draws findings the way a console would, long lines cut.
fn draw(source: &str, findings: &[Diagnostic]) -> String {
    let lines: Vec<&str> = source.lines().collect();
    let mut out = String::new();
    for found in findings {
        let severity = match found.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        out.push_str(&format!("{severity}[{}]: {}\n", found.code, found.message));
        let line = lines.get(found.line as usize - 1).copied().unwrap_or("");
        let length = line.chars().count() as u32;
        assert!(found.column >= 1 && found.length >= 1, "{found:?}");
        assert!(found.column + found.length <= length.max(1) + 2, "{found:?} in a line of {length}");
        let shown: String = line.chars().take(100).map(|c| if c == '\t' { '>' } else { c }).collect();
        out.push_str(&format!("{:>4} | {shown}\n", found.line));
        let carets = "^".repeat(found.length.min(60) as usize);
        out.push_str(&format!("     | {}{carets} {}\n", " ".repeat(found.column as usize - 1), found.label));
        if let Some(hint) = &found.hint {
            out.push_str(&format!("     = {hint}\n"));
        }
    }
    out
}

fn verdict(source: &str) -> String {
    match parse(source, "bramble.yaml") {
        Ok(checked) if checked.warnings.is_empty() => "accepted\n".into(),
        Ok(checked) => draw(source, &checked.warnings),
        Err(found) => draw(source, &found.list),
    }
}

/// Runs edits of the sound file: a title, what is replaced, and by what.
fn cases(edits: &[(&str, &str, &str)]) -> String {
    let mut out = String::new();
    for (title, from, to) in edits {
        assert!(SOUND.contains(from), "{title}: `{from}` is not in the sound file");
        out.push_str(&format!("## {title}\n{}\n", verdict(&SOUND.replacen(from, to, 1))));
    }
    out
}

fn snapshot(name: &str, text: String) {
    // The text names its own cases; the source of the test beside it would only repeat them.
    insta::with_settings!({ omit_expression => true }, { insta::assert_snapshot!(name, text) });
}

#[test]
fn the_sound_file_is_sound() {
    assert_eq!(verdict(SOUND), "accepted\n");
}

#[test]
fn lines_of_config_txt() {
    let with = |line: &str| {
        let firmware = format!("packages: [open-iscsi]\n    firmware: [\"{line}\"]");
        verdict(&SOUND.replacen("packages: [open-iscsi]", &firmware, 1))
    };
    assert_eq!(with("over_voltage=2"), "accepted\n");
    assert_eq!(with("dtoverlay=disable-bt"), "accepted\n");
    let own = with("kernel=vmlinuz");
    assert!(
        own.starts_with("error[bad-value]: `kernel=vmlinuz` cannot stand in config.txt\n  16 |"),
        "{own}"
    );
    assert!(with("initramfs mine followkernel").contains("set by the build"));
    assert!(with(&"x".repeat(99)).contains("98 characters"));
}

#[test]
fn keys() {
    snapshot(
        "keys",
        cases(&[
            ("a misspelt key", "    version:", "    versoin:"),
            ("an unknown key", "  os:\n", "  os:\n    colour: red\n"),
            (
                "a key of another place",
                "      role: worker",
                "      role: worker\n      subnet: 192.168.1.0/24",
            ),
            ("snake case", "metadata", "meta_data"),
            (
                "a duplicate key",
                "    gateway: 192.168.1.1",
                "    gateway: 192.168.1.1\n    gateway: 192.168.1.2",
            ),
            ("a missing key", "      role: worker\n", ""),
            ("a key without a value", "    subnet: 192.168.1.0/24", "    subnet:"),
            ("a list for a text", "  name: home", "  name: [home]"),
            ("a text for a list", "packages: [open-iscsi]", "packages: open-iscsi"),
            (
                "a text for a mapping",
                "disks: { boot: { size: 32GB }, data: { serial: S4EV1 } }",
                "disks: sda",
            ),
            (
                "the board is nowhere",
                "      board: uefi-amd64\n      address: 192.168.1.12",
                "      address: 192.168.1.12",
            ),
        ]),
    );
}

#[test]
fn words() {
    snapshot(
        "words",
        cases(&[
            ("a misspelt word", "distribution: upstream", "distribution: upstraem"),
            ("an unknown board", "board: uefi-amd64", "board: rock64"),
            ("yes", "    version: v1.36.3", "    version: v1.36.3\n    auditLog: yes"),
            ("off", "    version: v1.36.3", "    version: v1.36.3\n    auditLog: off"),
            ("a version without v", "v1.36.3", "1.36.3"),
            ("half a version", "v1.36.3", "v1.36"),
            ("a release that is not served", "v1.36.3", "v1.99.0"),
            ("a release of k3s", "v1.36.3", "v1.36.3+k3s1"),
            ("an address with a prefix", "address: 192.168.1.12", "address: 192.168.1.12/24"),
            ("an address that is none", "address: 192.168.1.12", "address: 192.168.1.300"),
            ("a range without a prefix", "subnet: 192.168.1.0/24", "subnet: 192.168.1.0"),
            ("an IPv6 range", "subnet: 192.168.1.0/24", "subnet: fd00::/64"),
            ("a hardware address that is none", "mac: dc:a6:32:00:00:02", "mac: dc:a6:32:00:02"),
            ("a group address", "mac: dc:a6:32:00:00:02", "mac: 01:00:5e:00:00:02"),
            ("a size without a unit", "size: 32GB", "size: 32"),
            ("a size with a wrong unit", "size: 32GB", "size: 32G"),
            ("a name with capitals", "name: n2", "name: Node_2"),
            ("a port that is too large", "port: 6443", "port: 644300"),
            ("a window", "  os:\n", "  os:\n    updates: { source: \"https://u.home.arpa\", window: 2-5 }\n"),
            (
                "an address with a password",
                "  os:\n",
                "  os:\n    updates: { source: \"https://me:pw@u.home.arpa\" }\n",
            ),
            (
                "a private key",
                "  os:\n",
                "  os:\n    ssh: { authorizedKeys: [\"-----BEGIN OPENSSH PRIVATE KEY-----\"] }\n",
            ),
            ("two names for a disk", "data: { serial: S4EV1 }", "data: { serial: S4EV1, wwid: w }"),
            ("no name for a disk", "data: { serial: S4EV1 }", "data: {}"),
        ]),
    );
}

#[test]
fn labels_and_taints() {
    let with = |text: &str| format!("      role: worker\n{text}");
    let edits = [
        ("a label with a space", "      labels: { \"my tier\": shelf }"),
        ("a value with a slash", "      labels: { tier: a/b }"),
        (
            "a value that is too long",
            "      labels: { tier: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa }",
        ),
        ("a prefix that is no domain", "      labels: { Example.org/tier: shelf }"),
        ("a role label", "      labels: { node-role.kubernetes.io/worker: \"\" }"),
        (
            "labels that are taken",
            "      labels: { example.org/tier: shelf, node.kubernetes.io/shelf: \"1\", topology.kubernetes.io/zone: attic }",
        ),
        ("a taint without an effect", "      taints: [\"dedicated=media\"]"),
        ("a misspelt effect", "      taints: [\"dedicated=media:NoSchedul\"]"),
        ("a taint with a bad key", "      taints: [\"-dedicated:NoExecute\"]"),
        ("a taint that is taken", "      taints: [\"dedicated:NoExecute\"]"),
    ];
    let edits: Vec<_> = edits.iter().map(|(title, text)| (*title, with(text))).collect();
    let edits: Vec<_> =
        edits.iter().map(|(title, text)| (*title, "      role: worker", text.as_str())).collect();
    snapshot("labels_and_taints", cases(&edits));
}

#[test]
fn values_against_each_other() {
    snapshot(
        "values_against_each_other",
        cases(&[
            ("one name twice", "name: n2", "name: n1"),
            ("one address twice", "address: 192.168.1.12", "address: 192.168.1.11"),
            ("one hardware address twice", "dc:a6:32:00:00:02", "DC-A6-32-00-00-01"),
            ("one serial twice", "      mac: dc:a6:32:00:00:02", "      disks: { boot: { serial: S4EV1 } }"),
            ("outside the subnet", "address: 192.168.1.12", "address: 192.168.2.12"),
            ("the gateway's address", "address: 192.168.1.12", "address: 192.168.1.1"),
            ("the broadcast address", "address: 192.168.1.12", "address: 192.168.1.255"),
            ("the network's address", "address: 192.168.1.12", "address: 192.168.1.0"),
            ("the gateway outside", "gateway: 192.168.1.1", "gateway: 192.168.0.1"),
            ("a worker alone", "role: control-plane", "role: worker"),
            ("no control plane at all", "role: worker", "role: management"),
            ("two control planes", "role: worker", "role: control-plane"),
            ("a Pi 3 as control plane", "      board: uefi-amd64", "      board: pi3"),
            ("host bits", "subnet: 192.168.1.0/24", "subnet: 192.168.1.5/24"),
            ("pods over the subnet", "    dns:", "    pods: 192.168.0.0/16\n    dns:"),
            ("services over pods", "    dns:", "    services: 10.42.128.0/17\n    dns:"),
            ("the subnet over pods", "subnet: 192.168.1.0/24", "subnet: 10.42.1.0/24"),
            ("too few pods", "    dns:", "    pods: 10.42.0.0/24\n    dns:"),
            ("too few services", "    dns:", "    services: 10.43.0.0/29\n    dns:"),
            ("public pods", "    dns:", "    pods: 11.0.0.0/16\n    dns:"),
            ("an endpoint that nobody has", "address: 192.168.1.11, port", "address: 192.168.1.10, port"),
            ("an endpoint without an API", "address: 192.168.1.11, port", "address: 192.168.1.12, port"),
            (
                "an endpoint that someone else holds",
                "address: 192.168.1.11, port: 6443",
                "address: 192.168.1.10, vip: external",
            ),
            (
                "Talos' address without Talos",
                "address: 192.168.1.11, port: 6443",
                "address: 192.168.1.10, vip: talos",
            ),
            (
                "a shared address that is taken",
                "address: 192.168.1.11, port: 6443",
                "address: 192.168.1.11, vip: kube-vip",
            ),
            ("servicelb without k3s", "    version:", "    loadBalancer: servicelb\n    version:"),
            (
                "a pool over a machine",
                "    version:",
                "    loadBalancer: { kind: metallb, pools: [192.168.1.0/28] }\n    version:",
            ),
            ("a pool without pools", "    version:", "    loadBalancer: metallb\n    version:"),
            ("keys of another kind", "    version:", "    cni: { kind: none, backend: vxlan }\n    version:"),
            ("the Gateway API without Cilium", "    version:", "    ingress: gateway-api\n    version:"),
            ("Talos without its version", "distribution: upstream", "distribution: talos"),
            ("Talos with SQLite", "distribution: upstream", "distribution: talos\n    datastore: sqlite"),
            ("the same domain twice", "    dns:", "    domain: cluster.local\n    dns:"),
            ("an mDNS domain", "    dns:", "    domain: attic.local\n    dns:"),
            ("no gateway", "    gateway: 192.168.1.1\n", ""),
            ("a newer tool", "spec:\n", "spec:\n  minimumToolVersion: 99.0.0\n"),
            ("ssh for nobody", "  os:\n", "  os:\n    ssh: { authorizedKeys: [] }\n"),
            ("a proxy without an address", "    dns:", "    proxy: { noProxy: [a] }\n    dns:"),
            ("half a login", "    dns:", "    registries: { docker.io: { username: me } }\n    dns:"),
            ("a reserved address from a router", "role: worker", "role: worker\n      addressing: dhcp"),
            (
                "a volume at the wrong place",
                "      role: worker",
                "      role: worker\n      disks: { volumes: [{ name: a, selector: { serial: X }, mount: /etc }] }",
            ),
            (
                "a VLAN that is none",
                "      role: worker",
                "      role: worker\n      interfaces: [{ name: lan, vlan: 5000 }]",
            ),
        ]),
    );
}

#[test]
fn all_errors_come_at_once() {
    let text = SOUND
        .replace("v1.36.3", "1.36")
        .replace("gateway: 192.168.1.1", "gatevay: 192.168.1.1")
        .replace("role: worker", "role: worker\n      role: worker\n      labels: { \"a b\": c }")
        .replace("address: 192.168.1.12", "address: 192.168.2.12")
        .replace("name: n2", "name: n1")
        .replace("dc:a6:32:00:00:02", "nonsense");
    snapshot("all_errors_come_at_once", verdict(&text));
}

#[test]
fn yaml() {
    let long = format!("metadata:\n  name: {}\n", "x".repeat(200_000));
    let cases = [
        ("nothing", String::new()),
        ("only a comment", "# nothing\n".into()),
        ("a text", "hello\n".into()),
        ("a list", "- a\n".into()),
        ("a tab", SOUND.replace("    version: v1.36.3", "\tversion: v1.36.3")),
        ("a tab in a flow", SOUND.replace("dns: [192.168.1.1]", "dns: [\n\t192.168.1.1]")),
        ("an open brace", SOUND.replace("{ size: 32GB }", "{ size: 32GB")),
        ("a tab after spaces", SOUND.replace("    version: v1.36.3", "    \tversion: v1.36.3")),
        (
            "an anchor and an alias",
            SOUND
                .replace(
                    "board: uefi-amd64\n      address: 192.168.1.11",
                    "board: &b uefi-amd64\n      address: 192.168.1.11",
                )
                .replace("board: uefi-amd64", "board: *b"),
        ),
        ("an alias of nothing", SOUND.replace("name: home", "name: *home")),
        ("a merge key", SOUND.replace("      role: worker", "      role: worker\n      <<: { board: pi4 }")),
        ("a tag", SOUND.replace("name: home", "name: !!str home")),
        ("two documents", format!("{SOUND}---\n{SOUND}")),
        ("an open bracket", SOUND.replace("dns: [192.168.1.1]", "dns: [192.168.1.1")),
        ("an open quote", SOUND.replace("name: home", "name: \"home")),
        ("a colon in a value", SOUND.replace("name: home", "name: home: sweet")),
        ("bad indentation", SOUND.replace("    gateway:", "   gateway:")),
        ("a list as a key", SOUND.replace("name: home", "[a, b]: home")),
        ("a line of 200 kB", format!("{SOUND}{long}")),
        ("a key of 200 kB", format!("? {}\n: 1\n{SOUND}", "x".repeat(200_000))),
        ("a newer format", SOUND.replace("v1alpha1", "v1beta1")),
        ("another format", SOUND.replace("bramble.home.arpa/v1alpha1", "v1")),
        ("another kind", SOUND.replace("kind: Cluster", "kind: Node")),
        ("no nodes", format!("{}  nodes: []\n", SOUND.split("  nodes:").next().expect("has nodes"))),
        ("no list of nodes", SOUND.split("  nodes:").next().expect("has nodes").to_string()),
        ("100,000 brackets", "[".repeat(100_000)),
        ("100 levels", (0..100).map(|n| format!("{}a:\n", " ".repeat(n))).collect()),
    ];
    let mut out = String::new();
    for (title, text) in &cases {
        out.push_str(&format!("## {title}\n{}\n", verdict(text)));
    }
    snapshot("yaml", out);
}

#[test]
fn a_byte_order_mark_and_dos_line_ends_are_taken() {
    assert_eq!(verdict(&format!("\u{feff}{SOUND}")), "accepted\n");
    assert_eq!(verdict(&SOUND.replace('\n', "\r\n")), "accepted\n");
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let text = " ".repeat(bramble_spec::MAX_BYTES + 1);
    let found = parse(&text, "bramble.yaml").expect_err("too large");
    assert_eq!(found.list[0].code, "too-large");
}

const UPSTREAM: &str = "    distribution: upstream\n    version: v1.36.3";

#[test]
fn k3s() {
    let old = "    distribution: k3s\n    version: v1.35.3+k3s1";
    let with = "    distribution: k3s\n    version: v1.36.4+k3s1\n    k3s:";
    let disable = format!("{with} {{ disable: [traefik] }}");
    let images = format!("{with} {{ images: [images.zip] }}");
    let key = format!("{with} {{ embedded: true }}");
    snapshot(
        "k3s",
        cases(&[
            ("an SQLite that can damage the state", UPSTREAM, old),
            ("an older minor release", UPSTREAM, "    distribution: k3s\n    version: v1.34.9+k3s1"),
            ("a part that another word decides on", UPSTREAM, &disable),
            ("an archive of another kind", UPSTREAM, &images),
            ("an unknown key", UPSTREAM, &key),
            (
                "k3s' fields without k3s",
                UPSTREAM,
                &format!("{UPSTREAM}\n    k3s: {{ embeddedRegistry: true }}"),
            ),
        ]),
    );
}

/// The first k3s whose SQLite is sound, and etcd, which has none.
#[test]
fn k3s_with_a_sound_datastore_passes() {
    for kubernetes in [
        "    distribution: k3s\n    version: v1.35.4+k3s1",
        "    distribution: k3s\n    version: v1.36.0+k3s1",
        "    distribution: k3s\n    version: v1.34.5+k3s1\n    datastore: etcd",
    ] {
        let source = SOUND.replace(UPSTREAM, kubernetes);
        let checked = parse(&source, "bramble.yaml").unwrap_or_else(|found| panic!("{found}"));
        assert_eq!((checked.warnings.len(), checked.not_served.len()), (0, 0), "{kubernetes}");
    }
}

/// The sound file as one of Talos, with an edit.
fn talos_case(title: &str, minor: u16, from: &str, to: &str) -> String {
    let talos = SOUND
        .replace("distribution: upstream", "distribution: talos")
        .replace("  os:\n    packages: [open-iscsi]\n", &format!("  talos: {{ version: v1.{minor}.1 }}\n"))
        .replace(
            "mac: dc:a6:32:00:00:02\n",
            "mac: dc:a6:32:00:00:02\n      talos: { install: { disk: { serial: S2 } } }\n",
        );
    assert!(talos.contains(from), "{title}: `{from}` is not in the file");
    format!("## {title}\n{}\n", verdict(&talos.replacen(from, to, 1)))
}

#[test]
fn talos() {
    let disk = "disk: { serial: S2 }";
    let two = "name: n2\n      role: worker";
    snapshot(
        "talos",
        [
            ("nothing wrong", 14, "name: n2", "name: n2"),
            ("a disk of any name", 14, disk, "disk: {}"),
            ("a disk by its size", 14, disk, "disk: { size: 32GB }"),
            ("a disk by its size with 1.13", 13, disk, "disk: { size: 32GB }"),
            ("no disk", 14, "      talos: { install: { disk: { serial: S2 } } }\n", ""),
            ("an installation on a Pi", 14, "uefi-amd64\n      address: 192.168.1.12", "pi4\n      address: 192.168.1.12"),
            ("a TPM in a Pi", 14, "board: uefi-amd64\n      address: 192.168.1.11", "board: pi4\n      talos: { encryption: { state: tpm }, secureBoot: true }\n      address: 192.168.1.11"),
            ("a stated address and no card", 14, "      mac: dc:a6:32:00:00:02\n", ""),
            ("Wi-Fi", 14, two, "name: n2\n      role: worker\n      interfaces: [{ name: w, mac: \"02:00:00:00:00:01\", wifi: { ssid: a, psk: { secret: b } } }]"),
            ("a second link that is the first", 14, two, "name: n2\n      role: worker\n      interfaces: [{ name: lan }]"),
            ("a volume elsewhere", 14, two, "name: n2\n      role: worker\n      disks: { volumes: [{ name: a, selector: { serial: X }, mount: /var/mnt/b }] }"),
            ("flannel's other way with 1.13", 13, "    version: v1.36.3", "    version: v1.36.3\n    cni: { kind: flannel, backend: host-gw }"),
            ("a release that is not served", 12, "name: n2", "name: n2"),
        ]
        .map(|(title, minor, from, to)| talos_case(title, minor, from, to))
        .concat(),
    );
}
