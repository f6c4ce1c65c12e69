//! A directory of static files over HTTP/1.1 (RFC 9110, RFC 9112): `GET` and `HEAD`, one range a request, entity tags,
//! kept connections. For the network at home: no TLS, for what it serves is signed.
//!
//! A thread a connection, at most [`Limits::connections`] of them; whoever comes then waits. Nothing outside the directory is
//! served, nothing hidden, no listing.
#![forbid(unsafe_code)]

mod date;
mod request;
mod respond;

use std::io;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

/// What a server lets others do.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at the same time.
    pub connections: usize,
    /// How long a client may be silent, or take nothing.
    pub patience: Duration,
}

impl Default for Limits {
    /// 64 connections; 30 s.
    fn default() -> Self {
        Limits { connections: 64, patience: Duration::from_secs(30) }
    }
}

/// What happened to one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Served {
    /// Who asked.
    pub client: String,
    /// `GET`, `HEAD`, or what else stood there.
    pub method: String,
    /// The path as it was asked for.
    pub path: String,
    /// The range as it was asked for.
    pub range: Option<String>,
    /// Status of the answer.
    pub status: u16,
    /// Bytes of content that were sent.
    pub sent: u64,
}

/// Serves `directory` to whoever connects, until the listener fails. `tell` hears of every answer.
///
/// # Errors
/// The listener's.
pub fn serve(
    listener: &TcpListener,
    directory: &Path,
    limits: Limits,
    tell: impl Fn(&Served) + Send + Sync + 'static,
) -> io::Result<()> {
    let tell: Arc<dyn Fn(&Served) + Send + Sync> = Arc::new(tell);
    let directory: Arc<PathBuf> = Arc::new(directory.to_path_buf());
    let seats = Arc::new(Seats { free: Mutex::new(limits.connections.max(1)), changed: Condvar::new() });
    loop {
        let seat = Seats::take(&seats);
        let (stream, client) = match listener.accept() {
            Ok(accepted) => accepted,
            // The client went away before it was looked at.
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted) => {
                continue;
            }
            Err(e) => return Err(e),
        };
        let (tell, directory) = (Arc::clone(&tell), Arc::clone(&directory));
        let begun = thread::Builder::new().name("serve".into()).spawn(move || {
            let _seat = seat;
            // A client that goes away is no matter for anybody.
            let _ = converse(&stream, &client.ip().to_string(), &directory, limits, &*tell);
        });
        // Too many threads for this computer: this client is let go, the next may fare better.
        drop(begun);
    }
}

/// Answers the requests of one connection.
fn converse(
    stream: &TcpStream,
    client: &str,
    directory: &Path,
    limits: Limits,
    tell: &(dyn Fn(&Served) + Send + Sync),
) -> io::Result<()> {
    stream.set_read_timeout(Some(limits.patience))?;
    stream.set_write_timeout(Some(limits.patience))?;
    stream.set_nodelay(true)?;
    let mut reader = io::BufReader::with_capacity(8 << 10, stream);
    while let Some(request) = request::read(&mut reader)? {
        let keep = request.as_ref().is_ok_and(|request| request.keep);
        let served = respond::respond(stream, client, directory, &request, keep)?;
        tell(&served);
        if !keep {
            break;
        }
    }
    Ok(())
}

/// How many more may come in.
struct Seats {
    free: Mutex<usize>,
    changed: Condvar,
}

/// Given back when it is dropped, however its thread ends.
struct Seat(Arc<Seats>);

impl Seats {
    fn take(seats: &Arc<Seats>) -> Seat {
        let mut free = seats.free.lock().unwrap_or_else(PoisonError::into_inner);
        while *free == 0 {
            free = seats.changed.wait(free).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Seat(Arc::clone(seats))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        *self.0.free.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        self.0.changed.notify_one();
    }
}
