//! `bramble secrets`: the secrets file by hand, and by a person's editor. The real `sops` does all of it as well.

use super::secrets_talos;
use crate::cli::{Output, Secrets as Words};
use crate::problem::Problem;
use crate::settings::Settings;
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_secrets::{
    EditError, Editor, Environment, Identities, Identity, LoadError, Recipient, RekeyError, SaveError,
    Secret, SecretText, SecretsFile, Unencrypted, Value, random_hex,
};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// Does what was asked of the secrets file.
pub(crate) fn run(words: Words, settings: &Settings) -> Result<Exit, Problem> {
    match words {
        Words::Show { name, values, output } => show(settings, name.as_deref(), values, output),
        Words::Edit { name } => edit(settings, name.as_deref()),
        Words::Rotate { name, stdin } => rotate(settings, name.as_deref(), stdin),
        Words::AddRecipient { recipient, new } => add(settings, recipient.as_deref(), new),
        Words::RemoveRecipient { recipient } => remove(settings, &recipient),
        Words::Hook { install } => hook(settings, install),
        Words::Talos(words) => secrets_talos::run(&words, settings),
    }
}

fn open(settings: &Settings) -> Result<SecretsFile, Problem> {
    let path = settings.project.secrets_file();
    if !path.exists() {
        return Err(Failure::user(format!("there is no {}", path.display()))
            .hint("`bramble init` makes it; if it was there before, restore it from git")
            .into());
    }
    let identities = Identities::find(&Environment::of_process())
        .map_err(|e| Failure::user("no age key to open the secrets file with").source(e))?;
    let file = SecretsFile::load(&path, &identities).map_err(|e| {
        let hint = match &e {
            LoadError::NoKey { .. } | LoadError::WrongKey { .. } => {
                "put a key that opens it into SOPS_AGE_KEY_FILE, or ask who has one to add yours: `bramble secrets add-recipient`"
            }
            LoadError::Unsupported { .. } => "`sops` itself reads it",
            _ => "`git log -p` shows who changed it; `git checkout` brings the last good one back",
        };
        Failure::user(format!("cannot open {}", path.display())).source(e).hint(hint)
    })?;
    Ok(file)
}

fn save(file: &mut SecretsFile) -> Result<(), Problem> {
    let path = file.path().to_path_buf();
    file.save(super::timestamp()).map_err(|e| {
        let failure = match &e {
            SaveError::Changed { .. } => Failure::retry(format!("cannot write {}", path.display())),
            _ => Failure::user(format!("cannot write {}", path.display())),
        };
        failure.source(e)
    })?;
    Ok(())
}

/// The place that a name means: keys joined with dots, keys with dots in them among them; a name of its own is one of
/// `{ secret: name }`.
fn place(file: &SecretsFile, name: &str) -> Result<Vec<String>, Problem> {
    resolve(file, &mut Vec::new(), name)
        .or_else(|| resolve(file, &mut vec!["user".to_string()], name))
        .ok_or_else(|| {
            Failure::user(format!(
                "{} has nothing at {}",
                file.path().display(),
                bramble_console::harmless(name)
            ))
            .hint("`bramble secrets show` lists what it has; `bramble secrets edit` adds to it")
            .into()
        })
}

fn resolve(file: &SecretsFile, above: &mut Vec<String>, rest: &str) -> Option<Vec<String>> {
    let path: Vec<&str> = above.iter().map(String::as_str).collect();
    let keys: Vec<String> = file.keys(&path).into_iter().map(str::to_string).collect();
    for key in keys {
        if key == rest {
            above.push(key);
            return Some(above.clone());
        }
        if let Some(below) = rest.strip_prefix(key.as_str()).and_then(|r| r.strip_prefix('.')) {
            above.push(key);
            if let Some(found) = resolve(file, above, below) {
                return Some(found);
            }
            above.pop();
        }
    }
    None
}

fn slices(path: &[String]) -> Vec<&str> {
    path.iter().map(String::as_str).collect()
}

