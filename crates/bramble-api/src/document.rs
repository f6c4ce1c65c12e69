//! The machine document: all that is particular to one machine.
//!
//! Rendered from `bramble.yaml`, the lock and the secrets file; carried to a new machine in its identity
//! partition, moved by its first boot to the data partition ([`crate::names::path::DOCUMENT`]). /etc of the
//! machine is a pure function of the release and this document.
//!
//! The identity partition on disk: one header block of [`crate::layout::BLOCK`] bytes, then the JSON.
//!
//! | offset | bytes | what |
//! |---|---|---|
//! | 0 | 16 | [`crate::layout::IDENTITY_MAGIC`] |
//! | 16 | 4 | format, little-endian: 1 |
//! | 20 | 4 | zero |
//! | 24 | 8 | length of the JSON, little-endian |
//! | 32 | 32 | SHA-256 of the JSON |
//! | 4096 | n | the JSON |
//!
//! A header of zeros says: consumed (or never written).

use crate::layout::{BLOCK, IDENTITY_MAGIC, IDENTITY_SIZE};
use crate::names::{Arch, Board, Role};
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// The format this crate writes and reads.
pub const FORMAT: u32 = 1;

/// All that is particular to one machine. Holds keys: never log it whole; it has no `Debug` on purpose.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MachineDocument {
    /// Format of this document: [`FORMAT`].
    pub format: u32,
    /// Name of the cluster.
    pub cluster: String,
    /// Who the machine is.
    pub machine: Machine,
    /// Its place in the network.
    pub network: Network,
    /// What the system is told beyond the release's own defaults.
    pub system: System,
    /// Remote shell, off when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ssh: Option<Ssh>,
    /// Kubernetes, absent on a management machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubernetes: Option<Kubernetes>,
    /// What only a management machine has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub management: Option<Management>,
    /// With what the machine answers at its API; it answers nobody when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_api: Option<NodeApi>,
}

/// With what a machine answers at its API, PEM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NodeApi {
    /// Its certificate, for its name and address.
    pub certificate: String,
    /// The key.
    pub key: String,
    /// Whose clients it answers, one after another.
    pub authorities: String,
}

/// What only a management machine has.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Management {
    /// root's way into the cluster: a kubeconfig with a certificate of some weeks inside.
    pub kubeconfig: String,
}

/// Who a machine is, and which edition of its document this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Machine {
    /// Host name and Kubernetes node name: an RFC 1123 label.
    pub name: String,
    /// Number of the node in the cluster, allocated once and never reused.
    pub number: u32,
    /// What it does.
    pub role: Role,
    /// What it is.
    pub board: Board,
    /// Random name of this installation, 32 hexadecimal digits: a new card is a new incarnation.
    pub incarnation: String,
    /// Which card of the node this is, from 1. The Node in Kubernetes remembers the highest, and an older card
    /// that comes back is told by it.
    #[serde(default = "first_card")]
    pub card: u32,
    /// Edition of the document within the incarnation; a machine refuses a lower one.
    pub generation: u64,
    /// systemd's machine id, 32 hexadecimal digits, made once for the node's name.
    pub machine_id: String,
    /// Seconds since the epoch when the document was rendered; the clock never starts before it.
    pub issued_at: u64,
    /// An existing data file system of another incarnation may be taken over with its contents.
    #[serde(default)]
    pub keep_data: bool,
}

/// Documents of before cards were counted.
fn first_card() -> u32 {
    1
}

/// Of documents that say nothing of it.
fn drain_timeout() -> u64 {
    900
}

