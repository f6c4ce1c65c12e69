//! k3s' release file, taken apart without running it.
//!
//! The file is a Go program with an archive inside (`go:embed`), a tar compressed by zstd whose SHA-256 is its name:
//! `embed/<SHA-256>.tar.zst` (`scripts/package-cli` and `pkg/data` of k3s). Name and archive both stand in the program's
//! read-only data, wherever the linker put them; so the archive is the zstd frame whose digest a name in the file has.
//! In it `bin/` holds the programs, with their sums in `bin/.sha256sums` and the links between them in `bin/.links`
//! (`pkg/dataverify`).

use bramble_api::names::Arch;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use zstd::zstd_safe;

/// No release unpacks to more: the largest so far has a quarter of it.
const LIMIT: u64 = 1 << 30;
/// log2 of the largest window that is taken; k3s compresses with 25.
const WINDOW_LOG: u32 = 27;
const SUFFIX: &[u8] = b".tar.zst";
const MAGIC: &[u8] = &0xfd2f_b528u32.to_le_bytes();

/// What units and k3s itself look for.
const NEEDED: &[&str] = &[
    "bin/k3s",
    "bin/k3s-server",
    "bin/k3s-agent",
    "bin/kubectl",
    "bin/containerd",
    "bin/containerd-shim-runc-v2",
    "bin/runc",
    "bin/cni",
    "bin/host-local",
];

/// A file or link of the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// A regular file.
    File {
        /// Permission bits.
        mode: u16,
        /// Contents.
        content: Vec<u8>,
    },
    /// A symbolic link.
    Link {
        /// Where it leads, relative to its directory.
        target: String,
    },
}

/// A release file, taken apart and checked.
#[derive(Clone, Debug)]
pub struct Release {
    /// SHA-256 of the archive, hexadecimal: the name of the directory that k3s would unpack it to.
    pub archive: String,
    /// By path in the archive: `bin/k3s`.
    pub entries: BTreeMap<String, Entry>,
}

/// Why a file is not the release that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// Not a program for Linux at all.
    #[error("it is no program for Linux (ELF, 64 bits)")]
    NotElf,
    /// A program for another processor.
    #[error("it is a program for {found}, not for {wanted}")]
    Foreign {
        /// What it is for.
        found: String,
        /// What was wanted.
        wanted: Arch,
    },
    /// Shorter than its own headers say.
    #[error("it is cut off: {found} bytes, and its headers want {wanted}")]
    Truncated {
        /// Bytes there are.
        found: u64,
        /// Bytes there must be at least.
        wanted: u64,
    },
    /// Nothing in it is named like k3s' archive.
    #[error("it is not k3s' release file: it names no embedded archive")]
    NotK3s,
    /// There is a name, and no archive with that digest.
    #[error("its embedded archive is damaged: nothing in it has the SHA-256 {0}")]
    Damaged(String),
    /// It is a release, but another one.
    #[error("it is not {wanted}{}", found.as_ref().map(|found| format!(", it says {found}")).unwrap_or_default())]
    OtherVersion {
        /// What was asked for.
        wanted: String,
        /// What it says it is.
        found: Option<String>,
    },
    /// The archive cannot be unpacked.
    #[error("its embedded archive cannot be unpacked")]
    Unpack(#[source] io::Error),
    /// The archive holds something that no release holds.
    #[error("its embedded archive holds {path:?}, {what}")]
    Entry {
        /// Path in the archive.
        path: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A file's digest is not the one the release states, or nothing is stated for it.
    #[error("{path:?} in its embedded archive is not what the archive's own list of sums says")]
    Sum {
        /// Path in the archive.
        path: String,
    },
    /// A link leads elsewhere than the release states.
    #[error("{path:?} in its embedded archive does not lead where the archive's own list of links says")]
    Link {
        /// Path in the archive.
        path: String,
    },
    /// Something that every release has is not there.
    #[error("its embedded archive has no {0:?}")]
    Missing(&'static str),
}

impl ReleaseError {
    /// What a person may try.
    pub fn hint(&self) -> &'static str {
        match self {
            ReleaseError::Foreign { .. } => {
                "k3s' releases have `k3s` for amd64 and `k3s-arm64` for arm64; a directory may hold both"
            }
            ReleaseError::OtherVersion { .. } => {
                "set `kubernetes.version` to the file's, or get the other file"
            }
            ReleaseError::NotElf | ReleaseError::NotK3s => {
                "get `k3s` or `k3s-arm64` from the project's release page; the file is taken as it is"
            }
            _ => "get the file again, and compare it with the release's list of sums",
        }
    }
}

impl Release {
    /// Takes a release file apart. `version` is what it must be, with `v`: `v1.36.4+k3s1`.
    pub fn read(file: &[u8], arch: Arch, version: &str) -> Result<Release, ReleaseError> {
        check_elf(file, arch)?;
        let (archive, frame) = embedded(file)?;
        check_version(file, version)?;
        let entries = unpack(frame)?;
        for needed in NEEDED {
            if !entries.contains_key(*needed) {
                return Err(ReleaseError::Missing(needed));
            }
        }
        check_sums(&entries)?;
        check_links(&entries)?;
        if let Some(Entry::File { content, .. }) = entries.get("bin/k3s") {
            check_elf(content, arch)?;
        }
        Ok(Release { archive, entries })
    }
}

/// ELF-64, little-endian, for the processor, and as long as its headers say (System V ABI, chapter 4).
fn check_elf(file: &[u8], wanted: Arch) -> Result<(), ReleaseError> {
    let number = |at: usize, bytes: usize| -> Option<u64> {
        let slice = file.get(at..at.checked_add(bytes)?)?;
        Some(slice.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte)))
    };
    if !file.starts_with(b"\x7fELF\x02\x01") {
        return Err(ReleaseError::NotElf);
    }
    let header = || -> Option<(u64, u64)> {
        let machine = number(18, 2)?;
        let mut end = number(40, 8)?.checked_add(number(58, 2)? * number(60, 2)?)?;
        let (start, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        end = end.max(start.checked_add(size * count)?);
        for index in 0..count {
            let at = usize::try_from(start + index * size).ok()?;
            let field = |offset: usize| number(at.checked_add(offset)?, 8);
            // A table beyond the end is what `end` tells of.
            let (Some(offset), Some(length)) = (field(8), field(32)) else { break };
            end = end.max(offset.checked_add(length)?);
        }
        Some((machine, end))
    };
    let found = file.len() as u64;
    let (machine, end) = header().ok_or(ReleaseError::Truncated { found, wanted: 64 })?;
    let names = [(62, "amd64"), (183, "arm64"), (40, "armhf"), (243, "riscv64"), (22, "s390x")];
    let name = names.iter().find(|(number, _)| *number == machine).map(|(_, name)| *name);
    if name != Some(wanted.debian()) {
        let found = name.map_or_else(|| format!("processor {machine}"), str::to_string);
        return Err(ReleaseError::Foreign { found, wanted });
    }
    if end > found {
        return Err(ReleaseError::Truncated { found, wanted: end });
    }
    Ok(())
}

