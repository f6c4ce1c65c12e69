//! Which signatures count: a policy over rPGP, which checks mathematics only.
//!
//! A signature over a text is good when
//! - it is made over text or bytes with a hash that is still strong (SHA-2 from 256 bits, SHA-3),
//! - it states when it was made, not before its key nor after now, and has not expired,
//! - it has no critical part that we do not understand (RFC 9580, 5.2.3.7),
//! - its key is the primary key of a pinned certificate, or a subkey that the primary key has bound for signing and
//!   that has confirmed the binding (the "back signature", 5.2.4), both by strong signatures,
//! - neither that key nor the primary key is revoked or has expired, and both are strong enough (RSA from 2048
//!   bits, EdDSA, ECDSA).
//!
//! Stricter than RFC 9580 on purpose: a key that was revoked for whatever reason, or expired by now, makes none of
//! its signatures good, older ones included. An archive signs again within hours; nothing old needs to verify.

use pgp::composed::{Deserializable, DetachedSignature, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{Signature, SignatureType, SubpacketData};
use pgp::ser::Serialize;
use pgp::types::{KeyDetails, PublicParams, Tag};
use thiserror::Error;

/// How far a clock may lag behind the signer's: mirrors and laptops differ by minutes, not by days.
const CLOCK_SKEW: u64 = 24 * 3600;

/// Certificates that are trusted to sign archives.
#[derive(Clone, Debug)]
pub struct Keyring {
    certificates: Vec<SignedPublicKey>,
}

/// A keyring that cannot be read.
#[derive(Debug, Error)]
pub enum KeyringError {
    /// It is no OpenPGP keyring.
    #[error("the keyring {name} cannot be read")]
    Unreadable {
        /// Which.
        name: String,
        /// What is wrong with it.
        #[source]
        source: Box<pgp::errors::Error>,
    },
    /// It has no key in it.
    #[error("the keyring {name} has no key")]
    Empty {
        /// Which.
        name: String,
    },
}

/// Debian's keys; `keys/README.md` says where they come from.
const DEBIAN: [(&str, &[u8]); 6] = [
    ("debian-archive-trixie-automatic", include_bytes!("../keys/debian-archive-trixie-automatic.gpg")),
    (
        "debian-archive-trixie-security-automatic",
        include_bytes!("../keys/debian-archive-trixie-security-automatic.gpg"),
    ),
    ("debian-archive-trixie-stable", include_bytes!("../keys/debian-archive-trixie-stable.gpg")),
    ("debian-archive-bookworm-automatic", include_bytes!("../keys/debian-archive-bookworm-automatic.gpg")),
    (
        "debian-archive-bookworm-security-automatic",
        include_bytes!("../keys/debian-archive-bookworm-security-automatic.gpg"),
    ),
    ("debian-archive-bookworm-stable", include_bytes!("../keys/debian-archive-bookworm-stable.gpg")),
];

impl Keyring {
    /// The keys of Debian's archives that the tool carries.
    ///
    /// # Errors
    /// None in a tool that passed its tests.
    pub fn debian() -> Result<Keyring, KeyringError> {
        let mut keyring = Keyring { certificates: Vec::new() };
        for (name, bytes) in DEBIAN {
            keyring.add(name, bytes)?;
        }
        Ok(keyring)
    }

    /// A keyring from a file's bytes, armoured or not. `name` is for errors.
    ///
    /// # Errors
    /// It cannot be read, or has no key in it.
    pub fn from_bytes(name: &str, bytes: &[u8]) -> Result<Keyring, KeyringError> {
        let mut keyring = Keyring { certificates: Vec::new() };
        keyring.add(name, bytes)?;
        Ok(keyring)
    }

    fn add(&mut self, name: &str, bytes: &[u8]) -> Result<(), KeyringError> {
        let unreadable =
            |source| KeyringError::Unreadable { name: name.to_string(), source: Box::new(source) };
        let (certificates, _) = SignedPublicKey::from_reader_many(bytes).map_err(unreadable)?;
        let before = self.certificates.len();
        for certificate in certificates {
            self.certificates.push(certificate.map_err(unreadable)?);
        }
        if self.certificates.len() == before {
            return Err(KeyringError::Empty { name: name.to_string() });
        }
        Ok(())
    }

    /// Fingerprints of the primary keys, upper-case hexadecimal.
    pub fn fingerprints(&self) -> Vec<String> {
        self.certificates.iter().map(|c| hex_of(&c.primary_key)).collect()
    }
}

/// Why one signature does not count.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    /// Made by a key that is not pinned.
    #[error("made by the unknown key {issuer}")]
    UnknownKey {
        /// Fingerprint or key id it states, or `?`.
        issuer: String,
    },
    /// The text is not what was signed.
    #[error("does not fit the text (key {key})")]
    Mismatch {
        /// Fingerprint.
        key: String,
    },
    /// The signature packet itself is no good.
    #[error("{what}")]
    Unfit {
        /// What is wrong with it.
        what: &'static str,
    },
    /// The key was revoked.
    #[error("made by the key {key}, which was revoked")]
    Revoked {
        /// Fingerprint.
        key: String,
    },
    /// The key is past its date.
    #[error("made by the key {key}, which expired {days} days ago")]
    Expired {
        /// Fingerprint.
        key: String,
        /// For how long.
        days: u64,
    },
    /// Made after now, or by a key of the future.
    #[error("made {days} days after what this computer's clock says")]
    Future {
        /// How far ahead, rounded up.
        days: u64,
    },
    /// The certificate does not hold together.
    #[error("made by the key {key}, {what}")]
    BadCertificate {
        /// Fingerprint.
        key: String,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// A signature that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodSignature {
    /// Fingerprint of the primary key, upper-case hexadecimal.
    pub certificate: String,
    /// When it was made, seconds since the epoch.
    pub made: u64,
}

/// Reads the packets of an armoured signature block. Packets of kinds that we cannot read are left out: an archive
/// may add a signature by a new algorithm beside the ones we know.
pub(crate) fn read_signatures(armored: &str) -> Result<Vec<Signature>, pgp::errors::Error> {
    let (signatures, _) = DetachedSignature::from_armor_many(armored.as_bytes())?;
    Ok(signatures.filter_map(Result::ok).map(|detached| detached.signature).collect())
}

/// Checks one signature over `text` at the time `now` (seconds since the epoch).
pub(crate) fn check(
    signature: &Signature,
    text: &[u8],
    keyring: &Keyring,
    now: u64,
) -> Result<GoodSignature, Refusal> {
    if !matches!(signature.typ(), Some(SignatureType::Binary | SignatureType::Text)) {
        return Err(Refusal::Unfit { what: "is not a signature over a text" });
    }
    let made = sound(signature, now)?;
    let mut refusal = Refusal::UnknownKey { issuer: issuer(signature) };
    for certificate in &keyring.certificates {
        for signer in signers(certificate) {
            if !names(signature, &signer) {
                continue;
            }
            match check_by(signature, text, certificate, &signer, made, now) {
                Ok(good) => return Ok(good),
                Err(other) => refusal = other,
            }
        }
    }
    Err(refusal)
}

enum Signer<'a> {
    Primary(&'a SignedPublicKey),
    Subkey(&'a SignedPublicSubKey),
}

impl Signer<'_> {
    fn fingerprint(&self) -> String {
        match self {
            Signer::Primary(certificate) => hex_of(&certificate.primary_key),
            Signer::Subkey(subkey) => hex_of(&subkey.key),
        }
    }

    fn key_id(&self) -> String {
        match self {
            Signer::Primary(certificate) => certificate.primary_key.legacy_key_id().to_string(),
            Signer::Subkey(subkey) => subkey.key.legacy_key_id().to_string(),
        }
        .to_ascii_uppercase()
    }

    fn created(&self) -> u64 {
        match self {
            Signer::Primary(certificate) => certificate.primary_key.created_at(),
            Signer::Subkey(subkey) => subkey.key.created_at(),
        }
        .as_secs()
        .into()
    }
}

fn signers(certificate: &SignedPublicKey) -> impl Iterator<Item = Signer<'_>> {
    std::iter::once(Signer::Primary(certificate)).chain(certificate.public_subkeys.iter().map(Signer::Subkey))
}

