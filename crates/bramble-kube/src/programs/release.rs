//! The projects' release files, checked against the sums that the projects publish beside them.
//!
//! **Never run by us**: the computers this was written on reach package registries only. The addresses are those of the
//! projects' release pages; what is tested is all that follows the answer of the server.

use super::store::{self, Made};
use super::{CNI, CONTAINERD, COREDNS, FLANNEL, KINE, Program, ProgramsError, Progress, Supported, stored};
use bramble_api::names::Arch;
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, TlsProvider, parse_pem};

/// Where Debian and most others keep the authorities that this computer trusts.
const SYSTEM_ROOTS: &[&str] =
    &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// No release file is larger; a server that sends more is not trusted with the disk.
const LIMIT: u64 = 1 << 30;

/// One release file.
struct Item {
    group: &'static str,
    version: String,
    url: String,
    sum: Sum,
    /// Programs in it: path in the archive and name, or just the name of a file that is the program itself.
    programs: Vec<(String, &'static str)>,
    is_archive: bool,
}

/// Where the sum of a release file is published.
enum Sum {
    /// A file that holds it, alone or in a list of `SUM  NAME`.
    At(String),
    /// Nowhere. The lock file keeps what was loaded first, so that it is at least always the same.
    Unpublished,
}

pub(super) fn fetch(
    arch: Arch,
    version: &Supported,
    cache: &Path,
    progress: &dyn Fn(Progress<'_>),
    cancel: &AtomicBool,
) -> Result<Vec<Program>, ProgramsError> {
    let mut programs = Vec::new();
    for item in table(arch, version) {
        programs.extend(get(&item, cache, progress, cancel)?);
    }
    Ok(programs)
}

fn get(
    item: &Item,
    cache: &Path,
    progress: &dyn Fn(Progress<'_>),
    cancel: &AtomicBool,
) -> Result<Vec<Program>, ProgramsError> {
    let key = hex::encode(Sha256::digest(format!("bramble releases 1\n{}\n", item.url)));
    let (directory, files) =
        store::get(&cache.join("programs"), &key, cancel, |out| load(item, out, progress, cancel))?;
    Ok(stored(&directory, &key, "release", files).collect())
}

/// Loads a release file that is one program, `name`, checked against the list of sums at `sums`.
pub(crate) fn load_release_file(
    name: &'static str,
    version: &str,
    url: &str,
    sums: &str,
    cache: &Path,
    progress: &dyn Fn(Progress<'_>),
    cancel: &AtomicBool,
) -> Result<Program, ProgramsError> {
    let item = Item {
        group: name,
        version: version.to_string(),
        url: url.to_string(),
        sum: Sum::At(sums.to_string()),
        programs: vec![(String::new(), name)],
        is_archive: false,
    };
    let missing = || ProgramsError::Missing { name: name.to_string(), place: cache.join("programs") };
    get(&item, cache, progress, cancel)?.pop().ok_or_else(missing)
}

fn table(arch: Arch, version: &Supported) -> Vec<Item> {
    let arch = arch.debian();
    let Supported { version: kubernetes, etcd } = *version;
    let bare = |version: &str| version.trim_start_matches('v').to_string();
    let github =
        |project: &str, version: &str| format!("https://github.com/{project}/releases/download/{version}");
    let mut items = Vec::new();
    for name in
        ["kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl"]
    {
        let url = format!("https://dl.k8s.io/{kubernetes}/bin/linux/{arch}/{name}");
        items.push(Item {
            group: "kubernetes",
            version: kubernetes.into(),
            sum: Sum::At(format!("{url}.sha256")),
            url,
            programs: vec![(String::new(), name)],
            is_archive: false,
        });
    }
    let base = github("etcd-io/etcd", etcd);
    let stem = format!("etcd-{etcd}-linux-{arch}");
    items.push(Item {
        group: "etcd",
        version: etcd.into(),
        url: format!("{base}/{stem}.tar.gz"),
        sum: Sum::At(format!("{base}/SHA256SUMS")),
        programs: vec![(format!("{stem}/etcd"), "etcd")],
        is_archive: true,
    });
    let base = github("containerd/containerd", CONTAINERD);
    let url = format!("{base}/containerd-{}-linux-{arch}.tar.gz", bare(CONTAINERD));
    items.push(Item {
        group: "containerd",
        version: CONTAINERD.into(),
        sum: Sum::At(format!("{url}.sha256sum")),
        url,
        programs: ["containerd", "containerd-shim-runc-v2", "ctr"].map(|n| (format!("bin/{n}"), n)).to_vec(),
        is_archive: true,
    });
    let base = github("containernetworking/plugins", CNI);
    let url = format!("{base}/cni-plugins-linux-{arch}-{CNI}.tgz");
    items.push(Item {
        group: "CNI plugins",
        version: CNI.into(),
        sum: Sum::At(format!("{url}.sha256")),
        url,
        programs: ["bridge", "host-local", "loopback", "portmap"].map(|n| (n.to_string(), n)).to_vec(),
        is_archive: true,
    });
    let base = github("k3s-io/kine", KINE);
    items.push(Item {
        group: "kine",
        version: KINE.into(),
        url: format!("{base}/kine-{arch}"),
        sum: Sum::At(format!("{base}/sha256sum-{arch}.txt")),
        programs: vec![(String::new(), "kine")],
        is_archive: false,
    });
    items.push(Item {
        group: "flannel",
        version: FLANNEL.into(),
        url: format!("{}/flanneld-{arch}", github("flannel-io/flannel", FLANNEL)),
        sum: Sum::Unpublished,
        programs: vec![(String::new(), "flanneld")],
        is_archive: false,
    });
    let base = github("coredns/coredns", COREDNS);
    let url = format!("{base}/coredns_{}_linux_{arch}.tgz", bare(COREDNS));
    items.push(Item {
        group: "coredns",
        version: COREDNS.into(),
        sum: Sum::At(format!("{url}.sha256")),
        url,
        programs: vec![("coredns".into(), "coredns")],
        is_archive: true,
    });
    items
}

fn agent() -> ureq::Agent {
    let certificates: Vec<Certificate<'static>> = SYSTEM_ROOTS
        .iter()
        .find_map(|path| fs::read(path).ok())
        .map(|text| {
            parse_pem(&text)
                .flatten()
                .filter_map(|item| match item {
                    PemItem::Certificate(certificate) => Some(certificate),
                    _ => None,
                })
                .collect()
        })
        .unwrap_or_default();
    let tls = TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::from(certificates))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build();
    ureq::Agent::config_builder().tls_config(tls).user_agent("bramble").build().into()
}

fn load(
    item: &Item,
    out: &Path,
    progress: &dyn Fn(Progress<'_>),
    cancel: &AtomicBool,
) -> Result<Made, ProgramsError> {
    let agent = agent();
    let failed = |url: &str| {
        let url = url.to_string();
        move |source| ProgramsError::Load { url, source: Box::new(source) }
    };
    let file = item.url.rsplit('/').next().unwrap_or_default();
    let expected = match &item.sum {
        Sum::Unpublished => None,
        Sum::At(url) => {
            let text =
                agent.get(url).call().and_then(|mut a| a.body_mut().read_to_string()).map_err(failed(url))?;
            let sum = sum_of(&text, file);
            Some(sum.ok_or_else(|| ProgramsError::NoSum { url: url.clone(), file: file.to_string() })?)
        }
    };
    let answer = agent.get(&item.url).call().map_err(failed(&item.url))?;
    let total = answer.body().content_length().unwrap_or(0);
    let loaded = out.join(".loaded");
    let store_failed = |source| ProgramsError::Store { path: loaded.clone(), source };
    let mut target = File::create(&loaded).map_err(store_failed)?;
    let mut body = answer.into_body().into_with_config().limit(LIMIT).reader();
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut done = 0;
    loop {
        if cancel.load(Ordering::SeqCst) {
            return Err(ProgramsError::Cancelled);
        }
        let n = body.read(&mut buffer).map_err(|e| failed(&item.url)(ureq::Error::Io(e)))?;
        if n == 0 {
            break;
        }
        hash.update(&buffer[..n]);
        target.write_all(&buffer[..n]).map_err(store_failed)?;
        done += n as u64;
        progress(Progress { recipe: item.group, done, total, line: file });
    }
    let found = hex::encode(hash.finalize());
    if let Some(expected) = expected.filter(|expected| *expected != found) {
        return Err(ProgramsError::Digest { url: item.url.clone(), expected, found });
    }
    unpack(item, &loaded, out)?;
    // What is left in the directory is the result.
    if loaded.exists() {
        fs::remove_file(&loaded).map_err(store_failed)?;
    }
    Ok(item.programs.iter().map(|(_, name)| (name.to_string(), item.version.clone())).collect())
}

/// Puts the programs of a checked file into `out`.
fn unpack(item: &Item, loaded: &Path, out: &Path) -> Result<(), ProgramsError> {
    let failed = |source: io::Error| ProgramsError::Store { path: loaded.to_path_buf(), source };
    if !item.is_archive {
        let [(_, name)] = item.programs.as_slice() else { return Ok(()) };
        return fs::rename(loaded, out.join(name)).map_err(failed);
    }
    let mut archive = tar::Archive::new(GzDecoder::new(File::open(loaded).map_err(failed)?));
    let mut missing: Vec<_> = item.programs.iter().collect();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let path = entry.path().map_err(failed)?.into_owned();
        // Some archives begin every path with `./`.
        let path = path.strip_prefix(".").unwrap_or(&path);
        let Some(at) = missing.iter().position(|(inside, _)| path == Path::new(inside)) else { continue };
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let (_, name) = missing.remove(at);
        let mut file = File::create(out.join(name)).map_err(failed)?;
        io::copy(&mut entry, &mut file).map_err(failed)?;
    }
    match missing.first() {
        None => Ok(()),
        Some((_, name)) => {
            Err(ProgramsError::Missing { name: name.to_string(), place: PathBuf::from(&item.url) })
        }
    }
}

/// The sum of a file in a published list, or the only one there.
fn sum_of(text: &str, file: &str) -> Option<String> {
    let is_sum = |word: &str| word.len() == 64 && word.bytes().all(|b| b.is_ascii_hexdigit());
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let Some(sum) = words.next().filter(|w| is_sum(w)) else { continue };
        match words.next() {
            None => return Some(sum.to_ascii_lowercase()),
            // A star marks binary mode (sha256sum(1)); some lists name a path.
            Some(name) if name.trim_start_matches('*').rsplit('/').next() == Some(file) => {
                return Some(sum.to_ascii_lowercase());
            }
            Some(_) => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::write::GzEncoder;

    const SUM: &str = "E3B0C44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn sums_come_alone_or_in_lists() {
        let low = SUM.to_lowercase();
        assert_eq!(sum_of(SUM, "x"), Some(low.clone()));
        assert_eq!(sum_of(&format!("{}  y\n{SUM}  x\n", "0".repeat(64)), "x"), Some(low.clone()));
        assert_eq!(sum_of(&format!("{SUM} *dist/artifacts/x"), "x"), Some(low));
        assert_eq!(sum_of(&format!("{SUM}  xy"), "x"), None);
        assert_eq!(sum_of("<html>not found</html>", "x"), None);
    }

    fn item() -> Item {
        let programs = ["a", "b"].map(|n| (format!("bin/{n}"), n)).to_vec();
        Item {
            group: "g",
            version: "v1".into(),
            url: "https://x/y".into(),
            sum: Sum::Unpublished,
            programs,
            is_archive: true,
        }
    }

    fn packed(paths: &[&str]) -> io::Result<Vec<u8>> {
        let mut builder = tar::Builder::new(GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        for path in paths {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            header.set_mode(0o755);
            builder.append_data(&mut header, path, &b"elf"[..])?;
        }
        builder.into_inner()?.finish()
    }

    #[test]
    fn programs_are_found_in_an_archive_and_missed_by_name() -> Result<(), Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let loaded = dir.path().join("loaded");
        fs::write(&loaded, packed(&["./bin/a", "bin/b", "bin/c"])?)?;
        unpack(&item(), &loaded, dir.path())?;
        assert_eq!(fs::read(dir.path().join("a"))?, b"elf");
        assert!(!dir.path().join("c").exists());
        fs::write(&loaded, packed(&["bin/a"])?)?;
        let error = unpack(&item(), &loaded, dir.path());
        assert!(matches!(&error, Err(ProgramsError::Missing { name, .. }) if name == "b"), "{error:?}");
        Ok(())
    }

    #[test]
    fn every_program_that_a_unit_starts_is_in_the_table() {
        let names: Vec<&str> = table(Arch::Arm64, &super::super::SUPPORTED[0])
            .iter()
            .flat_map(|i| i.programs.iter().map(|p| p.1))
            .collect();
        for name in super::super::KUBE.iter().chain(&["containerd", "kine", "flanneld", "portmap", "coredns"])
        {
            assert!(names.contains(name), "{name}");
        }
    }
}
