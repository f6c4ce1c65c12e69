//! Releases: of Kubernetes, k3s, Talos and of Bramble itself.

use super::quoted;
use crate::decode::{Refusal, Scalar};
use serde_json::json;
use std::fmt;

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_write_and_compare() {
        for text in ["v1.36.3", "v1.36.4+k3s1", "v0.0.0"] {
            assert_eq!(text.parse::<Version>().expect(text).to_string(), text);
        }
        let read = |text: &str| text.parse::<Version>().expect("a version");
        assert!(read("v1.9.0") < read("v1.36.0") && read("v1.36.4+k3s1") < read("v1.36.4+k3s2"));
        for text in [
            "",
            "v",
            "1.36.3",
            "v1.36",
            "v1.36.3.1",
            "v1.036.3",
            "v1.36.x",
            "v1.36.3-rc.1",
            "v1.36.3+",
            "v1.36.99999",
        ] {
            assert!(text.parse::<Version>().is_err(), "{text}");
        }
        assert_eq!("v0.1.0".parse(), Ok(ToolVersion(0, 1, 0)));
        assert!(ToolVersion(0, 10, 0) > ToolVersion(0, 9, 9));
    }
}
