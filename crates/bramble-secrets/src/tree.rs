//! The document: maps in their order, lists, scalars and comments.

use crate::secret::{Secret, SecretText};

/// A node of the document.
pub(crate) enum Node {
    Scalar(Scalar),
    List(Vec<Line<Node>>),
    Map(Map),
}

/// The entries of a map in their order, comments between them.
pub(crate) type Map = Vec<Line<(String, Node)>>;

/// An entry, or a comment between entries.
pub(crate) enum Line<T> {
    Comment(Comment),
    Entry(T),
}

/// A comment, kept as it stands (encrypted, when sops encrypted it).
pub(crate) struct Comment {
    /// What follows the `#`.
    pub(crate) text: String,
    /// On the line of the entry before it.
    pub(crate) inline: bool,
}

/// A scalar: as it lies in the file, as its meaning, or both.
///
/// A scalar that was read has `raw`; decryption adds `value`. One that was set has `value`; encryption adds `raw`.
/// An untouched value keeps its ciphertext, so that a file under version control changes only where it changed.
pub(crate) struct Scalar {
    pub(crate) raw: Option<Raw>,
    pub(crate) value: Option<(Kind, SecretText)>,
}

/// A scalar as it lies in the file.
pub(crate) struct Raw {
    pub(crate) text: String,
    /// Written without quotes: its type follows from its form.
    pub(crate) plain: bool,
}

/// The types of sops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Text,
    Int,
    Float,
    Bool,
    Time,
}

impl Kind {
    /// The word in `type:`, `None` for null, which is never encrypted.
    pub(crate) fn tag(self) -> Option<&'static str> {
        Some(match self {
            Kind::Null => return None,
            Kind::Text => "str",
            Kind::Int => "int",
            Kind::Float => "float",
            Kind::Bool => "bool",
            Kind::Time => "time",
        })
    }

    /// The kind of a word in `type:`.
    pub(crate) fn from_tag(tag: &str) -> Option<Kind> {
        [Kind::Text, Kind::Int, Kind::Float, Kind::Bool, Kind::Time]
            .into_iter()
            .find(|k| k.tag() == Some(tag))
    }

    /// Reads `text` as a value of this kind and gives it back in the form which sops encrypts and counts in the
    /// MAC: Python's `True` and `False`, floats without exponent. `None` when it is no such value.
    pub(crate) fn canonical(self, text: &str) -> Option<String> {
        match self {
            Kind::Null => Some(String::new()),
            Kind::Text | Kind::Time => Some(text.to_string()),
            Kind::Int => text.parse::<i64>().ok().map(|n| n.to_string()),
            Kind::Float => text.parse::<f64>().ok().filter(|f| f.is_finite()).map(|f| f.to_string()),
            Kind::Bool => match text {
                "1" | "t" | "T" | "true" | "TRUE" | "True" => Some("True".into()),
                "0" | "f" | "F" | "false" | "FALSE" | "False" => Some("False".into()),
                _ => None,
            },
        }
    }
}

impl Scalar {
    pub(crate) fn from_value(kind: Kind, text: SecretText) -> Scalar {
        Scalar { raw: None, value: Some((kind, text)) }
    }

    pub(crate) fn quoted(text: impl Into<String>) -> Node {
        Node::Scalar(Scalar { raw: Some(Raw { text: text.into(), plain: false }), value: None })
    }
}

impl Node {
    /// The raw text of a scalar: for the `sops` section, which is not encrypted.
    pub(crate) fn raw_text(&self) -> Option<&str> {
        match self {
            Node::Scalar(s) => s.raw.as_ref().map(|r| r.text.as_str()),
            _ => None,
        }
    }
}

/// The value of `key` in a map.
pub(crate) fn find<'a>(map: &'a Map, key: &str) -> Option<&'a Node> {
    map.iter().find_map(|line| match line {
        Line::Entry((k, node)) if k == key => Some(node),
        _ => None,
    })
}

/// The value of `key` in a map, to be changed.
pub(crate) fn find_mut<'a>(map: &'a mut Map, key: &str) -> Option<&'a mut Node> {
    map.iter_mut().find_map(|line| match line {
        Line::Entry((k, node)) if k == key => Some(node),
        _ => None,
    })
}

/// The node at `path`. An empty path has none: the document itself is a map, not a node.
pub(crate) fn at<'a>(map: &'a Map, path: &[&str]) -> Option<&'a Node> {
    let (first, rest) = path.split_first()?;
    let node = find(map, first)?;
    match node {
        _ if rest.is_empty() => Some(node),
        Node::Map(inner) => at(inner, rest),
        _ => None,
    }
}

