//! `bramble flash`: nodes onto disks. First every disk is confirmed, then everything is built and written.

use crate::cli::{Flash as Args, Output};
use crate::hands::{self, FlashTarget};
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use bramble_api::plan::CardStart;
use bramble_console::{Exit, Table};
use bramble_disk::device::linux::Linux;
use bramble_disk::device::{Device, Medium, size_text};
use bramble_disk::flash::choose::{ChooseError, Eyes, Person, Typed, choose};
use bramble_disk::flash::guard::{self, How};
use bramble_disk::flash::{Expect, Question, Refusal, Request};
use bramble_effects::{Cancel, Failure};
use bramble_plan::{Inventory, Purpose};
use bramble_spec::{DiskSelector, Distribution, EffectiveNode, Role};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Lists disks, or writes nodes onto them.
pub(crate) fn run(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    if args.list {
        return list(args, settings);
    }
    let targets = match targets(&args.words) {
        Ok(targets) => targets,
        Err(what) => {
            bramble_console::error(&what, &[], Some("bramble flash NODE [DEVICE], or NODE=DEVICE for each"));
            return Ok(Exit::Usage);
        }
    };
    let site = Site::load(settings)?;
    let nodes = site.cluster.effective_nodes();
    for (node, _) in &targets {
        site.known(node)?;
    }
    if args.found {
        may_found(&site, &targets.iter().map(|(node, _)| node.as_str()).collect::<Vec<_>>())?;
    }
    // Before anyone is asked for a card: what cannot be built needs none.
    let names = |(node, _): &(String, Option<PathBuf>)| (node.clone(), "a disk".to_string());
    let trial = purpose(targets.iter().map(names).collect(), args);
    if let Some(left_out) = plan(&site, &trial).waiting.first() {
        return Err(Failure::user(format!("{}: {}", left_out.subject, left_out.on)).into());
    }
    let mut person = bramble_console::interactive().then(Terminal::default);
    let mut disks: Vec<FlashTarget> = Vec::new();
    for (name, device) in targets {
        let Some(node) = nodes.iter().find(|n| n.name == name) else { continue };
        let taken = disks.iter().map(|d| (d.request.node.clone(), d.confirmed.identity().clone())).collect();
        let request = Request { device, taken, ..request(args, settings, &nodes, node) };
        let asked = person.as_mut().map(|p| p as &mut dyn Person);
        let confirmed = choose(&Linux::default(), &request, asked, &Cancel::default()).map_err(|error| {
            let unsaid = matches!(
                error,
                ChooseError::Refused(
                    Refusal::NotChosen { .. } | Refusal::NothingFits { .. } | Refusal::Ambiguous { .. }
                )
            );
            if unsaid && person.is_none() {
                show(&request);
            }
            hands::choose_failure(error)
        })?;
        let device = confirmed.device();
        let how = match confirmed.how() {
            How::File => "by what the file says",
            How::Card => "by its Bramble card id",
            How::Person | How::PutBack => "by you",
        };
        bramble_console::say(&format!(
            "{name}: {} {} at {}, confirmed {how}",
            size_text(device.size),
            device.title(),
            device.path().display()
        ));
        let patience = Duration::from_secs(args.patience);
        disks.push(FlashTarget { confirmed, request, patience });
    }
    let named = disks.iter().map(|d| (d.request.node.clone(), d.confirmed.identity().name.clone())).collect();
    let plan = plan(&site, &purpose(named, args));
    hands::run_flash(settings, &site, &plan, disks)?;
    Ok(Exit::Done)
}

/// What the flags of `flash` and `lab flash` ask for; they exclude each other.
pub(crate) fn card_start(keep_data: bool, found: bool) -> CardStart {
    match (keep_data, found) {
        (true, _) => CardStart::KeepData,
        (false, true) => CardStart::Found,
        (false, false) => CardStart::Empty,
    }
}

/// Only a server of k3s founds: with another distribution or role the word would mean nothing.
pub(crate) fn may_found(site: &Site, nodes: &[&str]) -> Result<(), Problem> {
    let k3s = site.cluster.spec.kubernetes.distribution == Distribution::K3s;
    let [name] = nodes else {
        return Err(Failure::user("--found takes one node: one card founds the cluster").into());
    };
    let server =
        site.cluster.effective_nodes().iter().any(|n| n.name == *name && n.role == Role::ControlPlane);
    if k3s && server {
        return Ok(());
    }
    Err(Failure::user(format!("{name} founds no cluster"))
        .hint("--found is for a control plane of distribution k3s; leave it away")
        .into())
}

