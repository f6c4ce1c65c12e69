//! The server through a socket.

use bramble_serve::{Limits, Served, serve};
use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

fn start(directory: &Path, limits: Limits) -> (SocketAddr, Receiver<Served>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, served) = channel();
    let directory = directory.to_path_buf();
    // Ends with the test's process.
    std::thread::spawn(move || serve(&listener, &directory, limits, move |s| drop(sender.send(s.clone()))));
    (address, served)
}

fn ask(stream: &mut TcpStream, request: &str) -> (u16, String, Vec<u8>) {
    stream.write_all(request.as_bytes()).unwrap();
    let mut bytes = Vec::new();
    let mut byte = [0];
    while !bytes.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&bytes));
        bytes.push(byte[0]);
    }
    let head = String::from_utf8(bytes).unwrap();
    let status = head[9..12].parse().unwrap();
    let length = header(&head, "content-length").map_or(0, |v| v.parse().unwrap());
    let mut body = vec![0; if request.starts_with("HEAD") { 0 } else { length }];
    stream.read_exact(&mut body).unwrap();
    (status, head, body)
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.into_iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
}

fn get(stream: &mut TcpStream, path: &str, headers: &str) -> (u16, String, Vec<u8>) {
    ask(stream, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n"))
}

#[test]
fn one_connection_serves_wholes_parts_and_refusals() {
    let dir = tempfile::tempdir().unwrap();
    let content: Vec<u8> = (0..300_000u32).map(|n| (n % 251) as u8).collect();
    fs::create_dir_all(dir.path().join("amd64/000007")).unwrap();
    fs::write(dir.path().join("amd64/000007/pack"), &content).unwrap();
    fs::write(dir.path().join(".hidden"), "no").unwrap();
    let outside = tempfile::NamedTempFile::new().unwrap();
    std::os::unix::fs::symlink(outside.path(), dir.path().join("link")).unwrap();
    let (address, served) = start(dir.path(), Limits::default());
    let mut stream = TcpStream::connect(address).unwrap();
    let path = "/amd64/000007/pack";

    let (status, head, body) = get(&mut stream, path, "");
    assert_eq!((status, body.len()), (200, content.len()));
    assert!(body == content);
    assert_eq!(header(&head, "accept-ranges"), Some("bytes"));
    let tag = header(&head, "etag").unwrap().to_string();

    let (status, head, body) = get(&mut stream, path, "Range: bytes=1000-1999\r\n");
    assert_eq!((status, &body[..]), (206, &content[1000..2000]));
    assert_eq!(header(&head, "content-range"), Some("bytes 1000-1999/300000"));
    let (status, _, body) = get(&mut stream, path, &format!("Range: bytes=-7\r\nIf-Range: {tag}\r\n"));
    assert_eq!((status, &body[..]), (206, &content[299_993..]));
    let (status, _, body) = get(&mut stream, path, "Range: bytes=-7\r\nIf-Range: \"other\"\r\n");
    assert_eq!((status, body.len()), (200, content.len()));
    let (status, head, body) = get(&mut stream, path, "Range: bytes=300000-\r\n");
    assert_eq!((status, body.len(), header(&head, "content-range")), (416, 0, Some("bytes */300000")));
    let (status, _, body) = get(&mut stream, path, &format!("If-None-Match: {tag}\r\n"));
    assert_eq!((status, body.len()), (304, 0));
    let (status, head, _) = ask(&mut stream, &format!("HEAD {path} HTTP/1.1\r\n\r\n"));
    assert_eq!((status, header(&head, "content-length")), (200, Some("300000")));

    for path in
        ["/", "/amd64", "/nothing", "/.hidden", "/../x", "/amd64/../amd64/000007/pack", "/link", "/%2e", "x"]
    {
        assert_eq!(get(&mut stream, path, "").0, 404, "{path}");
    }
    let (status, head, _) = ask(&mut stream, "DELETE /amd64/000007/pack HTTP/1.1\r\n\r\n");
    assert_eq!((status, header(&head, "allow")), (405, Some("GET, HEAD")));

    fs::write(dir.path().join("new"), "other").unwrap();
    fs::rename(dir.path().join("new"), dir.path().join("amd64/000007/pack")).unwrap();
    assert_ne!(header(&get(&mut stream, path, "").1, "etag"), Some(&tag[..]), "other bytes, other tag");

    let first = served.recv().unwrap();
    assert_eq!((first.status, first.sent, &first.path[..], first.range), (200, 300_000, path, None));
    let second = served.recv().unwrap();
    assert_eq!((second.status, second.sent, second.range.as_deref()), (206, 1000, Some("bytes=1000-1999")));
}

#[test]
fn a_bad_head_ends_the_connection_and_the_next_one_is_served() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("keys"), "k").unwrap();
    let (address, _served) = start(dir.path(), Limits { connections: 1, ..Limits::default() });
    for bad in ["hello\r\n\r\n", "POST /keys HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"] {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.write_all(bad.as_bytes()).unwrap();
        let mut answer = Vec::new();
        // A reset because of what was not read is an end as well.
        let _ = stream.read_to_end(&mut answer);
        assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"));
    }
    // Gone in the middle of a head.
    drop(TcpStream::connect(address).unwrap());
    let mut stream = TcpStream::connect(address).unwrap();
    assert_eq!(get(&mut stream, "/keys", "").2, b"k");
}

#[test]
fn a_silent_client_loses_its_seat() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("keys"), "k").unwrap();
    let limits = Limits { connections: 1, patience: Duration::from_millis(20) };
    let (address, _served) = start(dir.path(), limits);
    let _silent = TcpStream::connect(address).unwrap();
    // Served as soon as the silent one's patience is over: this read waits for it.
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /keys HTTP/1.1\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("\r\n\r\nk"), "{answer}");
}
