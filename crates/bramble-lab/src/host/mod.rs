//! The lab host: the background process that is switch, gateway, disk server and parent of the machines.
//!
//! It serves clients at a unix socket, one request a connection ([`crate::wire`]), and ends when it is told to.
//! When it dies otherwise its machines die with it, and the next host goes on from their disks.

mod boot;
mod console;
mod hub;
mod machine;
mod monitor;
mod nursery;
mod site;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::error::{Error, Refusal};
use crate::layout::{HostRecord, Layout, replace};
use crate::process::ProcessId;
use crate::wire::{LabEvent, Reply, Request};
use site::Site;

/// A description of a thousand machines is some 500 kB.
const MAX_REQUEST: u64 = 16 << 20;

/// Runs the lab host of `dir` until a client takes the lab down. Only one runs for a directory: where another does,
/// this returns at once.
///
/// # Errors
/// [`Error::File`] and [`Error::Refused`] when the directory cannot be used.
pub fn run(dir: &Path) -> Result<(), Error> {
    // Out of the terminal's reach: Ctrl-C there ends the program that waits, not the machines. Fails where there
    // is nothing to leave.
    let _ = rustix::process::setsid();
    let file = |doing, path: &Path| {
        let path = path.to_path_buf();
        move |source| Error::File { doing, path, source }
    };
    let dir = std::path::absolute(dir).map_err(file("find", dir))?;
    let layout = Layout::new(dir);
    layout.make().map_err(file("make", layout.dir()))?;
    let lock_path = layout.host_lock();
    let lock = File::options().write(true).create(true).truncate(false).open(&lock_path);
    let lock = lock.map_err(file("open", &lock_path))?;
    if lock.try_lock().is_err() {
        return Ok(());
    }
    let runtime = layout.make_runtime().map_err(file("make a directory for the sockets of", layout.dir()))?;
    let site = Arc::new(Site::open(layout.clone(), runtime.clone())?);
    let process = i32::try_from(std::process::id()).ok().and_then(ProcessId::of);
    let process = process.ok_or_else(|| file("look at", layout.dir())(io::ErrorKind::NotFound.into()))?;
    let record = HostRecord { process, runtime };
    let control = record.control_socket();
    // A socket of a host that died is in the way.
    let _ = std::fs::remove_file(&control);
    let listener = UnixListener::bind(&control).map_err(file("listen at", &control))?;
    let record_path = layout.host_record();
    let write = || replace(&record_path, &serde_json::to_vec(&record)?);
    write().map_err(file("write", &record_path))?;

    let ended = Arc::new(AtomicBool::new(false));
    for stream in listener.incoming() {
        if ended.load(Ordering::Acquire) {
            break;
        }
        let Ok(stream) = stream else { continue };
        let (site, ended, control) = (Arc::clone(&site), Arc::clone(&ended), control.clone());
        let serve = move || {
            // A client that left is no trouble of ours.
            if let Ok(true) = serve(&site, &stream) {
                ended.store(true, Ordering::Release);
                // Wakes the loop above.
                let _ = UnixStream::connect(&control);
            }
        };
        // Without a thread the client sees its connection close.
        let _ = std::thread::Builder::new().name("client".into()).spawn(serve);
    }
    // Tidies up: a record and sockets without a host only cost the next client one failed connection.
    let _ = std::fs::remove_file(&record_path);
    let _ = std::fs::remove_dir_all(&record.runtime);
    Ok(())
}

/// Serves one request; `true` when the lab is down.
fn serve(site: &Site, stream: &UnixStream) -> io::Result<bool> {
    let mut input = BufReader::new(stream);
    let mut line = String::new();
    if (&mut input).take(MAX_REQUEST).read_line(&mut line)? == 0 {
        return Ok(false);
    }
    let request = match serde_json::from_str(&line) {
        Ok(request) => request,
        Err(error) => {
            let what = format!("the request makes no sense, perhaps it is from another version: {error}");
            say(stream, &Reply::Refused(Refusal::BadSpec { what }))?;
            return Ok(false);
        }
    };
    match request {
        Request::Follow => follow(site, stream)?,
        Request::Console { machine } => console(site, &machine, stream, input)?,
        request => {
            let down = matches!(request, Request::Down { .. });
            let reply = site.answer(request);
            let down = down && matches!(reply, Reply::Done);
            // The lab is down whether or not the client still listens.
            let said = say(stream, &reply);
            return if down { Ok(true) } else { said.map(|()| false) };
        }
    }
    Ok(false)
}

fn say(mut stream: &UnixStream, reply: &Reply) -> io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    stream.write_all(&line)
}

fn follow(site: &Site, stream: &UnixStream) -> io::Result<()> {
    let (first, events) = site.follow();
    let mut send = |event: LabEvent| say(stream, &Reply::Event(event));
    first.into_iter().try_for_each(&mut send)?;
    events.into_iter().try_for_each(send)
}

fn console(site: &Site, machine: &str, stream: &UnixStream, mut input: impl BufRead) -> io::Result<()> {
    // The answer goes out before the console's first bytes can.
    let (hold, release) = UnixStream::pair()?;
    let mut machine_input = match site.attach(machine, hold) {
        Ok(machine_input) => machine_input,
        Err(refusal) => return say(stream, &Reply::Refused(refusal)),
    };
    say(stream, &Reply::Done)?;
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut from, mut to) = (&release, stream);
            // Ends when the machine goes off or the client leaves; both then close the whole connection.
            let _ = io::copy(&mut from, &mut to);
            let _ = stream.shutdown(std::net::Shutdown::Both);
        });
        let result = io::copy(&mut input, &mut machine_input);
        let _ = release.shutdown(std::net::Shutdown::Both);
        result.map(|_| ())
    })
}
