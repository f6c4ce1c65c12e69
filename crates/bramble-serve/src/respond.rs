//! Answering a request.

use crate::request::{Bad, Request};
use crate::{Served, date};
use std::fs::{File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes that are read and sent at once.
const PIECE: usize = 128 << 10;

/// An answer's head, and what of a file follows it.
struct Answer {
    status: u16,
    headers: String,
    body: Option<(File, Range<u64>)>,
}

impl Answer {
    fn empty(status: u16) -> Answer {
        Answer { status, headers: String::new(), body: None }
    }
}

/// Answers, and says what was answered.
pub(crate) fn respond(
    mut out: impl Write,
    client: &str,
    directory: &Path,
    request: &Result<Request, Bad>,
    keep: bool,
) -> io::Result<Served> {
    let answer = match request {
        Err(Bad(status)) => Answer::empty(*status),
        Ok(request) => answer(directory, request),
    };
    let Answer { status, headers, body } = answer;
    let length = body.as_ref().map_or(0, |(_, range)| range.end - range.start);
    let mut head = format!("HTTP/1.1 {status} {}\r\nDate: {}\r\n{headers}", reason(status), date::now());
    // A 304 has no content, whatever its length would be.
    if status != 304 {
        head.push_str(&format!("Content-Length: {length}\r\n"));
    }
    if !keep {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    out.write_all(head.as_bytes())?;
    let request = request.as_ref().ok();
    let mut sent = 0;
    if let (Some((file, range)), true) = (body, request.is_some_and(|r| r.method == "GET")) {
        sent = send(file, range, &mut out)?;
    }
    out.flush()?;
    let text = |field: fn(&Request) -> &String| request.map(|r| field(r).clone()).unwrap_or_default();
    Ok(Served {
        client: client.to_string(),
        method: text(|r| &r.method),
        path: text(|r| &r.path),
        range: request.and_then(|r| r.range.clone()),
        status,
        sent,
    })
}

fn answer(directory: &Path, request: &Request) -> Answer {
    if !matches!(request.method.as_str(), "GET" | "HEAD") {
        return Answer { headers: "Allow: GET, HEAD\r\n".into(), ..Answer::empty(405) };
    }
    let opened = place(directory, &request.path).and_then(|path| {
        let file = File::open(path).ok()?;
        let metadata = file.metadata().ok()?;
        metadata.is_file().then_some((file, metadata))
    });
    let Some((file, metadata)) = opened else { return Answer::empty(404) };
    let tag = tag(&metadata);
    let size = metadata.len();
    let mut headers =
        format!("ETag: {tag}\r\nAccept-Ranges: bytes\r\nCache-Control: {}\r\n", caching(&request.path));
    let known = request.if_none_match.as_ref();
    if known.is_some_and(|known| {
        known == "*" || known.split(',').any(|t| t.trim().trim_start_matches("W/") == tag)
    }) {
        return Answer { status: 304, headers, body: None };
    }
    headers.push_str("Content-Type: application/octet-stream\r\n");
    // A range of a file that has changed since is of no use to anybody (RFC 9110, 13.1.5).
    let wanted =
        request.range.as_ref().filter(|_| request.if_range.as_ref().is_none_or(|known| *known == tag));
    match wanted.map(|range| parse_range(range, size)) {
        None | Some(Wanted::Whole) => Answer { status: 200, headers, body: Some((file, 0..size)) },
        Some(Wanted::Part(range)) => {
            headers.push_str(&format!("Content-Range: bytes {}-{}/{size}\r\n", range.start, range.end - 1));
            Answer { status: 206, headers, body: Some((file, range)) }
        }
        Some(Wanted::Nothing) => {
            headers.push_str(&format!("Content-Range: bytes */{size}\r\n"));
            Answer { status: 416, headers, body: None }
        }
    }
}

/// The file that a path names: below the directory, no segment of it hidden. A query is not looked at.
fn place(directory: &Path, path: &str) -> Option<PathBuf> {
    let path = path.split(['?', '#']).next()?.strip_prefix('/')?;
    let mut place = directory.to_path_buf();
    for segment in path.split('/') {
        // Escapes are not needed for any name that is published.
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if segment.is_empty() || segment.starts_with('.') || !segment.bytes().all(plain) {
            return None;
        }
        place.push(segment);
    }
    // A link inside the directory must not lead out of it.
    let real = place.canonicalize().ok()?;
    real.starts_with(directory.canonicalize().ok()?).then_some(real)
}

/// Another file, or the same one written anew, has another tag.
fn tag(metadata: &Metadata) -> String {
    format!(
        "\"{:x}-{:x}-{:x}-{:x}\"",
        metadata.ino(),
        metadata.len(),
        metadata.mtime(),
        metadata.mtime_nsec()
    )
}

/// What lies in the directory of a number never changes; the rest is asked for each time.
fn caching(path: &str) -> &'static str {
    let numbered = path.split('/').any(|s| s.len() >= 6 && s.bytes().all(|b| b.is_ascii_digit()));
    if numbered { "public, max-age=31536000, immutable" } else { "no-cache" }
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    Nothing,
}

/// One range of bytes (RFC 9110, 14.1.2). What is none, and several at once, is answered with the whole.
fn parse_range(text: &str, size: u64) -> Wanted {
    let parse = || {
        let (first, last) = text.strip_prefix("bytes=")?.trim().split_once('-')?;
        let number = |digits: &str| {
            let digits = Some(digits).filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()))?;
            // What is too large for a number is behind every end.
            Some(digits.parse().unwrap_or(u64::MAX))
        };
        Some(match (first, last) {
            ("", last) => size.saturating_sub(number(last)?)..size,
            (first, "") => number(first)?..size,
            (first, last) => {
                let (first, last): (u64, u64) = (number(first)?, number(last)?);
                if last < first {
                    return None;
                }
                first..last.saturating_add(1).min(size)
            }
        })
    };
    match parse() {
        None => Wanted::Whole,
        Some(range) if range.start >= range.end => Wanted::Nothing,
        Some(range) => Wanted::Part(range),
    }
}

