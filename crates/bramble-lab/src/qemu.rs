//! QEMU: which program, how new, how it runs guest code, and the command line of a machine as a pure function.

use bramble_api::names::Arch;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Refusal;
use crate::spec::{AccelChoice, Mac, PiBoard, Rtc};

/// The oldest QEMU that serves: `-netdev stream` came with it.
pub const OLDEST: (u32, u32) = (7, 2);
/// The first QEMU with `raspi4b`.
pub const RASPI4B: (u32, u32) = (9, 0);

/// How guest instructions are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// Linux' hypervisor.
    Kvm,
    /// macOS' hypervisor.
    Hvf,
    /// Emulation.
    Tcg,
}

impl Accel {
    /// QEMU's word.
    pub fn name(self) -> &'static str {
        match self {
            Accel::Kvm => "kvm",
            Accel::Hvf => "hvf",
            Accel::Tcg => "tcg",
        }
    }
}

/// What this computer offers to run guest code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Computer {
    /// Its processor; `None` when it is one that no machine of ours has.
    pub arch: Option<Arch>,
    /// Whether /dev/kvm makes virtual machines.
    pub kvm: bool,
    /// Whether it is a Mac.
    pub macos: bool,
}

impl Computer {
    /// Looks at this one.
    pub fn look() -> Computer {
        let arch = std::env::consts::ARCH.parse().ok();
        let kvm = crate::kvm::check().is_ok();
        Computer { arch, kvm, macos: cfg!(target_os = "macos") }
    }

    /// The best way for a machine.
    pub fn accel(self, choice: AccelChoice, guest: Arch) -> Accel {
        match choice {
            AccelChoice::Auto if self.arch == Some(guest) && self.kvm => Accel::Kvm,
            AccelChoice::Auto if self.arch == Some(guest) && self.macos => Accel::Hvf,
            _ => Accel::Tcg,
        }
    }
}

/// All that the command line of a machine depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineConfig {
    /// Its name.
    pub name: String,
    /// Its processor.
    pub arch: Arch,
    /// How its instructions are run.
    pub accel: Accel,
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Processors.
    pub cpus: u32,
    /// Its network card's address.
    pub mac: Mac,
    /// Its disk's serial number, at most 20 bytes.
    pub serial: String,
    /// Where its hardware clock starts.
    pub rtc: Rtc,
    /// The emulated board, which then decides about processor, memory, disk and network; `None` is `q35` or `virt`.
    pub board: Option<PiBoard>,
    /// What starts it.
    pub boot: BootConfig,
    /// Where the lab host listens for it.
    pub sockets: Sockets,
}

/// What starts a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BootConfig {
    /// Firmware in flash. Variables are always flash of their own: without it the firmware writes them to a file
    /// on the guest's disk.
    Flash {
        /// The code, never written.
        code: PathBuf,
        /// This machine's variables.
        vars: PathBuf,
    },
    /// A kernel handed over by the lab.
    Kernel {
        /// Kernel image.
        kernel: PathBuf,
        /// Initramfs.
        initrd: Option<PathBuf>,
        /// Command line.
        cmdline: String,
        /// Device tree; `None` is QEMU's own.
        device_tree: Option<PathBuf>,
        /// Whether QEMU ends when the guest resets, so that what starts the machine is chosen anew.
        choose_at_reset: bool,
    },
}

impl BootConfig {
    /// No kernel yet.
    pub(crate) fn none() -> Self {
        BootConfig::Kernel {
            kernel: PathBuf::new(),
            initrd: None,
            cmdline: String::new(),
            device_tree: None,
            choose_at_reset: false,
        }
    }
}

/// Unix sockets that the lab host listens on. QEMU connects to all of them, so that no one waits for a file to
/// appear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// Disk server.
    pub disk: PathBuf,
    /// Port of the switch.
    pub net: PathBuf,
    /// Serial console.
    pub console: PathBuf,
    /// Machine protocol.
    pub control: PathBuf,
}

