//! The lab in the place of a Raspberry Pi's firmware: what it finds on the machine's disk, as files for QEMU.
//!
//! The choice is [`bramble_disk::firmware::pi`]'s alone. Here its answer is taken off the disk, and the device tree is told
//! how the machine was started, as the real firmware tells it.

use bramble_disk::firmware::fdt;
use bramble_disk::firmware::pi::{Board, BootFlags, Decision, Model, Outcome, Start};
use bramble_disk::firmware::{FileRef, ReadAt};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::disk::{Disk, DiskError};
use crate::error::Refusal;
use crate::layout::replace;
use crate::qemu::{self, BootConfig, MachineConfig, Qemu};
use crate::spec::PiBoard;

/// What a guest says on its console for `reboot N tryboot`, in the place of the reset register that the emulated boards
/// lack: `bramble-lab: reboot 0 tryboot` or `bramble-lab: reboot 3`. The last such line of a boot counts, at the next reset;
/// a power cut forgets it.
pub const REBOOT_MARKER: &str = "bramble-lab: reboot ";

/// No kernel or initramfs of ours comes near it; a damaged directory may claim anything.
const FILE_MAX: u64 = 512 << 20;

/// What Linux' device tree tells of at 0x7ef00000, where QEMU's raspi4b (10.0) has nothing: built-in drivers of the interrupt
/// controller and of the I2C of the monitor stop the kernel with an external abort. QEMU itself switches off the PCIe host,
/// the Ethernet, the thermal sensor and the random numbers of the tree it is given.
const RASPI4B_LACKS: &[&str] = &[
    "brcm,brcm2711-dvp",
    "brcm,bcm2711-l2-intc",
    "brcm,bcm2711-hdmi0",
    "brcm,bcm2711-hdmi1",
    "brcm,bcm2711-hdmi-i2c",
];

impl ReadAt for Disk {
    fn size(&self) -> u64 {
        Disk::size(self)
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read(offset, buffer).map_err(|error| match error {
            DiskError::Outside => io::ErrorKind::UnexpectedEof.into(),
            DiskError::NoPower => io::Error::other("the disk has no power"),
            DiskError::System(error) => error,
        })
    }
}

/// The board of a machine. `bootloader` was checked with the lab's description; a date that is none is a recent one.
pub(crate) fn board(board: PiBoard, bootloader: Option<&str>) -> Board {
    let model = match board {
        PiBoard::Pi3 => Model::Pi3B,
        PiBoard::Pi4 => Model::Pi4B,
        PiBoard::Pi5 => Model::Pi5,
    };
    let recent = Board::new(model);
    Board { bootloader: bootloader.and_then(|date| date.parse().ok()).unwrap_or(recent.bootloader), ..recent }
}

/// The reset register after a console line with [`REBOOT_MARKER`].
pub(crate) fn flags(line: &str) -> BootFlags {
    let words = line.split_once(REBOOT_MARKER).map_or("", |(_, words)| words);
    let mut words = words.split_whitespace();
    let partition = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
    BootFlags { partition, tryboot: words.next() == Some("tryboot"), ..BootFlags::default() }
}

/// Takes what a decision starts off the disk into `dir`, and says how QEMU gets it.
///
/// `config` is the machine without what starts it; `notes` gets what differs from a real board.
pub(crate) fn hand_over(
    disk: &Disk,
    decision: &Decision,
    config: &MachineConfig,
    qemu: &Qemu,
    dir: &Path,
    notes: &mut Vec<String>,
) -> Result<BootConfig, Refusal> {
    let start = match &decision.outcome {
        Outcome::Starts(start) => start,
        Outcome::Fails(failure) => {
            return Err(Refusal::NoBoot { machine: config.name.clone(), why: failure.to_string() });
        }
    };
    let bad = |why: String| Refusal::NoBoot { machine: config.name.clone(), why };
    let read = |file: &FileRef| {
        start.place.read(disk, &file.path, FILE_MAX).map_err(|error| bad(format!("{}: {error}", file.path)))
    };
    std::fs::create_dir_all(dir).map_err(|e| Refusal::io("make", dir, &e))?;
    let keep = |name: &str, bytes: &[u8]| {
        let path = dir.join(name);
        replace(&path, bytes).map_err(|e| Refusal::io("write", &path, &e))?;
        Ok::<PathBuf, Refusal>(path)
    };

    let kernel = keep("kernel", &read(&start.kernel)?)?;
    let mut archive = Vec::new();
    for file in &start.initramfs {
        archive.resize(archive.len().next_multiple_of(4), 0);
        archive.extend(read(file)?);
    }
    let initrd = if start.initramfs.is_empty() { None } else { Some(keep("initramfs", &archive)?) };

    let tree = match config.board {
        Some(PiBoard::Pi4) => {
            notes.push(
                "QEMU's raspi4b has no HDMI, and a kernel that looks for it dies: it is switched off".into(),
            );
            let tree = read(&start.device_tree)?;
            fdt::with_disabled(&tree, RASPI4B_LACKS).map_err(|error| bad(error.to_string()))?
        }
        Some(_) => read(&start.device_tree)?,
        None => {
            notes.push(
                "QEMU has no such board here: kernel, initramfs and command line are the image's, the device"
                    .into(),
            );
            notes.push("tree and the devices are those of QEMU's `virt`".into());
            virt_tree(config, qemu, dir)?
        }
    };
    let tree = fdt::with_bootloader(&tree, &start.bootloader).map_err(|error| bad(error.to_string()))?;
    let device_tree = Some(keep("device-tree", &tree)?);
    let cmdline = cmdline(start, config.board.is_some(), notes);
    if cmdline != start.cmdline {
        notes.push(format!("command line: {cmdline}"));
    }
    Ok(BootConfig::Kernel { kernel, initrd, cmdline, device_tree, choose_at_reset: true })
}

