//! What a k3s cluster and its nodes are made to be before their first boot: authorities, the key of service accounts,
//! tokens, node passwords.
//!
//! k3s takes authorities that lie in its data directory when it first starts, and makes the others itself. Because they
//! are known beforehand, so is the hash in the token, and every machine checks the server it joins from its first
//! packet on.

use crate::pki::{Authorities, Authority, PkiError};
use base64::Engine;
use bramble_api::names::Role;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// What a cluster has beside its authorities. Generated once, kept in the secrets file. No `Debug`: it must not reach a
/// log.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Password of servers that join; k3s also encrypts its authorities in the datastore with it, so that a snapshot is
    /// worth nothing without it.
    pub server_password: String,
    /// Password of agents that join.
    pub agent_password: String,
    /// Signs both sides between members of etcd. The datastore's authority signs what clients of etcd see.
    pub etcd_peer: Authority,
}

/// Why there are no files.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A key is not of the kind that the cluster's authorities have.
    #[error("the key of {0:?} is no P-256 key in PKCS #8")]
    Key(&'static str),
}

/// Makes the authority between members of etcd. `now` is in seconds since the epoch.
pub fn etcd_peer(cluster: &str, now: u64) -> Result<Authority, PkiError> {
    Authority::generate(&format!("{cluster} datastore peer authority"), now)
}

/// The token that carries the hash of the cluster's authority: `K10<SHA-256>::<user>:<password>`.
///
/// `bundle` is the file `server-ca.crt` to the byte: k3s hashes it as it is, unless it holds a chain
/// (`hashCA` in `pkg/clientaccess/token.go`), which our self-signed authorities never are.
pub fn token(bundle: &str, user: &str, password: &str) -> String {
    format!("K10{}::{user}:{password}", hex::encode(Sha256::digest(bundle)))
}

/// Everything that a machine holds below /etc/rancher/k3s: `document.kubernetes.files`, by path.
///
/// A control plane holds the keys of all authorities: k3s signs with them at every start. A worker holds the agents'
/// token only, and nothing that could make it a server.
pub fn node_files(
    authorities: &Authorities,
    secrets: &Secrets,
    role: Role,
    node_password: &str,
) -> Result<BTreeMap<String, String>, IdentityError> {
    let mut files = BTreeMap::new();
    let mut put = |path: &str, text: String| drop(files.insert(path.to_string(), text));
    let bundle = authorities.serving.bundle();
    match role {
        Role::Management => return Ok(files),
        Role::Worker => put("token", token(&bundle, "node", &secrets.agent_password) + "\n"),
        Role::ControlPlane => {
            put("token", token(&bundle, "server", &secrets.server_password) + "\n");
            put("agent-token", format!("{}\n", secrets.agent_password));
            let signing = [
                ("client-ca", &authorities.client),
                ("server-ca", &authorities.serving),
                ("request-header-ca", &authorities.front_proxy),
                ("etcd/server-ca", &authorities.datastore),
                ("etcd/peer-ca", &secrets.etcd_peer),
            ];
            for (name, authority) in signing {
                put(&format!("tls/{name}.crt"), authority.bundle());
                put(&format!("tls/{name}.key"), sec1(&authority.key).ok_or(IdentityError::Key(name))?);
            }
            let key = sec1(&authorities.service_account.key);
            put("tls/service.key", key.ok_or(IdentityError::Key("service accounts"))?);
        }
    }
    put("node-password", format!("{node_password}\n"));
    Ok(files)
}

/// PKCS #8 around a P-256 key with its public point, as `rcgen` writes it (RFC 5208, RFC 5915): up to the key, and from
/// there to the point.
const PKCS8: [&[u8]; 2] = [
    &[
        0x30, 0x81, 0x87, 0x02, 0x01, 0x00, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01,
        0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x04, 0x6d, 0x30, 0x6b, 0x02, 0x01, 0x01,
        0x04, 0x20,
    ],
    &[0xa1, 0x44, 0x03, 0x42, 0x00],
];
/// `ECPrivateKey` with its curve (RFC 5915): up to the key, and from there to the point.
const SEC1: [&[u8]; 2] = [
    &[0x30, 0x77, 0x02, 0x01, 0x01, 0x04, 0x20],
    &[0xa0, 0x0a, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0xa1, 0x44, 0x03, 0x42, 0x00],
];

