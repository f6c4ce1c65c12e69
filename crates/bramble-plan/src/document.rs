//! The machine document: what the file says of one machine, in the words that its pid 1 reads.

use crate::wanted::{board, role};
use bramble_api::document::{
    Addressing, Cni, ControlPlane, Datastore, DiskName, Disks, Distribution, FORMAT, Interface, K3s,
    Kubernetes, Machine, MachineDocument, Management, Network, NodeApi, Ssh, System, Updates, Volume, Wifi,
    Window,
};
use bramble_api::lock::Lock;
use bramble_spec::{Cluster, DiskSelector, EffectiveNode, OrNone};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What was made for a node once and is kept in the secrets file.
#[derive(Clone)]
pub struct Identity {
    /// Random name of the installation, 32 hexadecimal digits.
    pub incarnation: String,
    /// systemd's machine id, 32 hexadecimal digits.
    pub machine_id: String,
    /// Ed25519 host key, OpenSSH's private key format.
    pub ssh_host_key: String,
    /// The matching public line.
    pub ssh_host_key_public: String,
    /// Certificates, keys and kubeconfigs below /etc/kubernetes.
    pub kubernetes: BTreeMap<String, String>,
    /// With what the machine answers at its API, made anew for each document.
    pub node_api: Option<NodeApi>,
    /// A kubeconfig for people on a management machine, made anew for each document.
    pub kubeconfig: Option<String>,
    /// Secrets that the file names for the node, by their names.
    pub secrets: BTreeMap<String, String>,
}

/// What is the same for all documents of a run.
#[derive(Clone, Debug)]
pub struct Edition {
    /// Seconds since the epoch.
    pub issued_at: u64,
    /// Edition within the incarnation.
    pub generation: u64,
    /// Take an existing data file system over.
    pub keep_data: bool,
    /// Manifests for the first control plane, in order.
    pub manifests: Vec<String>,
    /// Certificate authorities that the file names, PEM.
    pub trusted_cas: Vec<String>,
    /// Where the machines of a rehearsal look for releases, in place of what the file says.
    pub updates_source: Option<String>,
}

/// Seconds between two looks in a rehearsal: somebody waits for it.
const REHEARSAL_INTERVAL: u64 = 30;

/// A document that cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The lock has no number for the node.
    #[error("{0} has no number in the lock")]
    NotAllocated(String),
    /// The cluster has no place where its API is reached.
    #[error("the cluster has no API endpoint")]
    NoEndpoint,
    /// The secrets file lacks a secret that the file names.
    #[error("{node}: the secrets file has no `user.{secret}`, which the file names for its Wi-Fi")]
    NoSecret {
        /// For which node.
        node: String,
        /// Its name.
        secret: String,
    },
    /// A secret that no access point takes.
    #[error(
        "{node}: `user.{secret}` is no passphrase of Wi-Fi: 8 to 63 printable characters, or 64 hexadecimal digits"
    )]
    BadPassphrase {
        /// For which node.
        node: String,
        /// Its name.
        secret: String,
    },
    /// The file asks for something this version cannot put on a machine.
    #[error("{node}: {what} is not served by this version")]
    NotServed {
        /// For which node.
        node: String,
        /// What.
        what: &'static str,
    },
}

