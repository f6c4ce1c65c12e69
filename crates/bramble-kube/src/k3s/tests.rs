use super::release::{Entry, Release, ReleaseError};
use super::*;
use crate::k3s::flags::{FlagError, Table};
use crate::pause;
use crate::upstream::Rendered;
use bramble_api::document::*;
use bramble_api::names::{Arch, Board, Role};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::error::Error;
use std::net::Ipv4Addr;

type Outcome = Result<(), Box<dyn Error>>;

const VERSION: &str = "v1.36.4+k3s1";

/// A file of the archive: its path below `bin`, and what it holds or leads to.
#[derive(Clone)]
enum Part {
    File(String, Vec<u8>),
    Link(String, String),
}

/// What every release has, for a processor.
fn parts(arch: Arch) -> Vec<Part> {
    let file = |name: &str| Part::File(name.into(), pause::elf(arch));
    let link = |name: &str, target: &str| Part::Link(name.into(), target.into());
    let mut parts = vec![
        file("k3s"),
        file("cni"),
        file("runc"),
        file("containerd-shim-runc-v2"),
        file("aux/busybox"),
        link("aux/modprobe", "busybox"),
    ];
    for name in ["k3s-server", "k3s-agent", "kubectl", "containerd", "crictl", "ctr"] {
        parts.push(link(name, "k3s"));
    }
    for name in ["bridge", "flannel", "host-local", "loopback", "portmap"] {
        parts.push(link(name, "cni"));
    }
    parts
}

/// The archive of a release: files and links with the two lists.
fn archive(parts: &[Part]) -> Result<Vec<u8>, Box<dyn Error>> {
    let (mut sums, mut links) = (String::new(), String::new());
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |path: &str, content: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path, content)
    };
    for part in parts {
        match part {
            Part::File(name, content) => {
                add(&format!("./bin/{name}"), content)?;
                sums += &format!("{}  /{name}\n", hex::encode(Sha256::digest(content)));
            }
            Part::Link(name, target) => links += &format!("{name} {target}\n"),
        }
    }
    add("./bin/.sha256sums", sums.as_bytes())?;
    add("./bin/.links", links.as_bytes())?;
    for part in parts {
        let Part::Link(name, target) = part else { continue };
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder.append_link(&mut header, format!("./bin/{name}"), target)?;
    }
    Ok(builder.into_inner()?)
}

/// A program of the processor that carries the tar as k3s' does: bytes before, name and archive in its data. Its header
/// says how long it is.
fn release_file(arch: Arch, tar: &[u8], version: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let compressed = zstd::encode_all(tar, 3)?;
    let mut file = pause::elf(arch);
    // Things that look like what is searched for, and are not.
    file.extend(b"\x28\xb5\x2f\xfd\xff\xff nothing.tar.zst ");
    file.extend(zstd::encode_all(&b"another frame"[..], 3)?);
    file.extend(format!("embed/{}.tar.zst", hex::encode(Sha256::digest(&compressed))).bytes());
    file.extend(compressed);
    file.extend(format!("\0{version}\0go1.26").bytes());
    let length = file.len() as u64;
    // p_filesz of the first program header (System V ABI, chapter 5).
    let at = u64::from_le_bytes(file[32..40].try_into()?) as usize;
    let offset = u64::from_le_bytes(file[at + 8..at + 16].try_into()?);
    file[at + 32..at + 40].copy_from_slice(&(length - offset).to_le_bytes());
    Ok(file)
}

fn good(arch: Arch) -> Result<Vec<u8>, Box<dyn Error>> {
    release_file(arch, &archive(&parts(arch))?, VERSION)
}

/// Where the last header of a tar that holds these bytes begins.
fn header_of(tar: &[u8], name: &[u8]) -> Option<usize> {
    let at = tar.windows(name.len()).rposition(|window| window == name)?;
    Some(at / 512 * 512)
}

