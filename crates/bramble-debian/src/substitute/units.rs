//! Which systemd units are enabled: what packages ask for, filtered by presets, then what an image of ours wants.

use super::{Package, SubstituteError, find, tree};
use crate::scripts::{ScriptKind, blocks_of};
use crate::tree::Tree;
use std::collections::{BTreeMap, BTreeSet};

const SELF: &str = "units";
const UNITS: &str = "/usr/lib/systemd/system";
const LINKS: &str = "/etc/systemd/system";

/// Package, unit: enabled by a line in a script's own text, not in a block of debhelper's.
const BY_SCRIPT: &[(&str, &str)] = &[
    ("systemd", "getty@tty1.service"),
    ("systemd", "remote-fs.target"),
    ("systemd", "systemd-pstore.service"),
];

/// Unit, reason: enabled in every image though no package does so.
const ENABLED: &[(&str, &str)] =
    &[("systemd-networkd.service", "the network is configured by files of pid 1's")];

/// Unit, reason: left disabled though a package enables it, unless the caller enables it.
const DISABLED: &[(&str, &str)] = &[
    ("dpkg-db-backup.timer", "the database never changes"),
    ("e2scrub_all.timer", "there is no LVM to scrub on"),
    ("e2scrub_reap.service", "there is no LVM to scrub on"),
    (
        "nfs-blkmap.service",
        "block layouts of parallel NFS, whose pipe fails noisily where the module is missing",
    ),
    ("prometheus-node-exporter.service", "would listen on the network; the machine document starts it"),
    ("rpcbind.service", "would listen on the network; NFS version 3 starts it when it is needed"),
    ("rpcbind.socket", "would listen on the network; NFS version 3 starts it when it is needed"),
    (
        "wpa_supplicant.service",
        "is for programs that ask it over the bus; the machine document starts one an interface",
    ),
    ("ssh.service", "a shell is only there when the file asks for one"),
    ("ssh.socket", "a shell is only there when the file asks for one"),
    ("sshd-keygen.service", "host keys are in the machine document"),
];

/// Unit, reason: can never start.
const MASKED: &[(&str, &str)] = &[
    ("ldconfig.service", "the cache is in the image"),
    ("systemd-boot-random-seed.service", "would write to the ESP, whose bytes are under a hash"),
    ("systemd-boot-update.service", "the boot loader is part of the release and written by the agent"),
    ("systemd-firstboot.service", "would ask questions on the console and block the boot"),
    ("systemd-hwdb-update.service", "nothing of the image changes at boot"),
    ("systemd-journal-catalog-update.service", "nothing of the image changes at boot"),
    ("systemd-machine-id-commit.service", "the machine id is in the machine document"),
    ("systemd-sysusers.service", "accounts are evaluated when the image is built, with locked numbers"),
    ("systemd-update-done.service", "nothing of the image changes at boot"),
];

/// What the caller wants of units.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wishes<'a> {
    /// To enable, whatever packages and presets say.
    pub enable: &'a [String],
    /// To leave disabled; wins over `enable` of packages, loses to `enable` of the caller.
    pub disable: &'a [String],
    /// To mask.
    pub mask: &'a [String],
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Enabled {
    /// Units with links now.
    pub units: Vec<String>,
    /// Wished for, and no file provides them.
    pub missing: Vec<String>,
}

/// Makes the links and writes a preset that says the same, so that nothing that applies presets later changes them.
///
/// # Errors
/// A refusal of the tree.
pub fn apply(root: &mut Tree, packages: &[Package], wishes: Wishes<'_>) -> Result<Enabled, SubstituteError> {
    let presets = Presets::read(root);
    let off = |unit: &str| {
        let wished = wishes.enable.iter().any(|u| u == unit);
        !wished && (wishes.disable.iter().any(|u| u == unit) || DISABLED.iter().any(|(u, _)| *u == unit))
    };
    let mut todo: BTreeSet<String> =
        asked_for(packages).into_iter().filter(|unit| presets.allows(unit)).collect();
    todo.extend(ENABLED.iter().filter(|(unit, _)| exists(root, unit)).map(|(unit, _)| unit.to_string()));
    todo.extend(wishes.enable.iter().cloned());

    let mut done = BTreeSet::new();
    let mut out = Enabled::default();
    let mut links: BTreeMap<String, String> = BTreeMap::new();
    while let Some(unit) = todo.pop_first() {
        if off(&unit) || !done.insert(unit.clone()) {
            continue;
        }
        let Some(install) = Install::read(root, &unit) else {
            out.missing.push(unit);
            continue;
        };
        todo.extend(install.also.iter().filter(|also| !done.contains(*also)).cloned());
        links.extend(install.links);
        out.units.push(unit);
    }
    let tree = tree(SELF);
    for (link, target) in &links {
        root.symlink(format!("{LINKS}/{link}"), target).map_err(tree)?;
    }
    root.symlink(format!("{LINKS}/default.target"), format!("{UNITS}/multi-user.target")).map_err(tree)?;
    let masked = MASKED.iter().map(|(unit, _)| *unit).chain(wishes.mask.iter().map(String::as_str));
    for unit in masked {
        root.symlink(format!("{LINKS}/{unit}"), "/dev/null").map_err(tree)?;
    }
    let enabled: String = out.units.iter().map(|unit| format!("enable {unit}\n")).collect();
    let preset =
        format!("# Every unit that this image starts; made when it was built.\n{enabled}disable *\n");
    root.file("/usr/lib/systemd/system-preset/00-bramble.preset", 0o644, preset).map_err(tree)?;
    Ok(out)
}

