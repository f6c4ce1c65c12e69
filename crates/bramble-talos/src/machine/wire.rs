//! A connection to a machine: TCP, TLS 1.3, HTTP/2, each made by us so that we know whom we talk to before we say a
//! word.
//!
//! A machine in maintenance mode shows a certificate that nobody can check and asks for none. A configured machine
//! asks for one and shows its own, signed by the authority of its cluster. Which of the two it is, the first
//! handshake tells ([`meet`]): nothing is sent but the handshake, and no certificate of ours.

use super::error::CallError;
use crate::pki::Pair;
use hyper_util::rt::TokioIo;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// The machine API's port (`constants.ApidPort`).
pub const PORT: u16 = 50_000;

/// How long a machine on the same network may take to take a connection.
const CONNECT: Duration = Duration::from_secs(4);
/// How long a Pi that is busy may take for its side of a handshake.
const HANDSHAKE: Duration = Duration::from_secs(15);

/// SHA-256 of a certificate's public key, as a machine in maintenance mode prints it on its console and `talosctl`
/// takes it (`--cert-fingerprint`): base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(pub String);

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Fingerprint {
    fn of(certificate: &CertificateDer<'_>) -> Option<Fingerprint> {
        use base64::Engine;
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let digest = Sha256::digest(parsed.public_key().raw);
        Some(Fingerprint(base64::engine::general_purpose::STANDARD.encode(digest)))
    }
}

/// Who is at the other end.
pub(crate) struct Met {
    pub(crate) stream: TlsStream<TcpStream>,
    /// It wants a certificate of ours: it is configured.
    pub(crate) configured: bool,
    /// The key of its certificate.
    pub(crate) fingerprint: Fingerprint,
    chain: Vec<CertificateDer<'static>>,
}

/// Takes up a connection without saying who we are, and looks who answers.
pub(crate) async fn meet(address: SocketAddr) -> Result<Met, CallError> {
    let seen =
        Arc::new(Seen { chain: Mutex::default(), algorithms: provider().signature_verification_algorithms });
    let asked = Arc::new(Asked(AtomicBool::new(false)));
    let mut config = builder(address)?
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_client_cert_resolver(asked.clone());
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = handshake(address, config).await?;
    let chain = std::mem::take(&mut *seen.chain.lock().unwrap_or_else(PoisonError::into_inner));
    let fingerprint = chain.first().and_then(Fingerprint::of).ok_or_else(|| CallError::Tls {
        address,
        source: std::io::Error::other("its certificate cannot be read"),
    })?;
    Ok(Met { stream, configured: asked.0.load(Ordering::SeqCst), fingerprint, chain })
}

impl Met {
    /// Whether the certificate is signed by this authority (PEM) for this address, now.
    pub(crate) fn is_of(&self, address: SocketAddr, authority: &str, now: u64) -> Result<bool, CallError> {
        let verifier = verifier(address, authority)?;
        let Some((first, rest)) = self.chain.split_first() else { return Ok(false) };
        let now = UnixTime::since_unix_epoch(Duration::from_secs(now));
        Ok(verifier.verify_server_cert(first, rest, &ServerName::from(address.ip()), &[], now).is_ok())
    }
}

/// Takes up a connection as a client of our authority with a machine of it. Any other machine is not talked to.
pub(crate) async fn join(
    address: SocketAddr,
    authority: &str,
    client: &Pair,
) -> Result<TlsStream<TcpStream>, CallError> {
    let credentials = |source| CallError::Credentials { address, source };
    let form = || credentials(rustls::Error::General("the certificate or its key cannot be read".into()));
    let certificate = CertificateDer::from_pem_slice(client.certificate.as_bytes()).map_err(|_| form())?;
    // Talos' label around the key is its own; what is in it is PKCS#8.
    let key = pem::parse(client.key.expose()).map_err(|_| form())?;
    let key = PrivateKeyDer::Pkcs8(key.into_contents().into());
    let mut config = builder(address)?
        .with_webpki_verifier(verifier(address, authority)?)
        .with_client_auth_cert(vec![certificate], key)
        .map_err(credentials)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    handshake(address, config).await.map_err(|error| match error {
        CallError::Tls { source, .. }
            if matches!(
                source.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()),
                Some(rustls::Error::InvalidCertificate(_))
            ) =>
        {
            CallError::Foreign { address }
        }
        other => other,
    })
}

