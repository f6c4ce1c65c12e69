//! The secrets file as the project uses it: what stands where in it, made once and kept.
//!
//! ```yaml
//! release: { signingKey: <hex>, ... }   # the rest in `keys.rs`
//! authorities: { client: { certificate, key, trusted }, ..., encryption: [...] }
//! nodes:
//!   n1: { incarnation, machineId, sshHostKey, sshHostKeyPublic, kubernetes: { <path>: <PEM> } }
//! user: { <name>: <value> }        # for `{ secret: name }` in the file
//! ```
//!
//! A lab has a file of its own in its directory, with a key of its own beside it: rehearsing needs no key of the
//! house and leaves none behind.

use crate::openssh;
use bramble_api::document::NodeApi;
use bramble_effects::Failure;
use bramble_kube::pki::Authorities;
use bramble_plan::Identity;
use bramble_secrets::{
    Environment, Identities, LoadError, Recipient, SaveError, SecretText, SecretsFile, Value, random_bytes,
    random_hex,
};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// An opened secrets file.
pub struct Vault {
    file: Mutex<SecretsFile>,
    path: PathBuf,
}

fn random(source: bramble_secrets::NoRandomness) -> Failure {
    Failure::bug("this computer gives no random numbers").source(source)
}

impl Vault {
    /// Opens the project's secrets file with the keys of the person who runs this.
    pub fn open(path: &Path) -> Result<Vault, Failure> {
        if !path.exists() {
            return Err(Failure::user(format!("there is no {}", path.display()))
                .hint("`bramble init` makes it; if it was there before, restore it from git"));
        }
        let identities = Identities::find(&Environment::of_process())
            .map_err(|e| Failure::user("no age key to open the secrets file with").source(e))?;
        let file = SecretsFile::load(path, &identities).map_err(|e| load_failure(path, e))?;
        Ok(Vault { file: Mutex::new(file), path: path.to_path_buf() })
    }

    /// Opens the lab's own secrets in `directory`, making file and key when they are not there.
    pub fn of_lab(directory: &Path, now: u64) -> Result<Vault, Failure> {
        let path = directory.join("secrets.sops.yaml");
        let key_path = directory.join("age.key");
        let io = |source| Failure::user(format!("cannot use {}", directory.display())).source(source);
        std::fs::create_dir_all(directory).map_err(io)?;
        if !key_path.exists() {
            let key = bramble_secrets::Identity::generate();
            key.write_new(&key_path, timestamp(now))
                .map_err(|e| Failure::user("cannot write the lab's key").source(e))?;
            // A secrets file without its key is of no use to anyone.
            let _ = std::fs::remove_file(&path);
        }
        let environment = Environment { key: None, key_file: Some(key_path.clone()), user_file: None };
        let identities = Identities::find(&environment).map_err(|e| {
            Failure::user(format!("cannot use the lab's key {}", key_path.display()))
                .source(e)
                .hint("`bramble lab down --destroy` starts the lab afresh")
        })?;
        let file = if path.exists() {
            SecretsFile::load(&path, &identities).map_err(|e| load_failure(&path, e))?
        } else {
            SecretsFile::create(&path, &identities.recipients()).map_err(random)?
        };
        Ok(Vault { file: Mutex::new(file), path })
    }

    /// Makes a new secrets file for these people.
    pub fn create(path: &Path, recipients: &[Recipient]) -> Result<Vault, Failure> {
        let file = SecretsFile::create(path, recipients).map_err(random)?;
        Ok(Vault { file: Mutex::new(file), path: path.to_path_buf() })
    }

    /// The text at a place.
    pub fn get(&self, place: &[&str]) -> Option<SecretText> {
        self.lock().get(place).cloned()
    }

    /// Whether anything stands at a place.
    pub fn has(&self, place: &[&str]) -> bool {
        self.lock().get_value(place).is_some()
    }

    /// Puts a text at a place, in memory.
    pub fn set(&self, place: &[&str], text: SecretText) -> Result<(), Failure> {
        self.lock().set(place, text).map_err(|e| {
            Failure::user(format!("{} has something else at {}", self.path.display(), place.join(".")))
                .source(e)
        })
    }

    /// Every text below a place, by its key.
    pub fn texts(&self, place: &[&str]) -> BTreeMap<String, SecretText> {
        let file = self.lock();
        let keys: Vec<String> = file.keys(place).into_iter().map(str::to_string).collect();
        keys.into_iter()
            .filter_map(|key| {
                let text = file.get(&[place, &[key.as_str()]].concat())?.clone();
                Some((key, text))
            })
            .collect()
    }

    /// The texts of a list at a place; none when nothing is there.
    pub fn list(&self, place: &[&str]) -> Result<Vec<String>, Failure> {
        let odd = || Failure::user(format!("{} has no list at {}", self.path.display(), place.join(".")));
        let value = self.lock().get_value(place);
        match value.as_ref().map(to_json) {
            None | Some(serde_json::Value::Null) => Ok(Vec::new()),
            Some(json) => serde_json::from_value(json).map_err(|_| odd()),
        }
    }

