//! Certificates, keys and kubeconfigs of a cluster.
//!
//! Five authorities, so that none can speak for another: one for clients of the API (kubelets among them), one for what
//! servers show, one for the datastore, one for the API's own proxying, one for the node API. Of their keys only the
//! client authority's is ever on a machine (a control plane renews kubelet certificates with it); the others stay in
//! the secrets file. Every trust anchor is a list of certificates, so that an authority can be followed by another
//! while both are trusted.
//!
//! All keys are ECDSA P-256: small, fast on a Pi, and what every part of Kubernetes takes.

mod authority;
mod kubeconfig;
mod node;

#[cfg(test)]
mod tests;

pub use authority::{Authority, Profile};
pub use kubeconfig::kubeconfig;
pub use node::{NodeRequest, issue_node};

use base64::Engine;
use serde::{Deserialize, Serialize};
use std::time::Duration;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// A clock without a battery starts in the past; certificates are valid from this much before they are made.
const BACKDATE: Duration = Duration::from_secs(60 * 60);

/// How long what is issued stays valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The kubelet's first client certificate. Renewed by the kubelet itself, so it may be short.
    pub kubelet_client: Duration,
    /// All else. Renewed only by a new machine document.
    pub leaf: Duration,
}

impl Default for Validity {
    fn default() -> Self {
        Validity { kubelet_client: 365 * DAY, leaf: 3650 * DAY }
    }
}

/// Life of an authority.
pub const AUTHORITY_LIFE: Duration = Duration::from_secs(3650 * 24 * 60 * 60);

/// Everything of a cluster that signs or encrypts. Generated once, kept in the secrets file.
///
/// Strings are PEM but where said otherwise. No `Debug`: it must not reach a log.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authorities {
    /// Signs clients of the API: kubelets, controllers, people.
    pub client: Authority,
    /// Signs what servers show: the API server, kubelets.
    pub serving: Authority,
    /// Signs both sides of the datastore.
    pub datastore: Authority,
    /// Signs the API server towards aggregated APIs.
    pub front_proxy: Authority,
    /// Signs both sides of the node API.
    pub node_api: Authority,
    /// Signs the tokens of service accounts.
    pub service_account: ServiceAccountKey,
    /// Encrypts Secrets in the datastore: the first is used for writing, all for reading.
    pub encryption: Vec<EncryptionKey>,
}

/// The key that signs the tokens of service accounts.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ServiceAccountKey {
    /// PKCS #8.
    pub key: String,
    /// Public keys whose tokens are accepted, the active one's first.
    pub public: Vec<String>,
}

/// A key for Secrets in the datastore.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EncryptionKey {
    /// Name written in front of each value it encrypted: never reused.
    pub name: String,
    /// 32 random bytes, base64.
    pub secret: String,
}

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The system has no random numbers to give.
    #[error("no random numbers from the system")]
    Random(#[source] getrandom::Error),
    /// A key could not be made.
    #[error("making a key for {subject:?}")]
    Key {
        /// Common name.
        subject: String,
        /// Cause.
        source: rcgen::Error,
    },
    /// The stored certificate or key of an authority cannot be read.
    #[error("reading the authority that is to sign {subject:?}")]
    Authority {
        /// Common name of what was to be signed.
        subject: String,
        /// Cause.
        source: rcgen::Error,
    },
    /// A name or address cannot stand in a certificate.
    #[error("the name {name:?} cannot stand in a certificate")]
    Name {
        /// The name.
        name: String,
        /// Cause.
        source: rcgen::Error,
    },
    /// Signing failed.
    #[error("signing the certificate of {subject:?}")]
    Sign {
        /// Common name.
        subject: String,
        /// Cause.
        source: rcgen::Error,
    },
}

impl Authorities {
    /// Makes all keys of a new cluster. `cluster` is its name, `now` seconds since the epoch.
    pub fn generate(cluster: &str, now: u64) -> Result<Self, PkiError> {
        let authority = |what: &str| Authority::generate(&format!("{cluster} {what} authority"), now);
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(PkiError::Random)?;
        Ok(Authorities {
            client: authority("client")?,
            serving: authority("serving")?,
            datastore: authority("datastore")?,
            front_proxy: authority("front-proxy")?,
            node_api: authority("node-api")?,
            service_account: {
                let key = authority::new_key("service accounts")?;
                ServiceAccountKey { key: key.serialize_pem(), public: vec![key.public_key_pem()] }
            },
            encryption: vec![EncryptionKey {
                name: format!("key{now}"),
                secret: base64::engine::general_purpose::STANDARD.encode(secret),
            }],
        })
    }
}
