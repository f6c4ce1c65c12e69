//! The whole site: looked at, planned for, shown. `bramble plan`, `status`, `why`.

use crate::cli::{Asking, Output, Plan as Args, Status as StatusArgs, Why};
use crate::hands;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use crate::way::{Way, why as words};
use bramble_api::names::Arch;
use bramble_api::site::{
    Fact, Git, Inventory, Permission, Release, Severity, SitePlan, Source, TalosLine, VersionTable,
};
use bramble_api::window::Local;
use bramble_console::Exit;
use bramble_effects::Failure;
use bramble_exec::{LabCards, node_settings};
use bramble_observe::Target;
use bramble_plan::site::{Asked, Documents, Now, Wanted, plan, wanted};
use bramble_spec::{Cluster, Distribution};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::runtime::Runtime;

/// More than ten thousand machines have.
const LARGEST: u64 = 256 << 20;
/// How long a machine or the API may take to answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Between two looks of `status --watch`.
const WATCH: Duration = Duration::from_secs(5);

/// The house or its lab: what is wanted of it, and the way there.
pub(crate) struct House<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) site: Site,
    pub(crate) lab: bool,
    pub(crate) way: Result<Way, String>,
    pub(crate) wanted: Wanted,
    pub(crate) runtime: Runtime,
}

impl<'a> House<'a> {
    /// Opens it. Without keys there is no way to any machine, and every fact says so.
    pub(crate) fn open(settings: &'a Settings, lab: bool) -> Result<House<'a>, Problem> {
        let mut site = Site::load(settings)?;
        if site.cluster.spec.kubernetes.distribution == Distribution::Talos {
            return Err(Failure::user("this version does not look at machines of Talos")
                .hint("`bramble plan --inventory FILE` plans from a file of facts")
                .into());
        }
        let directory = super::lab::directory(settings);
        if lab {
            // The lab has cards of its own, and numbers of releases.
            site.lock = LabCards::open(&directory, &site.lock)?.1;
            for arch in [Arch::Amd64, Arch::Arm64] {
                let published = bramble_exec::published(&public(settings, lab), site.cluster.name(), arch)?;
                if let Some((version, _)) = published.first() {
                    site.lock.allocated.releases.entry(arch).or_default().version = *version;
                }
            }
        }
        let found = match lab || settings.project.secrets_file().exists() {
            true => Way::find(settings, &site, lab),
            false => Err(Failure::user("there is no secrets file").into()),
        };
        let way = found.map_err(words);
        let documents = match &way {
            Ok(_) => documents(settings, &site, lab),
            Err(_) => Documents::new(),
        };
        let wanted = wanted(&site.cluster, &site.lock, &documents, table(), site.not_served.clone());
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|e| Failure::user("cannot open sockets").source(e))?;
        Ok(House { settings, site, lab, way, wanted, runtime })
    }

