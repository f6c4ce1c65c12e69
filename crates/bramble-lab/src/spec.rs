//! What a lab consists of, as the caller states it.

use bramble_api::names::Arch;
use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;

use crate::error::Refusal;

/// Where the machines of a lab find their releases: plain http, at the gateway. It stands in for the house's own source.
pub const UPDATES_PORT: u16 = 8017;

/// A whole lab: one layer-2 segment, its gateway, its machines.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabSpec {
    /// Name of the cluster; only shown.
    pub name: String,
    /// The file's subnet.
    pub subnet: Ipv4Net,
    /// The file's gateway address; `None` takes the first free address of the subnet.
    pub gateway: Option<Ipv4Addr>,
    /// Domain under which the gateway's name server answers for the machines.
    pub domain: String,
    /// Further addresses of the segment that the gateway answers for, such as a name or time server that stands
    /// in the file and is not the gateway. Servers outside the subnet need no mention.
    #[serde(default)]
    pub stand_ins: Vec<Ipv4Addr>,
    /// What the gateway's time server says.
    #[serde(default)]
    pub time: NetworkTime,
    /// The machines.
    pub machines: Vec<LabMachine>,
    /// Ports of 127.0.0.1 that lead to a machine.
    pub forwards: Vec<Forward>,
    /// The port of 127.0.0.1 that the machines' update source is answered from, at [`UPDATES_PORT`] of every address that
    /// is not a machine's; nothing answers there when absent.
    #[serde(default)]
    pub updates: Option<u16>,
    /// Firmware for each architecture that a machine boots by [`Boot::Firmware`].
    pub firmware: BTreeMap<Arch, Firmware>,
    /// How guest instructions are run.
    #[serde(default)]
    pub accel: AccelChoice,
    /// QEMU programs to use instead of `qemu-system-*` from the search path.
    #[serde(default)]
    pub qemu: BTreeMap<Arch, PathBuf>,
}

/// One machine of a lab.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LabMachine {
    /// Its name: letters, digits, `-` and `.`, at most 63.
    pub name: String,
    /// Its processor.
    pub arch: Arch,
    /// The stated address.
    pub address: Ipv4Addr,
    /// The stated MAC; `None` derives one from the name ([`Mac::derived`]).
    pub mac: Option<Mac>,
    /// Memory in MiB, but for emulated boards, which have their own; [`LabMachine::CONTROL_PLANE_MIB`] and [`LabMachine::WORKER_MIB`] are the usual values.
    pub memory_mib: u32,
    /// Virtual processors.
    pub cpus: u32,
    /// Serial number of the disk; `None` takes the name. At most 20 bytes reach the guest.
    #[serde(default)]
    pub serial: Option<String>,
    /// Size of the disk in bytes, a multiple of 4096. Fixed when the disk is made.
    pub disk_size: u64,
    /// What the fresh disk holds; all else is zeros. Fixed when the disk is made.
    pub base: Vec<BaseSegment>,
    /// What the gateway's DHCP server does for this machine.
    #[serde(default)]
    pub dhcp: Dhcp,
    /// Where the hardware clock starts.
    #[serde(default)]
    pub rtc: Rtc,
    /// What starts the machine.
    #[serde(default)]
    pub boot: Boot,
}

impl LabMachine {
    /// Memory of a control plane, MiB.
    pub const CONTROL_PLANE_MIB: u32 = 3072;
    /// Memory of a worker, MiB.
    pub const WORKER_MIB: u32 = 2048;

    /// The MAC on the segment.
    pub fn effective_mac(&self) -> Mac {
        self.mac.unwrap_or_else(|| Mac::derived(&self.name))
    }

    /// The disk's serial number as the guest sees it: virtio-blk has room for 20 bytes.
    pub fn effective_serial(&self) -> &str {
        let serial = self.serial.as_deref().unwrap_or(&self.name);
        let mut end = serial.len().min(20);
        while !serial.is_char_boundary(end) {
            end -= 1;
        }
        &serial[..end]
    }
}

/// A run of bytes of a fresh disk that comes from a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BaseSegment {
    /// First byte on the disk.
    pub start: u64,
    /// Bytes.
    pub length: u64,
    /// The file; it must stay as it is for the life of the disk.
    pub path: PathBuf,
    /// First byte in the file.
    pub offset: u64,
}

/// What the gateway's DHCP server does for a machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Dhcp {
    /// Offers the stated address, the way a router with a reservation does.
    #[default]
    Reserved,
    /// Offers another address than the stated one: a router without the reservation.
    Other(Ipv4Addr),
    /// Does not answer this machine.
    Silent,
}

/// Where a machine's hardware clock starts at power-on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rtc {
    /// At this computer's time.
    #[default]
    Host,
    /// At a fixed time, seconds since 1970-01-01 UTC: 0 is the clock of a machine without a battery.
    At(u64),
}

