//! Sizes, lengths of time, and hours of the day.

use super::quoted;
use crate::decode::{Refusal, Scalar};
use serde_json::json;
use std::fmt;
use std::time::Duration;

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size {
    /// How many.
    pub bytes: u64,
}

const UNITS: [(&str, u64); 8] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
];

impl fmt::Display for Size {
    /// With the unit that gives the smallest whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fitting = UNITS.iter().filter(|(_, unit)| self.bytes != 0 && self.bytes.is_multiple_of(*unit));
        match fitting.max_by_key(|(_, unit)| *unit) {
            Some((name, unit)) => write!(f, "{}{name}", self.bytes / unit),
            None => write!(f, "{}B", self.bytes),
        }
    }
}

impl Scalar for Size {
    const WHAT: &'static str = "a size with its unit";
    fn read(text: &str) -> Result<Self, Refusal> {
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let unit = unit.trim();
        let hint =
            "a whole number and kB, MB, GB, TB (of 1000) or KiB, MiB, GiB, TiB (of 1024): `4GiB`, `32GB`";
        if number.is_empty() {
            return Err(Refusal::new(format!("{} is not a size", quoted(text))).hint(hint));
        }
        if unit.is_empty() {
            return Err(Refusal::new(format!("{} has no unit", quoted(text))).hint(hint));
        }
        let factor = match unit {
            "B" => 1,
            _ => match UNITS.iter().find(|(name, _)| *name == unit) {
                Some((_, factor)) => *factor,
                None => {
                    return Err(Refusal::new(format!("{} is not a unit of size", quoted(unit))).hint(hint));
                }
            },
        };
        let bytes = number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
        match bytes {
            Some(0) => Err(Refusal::new("a size of nothing")),
            Some(bytes) => Ok(Size { bytes }),
            None => Err(Refusal::new(format!("{} is larger than any disk", quoted(text)))),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[0-9]+ ?(B|kB|MB|GB|TB|KiB|MiB|GiB|TiB)$" })
    }
}

/// A length of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Period(pub Duration);

const TIMES: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_secs();
        for (name, unit) in TIMES {
            if rest >= unit {
                write!(f, "{}{name}", rest / unit)?;
                rest %= unit;
            }
        }
        Ok(())
    }
}

impl Scalar for Period {
    const WHAT: &'static str = "a length of time with its unit";
    fn read(text: &str) -> Result<Self, Refusal> {
        let refusal = || {
            Refusal::new(format!("{} is not a length of time", quoted(text)))
                .hint("whole numbers with d, h, m or s, largest first: `15m`, `1h30m`")
        };
        let (mut rest, mut seconds, mut allowed) = (text, 0_u64, &TIMES[..]);
        while !rest.is_empty() {
            let split = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(refusal)?;
            let number: u64 = rest[..split].parse().map_err(|_| refusal())?;
            rest = &rest[split..];
            let at = allowed.iter().position(|(name, _)| rest.starts_with(name)).ok_or_else(refusal)?;
            let (name, unit) = allowed[at];
            seconds = number.checked_mul(unit).and_then(|n| n.checked_add(seconds)).ok_or_else(refusal)?;
            rest = &rest[name.len()..];
            allowed = &allowed[at + 1..];
        }
        match seconds {
            0 => Err(refusal()),
            seconds => Ok(Period(Duration::from_secs(seconds))),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?$", "minLength": 2 })
    }
}

/// A day of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Weekday {
    /// Monday.
    Mon,
    /// Tuesday.
    Tue,
    /// Wednesday.
    Wed,
    /// Thursday.
    Thu,
    /// Friday.
    Fri,
    /// Saturday.
    Sat,
    /// Sunday.
    Sun,
}

const DAYS: [(&str, Weekday); 7] = [
    ("Mon", Weekday::Mon),
    ("Tue", Weekday::Tue),
    ("Wed", Weekday::Wed),
    ("Thu", Weekday::Thu),
    ("Fri", Weekday::Fri),
    ("Sat", Weekday::Sat),
    ("Sun", Weekday::Sun),
];

