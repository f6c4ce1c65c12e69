//! Encryption of single values, as sops does it (`aes/cipher.go` and `sops.go` of sops 3.13).
//!
//! A value is `ENC[AES256_GCM,data:D,iv:I,tag:T,type:K]`: AES-256-GCM with a nonce of 32 bytes, the keys of the path
//! joined and closed with `:` as additional data, so that a value cannot be moved. Empty text stays empty.

use crate::secret::{NoRandomness, Secret, SecretText, random_bytes};
use crate::tree::Kind;
use aes_gcm::aead::consts::U32;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{AesGcm, KeyInit, Nonce, aes::Aes256};
use base64::{Engine, prelude::BASE64_STANDARD};

/// The key of one file. It is itself encrypted for every recipient.
pub(crate) type DataKey = Secret<[u8; 32]>;

type Gcm = AesGcm<Aes256, U32>;
const TAG: usize = 16;

/// A value that does not decrypt. Says no more, for more would be a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Not in the form of an encrypted value: written by hand.
    Clear,
    /// In the form, but of another key, place or content.
    Damaged,
    /// Of a type this crate does not know.
    Type,
}

/// Encrypts a value for its place. `None` for what sops leaves as it is: null and empty text.
pub(crate) fn encrypt(
    key: &DataKey,
    additional: &str,
    kind: Kind,
    text: &str,
) -> Result<Option<String>, NoRandomness> {
    let Some(tag) = kind.tag() else { return Ok(None) };
    if text.is_empty() {
        return Ok(None);
    }
    seal(key, additional, tag, text).map(Some)
}

fn seal(key: &DataKey, additional: &str, tag: &str, text: &str) -> Result<String, NoRandomness> {
    let nonce = random_bytes::<32>()?;
    let payload = Payload { msg: text.as_bytes(), aad: additional.as_bytes() };
    // The cipher refuses only messages beyond 64 GiB; no memory holds one here.
    let sealed = Gcm::new(key.expose().into())
        .encrypt(&Nonce::<U32>::from(*nonce.expose()), payload)
        .map_err(|_| NoRandomness)?;
    let (data, mac) = sealed.split_at(sealed.len() - TAG);
    let encode = |bytes: &[u8]| BASE64_STANDARD.encode(bytes);
    Ok(format!(
        "ENC[AES256_GCM,data:{},iv:{},tag:{},type:{tag}]",
        encode(data),
        encode(nonce.expose()),
        encode(mac)
    ))
}

/// Decrypts a value at its place. Empty text is empty text.
pub(crate) fn decrypt(key: &DataKey, additional: &str, raw: &str) -> Result<(Kind, SecretText), Refused> {
    if raw.is_empty() {
        return Ok((Kind::Text, SecretText::new(String::new())));
    }
    let [.., kind] = fields(raw).ok_or(Refused::Clear)?;
    let kind = Kind::from_tag(kind).ok_or(Refused::Type)?;
    let plain = open(key, additional, raw)?;
    let text = kind.canonical(plain.expose()).ok_or(Refused::Type)?;
    Ok((kind, SecretText::new(text)))
}

fn open(key: &DataKey, additional: &str, raw: &str) -> Result<SecretText, Refused> {
    let [data, iv, tag, _] = fields(raw).ok_or(Refused::Clear)?;
    let decode = |field: &str| BASE64_STANDARD.decode(field).map_err(|_| Refused::Damaged);
    let nonce: [u8; 32] = decode(iv)?.try_into().map_err(|_| Refused::Damaged)?;
    let mut sealed = decode(data)?;
    sealed.extend(decode(tag)?);
    let payload = Payload { msg: &sealed, aad: additional.as_bytes() };
    let plain = Gcm::new(key.expose().into())
        .decrypt(&Nonce::<U32>::from(nonce), payload)
        .map_err(|_| Refused::Damaged)?;
    match String::from_utf8(plain) {
        Ok(text) => Ok(SecretText::new(text)),
        Err(e) => {
            drop(Secret::new(e.into_bytes()));
            Err(Refused::Type)
        }
    }
}

