//! `bramble kubeconfig`: a way into the lab's cluster, or into a Talos cluster, good for hours.

use crate::cli::Kubeconfig as Args;
use crate::hands;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use crate::talos;
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_exec::Vault;
use bramble_spec::Distribution;
use std::path::Path;
use std::time::Duration;

/// Writes it, mode 0600.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    let site = Site::load(settings)?;
    match site.cluster.spec.kubernetes.distribution {
        Distribution::Talos => of_talos(settings, &site, &args.out, args.hours)?,
        Distribution::Upstream | Distribution::K3s => write(settings, &site, &args.out, args.hours)?,
    }
    bramble_console::say(&format!("{}: good for {} hours", args.out.display(), args.hours));
    Ok(Exit::Done)
}

/// Writes a kubeconfig for a Talos cluster: its bundle can sign one, nobody has to be asked.
fn of_talos(settings: &Settings, site: &Site, out: &Path, hours: u64) -> Result<(), Problem> {
    let vault = Vault::open(&settings.project.secrets_file())?;
    let bundle = talos::bundle(&vault, settings)?;
    let endpoint = site.cluster.endpoint().ok_or_else(|| Failure::user("the file has no control plane"))?;
    let server = format!("https://{}:{}", endpoint.address, endpoint.port);
    let life = Duration::from_secs(hours.saturating_mul(3600));
    let text =
        bramble_talos::pki::kubeconfig(&bundle.kubernetes, site.cluster.name(), &server, super::now(), life)
            .map_err(|e| Failure::user("cannot issue a kubeconfig").source(e))?;
    bramble_exec::replace(out, text.expose().as_bytes(), 0o600)?;
    Ok(())
}

/// Writes a kubeconfig for the lab's first control plane.
pub(crate) fn write(settings: &Settings, site: &Site, out: &Path, hours: u64) -> Result<(), Problem> {
    let node = site
        .cluster
        .effective_nodes()
        .into_iter()
        .find(|n| n.role == bramble_spec::Role::ControlPlane)
        .ok_or_else(|| Failure::user("the file has no control plane"))?;
    let lab = super::lab::open(settings)?;
    let endpoint = site.cluster.endpoint().map_or(6443, |e| e.port);
    let port = super::lab::forward(&lab, &node.name, endpoint)?;
    let text = hands::lab_kubeconfig(settings, site, &format!("https://127.0.0.1:{port}"), hours)?;
    bramble_exec::replace(out, text.expose().as_bytes(), 0o600)?;
    Ok(())
}