/// Writes into a header of a tar, and its sum anew (POSIX ustar).
fn rewrite(tar: &mut [u8], header: usize, at: usize, bytes: &[u8]) {
    tar[header + at..header + at + bytes.len()].copy_from_slice(bytes);
    tar[header + 148..header + 156].fill(b' ');
    let sum: u32 = tar[header..header + 512].iter().map(|byte| u32::from(*byte)).sum();
    tar[header + 148..header + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

#[test]
fn a_release_is_taken_apart() -> Outcome {
    for arch in Arch::ALL {
        let release = Release::read(&good(arch)?, arch, VERSION)?;
        assert_eq!(release.archive.len(), 64);
        assert_eq!(release.entries["bin/k3s"], Entry::File { mode: 0o755, content: pause::elf(arch) });
        assert_eq!(release.entries["bin/host-local"], Entry::Link { target: "cni".into() });
        assert_eq!(release.entries["bin/aux/modprobe"], Entry::Link { target: "busybox".into() });
    }
    Ok(())
}

#[test]
fn what_is_no_such_release_is_refused_with_the_reason() -> Outcome {
    let amd64 = good(Arch::Amd64)?;
    let refused = |file: &[u8]| Release::read(file, Arch::Amd64, VERSION).err().ok_or("taken");
    assert!(matches!(refused(b"#!/bin/sh\nexec k3s\n")?, ReleaseError::NotElf));
    assert!(matches!(refused(b"")?, ReleaseError::NotElf));
    assert!(matches!(refused(&good(Arch::Arm64)?)?, ReleaseError::Foreign { found, .. } if found == "arm64"));
    assert!(matches!(refused(&pause::elf(Arch::Amd64))?, ReleaseError::NotK3s));
    for length in [20, 63, 200, amd64.len() / 2, amd64.len() - 1] {
        let error = refused(&amd64[..length])?;
        assert!(matches!(error, ReleaseError::Truncated { .. }), "{length}: {error}");
    }
    let newer = Release::read(&amd64, Arch::Amd64, "v1.36.5+k3s1").err().ok_or("taken")?;
    assert_eq!(newer.to_string(), "it is not v1.36.5+k3s1, it says v1.36.4+k3s1");
    // k3s1 is not k3s10.
    let ten = release_file(Arch::Amd64, &archive(&parts(Arch::Amd64))?, "v1.36.4+k3s10")?;
    assert!(matches!(refused(&ten)?, ReleaseError::OtherVersion { .. }));
    Ok(())
}

/// Wherever a bit is flipped in the archive, it is seen.
#[test]
fn a_damaged_archive_is_never_taken() -> Outcome {
    let file = good(Arch::Amd64)?;
    let name = file.windows(6).position(|w| w == b"embed/").ok_or("no name")?;
    let (start, end) = (name + 6 + 64 + 8, file.len() - VERSION.len() - 8);
    for at in (start..end).step_by(((end - start) / 50).max(1)) {
        let mut damaged = file.clone();
        damaged[at] ^= 4;
        let error = Release::read(&damaged, Arch::Amd64, VERSION).err().ok_or("taken")?;
        assert!(matches!(error, ReleaseError::Damaged(_)), "{at}: {error}");
    }
    Ok(())
}

#[test]
fn an_archive_that_disagrees_with_its_own_lists_is_refused() -> Outcome {
    let read = |tar: &[u8]| -> Result<ReleaseError, Box<dyn Error>> {
        let file = release_file(Arch::Amd64, tar, VERSION)?;
        Ok(Release::read(&file, Arch::Amd64, VERSION).err().ok_or("taken")?)
    };
    let whole = parts(Arch::Amd64);
    // A file changed after the sums were taken.
    let mut tar = archive(&whole)?;
    let at = tar.windows(4).position(|w| w == b"\x7fELF").ok_or("no program")?;
    tar[at + 100] ^= 1;
    assert!(matches!(read(&tar)?, ReleaseError::Sum { path } if path == "bin/k3s"));
    // A link changed after the list was made.
    let mut tar = archive(&whole)?;
    let header = header_of(&tar, b"bin/portmap\0").ok_or("no link")?;
    rewrite(&mut tar, header, 157, b"k3s\0");
    assert!(matches!(read(&tar)?, ReleaseError::Link { path } if path == "bin/portmap"));
    for needed in ["k3s-server", "host-local", "runc"] {
        let some: Vec<Part> = whole
            .iter()
            .filter(|part| !matches!(part, Part::File(name, _) | Part::Link(name, _) if name == needed))
            .cloned()
            .collect();
        let error = read(&archive(&some)?)?;
        assert!(matches!(&error, ReleaseError::Missing(name) if name.ends_with(needed)), "{error}");
    }
    // Programs of another processor in a wrapper of the right one.
    assert!(matches!(read(&archive(&parts(Arch::Arm64))?)?, ReleaseError::Foreign { .. }));
    Ok(())
}

#[test]
fn nothing_leads_out_of_the_archive() -> Outcome {
    let with = |part: Part| -> Result<ReleaseError, Box<dyn Error>> {
        let mut all = parts(Arch::Amd64);
        all.push(part);
        let file = release_file(Arch::Amd64, &archive(&all)?, VERSION)?;
        Ok(Release::read(&file, Arch::Amd64, VERSION).err().ok_or("taken")?)
    };
    for target in ["/etc/shadow", "../../etc/shadow", "../../../x"] {
        let error = with(Part::Link("odd".into(), target.into()))?;
        assert!(matches!(&error, ReleaseError::Entry { path, .. } if path.ends_with("odd")), "{error}");
    }
    // tar's own writer refuses such names, so they are put over others of the same length.
    let mut tar = archive(&parts(Arch::Amd64))?;
    let header = header_of(&tar, b"bin/runc\0").ok_or("no file")?;
    rewrite(&mut tar, header, 0, b"../bin/runc\0");
    let error = Release::read(&release_file(Arch::Amd64, &tar, VERSION)?, Arch::Amd64, VERSION).err();
    assert!(matches!(&error, Some(ReleaseError::Entry { .. })), "{error:?}");
    Ok(())
}

#[test]
fn a_release_lies_below_its_digest_and_is_found_by_links() -> Outcome {
    let release = Release::read(&good(Arch::Amd64)?, Arch::Amd64, VERSION)?;
    let digest = release.archive.clone();
    let image = layout::image_path("pause.tar", &"ab".repeat(32));
    let placed = layout::place(release, &[image]);
    let at = |path: &str| placed.iter().find(|p| p.path == path).map(|p| p.entry.clone());
    assert!(matches!(at(&format!("/usr/lib/k3s/{digest}/bin/k3s")), Some(Entry::File { mode: 0o755, .. })));
    assert_eq!(at(CURRENT), Some(Entry::Link { target: digest }));
    assert_eq!(at("/usr/bin/kubectl"), Some(Entry::Link { target: "../lib/k3s/current/bin/kubectl".into() }));
    let Some(Entry::File { content, .. }) = at("/usr/lib/tmpfiles.d/bramble-k3s-release.conf") else {
        return Err("no tmpfiles.d".into());
    };
    let lines = String::from_utf8(content)?;
    assert_eq!(
        lines,
        "L /var/lib/rancher/k3s/data/cni/bridge - - - - /usr/lib/k3s/current/bin/cni\n\
         L /var/lib/rancher/k3s/data/cni/flannel - - - - /usr/lib/k3s/current/bin/cni\n\
         L /var/lib/rancher/k3s/data/cni/host-local - - - - /usr/lib/k3s/current/bin/cni\n\
         L /var/lib/rancher/k3s/data/cni/loopback - - - - /usr/lib/k3s/current/bin/cni\n\
         L /var/lib/rancher/k3s/data/cni/portmap - - - - /usr/lib/k3s/current/bin/cni\n\
         L+ /var/lib/rancher/k3s/data/cni/cni - - - - /usr/lib/k3s/current/bin/cni\n\
         L+ /var/lib/rancher/k3s/agent/images/bramble-pause-abababababab.tar - - - - \
         /usr/lib/k3s/images/pause-abababababab.tar\n"
    );
    Ok(())
}

fn document(datastore: Option<Datastore>) -> Result<MachineDocument, Box<dyn Error>> {
    let role = if datastore.is_some() { Role::ControlPlane } else { Role::Worker };
    let files: &[(&str, &str)] = if datastore.is_some() {
        &[
            ("token", "T\n"),
            ("agent-token", "A\n"),
            ("tls/server-ca.crt", "C\n"),
            ("tls/etcd/peer-ca.key", "K\n"),
            ("node-password", "N\n"),
        ]
    } else {
        &[("token", "T\n"), ("node-password", "N\n"), ("registries.yaml", "{}\n")]
    };
    Ok(MachineDocument {
        format: FORMAT,
        cluster: "home".into(),
        machine: Machine {
            name: "n1".into(),
            number: 1,
            role,
            board: Board::Pi4,
            card: 1,
            incarnation: "0123456789abcdef".repeat(2),
            generation: 1,
            machine_id: "0".repeat(32),
            issued_at: 1_800_000_000,
            keep_data: false,
        },
        network: Network {
            address: Ipv4Addr::new(192, 168, 1, 11),
            subnet: "192.168.1.0/24".parse()?,
            gateway: Some(Ipv4Addr::new(192, 168, 1, 1)),
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
            distribution: Distribution::K3s,
            version: VERSION.into(),
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
                manifests: vec![],
            }),
            k3s: Some(K3s {
                join: datastore.is_none().then(|| "https://192.168.1.10:6443".into()),
                disable: vec!["servicelb".into(), "traefik".into()],
                tls_sans: vec!["api.home.arpa".into()],
                embedded_registry: true,
            }),
            files: files.iter().map(|(path, text)| (path.to_string(), text.to_string())).collect(),
        }),
    })
}

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

