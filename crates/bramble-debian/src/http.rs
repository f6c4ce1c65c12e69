//! Plain blocking HTTP with the limits that a download from a home line needs.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use ureq::http::{HeaderMap, StatusCode};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};

/// How long a mirror may keep us waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For a connection, name look-up included.
    pub connect: Duration,
    /// For the next bytes once connected.
    pub stall: Duration,
    /// Attempts for one file before its error is final.
    pub attempts: u32,
    /// Wait before the second attempt; each further one waits twice as long.
    pub backoff: Duration,
    /// Bytes a second below which a transfer counts as stalled, measured over `stall`.
    pub slowest: u64,
}

impl Patience {
    /// Bytes that the slowest bearable mirror sends in the longest bearable wait.
    pub(crate) fn trickle(&self) -> u64 {
        u64::try_from(self.stall.as_millis()).unwrap_or(u64::MAX).saturating_mul(self.slowest) / 1000
    }
}

impl Default for Patience {
    fn default() -> Self {
        Patience {
            // A mirror on the other side of the world answers in half a second; ten leave room for a lost packet.
            connect: Duration::from_secs(10),
            stall: Duration::from_secs(20),
            // 0.5 + 1 + 2 + 4 seconds: outlives the restart of a router's connection table, not of the router.
            attempts: 5,
            backoff: Duration::from_millis(500),
            // A kernel image at this speed takes hours; no usable line is slower.
            slowest: 2048,
        }
    }
}

/// A request that failed.
#[derive(Debug, Error)]
pub enum HttpError {
    /// The mirror's name or address cannot be reached.
    #[error("{host} cannot be reached")]
    Unreachable {
        /// The host.
        host: String,
        /// What the system said.
        #[source]
        source: Box<ureq::Error>,
    },
    /// Nothing, or next to nothing, came for too long.
    #[error("{host} sent nothing for {seconds} s while {url} was read")]
    Stalled {
        /// The host.
        host: String,
        /// What was read.
        url: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The connection ended in the middle.
    #[error("the connection to {host} broke while {url} was read")]
    Broken {
        /// The host.
        host: String,
        /// What was read.
        url: String,
        /// What the system said.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The mirror does not have the file.
    #[error("{host} has no {url}")]
    NotFound {
        /// The host.
        host: String,
        /// What was asked for.
        url: String,
    },
    /// The mirror refuses.
    #[error("{host} answered {status} for {url}")]
    Status {
        /// The host.
        host: String,
        /// What was asked for.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The address or its certificate is no good.
    #[error("{url} cannot be asked for")]
    Refused {
        /// The address.
        url: String,
        /// What is wrong with it.
        #[source]
        source: Box<ureq::Error>,
    },
}

impl HttpError {
    /// Whether the same request may succeed a little later.
    pub fn is_passing(&self) -> bool {
        match self {
            HttpError::Unreachable { .. } | HttpError::Stalled { .. } | HttpError::Broken { .. } => true,
            HttpError::Status { status, .. } => *status >= 500 || *status == 408 || *status == 429,
            HttpError::NotFound { .. } | HttpError::Refused { .. } => false,
        }
    }

    /// The host concerned, as in the address.
    pub fn host(&self) -> &str {
        match self {
            HttpError::Unreachable { host, .. }
            | HttpError::Stalled { host, .. }
            | HttpError::Broken { host, .. }
            | HttpError::NotFound { host, .. }
            | HttpError::Status { host, .. } => host,
            HttpError::Refused { url, .. } => host_of(url),
        }
    }
}

/// A connection pool. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    agent: ureq::Agent,
    patience: Patience,
}

/// What is asked for besides the address.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ask<'a> {
    /// Skip that many bytes, if the server can.
    pub(crate) from: u64,
    /// Send the body only if it differs from the one with these marks.
    pub(crate) unless: Option<&'a Marks>,
}

/// What a server says about the state of a file, to be sent back with the next request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Marks {
    pub(crate) etag: Option<String>,
    pub(crate) modified: Option<String>,
}

impl Marks {
    pub(crate) fn is_empty(&self) -> bool {
        self.etag.is_none() && self.modified.is_none()
    }
}

/// A server's answer.
pub(crate) enum Answer {
    /// The file, from `start` on.
    Body { start: u64, marks: Marks, body: Box<Body> },
    /// The file is as it was.
    Unchanged,
    /// The range that was asked for does not exist.
    OutOfRange,
}

