use super::*;
use crate::document::Distribution;
use crate::manifest::{Image, Kubernetes, Manifest, verity_blocks};
use crate::names::{Arch, Board, Role};
use ed25519_dalek::SigningKey;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_bytes(&[seed; 32])
}

fn public(seed: u8) -> PublicKey {
    PublicKey(key(seed).verifying_key().to_bytes())
}

const ROOT: u8 = 1;
const RELEASE: u8 = 2;
const NEXT: u8 = 3;
const STRANGER: u8 = 9;

fn ring() -> KeyRing {
    KeyRing::new(&Anchor {
        format: 1,
        cluster: "home".into(),
        roots: vec![public(ROOT)],
        keys: vec![public(RELEASE)],
        statement: 4,
    })
}

fn keys() -> Keys {
    Keys {
        format: 1,
        cluster: "home".into(),
        number: 5,
        time: 1_800_000_000,
        keys: vec![public(NEXT)],
        revoked: vec![],
    }
}

fn manifest() -> Manifest {
    Manifest {
        format: 1,
        cluster: "home".into(),
        version: 7,
        floor: 3,
        time: 1_800_000_000,
        arch: Arch::Amd64,
        boards: vec![Board::UefiAmd64],
        min_agent: 1,
        root_size: 4 << 20,
        verity_size: verity_blocks(1024) * 4096,
        verity_root: "ab".repeat(32),
        verity_salt: "cd".repeat(32),
        uki: Some(Image { sha256: "01".repeat(32), size: 5000 }),
        boot: None,
        kernel: "7.3".into(),
        kubernetes: Some(Kubernetes {
            distribution: Distribution::Upstream,
            version: "v1.36.3".into(),
            first_when_changed: Role::ControlPlane,
            first_otherwise: Role::Worker,
        }),
        tool: "0.1.0".into(),
    }
}

fn offer(manifest: &[u8]) -> Offer {
    Offer {
        format: 1,
        cluster: "home".into(),
        arch: Arch::Amd64,
        version: 7,
        manifest: Part {
            path: "amd64/000007/manifest".into(),
            size: manifest.len() as u64,
            sha256: Digest::of(manifest),
        },
        pack: Pack {
            path: "amd64/000007/pack".into(),
            size: 5 << 20,
            sha256: Digest([7; 32]),
            head_size: 300,
            head_sha256: Digest([8; 32]),
        },
        issued: 1_800_000_000,
        best_before: Some(1_800_100_000),
    }
}

fn machine() -> Machine {
    Machine {
        arch: Arch::Amd64,
        board: Board::UefiAmd64,
        slot_size: 64 << 20,
        agent: AGENT,
        running: 6,
        floor: 3,
        now: Some(1_800_000_500),
    }
}

fn signed<D: Document>(document: &D, seed: u8) -> Vec<u8> {
    Signed::sign(document, &key(seed)).unwrap().to_bytes()
}

/// What a machine says to an offer that was changed so.
fn offered(change: impl FnOnce(&mut Offer)) -> Result<Offer, Refusal> {
    let mut offer = offer(&signed(&manifest(), RELEASE));
    change(&mut offer);
    Offer::accept(&signed(&offer, RELEASE), &ring(), &machine())
}

fn manifested(change: impl FnOnce(&mut Manifest), seen: Machine) -> Result<Manifest, Refusal> {
    let mut manifest = manifest();
    change(&mut manifest);
    Manifest::accept(&signed(&manifest, RELEASE), &ring(), &seen).map(|(_, manifest)| manifest)
}

#[test]
fn an_honest_release_is_taken_and_lies_in_the_slot_as_it_was_published() {
    let bytes = signed(&manifest(), RELEASE);
    let offer = offered(|_| ()).unwrap();
    let (taken, document) = offer.accept_manifest(&bytes, &ring(), &machine()).unwrap();
    assert_eq!(document, manifest());
    let area = taken.to_area().unwrap();
    assert_eq!(area.len(), 65536);
    assert_eq!(area[..bytes.len()], bytes);
    assert_eq!(Signed::<Manifest>::parse(&area).unwrap(), taken);
}