/// Renders the document of one node.
pub fn document(
    cluster: &Cluster,
    node: &EffectiveNode,
    lock: &Lock,
    identity: &Identity,
    edition: &Edition,
) -> Result<MachineDocument, DocumentError> {
    let allocated =
        lock.allocated.nodes.get(&node.name).ok_or_else(|| DocumentError::NotAllocated(node.name.clone()))?;
    let machine = Machine {
        name: node.name.clone(),
        number: allocated.number,
        role: role(node.role),
        board: board(node.board),
        incarnation: identity.incarnation.clone(),
        card: allocated.incarnation,
        generation: edition.generation,
        machine_id: identity.machine_id.clone(),
        issued_at: edition.issued_at,
        keep_data: edition.keep_data,
    };
    let ssh = node.ssh.as_ref().map(|ssh| Ssh {
        authorized_keys: ssh.authorized_keys.iter().map(ToString::to_string).collect(),
        host_key: identity.ssh_host_key.clone(),
        host_key_public: identity.ssh_host_key_public.clone(),
    });
    let system = System {
        timezone: node.timezone.to_string(),
        modules: node.modules.clone(),
        sysctls: node.sysctls.clone(),
        trusted_cas: edition.trusted_cas.clone(),
        initiator_name: Some(initiator_name(cluster, node)),
        node_exporter: node.node_exporter,
        disks: disks(node),
        updates: node.updates.as_ref().map(|updates| Updates {
            source: edition.updates_source.clone().unwrap_or_else(|| updates.source.to_string()),
            window: updates.window.as_ref().map(|window| Window {
                days: window.days.iter().map(|day| *day as u8).collect(),
                from: window.from,
                to: window.to,
            }),
            drain_timeout: updates.drain_timeout.0.as_secs(),
            interval: edition.updates_source.is_some().then_some(REHEARSAL_INTERVAL),
        }),
    };
    Ok(MachineDocument {
        format: FORMAT,
        cluster: cluster.metadata.name.to_string(),
        machine,
        network: network(cluster, node, identity)?,
        system,
        ssh,
        kubernetes: match node.role {
            bramble_spec::Role::Management => None,
            _ => Some(kubernetes(cluster, node, lock, allocated.pod_range, identity, edition)?),
        },
        node_api: identity.node_api.clone(),
        management: match node.role {
            bramble_spec::Role::Management => {
                identity.kubeconfig.clone().map(|kubeconfig| Management { kubeconfig })
            }
            _ => None,
        },
    })
}

/// The disks beside the one with the system. A disk that is named by its size is none of them: `check` refuses it.
fn disks(node: &EffectiveNode) -> Disks {
    let disk = |selector: &DiskSelector| match selector {
        DiskSelector::Serial(serial) => Some(DiskName::Serial(serial.clone())),
        DiskSelector::Wwid(wwid) => Some(DiskName::Wwid(wwid.clone())),
        DiskSelector::Size(_) => None,
    };
    let volume = |volume: &bramble_spec::Volume| {
        let mount = match volume.filesystem {
            bramble_spec::Filesystem::None => None,
            bramble_spec::Filesystem::Ext4 => {
                Some(volume.mount.clone().unwrap_or_else(|| format!("/var/mnt/{}", volume.name)))
            }
        };
        Some(Volume { name: volume.name.to_string(), disk: disk(&volume.selector)?, mount })
    };
    Disks {
        data: node.data_disk.as_ref().and_then(disk),
        volumes: node.volumes.iter().filter_map(volume).collect(),
    }
}

/// RFC 3720: a name under a domain its owner held at a date. `home.arpa` is everybody's at home; the cluster's and
/// the node's names make it unique and stable over cards.
fn initiator_name(cluster: &Cluster, node: &EffectiveNode) -> String {
    format!("iqn.2026-01.arpa.home.bramble:{}.{}", cluster.metadata.name, node.name)
}

/// The wireless network of an interface, with its passphrase.
fn wifi(
    node: &EffectiveNode,
    wanted: &bramble_spec::Wifi,
    identity: &Identity,
) -> Result<Wifi, DocumentError> {
    let secret = wanted.psk.name.0.clone();
    let node = || node.name.clone();
    match identity.secrets.get(&secret) {
        None => Err(DocumentError::NoSecret { node: node(), secret }),
        Some(psk) if !Wifi::is_psk(psk) => Err(DocumentError::BadPassphrase { node: node(), secret }),
        Some(psk) => Ok(Wifi { ssid: wanted.ssid.clone(), psk: psk.clone() }),
    }
}

