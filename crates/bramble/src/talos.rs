//! The Talos side of a project: its bundle in the secrets file, and what the file refers to.

use crate::problem::Problem;
use crate::settings::Settings;
use bramble_effects::Failure;
use bramble_exec::Vault;
use bramble_secrets::{Environment, Identities, Secret, SecretText, SecretsFile};
use bramble_spec::{Cluster, Distribution, EffectiveNode, Role};
use bramble_talos::bundle::{HIDDEN, SUBTREE};
use bramble_talos::site::{RenderError, Sources};
use bramble_talos::talconfig::is_encrypted;
use bramble_talos::yaml::{self, Map, Value};
use bramble_talos::{Bundle, BundleError};
use std::path::{Path, PathBuf};

/// The place of a bundle's value in the secrets file.
fn place<'a>(key: &[&'a str]) -> Vec<&'a str> {
    [&[SUBTREE] as &[&str], key].concat()
}

/// Whether the secrets file has a bundle, whole or in part.
pub(crate) fn has_bundle(vault: &Vault) -> bool {
    ["cluster", "secrets", "trustdinfo", "certs"].into_iter().any(|key| vault.has(&place(&[key])))
}

/// The cluster's bundle. A missing one is never made by the way: machines that run would be shut out.
pub(crate) fn bundle(vault: &Vault, settings: &Settings) -> Result<Bundle, Problem> {
    let name = settings.project.secrets_file();
    let name = name.display();
    if !has_bundle(vault) {
        return Err(Failure::user(format!("{name} has no Talos bundle (`{SUBTREE}`)"))
            .hint("`bramble secrets talos import FILE` takes over a cluster that runs; `bramble secrets talos create` founds a new one")
            .into());
    }
    Bundle::from_texts(&|key| vault.get(&place(key))).map_err(|e| {
        Failure::user(format!("the Talos bundle in {name} cannot be used"))
            .source(e)
            .hint(
                "restore the file from git; with a new bundle, machines that run would not be reached again",
            )
            .into()
    })
}

/// Puts a bundle into the secrets file, in memory.
pub(crate) fn keep(vault: &Vault, bundle: &Bundle) -> Result<(), Failure> {
    for (key, text) in bundle.texts() {
        vault.set(&place(key), text)?;
    }
    Ok(())
}

/// A foreign bundle's failure in a person's words.
pub(crate) fn unusable(path: &Path, error: BundleError) -> Failure {
    let hint = match &error {
        BundleError::Authority { .. } => {
            "certificate and key must be of one pair: take the file that the cluster was made with"
        }
        BundleError::Kind(_) => {
            "it takes what `talosctl gen secrets` writes, or a control plane's machine config"
        }
        BundleError::Yaml(_) | BundleError::Missing(_) | BundleError::Form { .. } => {
            "compare it with a fresh `talosctl gen secrets`; an incomplete bundle locks its owner out later"
        }
    };
    Failure::user(format!("cannot take over {}", path.display())).source(error).hint(hint)
}

/// That the file describes a Talos cluster.
pub(crate) fn wanted(cluster: &Cluster, settings: &Settings) -> Result<(), Problem> {
    match cluster.spec.kubernetes.distribution {
        Distribution::Talos => Ok(()),
        other => Err(Failure::user(format!("{} describes no Talos cluster", settings.file_name()))
            .hint(format!("`distribution` is `{other}`; this command is for `talos`"))
            .into()),
    }
}

/// The machines that run Talos.
pub(crate) fn nodes(cluster: &Cluster) -> Vec<EffectiveNode> {
    cluster.effective_nodes().into_iter().filter(|node| node.role != Role::Management).collect()
}

/// What the file refers to, from this project. Without a vault every secret is hidden.
pub(crate) struct Project<'a> {
    /// Where paths begin.
    pub(crate) directory: PathBuf,
    /// Where secrets lie.
    pub(crate) vault: Option<&'a Vault>,
}

impl Sources for Project<'_> {
    fn secret(&self, name: &str) -> Option<SecretText> {
        match self.vault {
            Some(vault) => vault.get(&["user", name]),
            None => Some(Secret::new(HIDDEN.to_string())),
        }
    }

    fn file(&self, path: &str) -> std::io::Result<String> {
        let path = self.directory.join(path);
        let text = std::fs::read_to_string(&path)?;
        if !is_encrypted(&text) {
            return Ok(text);
        }
        if self.vault.is_none() {
            return hidden(&text);
        }
        let identities = Identities::find(&Environment::of_process()).map_err(std::io::Error::other)?;
        let file = SecretsFile::load(&path, &identities).map_err(std::io::Error::other)?;
        Ok(file.clear_text().expose().clone())
    }
}

/// A file of SOPS with words in the place of what is encrypted: that needs no key.
fn hidden(text: &str) -> std::io::Result<String> {
    let documents = yaml::read(text).map_err(std::io::Error::other)?;
    let maps: Vec<Map> = documents
        .iter()
        .filter_map(Value::as_map)
        .map(|map| hide_map(map.iter().filter(|(key, _)| *key != "sops")))
        .collect();
    Ok(yaml::write(&maps))
}

fn hide_map<'a>(entries: impl Iterator<Item = (&'a str, &'a Value)>) -> Map {
    entries.map(|(key, value)| (key.to_string(), hide(value))).collect()
}

fn hide(value: &Value) -> Value {
    match value {
        Value::Map(map) => hide_map(map.iter()).into(),
        Value::List(items) => items.iter().map(hide).collect(),
        Value::Plain(text) | Value::Text(text) if text.starts_with("ENC[") => Value::text(HIDDEN),
        other => other.clone(),
    }
}

/// A machine's config that cannot be written, in a person's words.
pub(crate) fn refused(error: RenderError) -> Problem {
    let hint = match &error {
        RenderError::NotTalos { .. } => "name a control plane or a worker".to_string(),
        RenderError::Release { .. } => "state `talos: { version: v1.14.1 }`, best once under `spec`".to_string(),
        RenderError::Kubernetes { .. } => "change `kubernetes.version`, or `talos.version`".to_string(),
        RenderError::NoDisk { .. } => {
            "state `talos: { install: { disk: { serial: ... } } }`, or `disks.boot` for a disk that is flashed".to_string()
        }
        RenderError::Secret { name, .. } => {
            format!("`bramble secrets edit {name}` puts it into the secrets file")
        }
        RenderError::File { source, .. } if source.kind() == std::io::ErrorKind::Other => {
            "it is encrypted: SOPS_AGE_KEY_FILE names the file of a key that opens it".to_string()
        }
        RenderError::File { .. } => "paths are relative to bramble.yaml".to_string(),
        RenderError::Patch { .. } => "a patch is part of a config, or a list of RFC 6902 operations".to_string(),
        RenderError::Refused { .. } => "look at `talos.patches` and `talos.volumes`, which are laid over the rest".to_string(),
        RenderError::Cannot { .. } => "change the file; `bramble check` reads it again".to_string(),
    };
    Failure::user("a machine config cannot be written").source(error).hint(hint).into()
}
