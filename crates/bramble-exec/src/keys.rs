//! The keys of releases: which sign, which are believed, and the root key that says so.
//!
//! The release key lies in the secrets file, so that whoever may build may publish. The root key lies in a file of its
//! own, encrypted for the same people, which belongs on a medium in a drawer: it is needed only to make a new release key
//! or to revoke one. In the secrets file:
//!
//! ```yaml
//! release:
//!   signingKey: <hex>          # signs releases
//!   roots: [<hex>]             # public root keys
//!   trusted: [<hex>]           # public release keys of before, still believed
//!   revoked: [<hex>]           # public release keys that are not
//!   statement: <hex>           # the statement of keys, as the root key signed it
//! ```

use crate::vault::Vault;
use bramble_api::release::{Anchor, Keys, PublicKey, Signed};
use bramble_effects::Failure;
use bramble_secrets::{Environment, Identities, Secret, SecretText, SecretsFile, random_hex};
use ed25519_dalek::SigningKey;
use std::path::Path;

/// What the secrets file says of keys that sign releases.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseKeys {
    /// Signs releases.
    pub current: PublicKey,
    /// Public root keys.
    pub roots: Vec<PublicKey>,
    /// Release keys of before, still believed.
    pub trusted: Vec<PublicKey>,
    /// Release keys that are not believed any more.
    pub revoked: Vec<PublicKey>,
    /// The newest statement, as signed.
    pub statement: Option<Vec<u8>>,
}

impl ReleaseKeys {
    /// As it stands in the secrets file; the release key is made at its first use.
    ///
    /// # Errors
    /// The file has something else in the places of keys.
    pub fn of(vault: &Vault) -> Result<ReleaseKeys, Failure> {
        let current = public(&vault.signing_key()?);
        let list = |name: &'static str| -> Result<Vec<PublicKey>, Failure> {
            let keys = vault.list(&["release", name])?;
            let parse = |text: &String| {
                PublicKey::parse(text).ok_or_else(|| {
                    Failure::user(format!("release.{name} in the secrets file is no list of keys"))
                })
            };
            keys.iter().map(parse).collect()
        };
        let statement = match vault.get(&["release", "statement"]) {
            None => None,
            Some(text) => Some(hex::decode(text.expose()).map_err(|_| {
                Failure::user("release.statement in the secrets file is not hexadecimal")
                    .hint("restore the secrets file from git")
            })?),
        };
        Ok(ReleaseKeys {
            current,
            roots: list("roots")?,
            trusted: list("trusted")?,
            revoked: list("revoked")?,
            statement,
        })
    }

    /// Every release key that is believed, the current one first.
    pub fn believed(&self) -> Vec<PublicKey> {
        let mut keys = vec![self.current];
        keys.extend(self.trusted.iter().filter(|key| **key != self.current));
        keys
    }

    /// Number of the newest statement; 0 when there is none.
    pub fn number(&self) -> u64 {
        let read = |bytes: &Vec<u8>| Some(Signed::<Keys>::parse(bytes).ok()?.read().ok()?.number);
        self.statement.as_ref().and_then(read).unwrap_or(0)
    }

    /// What a release tells its machine.
    pub fn anchor(&self, cluster: &str) -> Anchor {
        Anchor {
            format: 1,
            cluster: cluster.to_string(),
            roots: self.roots.clone(),
            keys: self.believed(),
            statement: self.number(),
        }
    }

    fn keep(&self, vault: &Vault) -> Result<(), Failure> {
        let texts = |keys: &[PublicKey]| keys.iter().map(ToString::to_string).collect::<Vec<_>>();
        vault.set_list(&["release", "roots"], &texts(&self.roots))?;
        vault.set_list(&["release", "trusted"], &texts(&self.trusted))?;
        vault.set_list(&["release", "revoked"], &texts(&self.revoked))?;
        if let Some(statement) = &self.statement {
            vault.set(&["release", "statement"], SecretText::new(hex::encode(statement)))?;
        }
        Ok(())
    }
}

