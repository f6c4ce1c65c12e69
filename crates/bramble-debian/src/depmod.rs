//! The kernel of a tree, its modules, and the tables by which they are found.

mod index;
mod keep;
mod scan;
mod tables;

use crate::substitute::Package;
use crate::tree::{Content, Kind, Tree, TreeError, TreePath};
use scan::{Scanned, underscores};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

const MODULES: &str = "usr/lib/modules";

/// Why the kernel of a set cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// The set has no kernel, or several.
    #[error("a set needs exactly one kernel, this one has {}: {}", found.len(), found.join(", "))]
    NotOne {
        /// Releases of the kernels found.
        found: Vec<String>,
    },
    /// Modules are there and the kernel itself is not.
    #[error("kernel {version} has modules but no image")]
    NoImage {
        /// Release.
        version: String,
    },
    /// Modules that were asked for are neither there nor built in.
    #[error("kernel {version} has no module {}", names.join(", "))]
    NoModule {
        /// Release.
        version: String,
        /// The names, as asked for.
        names: Vec<String>,
    },
    /// A module does not decompress.
    #[error("module {path} does not decompress")]
    Decompress {
        /// The module.
        path: TreePath,
        /// Why.
        source: io::Error,
    },
    /// A module is no ELF file of 64 bits.
    #[error("module {path} is damaged")]
    BadModule {
        /// The module.
        path: TreePath,
    },
    /// The cache cannot be written.
    #[error("cannot write {}", path.display())]
    Cache {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: io::Error,
    },
    /// The tree refused a table.
    #[error("kernel tables")]
    Tree(#[from] TreeError),
}

/// A kernel and its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Release, as in `/usr/lib/modules/RELEASE`.
    pub version: String,
    /// The kernel image as packaged: a bzImage or an arm64 Image, both with an EFI stub.
    pub image: Content,
    /// Device trees by path (`broadcom/bcm2711-rpi-4-b.dtb`); none on amd64. They are not in the tree.
    pub device_trees: BTreeMap<String, Content>,
    modules: BTreeMap<String, Known>,
    aliases: BTreeMap<String, Vec<String>>,
    /// Names of loadable modules, in the tree or not, by what a device tree calls their device.
    compatible: BTreeMap<String, Vec<String>>,
    /// What built-in drivers drive, by the same names.
    builtin_compatible: BTreeSet<String>,
    builtin: BTreeSet<String>,
}

/// A module that is in the tree.
#[derive(Clone, Debug)]
struct Known {
    path: TreePath,
    content: Content,
    /// Names of what it needs.
    depends: Vec<String>,
    before: Vec<String>,
    after: Vec<String>,
}

/// A module to be loaded, uncompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name with underscores, as in `/proc/modules`.
    pub name: String,
    /// Where it lies in the tree (compressed there).
    pub path: TreePath,
    /// The ELF file, to be given to the kernel as it is.
    pub bytes: Content,
}

impl Kernel {
    /// The modules of these names or aliases (`crypto-crc32c`), with all that they need, hard or soft, each once and
    /// in an order in which they can be loaded one after the other. What is built in is left out; a soft dependency
    /// that this kernel does not have is no error.
    ///
    /// # Errors
    /// Every name that the kernel has neither as a module nor built in; a module that does not decompress.
    pub fn closure(&self, names: &[&str]) -> Result<Vec<Module>, KernelError> {
        let mut order = Vec::new();
        let mut seen = BTreeSet::new();
        let missing: Vec<String> = names
            .iter()
            .filter(|name| !self.visit(name, &mut seen, &mut order))
            .map(|name| name.to_string())
            .collect();
        if !missing.is_empty() {
            return Err(KernelError::NoModule { version: self.version.clone(), names: missing });
        }
        order.into_iter().map(|name| self.load(name)).collect()
    }

    /// The kernel has this module, loadable or built in.
    pub fn has(&self, name: &str) -> bool {
        let name = underscores(name);
        self.builtin.contains(&name) || self.modules.contains_key(&name)
    }

    /// Loadable modules that drive what a device tree calls this (`compatible`), whether they are in the tree or not;
    /// none where the driver is built in, or where nothing drives it.
    pub fn drivers(&self, compatible: &str) -> &[String] {
        self.compatible.get(compatible).map_or(&[], Vec::as_slice)
    }

