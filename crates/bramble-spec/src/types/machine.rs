//! Machines: `spec.nodes`, and what they may share.

use crate::decode::{Context, Decode, Definitions, record, words};
use crate::diagnostic::Diagnostic;
use crate::labels::Labels;
use crate::scalar::{Mac, Name, Raw, Size, Taint, Text};
use crate::tree::Node;
use crate::types::{OsSettings, SecretName, Talos};
use ipnet::Ipv4Net;
use serde::Serialize;
use serde_json::json;
use std::net::Ipv4Addr;

record! {
    /// A machine.
    pub struct NodeSpec {
        /// Host name and Kubernetes node name, an RFC 1123 label.
        "name" name: Name,
        /// What it does.
        "role" role: Role,
        /// Its address. Stated even where the router gives it out.
        "address" address: Ipv4Addr,
        /// Hardware address of its first interface; any wired one when absent.
        "mac" mac: Option<Mac> = None,
        /// The operating system.
        "os" os: OsSettings = OsSettings::default(),
        /// Not served by this version: the virtual machine that it is.
        "vm" vm: Option<Raw> = None,
        /// Not served by this version: how it is switched on and off.
        "power" power: Option<Raw> = None,
    } with {
        /// What it has of its own.
        machine: MachineSettings,
    }
}

record! {
    /// What a machine may have of its own. The nearest of machine, role and cluster wins; lists replace, mappings
    /// merge by key.
    #[derive(Default)]
    pub struct MachineSettings {
        /// What it is.
        "board" board: Option<Board> = None,
        /// How it gets its address. `static` when absent.
        "addressing" addressing: Option<Addressing> = None,
        /// Bytes in the largest packet of its first interface.
        "mtu" mtu: Option<u16> = None,
        /// Further interfaces.
        "interfaces" interfaces: Option<Vec<Interface>> = None,
        /// What lies on which disk.
        "disks" disks: Disks = Disks::default(),
        /// Labels of the node in Kubernetes.
        "labels" labels: Labels = Labels::default(),
        /// Taints of the node in Kubernetes.
        "taints" taints: Option<Vec<Taint>> = None,
        /// Talos' own fields.
        "talos" talos: Talos = Talos::default(),
    }
}

words! {
    /// What a machine does, in Kubernetes' own words.
    pub enum Role {
        /// Runs the API, the datastore and the controllers.
        ControlPlane = "control-plane",
        /// Runs workloads only.
        Worker = "worker",
        /// No kubelet; holds the tools.
        Management = "management",
    }
}

words! {
    /// What a machine is.
    pub enum Board {
        /// Raspberry Pi 3, CM3.
        Pi3 = "pi3",
        /// Raspberry Pi 4, 400, CM4.
        Pi4 = "pi4",
        /// Raspberry Pi 5, 500, CM5.
        Pi5 = "pi5",
        /// A PC with UEFI firmware.
        UefiAmd64 = "uefi-amd64",
        /// An ARM machine with UEFI firmware.
        UefiArm64 = "uefi-arm64",
    }
}

impl Board {
    /// Its processor architecture.
    pub fn arch(self) -> Arch {
        match self {
            Board::UefiAmd64 => Arch::Amd64,
            Board::Pi3 | Board::Pi4 | Board::Pi5 | Board::UefiArm64 => Arch::Arm64,
        }
    }

    /// Whether it is a Raspberry Pi.
    pub fn is_pi(self) -> bool {
        matches!(self, Board::Pi3 | Board::Pi4 | Board::Pi5)
    }
}

words! {
    /// A processor architecture, in Debian's words.
    pub enum Arch {
        /// x86-64.
        Amd64 = "amd64",
        /// AArch64.
        Arm64 = "arm64",
    }
}

words! {
    /// How a machine gets its address.
    pub enum Addressing {
        /// From this file.
        Static = "static",
        /// From the router, which reserves the stated address.
        Dhcp = "dhcp",
    }
}

