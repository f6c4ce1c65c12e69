//! Files of a directory of releases on a web server, read from any byte on. What comes is believed by nobody: everything
//! in a release is signed or hashed.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;
use ureq::http::{HeaderMap, StatusCode, Uri};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// For connecting, and between two bytes. A server that pauses longer is as good as gone.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Redirects that are followed: a forge sends a release's file to its store in one or two.
const REDIRECTS_MAX: u32 = 5;
/// What the system trusts, with the document's own authorities behind.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why nothing came.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// An address that cannot be asked.
    #[error("{0:?} is no http or https address")]
    Address(String),
    /// The network.
    #[error("{url}: {source}")]
    Network {
        /// What was asked.
        url: String,
        /// What happened.
        source: io::Error,
    },
    /// The server's answer.
    #[error("{url} answers {status}")]
    Status {
        /// What was asked.
        url: String,
        /// The answer.
        status: u16,
    },
    /// It led from https to plain http.
    #[error("{0} leads to plain http, where anybody may answer")]
    Redirected(String),
    /// Larger than it may be.
    #[error("{0} is larger than it can be")]
    TooLarge(String),
}

/// An http or https address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    is_tls: bool,
    text: String,
}

impl Url {
    /// Reads one.
    pub fn parse(text: &str) -> Result<Url, Fault> {
        let bad = || Fault::Address(text.into());
        let uri: Uri = text.parse().map_err(|_| bad())?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        match uri.authority() {
            // A name and password would stand in every log.
            Some(authority) if authority.as_str().contains('@') => Err(bad()),
            // What follows the host is a port, and one that exists.
            Some(authority) if authority.port().is_none() && authority.host() != authority.as_str() => {
                Err(bad())
            }
            Some(authority) if !authority.host().is_empty() => Ok(Url { is_tls, text: text.into() }),
            _ => Err(bad()),
        }
    }

    /// The file of this name in the directory that this is.
    pub fn join(&self, name: &str) -> Url {
        Url { is_tls: self.is_tls, text: format!("{}/{name}", self.text.trim_end_matches('/')) }
    }
}

impl std::fmt::Display for Url {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

/// The body of an answer, and the byte of the file that it is at.
pub struct Body {
    reader: ureq::BodyReader<'static>,
    /// The next byte's place in the file.
    pub at: u64,
}

impl Read for Body {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let got = self.reader.read(out)?;
        self.at += got as u64;
        Ok(got)
    }
}

/// A client: what it trusts is read once, and only when it is needed.
#[derive(Default)]
pub struct Client {
    plain: Option<ureq::Agent>,
    tls: Option<ureq::Agent>,
}

impl Client {
    /// All of a small file.
    pub fn get(&mut self, url: &Url, limit: u64) -> Result<Vec<u8>, Fault> {
        let mut body = self.open(url, 0)?;
        let mut bytes = Vec::new();
        let read = (&mut body).take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|source| Fault::Network { url: url.to_string(), source })?;
        match bytes.len() as u64 > limit {
            true => Err(Fault::TooLarge(url.to_string())),
            false => Ok(bytes),
        }
    }

    /// A file from byte `from` on. A server without ranges gives it from the beginning: see [`Body::at`].
    pub fn open(&mut self, url: &Url, from: u64) -> Result<Body, Fault> {
        let mut request = self.agent(url.is_tls).get(&url.text);
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let response = request.call().map_err(|error| match error {
            ureq::Error::RequireHttpsOnly(_) => Fault::Redirected(url.to_string()),
            error => Fault::Network { url: url.to_string(), source: io::Error::other(error) },
        })?;
        let at = match response.status() {
            StatusCode::OK => 0,
            StatusCode::PARTIAL_CONTENT if begins_at(response.headers(), from) => from,
            status => return Err(Fault::Status { url: url.to_string(), status: status.as_u16() }),
        };
        Ok(Body { reader: response.into_body().into_reader(), at })
    }

    fn agent(&mut self, is_tls: bool) -> &ureq::Agent {
        let agent = if is_tls { &mut self.tls } else { &mut self.plain };
        agent.get_or_insert_with(|| make(is_tls))
    }
}