fn show(settings: &Settings, name: Option<&str>, values: bool, output: Output) -> Result<Exit, Problem> {
    let file = open(settings)?;
    let path = match name {
        Some(name) => place(&file, name)?,
        None => Vec::new(),
    };
    let path = slices(&path);
    match output {
        Output::Name => names(&file, &path).iter().for_each(|n| bramble_console::data(n)),
        Output::Json => {
            let shown = match path.as_slice() {
                [] if !values => names(&file, &[]).into(),
                [] => file
                    .keys(&[])
                    .into_iter()
                    .map(|k| (k.to_string(), json(&file.get_value(&[k]).unwrap_or(Value::Null))))
                    .collect(),
                path => json(&file.get_value(path).unwrap_or(Value::Null)),
            };
            bramble_console::json(&shown);
        }
        Output::Text if path.is_empty() && !values => {
            for recipient in file.recipients() {
                bramble_console::say(&format!("for {recipient}"));
            }
            names(&file, &[]).iter().for_each(|n| bramble_console::data(n));
        }
        Output::Text => {
            let text = if path.is_empty() { Some(file.clear_text()) } else { file.clear_at(&path) };
            let text = text.unwrap_or_else(|| Secret::new(String::new()));
            bramble_console::data(text.expose().trim_end_matches('\n'));
        }
    }
    Ok(Exit::Done)
}

/// The places of all values at and below a path, keys joined with dots.
fn names(file: &SecretsFile, path: &[&str]) -> Vec<String> {
    let keys = file.keys(path);
    if keys.is_empty() && !path.is_empty() {
        return vec![path.join(".")];
    }
    keys.into_iter().flat_map(|key| names(file, &[path, &[key]].concat())).collect()
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Text(text) => text.expose().as_str().into(),
        Value::Other { text, .. } => {
            serde_json::from_str(text.expose()).unwrap_or_else(|_| text.expose().as_str().into())
        }
        Value::Int(number) => (*number).into(),
        Value::Bool(truth) => (*truth).into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(pairs) => pairs.iter().map(|(k, v)| (k.clone(), json(v))).collect(),
    }
}

fn edit(settings: &Settings, name: Option<&str>) -> Result<Exit, Problem> {
    let _guard = settings.project.acquire("secrets edit")?;
    let mut file = open(settings)?;
    let editor = Editor::of_process();
    // Ctrl-C in an editor is the editor's; this program stays to put the file away.
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::new(AtomicBool::new(false)))
        .map_err(|e| Failure::bug("cannot listen for signals").source(e))?;
    let changed = match name {
        Some(name) => edit_one(&mut file, &editor, name)?,
        None => edit_all(&mut file, &editor)?,
    };
    if !changed {
        bramble_console::say("nothing was changed");
        return Ok(Exit::Done);
    }
    save(&mut file)?;
    bramble_console::say(&format!("{}: written", file.path().display()));
    Ok(Exit::Done)
}

fn edit_all(file: &mut SecretsFile, editor: &Editor) -> Result<bool, Problem> {
    let mut text = file.clear_text();
    loop {
        text = editor.edit(&text, "secrets.yaml").map_err(edit_failure)?;
        match file.set_clear_text(&text) {
            Ok(changed) => return Ok(changed),
            Err(error) if bramble_console::interactive() => {
                bramble_console::error("what was edited cannot be kept", &[error.to_string()], None);
                let again = bramble_console::ask("Edit it again (yes, or no to drop it)?", "yes");
                if !again.is_some_and(|a| a.trim().starts_with(['y', 'Y'])) {
                    return Err(Failure::user("the edit was dropped; the file is as it was").into());
                }
            }
            Err(error) => {
                return Err(Failure::user("what was edited cannot be kept; the file is as it was")
                    .source(error)
                    .into());
            }
        }
    }
}

fn edit_one(file: &mut SecretsFile, editor: &Editor, name: &str) -> Result<bool, Problem> {
    let path = place(file, name).unwrap_or_else(|_| vec!["user".to_string(), name.to_string()]);
    let path = slices(&path);
    if !file.keys(&path).is_empty() {
        return Err(Failure::user(format!("{} is more than one value", path.join(".")))
            .hint("`bramble secrets edit` without a name edits the whole file")
            .into());
    }
    let old = file.get(&path).cloned().unwrap_or_else(|| Secret::new(String::new()));
    let edited = editor.edit(&old, "secret.txt").map_err(edit_failure)?;
    let text = without_editors_newline(&old, edited);
    if text.expose() == old.expose() {
        return Ok(false);
    }
    file.set(&path, text).map_err(|e| Failure::user("the value cannot be kept").source(e))?;
    Ok(true)
}

