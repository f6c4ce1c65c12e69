//! A release: root, unified kernel image, boot partition and signed manifest, in one directory.
//!
//! A release is a pure function of [`ReleaseInput`]: same input, same bytes, whatever the computer, the directory and
//! the number of processors. Files are written under another name and renamed; `release.json`, which says that the
//! others are whole, comes last and goes first.

use crate::disk::Builder;
use crate::esp::{Esp, loader_conf};
use crate::firmware::{self, Firmware, Lines};
use crate::initramfs::{Initramfs, ModuleFile};
use crate::modules;
use crate::root::{RootInput, Written};
use crate::uki::{Uki, UkiError};
use crate::{derive, disk};
use bramble_api::layout::pi::{BOOT_SELECT_SIZE, BOOT_SIZE};
use bramble_api::layout::{BLOCK, ESP_SIZE, MANIFEST_SIZE, ROOT_SIZE, SLOT_FULL_PERCENT, uki_path, uki_size};
use bramble_api::manifest::{Image, Kubernetes, Manifest, Signed};
use bramble_api::names::{Arch, Board, Slot};
use bramble_api::release::PublicKey;
use bramble_debian::depmod::{Kernel, KernelError};
use bramble_debian::tree::Tree;
use bramble_erofs::Placement;
use bramble_secrets::Secret;
use ed25519_dalek::{SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Instant;

const ROOT: &str = "root.img";
const UKI: &str = "uki.efi";
const ESP: &str = "esp.img";
const BOOT: &str = "boot.img";
const BOOT_SELECT: &str = "boot-select.img";
const MANIFEST: &str = "manifest.bin";
const PLACEMENT: &str = "placement.txt";
const SBOM: &str = "sbom.json";
const RECORD: &str = "release.json";
const LOCK: &str = ".lock";

/// The least level of agent ([`bramble_api::release::AGENT`]) that can install what is built here.
const MIN_AGENT: u32 = 1;

/// All that a release depends on.
#[derive(Debug)]
pub struct ReleaseInput<'a> {
    /// Digest of everything below, made by the caller from what these were made from: a directory that has it is not
    /// built again.
    pub inputs: String,
    /// Name of the cluster.
    pub cluster: String,
    /// Number of the release.
    pub version: u64,
    /// The oldest release that may run where this one was committed.
    pub floor: u64,
    /// Seconds since the epoch; no machine's clock starts before it.
    pub time: u64,
    /// Architecture.
    pub arch: Arch,
    /// Boards to start on.
    pub boards: Vec<Board>,
    /// The root.
    pub tree: &'a Tree,
    /// The kernel of the tree.
    pub kernel: &'a Kernel,
    /// `bramble-node`, static, for the architecture.
    pub agent: &'a [u8],
    /// Firmware of the boards that are Pis; empty when none is.
    pub firmware: &'a Firmware,
    /// Lines of `os.firmware`, by board.
    pub firmware_lines: Vec<Lines>,
    /// Arguments for the kernel beyond [`cmdline`]'s own.
    pub cmdline: Vec<String>,
    /// Ed25519 secret key; its public half goes into the initramfs.
    pub signing_key: &'a Secret<[u8; 32]>,
    /// Public Ed25519 keys whose releases pid 1 starts as well: those of before a new signing key was made, with one of
    /// which the other slot may be signed.
    pub trusted: Vec<[u8; 32]>,
    /// Kubernetes, if the tree has it.
    pub kubernetes: Option<Kubernetes>,
    /// Version of the tool.
    pub tool: String,
    /// Bill of materials, kept beside the release as it is.
    pub sbom: &'a [u8],
    /// Directory of the release.
    pub out: PathBuf,
}

