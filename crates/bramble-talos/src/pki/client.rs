//! Ways in for people: a client certificate for the machine API, a kubeconfig.

use super::der::{pem, sequence, tlv};
use super::{BACKDATE, Pair, PkiError, key, serial};
use base64::Engine;
use bramble_secrets::{Secret, SecretText, random_bytes};
use ed25519_dalek::{Signer, SigningKey};
use rcgen::{
    CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyUsagePurpose,
    SerialNumber,
};
use std::time::Duration;
use x509_parser::certificate::X509Certificate;

/// The role that may do everything.
pub const ADMIN: &str = "os:admin";

/// 2.5.4.10, organisation.
const ORGANIZATION: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x0a];
/// 2.5.29.15, critical, digitalSignature alone.
const KEY_USAGE: &[u8] =
    &[0x30, 0x0e, 0x06, 0x03, 0x55, 0x1d, 0x0f, 0x01, 0x01, 0xff, 0x04, 0x04, 0x03, 0x02, 0x07, 0x80];
/// 2.5.29.37 with clientAuth alone: apid refuses every other set.
const CLIENT_AUTH: &[u8] = &[
    0x30, 0x13, 0x06, 0x03, 0x55, 0x1d, 0x25, 0x04, 0x0c, 0x30, 0x0a, 0x06, 0x08, 0x2b, 0x06, 0x01, 0x05,
    0x05, 0x07, 0x03, 0x02,
];
/// Version 3 (X.509).
const V3: &[u8] = &[0xa0, 0x03, 0x02, 0x01, 0x02];

/// A client certificate for the machine API, good for `life` from `now` (seconds since the epoch). Roles are its
/// organisations, and there may be several, which is why it is put together here: rcgen takes one organisation.
///
/// # Errors
/// An authority that is not Ed25519, or that ends before the certificate would.
pub fn client_certificate(
    authority: &Pair,
    roles: &[&str],
    now: u64,
    life: Duration,
) -> Result<Pair, PkiError> {
    let parsed = pem::parse(&authority.certificate).map_err(|_| PkiError::Form)?;
    let (_, issuer) = x509_parser::parse_x509_certificate(parsed.contents()).map_err(|_| PkiError::Form)?;
    let end = within(&issuer, now, life)?;
    let seed = key::ed25519_seed(authority.key.expose()).ok_or(PkiError::Form)?;
    let signer = SigningKey::from_bytes(seed.expose());
    if issuer.public_key().subject_public_key.data.as_ref() != signer.verifying_key().as_bytes() {
        return Err(PkiError::Pair);
    }
    let own = random_bytes::<32>()?;
    let public = SigningKey::from_bytes(own.expose()).verifying_key();
    let names: Vec<u8> = roles
        .iter()
        .flat_map(|role| tlv(0x31, &sequence(&[ORGANIZATION, &tlv(0x0c, role.as_bytes())])))
        .collect();
    let mut extensions = [KEY_USAGE, CLIENT_AUTH].concat();
    if let Some(id) = subject_key_id(&issuer) {
        // 2.5.29.35, the authority's key.
        let value = tlv(0x04, &sequence(&[&tlv(0x80, id)]));
        extensions.extend(sequence(&[&[0x06, 0x03, 0x55, 0x1d, 0x23], &value]));
    }
    let body = sequence(&[
        V3,
        &tlv(0x02, &serial()?),
        key::ED25519,
        issuer.subject().as_raw(),
        &sequence(&[&time(now.saturating_sub(BACKDATE.as_secs())), &time(end)]),
        &tlv(0x30, &names),
        &sequence(&[key::ED25519, &tlv(0x03, &[&[0], public.as_bytes().as_slice()].concat())]),
        &tlv(0xa3, &tlv(0x30, &extensions)),
    ]);
    let signature = signer.sign(&body).to_bytes();
    let certificate = sequence(&[&body, key::ED25519, &tlv(0x03, &[&[0], signature.as_slice()].concat())]);
    Ok(Pair { certificate: pem("CERTIFICATE", certificate), key: key::ed25519_pem(own.expose()) })
}

