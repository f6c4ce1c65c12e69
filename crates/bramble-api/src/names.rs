//! Names of architectures, boards, roles and slots, and the fixed paths on a machine.

use serde::{Deserialize, Serialize};

/// A processor architecture, in Debian's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// Every architecture, in a fixed order.
    pub const ALL: [Arch; 2] = [Arch::Amd64, Arch::Arm64];

    /// Debian's and Go's name: `amd64`, `arm64`.
    pub fn debian(self) -> &'static str {
        match self {
            Arch::Amd64 => "amd64",
            Arch::Arm64 => "arm64",
        }
    }

    /// The kernel's name: `x86_64`, `aarch64`.
    pub fn kernel(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64",
            Arch::Arm64 => "aarch64",
        }
    }

    /// Debian's multiarch triplet.
    pub fn triplet(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64-linux-gnu",
            Arch::Arm64 => "aarch64-linux-gnu",
        }
    }

    /// Rust's target for the static agent.
    pub fn musl_target(self) -> &'static str {
        match self {
            Arch::Amd64 => "x86_64-unknown-linux-musl",
            Arch::Arm64 => "aarch64-unknown-linux-musl",
        }
    }
}

impl std::fmt::Display for Arch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.debian())
    }
}

impl std::str::FromStr for Arch {
    type Err = UnknownName;
    fn from_str(s: &str) -> Result<Self, UnknownName> {
        Arch::ALL
            .into_iter()
            .find(|a| a.debian() == s || a.kernel() == s)
            .ok_or_else(|| UnknownName { kind: "architecture", name: s.to_string() })
    }
}

/// A kind of machine an image can be made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Board {
    /// Raspberry Pi 3, CM3.
    Pi3,
    /// Raspberry Pi 4, 400, CM4.
    Pi4,
    /// Raspberry Pi 5, 500, CM5.
    Pi5,
    /// A PC with UEFI firmware.
    UefiAmd64,
    /// An ARM machine with UEFI firmware.
    UefiArm64,
}

impl Board {
    /// The processor architecture of the board.
    pub fn arch(self) -> Arch {
        match self {
            Board::UefiAmd64 => Arch::Amd64,
            _ => Arch::Arm64,
        }
    }

    /// Whether it is a Raspberry Pi, which starts without UEFI.
    pub const fn is_pi(self) -> bool {
        matches!(self, Board::Pi3 | Board::Pi4 | Board::Pi5)
    }

    /// Every board, in a fixed order.
    pub const ALL: [Board; 5] = [Board::Pi3, Board::Pi4, Board::Pi5, Board::UefiAmd64, Board::UefiArm64];

    /// The name used in `bramble.yaml`.
    pub fn name(self) -> &'static str {
        match self {
            Board::Pi3 => "pi3",
            Board::Pi4 => "pi4",
            Board::Pi5 => "pi5",
            Board::UefiAmd64 => "uefi-amd64",
            Board::UefiArm64 => "uefi-arm64",
        }
    }
}

impl std::fmt::Display for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// What a machine does in the cluster, in Kubernetes' own words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Runs the API server, the datastore and the controllers.
    ControlPlane,
    /// Runs workloads only.
    Worker,
    /// No kubelet; holds the tools.
    Management,
}

/// One of the two places a release can live on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// The first slot, written by `flash`.
    A,
    /// The second slot, empty and invalid on a first card.
    B,
}

impl Slot {
    /// The other slot.
    pub fn other(self) -> Slot {
        match self {
            Slot::A => Slot::B,
            Slot::B => Slot::A,
        }
    }

    /// `a` or `b`.
    pub fn letter(self) -> char {
        match self {
            Slot::A => 'a',
            Slot::B => 'b',
        }
    }
}

/// A word that is not one of the known names of its kind.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown {kind} {name:?}")]
pub struct UnknownName {
    /// What kind of name was expected.
    pub kind: &'static str,
    /// The word that was given.
    pub name: String,
}

/// Fixed paths on a Bramble OS machine.
pub mod path {
    /// Mount point of the data partition (ext4).
    pub const DATA: &str = "/data";
    /// Directory on the data partition that holds the machine document and the agent's own state, mode 0700.
    pub const STATE: &str = "/data/bramble";
    /// The current machine document, as received, with its header.
    pub const DOCUMENT: &str = "/data/bramble/machine.json";
    /// The machine document before the current one.
    pub const DOCUMENT_PREVIOUS: &str = "/data/bramble/machine.previous.json";
    /// There once another card has taken this one's place; holds the incarnation that was replaced. Units of Kubernetes
    /// do not start then.
    pub const REPLACED: &str = "/data/bramble/replaced";
    /// Seconds since the epoch, decimal: no restart into another release before it.
    pub const HOLD: &str = "/data/bramble/hold";
    /// Seconds since the epoch, decimal, written regularly: the clock never starts before it.
    pub const CLOCK: &str = "/data/bramble/clock";
    /// Root of the directories bind-mounted to persistent places below /var.
    pub const PERSIST: &str = "/data/persist";
    /// What pid 1 found, for the agent: JSON of [`crate::stage::Boot`].
    pub const BOOT: &str = "/run/bramble/boot.json";
    /// There once the running release is the committed one: a trial's guard, which pid 1 has started, then ends.
    pub const KEPT: &str = "/run/bramble/kept";
    /// The running release's manifest as verified by pid 1.
    pub const MANIFEST: &str = "/run/bramble/manifest.json";
    /// The agent inside the root image.
    pub const AGENT: &str = "/usr/bin/bramble-node";
    /// Whom the machine trusts to sign releases, in the root image: JSON of [`crate::release::Anchor`].
    pub const ANCHOR: &str = "/usr/lib/bramble/anchor.json";
    /// In the initramfs: Ed25519 public keys that may sign a release, one file a key, raw 32 bytes.
    pub const INITRAMFS_KEYS: &str = "/etc/bramble/keys";
    /// In the initramfs: module files to load, one absolute path a line, in order.
    pub const INITRAMFS_MODULES: &str = "/etc/bramble/modules";
}

/// Annotations of Kubernetes' objects.
pub mod annotation {
    /// On a Node: number of the card that it was last seen with, decimal.
    pub const CARD: &str = "bramble.home.arpa/card";
    /// On a Node: who marked it unschedulable and takes that back when it is done. `update`: the machine itself; else the
    /// holder of a roll-out and seconds since the epoch, with a blank between.
    pub const CORDONED: &str = "bramble.home.arpa/cordoned-for";
    /// On a Node: keys of the labels that are ours to set, sorted, with commas between.
    pub const LABELS: &str = "bramble.home.arpa/labels";
}

/// Directories below /var that survive a reboot: `(path, mode, uid, gid)`; all else below /var is a tmpfs.
///
/// They are bind mounts from [`path::PERSIST`], never overlays: containerd's snapshotter and etcd need a real
/// file system underneath.
pub const PERSISTENT: &[(&str, u32)] = &[
    ("/var/lib/containerd", 0o711),
    ("/var/lib/kubelet", 0o700),
    ("/var/lib/etcd", 0o700),
    ("/var/lib/kine", 0o700),
    ("/var/lib/cni", 0o755),
    ("/var/lib/rancher", 0o755),
    ("/var/lib/systemd", 0o755),
    ("/var/lib/iscsi", 0o700),
    ("/var/lib/nfs", 0o755),
    ("/var/log/journal", 0o755),
    ("/var/log/pods", 0o755),
    ("/var/log/containers", 0o755),
    ("/var/log/kubernetes", 0o700),
    ("/var/mnt", 0o755),
];
