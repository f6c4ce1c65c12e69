//! Packages into the cache, from mirrors that misbehave.

use crate::fixtures::{deb, mirrors, options, sha256};
use crate::mirror::{FakeMirror, Fault};
use bramble_api::lock::LockedPackage;
use bramble_debian::DownloadError;
use bramble_debian::fetch::{Cache, FetchError, FetchOptions, Progress, fetch};
use bramble_debian::http::HttpError;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// More than fits into the buffers of a socket pair, so that a fault in the middle is in the middle.
const LARGE: usize = 700_000;

fn package(name: &str, size: usize) -> LockedPackage {
    LockedPackage {
        name: name.into(),
        version: "1".into(),
        arch: "all".into(),
        suite: "trixie".into(),
        filename: format!("pool/{name}.deb"),
        size: size as u64,
        sha256: sha256(&deb(name, size)),
    }
}

struct Site {
    mirror: FakeMirror,
    dir: tempfile::TempDir,
    packages: Vec<LockedPackage>,
    options: FetchOptions,
}

impl Site {
    fn new() -> Site {
        let mirror = FakeMirror::start();
        let packages =
            vec![package("large", LARGE), package("b", 3000), package("c", 1), package("d", 40_000)];
        for p in &packages {
            mirror.put(&p.filename, deb(&p.name, p.size as usize));
        }
        Site { mirror, dir: tempfile::tempdir().unwrap(), packages, options: options() }
    }

    fn cache(&self) -> Cache {
        Cache::new(self.dir.path())
    }

    fn fetch(&self) -> Result<Vec<PathBuf>, FetchError> {
        fetch(
            &self.packages,
            &mirrors(&self.mirror),
            &self.cache(),
            &self.options,
            &|_| {},
            &AtomicBool::new(false),
        )
    }

    fn fault(&self, fault: Fault) {
        self.mirror.fault("pool/large.deb", fault);
    }

    fn check(&self, files: &[PathBuf]) {
        assert_eq!(files.len(), self.packages.len());
        for (file, package) in files.iter().zip(&self.packages) {
            assert_eq!(sha256(&std::fs::read(file).unwrap()), package.sha256);
        }
        assert!(self.parts().is_empty(), "{:?}", self.parts());
    }

    fn parts(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.dir.path().join("debs")).unwrap();
        files.map(|f| f.unwrap().path()).filter(|p| p.extension().is_some_and(|e| e == "part")).collect()
    }

    fn ranges(&self) -> Vec<String> {
        self.mirror.seen().into_iter().filter_map(|s| s.range).collect()
    }
}

fn of_package(error: FetchError) -> DownloadError {
    match error {
        FetchError::Package { name, source, .. } => {
            assert_eq!(name, "large");
            *source
        }
        other => panic!("another kind of error: {other:?}"),
    }
}

#[test]
fn brings_everything_once_and_counts_it() {
    let site = Site::new();
    let last = Mutex::new((0, 0));
    let progress = |p: Progress<'_>| {
        let mut last = last.lock().unwrap();
        *last = (last.0.max(p.done_bytes), p.total_bytes);
    };
    let total: u64 = site.packages.iter().map(|p| p.size).sum();
    let run = || {
        *last.lock().unwrap() = (0, 0);
        let cancel = AtomicBool::new(false);
        let files =
            fetch(&site.packages, &mirrors(&site.mirror), &site.cache(), &site.options, &progress, &cancel);
        site.check(&files.unwrap());
        assert_eq!(*last.lock().unwrap(), (total, total));
    };
    run();
    assert_eq!(site.mirror.seen().len(), 4);
    run();
    assert_eq!(site.mirror.seen(), []);
}

#[test]
fn a_dropped_connection_is_resumed_where_it_broke() {
    let site = Site::new();
    site.fault(Fault::Drop { after: 100_000, times: 4 });
    site.check(&site.fetch().unwrap());
    assert_eq!(site.ranges(), ["bytes=100000-", "bytes=200000-", "bytes=300000-", "bytes=400000-"]);
}

#[test]
fn a_mirror_that_drops_at_once_is_given_up_and_taken_up_by_the_next_run() {
    let site = Site::new();
    site.fault(Fault::Drop { after: 0, times: 100 });
    let error = of_package(site.fetch().unwrap_err());
    assert!(matches!(error, DownloadError::Http(HttpError::Broken { .. })), "{error:?}");
    assert!(error.hint().contains("run the same command again"));
    site.mirror.mend();
    site.check(&site.fetch().unwrap());
}

#[test]
fn a_stalled_mirror_is_given_up_but_what_came_is_kept() {
    let site = Site::new();
    site.fault(Fault::Stall);
    let error = of_package(site.fetch().unwrap_err());
    assert!(matches!(error, DownloadError::Http(HttpError::Stalled { .. })), "{error:?}");
    let kept = std::fs::metadata(&site.parts()[0]).unwrap().len();
    assert!(kept >= LARGE as u64 / 2, "{kept}");
    site.mirror.mend();
    site.mirror.seen();
    site.check(&site.fetch().unwrap());
    assert_eq!(site.ranges(), [format!("bytes={kept}-")]);
}

#[test]
fn a_trickle_counts_as_a_stall() {
    let site = Site::new();
    site.fault(Fault::Trickle);
    let error = of_package(site.fetch().unwrap_err());
    assert!(matches!(error, DownloadError::Http(HttpError::Stalled { .. })), "{error:?}");
}