/// The arguments of QEMU for a machine.
pub fn arguments(m: &MachineConfig) -> Vec<String> {
    let mut args: Vec<String> = Vec::new();
    let mut add = |option: &str, value: String| {
        args.push(option.to_string());
        args.push(value);
    };
    add("-name", format!("guest={}", escape(&m.name)));
    if let Some(board) = m.board.and_then(PiBoard::qemu_machine) {
        add("-machine", board.into());
        add("-accel", "tcg,thread=multi".into());
        boot_arguments(&m.boot, &mut add);
        // No -cpu, -smp or -m: the board has its own and takes no other.
        raspberry_arguments(m, &mut add);
        add_channels(&m.sockets, &mut add);
        args.extend(["-nodefaults", "-no-user-config"].map(String::from));
        return args;
    }
    let flash = if matches!(m.boot, BootConfig::Flash { .. }) { ",pflash0=code,pflash1=vars" } else { "" };
    add("-machine", format!("{}{flash}", board(m.arch, m.accel)));
    add("-accel", if m.accel == Accel::Tcg { "tcg,thread=multi".into() } else { m.accel.name().into() });
    add("-cpu", cpu(m.arch, m.accel).into());
    add("-smp", m.cpus.to_string());
    add("-m", format!("{}M", m.memory_mib));
    match m.rtc {
        Rtc::Host => add("-rtc", "base=utc".into()),
        Rtc::At(seconds) => add("-rtc", format!("base={}", date_time(seconds))),
    }
    boot_arguments(&m.boot, &mut add);
    let s = &m.sockets;
    let disk = path_value(&s.disk);
    add("-blockdev", format!("driver=nbd,node-name=disk,server.type=unix,server.path={disk},discard=unmap"));
    // The guest must see a write cache, else its kernel sends no flushes and there is nothing to rehearse.
    let serial = escape(&m.serial);
    add("-device", format!("virtio-blk-pci,drive=disk,serial={serial},write-cache=on,bootindex=1"));
    let net = path_value(&s.net);
    add("-netdev", format!("stream,id=net,server=off,addr.type=unix,addr.path={net}"));
    // No boot from the network: it would wait for servers that the lab does not have.
    add("-device", format!("virtio-net-pci,netdev=net,mac={},romfile=", m.mac));
    add("-object", "rng-random,id=rng,filename=/dev/urandom".into());
    add("-device", "virtio-rng-pci,rng=rng".into());
    add("-device", "i6300esb".into());
    add("-action", "watchdog=reset".into());
    add("-serial", "chardev:console".into());
    add_channels(s, &mut add);
    args.extend(["-nodefaults", "-no-user-config"].map(String::from));
    args
}

fn boot_arguments(boot: &BootConfig, add: &mut impl FnMut(&str, String)) {
    match boot {
        BootConfig::Flash { code, vars } => {
            let file =
                |name, path: &Path| format!("driver=file,node-name={name},filename={}", path_value(path));
            add("-blockdev", format!("{},read-only=on", file("code", code)));
            add("-blockdev", file("vars", vars));
        }
        BootConfig::Kernel { kernel, initrd, cmdline, device_tree, choose_at_reset } => {
            add("-kernel", kernel.display().to_string());
            if let Some(initrd) = initrd {
                add("-initrd", initrd.display().to_string());
            }
            add("-append", cmdline.clone());
            if let Some(tree) = device_tree {
                add("-dtb", tree.display().to_string());
            }
            if *choose_at_reset {
                add("-action", "reboot=shutdown".into());
            }
        }
    }
}

/// What QEMU's raspi machines have: a card, two serial ports, and on the Pi 3 a USB port that works.
fn raspberry_arguments(m: &MachineConfig, add: &mut impl FnMut(&str, String)) {
    let disk = path_value(&m.sockets.disk);
    // A card has no cache that its owner could flush: what it has taken is written.
    add(
        "-drive",
        format!(
            "if=sd,format=raw,cache=writethrough,file.driver=nbd,file.server.type=unix,file.server.path={disk}"
        ),
    );
    if m.board == Some(PiBoard::Pi3) {
        let net = path_value(&m.sockets.net);
        add("-netdev", format!("stream,id=net,server=off,addr.type=unix,addr.path={net}"));
        add("-device", format!("usb-net,netdev=net,mac={}", m.mac));
    }
    let cmdline = match &m.boot {
        BootConfig::Kernel { cmdline, .. } => cmdline.as_str(),
        BootConfig::Flash { .. } => "",
    };
    // The first port is the PL011, ttyAMA0; the second the small one, ttyS1 by Linux' own device trees.
    let mut consoles = cmdline.split_whitespace().filter_map(|word| word.strip_prefix("console="));
    let small = consoles.rfind(|name| !name.starts_with("tty0")).is_some_and(|name| name.starts_with("ttyS"));
    if small {
        add("-serial", "null".into());
    }
    add("-serial", "chardev:console".into());
}

