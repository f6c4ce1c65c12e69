//! Which Debian packages an image needs, and why. Names only: versions come from the lock.

use bramble_api::names::{Arch, Board};

/// What Debian is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageRequest {
    /// `name` or `name/suite`.
    pub names: Vec<String>,
    /// Never taken, though something depends on them.
    pub exclude: Vec<String>,
    /// Chosen among alternatives.
    pub prefer: Vec<String>,
}

/// The system itself. What `Essential: yes` brings is not repeated.
const BASE: &[&str] = &[
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "udev",
    "kmod",
    "dbus",
    "libpam-systemd",
    "iproute2",
    "procps",
    "util-linux",
    "mount",
    "passwd",
    "login",
    // mkfs and fsck of data at first boot.
    "e2fsprogs",
    "ca-certificates",
    // Off unless asked for, present so that asking needs no other image.
    "openssh-server",
    // Every node can use network storage.
    "open-iscsi",
    "nfs-common",
    // systemd-boot and its stub, for the ESP and the UKI.
    "systemd-boot-efi",
];

/// What kubelet, kube-proxy and containerd call.
const KUBERNETES: &[&str] = &["runc", "nftables", "iptables", "conntrack", "ethtool", "socat", "ebtables"];

/// Pulled in by dependencies and not wanted: we make the initramfs, and nobody runs apt on a machine.
const EXCLUDE: &[&str] =
    &["initramfs-tools", "initramfs-tools-core", "dracut", "linux-initramfs-tool", "apt"];

/// What the firmware of Raspberry Pis is read from. The build puts it on the boot partitions, not into the root.
const PI: &[&str] = &["raspi-firmware"];

/// Tools of the above package's scripts, which nobody runs.
const PI_EXCLUDE: &[&str] = &["dosfstools"];

/// The packages of an image of `arch` for `boards`, with the user's own from `os.packages` last.
pub fn request(
    arch: Arch,
    kubernetes: bool,
    release: &str,
    boards: &[Board],
    extra: &[String],
) -> PackageRequest {
    let pi = boards.iter().any(|board| board.is_pi());
    let (pi_names, pi_exclude) = if pi { (PI, PI_EXCLUDE) } else { (&[][..], &[][..]) };
    let mut names: Vec<String> = BASE.iter().chain(pi_names).map(|s| s.to_string()).collect();
    // One kernel line for all boards: a Pi 5 needs the backports kernel, and one code path is less to get wrong.
    names.push(format!("linux-image-{arch}/{release}-backports"));
    if kubernetes {
        names.extend(KUBERNETES.iter().map(|s| s.to_string()));
    }
    for name in extra {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    let all = EXCLUDE.iter().chain(pi_exclude);
    let exclude = all.filter(|e| !extra.iter().any(|x| x == *e)).map(|s| s.to_string()).collect();
    PackageRequest { names, exclude, prefer: vec!["mawk".to_string()] }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_may_ask_for_what_is_otherwise_left_out_and_gets_nothing_twice() {
        let extra = ["apt".to_string(), "systemd".to_string(), "htop".to_string()];
        let request = request(Arch::Arm64, true, "trixie", &[Board::UefiArm64], &extra);
        assert!(!request.exclude.contains(&"apt".to_string()));
        assert_eq!(request.names.iter().filter(|n| *n == "systemd").count(), 1);
        assert!(request.names.contains(&"linux-image-arm64/trixie-backports".to_string()));
        assert_eq!(request.names.last().map(String::as_str), Some("htop"));
        assert!(!request.names.contains(&"raspi-firmware".to_string()));
    }

    #[test]
    fn a_pi_among_the_boards_brings_its_firmware_and_none_of_its_tools() {
        let request = request(Arch::Arm64, true, "trixie", &[Board::UefiArm64, Board::Pi3], &[]);
        assert!(request.names.contains(&"raspi-firmware".to_string()));
        assert!(request.exclude.contains(&"dosfstools".to_string()));
    }
}
