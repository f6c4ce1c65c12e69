//! The secrets file: read, changed in memory, written whole.

use crate::atomic::{WriteError, write_private};
use crate::cipher::{self, DataKey, Refused};
use crate::identity::{Identities, Recipient};
use crate::rules::{DEFAULT_SUFFIX, Rule};
use crate::secret::{NoRandomness, Secret, SecretText, random_bytes};
use crate::tree::{Kind, Line, Map, Node, Raw, Scalar, Value, at, entries, find, find_mut, walk};
use crate::yaml;
use jiff::Timestamp;
use sha2::{Digest, Sha256, Sha512};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::{fmt, fs};

mod clear;
mod rekey;

pub use clear::ClearError;
pub use rekey::RekeyError;

/// The key of sops' own section.
const SECTION: &str = "sops";
/// A secrets file beyond this is not one: the largest clusters have some hundred kB.
const LIMIT: u64 = 16 << 20;
/// The version of sops whose format is written. sops replaces it with its own when it edits.
const FORMAT_OF: &str = "3.13.2";
/// Put before the values when only encrypted ones count (`sops.go`, `MACOnlyEncryptedInitialization`): SHA-256 of
/// the word `sops`.
const MAC_ONLY_ENCRYPTED: &[u8] = b"sops";

/// A file in the format of SOPS, decrypted in memory.
pub struct SecretsFile {
    path: PathBuf,
    /// Everything but the `sops` section.
    top: Map,
    section: Map,
    rule: Rule,
    key: DataKey,
    /// What the file on disk was when it was read; `None` for one that is not there yet.
    on_disk: Option<[u8; 32]>,
    changed: bool,
}

impl fmt::Debug for SecretsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecretsFile").field("path", &self.path).finish_non_exhaustive()
    }
}

/// A secrets file could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is no YAML that sops writes.
    #[error("{}:{line}:{column}: {what}", path.display())]
    Yaml {
        /// The file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// It has no `sops` section.
    #[error("{} is not encrypted: it has no `sops` section", path.display())]
    NotEncrypted {
        /// The file.
        path: PathBuf,
    },
    /// It uses something of sops that this crate does not follow.
    #[error("{} uses `{what}` of sops, which is not supported here", path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// The setting.
        what: String,
    },
    /// There is no key at hand.
    #[error("no age key to open {}; looked at: {}", path.display(), looked.join(", "))]
    NoKey {
        /// The file.
        path: PathBuf,
        /// The places that were looked at.
        looked: Vec<String>,
    },
    /// None of the keys at hand is one the file was encrypted for.
    #[error("none of the age keys at hand opens {}; it is for {}", path.display(), recipients.join(", "))]
    WrongKey {
        /// The file.
        path: PathBuf,
        /// The public keys it was encrypted for.
        recipients: Vec<String>,
    },
    /// A value lies in clear where an encrypted one must be.
    #[error("{}: `{at}` is not encrypted: write it with `sops`, never by hand", path.display())]
    Clear {
        /// The file.
        path: PathBuf,
        /// Keys to the value, joined with dots.
        at: String,
    },
    /// A value does not decrypt.
    #[error("{}: `{at}` was damaged, moved or changed without the key", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Keys to the value, joined with dots.
        at: String,
    },
    /// The file as a whole is not what was written last.
    #[error("{} was changed without the key: its checksum (mac) does not fit", path.display())]
    Tampered {
        /// The file.
        path: PathBuf,
    },
}

/// A value could not be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// The path goes through something that is not a map, or is empty, or lies in sops' section.
    #[error("nothing can be set at `{at}`")]
    Place {
        /// Keys to the value, joined with dots.
        at: String,
    },
    /// The file's rule leaves the place in clear, and a secret does not go there.
    #[error("`{at}` would be written in clear: the file's rule for sops leaves it unencrypted")]
    Unencrypted {
        /// Keys to the value, joined with dots.
        at: String,
    },
}