/// A machine's place in the network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Network {
    /// The address stated in the file: where the node is expected, however it gets it.
    pub address: Ipv4Addr,
    /// The subnet of the site.
    pub subnet: Ipv4Net,
    /// The way out, if there is one.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time servers, names or addresses.
    pub ntp: Vec<String>,
    /// Search and host domain.
    pub domain: String,
    /// How the primary interface gets [`Network::address`].
    pub addressing: Addressing,
    /// The primary interface's hardware address, lower case with colons; any wired interface when absent.
    pub mac: Option<String>,
    /// Bytes in the largest packet, when it is not the link's default.
    pub mtu: Option<u32>,
    /// Further interfaces.
    #[serde(default)]
    pub interfaces: Vec<Interface>,
    /// Names of the site's machines for /etc/hosts.
    #[serde(default)]
    pub hosts: Vec<(Ipv4Addr, String)>,
    /// HTTP proxy settings as environment variables (`http_proxy`, `https_proxy`, `no_proxy`).
    #[serde(default)]
    pub proxy: BTreeMap<String, String>,
}

/// How an address comes to an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Addressing {
    /// From the document.
    Static,
    /// From the router, which reserves the stated address.
    Dhcp,
}

/// A further interface: a second card, or a VLAN on one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Interface {
    /// Name given in the file.
    pub name: String,
    /// Hardware address that selects the card.
    pub mac: Option<String>,
    /// VLAN identifier on the card.
    pub vlan: Option<u16>,
    /// Bytes in the largest packet.
    pub mtu: Option<u32>,
    /// Address with prefix; DHCP when absent.
    pub address: Option<Ipv4Net>,
    /// Routes: destination and next hop.
    #[serde(default)]
    pub routes: Vec<(Ipv4Net, Ipv4Addr)>,
    /// The wireless network it joins; its card is a wireless one. With the primary interface's hardware address it *is*
    /// the primary interface.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wifi: Option<Wifi>,
}

/// A wireless network.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wifi {
    /// Its name, at most 32 bytes.
    pub ssid: String,
    /// Its passphrase (8 to 63 printable characters), or its key in 64 hexadecimal digits.
    pub psk: String,
}

impl std::fmt::Debug for Wifi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wifi").field("ssid", &self.ssid).finish_non_exhaustive()
    }
}

impl Wifi {
    /// Whether this can be a passphrase or key (IEEE 802.11-2020, J.4).
    pub fn is_psk(text: &str) -> bool {
        let printable = text.bytes().all(|b| (0x20..=0x7e).contains(&b));
        match text.len() {
            8..=63 => printable,
            64 => text.bytes().all(|b| b.is_ascii_hexdigit()),
            _ => false,
        }
    }
}

/// What the system is told beyond the release's own defaults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct System {
    /// Name of a time zone, `Etc/UTC`.
    pub timezone: String,
    /// Kernel modules to load.
    #[serde(default)]
    pub modules: Vec<String>,
    /// Kernel settings.
    #[serde(default)]
    pub sysctls: BTreeMap<String, String>,
    /// Certificate authorities to trust beside the distribution's, PEM.
    #[serde(default)]
    pub trusted_cas: Vec<String>,
    /// iSCSI initiator name, stable for the node's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initiator_name: Option<String>,
    /// prometheus-node-exporter runs.
    #[serde(default)]
    pub node_exporter: bool,
    /// Disks beside the one with the system.
    #[serde(default)]
    pub disks: Disks,
    /// Unattended updates; none when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updates: Option<Updates>,
}

/// Disks beside the one with the system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Disks {
    /// Where state lies, when not beside the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DiskName>,
    /// Further ones.
    #[serde(default)]
    pub volumes: Vec<Volume>,
}

/// What a disk is known by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskName {
    /// Its serial number.
    Serial(String),
    /// Its world wide identifier.
    Wwid(String),
}

/// A disk for what the user puts there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// Its name.
    pub name: String,
    /// The disk.
    pub disk: DiskName,
    /// Where its ext4 is mounted, below /var/mnt; without, it is used as it is, by the name /dev/disk/bramble/NAME.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mount: Option<String>,
}

/// Where releases come from, and when a machine may restart into one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Updates {
    /// Directory of releases on a web server.
    pub source: String,
    /// When the machine may restart, in its local time; at any time when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub window: Option<Window>,
    /// Seconds in which pods may leave a worker before it restarts.
    #[serde(default = "drain_timeout")]
    pub drain_timeout: u64,
    /// Seconds between two looks, in place of the agent's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<u64>,
}

