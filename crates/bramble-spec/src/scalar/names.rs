//! Names: of machines, domains, web addresses and time zones.

use super::quoted;
use crate::decode::{Refusal, Scalar};
use serde_json::json;
use std::fmt;
use std::net::Ipv4Addr;

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
