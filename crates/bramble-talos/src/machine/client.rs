//! Talks to one machine, a call at a time.
//!
//! The callers are plain threads, so each client brings the little runtime that it needs and gives answers as values.
//! Every call has a deadline and looks at the flag that asks it to stop.

use super::error::{CallError, Refusal};
use super::proto;
use super::wire::{self, Fingerprint};
use crate::pki::Pair;
use prost::Message;
use std::future::Future;
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tonic::client::Grpc;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_prost::ProstCodec;

/// Talos' own limit for a message (`constants.GRPCMaxMessageSize`).
const LARGEST: usize = 32 << 20;
/// For calls that are answered out of memory.
pub(super) const SHORT: Duration = Duration::from_secs(20);
/// For calls that wait for etcd or a disk.
pub(super) const LONG: Duration = Duration::from_secs(120);
/// How often the flag is looked at.
const TICK: Duration = Duration::from_millis(100);

/// Years, and still a time that can be added to now.
const FOR_EVER: Duration = Duration::from_secs(1 << 31);

/// Pieces of a snapshot that is sent.
const PIECE: usize = 1 << 20;

/// What opens a configured machine, and how to stop.
#[derive(Clone)]
pub struct Credentials {
    /// The authority of the machine API, PEM.
    pub authority: String,
    /// A client certificate of it.
    pub client: Pair,
}

/// A connection to one machine.
pub struct Client {
    runtime: Runtime,
    grpc: Channel,
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    /// The key behind its certificate, in maintenance mode.
    fingerprint: Option<Fingerprint>,
}

/// Who answered.
pub enum Met {
    /// A machine without a config, which takes one from whoever comes first.
    Maintenance(Client),
    /// A configured machine of this cluster.
    Ours(Client),
    /// A configured machine of another cluster, or of none that we know.
    Foreign,
}

/// Takes up a connection. Without credentials a configured machine is foreign. `now` in seconds since the epoch.
///
/// # Errors
/// Nobody there, or somebody who is no Talos machine.
pub fn meet(
    address: SocketAddr,
    credentials: Option<&Credentials>,
    now: u64,
    stop: &Arc<AtomicBool>,
) -> Result<Met, CallError> {
    let runtime = runtime(address)?;
    let met = waited(&runtime, stop, "a handshake", address, SHORT, wire::meet(address))??;
    if !met.configured {
        let fingerprint = Some(met.fingerprint.clone());
        let grpc =
            waited(&runtime, stop, "a handshake", address, SHORT, wire::channel(address, met.stream))??;
        return Ok(Met::Maintenance(Client { runtime, grpc, address, stop: stop.clone(), fingerprint }));
    }
    let Some(credentials) = credentials else { return Ok(Met::Foreign) };
    if !met.is_of(address, &credentials.authority, now)? {
        return Ok(Met::Foreign);
    }
    drop(met);
    let joined = wire::join(address, &credentials.authority, &credentials.client);
    let stream = match waited(&runtime, stop, "a handshake", address, SHORT, joined)? {
        Ok(stream) => stream,
        Err(CallError::Foreign { .. }) => return Ok(Met::Foreign),
        Err(error) => return Err(error),
    };
    let grpc = waited(&runtime, stop, "a handshake", address, SHORT, wire::channel(address, stream))??;
    Ok(Met::Ours(Client { runtime, grpc, address, stop: stop.clone(), fingerprint: None }))
}

fn runtime(address: SocketAddr) -> Result<Runtime, CallError> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|source| CallError::Local {
        method: "a handshake",
        address,
        source,
    })
}

/// Runs a future to its end, its deadline, or the flag.
fn waited<F: Future>(
    runtime: &Runtime,
    stop: &AtomicBool,
    method: &'static str,
    address: SocketAddr,
    deadline: Duration,
    future: F,
) -> Result<F::Output, CallError> {
    let until = Instant::now() + deadline;
    runtime.block_on(async {
        let mut future = pin!(future);
        loop {
            if let Ok(done) = tokio::time::timeout(TICK, &mut future).await {
                return Ok(done);
            }
            if stop.load(Ordering::SeqCst) {
                return Err(CallError::Stopped { method, address });
            }
            if Instant::now() >= until {
                return Err(CallError::TimedOut { method, address, seconds: deadline.as_secs() });
            }
        }
    })
}

/// Where a method lives and what it is called.
#[derive(Clone, Copy)]
pub(super) struct Method {
    pub(super) path: &'static str,
    pub(super) name: &'static str,
}

/// The path and the name of a method, from its service and its name.
macro_rules! method {
    ($service:literal, $name:literal) => {
        $crate::machine::client::Method { path: concat!("/", $service, "/", $name), name: $name }
    };
}
pub(super) use method;

impl Client {
    /// Whom we talk to.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The key of a machine in maintenance mode, to be compared with what its console shows; `None` when the
    /// machine has shown a certificate of our authority.
    pub fn fingerprint(&self) -> Option<&Fingerprint> {
        self.fingerprint.as_ref()
    }

    fn grpc(&self) -> Grpc<Channel> {
        Grpc::new(self.grpc.clone()).max_decoding_message_size(LARGEST)
    }