    /// Looks at every machine and at Kubernetes.
    pub(crate) fn look(&self) -> Inventory {
        let now = super::now();
        let nodes = self.site.cluster.effective_nodes();
        let targets: Vec<Target> = nodes
            .iter()
            .map(|node| Target {
                name: node.name.clone(),
                role: bramble_plan::role(node.role),
                place: self.way.as_ref().map_err(Clone::clone).and_then(|way| way.place(node).map_err(words)),
                label_keys: node.labels.keys().cloned().collect(),
                written: self.site.lock.allocated.nodes.get(&node.name).is_some_and(|n| n.written),
            })
            .collect();
        let nobody = bramble_rpc::Credentials {
            certificate: String::new(),
            key: String::new(),
            authorities: String::new(),
        };
        let credentials = self.way.as_ref().map_or(&nobody, |way| &way.credentials);
        let kubeconfig = self
            .way
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|way| way.kubeconfig(self.settings, &self.site).map_err(words));
        let seen = bramble_observe::look(bramble_observe::Site {
            targets: &targets,
            credentials,
            kubeconfig: kubeconfig.as_ref().map(|text| text.expose().as_str()).map_err(Clone::clone),
            releases: self.releases(now),
            git: git(&self.settings.project.directory, now),
            deadline: DEADLINE,
            now,
        });
        self.runtime.block_on(seen)
    }

    /// The plan, as things are seen now.
    pub(crate) fn plan(&self, seen: &Inventory, asked: &Asked) -> SitePlan {
        let epoch = super::now();
        let now = Now { epoch, local: local(&self.site.cluster, epoch) };
        plan(&self.wanted, &self.site.sources(), seen, now, asked, seed(&self.wanted.spec)).0
    }

    /// What `bramble release` published here. Whether a web server has it as well is not looked at.
    fn releases(&self, now: u64) -> Fact<Vec<Release>> {
        let directory = public(self.settings, self.lab);
        let mut all = Vec::new();
        for arch in [Arch::Amd64, Arch::Arm64] {
            match bramble_exec::published(&directory, self.site.cluster.name(), arch) {
                Ok(found) => all.extend(found.into_iter().map(|(version, kubernetes)| Release {
                    arch,
                    version,
                    kubernetes: kubernetes.and_then(|k| k.parse().ok()),
                })),
                Err(failure) => return Fact::unknown(failure.chain(), Source::UpdateSource, now),
            }
        }
        Fact::known(all, Source::UpdateSource, now)
    }
}

/// Where `bramble release` and `bramble lab release` publish, if nobody says otherwise.
fn public(settings: &Settings, lab: bool) -> PathBuf {
    match lab {
        true => super::lab::directory(settings).join("public"),
        false => settings.project.directory.join("public"),
    }
}

/// Digests of what the machines' documents would say now. A node that has no identity yet has none.
fn documents(settings: &Settings, site: &Site, lab: bool) -> Documents {
    let made = hands::with_builder(settings, site, lab, |builder| {
        let nodes = site.cluster.effective_nodes();
        let of = |name: &str| Some((String::new(), node_settings(builder, name).ok()?));
        Ok(nodes.iter().filter_map(|n| Some((n.name.clone(), of(&n.name)?))).collect())
    });
    made.unwrap_or_default()
}

/// The commit of the working tree, and whether something is not in it.
fn git(directory: &Path, now: u64) -> Fact<Git> {
    let ask = |words: &[&str]| -> Result<String, String> {
        let mut git = Command::new("git");
        git.arg("-C").arg(directory).args(words);
        let said = git.output().map_err(|e| format!("cannot run git: {e}"))?;
        match said.status.success() {
            true => Ok(String::from_utf8_lossy(&said.stdout).trim().to_string()),
            false => Err("it is in no git repository".to_string()),
        }
    };
    let commit = ask(&["rev-parse", "--short", "HEAD"]);
    let changed = ask(&["status", "--porcelain", "--untracked-files=no", "--", "."]);
    match (commit, changed) {
        (Ok(commit), Ok(changed)) => {
            Fact::known(Git { commit, dirty: !changed.is_empty() }, Source::Git, now)
        }
        (Err(why), _) | (_, Err(why)) => Fact::unknown(why, Source::Git, now),
    }
}

/// What was asked for on the command line.
pub(crate) fn asked(asking: &Asking, site: &Site) -> Result<Asked, Problem> {
    let mut asked = Asked { who: who(), now: asking.now, ..Asked::default() };
    for text in &asking.allow {
        asked.allow.insert(permission(text)?);
    }
    for node in &asking.nodes {
        site.known(node)?;
        asked.only.insert(node.clone());
    }
    Ok(asked)
}

/// Who rolls out: a person at a computer.
fn who() -> String {
    let person = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or("someone".to_string());
    let computer = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let plain =
        |text: &str| text.trim().chars().filter(|c| c.is_ascii_graphic()).take(60).collect::<String>();
    format!("{}@{}", plain(&person), plain(&computer))
}

