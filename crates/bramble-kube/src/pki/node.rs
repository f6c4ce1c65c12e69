//! What one machine is given.

use super::authority::Pair;
use super::{Authorities, Authority, PkiError, Profile, Validity, kubeconfig};
use crate::names::{GROUP_FLANNEL, GROUP_RENEWAL, USER_FRONT_PROXY, USER_KUBELET_CLIENT};
use bramble_api::document::{Cni, Datastore};
use bramble_api::names::Role;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

/// The machine to issue for.
#[derive(Clone, Debug)]
pub struct NodeRequest<'a> {
    /// Name of the cluster.
    pub cluster: &'a str,
    /// Name of the node.
    pub name: &'a str,
    /// What it does. A management machine gets nothing: people's access is a kubeconfig of its own.
    pub role: Role,
    /// Its address.
    pub address: Ipv4Addr,
    /// Where nodes reach the API.
    pub endpoint: (Ipv4Addr, u16),
    /// The API's address inside the cluster.
    pub service_address: Ipv4Addr,
    /// Domain of cluster names.
    pub cluster_domain: &'a str,
    /// Further names and addresses of the API.
    pub sans: &'a [String],
    /// How pods reach each other: flannel has an identity of its own.
    pub cni: Cni,
    /// Where the API keeps its state.
    pub datastore: Datastore,
    /// Secrets are encrypted in the datastore.
    pub encrypt_secrets: bool,
    /// How long what is issued stays valid.
    pub validity: Validity,
    /// Seconds since the epoch.
    pub now: u64,
}

/// Issues everything a machine holds below /etc/kubernetes: `document.kubernetes.files`, by path.
pub fn issue_node(
    authorities: &Authorities,
    request: &NodeRequest,
) -> Result<BTreeMap<String, String>, PkiError> {
    let mut files = Files { authorities, request, files: BTreeMap::new() };
    match request.role {
        Role::Management => {}
        Role::Worker => files.node()?,
        Role::ControlPlane => {
            files.node()?;
            files.control_plane()?;
        }
    }
    Ok(files.files)
}

struct Files<'a> {
    authorities: &'a Authorities,
    request: &'a NodeRequest<'a>,
    files: BTreeMap<String, String>,
}

