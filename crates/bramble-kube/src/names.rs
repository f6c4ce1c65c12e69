//! Names that the issuing side and the machine must agree on.

use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// The sandbox image, made by the tool and preloaded. Our own registry name: nothing can be pulled in its place.
pub const IMAGE_PAUSE: &str = "bramble.home.arpa/pause:1";
/// The DNS server's image.
pub const IMAGE_COREDNS: &str = "bramble.home.arpa/coredns:v1.13.2";
/// The small test image: `serve`, `get URL [N]`, `echo WORDS`.
pub const IMAGE_PROBE: &str = "bramble.home.arpa/probe:1";

/// Where the release keeps its images, on the machine.
pub const IMAGES: &str = "/usr/lib/bramble/images";
/// Where the CNI plugins of the release lie, on the machine.
pub const CNI_PLUGINS: &str = "/usr/lib/cni";

/// Where Kubernetes' part of the machine document is written.
pub const ETC: &str = "/etc/kubernetes";

/// User of the API server towards kubelets.
pub const USER_KUBELET_CLIENT: &str = "bramble:apiserver-kubelet-client";
/// Group of the credentials that may only ask for a kubelet's certificate in their own name.
pub const GROUP_RENEWAL: &str = "bramble:node-renewal";
/// Group of flannel's credentials.
pub const GROUP_FLANNEL: &str = "bramble:flannel";
/// Common name that the front-proxy authority's certificate must have.
pub const USER_FRONT_PROXY: &str = "front-proxy-client";

/// The address of the API inside the cluster: the first of the range of services.
pub fn api_service_address(services: Ipv4Net) -> Ipv4Addr {
    nth(services, 1)
}

/// The address of the cluster's DNS: the tenth of the range of services.
pub fn dns_service_address(services: Ipv4Net) -> Ipv4Addr {
    nth(services, 10)
}

fn nth(range: Ipv4Net, n: u32) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(range.network()).saturating_add(n))
}

/// Whether a kubelet may give its own node this label.
///
/// Kubernetes keeps the namespaces `kubernetes.io` and `k8s.io` for itself but for a few names (the kubelet refuses to
/// start with others, and the admission plugin NodeRestriction refuses them from a node's identity):
/// `pkg/kubelet/apis/well_known_labels.go`.
pub fn kubelet_may_set(label: &str) -> bool {
    const NAMES: &[&str] = &[
        "kubernetes.io/hostname",
        "kubernetes.io/os",
        "kubernetes.io/arch",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
        "node.kubernetes.io/instance-type",
        "beta.kubernetes.io/instance-type",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
    ];
    let Some((namespace, _)) = label.split_once('/') else { return true };
    let within = |domain: &str| {
        namespace == domain || namespace.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
    };
    if within("kubelet.kubernetes.io") || within("node.kubernetes.io") {
        return true;
    }
    if within("kubernetes.io") || within("k8s.io") {
        return NAMES.contains(&label);
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_addresses_count_from_the_network() -> Result<(), Box<dyn std::error::Error>> {
        let services: Ipv4Net = "10.43.0.0/16".parse()?;
        assert_eq!(api_service_address(services), Ipv4Addr::new(10, 43, 0, 1));
        assert_eq!(dns_service_address(services), Ipv4Addr::new(10, 43, 0, 10));
        Ok(())
    }

    #[test]
    fn kubelets_may_not_name_their_role() {
        for good in [
            "tier",
            "example.org/tier",
            "topology.kubernetes.io/zone",
            "x.node.kubernetes.io/a",
            "notk8s.io/x",
        ] {
            assert!(kubelet_may_set(good), "{good}");
        }
        for bad in [
            "node-role.kubernetes.io/worker",
            "node-restriction.kubernetes.io/a",
            "k8s.io/a",
            "kubernetes.io/x",
        ] {
            assert!(!kubelet_may_set(bad), "{bad}");
        }
    }
}
