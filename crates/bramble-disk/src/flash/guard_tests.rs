//! Each refusal of the list, and each way of being confirmed.

use super::guard::*;
use super::reason::Refusal;
use crate::card::{Card, CardId, State};
use crate::device::*;
use std::path::PathBuf;

fn contents() -> Contents {
    Contents {
        table: None,
        signatures: vec![],
        card: None,
        bramble: false,
        blank: true,
        fingerprint: [1; 32],
    }
}

/// A card in a USB reader.
fn card_in_reader() -> Device {
    Device {
        name: "sdb".into(),
        number: Number { major: 8, minor: 16 },
        sequence: Some(17),
        size: 31_914_983_424,
        sector: 512,
        physical_sector: 512,
        bus: Bus::Usb,
        port: "usb:2-1.4:0".into(),
        vendor: Foreign::new("Generic"),
        model: Foreign::new("USB3.0 Card Reader"),
        serials: vec![Foreign::new("000000001532")],
        wwids: vec![],
        medium: Medium::Changeable,
        removable: true,
        read_only: false,
        uses: vec![],
        backing: None,
        partitions: vec![],
        discard_max: 0,
        contents: Some(Ok(contents())),
    }
}

/// A stick with a serial of its own.
fn stick() -> Device {
    Device {
        name: "sdc".into(),
        number: Number { major: 8, minor: 32 },
        sequence: Some(18),
        port: "usb:2-2:0".into(),
        vendor: Foreign::new("SanDisk"),
        model: Foreign::new("Cruzer Fit"),
        serials: vec![Foreign::new("4C530001130401118373")],
        medium: Medium::Own,
        ..card_in_reader()
    }
}

fn nvme() -> Device {
    Device {
        name: "nvme0n1".into(),
        number: Number { major: 259, minor: 0 },
        sequence: Some(3),
        size: 500_107_862_016,
        bus: Bus::Nvme,
        port: "nvme:0000:01:00.0".into(),
        serials: vec![Foreign::new("S4EVNX0N123456")],
        wwids: vec![Foreign::new("eui.0025385b01412345")],
        medium: Medium::Own,
        removable: false,
        ..card_in_reader()
    }
}

fn request() -> Request {
    Request { node: "n1".into(), needs: 7 << 30, ..Request::default() }
}

fn naming(device: &Device) -> Request {
    Request { device: Some(device.path()), ..request() }
}

fn named(devices: &[Device], device: &Device, request: &Request) -> Result<Verdict, Refusal> {
    let request = Request { device: Some(device.path()), ..request.clone() };
    judge(devices, Some(&Named::Disk(device.name.clone())), &request)
}

fn refused(device: Device, request: &Request) -> Refusal {
    match named(std::slice::from_ref(&device), &device, request) {
        Err(refusal) => {
            assert!(!refusal.hint().is_empty() && !refusal.to_string().is_empty());
            // Without naming it, it is not chosen either.
            let alone = Request { device: None, ..request.clone() };
            assert!(!matches!(judge(&[device], None, &alone), Ok(Verdict::Confirmed(_) | Verdict::Ask(_))));
            refusal
        }
        Ok(verdict) => panic!("not refused: {verdict:?}"),
    }
}

fn confirmed(verdict: Result<Verdict, Refusal>) -> Confirmed {
    match verdict {
        Ok(Verdict::Confirmed(confirmed)) => *confirmed,
        other => panic!("not confirmed: {other:?}"),
    }
}

fn asked(verdict: Result<Verdict, Refusal>) -> Question {
    match verdict {
        Ok(Verdict::Ask(question)) => *question,
        other => panic!("not asked: {other:?}"),
    }
}

fn own_card(node: &str, state: State) -> Card {
    Card {
        id: CardId([9; 16]),
        state,
        cluster: "home".into(),
        node: node.into(),
        incarnation: String::new(),
        size: 31_914_983_424,
        written_at: 0,
    }
}

fn with_card(device: Device, card: Card) -> Device {
    Device { contents: Some(Ok(Contents { card: Some(card), blank: false, ..contents() })), ..device }
}

