//! The agent at run time: looks, says what changed, saves the clock, sleeps.

mod api;
mod await_api;
mod drain;
mod http;
mod kubeconfig;
mod look;
mod notify;
mod rpc;
mod watch;

use crate::console;
use crate::init::parse_document;
use crate::refused::{At, Refused, line};
use crate::{clock, durable, power, say, update};
pub use await_api::run as await_api;
use bramble_api::document::MachineDocument;
use bramble_api::manifest::Manifest;
use bramble_api::names::{Role, path};
use bramble_api::stage::{Boot, Stage};
use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use watch::{Say, Watch};

/// What the agent knows, for `bramble-node status`.
const STATUS: &str = "/run/bramble/status.json";
/// Between two rounds until everything is reached: a person is watching.
const SOON: Duration = Duration::from_secs(2);
/// Nobody watches a machine for longer than [`PATIENCE`]; then it is asked less often.
const LATER: Duration = Duration::from_secs(10);
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// Once everything is reached. Also how often systemd's watchdog hears of us, so the unit's limit is three of these.
const AT_REST: Duration = Duration::from_secs(60);
/// Something that takes longer than this is explained on the console; then again each time the wait has doubled.
const EXPLAIN: Duration = Duration::from_secs(120);
/// How much time a machine without a clock may lose at a power cut, against writes to flash.
const SAVE_CLOCK: Duration = Duration::from_secs(600);

/// Why there is nothing to watch.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the machine document cannot be read: {0}")]
    Document(String),
    #[error("the release's manifest cannot be read")]
    Manifest(#[source] serde_json::Error),
}

/// `bramble-node agent`: runs until it is stopped.
pub fn run() -> ExitCode {
    match load() {
        Ok((document, manifest)) => watch(&document, &manifest),
        Err(error) => {
            console::stage(Stage::Failed, &format!("agent: {}", line(&error)));
            ExitCode::FAILURE
        }
    }
}

fn load() -> Result<(MachineDocument, Manifest), Unusable> {
    let bytes = fs::read(path::DOCUMENT).at("read", path::DOCUMENT)?;
    let document = parse_document(&bytes).map_err(Unusable::Document)?;
    let manifest = fs::read(path::MANIFEST).at("read", path::MANIFEST)?;
    Ok((document, serde_json::from_slice(&manifest).map_err(Unusable::Manifest)?))
}

/// Moves the pods of a worker away, as [`drain::drain`]. Of a machine that is none, and of one without an API, nothing is
/// asked.
fn move_pods_away(document: &MachineDocument, limit: Duration) -> Result<Vec<String>, String> {
    match &document.kubernetes {
        Some(kubernetes) if document.machine.role == Role::Worker => {
            let api = api::Api::of(kubernetes, &document.machine.incarnation)?;
            drain::drain(&api, &document.machine.name, limit)
        }
        _ => Ok(Vec::new()),
    }
}

/// Another card of this node has taken its place: two machines of one name would take turns. The restart leaves nothing
/// running that was begun, and the next start begins nothing of Kubernetes.
fn retire(document: &MachineDocument, by: u32) {
    let own = document.machine.card;
    console::note(&format!(
        "card {own} of {} was replaced by card {by}: restarting without Kubernetes",
        document.machine.name
    ));
    match durable::replace(Path::new(path::REPLACED), document.machine.incarnation.as_bytes()) {
        Ok(()) => power::restart(),
        // Without the word on disk the restart would end here again and again.
        Err(refused) => console::note(&line(&refused)),
    }
}

/// What is left for a card that was replaced: it says so, and keeps systemd's watchdog quiet.
fn be_replaced(document: &MachineDocument) -> ! {
    let why = format!(
        "this card of {} was replaced by a later one, and does not come back as the node; flash it to use it again",
        document.machine.name
    );
    notify::send(&format!("READY=1\nSTATUS={why}"));
    console::stage(Stage::Failed, &why);
    loop {
        notify::send("WATCHDOG=1");
        std::thread::sleep(AT_REST);
    }
}

