//! `bramble secrets talos`: the bundle of a Talos cluster, made, taken over, given out.

use crate::cli::SecretsTalos as Args;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::{site, talos};
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_exec::Vault;
use bramble_secrets::{Environment, Identities, LoadError, SecretsFile};
use bramble_spec::Cluster;
use bramble_talos::machine::PORT;
use bramble_talos::{Bundle, Release, apply, talconfig};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

/// The largest file that is looked at: bundles and configs are a hundred times smaller.
const LIMIT: u64 = 16 << 20;

/// Runs one of them.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    let cluster = site::check(settings)?.cluster;
    talos::wanted(&cluster, settings)?;
    let path = settings.project.secrets_file();
    let _guard = match args {
        Args::Create | Args::Import { .. } => Some(settings.project.acquire("secrets talos")?),
        Args::Export { .. } => None,
    };
    let vault = Vault::open(&path)?;
    let name = path.file_name().unwrap_or_default().display();
    match args {
        Args::Create => {
            refuse_second(&vault, settings)?;
            refuse_inhabited(&cluster, &name.to_string())?;
            let release =
                talos::nodes(&cluster).iter().filter_map(|n| Release::of(n.talos.version.as_ref()?)).min();
            bramble_console::say("making keys; one of them takes some seconds");
            let bundle = Bundle::generate(release.unwrap_or(Release::V1_14), super::now())
                .map_err(|e| Failure::bug("cannot make the keys of a Talos cluster").source(e))?;
            talos::keep(&vault, &bundle)?;
            vault.save(super::now())?;
            bramble_console::say(&format!(
                "{name}: a new Talos bundle; commit it before the first machine boots"
            ));
        }
        Args::Import { source } => {
            let bundle = read(source)?;
            if talos::has_bundle(&vault) && !same(&vault, &bundle) {
                refuse_second(&vault, settings)?;
            }
            talos::keep(&vault, &bundle)?;
            vault.save(super::now())?;
            bramble_console::say(&format!("{name}: has the Talos bundle of {}", source.display()));
        }
        Args::Export { out } => {
            let text = talos::bundle(&vault, settings)?.write();
            match out {
                None => bramble_console::data(text.expose().trim_end()),
                Some(out) => {
                    bramble_exec::replace(out, text.expose().as_bytes(), 0o600)?;
                    bramble_console::say(&format!("{}: written in clear; never commit it", out.display()));
                }
            }
        }
    }
    Ok(Exit::Done)
}

/// Machines know each other by the bundle: a second one never takes the place of the first.
fn refuse_second(vault: &Vault, settings: &Settings) -> Result<(), Problem> {
    if !talos::has_bundle(vault) {
        return Ok(());
    }
    let name = settings.project.secrets_file();
    Err(Failure::user(format!("{} has a Talos bundle already", name.display()))
        .hint(
            "machines that were made with it answer to it alone; for another cluster take another directory, or take \
             `talos` out with `bramble secrets edit` when no machine has it",
        )
        .into())
}

/// A machine that has a config obeys whoever has its bundle. A new one beside it locks its owner out.
fn refuse_inhabited(cluster: &Cluster, secrets: &str) -> Result<(), Problem> {
    let nodes = talos::nodes(cluster);
    let addresses: Vec<SocketAddr> = nodes.iter().map(|n| SocketAddr::from((n.address, PORT))).collect();
    bramble_console::say("looking whether machines of this cluster run already");
    let found = apply::configured_ones(&addresses, super::now(), &Arc::default());
    if found.is_empty() {
        return Ok(());
    }
    let named = nodes.iter().filter(|n| found.iter().any(|f| f.ip() == n.address));
    let named: Vec<String> = named.map(|n| format!("{} ({})", n.name, n.address)).collect();
    Err(Failure::user(format!("machines of this cluster have a config already: {}", named.join(", ")))
        .hint(format!(
            "with a new bundle nobody could talk to them again: restore {secrets} from git, or take their bundle over \
             with `bramble secrets talos import`; for a new cluster reset them first"
        ))
        .into())
}

/// Whether the file's bundle is this one.
fn same(vault: &Vault, bundle: &Bundle) -> bool {
    let kept =
        Bundle::from_texts(&|key| vault.get(&[&[bramble_talos::bundle::SUBTREE] as &[&str], key].concat()));
    kept.is_ok_and(|kept| kept.write().expose() == bundle.write().expose())
}

/// Reads a bundle in whatever form it comes.
fn read(path: &Path) -> Result<Bundle, Problem> {
    let failed =
        |source: std::io::Error| Failure::user(format!("cannot read {}", path.display())).source(source);
    if std::fs::metadata(path).map_err(failed)?.len() > LIMIT {
        return Err(Failure::user(format!(
            "{} is larger than 16 MiB: no bundle and no config",
            path.display()
        ))
        .into());
    }
    let text = bramble_secrets::Secret::new(std::fs::read_to_string(path).map_err(failed)?);
    let bundle = if talconfig::is_encrypted(text.expose()) {
        let identities = Identities::find(&Environment::of_process())
            .map_err(|e| Failure::user("no age key to open the bundle with").source(e))?;
        let file = SecretsFile::load(path, &identities).map_err(|e| wrong_key(path, e))?;
        Bundle::from_texts(&|key| file.get(key).cloned())
    } else {
        Bundle::read(text.expose())
    };
    Ok(bundle.map_err(|e| talos::unusable(path, e))?)
}

fn wrong_key(path: &Path, error: LoadError) -> Failure {
    let hint = match &error {
        LoadError::WrongKey { .. } | LoadError::NoKey { .. } => {
            "the key that sops was given when the file was encrypted is wanted: SOPS_AGE_KEY_FILE names its file"
        }
        _ => "`sops decrypt` on the computer where it was made says more",
    };
    Failure::user(format!("cannot open {}", path.display())).source(error).hint(hint)
}
