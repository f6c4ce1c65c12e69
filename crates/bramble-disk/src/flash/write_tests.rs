//! Writing to simulated disks: order, cuts, resumption, disks that lie, disks that are no longer the one.

use super::choose::choose;
use super::guard::{Confirmed, Request};
use super::journal::Journals;
use super::reason::Refusal;
use super::sim::{Image, MARK, SIZE, World};
use super::write::*;
use crate::card::{Card, CardId, State};
use bramble_effects::Cancel;
use std::sync::{Arc, Mutex};
use std::time::Duration;

struct Bench {
    world: World,
    image: Image,
    dir: tempfile::TempDir,
    request: Request,
    cancel: Cancel,
    told: Mutex<Vec<Told>>,
}

fn card() -> Card {
    Card {
        id: CardId([4; 16]),
        state: State::Writing,
        cluster: "home".into(),
        node: "n1".into(),
        incarnation: "aa".into(),
        size: SIZE,
        written_at: 7,
    }
}

impl Bench {
    /// A reader with a card, and two disks beside it that nobody means.
    fn new() -> Bench {
        let world = World::new(1);
        {
            let mut state = world.state();
            for index in 0..3 {
                let medium = state.add_store();
                state.new_slot(index == 0, &format!("serial{index}"), Some(medium));
            }
        }
        let request = Request { node: "n1".into(), needs: 4 << 20, ..Request::default() };
        let dir = tempfile::tempdir().unwrap();
        let (image, cancel) = (Image::new(3), Cancel::default());
        Bench { world, image, dir, request, cancel, told: Mutex::default() }
    }

    fn confirm(&self) -> Confirmed {
        let device = {
            use crate::device::Site;
            let mut device = self.world.devices().unwrap().remove(0);
            device.contents = Some(self.world.look(&device));
            device
        };
        let confirm = vec![super::guard::token(&device)];
        let request = Request { confirm, device: Some("/dev/sda".into()), ..self.request.clone() };
        choose(&self.world, &request, None, &self.cancel).unwrap()
    }

    fn flash(&self, confirmed: Confirmed) -> Result<Report, FlashError> {
        let journals = Journals::new(&self.dir.path().join("flash"));
        let patience = Duration::from_secs(60);
        let job = Job { confirmed, content: &self.image, card: card(), journals: &journals, patience };
        flash(&self.world, &self.request, &job, &self.cancel, &|t| self.told.lock().unwrap().push(t))
    }

    fn bytes(&self, medium: usize) -> Vec<u8> {
        self.world.state().stores[medium].bytes.to_vec()
    }

    fn complete(&self) -> bool {
        let now = self.bytes(0);
        let wanted = self.image.applied(&now, &Card { state: State::Done, ..card() });
        now == wanted
    }

    fn others_untouched(&self) -> bool {
        self.world.state().stores[1..].iter().all(|s| s.touched.is_empty())
    }
}

#[test]
fn a_card_is_written_whole_and_nothing_else_is_touched() {
    let bench = Bench::new();
    let report = bench.flash(bench.confirm()).unwrap();
    assert!(bench.complete() && bench.others_untouched());
    let state = bench.world.state();
    let touched = &state.stores[0].touched;
    // The second table and the head go first, the head with the table comes last.
    assert_eq!(touched[0], SIZE - 33 * 512..SIZE);
    assert_eq!(touched[1], 0..1 << 20);
    assert_eq!(touched.last(), Some(&(0..1 << 20)));
    assert_eq!(touched[touched.len() - 2], SIZE - 33 * 512..SIZE);
    assert_eq!(state.stores[0].flushed, touched.len());
    let pieces = super::content::Pieces::of(&bench.image).bytes();
    assert_eq!((report.written, report.verified, report.kept, report.pulled), (pieces, pieces, 0, 0));
    assert!(bench.dir.path().join("flash").read_dir().unwrap().next().is_none(), "the journal is gone");
    let told = bench.told.lock().unwrap();
    assert!(told.iter().any(|t| matches!(t, Told::Progress { phase: Phase::Verify, rate, .. } if *rate > 0)));
    assert_eq!(told.iter().filter(|t| **t == Told::Finishing).count(), 1);
}