/// A release could not be built. What was in the directory before may be gone; the next run builds it again.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// Another process is at it.
    #[error("another build is writing to {}", path.display())]
    Busy {
        /// The directory.
        path: PathBuf,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The tree lacks something that every release needs.
    #[error("the root has no {path}; it comes with the package {package}")]
    Missing {
        /// Path in the tree.
        path: String,
        /// Where Debian has it.
        package: &'static str,
    },
    /// The kernel lacks drivers that the boards need to start.
    #[error("kernel {kernel} has no module {}", lacking.join(", no module "))]
    Lacking {
        /// Release of the kernel.
        kernel: String,
        /// Name and what it is for.
        lacking: Vec<String>,
    },
    /// A module cannot be taken out of the tree.
    #[error("cannot take the modules that the boards need to start")]
    Modules(#[from] KernelError),
    /// The agent is not a static program of the architecture.
    #[error("the agent is not a static program for {arch}")]
    Agent {
        /// The architecture.
        arch: Arch,
    },
    /// The tree cannot be laid out.
    #[error("cannot lay out the root")]
    Root(#[from] bramble_erofs::PlanError),
    /// The root is too large for a slot.
    #[error(
        "the root fills {percent} % of its slot ({size} bytes); {SLOT_FULL_PERCENT} % are allowed, for later releases grow"
    )]
    SlotFull {
        /// Bytes of image, hash tree and manifest.
        size: u64,
        /// Share of the slot.
        percent: u64,
    },
    /// Kernel and initramfs cannot be put together.
    #[error("cannot assemble the unified kernel image")]
    Uki(#[from] UkiError),
    /// They are too large for their place on the ESP.
    #[error("the unified kernel image has {size} bytes; its place has {room}")]
    UkiTooLarge {
        /// Bytes.
        size: u64,
        /// Bytes of its place.
        room: u64,
    },
    /// The ESP cannot be laid out.
    #[error("cannot lay out the EFI system partition")]
    Esp(#[source] bramble_fat::PlanError),
    /// A Pi's boot partition cannot be laid out.
    #[error("cannot lay out the partition {name}")]
    Boot {
        /// `BOOT`, `BOOTSEL`.
        name: &'static str,
        /// Why.
        source: bramble_fat::PlanError,
    },
    /// A Pi's boot partition is too full for later releases.
    #[error(
        "firmware, kernel and initramfs fill {percent} % of their partition; {SLOT_FULL_PERCENT} % are allowed, for later \
         releases grow"
    )]
    BootFull {
        /// Share of the partition.
        percent: u64,
    },
    /// The kernel has no device tree for a board.
    #[error("kernel {kernel} has no device tree {name}")]
    NoDeviceTree {
        /// Release of the kernel.
        kernel: String,
        /// Name of the device tree.
        name: String,
    },
    /// What firmware does to get one device tree from another cannot be said.
    #[error("kernel {kernel}: {to} differs from {from} in more than an overlay can say")]
    NoOverlay {
        /// Release of the kernel.
        kernel: String,
        /// The device tree that firmware reads.
        from: &'static str,
        /// The one that the machine needs.
        to: &'static str,
    },
    /// A disk would never appear, for what it waits for has no driver yet.
    #[error(
        "the initramfs has no module {module} of kernel {kernel}, which the disks of the {model} wait for ({node})"
    )]
    Undriven {
        /// Release of the kernel.
        kernel: String,
        /// Name of the machine.
        model: &'static str,
        /// Node of the device tree.
        node: String,
        /// Modules, one of which would do.
        module: String,
    },
    /// A line of `os.firmware` cannot stand in config.txt.
    #[error("{line:?} cannot stand in os.firmware: {why}")]
    FirmwareLine {
        /// The line.
        line: String,
        /// Why not.
        why: &'static str,
    },
    /// A release without a board starts nowhere.
    #[error("the release is for no board of {arch}")]
    NoBoard {
        /// The architecture.
        arch: Arch,
    },
    /// The manifest does not fit its area, or cannot be encoded.
    #[error("the manifest does not fit its {MANIFEST_SIZE} bytes")]
    Manifest,
}

/// There is no usable release in a directory.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// None was finished there.
    #[error("{} holds no finished release", path.display())]
    None {
        /// The directory.
        path: PathBuf,
    },
    /// A file of it cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file of it is not what was written.
    #[error("{} is damaged: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        what: &'static str,
    },
}

/// A finished release.
#[derive(Clone, Debug)]
pub struct Release {
    /// Where its files lie.
    pub directory: PathBuf,
    /// Digest of what it was made from, as given.
    pub inputs: String,
    /// What it consists of.
    pub manifest: Manifest,
    /// Bytes by part.
    pub sizes: Vec<(String, u64)>,
    /// Share of a slot that is used, in percent, rounded up.
    pub slot_percent: u64,
    /// Milliseconds by step; empty for a release that was only opened.
    pub steps: Vec<(&'static str, u64)>,
    signed: Signed,
    record: Record,
}

/// `release.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Record {
    format: u32,
    inputs: String,
    sizes: Vec<(String, u64)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    esp: Option<Runs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot_select: Option<Runs>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    boot: Option<Runs>,
}

