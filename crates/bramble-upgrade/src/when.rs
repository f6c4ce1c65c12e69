//! When a machine may look for a release, write it, and restart into it; apart from doing so. Doing nothing explains
//! itself.

use crate::reason::Reason;
use crate::state::Verdict;
use bramble_api::document::Window;
use bramble_api::names::Role;
pub use bramble_api::window::Local;
use std::fmt;

/// Between two looks at the source.
pub const INTERVAL: u64 = 3600;
/// Share of the interval by which machines differ, so that a site does not ask all at once: one quarter.
const JITTER: u64 = 4;
/// After a fault of the source, so long times two to the number of faults, at most [`INTERVAL`].
const RETRY: u64 = 60;

/// When the next look is due, in seconds after the last one. `seed` is the machine's own and constant.
pub fn interval(seed: u64, faults: u32) -> u64 {
    let base = match faults {
        0 => INTERVAL,
        faults => (RETRY << faults.min(12)).min(INTERVAL),
    };
    // SplitMix64's finisher (Steele, Lea, Flood 2014): neighbours in, strangers out.
    let mut mixed = seed.wrapping_add(u64::from(faults)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed ^= mixed >> 31;
    base + mixed % (base / JITTER + 1)
}

/// Whether a window is open.
pub fn is_open(window: &Window, now: Local) -> bool {
    window.is_open(now)
}

/// A version of Kubernetes: `v1.36.3`, `v1.36.4+k3s1`. What follows the patch does not order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kubernetes(pub u32, pub u32, pub u32);

impl Kubernetes {
    /// Reads it.
    pub fn parse(text: &str) -> Option<Kubernetes> {
        let text = text.trim().strip_prefix('v')?;
        let end = text.find(['+', '-']).unwrap_or(text.len());
        let mut parts = text[..end].split('.').map(str::parse);
        let mut next = || parts.next()?.ok();
        Some(Kubernetes(next()?, next()?, next()?))
    }
}

impl fmt::Display for Kubernetes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.0, self.1, self.2)
    }
}

/// What is known when a release is there to be tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the machine does.
    pub role: Role,
    /// Kubernetes of the release; none in a release without.
    pub offered: Option<Kubernetes>,
    /// Kubernetes that runs here.
    pub running: Option<Kubernetes>,
    /// The API server's, when it answered.
    pub api: Option<Kubernetes>,
    /// Local time; none while the clock cannot be right.
    pub now: Option<Local>,
    /// When it may restart; always when absent.
    pub window: Option<Window>,
    /// A person said not to before this, seconds since the epoch; and the time now.
    pub hold: Option<(u64, u64)>,
    /// The way to the source costs money.
    pub metered: bool,
    /// A person asked for it now: window and meter do not count, order does.
    pub asked: bool,
}

/// What is waited for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WaitFor {
    /// A person's word.
    Hold(u64),
    /// The window.
    Window(Window),
    /// A clock that can be right: without one nobody knows when the window is.
    Clock,
    /// A way that costs nothing.
    Unmetered,
    /// The API server to run at least this version.
    ApiServer {
        /// What the release has.
        needs: Kubernetes,
        /// What it runs; none while it does not answer.
        has: Option<Kubernetes>,
    },
}

impl fmt::Display for WaitFor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            WaitFor::Hold(until) => write!(f, "waiting: held until {until} (seconds since 1970)"),
            WaitFor::Window(Window { from, to, .. }) => {
                write!(
                    f,
                    "waiting for the window {:02}:{:02}-{:02}:{:02}",
                    from / 60,
                    from % 60,
                    to / 60,
                    to % 60
                )
            }
            WaitFor::Clock => f.write_str("waiting for the time: the window cannot be known without it"),
            WaitFor::Unmetered => f.write_str("waiting for a way to the source that costs nothing"),
            WaitFor::ApiServer { needs, has: Some(has) } => {
                write!(f, "waiting for the API server: it runs {has}, and the release has {needs}")
            }
            WaitFor::ApiServer { needs, has: None } => {
                write!(
                    f,
                    "waiting for the API server to answer: the release has {needs}, and it must not be older"
                )
            }
        }
    }
}

/// What may be done about a release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum May {
    /// Load it, and restart into it.
    Go,
    /// Load it, but restart later.
    Load(WaitFor),
    /// Nothing yet.
    Wait(WaitFor),
}

/// Decides. Loading hurts nobody but a meter; a restart wants the window and the order.
///
/// # Errors
/// A release that this machine must not take at all: it skips a minor version of Kubernetes.
pub fn may(facts: &Facts) -> Result<May, Verdict> {
    if let (Some(offered), Some(running)) = (facts.offered, facts.running)
        && (offered.0 != running.0 || offered.1 > running.1 + 1)
    {
        return Err(Verdict::new(
            Reason::Skips,
            format!("Kubernetes {offered} cannot follow {running}: one minor version at a time"),
        ));
    }
    if let Some((until, now)) = facts.hold
        && now < until
        && !facts.asked
    {
        return Ok(May::Wait(WaitFor::Hold(until)));
    }
    if facts.metered && !facts.asked {
        return Ok(May::Wait(WaitFor::Unmetered));
    }
    // A kubelet must not be newer than the API server that it speaks to; where Kubernetes does not change there is
    // nothing to wait for, and a site whose API is broken can still be mended by a release.
    if let Some(needs) =
        facts.offered.filter(|offered| facts.role == Role::Worker && facts.running != Some(*offered))
        && facts.api.is_none_or(|has| has < needs)
    {
        return Ok(May::Load(WaitFor::ApiServer { needs, has: facts.api }));
    }
    match (&facts.window, facts.now) {
        _ if facts.asked => Ok(May::Go),
        (None, _) => Ok(May::Go),
        (Some(_), None) => Ok(May::Load(WaitFor::Clock)),
        (Some(window), Some(now)) if is_open(window, now) => Ok(May::Go),
        (Some(window), Some(_)) => Ok(May::Load(WaitFor::Window(window.clone()))),
    }
}