fn purpose(disks: Vec<(String, String)>, args: &Args) -> Purpose {
    Purpose::Flash { disks, start: card_start(args.keep_data, args.found) }
}

fn plan(site: &Site, purpose: &Purpose) -> bramble_api::plan::Plan {
    bramble_plan::plan(&site.wanted(), &site.sources(), &site.lock, &Inventory::default(), purpose)
}

/// Each node with its disk, if one was named.
fn targets(words: &[String]) -> Result<Vec<(String, Option<PathBuf>)>, String> {
    let mut targets: Vec<(String, Option<PathBuf>)> = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let shown = bramble_console::harmless(word);
        match word.split_once('=') {
            // A device before an equals sign is a path with one in it.
            Some((node, device)) if !node.contains('/') && !device.is_empty() => {
                targets.push((node.to_string(), Some(PathBuf::from(device))));
            }
            _ if word.contains('/') => match &mut targets[..] {
                [(_, device @ None)] if index + 1 == words.len() => *device = Some(PathBuf::from(word)),
                _ => return Err(format!("it is not clear which node {shown} is for")),
            },
            _ => targets.push((word.clone(), None)),
        }
    }
    for (index, (node, _)) in targets.iter().enumerate() {
        if targets[..index].iter().any(|(other, _)| other == node) {
            return Err(format!("{} is named twice", bramble_console::harmless(node)));
        }
    }
    Ok(targets)
}

fn request(args: &Args, settings: &Settings, nodes: &[EffectiveNode], node: &EffectiveNode) -> Request {
    let others = nodes.iter().filter(|n| n.name != node.name);
    Request {
        node: node.name.clone(),
        expects: node.boot_disk.as_ref().map(expect),
        others: others.filter_map(|n| Some((n.name.clone(), expect(n.boot_disk.as_ref()?)))).collect(),
        needs: bramble_api::layout::disk_min_size(bramble_plan::board(node.board)),
        ..asked(args, settings)
    }
}

/// What was asked for, whatever the node.
fn asked(args: &Args, settings: &Settings) -> Request {
    let own = [&settings.project.directory, &settings.project.cache];
    Request {
        cards: hands::cards(settings),
        confirm: args.confirm.clone(),
        erase: args.yes_erase.clone(),
        allow_fixed: args.allow_fixed,
        allow_loop: args.allow_loop,
        keep_data: args.keep_data,
        own: own.map(|d| std::fs::canonicalize(d).unwrap_or_else(|_| d.clone())).to_vec(),
        ..Request::default()
    }
}

fn expect(selector: &DiskSelector) -> Expect {
    match selector {
        DiskSelector::Size(size) => Expect::Size(size.bytes),
        DiskSelector::Serial(serial) => Expect::Serial(serial.clone()),
        DiskSelector::Wwid(wwid) => Expect::Wwid(wwid.clone()),
    }
}

fn list(args: &Args, settings: &Settings) -> Result<Exit, Problem> {
    let request = asked(args, settings);
    let devices = Eyes::new(&Linux::default()).devices(&request).map_err(hands::choose_failure)?;
    let (good, bad) = guard::candidates(&devices, &request);
    match args.output {
        Output::Text => bramble_console::data(&table(&good, &bad)),
        Output::Name => {
            let names: Vec<String> = good.iter().map(|d| d.path().display().to_string()).collect();
            bramble_console::data(&names.join("\n"));
        }
        Output::Json => {
            let good = good.iter().map(|d| (*d, None));
            let bad = bad.iter().map(|(d, r)| (*d, Some(r)));
            let all: Vec<_> = good.chain(bad).map(|(device, refusal)| json(device, refusal)).collect();
            bramble_console::json(&all);
        }
    }
    Ok(Exit::Done)
}

fn show(request: &Request) {
    if let Ok(devices) = Eyes::new(&Linux::default()).devices(request) {
        let (good, bad) = guard::candidates(&devices, request);
        bramble_console::say(&table(&good, &bad));
    }
}

fn json(device: &Device, refusal: Option<&Refusal>) -> serde_json::Value {
    serde_json::json!({
        "device": device.path(),
        "size": device.size,
        "logicalSector": device.sector,
        "physicalSector": device.physical_sector,
        "bus": device.bus.name(),
        "port": device.port,
        "vendor": device.vendor.to_string(),
        "model": device.model.to_string(),
        "serial": device.serials.first().map(ToString::to_string),
        "wwid": device.wwids.first().map(ToString::to_string),
        "serialIsTheMediums": device.medium == Medium::Own,
        "removable": device.removable,
        "readOnly": device.read_only,
        "sequence": device.sequence,
        "holds": device.seen().map(ToString::to_string),
        "card": device.seen().and_then(|c| c.card.as_ref()),
        "confirm": refusal.is_none().then(|| guard::token(device)),
        "refused": refusal.map(ToString::to_string),
        "hint": refusal.map(Refusal::hint),
    })
}