/// Hours of the day.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Window {
    /// Days on which it opens, Monday is 0; every day when empty.
    #[serde(default)]
    pub days: Vec<u8>,
    /// Minute of the day at which it opens.
    pub from: u16,
    /// Minute of the day at which it closes; at or before `from`: on the next day.
    pub to: u16,
}

/// Remote shell for root with keys only.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ssh {
    /// Lines of `authorized_keys`.
    pub authorized_keys: Vec<String>,
    /// Ed25519 host key in OpenSSH's private key format, made once for the node's name.
    pub host_key: String,
    /// The matching line of the `.pub` file.
    pub host_key_public: String,
}

/// Kubernetes on this machine. Certificates and keys are in [`Kubernetes::files`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kubernetes {
    /// Which distribution's units to render.
    pub distribution: Distribution,
    /// Version with `v`.
    pub version: String,
    /// Where the API is reached by the nodes.
    pub endpoint: (Ipv4Addr, u16),
    /// Range of all pods.
    pub pods: Ipv4Net,
    /// Range of services; the API is its first address, DNS its tenth.
    pub services: Ipv4Net,
    /// Domain of cluster names.
    pub cluster_domain: String,
    /// This node's own range of pods.
    pub pod_range: Ipv4Net,
    /// How pods on different nodes reach each other.
    pub cni: Cni,
    /// Labels the kubelet registers with.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Taints the kubelet registers with, `key=value:Effect`.
    #[serde(default)]
    pub taints: Vec<String>,
    /// What only a control plane has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_plane: Option<ControlPlane>,
    /// What only k3s is told; absent with another distribution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub k3s: Option<K3s>,
    /// Certificates, keys and kubeconfigs below /etc/kubernetes (of k3s: below /etc/rancher/k3s), path relative to it.
    /// `.crt` and `.pub` files are written with mode 0644, all others with 0600.
    pub files: BTreeMap<String, String>,
}

/// What only k3s is told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct K3s {
    /// Where the machine joins the cluster, `https://192.168.1.11:6443`; absent on the server that founds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub join: Option<String>,
    /// Packaged components that are not deployed: `coredns`, `servicelb`, `traefik`, `local-storage`, `metrics-server`,
    /// `runtimes`.
    #[serde(default)]
    pub disable: Vec<String>,
    /// Further names and addresses in the API's certificate.
    #[serde(default)]
    pub tls_sans: Vec<String>,
    /// Nodes give images they have to each other.
    #[serde(default)]
    pub embedded_registry: bool,
}

/// What only a control plane has.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ControlPlane {
    /// Where the API keeps its state.
    pub datastore: Datastore,
    /// Default Pod Security level: `privileged`, `baseline`, `restricted`.
    pub pod_security: String,
    /// Write an audit log.
    pub audit_log: bool,
    /// Encrypt Secrets in the datastore; the key is in `files` as `encryption.yaml`.
    pub encrypt_secrets: bool,
    /// Manifests to apply once the API answers, in order; each is a YAML stream, applied server-side and idempotent.
    pub manifests: Vec<String>,
}

/// A Kubernetes distribution on Bramble OS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Distribution {
    /// Kubernetes as its own project releases it.
    Upstream,
    /// k3s.
    K3s,
}

/// Where the API keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Datastore {
    /// kine over SQLite.
    Sqlite,
    /// etcd.
    Etcd,
}

/// How pods on different nodes reach each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cni {
    /// flannel, routes on one segment.
    FlannelHostGw,
    /// flannel, VXLAN.
    FlannelVxlan,
    /// Nothing; the user brings one. The node is NotReady until then.
    None,
}

impl MachineDocument {
    /// The architecture of the machine.
    pub fn arch(&self) -> Arch {
        self.machine.board.arch()
    }

