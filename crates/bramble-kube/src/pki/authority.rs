//! One authority, and what it signs.

use super::{AUTHORITY_LIFE, BACKDATE, PkiError};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType, SerialNumber,
};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::time::Duration;

/// An authority: its own certificate and key, and others that are trusted beside it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Authority {
    /// The certificate that signs now.
    pub certificate: String,
    /// Its key, PKCS #8.
    pub key: String,
    /// Certificates of the authority before or after it, trusted while both are in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted: Vec<String>,
}

/// What a certificate is to say.
#[derive(Clone, Debug, Default)]
pub struct Profile<'a> {
    /// Common name: the user's name to the API.
    pub name: &'a str,
    /// Organisation: the group's name to the API.
    pub group: Option<&'a str>,
    /// Good for a client.
    pub client: bool,
    /// Good for a server.
    pub server: bool,
    /// Names and addresses of the server.
    pub sans: Vec<String>,
}

/// A certificate and its key, PEM.
pub(super) struct Pair {
    pub(super) certificate: String,
    pub(super) key: String,
}

pub(super) fn new_key(subject: &str) -> Result<KeyPair, PkiError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)
        .map_err(|source| PkiError::Key { subject: subject.to_string(), source })
}

fn params(
    subject: &str,
    group: Option<&str>,
    now: u64,
    life: Duration,
) -> Result<CertificateParams, PkiError> {
    let mut serial = [0; 16];
    getrandom::fill(&mut serial).map_err(PkiError::Random)?;
    // Positive and of constant length in DER (RFC 5280, 4.1.2.2).
    serial[0] = serial[0] & 0x7f | 0x40;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(now);
    params.not_before = now - BACKDATE;
    params.not_after = now + life;
    params.distinguished_name = DistinguishedName::new();
    if let Some(group) = group {
        params.distinguished_name.push(DnType::OrganizationName, group);
    }
    params.distinguished_name.push(DnType::CommonName, subject);
    Ok(params)
}

impl Authority {
    /// Makes a self-signed authority. `now` is in seconds since the epoch.
    pub fn generate(name: &str, now: u64) -> Result<Self, PkiError> {
        let key = new_key(name)?;
        let mut params = params(name, None, now, AUTHORITY_LIFE)?;
        // It signs leaves only.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let certificate = params
            .self_signed(&key)
            .map_err(|source| PkiError::Sign { subject: name.to_string(), source })?;
        Ok(Authority { certificate: certificate.pem(), key: key.serialize_pem(), trusted: Vec::new() })
    }

    /// Everything that is to be trusted as this authority, as one PEM bundle, the signing one first.
    pub fn bundle(&self) -> String {
        let mut bundle = String::new();
        for certificate in std::iter::once(&self.certificate).chain(&self.trusted) {
            bundle.push_str(certificate.trim_end());
            bundle.push('\n');
        }
        bundle
    }

    /// Signs a certificate for a new key: valid from an hour before `now` (seconds since the epoch), for `life` after it.
    /// Gives certificate and key, PEM.
    pub fn issue(&self, profile: &Profile, now: u64, life: Duration) -> Result<(String, String), PkiError> {
        let subject = profile.name.to_string();
        let key = new_key(profile.name)?;
        let mut params = params(profile.name, profile.group, now, life)?;
        params.use_authority_key_identifier_extension = true;
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        for (wanted, usage) in [
            (profile.client, ExtendedKeyUsagePurpose::ClientAuth),
            (profile.server, ExtendedKeyUsagePurpose::ServerAuth),
        ] {
            if wanted {
                params.extended_key_usages.push(usage);
            }
        }
        for san in &profile.sans {
            params.subject_alt_names.push(match san.parse::<IpAddr>() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName(
                    san.as_str().try_into().map_err(|source| PkiError::Name { name: san.clone(), source })?,
                ),
            });
        }
        let issuer = KeyPair::from_pem(&self.key)
            .and_then(|key| Issuer::from_ca_cert_pem(&self.certificate, key))
            .map_err(|source| PkiError::Authority { subject: subject.clone(), source })?;
        let certificate =
            params.signed_by(&key, &issuer).map_err(|source| PkiError::Sign { subject, source })?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    pub(super) fn pair(&self, profile: &Profile, now: u64, life: Duration) -> Result<Pair, PkiError> {
        self.issue(profile, now, life).map(|(certificate, key)| Pair { certificate, key })
    }
}