fn network(cluster: &Cluster, node: &EffectiveNode, identity: &Identity) -> Result<Network, DocumentError> {
    let site = &cluster.spec.network;
    let mut hosts: Vec<(Ipv4Addr, String)> =
        cluster.effective_nodes().into_iter().map(|n| (n.address, n.name)).collect();
    hosts.sort();
    let interfaces = node
        .interfaces
        .iter()
        .map(|i| {
            Ok(Interface {
                name: i.name.to_string(),
                mac: i.mac.map(|m| m.to_string()),
                vlan: i.vlan,
                mtu: i.mtu.map(u32::from),
                address: i.address,
                routes: i.routes.iter().map(|r| (r.to, r.via)).collect(),
                wifi: i.wifi.as_ref().map(|wanted| wifi(node, wanted, identity)).transpose()?,
            })
        })
        .collect::<Result<_, DocumentError>>()?;
    let mut proxy = BTreeMap::new();
    if let OrNone::Is(settings) = &site.proxy {
        let mut put = |key: &str, value: Option<String>| value.map(|v| proxy.insert(key.to_string(), v));
        put("http_proxy", settings.http.as_ref().map(ToString::to_string));
        put("https_proxy", settings.https.as_ref().map(ToString::to_string));
        // What is inside the cluster or the site must never go through the proxy.
        let mut direct: Vec<String> = settings.no_proxy.clone();
        direct.extend(["127.0.0.1", "localhost", ".svc"].map(String::from));
        direct.push(format!(".{}", site.cluster_domain));
        direct.extend([site.subnet, site.pods, site.services].map(|net| net.to_string()));
        put("no_proxy", Some(direct.join(",")));
    }
    Ok(Network {
        address: node.address,
        subnet: site.subnet,
        gateway: site.gateway,
        dns: site.dns.clone(),
        ntp: site.ntp.iter().map(ToString::to_string).collect(),
        domain: site.domain.to_string(),
        addressing: match node.addressing {
            bramble_spec::Addressing::Static => Addressing::Static,
            bramble_spec::Addressing::Dhcp => Addressing::Dhcp,
        },
        mac: node.mac.map(|m| m.to_string()),
        mtu: node.mtu.map(u32::from),
        interfaces,
        hosts,
        proxy,
    })
}

fn kubernetes(
    cluster: &Cluster,
    node: &EffectiveNode,
    lock: &Lock,
    pod_range: Ipv4Net,
    identity: &Identity,
    edition: &Edition,
) -> Result<Kubernetes, DocumentError> {
    let wanted = &cluster.spec.kubernetes;
    let site = &cluster.spec.network;
    let endpoint = cluster.endpoint().ok_or(DocumentError::NoEndpoint)?;
    let not_served = |what| DocumentError::NotServed { node: node.name.clone(), what };
    let cni = match &wanted.cni {
        bramble_spec::Cni::Flannel(flannel) => match flannel.backend {
            bramble_spec::Backend::HostGw => Cni::FlannelHostGw,
            bramble_spec::Backend::Vxlan => Cni::FlannelVxlan,
        },
        bramble_spec::Cni::Cilium | bramble_spec::Cni::None => Cni::None,
    };
    let distribution = match wanted.distribution {
        bramble_spec::Distribution::Upstream => Distribution::Upstream,
        bramble_spec::Distribution::K3s => Distribution::K3s,
        bramble_spec::Distribution::Talos => return Err(not_served("distribution talos")),
    };
    let control_plane = (node.role == bramble_spec::Role::ControlPlane).then(|| ControlPlane {
        datastore: match wanted.datastore() {
            bramble_spec::Datastore::Sqlite => Datastore::Sqlite,
            bramble_spec::Datastore::Etcd => Datastore::Etcd,
        },
        pod_security: wanted.pod_security.to_string(),
        audit_log: wanted.audit_log,
        encrypt_secrets: wanted.encrypt_secrets_at_rest,
        // k3s deploys its own.
        manifests: match distribution {
            Distribution::Upstream => edition.manifests.clone(),
            Distribution::K3s => Vec::new(),
        },
    });
    let k3s = (distribution == Distribution::K3s).then(|| k3s(cluster, node, lock));
    Ok(Kubernetes {
        distribution,
        version: wanted.version.to_string(),
        endpoint: (endpoint.address, endpoint.port),
        pods: site.pods,
        services: site.services,
        cluster_domain: site.cluster_domain.to_string(),
        pod_range,
        cni,
        labels: node.labels.clone(),
        taints: node.taints.iter().map(ToString::to_string).collect(),
        control_plane,
        k3s,
        files: identity.kubernetes.clone(),
    })
}

