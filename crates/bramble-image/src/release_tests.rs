use super::*;
use crate::disk::{DiskInput, map};
use crate::uki::tests::{AMD64, STUB_SBAT, pe};
use bramble_api::document::parse_identity_header;
use bramble_api::layout::{BLOCK, DISK_MIN_SIZE, IDENTITY_SIZE, Kind, uefi};
use bramble_debian::depmod;
use bramble_secrets::SecretBytes;
use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;

/// A static program for x86-64 as far as headers go.
fn agent() -> Vec<u8> {
    let mut elf = vec![0; 120];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = 62;
    elf[32] = 64;
    elf[54] = 56;
    elf[56] = 1;
    elf[64] = 1;
    elf
}

pub(crate) struct Parts {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) tree: Tree,
    kernel: Kernel,
    agent: Vec<u8>,
    firmware: Firmware,
    pub(crate) key: Secret<[u8; 32]>,
}

/// A tree with little in it, and a kernel with everything that the boards need built in.
pub(crate) fn parts() -> Parts {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = Tree::new();
    let efi = "usr/lib/systemd/boot/efi";
    let stub = pe(AMD64, 0x600, &[(".text", b"stub"), (".sbat", STUB_SBAT)]);
    tree.file(format!("{efi}/linuxx64.efi.stub"), 0o644, stub).unwrap();
    tree.file(format!("{efi}/systemd-bootx64.efi"), 0o644, "MZ boot").unwrap();
    tree.file("usr/lib/os-release", 0o644, "ID=debian\n").unwrap();
    tree.file("usr/bin/large", 0o755, vec![7; 3 << 20]).unwrap();
    let builtin: String =
        modules::wanted(&[Board::UefiAmd64]).iter().map(|w| format!("kernel/x/{}.ko\n", w.name)).collect();
    let home = "usr/lib/modules/7.3";
    tree.file(format!("{home}/modules.order"), 0o644, "").unwrap();
    tree.file(format!("{home}/modules.builtin"), 0o644, builtin).unwrap();
    tree.file(format!("{home}/vmlinuz"), 0o644, pe(AMD64, 0x400, &[(".text", b"kernel")])).unwrap();
    let kernel = depmod::take(&mut tree, &[], &[], dir.path(), &mut BTreeMap::new()).unwrap();
    tree.stamp(1_700_000_000);
    Parts { dir, tree, kernel, agent: agent(), firmware: Firmware::default(), key: Secret::new([3; 32]) }
}

impl Parts {
    pub(crate) fn input(&self, out: &str) -> ReleaseInput<'_> {
        ReleaseInput {
            inputs: "digest".to_string(),
            cluster: "home".to_string(),
            version: 4,
            floor: 0,
            time: 1_700_000_000,
            arch: Arch::Amd64,
            boards: vec![Board::UefiAmd64],
            tree: &self.tree,
            kernel: &self.kernel,
            agent: &self.agent,
            firmware: &self.firmware,
            firmware_lines: Vec::new(),
            cmdline: vec!["x=1".to_string()],
            signing_key: &self.key,
            trusted: Vec::new(),
            kubernetes: None,
            tool: "0.1.0".to_string(),
            sbom: b"{}",
            out: self.dir.path().join(out),
        }
    }
}

/// The bytes of every file of a release, by name.
fn files(release: &Release) -> BTreeMap<String, [u8; 32]> {
    fs::read_dir(&release.directory)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|e| (e.file_name().into_string().unwrap(), Sha256::digest(fs::read(e.path()).unwrap()).into()))
        .collect()
}

#[test]
fn the_same_input_makes_the_same_bytes_and_is_not_built_twice() {
    let parts = parts();
    let one = build(&parts.input("one")).unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(3).build().unwrap();
    let two = pool.install(|| build(&parts.input("two"))).unwrap();
    assert_eq!(files(&one), files(&two));
    assert!(!one.steps.is_empty());
    let again = build(&parts.input("one")).unwrap();
    assert!(again.steps.is_empty(), "it was there");
    assert_eq!(again.manifest, one.manifest);

    let mut other = parts.input("one");
    other.inputs = "other".to_string();
    assert!(!build(&other).unwrap().steps.is_empty(), "made from something else");
    let key = Secret::new([4; 32]);
    let mut resigned = parts.input("two");
    resigned.signing_key = &key;
    let resigned = build(&resigned).unwrap();
    assert!(!resigned.steps.is_empty() && resigned.is_signed_by(&key) && !resigned.is_signed_by(&parts.key));
}

