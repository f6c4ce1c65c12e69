//! Scripts: a text file tells a story of a house, command by command; what is printed is compared with the file beside it.
//!
//! `# ...` is a remark. The commands are the arms of [`Script::command`]; a script that says one wrongly fails with its line.

use super::{Fault, House, run, window};
use bramble_api::names::{Arch, Role};
use bramble_api::site::{
    Budget, Cordon, DiskContents, Holder, Identity, Os, Permission, Release, Report, SitePlan, Version,
};
use bramble_console::site as words;
use bramble_plan::Sources;
use bramble_plan::site::{self, Asked, Node};
use std::fmt::Write;

/// Width of the terminal for which scripts are printed.
const WIDTH: usize = 80;

/// Runs a script, and gives all that it prints.
///
/// # Errors
/// The first line that is no command, or that names what is not there.
pub fn play(text: &str) -> Result<String, String> {
    let mut script = Script::default();
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let _ = match line {
            "" => writeln!(script.out),
            _ if line.starts_with('#') => writeln!(script.out, "{line}"),
            _ => writeln!(script.out, "> {line}"),
        };
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let all: Vec<&str> = line.split_whitespace().collect();
        script.command(all[0], &all[1..]).map_err(|why| format!("line {}: {line}: {why}", at + 1))?;
        if let Some(house) = &mut script.house
            && let Some(broken) = house.broken.first()
        {
            return Err(format!("line {}: {line}: must never happen: {broken}", at + 1));
        }
    }
    Ok(script.out)
}

#[derive(Default)]
struct Script {
    out: String,
    house: Option<House>,
    os: Option<Os>,
    plans: Vec<SitePlan>,
    report: Report,
}

type Done = Result<(), String>;

impl Script {
    fn house(&mut self) -> Result<&mut House, String> {
        self.house.as_mut().ok_or_else(|| "`site` comes first".to_string())
    }

    fn command(&mut self, verb: &str, args: &[&str]) -> Done {
        match (verb, args) {
            ("site", [os, "kubernetes", kubernetes]) => self.site(os, kubernetes),
            ("node", [name, role, options @ ..]) => self.node(name, role, options),
            ("drop", [name]) => {
                self.house()?.wanted.nodes.retain(|n| n.name != *name);
                Ok(())
            }
            ("settle", []) => {
                self.house()?.settle();
                Ok(())
            }
            ("want", args) => self.want(args),
            ("machine", [name, options @ ..]) => self.machine(name, options),
            ("publish", [version, kubernetes, arch @ ..]) => self.publish(version, kubernetes, arch.first()),
            ("wait", [span]) => {
                self.house()?.now += seconds(span)?;
                Ok(())
            }
            ("house", [power @ ("off" | "on")]) => {
                let on = *power == "on";
                let house = self.house()?;
                let boots = house.now + 180;
                for machine in house.machines.values_mut().filter(|m| m.identity != Identity::Absent) {
                    (machine.on, machine.ready_at) = (on, boots);
                }
                Ok(())
            }
            ("budget", [name, nodes @ ..]) => {
                let (namespace, name) = name.split_once('/').ok_or("namespace/name")?;
                let nodes = nodes.iter().map(ToString::to_string).collect();
                let budget = Budget { namespace: namespace.into(), name: name.into(), nodes };
                self.house()?.budgets.push(budget);
                Ok(())
            }
            ("no-budgets", []) => {
                self.house()?.budgets.clear();
                Ok(())
            }
            ("lease", [who, node, age]) => {
                let house = self.house()?;
                let renewed = house.now - seconds(age)?;
                house.lease = Holder::Is { who: who.to_string(), renewed, lasts: 60, node: node.to_string() };
                Ok(())
            }
            ("operator", [who]) => {
                self.house()?.asked.who = who.to_string();
                Ok(())
            }
            ("hold", [node, span]) => {
                let house = self.house()?;
                house.asked.holds.insert(node.to_string(), house.now + seconds(span)?);
                Ok(())
            }
            ("run-now", [node, span]) => {
                let house = self.house()?;
                house.asked.run_now.insert(node.to_string(), house.now + seconds(span)?);
                Ok(())
            }
            ("card", [node]) => {
                self.house()?.card(node);
                Ok(())
            }
            ("here", [node]) => {
                self.house()?.asked.here = Some(node.to_string());
                Ok(())
            }
            ("no-clock", []) => {
                self.house()?.no_clock = true;
                Ok(())
            }
            ("plan", options) => self.plan(options),
            ("apply", options) => self.apply(options),
            ("status", []) => self.status(),
            ("why", [node]) => self.why(node),
            ("diff", []) => self.diff(),
            ("report", []) => self.show_report(),
            _ => Err("is no command".to_string()),
        }
    }

