//! `InRelease`: what a suite has, signed by the archive.
//!
//! Formats: RFC 9580 section 7 (cleartext signature framework);
//! <https://wiki.debian.org/DebianRepository/Format#A.22Release.22_files>.

use crate::openpgp::{self, GoodSignature, Keyring, Refusal};
use std::collections::HashMap;
use std::fmt;
use thiserror::Error;

/// A release file whose signature and age are good.
#[derive(Clone, Debug)]
pub struct Release {
    /// `Suite`, such as `stable-backports`.
    pub suite: String,
    /// `Codename`, such as `trixie-backports`.
    pub codename: String,
    /// `Date`, seconds since the epoch.
    pub date: u64,
    /// `Valid-Until`, seconds since the epoch. Stable itself has none: it changes a few times a year.
    pub valid_until: Option<u64>,
    /// The signatures that count.
    pub signatures: Vec<GoodSignature>,
    files: HashMap<String, Entry>,
}

/// An index file that the release lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hexadecimal.
    pub sha256: String,
}

/// How old a release may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    /// Seconds since the epoch.
    pub now: u64,
    /// Seconds by which a release may be dated ahead of `now`. A day forgives a clock that is set to local time.
    pub ahead: u64,
    /// Seconds for which a release may be used past its `Valid-Until`. None by default: an old security index
    /// hides the newest fixes, which is what the field is there to prevent.
    pub expired: u64,
}

impl Freshness {
    /// The usual limits at a time.
    pub fn at(now: u64) -> Freshness {
        Freshness { now, ahead: 24 * 3600, expired: 0 }
    }
}

/// A release file that is not to be used.
#[derive(Debug, Error)]
pub enum ReleaseError {
    /// It is not a clear-signed text.
    #[error("it is no clear-signed text: {what}")]
    NotClearSigned {
        /// What is wrong with it.
        what: &'static str,
    },
    /// Its signature block cannot be read.
    #[error("its signatures cannot be read")]
    Signatures {
        /// What is wrong with them.
        #[source]
        source: Box<pgp::errors::Error>,
    },
    /// No signature counts.
    #[error("no signature of it counts: {}", Refusals(.refusals))]
    Untrusted {
        /// Why not, each.
        refusals: Vec<Refusal>,
    },
    /// A field is missing or cannot be read.
    #[error("it has no usable field {field}")]
    Field {
        /// Which.
        field: &'static str,
    },
    /// It is for another suite.
    #[error("it is for the suite {codename}, not for {wanted}")]
    OtherSuite {
        /// What it is for.
        codename: String,
        /// What was asked for.
        wanted: String,
    },
    /// It is past its `Valid-Until`.
    #[error("it was valid until {}, which is {} ago", Time(*.valid_until), Span(*.since))]
    Expired {
        /// Seconds since the epoch.
        valid_until: u64,
        /// Seconds.
        since: u64,
    },
    /// It is dated ahead of this computer's clock.
    #[error("it is dated {}, which is {} ahead of this computer's clock", Time(*.date), Span(*.ahead))]
    Future {
        /// Seconds since the epoch.
        date: u64,
        /// Seconds.
        ahead: u64,
    },
}

impl ReleaseError {
    /// What to try.
    pub fn hint(&self) -> &'static str {
        match self {
            ReleaseError::Expired { .. } => {
                "the mirror no longer follows Debian, or this computer's clock is wrong: check `date`, else use another mirror"
            }
            ReleaseError::Future { .. } => "this computer's clock is wrong: set it and try again",
            ReleaseError::Untrusted { refusals }
                if refusals.iter().any(|r| matches!(r, Refusal::Future { .. })) =>
            {
                "this computer's clock is wrong: set it and try again"
            }
            ReleaseError::Untrusted { .. } => {
                "the mirror is not Debian's, or a newer bramble knows newer keys: use another mirror or update the tool"
            }
            ReleaseError::NotClearSigned { .. } | ReleaseError::Signatures { .. } => {
                "a login page or a broken mirror answered: check the network or use another mirror"
            }
            ReleaseError::Field { .. } | ReleaseError::OtherSuite { .. } => "use another mirror",
        }
    }
}

impl Release {
    /// Reads, checks the signatures, and checks suite and age.
    ///
    /// # Errors
    /// Not clear-signed, no good signature by a key of the ring, another suite, too old, or from the future.
    pub fn verify(
        bytes: &[u8],
        wanted: &str,
        keyring: &Keyring,
        fresh: Freshness,
    ) -> Result<Release, ReleaseError> {
        let text = std::str::from_utf8(bytes)
            .map_err(|_| ReleaseError::NotClearSigned { what: "it is not UTF-8" })?;
        let (signed, armored) = split(text).map_err(|what| ReleaseError::NotClearSigned { what })?;
        let signatures = openpgp::read_signatures(armored)
            .map_err(|source| ReleaseError::Signatures { source: Box::new(source) })?;
        let canonical = signed.join("\r\n");
        let (mut good, mut refusals) = (Vec::new(), Vec::new());
        for signature in &signatures {
            match openpgp::check(signature, canonical.as_bytes(), keyring, fresh.now) {
                Ok(signature) => good.push(signature),
                Err(refusal) => refusals.push(refusal),
            }
        }
        if good.is_empty() {
            return Err(ReleaseError::Untrusted { refusals });
        }
        let mut release = parse(&signed)?;
        release.signatures = good;
        release.check_suite(wanted)?;
        release.check_age(fresh)?;
        Ok(release)
    }