/// A secrets file could not be written. What lies on the disk is what lay there before.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Someone else wrote it since it was read.
    #[error("{} was changed by someone else meanwhile: run again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// No random bytes for a nonce.
    #[error(transparent)]
    Random(#[from] NoRandomness),
}

/// What [`SecretsFile::save`] did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Saved {
    /// Nothing: there was nothing to change.
    Unchanged,
    /// It wrote the file.
    Written,
}

impl SecretsFile {
    /// A new, empty file for these recipients, in memory; [`SecretsFile::save`] makes it.
    pub fn create(path: &Path, recipients: &[Recipient]) -> Result<SecretsFile, NoRandomness> {
        let key = random_bytes::<32>()?;
        let mut section = Map::new();
        let mut keys = Vec::new();
        for recipient in recipients {
            keys.push(Line::Entry(Node::Map(vec![
                pair("recipient", Scalar::quoted(recipient.to_string())),
                pair("enc", Scalar::quoted(seal_key(&key, recipient)?)),
            ])));
        }
        section.push(pair("age", Node::List(keys)));
        section.push(pair("lastmodified", Scalar::quoted("")));
        section.push(pair("mac", Scalar::quoted("")));
        section.push(pair("unencrypted_suffix", Scalar::quoted(DEFAULT_SUFFIX)));
        section.push(pair("version", Scalar::quoted(FORMAT_OF)));
        let rule = Rule::UnencryptedSuffix(DEFAULT_SUFFIX.into());
        Ok(SecretsFile {
            path: path.into(),
            top: Map::new(),
            section,
            rule,
            key,
            on_disk: None,
            changed: true,
        })
    }

    /// Reads and decrypts the file at `path`, checking every value and the file as a whole.
    pub fn load(path: &Path, identities: &Identities) -> Result<SecretsFile, LoadError> {
        let read = |source| LoadError::Read { path: path.into(), source };
        let mut bytes = Vec::new();
        fs::File::open(path).and_then(|f| f.take(LIMIT + 1).read_to_end(&mut bytes)).map_err(read)?;
        if bytes.len() as u64 > LIMIT {
            return Err(read(io::Error::other("larger than 16 MiB: not a secrets file")));
        }
        let digest = Sha256::digest(&bytes).into();
        let text = String::from_utf8(bytes).map_err(|e| {
            drop(Secret::new(e.into_bytes()));
            read(io::Error::from(io::ErrorKind::InvalidData))
        })?;
        let mut file = SecretsFile::open(path, &text, identities)?;
        file.on_disk = Some(digest);
        Ok(file)
    }

    fn open(path: &Path, text: &str, identities: &Identities) -> Result<SecretsFile, LoadError> {
        let path = path.to_path_buf();
        let mut top = match yaml::parse(text.strip_prefix('\u{feff}').unwrap_or(text)) {
            Ok(top) => top,
            Err(e) => return Err(LoadError::Yaml { path, line: e.line, column: e.column, what: e.what }),
        };
        let place = top.iter().position(|line| matches!(line, Line::Entry((key, _)) if key == SECTION));
        let Some(Line::Entry((_, Node::Map(section)))) = place.map(|i| top.remove(i)) else {
            return Err(LoadError::NotEncrypted { path });
        };
        let rule = match Rule::of(&section) {
            Ok(rule) => rule,
            Err(what) => return Err(LoadError::Unsupported { path, what: what.into() }),
        };
        let key = open_key(&path, &section, identities)?;
        let mut file = SecretsFile { path, top, section, rule, key, on_disk: None, changed: false };
        let mac = file.decrypt()?;
        if file.stated_mac().as_deref() != Some(mac.as_str()) {
            return Err(LoadError::Tampered { path: file.path });
        }
        Ok(file)
    }

