use super::*;
use bramble_api::document::*;
use bramble_api::names::{Board, Role};
use std::collections::BTreeMap;
use std::error::Error;
use std::net::Ipv4Addr;

type Outcome = Result<(), Box<dyn Error>>;

fn document(datastore: Option<Datastore>) -> Result<MachineDocument, Box<dyn Error>> {
    let role = if datastore.is_some() { Role::ControlPlane } else { Role::Worker };
    Ok(MachineDocument {
        format: FORMAT,
        cluster: "home".into(),
        machine: Machine {
            name: "n1".into(),
            number: 1,
            role,
            board: Board::UefiArm64,
            card: 1,
            incarnation: "0123456789abcdef0123456789abcdef".into(),
            generation: 1,
            machine_id: "0".repeat(32),
            issued_at: 1_800_000_000,
            keep_data: false,
        },
        network: Network {
            address: Ipv4Addr::new(192, 168, 1, 11),
            subnet: "192.168.1.0/24".parse()?,
            gateway: None,
            dns: vec![Ipv4Addr::new(192, 168, 1, 1)],
            ntp: vec![],
            domain: "home.arpa".into(),
            addressing: Addressing::Static,
            mac: None,
            mtu: None,
            interfaces: vec![],
            hosts: vec![],
            proxy: BTreeMap::new(),
        },
        system: System::default(),
        management: None,
        node_api: None,
        ssh: None,
        kubernetes: Some(Kubernetes {
            distribution: Distribution::Upstream,
            version: "v1.36.3".into(),
            endpoint: (Ipv4Addr::new(192, 168, 1, 11), 6443),
            pods: "10.42.0.0/16".parse()?,
            services: "10.43.0.0/16".parse()?,
            cluster_domain: "cluster.local".into(),
            pod_range: "10.42.1.0/24".parse()?,
            cni: Cni::FlannelHostGw,
            labels: [("tier", "shelf"), ("node-role.kubernetes.io/nas", "")]
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .into(),
            taints: vec!["dedicated=media:NoSchedule".into()],
            control_plane: datastore.map(|datastore| ControlPlane {
                datastore,
                pod_security: "restricted".into(),
                audit_log: true,
                encrypt_secrets: true,
                manifests: vec!["kind: One\n".into(), "kind: Two\n".into()],
            }),
            k3s: None,
            files: [
                ("pki/client-ca.crt", "CERT\n"),
                ("pki/x.key", "KEY\n"),
                ("kubelet.conf", "CONF\n"),
                ("encryption.yaml", "ENC\n"),
            ]
            .map(|(k, v)| (k.to_string(), v.to_string()))
            .into(),
        }),
    })
}

/// Everything rendered as one text.
fn text(rendered: &Rendered) -> String {
    let mut text = String::new();
    for file in &rendered.files {
        text += &format!("==> {} {:04o}\n{}\n", file.path, file.mode, String::from_utf8_lossy(&file.content));
    }
    for (path, target) in &rendered.links {
        text += &format!("{path} -> {target}\n");
    }
    text
}

fn content(rendered: &Rendered, path: &str) -> Option<String> {
    let file = rendered.files.iter().find(|f| f.path == path)?;
    Some(String::from_utf8_lossy(&file.content).into_owned())
}

fn change(change: impl FnOnce(&mut MachineDocument, &mut Kubernetes)) -> Result<Rendered, Box<dyn Error>> {
    let mut document = document(None)?;
    let mut kubernetes = document.kubernetes.take().ok_or("no kubernetes")?;
    change(&mut document, &mut kubernetes);
    document.kubernetes = Some(kubernetes);
    Ok(render(&document))
}

#[test]
fn control_plane_with_etcd() -> Outcome {
    insta::assert_snapshot!(text(&render(&document(Some(Datastore::Etcd))?)));
    Ok(())
}

