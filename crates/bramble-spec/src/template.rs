//! The file that `bramble init` writes.

use crate::edit::NewNode;
use crate::scalar::{Name, Timezone, Version};
use crate::types::{Datastore, Distribution};
use ipnet::Ipv4Net;
use std::net::Ipv4Addr;

/// What `bramble init` has asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitOptions {
    /// Name of the cluster.
    pub name: Name,
    /// Who puts Kubernetes together.
    pub distribution: Distribution,
    /// Release to run.
    pub version: Version,
    /// Where the API keeps its state.
    pub datastore: Datastore,
    /// The range that all machines live in.
    pub subnet: Ipv4Net,
    /// The way out.
    pub gateway: Option<Ipv4Addr>,
    /// Name servers.
    pub dns: Vec<Ipv4Addr>,
    /// Time zone.
    pub timezone: Timezone,
    /// Lines of `authorized_keys`; no sshd when empty.
    pub authorized_keys: Vec<String>,
    /// The machines.
    pub nodes: Vec<NewNode>,
}

/// The text of a first `bramble.yaml`, with comments. [`crate::parse`] accepts it when the values fit each other.
pub fn template(options: &InitOptions) -> String {
    let _ = options;
    String::new()
}
