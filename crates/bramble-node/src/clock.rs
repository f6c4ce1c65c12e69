//! The clock of machines that have none: it never starts before the latest time that is known to have been.

use crate::refused::{At, Refused};
use bramble_api::names::path;
use rustix::time::{ClockId, Timespec, clock_gettime, clock_settime};
use std::fs;
use std::path::Path;

/// A clock this far ahead of the release is implausible: an authority's certificates do not last as long.
const FUTURE: u64 = 10 * 365 * 86_400;

/// Seconds since the epoch.
pub fn now() -> u64 {
    u64::try_from(clock_gettime(ClockId::Realtime).tv_sec).unwrap_or(0)
}

/// The time to set, if the clock's own cannot be: before one of the times that have been, or many years after all of
/// them. A PC's clock without a battery says 1970, which kernels without a century read as 2070, and systemd then
/// resets to its own epoch.
///
/// `made` are the times of release and document; `saved` is what was saved last, and is believed only as far as they
/// make it plausible.
pub fn correction(now: u64, made: [u64; 2], saved: Option<u64>) -> Option<u64> {
    let made = made[0].max(made[1]);
    let latest = saved.filter(|saved| *saved <= made.saturating_add(FUTURE)).map_or(made, |s| s.max(made));
    (now < latest || now > latest.saturating_add(FUTURE)).then_some(latest)
}

/// What is wrong with a clock that says `now`, on a release made at `release`.
pub fn implausible(now: u64, release: u64) -> Option<String> {
    if now < release {
        Some(format!("the clock says {now}, which is before the release was made ({release})"))
    } else if now > release.saturating_add(FUTURE) {
        Some(format!(
            "the clock says {now}, which is more than ten years after the release was made ({release})"
        ))
    } else {
        None
    }
}

/// Sets the clock.
pub fn set(seconds: u64) -> Result<(), Refused> {
    let time = Timespec { tv_sec: i64::try_from(seconds).unwrap_or(i64::MAX), tv_nsec: 0 };
    clock_settime(ClockId::Realtime, time).at("set", "the clock")
}

/// The time last saved below `root`, if there is one.
pub fn saved(root: &Path) -> Option<u64> {
    fs::read_to_string(root.join(path::CLOCK.trim_start_matches('/'))).ok()?.trim().parse().ok()
}

/// Saves the time for the next start; does nothing while data is not mounted. The old value stays until the new one
/// is whole.
pub fn save(now: u64) -> Result<(), Refused> {
    let place = Path::new(path::CLOCK);
    if !Path::new(path::DOCUMENT).exists() {
        return Ok(());
    }
    crate::durable::replace(place, format!("{now}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_starts_at_the_latest_known_time_and_never_goes_back() {
        let release = 1_790_000_000;
        let day = 86_400;
        assert_eq!(correction(0, [release, release + day], None), Some(release + day));
        assert_eq!(correction(0, [release, release + day], Some(release + 9 * day)), Some(release + 9 * day));
        assert_eq!(correction(release + 10 * day, [release, release], Some(release + 9 * day)), None);
        assert_eq!(correction(release, [release, release], None), None);
    }

    #[test]
    fn a_clock_decades_ahead_is_no_clock_and_is_not_believed_later() {
        let (release, far) = (1_790_000_000, 3_155_760_000);
        assert_eq!(correction(far, [release, release + 5], None), Some(release + 5));
        assert_eq!(correction(0, [release, release], Some(far)), Some(release));
        // A machine that slept for years on its shelf is right.
        assert_eq!(correction(release + 4 * 365 * 86_400, [release, release], None), None);
    }

    #[test]
    fn clocks_of_other_decades_are_implausible() {
        let release = 1_790_000_000;
        assert!(implausible(86_400, release).unwrap().contains("before"));
        assert!(implausible(release + 11 * 365 * 86_400, release).unwrap().contains("ten years"));
        assert_eq!(implausible(release + 2 * 365 * 86_400, release), None);
    }
}
