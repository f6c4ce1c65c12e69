//! Kubernetes against the machines that run it.

use super::Check;
use crate::diagnostic::Diagnostic;
use crate::scalar::Version;
use crate::types::*;
use ipnet::Ipv4Net;

/// Minor releases of Kubernetes 1 whose flags and files this version of Bramble knows.
const KUBERNETES_MINORS: std::ops::RangeInclusive<u16> = 34..=36;

/// Minor and patch of the first k3s whose SQLite is 3.51.3 (its release notes list it). Minors before it never were
/// looked at.
const K3S_WITH_SOUND_SQLITE: (u16, u16) = (35, 4);

/// What k3s takes for an archive of images.
const IMAGE_ARCHIVES: [&str; 8] =
    [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.lz4", ".tar.bz2", ".tbz"];

const ENDPOINT: &str = "spec.kubernetes.endpoint";

impl Check<'_> {
    pub(super) fn kubernetes(&mut self) {
        self.versions();
        self.control_planes();
        self.choices();
        self.endpoint();
        self.pools();
        self.k3s();
        self.talos();
    }

    fn versions(&mut self) {
        let path = "spec.kubernetes.version";
        let (Some(version), Some(distribution)) = (self.view.read::<Version>(path), self.view.distribution())
        else {
            return;
        };
        let version = version.value;
        if version.major != 1 || !KUBERNETES_MINORS.contains(&version.minor) {
            self.error(
                "unsupported-version",
                path,
                format!("Kubernetes {version} is not served by this version of Bramble"),
                "unknown release",
                &format!("it serves v1.{}.x to v1.{}.x", KUBERNETES_MINORS.start(), KUBERNETES_MINORS.end()),
            );
            return;
        }
        let k3s = version.build.strip_prefix("k3s").is_some_and(|n| n.parse::<u16>().is_ok());
        let plain = Version { build: String::new(), ..version.clone() };
        match distribution {
            Distribution::K3s if !k3s => self.error(
                "unsupported-version",
                path,
                format!("`{version}` is not a release of k3s"),
                "wants `+k3s` and a number",
                &format!("k3s numbers its releases of one Kubernetes: `{plain}+k3s1`"),
            ),
            Distribution::Upstream | Distribution::Talos if !version.build.is_empty() => self.error(
                "unsupported-version",
                path,
                format!("`{version}` is not a release of Kubernetes itself"),
                "not Kubernetes' own",
                &format!("`{plain}`, or `distribution: k3s`"),
            ),
            Distribution::K3s => self.sqlite(path, &version),
            _ => {}
        }
    }

    /// SQLite up to 3.51.2 can damage a database in the moment when its log is begun anew; k3s keeps its state in one.
    fn sqlite(&mut self, path: &str, version: &Version) {
        let datastore = self.view.read_or::<Option<Datastore>>("spec.kubernetes.datastore", None).flatten();
        let sound = (version.minor, version.patch) >= K3S_WITH_SOUND_SQLITE;
        if sound || datastore == Some(Datastore::Etcd) {
            return;
        }
        let (minor, patch) = K3S_WITH_SOUND_SQLITE;
        self.error(
            "unsound-sqlite",
            path,
            format!("k3s {version} may have an SQLite that can damage the cluster's state (3.51.2 or older)"),
            "too old for `datastore: sqlite`",
            &format!("v1.{minor}.{patch}+k3s1 is the first with SQLite 3.51.3, where that is mended; or `datastore: etcd`"),
        );
    }

    fn k3s(&mut self) {
        let path = "spec.kubernetes.k3s";
        match self.view.distribution() {
            Some(distribution) if distribution != Distribution::K3s && self.view.states(path) => self
                .warning(
                    "unused-key",
                    path,
                    format!("`distribution` is `{distribution}`, so that k3s' fields say nothing"),
                    "unused",
                    "remove them, or `distribution: k3s`",
                ),
            _ => {}
        }
        let Some(k3s) = self.view.read::<K3s>(path) else { return };
        for (index, image) in k3s.value.images.iter().enumerate() {
            if !IMAGE_ARCHIVES.iter().any(|extension| image.ends_with(extension)) {
                self.error(
                    "bad-value",
                    &format!("{path}.images[{index}]"),
                    format!(
                        "k3s takes no archive of images that is called `{}`",
                        crate::tree::shorten(image)
                    ),
                    "unknown kind of file",
                    &format!("it takes files whose names end in {}", IMAGE_ARCHIVES.join(", ")),
                );
            }
        }
    }

    fn control_planes(&mut self) {
        let Some(distribution) = self.view.distribution() else { return };
        let datastore = self.view.read_or::<Option<Datastore>>("spec.kubernetes.datastore", None).flatten();
        let roles: Vec<String> =
            self.view.with_role(Role::ControlPlane).map(|m| format!("{}.role", m.path)).collect();
        let path = "spec.kubernetes.datastore";
        if distribution == Distribution::Talos && datastore == Some(Datastore::Sqlite) {
            let message = "Talos keeps its state in etcd only".to_string();
            self.error("datastore", path, message, "not with Talos", "`datastore: etcd`, or leave it away");
        }
        let Some(second) = roles.get(1) else { return };
        match distribution {
            Distribution::Upstream => self.error(
                "control-planes",
                second,
                format!("{} control planes, and `upstream` takes one so far", roles.len()),
                "the second one",
                "founding, adding and replacing members of etcd are not steps of a plan yet; make the others workers, \
                 or take `distribution: talos`",
            ),
            Distribution::K3s if datastore != Some(Datastore::Etcd) => self.error(
                "control-planes",
                second,
                format!("{} control planes cannot share one SQLite file", roles.len()),
                "the second one",
                "`datastore: etcd`, or one control plane",
            ),
            Distribution::K3s | Distribution::Talos if roles.len().is_multiple_of(2) => {
                let mark = self.at(second);
                let message = format!(
                    "{} control planes survive the loss of no more machines than {} do",
                    roles.len(),
                    roles.len() - 1
                );
                self.cx.push(
                    Diagnostic::warning("even-control-planes", mark, message)
                        .label("an even number")
                        .hint("etcd needs more than half of its members: take an odd number"),
                );
            }
            Distribution::K3s | Distribution::Talos => {}
        }
        if distribution != Distribution::Upstream && !self.view.states(ENDPOINT) {
            self.warning(
                "endpoint-single",
                second,
                "there are several control planes, and the API is reached through the first only".into(),
                "never asked",
                "state `kubernetes.endpoint` with an address that moves: `vip: kube-vip`, `talos` or `external`",
            );
        }
    }

    /// Choices that only go with others.
    fn choices(&mut self) {
        let Some(distribution) = self.view.distribution() else { return };
        let cni = self.view.read_or("spec.kubernetes.cni", Cni::default());
        let balancer = self.view.read_or("spec.kubernetes.loadBalancer", LoadBalancer::None);
        let ingress = self.view.read_or("spec.kubernetes.ingress", Ingress::None);
        let source = self.view.read_or("spec.kubernetes.source", Source::Auto);
        let flannel = matches!(cni, Some(Cni::Flannel(_)));
        if balancer == Some(LoadBalancer::Servicelb) && distribution != Distribution::K3s {
            self.error(
                "choice",
                "spec.kubernetes.loadBalancer",
                "`servicelb` is a part of k3s".into(),
                "only with k3s",
                "`metallb` with its `pools`, or `distribution: k3s`",
            );
        }
        if matches!(balancer, Some(LoadBalancer::Cilium(_))) && flannel {
            self.error(
                "choice",
                "spec.kubernetes.loadBalancer",
                "Cilium balances only where it is the CNI too".into(),
                "only with `cni: cilium`",
                "`cni: cilium`, or `kind: metallb`",
            );
        }
        if ingress == Some(Ingress::GatewayApi) && flannel {
            self.error(
                "choice",
                "spec.kubernetes.ingress",
                "flannel has no Gateway API".into(),
                "only with `cni: cilium`",
                "`ingress: traefik`, or `cni: cilium`",
            );
        }
        if source == Some(Source::Modules) && distribution != Distribution::Upstream {
            self.error(
                "choice",
                "spec.kubernetes.source",
                format!("{distribution} is not to be had as Go modules"),
                "only with upstream",
                "`source: release`, or `{ path: ... }` with a file of your own",
            );
        }
    }

    fn endpoint(&mut self) {
        let Some(endpoint) = self.view.read::<Endpoint>(ENDPOINT) else { return };
        let (endpoint, path) = (endpoint.value, format!("{ENDPOINT}.address"));
        let address = endpoint.address;
        if endpoint.port == 0 {
            let path = format!("{ENDPOINT}.port");
            self.error("bad-value", &path, "0 is no port".into(), "out of range", "6443 is usual");
        }
        let owner = self.view.nodes.iter().find(|m| m.address == Some(address)).map(|m| (m.title(), m.role));
        let known = !self.view.nodes.is_empty()
            && self.view.nodes.iter().all(|m| m.address.is_some() && m.role.is_some());
        let first = self.view.with_role(Role::ControlPlane).find_map(|m| m.address);
        match (endpoint.vip, owner) {
            (Vip::None, Some((_, Some(Role::ControlPlane) | None))) => {}
            (Vip::None, Some((title, Some(role)))) => {
                let message =
                    format!("{address} is the address of {title}, a {role} machine, which has no API");
                self.error(
                    "endpoint-address",
                    &path,
                    message,
                    "no API there",
                    "state a control plane's address",
                );
            }
            (Vip::None, None) if known => {
                let hint = match first {
                    Some(first) => format!(
                        "state a control plane's, `{first}`, or who holds this one: `vip: kube-vip`, `talos` or `external`"
                    ),
                    None => "state a control plane's address".to_string(),
                };
                self.error(
                    "endpoint-address",
                    &path,
                    format!("no machine has the address {address}, and `vip` is `none`"),
                    "nobody answers here",
                    &hint,
                );
            }
            (Vip::KubeVip | Vip::Talos, Some((title, _))) => self.error(
                "endpoint-address",
                &path,
                format!("{address} is the own address of {title} and cannot move"),
                "taken",
                "a shared address is one that no machine has",
            ),
            (Vip::KubeVip | Vip::Talos, None) => {
                if let Some(subnet) = self.view.read::<Ipv4Net>("spec.network.subnet") {
                    self.host_of(subnet.value.trunc(), address, &path, "the API");
                }
            }
            (Vip::None, None) | (Vip::External, _) => {}
        }
        let talos = self.view.distribution() == Some(Distribution::Talos);
        if endpoint.vip == Vip::Talos && !talos {
            let path = format!("{ENDPOINT}.vip");
            let message = "only Talos holds addresses the Talos way".to_string();
            self.error(
                "choice",
                &path,
                message,
                "only with Talos",
                "`vip: kube-vip`, or `distribution: talos`",
            );
        }
    }

    fn pools(&mut self) {
        let path = "spec.kubernetes.loadBalancer";
        let Some(LoadBalancer::Metallb(pools) | LoadBalancer::Cilium(pools)) =
            self.view.read::<LoadBalancer>(path).map(|at| at.value)
        else {
            return;
        };
        let mut taken: Vec<(String, std::net::Ipv4Addr)> =
            self.view.nodes.iter().filter_map(|m| Some((m.title(), m.address?))).collect();
        let gateway = self.view.read("spec.network.gateway");
        taken.extend(gateway.map(|g| ("the gateway".to_string(), g.value)));
        for (index, pool) in pools.pools.iter().enumerate() {
            let path = format!("{path}.pools[{index}]");
            if let Some((owner, address)) = taken.iter().find(|(_, a)| (pool.first..=pool.last).contains(a)) {
                self.error(
                    "pool-overlap",
                    &path,
                    format!("the pool {pool} holds {address}, the address of {owner}"),
                    "not free",
                    "take a part of the subnet that neither machines nor the router's DHCP use",
                );
            }
            let before = &pools.pools[..index];
            if before.iter().any(|p| p.first <= pool.last && pool.first <= p.last) {
                let message = format!("the pool {pool} overlaps one before it");
                self.error("pool-overlap", &path, message, "overlaps", "each address stands in one pool");
            }
        }
    }
}