#[test]
fn server_with_etcd() -> Outcome {
    insta::assert_snapshot!(text(&render(&document(Some(Datastore::Etcd))?)));
    Ok(())
}

#[test]
fn server_with_sqlite_differs_in_its_datastore_only() -> Outcome {
    let (etcd, sqlite) =
        (render(&document(Some(Datastore::Etcd))?), render(&document(Some(Datastore::Sqlite))?));
    let lines = |r: &Rendered| text(r).lines().map(String::from).collect::<Vec<_>>();
    let (etcd, sqlite) = (lines(&etcd), lines(&sqlite));
    let only = |a: &[String], b: &[String]| a.iter().filter(|l| !b.contains(l)).cloned().collect::<Vec<_>>();
    assert_eq!(
        only(&etcd, &sqlite),
        ["    \"kube-reserved=cpu=200m,memory=900Mi\",", "  \"cluster-init\": true,"]
    );
    assert_eq!(only(&sqlite, &etcd), ["    \"kube-reserved=cpu=200m,memory=800Mi\","]);
    Ok(())
}

#[test]
fn agent() -> Outcome {
    insta::assert_snapshot!(text(&render(&document(None)?)));
    Ok(())
}

#[test]
fn another_distribution_gets_nothing() -> Outcome {
    let mut other = document(None)?;
    if let Some(kubernetes) = &mut other.kubernetes {
        kubernetes.distribution = Distribution::Upstream;
    }
    assert!(render(&other) == Rendered::default());
    Ok(())
}

