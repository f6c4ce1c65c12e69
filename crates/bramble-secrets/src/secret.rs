//! Values that cannot be printed.

use std::fmt;
use zeroize::Zeroize;

/// A value that must not be seen. It has no `Display` and no `Serialize`, its `Debug` shows nothing, and its
/// memory is overwritten when it is dropped.
///
/// ```
/// let key = bramble_secrets::Secret::new(String::from("hunter2"));
/// assert_eq!(format!("{key:?}"), "Secret(..)");
/// assert_eq!(key.expose(), "hunter2");
/// ```
///
/// ```compile_fail
/// println!("{}", bramble_secrets::Secret::new(String::from("hunter2")));
/// ```
pub struct Secret<T: Zeroize>(T);

/// A secret of text: a key in PEM, a token.
pub type SecretText = Secret<String>;
/// A secret of bytes.
pub type SecretBytes = Secret<Vec<u8>>;

impl<T: Zeroize> Secret<T> {
    /// Takes the value in. Copies made before are the caller's to wipe.
    pub fn new(value: T) -> Self {
        Secret(value)
    }

    /// The value itself. Each call is a place to look at in a review.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize + Clone> Clone for Secret<T> {
    fn clone(&self) -> Self {
        Secret(self.0.clone())
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Secret(value)
    }
}

/// The operating system gave no random bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the operating system gives no random bytes")]
pub struct NoRandomness;

/// `N` random bytes of the operating system.
pub fn random_bytes<const N: usize>() -> Result<Secret<[u8; N]>, NoRandomness> {
    let mut bytes = Secret([0; N]);
    getrandom::fill(&mut bytes.0).map_err(|_| NoRandomness)?;
    Ok(bytes)
}

/// `bytes` random bytes as lower-case hexadecimal text.
pub fn random_hex(bytes: usize) -> Result<SecretText, NoRandomness> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut raw = Secret(vec![0; bytes]);
    getrandom::fill(&mut raw.0).map_err(|_| NoRandomness)?;
    // Reserved in one piece: a growing string would leave parts of the secret in freed memory.
    let mut text = String::with_capacity(2 * bytes);
    for byte in raw.expose() {
        text.push(DIGITS[usize::from(byte >> 4)] as char);
        text.push(DIGITS[usize::from(byte & 15)] as char);
    }
    Ok(Secret(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing() {
        let text = SecretText::from(String::from("hunter2"));
        assert_eq!(format!("{text:?} {:?}", Some(&text)), "Secret(..) Some(Secret(..))");
    }

    #[test]
    fn random_text_has_its_length_and_differs() {
        let (a, b) = (random_hex(16).unwrap(), random_hex(16).unwrap());
        assert_eq!(a.expose().len(), 32);
        assert!(a.expose().bytes().all(|c| c.is_ascii_hexdigit()));
        assert_ne!(a.expose(), b.expose());
        assert_ne!(random_bytes::<32>().unwrap().expose(), &[0; 32]);
    }
}