/// Editors end the last line; a password has no end of line unless it had one before.
fn without_editors_newline(old: &SecretText, new: SecretText) -> SecretText {
    let one_line = new.expose().matches('\n').count() == 1;
    match new.expose().strip_suffix('\n') {
        Some(line) if one_line && !old.expose().ends_with('\n') => Secret::new(line.to_string()),
        _ => new,
    }
}

fn edit_failure(error: EditError) -> Failure {
    let hint = match &error {
        EditError::OnDisk { .. } => Some(
            "a secret in clear never goes onto a disk: set XDG_RUNTIME_DIR to a directory on tmpfs, or use `bramble secrets rotate NAME --stdin`",
        ),
        EditError::Start { .. } => Some("EDITOR names the editor"),
        EditError::File { .. } | EditError::Failed(_) => None,
    };
    let failure = Failure::user("the secrets file was not edited").source(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn rotate(settings: &Settings, name: Option<&str>, stdin: bool) -> Result<Exit, Problem> {
    let _guard = settings.project.acquire("secrets rotate")?;
    let mut file = open(settings)?;
    let Some(name) = name else {
        file.rekey().map_err(rekey_failure)?;
        save(&mut file)?;
        bramble_console::say(
            "every value was encrypted anew with another key of the file; the values are as they were",
        );
        return Ok(Exit::Done);
    };
    let path = match place(&file, name) {
        Ok(path) => path,
        // A secret that `check` says is missing is made with its first value.
        Err(_) if !name.contains('.') => vec!["user".to_string(), name.to_string()],
        Err(problem) => return Err(problem),
    };
    let path = slices(&path);
    match path.as_slice() {
        ["user", ..] if !file.keys(&path).is_empty() => {
            return Err(Failure::user(format!("{} is more than one value", path.join(".")))
                .hint("name one of those below it")
                .into());
        }
        ["user", ..] => {
            let value = if stdin {
                read_stdin()?
            } else {
                random_hex(32).map_err(|e| Failure::bug("this computer gives no random numbers").source(e))?
            };
            file.set(&path, value).map_err(|e| Failure::user("the value cannot be kept").source(e))?;
        }
        ["nodes", node, "sshHostKey" | "sshHostKeyPublic"] => {
            // Made anew when the node's document is rendered next.
            file.remove(&["nodes", node, "sshHostKey"]);
            file.remove(&["nodes", node, "sshHostKeyPublic"]);
        }
        _ => {
            return Err(Failure::user(format!("{} is not rotated by this version", path.join(".")))
                .hint("machines in use trust it: another one would shut them out. `bramble secrets rotate` without a name changes the key of the file")
                .into());
        }
    }
    save(&mut file)?;
    bramble_console::say(&format!("{}: rotated", path.join(".")));
    bramble_console::say("machines get it with their next card: `bramble flash`");
    Ok(Exit::Done)
}

fn read_stdin() -> Result<SecretText, Problem> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(1 << 20)
        .read_to_string(&mut text)
        .map_err(|e| Failure::user("cannot read the value from standard input").source(e))?;
    let text = without_editors_newline(&Secret::new(String::new()), Secret::new(text));
    if text.expose().is_empty() {
        return Err(Failure::user("standard input holds no value").into());
    }
    Ok(text)
}

fn rekey_failure(error: RekeyError) -> Failure {
    let hint = match &error {
        RekeyError::Foreign(_) | RekeyError::Comment { .. } => "`sops rotate -i` and `sops updatekeys` do it",
        RekeyError::Unknown(_) => "`bramble secrets show` says whom it is for",
        RekeyError::Last(_) => "add another recipient first",
        RekeyError::Random(_) => "try again",
    };
    Failure::user("the key of the secrets file cannot be changed").source(error).hint(hint)
}

fn add(settings: &Settings, recipient: Option<&str>, new: bool) -> Result<Exit, Problem> {
    let _guard = settings.project.acquire("secrets add-recipient")?;
    let mut file = open(settings)?;
    let made = new.then(Identity::generate);
    let recipient: Recipient = match (&made, recipient) {
        (Some(identity), _) => identity.recipient(),
        (None, Some(text)) => super::init::parse(text, "age recipient")?,
        (None, None) => return Err(Failure::user("no recipient was named").into()),
    };
    let before = file.recipients();
    let added = file
        .add_recipient(&recipient)
        .map_err(|e| Failure::bug("this computer gives no random numbers").source(e))?;
    if !added {
        bramble_console::say(&format!("the file is for {recipient} already"));
        return Ok(Exit::Done);
    }
    save(&mut file)?;
    rules(settings, &before, &file.recipients())?;
    bramble_console::say(&format!("{} opens the secrets file now; commit it", recipient));
    if let Some(identity) = made {
        bramble_console::say("its private key, shown once: keep it on paper or on a stick in a drawer");
        bramble_console::data(identity.to_text().expose());
    }
    Ok(Exit::Done)
}

fn remove(settings: &Settings, recipient: &str) -> Result<Exit, Problem> {
    let _guard = settings.project.acquire("secrets remove-recipient")?;
    let mut file = open(settings)?;
    let recipient: Recipient = super::init::parse(recipient, "age recipient")?;
    let before = file.recipients();
    file.remove_recipient(&recipient).map_err(rekey_failure)?;
    save(&mut file)?;
    rules(settings, &before, &file.recipients())?;
    bramble_console::say(&format!(
        "{recipient} no longer opens the secrets file, which has another key; commit it"
    ));
    bramble_console::warning(
        "whoever left still knows what they read, and what lies in git's history: rotate what matters",
    );
    Ok(Exit::Done)
}

/// Keeps `.sops.yaml` in step, if it is as this tool wrote it.
fn rules(settings: &Settings, before: &[String], after: &[String]) -> Result<(), Problem> {
    let path = settings.project.directory.join(".sops.yaml");
    let secrets = settings.project.secrets_file();
    let name = secrets.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let of = |texts: &[String]| -> Option<String> {
        let parsed: Result<Vec<Recipient>, _> = texts.iter().map(|t| t.parse()).collect();
        parsed.ok().map(|recipients| bramble_secrets::creation_rules(&name, &recipients))
    };
    let ours = std::fs::read_to_string(&path).ok().is_some_and(|text| Some(text) == of(before));
    match of(after) {
        Some(text) if ours => bramble_exec::replace(&path, text.as_bytes(), 0o644)?,
        _ => bramble_console::warning(&format!(
            "{} is not as bramble wrote it: change its list of recipients by hand, else `sops updatekeys` undoes this",
            path.display()
        )),
    }
    Ok(())
}

/// Files below the project that are called encrypted and are not.
pub(super) fn unencrypted(directory: &Path) -> Vec<(PathBuf, Unencrypted)> {
    let mut found = Vec::new();
    look(directory, 0, &mut found);
    found.sort_by(|a, b| a.0.cmp(&b.0));
    found
}

fn look(directory: &Path, depth: usize, found: &mut Vec<(PathBuf, Unencrypted)>) {
    // Deeper than any project goes; links are not followed, so this ends.
    const DEEPEST: usize = 12;
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let Ok(kind) = entry.file_type() else { continue };
        let skipped = [".git", ".bramble", "build", "target", "node_modules"];
        if kind.is_dir() && depth < DEEPEST && !skipped.iter().any(|s| name == *s) {
            look(&path, depth + 1, found);
        } else if kind.is_file() && bramble_secrets::must_be_encrypted(&path) {
            let text = std::fs::read(&path).unwrap_or_default();
            if let Err(why) = bramble_secrets::check_encrypted(&path, &String::from_utf8_lossy(&text)) {
                found.push((path, why));
            }
        }
    }
}