fn public(key: &Secret<[u8; 32]>) -> PublicKey {
    PublicKey(SigningKey::from_bytes(key.expose()).verifying_key().to_bytes())
}

/// A root key, for the time of one act.
pub struct Root {
    key: Secret<[u8; 32]>,
}

const ROOT_PLACE: &[&str] = &["root", "signingKey"];

impl Root {
    /// Makes a root key in a new file, for the people who can open the secrets file.
    ///
    /// # Errors
    /// Something is there already, or it cannot be written.
    pub fn create(path: &Path, vault: &Vault, now: u64) -> Result<Root, Failure> {
        if path.exists() {
            return Err(Failure::user(format!("{} is there already", path.display()))
                .hint("a root key is never overwritten; name another file"));
        }
        let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
            Failure::user(format!("cannot make the root key {}", path.display())).source(e)
        };
        let text = random_hex(32).map_err(|e| failed(Box::new(e)))?;
        let recipients = vault.recipients()?;
        let mut file = SecretsFile::create(path, &recipients).map_err(|e| failed(Box::new(e)))?;
        file.set(ROOT_PLACE, text.clone()).map_err(|e| failed(Box::new(e)))?;
        file.save(crate::vault::timestamp(now)).map_err(|e| failed(Box::new(e)))?;
        Root::parse(path, &text)
    }

    /// Opens the file of a root key.
    ///
    /// # Errors
    /// It is not there, cannot be opened, or holds no root key.
    pub fn open(path: &Path) -> Result<Root, Failure> {
        let identities = Identities::find(&Environment::of_process())
            .map_err(|e| Failure::user("no age key to open the root key with").source(e))?;
        let file = SecretsFile::load(path, &identities).map_err(|e| {
            Failure::user(format!("cannot open the root key {}", path.display()))
                .source(e)
                .hint("`bramble key root FILE` made it; put in the medium that it is kept on")
        })?;
        let text = file
            .get(ROOT_PLACE)
            .ok_or_else(|| Failure::user(format!("{} holds no root key", path.display())))?;
        Root::parse(path, text)
    }

    fn parse(path: &Path, text: &SecretText) -> Result<Root, Failure> {
        let mut key = [0; 32];
        hex::decode_to_slice(text.expose(), &mut key)
            .map_err(|_| Failure::user(format!("{} holds no root key", path.display())))?;
        Ok(Root { key: Secret::new(key) })
    }

    /// Its public half.
    pub fn public(&self) -> PublicKey {
        public(&self.key)
    }

    /// Signs what `keys` now says, under the next number.
    fn state(&self, keys: &mut ReleaseKeys, cluster: &str, now: u64) -> Result<(), Failure> {
        if !keys.roots.contains(&self.public()) {
            return Err(Failure::user("this root key is not the cluster's")
                .hint("`bramble key show` lists the cluster's root keys"));
        }
        let statement = Keys {
            format: 1,
            cluster: cluster.to_string(),
            number: keys.number() + 1,
            time: now,
            keys: keys.believed(),
            revoked: keys.revoked.clone(),
        };
        let signed = Signed::sign(&statement, &SigningKey::from_bytes(self.key.expose()))
            .map_err(|e| Failure::user("too many keys for one statement").source(e))?;
        keys.statement = Some(signed.to_bytes());
        Ok(())
    }
}

/// Makes this the cluster's root key, beside those it has. Machines learn it with the next release that they install.
pub fn add_root(vault: &Vault, root: &Root, cluster: &str, now: u64) -> Result<ReleaseKeys, Failure> {
    let mut keys = ReleaseKeys::of(vault)?;
    if !keys.roots.contains(&root.public()) {
        keys.roots.push(root.public());
    }
    root.state(&mut keys, cluster, now)?;
    keys.keep(vault)?;
    vault.save(now)?;
    Ok(keys)
}