#[test]
fn the_manifest_vouches_for_root_and_kernel_image() {
    let parts = parts();
    let release = build(&parts.input("out")).unwrap();
    let manifest = &release.manifest;
    let root = fs::read(release.directory.join(ROOT)).unwrap();
    let (image, tree) = root.split_at(manifest.root_size as usize);
    let mut salt = [0; 32];
    hex::decode_to_slice(&manifest.verity_salt, &mut salt).unwrap();
    let expected = crate::verity::HashTree::over(&salt, image);
    assert_eq!(expected.bytes, tree);
    assert_eq!(hex::encode(expected.root), manifest.verity_root);
    let uki = fs::read(release.uki()).unwrap();
    assert_eq!(hex::encode(Sha256::digest(&uki)), manifest.uki.as_ref().unwrap().sha256);
    let line = crate::uki::section(&uki, ".cmdline").unwrap();
    assert!(line.starts_with(b"ro quiet panic=10 systemd.gpt_auto=0 ") && line.ends_with(b" x=1"));
    assert_eq!(release.slot_percent, 1);
    // The agent is in the root though it was not in the tree.
    let image = bramble_erofs::Image::open(image).unwrap();
    let found = image.find(b"usr/bin/bramble-node").unwrap();
    assert_eq!(image.data(&found).unwrap().as_ref(), parts.agent);
}

#[test]
fn a_release_that_was_not_finished_is_none_and_is_built_again() {
    let parts = parts();
    let release = build(&parts.input("out")).unwrap();
    for name in [ROOT, UKI, ESP, MANIFEST, RECORD] {
        let path = release.directory.join(name);
        let before = fs::read(&path).unwrap();
        fs::write(&path, &before[..before.len() / 2]).unwrap();
        assert!(open(&release.directory).is_err(), "{name} cut");
        fs::remove_file(&path).unwrap();
        assert!(open(&release.directory).is_err(), "{name} gone");
        build(&parts.input("out")).unwrap();
        assert_eq!(fs::read(&path).unwrap(), before, "{name} made again");
    }
    assert!(matches!(open(parts.dir.path()), Err(OpenError::None { .. })));
}

#[test]
fn what_cannot_be_built_is_named() {
    let mut parts = parts();
    let text = |r: Result<Release, BuildError>| r.unwrap_err().to_string();
    let mut arm = parts.input("out");
    arm.arch = Arch::Arm64;
    assert_eq!(text(build(&arm)), "the agent is not a static program for arm64");
    let mut pi = parts.input("out");
    pi.boards = vec![Board::Pi5];
    let lacking = text(build(&pi));
    assert!(
        lacking.starts_with("kernel 7.3 has no module bcm2835_wdt (the watchdog), no module"),
        "{lacking}"
    );
    let mut busy = parts.input("busy");
    fs::create_dir(&busy.out).unwrap();
    let lock = File::create(busy.out.join(LOCK)).unwrap();
    lock.lock().unwrap();
    assert!(matches!(build(&busy), Err(BuildError::Busy { .. })));
    drop(lock);
    busy.out = parts.dir.path().join("file");
    fs::write(&busy.out, "").unwrap();
    assert!(matches!(build(&busy), Err(BuildError::Write { path, .. }) if path == busy.out));

    parts.agent[64] = 3;
    assert!(matches!(build(&parts.input("out")), Err(BuildError::Agent { .. })), "an interpreter is wanted");
    parts.agent = agent();
    let os_release = bramble_debian::tree::TreePath::new("usr/lib/os-release").unwrap();
    parts.tree.remove(&os_release);
    assert_eq!(
        text(build(&parts.input("out"))),
        "the root has no /usr/lib/os-release; it comes with the package base-files"
    );
    assert!(check_slot(ROOT_SIZE / 100 * 60).is_ok());
    assert!(matches!(check_slot(ROOT_SIZE / 100 * 61), Err(BuildError::SlotFull { percent: 61, .. })));
}

fn disk_input<'a>(release: &'a Release, document: Option<&'a SecretBytes>) -> DiskInput<'a> {
    DiskInput {
        release,
        board: Board::UefiAmd64,
        incarnation: "00ff",
        size: DISK_MIN_SIZE,
        document,
        keep_data: false,
    }
}

