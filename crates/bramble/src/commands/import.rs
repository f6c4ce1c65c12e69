//! `bramble import`: takes over what talhelper described.

use crate::cli::Import as Args;
use crate::problem::Problem;
use crate::settings::Settings;
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_secrets::{Environment, Identities, SecretsFile};
use bramble_talos::talconfig::{self, Surroundings};
use std::collections::BTreeMap;
use std::path::{Component, Path};

/// Files of variables that talhelper looks for beside its own; later ones win.
const VARIABLES: [&str; 4] = ["talenv.yaml", "talenv.sops.yaml", "talenv.yml", "talenv.sops.yml"];

/// A variable of talhelper's files.
struct Variable {
    value: String,
    /// The encrypted file that it came from.
    secret: Option<String>,
}

/// Writes bramble.yaml and says what changed in kind and what was lost.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    let (source, target) = (&args.source, &settings.project.file);
    if target.exists() {
        return Err(Failure::user(format!("{} is there already", settings.file_name()))
            .hint("take an empty directory, or move the file away")
            .into());
    }
    let text = std::fs::read_to_string(source)
        .map_err(|e| Failure::user(format!("cannot read {}", source.display())).source(e))?;
    let directory = source.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let variables = variables(directory)?;
    let value = |name: &str| {
        variables.get(name).map(|variable| variable.value.clone()).or_else(|| std::env::var(name).ok())
    };
    let failed = |e: talconfig::ImportError| {
        let hint = match &e {
            talconfig::ImportError::Variables(_) => {
                "their values are looked for in talenv.yaml and talenv.sops.yaml beside it, then in the environment"
            }
            _ => {
                "it takes talhelper's talconfig.yaml; a secrets bundle is taken over by `bramble secrets talos import`"
            }
        };
        Failure::user(format!("cannot take over {}", source.display())).source(e).hint(hint)
    };
    let file = |path: &str| std::fs::read_to_string(directory.join(path)).map_err(|e| e.to_string());
    let (text, used) = talconfig::substitute(&text, &value).map_err(failed)?;
    let around = Surroundings { file: &file, variable: &value };
    let imported = talconfig::import(&text, &around).map_err(failed)?;
    bramble_exec::replace(target, imported.file.as_bytes(), 0o644)?;
    bramble_console::say(&format!("{}: written", settings.file_name()));
    for path in &imported.files {
        copy(directory, &settings.project.directory, path)?;
    }
    for name in &used {
        match variables.get(name).and_then(|variable| variable.secret.as_ref()) {
            Some(origin) => bramble_console::warning(&format!(
                "${name} came out of {origin}, which is encrypted, and stands in {} in clear: take it out before you \
                 commit, if it is a secret",
                settings.file_name()
            )),
            None => bramble_console::say(&format!("changed: ${name} stands in the file with its value")),
        }
    }
    for line in &imported.changed {
        bramble_console::say(&format!("changed: {line}"));
    }
    for line in &imported.lost {
        bramble_console::warning(&format!("not carried over: {line}"));
    }
    if let Err(found) = bramble_spec::parse(&imported.file, &settings.file_name()) {
        bramble_console::diagnostics(&settings.file_name(), &imported.file, &found.list);
        bramble_console::say("these are to be mended by hand; `bramble check` says what is left");
    }
    bramble_console::say(
        "next: `bramble init` for the secrets file, `bramble secrets talos import talsecret.sops.yaml`, `bramble render`",
    );
    Ok(Exit::Done)
}

/// Brings a file that the talconfig names beside bramble.yaml, at the same path. One that is there already stays.
fn copy(from: &Path, to: &Path, path: &str) -> Result<(), Problem> {
    let (source, target) = (from.join(path), to.join(path));
    let inside =
        Path::new(path).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    if !inside {
        bramble_console::warning(&format!("{path} lies outside the directory and was left there"));
        return Ok(());
    }
    let same =
        |a: &Path, b: &Path| a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    if !source.exists() || same(&source, &target) {
        return Ok(());
    }
    let failed = |e| Failure::user(format!("cannot copy {}", source.display())).source(e);
    let bytes = std::fs::read(&source).map_err(failed)?;
    if target.exists() {
        if std::fs::read(&target).map_err(failed)? != bytes {
            bramble_console::warning(&format!(
                "{} is there already and another one; it stays",
                target.display()
            ));
        }
        return Ok(());
    }
    bramble_exec::replace(&target, &bytes, 0o644)?;
    bramble_console::say(&format!("{path}: copied"));
    Ok(())
}

/// Variables of talhelper's own files, encrypted or not.
fn variables(directory: &Path) -> Result<BTreeMap<String, Variable>, Problem> {
    let mut out = BTreeMap::new();
    for name in VARIABLES {
        let path = directory.join(name);
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let failed = || Failure::user(format!("cannot read the variables in {}", path.display()));
        if talconfig::is_encrypted(&text) {
            let identities = Identities::find(&Environment::of_process()).map_err(|e| failed().source(e))?;
            let file = SecretsFile::load(&path, &identities).map_err(|e| {
                failed().source(e).hint("SOPS_AGE_KEY_FILE names the file of a key that opens it")
            })?;
            for key in file.keys(&[]) {
                if let Some(value) = file.get(&[key]) {
                    let secret = Some(name.to_string());
                    out.insert(key.to_string(), Variable { value: value.expose().clone(), secret });
                }
            }
            continue;
        }
        let documents = bramble_talos::yaml::read(&text).map_err(|e| failed().source(e))?;
        for (key, value) in documents.iter().filter_map(|d| d.as_map()).flat_map(|map| map.iter()) {
            if let Some(value) = value.as_str() {
                out.insert(key.to_string(), Variable { value: value.to_string(), secret: None });
            }
        }
    }
    Ok(out)
}