    /// An index file by its path below the suite's directory, such as `main/binary-amd64/Packages.xz`.
    pub fn file(&self, path: &str) -> Option<&Entry> {
        self.files.get(path)
    }

    fn check_suite(&self, wanted: &str) -> Result<(), ReleaseError> {
        // A mirror that serves an old suite, validly signed, under a new name.
        if self.codename == wanted || self.suite == wanted {
            return Ok(());
        }
        Err(ReleaseError::OtherSuite { codename: self.codename.clone(), wanted: wanted.to_string() })
    }

    fn check_age(&self, fresh: Freshness) -> Result<(), ReleaseError> {
        if self.date > fresh.now.saturating_add(fresh.ahead) {
            return Err(ReleaseError::Future { date: self.date, ahead: self.date - fresh.now });
        }
        match self.valid_until {
            Some(end) if fresh.now > end.saturating_add(fresh.expired) => {
                Err(ReleaseError::Expired { valid_until: end, since: fresh.now - end })
            }
            _ => Ok(()),
        }
    }
}

const BEGIN: &str = "-----BEGIN PGP SIGNED MESSAGE-----";
const MIDDLE: &str = "-----BEGIN PGP SIGNATURE-----";
const END: &str = "-----END PGP SIGNATURE-----";

/// Splits a clear-signed text into the lines that were signed and the armoured signatures. Strict where the
/// framework has been abused: nothing before, between or after, only `Hash` headers, every dash escaped. What is
/// read later is exactly what is returned here.
fn split(text: &str) -> Result<(Vec<&str>, &str), &'static str> {
    let mut rest = text;
    if next_line(&mut rest) != Some(BEGIN) {
        return Err("it does not begin with a signed message");
    }
    loop {
        match next_line(&mut rest) {
            Some("") => break,
            Some(header) if header.starts_with("Hash: ") => {}
            Some(_) => return Err("it has a header that is not signed"),
            None => return Err("it ends early"),
        }
    }
    let mut lines = Vec::new();
    let armored = loop {
        let before = rest;
        let Some(line) = next_line(&mut rest) else { return Err("it has no signature") };
        if line == MIDDLE {
            break before;
        }
        let line = match line.strip_prefix("- ") {
            Some(escaped) => escaped,
            None if line.starts_with('-') => return Err("it has a line with an unescaped dash"),
            None => line,
        };
        if line.contains('\r') {
            return Err("it has a stray carriage return");
        }
        // Trailing blanks are not signed (RFC 9580, 7.2), so they must not be seen either.
        lines.push(line.trim_end_matches([' ', '\t']));
    };
    let Some(end) = armored.find(END) else { return Err("its signature does not end") };
    let end = end + END.len();
    if !armored[end..].trim().is_empty() {
        return Err("something stands after its signature");
    }
    Ok((lines, &armored[..end]))
}

/// Takes a line without its end, `\n` or `\r\n`.
fn next_line<'a>(rest: &mut &'a str) -> Option<&'a str> {
    if rest.is_empty() {
        return None;
    }
    let (line, after) = rest.split_once('\n').unwrap_or((rest, ""));
    *rest = after;
    Some(line.strip_suffix('\r').unwrap_or(line))
}

fn parse(lines: &[&str]) -> Result<Release, ReleaseError> {
    let mut values: HashMap<&str, &str> = HashMap::new();
    let mut files = HashMap::new();
    let mut at = "";
    for line in lines {
        if let Some(item) = line.strip_prefix(' ') {
            if at == "SHA256" {
                let (path, entry) = file_line(item).ok_or(ReleaseError::Field { field: "SHA256" })?;
                files.insert(path.to_string(), entry);
            }
        } else if let Some((name, value)) = line.split_once(':') {
            at = name;
            values.entry(name).or_insert(value.trim());
        }
    }
    let text = |field: &'static str| values.get(field).copied().ok_or(ReleaseError::Field { field });
    let time = |field: &'static str| parse_date(text(field)?).ok_or(ReleaseError::Field { field });
    Ok(Release {
        suite: text("Suite")?.to_string(),
        codename: text("Codename")?.to_string(),
        date: time("Date")?,
        valid_until: if values.contains_key("Valid-Until") { Some(time("Valid-Until")?) } else { None },
        signatures: Vec::new(),
        files,
    })
}

fn file_line(item: &str) -> Option<(&str, Entry)> {
    let mut words = item.split_whitespace();
    let (sha256, size, path) = (words.next()?, words.next()?, words.next()?);
    let good = sha256.len() == 64 && sha256.bytes().all(|b| b.is_ascii_hexdigit());
    let entry = Entry { size: size.parse().ok()?, sha256: sha256.to_ascii_lowercase() };
    good.then_some((path, entry))
}

