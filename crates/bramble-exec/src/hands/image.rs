//! A node's identity, its document, its disk.

use super::{Builder, from_project};
use bramble_api::document::{Cni, Datastore, MachineDocument, identity_header};
use bramble_api::event::{Outcome, Unit};
use bramble_api::names::Role;
use bramble_effects::{Context, Failure};
use bramble_image::disk::{self, DiskMap, Source};
use bramble_kube::pki::{self, NodeRequest, Validity};
use bramble_kube::{manifests, names};
use bramble_plan::{Edition, Identity};
use bramble_secrets::SecretBytes;
use bramble_spec::{Certificate, EffectiveNode};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How long the kubeconfig of a management machine is good: nothing renews it on the machine yet.
const MANAGEMENT_HOURS: u64 = 90 * 24;

/// Edition of the document on a card.
const FIRST: u64 = 1;

/// A node's whole disk, as pieces.
pub struct NodeDisk {
    map: DiskMap,
}

/// A run of bytes of a disk that lies in a file.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DiskPiece {
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// The file.
    pub path: PathBuf,
    /// First byte in the file.
    pub offset: u64,
}

impl NodeDisk {
    /// Where zeros must be on a medium that was used before.
    pub fn zeros(&self) -> &[Range<u64>] {
        &self.map.zeros
    }

    /// Bytes of the disk.
    pub fn size(&self) -> u64 {
        self.map.size
    }

    /// Ranges that must be as [`NodeDisk::read_at`] gives them, zeros among them. All else is left as it is.
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let runs = self.map.segments.iter().map(|s| s.start..s.start + s.length);
        let mut ranges: Vec<_> = runs.chain(self.map.zeros.iter().cloned()).collect();
        ranges.sort_by_key(|r| r.start);
        ranges
    }

    /// Reads from the disk; what is in no range is zeros.
    pub fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.map.read_at(offset, out).map_err(io::Error::other)
    }

    /// Puts the pieces into a directory: links to the release's files (which a later build replaces, never changes),
    /// and one file, mode 0600, with what only this node has.
    pub fn split(&self, directory: &Path) -> io::Result<Vec<DiskPiece>> {
        use std::os::unix::fs::OpenOptionsExt;
        let own = directory.join("own.bin");
        let _ = std::fs::remove_file(&own);
        let mut file = File::options().create_new(true).write(true).mode(0o600).open(&own)?;
        let mut pieces = Vec::new();
        let mut length = 0;
        for segment in &self.map.segments {
            let piece = match &segment.source {
                Source::Bytes(bytes) => {
                    file.write_all(bytes)?;
                    let offset = length;
                    length += segment.length;
                    DiskPiece { start: segment.start, length: segment.length, path: own.clone(), offset }
                }
                Source::File { path, offset } => {
                    let name =
                        path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
                    let kept = directory.join(name);
                    if !kept.exists() && std::fs::hard_link(path, &kept).is_err() {
                        // Another file system: a copy serves as well.
                        std::fs::copy(path, &kept)?;
                    }
                    DiskPiece { start: segment.start, length: segment.length, path: kept, offset: *offset }
                }
            };
            pieces.push(piece);
        }
        file.sync_all()?;
        Ok(pieces)
    }
}

/// The disk of a node, `size` bytes long, with its identity. With `keep_data` its data partition is left out, and its
/// machine takes over what lies there.
pub fn node_disk(
    builder: &Builder<'_>,
    name: &str,
    size: u64,
    keep_data: bool,
    context: &Context<'_>,
) -> Result<NodeDisk, Failure> {
    builder.issue_identity(name)?;
    let node = builder.node(name)?;
    let release = builder.release(bramble_plan::arch(node.arch))?;
    let document = builder.document(&node, keep_data, FIRST)?;
    context.progress(0, 0, Unit::Items, "laying out the disk");
    let map = disk::map(&disk::DiskInput {
        release: &release,
        board: bramble_plan::board(node.board),
        incarnation: &builder.identity(&node)?.incarnation,
        size,
        document: Some(&document),
        keep_data,
    })
    .map_err(|e| Failure::user(format!("cannot lay out the disk of {name}")).source(e))?;
    Ok(NodeDisk { map })
}

/// Another edition of a machine's document, as a machine takes it: a header block and JSON. It makes no new secrets.
///
/// # Errors
/// The node was never given an identity: there is no machine to take it.
pub fn node_document(builder: &Builder<'_>, name: &str, generation: u64) -> Result<SecretBytes, Failure> {
    let json = builder.edition(name, generation)?;
    let hash = Sha256::digest(json.expose()).into();
    let mut bytes = identity_header(json.expose().len() as u64, &hash);
    bytes.extend_from_slice(json.expose());
    Ok(SecretBytes::new(bytes))
}

