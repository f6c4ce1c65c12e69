//! The first manifests: what must be in the cluster before anything else can work.

use crate::names::{IMAGE_COREDNS, dns_service_address};
use bramble_api::document::Cni;
use ipnet::Ipv4Net;

const RBAC: &str = include_str!("../../../dist/manifests/rbac.yaml");
const FLANNEL: &str = include_str!("../../../dist/manifests/flannel.yaml");
const COREDNS: &str = include_str!("../../../dist/manifests/coredns.yaml");

/// What the manifests depend on.
#[derive(Clone, Debug)]
pub struct Settings<'a> {
    /// Domain of cluster names.
    pub cluster_domain: &'a str,
    /// Range of services.
    pub services: Ipv4Net,
    /// How pods reach each other.
    pub cni: Cni,
    /// How many CoreDNS pods.
    pub replicas: u32,
    /// Nodes know a name server outside: names beyond the cluster are asked there. Without one CoreDNS would not start
    /// if it were told to.
    pub forward: bool,
}

/// The manifests in the order of their application: grants first, then the network's, then DNS.
pub fn first(settings: &Settings) -> Vec<String> {
    let mut manifests = vec![RBAC.to_string()];
    if settings.cni != Cni::None {
        manifests.push(FLANNEL.to_string());
    }
    manifests.push(coredns(settings));
    manifests
}

fn coredns(settings: &Settings) -> String {
    COREDNS
        .replace("@CLUSTER_DOMAIN@", settings.cluster_domain)
        .replace("@FORWARD@", if settings.forward { "      forward . /etc/resolv.conf\n" } else { "" })
        .replace("@REPLICAS@", &settings.replicas.to_string())
        .replace("@IMAGE@", IMAGE_COREDNS)
        .replace("@DNS_ADDRESS@", &dns_service_address(settings.services).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn coredns_has_no_placeholder_left() -> Result<(), Box<dyn std::error::Error>> {
        let settings = Settings {
            cluster_domain: "lab.example",
            services: "10.43.0.0/16".parse()?,
            cni: Cni::FlannelHostGw,
            replicas: 2,
            forward: true,
        };
        let with = coredns(&settings);
        assert!(!with.contains('@'), "{with}");
        assert!(with.contains("      kubernetes lab.example in-addr.arpa"));
        assert!(with.contains("      forward . /etc/resolv.conf\n      cache 30\n"));
        assert!(with.contains("clusterIP: 10.43.0.10"));
        let without = coredns(&Settings { forward: false, ..settings });
        assert!(without.contains("      }\n      cache 30\n"), "{without}");
        Ok(())
    }

    #[test]
    fn a_cluster_with_its_own_network_gets_no_flannel() -> Result<(), Box<dyn std::error::Error>> {
        let settings = Settings {
            cluster_domain: "cluster.local",
            services: "10.43.0.0/16".parse()?,
            cni: Cni::None,
            replicas: 1,
            forward: true,
        };
        assert!(first(&settings).iter().all(|m| !m.contains("flannel")));
        assert!(
            first(&Settings { cni: Cni::FlannelVxlan, ..settings })
                .iter()
                .any(|m| m.contains("bramble:flannel"))
        );
        Ok(())
    }
}
