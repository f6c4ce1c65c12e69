//! Reads the kubeconfig that the machine's own document carries.
//!
//! A line scan, not YAML: the file is written by `bramble-kube` in one shape, and a YAML reader would be a tenth of
//! the agent. Keys that stand more than once do not occur there, as it has one cluster and one user.

use base64::Engine;

/// How to reach the API, and as whom.
#[derive(Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// Host of the API server.
    pub host: String,
    /// Port of the API server.
    pub port: u16,
    /// Authorities for its certificate, PEM.
    pub authorities: Vec<u8>,
    /// Client certificate and key, PEM.
    pub client: Vec<u8>,
}

/// What is missing or odd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the kubeconfig has no usable {0}")]
pub struct Unusable(pub &'static str);

/// Reads a kubeconfig with everything inside.
pub fn parse(text: &str) -> Result<Kubeconfig, Unusable> {
    let value = |key: &'static str| {
        text.lines()
            .find_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'))
            .map(|value| value.trim().trim_matches('"'))
            .ok_or(Unusable(key))
    };
    let decoded = |key: &'static str| {
        base64::engine::general_purpose::STANDARD.decode(value(key)?).map_err(|_| Unusable(key))
    };
    let server = value("server")?.strip_prefix("https://").ok_or(Unusable("server"))?.trim_end_matches('/');
    let (host, port) = server.rsplit_once(':').ok_or(Unusable("server"))?;
    let mut client = decoded("client-certificate-data")?;
    client.push(b'\n');
    client.extend(decoded("client-key-data")?);
    Ok(Kubeconfig {
        host: host.to_string(),
        port: port.parse().map_err(|_| Unusable("server"))?,
        authorities: decoded("certificate-authority-data")?,
        client,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "apiVersion: v1\nclusters:\n- name: \"home\"\n  cluster:\n    server: \"https://192.168.1.10:6443\"\n    \
        certificate-authority-data: Q0E=\nusers:\n- name: \"u\"\n  user:\n    client-certificate-data: Q1JU\n    client-key-data: S0VZ\n";

    #[test]
    fn our_own_kubeconfigs_are_read() {
        let Ok(found) = parse(TEXT) else { panic!("unreadable") };
        assert_eq!((found.host.as_str(), found.port), ("192.168.1.10", 6443));
        assert_eq!((found.authorities, found.client), (b"CA".to_vec(), b"CRT\nKEY".to_vec()));
    }

    #[test]
    fn what_is_missing_is_named() {
        let without = |from: &str, to: &str| parse(&TEXT.replace(from, to)).err();
        assert_eq!(without("client-key-data", "client-key"), Some(Unusable("client-key-data")));
        assert_eq!(without("https://", "http://"), Some(Unusable("server")));
        assert_eq!(without(":6443", ":70000"), Some(Unusable("server")));
        assert_eq!(without("Q0E=", "%%"), Some(Unusable("certificate-authority-data")));
    }
}
