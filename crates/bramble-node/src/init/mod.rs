//! pid 1 of the initramfs: from the kernel's hand to systemd's, by way of a verified root.

mod block;
mod cmdline;
mod disk;
pub mod efi;
mod ext4;
mod firmware;
mod first;
mod media;
mod modules;
mod places;
mod program;
mod slot;
mod state;
mod trial;
mod verity;
mod volumes;
mod watchdog;

pub use block::Device;
pub use disk::{Disk, DiskError};
pub use first::parse as parse_document;
pub use trial::stand_guard;

use crate::console::{self, mark, note, stage};
use crate::refused::{At, Refused, line};
use crate::{clock, etc};
use bramble_api::document::MachineDocument;
use bramble_api::layout::MANIFEST_SIZE;
use bramble_api::manifest::Manifest;
use bramble_api::names::{Arch, Slot, path};
use bramble_api::release::{PublicKey, Refusal};
use bramble_api::stage::{Boot, Stage};
use rustix::mount::{MountFlags, mount};
use std::convert::Infallible;
use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::Path;
use std::time::Duration;

/// Where the verified root is mounted in the initramfs.
const ROOT: &str = "/newroot";
/// The root's own init.
const INIT: &str = "/usr/lib/systemd/systemd";
/// How often a machine that cannot go on says so again.
const REPEAT: Duration = Duration::from_secs(60);

