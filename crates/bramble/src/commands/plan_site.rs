//! `bramble plan --inventory FILE`: what would be done to the whole site, and why the rest waits. Changes nothing.

use crate::cli::{Output, Plan as Args};
use crate::problem::Problem;
use crate::site::Site;
use bramble_api::site::{Inventory, Permission, Severity, TalosLine, VersionTable};
use bramble_api::window::Local;
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_plan::site::{Asked, Documents, Now, plan, wanted};
use bramble_spec::Cluster;
use std::path::Path;

/// More than ten thousand machines have.
const LARGEST: u64 = 256 << 20;

/// Shows the plan of the site.
pub(crate) fn run(args: &Args, file: &Path, site: &Site) -> Result<Exit, Problem> {
    let inventory = read(file)?;
    let mut asked = Asked { who: "bramble plan".to_string(), now: args.now, ..Asked::default() };
    for text in &args.allow {
        asked.allow.insert(permission(text)?);
    }
    for node in &args.nodes {
        site.known(node)?;
        asked.only.insert(node.clone());
    }
    let wanted = wanted(&site.cluster, &site.lock, &Documents::new(), table(), site.not_served.clone());
    let epoch = super::now();
    let now = Now { epoch, local: local(&site.cluster, epoch) };
    let (plan, _) = plan(&wanted, &site.sources(), &inventory, now, &asked, seed(&wanted.spec));
    match args.output {
        Output::Json => bramble_console::json(&plan),
        Output::Name => {
            let names: Vec<String> = plan.steps.iter().map(|s| s.id.to_string()).collect();
            bramble_console::data(&names.join("\n"));
        }
        Output::Text => bramble_console::data(&bramble_console::site::plan(&plan, bramble_console::width())),
    }
    if plan.notes.iter().any(|note| note.severity == Severity::Error) {
        let what = "the plan does not pass its own checks, which is a fault of bramble";
        return Err(Failure::bug(what)
            .hint("please report it, with the file, the lock and the inventory")
            .into());
    }
    Ok(if args.exit_code && !plan.steps.is_empty() { Exit::Pending } else { Exit::Done })
}

fn read(file: &Path) -> Result<Inventory, Problem> {
    let name = file.display();
    let failed = |source: std::io::Error| Failure::user(format!("cannot read {name}")).source(source);
    if std::fs::metadata(file).map_err(failed)?.len() > LARGEST {
        return Err(Failure::user(format!("{name} is too large for an inventory")).into());
    }
    let text = std::fs::read(file).map_err(failed)?;
    let inventory: Inventory = serde_json::from_slice(&text)
        .map_err(|e| Failure::user(format!("{name} is no inventory")).source(std::io::Error::other(e)))?;
    match inventory.format {
        1 => Ok(inventory),
        other => {
            let what = format!("{name} is an inventory of format {other}; this version reads format 1");
            Err(Failure::user(what).into())
        }
    }
}

fn permission(text: &str) -> Result<Permission, Problem> {
    text.parse().map_err(|_| {
        let what = format!("{:?} is no permission", bramble_console::harmless(text));
        let hint = "one of wipe, remove, outage, without, evict, found, takeover, and for whom: wipe=n2";
        Failure::user(what).hint(hint).into()
    })
}

/// What is known of releases, as the Talos crate has it.
fn table() -> VersionTable {
    let lines = bramble_talos::versions::lines().into_iter();
    let line = |l: bramble_talos::versions::KnownLine| TalosLine {
        minor: l.minor,
        newest: l.newest,
        upgrades_from: l.upgrades_from,
        kubernetes: l.kubernetes,
    };
    VersionTable { talos: lines.map(line).collect(), kubernetes: Default::default() }
}

/// The site's local time; none where this computer does not know the zone.
fn local(cluster: &Cluster, epoch: u64) -> Option<Local> {
    let zone = cluster.spec.os.settings.timezone.as_ref().map_or("Etc/UTC".to_string(), ToString::to_string);
    let zone = match zone.as_str() {
        "Etc/UTC" | "UTC" => jiff::tz::TimeZone::UTC,
        name => {
            // The name was checked with the file: it leads nowhere else.
            let bytes = std::fs::read(Path::new("/usr/share/zoneinfo").join(name)).ok()?;
            jiff::tz::TimeZone::tzif(name, &bytes).ok()?
        }
    };
    let time = jiff::Timestamp::from_second(i64::try_from(epoch).ok()?).ok()?.to_zoned(zone);
    let day = u8::try_from(time.weekday().to_monday_zero_offset()).ok()?;
    let minute = u16::try_from(time.hour()).ok()? * 60 + u16::try_from(time.minute()).ok()?;
    Some(Local { day, minute })
}

/// The same canary for the same file.
fn seed(spec: &str) -> u64 {
    u64::from_str_radix(spec.get(..15).unwrap_or("0"), 16).unwrap_or(0)
}
