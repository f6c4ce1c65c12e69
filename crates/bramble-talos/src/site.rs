//! From the user's file to what Talos is told.

use crate::bundle::Bundle;
use crate::config::check;
use crate::config::{
    Cni, Disk, Documents, Install, Link, Machine, Registry, Role, SystemVolume, UserVolume, Vlan, VolumeKey,
};
use crate::patch::{Patch, PatchError};
use crate::schematic::Schematic;
use crate::versions::{self, NoWay, Release};
use crate::yaml::Value;
use bramble_secrets::SecretText;
use bramble_spec::{
    Addressing, Backend, Certificate, Cluster, DiskSelector, EffectiveNode, EncryptionKey, Interface, OrNone,
    PodSecurity, ResolvedEndpoint, Vip, Volume, Written,
};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

/// Where user volumes are mounted; Talos knows no other place.
const VOLUMES: &str = "/var/mnt/";
/// Name of the user's secret with the passphrase of encrypted partitions.
pub const DISK_SECRET: &str = "talos-disk";
/// The card of a Pi, for 1.13, which wants a path and never looks whether it is there.
const PI_CARD: &str = "/dev/mmcblk0";

/// A machine's config cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// A machine that does not run Talos.
    #[error("{node} does not run Talos: {why}")]
    NotTalos {
        /// The machine.
        node: String,
        /// What it is instead.
        why: &'static str,
    },
    /// A release without documents of ours.
    #[error("{node} has no release of Talos that is served ({release})")]
    Release {
        /// The machine.
        node: String,
        /// What is stated.
        release: String,
    },
    /// Kubernetes that this Talos does not run.
    #[error("{node} cannot run this Kubernetes")]
    Kubernetes {
        /// The machine.
        node: String,
        /// Why.
        source: NoWay,
    },
    /// It is not said where Talos is installed.
    #[error("it is not said on which disk {node} has Talos")]
    NoDisk {
        /// The machine.
        node: String,
    },
    /// Something that this Talos cannot do.
    #[error("{node}: {what}")]
    Cannot {
        /// The machine.
        node: String,
        /// What it cannot do.
        what: String,
    },
    /// A secret that the file names and that is not there.
    #[error("the secret {name:?} that {node} needs is not in the secrets file")]
    Secret {
        /// The machine.
        node: String,
        /// Its name.
        name: String,
    },
    /// A patch that cannot be read or does not fit.
    #[error("{what} of {node} cannot be applied")]
    Patch {
        /// The machine.
        node: String,
        /// Which: its number among the machine's, or its file.
        what: String,
        /// Why.
        source: PatchError,
    },
    /// What Talos would refuse about the config as a whole.
    #[error("Talos would refuse the config of {node}: {}", conflicts.join("; "))]
    Refused {
        /// The machine.
        node: String,
        /// Everything that it would refuse.
        conflicts: Vec<String>,
    },
    /// A file that the file names.
    #[error("cannot read {path:?}, which {node} needs")]
    File {
        /// The machine.
        node: String,
        /// Its path as it was stated.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// What the file refers to.
pub trait Sources {
    /// The user's secret of this name.
    fn secret(&self, name: &str) -> Option<SecretText>;
    /// The text of a file, its path relative to `bramble.yaml`.
    ///
    /// # Errors
    /// What reading it says.
    fn file(&self, path: &str) -> std::io::Result<String>;
}

/// The cluster as Talos sees it: what all machines share, read once.
pub struct Site<'a> {
    cluster: &'a Cluster,
    bundle: &'a Bundle,
    sources: &'a dyn Sources,
    endpoint: ResolvedEndpoint,
    shared: Shared,
    /// Patches out of files, by path: most of them are of all machines.
    files: RefCell<BTreeMap<String, Rc<Patch>>>,
}

/// What has been read from files and from the secrets file.
struct Shared {
    registries: BTreeMap<String, Registry>,
    trusted: Vec<String>,
    environment: BTreeMap<String, String>,
    disk_secret: Option<SecretText>,
}

