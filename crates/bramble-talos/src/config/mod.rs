//! Machine configs: the whole text of documents that one machine reads.
//!
//! [`Machine`] is everything decided about one machine in Talos' own words; [`documents`] writes it for its release.
//! A machine of which nothing is said but role, names and versions comes out as Talos' own generator makes it, key by
//! key; the conformance tests hold us to that.

pub mod check;
mod legacy;
mod links;
mod modern;
mod shared;

use crate::bundle::{Bundle, HIDDEN};
use crate::versions::Release;
use crate::yaml::{self, Map};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bramble_secrets::{Secret, SecretText};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What a machine does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Runs etcd and the API.
    ControlPlane,
    /// Runs workloads only.
    Worker,
}

/// How pods on different machines reach each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cni {
    /// flannel, with this backend.
    Flannel {
        /// `vxlan` or `host-gw`; 1.13 has `vxlan` alone.
        backend: &'static str,
    },
    /// Nothing: the user brings one.
    None,
}

/// A disk, by what it says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// The disk that the machine booted from.
    pub system: bool,
    /// The device's path, for 1.13 on a machine that is never installed.
    pub path: Option<String>,
    /// Serial number.
    pub serial: Option<String>,
    /// World wide identifier.
    pub wwid: Option<String>,
    /// Model.
    pub model: Option<String>,
    /// Bytes: a tenth more or less is the same disk.
    pub size: Option<u64>,
}

/// Installation onto a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Install {
    /// The installer's image.
    pub image: Option<String>,
    /// The disk.
    pub disk: Disk,
}

/// A link of the machine and what is on it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// What the other documents call it.
    pub name: String,
    /// Hardware address that selects it; the only wired card when absent.
    pub mac: Option<String>,
    /// VLAN on it.
    pub vlan: Option<Vlan>,
    /// Bytes in the largest packet.
    pub mtu: Option<u16>,
    /// Addresses with their prefixes; from a router when there are none.
    pub addresses: Vec<String>,
    /// Ways: range and gateway; no range is the way out.
    pub routes: Vec<(Option<String>, Ipv4Addr)>,
}

/// A VLAN on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// Its number.
    pub id: u16,
    /// The link it is on, when that is another document's.
    pub parent: Option<String>,
}

/// Where the key of an encrypted partition comes from.
#[derive(Clone, Debug)]
pub enum VolumeKey {
    /// The machine's TPM.
    Tpm,
    /// The machine's own identity.
    NodeId,
    /// A passphrase.
    Static(SecretText),
}

/// A partition of Talos' own.
#[derive(Clone, Debug)]
pub struct SystemVolume {
    /// `STATE` or `EPHEMERAL`.
    pub name: &'static str,
    /// Another disk than the system's.
    pub disk: Option<Disk>,
    /// Encryption.
    pub key: Option<VolumeKey>,
}

/// A file system of the user's, mounted at `/var/mnt/<name>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserVolume {
    /// Its name.
    pub name: String,
    /// Its disk.
    pub disk: Disk,
    /// Kind of file system.
    pub filesystem: String,
}

/// Where the images of a registry come from.
#[derive(Clone, Debug, Default)]
pub struct Registry {
    /// Asked before the registry itself.
    pub mirrors: Vec<String>,
    /// Name and password.
    pub login: Option<(String, SecretText)>,
    /// Its authority, PEM.
    pub ca: Option<String>,
}

/// Everything decided about one machine.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Which documents it reads.
    pub release: Release,
    /// What it does.
    pub role: Role,
    /// Name of the cluster.
    pub cluster: String,
    /// URL of the API.
    pub endpoint: String,
    /// Kubernetes' release without `v`.
    pub kubernetes: String,
    /// Ranges of pods.
    pub pods: Vec<String>,
    /// Ranges of services.
    pub services: Vec<String>,
    /// Domain of names in the cluster.
    pub dns_domain: String,
    /// Further names of the API and of the machine API.
    pub sans: Vec<String>,
    /// Ordinary pods run on control planes.
    pub schedule_on_control_plane: bool,
    /// Pod Security level that is enforced.
    pub pod_security: &'static str,
    /// The API writes down who asked for what.
    pub audit: bool,
    /// Network of pods.
    pub cni: Cni,
    /// Host name; one that Talos makes up when absent.
    pub hostname: Option<String>,
    /// Links; Talos' own DHCP on all of them when there are none.
    pub links: Vec<Link>,
    /// Shared address and the link that it is on.
    pub vip: Option<(Ipv4Addr, String)>,
    /// Ranges that kubelet and etcd take their address from.
    pub own_subnets: Vec<String>,
    /// Name servers.
    pub nameservers: Vec<Ipv4Addr>,
    /// Domains of short names.
    pub search: Vec<String>,
    /// Time servers.
    pub ntp: Vec<String>,
    /// Installation.
    pub install: Option<Install>,
    /// Labels of the node.
    pub labels: BTreeMap<String, String>,
    /// Taints of the node: key, and `value:Effect` or `Effect`.
    pub taints: BTreeMap<String, String>,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Kernel modules.
    pub modules: Vec<String>,
    /// Talos' partitions.
    pub volumes: Vec<SystemVolume>,
    /// The user's file systems.
    pub user_volumes: Vec<UserVolume>,
    /// Registries by name.
    pub registries: BTreeMap<String, Registry>,
    /// Authorities to trust, PEM.
    pub trusted: Vec<String>,
    /// Environment of Talos' services, for proxies.
    pub environment: BTreeMap<String, String>,
}

impl Machine {
    /// A machine of which nothing further is said.
    pub fn plain(release: Release, role: Role, cluster: &str, endpoint: &str, kubernetes: &str) -> Machine {
        Machine {
            release,
            role,
            cluster: cluster.into(),
            endpoint: endpoint.into(),
            kubernetes: kubernetes.into(),
            pods: vec!["10.244.0.0/16".into()],
            services: vec!["10.96.0.0/12".into()],
            dns_domain: "cluster.local".into(),
            sans: Vec::new(),
            schedule_on_control_plane: false,
            pod_security: "baseline",
            audit: true,
            cni: Cni::Flannel { backend: "vxlan" },
            hostname: None,
            links: Vec::new(),
            vip: None,
            own_subnets: Vec::new(),
            nameservers: Vec::new(),
            search: Vec::new(),
            ntp: Vec::new(),
            install: None,
            labels: BTreeMap::new(),
            taints: BTreeMap::new(),
            sysctls: BTreeMap::new(),
            modules: Vec::new(),
            volumes: Vec::new(),
            user_volumes: Vec::new(),
            registries: BTreeMap::new(),
            trusted: Vec::new(),
            environment: BTreeMap::new(),
        }
    }
}

/// A config: its documents, the one of 1.13 first. Holds keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Documents(pub Vec<Map>);

impl Documents {
    /// The text that a machine reads.
    pub fn text(&self) -> SecretText {
        Secret::new(yaml::write(&self.0))
    }
}

/// Writes the config of a machine.
pub fn documents(machine: &Machine, bundle: &Bundle) -> Documents {
    Documents(match machine.release {
        Release::V1_13 => legacy::documents(machine, bundle),
        Release::V1_14 => modern::documents(machine, bundle),
    })
}

/// PEM as the older document has it.
fn packed(pem: &str) -> String {
    if pem == HIDDEN { HIDDEN.into() } else { STANDARD.encode(pem) }
}

impl Machine {
    fn is_control_plane(&self) -> bool {
        self.role == Role::ControlPlane
    }
}