/// Whether the signature states to be made by this key. One that states nothing is nobody's.
fn names(signature: &Signature, signer: &Signer<'_>) -> bool {
    let fingerprints = signature.issuer_fingerprint();
    if fingerprints.is_empty() {
        return signature
            .issuer_key_id()
            .iter()
            .any(|id| id.to_string().eq_ignore_ascii_case(&signer.key_id()));
    }
    fingerprints.iter().any(|f| f.to_string().eq_ignore_ascii_case(&signer.fingerprint()))
}

fn issuer(signature: &Signature) -> String {
    let fingerprint = signature.issuer_fingerprint().first().map(|f| f.to_string());
    let id = || signature.issuer_key_id().first().map(|id| id.to_string());
    fingerprint.or_else(id).unwrap_or_else(|| "?".to_string()).to_ascii_uppercase()
}

fn check_by(
    signature: &Signature,
    text: &[u8],
    certificate: &SignedPublicKey,
    signer: &Signer<'_>,
    made: u64,
    now: u64,
) -> Result<GoodSignature, Refusal> {
    // The mathematics first: what is said about a key must not be triggered by somebody else's signature.
    let fits = match signer {
        Signer::Primary(certificate) => signature.verify(&certificate.primary_key, text),
        Signer::Subkey(subkey) => signature.verify(&subkey.key, text),
    };
    let key = signer.fingerprint();
    fits.map_err(|_| Refusal::Mismatch { key: key.clone() })?;
    if made < signer.created() {
        return Err(Refusal::BadCertificate { key, what: "which did not exist at that time" });
    }
    check_primary(certificate, matches!(signer, Signer::Primary(_)), now)?;
    if let Signer::Subkey(subkey) = signer {
        check_subkey(certificate, subkey, now)?;
    }
    Ok(GoodSignature { certificate: hex_of(&certificate.primary_key), made })
}

