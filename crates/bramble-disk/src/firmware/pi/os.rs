//! The last step: which files of the chosen partition are loaded.
//!
//! Source: Raspberry Pi documentation, `config_txt/boot.adoc`, section by option.

use std::fmt;
use std::io::Read;

use super::board::{Behaviour, Board, Family};
use super::config::Settings;
use crate::firmware::fdt::{self, Bootloader};
use crate::firmware::trace::Trace;
use crate::firmware::volume::Volume;
use crate::firmware::{FileRef, Place, ReadAt};

/// A command line is one page; Linux on arm64 takes 2048 bytes (arch/arm64/include/uapi/asm/setup.h).
const CMDLINE_MAX: usize = 4096;
const TREE_MAX: u64 = 2 << 20;
/// `struct arm64_image_header` (Linux, Documentation/arch/arm64/booting.rst): magic at byte 56.
const IMAGE_HEADER: usize = 64;
const IMAGE_MAGIC: &[u8] = b"ARM\x64";
/// Enough of a gzip file to see the header in it.
const GZIP_HEAD: usize = 64 << 10;

/// A kernel that is started, with everything that firmware loads for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// Where the files are.
    pub place: Place,
    /// Which file said so: `config.txt` or `tryboot.txt`.
    pub config: String,
    /// The kernel.
    pub kernel: FileRef,
    /// Whether the kernel is a gzip archive of an Image: the firmware unpacks it.
    pub kernel_gzip: bool,
    /// The device tree.
    pub device_tree: FileRef,
    /// Overlays that the firmware would lay over the tree. The model does not.
    pub overlays: Vec<String>,
    /// Archives, put together in this order; empty if there is none.
    pub initramfs: Vec<FileRef>,
    /// The command line as it stands in its file; the firmware adds its own words to it.
    pub cmdline: String,
    /// What the kernel reads in `/chosen/bootloader`.
    pub bootloader: Bootloader,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Start { kernel, device_tree, .. } = self;
        write!(f, "partition {}: {kernel}, {device_tree}", self.place.number)?;
        self.initramfs.iter().try_for_each(|file| write!(f, ", {file}"))?;
        write!(f, ", command line {:?}", self.cmdline)
    }
}

/// Why the chosen partition starts nothing. The firmware stays where it is, with a pattern of blinks or a dead kernel;
/// a watchdog or a hand has to end it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OsFailure {
    /// The volume cannot be read any more.
    #[error("the volume cannot be read: {0}")]
    Unreadable(String),
    /// No kernel under any of its names.
    #[error("no kernel ({0})")]
    NoKernel(String),
    /// The file is no 64-bit kernel that this firmware unpacks.
    #[error("{0} is no arm64 Image, nor a gzip archive of one")]
    BadKernel(String),
    /// The kernel would be started in 32-bit mode.
    #[error("{0} is a 64-bit kernel, and would be started in 32-bit mode: `arm_64bit=1` is missing")]
    Mode(String),
    /// The kernel would get no device tree.
    #[error("no device tree ({0})")]
    NoDeviceTree(String),
    /// Something that the model leaves out decides here.
    #[error("{0} is not modelled")]
    NotModelled(&'static str),
}

/// The VideoCore firmware of a board: `start_file`, `start_x`, `start_debug`, and the cut-down one for `gpu_mem=16`.
pub(super) fn start_file<D: ReadAt + ?Sized>(
    volume: &mut Volume<D>,
    board: &Board,
    settings: &Settings,
) -> String {
    if let Some(name) = settings.text("start_file") {
        return name.to_owned();
    }
    let pi4 = board.model.family() == Family::Eeprom2711;
    let suffix = if settings.is_set("start_x") {
        "x"
    } else if settings.is_set("start_debug") {
        "db"
    } else if settings.number("gpu_mem") == Some(16) {
        "cd"
    } else {
        ""
    };
    let old = if suffix.is_empty() { "start.elf".to_owned() } else { format!("start_{suffix}.elf") };
    let new = format!("start4{suffix}.elf");
    // "On the Raspberry Pi 4, if the files start4x.elf and fixup4x.dat are present, these files will be used instead."
    if pi4 && (suffix.is_empty() || volume.file(&new).is_some()) { new } else { old }
}

