//! Real block devices of this computer: loop devices over files. Needs root and /dev/loop-control.
//!
//! What a loop device cannot be (USB, card reader, device-mapper, a disk that is pulled) is in the simulated tests.

#![expect(clippy::print_stdout, reason = "a test that is skipped says so")]

use bramble_disk::card::{Card, CardId, OFFSET, State};
use bramble_disk::device::linux::Linux;
use bramble_disk::device::{Device, Site};
use bramble_disk::flash::choose::{ChooseError, Eyes, choose};
use bramble_disk::flash::journal::Journals;
use bramble_disk::flash::{
    Confirmed, Content, FlashError, Job, Phase, Refusal, Report, Request, Told, flash, guard,
};
use bramble_effects::Cancel;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

const SIZE: u64 = 32 << 20;

/// Names of loop devices go from one test to the next; one at a time.
static ONE: Mutex<()> = Mutex::new(());

fn run(program: &str, arguments: &[&str]) -> Result<String, String> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new(program).args(arguments).env("PATH", path).output();
    let output = output.map_err(|e| format!("{program}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_string())
}

/// A loop device, detached when dropped.
struct Loop {
    node: String,
    file: PathBuf,
    /// Undone before it is detached.
    undo: Vec<(&'static str, String)>,
}

impl Drop for Loop {
    fn drop(&mut self) {
        for (program, argument) in self.undo.drain(..) {
            let _ = run(program, &[&argument]);
        }
        let _ = run("losetup", &["-d", &self.node]);
    }
}

struct Rig {
    dir: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Rig {
    /// Or says why not.
    fn new() -> Option<Rig> {
        let one = ONE.lock().unwrap_or_else(|e| e.into_inner());
        let rig = Rig { dir: tempfile::tempdir().unwrap(), _one: one };
        match rig.attach("probe", &[]) {
            Ok(_) => Some(rig),
            Err(why) => {
                println!("SKIPPED: this computer gives no loop devices ({})", why.trim());
                None
            }
        }
    }

    fn attach(&self, name: &str, options: &[&str]) -> Result<Loop, String> {
        let file = self.dir.path().join(name);
        if !file.exists() {
            let made = std::fs::File::create(&file).unwrap();
            made.set_len(SIZE).unwrap();
            // Something of its own where an image would not write.
            made.write_all_at(name.as_bytes(), 24 << 20).unwrap();
        }
        let mut arguments = vec!["-f", "--show"];
        arguments.extend(options);
        arguments.push(file.to_str().unwrap());
        let node = run("losetup", &arguments)?;
        Ok(Loop { node, file, undo: vec![] })
    }

    fn journals(&self) -> Journals {
        Journals::new(&self.dir.path().join("journals"))
    }
}

impl Loop {
    fn name(&self) -> String {
        self.node.trim_start_matches("/dev/").to_string()
    }

    fn bytes(&self) -> Vec<u8> {
        std::fs::File::open(&self.node).and_then(|node| node.sync_all()).unwrap();
        std::fs::read(&self.file).unwrap()
    }

    fn device(&self, request: &Request) -> Device {
        let devices = Eyes::new(&Linux::default()).devices(request).unwrap();
        devices.into_iter().find(|d| d.name == self.name()).unwrap()
    }

    /// With the word that confirms it, where it can be had.
    fn request(&self) -> Request {
        let mut request = Request {
            node: "n1".into(),
            needs: 8 << 20,
            allow_loop: true,
            device: Some((&self.node).into()),
            ..Request::default()
        };
        request.confirm = vec![guard::token(&self.device(&request))];
        request
    }
}

fn confirm(request: &Request) -> Result<Confirmed, ChooseError> {
    choose(&Linux::default(), request, None, &Cancel::default())
}

struct Image;

impl Content for Image {
    fn size(&self) -> u64 {
        SIZE
    }

    fn ranges(&self) -> Vec<Range<u64>> {
        vec![0..17_408, 4 << 20..(15 << 20) + 512, 20 << 20..(20 << 20) + 4096, SIZE - 16_896..SIZE]
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
        out.fill(0);
        for (index, range) in self.ranges().iter().enumerate() {
            let (from, to) = (range.start.max(offset), range.end.min(offset + out.len() as u64));
            // The third range is zeros that must be written.
            if from < to && index != 2 {
                let bytes = &mut out[(from - offset) as usize..(to - offset) as usize];
                for (word, at) in bytes.chunks_exact_mut(8).zip((from..).step_by(8)) {
                    word.copy_from_slice(&at.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes());
                }
            }
        }
        Ok(())
    }
}

fn card() -> Card {
    Card {
        id: CardId([6; 16]),
        state: State::Writing,
        cluster: "home".into(),
        node: "n1".into(),
        incarnation: "aa".into(),
        size: SIZE,
        written_at: 1,
    }
}

fn write(rig: &Rig, request: &Request, tell: &(dyn Fn(Told) + Sync)) -> Result<Report, FlashError> {
    let confirmed = confirm(request).unwrap();
    write_confirmed(rig, request, confirmed, tell)
}

fn write_confirmed(
    rig: &Rig,
    request: &Request,
    confirmed: Confirmed,
    tell: &(dyn Fn(Told) + Sync),
) -> Result<Report, FlashError> {
    let journals = rig.journals();
    let job = Job { confirmed, content: &Image, card: card(), journals: &journals, patience: Duration::ZERO };
    flash(&Linux::default(), request, &job, &Cancel::default(), tell)
}

fn assert_whole(file: &Path) {
    let bytes = std::fs::read(file).unwrap();
    for range in Image.ranges() {
        let mut wanted = vec![0; (range.end - range.start) as usize];
        Image.read(range.start, &mut wanted).unwrap();
        assert!(bytes[range.start as usize..range.end as usize] == wanted, "{range:?}");
    }
    let record = Card::decode(&bytes[OFFSET as usize..OFFSET as usize + 4096]).unwrap();
    assert_eq!((record.id, record.state), (CardId([6; 16]), State::Done));
}

#[test]
fn a_disk_is_written_read_back_and_known_again() {
    let Some(rig) = Rig::new() else { return };
    let (disk, other) = (rig.attach("n1.disk", &[]).unwrap(), rig.attach("other", &[]).unwrap());
    let before = other.bytes();
    let request = disk.request();
    let notes = Mutex::new(Vec::new());
    let report = write(&rig, &request, &|t| notes.lock().unwrap().push(t)).unwrap();
    assert_whole(&disk.file);
    assert!(report.written > 11 << 20 && report.verified == report.written, "{report:?}");
    assert!(other.bytes() == before);
    // By its card id from now on; and its data stay when they are to stay.
    let file = std::fs::OpenOptions::new().write(true).open(&disk.file).unwrap();
    file.write_all_at(b"data", 26 << 20).unwrap();
    file.sync_all().unwrap();
    let cards = vec![guard::KnownCard { id: CardId([6; 16]), node: "n1".into() }];
    let again = Request { confirm: vec![], cards, keep_data: true, ..request };
    assert_eq!(confirm(&again).unwrap().how(), guard::How::Card);
    write(&rig, &again, &|_| {}).unwrap();
    assert_whole(&disk.file);
    assert_eq!(&std::fs::read(&disk.file).unwrap()[26 << 20..][..4], b"data");
}

#[test]
fn each_refusal_leaves_the_disk_as_it_is() {
    let Some(rig) = Rig::new() else { return };
    let refused = |disk: &Loop, request: &Request| {
        let before = disk.bytes();
        let error = match confirm(request) {
            Err(ChooseError::Refused(refusal)) => refusal,
            other => panic!("{:?}: {other:?}", disk.file),
        };
        assert!(!error.hint().is_empty());
        assert!(disk.bytes() == before, "{error}");
        error
    };
    // Said for all that follow: what may not be written is not confirmed by saying so.
    let plain = rig.attach("plain", &[]).unwrap();
    let request = plain.request();
    let named = |path: &str| Request { device: Some(path.into()), ..request.clone() };
    assert!(matches!(
        refused(&plain, &Request { allow_loop: false, ..request.clone() }),
        Refusal::Loop { .. }
    ));
    let own = Request { own: vec![rig.dir.path().canonicalize().unwrap()], ..request.clone() };
    assert!(matches!(refused(&plain, &own), Refusal::OwnImage { .. }));
    assert!(matches!(
        refused(&plain, &Request { needs: 1 << 40, ..request.clone() }),
        Refusal::TooSmall { .. }
    ));
    assert!(matches!(
        refused(&plain, &Request { keep_data: true, ..request.clone() }),
        Refusal::NothingToKeep { .. }
    ));
    let size = Request { expects: Some(guard::Expect::Size(32_000_000_000)), ..request.clone() };
    assert!(matches!(refused(&plain, &size), Refusal::OtherSize { .. }));
    let serial = Request { expects: Some(guard::Expect::Serial("x".into())), ..request.clone() };
    assert!(matches!(refused(&plain, &serial), Refusal::OtherSerial { has: None, .. }));
    assert!(matches!(
        refused(&plain, &Request { confirm: vec![], ..request.clone() }),
        Refusal::NotConfirmed { .. }
    ));
    let none = Request { confirm: vec![], device: None, ..request.clone() };
    assert!(matches!(refused(&plain, &none), Refusal::NotChosen { .. }));
    assert!(matches!(refused(&plain, &named(plain.file.to_str().unwrap())), Refusal::File { .. }));
    assert!(matches!(refused(&plain, &named("/dev/null")), Refusal::NoDisk { .. }));
    assert!(matches!(refused(&plain, &named("/dev/no-such-disk")), Refusal::Missing { .. }));
    let link = rig.dir.path().join("link");
    std::os::unix::fs::symlink(&plain.node, &link).unwrap();
    let refusal = refused(&plain, &named(link.to_str().unwrap()));
    assert_eq!(refusal, Refusal::Link { path: link, to: Some((&plain.node).into()) });

    let locked = rig.attach("locked", &["-r"]).unwrap();
    assert!(matches!(refused(&locked, &locked.request()), Refusal::ReadOnly { .. }));

    let foreign = [
        ("luks", 0, &b"LUKS\xba\xbe"[..]),
        ("lvm", 512, b"LABELONE"),
        ("raid", 4096, &0xa92b_4efc_u32.to_le_bytes()),
        ("zfs", 128 << 10, &0x00ba_b10c_u64.to_le_bytes()),
        ("ntfs", 3, b"NTFS    "),
    ];
    for (name, at, magic) in foreign {
        let disk = rig.attach(name, &[]).unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&disk.node).unwrap();
        file.write_all_at(
            &[&vec![0; at % 512], magic, &vec![0; 512 - at % 512 - magic.len()]].concat(),
            (at - at % 512) as u64,
        )
        .unwrap();
        file.sync_all().unwrap();
        drop(file);
        let request = disk.request();
        assert!(matches!(refused(&disk, &request), Refusal::Precious { .. }), "{name}");
    }

    let (first, second) = (rig.attach("first", &[]).unwrap(), rig.attach("second", &[]).unwrap());
    for disk in [&first, &second] {
        let file = std::fs::OpenOptions::new().write(true).open(&disk.node).unwrap();
        file.write_all_at(&card().encode(), OFFSET).unwrap();
        file.sync_all().unwrap();
    }
    assert!(matches!(refused(&first, &first.request()), Refusal::Shared { .. }));
    drop((first, second));

    let parted = rig.attach("parted", &[]).unwrap();
    // One partition of FAT32 from 1 MiB on.
    let mut sector = [0; 512];
    sector[446..462].copy_from_slice(&[0, 0, 0, 0, 0x0c, 0, 0, 0, 0, 8, 0, 0, 0, 0x80, 0, 0]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    std::fs::OpenOptions::new().write(true).open(&parted.file).unwrap().write_all_at(&sector, 0).unwrap();
    match run("losetup", &["-d", &parted.node]).and_then(|_| rig.attach("parted", &["-P"])) {
        Ok(parted) if Path::new(&format!("{}p1", parted.node)).exists() => {
            let request = Request { device: Some(format!("{}p1", parted.node).into()), ..parted.request() };
            let refusal = refused(&parted, &request);
            assert_eq!(
                refusal,
                Refusal::Partition { name: format!("{}p1", parted.name()), disk: parted.name() }
            );
        }
        _ => println!("SKIPPED in part: no partitions on loop devices here"),
    }
}

#[test]
fn what_is_in_use_is_refused() {
    let Some(rig) = Rig::new() else { return };
    let mut used = Vec::new();
    let mut mounted = rig.attach("mounted", &[]).unwrap();
    let at = rig.dir.path().join("at a place");
    std::fs::create_dir(&at).unwrap();
    let at = at.to_str().unwrap().to_string();
    let made = run("mkfs.ext4", &["-q", "-F", &mounted.node])
        .and_then(|_| run("mount", &["-o", "ro", &mounted.node, &at]));
    match made {
        Ok(_) => {
            mounted.undo.push(("umount", at.clone()));
            used.push((mounted, "mounted"));
        }
        Err(why) => println!("SKIPPED in part: cannot mount ({why})"),
    }
    let mut swap = rig.attach("swap", &[]).unwrap();
    match run("mkswap", &[&swap.node]).and_then(|_| run("swapon", &[&swap.node])) {
        Ok(_) => {
            swap.undo.push(("swapoff", swap.node.clone()));
            used.push((swap, "swap"));
        }
        Err(why) => println!("SKIPPED in part: cannot swap ({why})"),
    }
    for (disk, what) in &used {
        let before = disk.bytes();
        let error = confirm(&disk.request()).unwrap_err();
        match (what, &error) {
            (&"mounted", ChooseError::Refused(Refusal::Mounted { at: place, .. })) => assert_eq!(*place, at),
            (&"swap", ChooseError::Refused(Refusal::Swap { .. })) => {}
            _ => panic!("{what}: {error}"),
        }
        // Had the tables not told, the kernel refuses to open it for us alone.
        let open = Linux::default().open(&disk.name());
        assert!(open.is_err_and(|e| e.kind() == std::io::ErrorKind::ResourceBusy), "{what}");
        assert!(disk.bytes() == before);
    }
    let dm = run("dmsetup", &["targets"]);
    if dm.is_err() {
        println!("SKIPPED in part: no device-mapper here, so no active LVM and LUKS");
    }
}

#[test]
fn the_systems_disk_is_refused() {
    let site = Linux::default();
    let devices = site.devices().unwrap_or_default();
    let system = |d: &&Device| d.uses.iter().any(|u| matches!(u, bramble_disk::device::Use::System { .. }));
    let Some(device) = devices.iter().find(system) else {
        return println!("SKIPPED: this computer runs from no disk that it shows");
    };
    let request = Request {
        node: "n1".into(),
        device: Some(device.path()),
        confirm: device.serials.iter().map(ToString::to_string).collect(),
        erase: device.serials.iter().map(ToString::to_string).collect(),
        allow_fixed: true,
        allow_loop: true,
        ..Request::default()
    };
    let refused = confirm(&request);
    assert!(matches!(refused, Err(ChooseError::Refused(Refusal::System { .. }))), "{refused:?}");
}

#[test]
fn another_disk_under_the_same_name_is_not_written() {
    let Some(rig) = Rig::new() else { return };
    let disk = rig.attach("meant", &[]).unwrap();
    let request = disk.request();
    let confirmed = confirm(&request).unwrap();
    // The name goes to another file.
    let node = disk.node.clone();
    run("losetup", &["-d", &node]).unwrap();
    let other = rig.dir.path().join("other");
    std::fs::File::create(&other).unwrap().set_len(SIZE).unwrap();
    run("losetup", &[&node, other.to_str().unwrap()]).unwrap();
    let error = write_confirmed(&rig, &request, confirmed, &|_| {}).unwrap_err();
    assert!(matches!(error, FlashError::Refused(Refusal::Changed { .. })), "{error}");
    assert!(std::fs::read(&other).unwrap().iter().all(|b| *b == 0));
    // Nor does the old word confirm the new disk.
    assert!(matches!(confirm(&request), Err(ChooseError::Refused(Refusal::NotConfirmed { .. }))));
}

#[test]
fn two_flashes_to_one_disk_do_not_mix() {
    let Some(rig) = Rig::new() else { return };
    let disk = rig.attach("one", &[]).unwrap();
    let request = disk.request();
    let (first, second) = (confirm(&request).unwrap(), confirm(&request).unwrap());
    let results = std::thread::scope(|scope| {
        let threads =
            [first, second].map(|c| scope.spawn(|| write_confirmed(&rig, &request, c, &|_| {}).map(drop)));
        threads.map(|t| t.join().unwrap())
    });
    assert_eq!(results.iter().filter(|r| r.is_ok()).count(), 1, "{results:?}");
    let other = results.into_iter().find_map(Result::err).unwrap();
    assert!(
        matches!(other, FlashError::Busy { .. } | FlashError::Refused(Refusal::Changed { .. })),
        "{other}"
    );
    assert_whole(&disk.file);
}

#[test]
fn several_disks_are_written_at_the_same_time() {
    let Some(rig) = Rig::new() else { return };
    let disks: Vec<Loop> = (0..3).map(|n| rig.attach(&format!("disk{n}"), &[]).unwrap()).collect();
    let requests: Vec<Request> = disks.iter().map(Loop::request).collect();
    std::thread::scope(|scope| {
        for request in &requests {
            let rig = &rig;
            scope.spawn(move || write(rig, request, &|_| {}).unwrap());
        }
    });
    disks.iter().for_each(|d| assert_whole(&d.file));
}

#[test]
fn a_disk_that_fails_or_lies_is_told_and_does_not_start() {
    let Some(rig) = Rig::new() else { return };
    // It fails: the file behind it is cut short while it is written.
    let disk = rig.attach("fails", &[]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&disk.file).unwrap();
    let cut = |told: Told| {
        if matches!(told, Told::Progress { phase: Phase::Write, .. }) {
            file.set_len(1 << 20).unwrap();
        }
    };
    let request = disk.request();
    match write(&rig, &request, &cut) {
        Err(FlashError::Io { .. } | FlashError::Lies { .. }) => {}
        other => panic!("{other:?}"),
    }
    assert!(std::fs::read(&disk.file).unwrap()[..512].iter().all(|b| *b == 0));
    // It lies: a byte is another whenever it is looked at.
    let disk = rig.attach("lies", &[]).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&disk.file).unwrap();
    let request = disk.request();
    let over = AtomicBool::new(false);
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::SeqCst) {
                file.write_all_at(&[0x55; 64], 9 << 20).unwrap();
            }
        });
        let result = write(&rig, &request, &|_| {});
        over.store(true, Ordering::SeqCst);
        result.unwrap_err()
    });
    assert!(
        matches!(error, FlashError::Lies { start, end, .. } if (start..end).contains(&(9 << 20))),
        "{error}"
    );
    assert!(std::fs::read(&disk.file).unwrap()[..512].iter().all(|b| *b == 0));
}
