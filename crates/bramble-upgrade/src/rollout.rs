//! What is done next to one machine of a roll-out. A function of what is seen, so that a run that was killed anywhere goes on
//! where it was: the cordon says on the node who kept pods off it and since when, and that is all that is remembered.
//!
//! The order: take the lease; keep pods off; let them go, for so long; act; wait until the machine is Ready; let pods on
//! again. A drain that passes its deadline is undone exactly: what we kept off is let on, what a person kept off stays.

use std::fmt;

/// Seconds until a machine that was restarted counts as not coming back: long enough for a slow card with a file system to
/// check. Not measured on a board.
pub const READY_DEADLINE: u64 = 900;

/// What is to be done to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// Pods leave it first.
    pub drain: bool,
    /// Seconds for which pods may take to leave.
    pub drain_deadline: u64,
    /// Pods that do not leave in time are put off it against their budgets.
    pub evict: bool,
    /// It must be Ready at the end.
    pub ready: bool,
}

/// Whose roll-out it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lease {
    /// Nobody's.
    Free,
    /// Ours.
    Mine,
    /// Someone's who gives signs of life.
    Other(String),
    /// Someone's who gives none.
    Dead(String),
    /// Not known: the API does not answer.
    Unknown,
}

/// Who keeps pods off a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Nobody.
    Off,
    /// We, since seconds since the epoch.
    Ours(u64),
    /// A person.
    Other,
    /// Not known.
    Unknown,
}

/// What is seen of the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The lease.
    pub lease: Lease,
    /// Who keeps pods off.
    pub kept: Kept,
    /// Pods that have to leave; none while it is not known.
    pub pods: Option<u32>,
    /// The act was asked for, and what comes of it is not decided yet: what it is at, for a person.
    pub under_way: Option<String>,
    /// What was asked for did not last, and why.
    pub back: Option<String>,
    /// The result of the act is there, since seconds since the epoch.
    pub result: Option<u64>,
    /// It is Ready.
    pub ready: bool,
}

/// The next move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Take the lease, in the name of this machine.
    Lease,
    /// Keep pods off, and write who and since when.
    Cordon,
    /// Ask pods to leave.
    Drain,
    /// Put pods off against their budgets.
    Evict,
    /// The act itself.
    Act,
    /// Let pods on again.
    Uncordon,
}

/// Why a roll-out stops. Nothing goes on by itself after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Someone else rolls out.
    Held(String),
    /// Someone who gives no sign of life left something in the middle: a person must look.
    Attention(String),
    /// Pods did not leave in time.
    Drain(u32),
    /// The machine did not become Ready in time.
    NotReady,
    /// The machine is again what it was before.
    Back(String),
}

/// What follows from what is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Next {
    /// This.
    Do(Move),
    /// Look again later.
    Wait(String),
    /// It is done.
    Done,
    /// It stops; `undo`: what we keep off is let on first.
    Stop {
        /// Uncordon first.
        undo: bool,
        /// Why.
        why: Stop,
    },
}

/// Decides.
pub fn next(work: &Work, seen: &Seen, now: u64) -> Next {
    match &seen.lease {
        Lease::Mine => {}
        Lease::Free => return Next::Do(Move::Lease),
        Lease::Other(who) => return Next::Stop { undo: false, why: Stop::Held(who.clone()) },
        Lease::Dead(who) => return Next::Stop { undo: false, why: Stop::Attention(who.clone()) },
        // The only control plane restarts: its API is away, and what was begun goes on.
        Lease::Unknown if seen.result.is_some() || seen.under_way.is_some() => {}
        // Without its API a site of one control plane can still be mended: nobody else can take a lease there either.
        Lease::Unknown if !work.drain => {}
        Lease::Unknown => return waits("the Kubernetes API answers"),
    }
    if let Some(why) = &seen.back {
        return Next::Stop { undo: true, why: Stop::Back(why.clone()) };
    }
    match (seen.result, &seen.under_way) {
        (Some(since), _) => after(work, seen, since, now),
        (None, Some(what)) => Next::Wait(what.clone()),
        (None, None) => before(work, seen, now),
    }
}

