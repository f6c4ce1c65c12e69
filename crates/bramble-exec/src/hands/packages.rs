//! Choosing and fetching Debian packages.

use super::Builder;
use bramble_api::event::{Outcome, Unit};
use bramble_api::lock::{LockedPackage, PackageSet};
use bramble_api::names::Arch;
use bramble_debian::archive::{self, Archive};
use bramble_debian::deb::Deb;
use bramble_debian::fetch::{self, Cache, FetchOptions, Progress};
use bramble_debian::index::Index;
use bramble_debian::mirror::Mirrors;
use bramble_debian::openpgp::Keyring;
use bramble_debian::release::Freshness;
use bramble_debian::resolve::{self, Request};
use bramble_debian::tree::Kind;
use bramble_effects::{Class, Context, Failure};
use std::path::{Path, PathBuf};

/// The package that holds the firmware a lab machine of an architecture starts with.
fn firmware_package(arch: Arch) -> &'static str {
    match arch {
        Arch::Amd64 => "ovmf",
        Arch::Arm64 => "qemu-efi-aarch64",
    }
}

impl Builder<'_> {
    fn mirrors(&self) -> Mirrors {
        Mirrors::choose(None, Path::new("/"))
    }

    fn cache(&self) -> Cache {
        Cache::new(&self.project.cache)
    }

    /// Resolves the packages of an architecture and writes them to the lock.
    pub(super) fn lock_packages(&self, arch: Arch, context: &Context<'_>) -> Result<Outcome, Failure> {
        let release = self.cluster.spec.os.release.name();
        let keyring =
            Keyring::debian().map_err(|e| Failure::bug("the keys in this tool are damaged").source(e))?;
        let mirrors = self.mirrors();
        let mut freshness = Freshness::at(self.clock.now());
        if !mirrors.check_valid_until {
            freshness.expired = u64::MAX;
            context
                .note("this computer's apt takes a package index past its Valid-Until, and so does Bramble");
        }
        let archive = Archive::debian(release, mirrors, keyring, freshness);
        let tell = |p: Progress<'_>| context.progress(p.done_bytes, p.total_bytes, Unit::Bytes, p.file);
        let texts =
            archive::load(&archive, arch, &self.cache(), &tell, context.cancel.flag()).map_err(|e| {
                let hint = e.hint();
                let class = if matches!(e, archive::IndexError::Cancelled) {
                    Class::Interrupted
                } else {
                    Class::User
                };
                let what = format!("cannot read the package index of {release} for {arch}");
                Failure { class, ..Failure::user(what).source(e).hint(hint) }
            })?;
        let index =
            Index::new(&texts).map_err(|e| Failure::user("the package index cannot be read").source(e))?;
        let wanted = bramble_plan::package_request(self.cluster, arch);
        let request = Request {
            arch,
            packages: wanted.names.clone(),
            include_essential: true,
            exclude: wanted.exclude.clone(),
            prefer: wanted.prefer.clone(),
        };
        let set = resolve(&index, &request)?;
        let set = PackageSet { request: bramble_plan::package_request_digest(&wanted, release), ..set };
        let firmware = Request {
            arch,
            packages: vec![firmware_package(arch).to_string()],
            include_essential: false,
            exclude: vec![],
            prefer: vec![],
        };
        let lab = resolve(&index, &firmware)?;
        let outcome = {
            let mut lock = self.lock();
            let unchanged = lock.packages.get(&arch) == Some(&set) && lock.lab.get(&arch) == Some(&lab);
            context.note(difference(lock.packages.get(&arch), &set));
            lock.packages.insert(arch, set);
            lock.lab.insert(arch, lab);
            if unchanged { Outcome::Unchanged } else { Outcome::Done }
        };
        self.keep_lock()?;
        Ok(outcome)
    }

    /// Downloads the locked packages of an architecture.
    pub(super) fn fetch_packages(&self, arch: Arch, context: &Context<'_>) -> Result<Outcome, Failure> {
        let packages = self.locked(arch, self.lab.is_some())?;
        let cache = self.cache();
        let here = |p: &LockedPackage| std::fs::metadata(cache.deb(p)).is_ok_and(|m| m.len() == p.size);
        let missing = packages.iter().filter(|p| !here(p)).count();
        if missing == 0 {
            // What is in the cache was checked when it was put there; its name is its digest.
            return Ok(Outcome::Unchanged);
        }
        self.fetch(&packages, context)?;
        context.note(format!("{missing} of {} packages downloaded", packages.len()));
        Ok(Outcome::Done)
    }

    fn fetch(&self, packages: &[LockedPackage], context: &Context<'_>) -> Result<Vec<PathBuf>, Failure> {
        let tell = |p: Progress<'_>| context.progress(p.done_bytes, p.total_bytes, Unit::Bytes, p.file);
        let options = FetchOptions::default();
        fetch::fetch(packages, &self.mirrors(), &self.cache(), &options, &tell, context.cancel.flag())
            .map_err(|e| {
                let hint = e.hint();
                let class =
                    if matches!(e, fetch::FetchError::Cancelled) { Class::Interrupted } else { Class::User };
                Failure { class, ..Failure::user("cannot download the packages").source(e).hint(hint) }
            })
    }

    /// The locked packages of an architecture, and the lab's firmware if wanted.
    fn locked(&self, arch: Arch, lab: bool) -> Result<Vec<LockedPackage>, Failure> {
        let lock = self.lock();
        let set = lock.packages.get(&arch).ok_or_else(|| {
            Failure::user(format!("the lock has no packages for {arch}")).hint("run `bramble lock`")
        })?;
        let mut packages = set.packages.clone();
        if lab {
            packages.extend(lock.lab.get(&arch).into_iter().flat_map(|set| set.packages.clone()));
        }
        Ok(packages)
    }

    /// The locked packages of an architecture and their files, and the time of the newest index they came from.
    pub(super) fn debs(&self, arch: Arch) -> Result<(Vec<(LockedPackage, PathBuf)>, u64), Failure> {
        let cache = self.cache();
        let packages = self.locked(arch, false)?;
        let snapshot = self.lock().packages.get(&arch).map_or(0, |set| set.snapshot);
        Ok((packages.into_iter().map(|p| (p.clone(), cache.deb(&p))).collect(), snapshot))
    }
}