/// sops' word for the type of a comment.
const COMMENT: &str = "comment";

/// Encrypts a comment that stands in the map or list at `path`.
pub(crate) fn encrypt_comment(key: &DataKey, path: &[String], text: &str) -> Result<String, NoRandomness> {
    if text.is_empty() {
        return Ok(String::new());
    }
    seal(key, &comment_place(path), COMMENT, text)
}

/// The text of an encrypted comment; `None` when it is not one of this place.
pub(crate) fn decrypt_comment(key: &DataKey, path: &[String], raw: &str) -> Option<SecretText> {
    if fields(raw)?[3] != COMMENT {
        return None;
    }
    open(key, &comment_place(path), raw).ok()
}

/// Whether this is in the form of an encrypted value or comment.
pub(crate) fn is_sealed(raw: &str) -> bool {
    fields(raw).is_some()
}

/// As [`place`], but sops puts the closing colon also behind no key at all.
fn comment_place(path: &[String]) -> String {
    if path.is_empty() { ":".to_string() } else { place(path) }
}

/// The four fields of an encrypted value.
fn fields(raw: &str) -> Option<[&str; 4]> {
    let inner = raw.strip_prefix("ENC[AES256_GCM,data:")?.strip_suffix(']')?;
    let (data, rest) = inner.split_once(",iv:")?;
    let (iv, rest) = rest.split_once(",tag:")?;
    let (tag, kind) = rest.split_once(",type:")?;
    Some([data, iv, tag, kind])
}

/// The additional data of a place: `a:b:` for the value at `a.b`.
pub(crate) fn place(path: &[String]) -> String {
    let mut out = String::new();
    for key in path {
        out.push_str(key);
        out.push(':');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> DataKey {
        Secret::new([7; 32])
    }

    #[test]
    fn a_value_opens_at_its_place_and_nowhere_else() {
        let sealed = encrypt(&key(), "a:b:", Kind::Text, "hunter2").unwrap().unwrap();
        assert!(sealed.starts_with("ENC[AES256_GCM,data:") && sealed.ends_with(",type:str]"));
        let (kind, text) = decrypt(&key(), "a:b:", &sealed).unwrap();
        assert_eq!((kind, text.expose().as_str()), (Kind::Text, "hunter2"));
        assert_eq!(decrypt(&key(), "a:c:", &sealed).err(), Some(Refused::Damaged));
        assert_eq!(decrypt(&Secret::new([8; 32]), "a:b:", &sealed).err(), Some(Refused::Damaged));
        assert_eq!(
            decrypt(&key(), "a:b:", &sealed.replace("type:str", "type:int")).err(),
            Some(Refused::Type)
        );
        assert_eq!(
            decrypt(&key(), "a:b:", &sealed.replace("type:str", "type:odd")).err(),
            Some(Refused::Type)
        );
    }

    #[test]
    fn what_is_no_encrypted_value_is_called_clear() {
        for raw in ["hunter2", "ENC[", "ENC[AES256_GCM,data:,iv:]"] {
            assert_eq!(decrypt(&key(), "", raw).err(), Some(Refused::Clear), "{raw}");
        }
        assert_eq!(
            decrypt(&key(), "", "ENC[AES256_GCM,data:!,iv:!,tag:!,type:str]").err(),
            Some(Refused::Damaged)
        );
    }

    #[test]
    fn null_and_empty_text_stay_as_they_are() {
        assert_eq!(encrypt(&key(), "", Kind::Text, "").unwrap(), None);
        assert_eq!(encrypt(&key(), "", Kind::Null, "").unwrap(), None);
        assert_eq!(decrypt(&key(), "", "").unwrap().1.expose(), "");
    }
}
