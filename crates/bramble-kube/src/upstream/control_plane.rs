//! What a control plane runs beside: datastore, API server, controllers, scheduler.

use super::{Node, Rendered};
use crate::names::{ETC, USER_FRONT_PROXY};
use bramble_api::document::{ControlPlane, Datastore};
use serde_json::json;

pub(crate) const AUDIT_POLICY: &str = include_str!("../../../../dist/manifests/audit-policy.yaml");
const PKI: &str = "/etc/kubernetes/pki";
/// In a directory of its own with mode 0700: the socket has no other guard.
const KINE_SOCKET: &str = "unix:///run/kine/kine.sock";

pub(super) fn render(node: &Node, control_plane: &ControlPlane, out: &mut Rendered) {
    match control_plane.datastore {
        Datastore::Etcd => etcd(node, out),
        Datastore::Sqlite => kine(out),
    }
    api_server(node, control_plane, out);
    controller_manager(node, out);
    scheduler(out);
    for (index, manifest) in control_plane.manifests.iter().enumerate() {
        // Mode 0600: a manifest may hold a Secret (the GitOps engine's key).
        out.file(format!("{ETC}/manifests.d/{index:03}.yaml"), 0o600, manifest.as_str());
    }
    for unit in [
        match control_plane.datastore {
            Datastore::Etcd => "etcd.service",
            Datastore::Sqlite => "kine.service",
        },
        "kube-apiserver.service",
        "kube-controller-manager.service",
        "kube-scheduler.service",
        "bramble-manifests.service",
    ] {
        out.enable(unit);
    }
}

fn etcd(node: &Node, out: &mut Rendered) {
    let name = node.name();
    out.args(
        "etcd",
        &[
            format!("--name={name}"),
            "--data-dir=/var/lib/etcd".into(),
            "--listen-client-urls=https://127.0.0.1:2379".into(),
            "--advertise-client-urls=https://127.0.0.1:2379".into(),
            // One member has no peers, but the port is open all the same: it asks for a certificate too.
            "--listen-peer-urls=https://127.0.0.1:2380".into(),
            "--initial-advertise-peer-urls=https://127.0.0.1:2380".into(),
            format!("--initial-cluster={name}=https://127.0.0.1:2380"),
            format!("--cert-file={PKI}/datastore-server.crt"),
            format!("--key-file={PKI}/datastore-server.key"),
            "--client-cert-auth".into(),
            format!("--trusted-ca-file={PKI}/datastore-ca.crt"),
            format!("--peer-cert-file={PKI}/datastore-server.crt"),
            format!("--peer-key-file={PKI}/datastore-server.key"),
            "--peer-client-cert-auth".into(),
            format!("--peer-trusted-ca-file={PKI}/datastore-ca.crt"),
            "--snapshot-count=5000".into(),
            "--auto-compaction-retention=1h".into(),
            "--log-level=warn".into(),
        ],
    );
}

fn kine(out: &mut Rendered) {
    // synchronous=FULL: a write that the API has acknowledged must survive a power cut. Otherwise the revision goes
    // backwards, and kubelets of other nodes silently stop hearing of new pods until they are restarted.
    out.args(
        "kine",
        &[
            format!("--listen-address={KINE_SOCKET}"),
            "--metrics-bind-address=0".into(),
            "--endpoint=sqlite:///var/lib/kine/state.db?_journal_mode=WAL&_busy_timeout=30000&_synchronous=FULL\
             &_txlock=immediate&cache=shared"
                .into(),
        ],
    );
}

