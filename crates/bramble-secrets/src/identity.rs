//! age keys: where they are found, and how a new one is made.

use crate::atomic::write_new;
use crate::secret::{Secret, SecretText};
use age::secrecy::ExposeSecret;
use age::x25519;
use jiff::Timestamp;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::{env, fmt, fs};

/// A public key that files are encrypted for: `age1...`.
#[derive(Clone)]
pub struct Recipient(pub(crate) x25519::Recipient);

/// A text that is not a public key this crate can encrypt for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an age public key (age1...)")]
pub struct RecipientError {
    /// The text as given; shortened, and withheld if it looks like a private key.
    pub text: String,
}

impl FromStr for Recipient {
    type Err = RecipientError;
    fn from_str(text: &str) -> Result<Self, RecipientError> {
        let text = text.trim();
        text.parse().map(Recipient).map_err(|_| {
            let private = text.to_ascii_uppercase().contains("SECRET");
            RecipientError {
                text: if private { "(a private key)".into() } else { text.chars().take(80).collect() },
            }
        })
    }
}

impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Recipient({self})")
    }
}

impl PartialEq for Recipient {
    fn eq(&self, other: &Self) -> bool {
        self.to_string() == other.to_string()
    }
}

impl Eq for Recipient {}

/// A private age key (X25519).
#[derive(Clone)]
pub struct Identity(pub(crate) x25519::Identity);

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity(of {})", self.recipient())
    }
}

/// A new key could not be kept.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the age key to {}", path.display())]
pub struct CreateIdentityError {
    /// Where.
    pub path: PathBuf,
    /// Why; an existing file is never overwritten.
    pub source: io::Error,
}

impl Identity {
    /// A new random key.
    pub fn generate() -> Identity {
        Identity(x25519::Identity::generate())
    }

    /// The public key of this one.
    pub fn recipient(&self) -> Recipient {
        Recipient(self.0.to_public())
    }

    /// The private key as text, `AGE-SECRET-KEY-1...`.
    pub fn to_text(&self) -> SecretText {
        Secret::new(self.0.to_string().expose_secret().to_string())
    }

    /// Writes the key to a new file of mode 0600 in the form of `age-keygen`, making its directory (0700) if need
    /// be. An existing file is an error: it holds somebody's keys.
    pub fn write_new(&self, path: &Path, now: Timestamp) -> Result<(), CreateIdentityError> {
        let failed = |source| CreateIdentityError { path: path.to_path_buf(), source };
        if let Some(directory) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
            use std::os::unix::fs::DirBuilderExt;
            fs::DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        }
        let now = Timestamp::from_second(now.as_second()).unwrap_or(now);
        let text = Secret::new(format!(
            "# created: {now}\n# public key: {}\n{}\n",
            self.recipient(),
            self.to_text().expose()
        ));
        write_new(path, text.expose().as_bytes()).map_err(failed)
    }
}

/// The places where sops looks for age keys.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// `SOPS_AGE_KEY`: the keys themselves, separated by white space.
    pub key: Option<SecretText>,
    /// `SOPS_AGE_KEY_FILE`: a file of keys.
    pub key_file: Option<PathBuf>,
    /// The user's own file of keys: `$XDG_CONFIG_HOME/sops/age/keys.txt`.
    pub user_file: Option<PathBuf>,
}

impl Environment {
    /// What this process was started with. `~/.config` stands in for an unset `XDG_CONFIG_HOME`, and on macOS
    /// `~/Library/Application Support`, as with sops.
    pub fn of_process() -> Environment {
        let path = |name| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let below_home = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".config" };
        let config = path("XDG_CONFIG_HOME").or_else(|| path("HOME").map(|home| home.join(below_home)));
        Environment {
            key: env::var("SOPS_AGE_KEY").ok().map(Secret::new),
            key_file: path("SOPS_AGE_KEY_FILE"),
            user_file: config.map(|c| c.join("sops/age/keys.txt")),
        }
    }
}

/// The private keys at hand, and where they were looked for.
#[derive(Clone, Debug, Default)]
pub struct Identities {
    pub(crate) keys: Vec<Identity>,
    /// Every place that was looked at, found or not, for an error that helps.
    pub(crate) places: Vec<String>,
    /// Keys of kinds this crate does not know (plugins, post-quantum) that were passed over.
    pub(crate) passed_over: usize,
}