#[test]
fn no_bit_of_a_signed_file_can_change() {
    for bytes in [signed(&manifest(), RELEASE), signed(&offer(&[]), RELEASE), signed(&keys(), ROOT)] {
        // Bytes 20 to 23 mean nothing.
        for at in (0..20).chain(24..bytes.len()) {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Offer::accept(&bad, &ring(), &machine()).is_err(), "byte {at}");
            assert!(Manifest::accept(&bad, &ring(), &machine()).is_err(), "byte {at}");
            assert!(ring().take(&bad).is_err(), "byte {at}");
        }
    }
}

#[test]
fn a_signature_serves_one_kind_of_document_only() {
    let mut bytes = signed(&offer(&[]), RELEASE);
    bytes[..16].copy_from_slice(Manifest::MAGIC);
    assert_eq!(Manifest::accept(&bytes, &ring(), &machine()).unwrap_err().code(), "signature");
    // A release key makes no statements.
    assert_eq!(ring().take(&signed(&keys(), RELEASE)).unwrap_err().code(), "unknown-key");
    // A root key makes no releases.
    let by_root = signed(&manifest(), ROOT);
    assert_eq!(Manifest::accept(&by_root, &ring(), &machine()).unwrap_err().code(), "unknown-key");
}

#[test]
fn a_document_has_one_form() {
    let json = serde_json::to_string(&manifest()).unwrap();
    let accept = |json: &str| {
        let bytes = Signed::<Manifest>::sign_json(json.as_bytes().to_vec(), &key(RELEASE)).to_bytes();
        Manifest::accept(&bytes, &ring(), &machine()).map(drop)
    };
    assert_eq!(accept(&json), Ok(()));
    let spaced = json.replacen(':', ": ", 1);
    assert_eq!(accept(&spaced), Err(Refusal::NotCanonical("manifest")));
    let (head, tail) = json.split_at(1);
    assert_eq!(accept(&format!("{head}\"extra\":1,{tail}")), Err(Refusal::Json("manifest")));
    let upper = json.replace(&"ab".repeat(32), &"AB".repeat(32));
    assert_eq!(accept(&upper).unwrap_err().code(), "impossible");
    let newer = json.replacen("\"format\":1", "\"format\":2,\"shape\":0", 1);
    assert_eq!(accept(&newer).unwrap_err().code(), "format");
}

#[test]
fn every_bad_offer_is_refused_for_its_own_reason() {
    let code = |change: fn(&mut Offer)| offered(change).unwrap_err().code();
    assert_eq!(code(|o| o.cluster = "other".into()), "other-cluster");
    assert_eq!(code(|o| o.arch = Arch::Arm64), "other-arch");
    assert_eq!(code(|o| o.version = 5), "older");
    assert_eq!(code(|o| o.version = 2), "below-floor");
    assert_eq!(code(|o| o.best_before = Some(1_700_000_000)), "stale");
    for path in ["../x", "/x", "a//b", "http://x", "a/.b", "A", "", "a b", "a%2e"] {
        let refused = offered(|o| o.pack.path = path.into()).unwrap_err();
        assert_eq!(refused.code(), "impossible", "{path}");
    }
    assert_eq!(code(|o| o.pack.head_size = 6 << 20), "impossible");
    assert_eq!(code(|o| o.pack.size = u64::MAX), "impossible");
    assert_eq!(code(|o| o.manifest.size = 1 << 20), "impossible");
    let stranger = signed(&offer(&[]), STRANGER);
    assert_eq!(Offer::accept(&stranger, &ring(), &machine()).unwrap_err().code(), "unknown-key");
    assert_eq!(Offer::accept(b"<html>", &ring(), &machine()).unwrap_err().code(), "unreadable");
    assert!(offered(|o| o.version = 6).is_ok(), "what runs is no error");
}

#[test]
fn a_clock_that_nobody_trusts_judges_no_date() {
    let bytes = signed(&offer(&[]), RELEASE);
    let at = |now| Offer::accept(&bytes, &ring(), &Machine { now, ..machine() }).map(drop);
    assert_eq!(at(None), Ok(()));
    assert_eq!(at(Some(0)), Ok(()), "a clock in 1970 is before every date");
    assert_eq!(at(Some(1_800_100_000 + 3600)), Ok(()), "an hour late");
    assert_eq!(at(Some(1_800_100_000 + 48 * 3600)).unwrap_err().code(), "stale");
}