/// "start_file specifies the VideoCore firmware file to use; fixup_file ... a matched pair".
pub(super) fn fixup_of(start_file: &str) -> String {
    start_file.replacen("start", "fixup", 1).replace(".elf", ".dat")
}

/// A name below a prefix: "Any user-specified OS file can bypass all prefixes by using an absolute path".
fn prefixed(prefix: &str, name: &str) -> String {
    if name.starts_with('/') { name.to_owned() } else { format!("{prefix}{name}") }
}

/// Names that the kernel may have, in order of preference.
///
/// `kernel`: "kernel8.img, or kernel7l.img if arm_64bit is set to 0" (Pi 4); `kernel7.img` on older boards without
/// `arm_64bit`; the Pi 5 "defaults to loading kernel_2712.img", then `kernel8.img`.
fn kernels(board: &Board, settings: &Settings) -> Vec<String> {
    let of = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    match (settings.text("kernel").filter(|name| !name.is_empty()), board.model.family()) {
        (Some(name), _) => vec![name.to_owned()],
        (None, Family::Eeprom2712) => of(&["kernel_2712.img", "kernel8.img"]),
        (None, _) if is_64bit(board, settings) => of(&["kernel8.img"]),
        (None, Family::Eeprom2711) => of(&["kernel7l.img"]),
        (None, Family::Bootcode) => of(&["kernel7.img"]),
    }
}

/// `arm_64bit`: "Defaults to 1 on Pi 4s, and 0 on all other platforms. However, if the name given in an explicit kernel
/// option matches one of the known kernels then arm_64bit will be set accordingly." The Pi 5 knows no other mode.
fn is_64bit(board: &Board, settings: &Settings) -> bool {
    let by_name = match settings.text("kernel") {
        Some("kernel8.img" | "kernel_2712.img") => Some(true),
        Some("kernel.img" | "kernel7.img" | "kernel7l.img") => Some(false),
        _ => None,
    };
    let stated = settings.number("arm_64bit").map(|number| number != 0);
    match board.model.family() {
        Family::Eeprom2712 => true,
        Family::Eeprom2711 => by_name.or(stated).unwrap_or(true),
        Family::Bootcode => by_name.or(stated).unwrap_or(false),
    }
}

/// `os_prefix`, and "upstream/" with `upstream_kernel=1`; "unless the expected kernel and .dtb can be found at the new
/// location/name, the prefix is ignored".
fn prefix<D: ReadAt + ?Sized>(
    volume: &mut Volume<D>,
    board: &Board,
    settings: &Settings,
    trace: &mut Trace,
) -> String {
    let upstream = settings.is_set("upstream_kernel").then_some("upstream/");
    let Some(wanted) = settings.text("os_prefix").or(upstream).filter(|prefix| !prefix.is_empty()) else {
        return String::new();
    };
    let kernel = kernels(board, settings).iter().any(|name| volume.file(&prefixed(wanted, name)).is_some());
    if kernel && find_tree(volume, board, settings, wanted).is_some() {
        return wanted.to_owned();
    }
    // `upstream/` is tried unasked, and hardly anybody has it.
    if settings.text("os_prefix").is_some() {
        trace.warn(format_args!("os_prefix={wanted} is ignored: no kernel and device tree are found there"));
    }
    String::new()
}

/// The device tree: `device_tree`, else by the board's names.
fn find_tree<D: ReadAt + ?Sized>(
    volume: &mut Volume<D>,
    board: &Board,
    settings: &Settings,
    prefix: &str,
) -> Option<FileRef> {
    match settings.text("device_tree") {
        Some(name) => volume.file(&prefixed(prefix, name)),
        None => {
            let names = board.model.device_trees(settings.is_set("upstream_kernel"));
            names.into_iter().find_map(|name| volume.file(&prefixed(prefix, name)))
        }
    }
}