/// What the file says of a machine, as a digest: [`MachineDocument::settings`].
///
/// # Errors
/// As [`node_document`].
pub fn node_settings(builder: &Builder<'_>, name: &str) -> Result<String, Failure> {
    let json = builder.edition(name, FIRST)?;
    let document: MachineDocument = serde_json::from_slice(json.expose())
        .map_err(|_| Failure::bug(format!("the document of {name} cannot be read back")))?;
    Ok(document.settings())
}

impl Builder<'_> {
    fn edition(&self, name: &str, generation: u64) -> Result<SecretBytes, Failure> {
        let node = self.node(name)?;
        let vault = (self.vault)()?;
        if !vault.has(&["nodes", name]) {
            return Err(Failure::user(format!("{name} has no identity yet")).hint("`bramble flash` makes it"));
        }
        self.document(&node, false, generation)
    }

    fn identity(&self, node: &EffectiveNode) -> Result<Identity, Failure> {
        (self.vault)()?.identity(&node.name)
    }

    /// Makes what a node needs to be itself, unless the secrets file has it.
    pub(super) fn issue_identity(&self, name: &str) -> Result<Outcome, Failure> {
        let node = self.node(name)?;
        let vault = (self.vault)()?;
        if node.role == bramble_spec::Role::Management {
            return self.issue_management(vault, name);
        }
        let identity = vault.identity(name)?;
        if !identity.kubernetes.is_empty() {
            return Ok(Outcome::Unchanged);
        }
        if self.is_k3s() {
            return self.issue_k3s_identity(vault, &node);
        }
        let now = self.clock.now();
        let cluster = self.cluster.metadata.name.to_string();
        let authorities = vault.authorities(&cluster, now)?;
        let spec = &self.cluster.spec;
        let endpoint =
            self.cluster.endpoint().ok_or_else(|| Failure::user("the cluster has no API endpoint"))?;
        let sans: Vec<String> = endpoint.sans.iter().map(ToString::to_string).collect();
        let cluster_domain = spec.network.cluster_domain.to_string();
        let request = NodeRequest {
            cluster: &cluster,
            name,
            role: match node.role {
                bramble_spec::Role::ControlPlane => Role::ControlPlane,
                bramble_spec::Role::Worker => Role::Worker,
                bramble_spec::Role::Management => Role::Management,
            },
            address: node.address,
            endpoint: (endpoint.address, endpoint.port),
            service_address: names::api_service_address(spec.network.services),
            cluster_domain: &cluster_domain,
            sans: &sans,
            cni: cni(&spec.kubernetes.cni),
            datastore: match spec.kubernetes.datastore() {
                bramble_spec::Datastore::Sqlite => Datastore::Sqlite,
                bramble_spec::Datastore::Etcd => Datastore::Etcd,
            },
            encrypt_secrets: spec.kubernetes.encrypt_secrets_at_rest,
            validity: Validity::default(),
            now,
        };
        let files = pki::issue_node(&authorities, &request)
            .map_err(|e| Failure::user(format!("cannot issue the certificates of {name}")).source(e))?;
        vault.set_kubernetes(name, &files)?;
        vault.save(now)?;
        Ok(Outcome::Done)
    }

    /// A management machine has names and host keys, and is no node. Its kubeconfig needs the cluster's authorities.
    fn issue_management(&self, vault: &crate::Vault, name: &str) -> Result<Outcome, Failure> {
        if vault.has(&["nodes", name, "sshHostKey"]) && vault.has(&["authorities"]) {
            return Ok(Outcome::Unchanged);
        }
        let now = self.clock.now();
        vault.identity(name)?;
        vault.authorities(&self.cluster.metadata.name.to_string(), now)?;
        vault.save(now)?;
        Ok(Outcome::Done)
    }

    /// A node's document as it goes into its identity partition, or by the node API.
    fn document(
        &self,
        node: &EffectiveNode,
        keep_data: bool,
        generation: u64,
    ) -> Result<SecretBytes, Failure> {
        let spec = &self.cluster.spec;
        let network = &spec.network;
        let domain = network.cluster_domain.to_string();
        let settings = manifests::Settings {
            cluster_domain: &domain,
            services: network.services,
            cni: cni(&spec.kubernetes.cni),
            replicas: 1,
            forward: !network.dns.is_empty(),
        };
        let edition = Edition {
            issued_at: self.clock.now(),
            generation,
            keep_data,
            manifests: manifests::first(&settings),
            trusted_cas: self.trusted_cas()?,
            updates_source: self.updates_source.clone(),
        };
        let mut identity = self.identity(node)?;
        identity.node_api = Some((self.vault)()?.node_api(
            &self.cluster.metadata.name.to_string(),
            &node.name,
            vec![node.name.clone(), node.address.to_string()],
            self.clock.now(),
            Validity::default().leaf,
        )?);
        for wifi in node.interfaces.iter().filter_map(|i| i.wifi.as_ref()) {
            let name = &wifi.psk.name.0;
            let psk = match &self.lab {
                // A rehearsal knows no passphrase of the house; its machines have no wireless card either.
                Some(_) => Some("a rehearsal".to_string()),
                None => (self.vault)()?.get(&["user", name]).map(|text| text.expose().clone()),
            };
            identity.secrets.extend(psk.map(|psk| (name.clone(), psk)));
        }
        if node.role == bramble_spec::Role::Management {
            identity.kubeconfig = Some(self.management_kubeconfig()?);
        } else if self.is_k3s() {
            identity.kubernetes.extend(self.k3s_registries()?);
        }
        let mut document = bramble_plan::document(self.cluster, node, &self.lock(), &identity, &edition)
            .map_err(|e| {
                Failure::user(format!("cannot render the document of {}", node.name)).source(e).hint(
                    "`bramble check` says which secrets are missing; `bramble secrets edit NAME` adds one",
                )
            })?;
        if self.lab.is_some() {
            // The lab's cables carry what the house has in the air.
            document.network.interfaces.retain(|interface| interface.wifi.is_none());
            // And one disk a machine.
            document.system.disks = Default::default();
        }
        if self.is_k3s() && document.kubernetes.is_some() {
            self.check_k3s(&document)?;
        }
        serde_json::to_vec(&document)
            .map(SecretBytes::new)
            .map_err(|_| Failure::bug(format!("the document of {} cannot be written", node.name)))
    }

    /// A kubeconfig for root on a management machine.
    fn management_kubeconfig(&self) -> Result<String, Failure> {
        let endpoint =
            self.cluster.endpoint().ok_or_else(|| Failure::user("the cluster has no API endpoint"))?;
        let server = format!("https://{}:{}", endpoint.address, endpoint.port);
        let now = self.clock.now();
        let text = (self.vault)()?.admin_kubeconfig(
            &self.cluster.metadata.name.to_string(),
            &server,
            now,
            MANAGEMENT_HOURS,
        )?;
        Ok(text.expose().clone())
    }

    /// Authorities that the file names, in place or in files beside it.
    fn trusted_cas(&self) -> Result<Vec<String>, Failure> {
        let read = |entry: &Certificate| match entry {
            Certificate::Pem(text) => Ok(text.clone()),
            Certificate::File(path) => {
                let path = self.project.directory.join(path);
                let text = std::fs::read_to_string(&path).map_err(|e| {
                    Failure::user(format!("cannot read the trusted authority {}", path.display())).source(e)
                })?;
                if text.contains("-----BEGIN CERTIFICATE-----") {
                    Ok(text)
                } else {
                    Err(Failure::user(format!("{} is no certificate in PEM form", path.display())))
                }
            }
        };
        self.cluster.spec.network.trusted_cas.iter().map(read).collect()
    }

    /// Writes a node's image file. It holds the node's keys: mode 0600.
    pub(super) fn write_image(&self, name: &str, context: &Context<'_>) -> Result<Outcome, Failure> {
        {
            // A card made by hand from this image may be the one that founds.
            let mut lock = self.lock();
            lock.allocated = bramble_plan::settle_founder(&lock.allocated, self.cluster);
        }
        self.keep_lock()?;
        // The smallest disk: `flash` and the lab lay the table out for the disk they have.
        let size = bramble_api::layout::disk_min_size(bramble_plan::board(self.node(name)?.board));
        let disk = node_disk(self, name, size, false, context)?;
        let path = self.out.join(format!("{name}.img"));
        let failed = |e| Failure::user(format!("cannot write {}", path.display())).source(e);
        disk::write(&disk.map, &path).map_err(failed)?;
        let bmap = disk::bmap(&disk.map, &path).map_err(failed)?;
        crate::replace(&path.with_extension("img.bmap"), bmap.as_bytes(), 0o644).map_err(from_project)?;
        Ok(Outcome::Done)
    }
}

fn cni(cni: &bramble_spec::Cni) -> Cni {
    match cni {
        bramble_spec::Cni::Flannel(flannel) => match flannel.backend {
            bramble_spec::Backend::HostGw => Cni::FlannelHostGw,
            bramble_spec::Backend::Vxlan => Cni::FlannelVxlan,
        },
        bramble_spec::Cni::Cilium | bramble_spec::Cni::None => Cni::None,
    }
}