/// What of a partition's image must be written to a medium that was used before: start and length.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Runs {
    /// Something is there.
    bytes: Vec<(u64, u64)>,
    /// There must be zeros.
    zeros: Vec<(u64, u64)>,
}

/// The kernel's command line, the same on every machine of an architecture.
///
/// `panic=10`: a trial that dies goes back by itself. `systemd.gpt_auto=0`: the generator would mount the ESP. The
/// serial console comes last, so that it is `/dev/console`; machines without one fall back to the screen.
pub fn cmdline(arch: Arch, extra: &[String]) -> String {
    let serial = match arch {
        Arch::Amd64 => "console=ttyS0,115200n8",
        Arch::Arm64 => "console=ttyAMA0,115200n8",
    };
    let mut line = format!("ro quiet panic=10 systemd.gpt_auto=0 console=tty0 {serial}");
    for argument in extra {
        line.push(' ');
        line.push_str(argument);
    }
    line
}

/// As [`cmdline`], but for the consoles: those of Pis differ by board.
fn pi_cmdline(extra: &[String]) -> String {
    let own = ["ro quiet panic=10 systemd.gpt_auto=0".to_string()];
    [&own, extra].concat().join(" ")
}

/// Builds the release, unless the directory holds it already.
///
/// # Errors
/// See [`BuildError`].
pub fn build(input: &ReleaseInput<'_>) -> Result<Release, BuildError> {
    build_after(input, None)
}

/// As [`build`], with files placed where the release before had them (its `placement.txt`). The placement is then one
/// more thing that the bytes depend on, and belongs into [`ReleaseInput::inputs`].
///
/// # Errors
/// See [`BuildError`].
pub fn build_after(input: &ReleaseInput<'_>, previous: Option<&Placement>) -> Result<Release, BuildError> {
    let out = &input.out;
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source| BuildError::Write { path, source }
    };
    fs::create_dir_all(out).map_err(failed(out))?;
    let lock = File::create(out.join(LOCK)).map_err(failed(&out.join(LOCK)))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(BuildError::Busy { path: out.clone() }),
        Err(TryLockError::Error(source)) => return Err(failed(&out.join(LOCK))(source)),
    }
    let key = SigningKey::from_bytes(input.signing_key.expose());
    if let Ok(release) = open(out)
        && release.inputs == input.inputs
        && release.is_signed_by(input.signing_key)
    {
        return Ok(release);
    }
    let record_path = out.join(RECORD);
    match fs::remove_file(&record_path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(failed(&record_path)(e)),
        _ => {}
    }

    let (pis, others): (Vec<Board>, Vec<Board>) = input.boards.iter().partition(|board| board.is_pi());
    if input.boards.is_empty() {
        return Err(BuildError::NoBoard { arch: input.arch });
    }
    let arch = input.arch.debian();
    let root_input = RootInput { tree: input.tree, agent: input.agent, of: [&input.cluster, arch], previous };
    let (root, kernels) = rayon::join(
        || {
            let started = Instant::now();
            let root = root_input.plan()?;
            check_slot(root.size() + crate::verity::tree_size(root.size()) + MANIFEST_SIZE)?;
            let planned = started.elapsed();
            let mut written = None;
            replace(&out.join(ROOT), |file| root.write(file).map(|w| written = Some(w)))?;
            let placement = root.placement();
            replace(&out.join(PLACEMENT), |file| io::Write::write_all(&mut &*file, placement.as_bytes()))?;
            Ok::<_, BuildError>((root.salt, written, planned, started.elapsed()))
        },
        || {
            let started = Instant::now();
            let initramfs = initramfs(input, &key.verifying_key())?;
            let uki = if others.is_empty() { None } else { Some(unified_kernel(input, &initramfs)?) };
            Ok::<_, BuildError>((initramfs, uki, started.elapsed()))
        },
    );
    let ((salt, written, planned, root_took), (initramfs, uki, uki_took)) = (root?, kernels?);
    let Some(Written { size, tree_size, root_hash }) = written else {
        return Err(BuildError::Manifest);
    };

    let started = Instant::now();
    let mut sizes = vec![
        ("root".to_string(), size),
        ("hash tree".to_string(), tree_size),
        ("kernel".to_string(), input.kernel.image.len() as u64),
        ("initramfs".to_string(), initramfs.len() as u64),
    ];
    let mut record = Record { format: 1, inputs: input.inputs.clone(), ..Record::default() };
    let mut uki_image = None;
    if let Some(uki) = uki {
        replace(&out.join(UKI), |file| io::Write::write_all(&mut &*file, &uki))?;
        record.esp = Some(write_esp(input, &uki)?);
        sizes.push(("kernel image".to_string(), uki.len() as u64));
        uki_image = Some(Image { sha256: hex::encode(Sha256::digest(&uki)), size: uki.len() as u64 });
    }
    let mut boot_image = None;
    if !pis.is_empty() {
        let (image, boot, select) = write_boot(input, &pis, &initramfs)?;
        sizes.push(("boot partition".to_string(), image.size));
        (boot_image, record.boot, record.boot_select) = (Some(image), Some(boot), Some(select));
    }
    replace(&out.join(SBOM), |file| io::Write::write_all(&mut &*file, input.sbom))?;
    let manifest = Manifest {
        format: 1,
        cluster: input.cluster.clone(),
        version: input.version,
        floor: input.floor,
        time: input.time,
        arch: input.arch,
        boards: input.boards.clone(),
        min_agent: MIN_AGENT,
        root_size: size,
        verity_size: tree_size,
        verity_root: hex::encode(root_hash),
        verity_salt: hex::encode(salt),
        uki: uki_image,
        boot: boot_image,
        kernel: input.kernel.version.clone(),
        kubernetes: input.kubernetes.clone(),
        tool: input.tool.clone(),
    };
    let signed = Signed::sign(&manifest, &key).map_err(|_| BuildError::Manifest)?;
    let area = signed.to_area().ok_or(BuildError::Manifest)?;
    replace(&out.join(MANIFEST), |file| io::Write::write_all(&mut &*file, &area))?;

    record.sizes = sizes;
    let text = serde_json::to_vec_pretty(&record).map_err(|_| BuildError::Manifest)?;
    replace(&record_path, |file| io::Write::write_all(&mut &*file, &text))?;
    let millis = |d: std::time::Duration| d.as_millis() as u64;
    let steps = vec![
        ("plan root", millis(planned)),
        ("write root", millis(root_took - planned)),
        ("kernel image", millis(uki_took)),
        ("boot partition", millis(started.elapsed())),
    ];
    Ok(Release::new(out, record, signed, manifest, steps))
}