/// A device tree that a Pi 5 accepts ("does not indicate support": the check that `os_check=0` switches off).
pub(super) fn device_tree<D: ReadAt + ?Sized>(
    volume: &mut Volume<D>,
    board: &Board,
    settings: &Settings,
    trace: &mut Trace,
) -> Option<FileRef> {
    let prefix = prefix(volume, board, settings, trace);
    let file = find_tree(volume, board, settings, &prefix)?;
    let tree = volume.read(&file.path, TREE_MAX).ok()?;
    let compatible = match fdt::compatible(&tree) {
        Ok(compatible) => compatible,
        Err(error) => {
            trace.warn(format_args!("{file}: {error}"));
            return None;
        }
    };
    // A log of the check: "dt-match: compatible: brcm,bcm2712 match: brcm,bcm2712".
    if !compatible.iter().any(|name| name == "brcm,bcm2712") {
        trace.warn(format_args!("{file} is for {}, not for brcm,bcm2712", compatible.join(", ")));
        return None;
    }
    Some(file)
}

/// Loads.
pub(super) fn load<D: ReadAt + ?Sized>(
    volume: &mut Volume<D>,
    board: &Board,
    behaviour: &Behaviour,
    settings: &Settings,
    config: &str,
    bootloader: Bootloader,
    trace: &mut Trace,
) -> Result<Start, OsFailure> {
    if settings.is_set("boot_ramdisk") {
        return Err(OsFailure::NotModelled("boot_ramdisk (boot.img)"));
    }
    let prefix = prefix(volume, board, settings, trace);
    if !prefix.is_empty() {
        trace.step(format_args!("OS files from {prefix}"));
    }

    let names = kernels(board, settings);
    let found = names.iter().find_map(|name| Some((name, volume.file(&prefixed(&prefix, name))?)));
    let (name, kernel) = found.ok_or_else(|| OsFailure::NoKernel(names.join(", ")))?;
    let kernel_gzip = check_kernel(volume, &kernel)?;
    if !is_64bit(board, settings) {
        return Err(OsFailure::Mode(kernel.path));
    }
    trace.step(format_args!("kernel {kernel}{}", if kernel_gzip { ", gzip" } else { "" }));

    let device_tree = find_tree(volume, board, settings, &prefix);
    let tree_names = match settings.text("device_tree") {
        Some(name) => format!("device_tree={name}"),
        None => board.model.device_trees(settings.is_set("upstream_kernel")).join(", "),
    };
    let device_tree = device_tree.ok_or(OsFailure::NoDeviceTree(tree_names))?;
    let tree =
        volume.read(&device_tree.path, TREE_MAX).map_err(|error| OsFailure::Unreadable(error.to_string()))?;
    if let Err(error) = fdt::compatible(&tree) {
        return Err(OsFailure::NoDeviceTree(format!("{}: {error}", device_tree.path)));
    }
    trace.step(format_args!("device tree {device_tree}"));
    let d0 = board.model == super::Model::Pi5D0;
    if d0 && device_tree.path.ends_with("bcm2712-rpi-5-b.dtb") && settings.text("device_tree").is_none() {
        trace.doubt(format_args!(
            "{} is for the C0 stepping; this board needs the overlay bcm2712d0 on it (raspberrypi/firmware#2018)",
            device_tree.path
        ));
    }

    let initramfs = initramfs(volume, behaviour, settings, &prefix, name, trace);
    let cmdline = cmdline(volume, settings, &prefix, trace);
    for overlay in &settings.overlays {
        trace.doubt(format_args!("overlay {overlay}: the model does not lay it over the device tree"));
    }
    Ok(Start {
        place: volume.place,
        config: config.to_owned(),
        kernel,
        kernel_gzip,
        device_tree,
        overlays: settings.overlays.clone(),
        initramfs,
        cmdline,
        bootloader,
    })
}

