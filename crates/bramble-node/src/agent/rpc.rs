//! The machine's own API: what is known, logs, power, updates. It works with no Kubernetes.
//!
//! A thread of its own with a small runtime: it answers while the rounds of the agent wait for something.

use super::watch::Watch;
use crate::init::parse_document;
use crate::refused::{At, Refused, line};
use crate::{clock, console, durable, update};
use bramble_api::document::MachineDocument;
use bramble_api::manifest::Manifest;
use bramble_api::names::path;
use bramble_api::stage::Boot;
use bramble_rpc::node::node_server::Node;
use bramble_rpc::node::power_request::Act;
use bramble_rpc::node::{
    ConfigureReply, ConfigureRequest, HoldReply, HoldRequest, LogsReply, LogsRequest, PowerReply,
    PowerRequest, StatusReply, StatusRequest, UpdateReply, UpdateRequest,
};
use bramble_rpc::{Credentials, PORT};
use bramble_upgrade::state::TRIES_MAX;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio_stream::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

/// Lines of a log when nobody said how many.
const LINES: u32 = 100;
/// Bytes of a log in one message.
const PIECE: usize = 16 << 10;
/// So that the answer is out before the network goes.
const BEFORE_POWER: Duration = Duration::from_secs(1);
/// Between two tries to get the port.
const AGAIN: Duration = Duration::from_secs(10);

/// The last round of the agent, for those who ask.
#[derive(Clone, Default)]
pub struct Board(Arc<Mutex<Option<Watch>>>);

impl Board {
    /// Another round.
    pub fn set(&self, watch: Watch) {
        *self.lock() = Some(watch);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Watch>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts the thread. A document without credentials has nobody to answer.
pub fn start(document: &MachineDocument, manifest: &Manifest, updates: update::Shared) -> Board {
    let board = Board::default();
    let Some(own) = &document.node_api else { return board };
    let credentials = Credentials {
        certificate: own.certificate.clone(),
        key: own.key.clone(),
        authorities: own.authorities.clone(),
    };
    let machine = Machine {
        identity: Arc::new(identity(document, manifest)),
        machine: document.machine.clone(),
        cluster: document.cluster.clone(),
        next: Arc::new(Mutex::new(document.machine.generation)),
        board: board.clone(),
        updates,
    };
    let spawned = std::thread::Builder::new().name("api".into()).spawn(move || {
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return console::note(&format!("node API: off: {error}")),
        };
        // Every address: the stated one may not be there yet, and who asks is known by a certificate.
        let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, PORT));
        let mut said = String::new();
        loop {
            if let Err(error) = runtime.block_on(bramble_rpc::serve(machine.clone(), address, &credentials)) {
                let why = line(&error);
                // Once for each reason: it is tried again for as long as the machine runs.
                if why != said {
                    console::note(&format!("node API: {why}"));
                    said = why;
                }
            }
            std::thread::sleep(AGAIN);
        }
    });
    if let Err(error) = spawned {
        console::note(&format!("node API: off: {error}"));
    }
    board
}

/// What does not change while the machine runs.
fn identity(document: &MachineDocument, manifest: &Manifest) -> StatusReply {
    let boot = std::fs::read(path::BOOT).ok().and_then(|bytes| serde_json::from_slice::<Boot>(&bytes).ok());
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let machine = &document.machine;
    StatusReply {
        name: machine.name.clone(),
        incarnation: machine.incarnation.clone(),
        card: machine.card,
        generation: machine.generation,
        release: manifest.version,
        slot: boot.map(|boot| boot.slot.letter().to_string()).unwrap_or_default(),
        kernel: manifest.kernel.clone(),
        boot_id: boot_id.trim().to_string(),
        settings: document.settings(),
        label_keys: document
            .kubernetes
            .iter()
            .flat_map(|kubernetes| kubernetes.labels.keys().cloned())
            .collect(),
        ..StatusReply::default()
    }
}

