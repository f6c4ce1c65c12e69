//! `bramble key`: the keys by which machines know a release.

use crate::cli::Key;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use bramble_console::Exit;
use bramble_exec::Vault;
use bramble_exec::keys::{self, ReleaseKeys, Root};

/// Shows or changes the keys.
pub(crate) fn run(key: &Key, settings: &Settings) -> Result<Exit, Problem> {
    let cluster = Site::load(settings)?.cluster.metadata.name.to_string();
    let vault = Vault::open(&settings.project.secrets_file())?;
    let now = super::now();
    // Two runs that both change the secrets file would lose one of the changes.
    let _guard = match key {
        Key::Show => None,
        _ => Some(settings.project.acquire("key")?),
    };
    match key {
        Key::Show => show(&ReleaseKeys::of(&vault)?),
        Key::Root { file } => {
            let root = Root::create(file, &vault, now)?;
            keys::add_root(&vault, &root, &cluster, now)?;
            let known = root.public().short();
            bramble_console::say(&format!(
                "{}: root key {known}; keep it and a copy off this computer. Machines know it from the next release on",
                file.display()
            ));
        }
        Key::Rotate { root } => {
            let keys = keys::rotate(&vault, &Root::open(root)?, &cluster, now)?;
            bramble_console::say(&format!(
                "releases are signed with {} from now on; `bramble release` tells the machines",
                keys.current.short()
            ));
        }
        Key::Revoke { key, root } => {
            let keys = keys::revoke(&vault, &Root::open(root)?, key, &cluster, now)?;
            let revoked = keys.revoked.last().map(|key| key.short()).unwrap_or_default();
            bramble_console::say(&format!("{revoked} is revoked; `bramble release` tells the machines"));
        }
    }
    Ok(Exit::Done)
}

fn show(keys: &ReleaseKeys) {
    let mut rows = vec![[keys.current.short(), "signs releases".to_string()]];
    let lists = [(&keys.trusted, "believed"), (&keys.revoked, "revoked"), (&keys.roots, "root")];
    for (list, what) in lists {
        rows.extend(list.iter().map(|key| [key.short(), what.to_string()]));
    }
    for [name, what] in rows {
        bramble_console::data(&format!("{name}  {what}"));
    }
    if keys.roots.is_empty() {
        bramble_console::say(
            "there is no root key: the release key cannot be replaced. `bramble key root FILE` makes one",
        );
    }
}