/// Every machine that can be described in a few words, so that every key that can be rendered is.
fn every_kind() -> Result<Vec<MachineDocument>, Box<dyn Error>> {
    let mut all = Vec::new();
    for datastore in [None, Some(Datastore::Sqlite), Some(Datastore::Etcd)] {
        for cni in [Cni::FlannelHostGw, Cni::FlannelVxlan, Cni::None] {
            for bare in [false, true] {
                let mut document = document(datastore)?;
                let kubernetes = document.kubernetes.as_mut().ok_or("no kubernetes")?;
                kubernetes.cni = cni;
                if bare {
                    kubernetes.labels.clear();
                    kubernetes.taints.clear();
                    kubernetes.k3s = Some(K3s { join: Some("https://a:1".into()), ..K3s::default() });
                    if let Some(control_plane) = &mut kubernetes.control_plane {
                        control_plane.audit_log = false;
                        control_plane.encrypt_secrets = false;
                    }
                }
                all.push(document);
            }
        }
    }
    Ok(all)
}

#[test]
fn every_key_is_a_flag_of_every_minor_release() -> Outcome {
    for version in ["v1.34.5+k3s1", "v1.35.4+k3s1", VERSION] {
        let table = Table::of(version)?;
        for document in every_kind()? {
            table.check(document.machine.role, &render(&document))?;
        }
    }
    Ok(())
}

/// What the test above is worth: each key spelled wrong, on each machine, is found; so is each value of another kind.
#[test]
fn a_wrong_key_or_value_is_found() -> Outcome {
    let table = Table::of(VERSION)?;
    let mut tried = 0;
    for document in every_kind()? {
        let rendered = render(&document);
        let role = document.machine.role;
        let at =
            rendered.files.iter().position(|f| f.path == "/etc/rancher/k3s/config.yaml").ok_or("none")?;
        let config: serde_json::Map<String, Value> = serde_json::from_slice(&rendered.files[at].content)?;
        for (key, value) in &config {
            let with = |key: &str, value: Value| {
                let mut changed = rendered.clone();
                let mut config = config.clone();
                config.remove(key.trim_end_matches('s'));
                config.insert(key.to_string(), value);
                changed.files[at].content = Value::Object(config).to_string().into_bytes();
                table.check(role, &changed)
            };
            let unknown = with(&format!("{key}s"), value.clone());
            assert!(matches!(unknown, Err(FlagError::Unknown { .. })), "{key}: {unknown:?}");
            let odd = with(key, if value.is_object() { Value::Null } else { serde_json::json!({}) });
            assert!(matches!(odd, Err(FlagError::Value { .. })), "{key}: {odd:?}");
            tried += 1;
        }
    }
    assert!(tried > 200, "{tried}");
    Ok(())
}

