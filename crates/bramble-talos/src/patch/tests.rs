use super::*;

const CONFIG: &str = "\
version: v1alpha1
machine:
    type: worker
    certSANs:
        - a
    nodeLabels:
        x: \"1\"
        y: \"2\"
    kubelet:
        extraArgs:
            v: \"2\"
    network:
        interfaces:
            - interface: eth0
              mtu: 1500
cluster:
    network:
        podSubnets:
            - 10.244.0.0/16
---
apiVersion: v1alpha1
kind: VolumeConfig
name: EPHEMERAL
mount:
    secure: true
";

fn patched(patch: &str) -> String {
    patched_of(CONFIG, patch)
}

fn patched_of(config: &str, patch: &str) -> String {
    let mut config = Documents(
        yaml::read(config)
            .unwrap()
            .into_iter()
            .filter_map(|v| if let Value::Map(m) = v { Some(m) } else { None })
            .collect(),
    );
    match Patch::read(patch).and_then(|p| p.apply(&mut config, Release::V1_14)) {
        Ok(()) => config.text().expose().clone(),
        Err(error) => format!("{error}\n"),
    }
}

#[test]
fn strategic_patches_do_what_the_fields_say() {
    insta::assert_snapshot!(patched(
        "machine:\n  certSANs: [b]\n  nodeLabels: {x: {$patch: delete}, z: \"3\"}\n  kubelet: {extraArgs: {v: \"4\"}}\n  \
         network: {interfaces: [{interface: eth0, dhcp: true}, {interface: eth1}]}\ncluster:\n  network: {podSubnets: [10.0.0.0/8]}\n\
         ---\napiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\nmount: {secure: false}\n\
         ---\napiVersion: v1alpha1\nkind: SysctlConfig\nparams: {a.b: 0}\n"
    ));
}

#[test]
fn a_certificate_and_its_key_are_replaced_together() {
    let config = "machine:\n  ca: {crt: QQ==, key: Qg==}\n  registries:\n    config:\n      ghcr.io:\n        tls: {clientIdentity: {crt: QQ==, key: Qg==}}\n";
    for patch in ["machine: {ca: {key: ''}}", "machine: {ca: {}}"] {
        let out = patched_of(config, patch);
        assert!(out.starts_with("machine:\n    ca:\n        crt: \"\"\n        key: \"\"\n"), "{out}");
    }
    let out = patched_of(config, "machine: {ca: {crt: Qw==}}");
    assert!(out.starts_with("machine:\n    ca:\n        crt: Qw==\n        key: \"\"\n"), "{out}");
    let out = patched_of(
        config,
        "machine: {registries: {config: {ghcr.io: {tls: {clientIdentity: {key: RA==}}}}}}",
    );
    assert!(
        out.contains(
            "clientIdentity:\n                        crt: \"\"\n                        key: RA==\n"
        ),
        "{out}"
    );
    // Nothing that is said is nothing that is changed.
    assert_eq!(
        patched_of(config, "machine: {ca: null}"),
        patched_of(config, "debug: false").replace("debug: false\n", "")
    );
}

#[test]
fn operations_change_the_main_document() {
    let out = patched(
        r#"[{"op":"add","path":"/machine/certSANs/-","value":"b"},{"op":"replace","path":"/machine/type","value":"controlplane"},
            {"op":"remove","path":"/machine/nodeLabels/x"},{"op":"copy","from":"/machine/certSANs/0","path":"/machine/certSANs/0"},
            {"op":"test","path":"/machine/kubelet/extraArgs/v","value":"2"},{"op":"add","path":"/machine/a~1b","value":{"c":1}}]"#,
    );
    let first = out.split("---").next().unwrap();
    for part in ["- a\n        - a\n        - b\n", "type: controlplane", "a/b:\n        c: 1\n"] {
        assert!(first.contains(part), "{first}");
    }
    assert!(!first.contains("x:"), "{first}");
    assert!(out.contains("kind: VolumeConfig"));
}

#[test]
fn what_does_not_fit_is_named() {
    for (patch, says) in [
        ("", "empty"),
        ("[]", "no operation"),
        ("a: 1\n", "neither `machine`"),
        ("kind: X\na: 1\n", "without the other"),
        ("- op: remove\n  path: /machine/nope\n", "/machine/nope"),
        ("- op: frob\n  path: /a\n", "no `op`"),
        ("- op: add\n  path: /machine/certSANs/7\n  value: x\n", "no such place"),
        ("machine: {nodeLabels: {q: {$patch: delete}}}\n", "nothing is there"),
        ("machine: {nodeLabels: [a]}\n", "machine.nodeLabels"),
        ("machine: {$patch: delete}\n$patch: delete\n", "main document"),
    ] {
        let out = patched(patch);
        assert!(out.contains(says), "{patch:?}: {out}");
    }
}

#[test]
fn a_document_that_is_not_there_need_not_be_deleted() {
    let out = patched("apiVersion: v1alpha1\nkind: HostnameConfig\n$patch: delete\n");
    assert_eq!(out.matches("kind:").count(), 1);
    let out = patched("apiVersion: v1alpha1\nkind: VolumeConfig\nname: EPHEMERAL\n$patch: delete\n");
    assert_eq!(out.matches("kind:").count(), 0);
}