/// A place that should hold keys does not.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file cannot be read.
    #[error("cannot read the age keys in {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A line is not a key.
    #[error("{place}, line {line}: not an age key")]
    Malformed {
        /// The file, or the name of the variable.
        place: String,
        /// From 1.
        line: usize,
    },
}

impl Identities {
    /// Keys given by the caller.
    pub fn of(keys: Vec<Identity>) -> Identities {
        Identities { keys, ..Identities::default() }
    }

    /// Collects the keys from all places, as sops does. None at all is no error here: whoever needs one says so.
    pub fn find(environment: &Environment) -> Result<Identities, IdentityError> {
        let mut found = Identities::default();
        if let Some(text) = &environment.key {
            found.add("SOPS_AGE_KEY", text.expose(), true)?;
        } else {
            found.places.push("SOPS_AGE_KEY (not set)".into());
        }
        match &environment.key_file {
            // A file that was named must be there.
            Some(path) => found.add_file(path)?,
            None => found.places.push("SOPS_AGE_KEY_FILE (not set)".into()),
        }
        match &environment.user_file {
            Some(path) if path.exists() => found.add_file(path)?,
            Some(path) => found.places.push(format!("{} (not there)", path.display())),
            None => {}
        }
        Ok(found)
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The public keys of those at hand.
    pub fn recipients(&self) -> Vec<Recipient> {
        self.keys.iter().map(Identity::recipient).collect()
    }

    fn add_file(&mut self, path: &Path) -> Result<(), IdentityError> {
        let text = fs::read_to_string(path)
            .map(Secret::new)
            .map_err(|source| IdentityError::Read { path: path.to_path_buf(), source })?;
        self.add(&path.display().to_string(), text.expose(), false)
    }

    fn add(&mut self, place: &str, text: &str, words: bool) -> Result<(), IdentityError> {
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let keys: Vec<&str> = if words { line.split_whitespace().collect() } else { vec![line] };
            for key in keys {
                if key.starts_with("AGE-PLUGIN-") || key.starts_with("AGE-SECRET-KEY-PQ-1") {
                    self.passed_over += 1;
                    continue;
                }
                let malformed = |_| IdentityError::Malformed { place: place.into(), line: number + 1 };
                self.keys.push(Identity(key.parse().map_err(malformed)?));
            }
        }
        self.places.push(place.into());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_new_key_is_found_again_and_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sops/age/keys.txt");
        let identity = Identity::generate();
        identity.write_new(&path, Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(
            fs::read_to_string(&path)
                .unwrap()
                .starts_with("# created: 1970-01-01T00:00:00Z\n# public key: age1")
        );
        let found =
            Identities::find(&Environment { user_file: Some(path.clone()), ..Default::default() }).unwrap();
        assert_eq!(found.recipients(), [identity.recipient()]);
        let error = Identity::generate().write_new(&path, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn keys_come_from_every_place() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b, c) = (Identity::generate(), Identity::generate(), Identity::generate());
        let file = dir.path().join("keys");
        fs::write(&file, format!("# mine\n\n{}\nAGE-PLUGIN-YUBIKEY-1XYZ\n", c.to_text().expose())).unwrap();
        let both = format!("{} {}", a.to_text().expose(), b.to_text().expose());
        let found = Identities::find(&Environment {
            key: Some(Secret::new(both)),
            key_file: Some(file),
            user_file: Some(dir.path().join("none")),
        })
        .unwrap();
        assert_eq!(found.recipients(), [a.recipient(), b.recipient(), c.recipient()]);
        assert_eq!(found.passed_over, 1);
    }

    #[test]
    fn a_malformed_key_is_named_by_its_line_only() {
        let environment = Environment {
            key: Some(Secret::new("# x\nAGE-SECRET-KEY-1NOTAKEY".into())),
            ..Default::default()
        };
        let text = Identities::find(&environment).unwrap_err().to_string();
        assert_eq!(text, "SOPS_AGE_KEY, line 2: not an age key");
        let missing = Environment { key_file: Some("/nowhere/keys".into()), ..Default::default() };
        assert!(matches!(Identities::find(&missing), Err(IdentityError::Read { .. })));
    }

    #[test]
    fn a_private_key_given_as_recipient_is_not_repeated() {
        let key = Identity::generate().to_text();
        let error = key.expose().parse::<Recipient>().unwrap_err();
        assert_eq!(error.text, "(a private key)");
        assert!("age1nonsense".parse::<Recipient>().is_err());
    }
}