    /// Digest of what the file says of the machine, hexadecimal SHA-256: two editions that say the same have the same.
    ///
    /// Left out are what each card or edition has anew (certificates, kubeconfigs, numbers), what is a difference of its own
    /// (labels, taints, the version of Kubernetes, which a release brings), the names of other machines, which a machine learns
    /// with its next document and does not restart for, and secrets: whoever sees the digest must not be able to try
    /// passphrases. So another passphrase alone does not change it.
    pub fn settings(&self) -> String {
        let mut plain = self.clone();
        let Machine { incarnation, card, generation, issued_at, keep_data, .. } = &mut plain.machine;
        incarnation.clear();
        (*card, *generation, *issued_at, *keep_data) = (0, 0, 0, false);
        (plain.node_api, plain.management) = (None, None);
        plain.network.hosts.clear();
        if let Some(ssh) = &mut plain.ssh {
            ssh.host_key.clear();
        }
        for wifi in plain.network.interfaces.iter_mut().filter_map(|interface| interface.wifi.as_mut()) {
            wifi.psk.clear();
        }
        if let Some(kubernetes) = &mut plain.kubernetes {
            kubernetes.files.clear();
            kubernetes.labels.clear();
            kubernetes.taints.clear();
            kubernetes.version.clear();
        }
        let json = serde_json::to_vec(&plain).unwrap_or_default();
        crate::release::hex(&Sha256::digest(json))
    }
}

/// Why an identity partition gives no document.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Header of zeros: taken by an earlier boot, or never written.
    #[error("the identity partition is empty")]
    Consumed,
    /// Neither zeros nor a header.
    #[error("the identity partition holds something else")]
    Foreign,
    /// A header whose length or hash does not fit what follows.
    #[error("the identity partition is damaged: {0}")]
    Damaged(&'static str),
    /// A document this program cannot read.
    #[error("the machine document cannot be read: {0}")]
    Unreadable(String),
}

/// The header block for a JSON of `length` bytes with this SHA-256.
pub fn identity_header(length: u64, sha256: &[u8; 32]) -> Vec<u8> {
    let mut block = vec![0; BLOCK as usize];
    block[..16].copy_from_slice(IDENTITY_MAGIC);
    block[16..20].copy_from_slice(&FORMAT.to_le_bytes());
    block[24..32].copy_from_slice(&length.to_le_bytes());
    block[32..64].copy_from_slice(sha256);
    block
}

/// Length and SHA-256 of the JSON that follows this header block.
pub fn parse_identity_header(block: &[u8]) -> Result<(u64, [u8; 32]), IdentityError> {
    if block.iter().all(|b| *b == 0) {
        return Err(IdentityError::Consumed);
    }
    if block.len() < 64 || block[..16] != IDENTITY_MAGIC[..] {
        return Err(IdentityError::Foreign);
    }
    let (mut format, mut length, mut sha256) = ([0; 4], [0; 8], [0; 32]);
    format.copy_from_slice(&block[16..20]);
    length.copy_from_slice(&block[24..32]);
    sha256.copy_from_slice(&block[32..64]);
    if u32::from_le_bytes(format) != FORMAT {
        return Err(IdentityError::Damaged("unknown format"));
    }
    let length = u64::from_le_bytes(length);
    if length == 0 || length > IDENTITY_SIZE - BLOCK {
        return Err(IdentityError::Damaged("impossible length"));
    }
    Ok((length, sha256))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_header_reads_back() {
        let block = identity_header(77, &[9; 32]);
        assert_eq!(parse_identity_header(&block), Ok((77, [9; 32])));
        assert_eq!(parse_identity_header(&[0; 4096]), Err(IdentityError::Consumed));
        assert_eq!(parse_identity_header(&[7; 4096]), Err(IdentityError::Foreign));
        let mut bad = block.clone();
        bad[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
        assert_eq!(parse_identity_header(&bad), Err(IdentityError::Damaged("impossible length")));
        bad[16] = 9;
        assert_eq!(parse_identity_header(&bad), Err(IdentityError::Damaged("unknown format")));
    }
}