#[test]
fn what_is_no_whole_disk_is_refused() {
    let path = || PathBuf::from("/dev/x");
    let cases = [
        (Named::Missing, Refusal::Missing { path: path() }),
        (
            Named::Link { to: Some("/dev/sdb".into()) },
            Refusal::Link { path: path(), to: Some("/dev/sdb".into()) },
        ),
        (Named::Link { to: None }, Refusal::Link { path: path(), to: None }),
        (Named::File, Refusal::File { path: path() }),
        (Named::NoDisk, Refusal::NoDisk { path: path() }),
        (
            Named::Partition { name: "sdb1".into(), disk: "sdb".into() },
            Refusal::Partition { name: "sdb1".into(), disk: "sdb".into() },
        ),
        (Named::Disk("sdz".into()), Refusal::Gone { name: "sdz".into() }),
    ];
    for (named, refusal) in cases {
        let request = Request { device: Some(path()), confirm: vec![token(&card_in_reader())], ..request() };
        assert_eq!(judge(&[card_in_reader()], Some(&named), &request), Err(refusal));
    }
}

#[test]
fn what_is_in_use_is_refused_whatever_a_person_says() {
    let card = card_in_reader();
    let token = token(&card);
    let request =
        Request { confirm: vec![token.clone()], erase: vec![token], allow_fixed: true, ..request() };
    let mounted = Use::Mounted { name: "sdb1".into(), at: "/media/\u{202e}card".into() };
    let uses = [
        Use::System { at: "/".into() },
        mounted,
        Use::Swap { name: "sdb2".into() },
        Use::Member { of: "LVM", name: "vg-home".into() },
        Use::Member { of: "software RAID", name: "md0".into() },
        Use::Member { of: "LUKS", name: "crypt".into() },
    ];
    for one in uses {
        let refusal = refused(Device { uses: vec![one.clone()], ..card.clone() }, &request);
        assert!(!refusal.to_string().contains('\u{202e}'), "{refusal}");
    }
    let refusal = refused(Device { read_only: true, ..card.clone() }, &request);
    assert_eq!(refusal, Refusal::ReadOnly { name: "sdb".into() });
    assert!(matches!(refused(Device { size: 0, ..card.clone() }, &request), Refusal::Empty { .. }));
    assert!(matches!(refused(Device { size: 1 << 30, ..card.clone() }, &request), Refusal::TooSmall { .. }));
    assert!(matches!(refused(Device { sector: 4096, ..card.clone() }, &request), Refusal::Sector { .. }));
    for bus in [Bus::Mapped, Bus::Other] {
        assert!(matches!(refused(Device { bus, ..card.clone() }, &request), Refusal::Virtual { .. }));
    }
    assert!(matches!(refused(Device { bus: Bus::Loop, ..card.clone() }, &request), Refusal::Loop { .. }));
    let backing = Some(PathBuf::from("/home/me/cluster/build/n1.img"));
    let own = Request { allow_loop: true, own: vec!["/home/me/cluster".into()], ..request.clone() };
    let image = Device { bus: Bus::Loop, backing, ..card.clone() };
    assert!(matches!(refused(image, &own), Refusal::OwnImage { .. }));
    let dark = Device { contents: Some(Err("no permission to read it".into())), ..card.clone() };
    assert!(matches!(refused(dark, &request), Refusal::Unseen { .. }));
    assert!(matches!(refused(Device { contents: None, ..card }, &request), Refusal::Unseen { .. }));
}

