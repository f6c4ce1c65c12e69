//! One file with a known size and digest from a mirror into the cache: resumed, checked, renamed into place.
//!
//! Invariant: a file under its final name has the digest it was asked for with. Bytes that are not yet known to be
//! right lie in `NAME.part`, which only the process that holds its lock may write, rename or remove, and which is
//! taken up again by the next run.

use crate::http::{Answer, Ask, Client, HttpError, Marks};
use sha2::{Digest, Sha256};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use thiserror::Error;

/// A download that failed.
#[derive(Debug, Error)]
pub enum DownloadError {
    /// The mirror did not give the file.
    #[error(transparent)]
    Http(#[from] HttpError),
    /// The mirror gave other bytes than its signed index promises.
    #[error("{host} sent something else than {url} should be (SHA-256 {expected}, got {got})")]
    WrongDigest {
        /// The host.
        host: String,
        /// The address.
        url: String,
        /// SHA-256 that was expected, hexadecimal.
        expected: String,
        /// SHA-256 of what came.
        got: String,
    },
    /// The mirror gave more or fewer bytes than its signed index promises.
    #[error("{host} sent {got} bytes for {url}, which should have {expected}")]
    WrongSize {
        /// The host.
        host: String,
        /// The address.
        url: String,
        /// Bytes that were expected.
        expected: u64,
        /// Bytes that came; one more than expected stands for "too many".
        got: u64,
    },
    /// The cache cannot be written.
    #[error("{} cannot be written", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk with the cache is full, or a quota is used up.
    #[error("no space left for {}", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// This user may not write to the cache.
    #[error("no permission to write {}", path.display())]
    NoPermission {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process held the file for too long without finishing it.
    #[error("another process has been downloading {} for {minutes} min", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// How long was waited.
        minutes: u64,
    },
    /// The user asked to stop.
    #[error("stopped while {url} was downloaded")]
    Cancelled {
        /// The address.
        url: String,
    },
}

impl DownloadError {
    pub(crate) fn io(path: &Path, source: io::Error) -> DownloadError {
        let path = path.to_path_buf();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                DownloadError::DiskFull { path, source }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
                DownloadError::NoPermission { path, source }
            }
            _ => DownloadError::Cache { path, source },
        }
    }

    /// What to try.
    pub fn hint(&self) -> &'static str {
        match self {
            DownloadError::Http(HttpError::NotFound { .. }) => {
                "the archive drops superseded packages; `bramble lock --update` locks their successors"
            }
            DownloadError::Http(HttpError::Refused { .. } | HttpError::Status { .. }) => {
                "check the mirror's address, the proxy settings, or name another mirror"
            }
            DownloadError::Http(_) => {
                "check the network or name another mirror; what has arrived is kept, run the same command again"
            }
            DownloadError::WrongDigest { .. } | DownloadError::WrongSize { .. } => {
                "the mirror or a proxy alters files, or is half way through an update: use another mirror"
            }
            DownloadError::DiskFull { .. } => {
                "make room, or point XDG_CACHE_HOME at a larger disk; what has arrived is kept"
            }
            DownloadError::NoPermission { .. } | DownloadError::Cache { .. } => {
                "the cache must be writable for you: check its owner, or set XDG_CACHE_HOME"
            }
            DownloadError::Busy { .. } => "end the other process, then run the same command again",
            DownloadError::Cancelled { .. } => "run the same command again: it goes on where it stopped",
        }
    }

    /// Whether another mirror may do better.
    pub(crate) fn is_the_mirrors(&self) -> bool {
        matches!(
            self,
            DownloadError::Http(_) | DownloadError::WrongDigest { .. } | DownloadError::WrongSize { .. }
        )
    }
}

/// What a file must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) size: u64,
    /// Lower-case hexadecimal.
    pub(crate) sha256: &'a str,
}

/// Asked between pieces whether to stop.
pub(crate) type Cancel<'a> = &'a dyn Fn() -> bool;

/// Reading and writing in pieces of this size keeps the count of system calls low and a cancel quick.
const PIECE: usize = 128 * 1024;

/// How long another process may hold a file; it gives up by itself on a mirror that stalls.
const BUSY_LIMIT: Duration = Duration::from_secs(600);

