//! `/etc/ld.so.cache`, which no ldconfig of the computer that builds can write for another architecture.
//!
//! Format: glibc's `sysdeps/generic/dl-cache.h`, `struct cache_file_new`, which alone every glibc since 2.32 writes:
//! a header of 48 bytes, entries of 24 bytes in descending order, then the strings, whose offsets count from the
//! start of the file.

use super::{SubstituteError, elf::Elf, tree};
use crate::tree::{Kind, Tree, TreePath};
use bramble_api::names::Arch;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

const SELF: &str = "ldcache";
const MAGIC: &[u8; 20] = b"glibc-ld.so.cache1.1";
const HEADER: usize = 48;
const ENTRY: usize = 24;
/// `cache_file_new_flags_endian_little`.
const LITTLE: u8 = 2;

/// `FLAG_ELF_LIBC6` with the architecture's own bits (`FLAG_X8664_LIB64`, `FLAG_AARCH64_LIB64`).
fn flags(arch: Arch) -> u32 {
    match arch {
        Arch::Amd64 => 0x0303,
        Arch::Arm64 => 0x0a03,
    }
}

/// Finds the libraries of the directories that `ld.so.conf` names and of `/usr/lib`, makes the links by soname that
/// are missing, and writes the cache.
///
/// # Errors
/// A refusal of the tree.
pub fn apply(root: &mut Tree, arch: Arch) -> Result<(), SubstituteError> {
    let mut seen: BTreeSet<TreePath> = BTreeSet::new();
    let mut libraries: BTreeMap<Vec<u8>, String> = BTreeMap::new();
    let mut links: Vec<(String, Vec<u8>)> = Vec::new();
    for dir in directories(root) {
        let Ok(real) = root.resolve(&dir) else { continue };
        if !seen.insert(real) {
            continue;
        }
        for (path, node) in root.list(&dir) {
            let name = path.name();
            if !is_library_name(name)
                || !matches!(node.kind, Kind::File(_) | Kind::Symlink(_) | Kind::Hardlink(_))
            {
                continue;
            }
            let Some(soname) = root.read(path.as_bytes()).and_then(|bytes| Elf::new(bytes)?.soname()) else {
                continue;
            };
            let linked = matches!(node.kind, Kind::Symlink(_));
            let key = match soname {
                Some(soname) if !linked && soname != name => {
                    let Some(link) = path.parent().and_then(|parent| parent.join(soname)) else { continue };
                    if root.get(&link).is_none() {
                        links.push((link.to_text(), name.to_vec()));
                    }
                    soname
                }
                _ => name,
            };
            let at = format!("{dir}/{}", String::from_utf8_lossy(key));
            libraries.entry(key.to_vec()).or_insert(at);
        }
    }
    for (link, target) in links {
        root.symlink(link, target).map_err(tree(SELF))?;
    }
    root.file("/etc/ld.so.cache", 0o644, write(&libraries, flags(arch))).map_err(tree(SELF))?;
    Ok(())
}

/// Directories in the order in which ldconfig looks: those of the configuration, then the built-in ones.
fn directories(root: &Tree) -> Vec<String> {
    let mut out = Vec::new();
    let mut files: Vec<TreePath> = root
        .list("/etc/ld.so.conf.d")
        .into_iter()
        .filter(|(path, _)| path.name().ends_with(b".conf"))
        .map(|(path, _)| path)
        .collect();
    files.sort();
    for file in files {
        let lines = root.read_text(file.as_bytes()).unwrap_or_default().lines().map(str::trim);
        out.extend(
            lines.filter(|line| line.starts_with('/')).map(|line| line.trim_end_matches('/').to_string()),
        );
    }
    out.extend(["/lib".to_string(), "/usr/lib".to_string()]);
    out
}

fn is_library_name(name: &[u8]) -> bool {
    let has = |part: &[u8]| name.windows(part.len()).any(|window| window == part);
    (name.starts_with(b"lib") || name.starts_with(b"ld-")) && has(b".so")
}

fn write(libraries: &BTreeMap<Vec<u8>, String>, flags: u32) -> Vec<u8> {
    let mut entries: Vec<(&[u8], &str)> =
        libraries.iter().map(|(name, path)| (name.as_slice(), path.as_str())).collect();
    // Descending: glibc's search halves the table that way round.
    entries.sort_by(|a, b| compare(b.0, a.0));
    let mut table = Vec::new();
    let mut strings = Vec::new();
    let base = HEADER + ENTRY * entries.len();
    for (name, path) in &entries {
        let mut put = |text: &[u8]| {
            let at = (base + strings.len()) as u32;
            strings.extend_from_slice(text);
            strings.push(0);
            at
        };
        let (key, value) = (put(name), put(path.as_bytes()));
        for word in [flags, key, value, 0, 0, 0] {
            table.extend_from_slice(&word.to_le_bytes());
        }
    }
    let mut out = MAGIC.to_vec();
    out.extend_from_slice(&(entries.len() as u32).to_le_bytes());
    out.extend_from_slice(&(strings.len() as u32).to_le_bytes());
    out.extend_from_slice(&[LITTLE, 0, 0, 0]);
    // No extensions, three unused words.
    out.extend_from_slice(&[0; 16]);
    out.extend(table);
    out.extend(strings);
    out
}

/// glibc's `_dl_cache_libcmp`: runs of digits compare as numbers, and are greater than anything else.
pub(super) fn compare(a: &[u8], b: &[u8]) -> Ordering {
    let (mut i, mut j) = (0, 0);
    let at = |text: &[u8], index: usize| text.get(index).copied().unwrap_or(0);
    let number = |text: &[u8], index: &mut usize| {
        let mut value: u64 = 0;
        while at(text, *index).is_ascii_digit() {
            value = value.wrapping_mul(10).wrapping_add(u64::from(at(text, *index) - b'0'));
            *index += 1;
        }
        value
    };
    while i < a.len() {
        let (x, y) = (at(a, i), at(b, j));
        let order = match (x.is_ascii_digit(), y.is_ascii_digit()) {
            (true, true) => number(a, &mut i).cmp(&number(b, &mut j)),
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            (false, false) => {
                (i, j) = (i + 1, j + 1);
                // As signed characters, which glibc's comparison of `char` means on amd64; names are ASCII.
                x.cmp(&y)
            }
        };
        if order != Ordering::Equal {
            return order;
        }
    }
    at(a, i).cmp(&at(b, j))
}
