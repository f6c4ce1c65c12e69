//! What says which system this is, and what must not say it: os-release, the machine id, update stamps.

use super::{SubstituteError, tree};
use crate::tree::Tree;

const SELF: &str = "machine-id";

/// Where Debian's own file goes when ours takes its place, by dpkg-divert's convention.
pub const OS_RELEASE_DIVERTED: &str = "/usr/lib/os-release.distrib";
/// The file that ours replaces.
pub const OS_RELEASE: &str = "/usr/lib/os-release";

/// Puts os-release, an empty machine id and the update stamps.
///
/// `ID` and `VERSION_ID` stay Debian's, since the packages are Debian's and scanners look for advisories by these two;
/// what makes it ours stands in the fields made for it (`os-release(5)`): `VARIANT`, `IMAGE_ID`, `IMAGE_VERSION`, and
/// `PRETTY_NAME`, which people read and Kubernetes shows as the node's OS image. Debian's file is kept and recorded as
/// a diversion, so that `dpkg -V` finds what it expects.
///
/// # Errors
/// base-files is not in the set, or a refusal of the tree.
pub fn apply(root: &mut Tree, release: &str, epoch: u64) -> Result<(), SubstituteError> {
    let tree = tree(SELF);
    let original = root.read(OS_RELEASE).cloned().ok_or_else(|| SubstituteError::Input {
        substitute: SELF,
        path: crate::tree::TreePath::new(OS_RELEASE).unwrap_or_default(),
        reason: "is missing".into(),
    })?;
    let ours = os_release(&String::from_utf8_lossy(&original), release);
    root.file(OS_RELEASE_DIVERTED, 0o644, original).map_err(tree)?;
    root.file(OS_RELEASE, 0o644, ours).map_err(tree)?;

    // Empty, not `uninitialized`: that word means a first boot, whose questions block the console for ever.
    root.file("/etc/machine-id", 0o444, "").map_err(tree)?;
    root.symlink("/var/lib/dbus/machine-id", "/etc/machine-id").map_err(tree)?;
    // systemd-update-done(8): /etc and /var are as new as /usr, nothing is to be rebuilt at boot.
    let stamp = format!("TIMESTAMP_NSEC={epoch}000000000\n");
    root.file("/etc/.updated", 0o644, stamp.as_str()).map_err(tree)?;
    root.file("/var/.updated", 0o644, stamp.as_str()).map_err(tree)?;
    Ok(())
}

fn os_release(debian: &str, release: &str) -> String {
    let mut out = String::new();
    for line in debian.lines() {
        match line.strip_prefix("PRETTY_NAME=") {
            Some(name) => {
                let ours = format!("Bramble OS {release}");
                out += &format!("PRETTY_NAME=\"{} ({})\"\n", ours.trim_end(), name.trim_matches('"'));
            }
            None => out += &format!("{line}\n"),
        }
    }
    out += "VARIANT=\"Bramble OS\"\nVARIANT_ID=bramble\nIMAGE_ID=bramble\n";
    if !release.is_empty() {
        out += &format!("IMAGE_VERSION={release}\n");
    }
    out
}