/// A server's key on an agent is an error that only k3s would tell of, at boot.
#[test]
fn an_agent_has_fewer_flags_than_a_server() -> Outcome {
    let server = render(&document(Some(Datastore::Etcd))?);
    let refused = Table::of(VERSION)?.check(Role::Worker, &server);
    assert!(matches!(&refused, Err(FlagError::Unknown { command: "agent", .. })), "{refused:?}");
    assert!(matches!(Table::of("v1.99.0+k3s1"), Err(FlagError::NoTable(_))));
    Ok(())
}

#[test]
fn tables_name_where_a_flag_stands() -> Outcome {
    for version in ["v1.34.5+k3s1", "v1.35.4+k3s1", VERSION] {
        let table = Table::of(version)?;
        let declared = &table.get("server", "cluster-init").ok_or("no flag")?.declared;
        assert!(declared.starts_with("pkg/cli/cmds/server.go:"), "{declared}");
        assert!(table.get("agent", "cluster-init").is_none() && table.get("agent", "token-file").is_some());
    }
    Ok(())
}

/// Units start what a release has, and the machine enables only units that the image has.
#[test]
fn units_name_only_what_there_is() -> Outcome {
    let image = image_files();
    let placed = layout::place(Release::read(&good(Arch::Amd64)?, Arch::Amd64, VERSION)?, &[]);
    let in_release = |path: &str| {
        let inside = path.strip_prefix("/usr/lib/k3s/current/").unwrap_or("-");
        placed.iter().any(|p| p.path.ends_with(&format!("/{inside}")))
    };
    for datastore in [None, Some(Datastore::Sqlite)] {
        let rendered = render(&document(datastore)?);
        let [(_, unit)] = rendered.links.as_slice() else { return Err("one unit".into()) };
        let unit = image.files.iter().find(|file| file.path == *unit).ok_or("no such unit")?;
        let text = String::from_utf8_lossy(&unit.content).into_owned();
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).ok_or("starts nothing")?;
        let (program, command) = start.split_once(' ').ok_or("no command")?;
        assert!(in_release(program), "{program}");
        let expected = if datastore.is_some() { "server" } else { "agent" };
        assert_eq!((command, program.rsplit('-').next()), (expected, Some(expected)));
        let path = text.lines().find_map(|line| line.strip_prefix("Environment=PATH=")).ok_or("no path")?;
        let order: Vec<&str> = path.split(':').collect();
        assert_eq!(order.first().copied(), Some("/var/lib/rancher/k3s/data/cni"));
        assert_eq!(order.get(1).copied(), Some("/usr/lib/k3s/current/bin"));
        assert_eq!(order.last().copied(), Some("/usr/lib/k3s/current/bin/aux"));
        assert!(text.contains("Type=notify") && text.contains("Delegate=yes"));
    }
    Ok(())
}

/// What k3s writes to is persistent, and what was made before the first boot lies where k3s looks.
#[test]
fn k3s_keeps_its_state() -> Outcome {
    let kept = |path: &str| {
        bramble_api::names::PERSISTENT
            .iter()
            .any(|(kept, _)| path == *kept || path.starts_with(&format!("{kept}/")))
    };
    for path in [DATA, "/var/lib/kubelet", "/var/lib/cni", "/var/log/pods", "/var/log/containers"] {
        assert!(kept(path), "{path}");
    }
    let server = render(&document(Some(Datastore::Sqlite))?);
    let file = |path: &str| server.files.iter().find(|f| f.path == path).map(|f| (f.mode, f.content.clone()));
    assert_eq!(file(NODE_PASSWORD), Some((0o600, b"N\n".to_vec())));
    let (_, lines) = file("/etc/tmpfiles.d/bramble-k3s.conf").ok_or("nothing is copied")?;
    let lines = String::from_utf8(lines)?;
    assert!(lines.contains(
        "C /var/lib/rancher/k3s/server/tls/etcd/peer-ca.key 0600 root root - /etc/rancher/k3s/tls/etcd/peer-ca.key\n"
    ));
    assert!(lines.contains("C /var/lib/rancher/k3s/server/tls/server-ca.crt 0644"));
    let (_, image) = image_files()
        .files
        .into_iter()
        .find(|f| f.path.ends_with("bramble-k3s.conf"))
        .map(|f| (f.mode, f.content))
        .ok_or("no tmpfiles.d")?;
    assert!(String::from_utf8(image)?.contains("f /var/lib/rancher/k3s/agent/images/.cache.json 0644"));
    Ok(())
}
