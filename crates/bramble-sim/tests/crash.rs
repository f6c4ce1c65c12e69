//! A short slice of the campaign, and the mistakes that it must find.

use bramble_sim::crash::{self, Plan, Report};
use bramble_sim::machine::Mistake;

fn run(mistake: Option<Mistake>, states: u64, subsets: u32, lived: u64) -> Report {
    crash::run(&Plan { seed: 11, states, subsets, lived, mistake }, |_| ())
}

#[test]
fn every_cut_leaves_a_machine_that_starts_a_whole_slot() {
    let report = run(None, 3000, 3, 41);
    assert_eq!(report.failures, 0, "{:#?}", report.shown);
    assert!(report.distinct >= 3000 && report.lived >= 50, "{report:?}");
}

/// The mistakes that other updaters were seen to make, and some of our own.
#[test]
fn wrong_orders_of_writes_are_found() {
    for mistake in Mistake::ALL {
        let report = run(Some(mistake), 1, 4, 7);
        assert!(report.failures > 0, "{mistake:?} went unnoticed: {report:?}");
    }
}