fn check_primary(certificate: &SignedPublicKey, must_sign: bool, now: u64) -> Result<(), Refusal> {
    let primary = &certificate.primary_key;
    let key = hex_of(primary);
    let bad = |what| Refusal::BadCertificate { key: key.clone(), what };
    // A revocation counts whatever its hash or date: believing a forged one costs an update, missing a true one
    // costs the house.
    if certificate.details.revocation_signatures.iter().any(|sig| sig.verify_key(primary).is_ok()) {
        return Err(Refusal::Revoked { key });
    }
    if !strong_key(primary.public_params()) {
        return Err(bad("which is too weak"));
    }
    let direct = certificate
        .details
        .direct_signatures
        .iter()
        .filter(|sig| sound(sig, now).is_ok() && sig.verify_key(primary).is_ok());
    let users = certificate.details.users.iter().filter_map(|user| {
        let own = |sig: &&Signature| sig.verify_certification(primary, Tag::UserId, &user.id).is_ok();
        if user.signatures.iter().filter(|s| s.typ() == Some(SignatureType::CertRevocation)).any(|s| own(&s))
        {
            return None;
        }
        newest(
            user.signatures
                .iter()
                .filter(|s| s.typ() != Some(SignatureType::CertRevocation))
                .filter(|sig| names(sig, &Signer::Primary(certificate)) && sound(sig, now).is_ok())
                .filter(own),
        )
    });
    let Some(own) = newest(direct.chain(users)) else {
        return Err(bad("which has no valid signature of its own over its name"));
    };
    not_expired(&key, primary.created_at().as_secs().into(), own, now)?;
    // Keys from before key flags may do everything.
    if must_sign && has_flags(own) && !own.key_flags().sign() {
        return Err(bad("which is not meant for signing"));
    }
    Ok(())
}

