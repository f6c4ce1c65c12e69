//! Talos' authorities and what they sign.
//!
//! The machine API's authority is Ed25519, those of Kubernetes and etcd are P-256; fields of the certificates are
//! those of Talos' own generator (`generate/secrets` of its machinery), because apid compares some of them exactly.

mod client;
mod der;
mod key;

pub use client::{ADMIN, client_certificate, kubeconfig};

use bramble_secrets::{NoRandomness, SecretText, random_bytes};
use ed25519_dalek::SigningKey;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyIdMethod, KeyPair, KeyUsagePurpose, SerialNumber,
};
use std::time::Duration;

/// Life of an authority: ten years, as Talos has it.
const AUTHORITY_LIFE: Duration = Duration::from_secs(87_600 * 3600);
/// Machines without a clock of their own are late; certificates are valid from this much before they are made.
const BACKDATE: Duration = Duration::from_secs(10 * 60);

/// Why nothing was issued. Never quotes a key.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// The system has no random numbers to give.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// A key could not be made.
    #[error("a key could not be made")]
    Make(#[source] rcgen::Error),
    /// The RSA key could not be made.
    #[error("the RSA key for tokens of service accounts could not be made")]
    Rsa,
    /// A key or certificate is in no form that Talos writes.
    #[error("the key or certificate is in no form that Talos writes")]
    Form,
    /// A key is not the certificate's.
    #[error("the key does not belong to the certificate")]
    Pair,
    /// Signing failed.
    #[error("the certificate could not be signed")]
    Sign(#[source] rcgen::Error),
    /// A certificate would be valid longer than the authority that signs it.
    #[error("the authority that signs ends before the certificate would")]
    Outlives,
}

/// Certificate and key of an authority, PEM.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: SecretText,
}

fn serial() -> Result<[u8; 16], NoRandomness> {
    let mut serial = *random_bytes::<16>()?.expose();
    // Positive and of constant length in DER (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    Ok(serial)
}

fn authority(organization: Option<&str>, key: &KeyPair, now: u64) -> Result<String, PkiError> {
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
    params.not_before = now - BACKDATE;
    params.not_after = now + AUTHORITY_LIFE;
    params.distinguished_name = DistinguishedName::new();
    if let Some(organization) = organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_identifier_method = KeyIdMethod::PreSpecified(random_bytes::<20>()?.expose().to_vec());
    let certificate = params.self_signed(key).map_err(PkiError::Sign)?;
    Ok(der::pem("CERTIFICATE", certificate.der().to_vec()))
}

/// A new authority of the machine API. `now` in seconds since the epoch.
pub(crate) fn machine_authority(now: u64) -> Result<Pair, PkiError> {
    let seed = random_bytes::<32>()?;
    let text = key::ed25519_pem(seed.expose());
    let pair = pem::parse(text.expose()).map_err(|_| PkiError::Form)?;
    let pair = KeyPair::try_from(pair.contents()).map_err(PkiError::Make)?;
    Ok(Pair { certificate: authority(Some("talos"), &pair, now)?, key: text })
}

/// A new authority on P-256. Kubernetes' aggregation layer has one without a subject.
pub(crate) fn cluster_authority(organization: Option<&str>, now: u64) -> Result<Pair, PkiError> {
    let (pair, text) = key::new_p256()?;
    Ok(Pair { certificate: authority(organization, &pair, now)?, key: text })
}

/// A new key that signs tokens of service accounts.
pub(crate) fn service_account_key() -> Result<SecretText, PkiError> {
    key::new_rsa()
}

/// Whether certificate and key of an authority belong together and are what Talos can use.
pub(crate) fn check_authority(pair: &Pair, ed25519: bool) -> Result<(), PkiError> {
    let parsed = pem::parse(&pair.certificate).map_err(|_| PkiError::Form)?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(parsed.contents()).map_err(|_| PkiError::Form)?;
    let public = certificate.public_key().subject_public_key.data.as_ref();
    if ed25519 {
        let seed = key::ed25519_seed(pair.key.expose()).ok_or(PkiError::Form)?;
        let own = SigningKey::from_bytes(seed.expose()).verifying_key();
        return if own.as_bytes() == public { Ok(()) } else { Err(PkiError::Pair) };
    }
    // Bundles of old clusters have RSA authorities here. Talos takes them; nothing of ours signs with one but an
    // administrator's kubeconfig, which then says so.
    if public.len() != 65 {
        return Ok(());
    }
    key::read_p256(pair.key.expose(), public).map(drop)
}

#[cfg(test)]
mod tests;