/// The command line with a console that the machine has.
///
/// The firmware replaces `serial0` by the port on the pins: on a Pi 3 the small one, `ttyS1` by Linux' own device trees.
/// A Pi 4 and QEMU's boards follow it. On `virt` the only port is `ttyAMA0`.
fn cmdline(start: &Start, is_board: bool, notes: &mut Vec<String>) -> String {
    let port = if is_board { "ttyS1" } else { "ttyAMA0" };
    let mut has_console = false;
    let words = start.cmdline.split_whitespace().map(|word| {
        let Some(name) = word.strip_prefix("console=") else { return word.to_string() };
        let serial = name.starts_with("serial") || name.starts_with("ttyS") || name.starts_with("ttyAMA");
        has_console |= serial;
        let replaced = if is_board { name.starts_with("serial") } else { serial };
        if !replaced {
            return word.to_string();
        }
        let options = name.find(',').map_or("", |comma| &name[comma..]);
        format!("console={port}{options}")
    });
    let words: Vec<String> = words.collect();
    if !has_console {
        notes.push("the command line names no serial console: nothing more may be seen here".into());
    }
    words.join(" ")
}

/// The device tree that QEMU makes for its `virt`: it is taken out, so that firmware's part can be added.
fn virt_tree(config: &MachineConfig, qemu: &Qemu, dir: &Path) -> Result<Vec<u8>, Refusal> {
    let path = dir.join("virt.dtb");
    let output = Command::new(&qemu.program)
        .args(qemu::dump_tree_arguments(config, &path))
        .output()
        .map_err(|e| Refusal::io("run", &qemu.program, &e))?;
    if !output.status.success() {
        let last_words = String::from_utf8_lossy(&output.stderr).trim().to_string();
        return Err(Refusal::QemuFailed { machine: config.name.clone(), last_words });
    }
    std::fs::read(&path).map_err(|e| Refusal::io("read", &path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bramble_disk::firmware::Place;

    fn start(cmdline: &str) -> Start {
        let file = |path: &str| FileRef { path: path.into(), size: 1 };
        Start {
            place: Place { number: 2, start: 0, size: 0 },
            config: "config.txt".into(),
            kernel: file("vmlinuz"),
            kernel_gzip: false,
            device_tree: file("t"),
            overlays: vec![],
            initramfs: vec![],
            cmdline: cmdline.into(),
            bootloader: fdt::Bootloader::default(),
        }
    }

    #[test]
    fn the_console_is_one_that_the_machine_has() {
        let line = |text: &str, board| {
            let mut notes = vec![];
            (cmdline(&start(text), board, &mut notes), notes.len())
        };
        let same = "console=tty0 console=ttyS1,115200 quiet";
        assert_eq!(line(same, true), (same.into(), 0));
        assert_eq!(line(same, false), ("console=tty0 console=ttyAMA0,115200 quiet".into(), 0));
        assert_eq!(line("console=serial0,115200", true), ("console=ttyS1,115200".into(), 0));
        assert_eq!(line("console=serial0", false), ("console=ttyAMA0".into(), 0));
        assert_eq!(line("quiet", true), ("quiet".into(), 1));
    }

    #[test]
    fn what_a_guest_asks_of_the_next_boot() {
        let trial = BootFlags { tryboot: true, ..BootFlags::default() };
        assert_eq!(flags("[ 3.2] bramble-lab: reboot 0 tryboot"), trial);
        assert_eq!(flags("bramble-lab: reboot 3"), BootFlags { partition: 3, ..BootFlags::default() });
        for other in ["", "bramble-lab: reboot ", "bramble-lab: reboot x", "reboot 3 tryboot"] {
            assert_eq!(flags(other), BootFlags::default(), "{other}");
        }
    }
}