impl Client {
    /// Makes a client. Proxies are taken from the usual environment variables; `https` trusts the authorities of
    /// this computer.
    pub fn new(patience: Patience) -> Client {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("bramble/", env!("CARGO_PKG_VERSION")))
            // Packages are compressed already, and a transfer encoding would make ranges meaningless.
            .accept_encoding("identity")
            .max_idle_connections_per_host(16)
            .max_idle_connections(32)
            .timeout_resolve(Some(patience.connect))
            .timeout_connect(Some(patience.connect))
            .timeout_recv_response(Some(patience.stall))
            .timeout_per_read(Some(patience.stall))
            .tls_config(
                TlsConfig::builder()
                    .root_certs(system_roots())
                    .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
                    .build(),
            )
            .build();
        Client { agent: config.new_agent(), patience }
    }

    /// The limits it works with.
    pub fn patience(&self) -> Patience {
        self.patience
    }

    pub(crate) fn get(&self, url: &str, ask: Ask<'_>) -> Result<Answer, HttpError> {
        let mut request = self.agent.get(url);
        if ask.from > 0 {
            request = request.header("Range", format!("bytes={}-", ask.from));
        }
        if let Some(marks) = ask.unless {
            if let Some(etag) = &marks.etag {
                request = request.header("If-None-Match", etag);
            }
            if let Some(modified) = &marks.modified {
                request = request.header("If-Modified-Since", modified);
            }
        }
        let response = request.call().map_err(|source| self.classify(url, source))?;
        let host = || host_of(url).to_string();
        match response.status() {
            StatusCode::OK | StatusCode::PARTIAL_CONTENT => {}
            StatusCode::NOT_MODIFIED => return Ok(Answer::Unchanged),
            StatusCode::RANGE_NOT_SATISFIABLE => return Ok(Answer::OutOfRange),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return Err(HttpError::NotFound { host: host(), url: url.to_string() });
            }
            other => {
                return Err(HttpError::Status { host: host(), url: url.to_string(), status: other.as_u16() });
            }
        }
        let start = if response.status() == StatusCode::PARTIAL_CONTENT {
            // A range that begins elsewhere than asked for would be glued to the wrong place.
            match range_start(response.headers()) {
                Some(start) if start == ask.from => start,
                _ => return Ok(Answer::OutOfRange),
            }
        } else {
            0
        };
        let marks = Marks {
            etag: header(response.headers(), "etag"),
            modified: header(response.headers(), "last-modified"),
        };
        let body = Box::new(Body {
            reader: Box::new(response.into_body().into_reader()),
            client: self.clone(),
            url: url.to_string(),
        });
        Ok(Answer::Body { start, marks, body })
    }

    fn classify(&self, url: &str, source: ureq::Error) -> HttpError {
        use ureq::Timeout;
        let host = host_of(url).to_string();
        let url = url.to_string();
        match source {
            ureq::Error::Timeout(Timeout::Resolve | Timeout::Connect)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed => HttpError::Unreachable { host, source: Box::new(source) },
            ureq::Error::Timeout(_) => {
                HttpError::Stalled { host, url, seconds: self.patience.stall.as_secs().max(1) }
            }
            ureq::Error::Io(ref io) => match io.kind() {
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    HttpError::Stalled { host, url, seconds: self.patience.stall.as_secs().max(1) }
                }
                io::ErrorKind::ConnectionRefused
                | io::ErrorKind::HostUnreachable
                | io::ErrorKind::NetworkUnreachable
                | io::ErrorKind::AddrNotAvailable
                | io::ErrorKind::NetworkDown => HttpError::Unreachable { host, source: Box::new(source) },
                _ => HttpError::Broken { host, url, source: Box::new(source) },
            },
            ureq::Error::Protocol(_) => HttpError::Broken { host, url, source: Box::new(source) },
            other => HttpError::Refused { url, source: Box::new(other) },
        }
    }
}

/// A body that is being received.
pub(crate) struct Body {
    reader: Box<dyn Read + Send>,
    client: Client,
    url: String,
}

impl Body {
    /// Reads some bytes; 0 at the end.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, HttpError> {
        // The reader wraps the client's own errors, timeouts among them; `from` takes them out again.
        self.reader.read(buffer).map_err(|error| self.client.classify(&self.url, ureq::Error::from(error)))
    }
}

/// The part of an address that names the host, with its port.
pub(crate) fn host_of(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let authority = rest.split(['/', '?', '#']).next().unwrap_or(rest);
    // Never show a password that stands in an address.
    authority.rsplit_once('@').map_or(authority, |(_, host)| host)
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_string)
}

fn range_start(headers: &HeaderMap) -> Option<u64> {
    header(headers, "content-range")?.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// Where the usual systems keep the authorities they trust.
const ROOTS: [&str; 4] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The authorities of this computer; none if it has no bundle, and then `https` fails with its reason. Integrity
/// does not rest on them: everything that is downloaded is checked by signature or digest.
fn system_roots() -> RootCerts {
    let from_env = std::env::var("SSL_CERT_FILE").ok();
    let pem = from_env.iter().map(String::as_str).chain(ROOTS).find_map(|path| std::fs::read(path).ok());
    let certificates: Vec<Certificate<'static>> = parse_pem(&pem.unwrap_or_default())
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    RootCerts::from(certificates)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_without_credentials() {
        assert_eq!(host_of("http://user:pw@mirror.example:8080/debian/x"), "mirror.example:8080");
        assert_eq!(host_of("http://mirror.example"), "mirror.example");
    }

    #[test]
    fn which_failures_pass() {
        let status = |status| HttpError::Status { host: "h".into(), url: "u".into(), status };
        assert!(status(503).is_passing() && status(429).is_passing());
        assert!(!status(403).is_passing());
        assert!(!HttpError::NotFound { host: "h".into(), url: "u".into() }.is_passing());
    }
}
