//! What every machine's root image holds, whatever its role. Nothing here starts by itself: the machine document's links
//! do that.

use super::Rendered;

macro_rules! dist {
    ($($name:literal),+ $(,)?) => { [$(($name, include_str!(concat!("../../../../dist/", $name)))),+] };
}

pub(crate) const MODULES: &str = "overlay\nbr_netfilter\nnf_conntrack\nnf_tables\n";

pub(crate) const SYSCTLS: &str = "\
# Packets between pods and the outside are routed and filtered by this machine.
net.ipv4.ip_forward = 1
net.bridge.bridge-nf-call-iptables = 1
net.bridge.bridge-nf-call-ip6tables = 1
# What the kubelet asks of a kernel (its --protect-kernel-defaults names them).
vm.overcommit_memory = 1
vm.panic_on_oom = 0
kernel.panic = 10
kernel.panic_on_oops = 1
# Every container watches files; the defaults are for one user's desktop.
fs.inotify.max_user_instances = 1024
fs.inotify.max_user_watches = 524288
";

const TMPFILES: &str = "\
d /var/lib/cni/bin 0755 root root -
d /var/lib/kubelet/volume-plugins 0755 root root -
d /var/log/kubernetes 0700 root root -
";

pub(crate) const JOURNALD: &str = "\
[Journal]
Storage=persistent
SystemMaxUse=200M
";

/// What every machine's root image holds for Kubernetes: units, kernel settings, helpers, with their modes.
///
/// `/opt/cni/bin` is a link to a writable place, because CNIs that the user brings install themselves there.
pub fn image_files() -> Rendered {
    let mut out = Rendered::default();
    for (name, text) in dist![
        "units/bramble-images-rest.service",
        "units/bramble-images.service",
        "units/bramble-manifests.service",
        "units/bramble-podnat.service",
        "units/bramble-register-node.service",
        "units/containerd.service",
        "units/etcd.service",
        "units/flanneld.service",
        "units/kine.service",
        "units/kube-apiserver.service",
        "units/kube-controller-manager.service",
        "units/kube-proxy.service",
        "units/kube-scheduler.service",
        "units/kubelet.service",
        "units/kubernetes.slice",
    ] {
        out.file(name.replacen("units", "/usr/lib/systemd/system", 1), 0o644, text);
    }
    for (name, text) in dist!["libexec/apply-manifests", "libexec/import-images", "libexec/register-node"] {
        out.file(name.replacen("libexec", "/usr/lib/bramble", 1), 0o755, text);
    }
    out.file("/usr/lib/modules-load.d/bramble-kubernetes.conf", 0o644, MODULES);
    out.file("/usr/lib/sysctl.d/90-bramble-kubernetes.conf", 0o644, SYSCTLS);
    out.file("/usr/lib/tmpfiles.d/bramble-kubernetes.conf", 0o644, TMPFILES);
    out.file("/usr/lib/systemd/journald.conf.d/50-bramble.conf", 0o644, JOURNALD);
    out.links.push(("/opt/cni/bin".into(), "/var/lib/cni/bin".into()));
    out.sort()
}