#[test]
fn a_mirror_that_lies_is_found_out() {
    let site = Site::new();
    site.fault(Fault::Lie);
    let error = of_package(site.fetch().unwrap_err());
    assert!(matches!(error, DownloadError::WrongDigest { .. }), "{error:?}");
    assert!(!site.cache().deb(&site.packages[0]).exists());
    site.mirror.mend();
    site.check(&site.fetch().unwrap());

    let site = Site::new();
    site.fault(Fault::TooMuch);
    let error = of_package(site.fetch().unwrap_err());
    assert!(matches!(error, DownloadError::WrongSize { .. }), "{error:?}");
}

#[test]
fn a_bad_start_left_by_an_earlier_run_is_thrown_away() {
    let site = Site::new();
    std::fs::create_dir_all(site.dir.path().join("debs")).unwrap();
    let mut part = site.cache().deb(&site.packages[0]).into_os_string();
    part.push(".part");
    for bad in [vec![7; 1000], vec![7; LARGE], vec![7; LARGE + 5]] {
        std::fs::write(&part, bad).unwrap();
        site.check(&site.fetch().unwrap());
        std::fs::remove_file(site.cache().deb(&site.packages[0])).unwrap();
    }
    site.fault(Fault::NoRanges);
    std::fs::write(&part, &deb("large", LARGE)[..1000]).unwrap();
    site.check(&site.fetch().unwrap());
}

#[test]
fn a_damaged_file_in_the_cache_is_brought_again() {
    let site = Site::new();
    let files = site.fetch().unwrap();
    std::fs::write(&files[1], vec![0; 3000]).unwrap();
    std::fs::write(&files[3], b"").unwrap();
    site.mirror.seen();
    site.check(&site.fetch().unwrap());
    assert_eq!(site.mirror.seen().len(), 2);
}

#[test]
fn a_superseded_package_names_the_command_that_mends_it() {
    let mut site = Site::new();
    site.fault(Fault::Lose);
    let error = site.fetch().unwrap_err();
    assert!(matches!(&error, FetchError::Gone { name, .. } if name == "large"), "{error:?}");
    assert!(error.hint().contains("bramble lock --update"));

    // A second source, such as the user's own store, still has it.
    let store = FakeMirror::start();
    store.put("pool/large.deb", deb("large", LARGE));
    site.options.fallbacks = vec![mirrors(&store)];
    site.check(&site.fetch().unwrap());
    assert_eq!(store.seen().len(), 1);
}

#[test]
fn a_busy_mirror_is_asked_again() {
    let site = Site::new();
    site.fault(Fault::Busy { times: 2 });
    site.check(&site.fetch().unwrap());
    site.fault(Fault::Busy { times: 100 });
    std::fs::remove_file(site.cache().deb(&site.packages[0])).unwrap();
    let error = of_package(site.fetch().unwrap_err());
    assert!(matches!(error, DownloadError::Http(HttpError::Status { status: 503, .. })), "{error:?}");
}

#[test]
fn a_cancel_keeps_what_came() {
    let site = Site::new();
    let cancel = AtomicBool::new(false);
    let bytes = AtomicU64::new(0);
    let progress = |p: Progress<'_>| {
        bytes.fetch_max(p.done_bytes, Ordering::Relaxed);
        if p.file == "large" && p.done_bytes > 0 {
            cancel.store(true, Ordering::Relaxed);
        }
    };
    site.fault(Fault::Stall);
    let error =
        fetch(&site.packages, &mirrors(&site.mirror), &site.cache(), &site.options, &progress, &cancel);
    assert!(matches!(error, Err(FetchError::Cancelled)), "{error:?}");
    assert!(!site.parts().is_empty());
    site.mirror.mend();
    site.check(&site.fetch().unwrap());
}

#[test]
fn two_runs_at_once_share_one_cache() {
    let site = Site::new();
    std::thread::scope(|scope| {
        let runs: Vec<_> = (0..4).map(|_| scope.spawn(|| site.fetch())).collect();
        for run in runs {
            let files = run.join().unwrap().unwrap();
            for (file, package) in files.iter().zip(&site.packages) {
                assert_eq!(sha256(&std::fs::read(file).unwrap()), package.sha256);
            }
        }
    });
    site.check(&site.fetch().unwrap());
    let whole = site.mirror.seen().iter().filter(|s| s.path.ends_with("large.deb")).count();
    assert_eq!(whole, 1, "the file was brought more than once");
}

#[test]
fn a_lock_that_was_tampered_with_cannot_name_a_path() {
    let mut site = Site::new();
    site.packages[1].sha256 = "../../etc/passwd".into();
    assert!(matches!(site.fetch(), Err(FetchError::BadLock { name, .. }) if name == "b"));
}

#[test]
fn a_cache_that_is_no_directory_says_so() {
    let site = Site::new();
    std::fs::write(site.dir.path().join("debs"), b"in the way").unwrap();
    let error = site.fetch().unwrap_err();
    assert!(matches!(error, FetchError::Cache { source: DownloadError::Cache { .. } }), "{error:?}");
    assert!(error.hint().contains("XDG_CACHE_HOME"));
}

/// `/dev/full` takes the place of the part file: every write to it fails as on a full disk.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named() {
    let site = Site::new();
    std::fs::create_dir_all(site.dir.path().join("debs")).unwrap();
    let mut part = site.cache().deb(&site.packages[0]).into_os_string();
    part.push(".part");
    std::os::unix::fs::symlink("/dev/full", Path::new(&part)).unwrap();
    let error = of_package(site.fetch().unwrap_err());
    assert!(matches!(error, DownloadError::DiskFull { .. }), "{error:?}");
    assert!(error.hint().contains("make room"));
}
