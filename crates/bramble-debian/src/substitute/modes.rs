//! Owners and modes that scripts set after unpacking.

use super::users::Accounts;
use super::{Package, SubstituteError, find, tree};
use crate::tree::Tree;

const SELF: &str = "modes";

/// Package, path, owner, group, mode (`None`: as packaged), recorded with dpkg-statoverride.
type Row = (&'static str, &'static str, &'static str, &'static str, Option<u16>, bool);

const TABLE: &[Row] = &[
    // Starts system services for anyone on the bus: set-uid root, only for the bus itself to run.
    ("dbus", "/usr/lib/dbus-1.0/dbus-daemon-launch-helper", "root", "messagebus", Some(0o4754), true),
    // Set-gid, so that no other process of the user can trace the agent and read keys.
    ("openssh-client", "/usr/bin/ssh-agent", "root", "_ssh", Some(0o2755), false),
    // rpc.statd gives up root and then writes here.
    ("nfs-common", "/var/lib/nfs/sm", "statd", "nogroup", None, false),
    ("nfs-common", "/var/lib/nfs/sm.bak", "statd", "nogroup", None, false),
    ("nfs-common", "/var/lib/nfs/state", "statd", "root", Some(0o644), false),
    ("prometheus-node-exporter", "/var/lib/prometheus", "prometheus", "prometheus", None, false),
    ("base-files", "/var/mail", "root", "mail", Some(0o2775), false),
    ("base-files", "/var/log/wtmp", "root", "utmp", Some(0o664), false),
    ("base-files", "/var/log/btmp", "root", "utmp", Some(0o660), false),
    ("base-files", "/var/log/lastlog", "root", "utmp", Some(0o664), false),
];

/// Sets them, and returns the lines of dpkg's `statoverride` file.
///
/// # Errors
/// A user or group that no package makes, or a file that is not there.
pub fn apply(root: &mut Tree, packages: &[Package], accounts: &Accounts) -> Result<String, SubstituteError> {
    let missing = |name: &str| SubstituteError::NoSuchName { substitute: SELF, name: name.into() };
    let mut overrides = String::new();
    for (package, path, user, group, mode, recorded) in TABLE {
        if find(packages, package).is_none() {
            continue;
        }
        let uid = accounts.uid(user).ok_or_else(|| missing(user))?;
        let gid = accounts.gid(group).ok_or_else(|| missing(group))?;
        let mode = mode.or_else(|| root.lookup(path).map(|(_, node)| node.mode)).unwrap_or(0o755);
        root.own(path, uid, gid, mode).map_err(tree(SELF))?;
        if *recorded {
            overrides += &format!("{user} {group} {mode:o} {path}\n");
        }
    }
    Ok(overrides)
}