/// Whether the kernel is packed. "64-bit kernels may be uncompressed image files or a gzip archive of an image (...) the
/// bootloader will recognize the archive from the signature bytes at the beginning".
fn check_kernel<D: ReadAt + ?Sized>(volume: &mut Volume<D>, kernel: &FileRef) -> Result<bool, OsFailure> {
    let bad = || OsFailure::BadKernel(kernel.path.clone());
    let head =
        volume.head(&kernel.path, GZIP_HEAD).map_err(|error| OsFailure::Unreadable(error.to_string()))?;
    let is_image = |bytes: &[u8]| bytes.get(56..60) == Some(IMAGE_MAGIC);
    if head.starts_with(&[0x1f, 0x8b]) {
        let mut header = [0; IMAGE_HEADER];
        flate2::read::GzDecoder::new(head.as_slice()).read_exact(&mut header).map_err(|_| bad())?;
        return if is_image(&header) { Ok(true) } else { Err(bad()) };
    }
    // A kernel packed as an EFI program has another mark: `MZ` and `zimg` (Linux, drivers/firmware/efi/libstub/zboot-header.S).
    if is_image(&head) && head.get(4..8) != Some(b"zimg") { Ok(false) } else { Err(bad()) }
}

/// `initramfs NAME[,NAME...] ADDRESS`, `ramfsfile=NAME`, or by the kernel's name with `auto_initramfs=1`.
fn initramfs<D: ReadAt + ?Sized>(
    volume: &mut Volume<D>,
    behaviour: &Behaviour,
    settings: &Settings,
    prefix: &str,
    kernel: &str,
    trace: &mut Trace,
) -> Vec<FileRef> {
    let stated = settings.text("initramfs").and_then(|value| value.split_whitespace().next());
    let stated = stated.or_else(|| settings.text("ramfsfile")).filter(|names| !names.is_empty());
    let names: Vec<String> = match stated {
        // "newer firmwares allow the loading of multiple files by comma-separating their names".
        Some(names) => names.split(',').map(|name| prefixed(prefix, name)).collect(),
        None if settings.is_set("auto_initramfs") => {
            // "the initramfs must be matched to the chosen kernel": initramfs8 for kernel8.img, initramfs_2712 for
            // kernel_2712.img (raspberrypi/firmware#1965).
            let rest = kernel.rsplit('/').next().unwrap_or(kernel).strip_prefix("kernel");
            let Some(suffix) = rest.and_then(|rest| rest.strip_suffix(".img")) else {
                trace.step(format_args!(
                    "auto_initramfs: {kernel} has no name that an initramfs follows from"
                ));
                return Vec::new();
            };
            if !prefix.is_empty() && !behaviour.auto_initramfs_prefix {
                trace.warn(format_args!(
                    "auto_initramfs: this firmware looks in the wrong place when there is an os_prefix"
                ));
                return Vec::new();
            }
            let directory = kernel.rfind('/').map_or("", |end| &kernel[..=end]);
            let name = prefixed(prefix, &format!("{directory}initramfs{suffix}"));
            return volume
                .file(&name)
                .inspect(|file| trace.step(format_args!("initramfs {file}")))
                .into_iter()
                .collect();
        }
        None => Vec::new(),
    };
    let mut files = Vec::new();
    for name in names {
        match volume.file(&name) {
            Some(file) => {
                trace.step(format_args!("initramfs {file}"));
                files.push(file);
            }
            None => {
                trace.doubt(format_args!(
                    "initramfs {name} is missing; the kernel is taken to be started without it"
                ));
            }
        }
    }
    files
}

/// `cmdline`: "the default value is cmdline.txt". One line.
fn cmdline<D: ReadAt + ?Sized>(
    volume: &mut Volume<D>,
    settings: &Settings,
    prefix: &str,
    trace: &mut Trace,
) -> String {
    let name = prefixed(prefix, settings.text("cmdline").unwrap_or("cmdline.txt"));
    let Ok(bytes) = volume.head(&name, CMDLINE_MAX) else {
        trace.warn(format_args!("no {name}: the command line has only what the firmware adds"));
        return String::new();
    };
    let mut lines = bytes.split(|byte| matches!(byte, b'\n' | b'\r' | 0));
    let first = String::from_utf8_lossy(lines.next().unwrap_or_default()).trim().to_owned();
    if lines.any(|line| !line.trim_ascii().is_empty()) {
        trace.warn(format_args!("{name} has more than one line; the first counts"));
    }
    let place = settings.place("cmdline");
    let by = if place.is_empty() { String::new() } else { format!(" (named at {place})") };
    trace.step(format_args!("command line from {name}{by}"));
    first
}
