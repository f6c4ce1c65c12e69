//! OpenPGP keys made in the test, from a seed and without chance, in every shape that must be refused.

use pgp::composed::{SignedKeyDetails, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::ed25519::{self, Mode};
use pgp::crypto::hash::HashAlgorithm;
use pgp::crypto::public_key::PublicKeyAlgorithm;
use pgp::packet::{
    KeyFlags, PacketTrait, PubKeyInner, PublicKey, PublicSubkey, RevocationCode, SecretKey, SecretSubkey,
    Signature, SignatureConfig, SignatureType, Subpacket, SubpacketData, UserId,
};
use pgp::ser::Serialize;
use pgp::types::{
    Duration, KeyDetails, KeyVersion, PacketHeaderVersion, Password, PlainSecretParams, PublicParams,
    SecretParams, SignedUser, SigningKey, Tag, Timestamp,
};

/// When all keys are made: 2026-01-01.
pub const BIRTH: u64 = 1_767_225_600;
/// When all texts are signed: a month later.
pub const SIGNED: u64 = BIRTH + 30 * 86_400;

/// How a key is made.
#[derive(Clone, Default)]
pub struct Shape {
    /// Seconds from birth to expiry of the primary key.
    pub life: Option<u64>,
    /// The primary key has revoked itself.
    pub revoked: bool,
    /// The name carries no signature of the primary key.
    pub unsigned_name: bool,
    /// Texts are signed by a subkey.
    pub subkey: Option<Subkey>,
}

/// How the signing subkey is made.
#[derive(Clone, Default)]
pub struct Subkey {
    /// Seconds from birth to expiry.
    pub life: Option<u64>,
    /// The primary key has revoked it.
    pub revoked: bool,
    /// It was bound by another primary key.
    pub foreign_binding: bool,
    /// It has not confirmed the binding.
    pub unconfirmed: bool,
    /// It is bound for encryption only.
    pub not_for_signing: bool,
}

/// A key pair that can sign release files.
pub struct Maker {
    primary: SecretKey,
    subkey: Option<SecretSubkey>,
    certificate: SignedPublicKey,
}

/// How a text is signed.
#[derive(Clone)]
pub struct How {
    pub made: u64,
    pub life: Option<u64>,
    pub critical_unknown: bool,
    pub without_time: bool,
}

impl Default for How {
    fn default() -> Self {
        How { made: SIGNED, life: None, critical_unknown: false, without_time: false }
    }
}

fn time(seconds: u64) -> Timestamp {
    Timestamp::from_secs(seconds.try_into().unwrap())
}

fn life(seconds: u64) -> Duration {
    Duration::from_secs(seconds.try_into().unwrap())
}

fn secret(seed: u8) -> (PubKeyInner, SecretParams) {
    let plain =
        PlainSecretParams::Ed25519(ed25519::SecretKey::try_from_bytes([seed; 32], Mode::Ed25519).unwrap());
    let params = PublicParams::try_from(&plain).unwrap();
    let inner =
        PubKeyInner::new(KeyVersion::V4, PublicKeyAlgorithm::Ed25519, time(BIRTH), None, params).unwrap();
    (inner, SecretParams::Plain(plain))
}

fn primary_of(seed: u8) -> SecretKey {
    let (inner, params) = secret(seed);
    SecretKey::new(PublicKey::from_inner(inner).unwrap(), params).unwrap()
}

fn config(
    typ: SignatureType,
    key: &impl SigningKey,
    made: Option<u64>,
    more: Vec<SubpacketData>,
) -> SignatureConfig {
    let mut config = SignatureConfig::v4(typ, key.algorithm(), HashAlgorithm::Sha256);
    let mut parts: Vec<SubpacketData> =
        made.map(|made| SubpacketData::SignatureCreationTime(time(made))).into_iter().collect();
    parts.push(SubpacketData::IssuerFingerprint(key.fingerprint()));
    parts.extend(more);
    config.hashed_subpackets = parts.into_iter().map(|data| Subpacket::regular(data).unwrap()).collect();
    config
}

fn flags(sign: bool) -> SubpacketData {
    let mut flags = KeyFlags::default();
    flags.set_certify(true);
    flags.set_sign(sign);
    SubpacketData::KeyFlags(flags)
}

impl Maker {
    /// A key that signs with its primary key and has no faults.
    pub fn good(seed: u8) -> Maker {
        Maker::new(seed, Shape::default())
    }

    pub fn new(seed: u8, shape: Shape) -> Maker {
        let pw = Password::empty();
        let primary = primary_of(seed);
        let public = primary.public_key().clone();

        let name = UserId::from_str(PacketHeaderVersion::New, format!("Test Archive {seed}")).unwrap();
        let mut about = vec![flags(true)];
        about.extend(shape.life.map(|s| SubpacketData::KeyExpirationTime(life(s))));
        let signer = if shape.unsigned_name { primary_of(200) } else { primary.clone() };
        let own = config(SignatureType::CertPositive, &signer, Some(BIRTH), about)
            .sign_certification(&signer, &public, &pw, Tag::UserId, &name)
            .unwrap();
        let mut revocations = Vec::new();
        if shape.revoked {
            let reason = SubpacketData::RevocationReason(RevocationCode::KeyCompromised, "test".into());
            revocations.push(
                config(SignatureType::KeyRevocation, &primary, Some(BIRTH + 86_400), vec![reason])
                    .sign_key(&primary, &pw, &public)
                    .unwrap(),
            );
        }
        let users = vec![SignedUser::new(name, vec![own])];
        let details = SignedKeyDetails::new(revocations, Vec::new(), users, Vec::new());

        let mut subkeys = Vec::new();
        let mut subkey = None;
        if let Some(shape) = shape.subkey {
            let (secret, bound) = make_subkey(&primary, &shape, seed, &pw);
            subkeys.push(bound);
            subkey = Some(secret);
        }
        Maker { primary, subkey, certificate: SignedPublicKey::new(public, details, subkeys) }
    }

    /// The certificate, as a keyring file.
    pub fn keyring(&self) -> Vec<u8> {
        self.certificate.to_bytes().unwrap()
    }

    pub fn fingerprint(&self) -> String {
        self.certificate.primary_key.fingerprint().to_string().to_ascii_uppercase()
    }

    pub fn signing_fingerprint(&self) -> String {
        match &self.subkey {
            Some(subkey) => subkey.fingerprint().to_string().to_ascii_uppercase(),
            None => self.fingerprint(),
        }
    }

    fn signature(&self, text: &str, how: &How) -> Signature {
        match &self.subkey {
            Some(key) => sign_by(key, text, how),
            None => sign_by(&self.primary, text, how),
        }
    }

    /// Clear-signs a text.
    pub fn sign(&self, text: &str) -> String {
        clear_signed(text, &[self.signature(text, &How::default())])
    }

    pub fn sign_how(&self, text: &str, how: &How) -> String {
        clear_signed(text, &[self.signature(text, how)])
    }
}

/// Clear-signs a text with several keys.
pub fn sign_all(text: &str, makers: &[&Maker]) -> String {
    let signatures: Vec<Signature> = makers.iter().map(|m| m.signature(text, &How::default())).collect();
    clear_signed(text, &signatures)
}

fn make_subkey(
    primary: &SecretKey,
    shape: &Subkey,
    seed: u8,
    pw: &Password,
) -> (SecretSubkey, SignedPublicSubKey) {
    let (inner, params) = secret(seed.wrapping_add(100));
    let secret = SecretSubkey::new(PublicSubkey::from_inner(inner).unwrap(), params).unwrap();
    let public = secret.public_key().clone();
    let binder = if shape.foreign_binding { primary_of(200) } else { primary.clone() };
    let mut about = vec![flags(!shape.not_for_signing)];
    about.extend(shape.life.map(|s| SubpacketData::KeyExpirationTime(life(s))));
    if !shape.unconfirmed {
        let back = config(SignatureType::KeyBinding, &secret, Some(BIRTH), Vec::new())
            .sign_primary_key_binding(&secret, &public, pw, primary.public_key())
            .unwrap();
        about.push(SubpacketData::EmbeddedSignature(Box::new(back)));
    }
    let mut signatures = vec![
        config(SignatureType::SubkeyBinding, &binder, Some(BIRTH), about)
            .sign_subkey_binding(&binder, binder.public_key(), pw, &public)
            .unwrap(),
    ];
    if shape.revoked {
        let reason = SubpacketData::RevocationReason(RevocationCode::KeyRetired, "test".into());
        signatures.push(
            config(SignatureType::SubkeyRevocation, primary, Some(BIRTH + 86_400), vec![reason])
                .sign_subkey_binding(primary, primary.public_key(), pw, &public)
                .unwrap(),
        );
    }
    (secret, SignedPublicSubKey::new(public, signatures))
}

fn sign_by(key: &impl SigningKey, text: &str, how: &How) -> Signature {
    let mut more: Vec<SubpacketData> =
        how.life.map(|s| SubpacketData::SignatureExpirationTime(life(s))).into_iter().collect();
    if how.critical_unknown {
        more.push(SubpacketData::Other(95, "?".into()));
    }
    let made = (!how.without_time).then_some(how.made);
    let canonical = text.trim_end_matches('\n').replace('\n', "\r\n");
    let signature = config(SignatureType::Text, key, made, more)
        .sign(key, &Password::empty(), canonical.as_bytes())
        .unwrap();
    if how.critical_unknown { with_last_part_critical(&signature) } else { signature }
}

/// rPGP will not sign with a critical part that it does not know, so the mark is made afterwards.
fn with_last_part_critical(signature: &Signature) -> Signature {
    let mut config = signature.config().unwrap().clone();
    config.hashed_subpackets.last_mut().unwrap().is_critical = true;
    let bytes = signature.signature().unwrap().clone();
    Signature::from_config(config, signature.signed_hash_value().unwrap(), bytes).unwrap()
}

fn clear_signed(text: &str, signatures: &[Signature]) -> String {
    let mut packets = Vec::new();
    for signature in signatures {
        signature.to_writer_with_header(&mut packets).unwrap();
    }
    let mut armored = Vec::new();
    pgp::armor::write(&Raw(packets), pgp::armor::BlockType::Signature, &mut armored, None, true).unwrap();
    let body: String = text
        .trim_end_matches('\n')
        .lines()
        .map(|line| if line.starts_with('-') { format!("- {line}\n") } else { format!("{line}\n") })
        .collect();
    let armored = String::from_utf8(armored).unwrap();
    format!("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n{body}{armored}")
}

struct Raw(Vec<u8>);

impl Serialize for Raw {
    fn to_writer<W: std::io::Write>(&self, writer: &mut W) -> pgp::errors::Result<()> {
        Ok(writer.write_all(&self.0)?)
    }
    fn write_len(&self) -> usize {
        self.0.len()
    }
}
