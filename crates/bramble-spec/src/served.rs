//! What this version keeps but does not act upon.

use crate::places::Places;
use crate::scalar::OrNone;
use crate::types::*;
use serde::Serialize;

/// A part of the file that this version keeps but does not act upon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NotServed {
    /// Where it stands: `spec.power`.
    pub path: String,
    /// Line in the file, from 1.
    pub line: u32,
}

/// Everything in the file that this version does not act upon, in the file's order.
///
/// Each condition here is deleted by the work that begins to serve it.
pub(crate) fn not_served(cluster: &Cluster, places: &Places) -> Vec<NotServed> {
    let spec = &cluster.spec;
    let kubernetes = &spec.kubernetes;
    let mut paths: Vec<String> = Vec::new();
    let mut when = |condition: bool, path: &str| {
        if condition {
            paths.push(path.to_string());
        }
    };
    when(spec.power.is_some(), "spec.power");
    when(spec.backup.is_some(), "spec.backup");
    when(spec.gitops.is_some(), "spec.gitops");
    when(spec.access.is_some(), "spec.access");
    when(spec.hosts.is_some(), "spec.hosts");
    let k3s = kubernetes.distribution == Distribution::K3s;
    let talos = kubernetes.distribution == Distribution::Talos;
    // Configs are rendered; machines are neither built, flashed nor spoken to.
    when(talos, "spec.kubernetes.distribution");
    when(kubernetes.cni == Cni::Cilium, "spec.kubernetes.cni");
    let balanced = match kubernetes.load_balancer {
        LoadBalancer::None => true,
        LoadBalancer::Servicelb => k3s,
        LoadBalancer::Metallb(_) | LoadBalancer::Cilium(_) => false,
    };
    when(!balanced, "spec.kubernetes.loadBalancer");
    let let_in = match kubernetes.ingress {
        Ingress::None => true,
        Ingress::Traefik => k3s,
        Ingress::GatewayApi => false,
    };
    when(!let_in, "spec.kubernetes.ingress");
    let carried = kubernetes.endpoint.as_ref().is_some_and(|e| match e.vip {
        Vip::KubeVip => true,
        Vip::Talos => !talos,
        Vip::None | Vip::External => false,
    });
    when(carried, "spec.kubernetes.endpoint.vip");
    when(!spec.network.registries.0.is_empty() && !k3s && !talos, "spec.network.registries");
    let defaults = &spec.defaults;
    level(&mut when, talos, "spec", &spec.machine, &spec.os.settings);
    level(
        &mut when,
        talos,
        "spec.defaults.control-plane",
        &defaults.control_plane.machine,
        &defaults.control_plane.os,
    );
    level(&mut when, talos, "spec.defaults.worker", &defaults.worker.machine, &defaults.worker.os);
    level(
        &mut when,
        talos,
        "spec.defaults.management",
        &defaults.management.machine,
        &defaults.management.os,
    );
    let effective = cluster.effective_nodes();
    for (index, node) in spec.nodes.iter().enumerate() {
        let path = format!("spec.nodes[{index}]");
        // Debian's kernel has no way to ask a Pi's firmware for a trial: no /dev/vcio.
        let on_pi =
            effective.iter().any(|e| e.name == node.name.as_str() && e.board.is_pi() && e.updates.is_some());
        when(on_pi && !talos, &format!("{path}.os.updates"));
        when(node.role == Role::Management && talos, &format!("{path}.role"));
        when(node.vm.is_some(), &format!("{path}.vm"));
        when(node.power.is_some(), &format!("{path}.power"));
        level(&mut when, talos, &path, &node.machine, &node.os);
    }
    let mut found: Vec<NotServed> = paths
        .into_iter()
        .map(|path| {
            let mark = places.key(&path).unwrap_or_else(|| places.value_or_parent(&path));
            NotServed { path, line: mark.line }
        })
        .collect();
    found.sort_by_key(|n| n.line);
    found
}

/// What cluster, roles and machines may state alike.
fn level(
    when: &mut impl FnMut(bool, &str),
    talos: bool,
    path: &str,
    machine: &MachineSettings,
    os: &OsSettings,
) {
    when(machine.talos != Talos::default() && !talos, &format!("{path}.talos"));
    when(talos && matches!(os.updates, Some(OrNone::Is(_))), &format!("{path}.os.updates"));
}