record! {
    /// A further interface: a second card, a VLAN on one, or Wi-Fi.
    pub struct Interface {
        /// Name for it, an RFC 1123 label.
        "name" name: Name,
        /// Hardware address that selects the card.
        "mac" mac: Option<Mac> = None,
        /// VLAN on the card, 1 to 4094.
        "vlan" vlan: Option<u16> = None,
        /// Bytes in the largest packet.
        "mtu" mtu: Option<u16> = None,
        /// Address with its prefix, `10.10.99.11/24`; from a router when absent.
        "address" address: Option<Ipv4Net> = None,
        /// Ways to other ranges.
        "routes" routes: Vec<Route> = Vec::new(),
        /// The wireless network it joins.
        "wifi" wifi: Option<Wifi> = None,
    }
}

record! {
    /// A way to another range.
    pub struct Route {
        /// The range.
        "to" to: Ipv4Net,
        /// The next machine on the way.
        "via" via: Ipv4Addr,
    }
}

record! {
    /// A wireless network.
    pub struct Wifi {
        /// Its name.
        "ssid" ssid: Text,
        /// Its passphrase.
        "psk" psk: SecretName,
    }
}

record! {
    /// What lies on which disk.
    #[derive(Default)]
    pub struct Disks {
        /// The system.
        "boot" boot: Option<DiskSelector> = None,
        /// State, when it is on another disk than the system.
        "data" data: Option<DiskSelector> = None,
        /// Further file systems.
        "volumes" volumes: Option<Vec<Volume>> = None,
    }
}

/// Which disk is meant: exactly one of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskSelector {
    /// A card of this size in a reader. The reader hides the card's own serial, so size, port and the moment it
    /// was put in tell which it is.
    Size(Size),
    /// The disk's serial number.
    Serial(String),
    /// The disk's world wide identifier.
    Wwid(String),
}

impl Decode for DiskSelector {
    fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
        let mut fields = cx.fields(node, "one of `{ size: ... }`, `{ serial: ... }`, `{ wwid: ... }`")?;
        let before = cx.findings.len();
        let size = fields.optional::<Option<Size>>(cx, "size", || None).flatten();
        let serial = fields.optional::<Option<Text>>(cx, "serial", || None).flatten();
        let wwid = fields.optional::<Option<Text>>(cx, "wwid", || None).flatten();
        let mark = fields.mark;
        fields.finish(cx);
        let mut stated =
            [size.map(Self::Size), serial.map(Self::Serial), wwid.map(Self::Wwid)].into_iter().flatten();
        match (stated.next(), stated.next()) {
            (Some(selector), None) => Some(selector),
            _ if cx.findings.len() > before => None,
            (first, _) => {
                let found = if first.is_some() { "more than one is stated" } else { "none is stated" };
                cx.push(
                    Diagnostic::error("disk-selector", mark, format!("a disk is named by one thing, and {found}"))
                        .label("wants one of `size`, `serial`, `wwid`")
                        .hint("a card in a reader by `size`; a stick, SSD or NVMe by `serial` or `wwid` (`lsblk -o NAME,SERIAL,WWN`)"),
                );
                None
            }
        }
    }

    fn schema(definitions: &mut Definitions) -> serde_json::Value {
        crate::decode::named("DiskSelector", definitions, |definitions| {
            let choice = |key: &str, doc: &str, mut schema: serde_json::Value| {
                schema["description"] = doc.into();
                json!({
                    "type": "object",
                    "properties": { key: schema },
                    "required": [key],
                    "additionalProperties": false,
                })
            };
            json!({
                "title": "DiskSelector",
                "description": "Which disk is meant: exactly one of these.",
                "oneOf": [
                    choice("size", "A card of this size in a reader.", Size::schema(definitions)),
                    choice("serial", "The disk's serial number.", Text::schema(definitions)),
                    choice("wwid", "The disk's world wide identifier.", Text::schema(definitions)),
                ],
            })
        })
    }
}

record! {
    /// A disk of its own, with a file system or as it is.
    pub struct Volume {
        /// Name for it, an RFC 1123 label.
        "name" name: Name,
        /// The disk.
        "selector" selector: DiskSelector,
        /// Kind of file system.
        "filesystem" filesystem: Filesystem = Filesystem::Ext4,
        /// Where it is mounted, below /var/mnt; at its name there when absent.
        "mount" mount: Option<Text> = None,
    }
}

words! {
    /// Kind of file system.
    pub enum Filesystem {
        /// ext4.
        Ext4 = "ext4",
        /// None: the disk is used as it is, as /dev/disk/bramble/NAME.
        None = "none",
    }
}