fn table(good: &[&Device], bad: &[(&Device, Refusal)]) -> String {
    let mut table = Table::new(&["disk", "size", "bus", "port", "what", "serial", "holds", "to confirm"]);
    for device in good {
        let serial = match (device.medium, device.serials.first()) {
            (_, None) => "none".to_string(),
            (Medium::Own, Some(serial)) => serial.to_string(),
            // Somebody would write it into the file.
            (Medium::Changeable, Some(_)) => "(a reader's)".to_string(),
        };
        table.row(&[
            device.path().display().to_string(),
            size_text(device.size),
            device.bus.name().to_string(),
            device.port.clone(),
            device.title(),
            serial,
            device.seen().map(ToString::to_string).unwrap_or_default(),
            guard::token(device),
        ]);
    }
    let mut text =
        if good.is_empty() { "no disk that could be written\n".to_string() } else { table.to_string() };
    // Drives without a medium and disks in memory are nobody's candidates and only noise.
    let telling =
        |r: &Refusal| !matches!(r, Refusal::Virtual { .. } | Refusal::Empty { .. } | Refusal::Loop { .. });
    for (_, refusal) in bad.iter().filter(|(_, r)| telling(r)) {
        text.push_str(&format!("not to be had: {refusal}\n"));
    }
    text
}

/// Whoever sits at the terminal.
#[derive(Default)]
struct Terminal {
    lines: Option<Receiver<String>>,
}

impl Terminal {
    /// Lines come from a thread of their own, so that a card may come while nothing is typed.
    fn lines(&mut self) -> &Receiver<String> {
        self.lines.get_or_insert_with(|| {
            let (tell, told) = channel();
            std::thread::spawn(move || {
                for line in std::io::stdin().lines().map_while(Result::ok) {
                    if tell.send(line).is_err() {
                        return;
                    }
                }
            });
            told
        })
    }
}

impl Person for Terminal {
    fn tell(&mut self, text: &str) {
        bramble_console::say(text);
    }

    fn show(&mut self, good: &[&Device], bad: &[(&Device, Refusal)]) {
        bramble_console::say(table(good, bad).trim_end());
    }

    fn ask(&mut self, question: &Question) -> Option<String> {
        let device = question.device();
        let holds = device.seen().map(ToString::to_string).unwrap_or_default();
        bramble_console::say(&format!(
            "\n{}: {} {}, {} at {}\nholds: {holds}\nEverything on it will be lost. To confirm type {}: {}",
            device.path().display(),
            size_text(device.size),
            device.title(),
            device.bus.name(),
            device.port,
            question.word.asks(),
            // Of a serial the last characters are to be read off the list or the disk, not off the question.
            match question.word {
                guard::Word::Port(_) => device.port.clone(),
                _ => guard::token(device),
            },
        ));
        self.lines().recv().ok()
    }

    fn typed(&mut self, within: Duration) -> Typed {
        match self.lines().recv_timeout(within) {
            Ok(line) => Typed::Line(line),
            Err(RecvTimeoutError::Timeout) => Typed::Nothing,
            Err(RecvTimeoutError::Disconnected) => Typed::Closed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: &[&str]) -> Result<Vec<(String, Option<PathBuf>)>, String> {
        targets(&words.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn a_device_belongs_to_one_node_and_to_which_is_clear() {
        let n1 = |device: Option<&str>| ("n1".to_string(), device.map(PathBuf::from));
        assert_eq!(words(&["n1"]).unwrap(), [n1(None)]);
        assert_eq!(words(&["n1", "/dev/sdb"]).unwrap(), [n1(Some("/dev/sdb"))]);
        assert_eq!(words(&["n1=/dev/sdb"]).unwrap(), [n1(Some("/dev/sdb"))]);
        assert_eq!(words(&["n1=/dev/sdb", "n2=/dev/sdc"]).unwrap().len(), 2);
        for wrong in [
            &["/dev/sdb"][..],
            &["n1", "n2", "/dev/sdb"],
            &["n1", "/dev/sdb", "n2"],
            &["n1", "/dev/sdb", "/dev/sdc"],
            &["n1=/dev/sdb", "/dev/sdc"],
            &["n1", "n1"],
        ] {
            assert!(words(wrong).is_err(), "{wrong:?}");
        }
    }
}
