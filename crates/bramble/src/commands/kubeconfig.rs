//! `bramble kubeconfig`: a way into the lab's cluster, good for hours.

use crate::cli::Kubeconfig as Args;
use crate::hands;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use bramble_console::Exit;
use bramble_effects::Failure;
use std::path::Path;

/// Writes it, mode 0600.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    let site = Site::load(settings)?;
    write(settings, &site, &args.out, args.hours)?;
    bramble_console::say(&format!("{}: good for {} hours", args.out.display(), args.hours));
    Ok(Exit::Done)
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