/// The key as `EC PRIVATE KEY`. The API server reads the public half of the service accounts' key from the private one,
/// and then takes no other form (`ParsePublicKeysPEM` in `k8s.io/client-go/util/keyutil`).
fn sec1(pkcs8: &str) -> Option<String> {
    let base64 = base64::engine::general_purpose::STANDARD;
    let body: String = pkcs8.lines().filter(|line| !line.starts_with("-----")).collect();
    let der = base64.decode(body).ok()?;
    let (key, rest) = der.strip_prefix(PKCS8[0])?.split_at_checked(32)?;
    let point = rest.strip_prefix(PKCS8[1]).filter(|point| point.len() == 65)?;
    let text = base64.encode([SEC1[0], key, SEC1[1], point].concat());
    let mut pem = String::from("-----BEGIN EC PRIVATE KEY-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.push_str(std::str::from_utf8(line).ok()?);
        pem.push('\n');
    }
    Some(pem + "-----END EC PRIVATE KEY-----\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::k3s::AUTHORITIES;
    use std::error::Error;

    fn made(role: Role) -> Result<(Authorities, BTreeMap<String, String>), Box<dyn Error>> {
        let authorities = Authorities::generate("home", 1_800_000_000)?;
        let secrets = Secrets {
            server_password: "s3".repeat(16),
            agent_password: "a9".repeat(16),
            etcd_peer: etcd_peer("home", 1_800_000_000)?,
        };
        let files = node_files(&authorities, &secrets, role, "word")?;
        Ok((authorities, files))
    }

    #[test]
    fn a_server_holds_what_k3s_would_make_and_an_agent_only_its_token() -> Result<(), Box<dyn Error>> {
        let (authorities, server) = made(Role::ControlPlane)?;
        for name in AUTHORITIES {
            assert!(server[&format!("tls/{name}.crt")].contains("BEGIN CERTIFICATE"), "{name}");
            assert!(server[&format!("tls/{name}.key")].contains("BEGIN EC PRIVATE KEY"), "{name}");
        }
        assert_eq!(server.len(), 2 * AUTHORITIES.len() + 4, "{:?}", server.keys());
        let hash = hex::encode(Sha256::digest(&server["tls/server-ca.crt"]));
        assert_eq!(server["token"], format!("K10{hash}::server:{}\n", "s3".repeat(16)));
        assert_eq!(server["tls/server-ca.crt"], authorities.serving.bundle());
        let (_, agent) = made(Role::Worker)?;
        assert_eq!(agent.keys().collect::<Vec<_>>(), ["node-password", "token"]);
        assert!(agent["token"].contains("::node:a9a9") && !agent["token"].contains("s3s3"));
        assert!(made(Role::Management)?.1.is_empty());
        Ok(())
    }

    /// openssl reads what we wrote, and finds the public key that belongs to it.
    #[test]
    #[expect(clippy::print_stderr, reason = "a skipped test says so")]
    fn another_reader_takes_the_key() -> Result<(), Box<dyn Error>> {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?;
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("key.pem");
        std::fs::write(&path, sec1(&key.serialize_pem()).ok_or("not converted")?)?;
        let out = std::process::Command::new("openssl")
            .args(["ec", "-pubout", "-check", "-in"])
            .arg(&path)
            .output();
        let out = match out {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: openssl is not installed");
                return Ok(());
            }
            other => other?,
        };
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let same = |text: &str| text.lines().map(str::trim).collect::<String>();
        assert_eq!(same(&String::from_utf8(out.stdout)?), same(&key.public_key_pem()));
        Ok(())
    }

    #[test]
    fn other_keys_are_refused() -> Result<(), Box<dyn Error>> {
        let other = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
        for text in
            ["", "-----BEGIN PRIVATE KEY-----\n????\n-----END PRIVATE KEY-----\n", &other.serialize_pem()]
        {
            assert_eq!(sec1(text), None);
        }
        Ok(())
    }
}