/// Why pid 1 cannot go on.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("neither the boot loader nor bramble.slot= on the kernel's command line says which slot this is")]
    NoSlot,
    #[error("the firmware started neither slot; {0}")]
    Rescue(String),
    #[error(transparent)]
    Disk(#[from] disk::DiskError),
    #[error("slot {0} is not started")]
    Distrust(char, #[source] Refusal),
    #[error(transparent)]
    First(#[from] first::Trouble),
    #[error("{0}")]
    Mismatch(String),
    #[error("{0}")]
    State(String),
    #[error("this program was built for an architecture that Bramble does not know")]
    Arch,
}

/// Runs as pid 1. Never returns: on failure a trial goes back to what it came from, and everything else stays and says
/// why.
pub fn run() -> ! {
    std::panic::set_hook(Box::new(|panic| {
        // The program aborts on panic, and an aborting pid 1 takes the kernel with it: stay instead.
        give_up(&panic.to_string());
    }));
    let failure = match boot() {
        Ok(never) => match never {},
        Err(failure) => failure,
    };
    give_up(&line(&failure))
}

/// The machine cannot go on with this slot.
fn give_up(why: &str) -> ! {
    if let Some(wait) = trial::goes_back() {
        stage(Stage::Failed, &format!("{}; restarting in {} s", why.replace('\n', " "), wait.as_secs()));
        std::thread::sleep(wait);
        trial::restart();
    }
    rescue(why)
}

/// Says why the machine cannot go on, for ever. There is no shell: whoever can type here could take the keys.
fn rescue(why: &str) -> ! {
    loop {
        stage(Stage::Failed, &why.replace('\n', " "));
        std::thread::sleep(REPEAT);
    }
}

fn boot() -> Result<Infallible, Failure> {
    mount_kernel_file_systems()?;
    let cmdline = cmdline::parse(&fs::read_to_string("/proc/cmdline").at("read", "/proc/cmdline")?);
    if cmdline.marks {
        console::enable_marks();
    }
    stage(Stage::Initramfs, concat!("bramble-node ", env!("CARGO_PKG_VERSION")));
    for refused in modules::load(Path::new(path::INITRAMFS_MODULES))? {
        note(&line(&refused));
    }
    let mut found = find(&cmdline)?;
    let root = Path::new(ROOT);
    mount_root(&found, root)?;

    let mut partitions = media::Partitions {
        identity: found.disk.identity()?,
        data: found.disk.data()?,
        root: root.to_path_buf(),
        noticed: Vec::new(),
    };
    let lent = places::lend(root)?;
    let settled = first::settle(&mut partitions, || stage(Stage::MakingData, "ext4"))?;
    for sentence in settled.repaired.into_iter().chain(std::mem::take(&mut partitions.noticed)) {
        note(&sentence);
        found.repaired.push(sentence);
    }
    stage(Stage::Data, &format!("{} {} MiB", partitions.data.name, partitions.data.size >> 20));
    let document = settled.document;
    check_match(&found.manifest, &document)?;
    let bramble_api::document::Machine { name, generation, .. } = &document.machine;
    stage(Stage::Document, &format!("{name} generation {generation}"));

    volumes::mount_data(root, &document).map_err(Failure::State)?;
    forget_replacement(root, &document);
    set_clock(&found.manifest, &document, root);
    places::make_etc(root, &etc::render(&found.manifest, &document))?;
    mark("etc-rendered");
    places::make_var(root)?;
    for sentence in volumes::mount_volumes(root, &document)? {
        note(&sentence);
        found.repaired.push(sentence);
    }
    drop(lent);
    places::make_temporary(root)?;
    leave_word(&found)?;
    stage(Stage::System, "systemd");
    mark("switching-root");
    places::enter(root)?;
    if trial::is_one() {
        note("this is a trial");
        trial::guard()?;
    }
    Ok(places::start(Path::new(INIT))?)
}

/// Data that another card takes over says of the card before it that it was replaced.
fn forget_replacement(root: &Path, document: &MachineDocument) {
    let word = root.join(path::REPLACED.trim_start_matches('/'));
    let is_ours = |bytes: Vec<u8>| bytes == document.machine.incarnation.as_bytes();
    if fs::read(&word).is_ok_and(|bytes| !is_ours(bytes))
        && let Err(error) = fs::remove_file(&word)
    {
        note(&format!("cannot remove {}: {error}", word.display()));
    }
}

fn mount_kernel_file_systems() -> Result<(), Refused> {
    let plain = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let mounts = [
        ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
        ("proc", "/proc", plain, c""),
        ("sysfs", "/sys", plain, c""),
        ("tmpfs", "/run", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755"),
    ];
    for (kind, target, flags, data) in mounts {
        fs::create_dir_all(target).at("make", target)?;
        match mount(kind, target, kind, flags, data) {
            // The kernel may have been told to mount /dev itself.
            Err(rustix::io::Errno::BUSY) => {}
            answer => answer.at("mount", target)?,
        }
    }
    // What the kernel gave at the start may be nothing, when the archive had no /dev/console.
    if let Ok(console) = File::options().read(true).write(true).open("/dev/console") {
        let _ = rustix::stdio::dup2_stdin(&console);
        let _ = rustix::stdio::dup2_stdout(&console);
        let _ = rustix::stdio::dup2_stderr(&console);
    }
    Ok(())
}

/// The slot that runs, with the manifest that says what it must hold.
struct Found {
    slot: Slot,
    disk: disk::Disk,
    partition: block::Device,
    manifest: Manifest,
    /// The manifest as signed.
    json: Vec<u8>,
    repaired: Vec<String>,
}

fn find(cmdline: &cmdline::Cmdline) -> Result<Found, Failure> {
    // Without EFI, or with efivarfs built into the kernel and mounted by nobody, there is simply nothing to read.
    if Path::new("/sys/firmware/efi").exists() {
        match mount("efivarfs", efi::VARIABLES, "efivarfs", MountFlags::NOSUID | MountFlags::NOEXEC, c"") {
            Ok(()) | Err(rustix::io::Errno::BUSY) => {}
            Err(error) => note(&format!("cannot mount {}: {error}", efi::VARIABLES)),
        }
    }
    let loader = efi::read();
    let booted = firmware::read(Path::new(firmware::NODE));
    let mut disk = disk::Disk::find(disk::Origin { esp: loader.esp, booted })?;
    let arch: Arch = std::env::consts::ARCH.parse().map_err(|_| Failure::Arch)?;
    if cmdline.rescue || booted.rescue() {
        trial::none();
        return Err(Failure::Rescue([Slot::A, Slot::B].map(|slot| condition(&disk, slot, arch)).join("; ")));
    }
    let slot = match loader.slot.or_else(|| booted.slot()).or(cmdline.slot) {
        Some(slot) => slot,
        // A boot loader from before it said which partition it had started.
        None => disk.committed()?.map(|committed| booted.follows(committed)).ok_or(Failure::NoSlot)?,
    };
    trial::found(slot, disk.committed()?);
    let repaired = disk.repair()?;
    for sentence in &repaired {
        note(sentence);
    }
    if !repaired.is_empty() {
        mark("table-repaired");
    }
    let partition = disk.root(slot)?;
    let (manifest, json) =
        slot::verify(&read_manifest_area(&partition)?, &trusted_keys()?, arch, partition.size)
            .map_err(|distrust| Failure::Distrust(slot.letter(), distrust))?;
    stage(Stage::Slot, &format!("{} on {} release {}", slot.letter(), disk.device.name, manifest.version));
    Ok(Found { slot, disk, partition, manifest, json, repaired })
}

/// What a slot holds, in a few words: for whoever stands before a machine that starts none.
fn condition(disk: &disk::Disk, slot: Slot, arch: Arch) -> String {
    let look = || -> Result<Manifest, Failure> {
        let partition = disk.root(slot)?;
        slot::verify(&read_manifest_area(&partition)?, &trusted_keys()?, arch, partition.size)
            .map(|(manifest, _)| manifest)
            .map_err(|distrust| Failure::Distrust(slot.letter(), distrust))
    };
    match look() {
        Ok(manifest) => format!("slot {} has release {}", slot.letter(), manifest.version),
        Err(failure) => line(&failure),
    }
}

fn read_manifest_area(partition: &block::Device) -> Result<Vec<u8>, Refused> {
    let path = partition.path();
    let mut area = vec![0; MANIFEST_SIZE as usize];
    let file = File::open(&path).at("open", &path)?;
    let offset = partition.size.saturating_sub(MANIFEST_SIZE);
    file.read_exact_at(&mut area, offset).at("read the manifest of", &path)?;
    Ok(area)
}

fn trusted_keys() -> Result<Vec<PublicKey>, Refused> {
    let directory = path::INITRAMFS_KEYS;
    let mut keys = Vec::new();
    for entry in fs::read_dir(directory).at("list", directory)? {
        let path = entry.at("list", directory)?.path();
        let bytes = fs::read(&path).at("read", &path)?;
        match <[u8; 32]>::try_from(bytes) {
            Ok(key) => keys.push(PublicKey(key)),
            Err(odd) => note(&format!("{} has {} bytes and is no key", path.display(), odd.len())),
        }
    }
    Ok(keys)
}

fn mount_root(found: &Found, root: &Path) -> Result<(), Refused> {
    verity::activate(&found.manifest, found.partition.number)?;
    fs::create_dir_all(root).at("make", root)?;
    mount(verity::NODE, root, c"erofs", MountFlags::RDONLY, c"").at("mount", verity::NODE)?;
    stage(Stage::Root, &format!("verity {}", &found.manifest.verity_root[..16]));
    Ok(())
}

/// A release and a document that were not made for each other.
fn check_match(manifest: &Manifest, document: &MachineDocument) -> Result<(), Failure> {
    if manifest.cluster != document.cluster {
        return Err(Failure::Mismatch(format!(
            "the release is for the cluster {:?}, and this machine's document is for {:?}",
            manifest.cluster, document.cluster
        )));
    }
    if !manifest.boards.contains(&document.machine.board) {
        return Err(Failure::Mismatch(format!(
            "the release is not for the board {}",
            document.machine.board
        )));
    }
    Ok(())
}

fn set_clock(manifest: &Manifest, document: &MachineDocument, root: &Path) {
    let made = [manifest.time, document.machine.issued_at];
    if let Some(time) = clock::correction(clock::now(), made, clock::saved(root)) {
        match clock::set(time) {
            Ok(()) => note(&format!("the clock was wrong and starts at {time}")),
            Err(refused) => note(&line(&refused)),
        }
    }
}

/// Leaves for the agent what was found.
fn leave_word(found: &Found) -> Result<(), Refused> {
    let word = Boot {
        slot: found.slot,
        disk: found.disk.device.name.clone(),
        release: found.manifest.version,
        verity_root: found.manifest.verity_root.clone(),
        repaired: found.repaired.clone(),
    };
    let directory = Path::new(path::BOOT).parent().unwrap_or(Path::new("/run"));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).at("make", directory)?;
    let json = serde_json::to_vec(&word).map_err(std::io::Error::from).at("write", path::BOOT)?;
    fs::write(path::BOOT, json).at("write", path::BOOT)?;
    fs::write(path::MANIFEST, &found.json).at("write", path::MANIFEST)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use bramble_api::names::Board;

    #[test]
    fn a_release_must_be_for_the_cluster_and_the_board_of_the_document() {
        let document = fixture::document();
        let mut manifest = fixture::manifest();
        assert!(check_match(&manifest, &document).is_ok());
        manifest.boards = vec![Board::UefiArm64];
        assert!(check_match(&manifest, &document).unwrap_err().to_string().contains("uefi-amd64"));
        manifest = fixture::manifest();
        manifest.cluster = "elsewhere".into();
        assert!(check_match(&manifest, &document).unwrap_err().to_string().contains("elsewhere"));
    }
}
