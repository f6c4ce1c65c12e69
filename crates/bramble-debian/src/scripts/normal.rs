//! The text of a script that the gate looks at.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Which script of a package.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ScriptKind {
    /// Before unpacking.
    Preinst,
    /// After unpacking.
    Postinst,
}

impl ScriptKind {
    /// Both kinds, in the order in which dpkg would run them.
    pub const ALL: [ScriptKind; 2] = [ScriptKind::Preinst, ScriptKind::Postinst];

    /// Name of the file in the control archive.
    pub fn name(self) -> &'static str {
        match self {
            ScriptKind::Preinst => "preinst",
            ScriptKind::Postinst => "postinst",
        }
    }
}

impl std::fmt::Display for ScriptKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// Generators of debhelper whose blocks are cut, and what stands for them. A block of any other generator stays in
/// the text and so needs a review.
pub const BLOCKS: &[(&str, &str)] = &[
    ("dh_bugfiles", "none: only a removal from older versions"),
    ("dh_installalternatives", "alternatives"),
    ("dh_installdeb", "none: dpkg-maintscript-helper moves configuration of older versions"),
    ("dh_installdebconf", "none: nobody is asked anything, every template keeps its default"),
    ("dh_installinit", "none: links of System V init; systemd is pid 1"),
    ("dh_installman", "none: manual pages are not in the image"),
    ("dh_installmenu", "none: no desktop"),
    ("dh_installmodules", "depmod"),
    ("dh_installsystemd", "units"),
    ("dh_installsystemduser", "none: nobody has a session"),
    ("dh_installsysusers", "users"),
    ("dh_installtmpfiles", "none: systemd-tmpfiles does it at every boot"),
    ("dh_installudev", "none: no udev runs at build time"),
    ("dh_installxmlcatalogs", "none: no XML tools"),
    ("dh_makeshlibs", "ldcache"),
    ("dh_runit", "none: runit is not the init"),
    ("dh_systemd_enable", "units"),
    ("dh_systemd_start", "none: nothing runs at build time"),
];

const BEGIN: &str = "# Automatically added by ";
const END: &str = "# End automatically added section";

/// A maintainer script, normalised.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Script {
    /// Package; in packages that carry the kernel's release in their name it is replaced by `@ABI@`.
    pub package: String,
    /// Which script.
    pub kind: ScriptKind,
    /// What is left when generated blocks are cut and the kernel's release is replaced.
    pub text: String,
    /// SHA-256 of `text`, hexadecimal.
    pub sha256: String,
}

impl Script {
    /// Normalises a script: known generated blocks cut, white space at the ends of lines and empty lines dropped, and
    /// in packages named after a kernel's release (`linux-modules-7.2.12+deb13-amd64`) that release replaced, so that
    /// a new kernel is not a new script.
    pub fn new(package: &str, kind: ScriptKind, text: &str) -> Self {
        let abi = kernel_abi(package);
        let replace = |text: &str| abi.map_or_else(|| text.to_string(), |abi| text.replace(abi, "@ABI@"));
        let mut out = String::new();
        for line in without_blocks(text) {
            let line = line.trim_end();
            if !line.is_empty() {
                out.push_str(&replace(line));
                out.push('\n');
            }
        }
        let sha256 = hex::encode(Sha256::digest(&out));
        Script { package: replace(package), kind, text: out, sha256 }
    }

    /// Nothing is left but comments and the frame (`set -e`, `exit 0`): no review is needed.
    pub fn is_empty(&self) -> bool {
        self.text
            .lines()
            .map(str::trim)
            .all(|line| line.starts_with('#') || matches!(line, "set -e" | "exit 0" | ""))
    }
}

/// The release in the name of a package of one kernel: what follows `linux-WORD-`, if it begins with a digit.
fn kernel_abi(package: &str) -> Option<&str> {
    let (_, abi) = package.strip_prefix("linux-")?.split_once('-')?;
    abi.starts_with(|c: char| c.is_ascii_digit()).then_some(abi)
}

fn without_blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        if let Some(generator) = line.strip_prefix(BEGIN) {
            let name = generator.split('/').next().unwrap_or_default();
            inside = BLOCKS.iter().any(|(known, _)| *known == name);
            return !inside;
        }
        if inside && *line == END {
            inside = false;
            return false;
        }
        !inside
    })
}

/// The lines of blocks made by one generator.
pub(crate) fn blocks_of<'a>(text: &'a str, generator: &'a str) -> impl Iterator<Item = &'a str> {
    let mut inside = false;
    text.lines().filter(move |line| {
        if let Some(found) = line.strip_prefix(BEGIN) {
            inside = found.split('/').next() == Some(generator);
            return false;
        }
        if *line == END {
            inside = false;
        }
        inside
    })
}