/// What the gateway's time server says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkTime {
    /// This computer's time.
    #[default]
    Host,
    /// This computer's time and so many seconds.
    Offset(i64),
    /// Nothing: there is no time server.
    Silent,
}

/// What starts a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Boot {
    /// UEFI firmware, then whatever the disk holds.
    #[default]
    Firmware,
    /// The lab plays the firmware's part and hands over a kernel (Pi layouts, tests).
    Kernel {
        /// Kernel image.
        kernel: PathBuf,
        /// Initramfs.
        initrd: Option<PathBuf>,
        /// Kernel command line.
        cmdline: String,
    },
    /// The lab plays the firmware of a Raspberry Pi: at every power-on and every reset it reads the machine's own disk
    /// as that firmware does ([`bramble_disk::firmware::pi`]) and hands over the kernel, device tree, initramfs and
    /// command line that it finds.
    PiFirmware {
        /// Which board's firmware.
        board: PiBoard,
        /// What QEMU emulates.
        #[serde(default)]
        hardware: PiHardware,
        /// Build date of the boot loader, `2025-08-20`; `None` is a recent one.
        #[serde(default)]
        bootloader: Option<String>,
    },
}

impl Boot {
    /// Whether the lab chooses what to start, and so again when the guest resets.
    pub(crate) fn is_chosen_at_reset(&self) -> bool {
        matches!(self, Boot::PiFirmware { .. })
    }
}

/// A Raspberry Pi.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PiBoard {
    /// Raspberry Pi 3B.
    Pi3,
    /// Raspberry Pi 4B.
    Pi4,
    /// Raspberry Pi 5. QEMU has no such board.
    Pi5,
}

/// What QEMU emulates for a Raspberry Pi.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PiHardware {
    /// The board where QEMU has it (`raspi3b`, `raspi4b`), else [`PiHardware::Virt`]. The board's own memory and
    /// processors, whatever the machine's description says; the disk is a card; a Pi 4 has no network there.
    #[default]
    Board,
    /// QEMU's `virt` with the machine's memory, processors, disk and network. The device tree is QEMU's, and the console
    /// of the command line is replaced by the one that `virt` has.
    Virt,
}

impl PiBoard {
    /// QEMU's name of the board.
    pub fn qemu_machine(self) -> Option<&'static str> {
        match self {
            PiBoard::Pi3 => Some("raspi3b"),
            PiBoard::Pi4 => Some("raspi4b"),
            PiBoard::Pi5 => None,
        }
    }
}

impl LabMachine {
    /// The emulated board, if it is one.
    pub(crate) fn emulated_board(&self) -> Option<PiBoard> {
        match self.boot {
            Boot::PiFirmware { board, hardware: PiHardware::Board, .. } => {
                board.qemu_machine().map(|_| board)
            }
            _ => None,
        }
    }
}

/// How guest instructions are run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AccelChoice {
    /// KVM or HVF where this computer has it for the machine's processor, else emulation.
    #[default]
    Auto,
    /// Emulation, also where there is better: what a computer without virtualization sees.
    Emulation,
}

/// UEFI firmware as two flash images.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Firmware {
    /// The code, `OVMF_CODE_4M.fd` or `AAVMF_CODE.fd`.
    pub code: PathBuf,
    /// Empty variables, copied for each machine: `OVMF_VARS_4M.fd` or `AAVMF_VARS.fd`.
    pub vars: PathBuf,
}

/// A port of 127.0.0.1 that leads to a machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Forward {
    /// Port on this computer; 0 chooses a free one when the lab is first started, and keeps it.
    pub host_port: u16,
    /// Name of the machine.
    pub node: String,
    /// Port on the machine.
    pub port: u16,
}

/// An Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// An address in QEMU's own range that depends on the name alone.
    pub fn derived(name: &str) -> Mac {
        let hash = fnv64(name.as_bytes()).to_be_bytes();
        Mac([0x52, 0x54, 0x00, hash[5], hash[6], hash[7]])
    }

    /// Whether the address means one card, not a group.
    pub fn is_unicast(self) -> bool {
        self.0[0] & 1 == 0
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> String {
        mac.to_string()
    }
}

impl TryFrom<String> for Mac {
    type Error = BadMac;
    fn try_from(text: String) -> Result<Mac, BadMac> {
        text.parse()
    }
}