fn watch(document: &MachineDocument, manifest: &Manifest) -> ExitCode {
    if Path::new(path::REPLACED).exists() {
        be_replaced(document);
    }
    let mut watch = Watch::new(&document.machine.name, document.network.address);
    let started = Instant::now();
    let mut clock_saved: Option<Instant> = None;
    let mut written: Option<(Watch, update::Status)> = None;
    let updates = update::start(document, manifest, move_pods_away);
    let board = rpc::start(document, manifest, updates.clone());
    let (mut since, mut explain) = (Instant::now(), EXPLAIN);
    notify::send("READY=1");
    loop {
        let before = watch.stage;
        let seen = look::look(document, manifest.time, !updates.keeps_pods_away());
        updates.saw(watch::for_updates(&seen));
        if let Some(card) = seen.kubernetes.as_ref().and_then(|kubernetes| kubernetes.replaced_by) {
            retire(document, card);
        }
        for say in watch.observe(&seen) {
            match say {
                Say::Stage(stage, text) => console::stage(stage, &text),
                Say::Note(text) => console::note(&text),
            }
        }
        if watch.stage != before {
            (since, explain) = (Instant::now(), EXPLAIN);
        } else if let Some(waiting) = watch.waiting.as_deref().filter(|_| since.elapsed() >= explain) {
            console::note(&format!("waiting for {} s for {waiting}", since.elapsed().as_secs()));
            explain *= 2;
        }
        let now = (watch.clone(), updates.status());
        if written.as_ref() != Some(&now) {
            if let Err(refused) = write_status(&now) {
                say(&mut std::io::stderr(), &line(&refused));
            }
            board.set(now.0.clone());
            notify::send(&format!("STATUS={}", watch.waiting.as_deref().unwrap_or(watch.stage.name())));
            written = Some(now);
        }
        if clock_saved.is_none_or(|saved| saved.elapsed() >= SAVE_CLOCK) {
            save_clock();
            clock_saved = Some(Instant::now());
        }
        notify::send("WATCHDOG=1");
        std::thread::sleep(match watch.is_ready() {
            true if updates.is_judging() => LATER,
            true => AT_REST,
            false if started.elapsed() < PATIENCE => SOON,
            false => LATER,
        });
    }
}

fn save_clock() {
    if let Err(refused) = clock::save(clock::now()) {
        say(&mut std::io::stderr(), &line(&refused));
    }
}

fn write_status((watch, updates): &(Watch, update::Status)) -> Result<(), Refused> {
    #[derive(serde::Serialize)]
    struct Status<'a> {
        #[serde(flatten)]
        watch: &'a Watch,
        updates: &'a update::Status,
    }
    let new = Path::new(STATUS).with_extension("new");
    let json =
        serde_json::to_vec(&Status { watch, updates }).map_err(std::io::Error::from).at("write", &new)?;
    fs::write(&new, json).at("write", &new)?;
    fs::rename(&new, STATUS).at("put in place", STATUS)
}

/// `bramble-node status`: what pid 1 found and what the agent knows, as JSON.
pub fn status() -> ExitCode {
    #[derive(serde::Serialize)]
    struct Status {
        boot: Option<Boot>,
        node: Option<serde_json::Value>,
    }
    let boot = fs::read(path::BOOT).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let node = fs::read(STATUS).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let known = boot.is_some() || node.is_some();
    match serde_json::to_string_pretty(&Status { boot, node }) {
        Ok(text) if known => {
            say(&mut std::io::stdout(), &text);
            ExitCode::SUCCESS
        }
        _ => {
            say(
                &mut std::io::stderr(),
                "nothing is known: this is no Bramble OS machine, or its agent never ran",
            );
            ExitCode::FAILURE
        }
    }
}

/// `bramble-node shutdown`: saves the clock where data is still there, and flushes everything.
///
/// Runs twice: when the agent's unit stops (data is mounted), and as systemd's last hook (it no longer is).
pub fn shutdown() -> ExitCode {
    save_clock();
    rustix::fs::sync();
    ExitCode::SUCCESS
}
