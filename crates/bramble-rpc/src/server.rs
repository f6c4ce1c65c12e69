//! The machine's side.

use crate::Credentials;
use crate::node::node_server::{Node, NodeServer};
use std::net::SocketAddr;
use std::time::Duration;
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};

/// A side that went away without a word is forgotten after so long.
const KEEPALIVE: Duration = Duration::from_secs(60);
/// Who does not finish the handshake in so long holds no socket.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// Requests at once on one connection: a person and a controller, not a crowd.
const STREAMS: u32 = 16;

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// Certificate, key or authorities cannot be used.
    #[error("the certificate for the node API cannot be used")]
    Credentials(#[source] tonic::transport::Error),
    /// The address is taken or not the machine's.
    #[error("serving the node API at {address}")]
    Serve {
        /// Where.
        address: SocketAddr,
        /// Cause.
        source: tonic::transport::Error,
    },
}

/// Serves `node` at `address` to everybody whom the authorities took for a client. Comes back only with an error.
pub async fn serve(
    node: impl Node,
    address: SocketAddr,
    credentials: &Credentials,
) -> Result<(), ServeError> {
    let tls = ServerTlsConfig::new()
        .identity(Identity::from_pem(&credentials.certificate, &credentials.key))
        .client_ca_root(Certificate::from_pem(&credentials.authorities))
        .client_auth_optional(false)
        .timeout(HANDSHAKE);
    Server::builder()
        .tls_config(tls)
        .map_err(ServeError::Credentials)?
        .http2_keepalive_interval(Some(KEEPALIVE))
        .max_concurrent_streams(STREAMS)
        .add_service(NodeServer::new(node))
        .serve(address)
        .await
        .map_err(|source| ServeError::Serve { address, source })
}