/// Whether a document is another edition for this machine on this card: a document of another would make it somebody else.
fn is_for(
    document: &MachineDocument,
    cluster: &str,
    own: &bramble_api::document::Machine,
    newest: u64,
) -> Result<(), String> {
    let machine = &document.machine;
    let same = [
        ("cluster", document.cluster == cluster),
        ("name", machine.name == own.name),
        ("number", machine.number == own.number),
        ("role", machine.role == own.role),
        ("board", machine.board == own.board),
        ("installation", machine.incarnation == own.incarnation),
        ("card", machine.card == own.card),
        ("machine id", machine.machine_id == own.machine_id),
    ];
    let other: Vec<&str> = same.iter().filter(|(_, same)| !same).map(|(what, _)| *what).collect();
    if !other.is_empty() {
        return Err(format!("the document is for another machine: its {} differ", other.join(", ")));
    }
    match machine.generation > newest {
        true => Ok(()),
        false => Err(format!("edition {} of the document is not newer than {newest}", machine.generation)),
    }
}

/// Replaces the document, and keeps the one before.
fn put(current: &Path, bytes: &[u8]) -> Result<(), Refused> {
    let previous = Path::new(path::DOCUMENT_PREVIOUS);
    let previous = current.with_file_name(previous.file_name().unwrap_or_default());
    // A second name, so that the current one is there at every instant.
    let _ = std::fs::remove_file(&previous);
    std::fs::hard_link(current, &previous).at("keep", current)?;
    durable::replace(current, bytes)
}

#[derive(Clone)]
struct Machine {
    identity: Arc<StatusReply>,
    /// Who it is.
    machine: bramble_api::document::Machine,
    cluster: String,
    /// Generation of the document that the next start goes by; held while one is written.
    next: Arc<Mutex<u64>>,
    board: Board,
    updates: update::Shared,
}

type Logs = Pin<Box<dyn Stream<Item = Result<LogsReply, Status>> + Send>>;

