//! When a window is open: arithmetic on days and minutes, no clock.

use crate::document::Window;
use serde::{Deserialize, Serialize};

/// Minutes of a day, and of a week.
const DAY: u32 = 24 * 60;
const WEEK: u32 = 7 * DAY;

/// A local time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Local {
    /// Monday is 0.
    pub day: u8,
    /// Minute of the day.
    pub minute: u16,
}

impl Local {
    /// So many minutes later.
    pub fn after(self, minutes: u64) -> Local {
        let week = u64::from(self.of_week()) + minutes % u64::from(WEEK);
        let week = (week % u64::from(WEEK)) as u32;
        Local { day: (week / DAY) as u8, minute: (week % DAY) as u16 }
    }

    fn of_week(self) -> u32 {
        u32::from(self.day % 7) * DAY + u32::from(self.minute)
    }
}

impl Window {
    fn opens_on(&self, day: u8) -> bool {
        self.days.is_empty() || self.days.contains(&day)
    }

    /// Minutes from opening to closing.
    fn length(&self) -> u32 {
        let (from, to) = (u32::from(self.from), u32::from(self.to));
        if from < to { to - from } else { to + DAY - from }
    }

    /// Minutes until it closes; none while it is closed. Over midnight, the later part belongs to the day on which it
    /// opened.
    pub fn left(&self, now: Local) -> Option<u64> {
        let at = now.of_week();
        (0..2).find_map(|back: u8| {
            let day = (now.day % 7 + 7 - back) % 7;
            let since = (at + WEEK - u32::from(day) * DAY - u32::from(self.from)) % WEEK;
            (self.opens_on(day) && since < self.length()).then(|| u64::from(self.length() - since))
        })
    }

    /// Whether it is open.
    pub fn is_open(&self, now: Local) -> bool {
        self.left(now).is_some()
    }

    /// Minutes until it opens; 0 while it is open.
    pub fn opens_in(&self, now: Local) -> u64 {
        if self.is_open(now) {
            return 0;
        }
        let at = now.of_week();
        let until = |day: u8| (u32::from(day) * DAY + u32::from(self.from) + WEEK - at) % WEEK;
        (0..7).filter(|day| self.opens_on(*day)).map(until).min().map_or(0, u64::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(day: u8, minute: u16) -> Local {
        Local { day, minute }
    }

    #[test]
    fn a_window_may_go_over_midnight_and_belongs_to_the_day_it_opens() {
        let night = Window { days: vec![5], from: 23 * 60, to: 2 * 60 };
        let open = |day, minute| night.is_open(at(day, minute));
        assert!(open(5, 23 * 60) && open(6, 119) && !open(6, 120) && !open(5, 60) && !open(6, 23 * 60));
        assert_eq!(night.left(at(6, 30)), Some(90));
        assert_eq!(night.opens_in(at(5, 60)), 22 * 60);
        assert_eq!(night.opens_in(at(6, 120)), 6 * 1440 + 21 * 60);
        let sunday = Window { days: vec![6], from: 1380, to: 60 };
        assert!(sunday.is_open(at(0, 30)));
    }

    #[test]
    fn a_plain_window_opens_every_day() {
        let plain = Window { days: vec![], from: 120, to: 300 };
        assert_eq!(plain.left(at(3, 120)), Some(180));
        assert_eq!(plain.left(at(3, 300)), None);
        assert_eq!(plain.opens_in(at(3, 300)), 1440 - 180);
        assert_eq!(plain.opens_in(at(3, 119)), 1);
        // Open and closed at the same minute: the whole day.
        let all = Window { days: vec![], from: 60, to: 60 };
        assert!(all.is_open(at(0, 0)) && all.is_open(at(0, 60)));
    }

    #[test]
    fn time_goes_round_the_week() {
        assert_eq!(at(6, 1439).after(1), at(0, 0));
        assert_eq!(at(2, 10).after(1440 * 7 + 5), at(2, 15));
    }
}
