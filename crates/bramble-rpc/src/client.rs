//! A way to a machine.

use crate::Credentials;
use crate::node::node_client::NodeClient;
use std::time::Duration;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

/// A Pi that pulls images answers late; one that is off never does.
const CONNECT: Duration = Duration::from_secs(10);

/// Why there is no way to a machine.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No address.
    #[error("{0:?} is no address")]
    Address(String),
    /// Certificate, key or authorities cannot be used.
    #[error("the certificate for the node API cannot be used")]
    Credentials(#[source] tonic::transport::Error),
    /// Nobody answers, or not with a certificate of the cluster's.
    #[error("{name} does not answer at {address}")]
    Unreachable {
        /// Name of the machine.
        name: String,
        /// `host:port`.
        address: String,
        /// Cause.
        source: tonic::transport::Error,
    },
}

/// Connects to the machine `name` at `address` (`host:port`); refuses every other that answers there.
pub async fn connect(
    name: &str,
    address: &str,
    credentials: &Credentials,
) -> Result<NodeClient<Channel>, ConnectError> {
    let tls = ClientTlsConfig::new()
        .domain_name(name)
        .ca_certificate(Certificate::from_pem(&credentials.authorities))
        .identity(Identity::from_pem(&credentials.certificate, &credentials.key));
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .map_err(|_| ConnectError::Address(address.to_string()))?
        .connect_timeout(CONNECT)
        .tls_config(tls)
        .map_err(ConnectError::Credentials)?;
    let channel = endpoint.connect().await.map_err(|source| ConnectError::Unreachable {
        name: name.to_string(),
        address: address.to_string(),
        source,
    })?;
    Ok(NodeClient::new(channel))
}
