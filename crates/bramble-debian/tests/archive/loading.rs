//! From a mirror to an index and a set of packages.

use crate::fixtures::{self, Entry};
use crate::keys::{Maker, Shape};
use crate::mirror::{FakeMirror, Fault};
use bramble_api::names::Arch;
use bramble_debian::archive::{self, IndexError};
use bramble_debian::fetch::Cache;
use bramble_debian::index::{Index, IndexTexts};
use bramble_debian::release::ReleaseError;
use bramble_debian::resolve::{Request, resolve_set};
use bramble_debian::{DownloadError, archive::Archive};
use std::path::Path;
use std::sync::atomic::AtomicBool;

const PACKAGES: &[Entry<'_>] = &[
    ("app", "1", "Depends: lib (>= 1)\n", 5000),
    ("lib", "1.2", "", 70_000),
    ("base", "13", "Essential: yes\n", 300),
];
const BACKPORTS: &[Entry<'_>] = &[("app", "2~bpo13+1", "Depends: lib\n", 6000)];

fn load(archive: &Archive, cache: &Path) -> Result<IndexTexts, IndexError> {
    archive::load(archive, Arch::Arm64, &Cache::new(cache), &|_| {}, &AtomicBool::new(false))
}

struct Site {
    mirror: FakeMirror,
    maker: Maker,
    cache: tempfile::TempDir,
}

impl Site {
    fn new() -> Site {
        let site =
            Site { mirror: FakeMirror::start(), maker: Maker::good(1), cache: tempfile::tempdir().unwrap() };
        fixtures::publish(&site.mirror, &site.maker, "trixie", PACKAGES);
        fixtures::publish(&site.mirror, &site.maker, "trixie-backports", BACKPORTS);
        site
    }

    fn archive(&self) -> Archive {
        fixtures::archive(&self.mirror, &self.maker, &["trixie", "trixie-backports"])
    }

    fn load(&self) -> Result<IndexTexts, IndexError> {
        load(&self.archive(), self.cache.path())
    }

    /// Path of the package list by digest, as the mirror knows it.
    fn by_hash(&self) -> String {
        self.mirror.seen();
        let fresh = tempfile::tempdir().unwrap();
        load(&self.archive(), fresh.path()).unwrap();
        let seen = self.mirror.seen();
        let path =
            &seen.iter().find(|s| s.path.contains("/trixie/") && s.path.contains("by-hash")).unwrap().path;
        path.trim_start_matches("/debian/").to_string()
    }
}

#[test]
fn from_mirror_to_a_set_that_a_lock_can_hold() {
    let site = Site::new();
    let texts = site.load().unwrap();
    let index = Index::new(&texts).unwrap();
    let request = Request {
        arch: Arch::Arm64,
        packages: vec!["app/trixie-backports".into()],
        include_essential: true,
        exclude: Vec::new(),
        prefer: Vec::new(),
    };
    let set = resolve_set(&index, &request).unwrap();
    let names: Vec<_> =
        set.packages.iter().map(|p| (p.name.as_str(), p.version.as_str(), p.suite.as_str())).collect();
    assert_eq!(
        names,
        [("app", "2~bpo13+1", "trixie-backports"), ("base", "13", "trixie"), ("lib", "1.2", "trixie")]
    );
    assert_eq!(set.snapshot, crate::keys::SIGNED);
    assert_eq!(set.request, request.digest());
}

#[test]
fn what_is_in_the_cache_is_not_asked_for_again() {
    let site = Site::new();
    site.load().unwrap();
    site.mirror.seen();
    let texts = site.load().unwrap();
    let asked: Vec<_> = site.mirror.seen().into_iter().map(|s| s.path).collect();
    assert!(asked.iter().all(|path| path.ends_with("/InRelease")), "{asked:?}");
    assert_eq!(Index::new(&texts).unwrap().len(), 4);
    // The cache is safe to delete, and a spoiled one is an empty one.
    for file in std::fs::read_dir(site.cache.path().join("lists")).unwrap() {
        std::fs::write(file.unwrap().path(), "Package: evil\n").unwrap();
    }
    assert_eq!(Index::new(&site.load().unwrap()).unwrap().len(), 4);
    std::fs::remove_dir_all(site.cache.path()).unwrap();
    assert_eq!(Index::new(&site.load().unwrap()).unwrap().len(), 4);
}

#[test]
fn an_unchanged_release_is_not_sent_again_but_checked_again() {
    let site = Site::new();
    site.mirror.with_etags();
    site.load().unwrap();
    site.mirror.seen();
    site.load().unwrap();
    assert!(site.mirror.seen().iter().all(|s| s.status == 304));
    // With another keyring the kept file is worth nothing.
    let mut archive = site.archive();
    let other = Maker::good(2);
    archive.keyring = fixtures::archive(&site.mirror, &other, &[]).keyring;
    let error = load(&archive, site.cache.path()).unwrap_err();
    assert!(matches!(error, IndexError::Release { source: ReleaseError::Untrusted { .. }, .. }), "{error:?}");
}

#[test]
fn an_older_release_does_not_replace_a_newer_one() {
    let site = Site::new();
    site.load().unwrap();
    let old: &[Entry<'_>] = &[("app", "0.9-with-a-hole", "", 10)];
    fixtures::publish_dated(&site.mirror, &site.maker, "trixie", old, "Thu, 15 Jan 2026 00:00:00 UTC");
    let texts = site.load().unwrap();
    let index = Index::new(&texts).unwrap();
    assert!(index.versions("lib").next().is_some());
}

#[test]
fn a_mirror_signed_by_a_wrong_or_revoked_key_is_refused() {
    let site = Site::new();
    for maker in [Maker::good(2), Maker::new(1, Shape { revoked: true, ..Shape::default() })] {
        let archive = fixtures::archive(&site.mirror, &maker, &["trixie"]);
        let fresh = tempfile::tempdir().unwrap();
        let error = load(&archive, fresh.path()).unwrap_err();
        assert!(
            matches!(error, IndexError::Release { source: ReleaseError::Untrusted { .. }, .. }),
            "{error:?}"
        );
        assert!(error.hint().contains("mirror"));
    }
}

#[test]
fn a_package_list_that_lies_is_refused() {
    let site = Site::new();
    let path = site.by_hash();
    site.mirror.fault(&path, Fault::Lie);
    let error = site.load().unwrap_err();
    assert!(
        matches!(error, IndexError::Download { source: DownloadError::WrongDigest { .. }, .. }),
        "{error:?}"
    );
    site.mirror.mend();
    site.load().unwrap();
}

#[test]
fn a_mirror_without_by_hash_is_asked_by_name() {
    let site = Site::new();
    let path = site.by_hash();
    site.mirror.fault(&path, Fault::Lose);
    site.load().unwrap();
    assert!(site.mirror.seen().iter().any(|s| s.path.ends_with("/Packages.xz")));
}

#[test]
fn an_interrupted_list_is_resumed() {
    let site = Site::new();
    let path = site.by_hash();
    site.mirror.fault(&path, Fault::Drop { after: 20, times: 1 });
    site.load().unwrap();
    let seen = site.mirror.seen();
    assert!(seen.iter().any(|s| s.status == 206 && s.range.as_deref() == Some("bytes=20-")), "{seen:?}");
}

#[test]
fn what_the_mirror_lacks_is_named() {
    let site = Site::new();
    let mut archive = site.archive();
    archive.components.push("non-free-firmware".into());
    let error = load(&archive, site.cache.path()).unwrap_err();
    assert_eq!(error.to_string(), "the suite trixie has no non-free-firmware/binary-arm64/Packages.xz");

    let archive = fixtures::archive(&site.mirror, &site.maker, &["forky"]);
    let error = load(&archive, site.cache.path()).unwrap_err();
    assert!(error.hint().contains("address"), "{error:?}");
}

#[test]
fn a_mirror_that_is_down_is_unreachable() {
    let site = Site::new();
    let mut archive = site.archive();
    // Bound and closed again: nothing listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    archive.mirrors.main = format!("http://127.0.0.1:{port}/debian");
    let IndexError::Download { source: DownloadError::Http(error), .. } =
        load(&archive, site.cache.path()).unwrap_err()
    else {
        panic!("another kind of error");
    };
    assert_eq!(error.to_string(), format!("127.0.0.1:{port} cannot be reached"));
}
