//! The packages of a lock into the cache: in parallel, resumed, each checked against the lock.

use crate::download::{self, Cancel, DownloadError, Expected};
use crate::http::{Client, HttpError, Patience};
use crate::mirror::Mirrors;
use bramble_api::lock::LockedPackage;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use thiserror::Error;

/// Where things lie in a cache directory. Everything below it can be deleted at any time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    root: PathBuf,
}

impl Cache {
    /// A cache below `root`, such as `~/.cache/bramble`.
    pub fn new(root: impl Into<PathBuf>) -> Cache {
        Cache { root: root.into() }
    }

    /// The file of a package, `debs/SHA256.deb`, whether it is there or not.
    pub fn deb(&self, package: &LockedPackage) -> PathBuf {
        self.root.join("debs").join(format!("{}.deb", package.sha256))
    }

    pub(crate) fn dir(&self, name: &str) -> Result<PathBuf, DownloadError> {
        let path = self.root.join(name);
        std::fs::create_dir_all(&path).map_err(|source| DownloadError::io(&path, source))?;
        Ok(path)
    }
}

/// How far a download is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress<'a> {
    /// Bytes that are here, those of earlier runs included.
    pub done_bytes: u64,
    /// Bytes in all.
    pub total_bytes: u64,
    /// What moved last: a package's name, or an index file.
    pub file: &'a str,
}

/// Settings of a fetch.
#[derive(Clone, Debug)]
pub struct FetchOptions {
    /// Connections at once.
    pub threads: usize,
    /// Limits on waiting.
    pub patience: Patience,
    /// Where to look for a file that the first mirror does not have or does not give, in order.
    pub fallbacks: Vec<Mirrors>,
}

impl Default for FetchOptions {
    fn default() -> Self {
        // Most packages are small, so that round trips count: twelve connections fill a fast line, and the
        // archive's operators ask for no more than that from one user.
        FetchOptions { threads: 12, patience: Patience::default(), fallbacks: Vec::new() }
    }
}

/// Packages that could not be fetched.
#[derive(Debug, Error)]
pub enum FetchError {
    /// A package could not be brought.
    #[error("the package {name} {version} was not fetched")]
    Package {
        /// Its name.
        name: String,
        /// Its version.
        version: String,
        /// Why.
        #[source]
        source: Box<DownloadError>,
    },
    /// No mirror that was asked has the file any more.
    #[error("{name} {version} is no longer on {host}: the archive drops superseded packages")]
    Gone {
        /// The package.
        name: String,
        /// Its version.
        version: String,
        /// The mirror asked last.
        host: String,
        /// The address asked last.
        url: String,
    },
    /// The cache directory cannot be made.
    #[error("the cache cannot be used")]
    Cache {
        /// Why.
        #[source]
        source: DownloadError,
    },
    /// The lock has a digest that is none, which would become a file name.
    #[error("the lock has no usable SHA-256 for {name} {version}")]
    BadLock {
        /// The package.
        name: String,
        /// Its version.
        version: String,
    },
    /// The user asked to stop.
    #[error("stopped; what has arrived is kept")]
    Cancelled,
}

impl FetchError {
    /// What to try.
    pub fn hint(&self) -> &'static str {
        match self {
            FetchError::Gone { .. } => "`bramble lock --update` locks the packages that the archive has now",
            FetchError::Package { source, .. } => source.hint(),
            FetchError::Cache { source } => source.hint(),
            FetchError::BadLock { .. } => "restore bramble.lock from git, or run `bramble lock --update`",
            FetchError::Cancelled => "run the same command again: it goes on where it stopped",
        }
    }
}

