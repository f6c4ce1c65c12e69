//! `bramble lab`: the site as virtual machines on this computer.

use crate::cli::{Lab as Words, Output};
use crate::hands;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use bramble_api::plan::CardStart;
use bramble_api::stage::Stage;
use bramble_console::{Exit, Table};
use bramble_effects::Failure;
use bramble_exec::Publishing;
use bramble_lab::{CutPoint, Lab, MachineState};
use bramble_plan::{Inventory, Purpose};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// How long a machine may take to switch off by itself before it is switched off.
const GRACE: Duration = Duration::from_secs(20);

/// Does what was asked of the lab.
pub(crate) fn run(words: Words, settings: &Settings) -> Result<Exit, Problem> {
    match words {
        Words::Up { nodes, timeout, until, emulate, no_wait, updates, clock, no_time, leases } => {
            let until = stage(&until)?;
            let timeout = Duration::from_secs(timeout);
            let options = hands::LabOptions { until, timeout, emulate, clock, leases, no_time, updates };
            up(settings, &nodes, options, no_wait)
        }
        Words::Flash { node, keep_data, found } => {
            flash(settings, node, super::flash::card_start(keep_data, found))
        }
        Words::Release { out, level } => release(settings, out, level),
        Words::Down { destroy } => down(settings, destroy),
        Words::Status { output } => status(settings, output),
        Words::Console { node } => {
            bramble_console::say("Ctrl-] leaves the console");
            open(settings)?.console(&node).map_err(failure)?;
            Ok(Exit::Done)
        }
        Words::Ssh { node, command } => ssh(settings, &node, &command),
        Words::Logs { node, follow } => logs(settings, &node, follow),
        Words::Kubectl { arguments } => kubectl(settings, &arguments),
        Words::Kill { node } => {
            open(settings)?.kill(&node).map_err(failure)?;
            bramble_console::say(&format!("{node}: off; what it wrote stays written"));
            Ok(Exit::Done)
        }
        Words::Cut { node, seed, at, after_writes } => {
            let point = at.map(|marker| CutPoint { marker, after_writes });
            cut(settings, &node, seed, point)
        }
    }
}

/// The hidden command: be the lab's host process.
pub(crate) fn host(directory: &Path) -> Result<Exit, Problem> {
    bramble_lab::host::run(directory).map_err(failure)?;
    Ok(Exit::Done)
}

/// Where the project's lab lives.
pub(crate) fn directory(settings: &Settings) -> PathBuf {
    settings.project.state().join("lab")
}

/// The project's lab.
pub(crate) fn open(settings: &Settings) -> Result<Lab, Problem> {
    Ok(Lab::open(&directory(settings)).map_err(failure)?)
}

/// What is on in the lab now.
pub(crate) fn inventory(settings: &Settings) -> Inventory {
    let running = Lab::open(&directory(settings)).and_then(|lab| lab.status()).unwrap_or_default();
    Inventory {
        observed_at: super::now(),
        lab_running: running.into_iter().filter(|m| m.state.has_power()).map(|m| m.name).collect(),
    }
}

