//! The words a person reads about a site: the plan, the table of machines, and why one waits. They fit the width that they
//! are given, and say nothing by colour alone.

use crate::harmless;
use anstyle::{AnsiColor, Style};
use bramble_api::names::Role;
use bramble_api::site::waiting::span;
use bramble_api::site::{
    Cordon, DiskContents, Fact, Held, Identity, Machine, Member, NodeState, Note, Power, Severity, SitePlan,
    SiteStep, Status, StatusRow, Trial,
};
use std::fmt::Write;

const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

fn colour(colour: AnsiColor) -> Style {
    Style::new().fg_color(Some(colour.into()))
}

/// Widest column of what changes: beyond it the rest goes to the next line.
const CHANGE: usize = 38;

/// The plan. `width` is that of the terminal; 80 where there is none.
pub fn plan(plan: &SitePlan, width: usize) -> String {
    let mut out = heading(plan);
    let rows: Vec<Row> = plan.steps.iter().map(|s| step(plan, s)).chain(plan.held.iter().map(held)).collect();
    let nodes = rows.iter().map(|r| r.node.chars().count()).max().unwrap_or(0);
    let changes = rows.iter().map(|r| r.change.chars().count()).filter(|n| *n <= CHANGE).max().unwrap_or(0);
    for row in &rows {
        line(&mut out, row, nodes, changes, width);
    }
    for note in &plan.notes {
        self::note(&mut out, note, width);
    }
    out.push_str(&total(plan, width));
    for hint in hints(plan) {
        let cyan = colour(AnsiColor::Cyan);
        let _ = writeln!(out, "{cyan}hint{cyan:#}: {}", wrapped(&harmless(&hint), width, 6).join("\n      "));
    }
    if !plan.not_served.is_empty() {
        out.push_str("kept as it stands, not acted on by this version:\n");
        for part in &plan.not_served {
            let _ = writeln!(out, "  line {}: {}", part.line, harmless(&part.path));
        }
    }
    out
}

fn heading(plan: &SitePlan) -> String {
    let site = &plan.site;
    let mut nodes = count(site.nodes, "node");
    for (n, word) in [(site.asleep, "asleep"), (site.silent, "silent")] {
        if n > 0 {
            let _ = write!(nodes, ", {n} {word}");
        }
    }
    let lock = if site.lock.is_empty() { "ok" } else { &site.lock };
    let age = span(site.made_at.saturating_sub(site.observed_at));
    let seen =
        if site.observed_at == 0 { "nothing seen yet".to_string() } else { format!("inventory {age} old") };
    let mut text = format!(
        "{BOLD}site {}{BOLD:#} ({nodes})   spec {}  lock {lock}   {seen}\n",
        harmless(&site.cluster),
        site.spec
    );
    if !site.commit.is_empty() {
        let _ = writeln!(text, "  commit {}", harmless(&site.commit));
    }
    text
}

struct Row {
    node: String,
    change: String,
    rest: String,
    style: Style,
}

fn step(plan: &SitePlan, step: &SiteStep) -> Row {
    let mut how = Vec::new();
    if step.drain {
        how.push("drain".to_string());
    }
    if step.restart {
        how.push("restart".to_string());
    }
    if step.act.needs(&step.node).is_some_and(|p| p.erases()) {
        how.push("ERASES".to_string());
    }
    how.push(match step.takes {
        0..60 => "at once".to_string(),
        seconds => format!("~{} min", seconds.div_ceil(60)),
    });
    let before = step.after.last().and_then(|id| plan.steps.iter().find(|s| s.id == *id));
    if let Some(before) = before.filter(|before| before.node != step.node) {
        how.push(format!("after {}", before.node));
    }
    let style = colour(AnsiColor::Green);
    Row {
        node: harmless(&step.node),
        change: harmless(&step.act.to_string()),
        rest: harmless(&how.join(", ")),
        style,
    }
}

fn held(held: &Held) -> Row {
    let reasons: Vec<String> = held.waiting.iter().map(ToString::to_string).collect();
    Row {
        node: harmless(&held.node),
        change: harmless(&held.change.to_string()),
        rest: format!("waiting: {}", harmless(&reasons.join("; "))),
        style: colour(AnsiColor::Yellow),
    }
}

/// `  node  change  rest`, the rest wrapped under itself.
fn line(out: &mut String, row: &Row, nodes: usize, changes: usize, width: usize) {
    let Row { node, change, rest, style } = row;
    let indent = 2 + nodes + 2 + changes + 2;
    let _ = write!(out, "  {node:nodes$}  {style}{change:changes$}{style:#}  ");
    // A change that is wider than its column, or a terminal that leaves no room beside it, puts the rest below.
    if change.chars().count() > changes || width < indent + 24 {
        let indent = 2 + nodes + 4;
        while out.ends_with(' ') {
            out.pop();
        }
        for part in wrapped(rest, width, indent) {
            let _ = write!(out, "\n{:indent$}{part}", "");
        }
    } else {
        let gap = format!("\n{:indent$}", "");
        out.push_str(&wrapped(rest, width, indent).join(&gap));
    }
    out.push('\n');
}

