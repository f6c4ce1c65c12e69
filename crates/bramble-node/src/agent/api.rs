//! Asks the Kubernetes API with the kubelet's own certificate.

use super::http::{self, Response};
use super::kubeconfig::{self, Kubeconfig};
use bramble_api::document::{Distribution, Kubernetes};
use bramble_api::names::annotation;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::Write;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// For each step of a request. A Pi that pulls images answers late, but a minute's round must end.
const TIMEOUT: Duration = Duration::from_secs(5);
const KUBECONFIG: &str = "/etc/kubernetes/kubelet.conf";
/// Where the kubelet keeps the certificates it renews.
const RENEWED: &str = "/var/lib/kubelet/pki";

/// Where k3s keeps what its server gave the node (`pkg/agent/config/config.go` of k3s).
const K3S_AGENT: &str = "/var/lib/rancher/k3s/agent";

/// A way to the API.
pub struct Api {
    config: Kubeconfig,
    tls: Arc<ClientConfig>,
}

impl Api {
    /// With the kubelet's certificate, wherever the distribution keeps it.
    pub fn of(kubernetes: &Kubernetes, incarnation: &str) -> Result<Api, String> {
        match kubernetes.distribution {
            Distribution::Upstream => Api::open(incarnation),
            Distribution::K3s => Api::new(k3s(kubernetes, Path::new(K3S_AGENT))?),
        }
    }

    /// With the certificate that the kubelet has renewed for this incarnation, or else the one it started with.
    fn open(incarnation: &str) -> Result<Api, String> {
        let text = std::fs::read_to_string(KUBECONFIG).map_err(|error| format!("{KUBECONFIG}: {error}"))?;
        let mut config = kubeconfig::parse(&text).map_err(|error| error.to_string())?;
        let renewed = Path::new(RENEWED).join(incarnation).join("kubelet-client-current.pem");
        if let Ok(pem) = std::fs::read(renewed) {
            config.client = pem;
        }
        Api::new(config)
    }

    fn new(config: Kubeconfig) -> Result<Api, String> {
        let tls = tls(&config)?;
        Ok(Api { config, tls: Arc::new(tls) })
    }

    /// The API's address, for people.
    pub fn server(&self) -> String {
        format!("https://{}:{}", self.config.host, self.config.port)
    }

    /// Asks for `path`.
    pub fn get(&self, path: &str) -> Result<Response, String> {
        self.ask(path, &http::get(&self.config.host, path))
    }

    /// Asks for the objects at `path` without their spec and status.
    pub fn get_metadata(&self, path: &str) -> Result<Response, String> {
        self.ask(path, &http::get_metadata(&self.config.host, path))
    }

    /// Makes `json` at `path`.
    pub fn create(&self, path: &str, json: &str) -> Result<Response, String> {
        self.ask(path, &http::create(&self.config.host, path, json))
    }

    /// Merges `json` into what is at `path`.
    pub fn merge(&self, path: &str, json: &str) -> Result<Response, String> {
        self.ask(path, &http::merge(&self.config.host, path, json))
    }

    fn ask(&self, path: &str, request: &str) -> Result<Response, String> {
        let Kubeconfig { host, port, .. } = &self.config;
        let place = format!("{host}:{port}");
        let address = place.to_socket_addrs().map_err(|error| format!("{place}: {error}"))?.next();
        let address = address.ok_or_else(|| format!("{place}: no address"))?;
        let socket =
            TcpStream::connect_timeout(&address, TIMEOUT).map_err(|error| format!("{place}: {error}"))?;
        let timeouts =
            socket.set_read_timeout(Some(TIMEOUT)).and_then(|()| socket.set_write_timeout(Some(TIMEOUT)));
        timeouts.map_err(|error| error.to_string())?;
        let name = ServerName::try_from(host.clone()).map_err(|error| format!("{host}: {error}"))?;
        let connection = ClientConnection::new(self.tls.clone(), name).map_err(|error| error.to_string())?;
        let mut stream = StreamOwned::new(connection, socket);
        let answer = stream.write_all(request.as_bytes()).and_then(|()| http::read(&mut stream));
        answer.map_err(|error| format!("{place}{path}: {error}"))
    }
}

