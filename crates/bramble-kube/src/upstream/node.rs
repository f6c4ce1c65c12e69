//! What every node runs: containerd, kubelet, kube-proxy, flannel.

use super::{Node, Rendered};
use crate::names::{CNI_PLUGINS, ETC, IMAGE_PAUSE, dns_service_address, kubelet_may_set};
use bramble_api::document::Cni;
use serde_json::{Map, Value, json};

/// Bytes that VXLAN over IPv4 takes from each packet: outer Ethernet, IP, UDP and VXLAN headers (RFC 7348).
const VXLAN_OVERHEAD: u32 = 50;

pub(super) fn render(node: &Node, out: &mut Rendered) {
    containerd(node, out);
    kubelet(node, out);
    kube_proxy(node, out);
    pod_network(node, out);
    registration(node, out);
    for unit in [
        "containerd.service",
        "bramble-images.service",
        "bramble-images-rest.service",
        "kubelet.service",
        "kube-proxy.service",
        "bramble-register-node.service",
    ] {
        out.enable(unit);
    }
}

fn containerd(node: &Node, out: &mut Rendered) {
    out.file(
        "/etc/containerd/config.toml",
        0o644,
        format!(
            r#"version = 3

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "{IMAGE_PAUSE}"

[plugins."io.containerd.cri.v1.images".registry]
config_path = "/etc/containerd/certs.d"

[plugins."io.containerd.cri.v1.runtime".cni]
# The first is where CNIs that install themselves put their plugins.
bin_dirs = ["/opt/cni/bin", "{CNI_PLUGINS}"]
conf_dir = "/etc/cni/net.d"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
SystemdCgroup = true
"#
        ),
    );
    let proxy = &node.document.network.proxy;
    if !proxy.is_empty() {
        // Go reads the upper-case names first.
        let lines: String = proxy.iter().map(|(k, v)| format!("{}={v}\n", k.to_uppercase())).collect();
        out.file("/etc/containerd/environment", 0o600, lines);
    }
}

fn kubelet(node: &Node, out: &mut Rendered) {
    let kubernetes = node.kubernetes;
    // Measured: control-plane programs 900 MiB with etcd; containerd, kubelet, kube-proxy and flannel 284 MiB.
    let own_memory = if node.is_control_plane() { "900Mi" } else { "300Mi" };
    out.json(
        format!("{ETC}/kubelet.json"),
        &json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": format!("{ETC}/pki/client-ca.crt")},
            },
            "authorization": {"mode": "Webhook"},
            "readOnlyPort": 0,
            "tlsCertFile": format!("{ETC}/pki/kubelet-serving.crt"),
            "tlsPrivateKeyFile": format!("{ETC}/pki/kubelet-serving.key"),
            "tlsMinVersion": "VersionTLS12",
            "rotateCertificates": true,
            "serverTLSBootstrap": false,
            "cgroupDriver": "systemd",
            "containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
            "clusterDomain": kubernetes.cluster_domain,
            "clusterDNS": [dns_service_address(kubernetes.services)],
            // Not the system's: a local stub resolver there would make the cluster's DNS ask itself.
            "resolvConf": format!("{ETC}/resolv.conf"),
            "volumePluginDir": "/var/lib/kubelet/volume-plugins",
            "systemReserved": {"cpu": "100m", "memory": "128Mi"},
            "kubeReserved": {"cpu": "200m", "memory": own_memory},
            "enforceNodeAllocatable": ["pods"],
            "evictionHard": {
                "memory.available": "100Mi",
                "nodefs.available": "10%",
                "nodefs.inodesFree": "5%",
                "imagefs.available": "10%",
            },
            // Pods get this long at a shutdown, the critical ones its last part.
            "shutdownGracePeriod": "30s",
            "shutdownGracePeriodCriticalPods": "10s",
            // A card has little room and wears.
            "containerLogMaxSize": "5Mi",
            "containerLogMaxFiles": 3,
            "serializeImagePulls": false,
            "maxParallelImagePulls": 3,
        }),
    );
    let network = &node.document.network;
    // No search domain: cluster names are shorter than the resolver's five dots, so each would be asked for outside first,
    // under that domain, and be slow whenever the house's name server is.
    let resolv: String = network.dns.iter().map(|ip| format!("nameserver {ip}\n")).collect();
    out.file(format!("{ETC}/resolv.conf"), 0o644, resolv);

    // Renewed certificates belong to one incarnation: a data partition taken over from an older installation must not
    // bring back an identity that another authority signed.
    let incarnation = &node.document.machine.incarnation;
    let mut args = vec![
        format!("--config={ETC}/kubelet.json"),
        format!("--kubeconfig={ETC}/kubelet.conf"),
        // For the machine that slept past the life of its certificate.
        format!("--bootstrap-kubeconfig={ETC}/kubelet-renewal.conf"),
        format!("--cert-dir=/var/lib/kubelet/pki/{incarnation}"),
        format!("--hostname-override={}", node.name()),
        format!("--node-ip={}", network.address),
    ];
    let labels: Vec<String> = kubernetes
        .labels
        .iter()
        .filter(|(k, _)| kubelet_may_set(k))
        .map(|(k, v)| format!("{k}={v}"))
        .collect();
    if !labels.is_empty() {
        args.push(format!("--node-labels={}", labels.join(",")));
    }
    if !kubernetes.taints.is_empty() {
        args.push(format!("--register-with-taints={}", kubernetes.taints.join(",")));
    }
    out.args("kubelet", &args);
}

