//! Whether a trial is good: a pure reading of what was seen.
//!
//! What was already broken before the update does not count against it, and what lies outside of the machine never
//! does: a router that is down must not take a good release away.

use crate::reason::Reason;
use crate::state::Verdict;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// How long a trial may take to become healthy. A Pi 4 with a slow card needs four minutes to Ready after a cold start;
/// pid 1's own timer, which needs nothing of the new release, is set later than this ([`LIMIT`]).
pub const DEADLINE: u64 = 600;
/// When pid 1's timer restarts a trial that said nothing at all: after [`DEADLINE`], so that the agent speaks first.
pub const LIMIT: u64 = DEADLINE + 120;
/// So long everything must stay good before a release is kept: a kubelet that dies at once looks ready for a moment.
pub const STEADY: u64 = 30;

/// Something that must work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Data is mounted and can be written.
    Data,
    /// The clock can be right.
    Time,
    /// The network has the stated address.
    Network,
    /// The container runtime answers.
    Runtime,
    /// The API server is ready; on a worker: reached.
    Api,
    /// The node is Ready.
    Ready,
}

impl Part {
    /// In the order in which they come.
    pub const ALL: [Part; 6] = [Part::Data, Part::Time, Part::Network, Part::Runtime, Part::Api, Part::Ready];

    /// For people, and in the journal.
    pub fn name(self) -> &'static str {
        match self {
            Part::Data => "data",
            Part::Time => "time",
            Part::Network => "network",
            Part::Runtime => "runtime",
            Part::Api => "api",
            Part::Ready => "ready",
        }
    }
}

/// What is expected of a machine, and what was already so before the update.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Before {
    /// What did not work on the release before, when the trial was asked for.
    pub broken: BTreeSet<Part>,
}

/// What is seen now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// What does not work, and why. A part that the machine does not have is not in it.
    pub broken: Vec<(Part, String)>,
    /// What lies outside: the API of another machine cannot be reached although the network's address is there.
    pub outside: BTreeSet<Part>,
    /// Seconds since the machine started.
    pub uptime: u64,
    /// For how many seconds everything that counts has worked.
    pub steady: u64,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gate {
    /// Go on looking; the text says for what.
    Wait(String),
    /// Keep the release.
    Keep,
    /// Go back.
    Back(Verdict),
}

/// What of the broken things counts against the release.
pub fn counting<'a>(before: &'a Before, seen: &'a Seen) -> impl Iterator<Item = &'a (Part, String)> {
    let blamed = |part: &Part| {
        !before.broken.contains(part)
            && !seen.outside.contains(part)
            // Without the API nobody can say Ready; if that is not this release's fault, neither is this.
            && !(*part == Part::Ready && (before.broken.contains(&Part::Api) || seen.outside.contains(&Part::Api)))
    };
    seen.broken.iter().filter(move |(part, _)| blamed(part))
}

/// Judges a trial.
pub fn judge(before: &Before, seen: &Seen) -> Gate {
    let first = counting(before, seen).next();
    match first {
        None if seen.steady >= STEADY => Gate::Keep,
        None => Gate::Wait(format!("all works; it must for {STEADY} s")),
        Some((part, why)) if seen.uptime >= DEADLINE => {
            let detail = format!("{} after {} s: {why}", part.name(), seen.uptime);
            Gate::Back(Verdict::new(Reason::Unhealthy, detail))
        }
        Some((part, why)) => Gate::Wait(format!("{}: {why}", part.name())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(broken: &[Part], uptime: u64) -> Seen {
        Seen {
            broken: broken.iter().map(|part| (*part, "why".to_string())).collect(),
            outside: BTreeSet::new(),
            uptime,
            steady: 0,
        }
    }

    #[test]
    fn a_trial_has_until_the_deadline() {
        let before = Before::default();
        assert_eq!(judge(&before, &seen(&[Part::Ready], DEADLINE - 1)), Gate::Wait("ready: why".into()));
        let Gate::Back(verdict) = judge(&before, &seen(&[Part::Ready], DEADLINE)) else { panic!() };
        assert_eq!(verdict.to_string(), "unhealthy (ready after 600 s: why)");
    }

    #[test]
    fn good_must_last() {
        let before = Before::default();
        let mut good = seen(&[], 100);
        assert!(matches!(judge(&before, &good), Gate::Wait(_)));
        good.steady = STEADY;
        assert_eq!(judge(&before, &good), Gate::Keep);
        // Late, but good: the deadline is for what does not work.
        good.uptime = DEADLINE * 2;
        assert_eq!(judge(&before, &good), Gate::Keep);
    }

    #[test]
    fn what_was_broken_before_does_not_count() {
        let before = Before { broken: [Part::Time].into() };
        let mut late = seen(&[Part::Time], DEADLINE);
        late.steady = STEADY;
        assert_eq!(judge(&before, &late), Gate::Keep);
        assert!(matches!(judge(&before, &seen(&[Part::Time, Part::Network], DEADLINE)), Gate::Back(_)));
    }

    #[test]
    fn what_lies_outside_never_takes_a_release_away() {
        let mut away = seen(&[Part::Api, Part::Ready], DEADLINE * 3);
        away.outside = [Part::Api].into();
        away.steady = STEADY;
        assert_eq!(judge(&Before::default(), &away), Gate::Keep);
        // The runtime is inside.
        away.broken.push((Part::Runtime, "dead".into()));
        assert!(matches!(judge(&Before::default(), &away), Gate::Back(_)));
    }

    /// Every combination ends: nothing waits for ever.
    #[test]
    fn after_the_deadline_there_is_always_a_verdict() {
        for mask in 0u32..64 {
            for known in 0u32..64 {
                let parts =
                    |mask: u32| Part::ALL.into_iter().enumerate().filter(move |(i, _)| mask >> i & 1 == 1);
                let broken: Vec<Part> = parts(mask).map(|(_, part)| part).collect();
                let before = Before { broken: parts(known).map(|(_, part)| part).collect() };
                let mut now = seen(&broken, DEADLINE);
                now.steady = if counting(&before, &now).next().is_none() { STEADY } else { 0 };
                assert!(!matches!(judge(&before, &now), Gate::Wait(_)), "{mask} {known}");
            }
        }
    }
}
