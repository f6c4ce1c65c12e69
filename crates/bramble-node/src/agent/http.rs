//! As much of HTTP/1.1 (RFC 9112) as an answer of the Kubernetes API needs.

use std::io::{self, ErrorKind, Read};

/// No answer that is asked for is longer; a Node with fifty images is about 30 kB. The agent has 8 MiB in all.
const LIMIT: u64 = 1 << 20;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Body, as one piece.
    pub body: Vec<u8>,
}

/// The request for `path`, after whose answer the connection is closed.
pub fn get(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bramble-node\r\nAccept: application/json\r\n\
         Connection: close\r\n\r\n"
    )
}

/// The same for objects without their spec and status.
pub fn get_metadata(host: &str, path: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bramble-node\r\n\
         Accept: application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1\r\nConnection: close\r\n\r\n"
    )
}

/// The request that makes `json` at `path`.
pub fn create(host: &str, path: &str, json: &str) -> String {
    with_body(host, "POST", path, "application/json", json)
}

/// The request that merges `json` into what is at `path` (RFC 7386), after whose answer the connection is closed.
pub fn merge(host: &str, path: &str, json: &str) -> String {
    with_body(host, "PATCH", path, "application/merge-patch+json", json)
}

fn with_body(host: &str, method: &str, path: &str, kind: &str, json: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: bramble-node\r\nAccept: application/json\r\n\
         Content-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{json}",
        json.len()
    )
}

/// Reads an answer to its end.
pub fn read(from: &mut impl Read) -> io::Result<Response> {
    let mut bytes = Vec::new();
    match from.take(LIMIT).read_to_end(&mut bytes) {
        Ok(_) => {}
        // Some servers close without TLS's own goodbye; whether the answer is whole, its length says.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof && !bytes.is_empty() => {}
        Err(error) => return Err(error),
    }
    parse(&bytes).ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "not a whole HTTP answer"))
}

fn parse(bytes: &[u8]) -> Option<Response> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let rest = &bytes[end + 4..];
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    first.next().filter(|version| version.starts_with("HTTP/1."))?;
    let status = first.next()?.parse().ok()?;
    let header = |wanted: &str| {
        lines.clone().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case(wanted).then(|| value.trim())
        })
    };
    let body = if header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        dechunk(rest)?
    } else if let Some(length) = header("content-length") {
        rest.get(..length.parse().ok()?)?.to_vec()
    } else {
        rest.to_vec()
    };
    Some(Response { status, body })
}

/// RFC 9112, section 7.1. `None` when the last chunk is missing.
fn dechunk(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = bytes.windows(2).position(|window| window == b"\r\n")?;
        let size = std::str::from_utf8(&bytes[..end]).ok()?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        bytes = &bytes[end + 2..];
        if size == 0 {
            return Some(body);
        }
        body.extend(bytes.get(..size)?);
        bytes = bytes.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(text: &str) -> Option<(u16, String)> {
        parse(text.as_bytes()).map(|r| (r.status, String::from_utf8(r.body).unwrap()))
    }

    #[test]
    fn answers_are_read_with_length_chunks_or_to_the_end() {
        let plain = answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more");
        assert_eq!(plain, Some((200, "ok".into())));
        let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nA;x=1\r\n0123456789\r\n0\r\n\r\n";
        assert_eq!(answer(chunked), Some((200, "abc0123456789".into())));
        assert_eq!(answer("HTTP/1.0 500 Oh\r\n\r\nbad"), Some((500, "bad".into())));
    }

    #[test]
    fn half_answers_are_none() {
        for half in [
            "",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nok",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\nab\r\n",
            "SSH-2.0-x\r\n\r\n",
        ] {
            assert_eq!(answer(half), None, "{half:?}");
        }
    }
}
