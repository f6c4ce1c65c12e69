//! What a Raspberry Pi's firmware reads: BOOT-A/B with firmware, device trees, kernel, initramfs and command line, and
//! BOOTSEL, which says what to start and holds a rescue.
//!
//! Formats: config.txt, cmdline.txt and autoboot.txt of raspberrypi.com's documentation. A partition counts as one to
//! start when it has `start.elf` (Pi 3), `start4.elf` (Pi 4) or `config.txt` (Pi 5).

use crate::devicetree::{self, DeviceTree};
use crate::modules;
use crate::release::BuildError;
use bramble_api::board::{Facts, Overlay, facts};
use bramble_api::layout::pi::{
    AUTOBOOT, AUTOBOOT_OFFSET, BOOT_SELECT_SIZE, BOOT_SIZE, SECTORS_PER_CLUSTER, autoboot,
};
use bramble_api::layout::{ALIGNMENT, SECTOR};
use bramble_api::names::{Board, Slot};
use bramble_debian::depmod::{Kernel, Module};
use bramble_debian::tree::{Content, Kind, Tree, TreePath};
use bramble_fat::{Entry, FatType, Options, PlanError, Volume};
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Directory of Debian's firmware package in the tree.
const PACKAGED: &str = "usr/lib/raspi-firmware";
/// Directory of Debian's device trees of these boards, below the kernel's.
const DEVICE_TREES: &str = "broadcom";
/// Directory of overlays, on a Pi's partition and in the package.
const OVERLAYS: &str = "overlays";
/// The kernel as packaged, an arm64 Image. Not compressed: firmware unpacks gzip up to a size that is nowhere stated,
/// and Debian's own Pis start this way.
pub const KERNEL: &str = "vmlinuz";
/// The initramfs.
pub const INITRAMFS: &str = "initrd.img";
/// Firmware's configuration.
pub const CONFIG: &str = "config.txt";
/// What firmware reads in its place in a trial when `autoboot.txt` does not say `tryboot_a_b`.
const TRYBOOT: &str = "tryboot.txt";
/// A word of the command line of the rescue: pid 1 starts no slot.
pub const RESCUE: &str = "bramble.rescue";
/// Longest line that firmware reads.
const LINE_MAX: usize = 98;
/// Words in front of a `=` or a blank that `os.firmware` cannot have: the build depends on them.
pub const RESERVED: &[&str] = &[
    "arm_64bit",
    "auto_initramfs",
    "boot_ramdisk",
    "cmdline",
    "fixup_file",
    "include",
    "initramfs",
    "kernel",
    "kernel_old",
    "os_prefix",
    "start_file",
    "upstream_kernel",
];

/// Files of Debian's `raspi-firmware` by their path on a Pi's partition.
#[derive(Clone, Debug, Default)]
pub struct Firmware(BTreeMap<String, Content>);

impl Firmware {
    /// Takes the files out of the tree, where nothing would read them (22 MB). None when the set is for no Pi.
    pub fn take(tree: &mut Tree) -> Firmware {
        let Some(home) = TreePath::new(PACKAGED) else { return Firmware::default() };
        let mut files = BTreeMap::new();
        for (path, node) in tree.below(&home) {
            let Kind::File(content) = &node.kind else { continue };
            let name = String::from_utf8_lossy(&path.as_bytes()[home.as_bytes().len() + 1..]);
            files.insert(name.into_owned(), content.clone());
        }
        tree.remove(&home);
        Firmware(files)
    }

    fn get(&self, name: &'static str) -> Result<&[u8], BuildError> {
        let missing =
            || BuildError::Missing { path: format!("/{PACKAGED}/{name}"), package: "raspi-firmware" };
        self.0.get(name).map(Content::as_slice).ok_or_else(missing)
    }
}

/// Lines of `os.firmware` for one board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lines {
    /// The board.
    pub board: Board,
    /// Lines of config.txt.
    pub lines: Vec<String>,
}

/// Files by their path on a partition, in the order in which they lie there: what grows comes last.
pub(crate) type Files<'a> = Vec<(String, Cow<'a, [u8]>)>;