fn note(out: &mut String, note: &Note, width: usize) {
    let style = match note.severity {
        Severity::Error => colour(AnsiColor::Red),
        Severity::Warning => colour(AnsiColor::Yellow),
        Severity::Note => DIM,
    };
    let word = note.severity.word();
    let node = if note.node.is_empty() { String::new() } else { format!("{}: ", note.node) };
    let indent = word.len() + 2;
    let text =
        wrapped(&harmless(&format!("{node}{}", note.text)), width, indent).join(&format!("\n{:indent$}", ""));
    let _ = writeln!(out, "{style}{word}{style:#}: {text}");
}

fn total(plan: &SitePlan, width: usize) -> String {
    let erased: Vec<&str> = plan
        .steps
        .iter()
        .filter(|s| s.act.needs(&s.node).is_some_and(|p| p.erases()))
        .map(|s| s.node.as_str())
        .collect();
    let erased = match erased.is_empty() {
        true => "Nothing is erased.".to_string(),
        false => format!("ERASED: {}.", harmless(&erased.join(", "))),
    };
    let text = match (plan.steps.len(), plan.held.len()) {
        (0, 0) => "Nothing to do: the site is as the file says.".to_string(),
        (0, held) => format!("Nothing to do now, {held} held. {erased}"),
        (now, 0) => format!("{} now. {erased}", count(now, "change")),
        (now, held) => format!("{} now, {held} held. {erased}", count(now, "change")),
    };
    wrapped(&text, width, 0).join("\n") + "\n"
}

/// What a person can do, each thing once, at most four.
fn hints(plan: &SitePlan) -> Vec<String> {
    let mut hints: Vec<String> = Vec::new();
    for hint in plan.held.iter().flat_map(|h| &h.waiting).filter_map(|w| w.hint()) {
        if !hints.contains(&hint) && hints.len() < 4 {
            hints.push(hint);
        }
    }
    hints
}

fn count(n: usize, word: &str) -> String {
    if n == 1 { format!("1 {word}") } else { format!("{n} {word}s") }
}

/// The table of machines. From 110 columns on, it shows role and Kubernetes too.
pub fn status(status: &Status, width: usize) -> String {
    let wide = width >= 110;
    let mut out = format!("{BOLD}site {}{BOLD:#}   {}\n", harmless(&status.cluster), harmless(&status.api));
    let mut rows =
        vec![cells(wide, ["NODE", "ROLE", "STATE", "VERSION", "KUBERNETES", "AGE", "DOING", "WAITING ON"])];
    for row in &status.rows {
        let (role, state) = (row.role.map_or("-", role), row.state.to_string());
        let age = row.age.map_or("-".to_string(), span);
        let or = |text: &str| if text.is_empty() { "-".to_string() } else { harmless(text) };
        let doing = or(&more(row.doing.iter().cloned()));
        let waiting = or(&more(row.waiting.iter().flat_map(|(_, all)| all).map(ToString::to_string)));
        let (version, kubernetes) = (or(&row.version), or(&row.kubernetes));
        let all = [row.node.as_str(), role, &state, &version, &kubernetes, &age, &doing, &waiting];
        rows.push(cells(wide, all));
    }
    let last = rows[0].len() - 1;
    let widths: Vec<usize> =
        (0..last).map(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or(0).min(34)).collect();
    // What is left belongs to the last column; where that is too little, reasons go below their machine.
    let indent: usize = widths.iter().map(|w| w + 2).sum();
    let below = width < indent + 20;
    for (at, row) in rows.iter().enumerate() {
        let mut text = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(text, "{cell:width$}  ");
        }
        let heading = at == 0;
        let state = status.rows.get(at.wrapping_sub(1)).map(|r| r.state);
        let style = if heading { DIM } else { state.map_or(Style::new(), of_state) };
        let reason = row[last].as_str();
        if below && !heading {
            out.push_str(&styled(text.trim_end(), style));
            if reason != "-" {
                for part in wrapped(&format!("waiting on: {reason}"), width, 4) {
                    let _ = write!(out, "\n    {part}");
                }
            }
        } else if below {
            out.push_str(&styled(text.trim_end(), style));
        } else {
            let gap = format!("\n{:indent$}", "");
            let reason = wrapped(reason, width, indent).join(&gap);
            out.push_str(&styled(&text, style));
            out.push_str(&reason);
        }
        out.push('\n');
    }
    out
}

