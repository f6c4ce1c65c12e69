//! `registries.yaml`: where k3s' containerd gets images from (`k3s-io/k3s`, `pkg/agent/containerd`; the format is
//! `rancher/wharfie`'s `registries.Registry`).

use super::ETC;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// One registry. May hold a password, so it has no `Debug`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Registry {
    /// Its name: `docker.io`, `registry.home.arpa:5000`, `*` for all.
    pub name: String,
    /// Asked in this order before the registry itself.
    pub mirrors: Vec<String>,
    /// Name and password to log in with.
    pub login: Option<(String, String)>,
    /// Its authority, PEM.
    pub authority: Option<String>,
}

/// The files below /etc/rancher/k3s, by path; none when there is nothing to say.
///
/// With the embedded registry, nodes share the images of the registries named here, and of all when none is named.
pub fn files(registries: &[Registry], embedded: bool) -> BTreeMap<String, String> {
    let mut files = BTreeMap::new();
    let (mut mirrors, mut configs) = (Map::new(), Map::new());
    if embedded && registries.is_empty() {
        mirrors.insert("*".into(), json!({}));
    }
    for (index, registry) in registries.iter().enumerate() {
        if !registry.mirrors.is_empty() {
            mirrors.insert(registry.name.clone(), json!({"endpoint": registry.mirrors}));
        } else if embedded {
            mirrors.insert(registry.name.clone(), json!({}));
        }
        let mut config = Map::new();
        if let Some((username, password)) = &registry.login {
            config.insert("auth".into(), json!({"username": username, "password": password}));
        }
        if let Some(authority) = &registry.authority {
            let path = format!("registry-ca/{index}.crt");
            config.insert("tls".into(), json!({"ca_file": format!("{ETC}/{path}")}));
            files.insert(path, authority.clone());
        }
        if !config.is_empty() {
            configs.insert(registry.name.clone(), Value::Object(config));
        }
    }
    if !mirrors.is_empty() || !configs.is_empty() {
        let text = format!("{:#}\n", json!({"mirrors": mirrors, "configs": configs}));
        files.insert("registries.yaml".into(), text);
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_logins_and_authorities_stand_where_k3s_looks() {
        let home = Registry {
            name: "registry.home.arpa:5000".into(),
            mirrors: vec![],
            login: Some(("me".into(), "word".into())),
            authority: Some("PEM\n".into()),
        };
        let hub = Registry {
            name: "docker.io".into(),
            mirrors: vec!["https://registry.home.arpa:5000".into()],
            ..Registry::default()
        };
        let files = files(&[hub, home], false);
        let read: Value = serde_json::from_str(&files["registries.yaml"]).unwrap_or_default();
        assert_eq!(
            read,
            json!({
                "mirrors": {"docker.io": {"endpoint": ["https://registry.home.arpa:5000"]}},
                "configs": {"registry.home.arpa:5000": {
                    "auth": {"username": "me", "password": "word"},
                    "tls": {"ca_file": "/etc/rancher/k3s/registry-ca/1.crt"},
                }},
            })
        );
        assert_eq!(files["registry-ca/1.crt"], "PEM\n");
    }

    #[test]
    fn the_embedded_registry_shares_what_is_named_or_everything() {
        assert!(files(&[], false).is_empty());
        assert!(files(&[], true)["registries.yaml"].contains("\"*\""));
        let named = files(&[Registry { name: "ghcr.io".into(), ..Registry::default() }], true);
        assert!(named["registries.yaml"].contains("ghcr.io") && !named["registries.yaml"].contains('*'));
    }
}
