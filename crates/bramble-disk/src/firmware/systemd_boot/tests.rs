//! The rules, on disks that are written here; boot-rules named by what they say.

use bramble_fat::{Entry as Fat, FatType, Options};
use bramble_partition::gpt;
use proptest::prelude::*;

use super::*;

/// A program with sections.
fn program(arch: Arch, sections: &[(&str, &str)]) -> Vec<u8> {
    let mut bytes = vec![0; 512];
    bytes[..2].copy_from_slice(b"MZ");
    bytes[0x3c] = 0x40;
    bytes[0x40..0x44].copy_from_slice(b"PE\0\0");
    bytes[0x44..0x46].copy_from_slice(&arch.machine().to_le_bytes());
    bytes[0x46..0x48].copy_from_slice(&(sections.len() as u16).to_le_bytes());
    bytes[0x54..0x56].copy_from_slice(&112u16.to_le_bytes());
    bytes[0x58..0x5a].copy_from_slice(&OPTIONAL.to_le_bytes());
    for (index, (name, content)) in sections.iter().enumerate() {
        let at = 0x58 + 112 + index * 40;
        let (offset, length) = (bytes.len() as u32, content.len() as u32);
        bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
        bytes[at + 8..at + 12].copy_from_slice(&length.to_le_bytes());
        bytes[at + 16..at + 20].copy_from_slice(&length.next_multiple_of(512).to_le_bytes());
        bytes[at + 20..at + 24].copy_from_slice(&offset.to_le_bytes());
        bytes.extend(content.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes
}

const OPTIONAL: u16 = 0x20b;

fn uki_of(arch: Arch, version: &str) -> Vec<u8> {
    let osrel = format!("# text\nID=bramble\nPRETTY_NAME=\"Bramble\"\nIMAGE_VERSION={version}\n");
    program(arch, &[(".text", "code"), (".osrel", &osrel), (".linux", "kernel"), (".cmdline", "quiet")])
}

fn uki(version: &str) -> Vec<u8> {
    uki_of(Arch::Amd64, version)
}

fn disk(files: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let entries: Vec<Fat> = files.iter().map(|(path, content)| Fat::file(path, content)).collect();
    let options = Options { size: 3 << 20, sectors_per_cluster: 1, ..Options::new(FatType::Fat16) };
    let mut bytes = vec![0; 1 << 20];
    bramble_fat::Volume::plan(&entries, &options).unwrap().write_to(&mut bytes).unwrap();
    bytes.resize(5 << 20, 0);
    let partition = gpt::Partition {
        number: 1,
        type_guid: ESP.parse().unwrap(),
        guid: "00000000-0000-0000-0000-000000000001".parse().unwrap(),
        start: 1 << 20,
        size: 3 << 20,
        attributes: 0,
        name: "esp".into(),
    };
    let disk_guid = "00000000-0000-0000-0000-0000000000aa".parse().unwrap();
    let table = gpt::Table { disk_guid, partitions: vec![partition] };
    for write in table.writes(bytes.len() as u64).unwrap() {
        bytes[write.offset as usize..][..write.bytes.len()].copy_from_slice(&write.bytes);
    }
    bytes
}

/// Two slots and a loader.conf.
fn slots<'a>(conf: &str, a: Vec<u8>, b: Vec<u8>) -> Vec<(&'a str, Vec<u8>)> {
    vec![
        ("EFI/BOOT/BOOTX64.EFI", program(Arch::Amd64, &[(".text", "loader")])),
        ("loader/loader.conf", conf.as_bytes().to_vec()),
        ("EFI/Linux/slot-a.efi", a),
        ("EFI/Linux/slot-b.efi", b),
    ]
}

const LOADER: Loader = Loader { arch: Arch::Amd64, version: 257 };
const CONF: &str = "timeout 0\ndefault slot-a.efi\neditor no\n";

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// The id of what is started.
fn starts(disk: &[u8], variables: &Variables) -> Result<String, Failure> {
    decide(disk, LOADER, variables).outcome.map(|start| start.id)
}

fn ids(result: Result<String, Failure>) -> String {
    result.unwrap()
}

#[test]
fn loader_conf_chooses_and_a_one_shot_comes_first_and_is_gone() {
    let disk = disk(&slots(CONF, uki("1"), uki("2")));
    assert_eq!(ids(starts(&disk, &Variables::default())), "slot-a.efi");
    let before = Variables { one_shot: some("Slot-B.efi"), ..Variables::default() };
    let decision = decide(&disk, LOADER, &before);
    assert_eq!(decision.outcome.as_ref().unwrap().id, "slot-b.efi");
    assert_eq!(decision.variables, Variables::default());
    // It is gone even when nothing matches it.
    let wrong = Variables { one_shot: some("slot-c.efi"), ..Variables::default() };
    let decision = decide(&disk, LOADER, &wrong);
    assert_eq!((decision.outcome.unwrap().id, decision.variables.one_shot), ("slot-a.efi".into(), None));
}

/// "`LoaderEntryDefault` beats loader.conf", and what 260 added beats that.
#[test]
fn variables_that_override() {
    let disk = disk(&slots(CONF, uki("1"), uki("2")));
    let mut variables = Variables { default: some("slot-b.efi"), ..Variables::default() };
    assert_eq!(ids(starts(&disk, &variables)), "slot-b.efi");
    assert_eq!(decide(&disk, LOADER, &variables).variables, variables, "it stays");
    variables =
        Variables { default: some("@saved"), last_booted: some("slot-b.efi"), ..Variables::default() };
    assert_eq!(ids(starts(&disk, &variables)), "slot-b.efi");
    variables = Variables { preferred: some("slot-b.efi"), ..Variables::default() };
    assert_eq!(ids(starts(&disk, &variables)), "slot-a.efi");
    let newer = Loader { version: 260, ..LOADER };
    assert_eq!(decide(&disk, newer, &variables).outcome.unwrap().id, "slot-b.efi");
    variables.default = some("slot-a.efi");
    assert_eq!(decide(&disk, newer, &variables).outcome.unwrap().id, "slot-b.efi");
}

/// "with garbage in loader.conf systemd-boot picks the highest version, the bad one", and "UKI-B's header is zeroed again: it
/// is then skipped even when named default".
#[test]
fn garbage_in_loader_conf_and_a_zeroed_header() {
    let garbage: Vec<Vec<u8>> = vec![vec![0; 512], vec![0xff; 512], b"defau".to_vec(), vec![]];
    for conf in garbage {
        let mut files = slots("", uki("1"), uki("2"));
        files[1].1 = conf;
        assert_eq!(ids(starts(&disk(&files), &Variables::default())), "slot-b.efi");
    }
    let mut zeroed = uki("2");
    zeroed[..512].fill(0);
    let disk = disk(&slots("default slot-b.efi\n", uki("1"), zeroed));
    let variables =
        Variables { default: some("slot-b.efi"), one_shot: some("slot-b.efi"), ..Variables::default() };
    assert_eq!(ids(starts(&disk, &variables)), "slot-a.efi");
    let decision = decide(&disk, LOADER, &variables);
    assert!(
        decision.to_string().contains("EFI/Linux/slot-b.efi is no UKI for this machine: skipped"),
        "{decision}"
    );
}

#[test]
fn the_order_of_entries() {
    let first = |a: &str, b: &str| ids(starts(&disk(&slots("", uki(a), uki(b))), &Variables::default()));
    assert_eq!(first("1.10", "1.9"), "slot-a.efi");
    assert_eq!(first("1.9", "1.10"), "slot-b.efi");
    assert_eq!(first("1~rc1", "1"), "slot-b.efi");
    assert_eq!(first("1", "1"), "slot-b.efi", "the id decides, the greater first");
    // Counters: none left goes last.
    let mut files = slots("", uki("1"), uki("2"));
    files[3].0 = "EFI/Linux/slot-b+0-3.efi";
    assert_eq!(ids(starts(&disk(&files), &Variables::default())), "slot-a.efi");
    files[3].0 = "EFI/Linux/slot-b+3.efi";
    assert_eq!(ids(starts(&disk(&files), &Variables::default())), "slot-b.efi");
    assert_eq!(counters("Slot+2-1.efi", ".efi"), ("slot.efi".into(), Some((2, 1))));
    assert_eq!(counters("slot+x.efi", ".efi"), ("slot+x.efi".into(), None));
    // Type 1, by name only after what has a sort key.
    files[3] = ("loader/entries/z.conf", b"title Z\nlinux /EFI/Linux/slot-a.efi\n".to_vec());
    assert_eq!(ids(starts(&disk(&files), &Variables::default())), "slot-a.efi");
    let z = Variables { one_shot: some("z*"), ..Variables::default() };
    assert_eq!(ids(starts(&disk(&files), &z)), "z.conf");
    files[3].1 = b"linux /none\n".to_vec();
    assert_eq!(ids(starts(&disk(&files), &z)), "slot-a.efi");
}

#[test]
fn what_is_no_entry() {
    let not_named = program(Arch::Amd64, &[(".osrel", "VERSION_ID=9\n"), (".linux", "k")]);
    let no_osrel = program(Arch::Amd64, &[(".linux", "k")]);
    for bad in [vec![], b"MZ".to_vec(), vec![0; 4096], uki_of(Arch::Arm64, "9"), not_named, no_osrel] {
        assert_eq!(ids(starts(&disk(&slots("", uki("1"), bad)), &Variables::default())), "slot-a.efi");
    }
    let arm = [
        ("EFI/BOOT/BOOTAA64.EFI", program(Arch::Arm64, &[(".text", "l")])),
        ("EFI/Linux/slot-a.efi", uki_of(Arch::Arm64, "1")),
    ];
    let arm_loader = Loader { arch: Arch::Arm64, version: 257 };
    assert_eq!(decide(&disk(&arm), arm_loader, &Variables::default()).outcome.unwrap().id, "slot-a.efi");
    assert_eq!(starts(&disk(&arm), &Variables::default()), Err(Failure::NoLoader("EFI/BOOT/BOOTX64.EFI")));
    let mut files = slots("", uki("1"), uki("2"));
    files.truncate(2);
    assert_eq!(starts(&disk(&files), &Variables::default()), Err(Failure::NoEntry));
    assert!(matches!(starts(&[0; 1 << 20], &Variables::default()), Err(Failure::NoEsp(_))));
}

#[test]
fn the_menu() {
    let menu = |conf: &str, variable: Option<&str>, once: Option<&str>| {
        let disk = disk(&slots(conf, uki("1"), uki("2")));
        let variables = Variables {
            timeout: variable.map(str::to_owned),
            timeout_one_shot: once.map(str::to_owned),
            ..Variables::default()
        };
        decide(&disk, LOADER, &variables).outcome.map(|start| start.menu)
    };
    assert_eq!(menu("", None, None), Ok(Menu::Hidden));
    assert_eq!(menu("timeout 5\n", None, None), Ok(Menu::Seconds(5)));
    assert_eq!(menu("timeout 5\n", Some("0"), None), Ok(Menu::Hidden));
    assert_eq!(menu("timeout menu-force\n", None, None), Err(Failure::Waits));
    assert_eq!(menu("timeout 0\n", Some("menu-force"), None), Err(Failure::Waits));
    assert_eq!(menu("timeout 0\n", None, Some("7")), Ok(Menu::Seconds(7)));
    assert_eq!(menu("timeout x\n", Some("y"), None), Ok(Menu::Hidden));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever the hot sector and the one-shot say, one of the whole slots is started.
    #[test]
    fn a_whole_slot_is_started(conf in proptest::collection::vec(any::<u8>(), 0..512), one_shot in ".{0,12}", b_whole: bool) {
        let mut b = uki("2");
        if !b_whole {
            b[..512].fill(0);
        }
        let mut files = slots("", uki("1"), b);
        files[1].1 = conf;
        let variables = Variables { one_shot: Some(one_shot), ..Variables::default() };
        let decision = decide(&disk(&files), LOADER, &variables);
        match &decision.outcome {
            Ok(start) => prop_assert!(start.id == "slot-a.efi" || b_whole, "{decision}"),
            // Only noise that says so in full.
            Err(failure) => prop_assert_eq!(failure, &Failure::Waits),
        }
        prop_assert_eq!(&decision.variables, &Variables::default());
    }

    #[test]
    fn any_damage_ends(noise in proptest::collection::vec((0usize..5 << 20, any::<u8>()), 1..60)) {
        let mut disk = disk(&slots(CONF, uki("1"), uki("2")));
        for (at, byte) in noise {
            let at = if at % 2 == 0 { at } else { (1 << 20) + (at & 0xffff) };
            let length = disk.len();
            disk[at % length] = byte;
        }
        prop_assert!(!decide(&disk, LOADER, &Variables::default()).to_string().is_empty());
    }
}
