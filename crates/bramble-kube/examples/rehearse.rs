//! Writes what two machines of a small cluster would hold, for `tests/two-nodes.sh`:
//! `rehearse OUT PROGRAMS etcd|sqlite host-gw|vxlan [expired]`.
//!
//! `OUT/image` is the part of the root image that is Kubernetes', `OUT/n1` and `OUT/n2` are what the machines render.
//! With `expired`, n2's first client certificate has run out already: the machine slept past its life.
#![expect(clippy::print_stderr, reason = "a program for developers")]

use bramble_api::document::*;
use bramble_api::names::{Arch, Board, Role};
use bramble_kube::names::{IMAGES, api_service_address};
use bramble_kube::pki::{Authorities, NodeRequest, Validity, issue_node};
use bramble_kube::programs::{Placed, Source, fetch, images, place};
use bramble_kube::upstream::{Rendered, image_files, render};
use bramble_kube::{manifests, oci};
use std::collections::BTreeMap;
use std::error::Error;
use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [out, programs, datastore, network, rest @ ..] = args.as_slice() else {
        return Err("usage: rehearse OUT PROGRAMS|CACHE etcd|sqlite host-gw|vxlan [expired]".into());
    };
    let expired = rest.first().is_some_and(|word| word == "expired");
    let datastore = if datastore == "etcd" { Datastore::Etcd } else { Datastore::Sqlite };
    let cni = if network == "vxlan" { Cni::FlannelVxlan } else { Cni::FlannelHostGw };
    let out = Path::new(out);
    image(&out.join("image"), Path::new(programs))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let cluster = Cluster { authorities: Authorities::generate("rehearsal", now)?, datastore, cni, now };
    for (number, name, role) in [(1, "n1", Role::ControlPlane), (2, "n2", Role::Worker)] {
        let first = Duration::from_secs(if expired && number == 2 { 1 } else { 86_400 });
        write(&out.join(name), &render(&cluster.document(number, name, role, first)?))?;
    }
    let server = "https://10.77.0.11:6443";
    let life = Duration::from_secs(3600);
    let admin = bramble_kube::pki::kubeconfig(&cluster.authorities, "rehearsal", server, "admin", now, life)?;
    fs::write(out.join("kubeconfig"), admin)?;
    Ok(())
}

fn image(out: &Path, source: &Path) -> Result<(), Box<dyn Error>> {
    write(out, &image_files())?;
    let stop = std::sync::atomic::AtomicBool::new(false);
    let tell =
        |p: bramble_kube::programs::Progress<'_>| eprintln!("{} {}/{} {}", p.recipe, p.done, p.total, p.line);
    let (origin, cache) = if source.join("containerd").exists() {
        (Source::Directory(source.into()), PathBuf::new())
    } else {
        (Source::Modules, source.into())
    };
    let programs = fetch(Arch::Amd64, "v1.36.3", &origin, &cache, &tell, &stop)?;
    for placed in place(&programs) {
        let (path, target) = match &placed {
            Placed::File { path, program } => (path, program.path.canonicalize()?),
            Placed::Link { path, target } => (path, PathBuf::from(target)),
        };
        let path = out.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        symlink(target, path)?;
    }
    let made = images(Arch::Amd64, &programs)?;
    let directory = out.join(IMAGES.trim_start_matches('/'));
    fs::create_dir_all(&directory)?;
    for (archive, file) in &made {
        fs::write(directory.join(file), &archive.bytes)?;
    }
    fs::write(directory.join("index"), oci::index(made.iter().map(|(a, f)| (a, *f))))?;
    Ok(())
}

fn write(root: &Path, rendered: &Rendered) -> Result<(), Box<dyn Error>> {
    for file in &rendered.files {
        let path = root.join(file.path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        fs::write(&path, &file.content)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(file.mode))?;
    }
    for (path, target) in &rendered.links {
        let path = root.join(path.trim_start_matches('/'));
        fs::create_dir_all(path.parent().ok_or("no parent")?)?;
        symlink(target, path)?;
    }
    Ok(())
}

struct Cluster {
    authorities: Authorities,
    datastore: Datastore,
    cni: Cni,
    now: u64,
}

impl Cluster {
    /// The document of a machine whose first client certificate lives this long.
    fn document(
        &self,
        number: u8,
        name: &str,
        role: Role,
        kubelet_client: Duration,
    ) -> Result<MachineDocument, Box<dyn Error>> {
        let address = Ipv4Addr::new(10, 77, 0, 10 + number);
        let endpoint = (Ipv4Addr::new(10, 77, 0, 11), 6443);
        let services = "10.43.0.0/16".parse()?;
        let control_plane = role == Role::ControlPlane;
        let files = issue_node(
            &self.authorities,
            &NodeRequest {
                cluster: "rehearsal",
                name,
                role,
                address,
                endpoint,
                service_address: api_service_address(services),
                cluster_domain: "cluster.local",
                sans: &[],
                cni: self.cni,
                datastore: self.datastore,
                encrypt_secrets: true,
                validity: Validity { kubelet_client, ..Validity::default() },
                now: self.now,
            },
        )?;
        let settings = manifests::Settings {
            cluster_domain: "cluster.local",
            services,
            cni: self.cni,
            replicas: 1,
            forward: true,
        };
        let labels = [("tier", "shelf"), ("example.org/number", name)];
        Ok(MachineDocument {
            format: FORMAT,
            cluster: "rehearsal".into(),
            machine: Machine {
                name: name.into(),
                number: number.into(),
                role,
                board: Board::UefiAmd64,
                card: 1,
                incarnation: format!("{number:032x}"),
                generation: 1,
                machine_id: format!("{number:032x}"),
                issued_at: self.now,
                keep_data: false,
            },
            network: Network {
                address,
                subnet: "10.77.0.0/24".parse()?,
                gateway: Some(Ipv4Addr::new(10, 77, 0, 1)),
                dns: vec![Ipv4Addr::new(10, 77, 0, 1)],
                ntp: Vec::new(),
                domain: "home.arpa".into(),
                addressing: Addressing::Static,
                mac: None,
                mtu: None,
                interfaces: Vec::new(),
                hosts: Vec::new(),
                proxy: BTreeMap::new(),
            },
            system: System::default(),
            management: None,
            node_api: None,
            ssh: None,
            kubernetes: Some(Kubernetes {
                distribution: Distribution::Upstream,
                version: "v1.36.3".into(),
                endpoint,
                pods: "10.42.0.0/16".parse()?,
                services,
                cluster_domain: "cluster.local".into(),
                pod_range: format!("10.42.{number}.0/24").parse()?,
                cni: self.cni,
                labels: labels.map(|(k, v)| (k.to_string(), v.to_string())).into(),
                taints: if control_plane {
                    vec!["node-role.kubernetes.io/control-plane=:NoSchedule".into()]
                } else {
                    vec![]
                },
                control_plane: control_plane.then(|| ControlPlane {
                    datastore: self.datastore,
                    pod_security: "baseline".into(),
                    audit_log: true,
                    encrypt_secrets: true,
                    manifests: manifests::first(&settings),
                }),
                k3s: None,
                files,
            }),
        })
    }
}