impl<'a> Site<'a> {
    /// Reads what all machines share.
    ///
    /// # Errors
    /// A secret or a file that is not there; a cluster without a control plane.
    pub fn new(
        cluster: &'a Cluster,
        bundle: &'a Bundle,
        sources: &'a dyn Sources,
    ) -> Result<Site<'a>, RenderError> {
        let whole = || "the cluster".to_string();
        let endpoint = cluster.endpoint().ok_or_else(|| RenderError::Cannot {
            node: whole(),
            what: "it has no control plane, so that nobody answers for its API".into(),
        })?;
        let pem = |certificate: &Certificate| match certificate {
            Certificate::Pem(text) => Ok(text.clone()),
            Certificate::File(path) => sources.file(path).map_err(|source| RenderError::File {
                node: whole(),
                path: path.clone(),
                source,
            }),
        };
        let network = &cluster.spec.network;
        let mut registries = BTreeMap::new();
        for (name, stated) in &network.registries.0 {
            let login = match (&stated.username, &stated.password) {
                (Some(user), Some(password)) => {
                    let name = password.name.0.clone();
                    let secret = sources.secret(&name).ok_or(RenderError::Secret { node: whole(), name })?;
                    Some((user.clone(), secret))
                }
                _ => None,
            };
            let mirrors = stated.mirrors.iter().map(ToString::to_string).collect();
            let ca = stated.ca.as_ref().map(pem).transpose()?;
            registries.insert(name.clone(), Registry { mirrors, login, ca });
        }
        let trusted = network.trusted_cas.iter().map(pem).collect::<Result<_, _>>()?;
        let shared = Shared {
            registries,
            trusted,
            environment: environment(cluster),
            disk_secret: sources.secret(DISK_SECRET),
        };
        Ok(Site { cluster, bundle, sources, endpoint, shared, files: RefCell::default() })
    }

    /// The config of one machine.
    ///
    /// # Errors
    /// What the file asks for and this Talos cannot do.
    pub fn render(&self, node: &EffectiveNode) -> Result<Documents, RenderError> {
        let machine = self.machine(node)?;
        let mut config = crate::config::documents(&machine, self.bundle);
        for (index, volume) in node.talos.volumes.iter().flatten().enumerate() {
            let what = format!("volume {}", index + 1);
            let failed = |source| RenderError::Patch { node: node.name.clone(), what: what.clone(), source };
            // A volume document is laid over ours of the same name, or added.
            let mut document = value(volume);
            if let Value::Map(map) = &mut document
                && map.get("apiVersion").is_none()
            {
                map.set("apiVersion", "v1alpha1");
            }
            Patch::of(vec![document])
                .and_then(|patch| patch.apply(&mut config, machine.release))
                .map_err(failed)?;
        }
        for (index, stated) in node.talos.patches.iter().flatten().enumerate() {
            let (what, patch) = self.patch(node, index, stated)?;
            patch.apply(&mut config, machine.release).map_err(|source| RenderError::Patch {
                node: node.name.clone(),
                what,
                source,
            })?;
        }
        let conflicts = check::conflicts(&config, machine.release);
        if conflicts.is_empty() {
            return Ok(config);
        }
        let conflicts = conflicts.into_iter().map(|c| c.0).collect();
        Err(RenderError::Refused { node: node.name.clone(), conflicts })
    }

    /// A patch, and what to call it.
    fn patch(
        &self,
        node: &EffectiveNode,
        index: usize,
        stated: &Written,
    ) -> Result<(String, Rc<Patch>), RenderError> {
        let what = format!("patch {}", index + 1);
        let failed =
            |what: &str, source| RenderError::Patch { node: node.name.clone(), what: what.into(), source };
        let (Written::Plain(text) | Written::Text(text)) = stated else {
            let patch = Patch::of(vec![value(stated)]).map_err(|e| failed(&what, e))?;
            return Ok((what, Rc::new(patch)));
        };
        let Some(path) = text.strip_prefix('@') else {
            let patch = Patch::read(text).map_err(|e| failed(&what, e))?;
            return Ok((what, Rc::new(patch)));
        };
        let what = format!("the patch {path}");
        if let Some(patch) = self.files.borrow().get(path) {
            return Ok((what, patch.clone()));
        }
        let text = self.sources.file(path).map_err(|source| RenderError::File {
            node: node.name.clone(),
            path: path.into(),
            source,
        })?;
        let patch = Rc::new(Patch::read(&text).map_err(|e| failed(&what, e))?);
        self.files.borrow_mut().insert(path.to_string(), patch.clone());
        Ok((what, patch))
    }

    /// One machine in Talos' words.
    ///
    /// # Errors
    /// What the file asks for and this Talos cannot do.
    pub fn machine(&self, node: &EffectiveNode) -> Result<Machine, RenderError> {
        let (spec, name) = (&self.cluster.spec, || node.name.clone());
        let role = match node.role {
            bramble_spec::Role::ControlPlane => Role::ControlPlane,
            bramble_spec::Role::Worker => Role::Worker,
            bramble_spec::Role::Management => {
                return Err(RenderError::NotTalos {
                    node: name(),
                    why: "a management machine has Bramble OS",
                });
            }
        };
        let stated = node.talos.version.as_ref();
        let release = stated.and_then(Release::of).ok_or_else(|| RenderError::Release {
            node: name(),
            release: stated.map_or("none stated".into(), ToString::to_string),
        })?;
        let kubernetes = &spec.kubernetes;
        versions::runs(release, &kubernetes.version)
            .map_err(|source| RenderError::Kubernetes { node: name(), source })?;
        let cannot = |what: &str| RenderError::Cannot { node: name(), what: what.into() };
        let url = format!("https://{}:{}", self.endpoint.address, self.endpoint.port);
        let version = kubernetes.version.to_string().trim_start_matches('v').to_string();
        let mut machine = Machine::plain(release, role, self.cluster.name(), &url, &version);
        let network = &spec.network;
        machine.pods = vec![network.pods.to_string()];
        machine.services = vec![network.services.to_string()];
        machine.dns_domain = network.cluster_domain.to_string();
        machine.sans = self.endpoint.sans.iter().map(ToString::to_string).collect();
        machine.schedule_on_control_plane = kubernetes.schedule_on_control_plane;
        machine.pod_security = match kubernetes.pod_security {
            PodSecurity::Privileged => "privileged",
            PodSecurity::Baseline => "baseline",
            PodSecurity::Restricted => "restricted",
        };
        machine.audit = kubernetes.audit_log;
        if !kubernetes.encrypt_secrets_at_rest {
            return Err(cannot(
                "Talos always encrypts Secrets in etcd; remove `encryptSecretsAtRest: false`",
            ));
        }
        machine.cni = match &kubernetes.cni {
            // 1.13 knows no other way than vxlan.
            bramble_spec::Cni::Flannel(_) if release == Release::V1_13 => Cni::Flannel { backend: "vxlan" },
            bramble_spec::Cni::Flannel(flannel) => Cni::Flannel {
                backend: match flannel.backend {
                    Backend::HostGw => "host-gw",
                    Backend::Vxlan => "vxlan",
                },
            },
            bramble_spec::Cni::Cilium | bramble_spec::Cni::None => Cni::None,
        };
        machine.hostname = Some(node.name.clone());
        machine.nameservers = network.dns.clone();
        machine.search = vec![network.domain.to_string()];
        machine.ntp = network.ntp.iter().map(ToString::to_string).collect();
        self.links(node, &mut machine)?;
        machine.install = Some(self.install(node, release)?);
        machine.labels = node.labels.clone();
        machine.taints = taints(node)?;
        machine.sysctls = node.sysctls.clone();
        machine.modules = node.modules.clone();
        machine.volumes = self.system_volumes(node)?;
        machine.user_volumes = node.volumes.iter().map(|v| user_volume(node, v)).collect::<Result<_, _>>()?;
        machine.registries = self.shared.registries.clone();
        machine.trusted = self.shared.trusted.clone();
        machine.environment = self.shared.environment.clone();
        Ok(machine)
    }

    fn links(&self, node: &EffectiveNode, machine: &mut Machine) -> Result<(), RenderError> {
        let shared = self.endpoint.vip == Vip::Talos && machine.role == Role::ControlPlane;
        let dhcp = node.addressing == Addressing::Dhcp;
        if dhcp && node.mtu.is_none() && node.interfaces.is_empty() && !shared {
            return Ok(());
        }
        let network = &self.cluster.spec.network;
        let taken = |name: &str| node.interfaces.iter().any(|i| i.name.as_str() == name);
        let first = (0..).map(|n| format!("net{n}")).find(|name| !taken(name)).unwrap_or_default();
        let mut link = Link {
            name: first.clone(),
            mac: node.mac.map(|mac| mac.to_string()),
            mtu: node.mtu,
            ..Link::default()
        };
        if !dhcp {
            link.addresses = vec![format!("{}/{}", node.address, network.subnet.prefix_len())];
            link.routes = network.gateway.map(|gateway| (None, gateway)).into_iter().collect();
        }
        machine.links.push(link);
        for interface in &node.interfaces {
            machine.links.push(further_link(node, interface, &first)?);
        }
        if !node.interfaces.is_empty() {
            machine.own_subnets = vec![network.subnet.to_string()];
        }
        if shared {
            machine.vip = Some((self.endpoint.address, first));
        }
        Ok(())
    }

    /// The schematic of the installed machine.
    pub fn schematic(&self, node: &EffectiveNode) -> Schematic {
        let stated = node.talos.schematic.as_ref();
        let extensions = stated.map(|s| s.extensions.clone()).unwrap_or_default();
        let mut args = node.kernel_args.clone();
        args.extend(stated.iter().flat_map(|s| s.kernel_args.clone()));
        Schematic::of_machine(node.board, &extensions, &args)
    }

    fn install(&self, node: &EffectiveNode, release: Release) -> Result<Install, RenderError> {
        let version = node.talos.version.as_ref().map(ToString::to_string).unwrap_or_default();
        let image = self.schematic(node).installer(&version, node.talos.secure_boot == Some(true));
        let disk = if node.board.is_pi() {
            // Nothing is ever installed: the card is the system. But without the section an upgrade would lose the
            // kernel arguments of the image.
            match release {
                Release::V1_13 => Disk { path: Some(PI_CARD.into()), ..Disk::default() },
                Release::V1_14 => Disk { system: true, ..Disk::default() },
            }
        } else if let Some(install) = &node.talos.install {
            let stated = &install.disk;
            Disk {
                serial: stated.serial.clone(),
                wwid: stated.wwid.clone(),
                model: stated.model.clone(),
                path: stated.path.clone(),
                size: stated.size.map(|s| s.bytes),
                ..Disk::default()
            }
        } else if let Some(boot) = &node.boot_disk {
            by_selector(boot)
        } else {
            return Err(RenderError::NoDisk { node: node.name.clone() });
        };
        if disk == Disk::default() {
            return Err(RenderError::NoDisk { node: node.name.clone() });
        }
        let one = disk.serial.is_some() || disk.wwid.is_some() || disk.path.is_some();
        let only_size = disk.size.is_some() && !one;
        if release == Release::V1_13 && only_size {
            return Err(RenderError::Cannot {
                node: node.name.clone(),
                what: "Talos 1.13 finds no disk by a size that is not exact to the byte; state `serial` or `wwid`".into(),
            });
        }
        // Beside what names one disk, the size says nothing more, and 1.13 would want it exact.
        let size = disk.size.filter(|_| release == Release::V1_14);
        Ok(Install { image: Some(image), disk: Disk { size, ..disk } })
    }

    fn system_volumes(&self, node: &EffectiveNode) -> Result<Vec<SystemVolume>, RenderError> {
        let stated = node.talos.encryption.as_ref();
        let mut out = Vec::new();
        for (name, key, disk) in [
            ("STATE", stated.map(|e| e.state), None),
            ("EPHEMERAL", stated.map(|e| e.ephemeral), node.data_disk.as_ref().map(by_selector)),
        ] {
            let key = match key {
                None | Some(EncryptionKey::None) => None,
                Some(EncryptionKey::Tpm) => Some(VolumeKey::Tpm),
                Some(EncryptionKey::NodeId) => Some(VolumeKey::NodeId),
                Some(EncryptionKey::Static) => {
                    let secret = self.shared.disk_secret.clone().ok_or_else(|| RenderError::Secret {
                        node: node.name.clone(),
                        name: DISK_SECRET.into(),
                    })?;
                    Some(VolumeKey::Static(secret))
                }
            };
            if key.is_some() || disk.is_some() {
                out.push(SystemVolume { name, disk, key });
            }
        }
        Ok(out)
    }
}