#[tonic::async_trait]
impl Node for Machine {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let mut reply = StatusReply::clone(&self.identity);
        if let Some(watch) = self.board.lock().as_ref() {
            reply.stage = watch.stage.name().to_string();
            reply.waiting = watch.waiting.clone().unwrap_or_default();
            reply.warnings = watch.warnings.values().cloned().collect();
        }
        let updates = self.updates.status();
        reply.doing = updates.doing;
        reply.fault = updates.last_fault.unwrap_or_default();
        if let Some(record) = updates.journal {
            reply.flash_bytes = record.flash_bytes;
            let spent = record.tried.iter().filter(|tried| tried.tries >= TRIES_MAX);
            reply.given_up = spent.map(|tried| tried.version).collect();
        }
        reply.trial = self.updates.is_judging();
        reply.next_generation = *self.next.lock().unwrap_or_else(PoisonError::into_inner);
        reply.clock = clock::now();
        reply.hold_until = Some(self.updates.held()).filter(|until| *until > reply.clock).unwrap_or(0);
        reply.uptime = console::uptime() as u64;
        Ok(Response::new(reply))
    }

    type LogsStream = Logs;

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Logs>, Status> {
        let LogsRequest { unit, lines, follow } = request.into_inner();
        // An option in a unit's place would be one of journalctl's.
        if unit.starts_with('-') || unit.contains(char::is_control) {
            return Err(Status::invalid_argument(format!("{unit:?} is no unit")));
        }
        let mut command = tokio::process::Command::new("journalctl");
        let lines = if lines == 0 { LINES } else { lines };
        command.args(["--no-pager", "--output=short-iso", &format!("--lines={lines}")]);
        if !unit.is_empty() {
            command.arg(format!("--unit={unit}"));
        }
        if follow {
            command.arg("--follow");
        }
        // Whoever asked and went away leaves no journalctl behind.
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let mut child = command
            .spawn()
            .map_err(|error| Status::unavailable(format!("cannot run journalctl: {error}")))?;
        let mut out = child.stdout.take().ok_or_else(|| Status::internal("journalctl has no output"))?;
        let (send, receive) = tokio::sync::mpsc::channel(4);
        tokio::spawn(async move {
            let _child = child;
            let mut piece = vec![0; PIECE];
            loop {
                let came = tokio::select! {
                    came = out.read(&mut piece) => came,
                    () = send.closed() => return,
                };
                let text = match came {
                    Ok(0) | Err(_) => return,
                    Ok(length) => piece[..length].to_vec(),
                };
                if send.send(Ok(LogsReply { text })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receive))))
    }

    async fn update(&self, _: Request<UpdateRequest>) -> Result<Response<UpdateReply>, Status> {
        Ok(Response::new(UpdateReply { doing: self.updates.ask() }))
    }

    async fn hold(&self, request: Request<HoldRequest>) -> Result<Response<HoldReply>, Status> {
        let until = request.into_inner().until;
        self.updates.hold(until).map_err(|refused| Status::unavailable(line(&refused)))?;
        Ok(Response::new(HoldReply {}))
    }

    async fn configure(
        &self,
        request: Request<ConfigureRequest>,
    ) -> Result<Response<ConfigureReply>, Status> {
        let bytes = request.into_inner().document;
        let document = parse_document(&bytes).map_err(Status::invalid_argument)?;
        // One at a time; what is refused changes nothing.
        let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        is_for(&document, &self.cluster, &self.machine, *next).map_err(Status::failed_precondition)?;
        put(Path::new(path::DOCUMENT), &bytes).map_err(|refused| Status::unavailable(line(&refused)))?;
        *next = document.machine.generation;
        console::note(&format!("node API: edition {next} of the machine document is for the next start"));
        Ok(Response::new(ConfigureReply {}))
    }

    async fn power(&self, request: Request<PowerRequest>) -> Result<Response<PowerReply>, Status> {
        let verb = match request.into_inner().act() {
            Act::Nothing => return Err(Status::invalid_argument("restart or off?")),
            Act::Restart => "reboot",
            Act::Off => "poweroff",
        };
        console::note(&format!("node API: {verb} was asked for"));
        tokio::spawn(async move {
            tokio::time::sleep(BEFORE_POWER).await;
            if let Err(error) = tokio::process::Command::new("systemctl").arg(verb).status().await {
                console::note(&format!("node API: cannot run systemctl {verb}: {error}"));
            }
        });
        Ok(Response::new(PowerReply {}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    #[test]
    fn a_document_of_another_machine_or_an_older_edition_is_refused() {
        let own = fixture::document();
        let with = |change: fn(&mut MachineDocument)| {
            let mut document = own.clone();
            document.machine.generation = 2;
            change(&mut document);
            is_for(&document, &own.cluster, &own.machine, 1)
        };
        assert_eq!(with(|_| ()), Ok(()));
        assert!(with(|d| d.machine.name = "n9".into()).unwrap_err().contains("name"));
        assert!(with(|d| d.cluster = "other".into()).unwrap_err().contains("cluster"));
        assert!(with(|d| d.machine.incarnation = "0".repeat(32)).unwrap_err().contains("installation"));
        assert!(with(|d| d.machine.card += 1).is_err());
        assert!(with(|d| d.machine.generation = 1).unwrap_err().contains("not newer"));
    }

    #[test]
    fn the_document_before_is_kept() {
        let directory = std::env::temp_dir().join(format!("bramble-document-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let current = directory.join("machine.json");
        std::fs::write(&current, "one").unwrap();
        put(&current, b"two").unwrap();
        put(&current, b"three").unwrap();
        assert_eq!(std::fs::read(&current).unwrap(), b"three");
        assert_eq!(std::fs::read(directory.join("machine.previous.json")).unwrap(), b"two");
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