/// Makes a new release key. The one before is believed until it is revoked.
pub fn rotate(vault: &Vault, root: &Root, cluster: &str, now: u64) -> Result<ReleaseKeys, Failure> {
    let mut keys = ReleaseKeys::of(vault)?;
    let fresh =
        random_hex(32).map_err(|e| Failure::bug("this computer gives no random numbers").source(e))?;
    let before = keys.current;
    vault.set(&["release", "signingKey"], fresh)?;
    keys.current = public(&vault.signing_key()?);
    keys.trusted.push(before);
    root.state(&mut keys, cluster, now)?;
    keys.keep(vault)?;
    // One file, written whole: the new key and the word for it come together or not at all.
    vault.save(now)?;
    Ok(keys)
}

/// Declares a release key of before to be believed no more. `name` is the beginning of the key or of its short name.
pub fn revoke(
    vault: &Vault,
    root: &Root,
    name: &str,
    cluster: &str,
    now: u64,
) -> Result<ReleaseKeys, Failure> {
    let mut keys = ReleaseKeys::of(vault)?;
    let matches = |key: &&PublicKey| key.to_string().starts_with(name) || key.short().starts_with(name);
    if matches(&&keys.current) {
        return Err(
            Failure::user("this key signs releases now").hint("`bramble key rotate` makes another first")
        );
    }
    let found: Vec<PublicKey> = keys.trusted.iter().filter(matches).copied().collect();
    let [key] = found[..] else {
        return Err(Failure::user(format!("{} keys begin with {name:?}", found.len()))
            .hint("`bramble key show` lists them"));
    };
    keys.trusted.retain(|other| *other != key);
    keys.revoked.push(key);
    root.state(&mut keys, cluster, now)?;
    keys.keep(vault)?;
    vault.save(now)?;
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bramble_api::release::KeyRing;

    const NOW: u64 = 1_800_000_000;

    /// A vault, and a root key whose file only this process can open.
    fn vault(dir: &Path) -> (Vault, Root) {
        let vault = Vault::of_lab(dir, NOW).unwrap();
        let root = Root::create(&dir.join("root.sops.yaml"), &vault, NOW).unwrap();
        (vault, root)
    }

    #[test]
    fn a_machine_follows_a_rotation_and_a_revocation_by_statements_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, root) = vault(dir.path());
        let first = add_root(&vault, &root, "home", NOW).unwrap();
        let mut ring = KeyRing::new(&first.anchor("home"));
        assert_eq!(ring.keys(), [first.current]);

        let second = rotate(&vault, &root, "home", NOW).unwrap();
        assert_ne!(second.current, first.current);
        assert_eq!(second.believed(), [second.current, first.current]);
        assert_eq!(ring.take(second.statement.as_ref().unwrap()), Ok(true));
        assert!(ring.keys().contains(&second.current) && ring.keys().contains(&first.current));

        let refused = revoke(&vault, &root, &second.current.short(), "home", NOW).unwrap_err();
        assert!(refused.hint.unwrap().contains("rotate"));
        let third = revoke(&vault, &root, &first.current.short()[..6], "home", NOW).unwrap();
        assert_eq!(ring.take(third.statement.as_ref().unwrap()), Ok(true));
        assert_eq!(ring.keys(), [second.current]);
        assert_eq!((first.number(), second.number(), third.number()), (1, 2, 3));
        assert_eq!(third.anchor("home").keys, [second.current]);
        assert_eq!(ReleaseKeys::of(&vault).unwrap(), third);
        assert!(ring.take(second.statement.as_ref().unwrap()).is_err(), "no way back");
    }

    #[test]
    fn a_strange_root_key_states_nothing_and_no_key_lies_in_clear() {
        let dir = tempfile::tempdir().unwrap();
        let (vault, root) = vault(dir.path());
        let keys = add_root(&vault, &root, "home", NOW).unwrap();
        let other = Root { key: Secret::new([9; 32]) };
        assert!(rotate(&vault, &other, "home", NOW).is_err());
        assert!(Root::create(&dir.path().join("root.sops.yaml"), &vault, NOW).is_err(), "never overwritten");
        let text = std::fs::read_to_string(dir.path().join("root.sops.yaml")).unwrap();
        assert!(!text.contains(&hex::encode(root.key.expose())), "{text}");
        assert_eq!(keys.roots, [root.public()]);
    }
}
