//! A mirror on the loopback device that serves what it is given and misbehaves when told.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// What a mirror does wrong with one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Flips a bit of every answer.
    Lie,
    /// Sends half of the answer, then nothing.
    Stall,
    /// Sends that many bytes of an answer, then closes; this often.
    Drop { after: usize, times: u32 },
    /// Sends one byte at a time, slowly.
    Trickle,
    /// Answers 404.
    Lose,
    /// Answers 503, this often.
    Busy { times: u32 },
    /// Sends more than it should.
    TooMuch,
    /// Ignores `Range`.
    NoRanges,
}

/// One request as the mirror saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub path: String,
    pub range: Option<String>,
    pub status: u16,
}

#[derive(Default)]
struct State {
    files: HashMap<String, Vec<u8>>,
    faults: HashMap<String, Fault>,
    seen: Vec<Seen>,
    etags: bool,
}

/// The mirror; it ends with its value.
pub struct FakeMirror {
    port: u16,
    state: Arc<Mutex<State>>,
    end: Arc<AtomicBool>,
}

impl FakeMirror {
    pub fn start() -> FakeMirror {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let state = Arc::new(Mutex::new(State::default()));
        let end = Arc::new(AtomicBool::new(false));
        let (shared, ending) = (state.clone(), end.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ending.load(Ordering::Relaxed) {
                    return;
                }
                let (state, end) = (shared.clone(), ending.clone());
                std::thread::spawn(move || {
                    // A client that hangs up is no failure of the test.
                    let _ = serve(&stream.unwrap(), &state, &end);
                });
            }
        });
        FakeMirror { port, state, end }
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/debian", self.port)
    }

    pub fn put(&self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.state.lock().unwrap().files.insert(format!("/debian/{path}"), bytes.into());
    }

    pub fn fault(&self, path: &str, fault: Fault) {
        self.state.lock().unwrap().faults.insert(format!("/debian/{path}"), fault);
    }

    pub fn mend(&self) {
        self.state.lock().unwrap().faults.clear();
    }

    /// Sends ETags from now on and answers conditional requests.
    pub fn with_etags(&self) {
        self.state.lock().unwrap().etags = true;
    }

    /// The requests since the last call.
    pub fn seen(&self) -> Vec<Seen> {
        std::mem::take(&mut self.state.lock().unwrap().seen)
    }
}

impl Drop for FakeMirror {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(("127.0.0.1", self.port));
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>, end: &AtomicBool) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    while !end.load(Ordering::Relaxed) {
        let Some(request) = read_request(&mut reader)? else { return Ok(()) };
        answer(stream, &request, state, end)?;
    }
    Ok(())
}

struct Request {
    path: String,
    range: Option<String>,
    if_none_match: Option<String>,
}

fn read_request(reader: &mut impl BufRead) -> std::io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let path = line.split_whitespace().nth(1).unwrap_or_default().to_string();
    let mut request = Request { path, range: None, if_none_match: None };
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let Some((name, value)) = header.trim_end().split_once(':') else { return Ok(Some(request)) };
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value.trim().to_string()),
            "if-none-match" => request.if_none_match = Some(value.trim().to_string()),
            _ => {}
        }
    }
}

fn answer(
    mut stream: &TcpStream,
    request: &Request,
    state: &Mutex<State>,
    end: &AtomicBool,
) -> std::io::Result<()> {
    let (file, fault, etags) = {
        let state = &mut *state.lock().unwrap();
        let fault = state.faults.get(&request.path).copied();
        match state.faults.get_mut(&request.path) {
            Some(Fault::Drop { times, .. } | Fault::Busy { times }) if *times > 1 => *times -= 1,
            Some(Fault::Drop { .. } | Fault::Busy { .. }) => drop(state.faults.remove(&request.path)),
            _ => {}
        }
        (state.files.get(&request.path).cloned(), fault, state.etags)
    };
    let see = |status| {
        let seen = Seen { path: request.path.clone(), range: request.range.clone(), status };
        state.lock().unwrap().seen.push(seen);
    };
    let Some(mut body) = file.filter(|_| fault != Some(Fault::Lose)) else {
        see(404);
        return stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    };
    if matches!(fault, Some(Fault::Busy { .. })) {
        see(503);
        return stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n");
    }
    let etag = format!("\"{}-{}\"", body.len(), body.iter().map(|b| u64::from(*b)).sum::<u64>());
    if etags && request.if_none_match.as_ref() == Some(&etag) {
        see(304);
        return stream.write_all(b"HTTP/1.1 304 Not Modified\r\n\r\n");
    }
    match fault {
        Some(Fault::Lie) => {
            if let Some(last) = body.last_mut() {
                *last ^= 1;
            }
        }
        Some(Fault::TooMuch) => body.extend([0; 100]),
        _ => {}
    }
    let total = body.len();
    let from = request
        .range
        .as_deref()
        .filter(|_| fault != Some(Fault::NoRanges))
        .and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<usize>().ok());
    let mut head = match from {
        Some(from) if from >= total => {
            see(416);
            return stream.write_all(b"HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n");
        }
        Some(from) => {
            see(206);
            body.drain(..from);
            format!("HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{}/{total}\r\n", total - 1)
        }
        None => {
            see(200);
            "HTTP/1.1 200 OK\r\n".to_string()
        }
    };
    if etags {
        head += &format!("ETag: {etag}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes())?;
    match fault {
        Some(Fault::Stall) => {
            stream.write_all(&body[..body.len() / 2])?;
            wait_for_hang_up(stream, end);
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Some(Fault::Drop { after, .. }) => {
            stream.write_all(&body[..after.min(body.len())])?;
            stream.shutdown(std::net::Shutdown::Both)?;
            Err(std::io::ErrorKind::ConnectionAborted.into())
        }
        Some(Fault::Trickle) => {
            for byte in body {
                if end.load(Ordering::Relaxed) {
                    break;
                }
                stream.write_all(&[byte])?;
                std::thread::sleep(Duration::from_millis(20));
            }
            Ok(())
        }
        _ => stream.write_all(&body),
    }
}

/// Holds the connection open and silent until the other side has had enough.
fn wait_for_hang_up(mut stream: &TcpStream, end: &AtomicBool) {
    let _ = stream.set_read_timeout(Some(Duration::from_millis(50)));
    while !end.load(Ordering::Relaxed) {
        match std::io::Read::read(&mut stream, &mut [0]) {
            Ok(0) => return,
            Err(e) if !matches!(e.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {
                return;
            }
            _ => {}
        }
    }
}