impl Files<'_> {
    fn put(&mut self, path: &str, content: impl Into<String>) {
        self.files.insert(path.to_string(), content.into());
    }

    fn pair(&mut self, path: &str, authority: &Authority, profile: &Profile) -> Result<(), PkiError> {
        let Pair { certificate, key } =
            authority.pair(profile, self.request.now, self.request.validity.leaf)?;
        self.put(&format!("pki/{path}.crt"), certificate);
        self.put(&format!("pki/{path}.key"), key);
        Ok(())
    }

    fn conf(&mut self, path: &str, name: &str, group: Option<&str>, life: Duration) -> Result<(), PkiError> {
        let request = self.request;
        // A control plane asks its own API server, by a way that no cable and no lease can take away.
        let server = match request.role {
            Role::ControlPlane => format!("https://127.0.0.1:{}", request.endpoint.1),
            Role::Worker | Role::Management => {
                format!("https://{}:{}", request.endpoint.0, request.endpoint.1)
            }
        };
        let profile = Profile { name, group, client: true, ..Profile::default() };
        let pair = self.authorities.client.pair(&profile, request.now, life)?;
        self.put(path, kubeconfig::text(self.authorities, request.cluster, &server, name, &pair));
        Ok(())
    }

    fn node(&mut self) -> Result<(), PkiError> {
        let NodeRequest { name, address, validity, cni, .. } = *self.request;
        self.put("pki/client-ca.crt", self.authorities.client.bundle());
        self.put("pki/serving-ca.crt", self.authorities.serving.bundle());
        let kubelet = format!("system:node:{name}");
        self.pair(
            "kubelet-serving",
            &self.authorities.serving,
            &Profile {
                name: &kubelet,
                group: Some("system:nodes"),
                server: true,
                sans: vec![name.to_string(), address.to_string()],
                ..Profile::default()
            },
        )?;
        self.conf("kubelet.conf", &kubelet, Some("system:nodes"), validity.kubelet_client)?;
        // The same name in another group: it is no node to the API, and may only ask for a certificate in this name.
        self.conf("kubelet-renewal.conf", &kubelet, Some(GROUP_RENEWAL), validity.leaf)?;
        self.conf("kube-proxy.conf", "system:kube-proxy", None, validity.leaf)?;
        if cni != Cni::None {
            self.conf(
                "flannel.conf",
                &format!("bramble:flannel:{name}"),
                Some(GROUP_FLANNEL),
                validity.leaf,
            )?;
        }
        Ok(())
    }

    fn control_plane(&mut self) -> Result<(), PkiError> {
        let authorities = self.authorities;
        let request = self.request;
        // The controller wants exactly one certificate beside the key it signs with, not the list of trusted ones.
        self.put("pki/client-ca-signing.crt", authorities.client.certificate.as_str());
        self.put("pki/client-ca-signing.key", authorities.client.key.as_str());
        self.pair(
            "apiserver",
            &authorities.serving,
            &Profile { name: "kube-apiserver", server: true, sans: self.api_names(), ..Profile::default() },
        )?;
        let client = |name| Profile { name, client: true, ..Profile::default() };
        self.pair("apiserver-kubelet-client", &authorities.client, &client(USER_KUBELET_CLIENT))?;
        self.put("pki/front-proxy-ca.crt", authorities.front_proxy.bundle());
        self.pair("front-proxy-client", &authorities.front_proxy, &client(USER_FRONT_PROXY))?;
        self.put("pki/service-account.key", authorities.service_account.key.as_str());
        self.put("pki/service-account.pub", authorities.service_account.public.concat());
        if request.datastore == Datastore::Etcd {
            self.put("pki/datastore-ca.crt", authorities.datastore.bundle());
            let sans = vec!["127.0.0.1".to_string(), "localhost".to_string()];
            // Good for both sides: a member is its peers' server and client.
            let member = Profile { name: "etcd", client: true, server: true, sans, group: None };
            self.pair("datastore-server", &authorities.datastore, &member)?;
            self.pair("datastore-client", &authorities.datastore, &client("kube-apiserver"))?;
        }
        let leaf = request.validity.leaf;
        self.conf("controller-manager.conf", "system:kube-controller-manager", None, leaf)?;
        self.conf("scheduler.conf", "system:kube-scheduler", None, leaf)?;
        // For the unit that applies the first manifests. The machine holds the key that could sign it anyway.
        self.conf("admin.conf", "bramble:first-manifests", Some("system:masters"), leaf)?;
        if request.encrypt_secrets {
            self.put("encryption.yaml", self.encryption());
        }
        Ok(())
    }

    fn api_names(&self) -> Vec<String> {
        let request = self.request;
        let mut names: Vec<String> =
            ["kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(String::from).to_vec();
        names.push(format!("kubernetes.default.svc.{}", request.cluster_domain));
        names.push("localhost".into());
        names.push(request.name.into());
        for address in [Ipv4Addr::LOCALHOST, request.service_address, request.address, request.endpoint.0] {
            names.push(address.to_string());
        }
        names.extend(request.sans.iter().cloned());
        let mut seen = std::collections::BTreeSet::new();
        names.retain(|name| seen.insert(name.clone()));
        names
    }

    /// `EncryptionConfiguration`: the first key writes, `identity` reads what was written before there was one.
    fn encryption(&self) -> String {
        let mut text = String::from(
            "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources:\n\
             - resources: [secrets]\n  providers:\n  - secretbox:\n      keys:\n",
        );
        for key in &self.authorities.encryption {
            text.push_str(&format!("      - {{name: {:?}, secret: {:?}}}\n", key.name, key.secret));
        }
        text.push_str("  - identity: {}\n");
        text
    }
}