    fn site(&mut self, text: &str, kubernetes: &str) -> Done {
        let os = os(text)?;
        self.house = Some(House::new(os.clone(), version(kubernetes)?));
        if let Os::Bramble(n) = os {
            self.publish(&n.to_string(), kubernetes, None)?;
        }
        self.os = Some(os);
        Ok(())
    }

    fn node(&mut self, name: &str, role: &str, options: &[&str]) -> Done {
        let role = match role {
            "control-plane" => Role::ControlPlane,
            "worker" => Role::Worker,
            "management" => Role::Management,
            _ => return Err("control-plane, worker or management".to_string()),
        };
        let mut node = Node {
            name: name.to_string(),
            role,
            arch: Arch::Arm64,
            card: matches!(self.os, Some(Os::Bramble(_))),
            os: self.os.clone(),
            live: "a".to_string(),
            fixed: "a".to_string(),
            labels: Default::default(),
            taints: Vec::new(),
            incarnation: 1,
            window: None,
        };
        for option in options {
            match option.split_once('=') {
                Some(("window", text)) => node.window = Some(window(text).ok_or("no window")?),
                Some(("arch", "amd64")) => node.arch = Arch::Amd64,
                Some(("os", text)) => {
                    node.os = Some(os(text)?);
                    node.card = matches!(node.os, Some(Os::Bramble(_)));
                }
                _ => return Err(format!("{option} is no option")),
            }
        }
        self.house()?.wanted.nodes.push(node);
        Ok(())
    }

    /// What the file wants, changed.
    fn want(&mut self, args: &[&str]) -> Done {
        if let ["os", text] = args {
            let new = os(text)?;
            self.os = Some(new.clone());
            let house = self.house()?;
            house
                .wanted
                .nodes
                .iter_mut()
                .filter(|n| n.os.as_ref().is_some_and(|o| o.same_family(&new)))
                .for_each(|n| n.os = Some(new.clone()));
            return Ok(());
        }
        let house = self.house()?;
        let mut each = |name: &str, change: &mut dyn FnMut(&mut Node)| {
            house.wanted.nodes.iter_mut().filter(|n| name == "all" || n.name == name).for_each(change);
        };
        match args {
            ["label", name, pair] => {
                let (key, value) = pair.split_once('=').ok_or("key=value")?;
                each(name, &mut |n| {
                    n.labels.insert(key.to_string(), value.to_string());
                });
            }
            ["taint", name, taint] => each(name, &mut |n| n.taints = vec![taint.to_string()]),
            ["live", name, digest] => each(name, &mut |n| n.live = digest.to_string()),
            ["fixed", name, digest] => each(name, &mut |n| n.fixed = digest.to_string()),
            ["window", name, text] => {
                let window = window(text).ok_or("no window")?;
                each(name, &mut |n| n.window = Some(window.clone()));
            }
            ["kubernetes", text] => house.wanted.kubernetes = version(text)?,
            ["authority", name, generation] => {
                let generation = generation.parse().map_err(|_| "a number")?;
                house.wanted.authorities.insert(name.to_string(), generation);
            }
            _ => return Err("os, kubernetes, label, taint, live, fixed, window, authority".to_string()),
        }
        Ok(())
    }

