//! `spec.network`.

use crate::decode::{Context, Decode, Definitions, Refusal, Scalar, decode_scalar, record};
use crate::diagnostic::Diagnostic;
use crate::scalar::{Domain, Host, OrNone, Text, Url, is_domain};
use crate::tree::{Node, Value, shorten};
use crate::types::Word;
use ipnet::Ipv4Net;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

record! {
    /// The site's network and the cluster's own ranges.
    pub struct Network {
        /// The range that all machines live in.
        "subnet" subnet: Ipv4Net,
        /// The way out.
        "gateway" gateway: Option<Ipv4Addr> = None,
        /// Name servers.
        "dns" dns: Vec<Ipv4Addr> = Vec::new(),
        /// Time servers.
        "ntp" ntp: Vec<Host> = Vec::new(),
        /// Domain of the machines' names.
        "domain" domain: Domain = Domain::home(),
        /// Range of all pods. It cannot change once the cluster is founded.
        "pods" pods: Ipv4Net = range(10, 42),
        /// Range of services. It cannot change once the cluster is founded.
        "services" services: Ipv4Net = range(10, 43),
        /// Domain of names in the cluster. It cannot change once the cluster is founded.
        "clusterDomain" cluster_domain: Domain = Domain::cluster_local(),
        /// HTTP proxy on the way out.
        "proxy" proxy: OrNone<Proxy> = OrNone::None,
        /// Certificate authorities to trust beside the system's: PEM, or `@` and a file relative to this one.
        "trustedCAs" trusted_cas: Vec<Certificate> = Vec::new(),
        /// Where images come from: mirrors, credentials and authorities, by registry.
        "registries" registries: Registries = Registries::default(),
    }
}

/// `a.b.0.0/16`.
fn range(a: u8, b: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, 0, 0), 16)
}

record! {
    /// HTTP proxy on the way out.
    pub struct Proxy {
        /// For `http://`.
        "http" http: Option<Url> = None,
        /// For `https://`.
        "https" https: Option<Url> = None,
        /// Names and ranges that are reached without it, beside the cluster's own.
        "noProxy" no_proxy: Vec<Text> = Vec::new(),
    }
}

record! {
    /// Where the images of one registry come from.
    pub struct Registry {
        /// Asked in this order before the registry itself.
        "mirrors" mirrors: Vec<Url> = Vec::new(),
        /// Name to log in with.
        "username" username: Option<Text> = None,
        /// Password or token.
        "password" password: Option<SecretName> = None,
        /// Certificate authority of the registry: PEM, or `@` and a file relative to this one.
        "ca" ca: Option<Certificate> = None,
    }
}

/// A certificate: in the file, or in a file of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Certificate {
    /// PEM text.
    Pem(String),
    /// Path of a PEM file, relative to `bramble.yaml`.
    File(String),
}

impl Serialize for Certificate {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Certificate::Pem(text) => serializer.serialize_str(text),
            Certificate::File(path) => serializer.collect_str(&format_args!("@{path}")),
        }
    }
}

impl Decode for Certificate {
    fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
        decode_scalar(node, cx)
    }

    fn schema(_: &mut Definitions) -> serde_json::Value {
        <Self as Scalar>::schema()
    }
}

impl Scalar for Certificate {
    const WHAT: &'static str = "a certificate, or `@` and its file";
    fn read(text: &str) -> Result<Self, Refusal> {
        if text.contains("PRIVATE KEY") {
            return Err(Refusal::new("this is a private key")
                .hint("only the certificate belongs here; secrets never stand in this file"));
        }
        if text.trim_start().starts_with("-----BEGIN CERTIFICATE-----") {
            return Ok(Certificate::Pem(text.to_string()));
        }
        match text.strip_prefix('@') {
            Some(path) if !path.trim().is_empty() && !path.chars().any(char::is_control) => {
                Ok(Certificate::File(path.to_string()))
            }
            _ => Err(Refusal::new(format!("`{}` is neither PEM nor a file", shorten(text)))
                .hint("a file has `@` before it: `\"@ca/home.pem\"`")),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^\\s*(@.+|-----BEGIN CERTIFICATE-----)" })
    }
}

/// Registries by name: `docker.io`, `registry.home.arpa:5000`, or `*` for all.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Registries(pub BTreeMap<String, Registry>);

/// Whether a text names a registry: a host, with or without a port.
fn is_registry(text: &str) -> bool {
    let (host, port) = text.split_once(':').unwrap_or((text, "443"));
    text == "*" || (is_domain(host) && port.parse::<u16>().is_ok())
}

impl Decode for Registries {
    fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            cx.wrong_type(node, "a mapping of registries by name");
            return None;
        };
        let mut registries = BTreeMap::new();
        let mut sound = true;
        for entry in entries {
            if !is_registry(&entry.key) {
                cx.push(
                    Diagnostic::error(
                        "bad-value",
                        entry.key_mark,
                        format!("`{}` does not name a registry", shorten(&entry.key)),
                    )
                    .label("wants a host name")
                    .hint("a host name, with a port if it has one: `docker.io`, `registry.home.arpa:5000`; `*` is all"),
                );
                sound = false;
            }
            match Registry::decode(&entry.value, cx) {
                Some(registry) => drop(registries.insert(entry.key.clone(), registry)),
                None => sound = false,
            }
        }
        sound.then_some(Registries(registries))
    }

    fn schema(definitions: &mut Definitions) -> serde_json::Value {
        json!({ "type": "object", "additionalProperties": Registry::schema(definitions) })
    }
}

record! {
    /// A value that lies in the secrets file.
    pub struct SecretName {
        /// Its name there.
        "secret" name: Word,
    }
}
