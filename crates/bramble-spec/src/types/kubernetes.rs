//! `spec.kubernetes`.

use crate::decode::{Context, Decode, Definitions, record, tagged, words};
use crate::scalar::{AddressRange, Host, Text, Version};
use crate::tree::{Node, Value};
use serde::Serialize;
use serde_json::json;
use std::net::Ipv4Addr;

record! {
    /// Kubernetes itself.
    pub struct Kubernetes {
        /// Who puts it together.
        "distribution" distribution: Distribution = Distribution::Upstream,
        /// Release to run, all three numbers.
        "version" version: Version,
        /// Where its programs come from.
        "source" source: Source = Source::Auto,
        /// Where the API keeps its state; `sqlite` unless the distribution is `talos`.
        "datastore" datastore: Option<Datastore> = None,
        /// How pods on different machines reach each other.
        "cni" cni: Cni = Cni::default(),
        /// Where the API is reached; the first control plane when absent.
        "endpoint" endpoint: Option<Endpoint> = None,
        /// How services get addresses outside the cluster.
        "loadBalancer" load_balancer: LoadBalancer = LoadBalancer::None,
        /// What takes HTTP from outside to services.
        "ingress" ingress: Ingress = Ingress::None,
        /// Pod Security level of namespaces that state none.
        "podSecurity" pod_security: PodSecurity = PodSecurity::Baseline,
        /// Ordinary pods may run on control planes.
        "scheduleOnControlPlane" schedule_on_control_plane: bool = true,
        /// Secrets are encrypted in the datastore.
        "encryptSecretsAtRest" encrypt_secrets_at_rest: bool = true,
        /// The API writes down who asked for what.
        "auditLog" audit_log: bool = true,
        /// What only k3s has.
        "k3s" k3s: Option<K3s> = None,
    }
}

record! {
    /// What only k3s has.
    #[derive(Default)]
    pub struct K3s {
        /// Parts of it that are not deployed. `loadBalancer` and `ingress` decide on its load balancer and on Traefik.
        "disable" disable: Vec<K3sComponent> = Vec::new(),
        /// Machines give each other the images they have, before a registry is asked.
        "embeddedRegistry" embedded_registry: bool = false,
        /// Archives of container images that the machines carry, relative to this file. One with `amd64` or `arm64` in
        /// its name goes to machines of that architecture only.
        "images" images: Vec<Text> = Vec::new(),
    }
}

words! {
    /// A part of k3s that can be left away.
    pub enum K3sComponent {
        /// DNS of the cluster: the user brings another.
        Coredns = "coredns",
        /// Volumes in a directory of the machine.
        LocalStorage = "local-storage",
        /// What `kubectl top` and autoscaling ask.
        MetricsServer = "metrics-server",
        /// Runtime classes for other container runtimes.
        Runtimes = "runtimes",
    }
}

impl Kubernetes {
    /// Where the API keeps its state, decided: as stated, else etcd for Talos and SQLite for the others.
    pub fn datastore(&self) -> Datastore {
        self.datastore.unwrap_or(match self.distribution {
            Distribution::Talos => Datastore::Etcd,
            Distribution::Upstream | Distribution::K3s => Datastore::Sqlite,
        })
    }
}

words! {
    /// Who puts Kubernetes together.
    pub enum Distribution {
        /// Kubernetes as its own project releases it, on Bramble OS.
        Upstream = "upstream",
        /// k3s on Bramble OS.
        K3s = "k3s",
        /// Talos Linux in the place of Bramble OS.
        Talos = "talos",
    }
}

words! {
    /// Where the API keeps its state.
    pub enum Datastore {
        /// kine over SQLite: one control plane.
        Sqlite = "sqlite",
        /// etcd.
        Etcd = "etcd",
    }
}

/// Where the programs of Kubernetes come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// Release files, else Go modules where releases cannot be reached.
    Auto,
    /// Release files only.
    Release,
    /// Go modules only.
    Modules,
    /// A directory that holds them, or k3s' release file, relative to the file.
    Path(String),
}