    fn waited<F: Future>(
        &self,
        method: Method,
        deadline: Duration,
        future: F,
    ) -> Result<F::Output, CallError> {
        waited(&self.runtime, &self.stop, method.name, self.address, deadline, future)
    }

    /// What a status means for the caller.
    fn refused(&self, method: Method, status: &Status) -> CallError {
        let (method, address) = (method.name, self.address);
        let words = Refusal(status.message().to_string());
        // tonic makes one up when the connection breaks; the machine's own have no cause.
        let broke = std::error::Error::source(status).is_some() || words.0 == "Missing response message.";
        match status.code() {
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal if broke => {
                CallError::Broken { method, address, source: words }
            }
            code => CallError::Refused { method, address, code, source: words },
        }
    }

    /// One question, one answer.
    pub(super) fn unary<Q, A>(&self, method: Method, question: Q, deadline: Duration) -> Result<A, CallError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let mut grpc = self.grpc();
        let path = http::uri::PathAndQuery::from_static(method.path);
        let asked = async {
            grpc.ready().await.map_err(|e| Status::from_error(Box::new(e)))?;
            grpc.unary(tonic::Request::new(question), path, ProstCodec::default()).await
        };
        match self.waited(method, deadline, asked)? {
            Ok(answer) => Ok(answer.into_inner()),
            Err(status) => Err(self.refused(method, &status)),
        }
    }

    /// A call of `MachineService`, whose answers are lists: the one of this machine.
    pub(super) fn ask<Q, A>(&self, method: Method, question: Q, deadline: Duration) -> Result<A, CallError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default,
    {
        let replies: proto::Replies = self.unary(method, question, deadline)?;
        let nonsense = |what| CallError::Nonsense { method: method.name, address: self.address, what };
        let first = replies.messages.first().ok_or_else(|| nonsense("it is empty"))?;
        A::decode(first.as_slice()).map_err(|_| nonsense("it cannot be decoded"))
    }

    /// One question, a stream of answers, each given to `each` until it has enough. `quiet` is how long nothing may
    /// come; `None` for as long as it takes.
    pub(super) fn stream<Q, A>(
        &self,
        method: Method,
        question: Q,
        quiet: Option<Duration>,
        each: &mut dyn FnMut(A) -> Result<ControlFlow<()>, std::io::Error>,
    ) -> Result<(), CallError>
    where
        Q: Message + Send + Sync + 'static,
        A: Message + Default + Send + Sync + 'static,
    {
        let quiet = quiet.unwrap_or(FOR_EVER);
        let mut grpc = self.grpc();
        let path = http::uri::PathAndQuery::from_static(method.path);
        let asked = async {
            grpc.ready().await.map_err(|e| Status::from_error(Box::new(e)))?;
            grpc.server_streaming(tonic::Request::new(question), path, ProstCodec::default()).await
        };
        let answers = self.waited(method, quiet, asked)?.map_err(|status| self.refused(method, &status))?;
        let mut answers: tonic::Streaming<A> = answers.into_inner();
        loop {
            let next = self.waited(method, quiet, answers.message())?;
            let Some(answer) = next.map_err(|status| self.refused(method, &status))? else { return Ok(()) };
            match each(answer) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(())) => return Ok(()),
                Err(source) => {
                    return Err(CallError::Local { method: method.name, address: self.address, source });
                }
            }
        }
    }

    /// A stream of pieces out of a reader, one answer at its end.
    pub(super) fn upload(
        &self,
        method: Method,
        from: impl std::io::Read + Send + 'static,
        deadline: Duration,
    ) -> Result<(), CallError> {
        // A read that fails ends the stream: what was sent is then short, which its check sum tells the machine.
        let failed = Arc::new(std::sync::Mutex::new(None));
        let pieces = Pieces { from, failed: failed.clone() };
        let mut grpc = self.grpc();
        let path = http::uri::PathAndQuery::from_static(method.path);
        let asked = async {
            grpc.ready().await.map_err(|e| Status::from_error(Box::new(e)))?;
            let pieces = tonic::Request::new(tokio_stream::iter(pieces));
            grpc.client_streaming::<_, _, proto::Replies, _>(pieces, path, ProstCodec::default()).await
        };
        let answer = self.waited(method, deadline, asked)?;
        if let Some(source) = failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take() {
            return Err(CallError::Local { method: method.name, address: self.address, source });
        }
        answer.map(drop).map_err(|status| self.refused(method, &status))
    }
}

struct Pieces<R> {
    from: R,
    failed: Arc<std::sync::Mutex<Option<std::io::Error>>>,
}

impl<R: std::io::Read> Iterator for Pieces<R> {
    type Item = proto::Data;

    fn next(&mut self) -> Option<proto::Data> {
        let mut bytes = vec![0; PIECE];
        match self.from.read(&mut bytes) {
            Ok(0) => None,
            Ok(read) => {
                bytes.truncate(read);
                Some(proto::Data { bytes })
            }
            Err(error) => {
                *self.failed.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(error);
                None
            }
        }
    }
}