/// What the user wrote, as it was spelt.
fn value(written: &Written) -> Value {
    match written {
        Written::Plain(text) => Value::Plain(text.clone().into()),
        Written::Text(text) => Value::text(text.clone()),
        Written::List(items) => Value::List(items.iter().map(value).collect()),
        Written::Map(entries) => {
            Value::Map(entries.iter().map(|(key, written)| (key.clone(), value(written))).collect())
        }
    }
}

fn further_link(node: &EffectiveNode, interface: &Interface, first: &str) -> Result<Link, RenderError> {
    let cannot = |what: String| RenderError::Cannot { node: node.name.clone(), what };
    if interface.wifi.is_some() {
        return Err(cannot(format!("Talos has no Wi-Fi (interface `{}`)", interface.name)));
    }
    // A VLAN on the first card, whether that is said by its hardware address or by none.
    let on_first = interface.mac.is_none() || interface.mac == node.mac;
    if interface.vlan.is_none() && on_first {
        return Err(cannot(format!(
            "the interface `{}` has neither a VLAN nor a `mac` of its own",
            interface.name
        )));
    }
    Ok(Link {
        name: interface.name.to_string(),
        mac: interface.mac.map(|mac| mac.to_string()),
        vlan: interface.vlan.map(|id| Vlan { id, parent: on_first.then(|| first.to_string()) }),
        mtu: interface.mtu,
        addresses: interface.address.iter().map(ToString::to_string).collect(),
        routes: interface.routes.iter().map(|route| (Some(route.to.to_string()), route.via)).collect(),
    })
}

