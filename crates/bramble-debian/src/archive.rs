//! From mirrors to an index: signed releases, then their package lists, by digest, kept in the cache.

use crate::download::{self, Cancel, DownloadError, Expected, Small};
use crate::fetch::{Cache, Progress};
use crate::http::{Client, HttpError, Marks, Patience};
use crate::index::{IndexTexts, PackagesText};
use crate::mirror::Mirrors;
use crate::openpgp::Keyring;
use crate::release::{Entry, Freshness, Release, ReleaseError};
use bramble_api::names::Arch;
use sha2::{Digest, Sha256};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use thiserror::Error;

/// Larger than any `InRelease` (trixie's has 140 kB), smaller than what would hurt.
const RELEASE_LIMIT: u64 = 8 * 1024 * 1024;

/// Larger than any unpacked package list (trixie main has 55 MB).
const LIST_LIMIT: u64 = 512 * 1024 * 1024;

/// Where packages are looked for.
#[derive(Clone, Debug)]
pub struct Archive {
    /// The mirrors.
    pub mirrors: Mirrors,
    /// Suites, such as `trixie-security`. Between equal versions the earlier suite wins.
    pub suites: Vec<String>,
    /// Components, such as `non-free-firmware`.
    pub components: Vec<String>,
    /// Who may sign.
    pub keyring: Keyring,
    /// How old a release may be.
    pub freshness: Freshness,
    /// Limits on waiting.
    pub patience: Patience,
}

impl Archive {
    /// The suites of a Debian release with its updates, security updates and backports, `main` and
    /// `non-free-firmware`.
    pub fn debian(release: &str, mirrors: Mirrors, keyring: Keyring, freshness: Freshness) -> Archive {
        Archive {
            mirrors,
            suites: ["", "-updates", "-security", "-backports"]
                .map(|tail| format!("{release}{tail}"))
                .to_vec(),
            components: vec!["main".to_string(), "non-free-firmware".to_string()],
            keyring,
            freshness,
            patience: Patience::default(),
        }
    }
}

/// An index that could not be loaded.
#[derive(Debug, Error)]
pub enum IndexError {
    /// A release file or package list was not had.
    #[error("the package index of {suite} was not fetched")]
    Download {
        /// Its suite.
        suite: String,
        /// Why.
        #[source]
        source: DownloadError,
    },
    /// A release file is not to be trusted or too old.
    #[error("the release file {url} is refused")]
    Release {
        /// Its address.
        url: String,
        /// Why.
        #[source]
        source: ReleaseError,
    },
    /// The suite has no such component or architecture.
    #[error("the suite {suite} has no {path}")]
    NoSuchList {
        /// The suite.
        suite: String,
        /// The list, below the suite's directory.
        path: String,
    },
    /// A package list, though its digest is right, cannot be unpacked.
    #[error("the package list {path} of {suite} cannot be unpacked")]
    Damaged {
        /// The suite.
        suite: String,
        /// The list, below the suite's directory.
        path: String,
        /// What is wrong with it.
        #[source]
        source: std::io::Error,
    },
    /// The user asked to stop.
    #[error("stopped; what has arrived is kept")]
    Cancelled,
}

impl IndexError {
    /// What to try.
    pub fn hint(&self) -> &'static str {
        match self {
            // "Superseded packages" is the wrong tale for an index: there it means a wrong address.
            IndexError::Download { source: DownloadError::Http(HttpError::NotFound { .. }), .. } => {
                "the mirror's address is wrong or it lacks this suite: check it or use another mirror"
            }
            IndexError::Download { source, .. } => source.hint(),
            IndexError::Release { source, .. } => source.hint(),
            IndexError::NoSuchList { .. } => "check the release and components in the file",
            IndexError::Damaged { .. } => "use another mirror",
            IndexError::Cancelled => "run the same command again: it goes on where it stopped",
        }
    }

    fn of_download(suite: &str, source: DownloadError) -> IndexError {
        match source {
            DownloadError::Cancelled { .. } => IndexError::Cancelled,
            source => IndexError::Download { suite: suite.to_string(), source },
        }
    }
}