    /// Gives every scalar its value, and the checksum over them.
    fn decrypt(&mut self) -> Result<String, LoadError> {
        let SecretsFile { path, top, rule, key, section, .. } = self;
        let mut mac = Mac::new(section);
        walk(top, &mut Vec::new(), &mut |scalar, keys| {
            let at = || keys.join(".");
            let Some(raw) = &scalar.raw else { return Ok(()) };
            let plain = if raw.plain { yaml::plain_kind(&raw.text) } else { Some(Kind::Text) };
            let encrypted = rule.encrypts(keys);
            let value = if plain == Some(Kind::Null) {
                // Null is never encrypted and never counted.
                (Kind::Null, SecretText::new(String::new()))
            } else if encrypted {
                cipher::decrypt(key, &cipher::place(keys), &raw.text).map_err(|refused| match refused {
                    Refused::Clear => LoadError::Clear { path: path.clone(), at: at() },
                    Refused::Damaged => LoadError::Damaged { path: path.clone(), at: at() },
                    Refused::Type => {
                        LoadError::Unsupported { path: path.clone(), what: format!("type of {}", at()) }
                    }
                })?
            } else {
                let unsupported =
                    || LoadError::Unsupported { path: path.clone(), what: format!("unquoted {}", at()) };
                let kind = plain.ok_or_else(unsupported)?;
                (kind, SecretText::new(kind.canonical(&raw.text).ok_or_else(unsupported)?))
            };
            mac.count(encrypted, &value);
            scalar.value = Some(value);
            Ok(())
        })?;
        Ok(mac.finish())
    }