#[test]
fn a_stick_is_confirmed_by_the_serial_in_the_file_and_by_no_other() {
    let by_serial = |serial: &str| Request { expects: Some(Expect::Serial(serial.into())), ..request() };
    let right = by_serial("4C530001130401118373");
    let all = [card_in_reader(), stick()];
    assert_eq!(confirmed(named(&all, &stick(), &right)).how(), How::File);
    assert_eq!(confirmed(judge(&all, None, &right)).identity().name, "sdc");
    assert!(matches!(refused(stick(), &by_serial("other")), Refusal::OtherSerial { reader: false, .. }));
    let wwid = |w: &str| Request { expects: Some(Expect::Wwid(w.into())), allow_fixed: true, ..request() };
    for form in ["eui.0025385b01412345", "0x0025385B01412345"] {
        assert_eq!(confirmed(named(&[nvme()], &nvme(), &wwid(form))).how(), How::File);
    }
    let none = Device { serials: vec![], ..stick() };
    assert!(matches!(refused(none, &request()), Refusal::NoSerial { .. }));
    let unseen = Device { serials: vec![Foreign::new("\u{202e}1234")], ..stick() };
    assert!(matches!(refused(unseen, &request()), Refusal::NoSerial { .. }));
}

#[test]
fn a_readers_serial_never_confirms_a_card() {
    let reader = card_in_reader();
    let serial = reader.serials[0].raw().to_string();
    let request = Request { expects: Some(Expect::Serial(serial.clone())), ..request() };
    let question = asked(named(std::slice::from_ref(&reader), &reader, &request));
    assert_eq!(question.word, Word::Port("usb:2-1.4:0".into()));
    // Nor does it as a word of --confirm.
    let said = Request { confirm: vec![serial], ..naming(&reader) };
    asked(named(std::slice::from_ref(&reader), &reader, &said));
    let other = Request { expects: Some(Expect::Serial("x".into())), ..naming(&reader) };
    assert!(matches!(refused(reader, &other), Refusal::OtherSerial { reader: true, .. }));
}

#[test]
fn a_card_is_confirmed_by_port_size_and_the_moment_it_was_put_in() {
    let card = card_in_reader();
    let said = Request { confirm: vec![token(&card)], ..request() };
    assert_eq!(token(&card), "usb:2-1.4:0/31914983424/17");
    assert_eq!(confirmed(named(std::slice::from_ref(&card), &card, &said)).how(), How::Person);
    assert_eq!(confirmed(judge(std::slice::from_ref(&card), None, &said)).how(), How::Person);
    // Another card in the same reader, another size, another port: the word is worth nothing.
    for other in [
        Device { sequence: Some(18), ..card.clone() },
        Device { size: card.size + 512, ..card.clone() },
        Device { port: "usb:2-1.3:0".into(), ..card.clone() },
    ] {
        asked(named(std::slice::from_ref(&other), &other, &said));
    }
    // Before Linux 5.15 what lies on it takes the place of the count.
    let old = Device { sequence: None, ..card };
    let other = Device { contents: Some(Ok(Contents { fingerprint: [2; 32], ..contents() })), ..old.clone() };
    assert_ne!(token(&old), token(&other));
}

#[test]
fn a_card_is_known_by_its_id_afterwards() {
    let card = with_card(card_in_reader(), own_card("n1", State::Done));
    let known = |node: &str| Request {
        cards: vec![KnownCard { id: CardId([9; 16]), node: node.into() }],
        ..request()
    };
    assert_eq!(confirmed(named(std::slice::from_ref(&card), &card, &known("n1"))).how(), How::Card);
    assert_eq!(confirmed(judge(&[card.clone(), stick()], None, &known("n1"))).how(), How::Card);
    // What the card says of itself is not believed; the project must know it.
    let question = asked(named(std::slice::from_ref(&card), &card, &request()));
    assert_eq!(question.word, Word::CardEnd("0909".into()));
    assert!(matches!(refused(card.clone(), &known("n2")), Refusal::OtherNode { token: Some(_), .. }));
    let erase = Request { erase: vec![token(&card)], ..known("n2") };
    assert_eq!(confirmed(named(std::slice::from_ref(&card), &card, &erase)).how(), How::Person);
    let clone = Device { name: "sdd".into(), number: Number { major: 8, minor: 48 }, ..card.clone() };
    let both = named(&[card.clone(), clone], &card, &known("n1"));
    assert!(matches!(both, Err(Refusal::Shared { what: "Bramble card id", .. })), "{both:?}");
}