fn by_selector(selector: &DiskSelector) -> Disk {
    match selector {
        DiskSelector::Size(size) => Disk { size: Some(size.bytes), ..Disk::default() },
        DiskSelector::Serial(serial) => Disk { serial: Some(serial.clone()), ..Disk::default() },
        DiskSelector::Wwid(wwid) => Disk { wwid: Some(wwid.clone()), ..Disk::default() },
    }
}

/// Taints by key. Talos keeps its own taint of control planes by itself, and has one taint a key.
fn taints(node: &EffectiveNode) -> Result<BTreeMap<String, String>, RenderError> {
    let mut out = BTreeMap::new();
    for taint in &node.taints {
        if node.role == bramble_spec::Role::ControlPlane
            && taint.key == "node-role.kubernetes.io/control-plane"
        {
            continue;
        }
        let value = match taint.value.as_str() {
            "" => taint.effect.clone(),
            value => format!("{value}:{}", taint.effect),
        };
        if out.insert(taint.key.clone(), value).is_some() {
            return Err(RenderError::Cannot {
                node: node.name.clone(),
                what: format!("Talos has one taint a key, and `{}` has two", taint.key),
            });
        }
    }
    Ok(out)
}

fn user_volume(node: &EffectiveNode, volume: &Volume) -> Result<UserVolume, RenderError> {
    let name = volume.name.to_string();
    if volume.mount.as_ref().is_some_and(|mount| *mount != format!("{VOLUMES}{name}")) {
        return Err(RenderError::Cannot {
            node: node.name.clone(),
            what: format!("Talos mounts the volume `{name}` at {VOLUMES}{name} and nowhere else"),
        });
    }
    if volume.filesystem.to_string() == "none" {
        return Err(RenderError::Cannot {
            node: node.name.clone(),
            what: format!(
                "the volume `{name}` is a disk as it is, which Talos has in a RawVolumeConfig; state it under `talos.volumes`"
            ),
        });
    }
    Ok(UserVolume { name, disk: by_selector(&volume.selector), filesystem: volume.filesystem.to_string() })
}

/// The proxy's variables; what is the cluster's own is reached without it.
fn environment(cluster: &Cluster) -> BTreeMap<String, String> {
    let network = &cluster.spec.network;
    let OrNone::Is(proxy) = &network.proxy else { return BTreeMap::new() };
    let mut out = BTreeMap::new();
    for (name, url) in [("http_proxy", &proxy.http), ("https_proxy", &proxy.https)] {
        if let Some(url) = url {
            out.insert(name.to_string(), url.to_string());
        }
    }
    let own = ["localhost".to_string(), "127.0.0.1".to_string(), format!(".{}", network.cluster_domain)];
    let ranges = [network.subnet, network.pods, network.services].map(|range| range.to_string());
    let all: Vec<String> = own.into_iter().chain(ranges).chain(proxy.no_proxy.clone()).collect();
    out.insert("no_proxy".into(), all.join(","));
    out
}