fn check_slot(size: u64) -> Result<(), BuildError> {
    let percent = slot_percent(size);
    if percent > SLOT_FULL_PERCENT { Err(BuildError::SlotFull { size, percent }) } else { Ok(()) }
}

fn slot_percent(size: u64) -> u64 {
    (size * 100).div_ceil(ROOT_SIZE)
}

/// The compressed initramfs, the same for all boards of the release.
fn initramfs(input: &ReleaseInput<'_>, key: &VerifyingKey) -> Result<Vec<u8>, BuildError> {
    check_agent(input.agent, input.arch)?;
    let found = modules::collect(input.kernel, &input.boards)?;
    firmware::check_drivers(&input.boards, input.kernel, &found)?;
    let files: Vec<_> =
        found.iter().map(|m| ModuleFile { path: module_path(&m.path.to_text()), bytes: &m.bytes }).collect();
    let keys = [&[key.to_bytes()], &input.trusted[..]].concat();
    let parts = Initramfs { agent: input.agent, modules: &files, keys: &keys };
    parts.compressed().map_err(|source| BuildError::Write { path: input.out.join(UKI), source })
}

fn unified_kernel(input: &ReleaseInput<'_>, initramfs: &[u8]) -> Result<Vec<u8>, BuildError> {
    let (stub_path, package) = match input.arch {
        Arch::Amd64 => ("/usr/lib/systemd/boot/efi/linuxx64.efi.stub", "systemd-boot-efi"),
        Arch::Arm64 => ("/usr/lib/systemd/boot/efi/linuxaa64.efi.stub", "systemd-boot-efi"),
    };
    let stub = input.tree.read(stub_path).ok_or_else(|| missing(stub_path, package))?;
    let os_release = "/usr/lib/os-release";
    let os_release = input.tree.read_text(os_release).ok_or_else(|| missing(os_release, "base-files"))?;
    let image = Uki {
        stub,
        kernel: &input.kernel.image,
        initramfs,
        cmdline: &cmdline(input.arch, &input.cmdline),
        os_release,
        uname: &input.kernel.version,
    }
    .assemble()?;
    let (size, room) = (image.len() as u64, uki_size(input.arch));
    if size > room {
        return Err(BuildError::UkiTooLarge { size, room });
    }
    Ok(image)
}