/// Brings every package into the cache and checks those that are there. Gives their files in the order given.
///
/// `progress` is called from several threads, for every piece that arrives. Two processes may fetch into one cache.
///
/// # Errors
/// The first package that cannot be had, by the order given. What has arrived stays for the next run.
pub fn fetch(
    packages: &[LockedPackage],
    mirrors: &Mirrors,
    cache: &Cache,
    options: &FetchOptions,
    progress: &(dyn Fn(Progress<'_>) + Sync),
    cancel: &AtomicBool,
) -> Result<Vec<PathBuf>, FetchError> {
    for package in packages {
        // What a user edits can be anything; it is about to become a path.
        let digest = &package.sha256;
        if digest.len() != 64 || !digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(FetchError::BadLock { name: package.name.clone(), version: package.version.clone() });
        }
    }
    cache.dir("debs").map_err(|source| FetchError::Cache { source })?;
    let client = Client::new(options.patience);
    // The largest first: a kernel begun last would leave all other connections idle.
    let mut order: Vec<usize> = (0..packages.len()).collect();
    order.sort_by_key(|i| std::cmp::Reverse(packages[*i].size));
    let total = packages.iter().map(|p| p.size).sum();
    let done = AtomicI64::new(0);
    let next = AtomicUsize::new(0);
    let stop = AtomicBool::new(false);
    let failures: Mutex<Vec<(usize, FetchError)>> = Mutex::new(Vec::new());
    let sources: Vec<&Mirrors> = std::iter::once(mirrors).chain(&options.fallbacks).collect();

    std::thread::scope(|scope| {
        for _ in 0..options.threads.clamp(1, packages.len().max(1)) {
            scope.spawn(|| {
                let halt = || stop.load(Ordering::Relaxed) || cancel.load(Ordering::Relaxed);
                while !halt() {
                    let Some(&i) = order.get(next.fetch_add(1, Ordering::Relaxed)) else { break };
                    let package = &packages[i];
                    let on_bytes = |change: i64| {
                        let now = done.fetch_add(change, Ordering::Relaxed) + change;
                        let done_bytes = u64::try_from(now).unwrap_or(0);
                        progress(Progress { done_bytes, total_bytes: total, file: &package.name });
                    };
                    let target = cache.deb(package);
                    if let Err(error) = fetch_one(&client, package, &sources, &target, &halt, &on_bytes) {
                        stop.store(true, Ordering::Relaxed);
                        if let Ok(mut failures) = failures.lock() {
                            failures.push((i, error));
                        }
                    }
                }
            });
        }
    });

    if cancel.load(Ordering::Relaxed) {
        return Err(FetchError::Cancelled);
    }
    let mut failures = failures.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    // The first failure stops the other connections; their stopping is not what went wrong.
    failures.sort_by_key(|(i, error)| (matches!(error, FetchError::Cancelled), *i));
    match failures.into_iter().next() {
        Some((_, error)) => Err(error),
        None => Ok(packages.iter().map(|package| cache.deb(package)).collect()),
    }
}

fn fetch_one(
    client: &Client,
    package: &LockedPackage,
    sources: &[&Mirrors],
    target: &Path,
    cancel: Cancel<'_>,
    on_bytes: &dyn Fn(i64),
) -> Result<(), FetchError> {
    let expected = Expected { size: package.size, sha256: &package.sha256 };
    let (name, version) = (package.name.clone(), package.version.clone());
    let mut last = None;
    for mirrors in sources {
        let url = format!("{}/{}", mirrors.of_suite(&package.suite), package.filename);
        match download::download(client, &url, target, expected, cancel, on_bytes) {
            Ok(()) => return Ok(()),
            Err(error) if error.is_the_mirrors() => last = Some(error),
            Err(DownloadError::Cancelled { .. }) => return Err(FetchError::Cancelled),
            Err(error) => return Err(FetchError::Package { name, version, source: Box::new(error) }),
        }
    }
    Err(match last {
        Some(DownloadError::Http(HttpError::NotFound { host, url })) => {
            FetchError::Gone { name, version, host, url }
        }
        Some(source) => FetchError::Package { name, version, source: Box::new(source) },
        None => FetchError::Cancelled,
    })
}