impl std::str::FromStr for Mac {
    type Err = BadMac;
    fn from_str(text: &str) -> Result<Mac, BadMac> {
        let bad = || BadMac { text: text.to_string() };
        let mut bytes = [0; 6];
        let mut parts = text.split([':', '-']);
        for byte in &mut bytes {
            let part = parts.next().filter(|p| p.len() == 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(part, 16).map_err(|_| bad())?;
        }
        if parts.next().is_some() { Err(bad()) } else { Ok(Mac(bytes)) }
    }
}

/// A text that is no Ethernet address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an Ethernet address such as 52:54:00:12:34:56")]
pub struct BadMac {
    /// What was given.
    pub text: String,
}

/// FNV-1a: names of sockets and derived addresses need a short stable hash, not a strong one.
pub(crate) fn fnv64(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

impl LabSpec {
    /// The machine of that name.
    pub fn machine(&self, name: &str) -> Option<&LabMachine> {
        self.machines.iter().find(|m| m.name == name)
    }

    /// The gateway's address: the stated one, else the lowest of the subnet that nobody has. `None` when the
    /// subnet is full.
    pub fn effective_gateway(&self) -> Option<Ipv4Addr> {
        let taken = |a: &Ipv4Addr| {
            self.stand_ins.contains(a)
                || self.machines.iter().any(|m| m.address == *a || m.dhcp == Dhcp::Other(*a))
        };
        self.gateway.or_else(|| self.subnet.hosts().find(|a| !taken(a)))
    }

    /// Looks for contradictions. Pure; files are looked at when a machine is made.
    pub fn check(&self) -> Result<(), Refusal> {
        let bad = |what: String| Err(Refusal::BadSpec { what });
        if self.effective_gateway().is_none_or(|g| !self.subnet.contains(&g)) {
            return bad(format!("no gateway address in {}", self.subnet));
        }
        let (mut names, mut macs, mut addresses) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for m in &self.machines {
            let name = &m.name;
            let ok = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
            if name.is_empty() || name.len() > 63 || !name.chars().all(ok) || name.starts_with(['.', '-']) {
                return bad(format!("{name:?} cannot be a machine's name"));
            }
            if !names.insert(name) {
                return bad(format!("two machines are called {name}"));
            }
            if !m.effective_mac().is_unicast() || !macs.insert(m.effective_mac()) {
                return bad(format!("{name}: {} is a group address or another machine's", m.effective_mac()));
            }
            if !addresses.insert(m.address) || self.effective_gateway() == Some(m.address) {
                return bad(format!("{name}: {} is another machine's or the gateway's", m.address));
            }
            if !self.subnet.contains(&m.address) {
                return bad(format!("{name}: {} is outside {}", m.address, self.subnet));
            }
            if m.disk_size == 0 || m.disk_size % 4096 != 0 {
                return bad(format!("{name}: a disk of {} bytes is no multiple of 4096", m.disk_size));
            }
            if m.memory_mib == 0 || m.cpus == 0 {
                return bad(format!("{name}: needs memory and a processor"));
            }
            if m.effective_serial().contains(',') {
                return bad(format!("{name}: a disk's serial number cannot hold a comma"));
            }
            check_segments(m)?;
            check_pi(m)?;
            if m.boot == Boot::Firmware && !self.firmware.contains_key(&m.arch) {
                return Err(Refusal::NoFirmware { arch: m.arch });
            }
        }
        let mut ports = BTreeSet::new();
        for f in &self.forwards {
            if !names.contains(&f.node) {
                return bad(format!("a port leads to {}, which is no machine of the lab", f.node));
            }
            if f.port == 0 || (f.host_port != 0 && !ports.insert(f.host_port)) {
                return bad(format!("port {} of {}: zero, or its host port is used twice", f.port, f.node));
            }
        }
        Ok(())
    }
}

fn check_pi(m: &LabMachine) -> Result<(), Refusal> {
    let Boot::PiFirmware { bootloader, .. } = &m.boot else { return Ok(()) };
    let bad = |what: String| Err(Refusal::BadSpec { what: format!("{}: {what}", m.name) });
    if m.arch != Arch::Arm64 {
        return bad(format!("a Raspberry Pi is an arm64 machine, not {}", m.arch));
    }
    if let Some(Err(error)) = bootloader.as_deref().map(str::parse::<bramble_disk::firmware::pi::Date>) {
        return bad(error.to_string());
    }
    // QEMU, hw/sd/sd.c: "Invalid SD card size" for anything else.
    if m.emulated_board().is_some() && !m.disk_size.is_power_of_two() {
        let next = m.disk_size.next_power_of_two();
        return bad(format!(
            "an emulated card of {} bytes; it must be a power of two, such as {next}",
            m.disk_size
        ));
    }
    Ok(())
}

fn check_segments(m: &LabMachine) -> Result<(), Refusal> {
    let mut sorted: Vec<&BaseSegment> = m.base.iter().collect();
    sorted.sort_by_key(|s| s.start);
    let mut end = 0;
    for s in sorted {
        let next = s.start.checked_add(s.length).filter(|n| *n <= m.disk_size);
        match next {
            Some(next) if s.start >= end && s.length > 0 => end = next,
            _ => {
                let (name, path, start) = (&m.name, s.path.display(), s.start);
                let what =
                    format!("{name}: {path} at byte {start} overlaps, is empty, or passes the disk's end");
                return Err(Refusal::BadSpec { what });
            }
        }
    }
    Ok(())
}
