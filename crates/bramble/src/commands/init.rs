//! `bramble init`: starts a project. Asks where a person sits at the terminal, takes flags everywhere.

use crate::cli::Init;
use crate::problem::Problem;
use crate::settings::Settings;
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_exec::Vault;
use bramble_secrets::{Environment, Identities, Identity, Recipient};
use bramble_spec::{Board, Datastore, Distribution, InitOptions, NewNode, Role};
use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

/// What must never be committed.
const GITIGNORE: &str = "/.bramble/\n/build/\n/kubeconfig\n/talosconfig\n*.img\n";

/// Kubernetes that this version was tried with.
const KUBERNETES: &str = "v1.36.3";

/// Writes bramble.yaml, .gitignore, .sops.yaml and the secrets file; leaves what is there.
pub(crate) fn run(args: &Init, settings: &Settings) -> Result<Exit, Problem> {
    let project = &settings.project;
    let recipients = recipients(args, settings)?;
    if project.file.exists() {
        bramble_console::say(&format!("{}: there already, left as it is", settings.file_name()));
    } else {
        let text = bramble_spec::template(&options(args)?);
        bramble_exec::replace(&project.file, text.as_bytes(), 0o644)?;
        bramble_console::say(&format!("{}: written", settings.file_name()));
    }
    ignore(&project.directory.join(".gitignore"))?;
    let secrets = project.secrets_file();
    let name = secrets.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let rules = project.directory.join(".sops.yaml");
    if !rules.exists() {
        bramble_exec::replace(&rules, bramble_secrets::creation_rules(&name, &recipients).as_bytes(), 0o644)?;
    }
    if !secrets.exists() {
        let vault = Vault::create(&secrets, &recipients)?;
        vault.signing_key()?;
        vault.save(super::now())?;
        bramble_console::say(&format!("{name}: written, for {} recipient(s)", recipients.len()));
        if recipients.len() == 1 {
            bramble_console::say(
                "only one key opens it: `bramble secrets add-recipient --new` makes a spare one for a drawer",
            );
        }
    }
    bramble_console::say("next: `bramble check`, then `bramble lab up` to rehearse, or `bramble build`");
    Ok(Exit::Done)
}

/// Who may read the secrets file: as told, else whose key is at hand, else a new key for this person.
fn recipients(args: &Init, settings: &Settings) -> Result<Vec<Recipient>, Problem> {
    if !args.recipients.is_empty() {
        return args.recipients.iter().map(|r| parse(r, "age recipient")).collect();
    }
    let environment = Environment::of_process();
    // A key file that is named and not there yet is where the new key goes.
    if environment.key_file.as_ref().is_none_or(|named| named.exists()) {
        let found = Identities::find(&environment)
            .map_err(|e| Failure::user("the age keys of this computer cannot be used").source(e))?;
        if !found.is_empty() {
            return Ok(found.recipients());
        }
    }
    let Some(path) = environment.key_file.or(environment.user_file) else {
        return Err(Failure::user("there is no home directory to keep an age key in")
            .hint("say who may read the secrets file with --recipient")
            .into());
    };
    let identity = Identity::generate();
    let now = super::timestamp();
    identity.write_new(&path, now).map_err(|e| {
        Failure::user(format!("cannot keep a new age key for {}", settings.file_name())).source(e)
    })?;
    bramble_console::say(&format!(
        "a new age key is in {}: keep a copy of it, nothing else opens the secrets file",
        path.display()
    ));
    Ok(vec![identity.recipient()])
}

fn options(args: &Init) -> Result<InitOptions, Problem> {
    let name = answer(&args.name, "Name of the cluster?", "home");
    let subnet: ipnet::Ipv4Net =
        parse(&answer(&args.subnet, "Subnet of the site?", "192.168.1.0/24"), "subnet")?;
    let host = |n: u32| Ipv4Addr::from(u32::from(subnet.network()).saturating_add(n)).to_string();
    let gateway: Ipv4Addr = parse(&answer(&args.gateway, "Address of the router?", &host(1)), "address")?;
    let address: Ipv4Addr =
        parse(&answer(&args.address, "Address of the first node?", &host(11)), "address")?;
    let boards: Vec<String> = Board::ALL.iter().map(ToString::to_string).collect();
    let question = format!("Board of the first node ({})?", boards.join(", "));
    let board: Board = parse(&answer(&args.board, &question, "uefi-amd64"), "board")?;
    Ok(InitOptions {
        name: parse(&name, "name")?,
        distribution: Distribution::Upstream,
        version: parse(KUBERNETES, "version")?,
        datastore: Datastore::Sqlite,
        talos_version: None,
        subnet,
        gateway: Some(gateway),
        dns: vec![gateway],
        timezone: bramble_spec::Timezone::utc(),
        authorized_keys: vec![],
        nodes: vec![NewNode {
            name: "n1".into(),
            role: Role::ControlPlane,
            board: Some(board),
            address,
            mac: None,
            labels: vec![],
            taints: vec![],
        }],
    })
}

/// The flag, else what a person answers, else the default.
fn answer(flag: &Option<String>, question: &str, default: &str) -> String {
    flag.clone().or_else(|| bramble_console::ask(question, default)).unwrap_or_else(|| default.to_string())
}

/// A typed value, or the user's mistake.
pub(super) fn parse<T: FromStr>(text: &str, what: &str) -> Result<T, Problem>
where
    T::Err: Display,
{
    text.parse().map_err(|e: T::Err| {
        Failure::user(format!("{what} {:?}: {e}", bramble_console::harmless(text))).into()
    })
}

/// Adds our lines to a .gitignore, keeping the user's.
fn ignore(path: &Path) -> Result<(), Problem> {
    let old = std::fs::read_to_string(path).unwrap_or_default();
    let missing: Vec<&str> =
        GITIGNORE.lines().filter(|line| !old.lines().any(|l| l.trim() == *line)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let gap = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
    let text = format!("{old}{gap}{}\n", missing.join("\n"));
    bramble_exec::replace(path, text.as_bytes(), 0o644)?;
    Ok(())
}
