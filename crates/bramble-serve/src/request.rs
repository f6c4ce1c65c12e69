//! Reading a request's head.

use std::io::{self, BufRead, Read};

/// Bytes of a head at most: a browser's has about one thousand.
const HEAD_MAX: u64 = 16 << 10;

/// What of a request matters here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub method: String,
    pub path: String,
    pub range: Option<String>,
    pub if_range: Option<String>,
    pub if_none_match: Option<String>,
    /// Whether the connection stays open for another one.
    pub keep: bool,
}

/// A head that is none: the connection ends with this status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Bad(pub u16);

/// The next request's head; `None` when the client has no more.
pub(crate) fn read(reader: &mut impl BufRead) -> io::Result<Option<Result<Request, Bad>>> {
    let mut head = reader.take(HEAD_MAX);
    let mut line = Vec::new();
    // An empty line before a request is let pass (RFC 9112, 2.2).
    loop {
        line.clear();
        if head.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        if !matches!(&line[..], b"\r\n" | b"\n") {
            break;
        }
    }
    let mut lines = vec![std::mem::take(&mut line)];
    loop {
        let mut line = Vec::new();
        if head.read_until(b'\n', &mut line)? == 0 {
            let too_long = head.limit() == 0;
            return Ok(Some(Err(Bad(if too_long { 431 } else { 400 }))));
        }
        if matches!(&line[..], b"\r\n" | b"\n") {
            return Ok(Some(parse(&lines)));
        }
        lines.push(line);
    }
}

fn parse(lines: &[Vec<u8>]) -> Result<Request, Bad> {
    let text = |line: &[u8]| {
        let text = std::str::from_utf8(line).map_err(|_| Bad(400))?;
        Ok(text.trim_end_matches(['\r', '\n']).to_string())
    };
    let (first, rest) = lines.split_first().ok_or(Bad(400))?;
    let first = text(first)?;
    let mut words = first.split(' ');
    let (Some(method), Some(path), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Bad(400));
    };
    let minor = match version {
        "HTTP/1.1" => 1,
        "HTTP/1.0" => 0,
        _ => return Err(Bad(505)),
    };
    let mut request =
        Request { method: method.into(), path: path.into(), keep: minor == 1, ..Request::default() };
    for line in rest {
        let line = text(line)?;
        let (name, value) = line.split_once(':').ok_or(Bad(400))?;
        if name.is_empty() || name.ends_with([' ', '\t']) || name.starts_with([' ', '\t']) {
            return Err(Bad(400));
        }
        let value = value.trim_matches([' ', '\t']).to_string();
        match name.to_ascii_lowercase().as_str() {
            "range" => request.range = Some(value),
            "if-range" => request.if_range = Some(value),
            "if-none-match" => request.if_none_match = Some(value),
            "connection" => {
                let closes = value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"));
                request.keep = request.keep && !closes;
            }
            // No request that is served has a body; what would be taken for the next request is not looked at.
            "content-length" if value != "0" => return Err(Bad(413)),
            "transfer-encoding" => return Err(Bad(413)),
            _ => {}
        }
    }
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Option<Result<Request, Bad>> {
        read(&mut text.as_bytes()).unwrap()
    }

    #[test]
    fn a_head_is_read() {
        let head = "\r\nGET /a/b HTTP/1.1\r\nHost: x\r\nRANGE:bytes=0-9 \r\nIf-Range: \"1\"\r\n\r\nGET";
        let request = of(head).unwrap().unwrap();
        assert_eq!((request.method.as_str(), request.path.as_str(), request.keep), ("GET", "/a/b", true));
        assert_eq!(
            (request.range.as_deref(), request.if_range.as_deref()),
            (Some("bytes=0-9"), Some("\"1\""))
        );
        assert!(!of("GET / HTTP/1.1\r\nConnection: Close, x\r\n\r\n").unwrap().unwrap().keep);
        assert!(!of("GET / HTTP/1.0\n\n").unwrap().unwrap().keep);
        assert_eq!(of(""), None);
        assert_eq!(of("\r\n"), None);
    }

    #[test]
    fn what_is_no_head_is_refused() {
        for (text, status) in [
            ("GET /\r\n\r\n", 400),
            ("GET / HTTP/2\r\n\r\n", 505),
            ("GET / HTTP/1.1\r\nno colon\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nA: b\r\n folded\r\n\r\n", 400),
            ("GET / HTTP/1.1\r\nHost", 400),
            ("POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n", 413),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 413),
        ] {
            assert_eq!(of(text), Some(Err(Bad(status))), "{text:?}");
        }
        assert_eq!(of(&format!("GET /{} HTTP/1.1\r\n", "a".repeat(20_000))), Some(Err(Bad(431))));
    }
}