    /// Whether a built-in driver drives what a device tree calls this.
    pub fn drives(&self, compatible: &str) -> bool {
        self.builtin_compatible.contains(compatible)
    }

    /// Names of the loadable modules in the tree.
    pub fn modules(&self) -> impl Iterator<Item = &str> {
        self.modules.keys().map(String::as_str)
    }

    /// Puts a module behind what it needs; `false` when there is none of that name.
    fn visit<'a>(&'a self, name: &str, seen: &mut BTreeSet<&'a str>, order: &mut Vec<&'a str>) -> bool {
        let name = underscores(name);
        if let Some((name, module)) = self.modules.get_key_value(&name) {
            if seen.insert(name) {
                for needed in module.depends.iter().chain(&module.before) {
                    self.visit(needed, seen, order);
                }
                order.push(name);
                for after in &module.after {
                    self.visit(after, seen, order);
                }
            }
            return true;
        }
        if self.builtin.contains(&name) {
            return true;
        }
        let Some(targets) = self.aliases.get(&name) else { return false };
        for target in targets {
            self.visit(target, seen, order);
        }
        true
    }

    fn load(&self, name: &str) -> Result<Module, KernelError> {
        let Some(known) = self.modules.get(name) else {
            return Err(KernelError::NoModule {
                version: self.version.clone(),
                names: vec![name.to_string()],
            });
        };
        let bytes = scan::decompress(&known.path.to_text(), &known.content)
            .map_err(|source| KernelError::Decompress { path: known.path.clone(), source })?;
        Ok(Module { name: name.to_string(), path: known.path.clone(), bytes })
    }
}

/// Takes the kernel out of the tree: its image and device trees go, as do the modules that no supported machine needs
/// (bytes by reason are added to `pruned`), and the tables of those that stay are written. `keep` names modules that
/// stay in any case.
///
/// # Errors
/// See [`KernelError`]; a name in `keep` that the kernel does not have.
pub fn take(
    tree: &mut Tree,
    packages: &[Package],
    keep: &[String],
    cache: &Path,
    pruned: &mut BTreeMap<&'static str, u64>,
) -> Result<Kernel, KernelError> {
    let version = version(tree)?;
    let home = TreePath::new(format!("{MODULES}/{version}")).unwrap_or_default();
    let files = module_files(tree, &home);
    let mut scanned = scan::scan(&files, cache, &key(packages, &home))?;
    sort(&mut scanned, tree.read_text([home.as_bytes(), b"/modules.order"].concat()).unwrap_or_default());

    let text =
        |name: &str| tree.read(format!("{}/{name}", home.to_text())).cloned().unwrap_or_else(Content::empty);
    let builtin_list = text("modules.builtin");
    let builtin_modinfo = text("modules.builtin.modinfo");
    let builtin_list = String::from_utf8_lossy(&builtin_list).into_owned();
    let builtin: BTreeSet<String> = builtin_list.lines().map(scan::name_of).collect();

    let stay = staying(&scanned, keep, &builtin)
        .map_err(|names| KernelError::NoModule { version: version.clone(), names })?;
    let contents: BTreeMap<&str, &Content> =
        files.iter().map(|(path, content)| (path.as_str(), content)).collect();
    for module in scanned.iter().filter(|module| !stay.contains(module.name.as_str())) {
        let size = contents.get(module.path.as_str()).map_or(0, |content| content.len() as u64);
        *pruned.entry(keep::reason(&module.path).unwrap_or("modules")).or_default() += size;
    }
    let kept: Vec<&Scanned> = scanned.iter().filter(|module| stay.contains(module.name.as_str())).collect();
    let mut kernel = Kernel {
        image: image(tree, &version, &home)
            .ok_or_else(|| KernelError::NoImage { version: version.clone() })?,
        device_trees: device_trees(tree, &home),
        modules: BTreeMap::new(),
        aliases: BTreeMap::new(),
        compatible: compatible(&scanned),
        builtin_compatible: builtin_compatible(&builtin_modinfo),
        version,
        builtin,
    };
    for module in &kept {
        kernel.add(module, &home, contents.get(module.path.as_str()).copied());
    }
    let tables = tables::tables(&kept, &builtin_list, &builtin_modinfo);
    clear(tree, &home, &kernel);
    for (name, bytes) in tables {
        tree.file(format!("{}/{name}", home.to_text()), 0o644, bytes)?;
    }
    Ok(kernel)
}