/// A span of hours that comes back every day, or on some days: `02:00-05:00`, `Sat,Sun 22:00-04:00`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Window {
    /// Days on which it opens; every day when empty.
    pub days: Vec<Weekday>,
    /// Minute of the day at which it opens, local time, below 1440.
    pub from: u16,
    /// Minute of the day at which it closes, local time; at or before `from` means the next day.
    pub to: u16,
}

impl fmt::Display for Window {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> =
            DAYS.iter().filter(|(_, day)| self.days.contains(day)).map(|(name, _)| *name).collect();
        if !names.is_empty() {
            write!(f, "{} ", names.join(","))?;
        }
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.from / 60, self.from % 60, self.to / 60, self.to % 60)
    }
}

fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number =
        |t: &str| t.parse::<u16>().ok().filter(|_| t.len() == 2 && t.bytes().all(|b| b.is_ascii_digit()));
    let (hours, minutes) = (number(hours)?, number(minutes)?);
    (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
}

impl Scalar for Window {
    const WHAT: &'static str = "a time window";
    fn read(text: &str) -> Result<Self, Refusal> {
        let refusal = || {
            Refusal::new(format!("{} is not a time window", quoted(text)))
                .hint("two times of day with a hyphen, days before them if it is not every day: `02:00-05:00`, `Sat,Sun 02:00-05:00`")
        };
        let (days, times) = text.rsplit_once(' ').unwrap_or(("", text));
        let mut read = Vec::new();
        for name in days.split(',').map(str::trim).filter(|d| !d.is_empty()) {
            let day =
                DAYS.iter().find(|(known, _)| *known == name).map(|(_, day)| *day).ok_or_else(refusal)?;
            read.push(day);
        }
        let (from, to) = times.split_once('-').ok_or_else(refusal)?;
        let (from, to) = minute_of_day(from).zip(minute_of_day(to)).ok_or_else(refusal)?;
        if from == to {
            return Err(Refusal::new(format!(
                "the window {} opens and closes in the same minute",
                quoted(text)
            )));
        }
        read.sort_unstable();
        read.dedup();
        Ok(Window { days: read, from, to })
    }
    fn schema() -> serde_json::Value {
        json!({
            "type": "string",
            "pattern": "^([A-Z][a-z]{2}(, ?[A-Z][a-z]{2})* )?[0-2][0-9]:[0-5][0-9]-[0-2][0-9]:[0-5][0-9]$",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_and_write() {
        for (text, bytes) in
            [("32GB", 32_000_000_000), ("4GiB", 4 << 30), ("1500 kB", 1_500_000), ("512B", 512)]
        {
            let size: Size = text.parse().expect(text);
            assert_eq!(size.bytes, bytes);
            assert_eq!(size.to_string().parse::<Size>().expect("written").bytes, bytes);
        }
        assert_eq!("2048MiB".parse::<Size>().expect("a size").to_string(), "2GiB");
        for text in ["", "4", "GiB", "4 G", "4gib", "-1GB", "1.5GB", "0GB", "99999999999TB", "4GiBB"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
    }

    #[test]
    fn lengths_of_time_read_and_write() {
        for (text, seconds) in [("15m", 900), ("1h30m", 5_400), ("2d", 172_800), ("90s", 90)] {
            let period: Period = text.parse().expect(text);
            assert_eq!(period.0.as_secs(), seconds);
            assert_eq!(period.to_string().parse::<Period>(), Ok(period));
        }
        for text in ["", "15", "m", "30m1h", "1h1h", "1.5h", "0s", "15 m", "99999999999999999999d", "1d1"] {
            assert!(text.parse::<Period>().is_err(), "{text}");
        }
    }

    #[test]
    fn windows_read_and_write() {
        let night: Window = "22:30-04:00".parse().expect("a window");
        assert_eq!((night.from, night.to, night.days.len()), (1350, 240, 0));
        let weekend: Window = "Sun,Sat 02:00-05:00".parse().expect("a window");
        assert_eq!(weekend.days, [Weekday::Sat, Weekday::Sun]);
        assert_eq!(weekend.to_string(), "Sat,Sun 02:00-05:00");
        for text in ["", "2:00-5:00", "02:00", "02:00-25:00", "02:60-03:00", "02:00-02:00", "Sta 02:00-03:00"]
        {
            assert!(text.parse::<Window>().is_err(), "{text}");
        }
    }
}