/// The way that k3s' kubelet takes: its certificate is there once the server has answered.
fn k3s(kubernetes: &Kubernetes, directory: &Path) -> Result<Kubeconfig, String> {
    let read = |name: &str| {
        let path = directory.join(name);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut client = read("client-kubelet.crt")?;
    client.push(b'\n');
    client.extend(read("client-kubelet.key")?);
    let (address, port) = kubernetes.endpoint;
    // A server asks its own, by a way that no cable can take away.
    let host = if kubernetes.control_plane.is_some() { "127.0.0.1".to_string() } else { address.to_string() };
    Ok(Kubeconfig { host, port, authorities: read("server-ca.crt")?, client })
}

fn tls(config: &Kubeconfig) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(&config.authorities) {
        let authority = authority.map_err(|error| format!("the API's authority: {error}"))?;
        roots.add(authority).map_err(|error| format!("the API's authority: {error}"))?;
    }
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&config.client).collect();
    let chain = chain.map_err(|error| format!("the kubelet's certificate: {error}"))?;
    let key = PrivateKeyDer::from_pem_slice(&config.client)
        .map_err(|error| format!("the kubelet's key: {error}"))?;
    // Named, not the process's default: nothing else in this program may choose it.
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|error| format!("the kubelet's certificate: {error}"))
}

/// The card that a Node object was last seen with.
pub fn card(node: &[u8]) -> Option<u32> {
    let node: serde_json::Value = serde_json::from_slice(node).ok()?;
    node.pointer("/metadata/annotations")?.get(annotation::CARD)?.as_str()?.parse().ok()
}

/// The change that gives a Node object its card.
pub fn with_card(card: u32) -> String {
    serde_json::json!({ "metadata": { "annotations": { annotation::CARD: card.to_string() } } }).to_string()
}

