//! `bramble check`: everything that is wrong with the file, and what it asks for that is not acted on.

use crate::problem::Problem;
use crate::settings::Settings;
use crate::site;
use bramble_console::Exit;
use bramble_secrets::{Environment, Identities, SecretsFile};

/// Checks the file and says so.
pub(crate) fn run(settings: &Settings) -> Result<Exit, Problem> {
    let checked = site::check(settings)?;
    let nodes = checked.cluster.effective_nodes();
    for part in &checked.not_served {
        bramble_console::say(&format!(
            "note: line {}: {} is kept as it stands; this version does not act on it",
            part.line, part.path
        ));
    }
    missing_secrets(settings, &checked);
    super::secrets::refuse(&super::secrets::unencrypted(&settings.project.directory))?;
    let s = if nodes.len() == 1 { "" } else { "s" };
    bramble_console::say(&format!("{}: {} node{s}, no errors", settings.file_name(), nodes.len()));
    Ok(Exit::Done)
}

/// Names the secrets that the file asks for and the secrets file lacks. Without the key nobody can look.
fn missing_secrets(settings: &Settings, checked: &bramble_spec::Checked) {
    if checked.secrets_wanted.is_empty() {
        return;
    }
    let path = settings.project.secrets_file();
    let file = Identities::find(&Environment::of_process())
        .ok()
        .and_then(|identities| SecretsFile::load(&path, &identities).ok());
    for wanted in &checked.secrets_wanted {
        let state = match &file {
            None => "could not be looked for: the secrets file cannot be opened here",
            Some(file) if file.get(&["user", &wanted.name]).is_none() => "is missing from the secrets file",
            Some(_) => continue,
        };
        bramble_console::warning(&format!("line {}: secret {:?} {state}", wanted.line, wanted.name));
    }
}
