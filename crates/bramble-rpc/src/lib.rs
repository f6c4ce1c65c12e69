//! The API of a Bramble OS machine: messages, a client and a server, over mutual TLS.
//!
//! Both sides show certificates of the cluster's node API authority; a machine shows its name, whoever asks shows
//! that the authority took them for a client. What is in the messages is said in `bramble-api`'s `node.proto`;
//! the code from it is made by `cargo xtask generate`.

/// Messages and stubs, made from `node.proto`.
#[allow(missing_docs, clippy::all, reason = "generated")]
#[rustfmt::skip]
pub mod node {
    include!("generated/node.rs");
}

#[cfg(feature = "client")]
mod client;
#[cfg(feature = "server")]
mod server;

#[cfg(feature = "client")]
pub use client::{ConnectError, connect};
#[cfg(feature = "server")]
pub use server::{ServeError, serve};

/// TCP port of a machine's API.
pub const PORT: u16 = 7017;

/// What one side shows and whom it believes, PEM.
#[derive(Clone)]
pub struct Credentials {
    /// Certificate of the node API authority's.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// The authorities whose other side is believed.
    pub authorities: String,
}

#[cfg(all(test, feature = "client", feature = "server"))]
mod tests;
