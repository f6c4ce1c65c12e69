//! Private keys in the forms that Talos writes and reads.

use super::PkiError;
use super::der::{pem, sequence, take, tlv};
use bramble_secrets::{Secret, SecretText};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use rsa::pkcs1::EncodeRsaPrivateKey;

/// 1.3.101.112, Ed25519 (RFC 8410), as an `AlgorithmIdentifier`.
pub(super) const ED25519: &[u8] = &[0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
/// 1.2.840.10045.3.1.7, the curve P-256.
const P256_CURVE: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];
/// 1.2.840.10045.2.1, a key on an elliptic curve.
const EC_KEY: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const VERSION_0: &[u8] = &[0x02, 0x01, 0x00];
const VERSION_1: &[u8] = &[0x02, 0x01, 0x01];
const OCTETS: u8 = 0x04;
const BITS: u8 = 0x03;
/// Bits of the key that signs tokens of service accounts; Talos' own choice since 1.7.
const RSA_BITS: usize = 4096;

/// PEM of an Ed25519 key: PKCS #8 under a label of Talos' own.
pub(super) fn ed25519_pem(seed: &[u8; 32]) -> SecretText {
    let inner = Secret::new(tlv(OCTETS, seed));
    let body = sequence(&[VERSION_0, ED25519, &tlv(OCTETS, inner.expose())]);
    Secret::new(pem("ED25519 PRIVATE KEY", body))
}

/// The seed of an Ed25519 key in PEM.
pub(super) fn ed25519_seed(text: &str) -> Option<Secret<[u8; 32]>> {
    let parsed = pem::parse(text).ok()?;
    if !matches!(parsed.tag(), "ED25519 PRIVATE KEY" | "PRIVATE KEY") {
        return None;
    }
    let (body, _) = take(parsed.contents(), 0x30)?;
    let (_, rest) = take(body, 0x02)?;
    let (algorithm, rest) = take(rest, 0x30)?;
    if algorithm != &ED25519[2..] {
        return None;
    }
    let (outer, _) = take(rest, OCTETS)?;
    let (seed, _) = take(outer, OCTETS)?;
    seed.try_into().ok().map(Secret::new)
}

/// A new P-256 key, and its PEM in the form of SEC 1, as Talos writes it.
pub(super) fn new_p256() -> Result<(KeyPair, SecretText), PkiError> {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(PkiError::Make)?;
    let text = p256_pem(&key).ok_or(PkiError::Form)?;
    Ok((key, text))
}

fn p256_pem(key: &KeyPair) -> Option<SecretText> {
    let scalar = scalar_of(&inner_of_pkcs8(key.serialized_der())?)?;
    let public = [&[0], key.public_key_raw()].concat();
    let body = sequence(&[
        VERSION_1,
        &tlv(OCTETS, scalar.expose()),
        &tlv(0xa0, P256_CURVE),
        &tlv(0xa1, &tlv(BITS, &public)),
    ]);
    Some(Secret::new(pem("EC PRIVATE KEY", body)))
}

/// The `ECPrivateKey` (RFC 5915) within PKCS #8.
fn inner_of_pkcs8(der: &[u8]) -> Option<Vec<u8>> {
    let (body, _) = take(der, 0x30)?;
    let (_, rest) = take(body, 0x02)?;
    let (_, rest) = take(rest, 0x30)?;
    take(rest, OCTETS).map(|(inner, _)| inner.to_vec())
}

fn scalar_of(sec1: &[u8]) -> Option<Secret<Vec<u8>>> {
    let (body, _) = take(sec1, 0x30)?;
    let (_, rest) = take(body, 0x02)?;
    let (scalar, _) = take(rest, OCTETS)?;
    (scalar.len() == 32).then(|| Secret::new(scalar.to_vec()))
}

/// A P-256 key out of PEM, SEC 1 or PKCS #8. `public` is its point as the certificate has it: old keys leave it out.
pub(super) fn read_p256(text: &str, public: &[u8]) -> Result<KeyPair, PkiError> {
    let parsed = pem::parse(text).map_err(|_| PkiError::Form)?;
    let sec1 = match parsed.tag() {
        "EC PRIVATE KEY" => Some(parsed.contents().to_vec()),
        "PRIVATE KEY" => inner_of_pkcs8(parsed.contents()),
        _ => None,
    };
    let scalar = sec1.as_deref().and_then(scalar_of).ok_or(PkiError::Form)?;
    let point = tlv(0xa1, &tlv(BITS, &[&[0], public].concat()));
    let inner = sequence(&[VERSION_1, &tlv(OCTETS, scalar.expose()), &point]);
    let algorithm = sequence(&[EC_KEY, P256_CURVE]);
    let der = Secret::new(sequence(&[VERSION_0, &algorithm, &tlv(OCTETS, &inner)]));
    // Fails when the point is not the key's: the key of another certificate.
    KeyPair::try_from(der.expose().as_slice()).map_err(|_| PkiError::Pair)
}

/// A new RSA key in PEM, PKCS #1. Takes seconds: primes of 2048 bits are rare.
pub(super) fn new_rsa() -> Result<SecretText, PkiError> {
    let key = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, RSA_BITS).map_err(|_| PkiError::Rsa)?;
    let text = key.to_pkcs1_pem(rsa::pkcs8::LineEnding::LF).map_err(|_| PkiError::Rsa)?;
    Ok(Secret::new(text.to_string()))
}