/// Whether a trial must keep its API to itself: with another minor version of Kubernetes on a control plane, nothing
/// that the others write may be lost by going back.
pub fn closes_api(role: Role, from: Option<Kubernetes>, to: Option<Kubernetes>) -> bool {
    let minor = |version: Option<Kubernetes>| version.map(|version| (version.0, version.1));
    role == Role::ControlPlane && minor(from) != minor(to)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        Facts {
            role: Role::Worker,
            offered: Kubernetes::parse("v1.36.3"),
            running: Kubernetes::parse("v1.36.3"),
            api: Kubernetes::parse("v1.36.3"),
            now: Some(Local { day: 0, minute: 130 }),
            window: None,
            hold: None,
            metered: false,
            asked: false,
        }
    }

    #[test]
    fn machines_do_not_ask_all_at_once_and_come_back_soon_after_a_fault() {
        let spread: std::collections::BTreeSet<u64> = (0..50).map(|seed| interval(seed, 0)).collect();
        assert!(spread.len() > 40);
        assert!(spread.iter().all(|due| (INTERVAL..=INTERVAL + INTERVAL / 4).contains(due)));
        assert!(interval(7, 1) <= 150 && interval(7, 1) >= 120);
        assert!(interval(7, u32::MAX) <= INTERVAL + INTERVAL / 4);
        assert_eq!(interval(7, 3), interval(7, 3));
    }

    #[test]
    fn a_window_may_go_over_midnight_and_belongs_to_the_day_it_opens() {
        let night = Window { days: vec![5], from: 23 * 60, to: 2 * 60 };
        let at = |day, minute| is_open(&night, Local { day, minute });
        assert!(at(5, 23 * 60) && at(6, 119) && !at(6, 120) && !at(5, 60) && !at(6, 23 * 60));
        let sunday = Window { days: vec![6], from: 1380, to: 60 };
        assert!(is_open(&sunday, Local { day: 0, minute: 30 }));
        let plain = Window { days: vec![], from: 120, to: 300 };
        assert!(
            is_open(&plain, Local { day: 3, minute: 120 }) && !is_open(&plain, Local { day: 3, minute: 300 })
        );
    }

    #[test]
    fn a_worker_waits_for_its_api_server_and_says_so() {
        let mut newer = facts();
        newer.offered = Kubernetes::parse("v1.37.0");
        let Ok(May::Load(wait)) = may(&newer) else { panic!() };
        assert_eq!(
            wait.to_string(),
            "waiting for the API server: it runs v1.36.3, and the release has v1.37.0"
        );
        newer.api = None;
        assert!(matches!(may(&newer), Ok(May::Load(WaitFor::ApiServer { has: None, .. }))));
        newer.asked = true;
        assert!(matches!(may(&newer), Ok(May::Load(_))), "nobody may ask for the wrong order");
        newer.api = Kubernetes::parse("v1.37.0+k3s1");
        assert_eq!(may(&newer), Ok(May::Go));
        newer.api = None;
        newer.role = Role::ControlPlane;
        assert_eq!(may(&newer), Ok(May::Go));
        // A broken API is no reason to stay on a broken release.
        assert_eq!(may(&Facts { api: None, ..facts() }), Ok(May::Go));
    }

    #[test]
    fn minors_are_not_skipped() {
        let skip = Facts { offered: Kubernetes::parse("v1.38.0"), ..facts() };
        assert_eq!(may(&skip).unwrap_err().reason, Reason::Skips);
        assert!(may(&Facts { running: None, ..skip }).is_ok());
    }

    #[test]
    fn window_meter_and_hold_are_named() {
        let window = Window { days: vec![], from: 180, to: 300 };
        let closed = Facts { window: Some(window.clone()), ..facts() };
        assert_eq!(may(&closed), Ok(May::Load(WaitFor::Window(window.clone()))));
        assert_eq!(may(&Facts { now: None, ..closed.clone() }), Ok(May::Load(WaitFor::Clock)));
        assert_eq!(may(&Facts { asked: true, ..closed }), Ok(May::Go));
        assert_eq!(may(&Facts { metered: true, ..facts() }), Ok(May::Wait(WaitFor::Unmetered)));
        assert_eq!(may(&Facts { hold: Some((10, 9)), ..facts() }), Ok(May::Wait(WaitFor::Hold(10))));
        assert_eq!(may(&Facts { hold: Some((10, 10)), ..facts() }), Ok(May::Go));
        assert_eq!(WaitFor::Window(window).to_string(), "waiting for the window 03:00-05:00");
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(Kubernetes::parse("v1.36.4+k3s1"), Some(Kubernetes(1, 36, 4)));
        assert_eq!(Kubernetes::parse("1.36.4"), None);
        assert_eq!(Kubernetes::parse("v1.36"), None);
        let (old, new) = (Kubernetes::parse("v1.36.9"), Kubernetes::parse("v1.37.0"));
        assert!(closes_api(Role::ControlPlane, old, new));
        assert!(!closes_api(Role::Worker, old, new) && !closes_api(Role::ControlPlane, old, old));
    }
}