/// Whether a Node object says Ready: its kubelet's version, or why not.
pub fn readiness(node: &[u8]) -> Result<String, String> {
    #[derive(serde::Deserialize)]
    struct Node {
        status: Status,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Status {
        #[serde(default)]
        conditions: Vec<Condition>,
        node_info: Option<NodeInfo>,
    }
    #[derive(serde::Deserialize)]
    struct Condition {
        r#type: String,
        status: String,
        #[serde(default)]
        message: String,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct NodeInfo {
        kubelet_version: String,
    }
    let node: Node =
        serde_json::from_slice(node).map_err(|error| format!("the Node cannot be read: {error}"))?;
    let condition = node.status.conditions.into_iter().find(|condition| condition.r#type == "Ready");
    match condition {
        Some(condition) if condition.status == "True" => {
            Ok(node.status.node_info.map(|info| info.kubelet_version).unwrap_or_default())
        }
        Some(condition) => Err(format!("not ready: {}", condition.message.replace('\n', " "))),
        None => Err("the kubelet has not reported yet".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, IsCa, Issuer, KeyPair};
    use rustls::server::WebPkiClientVerifier;
    use rustls::{ServerConfig, ServerConnection};
    use std::io::Read;
    use std::net::TcpListener;

    /// An authority, and what it issues: certificate and key, PEM.
    struct Authority(Issuer<'static, KeyPair>, String);

    impl Authority {
        fn new() -> Authority {
            let mut params = CertificateParams::new([]).unwrap();
            params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
            let key = KeyPair::generate().unwrap();
            let pem = params.self_signed(&key).unwrap().pem();
            Authority(Issuer::new(params, key), pem)
        }

        fn issue(&self, name: &str) -> Vec<u8> {
            let key = KeyPair::generate().unwrap();
            let certificate =
                CertificateParams::new([name.to_string()]).unwrap().signed_by(&key, &self.0).unwrap();
            [certificate.pem(), key.serialize_pem()].concat().into_bytes()
        }
    }

    /// A server for one request that wants a certificate of `authority`; gives its port.
    fn serve(authority: &Authority) -> u16 {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(authority.1.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let clients =
            WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone()).build().unwrap();
        let own = authority.issue("127.0.0.1");
        let config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(
                vec![CertificateDer::from_pem_slice(&own).unwrap()],
                PrivateKeyDer::from_pem_slice(&own).unwrap(),
            )
            .unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            let socket = listener.accept().unwrap().0;
            let mut stream = StreamOwned::new(ServerConnection::new(config.into()).unwrap(), socket);
            let mut request = [0; 1024];
            let Ok(length) = stream.read(&mut request) else { return };
            let asked = String::from_utf8_lossy(&request[..length]).lines().next().unwrap().to_string();
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{asked}", asked.len());
            let _ = stream.write_all(answer.as_bytes());
            let _ = stream.flush();
        });
        port
    }

    fn api(port: u16, authority: &Authority, client: Vec<u8>) -> Api {
        let authorities = authority.1.clone().into_bytes();
        Api::new(Kubeconfig { host: "127.0.0.1".into(), port, authorities, client }).unwrap()
    }

    #[test]
    fn both_sides_show_certificates_of_the_authority() {
        let authority = Authority::new();
        let answer = api(serve(&authority), &authority, authority.issue("n1")).get("/readyz").unwrap();
        assert_eq!((answer.status, answer.body), (200, b"GET /readyz HTTP/1.1".to_vec()));
    }

    /// As k3s leaves them: certificate and key in files of their own.
    #[test]
    fn the_files_of_k3s_are_a_way_too() {
        let authority = Authority::new();
        let directory = std::env::temp_dir().join(format!("bramble-k3s-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let issued = String::from_utf8(authority.issue("n1")).unwrap();
        let (certificate, key) = issued.split_at(issued.find("-----BEGIN PRIVATE").unwrap());
        std::fs::write(directory.join("client-kubelet.crt"), certificate.trim_end()).unwrap();
        let kubernetes = Kubernetes {
            distribution: Distribution::K3s,
            version: "v1.36.4+k3s1".into(),
            endpoint: ("127.0.0.1".parse().unwrap(), serve(&authority)),
            pods: "10.42.0.0/16".parse().unwrap(),
            services: "10.43.0.0/16".parse().unwrap(),
            cluster_domain: "cluster.local".into(),
            pod_range: "10.42.1.0/24".parse().unwrap(),
            cni: bramble_api::document::Cni::FlannelHostGw,
            labels: Default::default(),
            taints: Vec::new(),
            control_plane: None,
            k3s: None,
            files: Default::default(),
        };
        let missing = k3s(&kubernetes, &directory).err().unwrap();
        assert!(missing.contains("client-kubelet.key"), "{missing}");
        std::fs::write(directory.join("client-kubelet.key"), key).unwrap();
        std::fs::write(directory.join("server-ca.crt"), &authority.1).unwrap();
        let api = Api::new(k3s(&kubernetes, &directory).unwrap()).unwrap();
        assert_eq!(api.get("/readyz").unwrap().status, 200);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn a_stranger_on_either_side_is_refused() {
        let (authority, stranger) = (Authority::new(), Authority::new());
        let client = api(serve(&authority), &authority, stranger.issue("n1"));
        assert!(client.get("/readyz").is_err());
        let client = api(serve(&stranger), &authority, authority.issue("n1"));
        assert!(client.get("/readyz").unwrap_err().contains("127.0.0.1"));
    }

    #[test]
    fn a_certificate_without_its_key_is_an_error_and_not_a_stop() {
        let authority = Authority::new();
        let config = Kubeconfig {
            host: "127.0.0.1".into(),
            port: 1,
            authorities: authority.1.clone().into_bytes(),
            client: authority.1.clone().into_bytes(),
        };
        assert!(Api::new(config).err().unwrap().contains("key"));
    }

    #[test]
    fn a_node_remembers_its_card() {
        let node: serde_json::Value = serde_json::from_str(&with_card(12)).unwrap();
        assert_eq!(card(node.to_string().as_bytes()), Some(12));
        assert_eq!(card(br#"{"metadata":{"annotations":{"other":"1"}}}"#), None);
        assert_eq!(card(br#"{"metadata":{}}"#), None);
    }

    #[test]
    fn a_node_is_ready_when_it_says_so() {
        let node = |conditions: &str| {
            let json = format!(
                r#"{{"kind":"Node","status":{{"conditions":[{conditions}],"nodeInfo":{{"kubeletVersion":"v1.36.3","x":1}}}}}}"#
            );
            readiness(json.as_bytes())
        };
        let pressure = r#"{"type":"MemoryPressure","status":"True"}"#;
        let ready = r#"{"type":"Ready","status":"True","message":"ok"}"#;
        assert_eq!(node(&format!("{pressure},{ready}")), Ok("v1.36.3".into()));
        let unready = r#"{"type":"Ready","status":"False","message":"cni plugin\nnot initialized"}"#;
        assert_eq!(node(unready), Err("not ready: cni plugin not initialized".into()));
        assert!(node(r#"{"type":"Ready","status":"Unknown"}"#).is_err());
        assert_eq!(node(pressure), Err("the kubelet has not reported yet".into()));
        assert!(readiness(b"{}").is_err());
    }
}