fn cells(wide: bool, all: [&str; 8]) -> Vec<String> {
    let kept = all.into_iter().enumerate().filter(|(i, _)| wide || (*i != 1 && *i != 4));
    kept.map(|(_, text)| text.to_string()).collect()
}

fn styled(text: &str, style: Style) -> String {
    format!("{style}{text}{style:#}")
}

fn of_state(state: NodeState) -> Style {
    match state {
        NodeState::Ready => Style::new(),
        NodeState::Asleep => DIM,
        NodeState::NotReady | NodeState::Silent | NodeState::Foreign => colour(AnsiColor::Red),
        _ => colour(AnsiColor::Yellow),
    }
}

fn role(role: Role) -> &'static str {
    match role {
        Role::ControlPlane => "control-plane",
        Role::Worker => "worker",
        Role::Management => "management",
    }
}

/// The first, and how many there are beside.
fn more(all: impl Iterator<Item = String>) -> String {
    let mut distinct: Vec<String> = Vec::new();
    for one in all {
        if !distinct.contains(&one) {
            distinct.push(one);
        }
    }
    match distinct.as_slice() {
        [] => String::new(),
        [only] => only.clone(),
        [first, rest @ ..] => format!("{first} (+{})", rest.len()),
    }
}

/// Everything about one machine: how it is, what waits for what and what helps, and each fact with who said so and when.
pub fn why(row: &StatusRow, machine: &Machine, now: u64, width: usize) -> String {
    let seen = row.age.map_or("never seen".to_string(), |age| format!("seen {} ago", span(age)));
    let parts = [
        row.role.map_or("not in the file", role),
        &row.state.to_string(),
        &row.version,
        &row.kubernetes,
        &seen,
    ];
    let parts: Vec<String> = parts.iter().filter(|p| !p.is_empty()).map(|p| harmless(p)).collect();
    let mut out = format!("{BOLD}{}{BOLD:#}: {}\n", harmless(&row.node), parts.join(", "));
    for doing in &row.doing {
        let _ = writeln!(out, "  now: {}", harmless(doing));
    }
    for (change, waiting) in &row.waiting {
        let _ = writeln!(out, "  {} waits:", harmless(&change.to_string()));
        for reason in waiting {
            let _ =
                writeln!(out, "    - {}", wrapped(&harmless(&reason.to_string()), width, 6).join("\n      "));
            if let Some(hint) = reason.hint() {
                let _ = writeln!(out, "      hint: {}", wrapped(&hint, width, 12).join("\n            "));
            }
        }
    }
    if row.doing.is_empty() && row.waiting.is_empty() {
        out.push_str("  nothing differs from the file\n");
    }
    out.push_str("  facts:\n");
    for (name, value, from) in facts(machine, now) {
        let text = format!("{value}   ({from})");
        let text = wrapped(&harmless(&text), width, 20).join(&format!("\n{:20}", ""));
        let _ = writeln!(out, "    {name:14}  {text}");
    }
    out
}

type Line = (&'static str, String, String);

fn facts(machine: &Machine, now: u64) -> Vec<Line> {
    let yes = |yes: &bool| if *yes { "yes" } else { "no" }.to_string();
    let text =
        |text: &String| if text.is_empty() { "-".to_string() } else { text.chars().take(12).collect() };
    vec![
        fact("power", &machine.power, now, |p| power(*p).to_string()),
        fact("identity", &machine.identity, now, identity),
        fact("system", &machine.os, now, ToString::to_string),
        fact("kubernetes", &machine.kubernetes, now, ToString::to_string),
        fact("configuration", &machine.fixed, now, text),
        fact("joined", &machine.joined, now, yes),
        fact("ready", &machine.ready, now, yes),
        fact("cordon", &machine.cordon, now, cordon),
        fact("datastore", &machine.member, now, |m| member(*m).to_string()),
        fact("disk", &machine.disk, now, |d| disk(*d).to_string()),
        fact("trial", &machine.trial, now, |t| match t {
            Trial::None => "none".to_string(),
            Trial::Of(os) => os.to_string(),
        }),
    ]
}

fn fact<T>(name: &'static str, fact: &Fact<T>, now: u64, words: impl Fn(&T) -> String) -> Line {
    let from = match fact.at {
        0 => fact.source.words().to_string(),
        _ => format!("{}, {} ago", fact.source, span(fact.age(now))),
    };
    (name, fact.get().map_or_else(|| format!("unknown: {}", fact.why), words), from)
}

fn power(power: Power) -> &'static str {
    match power {
        Power::On => "on",
        Power::Asleep => "asleep",
        Power::Silent => "silent",
    }
}

