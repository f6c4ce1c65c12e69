//! What each machine is, after cluster, role and machine have been merged: the nearest wins, lists replace,
//! mappings merge by key. Talos' patches alone are laid one over another, those of all machines first.

use crate::scalar::{Host, Mac, OrNone, Taint, Timezone};
use crate::types::*;
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// A machine with everything decided.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EffectiveNode {
    /// Host name and Kubernetes node name.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// What it is.
    pub board: Board,
    /// Its processor architecture.
    pub arch: Arch,
    /// Its address.
    pub address: Ipv4Addr,
    /// How it gets it.
    pub addressing: Addressing,
    /// Hardware address of its first interface; any wired one when absent.
    pub mac: Option<Mac>,
    /// Bytes in the largest packet, when it is not the link's default.
    pub mtu: Option<u16>,
    /// Further interfaces.
    pub interfaces: Vec<Interface>,
    /// The disk of the system.
    pub boot_disk: Option<DiskSelector>,
    /// The disk of state, when it is another.
    pub data_disk: Option<DiskSelector>,
    /// Further file systems.
    pub volumes: Vec<Volume>,
    /// Labels in Kubernetes.
    pub labels: BTreeMap<String, String>,
    /// Taints in Kubernetes, with the one that keeps pods off control planes where the file asks for it.
    pub taints: Vec<Taint>,
    /// Debian packages beside Bramble OS' own.
    pub packages: Vec<String>,
    /// Words for the kernel's command line.
    pub kernel_args: Vec<String>,
    /// Kernel modules to load.
    pub modules: Vec<String>,
    /// Kernel settings.
    pub sysctls: BTreeMap<String, String>,
    /// Lines for a Pi's config.txt.
    pub firmware: Vec<String>,
    /// Time zone.
    pub timezone: Timezone,
    /// Remote shell; no sshd when absent.
    pub ssh: Option<Ssh>,
    /// Whether prometheus-node-exporter runs.
    pub node_exporter: bool,
    /// Unattended updates; none when absent.
    pub updates: Option<Updates>,
    /// Talos' own fields.
    pub talos: Talos,
}

/// Where the API is reached, decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolvedEndpoint {
    /// Address.
    pub address: Ipv4Addr,
    /// Port.
    pub port: u16,
    /// Who holds the address.
    pub vip: Vip,
    /// Further names and addresses for the API's certificate.
    pub sans: Vec<Host>,
}

impl Cluster {
    /// Every machine with everything decided, in the file's order.
    ///
    /// A machine without a board is left out; a [`crate::Checked`] file has none.
    pub fn effective_nodes(&self) -> Vec<EffectiveNode> {
        self.spec.nodes.iter().filter_map(|node| self.effective_node(node)).collect()
    }