/// Names that packages enable on a first install.
fn asked_for(packages: &[Package]) -> BTreeSet<String> {
    let mut out: BTreeSet<String> = BY_SCRIPT
        .iter()
        .filter(|(package, _)| find(packages, package).is_some())
        .map(|(_, unit)| unit.to_string())
        .collect();
    for package in packages {
        let text = package.deb.text(ScriptKind::Postinst.name());
        for generator in ["dh_installsystemd", "dh_systemd_enable"] {
            out.extend(enabled_by(&blocks_of(&text, generator).collect::<Vec<_>>().join("\n")));
        }
    }
    out
}

/// `deb-systemd-helper enable 'x'`, unless it is only for what is installed already (`debian-installed 'x'`).
fn enabled_by(block: &str) -> impl Iterator<Item = String> + '_ {
    let quoted = |line: &str| line.split('\'').nth(1).map(str::to_string);
    let only_if_installed: BTreeSet<String> = block
        .lines()
        .filter(|line| line.contains("deb-systemd-helper debian-installed '"))
        .filter_map(quoted)
        .collect();
    let lines = block.lines().filter(|line| line.trim_start().starts_with("deb-systemd-helper enable '"));
    lines.filter_map(quoted).filter(move |unit| !only_if_installed.contains(unit))
}

fn exists(root: &Tree, unit: &str) -> bool {
    root.exists(format!("{UNITS}/{unit}"))
}

/// `systemd.preset(5)`: the first line that matches decides; files by name.
struct Presets(Vec<(bool, String)>);

impl Presets {
    fn read(root: &Tree) -> Self {
        let mut files: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for dir in ["/usr/lib/systemd/system-preset", "/etc/systemd/system-preset"] {
            for (path, _) in root.list(dir).iter().filter(|(path, _)| path.name().ends_with(b".preset")) {
                files.insert(path.name().to_vec(), path.as_bytes().to_vec());
            }
        }
        let texts = files.values().filter_map(|path| root.read_text(path));
        let rules =
            texts.flat_map(str::lines).filter_map(|line| match line.split_once(char::is_whitespace) {
                Some(("enable", pattern)) => Some((true, pattern.trim().to_string())),
                Some(("disable", pattern)) => Some((false, pattern.trim().to_string())),
                _ => None,
            });
        Presets(rules.collect())
    }

    fn allows(&self, unit: &str) -> bool {
        self.0.iter().find(|(_, pattern)| matches(pattern, unit)).is_none_or(|(enable, _)| *enable)
    }
}

/// Shell patterns as presets use them: `*` for anything; a template's name (`getty@.service`) for its instances.
fn matches(pattern: &str, unit: &str) -> bool {
    if pattern.split_once('*').is_some_and(|(head, tail)| {
        unit.len() >= head.len() + tail.len() && unit.starts_with(head) && unit.ends_with(tail)
    }) {
        return true;
    }
    pattern == unit || template_of(unit).as_deref() == Some(pattern)
}

/// `getty@tty1.service` is an instance of `getty@.service`.
fn template_of(unit: &str) -> Option<String> {
    let (prefix, rest) = unit.split_once('@')?;
    let (instance, suffix) = rest.rsplit_once('.')?;
    (!instance.is_empty()).then(|| format!("{prefix}@.{suffix}"))
}

/// The `[Install]` section of a unit, resolved.
struct Install {
    /// Link below `/etc/systemd/system`, and what it points at.
    links: Vec<(String, String)>,
    also: Vec<String>,
}

impl Install {
    /// `None` when no file provides the unit.
    fn read(root: &Tree, unit: &str) -> Option<Install> {
        let file = template_of(unit).unwrap_or_else(|| unit.to_string());
        // A unit file of the caller's own may lie in /etc, where it wins.
        let path =
            [LINKS, UNITS].into_iter().map(|dir| format!("{dir}/{file}")).find(|path| root.exists(path))?;
        let text = root.read_text(&path)?;
        let mut section = "";
        let mut settings: Vec<(&str, &str)> = Vec::new();
        for line in text.lines().map(str::trim) {
            if line.starts_with('[') {
                section = line;
            } else if let Some((key, value)) = line.split_once('=')
                && section == "[Install]"
            {
                settings.push((key.trim(), value.trim()));
            }
        }
        let default = settings.iter().rfind(|(key, _)| *key == "DefaultInstance").map(|(_, value)| *value);
        // A template itself is enabled as its default instance.
        let unit = match (unit.split_once("@."), default) {
            (Some((prefix, suffix)), Some(instance)) => format!("{prefix}@{instance}.{suffix}"),
            _ => unit.to_string(),
        };
        let (prefix, instance) = match unit.rsplit_once('.').and_then(|(stem, _)| stem.split_once('@')) {
            Some((prefix, instance)) => (prefix, instance),
            None => (unit.rsplit_once('.').map_or(unit.as_str(), |(stem, _)| stem), ""),
        };
        let expand = |word: &str| {
            word.replace("%i", instance).replace("%p", prefix).replace("%n", &unit).replace("%%", "%")
        };
        let mut out = Install { links: Vec::new(), also: Vec::new() };
        for (key, value) in settings {
            for word in value.split_whitespace().map(expand) {
                let link = match key {
                    "WantedBy" => format!("{word}.wants/{unit}"),
                    "RequiredBy" => format!("{word}.requires/{unit}"),
                    "UpheldBy" => format!("{word}.upholds/{unit}"),
                    "Alias" => word,
                    "Also" => {
                        out.also.push(word);
                        continue;
                    }
                    _ => continue,
                };
                out.links.push((link, path.clone()));
            }
        }
        Some(out)
    }
}