fn missing(path: &str, package: &'static str) -> BuildError {
    BuildError::Missing { path: path.to_string(), package }
}

/// Where a module of the tree lies in the initramfs: the same place, uncompressed.
fn module_path(path: &str) -> String {
    let end = path.rfind(".ko").map_or(path.len(), |at| at + 3);
    path[..end].to_string()
}

/// ELF header and program headers (System V ABI): a program of the machine, without an interpreter.
fn check_agent(agent: &[u8], arch: Arch) -> Result<(), BuildError> {
    const INTERPRETER: u32 = 3;
    let machine: u16 = match arch {
        Arch::Amd64 => 62,
        Arch::Arm64 => 183,
    };
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = agent.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |n, b| n << 8 | u64::from(*b)))
    };
    let is_static = || -> Option<bool> {
        let right = agent.get(..5)? == b"\x7fELF\x02" && number(18, 2)? == u64::from(machine);
        let (table, size, count) =
            (number(32, 8)? as usize, number(54, 2)? as usize, number(56, 2)? as usize);
        let mut kinds = (0..count).map(|i| number(table.checked_add(i * size)?, 4));
        Some(right && kinds.all(|kind| kind.is_some_and(|k| k != u64::from(INTERPRETER))))
    };
    if is_static() == Some(true) { Ok(()) } else { Err(BuildError::Agent { arch }) }
}