/// `bramble plan`: shows the plan of the site.
pub(crate) fn show_plan(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    let (plan, passed) = match &args.inventory {
        Some(file) => {
            let site = Site::load(settings)?;
            let inventory = read(file)?;
            let asked = Asked { who: "bramble plan".to_string(), ..asked(&args.asking, &site)? };
            let wanted =
                wanted(&site.cluster, &site.lock, &Documents::new(), table(), site.not_served.clone());
            let epoch = super::now();
            let now = Now { epoch, local: local(&site.cluster, epoch) };
            let plan = plan(&wanted, &site.sources(), &inventory, now, &asked, seed(&wanted.spec)).0;
            let passed = passes(&plan);
            (plan, passed)
        }
        None => {
            let house = House::open(settings, args.lab)?;
            let asked = asked(&args.asking, &house.site)?;
            let plan = house.plan(&house.look(), &asked);
            let passed = passes(&plan);
            (plan, passed)
        }
    };
    if let Some(out) = &args.out {
        let text = serde_json::to_vec_pretty(&plan)
            .map_err(|e| Failure::bug("the plan cannot be written").source(e))?;
        bramble_exec::replace(out, &text, 0o644)?;
    }
    match args.output {
        Output::Json => bramble_console::json(&plan),
        Output::Name => {
            let names: Vec<String> = plan.steps.iter().map(|s| s.id.to_string()).collect();
            bramble_console::data(&names.join("\n"));
        }
        Output::Text => bramble_console::data(&bramble_console::site::plan(&plan, bramble_console::width())),
    }
    passed?;
    Ok(if args.exit_code && !plan.steps.is_empty() { Exit::Pending } else { Exit::Done })
}

/// That the plan passes its own checks.
pub(crate) fn passes(plan: &SitePlan) -> Result<(), Problem> {
    if plan.notes.iter().any(|note| note.severity == Severity::Error) {
        let what = "the plan does not pass its own checks, which is a fault of bramble";
        return Err(Failure::bug(what)
            .hint("please report it, with the file, the lock and the inventory")
            .into());
    }
    Ok(())
}

/// `bramble status`: the table of machines.
pub(crate) fn status(args: &StatusArgs, settings: &Settings) -> Result<Exit, Problem> {
    let house = House::open(settings, args.lab)?;
    let cancel = if args.watch { Some(hands::cancel_at_signals()?) } else { None };
    loop {
        let seen = house.look();
        let plan = house.plan(&seen, &Asked { who: who(), ..Asked::default() });
        let status = bramble_plan::site::status(&house.wanted, &seen, &plan, super::now());
        match args.output {
            Output::Json => bramble_console::json(&status),
            Output::Name => {
                let names: Vec<&str> = status.rows.iter().map(|row| row.node.as_str()).collect();
                bramble_console::data(&names.join("\n"));
            }
            Output::Text => {
                bramble_console::data(&bramble_console::site::status(&status, bramble_console::width()));
            }
        }
        let Some(cancel) = &cancel else { return Ok(Exit::Done) };
        let until = std::time::Instant::now() + WATCH;
        while std::time::Instant::now() < until {
            if cancel.is_cancelled() {
                return Ok(Exit::Done);
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// `bramble why NODE`: everything about one machine.
pub(crate) fn why(args: &Why, settings: &Settings) -> Result<Exit, Problem> {
    let house = House::open(settings, args.lab)?;
    let seen = house.look();
    let plan = house.plan(&seen, &Asked { who: who(), ..Asked::default() });
    let now = super::now();
    let status = bramble_plan::site::status(&house.wanted, &seen, &plan, now);
    let Some(row) = status.rows.iter().find(|row| row.node == args.node) else {
        house.site.known(&args.node)?;
        return Err(Failure::bug(format!("{} has no row", args.node)).into());
    };
    let machine = seen.machines.get(&row.node).cloned().unwrap_or_default();
    bramble_console::data(&bramble_console::site::why(row, &machine, now, bramble_console::width()));
    Ok(Exit::Done)
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