fn check_subkey(certificate: &SignedPublicKey, subkey: &SignedPublicSubKey, now: u64) -> Result<(), Refusal> {
    let primary = &certificate.primary_key;
    let key = hex_of(&subkey.key);
    let bad = |what| Refusal::BadCertificate { key: key.clone(), what };
    let of_type = |typ| subkey.signatures.iter().filter(move |sig| sig.typ() == Some(typ));
    let fits = |sig: &&Signature| sig.verify_subkey_binding(primary, &subkey.key).is_ok();
    if of_type(SignatureType::SubkeyRevocation).any(|sig| fits(&sig)) {
        return Err(Refusal::Revoked { key });
    }
    if !strong_key(subkey.key.public_params()) {
        return Err(bad("which is too weak"));
    }
    let bindings = of_type(SignatureType::SubkeyBinding).filter(|sig| sound(sig, now).is_ok()).filter(fits);
    let Some(binding) = newest(bindings) else {
        return Err(bad("which its primary key has not bound by a valid signature"));
    };
    not_expired(&key, subkey.key.created_at().as_secs().into(), binding, now)?;
    if !binding.key_flags().sign() {
        return Err(bad("which is not meant for signing"));
    }
    let confirmed = binding.embedded_signature().is_some_and(|back| {
        sound(back, now).is_ok() && back.verify_primary_key_binding(&subkey.key, primary).is_ok()
    });
    if !confirmed {
        return Err(bad("which has not confirmed that it belongs to its primary key"));
    }
    Ok(())
}

/// What every signature must have, whatever it is over. Gives the time it was made.
fn sound(signature: &Signature, now: u64) -> Result<u64, Refusal> {
    let unfit = |what| Refusal::Unfit { what };
    let strong = matches!(
        signature.hash_alg(),
        Some(
            HashAlgorithm::Sha256
                | HashAlgorithm::Sha384
                | HashAlgorithm::Sha512
                | HashAlgorithm::Sha3_256
                | HashAlgorithm::Sha3_512
        )
    );
    if !strong {
        return Err(unfit("is made with a hash that is no longer safe, such as SHA-1 or MD5"));
    }
    let Some(config) = signature.config() else {
        return Err(unfit("is of an unknown version"));
    };
    let unknown =
        |data: &SubpacketData| matches!(data, SubpacketData::Other(..) | SubpacketData::Experimental(..));
    if config.hashed_subpackets().any(|part| part.is_critical && unknown(&part.data)) {
        return Err(unfit("has a critical part that is not understood"));
    }
    let Some(made) = signature.created().map(|time| u64::from(time.as_secs())) else {
        return Err(unfit("does not say when it was made"));
    };
    if made > now.saturating_add(CLOCK_SKEW) {
        return Err(Refusal::Future { days: (made - now).div_ceil(86_400) });
    }
    match signature.signature_expiration_time().map(|life| u64::from(life.as_secs())) {
        Some(life) if life > 0 && now >= made.saturating_add(life) => Err(unfit("has expired")),
        _ => Ok(made),
    }
}

fn not_expired(key: &str, created: u64, own: &Signature, now: u64) -> Result<(), Refusal> {
    match own.key_expiration_time().map(|life| u64::from(life.as_secs())) {
        Some(life) if life > 0 && now >= created.saturating_add(life) => {
            Err(Refusal::Expired { key: key.to_string(), days: (now - created - life) / 86_400 })
        }
        _ => Ok(()),
    }
}

fn newest<'a>(signatures: impl Iterator<Item = &'a Signature>) -> Option<&'a Signature> {
    signatures.max_by_key(|sig| sig.created().map_or(0, |time| time.as_secs()))
}

fn has_flags(signature: &Signature) -> bool {
    signature.config().is_some_and(|config| {
        config.hashed_subpackets().any(|part| matches!(part.data, SubpacketData::KeyFlags(_)))
    })
}

fn strong_key(params: &PublicParams) -> bool {
    match params {
        // The parameters on the wire are modulus and exponent, each with two bytes of length before it.
        PublicParams::RSA(_) => params.write_len() >= 2048 / 8 + 2,
        PublicParams::EdDSALegacy(_)
        | PublicParams::Ed25519(_)
        | PublicParams::Ed448(_)
        | PublicParams::ECDSA(_) => true,
        _ => false,
    }
}

fn hex_of(key: &impl KeyDetails) -> String {
    key.fingerprint().to_string().to_ascii_uppercase()
}