fn kube_proxy(node: &Node, out: &mut Rendered) {
    out.json(
        format!("{ETC}/kube-proxy.json"),
        &json!({
            "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
            "kind": "KubeProxyConfiguration",
            "mode": "nftables",
            "clusterCIDR": node.kubernetes.pods,
            "hostnameOverride": node.name(),
            "clientConnection": {"kubeconfig": format!("{ETC}/kube-proxy.conf")},
            "metricsBindAddress": "127.0.0.1:10249",
        }),
    );
    out.args("kube-proxy", &[format!("--config={ETC}/kube-proxy.json")]);
}

/// The node's own range is in the file, so its CNI configuration needs no daemon and no answer from the API.
fn pod_network(node: &Node, out: &mut Rendered) {
    let kubernetes = node.kubernetes;
    let (backend, overhead) = match kubernetes.cni {
        Cni::FlannelHostGw => ("host-gw", 0),
        Cni::FlannelVxlan => ("vxlan", VXLAN_OVERHEAD),
        Cni::None => return,
    };
    let mtu = node.document.network.mtu.unwrap_or(1500).saturating_sub(overhead);
    out.json(
        "/etc/cni/net.d/10-bramble.conflist",
        &json!({
            "cniVersion": "1.0.0",
            "name": "pods",
            "plugins": [
                {
                    "type": "bridge",
                    "bridge": "cni0",
                    "isGateway": true,
                    // The plugin would hide pods from the pods of other nodes too: see podnat.nft.
                    "ipMasq": false,
                    "hairpinMode": true,
                    "mtu": mtu,
                    "ipam": {
                        "type": "host-local",
                        "ranges": [[{"subnet": kubernetes.pod_range}]],
                        "routes": [{"dst": "0.0.0.0/0"}],
                        // Below /run: reservations of pods that a reboot ended must not outlive it.
                        "dataDir": "/run/cni/ipam",
                    },
                },
                {"type": "portmap", "backend": "nftables", "capabilities": {"portMappings": true}},
            ],
        }),
    );
    let pods = kubernetes.pods;
    out.file(
        format!("{ETC}/podnat.nft"),
        0o644,
        // Emptied first, so that loading it twice is loading it once.
        format!(
            "table ip bramble-podnat\ndelete table ip bramble-podnat\ntable ip bramble-podnat {{\n\
             \tchain postrouting {{\n\t\ttype nat hook postrouting priority srcnat; policy accept;\n\
             \t\tip saddr {pods} ip daddr != {pods} masquerade\n\t}}\n}}\n"
        ),
    );
    out.json(
        format!("{ETC}/flannel.json"),
        &json!({"Network": pods, "EnableNFTables": true, "Backend": {"Type": backend}}),
    );
    out.file(
        format!("{ETC}/env/flanneld.env"),
        0o644,
        format!(
            "NODE_NAME={name}\nARGS=--kube-subnet-mgr \\\n--kubeconfig-file={ETC}/flannel.conf \\\n\
             --net-config-path={ETC}/flannel.json \\\n--subnet-file=/run/flannel/subnet.env \\\n--public-ip={address}\n",
            name = node.name(),
            address = node.document.network.address,
        ),
    );
    out.enable("bramble-podnat.service");
    out.enable("flanneld.service");
}

/// What the node writes into its own Node object, and what only an administrator may.
///
/// NodeRestriction lets a node change its own object but for taints and reserved labels; the API lets `podCIDR` be set
/// where it was empty, never changed. So a new worker brings its range itself, and no other machine has to know.
fn registration(node: &Node, out: &mut Rendered) {
    let range = node.kubernetes.pod_range;
    let split = |own: bool| -> Map<String, Value> {
        let labels = node.kubernetes.labels.iter();
        labels.filter(|(k, _)| kubelet_may_set(k) == own).map(|(k, v)| (k.clone(), json!(v))).collect()
    };
    out.json(
        format!("{ETC}/node.json"),
        &json!({"metadata": {"labels": split(true)}, "spec": {"podCIDR": range, "podCIDRs": [range]}}),
    );
    if node.is_control_plane() {
        let mut labels = split(false);
        labels.insert("node-role.kubernetes.io/control-plane".into(), json!(""));
        out.json(format!("{ETC}/node-admin.json"), &json!({"metadata": {"labels": labels}}));
    }
    out.file(format!("{ETC}/env/node.env"), 0o644, format!("NODE_NAME={}\n", node.name()));
}
