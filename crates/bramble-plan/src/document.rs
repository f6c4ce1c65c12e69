//! The machine document: what the file says of one machine, in the words that its pid 1 reads.

use crate::wanted::{board, role};
use bramble_api::document::{
    Addressing, Cni, ControlPlane, Datastore, Distribution, FORMAT, Interface, Kubernetes, Machine,
    MachineDocument, Network, Ssh, System,
};
use bramble_api::lock::Lock;
use bramble_spec::{Cluster, EffectiveNode, OrNone};
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
}

/// A document that cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// The lock has no number for the node.
    #[error("{0} has no number in the lock")]
    NotAllocated(String),
    /// The cluster has no place where its API is reached.
    #[error("the cluster has no API endpoint")]
    NoEndpoint,
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
    };
    Ok(MachineDocument {
        format: FORMAT,
        cluster: cluster.metadata.name.to_string(),
        machine,
        network: network(cluster, node),
        system,
        ssh,
        kubernetes: Some(kubernetes(cluster, node, allocated.pod_range, identity, edition)?),
    })
}

/// RFC 3720: a name under a domain its owner held at a date. `home.arpa` is everybody's at home; the cluster's and
/// the node's names make it unique and stable over cards.
fn initiator_name(cluster: &Cluster, node: &EffectiveNode) -> String {
    format!("iqn.2026-01.arpa.home.bramble:{}.{}", cluster.metadata.name, node.name)
}

fn network(cluster: &Cluster, node: &EffectiveNode) -> Network {
    let site = &cluster.spec.network;
    let mut hosts: Vec<(Ipv4Addr, String)> =
        cluster.effective_nodes().into_iter().map(|n| (n.address, n.name)).collect();
    hosts.sort();
    let interfaces = node
        .interfaces
        .iter()
        .map(|i| Interface {
            name: i.name.to_string(),
            mac: i.mac.map(|m| m.to_string()),
            vlan: i.vlan,
            mtu: i.mtu.map(u32::from),
            address: i.address,
            routes: i.routes.iter().map(|r| (r.to, r.via)).collect(),
        })
        .collect();
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
    Network {
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
    }
}

fn kubernetes(
    cluster: &Cluster,
    node: &EffectiveNode,
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
        bramble_spec::Distribution::K3s => return Err(not_served("distribution k3s")),
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
        manifests: edition.manifests.clone(),
    });
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
        files: identity.kubernetes.clone(),
    })
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
        }
    }

    fn edition() -> Edition {
        Edition {
            issued_at: 7,
            generation: 1,
            keep_data: false,
            manifests: vec!["m".into()],
            trusted_cas: vec![],
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
    fn a_node_without_a_number_is_refused() {
        let cluster = cluster(include_str!("../../../examples/lab-amd64/bramble.yaml"));
        let nodes = cluster.effective_nodes();
        let refused = document(&cluster, &nodes[0], &Lock::default(), &identity(), &edition()).err();
        assert_eq!(refused, Some(DocumentError::NotAllocated("n1".into())));
    }
}