    fn effective_node(&self, node: &NodeSpec) -> Option<EffectiveNode> {
        let spec = &self.spec;
        let role = match node.role {
            Role::ControlPlane => &spec.defaults.control_plane,
            Role::Worker => &spec.defaults.worker,
            Role::Management => &spec.defaults.management,
        };
        // Nearest first.
        let machine = [&node.machine, &role.machine, &spec.machine];
        let os = [&node.os, &role.os, &spec.os.settings];
        let board = nearest(machine, |m| m.board.as_ref())?;

        let mut taints = nearest(machine, |m| m.taints.as_ref()).unwrap_or_default();
        if node.role == Role::ControlPlane && !spec.kubernetes.schedule_on_control_plane {
            let reserved = Taint {
                key: "node-role.kubernetes.io/control-plane".into(),
                value: String::new(),
                effect: "NoSchedule".into(),
            };
            if !taints.contains(&reserved) {
                taints.push(reserved);
            }
        }
        let words = |words: Option<Vec<Word>>| words.unwrap_or_default().into_iter().map(|w| w.0).collect();
        Some(EffectiveNode {
            name: node.name.to_string(),
            role: node.role,
            board,
            arch: board.arch(),
            address: node.address,
            addressing: nearest(machine, |m| m.addressing.as_ref()).unwrap_or(Addressing::Static),
            mac: node.mac,
            mtu: nearest(machine, |m| m.mtu.as_ref()),
            interfaces: nearest(machine, |m| m.interfaces.as_ref()).unwrap_or_default(),
            boot_disk: nearest(machine, |m| m.disks.boot.as_ref()),
            data_disk: nearest(machine, |m| m.disks.data.as_ref()),
            volumes: nearest(machine, |m| m.disks.volumes.as_ref()).unwrap_or_default(),
            labels: merged(machine.map(|m| &m.labels.0)),
            taints,
            packages: nearest(os, |o| o.packages.as_ref())
                .unwrap_or_default()
                .into_iter()
                .map(|p| p.0)
                .collect(),
            kernel_args: words(nearest(os, |o| o.kernel_args.as_ref())),
            modules: words(nearest(os, |o| o.modules.as_ref())),
            sysctls: merged(os.map(|o| &o.sysctls.0)),
            firmware: nearest(os, |o| o.firmware.as_ref()).unwrap_or_default(),
            timezone: nearest(os, |o| o.timezone.as_ref()).unwrap_or_else(Timezone::utc),
            ssh: switched(nearest(os, |o| o.ssh.as_ref())),
            node_exporter: nearest(os, |o| o.node_exporter.as_ref()).unwrap_or(node.role == Role::Management),
            updates: switched(nearest(os, |o| o.updates.as_ref())),
            talos: Talos {
                version: nearest(machine, |m| m.talos.version.as_ref()),
                schematic: nearest(machine, |m| m.talos.schematic.as_ref()),
                secure_boot: nearest(machine, |m| m.talos.secure_boot.as_ref()),
                encryption: nearest(machine, |m| m.talos.encryption.as_ref()),
                install: nearest(machine, |m| m.talos.install.as_ref()),
                volumes: nearest(machine, |m| m.talos.volumes.as_ref()),
                patches: together(machine, |m| m.talos.patches.as_ref()),
            },
        })
    }

    /// Where the API is reached: as stated, else the first control plane. `None` when there is neither.
    pub fn endpoint(&self) -> Option<ResolvedEndpoint> {
        if let Some(stated) = &self.spec.kubernetes.endpoint {
            return Some(ResolvedEndpoint {
                address: stated.address,
                port: stated.port,
                vip: stated.vip,
                sans: stated.sans.clone(),
            });
        }
        let first = self.spec.nodes.iter().find(|n| n.role == Role::ControlPlane)?;
        Some(ResolvedEndpoint { address: first.address, port: 6443, vip: Vip::None, sans: Vec::new() })
    }
}

/// The first stated value, nearest place first.
fn nearest<S, T: Clone>(places: [&S; 3], value: impl Fn(&S) -> Option<&T>) -> Option<T> {
    places.into_iter().find_map(value).cloned()
}

/// Every list one after another, the farthest place first: a patch of the machine is laid over those of all.
fn together<S, T: Clone>(places: [&S; 3], value: impl Fn(&S) -> Option<&Vec<T>>) -> Option<Vec<T>> {
    let stated: Vec<&Vec<T>> = places.into_iter().rev().filter_map(value).collect();
    (!stated.is_empty()).then(|| stated.into_iter().flatten().cloned().collect())
}

/// All keys, the nearest place winning each; nearest first.
fn merged(maps: [&BTreeMap<String, String>; 3]) -> BTreeMap<String, String> {
    maps.into_iter().rev().flat_map(|map| map.clone()).collect()
}

fn switched<T>(value: Option<OrNone<T>>) -> Option<T> {
    match value {
        Some(OrNone::Is(value)) => Some(value),
        Some(OrNone::None) | None => None,
    }
}