#[test]
fn a_serial_that_two_disks_have_confirms_neither() {
    let twin = Device { name: "sdd".into(), number: Number { major: 8, minor: 48 }, ..stick() };
    let all = [stick(), twin];
    let request = Request {
        expects: Some(Expect::Serial("4C530001130401118373".into())),
        confirm: vec![token(&stick())],
        ..request()
    };
    assert!(matches!(named(&all, &stick(), &request), Err(Refusal::Shared { .. })));
    assert!(matches!(judge(&all, None, &request), Err(Refusal::Shared { .. })));
    // The same where nobody wrote a serial down.
    let silent = Request { expects: None, ..request };
    assert!(matches!(named(&all, &stick(), &silent), Err(Refusal::Shared { .. })));
}

#[test]
fn another_nodes_disk_is_refused() {
    let others = vec![("n2".to_string(), Expect::Serial("4C530001130401118373".into()))];
    let request = Request { others, confirm: vec![token(&stick())], ..request() };
    assert!(matches!(refused(stick(), &request), Refusal::OtherNode { owner, .. } if owner == "n2"));
    let first = confirmed(named(
        &[card_in_reader()],
        &card_in_reader(),
        &Request { confirm: vec![token(&card_in_reader())], ..self::request() },
    ));
    let taken = Request {
        taken: vec![("n3".into(), first.identity().clone())],
        confirm: vec![token(&card_in_reader())],
        ..self::request()
    };
    assert!(matches!(refused(card_in_reader(), &taken), Refusal::Taken { owner, .. } if owner == "n3"));
}

#[test]
fn built_in_large_and_foreign_disks_need_a_word_each() {
    let disk = nvme();
    let said = Request { confirm: vec![token(&disk)], ..request() };
    assert!(matches!(refused(disk.clone(), &said), Refusal::Fixed { bus: "nvme", .. }));
    let fixed = Request { allow_fixed: true, ..said };
    assert!(matches!(refused(disk.clone(), &fixed), Refusal::Large { .. }));
    let erase = Request { erase: vec![token(&disk)], allow_fixed: true, ..request() };
    assert_eq!(confirmed(named(std::slice::from_ref(&disk), &disk, &erase)).how(), How::Person);
    // The file says this very disk: its size is no surprise, what lies on it is.
    let by_file = Request { expects: Some(Expect::Serial("S4EVNX0N123456".into())), ..fixed };
    confirmed(named(std::slice::from_ref(&disk), &disk, &by_file));
    let ntfs = Signature { kind: SignatureKind::Ntfs, place: Place::Partition(1) };
    let windows = Device {
        contents: Some(Ok(Contents { signatures: vec![ntfs], blank: false, ..contents() })),
        ..disk
    };
    assert!(matches!(refused(windows.clone(), &by_file), Refusal::Precious { .. }));
    let erase = Request { erase: vec![token(&windows)], ..by_file };
    confirmed(named(std::slice::from_ref(&windows), &windows, &erase));
    // A card as it is sold, or with another system for the same board, is nothing special.
    let ext = Signature { kind: SignatureKind::Ext, place: Place::Partition(2) };
    let old = Device {
        contents: Some(Ok(Contents { signatures: vec![ext], blank: false, ..contents() })),
        ..card_in_reader()
    };
    asked(named(std::slice::from_ref(&old), &old, &request()));
}

#[test]
fn a_size_in_the_file_narrows_and_does_not_confirm() {
    let sized = |size: u64| Request { expects: Some(Expect::Size(size)), ..request() };
    for printed in [32_000_000_000, 32 << 30] {
        asked(named(&[card_in_reader()], &card_in_reader(), &sized(printed)));
    }
    for printed in [16_000_000_000, 64_000_000_000] {
        assert!(matches!(refused(card_in_reader(), &sized(printed)), Refusal::OtherSize { .. }));
    }
}