/// The ways in and out that every machine has.
fn add_channels(s: &Sockets, add: &mut impl FnMut(&str, String)) {
    add("-chardev", format!("socket,id=console,path={}", path_value(&s.console)));
    add("-chardev", format!("socket,id=control,path={}", path_value(&s.control)));
    add("-mon", "chardev=control,mode=control".into());
    add("-display", "none".into());
}

/// The arguments that make QEMU write the device tree of a `virt` machine and end.
pub(crate) fn dump_tree_arguments(m: &MachineConfig, to: &Path) -> Vec<String> {
    let machine = format!("{},dumpdtb={}", board(m.arch, m.accel), path_value(to));
    let accel = if m.accel == Accel::Tcg { "tcg" } else { m.accel.name() };
    let pairs = [
        ("-machine", machine),
        ("-accel", accel.to_string()),
        ("-cpu", cpu(m.arch, m.accel).to_string()),
        ("-smp", m.cpus.to_string()),
        ("-m", format!("{}M", m.memory_mib)),
        ("-display", "none".to_string()),
    ];
    let pairs = pairs.into_iter().flat_map(|(option, value)| [option.to_string(), value]);
    pairs.chain(["-nodefaults", "-no-user-config"].map(String::from)).collect()
}

fn board(arch: Arch, accel: Accel) -> &'static str {
    match (arch, accel) {
        // Without Secure Boot nothing lives in system management mode, and emulating it is slow.
        (Arch::Amd64, _) => "q35,smm=off",
        (Arch::Arm64, Accel::Hvf) => "virt",
        (Arch::Arm64, _) => "virt,gic-version=max",
    }
}

fn cpu(arch: Arch, accel: Accel) -> &'static str {
    match (arch, accel) {
        (_, Accel::Kvm | Accel::Hvf) => "host",
        (Arch::Amd64, Accel::Tcg) => "max",
        // `max` has pointer authentication, which emulation pays for with most of its speed; a Pi 4 has this one.
        (Arch::Arm64, Accel::Tcg) => "cortex-a72",
    }
}

/// QEMU's option values end at a comma; a comma in them is written twice.
fn escape(text: &str) -> String {
    text.replace(',', ",,")
}

fn path_value(path: &Path) -> String {
    escape(&path.display().to_string())
}

/// `1970-01-01T00:00:00`, the form that `-rtc base=` takes. Days to a date after Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms", `civil_from_days`.
fn date_time(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let day = doy - (153 * mp + 2) / 5 + 1;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}")
}

/// A QEMU that serves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qemu {
    /// What to run.
    pub program: PathBuf,
    /// Major and minor version.
    pub version: (u32, u32),
}

/// Looks for the QEMU of an architecture: `program`, else `qemu-system-*` in the search path.
///
/// # Errors
/// [`Refusal::QemuMissing`], [`Refusal::QemuTooOld`], [`Refusal::System`].
pub fn find(arch: Arch, program: Option<&Path>) -> Result<Qemu, Refusal> {
    let program =
        program.map_or_else(|| PathBuf::from(format!("qemu-system-{}", arch.kernel())), Path::to_path_buf);
    let output = match Command::new(&program).arg("--version").output() {
        Ok(output) => output,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(Refusal::QemuMissing { program: program.display().to_string(), arch });
        }
        Err(e) => return Err(Refusal::io("run", &program, &e)),
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let version = parse_version(&text).ok_or_else(|| {
        let said =
            io::Error::new(io::ErrorKind::InvalidData, format!("it does not say its version: {text:?}"));
        Refusal::io("run", &program, &said)
    })?;
    let qemu = Qemu { program, version };
    qemu.at_least(OLDEST)?;
    Ok(qemu)
}