/// Brings a file into the cache. `on_bytes` hears how the count of good bytes moves; it goes down when a start was
/// in vain. Does nothing if a file of that size and digest is there.
pub(crate) fn download(
    client: &Client,
    url: &str,
    target: &Path,
    expected: Expected<'_>,
    cancel: Cancel<'_>,
    on_bytes: &dyn Fn(i64),
) -> Result<(), DownloadError> {
    if is_good(target, expected)? {
        on_bytes(signed(expected.size));
        return Ok(());
    }
    let part = part_of(target);
    let mut file = lock_part(&part, url, cancel)?;
    // The process that held the lock before us may have finished the file; then the part is one that we made.
    if is_good(target, expected)? {
        std::fs::remove_file(&part).map_err(|source| DownloadError::io(&part, source))?;
        on_bytes(signed(expected.size));
        return Ok(());
    }
    let mut job = Job { client, url, part: &part, expected, cancel, on_bytes, counted: 0 };
    if let Err(error) = job.fill(&mut file) {
        // The next mirror, or the next run, counts what is here anew.
        job.count(0);
        return Err(error);
    }
    // The name must not appear before the bytes: a power cut would leave a good name on an empty file.
    file.sync_data().map_err(|source| DownloadError::io(&part, source))?;
    std::fs::rename(&part, target).map_err(|source| DownloadError::io(target, source))
}

pub(crate) fn part_of(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".part");
    PathBuf::from(name)
}

/// Whether the target is there with the right size and digest. A damaged one is removed.
pub(crate) fn is_good(target: &Path, expected: Expected<'_>) -> Result<bool, DownloadError> {
    let mut file = match File::open(target) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(DownloadError::io(target, error)),
    };
    let length = file.metadata().map_err(|e| DownloadError::io(target, e))?.len();
    if length == expected.size {
        let mut hasher = Sha256::new();
        hash_prefix(&mut file, length, &mut hasher).map_err(|e| DownloadError::io(target, e))?;
        if hex::encode(hasher.finalize()) == expected.sha256 {
            return Ok(true);
        }
    }
    // A cache that is wrong is a cache that is empty.
    match std::fs::remove_file(target) {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DownloadError::io(target, error)),
    }
}

fn hash_prefix(file: &mut File, length: u64, hasher: &mut Sha256) -> io::Result<()> {
    file.seek(SeekFrom::Start(0))?;
    let mut left = length;
    let mut buffer = vec![0; PIECE];
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(PIECE).min(PIECE);
        let got = file.read(&mut buffer[..want])?;
        if got == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        hasher.update(&buffer[..got]);
        left -= got as u64;
    }
    Ok(())
}

