//! `bramble talosconfig`: a way to the machine API, good for hours.

use crate::cli::Talosconfig as Args;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::{site, talos};
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_exec::Vault;
use bramble_spec::Role;
use std::time::Duration;

/// Roles that apid knows (`pkg/machinery/role`).
const ROLES: [&str; 5] = ["os:admin", "os:operator", "os:reader", "os:etcd:backup", "os:meta:writer"];

/// Writes it, mode 0600.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    let cluster = site::check(settings)?.cluster;
    talos::wanted(&cluster, settings)?;
    let roles: Vec<&str> = args.roles.iter().map(String::as_str).collect();
    if let Some(unknown) = roles.iter().find(|role| !ROLES.contains(role)) {
        let what = format!("Talos knows no role {:?}", bramble_console::harmless(unknown));
        return Err(Failure::user(what).hint(format!("it knows {}", ROLES.join(", "))).into());
    }
    let vault = Vault::open(&settings.project.secrets_file())?;
    let bundle = talos::bundle(&vault, settings)?;
    let all = talos::nodes(&cluster);
    // Never the shared address: nobody holds it before etcd runs, and when it moves the connection breaks.
    let endpoints: Vec<String> =
        all.iter().filter(|n| n.role == Role::ControlPlane).map(|n| n.address.to_string()).collect();
    let nodes: Vec<String> = all.iter().map(|n| n.address.to_string()).collect();
    let life = Duration::from_secs(args.hours.saturating_mul(3600));
    let text = bramble_talos::talosconfig::talosconfig(
        &bundle,
        cluster.name(),
        &endpoints,
        &nodes,
        &roles,
        super::now(),
        life,
    )
    .map_err(|e| Failure::user("cannot issue a talosconfig").source(e))?;
    bramble_exec::replace(&args.out, text.expose().as_bytes(), 0o600)?;
    bramble_console::say(&format!("{}: good for {} hours", args.out.display(), args.hours));
    Ok(Exit::Done)
}