/// Refuses them.
pub(super) fn refuse(found: &[(PathBuf, Unencrypted)]) -> Result<(), Problem> {
    for (path, why) in found {
        bramble_console::error(&format!("{} is not encrypted: {why}", path.display()), &[], None);
    }
    match found {
        [] => Ok(()),
        [(path, _), ..] => Err(Failure::user("a file with `.sops.` in its name must be encrypted")
            .hint(format!(
                "sops encrypt -i {}; if it was ever committed or pushed, its secrets are known",
                path.display()
            ))
            .into()),
    }
}

fn git(directory: &Path, arguments: &[&str]) -> Result<Vec<u8>, Problem> {
    let output = Command::new("git")
        .current_dir(directory)
        .args(arguments)
        .output()
        .map_err(|e| Failure::user("cannot run git").source(e))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_string();
    Err(Failure::user(format!("git {}: {}", arguments.join(" "), bramble_console::harmless(&said))).into())
}

/// Git's hook before a commit: looks at what would be committed, not at what lies in the directory.
fn hook(settings: &Settings, install: bool) -> Result<Exit, Problem> {
    let directory = &settings.project.directory;
    if install {
        return install_hook(directory);
    }
    let top = String::from_utf8_lossy(&git(directory, &["rev-parse", "--show-toplevel"])?).trim().to_string();
    let top = Path::new(&top);
    let list = git(top, &["diff", "--cached", "--name-only", "-z", "--diff-filter=ACMR"])?;
    let mut found = Vec::new();
    for name in String::from_utf8_lossy(&list).split('\0').filter(|n| !n.is_empty()) {
        let path = Path::new(name);
        if !bramble_secrets::must_be_encrypted(path) {
            continue;
        }
        let text = git(top, &["show", &format!(":{name}")])?;
        if let Err(why) = bramble_secrets::check_encrypted(path, &String::from_utf8_lossy(&text)) {
            found.push((path.to_path_buf(), why));
        }
    }
    refuse(&found)?;
    Ok(Exit::Done)
}

