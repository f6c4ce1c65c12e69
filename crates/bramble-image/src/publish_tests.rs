use super::*;
use crate::release::tests::{Parts, parts};
use crate::release::{build, build_after};
use bramble_api::names::{Arch, Board};
use bramble_api::release::{AGENT, Anchor, KeyRing, Machine, PublicKey};
use bramble_pack::{Fetch, Head, Place, apply, apply_full};
use std::collections::BTreeMap;

const NOW: u64 = 1_800_000_000;

/// Builds release `version` in a directory of its own, placed as `before` has it.
fn built(parts: &Parts, version: u64, before: Option<&Before>) -> Release {
    let mut input = parts.input(&format!("build-{version}"));
    input.version = version;
    input.inputs = format!("inputs {version}");
    let placement = before.and_then(Before::placement);
    build_after(&input, placement.as_ref()).unwrap()
}

fn published(parts: &Parts, release: &Release, keep: usize) -> Result<(Report, bool), PublishError> {
    let out = parts.dir.path().join("public");
    let mut before = Before::find(&out, Arch::Amd64).unwrap();
    before.retain(|before| before.manifest.version < release.manifest.version);
    publish(&PublishInput {
        release,
        before: &before,
        signing_key: &parts.key,
        statement: None,
        out: &out,
        now: NOW,
        valid: Some(1000),
        settings: Settings { level: 1, frame_blocks: 64 },
        keep,
    })
}

/// The newest release of the directory, as a machine takes it.
fn accepted(parts: &Parts, running: u64) -> (Offer, Manifest, Head, Vec<u8>) {
    let out = parts.dir.path().join("public");
    let key = SigningKey::from_bytes(parts.key.expose()).verifying_key().to_bytes();
    let anchor =
        Anchor { format: 1, cluster: "home".into(), roots: vec![], keys: vec![PublicKey(key)], statement: 0 };
    let ring = KeyRing::new(&anchor);
    let machine = Machine {
        arch: Arch::Amd64,
        board: Board::UefiAmd64,
        slot_size: 1 << 30,
        agent: AGENT,
        running,
        floor: 0,
        now: Some(NOW),
    };
    let offer = Offer::accept(&fs::read(out.join("amd64/latest")).unwrap(), &ring, &machine).unwrap();
    let bytes = fs::read(out.join(&offer.manifest.path)).unwrap();
    let (_, manifest) = offer.accept_manifest(&bytes, &ring, &machine).unwrap();
    let pack = fs::read(out.join(&offer.pack.path)).unwrap();
    assert_eq!(pack.len() as u64, offer.pack.size);
    assert_eq!(Digest::of(&pack), offer.pack.sha256);
    let head = Head::open(&pack[..offer.pack.head_size as usize], &offer.pack).unwrap();
    (offer, manifest, head, pack)
}

struct Bytes<'a>(&'a [u8]);

impl Fetch for Bytes<'_> {
    fn fetch(&mut self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.0[offset as usize..][..out.len()]);
        Ok(())
    }
}

/// A slot's images.
#[derive(Clone, Default, PartialEq)]
struct Slot(BTreeMap<ImageKind, Vec<u8>>);

impl Place for Slot {
    fn put(&mut self, image: ImageKind, at: u32, blocks: &[u8]) -> io::Result<()> {
        let bytes = self.0.entry(image).or_default();
        let start = at as usize * BLOCK as usize;
        bytes.resize(bytes.len().max(start + blocks.len()), 0);
        bytes[start..start + blocks.len()].copy_from_slice(blocks);
        Ok(())
    }

    fn keeps(&mut self, _: ImageKind, _: u32, _: u32) -> bool {
        false
    }
}

impl bramble_pack::Earlier for Slot {
    fn read(&mut self, image: ImageKind, at: u32, out: &mut [u8]) -> io::Result<()> {
        out.copy_from_slice(&self.0[&image][at as usize * BLOCK as usize..][..out.len()]);
        Ok(())
    }
}

