//! What differs between machines: configuration, tokens, authorities, and which unit starts at all.
//!
//! Files are in JSON where k3s reads YAML. Keys of the configuration are k3s' flags without dashes.

use super::{DATA, ETC, NODE_PASSWORD};
use crate::names::{IMAGE_PAUSE, dns_service_address, kubelet_may_set};
use crate::upstream::Rendered;
use crate::upstream::control_plane::{AUDIT_POLICY, admission};
use bramble_api::document::{Cni, ControlPlane, Datastore, Distribution, K3s, Kubernetes, MachineDocument};
use serde_json::{Map, Value, json};

/// Everything below /etc that makes this machine a node of a k3s cluster: a pure function of its document.
///
/// Empty for a machine without Kubernetes or with another distribution.
pub fn render(document: &MachineDocument) -> Rendered {
    let mut out = Rendered::default();
    let Some(kubernetes) = document.kubernetes.as_ref().filter(|k| k.distribution == Distribution::K3s)
    else {
        return out;
    };
    let none = K3s::default();
    let node = Node { document, kubernetes, k3s: kubernetes.k3s.as_ref().unwrap_or(&none) };
    files(&node, &mut out);
    let mut config = Map::new();
    agent(&node, &mut config, &mut out);
    match &kubernetes.control_plane {
        None => out.enable("k3s-agent.service"),
        Some(control_plane) => {
            server(&node, control_plane, &mut config, &mut out);
            out.enable("k3s-server.service");
        }
    }
    out.json(format!("{ETC}/config.yaml"), &Value::Object(config));
    out.sort()
}

/// One machine, as the parts of this module see it.
struct Node<'a> {
    document: &'a MachineDocument,
    kubernetes: &'a Kubernetes,
    k3s: &'a K3s,
}

/// What was made for the machine before its first boot.
fn files(node: &Node, out: &mut Rendered) {
    let mut copies = String::new();
    for (path, content) in &node.kubernetes.files {
        let public = path.ends_with(".crt") || path.ends_with(".pub");
        let mode = if public { 0o644 } else { 0o600 };
        let place = match path.as_str() {
            "node-password" => NODE_PASSWORD.to_string(),
            path => format!("{ETC}/{path}"),
        };
        // Copied once, before k3s first starts; later k3s keeps them itself, in its datastore too, and may have
        // followed them by others.
        if let Some(below) = path.strip_prefix("tls/") {
            copies += &format!("C {DATA}/server/tls/{below} {mode:04o} root root - {place}\n");
        }
        out.file(place, mode, content.as_str());
    }
    if !copies.is_empty() {
        let text = format!(
            "d {DATA}/server 0700 root root -\nd {DATA}/server/tls 0700 root root -\n\
             d {DATA}/server/tls/etcd 0700 root root -\n{copies}"
        );
        out.file("/etc/tmpfiles.d/bramble-k3s.conf", 0o644, text);
    }
    let proxy = &node.document.network.proxy;
    if !proxy.is_empty() {
        // Go reads the upper-case names first. It may hold a password.
        let lines: String = proxy.iter().map(|(k, v)| format!("{}={v}\n", k.to_uppercase())).collect();
        out.file(format!("{ETC}/environment"), 0o600, lines);
    }
}

/// What servers and agents are told alike.
fn agent(node: &Node, config: &mut Map<String, Value>, out: &mut Rendered) {
    let kubernetes = node.kubernetes;
    let mut put = |key: &str, value: Value| drop(config.insert(key.to_string(), value));
    put("node-name", json!(node.document.machine.name));
    put("node-ip", json!([node.document.network.address]));
    put("token-file", json!(format!("{ETC}/token")));
    if let Some(join) = &node.k3s.join {
        put("server", json!(join));
    }
    let labels = kubernetes.labels.iter().filter(|(key, _)| kubelet_may_set(key));
    let labels: Vec<String> = labels.map(|(key, value)| format!("{key}={value}")).collect();
    if !labels.is_empty() {
        put("node-label", json!(labels));
    }
    if !kubernetes.taints.is_empty() {
        put("node-taint", json!(kubernetes.taints));
    }
    // Preloaded with every release, so that a pod's sandbox needs no registry.
    put("pause-image", json!(IMAGE_PAUSE));
    // k3s takes a public resolver where the system's is a local one.
    put("resolv-conf", json!(format!("{ETC}/resolv.conf")));
    let resolv: String =
        node.document.network.dns.iter().map(|address| format!("nameserver {address}\n")).collect();
    out.file(format!("{ETC}/resolv.conf"), 0o644, resolv);
    put("kubelet-arg", json!(kubelet(kubernetes)));
}

