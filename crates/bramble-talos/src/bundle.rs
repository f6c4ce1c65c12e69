//! The secrets bundle of a Talos cluster: everything that must survive for its machines to stay one cluster.
//!
//! In the format of `talosctl gen secrets` (`config/generate/secrets` of Talos' machinery), so that people can come
//! and go. In the secrets file it is the subtree `talos`, key by key the same.

mod from_config;

use crate::pki::{self, Pair, PkiError};
use crate::versions::Release;
use crate::yaml::{self, Map, ReadError, Value};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bramble_secrets::{NoRandomness, Secret, SecretText, random_bytes};

/// Key of the subtree in the secrets file.
pub const SUBTREE: &str = "talos";

/// What stands in the place of a value that is not shown.
pub const HIDDEN: &str = "(hidden)";

/// Everything of a cluster that signs, admits or encrypts. `Debug` shows no secret.
#[derive(Clone, Debug)]
pub struct Bundle {
    /// What machines of one cluster know each other by at the discovery service; base64.
    pub cluster_id: String,
    /// Encrypts what they tell it; base64.
    pub cluster_secret: SecretText,
    /// With it a kubelet asks for its first certificate.
    pub bootstrap_token: SecretText,
    /// Encrypts Secrets in etcd; base64.
    pub secretbox: Option<SecretText>,
    /// The same in clusters begun before Talos 1.3.
    pub aescbc: Option<SecretText>,
    /// With it a machine asks for its certificate of the machine API.
    pub machine_token: SecretText,
    /// Authority of etcd.
    pub etcd: Pair,
    /// Authority of Kubernetes.
    pub kubernetes: Pair,
    /// Authority of Kubernetes' aggregation layer.
    pub aggregator: Pair,
    /// Signs tokens of service accounts; PEM.
    pub service_account: SecretText,
    /// Authority of the machine API.
    pub machine: Pair,
}