/// Visits the scalars in the order of the file with the path of keys to each. Positions in lists are no part of it:
/// so does sops.
pub(crate) fn walk<E>(
    map: &mut Map,
    path: &mut Vec<String>,
    visit: &mut impl FnMut(&mut Scalar, &[String]) -> Result<(), E>,
) -> Result<(), E> {
    for line in map {
        if let Line::Entry((key, node)) = line {
            path.push(key.clone());
            walk_node(node, path, visit)?;
            path.pop();
        }
    }
    Ok(())
}

fn walk_node<E>(
    node: &mut Node,
    path: &mut Vec<String>,
    visit: &mut impl FnMut(&mut Scalar, &[String]) -> Result<(), E>,
) -> Result<(), E> {
    match node {
        Node::Scalar(scalar) => visit(scalar, path),
        Node::Map(map) => walk(map, path, visit),
        Node::List(items) => {
            for line in items {
                if let Line::Entry(item) = line {
                    walk_node(item, path, visit)?;
                }
            }
            Ok(())
        }
    }
}

/// A value of the secrets file with all that is below it.
#[derive(Clone, Debug)]
pub enum Value {
    /// `null`.
    Null,
    /// Text.
    Text(SecretText),
    /// A whole number.
    Int(i64),
    /// A number with a fraction or a time, in sops' own text form.
    Other {
        /// sops' word for the type: `float`, `time`.
        kind: &'static str,
        /// The value as text.
        text: SecretText,
    },
    /// `true` or `false`.
    Bool(bool),
    /// A list.
    List(Vec<Value>),
    /// A map in its order.
    Map(Vec<(String, Value)>),
}

impl Value {
    /// A map from pairs.
    pub fn map<K: Into<String>>(pairs: impl IntoIterator<Item = (K, Value)>) -> Value {
        Value::Map(pairs.into_iter().map(|(k, v)| (k.into(), v)).collect())
    }

    /// Text.
    pub fn text(text: impl Into<String>) -> Value {
        Value::Text(Secret::new(text.into()))
    }

    pub(crate) fn from_node(node: &Node) -> Value {
        match node {
            Node::Scalar(scalar) => match &scalar.value {
                None | Some((Kind::Null, _)) => Value::Null,
                Some((Kind::Text, text)) => Value::Text(text.clone()),
                Some((Kind::Bool, text)) => Value::Bool(text.expose() == "True"),
                Some((Kind::Int, text)) => text.expose().parse().map_or(Value::Null, Value::Int),
                Some((kind, text)) => Value::Other { kind: kind.tag().unwrap_or("str"), text: text.clone() },
            },
            Node::List(items) => Value::List(entries(items).map(Value::from_node).collect()),
            Node::Map(map) => {
                Value::Map(entries(map).map(|(k, node)| (k.clone(), Value::from_node(node))).collect())
            }
        }
    }

    pub(crate) fn into_node(self) -> Node {
        let scalar = |kind, text: String| Node::Scalar(Scalar::from_value(kind, Secret::new(text)));
        match self {
            Value::Null => scalar(Kind::Null, String::new()),
            Value::Text(text) => Node::Scalar(Scalar::from_value(Kind::Text, text)),
            Value::Int(n) => scalar(Kind::Int, n.to_string()),
            Value::Bool(b) => scalar(Kind::Bool, if b { "True" } else { "False" }.to_string()),
            Value::Other { kind, text } => {
                Node::Scalar(Scalar::from_value(Kind::from_tag(kind).unwrap_or(Kind::Text), text))
            }
            Value::List(items) => Node::List(items.into_iter().map(|v| Line::Entry(v.into_node())).collect()),
            Value::Map(pairs) => {
                Node::Map(pairs.into_iter().map(|(k, v)| Line::Entry((k, v.into_node()))).collect())
            }
        }
    }
}

pub(crate) fn entries<T>(lines: &[Line<T>]) -> impl Iterator<Item = &T> {
    lines.iter().filter_map(|line| match line {
        Line::Entry(entry) => Some(entry),
        Line::Comment(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_have_the_text_form_of_sops() {
        assert_eq!(Kind::Bool.canonical("true").as_deref(), Some("True"));
        assert_eq!(Kind::Bool.canonical("yes"), None);
        assert_eq!(Kind::Float.canonical("1.50").as_deref(), Some("1.5"));
        assert_eq!(Kind::Float.canonical("1e21").as_deref(), Some("1000000000000000000000"));
        assert_eq!(Kind::Float.canonical("nan"), None);
        assert_eq!(Kind::Int.canonical("-7").as_deref(), Some("-7"));
        assert_eq!(Kind::Int.canonical("0x10"), None);
    }
}