fn subject_key_id<'a>(certificate: &X509Certificate<'a>) -> Option<&'a [u8]> {
    certificate.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        x509_parser::extensions::ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

/// The end of a certificate's life, which must not be after its authority's.
fn within(issuer: &X509Certificate<'_>, now: u64, life: Duration) -> Result<u64, PkiError> {
    let end = now.saturating_add(life.as_secs());
    let last = u64::try_from(issuer.validity().not_after.timestamp()).unwrap_or(0);
    if end > last { Err(PkiError::Outlives) } else { Ok(end) }
}

/// `UTCTime` until 2049, then `GeneralizedTime` (RFC 5280, 4.1.2.5).
fn time(seconds: u64) -> Vec<u8> {
    let days = seconds / 86_400;
    // Days since 1 March of year 0, in cycles of 400 years (Howard Hinnant's `civil_from_days`).
    let shifted = days + 719_468;
    let (cycle, day) = (shifted / 146_097, shifted % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let of_year = day - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let (date, month) = (of_year - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    let year = year + cycle * 400 + u64::from(month <= 2);
    let clock = format!(
        "{month:02}{date:02}{:02}{:02}{:02}Z",
        seconds % 86_400 / 3600,
        seconds % 3600 / 60,
        seconds % 60
    );
    if year < 2050 {
        tlv(0x17, format!("{:02}{clock}", year % 100).as_bytes())
    } else {
        tlv(0x18, format!("{year:04}{clock}").as_bytes())
    }
}

/// A kubeconfig of an administrator, good for `life` from `now`. `server` is a URL.
///
/// # Errors
/// An authority that is not P-256, or that ends before the certificate would.
pub fn kubeconfig(
    authority: &Pair,
    cluster: &str,
    server: &str,
    now: u64,
    life: Duration,
) -> Result<SecretText, PkiError> {
    let parsed = pem::parse(&authority.certificate).map_err(|_| PkiError::Form)?;
    let (_, certificate) =
        x509_parser::parse_x509_certificate(parsed.contents()).map_err(|_| PkiError::Form)?;
    let end = within(&certificate, now, life)?;
    let public = certificate.public_key().subject_public_key.data.as_ref();
    let signer = key::read_p256(authority.key.expose(), public)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, signer).map_err(PkiError::Sign)?;
    let (own, own_text) = key::new_p256()?;
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from_slice(&serial()?));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(now) - BACKDATE;
    params.not_after = epoch + Duration::from_secs(end);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, "system:masters");
    params.distinguished_name.push(DnType::CommonName, "admin");
    params.is_ca = IsCa::ExplicitNoCa;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client = params.signed_by(&own, &issuer).map_err(PkiError::Sign)?;
    let base64 = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
    let name = cluster;
    Ok(Secret::new(format!(
        "apiVersion: v1\nkind: Config\n\
         clusters:\n- name: {name}\n  cluster:\n    server: {server}\n    certificate-authority-data: {ca}\n\
         users:\n- name: admin@{name}\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\n\
         contexts:\n- name: admin@{name}\n  context:\n    cluster: {name}\n    namespace: default\n    user: admin@{name}\n\
         current-context: admin@{name}\n",
        ca = base64(&authority.certificate),
        certificate = base64(&pem("CERTIFICATE", client.der().to_vec())),
        key = base64(own_text.expose()),
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_x509() {
        for (seconds, text) in [
            (0, "700101000000Z"),
            (951_782_400, "000229000000Z"),
            (1_800_000_000, "270115080000Z"),
            (2_524_607_999, "491231235959Z"),
            (2_524_608_000, "20500101000000Z"),
            (4_107_542_400, "21000301000000Z"),
        ] {
            assert_eq!(&time(seconds)[2..], text.as_bytes(), "{seconds}");
        }
    }
}
