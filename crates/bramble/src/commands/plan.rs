//! `bramble plan`: what would be done to the site, or what a build or the lab would do. Changes nothing.

use crate::cli::{Output, Plan as Args};
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use bramble_api::plan::Plan;
use bramble_console::Exit;
use bramble_plan::{Inventory, Purpose};

/// Shows the plan of the site, or of what makes images and machines of a lab.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    if !args.build {
        return super::house::show_plan(args, settings);
    }
    let site = Site::load(settings)?;
    let purpose = if args.lab {
        Purpose::LabUp { nodes: vec![] }
    } else {
        Purpose::Build { archs: vec![], images: vec![] }
    };
    let inventory = if args.lab { super::lab::inventory(settings) } else { Inventory::default() };
    let plan = bramble_plan::plan(&site.wanted(), &site.sources(), &site.lock, &inventory, &purpose);
    match args.output {
        Output::Json => bramble_console::json(&plan),
        Output::Name => {
            let names: Vec<String> = plan.steps.iter().map(|s| s.id.to_string()).collect();
            bramble_console::data(&names.join("\n"));
        }
        Output::Text => bramble_console::data(&text(&plan)),
    }
    let pending = args.exit_code && !plan.steps.is_empty();
    Ok(if pending { Exit::Pending } else { Exit::Done })
}

pub(crate) fn text(plan: &Plan) -> String {
    let mut lines =
        vec![format!("{} for cluster {}: {} steps", plan.purpose, plan.cluster, plan.steps.len())];
    let width = plan.steps.iter().map(|s| s.id.0.len()).max().unwrap_or(0);
    lines.extend(plan.steps.iter().map(|s| format!("  {:width$}  {}", s.id.0, s.why)));
    if !plan.waiting.is_empty() {
        lines.push("waiting:".into());
        lines.extend(plan.waiting.iter().map(|w| format!("  {}: {}", w.subject, w.on)));
    }
    if !plan.not_served.is_empty() {
        lines.push("kept as it stands, not acted on by this version:".into());
        lines.extend(plan.not_served.iter().map(|n| format!("  line {}: {}", n.line, n.path)));
    }
    if !plan.steps.is_empty() {
        lines.push("Each step first looks whether its result is already there.".into());
    }
    lines.join("\n")
}
