//! What a module says about itself, and the cache of it.
//!
//! Unpacking 4,000 modules takes seconds; what they say depends on the kernel's packages alone and is kept under
//! their digest.

use super::KernelError;
use crate::substitute::elf::Elf;
use crate::tree::{Content, TreePath};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Counts shapes of the cached document.
const FORMAT: u32 = 2;

/// Most bytes of one module; the largest of Debian's (amdgpu) has 30 MB.
const MAX_MODULE: u64 = 256 << 20;

/// A module, scanned.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Scanned {
    /// Below `/usr/lib/modules/RELEASE`, as packaged: `kernel/fs/ext4/ext4.ko.xz`.
    pub(super) path: String,
    /// With underscores.
    pub(super) name: String,
    /// Names of modules whose symbols it uses (`depends=` of `.modinfo`, which the kernel's own build works out).
    pub(super) depends: Vec<String>,
    pub(super) aliases: Vec<String>,
    /// As they stand: `pre: a b post: c`.
    pub(super) softdeps: Vec<String>,
    pub(super) weakdeps: Vec<String>,
    /// Symbols that it offers to others.
    pub(super) exports: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct Document {
    format: u32,
    modules: Vec<Scanned>,
}

/// Scans modules, or finds the result in the cache under `key`. In the order of the paths.
pub(super) fn scan(
    files: &[(String, Content)],
    cache: &Path,
    key: &str,
) -> Result<Vec<Scanned>, KernelError> {
    let file = cache.join("modules").join(format!("{key}.json"));
    if let Some(modules) = read(&file, files) {
        return Ok(modules);
    }
    let modules: Vec<Scanned> =
        files.par_iter().map(|(path, content)| module(path, content)).collect::<Result<_, _>>()?;
    write(&file, &modules).map_err(|source| KernelError::Cache { path: file, source })?;
    Ok(modules)
}

/// A document that is missing, of another shape, or not of these files is as good as none.
fn read(file: &Path, files: &[(String, Content)]) -> Option<Vec<Scanned>> {
    let document: Document = serde_json::from_slice(&fs::read(file).ok()?).ok()?;
    let same = document.modules.iter().map(|m| &m.path).eq(files.iter().map(|(path, _)| path));
    (document.format == FORMAT && same).then_some(document.modules)
}

fn write(file: &Path, modules: &[Scanned]) -> io::Result<()> {
    let dir = file.parent().map_or_else(PathBuf::new, Path::to_path_buf);
    fs::create_dir_all(&dir)?;
    let document = Document { format: FORMAT, modules: modules.to_vec() };
    let part = file.with_extension(format!("part-{}", std::process::id()));
    fs::write(&part, serde_json::to_vec(&document)?)?;
    fs::rename(part, file)
}

fn module(path: &str, content: &Content) -> Result<Scanned, KernelError> {
    let bad = || KernelError::BadModule { path: TreePath::new(path).unwrap_or_default() };
    let bytes = decompress(path, content).map_err(|source| KernelError::Decompress {
        path: TreePath::new(path).unwrap_or_default(),
        source,
    })?;
    let sections = Elf::new(&bytes).and_then(Elf::sections).ok_or_else(bad)?;
    let strings = |name: &[u8]| {
        let section = sections.iter().find(|section| section.name == name);
        let parts = section.map_or(&[][..], |section| section.bytes).split(|b| *b == 0);
        parts.filter(|part| !part.is_empty()).map(|part| String::from_utf8_lossy(part).into_owned())
    };
    let mut out = Scanned { path: path.to_string(), name: name_of(path), ..Scanned::default() };
    for line in strings(b".modinfo") {
        match line.split_once('=') {
            Some(("alias", value)) => out.aliases.push(value.to_string()),
            Some(("softdep", value)) => out.softdeps.push(value.to_string()),
            Some(("weakdep", value)) => out.weakdeps.push(value.to_string()),
            Some(("depends", value)) => {
                out.depends.extend(value.split(',').filter(|name| !name.is_empty()).map(underscores));
            }
            _ => {}
        }
    }
    // Not `__ksymtab_strings`: that section also holds the names of name spaces.
    out.exports
        .extend(strings(b".strtab").filter_map(|name| name.strip_prefix("__ksymtab_").map(str::to_string)));
    Ok(out)
}

/// The bytes of a module, uncompressed.
pub(super) fn decompress(path: &str, content: &Content) -> io::Result<Content> {
    let mut out = Vec::new();
    let reader: Box<dyn Read> = match path.rsplit_once(".ko").map(|(_, suffix)| suffix) {
        Some("") => return Ok(content.clone()),
        Some(".xz") => Box::new(liblzma::read::XzDecoder::new(content.as_slice())),
        Some(".zst") => Box::new(zstd::stream::read::Decoder::new(content.as_slice())?),
        Some(".gz") => Box::new(flate2::read::GzDecoder::new(content.as_slice())),
        _ => return Err(io::Error::from(io::ErrorKind::Unsupported)),
    };
    reader.take(MAX_MODULE).read_to_end(&mut out)?;
    Ok(Content::from(out))
}

/// Name of the module in a file: without directory and suffix, with underscores.
pub(super) fn name_of(path: &str) -> String {
    let file = path.rsplit('/').next().unwrap_or(path);
    underscores(file.split_once(".ko").map_or(file, |(stem, _)| stem))
}

/// The kernel takes `-` and `_` in names for the same, and reports underscores.
pub(super) fn underscores(name: &str) -> String {
    name.replace('-', "_")
}
