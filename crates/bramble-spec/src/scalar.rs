//! Values written as one word: sizes, versions, addresses, names. Each is checked when it is read.

use crate::decode::{Context, Decode, Definitions, Refusal, Scalar, decode_scalar};
use crate::tree::{Node, Value, shorten};
use ipnet::Ipv4Net;
use serde::Serialize;
use serde_json::json;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

/// Free text on one line.
pub type Text = String;

/// Gives scalars their place in the tree.
macro_rules! scalars {
    ($($type:ty),* $(,)?) => {
        $(impl Decode for $type {
            fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
                decode_scalar(node, cx)
            }
            fn schema(_: &mut Definitions) -> serde_json::Value {
                <$type as Scalar>::schema()
            }
        })*
    };
}

/// Scalars whose text is their `Display`.
macro_rules! serialize_as_text {
    ($($type:ty),* $(,)?) => {
        $(impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        })*
    };
}

scalars!(
    bool,
    u16,
    u32,
    String,
    Ipv4Addr,
    Ipv4Net,
    Name,
    Domain,
    Host,
    Mac,
    Size,
    Period,
    Version,
    ToolVersion,
    Window,
    Taint,
    AddressRange,
    Url,
    Timezone
);
/// The same reading for arguments of a command line.
macro_rules! from_str {
    ($($type:ty),* $(,)?) => {
        $(impl std::str::FromStr for $type {
            type Err = Refusal;
            fn from_str(text: &str) -> Result<Self, Refusal> {
                <$type as Scalar>::read(text)
            }
        })*
    };
}

from_str!(
    Name,
    Domain,
    Host,
    Mac,
    Size,
    Period,
    Version,
    ToolVersion,
    Window,
    Taint,
    AddressRange,
    Url,
    Timezone
);
serialize_as_text!(
    Name,
    Domain,
    Host,
    Mac,
    Size,
    Period,
    Version,
    ToolVersion,
    Window,
    Taint,
    AddressRange,
    Url,
    Timezone
);

/// Newtypes around a checked text.
macro_rules! text_newtype {
    ($($(#[doc = $doc:literal])* $name:ident),* $(,)?) => {
        $(
            $(#[doc = $doc])*
            #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
            pub struct $name(String);

            impl $name {
                /// The text.
                pub fn as_str(&self) -> &str {
                    &self.0
                }
            }

            impl fmt::Display for $name {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.pad(&self.0)
                }
            }
        )*
    };
}

text_newtype! {
    /// An RFC 1123 label: lower case letters, digits and hyphens, at most 63. Names machines and clusters.
    Name,
    /// A domain name: RFC 1123 labels with dots between, at most 253 characters.
    Domain,
    /// A domain name or an IPv4 address.
    Host,
    /// An `http://` or `https://` address.
    Url,
    /// A name of the tz database, `Europe/Berlin`.
    Timezone,
}

fn quoted(text: &str) -> String {
    format!("`{}`", shorten(text))
}

/// Whether a text is an RFC 1123 label.
pub(crate) fn is_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a text is an RFC 1123 subdomain, as Kubernetes takes it.
pub(crate) fn is_domain(text: &str) -> bool {
    (1..=253).contains(&text.len()) && text.split('.').all(is_label)
}

impl Scalar for bool {
    const WHAT: &'static str = "`true` or `false`";
    fn read(text: &str) -> Result<Self, Refusal> {
        match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => {
                let meant = match text.to_lowercase().as_str() {
                    "yes" | "on" | "y" | "true" => Some("true"),
                    "no" | "off" | "n" | "false" => Some("false"),
                    _ => None,
                };
                Err(match meant {
                    Some(meant) => {
                        Refusal::new(format!("{} is a word in YAML 1.2, not a truth value", quoted(text)))
                            .hint(format!("write `{meant}`"))
                    }
                    None => Refusal::new(format!("{} is neither `true` nor `false`", quoted(text))),
                })
            }
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "boolean" })
    }
}

macro_rules! whole_number {
    ($($type:ty, $what:literal);* $(;)?) => {
        $(impl Scalar for $type {
            const WHAT: &'static str = $what;
            fn read(text: &str) -> Result<Self, Refusal> {
                // Rust takes a leading `+` where YAML readers differ; nobody needs it here.
                let plain = text.bytes().all(|b| b.is_ascii_digit());
                text.parse().ok().filter(|_| plain).ok_or_else(|| {
                    Refusal::new(format!("{} is not a whole number from 0 to {}", quoted(text), <$type>::MAX))
                })
            }
            fn schema() -> serde_json::Value {
                json!({ "type": "integer", "minimum": 0, "maximum": <$type>::MAX })
            }
        })*
    };
}

