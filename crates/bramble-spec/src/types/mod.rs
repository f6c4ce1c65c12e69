//! The file's types. Each declaration gives the type, its decoder and its schema.

mod kubernetes;
mod machine;
mod network;
mod system;
mod talos;

pub use kubernetes::*;
pub use machine::*;
pub use network::*;
pub use system::*;
pub use talos::*;

use crate::decode::{record, words};
use crate::scalar::{Name, Raw, ToolVersion};

words! {
    /// The format of the file.
    pub enum ApiVersion {
        /// The only format so far; its shape may still change between releases, with a migration.
        V1Alpha1 = "bramble.home.arpa/v1alpha1",
    }
}

words! {
    /// What the file describes.
    pub enum Kind {
        /// One cluster.
        Cluster = "Cluster",
    }
}

record! {
    /// A cluster: the whole of `bramble.yaml`.
    pub struct Cluster {
        /// The format of this file.
        "apiVersion" api_version: ApiVersion,
        /// What it describes.
        "kind" kind: Kind,
        /// What it is called.
        "metadata" metadata: Metadata,
        /// What it is.
        "spec" spec: Spec,
    }
}

record! {
    /// What the cluster is called.
    pub struct Metadata {
        /// Name of the cluster, an RFC 1123 label; it names contexts, authorities and files.
        "name" name: Name,
    }
}

record! {
    /// The cluster.
    pub struct Spec {
        /// Older releases of Bramble refuse this file.
        "minimumToolVersion" minimum_tool_version: Option<ToolVersion> = None,
        /// Kubernetes itself.
        "kubernetes" kubernetes: Kubernetes,
        /// The site's network and the cluster's own ranges.
        "network" network: Network,
        /// The operating system of every machine; `defaults` and machines may say otherwise.
        "os" os: ClusterOs = ClusterOs::default(),
        /// What all machines of a role share.
        "defaults" defaults: Defaults = Defaults::default(),
        /// The machines.
        "nodes" nodes: Vec<NodeSpec>,
        /// Not served by this version: machines that are switched on and off.
        "power" power: Option<Raw> = None,
        /// Not served by this version: copies of the cluster's state elsewhere.
        "backup" backup: Option<Raw> = None,
        /// Not served by this version: the engine that applies manifests from git.
        "gitops" gitops: Option<Raw> = None,
        /// Not served by this version: ways in from outside.
        "access" access: Option<Raw> = None,
        /// Not served by this version: hosts of virtual machines.
        "hosts" hosts: Option<Raw> = None,
    } with {
        /// What machines have of their own, stated for all of them.
        machine: MachineSettings,
    }
}

record! {
    /// What all machines of a role share.
    #[derive(Default)]
    pub struct Defaults {
        /// Control planes.
        "control-plane" control_plane: RoleDefaults = RoleDefaults::default(),
        /// Workers.
        "worker" worker: RoleDefaults = RoleDefaults::default(),
        /// Machines without a kubelet, that hold the tools.
        "management" management: RoleDefaults = RoleDefaults::default(),
    }
}

record! {
    /// What all machines of one role share.
    #[derive(Default)]
    pub struct RoleDefaults {
        /// The operating system.
        "os" os: OsSettings = OsSettings::default(),
    } with {
        /// What machines have of their own.
        machine: MachineSettings,
    }
}

impl Cluster {
    /// Name of the cluster.
    pub fn name(&self) -> &str {
        self.metadata.name.as_str()
    }
}
