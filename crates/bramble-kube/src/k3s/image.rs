//! What every machine's root image holds for k3s, whatever its role and whichever its release. Nothing here starts by
//! itself: the machine document's links do that.

use crate::upstream::Rendered;
use crate::upstream::image::{JOURNALD, MODULES, SYSCTLS};

/// `@`-free on purpose: everything that differs between releases is reached through links in the root image.
const TMPFILES: &str = "\
# Where CNIs put their plug-ins, and k3s' own (what the release file would make at its first start). Plug-ins that lie
# there already are the user's and stay.
d /var/lib/rancher/k3s/data/cni 0755 root root -
L+ /var/lib/rancher/k3s/data/current - - - - /usr/lib/k3s/current
# Images are read from the root. The list of what was imported lies beside the links and must be there: k3s only writes
# it if it exists, and without it imports everything again at each start.
d /var/lib/rancher/k3s/agent/images 0755 root root -
f /var/lib/rancher/k3s/agent/images/.cache.json 0644 root root -
r! /var/lib/rancher/k3s/agent/images/bramble-*
d /var/lib/kubelet/volume-plugins 0755 root root -
d /var/log/kubernetes 0700 root root -
";

/// What every machine's root image holds for k3s beside the release itself: units, kernel settings, links.
pub fn image_files() -> Rendered {
    let mut out = Rendered::default();
    for (name, text) in [
        ("k3s-agent.service", include_str!("../../../../dist/units/k3s-agent.service")),
        ("k3s-server.service", include_str!("../../../../dist/units/k3s-server.service")),
    ] {
        out.file(format!("/usr/lib/systemd/system/{name}"), 0o644, text);
    }
    out.file("/usr/lib/modules-load.d/bramble-kubernetes.conf", 0o644, MODULES);
    out.file("/usr/lib/sysctl.d/90-bramble-kubernetes.conf", 0o644, SYSCTLS);
    out.file("/usr/lib/tmpfiles.d/bramble-k3s.conf", 0o644, TMPFILES);
    out.file("/usr/lib/systemd/journald.conf.d/50-bramble.conf", 0o644, JOURNALD);
    // k3s' containerd looks for plug-ins in one directory only; others install themselves here.
    out.links.push(("/opt/cni/bin".into(), "/var/lib/rancher/k3s/data/cni".into()));
    out.sort()
}