whole_number! { u16, "a whole number"; u32, "a whole number" }

impl Scalar for String {
    const WHAT: &'static str = "a text";
    fn read(text: &str) -> Result<Self, Refusal> {
        // Every text of this file ends up in one line of some configuration file.
        if text.trim().is_empty() {
            return Err(Refusal::new("the text is empty"));
        }
        if text.chars().any(char::is_control) {
            return Err(Refusal::new(format!("{} holds a line break or a control character", quoted(text)))
                .hint("one text is one line; a list has one text an item"));
        }
        Ok(text.to_string())
    }
    fn schema() -> serde_json::Value {
        json!({ "type": ["string", "number", "boolean"] })
    }
}

impl Scalar for Ipv4Addr {
    const WHAT: &'static str = "an IPv4 address";
    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse().map_err(|_| {
            let refusal = Refusal::new(format!("{} is not an IPv4 address", quoted(text)));
            match text.split_once('/') {
                Some((address, _)) if address.parse::<Ipv4Addr>().is_ok() => {
                    refusal.hint(format!("without a prefix: `{address}`; the prefix is that of the subnet"))
                }
                _ if text.contains(':') => refusal.hint("IPv6 is not served by this version"),
                _ => refusal.hint("four numbers from 0 to 255 with dots between: `192.168.1.11`"),
            }
        })
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "format": "ipv4" })
    }
}

impl Scalar for Ipv4Net {
    const WHAT: &'static str = "an IPv4 range";
    fn read(text: &str) -> Result<Self, Refusal> {
        let net: Ipv4Net = text.parse().map_err(|_| {
            let refusal = Refusal::new(format!("{} is not an IPv4 range", quoted(text)));
            match text.parse::<Ipv4Addr>() {
                Ok(address) => refusal.hint(format!("a range has a prefix length: `{address}/24`")),
                Err(_) if text.contains(':') => refusal.hint("IPv6 is not served by this version"),
                Err(_) => refusal.hint("an address, `/` and a prefix length from 0 to 32: `192.168.1.0/24`"),
            }
        })?;
        Ok(net)
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": r"^\d+\.\d+\.\d+\.\d+/\d+$" })
    }
}

impl Scalar for Name {
    const WHAT: &'static str = "a name of lower case letters, digits and hyphens";
    fn read(text: &str) -> Result<Self, Refusal> {
        if is_label(text) {
            return Ok(Name(text.to_string()));
        }
        let rule = "1 to 63 lower case letters, digits and hyphens, no hyphen at either end (RFC 1123)";
        let mended: String = text
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .take(63)
            .collect();
        let mended = mended.trim_matches('-');
        let refusal = Refusal::new(format!("{} cannot be a host name", quoted(text)));
        Err(match is_label(mended) {
            true => refusal.hint(format!("{rule}: `{mended}`")),
            false => refusal.hint(rule),
        })
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$" })
    }
}

impl Scalar for Domain {
    const WHAT: &'static str = "a domain name";
    fn read(text: &str) -> Result<Self, Refusal> {
        match is_domain(text) {
            true => Ok(Domain(text.to_string())),
            false => Err(Refusal::new(format!("{} is not a domain name", quoted(text)))
                .hint("lower case letters, digits and hyphens with dots between: `home.arpa`")),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "maxLength": 253, "pattern": "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$" })
    }
}

impl Scalar for Host {
    const WHAT: &'static str = "a host name or an IPv4 address";
    fn read(text: &str) -> Result<Self, Refusal> {
        // `1.2.3.400` is a lawful domain name and never meant as one.
        let numeric = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match text.parse::<Ipv4Addr>().is_ok() || (is_domain(text) && !numeric) {
            true => Ok(Host(text.to_string())),
            false => {
                Err(Refusal::new(format!("{} is neither a host name nor an IPv4 address", quoted(text))))
            }
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "maxLength": 253 })
    }
}

impl Scalar for Url {
    const WHAT: &'static str = "an address that starts with `https://` or `http://`";
    fn read(text: &str) -> Result<Self, Refusal> {
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let authority = rest.and_then(|r| r.split('/').next()).unwrap_or("");
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) || authority.is_empty() {
            return Err(Refusal::new(format!("{} is not a web address", quoted(text)))
                .hint("for example `https://updates.home.arpa/home/`"));
        }
        if authority.contains('@') {
            return Err(Refusal::new(format!("the address of {} holds a user name or password", {
                quoted(authority.rsplit('@').next().unwrap_or(""))
            }))
            .hint("secrets never stand in this file: say `{ secret: name }` where a credential is wanted"));
        }
        Ok(Url(text.to_string()))
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^https?://[^@\\s]+$" })
    }
}