fn make(is_tls: bool) -> ureq::Agent {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .https_only(is_tls)
        .max_redirects(REDIRECTS_MAX)
        // The machine's document says all that it does; an environment says nothing.
        .proxy(None)
        .user_agent(concat!("bramble-node/", env!("CARGO_PKG_VERSION")))
        // Packs are compressed already, and a transfer encoding would make ranges meaningless.
        .accept_encoding("identity")
        .timeout_resolve(Some(TIMEOUT))
        .timeout_connect(Some(TIMEOUT))
        .timeout_recv_response(Some(TIMEOUT))
        .timeout_per_read(Some(TIMEOUT));
    if !is_tls {
        return config.build().new_agent();
    }
    let pem = std::fs::read(AUTHORITIES).unwrap_or_default();
    // Of a hundred authorities one may be of a kind that is unknown here.
    let authorities: Vec<Certificate<'static>> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&authorities))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    config.tls_config(tls).build().new_agent()
}

/// `Content-Range: bytes FROM-TO/SIZE` (RFC 9110, 14.4). Bytes from elsewhere than asked would have every hash fail.
fn begins_at(headers: &HeaderMap, from: u64) -> bool {
    let range = headers.get("content-range").and_then(|value| value.to_str().ok()?.strip_prefix("bytes "));
    range.and_then(|range| range.split('-').next()?.trim().parse().ok()) == Some(from)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::io::Write;
    use std::net::TcpListener;

    /// A server that gives each connection the next of these answers, as they stand; gives its address.
    pub(crate) fn answers(answers: Vec<Vec<u8>>) -> Url {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        std::thread::spawn(move || {
            for answer in answers {
                let mut socket = listener.accept().unwrap().0;
                let mut request = [0; 2048];
                let _ = socket.read(&mut request);
                let _ = socket.write_all(&answer);
            }
        });
        Url::parse(&format!("http://127.0.0.1:{port}/home")).unwrap()
    }

    #[test]
    fn addresses_are_read_and_joined() {
        let url = Url::parse("https://updates.home.arpa/home/").unwrap();
        assert_eq!(url.join("amd64/latest").to_string(), "https://updates.home.arpa/home/amd64/latest");
        assert_eq!(
            Url::parse("http://10.0.0.1:8080").unwrap().join("x").to_string(),
            "http://10.0.0.1:8080/x"
        );
        for bad in ["ftp://x/", "https://", "http://u@h/", "http://h:99999/", "http://h/a b", "updates", ""] {
            assert!(Url::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn bodies_end_where_they_say() {
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcdef".to_vec();
        let chunked =
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n"
                .to_vec();
        let open = b"HTTP/1.0 200 OK\r\n\r\nabc".to_vec();
        let short = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc".to_vec();
        let url = answers(vec![plain, chunked, open, short]);
        let mut client = Client::default();
        assert_eq!(client.get(&url, 10).unwrap(), b"abc");
        assert_eq!(client.get(&url, 10).unwrap(), b"abcde");
        assert!(matches!(client.get(&url, 2), Err(Fault::TooLarge(_))));
        assert!(matches!(client.get(&url, 10), Err(Fault::Network { .. })));
    }

    #[test]
    fn ranges_redirects_and_refusals() {
        let part = b"HTTP/1.1 206 P\r\nContent-Range: bytes 2-4/5\r\nContent-Length: 3\r\n\r\ncde".to_vec();
        let whole = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde".to_vec();
        let other =
            b"HTTP/1.1 206 P\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\n\r\nabcde".to_vec();
        let moved = b"HTTP/1.1 302 Found\r\nLocation: /else\r\n\r\n".to_vec();
        let gone = b"HTTP/1.1 404 Not Found\r\n\r\n".to_vec();
        let url = answers(vec![part, whole.clone(), other, moved, whole, gone]);
        let mut client = Client::default();
        assert_eq!(client.open(&url, 2).unwrap().at, 2);
        assert_eq!(client.open(&url, 2).unwrap().at, 0);
        assert!(matches!(client.open(&url, 2), Err(Fault::Status { status: 206, .. })));
        assert_eq!(client.get(&url, 10).unwrap(), b"abcde");
        assert!(matches!(client.get(&url, 10), Err(Fault::Status { status: 404, .. })));
    }
}