    /// Puts a list of texts at a place, in memory.
    pub fn set_list(&self, place: &[&str], texts: &[String]) -> Result<(), Failure> {
        let value = Value::List(texts.iter().map(|text| Value::text(text.clone())).collect());
        self.lock().set_value(place, value).map_err(|e| {
            Failure::user(format!("{} has something else at {}", self.path.display(), place.join(".")))
                .source(e)
        })
    }

    /// Who can open the file.
    pub fn recipients(&self) -> Result<Vec<Recipient>, Failure> {
        let parse = |text: &String| {
            text.parse().map_err(|_| {
                Failure::user(format!("{} names {text:?}, which is no age recipient", self.path.display()))
            })
        };
        self.lock().recipients().iter().map(parse).collect()
    }

    /// The text at a place, made now when nothing is there. [`Vault::save`] keeps it.
    fn ensure(
        &self,
        place: &[&str],
        make: impl FnOnce() -> Result<SecretText, Failure>,
    ) -> Result<SecretText, Failure> {
        if let Some(text) = self.get(place) {
            return Ok(text);
        }
        let text = make()?;
        self.set(place, text.clone())?;
        Ok(text)
    }

    /// Writes what was set, whole or not at all.
    pub fn save(&self, now: u64) -> Result<(), Failure> {
        self.lock()
            .save(timestamp(now))
            .map(drop)
            .map_err(|e: SaveError| Failure::user(format!("cannot write {}", self.path.display())).source(e))
    }

    /// The Ed25519 key that signs releases, made at its first use.
    pub fn signing_key(&self) -> Result<bramble_secrets::Secret<[u8; 32]>, Failure> {
        let text = self.ensure(&["release", "signingKey"], || random_hex(32).map_err(random))?;
        let mut key = [0; 32];
        hex::decode_to_slice(text.expose(), &mut key).map_err(|_| {
            Failure::user(format!(
                "release.signingKey in {} is not 64 hexadecimal digits",
                self.path.display()
            ))
        })?;
        Ok(bramble_secrets::Secret::new(key))
    }

    /// What a node has besides its certificates, made at its first use; `None` of the certificates when they were
    /// not issued yet.
    pub fn identity(&self, node: &str) -> Result<Identity, Failure> {
        let at = |key: &'static str| ["nodes", node, key];
        let incarnation = self.ensure(&at("incarnation"), || random_hex(16).map_err(random))?;
        let machine_id = self.ensure(&at("machineId"), || random_hex(16).map_err(random))?;
        if self.get(&at("sshHostKey")).is_none() {
            let seed = random_bytes::<32>().map_err(random)?;
            let check = random_bytes::<4>().map_err(random)?;
            let key = openssh::host_key(seed.expose(), u32::from_be_bytes(*check.expose()), node);
            self.set(&at("sshHostKey"), SecretText::new(key.private))?;
            self.set(&at("sshHostKeyPublic"), SecretText::new(key.public))?;
        }
        let text = |key| self.get(&at(key)).map(|t| t.expose().clone()).unwrap_or_default();
        let kubernetes =
            self.texts(&at("kubernetes")).into_iter().map(|(k, t)| (k, t.expose().clone())).collect();
        Ok(Identity {
            incarnation: incarnation.expose().clone(),
            machine_id: machine_id.expose().clone(),
            ssh_host_key: text("sshHostKey"),
            ssh_host_key_public: text("sshHostKeyPublic"),
            kubernetes,
            node_api: None,
            kubeconfig: None,
            secrets: BTreeMap::new(),
        })
    }

    /// Gives a node the nonce of a new incarnation: its next card is another one than every card before. What the
    /// machine is known by stays.
    pub fn renew_incarnation(&self, node: &str) -> Result<(), Failure> {
        self.set(&["nodes", node, "incarnation"], random_hex(16).map_err(random)?)
    }

    /// The cluster's authorities, made at their first use.
    pub fn authorities(&self, cluster: &str, now: u64) -> Result<Authorities, Failure> {
        let damaged = || Failure::user(format!("the authorities in {} cannot be read", self.path.display()));
        let kept = self.lock().get_value(&["authorities"]);
        if let Some(value) = kept {
            // The cause would quote what it could not read; the place is enough.
            return serde_json::from_value(to_json(&value)).map_err(|_| damaged());
        }
        let made = Authorities::generate(cluster, now)
            .map_err(|e| Failure::bug("cannot make the cluster's authorities").source(e))?;
        let json = serde_json::to_value(&made).map_err(|_| damaged())?;
        self.lock().set_value(&["authorities"], from_json(json)).map_err(|e| {
            Failure::user(format!("cannot keep authorities in {}", self.path.display())).source(e)
        })?;
        Ok(made)
    }

