//! Kubeconfigs with everything inside.

use super::authority::Pair;
use super::{Authorities, PkiError, Profile};
use base64::Engine;
use std::time::Duration;

/// A kubeconfig for a person: an administrator under `user`'s name, for `ttl` from `now` (seconds since the epoch).
///
/// Short-lived on purpose, because a client certificate cannot be taken back. `server` is a URL; the API server's
/// certificate is also good for `https://127.0.0.1:PORT`, so that a forwarded port works.
pub fn kubeconfig(
    authorities: &Authorities,
    cluster: &str,
    server: &str,
    user: &str,
    now: u64,
    ttl: Duration,
) -> Result<String, PkiError> {
    let profile = Profile { name: user, group: Some("system:masters"), client: true, ..Profile::default() };
    Ok(text(authorities, cluster, server, user, &authorities.client.pair(&profile, now, ttl)?))
}

pub(super) fn text(
    authorities: &Authorities,
    cluster: &str,
    server: &str,
    user: &str,
    pair: &Pair,
) -> String {
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    // Names may hold colons; JSON strings are YAML strings.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let context = quoted(&format!("{user}@{cluster}"));
    format!(
        "apiVersion: v1\nkind: Config\n\
         clusters:\n- name: {cluster}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
         users:\n- name: {user}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
         contexts:\n- name: {context}\n  context:\n    cluster: {cluster}\n    user: {user}\n\
         current-context: {context}\n",
        cluster = quoted(cluster),
        server = quoted(server),
        user = quoted(user),
        ca = base64(&authorities.serving.bundle()),
        certificate = base64(&pair.certificate),
        key = base64(&pair.key),
    )
}
