//! Against the mirror of this computer, only with `BRAMBLE_NETWORK=1`; `examples/resolve.rs` is the whole run.

use bramble_api::names::Arch;
use bramble_debian::archive::{self, Archive};
use bramble_debian::fetch::Cache;
use bramble_debian::index::Index;
use bramble_debian::mirror::Mirrors;
use bramble_debian::openpgp::Keyring;
use bramble_debian::release::Freshness;
use bramble_debian::resolve::{Request, resolve};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::time::SystemTime;

#[test]
fn debian_is_signed_by_the_keys_in_the_tool_and_has_a_kernel_without_an_initramfs_generator() {
    if std::env::var("BRAMBLE_NETWORK").as_deref() != Ok("1") {
        // Past the harness's capture: whoever runs the tests must see what was not run.
        let _ = writeln!(std::io::stderr(), "skipped: needs a Debian mirror, set BRAMBLE_NETWORK=1");
        return;
    }
    let cache = tempfile::tempdir().unwrap();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let mirrors = Mirrors::choose(None, Path::new("/"));
    let archive = Archive::debian("trixie", mirrors, Keyring::debian().unwrap(), Freshness::at(now));
    let texts =
        archive::load(&archive, Arch::Arm64, &Cache::new(cache.path()), &|_| {}, &AtomicBool::new(false))
            .unwrap();
    let index = Index::new(&texts).unwrap();
    let request = Request {
        arch: Arch::Arm64,
        packages: vec!["linux-image-arm64/trixie-backports".into(), "systemd".into()],
        include_essential: true,
        exclude: vec!["initramfs-tools".into(), "dracut".into()],
        prefer: Vec::new(),
    };
    let names: Vec<String> = resolve(&index, &request).unwrap().into_iter().map(|p| p.name).collect();
    assert!(names.iter().any(|n| n.starts_with("linux-modules-")), "{names:?}");
    assert!(names.iter().any(|n| n == "mawk") && !names.iter().any(|n| n.contains("initramfs")), "{names:?}");
}