/// What both partitions are made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts<'a> {
    /// The boards of the release that are Pis, at least one.
    pub boards: &'a [Board],
    pub kernel: &'a Kernel,
    pub initramfs: &'a [u8],
    pub firmware: &'a Firmware,
    pub lines: &'a [Lines],
    /// Words for the command line of all boards.
    pub cmdline: &'a str,
}

impl<'a> Parts<'a> {
    /// Files of BOOT-A and BOOT-B: the same in both, for which of the two was started is the firmware's word.
    pub(crate) fn boot(&self) -> Result<Files<'a>, BuildError> {
        self.files(false)
    }

    /// Files of BOOTSEL but for [`AUTOBOOT`]: the rescue, and what a Pi 3's ROM looks for on the first partition only.
    pub(crate) fn boot_select(&self) -> Result<Files<'a>, BuildError> {
        self.files(true)
    }

    fn facts(&self) -> impl Iterator<Item = &'static Facts> + '_ {
        self.boards.iter().filter_map(|board| facts(*board))
    }

    fn files(&self, first: bool) -> Result<Files<'a>, BuildError> {
        let mut files: Files<'a> = vec![(CONFIG.to_string(), Cow::Owned(self.config()?.into_bytes()))];
        if first {
            // A card that spoils `autoboot.txt` during a trial leaves the flag and takes `tryboot_a_b`: without this file
            // firmware would find no kernel, and hang (found by the simulator).
            files.push((TRYBOOT.to_string(), files[0].1.clone()));
        }
        for facts in self.facts() {
            let serial = facts.serial;
            let mut line = format!("{} console=tty0 console={serial},115200n8", self.cmdline);
            if first {
                line.push(' ');
                line.push_str(RESCUE);
            }
            line.push('\n');
            files.push((cmdline_file(facts), Cow::Owned(line.into_bytes())));
        }
        for facts in self.facts() {
            for name in facts.models.iter().flat_map(|model| model.device_trees) {
                files.push(((*name).to_string(), Cow::Borrowed(device_tree(self.kernel, name)?)));
            }
        }
        for facts in self.facts() {
            let first_stage = if first { facts.first_stage } else { &[] };
            for name in first_stage.iter().chain(facts.firmware) {
                files.push(((*name).to_string(), Cow::Borrowed(self.firmware.get(name)?)));
            }
        }
        for overlay in self.facts().flat_map(|facts| facts.models).filter_map(|model| model.overlay) {
            let bytes = overlay_between(self.kernel, &overlay)?;
            files.push((format!("{OVERLAYS}/{}.dtbo", overlay.name), Cow::Owned(bytes)));
        }
        for (name, content) in &self.firmware.0 {
            if name.starts_with(OVERLAYS) && !files.iter().any(|(known, _)| known == name) {
                files.push((name.clone(), Cow::Borrowed(content)));
            }
        }
        files.push((INITRAMFS.to_string(), Cow::Borrowed(self.initramfs)));
        files.push((KERNEL.to_string(), Cow::Borrowed(&self.kernel.image)));
        Ok(files)
    }

    /// The same in slots and rescue: a file of its own for each board's command line, because the serial ports differ.
    fn config(&self) -> Result<String, BuildError> {
        let mut text = format!(
            "# Bramble OS. Made anew with every release: lines of your own go to os.firmware in bramble.yaml.\n\
             arm_64bit=1\nenable_uart=1\nkernel={KERNEL}\ninitramfs {INITRAMFS} followkernel\n"
        );
        for facts in self.facts() {
            text.push_str(&format!("[{}]\ncmdline={}\n", facts.filter, cmdline_file(facts)));
            for line in facts.config {
                text.push_str(line);
                text.push('\n');
            }
            for line in self.lines.iter().filter(|l| l.board == facts.board).flat_map(|l| &l.lines) {
                if let Some(why) = refused(line) {
                    return Err(BuildError::FirmwareLine { line: line.clone(), why });
                }
                text.push_str(line);
                text.push('\n');
            }
        }
        // Lines may end in a filter of their own.
        text.push_str("[all]\n");
        Ok(text)
    }
}

fn cmdline_file(facts: &Facts) -> String {
    format!("cmdline-{}.txt", facts.board.name())
}

