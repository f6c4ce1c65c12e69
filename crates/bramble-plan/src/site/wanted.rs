//! What is wanted of a site, reduced to what planning looks at.

use crate::digest;
use bramble_api::document::Window;
use bramble_api::lock::Lock;
use bramble_api::names::{Arch, Role};
use bramble_api::plan::NotServed;
use bramble_api::site::{Os, Version, VersionTable};
use bramble_spec::{Cluster, Datastore, Distribution, EffectiveNode};
use serde::Serialize;
use std::collections::BTreeMap;

/// A machine as it is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// Its processor.
    pub arch: Arch,
    /// The system it should run; none while no release was ever built for it, or the file names none.
    pub os: Option<Os>,
    /// Its system is Bramble OS, whose card a person writes. Else it is Talos, which can be given its configuration.
    pub card: bool,
    /// Digest of the part of its configuration that is applied while it runs.
    pub live: String,
    /// Digest of the part of its configuration that needs a restart.
    pub fixed: String,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Taints, `key=value:effect`.
    pub taints: Vec<String>,
    /// Which card it should run from.
    pub incarnation: u32,
    /// When it may restart; any time when absent.
    pub window: Option<Window>,
}

impl Node {
    /// Whether it runs the API server.
    pub fn is_control_plane(&self) -> bool {
        self.role == Role::ControlPlane
    }
}

/// What is wanted of a site.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Wanted {
    /// Name of the cluster.
    pub cluster: String,
    /// Digest of the file.
    pub spec: String,
    /// What is wrong with the lock, in a few words; empty when nothing is.
    pub lock: String,
    /// The lock says that the cluster was founded.
    pub founded: bool,
    /// Control planes share a datastore of several members; else the only one has it alone.
    pub members: bool,
    /// Kubernetes.
    pub kubernetes: Version,
    /// Machines in the file's order.
    pub nodes: Vec<Node>,
    /// Generation of each authority that is to be the only one.
    pub authorities: BTreeMap<String, u32>,
    /// Which release follows which.
    pub table: VersionTable,
    /// Parts of the file that are not acted on.
    pub not_served: Vec<NotServed>,
}

impl Wanted {
    /// A machine by name.
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|n| n.name == name)
    }
}

/// Digests of a machine's rendered configuration, where the caller has them: `(live, fixed)` by node name. They depend on
/// keys, which the plan never sees.
pub type Documents = BTreeMap<String, (String, String)>;

/// What a checked file and its lock want of a site.
pub fn wanted(
    cluster: &Cluster,
    lock: &Lock,
    documents: &Documents,
    table: VersionTable,
    not_served: Vec<NotServed>,
) -> Wanted {
    let nodes = cluster.effective_nodes();
    let kubernetes = &cluster.spec.kubernetes;
    let unallocated = nodes.iter().filter(|n| !lock.allocated.nodes.contains_key(&n.name)).count();
    Wanted {
        cluster: cluster.name().to_string(),
        spec: digest(cluster),
        lock: if unallocated == 0 { String::new() } else { format!("{unallocated} nodes without a number") },
        founded: lock.allocated.founded,
        members: kubernetes.datastore() == Datastore::Etcd,
        kubernetes: version(&kubernetes.version),
        nodes: nodes.iter().map(|node| self::node(cluster, lock, documents, node)).collect(),
        authorities: BTreeMap::new(),
        table,
        not_served,
    }
}

fn node(cluster: &Cluster, lock: &Lock, documents: &Documents, node: &EffectiveNode) -> Node {
    let talos = cluster.spec.kubernetes.distribution == Distribution::Talos
        && node.role != bramble_spec::Role::Management;
    let arch = crate::wanted::arch(node.arch);
    let os = match talos {
        true => node.talos.version.as_ref().map(|v| Os::Talos(version(v))),
        false => lock.allocated.releases.get(&arch).map(|release| Os::Bramble(release.version)),
    };
    let (live, fixed) = documents.get(&node.name).cloned().unwrap_or_else(|| digests(cluster, node, talos));
    let window = node.updates.as_ref().and_then(|updates| updates.window.as_ref());
    Node {
        name: node.name.clone(),
        role: crate::wanted::role(node.role),
        arch,
        os,
        card: !talos,
        live,
        fixed,
        labels: node.labels.clone(),
        taints: node.taints.iter().map(ToString::to_string).collect(),
        incarnation: lock.allocated.nodes.get(&node.name).map_or(1, |n| n.incarnation),
        window: window.map(|w| Window {
            days: w.days.iter().map(|day| *day as u8).collect(),
            from: w.from,
            to: w.to,
        }),
    }
}

/// Digests of what the file says about a machine's configuration, without labels and releases, which are differences of
/// their own. Talos takes all but its disk while it runs; Bramble OS renders /etc when it starts.
fn digests(cluster: &Cluster, node: &EffectiveNode, talos: bool) -> (String, String) {
    let mut plain = node.clone();
    plain.labels = BTreeMap::new();
    plain.taints = Vec::new();
    plain.updates = None;
    let install = plain.talos.install.take();
    plain.talos.version = None;
    let all = digest(&(&plain, &cluster.spec.network));
    match talos {
        true => (all, digest(&(install, &node.boot_disk))),
        false => (String::new(), all),
    }
}

fn version(version: &bramble_spec::Version) -> Version {
    let bramble_spec::Version { major, minor, patch, build } = version.clone();
    Version { major, minor, patch, build }
}