impl Decode for Source {
    fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
        let Value::Scalar { text, .. } = &node.value else {
            let mut fields = cx.fields(node, "one word or `{ path: ... }`")?;
            let path = fields.required::<Text>(cx, "path");
            fields.finish(cx);
            return path.map(Source::Path);
        };
        match text.as_str() {
            "auto" => Some(Source::Auto),
            "release" => Some(Source::Release),
            "modules" => Some(Source::Modules),
            _ => {
                cx.unknown_word(node, text, &["auto", "release", "modules", "{ path: ... }"]);
                None
            }
        }
    }

    fn schema(_: &mut Definitions) -> serde_json::Value {
        json!({ "oneOf": [
            { "enum": ["auto", "release", "modules"] },
            {
                "type": "object",
                "properties": { "path": { "type": "string", "description": "A directory, or k3s' release file, relative to this file." } },
                "required": ["path"],
                "additionalProperties": false,
            },
        ] })
    }
}

tagged! {
    /// How pods on different machines reach each other.
    pub enum Cni {
        /// flannel.
        Flannel = "flannel" (Flannel),
        /// Cilium.
        Cilium = "cilium",
        /// Nothing: the user brings one, and no node is Ready until then.
        None = "none",
    }
}

impl Default for Cni {
    fn default() -> Self {
        Cni::Flannel(Flannel { backend: Backend::HostGw })
    }
}

record! {
    /// flannel.
    pub struct Flannel {
        /// How packets travel between machines.
        "backend" backend: Backend = Backend::HostGw,
    }
}

words! {
    /// How flannel's packets travel between machines.
    pub enum Backend {
        /// By routes, which needs all machines on one segment.
        HostGw = "host-gw",
        /// Wrapped in UDP, over any network.
        Vxlan = "vxlan",
    }
}

record! {
    /// Where the API is reached.
    pub struct Endpoint {
        /// Address: a control plane's, or the one that `vip` names a holder of.
        "address" address: Ipv4Addr,
        /// Port.
        "port" port: u16 = 6443,
        /// Who holds the address, when it is no machine's own.
        "vip" vip: Vip = Vip::None,
        /// Further names and addresses in the API's certificate.
        "sans" sans: Vec<Host> = Vec::new(),
    }
}

words! {
    /// Who holds the API's address.
    pub enum Vip {
        /// A control plane: it is that machine's own.
        None = "none",
        /// kube-vip on the control planes.
        KubeVip = "kube-vip",
        /// Talos itself.
        Talos = "talos",
        /// Something outside this file: a router, a load balancer.
        External = "external",
    }
}

tagged! {
    /// How services of type LoadBalancer get their addresses.
    pub enum LoadBalancer {
        /// They get none.
        None = "none",
        /// k3s' own, on the machines' addresses.
        Servicelb = "servicelb",
        /// MetalLB.
        Metallb = "metallb" (LoadBalancerPools),
        /// Cilium.
        Cilium = "cilium" (LoadBalancerPools),
    }
}

record! {
    /// What a load balancer may give out, and how it makes it known.
    pub struct LoadBalancerPools {
        /// Addresses: `192.168.1.240-192.168.1.250` or `192.168.1.240/28`.
        "pools" pools: Vec<AddressRange>,
        /// Routers to tell by BGP; without it addresses are answered for on the segment.
        "bgp" bgp: Option<Bgp> = None,
    }
}

record! {
    /// Routes made known by BGP.
    pub struct Bgp {
        /// The cluster's own AS number.
        "asn" asn: u32,
        /// The routers.
        "peers" peers: Vec<BgpPeer>,
    }
}

record! {
    /// A router that is told routes.
    pub struct BgpPeer {
        /// Its address.
        "address" address: Ipv4Addr,
        /// Its AS number.
        "asn" asn: u32,
    }
}

words! {
    /// What takes HTTP from outside to services.
    pub enum Ingress {
        /// Nothing.
        None = "none",
        /// Traefik.
        Traefik = "traefik",
        /// The Gateway API of the CNI.
        GatewayApi = "gateway-api",
    }
}

words! {
    /// A Pod Security level.
    pub enum PodSecurity {
        /// No rule.
        Privileged = "privileged",
        /// Known ways out of a container are closed.
        Baseline = "baseline",
        /// Best practice for pods.
        Restricted = "restricted",
    }
}
