//! Runs a plan: one step after the other, each told about, each written to the journal.

use crate::journal::Journal;
use bramble_api::event::{Event, Outcome};
use bramble_api::plan::{Plan, Step, StepId};
use bramble_effects::{Cancel, Context, Failure, Hand, Sink};
use std::time::Instant;

/// How a run ended when nothing failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Steps that did something.
    pub done: usize,
    /// Steps that found their result already there.
    pub unchanged: usize,
}

/// A run that stopped before its end. Running the same command again goes on from here.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A step failed.
    #[error("step {step} failed")]
    Step {
        /// Which.
        step: StepId,
        /// Why.
        #[source]
        failure: Failure,
    },
    /// The plan itself is wrong: a bug of ours.
    #[error("the plan is unsound: {}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Unsound(Vec<bramble_plan::Finding>),
}

/// Performs every step of `plan` in order. The journal gets every event but progress.
///
/// Stops at the first failure: later steps need earlier results, and whoever runs the command again repeats only
/// what is not there yet.
pub fn run(
    plan: &Plan,
    hand: &dyn Hand,
    journal: &Journal,
    sink: &dyn Sink,
    cancel: &Cancel,
) -> Result<Summary, RunError> {
    let findings = bramble_plan::lint(plan);
    if !findings.is_empty() {
        return Err(RunError::Unsound(findings));
    }
    let sink = Recording { journal, sink };
    sink.event(Event::PlanStarted { purpose: plan.purpose.clone(), steps: plan.steps.len() });
    let mut summary = Summary { done: 0, unchanged: 0 };
    let together = |a: &Step, b: &Step| a.kind.side_by_side() && b.kind.side_by_side();
    for steps in plan.steps.chunk_by(together) {
        let results: Vec<_> = if let [step] = steps {
            vec![perform(step, hand, &sink, cancel)]
        } else {
            // All of them come to their end, also when one fails: a disk half written helps nobody.
            std::thread::scope(|scope| {
                let sink = &sink;
                let begin = |step| scope.spawn(move || perform(step, hand, sink, cancel));
                let threads: Vec<_> = steps.iter().map(begin).collect();
                let end = |t: std::thread::ScopedJoinHandle<'_, _>| {
                    t.join().unwrap_or_else(|_| Err(Failure::bug("a step ended in a panic")))
                };
                threads.into_iter().map(end).collect()
            })
        };
        let mut failed = None;
        for (step, result) in steps.iter().zip(results) {
            match result {
                Ok(Outcome::Done) => summary.done += 1,
                Ok(Outcome::Unchanged) => summary.unchanged += 1,
                Err(failure) => {
                    failed.get_or_insert((step, failure));
                }
            }
        }
        if let Some((step, failure)) = failed {
            let left = plan.steps.len() - summary.done - summary.unchanged;
            sink.event(Event::PlanFinished { done: summary.done, unchanged: summary.unchanged, left });
            return Err(RunError::Step { step: step.id.clone(), failure });
        }
    }
    sink.event(Event::PlanFinished { done: summary.done, unchanged: summary.unchanged, left: 0 });
    Ok(summary)
}

/// Performs one step and tells of its beginning and its end.
fn perform(step: &Step, hand: &dyn Hand, sink: &dyn Sink, cancel: &Cancel) -> Result<Outcome, Failure> {
    let began = Instant::now();
    sink.event(Event::StepStarted { step: step.id.clone(), kind: step.kind.clone() });
    let context = Context { step: &step.id, sink, cancel };
    let result =
        if cancel.is_cancelled() { Err(Failure::interrupted()) } else { hand.perform(step, &context) };
    match result {
        Ok(outcome) => {
            let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            let ended = outcome.clone();
            sink.event(Event::StepFinished { step: step.id.clone(), outcome: ended, millis });
            Ok(outcome)
        }
        Err(failure) => {
            // A step that broke off because it was asked to is interrupted, whatever it says of itself.
            let failure = if cancel.is_cancelled() { Failure::interrupted() } else { failure };
            sink.event(Event::StepFailed { step: step.id.clone(), error: failure.chain() });
            Err(failure)
        }
    }
}

/// Passes events on and keeps those that a later reader wants.
struct Recording<'a> {
    journal: &'a Journal,
    sink: &'a dyn Sink,
}

