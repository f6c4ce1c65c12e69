//! Ranges and addresses of the site.

use super::Check;
use crate::scalar::Domain;
use crate::types::Role;
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// Prefix length of the range of pods that each machine gets, Kubernetes' own usual.
const NODE_PODS: u8 = 24;

/// Longest prefix of the range of services: the API is the first address, DNS the tenth.
const SERVICES_LONGEST: u8 = 28;

/// Shortest prefix of the range of services that kube-apiserver takes (20 bits of addresses).
const SERVICES_SHORTEST: u8 = 12;

const SUBNET: &str = "spec.network.subnet";
const PODS: &str = "spec.network.pods";
const SERVICES: &str = "spec.network.services";

fn overlap(a: &Ipv4Net, b: &Ipv4Net) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

/// Ranges that nobody else on the internet uses: RFC 1918, and RFC 6598's.
fn is_private(net: &Ipv4Net) -> bool {
    let shared = Ipv4Net::new(Ipv4Addr::new(100, 64, 0, 0), 10);
    net.network().is_private() || shared.is_ok_and(|shared| shared.contains(net))
}

impl Check<'_> {
    pub(super) fn network(&mut self) {
        let subnet = self.range(SUBNET, None);
        let pods = self.range(PODS, Some([10, 42]));
        let services = self.range(SERVICES, Some([10, 43]));
        for (a, b) in [(SUBNET, PODS), (SUBNET, SERVICES), (PODS, SERVICES)] {
            let of = |path| match path {
                SUBNET => subnet,
                PODS => pods,
                _ => services,
            };
            if let (Some(x), Some(y)) = (of(a), of(b))
                && overlap(&x, &y)
            {
                // The one that is stated in the file is the one to be changed.
                let (path, other) = if self.view.states(b) { (b, a) } else { (a, b) };
                let (here, there) = if path == b { (y, x) } else { (x, y) };
                let name = other.rsplit('.').next().unwrap_or(other);
                self.error(
                    "ranges-overlap",
                    path,
                    format!("{here} overlaps {there}, the range of `{name}`"),
                    "overlaps",
                    "three ranges without a common address: the site's, `pods` (10.42.0.0/16) and `services` (10.43.0.0/16)",
                );
            }
        }
        for (path, range) in [(PODS, pods), (SERVICES, services)] {
            if let Some(range) = range.filter(|r| !is_private(r)) {
                self.warning(
                    "public-range",
                    path,
                    format!("{range} belongs to somebody on the internet"),
                    "not a private range",
                    "machines could not reach that part of the internet; take a part of 10.0.0.0/8",
                );
            }
        }
        if let Some(subnet) = subnet.filter(|s| s.prefix_len() > 30) {
            self.error(
                "range-too-small",
                SUBNET,
                format!("{subnet} has no room for machines"),
                "too small",
                "a home network usually has the prefix /24",
            );
        }
        self.pods_and_services(pods, services);
        self.gateway(subnet);
        self.names();
    }

    /// A range that must be written without host bits.
    fn range(&mut self, path: &str, default: Option<[u8; 2]>) -> Option<Ipv4Net> {
        if !self.view.states(path) {
            return default.and_then(|[a, b]| Ipv4Net::new(Ipv4Addr::new(a, b, 0, 0), 16).ok());
        }
        let net = self.view.read::<Ipv4Net>(path)?.value;
        if net.addr() != net.network() {
            self.error(
                "host-bits",
                path,
                format!("{net} is an address in a range, not a range"),
                "has host bits",
                &format!("the range is `{}`", net.trunc()),
            );
        }
        Some(net.trunc())
    }

    fn pods_and_services(&mut self, pods: Option<Ipv4Net>, services: Option<Ipv4Net>) {
        let nodes = self.view.nodes.iter().filter(|m| m.role != Some(Role::Management)).count() as u64;
        if let Some(pods) = pods {
            let room = match pods.prefix_len() {
                prefix if prefix <= NODE_PODS => 1_u64 << (NODE_PODS - prefix),
                _ => 0,
            };
            if room < nodes.max(1) {
                let prefix = NODE_PODS.saturating_sub(nodes.max(1).next_power_of_two().ilog2() as u8);
                self.error(
                    "range-too-small",
                    PODS,
                    format!("{pods} has pod ranges for {room} of {nodes} machines"),
                    "too small",
                    &format!(
                        "each machine gets a /{NODE_PODS}; /{prefix} would just do, and the range cannot grow later: /16 is usual"
                    ),
                );
            }
        }
        if let Some(services) = services
            && !(SERVICES_SHORTEST..=SERVICES_LONGEST).contains(&services.prefix_len())
        {
            let word = if services.prefix_len() > SERVICES_LONGEST { "small" } else { "large" };
            self.error(
                "services-size",
                SERVICES,
                format!("{services} is too {word} for services"),
                &format!("too {word}"),
                &format!("from /{SERVICES_SHORTEST} to /{SERVICES_LONGEST}; /16 is usual"),
            );
        }
    }

    fn gateway(&mut self, subnet: Option<Ipv4Net>) {
        let path = "spec.network.gateway";
        if !self.view.states(path) {
            if self.view.states("spec.network") {
                self.warning(
                    "no-gateway",
                    "spec.network",
                    "there is no gateway: machines reach their own subnet only".into(),
                    "no `gateway`",
                    "add `gateway:` with the router's address, unless that is meant",
                );
            }
            return;
        }
        if let (Some(subnet), Some(gateway)) = (subnet, self.view.read::<Ipv4Addr>(path)) {
            self.host_of(subnet, gateway.value, path, "the gateway");
        }
    }

    /// Says when an address is not one that a machine in the subnet can have; true when it is.
    pub(super) fn host_of(&mut self, subnet: Ipv4Net, address: Ipv4Addr, path: &str, whose: &str) -> bool {
        if !subnet.contains(&address) {
            self.error(
                "address-outside-subnet",
                path,
                format!("{address}, the address of {whose}, is not in {subnet}"),
                "outside the subnet",
                &format!(
                    "`subnet` is on line {}; its addresses are {} to {}",
                    self.line(SUBNET),
                    { Ipv4Addr::from(u32::from(subnet.network()).saturating_add(1)) },
                    { Ipv4Addr::from(u32::from(subnet.broadcast()).saturating_sub(1)) }
                ),
            );
            return false;
        }
        let reserved = match address {
            a if a == subnet.network() => "network",
            a if a == subnet.broadcast() => "broadcast",
            _ => return true,
        };
        self.error(
            "address-reserved",
            path,
            format!("{address} is the {reserved} address of {subnet}, no machine's"),
            &format!("{reserved} address"),
            "take an address between the first and the last of the subnet",
        );
        false
    }

    fn names(&mut self) {
        let domain = self.view.read_or("spec.network.domain", Domain::home());
        let cluster = self.view.read_or("spec.network.clusterDomain", Domain::cluster_local());
        let (Some(domain), Some(cluster)) = (domain, cluster) else { return };
        if domain == cluster {
            self.error(
                "one-domain",
                "spec.network.domain",
                format!("`{domain}` is the site's domain and the cluster's"),
                "the same as `clusterDomain`",
                "machines would ask the cluster for each other's names; `domain: home.arpa` is made for homes",
            );
        } else if domain.as_str() == "local" || domain.as_str().ends_with(".local") {
            self.warning(
                "mdns-domain",
                "spec.network.domain",
                format!("`{domain}` is a name that mDNS answers for (RFC 6762)"),
                "ends in `local`",
                "`home.arpa` is the domain made for homes (RFC 8375)",
            );
        }
    }
}