/// Positions of a few bytes in many.
fn positions<'a>(file: &'a [u8], wanted: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let first = wanted.first().copied().unwrap_or_default();
    let candidates = file.iter().enumerate().filter(move |(_, byte)| **byte == first);
    candidates.map(|(at, _)| at).filter(move |at| file[*at..].starts_with(wanted))
}

/// The archive and its digest.
fn embedded(file: &[u8]) -> Result<(String, &[u8]), ReleaseError> {
    let is_digest = |text: &&[u8]| text.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let mut names: Vec<String> = positions(file, SUFFIX)
        .filter_map(|at| file.get(at.checked_sub(64)?..at).filter(is_digest))
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    names.sort();
    names.dedup();
    let first = names.first().ok_or(ReleaseError::NotK3s)?;
    for at in positions(file, MAGIC) {
        // Most places that look like a frame are none; the largest run of whole frames is hashed.
        let mut end = at;
        while file[end..].starts_with(MAGIC)
            && let Ok(length) = zstd_safe::find_frame_compressed_size(&file[end..])
        {
            end += length;
            let digest = hex::encode(Sha256::digest(&file[at..end]));
            if names.contains(&digest) {
                return Ok((digest, &file[at..end]));
            }
        }
    }
    Err(ReleaseError::Damaged(first.clone()))
}

/// A release says its own version somewhere in its data.
fn check_version(file: &[u8], wanted: &str) -> Result<(), ReleaseError> {
    let follows = |at: usize| file.get(at + wanted.len()).is_some_and(u8::is_ascii_digit);
    if positions(file, wanted.as_bytes()).any(|at| !follows(at)) {
        return Ok(());
    }
    let found = positions(file, b"+k3s").find_map(|at| {
        let start = file[..at].iter().rposition(|b| !(b.is_ascii_digit() || *b == b'.'))?;
        let end = at + 4 + file[at + 4..].iter().take_while(|b| b.is_ascii_digit()).count();
        let text = String::from_utf8_lossy(&file[start..end]).into_owned();
        text.starts_with('v').then_some(text)
    });
    Err(ReleaseError::OtherVersion { wanted: wanted.to_string(), found })
}

/// A path of the archive without `./`, or nothing where it leads out of it.
fn inside(path: &Path) -> Option<PathBuf> {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::Normal(part) => clean.push(part),
            Component::CurDir => {}
            Component::ParentDir if clean.pop() => {}
            _ => return None,
        }
    }
    Some(clean)
}