/// HTTP/2 over a stream that is there already. When it breaks it stays broken: a new one is met anew.
pub(crate) async fn channel(address: SocketAddr, stream: TlsStream<TcpStream>) -> Result<Channel, CallError> {
    let broken = |e: tonic::transport::Error| CallError::Tls { address, source: std::io::Error::other(e) };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(broken)?.origin(
        format!("https://{address}").parse().map_err(|_| CallError::Tls {
            address,
            source: std::io::Error::other("its address is no authority"),
        })?,
    );
    let once = Arc::new(Mutex::new(Some(stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            stream.map(TokioIo::new).ok_or_else(|| {
                std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the connection is gone")
            })
        }
    });
    endpoint.connect_with_connector(connector).await.map_err(broken)
}

async fn handshake(address: SocketAddr, config: ClientConfig) -> Result<TlsStream<TcpStream>, CallError> {
    let late = |_| std::io::Error::from(std::io::ErrorKind::TimedOut);
    let tcp = match tokio::time::timeout(CONNECT, TcpStream::connect(address)).await.map_err(late) {
        Ok(Ok(tcp)) => tcp,
        Ok(Err(source)) | Err(source) => return Err(CallError::Unreachable { address, source }),
    };
    let _ = tcp.set_nodelay(true);
    let connector = TlsConnector::from(Arc::new(config));
    let name = ServerName::from(address.ip());
    let shaken = tokio::time::timeout(HANDSHAKE, connector.connect(name, tcp)).await.map_err(late);
    match shaken {
        Ok(Ok(stream)) => Ok(stream),
        // A machine that goes down or starts closes what it took.
        Ok(Err(source)) | Err(source)
            if matches!(
                source.kind(),
                std::io::ErrorKind::UnexpectedEof
                    | std::io::ErrorKind::ConnectionReset
                    | std::io::ErrorKind::BrokenPipe
                    | std::io::ErrorKind::TimedOut
            ) =>
        {
            Err(CallError::Unreachable { address, source })
        }
        Ok(Err(source)) | Err(source) => Err(CallError::Tls { address, source }),
    }
}

/// The one place where this crate says whose cryptography TLS uses.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// TLS 1.3 alone: apid speaks nothing older.
fn builder(
    address: SocketAddr,
) -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, CallError> {
    ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|source| CallError::Credentials { address, source })
}

fn verifier(address: SocketAddr, authority: &str) -> Result<Arc<WebPkiServerVerifier>, CallError> {
    let general = |what: String| CallError::Credentials { address, source: rustls::Error::General(what) };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
        let certificate = certificate.map_err(|e| general(e.to_string()))?;
        roots.add(certificate).map_err(|source| CallError::Credentials { address, source })?;
    }
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|e| general(e.to_string()))
}

/// Takes every certificate and remembers it: who shows it must still prove to have its key.
#[derive(Debug)]
struct Seen {
    chain: Mutex<Vec<CertificateDer<'static>>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for Seen {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let all = std::iter::once(end_entity).chain(intermediates);
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) =
            all.map(|certificate| certificate.clone().into_owned()).collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Has no certificate, and remembers that one was asked for.
#[derive(Debug)]
struct Asked(AtomicBool);

impl ResolvesClientCert for Asked {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        self.0.store(true, Ordering::SeqCst);
        None
    }

    // Else rustls would not ask us.
    fn has_certs(&self) -> bool {
        true
    }
}