    /// Keeps what was issued for a node.
    pub fn set_kubernetes(&self, node: &str, files: &BTreeMap<String, String>) -> Result<(), Failure> {
        for (path, text) in files {
            self.set(&["nodes", node, "kubernetes", path], SecretText::new(text.clone()))?;
        }
        Ok(())
    }

    /// What a side of the node API shows: a machine by its names and addresses, or, without any, somebody who asks.
    pub fn node_api(
        &self,
        cluster: &str,
        name: &str,
        sans: Vec<String>,
        now: u64,
        life: std::time::Duration,
    ) -> Result<NodeApi, Failure> {
        let authority = self.authorities(cluster, now)?.node_api;
        let server = !sans.is_empty();
        let profile = bramble_kube::pki::Profile { name, group: None, client: !server, server, sans };
        let (certificate, key) = authority.issue(&profile, now, life).map_err(|e| {
            Failure::bug(format!("cannot issue {name}'s certificate for the node API")).source(e)
        })?;
        Ok(NodeApi { certificate, key, authorities: authority.bundle() })
    }

    /// A kubeconfig of an administrator, for some hours.
    pub fn admin_kubeconfig(
        &self,
        cluster: &str,
        server: &str,
        now: u64,
        hours: u64,
    ) -> Result<SecretText, Failure> {
        if self.lock().get_value(&["authorities"]).is_none() {
            return Err(
                Failure::user("this cluster has no authorities yet").hint("`bramble lab up` makes a lab's")
            );
        }
        let authorities = self.authorities(cluster, now)?;
        let life = std::time::Duration::from_secs(hours.saturating_mul(3600));
        bramble_kube::pki::kubeconfig(&authorities, cluster, server, "admin", now, life)
            .map(SecretText::new)
            .map_err(|e| Failure::bug("cannot issue a kubeconfig").source(e))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, SecretsFile> {
        // A panic elsewhere while holding the file leaves it as it was last set, which is still true.
        self.file.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn load_failure(path: &Path, error: LoadError) -> Failure {
    Failure::user(format!("cannot open {}", path.display())).source(error)
}

/// The secrets file's values as JSON, to be read into types.
fn to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Text(text) | Value::Other { text, .. } => text.expose().as_str().into(),
        Value::Int(number) => (*number).into(),
        Value::Bool(truth) => (*truth).into(),
        Value::List(items) => items.iter().map(to_json).collect(),
        Value::Map(pairs) => pairs.iter().map(|(k, v)| (k.clone(), to_json(v))).collect(),
    }
}

/// JSON as the secrets file's values.
fn from_json(value: serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(truth) => Value::Bool(truth),
        serde_json::Value::Number(number) => {
            number.as_i64().map_or_else(|| Value::text(number.to_string()), Value::Int)
        }
        serde_json::Value::String(text) => Value::text(text),
        serde_json::Value::Array(items) => Value::List(items.into_iter().map(from_json).collect()),
        serde_json::Value::Object(map) => Value::map(map.into_iter().map(|(k, v)| (k, from_json(v)))),
    }
}

pub(crate) fn timestamp(now: u64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(now.try_into().unwrap_or(i64::MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_keeps_what_it_made_and_nothing_lies_in_clear() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::of_lab(dir.path(), 1_800_000_000).unwrap();
        let identity = vault.identity("n1").unwrap();
        let key = vault.signing_key().unwrap();
        vault.save(1_800_000_000).unwrap();
        let again = Vault::of_lab(dir.path(), 1_800_000_001).unwrap();
        assert_eq!(again.identity("n1").unwrap().machine_id, identity.machine_id);
        assert_eq!(again.identity("n1").unwrap().ssh_host_key, identity.ssh_host_key);
        assert_eq!(again.signing_key().unwrap().expose(), key.expose());
        assert_ne!(again.identity("n2").unwrap().incarnation, identity.incarnation);
        again.renew_incarnation("n1").unwrap();
        let renewed = again.identity("n1").unwrap();
        assert_ne!(renewed.incarnation, identity.incarnation);
        assert_eq!(renewed.machine_id, identity.machine_id);
        let text = std::fs::read_to_string(dir.path().join("secrets.sops.yaml")).unwrap();
        assert!(!text.contains(&identity.machine_id) && !text.contains("OPENSSH"), "{text}");
    }

    #[test]
    fn authorities_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let vault = Vault::of_lab(dir.path(), 1_800_000_000).unwrap();
        assert!(vault.admin_kubeconfig("home", "https://127.0.0.1:1", 1_800_000_000, 1).is_err());
        let made = vault.authorities("home", 1_800_000_000).unwrap();
        vault.save(1_800_000_000).unwrap();
        let again =
            Vault::of_lab(dir.path(), 1_800_000_000).unwrap().authorities("home", 1_900_000_000).unwrap();
        assert!(made == again);
    }

    #[test]
    fn a_missing_file_is_explained() {
        let Err(failure) = Vault::open(Path::new("/nonexistent/bramble.secrets.sops.yaml")) else { panic!() };
        assert!(failure.hint.is_some_and(|h| h.contains("bramble init")));
    }
}
