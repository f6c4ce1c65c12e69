//! `bramble render`: the machine configs of Talos nodes, shown or written.

use crate::cli::Render as Args;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::{site, talos};
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_exec::Vault;
use bramble_secrets::{Environment, Identities, Recipient, SecretText, SecretsFile};
use bramble_spec::EffectiveNode;
use bramble_talos::Bundle;
use bramble_talos::site::Site;
use std::path::{Path, PathBuf};

/// Key of the config in an encrypted file: SOPS has no way to encrypt several documents as one.
const KEY: &str = "config";

/// Renders, then shows, writes or compares.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    let cluster = site::check(settings)?.cluster;
    talos::wanted(&cluster, settings)?;
    let nodes = chosen(talos::nodes(&cluster), &args.nodes)?;
    // To be looked at, a config needs no key of the cluster; whoever reviews a change may have none.
    let vault = match args.out.is_some() || args.plaintext {
        true => Some(Vault::open(&settings.project.secrets_file())?),
        false => None,
    };
    let bundle = match &vault {
        Some(vault) => talos::bundle(vault, settings)?,
        None => Bundle::hidden(),
    };
    let sources = talos::Project { directory: settings.project.directory.clone(), vault: vault.as_ref() };
    let site = Site::new(&cluster, &bundle, &sources).map_err(talos::refused)?;
    let mut configs = Vec::new();
    for node in &nodes {
        configs.push((node.name.as_str(), site.render(node).map_err(talos::refused)?));
    }
    let Some(directory) = &args.out else {
        for (name, config) in &configs {
            if configs.len() > 1 {
                bramble_console::data(&format!("# {name}"));
            }
            bramble_console::data(config.text().expose().trim_end());
        }
        return Ok(Exit::Done);
    };
    let readers = vault.as_ref().map(Vault::recipients).transpose()?.unwrap_or_default();
    let mut differ = false;
    for (name, config) in &configs {
        let path = file(directory, name, args.plaintext);
        let old = read(&path)?;
        let text = config.text();
        if args.diff {
            differ |= show_difference(&path, old.as_ref().map(|old| &old.text), &text)?;
        } else if old
            .is_some_and(|old| old.text.expose() == text.expose() && old.readers.is_none_or(|r| r == readers))
        {
            bramble_console::say(&format!("{}: as it was", path.display()));
        } else {
            write(&path, text, &readers, args.plaintext)?;
            bramble_console::say(&format!("{}: written", path.display()));
        }
    }
    if args.plaintext && !args.diff {
        bramble_console::warning(&format!(
            "{} holds the keys of the cluster in clear; never commit it",
            directory.display()
        ));
    }
    Ok(if differ && args.exit_code { Exit::Pending } else { Exit::Done })
}

/// The machines that are meant, in the file's order.
fn chosen(all: Vec<EffectiveNode>, names: &[String]) -> Result<Vec<EffectiveNode>, Problem> {
    for name in names {
        if !all.iter().any(|node| node.name == *name) {
            let what = format!("no node {:?} runs Talos here", bramble_console::harmless(name));
            let known: Vec<&str> = all.iter().map(|n| n.name.as_str()).collect();
            return Err(Failure::user(what).hint(format!("the file has: {}", known.join(", "))).into());
        }
    }
    Ok(all.into_iter().filter(|node| names.is_empty() || names.contains(&node.name)).collect())
}

fn file(directory: &Path, node: &str, plaintext: bool) -> PathBuf {
    directory.join(format!("{node}{}.yaml", if plaintext { "" } else { ".sops" }))
}

/// A config that was written before.
struct Written {
    text: SecretText,
    /// Whose keys open it, when it is encrypted.
    readers: Option<Vec<Recipient>>,
}

/// What the file holds, decrypted; `None` when it is not there.
fn read(path: &Path) -> Result<Option<Written>, Problem> {
    let failed = |e| Failure::user(format!("cannot read {}", path.display())).source(e);
    if !path.try_exists().map_err(failed)? {
        return Ok(None);
    }
    if !path.to_string_lossy().ends_with(".sops.yaml") {
        let text = SecretText::new(std::fs::read_to_string(path).map_err(failed)?);
        return Ok(Some(Written { text, readers: None }));
    }
    let identities = Identities::find(&Environment::of_process())
        .map_err(|e| Failure::user("no age key to open an encrypted config with").source(e))?;
    let file = SecretsFile::load(path, &identities).map_err(|e| {
        Failure::user(format!("cannot open {}", path.display()))
            .source(e)
            .hint("remove the file to have it written anew")
    })?;
    let readers = file.recipients().iter().filter_map(|text| text.parse().ok()).collect();
    Ok(file.get(&[KEY]).cloned().map(|text| Written { text, readers: Some(readers) }))
}

fn write(path: &Path, text: SecretText, readers: &[Recipient], plaintext: bool) -> Result<(), Problem> {
    if plaintext {
        bramble_exec::replace(path, text.expose().as_bytes(), 0o600)?;
        return Ok(());
    }
    let failed = |e: Box<dyn std::error::Error + Send + Sync>| {
        Failure::user(format!("cannot write {}", path.display())).source(e)
    };
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory).map_err(|e| failed(e.into()))?;
    // Made beside the old one, which stays until this one is whole.
    let fresh = directory.join(format!(".{}.new", path.file_name().unwrap_or_default().to_string_lossy()));
    match std::fs::remove_file(&fresh) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(failed(e.into()).into()),
        _ => {}
    }
    let mut file = SecretsFile::create(&fresh, readers).map_err(|e| failed(e.into()))?;
    file.set(&[KEY], text).map_err(|e| failed(e.into()))?;
    file.save(super::timestamp()).map_err(|e| failed(e.into()))?;
    std::fs::rename(&fresh, path).map_err(|e| failed(e.into()))?;
    Ok(())
}

/// Says what differs, by place, with no value that is a secret. `true` when something does.
fn show_difference(path: &Path, old: Option<&SecretText>, new: &SecretText) -> Result<bool, Problem> {
    let Some(old) = old else {
        bramble_console::data(&format!("{}: not there yet", path.display()));
        return Ok(true);
    };
    let lines = bramble_talos::difference::between(old.expose(), new.expose())
        .map_err(|e| Failure::user(format!("{} is no machine config", path.display())).source(e))?;
    if lines.is_empty() {
        return Ok(false);
    }
    bramble_console::data(&format!("{}:\n  {}", path.display(), lines.join("\n  ")));
    Ok(true)
}