    /// The checksum that the file states; `None` when it does not decrypt.
    fn stated_mac(&self) -> Option<String> {
        let text = |key| find(&self.section, key).and_then(Node::raw_text);
        let (_, mac) = cipher::decrypt(&self.key, text("lastmodified")?, text("mac")?).ok()?;
        Some(mac.expose().clone())
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text at this path of keys; `None` when nothing is there, or a map or a list.
    pub fn get(&self, path: &[&str]) -> Option<&SecretText> {
        match at(&self.top, path)? {
            Node::Scalar(Scalar { value: Some((kind, text)), .. }) if *kind != Kind::Null => Some(text),
            _ => None,
        }
    }

    /// Everything at and below this path of keys.
    pub fn get_value(&self, path: &[&str]) -> Option<Value> {
        at(&self.top, path).map(Value::from_node)
    }

    /// The keys of the map at this path, in their order; of the whole file for an empty path.
    pub fn keys(&self, path: &[&str]) -> Vec<&str> {
        let map = match path {
            [] => &self.top,
            _ => match at(&self.top, path) {
                Some(Node::Map(map)) => map,
                _ => return Vec::new(),
            },
        };
        entries(map).map(|(key, _)| key.as_str()).collect()
    }

    /// Sets the text at this path, making the maps to it. In memory: [`SecretsFile::save`] writes.
    pub fn set(&mut self, path: &[&str], text: SecretText) -> Result<(), SetError> {
        if self.get(path).is_some_and(|old| old.expose() == text.expose()) {
            return Ok(());
        }
        self.set_value(path, Value::Text(text))
    }

    /// Sets everything at and below this path. In memory: [`SecretsFile::save`] writes.
    pub fn set_value(&mut self, path: &[&str], value: Value) -> Result<(), SetError> {
        let refused = || SetError::Place { at: path.join(".") };
        if path.first() == Some(&SECTION) {
            return Err(refused());
        }
        let mut node = value.into_node();
        let mut full: Vec<String> = path.iter().map(|k| k.to_string()).collect();
        let rule = &self.rule;
        let mut check = |scalar: &mut Scalar, keys: &[String]| match &scalar.value {
            Some((Kind::Null, _)) | None => Ok(()),
            Some(_) if rule.encrypts(keys) => Ok(()),
            Some(_) => Err(SetError::Unencrypted { at: keys.join(".") }),
        };
        let last = full.pop().ok_or_else(refused)?;
        let mut probe = vec![Line::Entry((last, node))];
        walk(&mut probe, &mut full, &mut check)?;
        node = match probe.pop() {
            Some(Line::Entry((_, node))) => node,
            _ => return Err(refused()),
        };
        put(&mut self.top, path, node).ok_or_else(refused)?;
        self.changed = true;
        Ok(())
    }

    /// Removes what is at this path. `false` when nothing was. In memory: [`SecretsFile::save`] writes.
    pub fn remove(&mut self, path: &[&str]) -> bool {
        let Some((last, parents)) = path.split_last() else { return false };
        let mut map = &mut self.top;
        for key in parents {
            match find_mut(map, key) {
                Some(Node::Map(inner)) => map = inner,
                _ => return false,
            }
        }
        let before = map.len();
        map.retain(|line| !matches!(line, Line::Entry((key, _)) if key == last));
        let removed = map.len() < before;
        self.changed |= removed;
        removed
    }

    /// Makes the file readable for one more recipient. `false` when it is already. In memory.
    pub fn add_recipient(&mut self, recipient: &Recipient) -> Result<bool, NoRandomness> {
        if recipients(&self.section).contains(&recipient.to_string()) {
            return Ok(false);
        }
        let entry = Line::Entry(Node::Map(vec![
            pair("recipient", Scalar::quoted(recipient.to_string())),
            pair("enc", Scalar::quoted(seal_key(&self.key, recipient)?)),
        ]));
        match find_mut(&mut self.section, "age") {
            Some(Node::List(keys)) => keys.push(entry),
            Some(other) => *other = Node::List(vec![entry]),
            None => self.section.insert(0, pair("age", Node::List(vec![entry]))),
        }
        self.changed = true;
        Ok(true)
    }

    /// The public keys the file is encrypted for.
    pub fn recipients(&self) -> Vec<String> {
        recipients(&self.section)
    }

    /// Writes the file if anything changed: whole or not at all, mode 0600. Values that did not change keep their
    /// ciphertext. Refuses when the file on disk is not the one that was read.
    pub fn save(&mut self, now: Timestamp) -> Result<Saved, SaveError> {
        if !self.changed {
            return Ok(Saved::Unchanged);
        }
        let on_disk = match fs::read(&self.path) {
            Ok(bytes) => Some(Sha256::digest(&bytes).into()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(source) => return Err(WriteError { path: self.path.clone(), source }.into()),
        };
        if on_disk != self.on_disk {
            return Err(SaveError::Changed { path: self.path.clone() });
        }
        let text = self.encrypt(now)?;
        write_private(&self.path, text.as_bytes())?;
        self.on_disk = Some(Sha256::digest(text.as_bytes()).into());
        self.changed = false;
        Ok(Saved::Written)
    }

    /// The text of the file, with a fresh checksum.
    fn encrypt(&mut self, now: Timestamp) -> Result<String, NoRandomness> {
        let SecretsFile { top, rule, key, section, .. } = self;
        let mut mac = Mac::new(section);
        walk(top, &mut Vec::new(), &mut |scalar, keys| {
            let Some(value) = &scalar.value else { return Ok(()) };
            let encrypted = rule.encrypts(keys);
            mac.count(encrypted, value);
            if scalar.raw.is_some() {
                return Ok(());
            }
            if !encrypted {
                // Only an edit by hand puts a value where the rule wants it in clear.
                scalar.raw = clear::clear_scalar(scalar).raw;
                return Ok(());
            }
            let (kind, text) = value;
            let sealed = cipher::encrypt(key, &cipher::place(keys), *kind, text.expose())?;
            scalar.raw = Some(match sealed {
                Some(sealed) => Raw { text: sealed, plain: true },
                None if *kind == Kind::Null => Raw { text: "null".into(), plain: true },
                None => Raw { text: String::new(), plain: false },
            });
            Ok(())
        })?;
        // Whole seconds: the text is the additional data of the checksum, and sops cuts fractions off.
        let time = Timestamp::from_second(now.as_second()).unwrap_or(now).to_string();
        let sealed = cipher::encrypt(key, &time, Kind::Text, &mac.finish())?.unwrap_or_default();
        replace(section, "lastmodified", Scalar::quoted(time));
        replace(
            section,
            "mac",
            Node::Scalar(Scalar { raw: Some(Raw { text: sealed, plain: true }), value: None }),
        );
        let mut text = yaml::emit(top);
        let body = yaml::emit(section);
        text.push_str(SECTION);
        text.push_str(":\n");
        for line in body.lines() {
            if !line.is_empty() {
                text.push_str("    ");
                text.push_str(line);
            }
            text.push('\n');
        }
        Ok(text)
    }
}

/// sops' checksum: SHA-512 over the values in their order.
struct Mac {
    hash: Sha512,
    only_encrypted: bool,
}

impl Mac {
    fn new(section: &Map) -> Mac {
        let only_encrypted =
            find(section, "mac_only_encrypted").and_then(Node::raw_text).is_some_and(|t| t == "true");
        let mut hash = Sha512::new();
        if only_encrypted {
            hash.update(Sha256::digest(MAC_ONLY_ENCRYPTED));
        }
        Mac { hash, only_encrypted }
    }

    fn count(&mut self, encrypted: bool, (_, text): &(Kind, SecretText)) {
        if encrypted || !self.only_encrypted {
            self.hash.update(text.expose().as_bytes());
        }
    }

    fn finish(self) -> String {
        self.hash.finalize().iter().map(|byte| format!("{byte:02X}")).collect()
    }
}

fn pair(key: &str, node: Node) -> Line<(String, Node)> {
    Line::Entry((key.to_string(), node))
}

fn replace(map: &mut Map, key: &str, node: Node) {
    match find_mut(map, key) {
        Some(place) => *place = node,
        None => map.push(pair(key, node)),
    }
}

/// Puts `node` at `path`, making maps on the way. `None` when something else is in the way.
fn put(map: &mut Map, path: &[&str], node: Node) -> Option<()> {
    let (first, rest) = path.split_first()?;
    if rest.is_empty() {
        replace(map, first, node);
        return Some(());
    }
    if find(map, first).is_none() {
        map.push(pair(first, Node::Map(Map::new())));
    }
    match find_mut(map, first)? {
        Node::Map(inner) => put(inner, rest, node),
        _ => None,
    }
}

/// The entries of `sops.age`.
fn age_keys(section: &Map) -> impl Iterator<Item = &Map> {
    let list = match find(section, "age") {
        Some(Node::List(items)) => items.as_slice(),
        _ => &[],
    };
    entries(list).filter_map(|node| match node {
        Node::Map(map) => Some(map),
        _ => None,
    })
}

fn recipients(section: &Map) -> Vec<String> {
    age_keys(section)
        .filter_map(|k| find(k, "recipient").and_then(Node::raw_text))
        .map(str::to_string)
        .collect()
}

fn seal_key(key: &DataKey, recipient: &Recipient) -> Result<String, NoRandomness> {
    // Writing to memory; what is left that can fail is the system's randomness.
    age::encrypt_and_armor(&recipient.0, key.expose()).map_err(|_| NoRandomness)
}

/// The file's key, from the first recipient's entry that one of the keys at hand opens.
fn open_key(path: &Path, section: &Map, identities: &Identities) -> Result<DataKey, LoadError> {
    let path = path.to_path_buf();
    if find(section, "key_groups").is_some() {
        return Err(LoadError::Unsupported { path, what: "key_groups".into() });
    }
    if identities.is_empty() {
        return Err(LoadError::NoKey { path, looked: identities.places.clone() });
    }
    for entry in age_keys(section) {
        let Some(sealed) = find(entry, "enc").and_then(Node::raw_text) else { continue };
        for identity in &identities.keys {
            if let Ok(opened) = age::decrypt(&identity.0, sealed.as_bytes()) {
                let opened = Secret::new(opened);
                if let Ok(key) = <[u8; 32]>::try_from(opened.expose().as_slice()) {
                    return Ok(Secret::new(key));
                }
            }
        }
    }
    Err(LoadError::WrongKey { path, recipients: recipients(section) })
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