fn waits(what: &str) -> Next {
    Next::Wait(what.to_string())
}

fn before(work: &Work, seen: &Seen, now: u64) -> Next {
    if !work.drain {
        return Next::Do(Move::Act);
    }
    let since = match seen.kept {
        Kept::Off => return Next::Do(Move::Cordon),
        Kept::Unknown => return waits("the Kubernetes API answers"),
        Kept::Ours(since) => Some(since),
        Kept::Other => None,
    };
    match seen.pods {
        Some(0) => Next::Do(Move::Act),
        // A person's cordon has no beginning of ours: pods are asked once, and what stays is a reason to stop.
        Some(left) => match since.map(|since| now.saturating_sub(since) > work.drain_deadline) {
            Some(false) | None => Next::Do(Move::Drain),
            Some(true) if work.evict => Next::Do(Move::Evict),
            Some(true) => Next::Stop { undo: true, why: Stop::Drain(left) },
        },
        None => waits("the Kubernetes API answers"),
    }
}

fn after(work: &Work, seen: &Seen, since: u64, now: u64) -> Next {
    if work.ready && !seen.ready {
        return match now.saturating_sub(since) > READY_DEADLINE {
            false => waits("the machine is Ready"),
            // Pods stay off: there is nothing for them on a machine that is not Ready.
            true => Next::Stop { undo: false, why: Stop::NotReady },
        };
    }
    match seen.kept {
        Kept::Ours(_) if work.drain => Next::Do(Move::Uncordon),
        Kept::Unknown if work.drain => waits("the Kubernetes API answers"),
        _ => Next::Done,
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stop::Held(who) => write!(f, "{who} rolls out"),
            Stop::Attention(who) => write!(f, "needs attention: {who} stopped in the middle"),
            Stop::Drain(1) => f.write_str("1 pod did not leave in time; pods are let on again"),
            Stop::Drain(n) => write!(f, "{n} pods did not leave in time; pods are let on again"),
            Stop::NotReady => f.write_str("it did not become Ready in time; no other machine is begun"),
            Stop::Back(why) if why.is_empty() => f.write_str("it went back to what it was"),
            Stop::Back(why) => write!(f, "it went back to what it was: {why}"),
        }
    }
}

/// A machine of a site, for one step of a roll-out.
pub trait Target {
    /// Looks.
    fn look(&mut self) -> Result<Seen, Trouble>;
    /// Makes a move. [`Move::Uncordon`] takes back only what a roll-out did.
    fn make(&mut self, what: Move) -> Result<(), Trouble>;
    /// Waits a little for this.
    fn wait(&mut self, what: &str) -> Result<(), Trouble>;
    /// Seconds since the epoch.
    fn now(&self) -> u64;
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It does not work, and why.
    Failed(String),
    /// Somebody asked to stop.
    Interrupted,
}

/// How a step ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// Its result is there.
    Done,
    /// It stopped, and nothing goes on by itself.
    Stopped(String),
    /// Somebody asked to stop; the same again goes on.
    Interrupted,
}

