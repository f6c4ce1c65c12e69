//! An Ed25519 host key in OpenSSH's own file format (PROTOCOL.key in OpenSSH's source), unencrypted.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::SigningKey;

/// A host key: the private file's text and the public line.
pub(crate) struct HostKey {
    /// Text of `ssh_host_ed25519_key`.
    pub(crate) private: String,
    /// Line of `ssh_host_ed25519_key.pub`.
    pub(crate) public: String,
}

/// The files for a key made from `seed`; `check` is a number that the format repeats to notice a wrong passphrase.
pub(crate) fn host_key(seed: &[u8; 32], check: u32, comment: &str) -> HostKey {
    let signing = SigningKey::from_bytes(seed);
    let public = signing.verifying_key().to_bytes();
    let mut blob = Vec::new();
    string(&mut blob, b"ssh-ed25519");
    string(&mut blob, &public);

    let mut secret = Vec::new();
    secret.extend_from_slice(&check.to_be_bytes());
    secret.extend_from_slice(&check.to_be_bytes());
    secret.extend_from_slice(&blob);
    string(&mut secret, &[&seed[..], &public[..]].concat());
    string(&mut secret, comment.as_bytes());
    // Padded to the cipher's block (8 without one) with 1, 2, 3...
    for pad in 1.. {
        if secret.len().is_multiple_of(8) {
            break;
        }
        secret.push(pad);
    }

    let mut file = b"openssh-key-v1\0".to_vec();
    string(&mut file, b"none");
    string(&mut file, b"none");
    string(&mut file, b"");
    file.extend_from_slice(&1u32.to_be_bytes());
    string(&mut file, &blob);
    string(&mut file, &secret);

    let mut private = String::from("-----BEGIN OPENSSH PRIVATE KEY-----\n");
    let text = STANDARD.encode(&file);
    for line in text.as_bytes().chunks(70) {
        private.extend(line.iter().map(|b| char::from(*b)));
        private.push('\n');
    }
    private.push_str("-----END OPENSSH PRIVATE KEY-----\n");
    HostKey { private, public: format!("ssh-ed25519 {} {comment}\n", STANDARD.encode(&blob)) }
}

/// A length and the bytes (RFC 4251, section 5).
fn string(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u32).to_be_bytes());
    out.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The judge is `ssh-keygen`, where it is installed: it derives the public line from the private file.
    #[test]
    fn openssh_reads_the_key() {
        let key = host_key(&[7; 32], 0x1234_5678, "n1");
        assert!(key.public.starts_with("ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAA"));
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        crate::replace(&path, key.private.as_bytes(), 0o600).unwrap();
        let judged = std::process::Command::new("ssh-keygen").arg("-y").arg("-f").arg(&path).output();
        match judged {
            Ok(output) => {
                assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
                assert_eq!(String::from_utf8_lossy(&output.stdout), key.public);
            }
            // Without the judge the length of every part is still checked by reading the file back.
            Err(_) => assert_eq!(key.private.lines().count(), 7),
        }
    }
}