fn lock_part(part: &Path, url: &str, cancel: Cancel<'_>) -> Result<File, DownloadError> {
    let fail = |source| DownloadError::io(part, source);
    let begin = Instant::now();
    loop {
        let file = OpenOptions::new()
            .create(true)
            .read(true)
            .write(true)
            .truncate(false)
            .open(part)
            .map_err(fail)?;
        match file.try_lock() {
            // Between our opening and our locking the other process may have given the file its final name or
            // removed it: then what we hold is no longer the part, and writing to it could spoil a finished file.
            Ok(()) if is_still(&file, part).map_err(fail)? => return Ok(file),
            Ok(()) => continue,
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        if cancel() {
            return Err(DownloadError::Cancelled { url: url.to_string() });
        }
        if begin.elapsed() > BUSY_LIMIT {
            return Err(DownloadError::Busy { path: part.to_path_buf(), minutes: BUSY_LIMIT.as_secs() / 60 });
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(unix)]
fn is_still(file: &File, path: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let held = file.metadata()?;
    match std::fs::metadata(path) {
        Ok(named) => Ok((held.dev(), held.ino()) == (named.dev(), named.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Elsewhere an open file cannot be renamed away under us.
#[cfg(not(unix))]
fn is_still(_: &File, _: &Path) -> io::Result<bool> {
    Ok(true)
}

struct Job<'a> {
    client: &'a Client,
    url: &'a str,
    part: &'a Path,
    expected: Expected<'a>,
    cancel: Cancel<'a>,
    on_bytes: &'a dyn Fn(i64),
    /// What `on_bytes` was told so far.
    counted: u64,
}

/// How one attempt ended, when it did not fail.
enum Got {
    /// The file is whole and right.
    All,
    /// It has the right size but not the right bytes.
    Other { digest: String },
    /// The server has no bytes after those that are here.
    NoMore,
}

impl Job<'_> {
    /// Attempts until the file is right or the error is final.
    fn fill(&mut self, file: &mut File) -> Result<(), DownloadError> {
        let patience = self.client.patience();
        let mut fresh = false;
        let mut failures = 0;
        loop {
            let before = self.length(file)?;
            fresh |= before == 0;
            let error = match self.attempt(file) {
                Ok(Got::All) => return Ok(()),
                // The bytes of an earlier run may be to blame: one start from nothing decides.
                Ok(Got::Other { .. } | Got::NoMore) if !fresh => {
                    self.empty(file)?;
                    continue;
                }
                Ok(Got::Other { digest }) => {
                    self.empty(file)?;
                    return Err(DownloadError::WrongDigest {
                        host: crate::http::host_of(self.url).to_string(),
                        url: self.url.to_string(),
                        expected: self.expected.sha256.to_string(),
                        got: digest,
                    });
                }
                Ok(Got::NoMore) => self.wrong_size(self.length(file)?),
                Err(error) => error,
            };
            match error {
                DownloadError::Http(ref http) if http.is_passing() => {
                    // An attempt that brought more than a trickle does not count against the mirror: a long file
                    // over a line that drops every minute arrives in the end.
                    let brought = self.length(file)?.saturating_sub(before);
                    failures = if brought >= patience.trickle() { 1 } else { failures + 1 };
                    if failures >= patience.attempts {
                        return Err(error);
                    }
                    self.pause(patience.backoff * 2_u32.saturating_pow(failures - 1))?;
                }
                DownloadError::WrongSize { .. } => {
                    self.empty(file)?;
                    return Err(error);
                }
                other => return Err(other),
            }
        }
    }

    /// Asks for what is missing and appends it.
    fn attempt(&mut self, file: &mut File) -> Result<Got, DownloadError> {
        self.check_cancel()?;
        let mut have = self.length(file)?;
        if have > self.expected.size {
            self.empty(file)?;
            have = 0;
        }
        let mut hasher = Sha256::new();
        hash_prefix(file, have, &mut hasher).map_err(|e| self.io(e))?;
        self.count(have);
        if have < self.expected.size {
            let ask = Ask { from: have, unless: None };
            let (start, mut body) = match self.client.get(self.url, ask)? {
                Answer::Body { start, body, .. } => (start, body),
                Answer::OutOfRange | Answer::Unchanged => return Ok(Got::NoMore),
            };
            if start != have {
                // The server does not do ranges and begins anew.
                self.empty(file)?;
                hasher = Sha256::new();
                have = 0;
            }
            have = self.receive(file, &mut body, &mut hasher, have)?;
        }
        if have != self.expected.size {
            return Err(self.wrong_size(have));
        }
        let digest = hex::encode(hasher.finalize());
        Ok(if digest == self.expected.sha256 { Got::All } else { Got::Other { digest } })
    }

    fn receive(
        &mut self,
        file: &mut File,
        body: &mut crate::http::Body,
        hasher: &mut Sha256,
        mut have: u64,
    ) -> Result<u64, DownloadError> {
        let mut buffer = vec![0; PIECE];
        let mut pace = Pace::new(self.client.patience().stall, self.client.patience().slowest);
        loop {
            self.check_cancel()?;
            let got = body.read(&mut buffer)?;
            if got == 0 {
                return Ok(have);
            }
            have += got as u64;
            if have > self.expected.size {
                return Err(self.wrong_size(have));
            }
            file.write_all(&buffer[..got]).map_err(|e| self.io(e))?;
            hasher.update(&buffer[..got]);
            self.count(have);
            if let Some(seconds) = pace.is_too_slow(got as u64, Instant::now()) {
                let host = crate::http::host_of(self.url).to_string();
                return Err(HttpError::Stalled { host, url: self.url.to_string(), seconds }.into());
            }
        }
    }

    /// Tells the difference to what was told before.
    fn count(&mut self, have: u64) {
        (self.on_bytes)(signed(have) - signed(self.counted));
        self.counted = have;
    }

    fn empty(&mut self, file: &mut File) -> Result<(), DownloadError> {
        file.set_len(0).and_then(|()| file.seek(SeekFrom::Start(0))).map_err(|e| self.io(e))?;
        self.count(0);
        Ok(())
    }

    fn length(&self, file: &File) -> Result<u64, DownloadError> {
        Ok(file.metadata().map_err(|e| self.io(e))?.len())
    }

    fn io(&self, source: io::Error) -> DownloadError {
        DownloadError::io(self.part, source)
    }

    fn wrong_size(&self, got: u64) -> DownloadError {
        DownloadError::WrongSize {
            host: crate::http::host_of(self.url).to_string(),
            url: self.url.to_string(),
            expected: self.expected.size,
            got,
        }
    }

    fn check_cancel(&self) -> Result<(), DownloadError> {
        if (self.cancel)() {
            return Err(DownloadError::Cancelled { url: self.url.to_string() });
        }
        Ok(())
    }

    /// Waits, but not longer than it takes to notice a cancel.
    fn pause(&self, time: Duration) -> Result<(), DownloadError> {
        let end = Instant::now() + time;
        loop {
            self.check_cancel()?;
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// Notices a mirror that sends, but so little that the file will never be whole.
struct Pace {
    window: Duration,
    slowest: u64,
    begin: Option<Instant>,
    bytes: u64,
}

impl Pace {
    fn new(window: Duration, slowest: u64) -> Pace {
        Pace { window, slowest, begin: None, bytes: 0 }
    }

    /// Takes note of bytes received; gives the length of a window in which too few came, in seconds.
    fn is_too_slow(&mut self, bytes: u64, now: Instant) -> Option<u64> {
        let begin = *self.begin.get_or_insert(now);
        self.bytes += bytes;
        let passed = now.saturating_duration_since(begin);
        if passed < self.window {
            return None;
        }
        let slow = u128::from(self.bytes) * 1000 < u128::from(self.slowest) * passed.as_millis();
        self.begin = Some(now);
        self.bytes = 0;
        slow.then_some(passed.as_secs().max(1))
    }
}

fn signed(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Reads a small file whose digest nobody knows beforehand, such as a signed release file.
pub(crate) fn get_small(
    client: &Client,
    url: &str,
    limit: u64,
    unless: Option<&Marks>,
    cancel: Cancel<'_>,
) -> Result<Small, DownloadError> {
    let patience = client.patience();
    let mut failures = 0;
    loop {
        let error = match get_small_once(client, url, limit, unless, cancel) {
            Err(DownloadError::Http(http)) if http.is_passing() => http,
            other => return other,
        };
        failures += 1;
        if failures >= patience.attempts {
            return Err(error.into());
        }
        std::thread::sleep(patience.backoff * 2_u32.saturating_pow(failures - 1));
    }
}

/// What `get_small` gives.
pub(crate) enum Small {
    /// The file.
    New { bytes: Vec<u8>, marks: Marks },
    /// It is as it was.
    Unchanged,
}

fn get_small_once(
    client: &Client,
    url: &str,
    limit: u64,
    unless: Option<&Marks>,
    cancel: Cancel<'_>,
) -> Result<Small, DownloadError> {
    let (marks, mut body) = match client.get(url, Ask { from: 0, unless })? {
        Answer::Body { marks, body, .. } => (marks, body),
        Answer::Unchanged | Answer::OutOfRange => return Ok(Small::Unchanged),
    };
    let mut bytes = Vec::new();
    let mut buffer = vec![0; PIECE];
    loop {
        if cancel() {
            return Err(DownloadError::Cancelled { url: url.to_string() });
        }
        let got = body.read(&mut buffer)?;
        if got == 0 {
            return Ok(Small::New { bytes, marks });
        }
        bytes.extend_from_slice(&buffer[..got]);
        if bytes.len() as u64 > limit {
            return Err(DownloadError::WrongSize {
                host: crate::http::host_of(url).to_string(),
                url: url.to_string(),
                expected: limit,
                got: bytes.len() as u64,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trickle_is_noticed_and_a_steady_line_is_not() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut pace = Pace::new(Duration::from_secs(10), 100);
        assert_eq!(pace.is_too_slow(50, at(0)), None);
        assert_eq!(pace.is_too_slow(50, at(5)), None);
        assert_eq!(pace.is_too_slow(50, at(11)), Some(11));
        assert_eq!(pace.is_too_slow(2000, at(12)), None);
        assert_eq!(pace.is_too_slow(2000, at(22)), None);
    }

    #[test]
    fn system_errors_by_kind() {
        let path = Path::new("/cache/x");
        let kind = |kind: io::ErrorKind| DownloadError::io(path, kind.into());
        assert!(matches!(kind(io::ErrorKind::StorageFull), DownloadError::DiskFull { .. }));
        assert!(matches!(kind(io::ErrorKind::PermissionDenied), DownloadError::NoPermission { .. }));
        assert!(matches!(kind(io::ErrorKind::ReadOnlyFilesystem), DownloadError::NoPermission { .. }));
        assert!(matches!(kind(io::ErrorKind::NotADirectory), DownloadError::Cache { .. }));
    }
}