/// `Sat, 12 Sep 2026 07:55:41 UTC`, seconds since the epoch. The format fixes UTC.
fn parse_date(text: &str) -> Option<u64> {
    let utc = ["UTC", "GMT", "+0000"].iter().find_map(|zone| text.strip_suffix(zone))?;
    let civil = jiff::civil::DateTime::strptime("%a, %d %b %Y %H:%M:%S", utc.trim_end()).ok()?;
    let time = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_second();
    u64::try_from(time).ok()
}

struct Refusals<'a>(&'a [Refusal]);

impl fmt::Display for Refusals<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("there is none that can be read");
        }
        for (i, refusal) in self.0.iter().enumerate() {
            write!(f, "{}{refusal}", if i == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

struct Time(u64);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = i64::try_from(self.0).ok().and_then(|s| jiff::Timestamp::from_second(s).ok());
        match time {
            Some(time) => write!(f, "{}", time.strftime("%Y-%m-%d %H:%M UTC")),
            None => write!(f, "@{}", self.0),
        }
    }
}

struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            s if s < 2 * 3600 => write!(f, "{} min", s / 60),
            s if s < 2 * 86_400 => write!(f, "{} h", s / 3600),
            s => write!(f, "{} days", s / 86_400),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIGNATURE: &str = "-----BEGIN PGP SIGNATURE-----\n\nxyz\n-----END PGP SIGNATURE-----\n";

    fn message(body: &str) -> String {
        format!("{BEGIN}\nHash: SHA256\n\n{body}{SIGNATURE}")
    }

    #[test]
    fn splits_what_was_signed_from_the_rest() {
        let text = message("Origin: Debian \t\r\n- -dash\n\nSHA256:\n");
        let (lines, armored) = split(&text).unwrap();
        assert_eq!(lines, ["Origin: Debian", "-dash", "", "SHA256:"]);
        assert_eq!(armored, SIGNATURE.trim_end());
    }

    #[test]
    fn refuses_everything_outside_the_signed_part() {
        let good = message("Origin: Debian\n");
        assert!(split(&good).is_ok());
        for bad in [
            format!("Origin: Evil\n{good}"),
            format!("\n{good}"),
            format!("{good}Origin: Evil\n"),
            format!("{good}{good}"),
            good.replace("Hash: SHA256\n", "Hash: SHA256\nOrigin: Evil\n"),
            good.replace("Hash: SHA256\n", "Hash: SHA256\n \n"),
            good.replace("Origin: Debian\n", "-Origin: Debian\n"),
            good.replace("Origin: Debian\n", "Origin: Debian\rOrigin: Evil\n"),
            good.replace("-----END PGP SIGNATURE-----", ""),
            good.replace(MIDDLE, ""),
            format!("{BEGIN}\nHash: SHA256"),
            "<html>log in to the hotel's network</html>".to_string(),
            String::new(),
        ] {
            assert!(split(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn dates() {
        assert_eq!(parse_date("Thu, 01 Jan 1970 00:00:00 UTC"), Some(0));
        assert_eq!(parse_date("Sat, 12 Sep 2026 07:55:41 UTC"), Some(1_789_199_741));
        for bad in [
            "",
            "Sat, 12 Sep 2026 07:55:41 CEST",
            "Sat, 32 Sep 2026 07:55:41 UTC",
            "2026-09-12",
            "Mon, 01 Jan 1900 00:00:00 UTC",
        ] {
            assert_eq!(parse_date(bad), None, "{bad}");
        }
        assert_eq!(Time(1_789_199_741).to_string(), "2026-09-12 07:55 UTC");
        assert_eq!(Span(90 * 60).to_string(), "90 min");
        assert_eq!(Span(15 * 86_400).to_string(), "15 days");
    }

    #[test]
    fn only_the_sha256_section_is_read() {
        let hash = "7e3248d03a84dcdda88c567aa8c4038f2e7795d2dd167b112c56f8901b6f513f";
        let sha256 = format!(" {hash} 12 main/binary-amd64/Packages.xz");
        let lines = [
            "Suite: stable",
            "Codename: trixie",
            "Date: Sat, 12 Sep 2026 07:55:41 UTC",
            "MD5Sum:",
            " d41d8cd98f00b204e9800998ecf8427e 99 main/binary-amd64/Packages.xz",
            "SHA256:",
            &sha256,
        ];
        let release = parse(&lines).unwrap();
        assert_eq!(
            release.file("main/binary-amd64/Packages.xz"),
            Some(&Entry { size: 12, sha256: hash.into() })
        );
        assert_eq!(release.valid_until, None);
        assert!(matches!(parse(&lines[1..]), Err(ReleaseError::Field { field: "Suite" })));
        let short = [&lines[..6], &[" abc 12 main/x"]].concat();
        assert!(matches!(parse(&short), Err(ReleaseError::Field { field: "SHA256" })));
    }
}