fn send(mut file: File, range: Range<u64>, out: &mut impl Write) -> io::Result<u64> {
    file.seek(SeekFrom::Start(range.start))?;
    let mut left = range.end - range.start;
    let mut piece = vec![0; PIECE.min(left as usize)];
    while left > 0 {
        let now = piece.len().min(left as usize);
        // A file that became shorter ends the connection: the client sees that something lacks.
        file.read_exact(&mut piece[..now])?;
        out.write_all(&piece[..now])?;
        left -= now as u64;
    }
    Ok(range.end - range.start)
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        206 => "Partial Content",
        304 => "Not Modified",
        400 => "Bad Request",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Content Too Large",
        416 => "Range Not Satisfiable",
        431 => "Request Header Fields Too Large",
        505 => "HTTP Version Not Supported",
        _ => "Unknown",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_what_the_standard_says() {
        let part = |range: Range<u64>| Wanted::Part(range);
        for (text, wanted) in [
            ("bytes=0-0", part(0..1)),
            ("bytes=2-5", part(2..6)),
            ("bytes=2-", part(2..10)),
            ("bytes=-3", part(7..10)),
            ("bytes=-30", part(0..10)),
            ("bytes=5-99", part(5..10)),
            ("bytes=9-99999999999999999999999", part(9..10)),
            ("bytes=10-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=99999999999999999999999-", Wanted::Nothing),
            ("bytes=5-2", Wanted::Whole),
            ("bytes=1-2,4-5", Wanted::Whole),
            ("bytes=a-b", Wanted::Whole),
            ("bytes=-", Wanted::Whole),
            ("lines=1-2", Wanted::Whole),
            ("bytes=+1-2", Wanted::Whole),
        ] {
            assert_eq!(parse_range(text, 10), wanted, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn only_numbered_directories_are_kept_by_caches() {
        assert!(caching("/amd64/000007/pack").contains("immutable"));
        assert_eq!(caching("/amd64/latest"), "no-cache");
        assert_eq!(caching("/keys"), "no-cache");
    }
}