/// What only k3s is told.
fn k3s(cluster: &Cluster, node: &EffectiveNode, lock: &Lock) -> K3s {
    let wanted = &cluster.spec.kubernetes;
    let own = wanted.k3s.clone().unwrap_or_default();
    let mut disable: Vec<String> = own.disable.iter().map(ToString::to_string).collect();
    // Named by other words of the file, because other distributions have them too.
    if wanted.load_balancer != bramble_spec::LoadBalancer::Servicelb {
        disable.push("servicelb".into());
    }
    if wanted.ingress != bramble_spec::Ingress::Traefik {
        disable.push("traefik".into());
    }
    disable.sort();
    disable.dedup();
    let endpoint = cluster.endpoint();
    K3s {
        join: join(cluster, node, lock),
        disable,
        tls_sans: endpoint.iter().flat_map(|e| e.sans.iter().map(ToString::to_string)).collect(),
        embedded_registry: own.embedded_registry,
    }
}

/// Where a machine joins; `None` for the server that founds the cluster.
///
/// One card founds it: the first card of the server that the lock names (of the first one of the file until it names
/// one). With another card that server must not: the cluster lives on with the others, and founding again would make
/// a second one of the same name. It joins one of them then. A server that is alone has nobody to join.
fn join(cluster: &Cluster, node: &EffectiveNode, lock: &Lock) -> Option<String> {
    let endpoint = cluster.endpoint()?;
    let at = |address: Ipv4Addr| Some(format!("https://{address}:{}", endpoint.port));
    if node.role != bramble_spec::Role::ControlPlane {
        // Through the address that outlives any one server.
        return at(endpoint.address);
    }
    let allocated = crate::settle_founder(&lock.allocated, cluster);
    let founder = allocated.founder?;
    let card = allocated.nodes.get(&node.name).map_or(1, |allocated| allocated.incarnation);
    if node.name == founder.node && card == founder.incarnation {
        return None;
    }
    let nodes = cluster.effective_nodes();
    let mut others =
        nodes.iter().filter(|n| n.role == bramble_spec::Role::ControlPlane && n.name != node.name);
    let founded = others.clone().find(|n| n.name == founder.node);
    at(founded.or_else(|| others.next())?.address)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cluster(text: &str) -> Cluster {
        match bramble_spec::parse(text, "bramble.yaml") {
            Ok(checked) => checked.cluster,
            Err(found) => panic!("{found}"),
        }
    }

    fn identity() -> Identity {
        Identity {
            incarnation: "1".repeat(32),
            machine_id: "2".repeat(32),
            ssh_host_key: "private".into(),
            ssh_host_key_public: "public".into(),
            kubernetes: [("pki/ca.crt".to_string(), "pem".to_string())].into(),
            node_api: None,
            kubeconfig: None,
            secrets: BTreeMap::new(),
        }
    }

    fn edition() -> Edition {
        Edition {
            issued_at: 7,
            generation: 1,
            keep_data: false,
            manifests: vec!["m".into()],
            trusted_cas: vec![],
            updates_source: None,
        }
    }

    fn documents(text: &str) -> Vec<MachineDocument> {
        let cluster = cluster(text);
        let nodes = cluster.effective_nodes();
        let mut lock = Lock::default();
        let names = nodes.iter().map(|n| n.name.as_str());
        lock.allocated = crate::allocate(&lock.allocated, names, cluster.spec.network.pods).unwrap();
        nodes.iter().map(|n| document(&cluster, n, &lock, &identity(), &edition()).ok().unwrap()).collect()
    }

    #[test]
    fn a_worker_gets_its_labels_and_taints_and_nothing_of_the_control_plane() {
        let all = documents(include_str!("../../../examples/lab-pair/bramble.yaml"));
        let [first, second] = &all[..] else { panic!("two machines") };
        let kubernetes = |d: &MachineDocument| d.kubernetes.clone().unwrap();
        assert!(kubernetes(first).control_plane.is_some_and(|c| c.manifests == ["m"]));
        assert!(kubernetes(second).control_plane.is_none());
        assert_eq!(kubernetes(second).labels["tier"], "shelf");
        assert_eq!(kubernetes(second).taints, ["dedicated=media:NoSchedule"]);
        assert_eq!(kubernetes(second).pod_range.to_string(), "10.42.2.0/24");
        // Both know each other before either is on.
        assert_eq!(first.network.hosts, second.network.hosts);
    }

    #[test]
    fn two_editions_that_say_the_same_have_the_same_digest() {
        let file = include_str!("../../../examples/lab-pair/bramble.yaml");
        let settings = |text: &str| documents(text).iter().map(MachineDocument::settings).collect::<Vec<_>>();
        let mut first = documents(file).remove(0);
        let digest = first.settings();
        assert_eq!(settings(file)[0], digest);
        assert_ne!(settings(file)[1], digest);
        // What each edition has anew, and what is a difference of its own.
        first.machine.generation = 9;
        first.machine.issued_at = 99;
        first.node_api = None;
        first.kubernetes.as_mut().unwrap().files.insert("pki/ca.crt".into(), "other".into());
        first.kubernetes.as_mut().unwrap().version = "v1.37.0".into();
        assert_eq!(first.settings(), digest);
        assert_eq!(settings(&file.replace("tier: shelf", "tier: rack")), settings(file));
        // Another machine, which a worker of before must not restart for.
        let more =
            format!("{file}    - {{ name: n3, role: worker, board: uefi-amd64, address: 192.168.1.13 }}\n");
        assert_eq!(settings(&more)[..2], settings(file)[..]);
        assert_ne!(settings(&file.replace("dns: [192.168.1.1]", "dns: [192.168.1.2]"))[0], digest);
    }

    const K3S: &str = "apiVersion: bramble.home.arpa/v1alpha1\nkind: Cluster\nmetadata: { name: home }\nspec:\n  \
        kubernetes:\n    distribution: k3s\n    version: v1.36.4+k3s1\n    datastore: etcd\n    ingress: traefik\n    \
        endpoint: { address: 192.168.1.10, vip: external, sans: [api.home.arpa] }\n    \
        k3s: { disable: [metrics-server], embeddedRegistry: true }\n  \
        network: { subnet: 192.168.1.0/24 }\n  board: uefi-amd64\n  nodes:\n    \
        - { name: s1, role: control-plane, address: 192.168.1.11 }\n    \
        - { name: s2, role: control-plane, address: 192.168.1.12 }\n    \
        - { name: s3, role: control-plane, address: 192.168.1.13 }\n    \
        - { name: w1, role: worker, address: 192.168.1.14 }\n";

    fn k3s_of(document: &MachineDocument) -> K3s {
        document.kubernetes.as_ref().and_then(|k| k.k3s.clone()).unwrap()
    }

    #[test]
    fn one_server_founds_and_all_others_join() {
        let all = documents(K3S);
        let joins: Vec<Option<String>> = all.iter().map(|d| k3s_of(d).join).collect();
        assert_eq!(
            joins,
            [
                None,
                Some("https://192.168.1.11:6443".into()),
                Some("https://192.168.1.11:6443".into()),
                Some("https://192.168.1.10:6443".into())
            ]
        );
        let first = k3s_of(&all[0]);
        assert_eq!(first.disable, ["metrics-server", "servicelb"]);
        assert_eq!((first.tls_sans, first.embedded_registry), (vec!["api.home.arpa".to_string()], true));
        let kubernetes = all[0].kubernetes.clone().unwrap();
        assert!(kubernetes.distribution == Distribution::K3s && kubernetes.version == "v1.36.4+k3s1");
        assert!(kubernetes.control_plane.is_some_and(|c| c.manifests.is_empty()));
    }

    /// The card of the founder was replaced: founding again would make a second cluster beside the first.
    #[test]
    fn a_founder_with_a_new_card_joins_the_others() {
        let three = cluster(K3S);
        let nodes = three.effective_nodes();
        let mut lock = Lock::default();
        let names = nodes.iter().map(|n| n.name.as_str());
        lock.allocated = crate::allocate(&lock.allocated, names, three.spec.network.pods).unwrap();
        for _ in 0..2 {
            lock.allocated = crate::begin_card(&lock.allocated, &three, "s1", crate::NextCard::Another);
        }
        let again = document(&three, &nodes[0], &lock, &identity(), &edition()).ok().unwrap();
        assert_eq!(k3s_of(&again).join.as_deref(), Some("https://192.168.1.12:6443"));
        let alone = K3S.replace(", vip: external", "").replace("192.168.1.10", "192.168.1.11");
        let alone: String = alone
            .lines()
            .filter(|l| !l.contains("s2") && !l.contains("s3"))
            .map(|l| format!("{l}\n"))
            .collect();
        let alone = cluster(&alone);
        let again =
            document(&alone, &alone.effective_nodes()[0], &lock, &identity(), &edition()).ok().unwrap();
        assert_eq!(k3s_of(&again).join, None);
    }

    #[test]
    fn wifi_gets_its_passphrase_and_nothing_shows_it() {
        let text = K3S.replace(
            "role: worker, address: 192.168.1.14",
            "role: worker, address: 192.168.1.14, interfaces: [{ name: wlan0, wifi: { ssid: shed, psk: { secret: air } } }]",
        );
        let cluster = cluster(&text);
        let nodes = cluster.effective_nodes();
        let mut lock = Lock::default();
        let names = nodes.iter().map(|n| n.name.as_str());
        lock.allocated = crate::allocate(&lock.allocated, names, cluster.spec.network.pods).unwrap();
        let mut identity = identity();
        let mut render = |psk: Option<&str>| {
            identity.secrets = psk.map(|p| ("air".to_string(), p.to_string())).into_iter().collect();
            document(&cluster, &nodes[3], &lock, &identity, &edition())
        };
        assert!(matches!(render(None), Err(DocumentError::NoSecret { .. })));
        let refused = render(Some("short")).err().unwrap();
        assert!(
            matches!(&refused, DocumentError::BadPassphrase { .. }) && !refused.to_string().contains("short")
        );
        let network = render(Some("correct horse")).ok().unwrap().network;
        assert_eq!(network.interfaces[0].wifi.as_ref().unwrap().psk, "correct horse");
        assert!(!format!("{network:?}").contains("horse"));
    }

    #[test]
    fn disks_are_mounted_at_their_names_or_left_as_they_are() {
        let text = K3S.replace(
            "role: worker, address: 192.168.1.14",
            "role: worker, address: 192.168.1.14, disks: { data: { serial: S1 }, volumes: [{ name: a, selector: { \
             serial: S2 } }, { name: b, selector: { wwid: W }, filesystem: none }] }",
        );
        let disks = documents(&text).remove(3).system.disks;
        assert_eq!(disks.data, Some(DiskName::Serial("S1".into())));
        assert_eq!(disks.volumes[0].mount.as_deref(), Some("/var/mnt/a"));
        assert_eq!((&disks.volumes[1].disk, &disks.volumes[1].mount), (&DiskName::Wwid("W".into()), &None));
    }

    #[test]
    fn a_node_without_a_number_is_refused() {
        let cluster = cluster(include_str!("../../../examples/lab-amd64/bramble.yaml"));
        let nodes = cluster.effective_nodes();
        let refused = document(&cluster, &nodes[0], &Lock::default(), &identity(), &edition()).err();
        assert_eq!(refused, Some(DocumentError::NotAllocated("n1".into())));
    }
}