fn identity(identity: &Identity) -> String {
    match identity {
        Identity::Ours { incarnation, adopted: true } => format!("ours, card {incarnation}"),
        Identity::Ours { incarnation, adopted: false } => format!("ours, card {incarnation}, not adopted"),
        Identity::Waiting => "waits for its configuration".to_string(),
        Identity::Foreign { who } => format!("someone else's: {who}"),
        Identity::Absent => "none".to_string(),
    }
}

fn cordon(cordon: &Cordon) -> String {
    match cordon {
        Cordon::None => "none".to_string(),
        Cordon::Ours { holder, .. } => format!("by {holder}"),
        Cordon::Other => "by a person".to_string(),
    }
}

fn member(member: Member) -> &'static str {
    match member {
        Member::None => "none",
        Member::Learner => "learner",
        Member::Voter => "voter",
        Member::Lost => "voter that does not answer",
    }
}

fn disk(disk: DiskContents) -> &'static str {
    match disk {
        DiskContents::Empty => "empty",
        DiskContents::Ours => "ours",
        DiskContents::Foreign => "someone else's",
    }
}

/// Lines of at most `width` less `indent`; a word that is longer stands alone.
fn wrapped(text: &str, width: usize, indent: usize) -> Vec<String> {
    let room = width.saturating_sub(indent).max(20);
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.last_mut().expect("one line at least");
        if !last.is_empty() && last.chars().count() + 1 + word.chars().count() > room {
            lines.push(word.to_string());
        } else {
            if !last.is_empty() {
                last.push(' ');
            }
            last.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plain;
    use bramble_api::plan::StepId;
    use bramble_api::site::{Act, Change, Os, Summary, WaitingOn};

    fn os(text: &str) -> Os {
        Os::Talos(text.parse().unwrap())
    }

    fn example() -> SitePlan {
        let (from, to) = (os("v1.13.9"), os("v1.14.1"));
        let step = |node: &str, after: &[&str]| SiteStep {
            id: StepId(format!("upgrade-os/{node}")),
            node: node.into(),
            act: Act::UpgradeOs { from: from.clone(), to: to.clone(), kubernetes: None },
            after: after.iter().map(|n| StepId(format!("upgrade-os/{n}"))).collect(),
            why: "the file wants it".into(),
            drain: true,
            restart: true,
            takes: 360,
        };
        SitePlan {
            format: 1,
            site: Summary {
                cluster: "home".into(),
                nodes: 3,
                asleep: 1,
                silent: 0,
                spec: "4f2c".into(),
                lock: String::new(),
                commit: String::new(),
                observed_at: 88,
                made_at: 100,
            },
            inputs: String::new(),
            steps: vec![step("n1", &[]), step("n2", &["n1"])],
            held: vec![Held {
                node: "n3".into(),
                change: Change::Os { from: Some(from.clone()), to: to.clone() },
                waiting: vec![
                    WaitingOn::Asleep { node: "n3".into(), wakes: Some(7) },
                    WaitingOn::Window { window: "02:00-05:00".into(), opens: 7 },
                ],
            }],
            allowed: vec![],
            notes: vec![Note {
                severity: Severity::Warning,
                check: "last-ingress".into(),
                node: "n2".into(),
                text: "it is the last that answers requests from outside; they fail meanwhile".into(),
            }],
            not_served: vec![],
        }
    }

    #[test]
    fn a_plan_fits_eighty_columns() {
        let text = plain(&plan(&example(), 80));
        assert_eq!(
            text,
            "site home (3 nodes, 1 asleep)   spec 4f2c  lock ok   inventory 12 s old\n\
             \x20 n1  talos v1.13.9 -> v1.14.1  drain, restart, ~6 min\n\
             \x20 n2  talos v1.13.9 -> v1.14.1  drain, restart, ~6 min, after n1\n\
             \x20 n3  talos v1.13.9 -> v1.14.1  waiting: n3 is asleep and wakes when its window\n\
             \x20                               opens; window 02:00-05:00\n\
             warning: n2: it is the last that answers requests from outside; they fail\n\
             \x20        meanwhile\n\
             2 changes now, 1 held. Nothing is erased.\n\
             hint: `bramble apply --now` does not wait for the window\n"
        );
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [60, 80, 100, 200] {
            for line in plain(&plan(&example(), width)).lines().skip(1) {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn foreign_names_cannot_steer_the_terminal() {
        let mut bad = example();
        bad.steps[0].node = "n\u{1b}[2J".into();
        bad.held[0].waiting =
            vec![WaitingOn::Foreign { node: "n3".into(), who: "\u{202e}x\u{1b}]0;y".into() }];
        let text = plan(&bad, 80);
        assert!(!text.contains("\u{1b}[2J") && !text.contains('\u{202e}') && !text.contains("\u{1b}]"));
    }
}