    /// What a machine is, changed. One that is not there yet is, with nothing on it.
    fn machine(&mut self, name: &str, options: &[&str]) -> Done {
        let house = self.house()?;
        let (now, lasts) = (house.now, 300 * 86_400);
        let names: Vec<String> = match name {
            "all" => house.wanted.nodes.iter().map(|n| n.name.clone()).collect(),
            name => vec![name.to_string()],
        };
        for name in names {
            if !house.machines.contains_key(&name) {
                let node = house.wanted.node(&name).ok_or("is not in the file")?.clone();
                let mut machine = house.as_wanted(&node);
                (machine.identity, machine.disk) = (Identity::Waiting, DiskContents::Empty);
                (machine.os, machine.kubernetes) = (None, None);
                (machine.joined, machine.voter) = (false, false);
                house.machines.insert(name.clone(), machine);
            }
            let Some(machine) = house.machines.get_mut(&name) else { continue };
            for option in options {
                let fault = match *option {
                    "dies" => Some(Fault::Dies),
                    "goes-back" => Some(Fault::GoesBack),
                    "never-ready" => Some(Fault::NeverReady),
                    "stuck-drain" => Some(Fault::StuckDrain),
                    "slow" => Some(Fault::Slow),
                    _ => None,
                };
                if let Some(fault) = fault {
                    machine.faults.insert(fault);
                    continue;
                }
                match (*option, option.split_once('=')) {
                    ("on", _) => (machine.on, machine.asleep, machine.ready_at) = (true, false, now + 180),
                    ("off", _) => machine.on = false,
                    ("asleep", _) => machine.asleep = true,
                    ("mended", _) => machine.faults.clear(),
                    ("waiting", _) => {
                        (machine.identity, machine.disk) = (Identity::Waiting, DiskContents::Empty);
                        (machine.os, machine.kubernetes) = (None, None);
                        (machine.joined, machine.voter) = (false, false);
                    }
                    ("foreign-disk", _) => machine.disk = DiskContents::Foreign,
                    ("unadopted", _) => machine.identity = Identity::Ours { incarnation: 1, adopted: false },
                    ("ingress", _) => machine.ingress = true,
                    ("cordoned-by-a-person", _) => machine.cordon = Cordon::Other,
                    (_, Some(("foreign", who))) => {
                        machine.identity = Identity::Foreign { who: who.to_string() }
                    }
                    (_, Some(("volumes", n))) => machine.volumes = n.parse().map_err(|_| "a number")?,
                    (_, Some(("free-mib", n))) => {
                        machine.free = n.parse::<u64>().map_err(|_| "a number")? << 20;
                    }
                    (_, Some(("certificate-age", span))) => {
                        let age = seconds(span)?;
                        for c in &mut machine.certificates {
                            (c.not_before, c.not_after) = (now - age, now - age + lasts);
                        }
                    }
                    _ => return Err(format!("{option} is nothing that a machine can be")),
                }
            }
        }
        Ok(())
    }

    fn publish(&mut self, number: &str, kubernetes: &str, arch: Option<&&str>) -> Done {
        let number = number.parse().map_err(|_| "a number")?;
        let kubernetes = Some(version(kubernetes)?);
        let archs: Vec<Arch> = match arch {
            Some(arch) => vec![arch.parse().map_err(|e| format!("{e}"))?],
            None => Arch::ALL.to_vec(),
        };
        for arch in archs {
            self.house()?.releases.push(Release { arch, version: number, kubernetes: kubernetes.clone() });
        }
        Ok(())
    }

    /// What is asked for: what is kept, and the options of this command.
    fn asked(&mut self, options: &[&str]) -> Result<(Asked, Option<usize>, Option<&'static str>), String> {
        let mut asked = self.house()?.asked.clone();
        asked.allow.clear();
        let (mut kill, mut form) = (None, None);
        let mut options = options.iter();
        while let Some(option) = options.next() {
            match *option {
                "--now" => asked.now = true,
                "--json" => form = Some("json"),
                "--stale" => form = Some("stale"),
                option => {
                    let value = options.next().ok_or("an option without its value")?;
                    match option {
                        "--allow" => {
                            asked.allow.insert(value.parse::<Permission>().map_err(|e| e.to_string())?);
                        }
                        "--node" => {
                            asked.only.insert(value.to_string());
                        }
                        "--replace" => {
                            let identity = self.house()?.machines.get(*value).map(|m| m.identity.clone());
                            let Some(Identity::Ours { incarnation, .. }) = identity else {
                                return Err("has no card of ours".to_string());
                            };
                            asked.replace.insert(value.to_string(), incarnation);
                        }
                        "--kill" => kill = Some(value.parse().map_err(|_| "a number")?),
                        _ => return Err(format!("{option} is no option")),
                    }
                }
            }
        }
        Ok((asked, kill, form))
    }

