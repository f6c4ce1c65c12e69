//! `bramble eject talos`: plain files with which `talosctl` alone goes on.

use crate::cli::EjectTalos as Args;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::{site, talos};
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_exec::Vault;
use bramble_spec::Role;
use bramble_talos::pki::ADMIN;
use bramble_talos::site::Site;
use std::time::Duration;

/// A year, as `talosctl` makes its own.
const LIFE: Duration = Duration::from_secs(365 * 24 * 3600);

/// Writes bundle, configs, talosconfig and the commands that use them.
pub(crate) fn talos(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    let cluster = site::check(settings)?.cluster;
    talos::wanted(&cluster, settings)?;
    let vault = Vault::open(&settings.project.secrets_file())?;
    let bundle = talos::bundle(&vault, settings)?;
    let sources = talos::Project { directory: settings.project.directory.clone(), vault: Some(&vault) };
    let rendered = Site::new(&cluster, &bundle, &sources).map_err(talos::refused)?;
    let nodes = talos::nodes(&cluster);
    let mut files = vec![("secrets.yaml".to_string(), bundle.write())];
    let mut commands = String::from(
        "# What is here goes on without Bramble. Everything but this page is secret: never commit it in clear.\n\n\
         To apply a config, to a machine that runs or, with --insecure, to one in maintenance mode:\n\n",
    );
    for node in &nodes {
        let config = rendered.render(node).map_err(talos::refused)?;
        files.push((format!("{}.yaml", node.name), config.text()));
        commands.push_str(&format!(
            "    talosctl --talosconfig talosconfig -e {0} -n {0} apply-config -f {1}.yaml\n",
            node.address, node.name
        ));
    }
    let endpoints: Vec<String> =
        nodes.iter().filter(|n| n.role == Role::ControlPlane).map(|n| n.address.to_string()).collect();
    let all: Vec<String> = nodes.iter().map(|n| n.address.to_string()).collect();
    let config = bramble_talos::talosconfig::talosconfig(
        &bundle,
        cluster.name(),
        &endpoints,
        &all,
        &[ADMIN],
        super::now(),
        LIFE,
    )
    .map_err(|e| Failure::user("cannot issue a talosconfig").source(e))?;
    files.push(("talosconfig".to_string(), config));
    if let Some(first) = endpoints.first() {
        commands.push_str(&format!(
            "\nOnce, to found a new cluster: `talosctl --talosconfig talosconfig -e {first} -n {first} bootstrap`.\n\
             For a kubeconfig: `talosctl --talosconfig talosconfig -e {first} -n {first} kubeconfig`.\n\
             For new configs from the same keys: `talosctl gen config --with-secrets secrets.yaml`.\n",
        ));
    }
    let directory = &args.out;
    std::fs::create_dir_all(directory)
        .map_err(|e| Failure::user(format!("cannot make {}", directory.display())).source(e))?;
    // First, so that a cut leaves nothing in clear that git would take.
    bramble_exec::replace(&directory.join(".gitignore"), b"*\n", 0o644)?;
    for (name, text) in &files {
        bramble_exec::replace(&directory.join(name), text.expose().as_bytes(), 0o600)?;
    }
    bramble_exec::replace(&directory.join("README.md"), commands.as_bytes(), 0o644)?;
    bramble_console::say(&format!(
        "{}: the bundle, {} configs, a talosconfig good for a year, and README.md; all in clear, and \
         ignored by git",
        directory.display(),
        nodes.len()
    ));
    Ok(Exit::Done)
}
