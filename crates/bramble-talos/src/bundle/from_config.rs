//! A bundle out of a control plane's machine config, as Talos' `gen secrets --from-controlplane-config` does it.

use super::{Bundle, BundleError};
use crate::yaml::Value;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bramble_secrets::Secret;

/// What stands in the document of 1.13 and in the documents that took its place: bundle, old place, kind, new place.
/// PEM stands as base64 in the old ones and as it is in the new ones.
type Place = (&'static [&'static str], &'static [&'static str], &'static str, &'static [&'static str]);

const PLACES: &[Place] = &[
    (&["cluster", "id"], &["cluster", "id"], "DiscoveryIdentityConfig", &["clusterID"]),
    (&["cluster", "secret"], &["cluster", "secret"], "DiscoveryIdentityConfig", &["clusterSecret"]),
    (&["secrets", "bootstraptoken"], &["cluster", "token"], "", &[]),
    (&["secrets", "secretboxencryptionsecret"], &["cluster", "secretboxEncryptionSecret"], "", &[]),
    (&["secrets", "aescbcencryptionsecret"], &["cluster", "aescbcEncryptionSecret"], "", &[]),
    (&["trustdinfo", "token"], &["machine", "token"], "", &[]),
    (&["certs", "etcd", "crt"], &["cluster", "etcd", "ca", "crt"], "", &[]),
    (&["certs", "etcd", "key"], &["cluster", "etcd", "ca", "key"], "", &[]),
    (&["certs", "k8s", "crt"], &["cluster", "ca", "crt"], "KubeAPIServerCAConfig", &["issuingCA", "cert"]),
    (&["certs", "k8s", "key"], &["cluster", "ca", "key"], "KubeAPIServerCAConfig", &["issuingCA", "key"]),
    (
        &["certs", "k8saggregator", "crt"],
        &["cluster", "aggregatorCA", "crt"],
        "KubeAggregatorCAConfig",
        &["issuingCA", "cert"],
    ),
    (
        &["certs", "k8saggregator", "key"],
        &["cluster", "aggregatorCA", "key"],
        "KubeAggregatorCAConfig",
        &["issuingCA", "key"],
    ),
    (
        &["certs", "k8sserviceaccount", "key"],
        &["cluster", "serviceAccount", "key"],
        "KubeServiceAccountConfig",
        &["issuer", "privateKey"],
    ),
    (&["certs", "os", "crt"], &["machine", "ca", "crt"], "", &[]),
    (&["certs", "os", "key"], &["machine", "ca", "key"], "", &[]),
];

impl Bundle {
    /// Takes the bundle out of a control plane's config, given as its documents.
    ///
    /// # Errors
    /// A worker's config, or one that lacks something.
    pub(crate) fn from_config(documents: &[Value]) -> Result<Bundle, BundleError> {
        let main = documents.iter().find(|d| d.at(&["machine"]).is_some());
        let Some(main) = main else { return Err(BundleError::Kind("it has no `machine`")) };
        if main.text_at(&["machine", "type"]) == Some("worker") {
            return Err(BundleError::Kind("it is a worker's config, which has no keys of authorities"));
        }
        let kind = |kind: &str| documents.iter().find(|d| d.text_at(&["kind"]) == Some(kind));
        Bundle::from_texts(&|wanted| {
            let (_, old, new_kind, new) = PLACES.iter().find(|(place, ..)| *place == wanted)?;
            if let Some(text) = main.text_at(old).filter(|text| !text.is_empty()) {
                return Some(Secret::new(text.to_string()));
            }
            if wanted == ["secrets", "secretboxencryptionsecret"] {
                return secretbox(kind("KubeEtcdEncryptionConfig")?)
                    .map(|text| Secret::new(text.to_string()));
            }
            let text = kind(new_kind)?.text_at(new)?;
            Some(Secret::new(match wanted {
                ["certs", ..] => STANDARD.encode(text),
                _ => text.to_string(),
            }))
        })
    }
}

/// The key that encrypts Secrets: the first provider's, of the first rule about them.
fn secretbox(document: &Value) -> Option<&str> {
    let rules = document.at(&["config", "resources"])?.as_list()?;
    let about_secrets = |rule: &&Value| {
        let resources = rule.at(&["resources"]).and_then(Value::as_list).unwrap_or_default();
        resources.iter().any(|r| r.as_str() == Some("secrets"))
    };
    let provider = rules.iter().find(about_secrets)?.at(&["providers"])?.as_list()?.first()?;
    provider.at(&["secretbox", "keys"])?.as_list()?.first()?.text_at(&["secret"])
}