impl Scalar for Timezone {
    const WHAT: &'static str = "a time zone";
    fn read(text: &str) -> Result<Self, Refusal> {
        let word = |w: &str| {
            !w.is_empty() && w.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+'))
        };
        match text == "UTC" || (text.contains('/') && text.split('/').all(word)) {
            true => Ok(Timezone(text.to_string())),
            false => Err(Refusal::new(format!("{} is not the name of a time zone", quoted(text)))
                .hint("a name of the tz database: `Etc/UTC`, `Europe/Berlin`")),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^(UTC|[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)+)$" })
    }
}

impl Timezone {
    /// `Etc/UTC`.
    pub fn utc() -> Self {
        Timezone("Etc/UTC".into())
    }
}

impl Domain {
    /// `home.arpa`, the domain reserved for homes (RFC 8375).
    pub(crate) fn home() -> Self {
        Domain("home.arpa".into())
    }

    /// `cluster.local`, Kubernetes' usual domain.
    pub(crate) fn cluster_local() -> Self {
        Domain("cluster.local".into())
    }
}

/// The hardware address of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    /// Lower case with colons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Scalar for Mac {
    const WHAT: &'static str = "a hardware address";
    fn read(text: &str) -> Result<Self, Refusal> {
        let refusal = || {
            Refusal::new(format!("{} is not a hardware address", quoted(text)))
                .hint("six pairs of hexadecimal digits with colons between: `dc:a6:32:00:00:01`")
        };
        let mut bytes = [0; 6];
        let parts: Vec<&str> = text.split([':', '-']).take(7).collect();
        if parts.len() != 6 {
            return Err(refusal());
        }
        for (byte, part) in bytes.iter_mut().zip(parts) {
            let hexadecimal = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| hexadecimal).ok_or_else(refusal)?;
        }
        if bytes == [0; 6] || bytes[0] & 1 == 1 {
            return Err(Refusal::new(format!("{} is a group address, not a machine's", quoted(text)))
                .hint("the first pair of a machine's address is even; look at the label or at `ip link`"));
        }
        Ok(Mac(bytes))
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$" })
    }
}

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
        let fitting = UNITS.iter().filter(|(_, unit)| self.bytes != 0 && self.bytes % unit == 0);
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

/// A release of Kubernetes, k3s or Talos: `v1.36.3`, `v1.36.4+k3s1`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Version {
    /// First number.
    pub major: u16,
    /// Second number.
    pub minor: u16,
    /// Third number.
    pub patch: u16,
    /// What follows `+`, empty when there is none: `k3s1`.
    pub build: String,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}.{}.{}", self.major, self.minor, self.patch)?;
        match self.build.as_str() {
            "" => Ok(()),
            build => write!(f, "+{build}"),
        }
    }
}

/// Three numbers with dots, no leading zeros.
fn numbers(text: &str) -> Option<(u16, u16, u16)> {
    let mut parts = text.split('.').map(|part| {
        let plain = part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
        part.parse::<u16>().ok().filter(|_| plain)
    });
    let read = (parts.next()??, parts.next()??, parts.next()??);
    parts.next().is_none().then_some(read)
}

impl Scalar for Version {
    const WHAT: &'static str = "a version like `v1.36.3`";
    fn read(text: &str) -> Result<Self, Refusal> {
        let bare = text.strip_prefix('v').unwrap_or(text);
        let (core, build) = bare.split_once('+').unwrap_or((bare, ""));
        let refusal = Refusal::new(format!("{} is not a version", quoted(text)));
        let lawful = build.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'-');
        let empty_build = bare.ends_with('+');
        match numbers(core) {
            Some((major, minor, patch)) if lawful && !empty_build => match text.starts_with('v') {
                true => Ok(Version { major, minor, patch, build: build.to_string() }),
                false => Err(refusal.hint(format!("with a `v` before it: `v{bare}`"))),
            },
            _ => Err(match core.split('.').count() {
                1 | 2 => {
                    refusal.hint("all three numbers are stated, so that nothing moves by itself: `v1.36.3`")
                }
                _ if core.contains('-') => refusal.hint("pre-releases are not served; for example `v1.36.3`"),
                _ => refusal.hint("for example `v1.36.3`"),
            }),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": r"^v[0-9]+\.[0-9]+\.[0-9]+(\+[0-9A-Za-z.-]+)?$" })
    }
}

/// A release of Bramble itself: `0.1.0`, with or without `v`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ToolVersion(pub u16, pub u16, pub u16);

impl fmt::Display for ToolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.0, self.1, self.2)
    }
}