#[test]
fn control_plane_with_sqlite_differs_in_its_datastore_only() -> Outcome {
    let (etcd, sqlite) =
        (render(&document(Some(Datastore::Etcd))?), render(&document(Some(Datastore::Sqlite))?));
    let lines = |r: &Rendered| text(r).lines().map(String::from).collect::<Vec<_>>();
    let (etcd, sqlite) = (lines(&etcd), lines(&sqlite));
    let only = |a: &[String], b: &[String], sign: char| {
        a.iter().filter(|l| !b.contains(l)).map(|l| format!("{sign} {l}\n")).collect::<String>()
    };
    insta::assert_snapshot!(only(&etcd, &sqlite, '-') + &only(&sqlite, &etcd, '+'));
    Ok(())
}

#[test]
fn worker() -> Outcome {
    insta::assert_snapshot!(text(&render(&document(None)?)));
    Ok(())
}

#[test]
fn a_machine_without_upstream_kubernetes_gets_nothing() -> Outcome {
    let mut management = document(None)?;
    management.kubernetes = None;
    assert!(render(&management) == Rendered::default());
    assert!(change(|_, k| k.distribution = Distribution::K3s)? == Rendered::default());
    Ok(())
}

#[test]
fn vxlan_leaves_room_for_its_headers() -> Outcome {
    let rendered = change(|d, k| {
        k.cni = Cni::FlannelVxlan;
        d.network.mtu = Some(9000);
    })?;
    let conflist = content(&rendered, "/etc/cni/net.d/10-bramble.conflist").ok_or("no conflist")?;
    assert!(conflist.contains("\"mtu\": 8950"), "{conflist}");
    assert!(content(&rendered, "/etc/kubernetes/flannel.json").is_some_and(|t| t.contains("\"vxlan\"")));
    Ok(())
}

#[test]
fn without_a_network_of_ours_the_node_waits_for_the_users() -> Outcome {
    let rendered = change(|_, k| k.cni = Cni::None)?;
    assert!(!text(&rendered).contains("flannel"));
    assert!(content(&rendered, "/etc/cni/net.d/10-bramble.conflist").is_none());
    assert!(content(&rendered, "/etc/kubernetes/podnat.nft").is_none());
    Ok(())
}

#[test]
fn a_proxy_reaches_the_container_runtime() -> Outcome {
    let rendered = change(|d, _| {
        d.network.proxy = [("https_proxy".to_string(), "http://user:word@proxy:3128".to_string())].into();
    })?;
    let file =
        rendered.files.iter().find(|f| f.path == "/etc/containerd/environment").ok_or("no environment")?;
    assert_eq!(file.content, b"HTTPS_PROXY=http://user:word@proxy:3128\n");
    // It may hold a password.
    assert_eq!(file.mode, 0o600);
    Ok(())
}

/// Every unit that a machine enables is in the image, and every helper and environment file that a unit names exists.
#[test]
fn units_name_only_what_there_is() -> Outcome {
    let image = image_files();
    let rendered = render(&document(Some(Datastore::Etcd))?);
    let sqlite = render(&document(Some(Datastore::Sqlite))?);
    let exists =
        |path: &str| [&image, &rendered, &sqlite].iter().any(|r| r.files.iter().any(|f| f.path == path));
    for (path, target) in rendered.links.iter().chain(&sqlite.links) {
        assert!(exists(target), "{path}");
    }
    let mut named = 0;
    for unit in image.files.iter().filter(|f| f.path.ends_with(".service")) {
        let unit_text = String::from_utf8_lossy(&unit.content);
        assert!(!unit_text.contains("Requires="), "{}", unit.path);
        for line in unit_text.lines() {
            let Some((key, value)) = line.split_once('=') else { continue };
            let environment = key == "EnvironmentFile" && value.starts_with('/');
            // A helper may be named after what waits for it.
            for word in value.split(' ').filter(|w| environment || w.starts_with("/usr/lib/bramble/")) {
                named += 1;
                assert!(exists(word), "{}: {line}", unit.path);
            }
            if key == "After" || key == "Before" {
                for other in value.split(' ').filter(|o| o.ends_with(".service")) {
                    let ours = exists(&format!("/usr/lib/systemd/system/{other}"));
                    assert!(ours || other == "systemd-modules-load.service", "{}: {other}", unit.path);
                }
            }
        }
    }
    assert_eq!(named, 14);
    Ok(())
}
