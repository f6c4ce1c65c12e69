//! The file with which `talosctl`, or this tool, speaks to the machine API.

use crate::bundle::Bundle;
use crate::pki::{self, PkiError};
use crate::yaml::{self, Map};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bramble_secrets::{Secret, SecretText};
use std::time::Duration;

/// A talosconfig with one context, its certificate good for `life` from `now` (seconds since the epoch). Endpoints
/// are addresses of control planes, never a shared one: that is there only while etcd is.
///
/// # Errors
/// An authority that cannot sign, or ends before.
pub fn talosconfig(
    bundle: &Bundle,
    context: &str,
    endpoints: &[String],
    nodes: &[String],
    roles: &[&str],
    now: u64,
    life: Duration,
) -> Result<SecretText, PkiError> {
    let client = pki::client_certificate(&bundle.machine, roles, now, life)?;
    let mut inner = Map::new().with("endpoints", endpoints.iter().cloned().collect::<yaml::Value>());
    if !nodes.is_empty() {
        inner.set("nodes", nodes.iter().cloned().collect::<yaml::Value>());
    }
    let inner = inner
        .with("ca", STANDARD.encode(&bundle.machine.certificate))
        .with("crt", STANDARD.encode(&client.certificate))
        .with("key", STANDARD.encode(client.key.expose()));
    let top = Map::new()
        .with("context", context.to_string())
        .with("contexts", Map::new().with(context.to_string(), inner));
    Ok(Secret::new(yaml::write([&top])))
}
