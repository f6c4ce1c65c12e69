//! Which kernel modules the initramfs carries, and why.
//!
//! The initramfs must find the disk, check and mount the root, mount data and arm the watchdog; everything else is
//! loaded by udev from the root. A board not listed here works if its disk hangs on one of these drivers.
//!
//! Order: what every machine needs, watchdogs, then drivers of disks, the most frequent first. Whoever loads them may
//! stop as soon as the disk is there: udev loads the others later.

use crate::devicetree::DeviceTree;
use crate::release::BuildError;
use bramble_api::board::facts;
use bramble_api::names::{Arch, Board};
use bramble_debian::depmod::{Kernel, Module};

/// A module and why it is there.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Name, with underscores or hyphens.
    pub name: &'static str,
    /// Kernels without it are accepted: hardware that only some machines of the board have.
    pub optional: bool,
    /// What fails without it.
    pub reason: &'static str,
}

const fn must(name: &'static str, reason: &'static str) -> Wanted {
    Wanted { name, optional: false, reason }
}

const fn may(name: &'static str, reason: &'static str) -> Wanted {
    Wanted { name, optional: true, reason }
}

/// On every board.
const ALWAYS: &[Wanted] = &[
    must("dm-mod", "device-mapper, which carries dm-verity"),
    must("dm-verity", "checks every block of the root"),
    must("erofs", "the root"),
    must("ext4", "the data partition"),
    // Virtual machines of the lab boot every board's root.
    must("i6300esb", "virtual machines: the watchdog"),
    must("virtio_pci", "virtual machines: the bus"),
    must("virtio_blk", "virtual machines: the disk"),
];

/// With UEFI firmware.
const UEFI: &[Wanted] = &[
    must("efivarfs", "which slot was started, and the one-shot entry"),
    must("nvme", "NVMe disks"),
    must("ahci", "SATA disks"),
    must("sd_mod", "SATA and USB disks"),
    must("virtio_scsi", "virtual machines of other hypervisors: the disk"),
    must("sdhci-pci", "eMMC of small PCs"),
    must("sdhci-acpi", "eMMC of small PCs and tablets"),
    must("mmc_block", "eMMC and SD cards"),
    must("xhci-pci", "USB disks: the host controller"),
    must("usb-storage", "USB disks"),
    must("uas", "USB disks with the faster protocol"),
];

const UEFI_AMD64: &[Wanted] = &[
    must("iTCO_wdt", "the watchdog of Intel chip sets"),
    must("i2c-i801", "announces that watchdog on chip sets since 2016"),
    must("lpc_ich", "announces that watchdog on older chip sets"),
    must("sp5100_tco", "the watchdog of AMD chip sets"),
    must("vmd", "NVMe disks behind Intel's volume management"),
];

const UEFI_ARM64: &[Wanted] = &[
    must("sbsa_gwdt", "the watchdog of ARM servers and virtual machines"),
    may("xhci-plat-hcd", "USB disks where the controller is no PCI device"),
    may("ahci_platform", "SATA disks where the controller is no PCI device"),
];

/// On every Pi, whatever the root lies on.
const PI: &[Wanted] = &[
    must("mmc_block", "SD cards"),
    must("sd_mod", "USB disks"),
    must("usb-storage", "USB disks"),
    must("uas", "USB disks with the faster protocol"),
];

/// What a Pi's own hardware needs.
fn pi(board: Board) -> Vec<Wanted> {
    let drivers = facts(board).into_iter().flat_map(|f| std::iter::once(&f.watchdog).chain(f.storage));
    drivers.map(|driver| must(driver.name, driver.reason)).chain(PI.iter().copied()).collect()
}

/// The modules for these boards, each once, in an order that loads (dependencies are added by the kernel's own
/// tables).
pub fn wanted(boards: &[Board]) -> Vec<Wanted> {
    let lists = boards.iter().flat_map(|board| match board {
        Board::UefiAmd64 => [UEFI_AMD64, UEFI].concat(),
        Board::UefiArm64 => [UEFI_ARM64, UEFI].concat(),
        Board::Pi3 | Board::Pi4 | Board::Pi5 => pi(*board),
    });
    let mut all: Vec<Wanted> = Vec::new();
    for wanted in ALWAYS.iter().copied().chain(lists) {
        match all.iter_mut().find(|w| same(w.name, wanted.name)) {
            Some(known) => known.optional &= wanted.optional,
            None => all.push(wanted),
        }
    }
    all
}

/// The boards that one image of an architecture starts on.
pub fn boards_of(arch: Arch) -> &'static [Board] {
    match arch {
        Arch::Amd64 => &[Board::UefiAmd64],
        Arch::Arm64 => &[Board::UefiArm64, Board::Pi3, Board::Pi4, Board::Pi5],
    }
}

/// The modules for these boards with all they depend on, in the order of loading.
///
/// # Errors
/// The kernel has one that is needed neither as a module nor built in.
pub(crate) fn collect(kernel: &Kernel, boards: &[Board]) -> Result<Vec<Module>, BuildError> {
    let (here, absent): (Vec<Wanted>, Vec<Wanted>) =
        wanted(boards).into_iter().partition(|w| kernel.has(w.name));
    let lacking: Vec<String> =
        absent.iter().filter(|w| !w.optional).map(|w| format!("{} ({})", w.name, w.reason)).collect();
    if !lacking.is_empty() {
        return Err(BuildError::Lacking { kernel: kernel.version.clone(), lacking });
    }
    let names: Vec<&str> = here.iter().map(|w| w.name).collect();
    Ok(kernel.closure(&names)?)
}

/// Drivers that a board's disks wait for and that are neither built in nor among `carried`: the names of modules, each
/// with the node of the device tree that it drives.
pub(crate) fn undriven(kernel: &Kernel, tree: &DeviceTree<'_>, carried: &[Module]) -> Vec<(String, String)> {
    let mut lacking = Vec::new();
    for supplier in tree.suppliers() {
        // The most exact name that anything drives is the one that counts, as for the kernel.
        let driven = |name: &&String| kernel.drives(name) || !kernel.drivers(name).is_empty();
        let Some(name) = supplier.compatible.iter().find(driven).filter(|name| !kernel.drives(name)) else {
            continue;
        };
        let drivers = kernel.drivers(name);
        if !drivers.iter().any(|driver| carried.iter().any(|module| same(&module.name, driver))) {
            lacking.push((drivers.join(" or "), supplier.node));
        }
    }
    lacking
}

/// Module names are compared without regard to hyphens, as `modprobe` does.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len()
        && a.bytes().zip(b.bytes()).all(|(a, b)| a == b || matches!((a, b), (b'-', b'_') | (b'_', b'-')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_once_and_needed_if_any_board_needs_it() {
        let all = wanted(&[Board::UefiArm64, Board::Pi5]);
        for (i, a) in all.iter().enumerate() {
            assert!(!a.reason.is_empty());
            assert!(all[i + 1..].iter().all(|b| !same(a.name, b.name)), "{} twice", a.name);
        }
        assert!(!all.iter().find(|w| w.name == "xhci-plat-hcd").unwrap().optional);
        assert!(same("usb_storage", "usb-storage") && !same("uas", "uat"));
    }
}
