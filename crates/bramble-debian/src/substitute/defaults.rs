//! Files that scripts copy from a package's own defaults or write from their own text, where nothing is there yet.

use super::{Package, SubstituteError, find, tree};
use crate::tree::{Node, Tree};

const SELF: &str = "defaults";

/// Package, copied from, to.
const COPIES: &[(&str, &str, &str)] = &[
    ("base-files", "/usr/share/base-files/dot.bashrc", "/root/.bashrc"),
    ("base-files", "/usr/share/base-files/dot.profile", "/root/.profile"),
    ("base-files", "/usr/share/base-files/motd", "/etc/motd"),
    ("base-files", "/usr/share/base-files/profile", "/etc/profile"),
    ("libc-bin", "/usr/share/libc-bin/nsswitch.conf", "/etc/nsswitch.conf"),
    ("nfs-common", "/usr/share/nfs-common/conffiles/idmapd.conf", "/etc/idmapd.conf"),
    ("nfs-common", "/usr/share/nfs-common/conffiles/nfs-common.default", "/etc/default/nfs-common"),
    ("nfs-common", "/usr/share/nfs-common/conffiles/nfs.conf", "/etc/nfs.conf"),
    ("openssh-server", "/usr/share/openssh/sshd_config", "/etc/ssh/sshd_config"),
];

/// Package, path, mode, text. Debian's own words without its comments.
const TEXTS: &[(&str, &str, u16, &str)] = &[
    ("base-files", "/var/log/btmp", 0o660, ""),
    ("base-files", "/var/log/lastlog", 0o664, ""),
    ("base-files", "/var/log/wtmp", 0o664, ""),
    ("kmod", "/etc/modules", 0o644, "# This file is obsolete, see modules-load.d(5).\n"),
    ("libpam-modules", "/etc/environment", 0o644, ""),
    ("libpam-modules", "/etc/security/opasswd", 0o600, ""),
    ("libwrap0", "/etc/hosts.allow", 0o644, "# See hosts_access(5).\n"),
    ("libwrap0", "/etc/hosts.deny", 0o644, "# See hosts_access(5).\n"),
    (
        "netbase",
        "/etc/hosts",
        0o644,
        "127.0.0.1\tlocalhost\n::1\t\tlocalhost ip6-localhost ip6-loopback\nff02::1\t\tip6-allnodes\nff02::2\t\t\
         ip6-allrouters\n",
    ),
    ("netbase", "/etc/networks", 0o644, "default\t\t0.0.0.0\nloopback\t127.0.0.0\nlink-local\t169.254.0.0\n"),
    ("nfs-common", "/var/lib/nfs/state", 0o644, ""),
    ("systemd", "/etc/fstab", 0o644, "# Mounts are made by pid 1, see bramble-node.\n"),
    ("systemd", "/etc/locale.conf", 0o644, "LANG=C.UTF-8\n"),
];

/// Package, path, target of a symbolic link.
const LINKS: &[(&str, &str, &str)] = &[
    ("base-files", "/etc/dpkg/origins/default", "debian"),
    ("base-files", "/usr/local/man", "share/man"),
    ("base-files", "/var/lock", "/run/lock"),
    ("base-files", "/var/run", "/run"),
    ("base-files", "/var/spool/mail", "../mail"),
    ("dash", "/usr/bin/sh", "dash"),
    ("libwtmpdb0", "/var/lib/wtmpdb/wtmp.db", "../../log/wtmp.db"),
    ("openssl", "/usr/lib/ssl", "/etc/ssl"),
    ("systemd-resolved", "/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
];

/// Package, directory, mode.
const DIRS: &[(&str, &str, u16)] = &[
    ("base-files", "/etc/opt", 0o755),
    ("base-files", "/media", 0o755),
    ("base-files", "/mnt", 0o755),
    ("base-files", "/opt", 0o755),
    ("base-files", "/srv", 0o755),
    ("base-files", "/usr/local/bin", 0o755),
    ("base-files", "/usr/local/etc", 0o755),
    ("base-files", "/usr/local/games", 0o755),
    ("base-files", "/usr/local/include", 0o755),
    ("base-files", "/usr/local/lib", 0o755),
    ("base-files", "/usr/local/libexec", 0o755),
    ("base-files", "/usr/local/sbin", 0o755),
    ("base-files", "/usr/local/share/man", 0o755),
    ("base-files", "/usr/local/src", 0o755),
    ("base-files", "/var/mail", 0o2775),
    ("base-files", "/var/opt", 0o755),
    ("ca-certificates", "/usr/local/share/ca-certificates", 0o755),
];

/// Puts whatever of the tables is missing, for packages that are in the set.
///
/// # Errors
/// A default that its package no longer has, or a refusal of the tree.
pub fn apply(root: &mut Tree, packages: &[Package]) -> Result<(), SubstituteError> {
    let here = |package: &str| find(packages, package).is_some();
    let tree = tree(SELF);
    // A directory that a package ships where Debian's script makes a link of it.
    for path in ["/var/run", "/var/lock"] {
        let at = root.resolve_parent(path).map_err(tree)?;
        if here("base-files") && root.get(&at).is_some_and(Node::is_dir) && root.list(path).is_empty() {
            root.remove(&at);
        }
    }
    for (_, path, mode) in DIRS.iter().filter(|(package, ..)| here(package)) {
        if !root.exists(path) {
            root.dir(path, *mode).map_err(tree)?;
        }
    }
    for (_, from, to) in COPIES.iter().filter(|(package, ..)| here(package)) {
        if root.exists(to) {
            continue;
        }
        let content = root.read(from).cloned().ok_or_else(|| SubstituteError::Input {
            substitute: SELF,
            path: crate::tree::TreePath::new(from).unwrap_or_default(),
            reason: "is missing".into(),
        })?;
        root.file(to, 0o644, content).map_err(tree)?;
    }
    for (_, path, target) in LINKS.iter().filter(|(package, ..)| here(package)) {
        let at = root.resolve_parent(path).map_err(tree)?;
        if root.get(&at).is_none() {
            root.symlink(path, target).map_err(tree)?;
        }
    }
    for (_, path, mode, text) in TEXTS.iter().filter(|(package, ..)| here(package)) {
        if !root.exists(path) {
            root.file(path, *mode, *text).map_err(tree)?;
        }
    }
    if here("debianutils") && !root.exists("/etc/shells") {
        let shells = shells(root);
        root.file("/etc/shells", 0o644, shells).map_err(tree)?;
    }
    Ok(())
}

/// What `update-shells` makes: the common part, then each shell that a package names and that is there, under its
/// name in /usr and, as /bin is a link to it, in /bin.
fn shells(root: &Tree) -> String {
    let mut out = root.read_text("/usr/share/debianutils/shells").unwrap_or_default().to_string();
    for (path, _) in root.list("/usr/share/debianutils/shells.d") {
        for shell in root.read_text(path.as_bytes()).unwrap_or_default().lines() {
            let both = [shell.to_string(), shell.strip_prefix("/usr").unwrap_or(shell).to_string()];
            for name in both.iter().filter(|name| name.starts_with('/') && root.exists(name)) {
                if !out.lines().any(|line| line == name) {
                    out += &format!("{name}\n");
                }
            }
        }
    }
    out
}
