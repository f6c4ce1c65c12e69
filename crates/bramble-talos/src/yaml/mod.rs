//! YAML as Talos reads and writes it: trees whose order and spelling survive.
//!
//! What a person wrote into a patch goes into the config as it was spelt: `0o644`, `1.10` and `yes` stay these
//! characters, because only Talos' own types know what they mean. So a plain scalar is kept as its text.

mod read;
mod write;

pub use read::{ReadError, read};
pub use write::write;

use std::borrow::Cow;
use std::fmt;

/// Text that is mostly constant.
pub type Text = Cow<'static, str>;

/// A value. Comparison is by spelling.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A scalar without quotes: a number, a truth value, nothing, or text that needs none.
    Plain(Text),
    /// Text, whatever it looks like.
    Text(Text),
    /// A list.
    List(Vec<Value>),
    /// A mapping.
    Map(Map),
}

/// Values hold keys and passwords: only the shape is shown.
impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Plain(_) | Value::Text(_) => f.write_str(".."),
            Value::List(items) => f.debug_list().entries(items).finish(),
            Value::Map(map) => map.fmt(f),
        }
    }
}

/// A mapping in the order of its text. No key stands twice in it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Map(Vec<(Text, Value)>);

impl fmt::Debug for Map {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

impl Value {
    /// Text.
    pub fn text(text: impl Into<Text>) -> Value {
        Value::Text(text.into())
    }

    /// The text of a scalar, however it was written.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Value::Plain(text) | Value::Text(text) => Some(text),
            Value::List(_) | Value::Map(_) => None,
        }
    }

    /// Nothing, in one of YAML's spellings.
    pub fn is_null(&self) -> bool {
        matches!(self, Value::Plain(text) if matches!(text.as_ref(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// The mapping, if it is one.
    pub fn as_map(&self) -> Option<&Map> {
        match self {
            Value::Map(map) => Some(map),
            _ => None,
        }
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The value at a path of keys.
    pub fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |value, key| value.as_map()?.get(key))
    }

    /// The text at a path of keys.
    pub fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.at(path)?.as_str()
    }
}

impl From<bool> for Value {
    fn from(truth: bool) -> Value {
        Value::Plain(if truth { "true" } else { "false" }.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Value {
        Value::Plain(number.to_string().into())
    }
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Value {
        Value::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text.into())
    }
}

impl From<Map> for Value {
    fn from(map: Map) -> Value {
        Value::Map(map)
    }
}

impl<V: Into<Value>> FromIterator<V> for Value {
    fn from_iter<I: IntoIterator<Item = V>>(items: I) -> Value {
        Value::List(items.into_iter().map(Into::into).collect())
    }
}

impl Map {
    /// An empty mapping.
    pub fn new() -> Map {
        Map::default()
    }

    /// The mapping with a key more, for building.
    pub fn with(mut self, key: impl Into<Text>, value: impl Into<Value>) -> Map {
        self.set(key, value);
        self
    }

    /// The mapping with a key more when there is a value.
    pub fn with_some(self, key: impl Into<Text>, value: Option<impl Into<Value>>) -> Map {
        match value {
            Some(value) => self.with(key, value),
            None => self,
        }
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// The value of a key, to be changed.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Value> {
        self.0.iter_mut().find(|(k, _)| k == key).map(|(_, v)| v)
    }

    /// Sets a key, in its place when it is there.
    pub fn set(&mut self, key: impl Into<Text>, value: impl Into<Value>) {
        let (key, value) = (key.into(), value.into());
        match self.get_mut(&key) {
            Some(old) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Removes a key and gives its value.
    pub fn remove(&mut self, key: &str) -> Option<Value> {
        let place = self.0.iter().position(|(k, _)| k == key)?;
        Some(self.0.remove(place).1)
    }

    /// Keys and values in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.0.iter().map(|(k, v)| (k.as_ref(), v))
    }

    /// Whether it has no keys.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many keys it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }
}

impl IntoIterator for Map {
    type Item = (Text, Value);
    type IntoIter = std::vec::IntoIter<(Text, Value)>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<K: Into<Text>, V: Into<Value>> FromIterator<(K, V)> for Map {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Map {
        let mut map = Map::new();
        for (key, value) in pairs {
            map.set(key, value);
        }
        map
    }
}

#[cfg(test)]
mod tests;
