//! Resolves and downloads the packages of a node image, for both architectures, and the firmware of virtual
//! machines, from a real mirror.
//!
//! `cargo run --release -p bramble-debian --example resolve [-- CACHE [OUT]]`: CACHE is `~/.cache/bramble` unless
//! stated; OUT is a directory for `set.ARCH.json` and `firmware.json` (what a lock would hold, with the files' paths).
//! BRAMBLE_SUITES names the suites, BRAMBLE_KERNEL the kernel's package, where others are wanted.

#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use bramble_api::lock::LockedPackage;
use bramble_api::names::Arch;
use bramble_debian::archive::{self, Archive};
use bramble_debian::fetch::{Cache, FetchOptions, fetch};
use bramble_debian::index::Index;
use bramble_debian::mirror::Mirrors;
use bramble_debian::openpgp::Keyring;
use bramble_debian::release::Freshness;
use bramble_debian::resolve::{Request, resolve_set};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime};

const NODE: &str = "systemd systemd-sysv systemd-resolved systemd-timesyncd udev kmod dbus libpam-systemd iptables \
    nftables conntrack ethtool socat ebtables iproute2 procps util-linux mount passwd login e2fsprogs \
    ca-certificates open-iscsi nfs-common openssh-server runc systemd-boot-efi";

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let home = std::env::var("HOME").unwrap_or_default();
    let cache = Cache::new(args.next().unwrap_or_else(|| format!("{home}/.cache/bramble")));
    let out = args.next().map(PathBuf::from);
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
    let mirrors = Mirrors::choose(None, Path::new("/"));
    let mut archive = Archive::debian("trixie", mirrors, Keyring::debian()?, Freshness::at(now));
    if let Ok(suites) = std::env::var("BRAMBLE_SUITES") {
        archive.suites = suites.split_whitespace().map(str::to_string).collect();
    }
    for arch in Arch::ALL {
        let mut packages: Vec<String> = NODE.split_whitespace().map(str::to_string).collect();
        let kernel = std::env::var("BRAMBLE_KERNEL");
        packages.push(kernel.unwrap_or_else(|_| format!("linux-image-{arch}/trixie-backports")));
        let node = Request {
            arch,
            packages,
            include_essential: true,
            exclude: ["initramfs-tools", "dracut", "tiny-initramfs"].map(str::to_string).to_vec(),
            prefer: Vec::new(),
        };
        one(&archive, &cache, &node, out.as_ref().map(|dir| dir.join(format!("set.{arch}.json"))))?;
    }
    let firmware = Request {
        arch: Arch::Amd64,
        packages: ["ovmf", "qemu-efi-aarch64"].map(str::to_string).to_vec(),
        include_essential: false,
        exclude: Vec::new(),
        prefer: Vec::new(),
    };
    one(&archive, &cache, &firmware, out.map(|dir| dir.join("firmware.json")))
}

fn one(
    archive: &Archive,
    cache: &Cache,
    request: &Request,
    out: Option<PathBuf>,
) -> Result<(), Box<dyn Error>> {
    let cancel = AtomicBool::new(false);
    let begin = Instant::now();
    let texts = archive::load(archive, request.arch, cache, &|_| {}, &cancel)?;
    let loaded = begin.elapsed();
    let index = Index::new(&texts)?;
    let scanned = begin.elapsed();
    let set = resolve_set(&index, request)?;
    let resolved = begin.elapsed();
    let files = fetch(&set.packages, &archive.mirrors, cache, &FetchOptions::default(), &|_| {}, &cancel)?;
    let fetched = begin.elapsed();
    for package in &set.packages {
        println!("{:<36} {:<34} {:<18} {:>10}", package.name, package.version, package.suite, package.size);
    }
    println!(
        "{}: {} packages of {}, {:.1} MB; index {:.2?}, scan {:.2?}, resolve {:.2?}, fetch {:.2?}\n",
        request.arch,
        set.packages.len(),
        index.len(),
        set.packages.iter().map(|p| p.size).sum::<u64>() as f64 / 1e6,
        loaded,
        scanned - loaded,
        resolved - scanned,
        fetched - resolved
    );
    if let Some(out) = out {
        write(&out, &set.packages, &files)?;
    }
    Ok(())
}

fn write(out: &Path, packages: &[LockedPackage], files: &[PathBuf]) -> Result<(), Box<dyn Error>> {
    let mut list = Vec::new();
    for (package, file) in packages.iter().zip(files) {
        let mut value = serde_json::to_value(package)?;
        value["path"] = file.display().to_string().into();
        list.push(value);
    }
    Ok(std::fs::write(out, serde_json::to_string_pretty(&list)?)?)
}