impl Kernel {
    fn add(&mut self, module: &Scanned, home: &TreePath, content: Option<&Content>) {
        let path = TreePath::new(format!("{}/{}", home.to_text(), module.path)).unwrap_or_default();
        let (before, after) = soft(module);
        for alias in module.aliases.iter().filter_map(|alias| tables::normalise_alias(alias)) {
            // Patterns are for devices; a soft dependency names an alias in full.
            if !alias.contains(['*', '?', '[']) {
                self.aliases.entry(alias).or_default().push(module.name.clone());
            }
        }
        let content = content.cloned().unwrap_or_else(Content::empty);
        let known = Known { path, content, depends: module.depends.clone(), before, after };
        self.modules.insert(module.name.clone(), known);
    }
}

/// Modules by the device trees' names of what they drive.
fn compatible(modules: &[Scanned]) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for module in modules {
        for alias in &module.aliases {
            if let Some(name) = device_tree_name(alias) {
                found.entry(name.to_string()).or_default().push(module.name.clone());
            }
        }
    }
    found
}

/// The same for what is built in: `module.alias=VALUE`, closed by a NUL each.
fn builtin_compatible(modinfo: &[u8]) -> BTreeSet<String> {
    let entries = modinfo.split(|byte| *byte == 0).filter_map(|entry| std::str::from_utf8(entry).ok());
    let aliases = entries.filter_map(|entry| entry.split_once(".alias=")).map(|(_, alias)| alias);
    aliases.filter_map(device_tree_name).map(str::to_string).collect()
}

/// The name in an alias of a device tree's device; each is there twice, alone and followed by others.
fn device_tree_name(alias: &str) -> Option<&str> {
    alias.strip_prefix("of:N*T*C").filter(|name| !name.contains('*'))
}

fn version(tree: &Tree) -> Result<String, KernelError> {
    let homes = tree.list(MODULES);
    let homes = homes.iter().filter(|(path, _)| tree.exists([path.as_bytes(), b"/modules.order"].concat()));
    let mut found: Vec<String> =
        homes.map(|(path, _)| String::from_utf8_lossy(path.name()).into_owned()).collect();
    match found.pop() {
        Some(version) if found.is_empty() => Ok(version),
        last => {
            found.extend(last);
            Err(KernelError::NotOne { found })
        }
    }
}

/// Paths below the kernel's directory, with contents.
fn module_files(tree: &Tree, home: &TreePath) -> Vec<(String, Content)> {
    let prefix = home.as_bytes().len() + 1;
    let files = tree.below(home).filter(|(path, _)| {
        let name = path.name();
        [".ko", ".ko.xz", ".ko.zst", ".ko.gz"].iter().any(|suffix| name.ends_with(suffix.as_bytes()))
    });
    files
        .filter_map(|(path, node)| {
            let relative = String::from_utf8_lossy(&path.as_bytes()[prefix..]).into_owned();
            Some((relative, tree.content(node)?.clone()))
        })
        .collect()
}

/// Name under which a scan is cached: a digest over the packages that bring modules.
fn key(packages: &[Package], home: &TreePath) -> String {
    let mut hash = Sha256::new();
    for package in packages {
        if package.deb.entries.iter().any(|entry| entry.path.starts_with(home)) {
            hash.update(package.locked.sha256.as_bytes());
        }
    }
    hex::encode(hash.finalize())
}

/// By the kernel's own order, which decides which module is tried first; what that does not name comes last by path.
fn sort(modules: &mut [Scanned], order: &str) {
    let place: BTreeMap<&str, usize> = order.lines().enumerate().map(|(at, path)| (path, at)).collect();
    let plain = |path: &str| path.split_once(".ko").map_or(String::new(), |(stem, _)| format!("{stem}.ko"));
    modules.sort_by_cached_key(|module| {
        (place.get(plain(&module.path).as_str()).copied().unwrap_or(usize::MAX), module.path.clone())
    });
}