fn resolve(index: &Index<'_>, request: &Request) -> Result<PackageSet, Failure> {
    resolve::resolve_set(index, request).map_err(|e| {
        let hint = e.hint();
        Failure::user(format!("cannot choose packages for {}", request.arch)).source(e).hint(hint)
    })
}

/// What a new set changes, in a sentence.
fn difference(old: Option<&PackageSet>, new: &PackageSet) -> String {
    let Some(old) = old else { return format!("{} packages chosen", new.packages.len()) };
    let version = |set: &PackageSet, name: &str| {
        set.packages.iter().find(|p| p.name == name).map(|p| p.version.clone())
    };
    let (mut added, mut changed) = (0, 0);
    for package in &new.packages {
        match version(old, &package.name) {
            None => added += 1,
            Some(v) if v != package.version => changed += 1,
            Some(_) => {}
        }
    }
    let removed = old.packages.iter().filter(|p| version(new, &p.name).is_none()).count();
    format!("{} packages: {added} added, {changed} in another version, {removed} removed", new.packages.len())
}

/// The firmware of an architecture's lab machines as files in the cache: code and empty variables.
pub fn lab_firmware(
    builder: &Builder<'_>,
    arch: Arch,
    context: &Context<'_>,
) -> Result<(PathBuf, PathBuf), Failure> {
    let packages: Vec<LockedPackage> =
        builder.lock().lab.get(&arch).into_iter().flat_map(|set| set.packages.clone()).collect();
    let name = firmware_package(arch);
    let package = packages.iter().find(|p| p.name == name).ok_or_else(|| {
        Failure::user(format!("the lock has no firmware for lab machines of {arch}"))
            .hint("run `bramble lock --update`")
    })?;
    let directory = builder.project.cache.join("firmware").join(&package.sha256);
    let (code, vars) = match arch {
        Arch::Amd64 => ("usr/share/OVMF/OVMF_CODE_4M.fd", "usr/share/OVMF/OVMF_VARS_4M.fd"),
        Arch::Arm64 => ("usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "usr/share/AAVMF/AAVMF_VARS.fd"),
    };
    let files = [directory.join("code.fd"), directory.join("vars.fd")];
    if !files.iter().all(|f| f.exists()) {
        let debs = builder.fetch(std::slice::from_ref(package), context)?;
        let failed = |e| Failure::user(format!("cannot read {name} {}", package.version)).source(e);
        let read =
            Deb::read(&debs[0], &package.sha256, package.size, &builder.project.cache).map_err(failed)?;
        for (file, inside) in files.iter().zip([code, vars]) {
            let entry = read.entries.iter().find(|e| e.path.as_bytes() == inside.as_bytes());
            let Some(Kind::File(content)) = entry.map(|e| &e.node.kind) else {
                return Err(Failure::user(format!("{name} {} has no {inside}", package.version)));
            };
            crate::replace(file, content.as_slice(), 0o644).map_err(super::from_project)?;
        }
    }
    let [code, vars] = files;
    Ok((code, vars))
}
