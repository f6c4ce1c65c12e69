//! `bramble lock`, `fetch` and `build`: plans that the executor runs.

use crate::cli;
use crate::hands;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use bramble_api::names::Arch;
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_exec::Publishing;
use bramble_plan::{Inventory, Purpose};

/// Chooses packages and writes the lock.
pub(crate) fn lock(args: &cli::Lock, settings: &Settings) -> Result<Exit, Problem> {
    run(settings, Purpose::Lock { update: args.update }, Publishing::default())?;
    Ok(Exit::Done)
}

/// Gets everything that a build needs onto this computer.
pub(crate) fn fetch(args: &cli::Fetch, settings: &Settings) -> Result<Exit, Problem> {
    let archs = archs(args.arch.as_deref())?;
    let site = run(settings, Purpose::Fetch { archs }, Publishing::default())?;
    if let Some(keep) = &args.keep {
        let copied = hands::keep(settings, &site, keep)?;
        bramble_console::say(&format!("{copied} packages kept in {}", keep.display()));
    }
    Ok(Exit::Done)
}

/// Builds releases, and images for the named nodes.
pub(crate) fn build(args: &cli::Build, settings: &Settings) -> Result<Exit, Problem> {
    let archs = archs(args.arch.as_deref())?;
    let publishing = Publishing { from: args.from.clone(), ..Publishing::default() };
    let site = run(settings, Purpose::Build { archs, images: args.nodes.clone() }, publishing)?;
    for node in &args.nodes {
        let path = hands::image_path(settings, node);
        let shown = path.strip_prefix(&settings.project.directory).unwrap_or(&path);
        bramble_console::say(&format!(
            "{}: holds the keys of {node}; delete it when it is flashed",
            shown.display()
        ));
    }
    drop(site);
    Ok(Exit::Done)
}

pub(super) fn archs(asked: Option<&str>) -> Result<Vec<Arch>, Problem> {
    let parse = |text: &str| {
        text.parse::<Arch>().map_err(|e| Problem::from(Failure::user(e.to_string()).hint("amd64 or arm64")))
    };
    asked.map(parse).into_iter().collect()
}

/// Plans and performs building steps.
pub(super) fn run(settings: &Settings, purpose: Purpose, publishing: Publishing) -> Result<Site, Problem> {
    let site = Site::load(settings)?;
    if let Purpose::Build { images, .. } = &purpose {
        for node in images {
            site.known(node)?;
        }
    }
    let plan =
        bramble_plan::plan(&site.wanted(), &site.sources(), &site.lock, &Inventory::default(), &purpose);
    for left_out in &plan.waiting {
        bramble_console::warning(&format!("{}: {}", left_out.subject, left_out.on));
    }
    hands::run_build(settings, site, &plan, publishing)
}