fn unpack(frame: &[u8]) -> Result<BTreeMap<String, Entry>, ReleaseError> {
    let failed = ReleaseError::Unpack;
    let mut decoder = zstd::stream::read::Decoder::with_buffer(frame).map_err(failed)?;
    decoder.window_log_max(WINDOW_LOG).map_err(failed)?;
    let mut archive = tar::Archive::new(decoder.take(LIMIT));
    let mut entries = BTreeMap::new();
    for entry in archive.entries().map_err(failed)? {
        let mut entry = entry.map_err(failed)?;
        let raw = entry.path().map_err(failed)?.into_owned();
        let refused = |what| ReleaseError::Entry { path: raw.display().to_string(), what };
        let escapes = raw.components().any(|part| matches!(part, Component::ParentDir | Component::RootDir));
        let path = inside(&raw).filter(|_| !escapes).ok_or_else(|| refused("which leads out of it"))?;
        let path = path.to_str().ok_or_else(|| refused("whose name is no text"))?.to_string();
        let target = |entry: &tar::Entry<'_, _>| -> Result<PathBuf, ReleaseError> {
            let name = entry.link_name().map_err(failed)?;
            Ok(name.ok_or_else(|| refused("a link without a target"))?.into_owned())
        };
        let kind = entry.header().entry_type();
        let made = if kind.is_dir() {
            continue;
        } else if kind.is_file() {
            let mode = (entry.header().mode().map_err(failed)? & 0o777) as u16;
            let mut content = Vec::with_capacity(entry.size().min(LIMIT) as usize);
            entry.read_to_end(&mut content).map_err(failed)?;
            Entry::File { mode, content }
        } else if kind.is_symlink() {
            let target = target(&entry)?;
            let parent = Path::new(&path).parent().unwrap_or(Path::new(""));
            let text =
                target.to_str().filter(|_| target.is_relative() && inside(&parent.join(&target)).is_some());
            Entry::Link { target: text.ok_or_else(|| refused("a link that leads out of it"))?.to_string() }
        } else if kind.is_hard_link() {
            let target = inside(&target(&entry)?).ok_or_else(|| refused("a link that leads out of it"))?;
            let known = target.to_str().and_then(|target| entries.get(target)).cloned();
            known.ok_or_else(|| refused("a hard link to what is not there"))?
        } else {
            return Err(refused("which is neither file, link nor directory"));
        };
        if entries.insert(path, made).is_some() {
            return Err(refused("twice"));
        }
    }
    Ok(entries)
}

/// Two words a line, by path in the archive.
fn list<'a>(
    entries: &'a BTreeMap<String, Entry>,
    name: &'static str,
    path_first: bool,
) -> Result<BTreeMap<String, &'a str>, ReleaseError> {
    let Some(Entry::File { content, .. }) = entries.get(name) else {
        return Err(ReleaseError::Missing(name));
    };
    let text = std::str::from_utf8(content).map_err(|_| ReleaseError::Missing(name))?;
    let mut list = BTreeMap::new();
    for line in text.lines() {
        let mut words = line.split_whitespace();
        let (Some(first), Some(second)) = (words.next(), words.next()) else { continue };
        let (path, value) = if path_first { (first, second) } else { (second, first) };
        // Written by find(1) and sed(1): some begin with `./`, some with `/`.
        let path = path.trim_start_matches('.').trim_start_matches('/');
        list.insert(format!("bin/{path}"), value);
    }
    if list.is_empty() { Err(ReleaseError::Missing(name)) } else { Ok(list) }
}

/// Every file has the digest stated for it, and every stated file is there. Files that begin with a dot have none.
fn check_sums(entries: &BTreeMap<String, Entry>) -> Result<(), ReleaseError> {
    let sums = list(entries, "bin/.sha256sums", false)?;
    for path in sums.keys() {
        if !matches!(entries.get(path), Some(Entry::File { .. })) {
            return Err(ReleaseError::Sum { path: path.clone() });
        }
    }
    for (path, entry) in entries {
        let Entry::File { content, .. } = entry else { continue };
        if !path.starts_with("bin/") || path.split('/').any(|part| part.starts_with('.')) {
            continue;
        }
        if sums.get(path).copied() != Some(hex::encode(Sha256::digest(content)).as_str()) {
            return Err(ReleaseError::Sum { path: path.clone() });
        }
    }
    Ok(())
}

/// Every link leads where it is stated to, and every stated link is there.
fn check_links(entries: &BTreeMap<String, Entry>) -> Result<(), ReleaseError> {
    let links = list(entries, "bin/.links", true)?;
    let found = entries.iter().filter_map(|(path, entry)| match entry {
        Entry::Link { target } if path.starts_with("bin/") => Some((path.as_str(), target.as_str())),
        _ => None,
    });
    let found: BTreeMap<&str, &str> = found.collect();
    for path in links.keys().map(String::as_str).chain(found.keys().copied()) {
        if links.get(path).copied() != found.get(path).copied() {
            return Err(ReleaseError::Link { path: path.to_string() });
        }
    }
    Ok(())
}