/// Names of the modules that stay: all that the table does not name, what the caller names, and what those need.
fn staying<'a>(
    modules: &'a [Scanned],
    keep: &[String],
    builtin: &BTreeSet<String>,
) -> Result<BTreeSet<&'a str>, Vec<String>> {
    let by_name: BTreeMap<&str, &Scanned> =
        modules.iter().map(|module| (module.name.as_str(), module)).collect();
    let mut by_alias: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for module in modules {
        for alias in &module.aliases {
            by_alias.entry(alias).or_default().push(&module.name);
        }
    }
    let mut todo: Vec<&str> = modules
        .iter()
        .filter(|module| keep::reason(&module.path).is_none())
        .map(|module| module.name.as_str())
        .collect();
    let mut missing = Vec::new();
    for name in keep {
        let plain = underscores(name);
        match by_name.get_key_value(plain.as_str()) {
            Some((name, _)) => todo.push(name),
            None if builtin.contains(&plain) => {}
            None => missing.push(name.clone()),
        }
    }
    if !missing.is_empty() {
        return Err(missing);
    }
    let mut stay = BTreeSet::new();
    while let Some(name) = todo.pop() {
        let Some((name, module)) = by_name.get_key_value(name) else { continue };
        if !stay.insert(*name) {
            continue;
        }
        let (before, after) = soft(module);
        for needed in module.depends.iter().chain(&before).chain(&after) {
            match by_name.get_key_value(underscores(needed).as_str()) {
                Some((needed, _)) => todo.push(needed),
                None => todo.extend(by_alias.get(needed.as_str()).into_iter().flatten()),
            }
        }
    }
    Ok(stay)
}

/// Soft dependencies before and after a module: `pre: a b post: c`.
fn soft(module: &Scanned) -> (Vec<String>, Vec<String>) {
    let (mut before, mut after) = (Vec::new(), Vec::new());
    for line in &module.softdeps {
        let mut list = None;
        for word in line.split_whitespace() {
            match (word, &mut list) {
                ("pre:", _) => list = Some(&mut before),
                ("post:", _) => list = Some(&mut after),
                (word, Some(list)) => list.push(word.to_string()),
                // Words before either are not understood by modprobe either.
                (_, None) => {}
            }
        }
    }
    (before, after)
}

fn image(tree: &Tree, version: &str, home: &TreePath) -> Option<Content> {
    let places = [format!("{}/vmlinuz", home.to_text()), format!("/boot/vmlinuz-{version}")];
    places.iter().find_map(|place| tree.read(place)).cloned()
}

/// Where the packages of different kernels keep device trees; one is a link to the other in some.
fn device_tree_homes(version: &str, home: &TreePath) -> [String; 2] {
    [format!("{}/dtb", home.to_text()), format!("/usr/lib/linux-image-{version}")]
}

fn device_trees(tree: &Tree, home: &TreePath) -> BTreeMap<String, Content> {
    let version = String::from_utf8_lossy(home.name()).into_owned();
    let mut out = BTreeMap::new();
    for dir in device_tree_homes(&version, home) {
        let Ok(dir) = tree.resolve(dir) else { continue };
        for (path, node) in tree.below(&dir).filter(|(path, _)| path.name().ends_with(b".dtb")) {
            let name = String::from_utf8_lossy(&path.as_bytes()[dir.as_bytes().len() + 1..]).into_owned();
            if let Some(content) = tree.content(node) {
                out.insert(name, content.clone());
            }
        }
    }
    out
}

/// Takes away what the image carries elsewhere or not at all.
fn clear(tree: &mut Tree, home: &TreePath, kernel: &Kernel) {
    let version = &kernel.version;
    let mut gone: BTreeSet<TreePath> = [
        format!("{}/vmlinuz", home.to_text()),
        format!("{}/System.map", home.to_text()),
        format!("/boot/vmlinuz-{version}"),
        format!("/boot/System.map-{version}"),
    ]
    .into_iter()
    .chain(device_tree_homes(version, home))
    .filter_map(TreePath::new)
    .collect();
    let stay: BTreeSet<&TreePath> = kernel.modules.values().map(|known| &known.path).collect();
    let prefix = home.as_bytes().len() + 1;
    gone.extend(module_files(tree, home).into_iter().filter_map(|(path, _)| {
        let path = TreePath::new([&home.as_bytes()[..prefix - 1], b"/", path.as_bytes()].concat())?;
        (!stay.contains(&path)).then_some(path)
    }));
    tree.prune(|path, _| gone.contains(path));
    // Directories that hold nothing any more, from the deepest up.
    let dirs: Vec<TreePath> = tree
        .below(home)
        .filter(|(_, node)| matches!(node.kind, Kind::Dir))
        .map(|(path, _)| path.clone())
        .collect();
    for dir in dirs.iter().rev() {
        if tree.below(dir).next().is_none() {
            tree.remove(dir);
        }
    }
}

#[cfg(test)]
mod tests;