#[test]
fn where_nothing_is_said_the_disk_keeps_its_bytes_when_data_stays() {
    let mut bench = Bench::new();
    // The node's own card, so that there is data to keep.
    bench.flash(bench.confirm()).unwrap();
    let at = 2 << 20;
    Arc::make_mut(&mut bench.world.state().stores[0].bytes)[at..at + 512].fill(0x77);
    bench.request.keep_data = true;
    bench.flash(bench.confirm()).unwrap();
    assert!(bench.complete());
    assert_eq!(bench.bytes(0)[at..at + 512], [0x77; 512], "no discard, no write");
}

#[test]
fn a_cut_at_any_write_leaves_a_disk_that_does_not_start_and_the_next_run_goes_on() {
    let total = {
        let bench = Bench::new();
        bench.flash(bench.confirm()).unwrap();
        bench.world.state().writes
    };
    assert!(total > 6, "{total}");
    let mut kept = 0;
    for cut in 0..total {
        let bench = Bench::new();
        // Something that starts lies on it from before.
        Arc::make_mut(&mut bench.world.state().stores[0].bytes)[..MARK.len()].copy_from_slice(MARK);
        let old = bench.bytes(0)[..SIZE as usize - 33 * 512].to_vec();
        let confirmed = bench.confirm();
        bench.world.state().cut_after = Some(cut);
        assert!(bench.flash(confirmed).is_err());
        let now = bench.bytes(0);
        // Either all of the old is there but its second table, or nothing starts.
        assert!(!now.starts_with(MARK) || now.starts_with(&old), "cut {cut}: it would start");
        assert!(!now.starts_with(MARK) || cut < 2, "cut {cut}");
        let second = now[SIZE as usize - 33 * 512..].iter().any(|b| *b != 0);
        assert!(!second || cut == 0 || cut == total - 1, "cut {cut}: a second table");
        bench.world.state().cut_after = None;
        let report = bench.flash(bench.confirm()).unwrap();
        kept += report.kept;
        assert!(bench.complete() && bench.others_untouched(), "cut {cut}");
    }
    assert!(kept > 1 << 20, "nothing was taken up again");
}

#[test]
fn what_the_journal_says_is_not_believed_without_reading() {
    let bench = Bench::new();
    bench.world.state().cut_after = Some(5);
    assert!(bench.flash(bench.confirm()).is_err());
    bench.world.state().cut_after = None;
    Arc::make_mut(&mut bench.world.state().stores[0].bytes)[(1 << 20) + 100] ^= 1;
    let report = bench.flash(bench.confirm()).unwrap();
    assert!(bench.complete() && report.written > 0);
}

#[test]
fn a_counterfeit_is_found_out() {
    // What lies beyond is kept at the beginning: in the head, in the body, or in both.
    for border in [SIZE / 2, 2 << 20, 4 << 20, (4 << 20) - (256 << 10)] {
        let bench = Bench::new();
        bench.world.state().stores[0].wraps_at = Some(border);
        let error = bench.flash(bench.confirm()).unwrap_err();
        assert!(matches!(error, FlashError::Lies { .. }), "{border}: {error}");
        assert!(!bench.bytes(0).starts_with(MARK), "{border}");
    }
}

#[test]
fn one_wrong_reading_is_mended_and_told() {
    let bench = Bench::new();
    bench.world.state().stores[0].flips = 1;
    bench.flash(bench.confirm()).unwrap();
    assert!(bench.complete());
    let told = bench.told.lock().unwrap();
    assert!(told.iter().any(|t| matches!(t, Told::Warning(w) if w.contains("read back wrong"))));
    drop(told);
    let bench = Bench::new();
    bench.world.state().stores[0].flips = u32::MAX;
    assert!(matches!(bench.flash(bench.confirm()), Err(FlashError::Lies { .. })));
}

