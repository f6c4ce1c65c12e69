use super::*;

fn target(version: u64) -> Target {
    Target { version, digest: format!("{version:064x}"), floor: 0 }
}

fn idle() -> Record {
    Record::adopt(Slot::A, target(1))
}

fn trying(version: u64) -> Record {
    idle().begin(target(version)).unwrap().written().unwrap().ask(Before::default()).unwrap()
}

fn started(running: Slot, version: u64, switch: Option<Slot>, pending: bool) -> Started {
    Started { running, release: target(version), switch, pending }
}

#[test]
fn a_good_release_is_kept_and_forgotten_by_the_list() {
    let mut wanted = target(2);
    wanted.floor = 2;
    let trial = idle().begin(wanted).unwrap().written().unwrap().ask(Before::default()).unwrap();
    assert_eq!(trial.tried[0].tries, 1);
    assert_eq!(trial.after(&started(Slot::B, 2, Some(Slot::A), false)), First::Judge);
    let kept = trial.keep().unwrap();
    assert_eq!((kept.committed, kept.version, kept.floor), (Slot::B, 2, 2));
    assert!(kept.tried.is_empty());
    assert_eq!(kept.other(), Slot::A);
    assert!(matches!(kept.begin(target(1)), Err(NoEdge::BelowFloor { version: 1, floor: 2 })));
}

/// A manifest cannot raise the floor above itself: that would leave nothing to start.
#[test]
fn a_floor_above_the_release_itself_is_the_release() {
    let mut wanted = target(2);
    wanted.floor = 99;
    let kept =
        idle().begin(wanted).unwrap().written().unwrap().ask(Before::default()).unwrap().keep().unwrap();
    assert_eq!(kept.floor, 2);
}

#[test]
fn a_release_without_a_word_is_tried_twice_and_never_again() {
    let over = |record: &Record| match record.after(&started(Slot::A, 1, Some(Slot::A), false)) {
        First::Over(verdict) => verdict,
        other => panic!("{other:?}"),
    };
    let first = trying(2);
    let verdict = over(&first);
    assert_eq!(verdict.reason, Reason::NoWord);
    let second = first.try_again(verdict).unwrap().ask(Before::default()).unwrap();
    assert_eq!(second.tries(&target(2).digest), 2);
    let verdict = over(&second);
    assert!(!second.may_try_again(&verdict) && second.try_again(verdict.clone()).is_err());
    let given_up = second.give_up(verdict).unwrap();
    assert_eq!(given_up.phase, Phase::Idle);
    let refused = given_up.begin(target(2)).unwrap_err();
    assert!(refused.to_string().contains("failed 2 times") && refused.to_string().contains("no-word"));
    assert!(given_up.begin(target(3)).is_ok());
}

#[test]
fn an_unhealthy_release_is_condemned_and_says_why() {
    let judged = trying(2).judge(Verdict::new(Reason::Unhealthy, "kubelet\nfails")).unwrap();
    let First::Over(verdict) = judged.after(&started(Slot::A, 1, Some(Slot::A), false)) else { panic!() };
    assert_eq!(verdict.to_string(), "unhealthy (kubelet fails)");
    assert!(!judged.may_try_again(&verdict));
    let once = judged.give_up(verdict.clone()).unwrap();
    assert_eq!(once.tries(&target(2).digest), 1);
    let twice = once
        .begin(target(2))
        .unwrap()
        .written()
        .unwrap()
        .ask(Before::default())
        .unwrap()
        .give_up(verdict)
        .unwrap();
    assert!(twice.skipped(&target(2).digest).is_some());
    assert_eq!(once.wants(2, &target(2).digest), Ok(true));
    let refused = twice.wants(2, &target(2).digest).unwrap_err();
    assert_eq!(refused.to_string(), "unhealthy (release 2 was given up after 2 tries: kubelet fails)");
    assert_eq!((twice.wants(3, "new"), twice.wants(1, "old")), (Ok(true), Ok(false)));
}

#[test]
fn what_the_network_did_does_not_count() {
    let writing = idle().begin(target(2)).unwrap();
    let after = writing.give_up(Verdict::new(Reason::Source, "broke off")).unwrap();
    assert_eq!((after.tries(&target(2).digest), after.tried.len()), (0, 1));
    let after = writing.give_up(Verdict::new(Reason::BadPack, "wrong bytes")).unwrap();
    assert_eq!(after.tries(&target(2).digest), 1);
}

#[test]
fn starts_are_read_against_the_record() {
    let trial = trying(2);
    assert_eq!(trial.after(&started(Slot::B, 2, Some(Slot::B), false)), First::Keep);
    assert_eq!(trial.after(&started(Slot::B, 2, None, false)), First::Judge);
    let First::Over(verdict) = trial.after(&started(Slot::A, 1, Some(Slot::A), true)) else { panic!() };
    assert_eq!(verdict.reason, Reason::NotApplied);
    let staged = idle().begin(target(2)).unwrap().written().unwrap();
    assert_eq!(staged.after(&started(Slot::B, 2, None, false)), First::Judge);
    assert_eq!(staged.after(&started(Slot::A, 1, None, false)), First::Nothing);
    let kept = trial.keep().unwrap();
    let First::FellOver(verdict) = kept.after(&started(Slot::A, 1, None, false)) else { panic!() };
    let fallen = kept.fell_over(target(1), verdict);
    assert_eq!((fallen.committed, fallen.version), (Slot::A, 1));
    // It may be written and tried once more; what a person went away from may not.
    assert!(fallen.begin(target(2)).is_ok());
    let asked = kept.fell_over(target(1), Verdict::new(Reason::Asked, ""));
    assert!(asked.begin(target(2)).is_err());
}

#[test]
fn edges_that_do_not_exist_say_where_the_machine_is() {
    assert_eq!(idle().written().unwrap_err().to_string(), "cannot stage: the machine is idle");
    assert!(
        idle().ask(Before::default()).is_err()
            && idle().keep().is_err()
            && idle().judge(Verdict::new(Reason::Asked, "")).is_err()
    );
    assert!(trying(2).begin(target(3)).is_err());
    assert!(idle().give_up(Verdict::new(Reason::Asked, "")).is_err());
}

#[test]
fn the_list_has_an_end() {
    let mut record = idle();
    for version in 2..40 {
        record = record
            .begin(target(version))
            .unwrap()
            .give_up(Verdict::new(Reason::BadPack, "x".repeat(1000)))
            .unwrap();
    }
    assert_eq!(record.tried.len(), REMEMBERED);
    assert_eq!(record.tried.last().unwrap().version, 39);
    assert_eq!(record.tried[0].last.as_ref().unwrap().detail.len(), DETAIL_MAX);
}

#[test]
fn the_rescue_takes_what_is_committed_and_whole() {
    let kept = trying(2).keep().unwrap();
    assert_eq!(rescue(Some(&kept), [Some(1), Some(2)]), Some(Slot::B));
    assert_eq!(rescue(Some(&kept), [Some(1), None]), Some(Slot::A));
    assert_eq!(rescue(Some(&idle()), [Some(1), Some(2)]), Some(Slot::A));
    assert_eq!(rescue(None, [Some(1), Some(2)]), Some(Slot::B));
    assert_eq!(rescue(None, [None, None]), None);
}