const HOOK: &str = "#!/bin/sh\n# Refuses to commit a file called *.sops.* that is not encrypted.\nexec bramble secrets hook\n";

fn install_hook(directory: &Path) -> Result<Exit, Problem> {
    let hooks =
        String::from_utf8_lossy(&git(directory, &["rev-parse", "--git-path", "hooks"])?).trim().to_string();
    let path = directory.join(hooks).join("pre-commit");
    match std::fs::read_to_string(&path) {
        Ok(text) if text == HOOK => bramble_console::say(&format!("{}: there already", path.display())),
        Ok(_) => {
            return Err(Failure::user(format!("{} is there already, and not ours", path.display()))
                .hint("add the line `bramble secrets hook || exit 1` to it")
                .into());
        }
        Err(_) => {
            bramble_exec::replace(&path, HOOK.as_bytes(), 0o755)?;
            bramble_console::say(&format!("{}: written", path.display()));
        }
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, SecretsFile) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("bramble.secrets.sops.yaml");
        let mut file = SecretsFile::create(&path, &[Identity::generate().recipient()]).unwrap();
        for path in
            [&["user", "wifi"][..], &["nodes", "n1", "kubernetes", "pki/ca.crt"], &["nodes", "n1.x", "a"]]
        {
            file.set(path, Secret::new("v".to_string())).unwrap();
        }
        (dir, file)
    }

    #[test]
    fn a_name_finds_its_place_also_through_keys_with_dots() {
        let (_dir, file) = file();
        let at = |name: &str| place(&file, name).ok();
        assert_eq!(at("wifi"), Some(vec!["user".into(), "wifi".into()]));
        assert_eq!(at("user.wifi"), at("wifi"));
        assert_eq!(at("nodes.n1.kubernetes.pki/ca.crt").map(|p| p.len()), Some(4));
        assert_eq!(at("nodes.n1.x.a"), Some(vec!["nodes".into(), "n1.x".into(), "a".into()]));
        assert_eq!(at("wifi.more"), None);
        for name in names(&file, &[]) {
            assert!(at(&name).is_some(), "{name}");
        }
    }

    #[test]
    fn what_is_called_encrypted_and_is_not_is_found() {
        let (dir, mut file) = file();
        file.save(jiff::Timestamp::UNIX_EPOCH).unwrap();
        assert_eq!(unencrypted(dir.path()), []);
        std::fs::create_dir_all(dir.path().join("apps/x")).unwrap();
        std::fs::create_dir_all(dir.path().join("build")).unwrap();
        for place in ["apps/x/db.sops.yaml", "build/db.sops.yaml", "apps/.sops.yaml", "apps/db.yaml"] {
            std::fs::write(dir.path().join(place), "password: hunter2\n").unwrap();
        }
        assert_eq!(unencrypted(dir.path()), [(dir.path().join("apps/x/db.sops.yaml"), Unencrypted::NoSops)]);
        assert!(refuse(&unencrypted(dir.path())).is_err());
    }

    #[test]
    fn a_password_has_no_end_of_line() {
        let edited = |old: &str, new: &str| {
            without_editors_newline(&Secret::new(old.into()), Secret::new(new.into())).expose().clone()
        };
        assert_eq!(edited("old", "new\n"), "new");
        assert_eq!(edited("old\n", "new\n"), "new\n");
        assert_eq!(edited("", "a\nb\n"), "a\nb\n");
    }
}