/// A bundle cannot be used. Names places, never values.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The text is not YAML.
    #[error("it is not YAML")]
    Yaml(#[source] ReadError),
    /// It is something else.
    #[error("it is no secrets bundle: {0}")]
    Kind(&'static str),
    /// Something is missing.
    #[error("it has no `{0}`")]
    Missing(String),
    /// A value has the wrong form.
    #[error("`{place}` {what}")]
    Form {
        /// Keys to the value, joined with dots.
        place: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// An authority that cannot sign.
    #[error("`certs.{name}` cannot be used")]
    Authority {
        /// Its key in the bundle.
        name: &'static str,
        /// Why.
        source: PkiError,
    },
}

/// Where each value stands, in the order in which Talos writes them.
const PLACES: [&[&str]; 15] = [
    &["cluster", "id"],
    &["cluster", "secret"],
    &["secrets", "bootstraptoken"],
    &["secrets", "secretboxencryptionsecret"],
    &["secrets", "aescbcencryptionsecret"],
    &["trustdinfo", "token"],
    &["certs", "etcd", "crt"],
    &["certs", "etcd", "key"],
    &["certs", "k8s", "crt"],
    &["certs", "k8s", "key"],
    &["certs", "k8saggregator", "crt"],
    &["certs", "k8saggregator", "key"],
    &["certs", "k8sserviceaccount", "key"],
    &["certs", "os", "crt"],
    &["certs", "os", "key"],
];

/// 32 random bytes.
fn random_base64() -> Result<SecretText, NoRandomness> {
    Ok(Secret::new(STANDARD.encode(random_bytes::<32>()?.expose())))
}

/// `[0-9a-z]{6}.[0-9a-z]{16}`.
fn token() -> Result<SecretText, NoRandomness> {
    const LETTERS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut text = String::with_capacity(23);
    while text.len() < 23 {
        let bytes = random_bytes::<32>()?;
        // Bytes from 252 on are left out, so that each letter is as likely as another.
        for byte in bytes.expose().iter().filter(|b| **b < 252) {
            if text.len() == 6 {
                text.push('.');
            }
            if text.len() < 23 {
                text.push(char::from(LETTERS[usize::from(byte % 36)]));
            }
        }
    }
    Ok(Secret::new(text))
}

impl Bundle {
    /// Makes all keys of a new cluster. `now` in seconds since the epoch. Takes seconds, for one RSA key.
    ///
    /// # Errors
    /// No random numbers.
    pub fn generate(release: Release, now: u64) -> Result<Bundle, PkiError> {
        let id = random_bytes::<32>()?;
        Ok(Bundle {
            cluster_id: match release {
                Release::V1_13 => URL_SAFE.encode(id.expose()),
                Release::V1_14 => STANDARD.encode(id.expose()),
            },
            cluster_secret: random_base64()?,
            bootstrap_token: token()?,
            secretbox: Some(random_base64()?),
            aescbc: None,
            machine_token: token()?,
            etcd: pki::cluster_authority(Some("etcd"), now)?,
            kubernetes: pki::cluster_authority(Some("kubernetes"), now)?,
            aggregator: pki::cluster_authority(None, now)?,
            service_account: pki::service_account_key()?,
            machine: pki::machine_authority(now)?,
        })
    }

    /// A bundle that holds nothing: what stands where a value would. For showing a config without the secrets of it.
    pub fn hidden() -> Bundle {
        let hidden = || Secret::new(HIDDEN.to_string());
        let pair = || Pair { certificate: HIDDEN.into(), key: hidden() };
        Bundle {
            cluster_id: HIDDEN.into(),
            cluster_secret: hidden(),
            bootstrap_token: hidden(),
            secretbox: Some(hidden()),
            aescbc: None,
            machine_token: hidden(),
            etcd: pair(),
            kubernetes: pair(),
            aggregator: pair(),
            service_account: hidden(),
            machine: pair(),
        }
    }

    /// Reads a bundle in clear, as `talosctl gen secrets` writes it, or takes it out of a control plane's config.
    ///
    /// # Errors
    /// Text that is neither, is encrypted, is incomplete, or whose keys do not belong together.
    pub fn read(text: &str) -> Result<Bundle, BundleError> {
        let documents = yaml::read(text).map_err(BundleError::Yaml)?;
        let Some(first) = documents.first() else { return Err(BundleError::Kind("it is empty")) };
        if first.at(&["sops"]).is_some() {
            return Err(BundleError::Kind("it is encrypted with SOPS"));
        }
        if documents.iter().any(|d| d.at(&["machine"]).is_some()) {
            return Bundle::from_config(&documents);
        }
        if first.at(&["certs"]).is_none() {
            return Err(BundleError::Kind("it has neither `certs` nor `machine`"));
        }
        Bundle::from_texts(&|place| first.text_at(place).map(|text| Secret::new(text.to_string())))
    }

    /// A bundle from its values by their places, wherever those come from.
    ///
    /// # Errors
    /// A missing value, one of the wrong form, or keys that do not belong together.
    pub fn from_texts(get: &dyn Fn(&[&str]) -> Option<SecretText>) -> Result<Bundle, BundleError> {
        let optional = |place: &[&str]| get(place).filter(|text| !text.expose().is_empty());
        let wanted = |place: &[&str]| optional(place).ok_or_else(|| BundleError::Missing(place.join(".")));
        let pem = |place: &[&str]| {
            let form = || BundleError::Form { place: place.join("."), what: "is not PEM in base64" };
            // Line breaks within base64 are taken, as Talos takes them.
            let packed = Secret::new(wanted(place)?.expose().replace(['\n', '\r', ' '], ""));
            let bytes = Secret::new(STANDARD.decode(packed.expose()).map_err(|_| form())?);
            String::from_utf8(bytes.expose().clone()).map(Secret::new).map_err(|_| form())
        };
        let pair = |name: &str| {
            let certificate = pem(&["certs", name, "crt"])?.expose().clone();
            Ok(Pair { certificate, key: pem(&["certs", name, "key"])? })
        };
        let bundle = Bundle {
            cluster_id: wanted(&["cluster", "id"])?.expose().clone(),
            cluster_secret: wanted(&["cluster", "secret"])?,
            bootstrap_token: wanted(&["secrets", "bootstraptoken"])?,
            secretbox: optional(&["secrets", "secretboxencryptionsecret"]),
            aescbc: optional(&["secrets", "aescbcencryptionsecret"]),
            machine_token: wanted(&["trustdinfo", "token"])?,
            etcd: pair("etcd")?,
            kubernetes: pair("k8s")?,
            aggregator: pair("k8saggregator")?,
            service_account: pem(&["certs", "k8sserviceaccount", "key"])?,
            machine: pair("os")?,
        };
        bundle.check()?;
        Ok(bundle)
    }

    /// Whether everything has its form and every key its certificate.
    fn check(&self) -> Result<(), BundleError> {
        let form = |place: &str, what| Err(BundleError::Form { place: place.into(), what });
        for (place, token) in
            [("secrets.bootstraptoken", &self.bootstrap_token), ("trustdinfo.token", &self.machine_token)]
        {
            let (id, secret) = token.expose().split_once('.').unwrap_or_default();
            let letters = |part: &str| part.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
            if id.len() != 6 || secret.len() != 16 || !letters(id) || !letters(secret) {
                return form(place, "is not six and sixteen letters or digits with a dot between");
            }
        }
        let long = |text: &str| {
            let bytes = STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).map(Secret::new);
            bytes.is_ok_and(|bytes| bytes.expose().len() == 32)
        };
        if !long(&self.cluster_id) || !long(self.cluster_secret.expose()) {
            return form("cluster", "wants 32 bytes of base64 as `id` and as `secret`");
        }
        if self.secretbox.is_none() && self.aescbc.is_none() {
            return Err(BundleError::Missing("secrets.secretboxencryptionsecret".into()));
        }
        for (name, pair, ed25519) in [
            ("etcd", &self.etcd, false),
            ("k8s", &self.kubernetes, false),
            ("k8saggregator", &self.aggregator, false),
            ("os", &self.machine, true),
        ] {
            pki::check_authority(pair, ed25519).map_err(|source| BundleError::Authority { name, source })?;
        }
        let private = self.service_account.expose();
        if !private.contains("-----BEGIN ") || !private.contains("PRIVATE KEY-----") {
            return form("certs.k8sserviceaccount.key", "is not a private key");
        }
        Ok(())
    }

    /// Every value with its place, in the order in which Talos writes them.
    pub fn texts(&self) -> Vec<(&'static [&'static str], SecretText)> {
        let pem = |text: &str| Secret::new(STANDARD.encode(text));
        let values = [
            Some(Secret::new(self.cluster_id.clone())),
            Some(self.cluster_secret.clone()),
            Some(self.bootstrap_token.clone()),
            self.secretbox.clone(),
            self.aescbc.clone(),
            Some(self.machine_token.clone()),
            Some(pem(&self.etcd.certificate)),
            Some(pem(self.etcd.key.expose())),
            Some(pem(&self.kubernetes.certificate)),
            Some(pem(self.kubernetes.key.expose())),
            Some(pem(&self.aggregator.certificate)),
            Some(pem(self.aggregator.key.expose())),
            Some(pem(self.service_account.expose())),
            Some(pem(&self.machine.certificate)),
            Some(pem(self.machine.key.expose())),
        ];
        PLACES.into_iter().zip(values).filter_map(|(place, value)| Some((place, value?))).collect()
    }

    /// The bundle in clear, as `talosctl gen secrets` writes it.
    pub fn write(&self) -> SecretText {
        let mut top = Map::new();
        for (place, text) in self.texts() {
            put(&mut top, place, text.expose());
        }
        Secret::new(yaml::write([&top]))
    }
}

fn put(map: &mut Map, place: &[&'static str], text: &str) {
    match place {
        [] => {}
        [key] => map.set(*key, text.to_string()),
        [key, rest @ ..] => {
            if map.get(key).is_none() {
                map.set(*key, Map::new());
            }
            if let Some(Value::Map(inner)) = map.get_mut(key) {
                put(inner, rest, text);
            }
        }
    }
}

#[cfg(test)]
mod tests;