impl Qemu {
    /// Refuses an older one.
    ///
    /// # Errors
    /// [`Refusal::QemuTooOld`].
    pub fn at_least(&self, needed: (u32, u32)) -> Result<(), Refusal> {
        if self.version >= needed {
            return Ok(());
        }
        let program = self.program.display().to_string();
        Err(Refusal::QemuTooOld { program, found: version(self.version), needed: version(needed) })
    }
}

/// `7.2`.
pub(crate) fn version((major, minor): (u32, u32)) -> String {
    format!("{major}.{minor}")
}

/// Reads `QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)`.
fn parse_version(text: &str) -> Option<(u32, u32)> {
    let after = text.split("version ").nth(1)?;
    let mut numbers = after.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(arch: Arch, accel: Accel) -> MachineConfig {
        MachineConfig {
            name: "n1".into(),
            arch,
            accel,
            memory_mib: 3072,
            cpus: 2,
            mac: Mac([0x52, 0x54, 0, 1, 2, 3]),
            serial: "n1".into(),
            rtc: Rtc::Host,
            board: None,
            boot: BootConfig::Flash { code: "/fw/code,1.fd".into(), vars: "/lab/vars.fd".into() },
            sockets: Sockets {
                disk: "/r/0.disk".into(),
                net: "/r/0.net".into(),
                console: "/r/0.con".into(),
                control: "/r/0.qmp".into(),
            },
        }
    }

    fn kernel(cmdline: &str, pi: bool) -> BootConfig {
        BootConfig::Kernel {
            kernel: "/k".into(),
            initrd: Some("/i".into()),
            cmdline: cmdline.into(),
            device_tree: pi.then(|| "/t".into()),
            choose_at_reset: pi,
        }
    }

    fn lines(config: &MachineConfig) -> String {
        arguments(config).join(" ").replace(" -", "\n-")
    }

    #[test]
    fn amd64_with_kvm() {
        assert_eq!(
            lines(&config(Arch::Amd64, Accel::Kvm)),
            "-name guest=n1
-machine q35,smm=off,pflash0=code,pflash1=vars
-accel kvm
-cpu host
-smp 2
-m 3072M
-rtc base=utc
-blockdev driver=file,node-name=code,filename=/fw/code,,1.fd,read-only=on
-blockdev driver=file,node-name=vars,filename=/lab/vars.fd
-blockdev driver=nbd,node-name=disk,server.type=unix,server.path=/r/0.disk,discard=unmap
-device virtio-blk-pci,drive=disk,serial=n1,write-cache=on,bootindex=1
-netdev stream,id=net,server=off,addr.type=unix,addr.path=/r/0.net
-device virtio-net-pci,netdev=net,mac=52:54:00:01:02:03,romfile=
-object rng-random,id=rng,filename=/dev/urandom
-device virtio-rng-pci,rng=rng
-device i6300esb
-action watchdog=reset
-serial chardev:console
-chardev socket,id=console,path=/r/0.con
-chardev socket,id=control,path=/r/0.qmp
-mon chardev=control,mode=control
-display none
-nodefaults
-no-user-config"
        );
    }

    #[test]
    fn what_differs_on_arm64_with_a_kernel_and_a_dead_clock() {
        let kernel = kernel("a b", false);
        let config = MachineConfig { rtc: Rtc::At(0), boot: kernel, ..config(Arch::Arm64, Accel::Tcg) };
        let text = lines(&config);
        for line in [
            "-machine virt,gic-version=max\n",
            "-accel tcg,thread=multi\n",
            "-cpu cortex-a72\n",
            "-rtc base=1970-01-01T00:00:00\n",
            "-kernel /k\n-initrd /i\n-append a b\n",
        ] {
            assert!(text.contains(line), "{line} is not in {text}");
        }
        assert!(!text.contains("pflash"));
    }

    #[test]
    fn raspberry_boards() {
        let of = |board, cmdline| {
            let boot = kernel(cmdline, true);
            lines(&MachineConfig { board: Some(board), boot, ..config(Arch::Arm64, Accel::Tcg) })
        };
        assert_eq!(
            of(PiBoard::Pi3, "console=tty0 console=ttyS1,115200"),
            "-name guest=n1
-machine raspi3b
-accel tcg,thread=multi
-kernel /k
-initrd /i
-append console=tty0 console=ttyS1,115200
-dtb /t
-action reboot=shutdown
-drive if=sd,format=raw,cache=writethrough,file.driver=nbd,file.server.type=unix,file.server.path=/r/0.disk
-netdev stream,id=net,server=off,addr.type=unix,addr.path=/r/0.net
-device usb-net,netdev=net,mac=52:54:00:01:02:03
-serial null
-serial chardev:console
-chardev socket,id=console,path=/r/0.con
-chardev socket,id=control,path=/r/0.qmp
-mon chardev=control,mode=control
-display none
-nodefaults
-no-user-config"
        );
        let four = of(PiBoard::Pi4, "console=ttyAMA0 console=tty0");
        assert!(
            four.contains("-machine raspi4b\n") && !four.contains("usb-net") && !four.contains("null"),
            "{four}"
        );
        let virt = config(Arch::Arm64, Accel::Tcg);
        let dump = dump_tree_arguments(&virt, Path::new("/d/t,1")).join(" ");
        assert_eq!(
            dump,
            "-machine virt,gic-version=max,dumpdtb=/d/t,,1 -accel tcg -cpu cortex-a72 -smp 2 -m 3072M -display none \
             -nodefaults -no-user-config"
        );
    }

    #[test]
    fn the_best_way_for_a_machine() {
        let pc = Computer { arch: Some(Arch::Amd64), kvm: true, macos: false };
        assert_eq!(pc.accel(AccelChoice::Auto, Arch::Amd64), Accel::Kvm);
        assert_eq!(pc.accel(AccelChoice::Emulation, Arch::Amd64), Accel::Tcg);
        assert_eq!(pc.accel(AccelChoice::Auto, Arch::Arm64), Accel::Tcg);
        assert_eq!(Computer { kvm: false, ..pc }.accel(AccelChoice::Auto, Arch::Amd64), Accel::Tcg);
        let mac = Computer { arch: Some(Arch::Arm64), kvm: false, macos: true };
        assert_eq!(mac.accel(AccelChoice::Auto, Arch::Arm64), Accel::Hvf);
    }

    #[test]
    fn dates() {
        assert_eq!(date_time(951_782_400), "2000-02-29T00:00:00");
        assert_eq!(date_time(4_107_542_399), "2100-02-28T23:59:59");
        assert_eq!(date_time(4_107_542_400), "2100-03-01T00:00:00");
        assert_eq!(date_time(1_704_067_199), "2023-12-31T23:59:59");
    }

    #[test]
    fn versions() {
        assert_eq!(parse_version("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)\n"), Some((7, 2)));
        assert_eq!(parse_version("QEMU emulator version 10.0.2"), Some((10, 0)));
        assert_eq!(parse_version("something else"), None);
    }

    #[test]
    fn a_missing_an_old_and_a_strange_program() {
        let dir = tempfile::tempdir().unwrap();
        let script = |name: &str, text: &str| {
            let (data, path) = (dir.path().join("data"), dir.path().join(name));
            std::fs::write(&data, format!("#!/bin/sh\necho '{text}'\n")).unwrap();
            // By another process: a program that any process has open for writing cannot be started, and what another
            // test starts at this moment would have it.
            let install = Command::new("install").args(["-m", "755"]).args([&data, &path]).status();
            assert!(install.unwrap().success());
            path
        };
        let missing = find(Arch::Amd64, Some(&dir.path().join("none"))).unwrap_err();
        assert!(matches!(missing, Refusal::QemuMissing { .. }) && missing.hint().is_some());
        let old = find(Arch::Amd64, Some(&script("old", "QEMU emulator version 6.2.0"))).unwrap_err();
        assert!(old.to_string().ends_with("is version 6.2; the lab needs 7.2 or newer"), "{old}");
        assert!(matches!(find(Arch::Arm64, Some(&script("odd", "?"))), Err(Refusal::System { .. })));
    }
}