/// Carries one step out on one machine.
pub fn carry_out(work: &Work, target: &mut dyn Target) -> End {
    let ended = |trouble| match trouble {
        Trouble::Failed(why) => End::Stopped(why),
        Trouble::Interrupted => End::Interrupted,
    };
    loop {
        let seen = match target.look() {
            Ok(seen) => seen,
            Err(trouble) => return ended(trouble),
        };
        let went = match next(work, &seen, target.now()) {
            Next::Do(what) => target.make(what),
            Next::Wait(what) => target.wait(&what),
            Next::Done => return End::Done,
            Next::Stop { undo, why } => {
                let undone = if undo { target.make(Move::Uncordon) } else { Ok(()) };
                let why = match undone {
                    Err(Trouble::Failed(error)) => format!("{why}; pods are still kept off it: {error}"),
                    _ => why.to_string(),
                };
                return End::Stopped(why);
            }
        };
        if let Err(trouble) = went {
            return ended(trouble);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORK: Work = Work { drain: true, drain_deadline: 300, evict: false, ready: true };

    fn seen() -> Seen {
        Seen {
            lease: Lease::Mine,
            kept: Kept::Off,
            pods: Some(3),
            under_way: None,
            back: None,
            result: None,
            ready: true,
        }
    }

    #[test]
    fn one_machine_from_beginning_to_end() {
        let mut seen = Seen { lease: Lease::Free, ..seen() };
        assert_eq!(next(&WORK, &seen, 0), Next::Do(Move::Lease));
        seen.lease = Lease::Mine;
        assert_eq!(next(&WORK, &seen, 0), Next::Do(Move::Cordon));
        seen.kept = Kept::Ours(10);
        assert_eq!(next(&WORK, &seen, 20), Next::Do(Move::Drain));
        seen.pods = Some(0);
        assert_eq!(next(&WORK, &seen, 30), Next::Do(Move::Act));
        (seen.result, seen.ready) = (Some(40), false);
        assert!(matches!(next(&WORK, &seen, 100), Next::Wait(_)));
        seen.ready = true;
        assert_eq!(next(&WORK, &seen, 200), Next::Do(Move::Uncordon));
        seen.kept = Kept::Off;
        assert_eq!(next(&WORK, &seen, 200), Next::Done);
    }

    #[test]
    fn a_drain_ends_at_its_deadline_and_is_undone_exactly() {
        let late = Seen { kept: Kept::Ours(0), ..seen() };
        assert_eq!(next(&WORK, &late, 300), Next::Do(Move::Drain));
        assert_eq!(next(&WORK, &late, 301), Next::Stop { undo: true, why: Stop::Drain(3) });
        assert_eq!(next(&Work { evict: true, ..WORK }, &late, 301), Next::Do(Move::Evict));
        // What a person kept off stays off, before and after.
        let other = Seen { kept: Kept::Other, pods: Some(0), ..seen() };
        assert_eq!(next(&WORK, &other, 9999), Next::Do(Move::Act));
        assert_eq!(next(&WORK, &Seen { result: Some(1), ..other }, 9999), Next::Done);
    }

    #[test]
    fn a_machine_that_does_not_come_back_stops_the_rest() {
        let gone = Seen { kept: Kept::Ours(0), result: Some(100), ready: false, ..seen() };
        assert!(matches!(next(&WORK, &gone, 100 + READY_DEADLINE), Next::Wait(_)));
        assert_eq!(next(&WORK, &gone, 101 + READY_DEADLINE), Next::Stop { undo: false, why: Stop::NotReady });
    }

    #[test]
    fn nobody_goes_on_for_someone_else() {
        let other = |lease| Seen { lease, ..seen() };
        assert!(matches!(
            next(&WORK, &other(Lease::Other("b".into())), 0),
            Next::Stop { why: Stop::Held(_), .. }
        ));
        assert!(matches!(
            next(&WORK, &other(Lease::Dead("b".into())), 0),
            Next::Stop { why: Stop::Attention(_), .. }
        ));
        assert!(matches!(next(&WORK, &other(Lease::Unknown), 0), Next::Wait(_)));
        // The only control plane restarts: what was begun goes on.
        let away = Seen { lease: Lease::Unknown, result: Some(5), ready: false, ..seen() };
        assert_eq!(next(&WORK, &away, 6), waits("the machine is Ready"));
    }

    #[test]
    fn what_was_asked_for_is_waited_for_and_not_asked_again() {
        let at_work = Seen { kept: Kept::Ours(0), pods: Some(0), under_way: Some("trial".into()), ..seen() };
        assert_eq!(next(&WORK, &at_work, 9999), waits("trial"));
        let away = Seen { lease: Lease::Unknown, ..at_work.clone() };
        assert_eq!(next(&WORK, &away, 9999), waits("trial"));
        let back = Seen { back: Some("no-word".into()), ..at_work };
        assert_eq!(next(&WORK, &back, 1), Next::Stop { undo: true, why: Stop::Back("no-word".into()) });
    }
}