impl Scalar for ToolVersion {
    const WHAT: &'static str = "a version like `0.1.0`";
    fn read(text: &str) -> Result<Self, Refusal> {
        numbers(text.strip_prefix('v').unwrap_or(text)).map(|(a, b, c)| ToolVersion(a, b, c)).ok_or_else(
            || Refusal::new(format!("{} is not a version", quoted(text))).hint("for example `0.1.0`"),
        )
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": r"^v?[0-9]+\.[0-9]+\.[0-9]+$" })
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

/// A span of addresses that a load balancer may give out: `192.168.1.240-192.168.1.250` or `192.168.1.240/28`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, not before the first.
    pub last: Ipv4Addr,
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Scalar for AddressRange {
    const WHAT: &'static str = "a span of addresses";
    fn read(text: &str) -> Result<Self, Refusal> {
        let refusal = || {
            Refusal::new(format!("{} is not a span of addresses", quoted(text)))
                .hint("`192.168.1.240-192.168.1.250` or `192.168.1.240/28`")
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => {
                let read = |t: &str| t.trim().parse::<Ipv4Addr>().map_err(|_| refusal());
                (read(first)?, read(last)?)
            }
            None => {
                let net: Ipv4Net = text.parse().map_err(|_| refusal())?;
                (net.network(), net.broadcast())
            }
        };
        match first <= last {
            true => Ok(AddressRange { first, last }),
            false => Err(Refusal::new(format!("the span {} ends before it starts", quoted(text)))),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

/// What keeps pods off a machine: `dedicated=media:NoSchedule`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Taint {
    /// A Kubernetes label key.
    pub key: String,
    /// A Kubernetes label value, may be empty.
    pub value: String,
    /// `NoSchedule`, `PreferNoSchedule` or `NoExecute`.
    pub effect: String,
}

impl fmt::Display for Taint {
    /// The form that `kubelet --register-with-taints` reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.value.as_str() {
            "" => write!(f, "{}:{}", self.key, self.effect),
            value => write!(f, "{}={value}:{}", self.key, self.effect),
        }
    }
}

/// The effects a taint can have.
const EFFECTS: [&str; 3] = ["NoSchedule", "PreferNoSchedule", "NoExecute"];

impl Scalar for Taint {
    const WHAT: &'static str = "a taint";
    fn read(text: &str) -> Result<Self, Refusal> {
        let form = "`key=value:Effect` or `key:Effect`, for example `dedicated=media:NoSchedule`";
        let Some((left, effect)) = text.rsplit_once(':') else {
            return Err(Refusal::new(format!("the taint {} has no effect", quoted(text))).hint(form));
        };
        let (key, value) = left.split_once('=').unwrap_or((left, ""));
        if !EFFECTS.contains(&effect) {
            let known = EFFECTS.join(", ");
            return Err(Refusal::new(format!("{} is not the effect of a taint", quoted(effect))).hint(
                match crate::diagnostic::nearest(effect, EFFECTS) {
                    Some(near) => format!("did you mean `{near}`? Known: {known}"),
                    None => format!("known: {known}"),
                },
            ));
        }
        crate::labels::check_key(key).and_then(|()| crate::labels::check_value(value))?;
        Ok(Taint { key: key.into(), value: value.into(), effect: effect.into() })
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^[^=:]+(=[^:]*)?:(NoSchedule|PreferNoSchedule|NoExecute)$" })
    }
}

/// A value that is kept as it stands.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Raw(pub serde_json::Value);

impl Decode for Raw {
    fn decode(node: &Node, _: &mut Context) -> Option<Self> {
        Some(Raw(node.to_json()))
    }
    fn schema(_: &mut Definitions) -> serde_json::Value {
        json!({})
    }
}

/// A value that can be switched off with the word `none`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OrNone<T> {
    /// Switched off.
    None,
    /// A value.
    Is(T),
}

impl<T> OrNone<T> {
    /// The value, if it is not switched off.
    pub fn as_option(&self) -> Option<&T> {
        match self {
            OrNone::None => None,
            OrNone::Is(value) => Some(value),
        }
    }
}

impl<T: Serialize> Serialize for OrNone<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            OrNone::None => serializer.serialize_str("none"),
            OrNone::Is(value) => value.serialize(serializer),
        }
    }
}

impl<T: Decode> Decode for OrNone<T> {
    fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
        match &node.value {
            Value::Scalar { text, .. } if text == "none" => Some(OrNone::None),
            Value::Scalar { .. } => {
                cx.wrong_type(node, "`none` or a mapping");
                None
            }
            _ => T::decode(node, cx).map(OrNone::Is),
        }
    }
    fn schema(definitions: &mut Definitions) -> serde_json::Value {
        json!({ "oneOf": [{ "const": "none" }, T::schema(definitions)] })
    }
}