    fn plan(&mut self, options: &[&str]) -> Done {
        let (asked, _, form) = self.asked(options)?;
        let house = self.house()?;
        let seen = if form == Some("stale") { house.seen.clone() } else { house.look() };
        let (plan, report) = site::plan(&house.wanted, &Sources::default(), &seen, house.time(), &asked, 0);
        let text = match form {
            Some("json") => serde_json::to_string_pretty(&plan).map_err(|e| e.to_string())? + "\n",
            _ => bramble_console::plain(&words::plan(&plan, WIDTH)),
        };
        self.out.push_str(&text);
        self.report = report;
        self.plans.push(plan);
        Ok(())
    }

    fn apply(&mut self, options: &[&str]) -> Done {
        let (asked, kill, _) = self.asked(options)?;
        let house = self.house()?;
        let plan = run::plan(house, &asked);
        let begun = house.now;
        let kept = house.asked.clone();
        let outcome = run::apply(house, &plan, &asked, kill);
        let took = bramble_api::site::waiting::span(house.now - begun);
        house.asked = kept;
        for id in &outcome.did {
            let _ = writeln!(self.out, "  done       {id}");
        }
        for id in &outcome.unchanged {
            let _ = writeln!(self.out, "  unchanged  {id}");
        }
        if let Some((id, why)) = &outcome.stopped {
            let _ = writeln!(self.out, "  stopped    {id}: {why}");
        }
        if outcome.killed {
            let _ = writeln!(self.out, "  killed before move {}", outcome.moves + 1);
        }
        let _ = writeln!(self.out, "{} of {} steps done in {took}", outcome.did.len(), plan.steps.len());
        Ok(())
    }

    fn latest(&mut self) -> Result<(SitePlan, bramble_api::site::Inventory), String> {
        let asked = self.house()?.asked.clone();
        let house = self.house()?;
        let plan = run::plan(house, &asked);
        Ok((plan, house.seen.clone()))
    }

    fn status(&mut self) -> Done {
        let (plan, seen) = self.latest()?;
        let house = self.house()?;
        let status = site::status(&house.wanted, &seen, &plan, house.now);
        self.out.push_str(&bramble_console::plain(&words::status(&status, WIDTH)));
        Ok(())
    }

    fn why(&mut self, node: &str) -> Done {
        let (plan, seen) = self.latest()?;
        let house = self.house()?;
        let status = site::status(&house.wanted, &seen, &plan, house.now);
        let row = status.rows.iter().find(|r| r.node == node).ok_or("is no machine")?;
        let machine = seen.machines.get(node).cloned().unwrap_or_default();
        let text = words::why(row, &machine, house.now, WIDTH);
        self.out.push_str(&bramble_console::plain(&text));
        Ok(())
    }

    fn diff(&mut self) -> Done {
        let [.., before, after] = self.plans.as_slice() else {
            return Err("two plans come first".to_string());
        };
        for difference in site::diff(before, after) {
            let _ = writeln!(self.out, "  {difference}");
        }
        Ok(())
    }

    fn show_report(&mut self) -> Done {
        for part in &self.report.parts {
            let _ = writeln!(
                self.out,
                "  {:12}  looked at {}, {} steps",
                part.name,
                part.looked_at,
                part.steps.len()
            );
            for (node, left) in &part.left {
                let _ = writeln!(self.out, "  {:12}    {node}: {}", "", left.join(" "));
            }
        }
        Ok(())
    }
}

fn os(text: &str) -> Result<Os, String> {
    match text.parse::<u64>() {
        Ok(release) => Ok(Os::Bramble(release)),
        Err(_) => version(text).map(Os::Talos),
    }
}

fn version(text: &str) -> Result<Version, String> {
    text.parse().map_err(|e: bramble_api::names::UnknownName| e.to_string())
}

/// `45s`, `10m`, `3h`, `200d`.
fn seconds(text: &str) -> Result<u64, String> {
    let split = text.len().saturating_sub(1);
    let unit = match text.get(split..) {
        Some("s") => 1,
        Some("m") => 60,
        Some("h") => 3600,
        Some("d") => 86_400,
        _ => return Err("45s, 10m, 3h, 200d".to_string()),
    };
    text[..split].parse::<u64>().map(|n| n * unit).map_err(|_| "45s, 10m, 3h, 200d".to_string())
}