#[test]
fn the_only_disk_is_not_chosen_for_being_the_only_one() {
    let verdict = judge(&[card_in_reader()], None, &request());
    assert_eq!(verdict, Ok(Verdict::Wait(Refusal::NotChosen { node: "n1".into() })));
    let verdict = judge(&[nvme()], None, &request());
    assert!(matches!(verdict, Ok(Verdict::Wait(Refusal::NothingFits { .. }))), "{verdict:?}");
}

#[test]
fn data_is_kept_only_where_there_is_some() {
    let keep = Request { keep_data: true, confirm: vec![token(&card_in_reader())], ..request() };
    assert!(matches!(refused(card_in_reader(), &keep), Refusal::NothingToKeep { .. }));
    let card = with_card(card_in_reader(), own_card("n1", State::Done));
    asked(named(std::slice::from_ref(&card), &card, &keep));
}

#[test]
fn an_answer_holds_for_the_medium_that_was_asked_about() {
    let card = card_in_reader();
    let question = asked(named(std::slice::from_ref(&card), &card, &request()));
    let good = "usb:2-1.4:0";
    assert!(question.answer(good, std::slice::from_ref(&card), &request()).is_ok());
    for wrong in ["y", "yes", "", "USB:2-1.4:0", "sdb"] {
        let answer = question.answer(wrong, std::slice::from_ref(&card), &request());
        assert!(matches!(answer, Err(Refusal::WrongAnswer { .. })));
    }
    assert!(matches!(question.answer(good, &[], &request()), Err(Refusal::Gone { .. })));
    let other = |change: fn(&mut Device)| {
        let mut device = card.clone();
        change(&mut device);
        question.answer(good, &[device], &request())
    };
    assert!(matches!(other(|d| d.sequence = Some(99)), Err(Refusal::Changed { .. })));
    assert!(matches!(other(|d| d.number.minor = 32), Err(Refusal::Changed { .. })));
    assert!(matches!(other(|d| d.size += 512), Err(Refusal::Changed { .. })));
    assert!(matches!(other(|d| d.serials.clear()), Err(Refusal::Changed { .. })));
    let drawn = |d: &mut Device| d.contents = Some(Ok(Contents { fingerprint: [5; 32], ..contents() }));
    assert!(matches!(other(drawn), Err(Refusal::Changed { .. })));
    // It was mounted while the question stood there.
    let mount = |d: &mut Device| d.uses = vec![Use::Mounted { name: "sdb1".into(), at: "/mnt".into() }];
    assert!(matches!(other(mount), Err(Refusal::Mounted { .. })));
}

#[test]
fn a_pulled_card_is_known_by_the_record_of_this_run_alone() {
    let card = card_in_reader();
    let said = Request { confirm: vec![token(&card)], ..request() };
    let first = confirmed(named(std::slice::from_ref(&card), &card, &said));
    let moved = Device {
        name: "sdf".into(),
        number: Number { major: 8, minor: 80 },
        sequence: Some(40),
        port: "usb:1-1:0".into(),
        ..card.clone()
    };
    let back = with_card(moved.clone(), own_card("n1", State::Writing));
    let id = CardId([9; 16]);
    let found = first.put_back(id, &[stick(), back.clone()], &said).unwrap();
    assert_eq!((found.identity().name.as_str(), found.how()), ("sdf", How::PutBack));
    assert_eq!(first.put_back(id, &[stick(), moved.clone()], &said), None);
    assert_eq!(first.put_back(CardId([8; 16]), std::slice::from_ref(&back), &said), None);
    let done = with_card(moved, own_card("n1", State::Done));
    assert_eq!(first.put_back(id, &[done], &said), None);
    let clone = Device { name: "sdg".into(), ..back.clone() };
    assert_eq!(first.put_back(id, &[back.clone(), clone], &said), None);
    assert_eq!(first.put_back(id, &[Device { size: back.size + 512, ..back.clone() }], &said), None);
    let mounted = Device { uses: vec![Use::Mounted { name: "sdf1".into(), at: "/mnt".into() }], ..back };
    assert_eq!(first.put_back(id, &[mounted], &said), None);
}