impl Sink for Recording<'_> {
    fn event(&self, event: Event) {
        if !matches!(event, Event::Progress { .. } | Event::Transfer { .. } | Event::MachineConsole { .. }) {
            self.journal.record(&event);
        }
        self.sink.event(event);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bramble_api::names::Arch;
    use bramble_api::plan::StepKind;
    use bramble_effects::Class;
    use std::sync::Mutex;

    #[derive(Default)]
    struct Collect(Mutex<Vec<Event>>);
    impl Sink for Collect {
        fn event(&self, event: Event) {
            self.0.lock().unwrap().push(event);
        }
    }

    /// Does its work unless told to fail at a step; remembers what it was asked.
    struct Fake {
        fail_at: Option<usize>,
        asked: Mutex<Vec<StepId>>,
    }
    impl Hand for Fake {
        fn perform(&self, step: &Step, _: &Context<'_>) -> Result<Outcome, Failure> {
            let mut asked = self.asked.lock().unwrap();
            asked.push(step.id.clone());
            if self.fail_at == Some(asked.len()) {
                return Err(Failure::user("out of paper").hint("buy paper"));
            }
            Ok(Outcome::Done)
        }
    }

    fn plan(after: &[(&str, &[&str])]) -> Plan {
        let steps = after
            .iter()
            .map(|(id, after)| Step {
                id: StepId(id.to_string()),
                kind: StepKind::BuildRelease { arch: Arch::Amd64 },
                after: after.iter().map(|a| StepId(a.to_string())).collect(),
                why: "because".into(),
            })
            .collect();
        Plan {
            format: 1,
            cluster: "home".into(),
            purpose: "build".into(),
            inputs: String::new(),
            steps,
            not_served: vec![],
            waiting: vec![],
        }
    }

    #[test]
    fn stops_at_the_first_failure_and_says_what_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), 1).unwrap();
        let sink = Collect::default();
        let hand = Fake { fail_at: Some(2), asked: Mutex::default() };
        let error = run(
            &plan(&[("a", &[]), ("b", &["a"]), ("c", &["b"])]),
            &hand,
            &journal,
            &sink,
            &Cancel::default(),
        )
        .unwrap_err();
        assert!(
            matches!(error, RunError::Step { step, failure } if step.0 == "b" && failure.class == Class::User)
        );
        let last = sink.0.lock().unwrap().last().cloned();
        assert_eq!(last, Some(Event::PlanFinished { done: 1, unchanged: 0, left: 2 }));
        let text = std::fs::read_to_string(journal.path()).unwrap();
        assert!(text.contains("out of paper"), "{text}");
    }

    #[test]
    fn disks_are_written_at_the_same_time_and_one_that_fails_does_not_stop_the_others() {
        /// Each waits until all are there.
        struct Meet(std::sync::Barrier);
        impl Hand for Meet {
            fn perform(&self, step: &Step, _: &Context<'_>) -> Result<Outcome, Failure> {
                self.0.wait();
                if step.id.0 == "b" { Err(Failure::user("no disk")) } else { Ok(Outcome::Done) }
            }
        }
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), 1).unwrap();
        let mut plan = plan(&[("a", &[]), ("b", &[]), ("c", &[])]);
        for step in &mut plan.steps {
            let (node, disk) = (step.id.0.clone(), "sdb".to_string());
            step.kind = StepKind::FlashDisk { node, disk, start: Default::default() };
        }
        let sink = Collect::default();
        let hand = Meet(std::sync::Barrier::new(3));
        let error = run(&plan, &hand, &journal, &sink, &Cancel::default()).unwrap_err();
        assert!(matches!(error, RunError::Step { step, .. } if step.0 == "b"));
        let last = sink.0.lock().unwrap().last().cloned();
        assert_eq!(last, Some(Event::PlanFinished { done: 2, unchanged: 0, left: 1 }));
    }

    #[test]
    fn a_cancelled_run_is_interrupted_and_performs_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), 1).unwrap();
        let cancel = Cancel::default();
        cancel.cancel();
        let hand = Fake { fail_at: None, asked: Mutex::default() };
        let error = run(&plan(&[("a", &[])]), &hand, &journal, &Collect::default(), &cancel).unwrap_err();
        assert!(matches!(error, RunError::Step { failure, .. } if failure.class == Class::Interrupted));
        assert!(hand.asked.lock().unwrap().is_empty());
    }

    #[test]
    fn a_plan_out_of_order_is_refused_before_anything_is_done() {
        let dir = tempfile::tempdir().unwrap();
        let journal = Journal::open(dir.path(), 1).unwrap();
        let hand = Fake { fail_at: None, asked: Mutex::default() };
        let error = run(
            &plan(&[("b", &["a"]), ("a", &[])]),
            &hand,
            &journal,
            &Collect::default(),
            &Cancel::default(),
        );
        assert!(matches!(error, Err(RunError::Unsound(_))));
        assert!(hand.asked.lock().unwrap().is_empty());
    }
}