/// A FAT's serial number.
fn serial(purpose: &str, input: &ReleaseInput<'_>) -> u32 {
    let bytes = derive::bytes(purpose, &[&input.cluster, input.arch.debian()]);
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// Writes the ESP.
fn write_esp(input: &ReleaseInput<'_>, uki: &[u8]) -> Result<Runs, BuildError> {
    let loader_path = match input.arch {
        Arch::Amd64 => "/usr/lib/systemd/boot/efi/systemd-bootx64.efi",
        Arch::Arm64 => "/usr/lib/systemd/boot/efi/systemd-bootaa64.efi",
    };
    let loader = input.tree.read(loader_path).ok_or_else(|| missing(loader_path, "systemd-boot-efi"))?;
    let conf = loader_conf(Slot::A);
    let serial = serial("esp serial", input);
    let esp = Esp { arch: input.arch, loader, uki, conf: &conf, serial, time: input.time };
    let volume = esp.plan().map_err(BuildError::Esp)?;
    // Behind the padding of slot A's image only the head of slot B's and what holds something matters.
    let end_of = |slot| volume.extent(uki_path(slot)).map_or((0, 0), |e| (e.offset, e.offset + e.length));
    let ((_, a_end), (b_start, _)) = (end_of(Slot::A), end_of(Slot::B));
    let mut runs = write_volume(&input.out.join(ESP), &volume, a_end)?;
    let head = (b_start.max(a_end), BLOCK);
    if !runs.zeros.contains(&head) {
        runs.zeros.push(head);
    }
    Ok(runs)
}

/// Writes BOOT and BOOTSEL of the Pis, and gives what the manifest says of BOOT.
fn write_boot(
    input: &ReleaseInput<'_>,
    pis: &[Board],
    initramfs: &[u8],
) -> Result<(Image, Runs, Runs), BuildError> {
    let parts = firmware::Parts {
        boards: pis,
        kernel: input.kernel,
        initramfs,
        firmware: input.firmware,
        lines: &input.firmware_lines,
        cmdline: &pi_cmdline(&input.cmdline),
    };
    let files = parts.boot()?;
    let failed = |name| move |source| BuildError::Boot { name, source };
    let volume =
        firmware::plan_boot(&files, serial("boot serial", input), input.time).map_err(failed("BOOT"))?;
    let end = end_of_files(&volume);
    let percent = (end * 100).div_ceil(BOOT_SIZE);
    if percent > SLOT_FULL_PERCENT {
        return Err(BuildError::BootFull { percent });
    }
    let path = input.out.join(BOOT);
    let boot = write_volume(&path, &volume, end)?;
    let mut hash = Sha256::new();
    let mut left = end;
    for segment in volume.segments() {
        let length = segment.content.len().min(left);
        match segment.content {
            bramble_fat::Content::Bytes(bytes) => hash.update(&bytes[..length as usize]),
            bramble_fat::Content::Zeros(_) => {
                let zeros = [0; BLOCK as usize];
                let mut rest = length;
                while rest > 0 {
                    let now = rest.min(BLOCK);
                    hash.update(&zeros[..now as usize]);
                    rest -= now;
                }
            }
        }
        left -= length;
    }
    let image = Image { sha256: hex::encode(hash.finalize()), size: end };

    let files = parts.boot_select()?;
    let autoboot = firmware::first_autoboot();
    let volume =
        firmware::plan_boot_select(&files, &autoboot, serial("boot select serial", input), input.time)
            .map_err(failed("BOOTSEL"))?;
    // Between the rescue and the word of which slot to start there is nothing that anybody reads.
    let rescue_end = volume.extents().filter(|(path, _)| *path != bramble_api::layout::pi::AUTOBOOT);
    let rescue_end = rescue_end.map(|(_, e)| e.offset + e.length).max().unwrap_or(0);
    let mut select = write_volume(&input.out.join(BOOT_SELECT), &volume, rescue_end)?;
    if let Some(hot) = volume.extent(bramble_api::layout::pi::AUTOBOOT) {
        let end = hot.offset + hot.length;
        select.zeros.push((end, end.next_multiple_of(BLOCK) - end));
    }
    Ok((image, boot, select))
}

/// The end of what files take of a volume, in whole blocks: free clusters come behind.
fn end_of_files(volume: &bramble_fat::Volume<'_>) -> u64 {
    volume.extents().map(|(_, e)| e.offset + e.length).max().unwrap_or(0).next_multiple_of(BLOCK)
}

/// Writes a volume, and gives its runs: all that holds something, and what must be zeros before `zeros_end`.
fn write_volume(path: &Path, volume: &bramble_fat::Volume<'_>, zeros_end: u64) -> Result<Runs, BuildError> {
    let mut runs = Runs::default();
    replace(path, |file| {
        file.set_len(volume.size())?;
        for segment in volume.segments() {
            let (start, length) = (segment.offset, segment.content.len());
            match segment.content {
                bramble_fat::Content::Bytes(bytes) => {
                    for (index, piece) in bytes.chunks(disk::STEP).enumerate() {
                        disk::write_sparse(file, start + (index * disk::STEP) as u64, piece)?;
                    }
                    runs.bytes.push((start, length));
                }
                bramble_fat::Content::Zeros(_) if start < zeros_end => {
                    runs.zeros.push((start, length.min(zeros_end - start)));
                }
                bramble_fat::Content::Zeros(_) => {}
            }
        }
        Ok(())
    })?;
    Ok(runs)
}

/// Writes a file under another name and renames it.
fn replace(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> Result<(), BuildError> {
    let failed = |source| BuildError::Write { path: path.to_path_buf(), source };
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = File::create(&partial).map_err(failed)?;
    let written = write(&file).and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // A full disk is not left fuller; the first error is the one to report.
        let _ = fs::remove_file(&partial);
    }
    written.map_err(failed)
}

/// The release that a directory holds, its manifest's signature not yet checked against a key.
///
/// # Errors
/// There is none, or a file is missing or has another length than was written.
pub fn open(directory: &Path) -> Result<Release, OpenError> {
    let read = |name: &str| {
        let path = directory.join(name);
        fs::read(&path).map_err(|source| OpenError::Read { path, source })
    };
    let damaged = |name: &str, what| OpenError::Damaged { path: directory.join(name), what };
    let text = match read(RECORD) {
        Err(OpenError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            return Err(OpenError::None { path: directory.to_path_buf() });
        }
        text => text?,
    };
    let record: Record =
        serde_json::from_slice(&text).map_err(|_| damaged(RECORD, "not a record of a release"))?;
    let signed = Signed::parse(&read(MANIFEST)?).map_err(|_| damaged(MANIFEST, "not a manifest"))?;
    let manifest = signed.read().map_err(|_| damaged(MANIFEST, "not a manifest"))?;
    let mut files = vec![(ROOT, manifest.root_size + manifest.verity_size), (MANIFEST, MANIFEST_SIZE)];
    if let Some(uki) = &manifest.uki {
        files.extend([(UKI, uki.size), (ESP, ESP_SIZE)]);
    }
    if manifest.boot.is_some() {
        files.extend([(BOOT, BOOT_SIZE), (BOOT_SELECT, BOOT_SELECT_SIZE)]);
    }
    for (name, size) in files {
        let path = directory.join(name);
        let found = fs::metadata(&path).map_err(|source| OpenError::Read { path, source })?;
        if found.len() != size {
            return Err(damaged(name, "another length than was written"));
        }
    }
    Ok(Release::new(directory, record, signed, manifest, Vec::new()))
}

impl Release {
    fn new(
        directory: &Path,
        record: Record,
        signed: Signed,
        manifest: Manifest,
        steps: Vec<(&'static str, u64)>,
    ) -> Release {
        Release {
            directory: directory.to_path_buf(),
            inputs: record.inputs.clone(),
            sizes: record.sizes.clone(),
            slot_percent: slot_percent(manifest.root_size + manifest.verity_size + MANIFEST_SIZE),
            steps,
            manifest,
            signed,
            record,
        }
    }

    /// Whether this key signed the manifest.
    pub fn is_signed_by(&self, key: &Secret<[u8; 32]>) -> bool {
        let key = SigningKey::from_bytes(key.expose()).verifying_key();
        self.signed.signer(&[PublicKey(key.to_bytes())]).is_ok()
    }

    /// Where it has its files, as text, for [`build_after`] of the next; `None` when that is not known any more.
    pub fn placement_text(&self) -> Option<String> {
        fs::read_to_string(self.directory.join(PLACEMENT)).ok()
    }

    /// The bill of materials, as it was given.
    pub fn sbom(&self) -> Option<Vec<u8>> {
        fs::read(self.directory.join(SBOM)).ok()
    }

    /// The manifest as it is published: as the slot has it, without the zeros behind it.
    pub fn manifest_bytes(&self) -> Vec<u8> {
        self.signed.to_bytes()
    }

    /// The manifest's JSON, as signed.
    pub fn json(&self) -> &[u8] {
        &self.signed.json
    }

    /// Path of the image of a root slot: root and hash tree.
    pub fn root(&self) -> PathBuf {
        self.directory.join(ROOT)
    }

    /// Path of the unified kernel image, without padding; there is none in a release for Pis alone.
    pub fn uki(&self) -> PathBuf {
        self.directory.join(UKI)
    }

    /// Path of the image of BOOT-A and BOOT-B; there is none in a release for no Pi.
    pub fn boot(&self) -> PathBuf {
        self.directory.join(BOOT)
    }

    /// Path of the image of BOOTSEL as a new disk has it; there is none in a release for no Pi.
    pub fn boot_select(&self) -> PathBuf {
        self.directory.join(BOOT_SELECT)
    }

    /// The ESP of a new disk, which begins at `start`.
    pub(crate) fn place_esp(&self, start: u64, map: &mut Builder) {
        self.place(&self.record.esp, ESP, start, map);
    }

    /// BOOTSEL of a new disk, which begins at `start`.
    pub(crate) fn place_boot_select(&self, start: u64, map: &mut Builder) {
        self.place(&self.record.boot_select, BOOT_SELECT, start, map);
    }

    /// The boot partition of a slot, which begins at `start`.
    pub(crate) fn place_boot(&self, start: u64, map: &mut Builder) {
        self.place(&self.record.boot, BOOT, start, map);
    }

    fn place(&self, runs: &Option<Runs>, name: &str, start: u64, map: &mut Builder) {
        let Some(runs) = runs else { return };
        for (offset, length) in &runs.bytes {
            map.file(start + offset, *length, &self.directory.join(name), *offset);
        }
        for (offset, length) in &runs.zeros {
            map.zeros(start + offset, *length);
        }
    }

    /// A root slot of `size` bytes at `start`: image and hash tree at its head, the manifest at its tail.
    pub(crate) fn place_root(&self, start: u64, size: u64, map: &mut Builder) {
        let length = self.manifest.root_size + self.manifest.verity_size;
        map.file(start, length, &self.directory.join(ROOT), 0);
        map.file(start + size - MANIFEST_SIZE, MANIFEST_SIZE, &self.directory.join(MANIFEST), 0);
    }
}

#[cfg(test)]
#[path = "release_tests.rs"]
pub(crate) mod tests;