#[test]
fn every_bad_manifest_is_refused_for_its_own_reason() {
    let code = |change: fn(&mut Manifest)| manifested(change, machine()).unwrap_err().code();
    assert_eq!(code(|m| m.cluster = "other".into()), "other-cluster");
    assert_eq!(code(|m| m.arch = Arch::Arm64), "other-arch");
    assert_eq!(code(|m| m.boards = vec![Board::Pi4]), "impossible");
    assert_eq!(code(|m| m.boards = vec![]), "impossible");
    assert_eq!(code(|m| m.version = 4), "older");
    assert_eq!(code(|m| (m.version, m.floor) = (2, 0)), "below-floor");
    assert_eq!(code(|m| m.floor = 8), "impossible");
    assert_eq!(code(|m| m.min_agent = 1000), "agent-too-old");
    assert_eq!(code(|m| m.uki = None), "impossible");
    assert_eq!(code(|m| m.root_size = 4097), "impossible");
    assert_eq!(code(|m| m.root_size = u64::MAX - 4095), "too-large");
    assert_eq!(code(|m| m.root_size = 64 << 20), "too-large");
    assert_eq!(code(|m| m.verity_size = 4096), "impossible");
    assert_eq!(code(|m| m.verity_size = 64 * 4096), "impossible");
    assert_eq!(code(|m| m.verity_root = "zz".repeat(32)), "impossible");
    assert_eq!(code(|m| m.verity_salt = "a".into()), "impossible");
    assert_eq!(code(|m| m.uki.as_mut().unwrap().size = 1 << 30), "too-large");
    let pi = Machine { arch: Arch::Arm64, board: Board::Pi4, ..machine() };
    let uefi_only = manifested(|m| (m.arch, m.boards) = (Arch::Arm64, vec![Board::UefiArm64]), pi);
    assert_eq!(uefi_only.unwrap_err().code(), "other-board");
    let other = offer(&signed(&manifest(), RELEASE));
    let mut changed = manifest();
    changed.kernel = "7.4".into();
    let changed = signed(&changed, RELEASE);
    assert_eq!(other.accept_manifest(&changed, &ring(), &machine()).unwrap_err().code(), "not-as-offered");
}

#[test]
fn keys_are_added_and_revoked_by_the_root_alone_and_never_backwards() {
    let mut ring = ring();
    let by_next = signed(&manifest(), NEXT);
    assert_eq!(Manifest::accept(&by_next, &ring, &machine()).unwrap_err().code(), "unknown-key");
    let statement = signed(&keys(), ROOT);
    assert_eq!(ring.take(&statement), Ok(true));
    assert_eq!(ring.take(&statement), Ok(false), "known already");
    assert!(Manifest::accept(&by_next, &ring, &machine()).is_ok());
    assert!(Manifest::accept(&signed(&manifest(), RELEASE), &ring, &machine()).is_ok(), "both for a while");

    let revoking = Keys { number: 6, revoked: vec![public(RELEASE)], ..keys() };
    assert_eq!(ring.take(&signed(&revoking, ROOT)), Ok(true));
    let by_revoked = Manifest::accept(&signed(&manifest(), RELEASE), &ring, &machine());
    assert_eq!(by_revoked.unwrap_err().code(), "unknown-key");
    let before = ring.clone();
    assert_eq!(ring.take(&statement), Err(Refusal::OldKeys { offered: 5, known: 6 }));
    assert_eq!(ring.take(&signed(&revoking, STRANGER)).unwrap_err().code(), "unknown-key");
    let foreign = Keys { number: 9, cluster: "other".into(), ..keys() };
    assert_eq!(ring.take(&signed(&foreign, ROOT)).unwrap_err().code(), "other-cluster");
    assert_eq!(ring, before);
}

#[test]
fn documents_too_long_for_their_place_are_not_made() {
    let mut long = manifest();
    long.kernel = "x".repeat(65536);
    assert_eq!(Signed::sign(&long, &key(RELEASE)).unwrap_err(), TooLong("manifest"));
    let raw = Signed::<Manifest>::sign_json(vec![b' '; 65536], &key(RELEASE));
    assert_eq!(raw.to_area(), None);
    assert!(matches!(Signed::<Manifest>::parse(&raw.to_bytes()), Err(Unreadable::Length(..))));
    assert_eq!(Signed::<Manifest>::parse(&[0; 65536]), Err(Unreadable::Empty));
    assert_eq!(Signed::<Manifest>::parse(&[]), Err(Unreadable::Magic("manifest")));
}