/// Loads the index of one architecture: asks each suite for its release, checks it, and brings the package lists
/// that the cache does not have. [`crate::index::Index::new`] reads the result.
///
/// # Errors
/// A mirror that fails or is not to be trusted; a cache that cannot be written.
pub fn load(
    archive: &Archive,
    arch: Arch,
    cache: &Cache,
    progress: &(dyn Fn(Progress<'_>) + Sync),
    cancel: &AtomicBool,
) -> Result<IndexTexts, IndexError> {
    let client = Client::new(archive.patience);
    let halt = || cancel.load(Ordering::Relaxed);
    let dirs = Dirs::make(cache)?;
    let releases = in_parallel(&archive.suites, |suite| release(archive, suite, &client, &dirs, &halt))?;
    let mut lists = Vec::new();
    for (suite, release) in archive.suites.iter().zip(&releases) {
        for component in &archive.components {
            lists.push(List::find(archive, suite, component, arch, release)?);
        }
    }
    let total = lists.iter().map(|list| list.packed.size).sum();
    let done = AtomicI64::new(0);
    let texts = in_parallel(&lists, |list| {
        let on_bytes = |change: i64| {
            let now = done.fetch_add(change, Ordering::Relaxed) + change;
            progress(Progress {
                done_bytes: u64::try_from(now).unwrap_or(0),
                total_bytes: total,
                file: &list.path,
            });
        };
        let text = list.load(&client, &dirs, &halt, &on_bytes)?;
        Ok(PackagesText { suite: list.suite.to_string(), component: list.component.to_string(), text })
    })?;
    Ok(IndexTexts { arch, date: releases.iter().map(|r| r.date).max().unwrap_or(0), texts })
}

/// Runs one job an item at the same time; gives the results in the items' order, or the first error in that order.
fn in_parallel<T: Sync, R: Send>(
    items: &[T],
    job: impl Fn(&T) -> Result<R, IndexError> + Sync,
) -> Result<Vec<R>, IndexError> {
    let job = &job;
    std::thread::scope(|scope| {
        let threads: Vec<_> = items.iter().map(|item| scope.spawn(move || job(item))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

struct Dirs {
    releases: PathBuf,
    lists: PathBuf,
}

impl Dirs {
    fn make(cache: &Cache) -> Result<Dirs, IndexError> {
        let make =
            |name| cache.dir(name).map_err(|source| IndexError::Download { suite: name.to_string(), source });
        Ok(Dirs { releases: make("releases")?, lists: make("lists")? })
    }
}

/// Gets and checks one release file. The last one is kept with the server's marks, so that an unchanged one is not
/// sent again; it is checked again all the same.
fn release(
    archive: &Archive,
    suite: &str,
    client: &Client,
    dirs: &Dirs,
    halt: Cancel<'_>,
) -> Result<Release, IndexError> {
    let url = format!("{}/dists/{suite}/InRelease", archive.mirrors.of_suite(suite));
    let kept = dirs.releases.join(hex::encode(Sha256::digest(url.as_bytes())));
    let verify = |bytes: &[u8]| {
        Release::verify(bytes, suite, &archive.keyring, archive.freshness)
            .map_err(|source| IndexError::Release { url: url.clone(), source })
    };
    // A kept file that is no longer good is not offered to the server: a full answer is wanted then.
    let old = read_kept(&kept).and_then(|(marks, bytes)| Some((marks, verify(&bytes).ok()?)));
    let unless = old.as_ref().map(|(marks, _)| marks).filter(|marks| !marks.is_empty());
    let answer = download::get_small(client, &url, RELEASE_LIMIT, unless, halt)
        .map_err(|source| IndexError::of_download(suite, source))?;
    match (answer, old) {
        (Small::New { bytes, marks }, old) => {
            let release = verify(&bytes)?;
            if let Some((_, old)) = old
                && old.date > release.date
            {
                // A mirror behind a round-robin name may lag, and an attacker may replay: never go back in time.
                return Ok(old);
            }
            write_kept(&kept, &marks, &bytes)
                .map_err(|source| IndexError::Download { suite: suite.to_string(), source })?;
            Ok(release)
        }
        (Small::Unchanged, Some((_, release))) => Ok(release),
        // Nothing was offered, so that "unchanged" is no answer.
        (Small::Unchanged, None) => Err(IndexError::Release {
            url: url.clone(),
            source: ReleaseError::NotClearSigned { what: "the mirror sent nothing" },
        }),
    }
}

/// The kept file begins with two lines: ETag and Last-Modified, each possibly empty.
fn read_kept(path: &Path) -> Option<(Marks, Vec<u8>)> {
    let bytes = std::fs::read(path).ok()?;
    let mut parts = bytes.splitn(3, |b| *b == b'\n');
    let mut mark = || -> Option<Option<String>> {
        let line = std::str::from_utf8(parts.next()?).ok()?;
        Some((!line.is_empty()).then(|| line.to_string()))
    };
    let marks = Marks { etag: mark()?, modified: mark()? };
    Some((marks, parts.next()?.to_vec()))
}

fn write_kept(path: &Path, marks: &Marks, bytes: &[u8]) -> Result<(), DownloadError> {
    let line = |mark: &Option<String>| mark.as_deref().unwrap_or_default().replace('\n', "");
    let mut all = format!("{}\n{}\n", line(&marks.etag), line(&marks.modified)).into_bytes();
    all.extend_from_slice(bytes);
    place(path, &all)
}

/// Writes a file under a name of its own, then renames it: two processes may do so at once.
fn place(path: &Path, bytes: &[u8]) -> Result<(), DownloadError> {
    let fail = |source| DownloadError::io(path, source);
    let parent = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(parent).map_err(fail)?;
    file.write_all(bytes).map_err(fail)?;
    file.as_file().sync_data().map_err(fail)?;
    file.persist(path).map_err(|error| fail(error.error))?;
    Ok(())
}

/// One package list.
struct List<'a> {
    suite: &'a str,
    component: &'a str,
    /// `SUITE/COMPONENT/binary-ARCH/Packages.xz`, for people.
    path: String,
    /// Address of the suite's directory of this list.
    base: String,
    packed: &'a Entry,
    plain: &'a Entry,
}

impl<'a> List<'a> {
    fn find(
        archive: &Archive,
        suite: &'a str,
        component: &'a str,
        arch: Arch,
        release: &'a Release,
    ) -> Result<List<'a>, IndexError> {
        let dir = format!("{component}/binary-{}", arch.debian());
        let entry = |name: &str| {
            let path = format!("{dir}/{name}");
            release
                .file(&path)
                .filter(|entry| entry.size <= LIST_LIMIT)
                .ok_or(IndexError::NoSuchList { suite: suite.to_string(), path })
        };
        Ok(List {
            suite,
            component,
            path: format!("{suite}/{dir}/Packages.xz"),
            base: format!("{}/dists/{suite}/{dir}", archive.mirrors.of_suite(suite)),
            packed: entry("Packages.xz")?,
            plain: entry("Packages")?,
        })
    }

    /// The text from the cache, else from the mirror.
    fn load(
        &self,
        client: &Client,
        dirs: &Dirs,
        halt: Cancel<'_>,
        on_bytes: &dyn Fn(i64),
    ) -> Result<String, IndexError> {
        let fail = |source| IndexError::of_download(self.suite, source);
        let kept = dirs.lists.join(&self.plain.sha256);
        if let Some(text) = self.read_kept(&kept) {
            on_bytes(i64::try_from(self.packed.size).unwrap_or(i64::MAX));
            return Ok(text);
        }
        let packed = dirs.lists.join(format!("{}.xz", self.packed.sha256));
        let expected = Expected { size: self.packed.size, sha256: &self.packed.sha256 };
        // By digest the list stays the one that was signed, even if the mirror is updated meanwhile.
        let by_hash = format!("{}/by-hash/SHA256/{}", self.base, self.packed.sha256);
        match download::download(client, &by_hash, &packed, expected, halt, on_bytes) {
            Err(DownloadError::Http(HttpError::NotFound { .. })) => {
                // Some mirrors and snapshots leave the by-hash directories out.
                let by_name = format!("{}/Packages.xz", self.base);
                download::download(client, &by_name, &packed, expected, halt, on_bytes).map_err(fail)?;
            }
            other => other.map_err(fail)?,
        }
        let text = self.unpack(&packed)?;
        place(&kept, text.as_bytes()).map_err(fail)?;
        // The text is kept; a leftover of its packed form only takes room.
        let _ = std::fs::remove_file(&packed);
        Ok(text)
    }

    fn read_kept(&self, path: &Path) -> Option<String> {
        let bytes = std::fs::read(path).ok()?;
        let good = hex::encode(Sha256::digest(&bytes)) == self.plain.sha256;
        if good { String::from_utf8(bytes).ok() } else { None }
    }

    fn unpack(&self, packed: &Path) -> Result<String, IndexError> {
        let damaged =
            |source| IndexError::Damaged { suite: self.suite.to_string(), path: self.path.clone(), source };
        let file = std::fs::File::open(packed).map_err(damaged)?;
        let mut bytes = Vec::with_capacity(usize::try_from(self.plain.size).unwrap_or(0));
        // One byte more than promised is enough to see that it is too long.
        liblzma::read::XzDecoder::new(file)
            .take(self.plain.size + 1)
            .read_to_end(&mut bytes)
            .map_err(damaged)?;
        let wrong = |what| damaged(std::io::Error::new(std::io::ErrorKind::InvalidData, what));
        if bytes.len() as u64 != self.plain.size || hex::encode(Sha256::digest(&bytes)) != self.plain.sha256 {
            return Err(wrong("its content is not what the release file promises"));
        }
        String::from_utf8(bytes).map_err(|_| wrong("it is not UTF-8"))
    }
}