fn api_server(node: &Node, control_plane: &ControlPlane, out: &mut Rendered) {
    let kubernetes = node.kubernetes;
    let mut args: Vec<String> = vec![
        format!("--advertise-address={}", node.document.network.address),
        format!("--secure-port={}", kubernetes.endpoint.1),
        format!("--tls-cert-file={PKI}/apiserver.crt"),
        format!("--tls-private-key-file={PKI}/apiserver.key"),
        "--tls-min-version=VersionTLS12".into(),
        format!("--client-ca-file={PKI}/client-ca.crt"),
        format!("--kubelet-certificate-authority={PKI}/serving-ca.crt"),
        format!("--kubelet-client-certificate={PKI}/apiserver-kubelet-client.crt"),
        format!("--kubelet-client-key={PKI}/apiserver-kubelet-client.key"),
        // By address: node names need not be in any DNS.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--requestheader-client-ca-file={PKI}/front-proxy-ca.crt"),
        format!("--requestheader-allowed-names={USER_FRONT_PROXY}"),
        "--requestheader-username-headers=X-Remote-User".into(),
        "--requestheader-group-headers=X-Remote-Group".into(),
        "--requestheader-extra-headers-prefix=X-Remote-Extra-".into(),
        format!("--proxy-client-cert-file={PKI}/front-proxy-client.crt"),
        format!("--proxy-client-key-file={PKI}/front-proxy-client.key"),
        format!("--service-account-issuer=https://kubernetes.default.svc.{}", kubernetes.cluster_domain),
        format!("--service-account-key-file={PKI}/service-account.pub"),
        format!("--service-account-signing-key-file={PKI}/service-account.key"),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction".into(),
        format!("--admission-control-config-file={ETC}/admission.json"),
        "--anonymous-auth=false".into(),
        format!("--service-cluster-ip-range={}", kubernetes.services),
        "--allow-privileged".into(),
        "--profiling=false".into(),
    ];
    match control_plane.datastore {
        Datastore::Etcd => args.extend([
            "--etcd-servers=https://127.0.0.1:2379".into(),
            format!("--etcd-cafile={PKI}/datastore-ca.crt"),
            format!("--etcd-certfile={PKI}/datastore-client.crt"),
            format!("--etcd-keyfile={PKI}/datastore-client.key"),
        ]),
        Datastore::Sqlite => args.push(format!("--etcd-servers={KINE_SOCKET}")),
    }
    if control_plane.encrypt_secrets {
        args.push(format!("--encryption-provider-config={ETC}/encryption.yaml"));
    }
    if control_plane.audit_log {
        args.extend([
            format!("--audit-policy-file={ETC}/audit-policy.yaml"),
            "--audit-log-path=/var/log/kubernetes/audit.log".into(),
            "--audit-log-maxsize=10".into(),
            "--audit-log-maxbackup=3".into(),
            // Requests do not wait for the card.
            "--audit-log-mode=batch".into(),
        ]);
        out.file(format!("{ETC}/audit-policy.yaml"), 0o644, AUDIT_POLICY);
    }
    out.args("kube-apiserver", &args);
    out.json(format!("{ETC}/admission.json"), &admission(&control_plane.pod_security));
}

/// The API server's admission configuration: the Pod Security level of namespaces that state none.
pub(crate) fn admission(level: &str) -> serde_json::Value {
    json!({
        "apiVersion": "apiserver.config.k8s.io/v1",
        "kind": "AdmissionConfiguration",
        "plugins": [{
            "name": "PodSecurity",
            "configuration": {
                "apiVersion": "pod-security.admission.config.k8s.io/v1",
                "kind": "PodSecurityConfiguration",
                "defaults": {
                    "enforce": level, "enforce-version": "latest",
                    "audit": level, "audit-version": "latest",
                    "warn": level, "warn-version": "latest",
                },
                "exemptions": {"namespaces": ["kube-system"]},
            },
        }],
    })
}

fn controller_manager(node: &Node, out: &mut Rendered) {
    let kubernetes = node.kubernetes;
    let config = format!("{ETC}/controller-manager.conf");
    out.args(
        "kube-controller-manager",
        &[
            format!("--kubeconfig={config}"),
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            format!("--client-ca-file={PKI}/client-ca.crt"),
            format!("--requestheader-client-ca-file={PKI}/front-proxy-ca.crt"),
            "--bind-address=127.0.0.1".into(),
            // What pods check the API server with.
            format!("--root-ca-file={PKI}/serving-ca.crt"),
            format!("--service-account-private-key-file={PKI}/service-account.key"),
            "--use-service-account-credentials".into(),
            // Only client certificates are signed here. The key that signs serving certificates never leaves the
            // secrets file, and kubelets bring their serving certificates.
            format!("--cluster-signing-kubelet-client-cert-file={PKI}/client-ca-signing.crt"),
            format!("--cluster-signing-kubelet-client-key-file={PKI}/client-ca-signing.key"),
            format!("--cluster-signing-kube-apiserver-client-cert-file={PKI}/client-ca-signing.crt"),
            format!("--cluster-signing-kube-apiserver-client-key-file={PKI}/client-ca-signing.key"),
            // 90 days; a kubelet renews when 70 to 90 % of it have passed.
            "--cluster-signing-duration=2160h".into(),
            // Ranges are allocated in the lock file; a controller would give them out in the order of arrival.
            "--allocate-node-cidrs=false".into(),
            format!("--cluster-cidr={}", kubernetes.pods),
            format!("--service-cluster-ip-range={}", kubernetes.services),
            "--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins".into(),
            // One control plane: nobody to elect against.
            "--leader-elect=false".into(),
            "--profiling=false".into(),
        ],
    );
}

fn scheduler(out: &mut Rendered) {
    let config = format!("{ETC}/scheduler.conf");
    out.args(
        "kube-scheduler",
        &[
            format!("--kubeconfig={config}"),
            format!("--authentication-kubeconfig={config}"),
            format!("--authorization-kubeconfig={config}"),
            "--bind-address=127.0.0.1".into(),
            "--leader-elect=false".into(),
            "--profiling=false".into(),
        ],
    );
}