/// Why a line cannot stand in config.txt.
fn refused(line: &str) -> Option<&'static str> {
    if line.len() > LINE_MAX {
        return Some("firmware reads no more than 98 characters of a line");
    }
    if line.chars().any(|c| c.is_control()) {
        return Some("it has characters that are no text");
    }
    let word: String = line.trim_start().chars().take_while(|c| *c != '=' && !c.is_whitespace()).collect();
    RESERVED.contains(&word.as_str()).then_some("the build sets this itself")
}

/// Checks that the initramfs carries all that the disks of these boards wait for.
pub(crate) fn check_drivers(boards: &[Board], kernel: &Kernel, carried: &[Module]) -> Result<(), BuildError> {
    for model in boards.iter().filter_map(|board| facts(*board)).flat_map(|facts| facts.models) {
        for name in model.device_trees {
            let bytes = device_tree(kernel, name)?;
            let tree = DeviceTree::parse(bytes).map_err(|_| BuildError::NoDeviceTree {
                kernel: kernel.version.clone(),
                name: (*name).to_string(),
            })?;
            if let Some((module, node)) = modules::undriven(kernel, &tree, carried).into_iter().next() {
                return Err(BuildError::Undriven {
                    kernel: kernel.version.clone(),
                    model: model.name,
                    node,
                    module,
                });
            }
        }
    }
    Ok(())
}

/// What firmware lays over one device tree of the kernel to get another.
fn overlay_between(kernel: &Kernel, overlay: &Overlay) -> Result<Vec<u8>, BuildError> {
    let parse = |name: &str| {
        let damaged = |_| BuildError::NoDeviceTree { kernel: kernel.version.clone(), name: name.to_string() };
        DeviceTree::parse(device_tree(kernel, name)?).map_err(damaged)
    };
    let failed =
        || BuildError::NoOverlay { kernel: kernel.version.clone(), from: overlay.from, to: overlay.to };
    devicetree::overlay(&parse(overlay.from)?, &parse(overlay.to)?).ok_or_else(failed)
}

fn device_tree<'a>(kernel: &'a Kernel, name: &str) -> Result<&'a [u8], BuildError> {
    let tree = kernel.device_trees.get(&format!("{DEVICE_TREES}/{name}"));
    let missing = || BuildError::NoDeviceTree { kernel: kernel.version.clone(), name: name.to_string() };
    tree.map(Content::as_slice).ok_or_else(missing)
}

/// Plans BOOT-A and BOOT-B.
///
/// # Errors
/// What does not fit.
pub(crate) fn plan_boot<'a>(files: &'a Files<'a>, serial: u32, time: u64) -> Result<Volume<'a>, PlanError> {
    Volume::plan(&entries(files), &options(BOOT_SIZE, "BOOT", serial, time, 0))
}

/// [`AUTOBOOT`] of a new disk.
pub(crate) fn first_autoboot() -> String {
    autoboot(Slot::A)
}

/// Plans BOOTSEL, `autoboot` in its own place.
///
/// # Errors
/// What does not fit.
pub(crate) fn plan_boot_select<'a>(
    files: &'a Files<'a>,
    autoboot: &'a str,
    serial: u32,
    time: u64,
) -> Result<Volume<'a>, PlanError> {
    let mut entries = entries(files);
    let hot = Entry::file(AUTOBOOT, autoboot.as_bytes()).alone_in(ALIGNMENT).not_before(AUTOBOOT_OFFSET);
    entries.push(hot);
    let hidden = (ALIGNMENT / SECTOR) as u32;
    Volume::plan(&entries, &options(BOOT_SELECT_SIZE, "BOOTSEL", serial, time, hidden))
}

fn entries<'a>(files: &'a Files<'a>) -> Vec<Entry<'a>> {
    files.iter().map(|(path, content)| Entry::file(path, content)).collect()
}

fn options(size: u64, label: &str, serial: u32, time: u64, hidden_sectors: u32) -> Options {
    Options {
        size,
        sectors_per_cluster: SECTORS_PER_CLUSTER,
        serial,
        label: label.to_string(),
        time,
        hidden_sectors,
        ..Options::new(FatType::Fat32)
    }
}

#[cfg(test)]
#[path = "firmware_tests.rs"]
mod tests;