/// Flags of the kubelet, without dashes.
fn kubelet(kubernetes: &Kubernetes) -> Vec<String> {
    // From k3s' own profiling, rounded up: an agent 256 MiB, a server with its workload's share of the API 768 MiB with
    // SQLite and 896 MiB with etcd.
    let own = match kubernetes.control_plane.as_ref().map(|c| c.datastore) {
        None => "300Mi",
        Some(Datastore::Sqlite) => "800Mi",
        Some(Datastore::Etcd) => "900Mi",
    };
    vec![
        "system-reserved=cpu=100m,memory=128Mi".into(),
        format!("kube-reserved=cpu=200m,memory={own}"),
        "eviction-hard=memory.available<100Mi,nodefs.available<10%,nodefs.inodesFree<5%,imagefs.available<10%"
            .into(),
        // A card has little room and wears.
        "container-log-max-size=5Mi".into(),
        "container-log-max-files=3".into(),
        // Its default lies on the read-only root.
        "volume-plugin-dir=/var/lib/kubelet/volume-plugins".into(),
    ]
}

fn server(node: &Node, control_plane: &ControlPlane, config: &mut Map<String, Value>, out: &mut Rendered) {
    let kubernetes = node.kubernetes;
    let (address, port) = kubernetes.endpoint;
    let mut put = |key: &str, value: Value| drop(config.insert(key.to_string(), value));
    // Of its own: a worker's token cannot make a machine a server.
    put("agent-token-file", json!(format!("{ETC}/agent-token")));
    put("https-listen-port", json!(port));
    put("advertise-address", json!(node.document.network.address));
    let mut names = vec![address.to_string()];
    names.extend(node.k3s.tls_sans.iter().filter(|name| **name != names[0]).cloned().collect::<Vec<_>>());
    put("tls-san", json!(names));
    put("cluster-cidr", json!([kubernetes.pods]));
    put("service-cidr", json!([kubernetes.services]));
    put("cluster-dns", json!([dns_service_address(kubernetes.services)]));
    put("cluster-domain", json!(kubernetes.cluster_domain));
    match kubernetes.cni {
        Cni::FlannelHostGw => put("flannel-backend", json!("host-gw")),
        Cni::FlannelVxlan => put("flannel-backend", json!("vxlan")),
        Cni::None => {
            put("flannel-backend", json!("none"));
            // Whoever brings the network brings its policies.
            put("disable-network-policy", json!(true));
        }
    }
    if control_plane.datastore == Datastore::Etcd && node.k3s.join.is_none() {
        put("cluster-init", json!(true));
    }
    if !node.k3s.disable.is_empty() {
        put("disable", json!(node.k3s.disable));
    }
    if node.k3s.embedded_registry {
        put("embedded-registry", json!(true));
    }
    if control_plane.encrypt_secrets {
        put("secrets-encryption", json!(true));
    }
    put("write-kubeconfig-mode", json!("0600"));
    let mut api = vec![format!("admission-control-config-file={ETC}/admission.json")];
    out.json(format!("{ETC}/admission.json"), &admission(&control_plane.pod_security));
    if control_plane.audit_log {
        api.extend([
            format!("audit-policy-file={ETC}/audit-policy.yaml"),
            "audit-log-path=/var/log/kubernetes/audit.log".into(),
            "audit-log-maxsize=10".into(),
            "audit-log-maxbackup=3".into(),
            // Requests do not wait for the card.
            "audit-log-mode=batch".into(),
        ]);
        out.file(format!("{ETC}/audit-policy.yaml"), 0o644, AUDIT_POLICY);
    }
    put("kube-apiserver-arg", json!(api));
    put("kube-controller-manager-arg", json!(["flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins"]));
}
