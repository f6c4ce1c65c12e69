//! A tiny archive: a few packages, a signed release file, package lists by digest.

use crate::keys::{Maker, SIGNED};
use crate::mirror::FakeMirror;
use bramble_api::names::Arch;
use bramble_debian::archive::Archive;
use bramble_debian::fetch::FetchOptions;
use bramble_debian::http::Patience;
use bramble_debian::mirror::Mirrors;
use bramble_debian::openpgp::Keyring;
use bramble_debian::release::Freshness;
use sha2::{Digest, Sha256};
use std::io::Write;
use std::time::Duration;

/// Fails fast: the mirror is in this process.
pub fn patience() -> Patience {
    Patience {
        connect: Duration::from_millis(500),
        stall: Duration::from_millis(300),
        attempts: 3,
        backoff: Duration::from_millis(1),
        slowest: 1000,
    }
}

pub fn options() -> FetchOptions {
    FetchOptions { threads: 4, patience: patience(), fallbacks: Vec::new() }
}

/// Both archives on one fake.
pub fn mirrors(mirror: &FakeMirror) -> Mirrors {
    Mirrors { main: mirror.url(), security: mirror.url(), check_valid_until: true }
}

pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Bytes of a package: not compressible into nothing, the same at every run.
pub fn deb(name: &str, size: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut block = Sha256::digest(name.as_bytes());
    while bytes.len() < size {
        bytes.extend_from_slice(&block);
        block = Sha256::digest(block);
    }
    bytes.truncate(size);
    bytes
}

/// One package of the tiny archive: name, version, further fields, size.
pub type Entry<'a> = (&'a str, &'a str, &'a str, usize);

/// Puts the packages of one suite on the mirror, signed.
pub fn publish(mirror: &FakeMirror, maker: &Maker, suite: &str, packages: &[Entry<'_>]) {
    publish_dated(mirror, maker, suite, packages, "Sat, 31 Jan 2026 00:00:00 UTC");
}

pub fn publish_dated(mirror: &FakeMirror, maker: &Maker, suite: &str, packages: &[Entry<'_>], date: &str) {
    let mut list = String::new();
    for (name, version, fields, size) in packages {
        let bytes = deb(name, *size);
        let filename = format!("pool/{name}_{version}.deb");
        list += &format!(
            "Package: {name}\nVersion: {version}\nArchitecture: all\n{fields}Filename: {filename}\nSize: {size}\nSHA256: {}\n\n",
            sha256(&bytes)
        );
        mirror.put(&filename, bytes);
    }
    let mut sums = String::new();
    for arch in Arch::ALL {
        let dir = format!("main/binary-{arch}");
        let mut packed = liblzma::write::XzEncoder::new(Vec::new(), 0);
        packed.write_all(list.as_bytes()).unwrap();
        let packed = packed.finish().unwrap();
        for (file, bytes) in [("Packages", list.as_bytes()), ("Packages.xz", &packed)] {
            sums += &format!(" {} {} {dir}/{file}\n", sha256(bytes), bytes.len());
        }
        mirror.put(&format!("dists/{suite}/{dir}/by-hash/SHA256/{}", sha256(&packed)), packed.clone());
        mirror.put(&format!("dists/{suite}/{dir}/Packages.xz"), packed);
    }
    let text = format!("Origin: Test\nSuite: {suite}\nCodename: {suite}\nDate: {date}\nSHA256:\n{sums}");
    mirror.put(&format!("dists/{suite}/InRelease"), maker.sign(&text));
}

/// How the tool looks at the tiny archive.
pub fn archive(mirror: &FakeMirror, maker: &Maker, suites: &[&str]) -> Archive {
    Archive {
        mirrors: mirrors(mirror),
        suites: suites.iter().map(|s| s.to_string()).collect(),
        components: vec!["main".into()],
        keyring: Keyring::from_bytes("test", &maker.keyring()).unwrap(),
        freshness: Freshness::at(SIGNED + 86_400),
        patience: patience(),
    }
}