/// A lab error as a failure: what it refuses, the user can mend.
pub(crate) fn failure(error: bramble_lab::Error) -> Failure {
    let hint = error.hint();
    let failure = Failure::user("the lab cannot do that").source(error);
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// A stage by its word.
fn stage(word: &str) -> Result<Stage, Problem> {
    Stage::ALL.into_iter().find(|s| s.name() == word && *s != Stage::Failed).ok_or_else(|| {
        let known: Vec<&str> = Stage::ALL.iter().filter(|s| **s != Stage::Failed).map(|s| s.name()).collect();
        Failure::user(format!("{word:?} is no stage of a boot")).hint(known.join(", ")).into()
    })
}

fn up(
    settings: &Settings,
    nodes: &[String],
    options: hands::LabOptions,
    no_wait: bool,
) -> Result<Exit, Problem> {
    let site = Site::load(settings)?;
    for node in nodes.iter().chain(options.leases.iter().map(|(node, _)| node)) {
        site.known(node)?;
    }
    let purpose = Purpose::LabUp { nodes: nodes.to_vec() };
    let mut plan =
        bramble_plan::plan(&site.wanted(), &site.sources(), &site.lock, &inventory(settings), &purpose);
    if no_wait {
        plan.steps.retain(|s| !s.id.0.starts_with("lab-ready/"));
    }
    for left_out in &plan.waiting {
        bramble_console::warning(&format!("{}: {}", left_out.subject, left_out.on));
    }
    hands::run_lab(settings, site, &plan, options, Publishing::default())?;
    if settings.progress != bramble_console::Mode::Json {
        status(settings, Output::Text)?;
    }
    Ok(Exit::Done)
}

/// Publishes what the file says for the lab's machines.
fn release(settings: &Settings, out: Option<PathBuf>, level: i32) -> Result<Exit, Problem> {
    let site = Site::load(settings)?;
    let out = match out {
        Some(out) => std::path::absolute(&out).unwrap_or(out),
        None => directory(settings).join("public"),
    };
    let publishing = Publishing { from: vec![out.clone()], out: out.clone(), valid: None, keep: 4, level };
    let purpose = Purpose::Release { archs: vec![] };
    let plan =
        bramble_plan::plan(&site.wanted(), &site.sources(), &site.lock, &inventory(settings), &purpose);
    hands::run_lab(settings, site, &plan, hands::LabOptions::default(), publishing)?;
    bramble_console::say(&format!("`bramble serve {}` offers it to the lab's machines", out.display()));
    Ok(Exit::Done)
}

fn flash(settings: &Settings, node: String, start: CardStart) -> Result<Exit, Problem> {
    let site = Site::load(settings)?;
    site.known(&node)?;
    if start == CardStart::Found {
        super::flash::may_found(&site, &[&node])?;
    }
    let seen = inventory(settings);
    // Before anything is built: a disk is not written under a machine that uses it.
    if seen.lab_running.contains(&node) {
        return Err(Failure::user(format!("{node} is on"))
            .hint(format!("`bramble lab kill {node}` or `bramble lab down` switches it off"))
            .into());
    }
    let purpose = Purpose::LabFlash { nodes: vec![node], start };
    let plan = bramble_plan::plan(&site.wanted(), &site.sources(), &site.lock, &seen, &purpose);
    for left_out in &plan.waiting {
        bramble_console::warning(&format!("{}: {}", left_out.subject, left_out.on));
    }
    hands::run_lab(settings, site, &plan, hands::LabOptions::default(), Publishing::default())?;
    Ok(Exit::Done)
}

fn down(settings: &Settings, destroy: bool) -> Result<Exit, Problem> {
    let lab = open(settings)?;
    if destroy {
        lab.destroy().map_err(failure)?;
        // Identities and releases of the lab lie beside its disks.
        let directory = directory(settings);
        if directory.exists() {
            std::fs::remove_dir_all(&directory)
                .map_err(|e| Failure::user(format!("cannot remove {}", directory.display())).source(e))?;
        }
        bramble_console::say("the lab is gone, with its disks and identities");
    } else {
        lab.down(GRACE).map_err(failure)?;
        bramble_console::say("the lab is off; its disks stay");
    }
    Ok(Exit::Done)
}

fn status(settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let machines = open(settings)?.status().map_err(failure)?;
    match output {
        Output::Json => bramble_console::json(&machines),
        Output::Name => {
            let names: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
            bramble_console::data(&names.join("\n"));
        }
        Output::Text => {
            let mut table = Table::new(&["machine", "power", "stage", "since", "address", "reached at"]);
            for machine in &machines {
                let power = match &machine.state {
                    MachineState::Off => "off".to_string(),
                    MachineState::On => machine.accel.clone().map_or("on".into(), |a| format!("on ({a})")),
                    MachineState::Paused(why) => format!("held: {why}"),
                    MachineState::Crashed(why) => format!("crashed: {why}"),
                };
                let on = machine.state.has_power();
                let stage = machine.stage.filter(|_| on).map_or("", Stage::name);
                let since = if on { format!("{:.0} s", machine.stage_age) } else { String::new() };
                let ports: Vec<String> = machine
                    .forwards
                    .iter()
                    .map(|f| format!("127.0.0.1:{} -> {}", f.host_port, f.port))
                    .collect();
                table.row(&[
                    machine.name.clone(),
                    power,
                    stage.to_string(),
                    since,
                    machine.address.to_string(),
                    ports.join(", "),
                ]);
            }
            bramble_console::data(&table.to_string());
        }
    }
    Ok(Exit::Done)
}

/// The port of this computer that leads to a port of a machine.
pub(crate) fn forward(lab: &Lab, node: &str, port: u16) -> Result<u16, Problem> {
    let spec = lab.spec().map_err(failure)?;
    let found = spec.and_then(|s| s.forwards.into_iter().find(|f| f.node == node && f.port == port));
    found.map(|f| f.host_port).ok_or_else(|| {
        Failure::user(format!("no port of this computer leads to {node}:{port}"))
            .hint("`bramble lab status` shows which do")
            .into()
    })
}

fn ssh(settings: &Settings, node: &str, command: &[String]) -> Result<Exit, Problem> {
    let site = Site::load(settings)?;
    site.known(node)?;
    let allowed = site.cluster.effective_nodes().into_iter().any(|n| n.name == node && n.ssh.is_some());
    if !allowed {
        return Err(Failure::user(format!("the file allows no ssh on {node}"))
            .hint("add `ssh: { authorizedKeys: [...] }` under `spec.os`; `bramble lab console` needs none")
            .into());
    }
    let port = forward(&open(settings)?, node, 22)?;
    let known = directory(settings).join("known_hosts");
    let mut ssh = Command::new("ssh");
    ssh.args(["-p", &port.to_string(), "-o", "LogLevel=ERROR"])
        .args(["-o", &format!("UserKnownHostsFile={}", known.display())])
        .args(["-o", &format!("HostKeyAlias={node}"), "-o", "StrictHostKeyChecking=accept-new"]);
    // A key beside the file, as tests and demos make it.
    let key = settings.project.directory.join("key");
    if key.is_file() {
        ssh.arg("-i").arg(key);
    }
    ssh.arg("root@127.0.0.1").args(command);
    status_of(ssh, "ssh")
}

/// Runs a program in this terminal and ends as it ends.
fn status_of(mut command: Command, name: &str) -> Result<Exit, Problem> {
    let status = command.status().map_err(|e| Failure::user(format!("cannot run {name}")).source(e))?;
    Ok(if status.success() { Exit::Done } else { Exit::User })
}

fn logs(settings: &Settings, node: &str, follow: bool) -> Result<Exit, Problem> {
    let path = open(settings)?.log_path(node);
    let failed = |e| Failure::user(format!("{node} has no console log")).source(e);
    let mut file = std::fs::File::open(&path).map_err(failed)?;
    let mut out = std::io::stdout().lock();
    let mut buffer = vec![0; 64 << 10];
    loop {
        match file.read(&mut buffer).map_err(failed)? {
            0 if !follow => return Ok(Exit::Done),
            0 => {
                std::thread::sleep(Duration::from_millis(300));
                // The log begins anew at a power-on.
                let place = file.stream_position().map_err(failed)?;
                if std::fs::metadata(&path).is_ok_and(|m| m.len() < place) {
                    file.seek(SeekFrom::Start(0)).map_err(failed)?;
                }
            }
            n => {
                if out.write_all(&buffer[..n]).and_then(|()| out.flush()).is_err() {
                    return Ok(Exit::Done);
                }
            }
        }
    }
}

fn kubectl(settings: &Settings, arguments: &[String]) -> Result<Exit, Problem> {
    let site = Site::load(settings)?;
    let config = directory(settings).join("kubeconfig");
    // Short-lived and made anew each time: nothing to renew, nothing to lose.
    super::kubeconfig::write(settings, &site, &config, 1)?;
    let mut kubectl = hands::kubectl(settings, &site)?;
    kubectl.arg("--kubeconfig").arg(&config).args(arguments);
    status_of(kubectl, "kubectl")
}

fn cut(settings: &Settings, node: &str, seed: u64, point: Option<CutPoint>) -> Result<Exit, Problem> {
    let lab = open(settings)?;
    let report = match point {
        None => lab.cut(node, seed),
        Some(point) => lab.cut_at(node, point, seed, Duration::from_secs(600)),
    }
    .map_err(failure)?;
    bramble_console::say(&format!(
        "{node}: power cut, seed {}: of the writes not flushed {} kept, {} torn, {} lost",
        report.seed, report.kept, report.torn, report.dropped
    ));
    Ok(Exit::Done)
}
