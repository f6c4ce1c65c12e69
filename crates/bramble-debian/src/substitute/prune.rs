//! What an image leaves out, and why.

use crate::tree::{Kind, Node, Tree, TreePath};
use std::collections::BTreeMap;

/// Path, reason.
const PATHS: &[(&str, &str)] = &[
    ("etc/init.d", "System V init"),
    ("etc/initramfs-tools", "initramfs generators"),
    ("etc/rc0.d", "System V init"),
    ("etc/rc1.d", "System V init"),
    ("etc/rc2.d", "System V init"),
    ("etc/rc3.d", "System V init"),
    ("etc/rc4.d", "System V init"),
    ("etc/rc5.d", "System V init"),
    ("etc/rc6.d", "System V init"),
    ("etc/rcS.d", "System V init"),
    // It would automount the ESP, whose bytes are under a hash.
    ("usr/lib/systemd/system-generators/systemd-gpt-auto-generator", "units that must not appear"),
    // Would make units of what System V init scripts are left.
    ("usr/lib/systemd/system-generators/systemd-sysv-generator", "units that must not appear"),
    // Input of a database of 13 MB that a server has no use for: names of USB devices, layouts of keyboards.
    ("usr/lib/udev/hwdb.d", "hardware names"),
    ("usr/share/bash-completion", "for people at a shell"),
    ("usr/share/bug", "documentation"),
    ("usr/share/debconf", "package configuration"),
    ("usr/share/doc-base", "documentation"),
    ("usr/share/fish", "for people at a shell"),
    ("usr/share/info", "documentation"),
    ("usr/share/initramfs-tools", "initramfs generators"),
    ("usr/share/lintian", "documentation"),
    ("usr/share/locale", "translations"),
    ("usr/share/man", "documentation"),
    ("usr/share/man-db", "documentation"),
    ("usr/share/menu", "for people at a desktop"),
    ("usr/share/perl5/Debconf", "package configuration"),
    ("usr/share/pixmaps", "for people at a desktop"),
    ("usr/share/reportbug", "documentation"),
    ("usr/share/zsh", "for people at a shell"),
    ("var/cache/debconf", "package configuration"),
    ("var/lib/ucf", "package configuration"),
];

/// Takes away what the table says, and documentation but for the copyright files, which licences ask for. Gives the
/// bytes by reason.
pub fn apply(root: &mut Tree) -> BTreeMap<&'static str, u64> {
    let mut bytes: BTreeMap<&'static str, u64> = BTreeMap::new();
    // Of a directory that goes only itself is shown to the closure below, so its bytes are summed beforehand.
    for (path, node) in root.iter() {
        let Kind::File(content) = &node.kind else { continue };
        let above = std::iter::successors(path.parent(), TreePath::parent);
        let dirs = above.filter_map(|dir| root.get(&dir).and_then(|node| reason(&dir, node)));
        if let Some(reason) = reason(path, node).or(dirs.last()) {
            *bytes.entry(reason).or_default() += content.len() as u64;
        }
    }
    root.prune(|path, node| reason(path, node).is_some());
    bytes
}

fn reason(path: &TreePath, node: &Node) -> Option<&'static str> {
    let path = path.as_bytes();
    if let Some(rest) = path.strip_prefix(b"usr/share/doc/") {
        // Links stay: a package may point at the directory of another that holds the copyright.
        let keep = node.is_dir() || rest.ends_with(b"/copyright") || matches!(node.kind, Kind::Symlink(_));
        return (!keep).then_some("documentation");
    }
    PATHS.iter().find(|(entry, _)| path == entry.as_bytes()).map(|(_, reason)| *reason)
}