#[test]
fn a_machine_gets_from_one_published_release_to_the_next() {
    let mut parts = parts();
    let first = built(&parts, 4, None);
    let (report, new) = published(&parts, &first, 4).unwrap();
    assert!(new && report.from.is_empty() && report.bounds.is_none());
    let (_, manifest, head, pack) = accepted(&parts, 0);
    assert_eq!(manifest, first.manifest);
    let mut slot = Slot::default();
    apply_full(&head, &mut Bytes(&pack), &mut slot).unwrap();
    let root = fs::read(first.root()).unwrap();
    assert!(slot.0[&ImageKind::Root] == root[..manifest.root_size as usize]);
    assert!(slot.0[&ImageKind::Uki].starts_with(&fs::read(first.uki()).unwrap()));

    // The next one: a new file, and one that changed a little.
    parts.tree.file("usr/bin/new", 0o755, vec![3; 9000]).unwrap();
    parts.tree.stamp(1_700_000_000);
    let out = parts.dir.path().join("public");
    let before = Before::find(&out, Arch::Amd64).unwrap();
    let second = built(&parts, 5, before.first());
    let (report, new) = published(&parts, &second, 4).unwrap();
    assert!(new);
    let (_, manifest, head, pack) = accepted(&parts, 4);
    assert_eq!(head.recipes[0].manifest, Digest::of(first.json()));
    // The other slot still holds the release before, so that what stays need not be written.
    let mut next = slot.clone();
    let applied = apply(&head, &head.recipes[0], &mut Bytes(&pack), &mut slot, &mut next).unwrap();
    assert!(next.0[&ImageKind::Root] == fs::read(second.root()).unwrap()[..manifest.root_size as usize]);
    assert_eq!(report.from[0].wire, applied.fetched + head.length());
    assert_eq!(report.from[0].version, 4);
    assert!(
        report.from[0].root <= 8 * BLOCK,
        "three blocks of content, some of inodes and directories: {report:?}"
    );
    let bounds = report.bounds.unwrap();
    assert_eq!((bounds.from, bounds.files, bounds.bytes, bounds.blocks), (4, 1, 9000, 3 * BLOCK));
    assert!(bounds.patches <= bounds.whole && bounds.whole > 0);
}

#[test]
fn publishing_again_renews_the_offer_and_nothing_else() {
    let parts = parts();
    let release = built(&parts, 4, None);
    published(&parts, &release, 4).unwrap();
    let pack = parts.dir.path().join("public/amd64/000004/pack");
    let made = fs::metadata(&pack).unwrap().modified().unwrap();
    let (report, new) = published(&parts, &release, 4).unwrap();
    assert!(!new && report.version == 4);
    assert_eq!(fs::metadata(&pack).unwrap().modified().unwrap(), made);
    assert_eq!(accepted(&parts, 4).0.best_before, Some(NOW + 1000));
    // A pack that a full disk cut short is made again.
    fs::write(&pack, "short").unwrap();
    assert!(published(&parts, &release, 4).unwrap().1);
    accepted(&parts, 4);
}

#[test]
fn numbers_are_never_used_twice_and_never_go_back() {
    let mut parts = parts();
    let four = built(&parts, 4, None);
    let five = built(&parts, 5, None);
    published(&parts, &five, 4).unwrap();
    assert!(matches!(published(&parts, &four, 4), Err(PublishError::Older { newest: 5, version: 4 })));
    parts.tree.file("usr/bin/other", 0o755, vec![3; 9000]).unwrap();
    parts.tree.stamp(1_700_000_000);
    let mut input = parts.input("again");
    (input.version, input.inputs) = (5, "other".into());
    let again = build(&input).unwrap();
    assert!(matches!(published(&parts, &again, 4), Err(PublishError::Taken { version: 5, .. })));
    assert_eq!(accepted(&parts, 5).1, five.manifest, "the offer is still the good one");
}

#[test]
fn old_packs_go_and_their_releases_are_still_followed_from() {
    let parts = parts();
    for version in 4..8 {
        let release = built(&parts, version, None);
        published(&parts, &release, 2).unwrap();
    }
    let out = parts.dir.path().join("public");
    let packs: Vec<bool> =
        (4..8).map(|version| out.join(format!("amd64/{version:06}/pack")).exists()).collect();
    assert_eq!(packs, [false, false, true, true]);
    let before = Before::find(&out, Arch::Amd64).unwrap();
    assert_eq!(before.iter().map(|b| b.manifest.version).collect::<Vec<_>>(), [7, 6, 5, 4]);
    assert!(before[3].blocks().is_ok() && before[3].placement().is_some());
    assert_eq!(accepted(&parts, 4).2.recipes.len(), 3);
}

#[test]
fn a_tree_changes_where_what_is_under_it_does() {
    let differs = |changed: &[usize], blocks: usize| {
        let mut differs = vec![false; blocks];
        for at in changed {
            differs[*at] = true;
        }
        tree_changes(&differs)
    };
    assert_eq!(differs(&[], 1000), 0);
    assert_eq!(differs(&[5], 1000), 2, "one leaf block and the top");
    assert_eq!(differs(&[5, 6, 127], 1000), 2);
    assert_eq!(differs(&[5, 128], 1000), 3);
    assert_eq!(differs(&[0], 128 * 128 + 1), 3);
}