#[test]
fn between_confirming_and_writing_nothing_may_change() {
    type Change = fn(&mut super::sim::State);
    let changes: [(&str, Change); 5] = [
        ("another card in the reader", |s| {
            let medium = s.add_store();
            s.insert(0, medium);
        }),
        ("the same card, put in anew", |s| s.insert(0, 0)),
        ("it was written by somebody", |s| Arc::make_mut(&mut s.stores[0].bytes)[8192] = 9),
        ("another serial", |s| s.slots[0].serial = "x".into()),
        ("names swapped", |s| {
            let (a, b) = (s.slots.remove(0), s.slots.remove(0));
            s.attach(b);
            s.attach(a);
        }),
    ];
    for (what, change) in changes {
        let bench = Bench::new();
        let confirmed = bench.confirm();
        change(&mut bench.world.state());
        let error = bench.flash(confirmed).unwrap_err();
        assert!(matches!(error, FlashError::Refused(Refusal::Changed { .. })), "{what}: {error}");
        assert!(bench.world.state().stores.iter().all(|s| s.touched.is_empty()), "{what}");
    }
    let bench = Bench::new();
    let confirmed = bench.confirm();
    bench.world.state().detach(0);
    assert!(matches!(bench.flash(confirmed), Err(FlashError::Refused(Refusal::Gone { .. }))));
}

#[test]
fn two_flashes_to_one_card_exclude_each_other() {
    use crate::device::Site;
    let bench = Bench::new();
    let (first, second) = (bench.confirm(), bench.confirm());
    let held = bench.world.open("sda").unwrap();
    assert!(matches!(bench.flash(second), Err(FlashError::Busy { .. })));
    assert!(bench.world.state().stores[0].touched.is_empty());
    drop(held);
    bench.flash(first).unwrap();
}

#[test]
fn a_layout_for_another_size_is_not_written() {
    let bench = Bench::new();
    struct Larger<'a>(&'a Image);
    impl super::content::Content for Larger<'_> {
        fn size(&self) -> u64 {
            SIZE + 512
        }
        fn ranges(&self) -> Vec<std::ops::Range<u64>> {
            self.0.ranges.clone()
        }
        fn read(&self, offset: u64, out: &mut [u8]) -> std::io::Result<()> {
            self.0.read(offset, out)
        }
    }
    let journals = Journals::new(bench.dir.path());
    let content = Larger(&bench.image);
    let job = Job {
        confirmed: bench.confirm(),
        content: &content,
        card: card(),
        journals: &journals,
        patience: Duration::ZERO,
    };
    let error = flash(&bench.world, &bench.request, &job, &bench.cancel, &|_| {}).unwrap_err();
    assert!(matches!(error, FlashError::Layout { .. }));
    assert!(bench.world.state().opened.is_empty());
}

#[test]
fn a_release_that_cannot_be_read_ends_it_without_a_start() {
    let mut bench = Bench::new();
    bench.image.broken_at = Some((3 << 20) + 1024);
    let error = bench.flash(bench.confirm()).unwrap_err();
    assert!(matches!(error, FlashError::Content(_)), "{error}");
    assert!(!bench.bytes(0).starts_with(MARK));
}

#[test]
fn ctrl_c_ends_it_and_the_next_run_goes_on() {
    let mut bench = Bench::new();
    let confirmed = bench.confirm();
    bench.cancel.cancel();
    assert!(matches!(bench.flash(confirmed), Err(FlashError::Interrupted)));
    assert!(!bench.bytes(0).starts_with(MARK));
    bench.cancel = Cancel::default();
    bench.flash(bench.confirm()).unwrap();
    assert!(bench.complete());
}