#[test]
fn a_disk_has_every_part_at_its_place() {
    let parts = parts();
    let release = build(&parts.input("out")).unwrap();
    let document = SecretBytes::new(b"{\"key\":\"hunter2\"}".to_vec());
    let disk = map(&disk_input(&release, Some(&document))).unwrap();
    assert!(!format!("{disk:?}").contains("hunter2") && !format!("{disk:?}").contains("123, 34"));

    // Runs and zeros lie apart, inside the disk.
    let mut all: Vec<_> =
        disk.segments.iter().map(|s| s.start..s.start + s.length).chain(disk.zeros.clone()).collect();
    all.sort_by_key(|r| r.start);
    for pair in all.windows(2) {
        assert!(pair[0].end <= pair[1].start, "{pair:?}");
    }
    assert!(all.last().unwrap().end <= disk.size);

    let path = parts.dir.path().join("disk.img");
    crate::disk::write(&disk, &path).unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let mut file = File::open(&path).unwrap();
    let check = bramble_partition::gpt::check(&mut file, DISK_MIN_SIZE).unwrap();
    assert_eq!(check.findings, []);
    let read = |start: u64, length: usize| {
        let mut bytes = vec![0; length];
        disk.read_at(start, &mut bytes).unwrap();
        let mut written = vec![0; length];
        std::os::unix::fs::FileExt::read_exact_at(&file, &mut written, start).unwrap();
        assert!(bytes == written, "the file holds what the map says");
        bytes
    };
    for partition in uefi(DISK_MIN_SIZE).unwrap() {
        let tail = partition.start + partition.size - MANIFEST_SIZE;
        match partition.kind {
            Kind::Esp => {
                assert_eq!(&read(partition.start, 512)[510..], [0x55, 0xaa]);
                let mut esp =
                    bramble_fat::Reader::open(Part { file: &file, start: partition.start, at: 0 }).unwrap();
                let uki = esp.read(uki_path(Slot::A), uki_size(Arch::Amd64)).unwrap();
                let length = release.manifest.uki.as_ref().unwrap().size as usize;
                assert_eq!(
                    hex::encode(Sha256::digest(&uki[..length])),
                    release.manifest.uki.as_ref().unwrap().sha256
                );
            }
            Kind::Root(Slot::A) => {
                let signed = Signed::parse(&read(tail, MANIFEST_SIZE as usize)).unwrap();
                assert_eq!(signed, release.signed);
                assert_eq!(read(partition.start + 1024, 4), 0xE0F5_E1E2_u32.to_le_bytes());
            }
            Kind::Root(Slot::B) => {
                assert!(disk.zeros.contains(&(tail..tail + MANIFEST_SIZE)));
                assert!(disk.zeros.contains(&(partition.start..partition.start + BLOCK)));
            }
            Kind::Identity => {
                let (length, sum) = parse_identity_header(&read(partition.start, BLOCK as usize)).unwrap();
                let json = read(partition.start + BLOCK, length as usize);
                assert_eq!(&json, document.expose());
                assert_eq!(sum, <[u8; 32]>::from(Sha256::digest(&json)));
            }
            Kind::Data => assert!(disk.zeros.iter().any(|z| z.start == partition.start)),
            Kind::BootSelect | Kind::Boot(_) | Kind::Extended => panic!("{partition:?} on a UEFI disk"),
        }
    }
    let text = crate::disk::bmap(&disk, &path).unwrap();
    assert!(text.contains(&format!("<ImageSize> {DISK_MIN_SIZE} <")));
}

#[test]
fn keeping_data_touches_none_of_it_and_no_document_leaves_no_keys() {
    let parts = parts();
    let release = build(&parts.input("out")).unwrap();
    let keep = map(&DiskInput { keep_data: true, ..disk_input(&release, None) }).unwrap();
    let partitions = uefi(DISK_MIN_SIZE).unwrap();
    let [.., identity, data] = partitions;
    let touches = |start: u64, end: u64| {
        keep.segments.iter().any(|s| s.start < end && s.start + s.length > start)
            || keep.zeros.iter().any(|z| z.start < end && z.end > start)
    };
    assert!(!touches(data.start, data.start + data.size));
    assert!(keep.zeros.contains(&(identity.start..identity.start + (1 << 20))));
    let other = map(&DiskInput { incarnation: "00fe", ..disk_input(&release, None) }).unwrap();
    let table = |map: &crate::disk::DiskMap| {
        let mut bytes = vec![0; 34 * 512];
        map.read_at(0, &mut bytes).unwrap();
        bytes
    };
    assert_ne!(table(&keep), table(&other), "no two disks share their identifiers");
    let huge = SecretBytes::new(vec![0; IDENTITY_SIZE as usize]);
    assert!(map(&disk_input(&release, Some(&huge))).is_err());
    assert!(map(&DiskInput { size: 1 << 30, ..disk_input(&release, None) }).is_err());
}

/// A partition of an image as a file of its own.
struct Part<'a> {
    file: &'a File,
    start: u64,
    at: u64,
}

impl io::Read for Part<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let count = std::os::unix::fs::FileExt::read_at(self.file, out, self.start + self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl io::Seek for Part<'_> {
    fn seek(&mut self, to: io::SeekFrom) -> io::Result<u64> {
        self.at = match to {
            io::SeekFrom::Start(at) => at,
            io::SeekFrom::Current(by) => self.at.saturating_add_signed(by),
            io::SeekFrom::End(by) => bramble_api::layout::ESP_SIZE.saturating_add_signed(by),
        };
        Ok(self.at)
    }
}
