//! Values written as one word: sizes, versions, addresses, names. Each is checked when it is read.

mod addresses;
mod names;
mod quantities;
mod taint;
mod versions;

pub use addresses::{AddressRange, Mac};
pub use names::{Domain, Host, Name, Timezone, Url};
pub use quantities::{Period, Size, Weekday, Window};
pub use taint::Taint;
pub use versions::{ToolVersion, Version};

pub(crate) use names::is_domain;

use crate::decode::{Context, Decode, Definitions, Refusal, Scalar, decode_scalar};
use crate::tree::{Node, Value, shorten};
use ipnet::Ipv4Net;
use serde::Serialize;
use serde_json::json;
use std::net::Ipv4Addr;

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

fn quoted(text: &str) -> String {
    format!("`{}`", shorten(text))
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

/// A value for another program's file, kept with its spelling: `0o644` and `1.10` mean something to that program only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// A scalar that stood without quotes.
    Plain(String),
    /// A scalar in quotes, or a block of text.
    Text(String),
    /// A list.
    List(Vec<Written>),
    /// A mapping in its order.
    Map(Vec<(String, Written)>),
}

impl Written {
    fn of(node: &Node) -> Written {
        match &node.value {
            Value::Scalar { text, plain: true } => Written::Plain(text.clone()),
            Value::Scalar { text, plain: false } => Written::Text(text.clone()),
            Value::List(items) => Written::List(items.iter().map(Written::of).collect()),
            Value::Map(entries) => {
                Written::Map(entries.iter().map(|e| (e.key.clone(), Written::of(&e.value))).collect())
            }
            // Refused when it was met.
            Value::Alias => Written::Plain(String::new()),
        }
    }
}

impl Decode for Written {
    fn decode(node: &Node, _: &mut Context) -> Option<Self> {
        Some(Written::of(node))
    }
    fn schema(_: &mut Definitions) -> serde_json::Value {
        json!({})
    }
}

impl Serialize for Written {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Written::Plain(text) | Written::Text(text) => serializer.serialize_str(text),
            Written::List(items) => items.serialize(serializer),
            Written::Map(entries) => serializer.collect_map(entries.iter().map(|(k, v)| (k, v))),
        }
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
