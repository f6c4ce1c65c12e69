//! From the tree to types, collecting every error on the way.
//!
//! One declaration per type (`record!`, `words!`, `tagged!`) gives the type, its decoder and its JSON Schema, so
//! that none of the three can say something the others do not.

use crate::diagnostic::{Diagnostic, nearest};
use crate::tree::{Entry, MAX_FINDINGS, Mark, Node, Value, shorten};
use serde_json::{Map, json};

/// Collects findings while the tree is walked.
#[derive(Default)]
pub(crate) struct Context {
    pub(crate) findings: Vec<Diagnostic>,
}

impl Context {
    pub(crate) fn push(&mut self, diagnostic: Diagnostic) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(diagnostic);
        }
    }

    /// Says that a value is of another kind than the key wants.
    pub(crate) fn wrong_type(&mut self, node: &Node, wanted: &str) {
        if matches!(node.value, Value::Alias) {
            return;
        }
        self.push(
            Diagnostic::error("wrong-type", node.mark, format!("expected {wanted}, found {}", node.kind()))
                .label(format!("wants {wanted}")),
        );
    }

    /// Says that a word is not one of the known ones.
    pub(crate) fn unknown_word(&mut self, node: &Node, text: &str, known: &[&str]) {
        let hint = known_words(text, known);
        self.push(
            Diagnostic::error("unknown-word", node.mark, format!("`{}` is not known here", shorten(text)))
                .label("not one of the known words")
                .hint(hint),
        );
    }

    /// The entries of a mapping, or a finding.
    pub(crate) fn fields<'n>(&mut self, node: &'n Node, wanted: &str) -> Option<Fields<'n>> {
        match &node.value {
            Value::Map(entries) => Some(Fields::new(entries, node.mark)),
            _ => {
                self.wrong_type(node, wanted);
                None
            }
        }
    }
}

/// A hint that names the nearest word and all others.
pub(crate) fn known_words(text: &str, known: &[&str]) -> String {
    let list = known.iter().map(|w| format!("`{w}`")).collect::<Vec<_>>().join(", ");
    match nearest(text, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`? Known: {list}"),
        None => format!("known: {list}"),
    }
}

/// A type that can be read from the tree.
pub(crate) trait Decode: Sized {
    /// The value, or `None` after at least one error was pushed.
    fn decode(node: &Node, cx: &mut Context) -> Option<Self>;
    /// Its JSON Schema; named types go to `definitions` and are referred to.
    fn schema(definitions: &mut Definitions) -> serde_json::Value;
}

/// A type made of the keys of a mapping.
pub(crate) trait Record: Sized {
    /// Takes its keys out of `fields`; `None` after at least one error was pushed.
    fn take(fields: &mut Fields<'_>, cx: &mut Context) -> Option<Self>;
    /// Adds its keys to an object schema.
    fn properties(object: &mut ObjectSchema, definitions: &mut Definitions);
}

/// A value written as one word.
pub(crate) trait Scalar: Sized {
    /// What it is, with an article: `an IPv4 address`.
    const WHAT: &'static str;
    /// Reads it.
    fn read(text: &str) -> Result<Self, Refusal>;
    /// Its JSON Schema.
    fn schema() -> serde_json::Value;
}

/// Why a word is not what was wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// One sentence that names the word.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

impl Refusal {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

pub(crate) fn decode_scalar<T: Scalar>(node: &Node, cx: &mut Context) -> Option<T> {
    let Value::Scalar { text, .. } = &node.value else {
        cx.wrong_type(node, T::WHAT);
        return None;
    };
    if node.is_null() {
        cx.wrong_type(node, T::WHAT);
        return None;
    }
    match T::read(text) {
        Ok(value) => Some(value),
        Err(refusal) => {
            cx.push(
                Diagnostic::error("bad-value", node.mark, refusal.message)
                    .label(format!("wants {}", T::WHAT))
                    .maybe_hint(refusal.hint),
            );
            None
        }
    }
}

/// The entries of a mapping, ticked off as they are asked for.
pub(crate) struct Fields<'n> {
    entries: &'n [Entry],
    taken: Vec<bool>,
    known: Vec<&'static str>,
    pub(crate) mark: Mark,
}

impl<'n> Fields<'n> {
    pub(crate) fn new(entries: &'n [Entry], mark: Mark) -> Self {
        Self { entries, taken: vec![false; entries.len()], known: Vec::new(), mark }
    }

    /// The entry of a key, if it is there.
    pub(crate) fn take(&mut self, key: &'static str) -> Option<&'n Entry> {
        self.known.push(key);
        let index = self.entries.iter().position(|e| e.key == key)?;
        self.taken[index] = true;
        self.entries.get(index)
    }

    /// A key that may be absent. The outer `None` says: it is there and wrong.
    pub(crate) fn optional<T: Decode>(
        &mut self,
        cx: &mut Context,
        key: &'static str,
        default: impl FnOnce() -> T,
    ) -> Option<T> {
        match self.take(key) {
            Some(entry) if !entry.value.is_null() => T::decode(&entry.value, cx),
            _ => Some(default()),
        }
    }

    /// A key that must be there.
    pub(crate) fn required<T: Decode>(&mut self, cx: &mut Context, key: &'static str) -> Option<T> {
        match self.take(key) {
            Some(entry) if entry.value.is_null() => {
                cx.push(
                    Diagnostic::error("missing-value", entry.key_mark, format!("`{key}` has no value"))
                        .label("nothing follows"),
                );
                None
            }
            Some(entry) => T::decode(&entry.value, cx),
            None => {
                cx.push(
                    Diagnostic::error("missing-key", self.mark, format!("`{key}` is missing here"))
                        .label(format!("needs `{key}`")),
                );
                None
            }
        }
    }

    /// Says which keys nobody asked for.
    pub(crate) fn finish(self, cx: &mut Context) {
        for (entry, _) in self.entries.iter().zip(&self.taken).filter(|(_, taken)| !**taken) {
            let mut known = self.known.clone();
            known.sort_unstable();
            let hint = match nearest(&entry.key, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("known here: {}", known.join(", ")),
            };
            cx.push(
                Diagnostic::error(
                    "unknown-key",
                    entry.key_mark,
                    format!("`{}` is not a key of this mapping", shorten(&entry.key)),
                )
                .label("unknown key")
                .hint(hint),
            );
        }
    }
}

/// Schemas of named types, by name.
pub(crate) type Definitions = Map<String, serde_json::Value>;

/// An object schema in the making.
#[derive(Default)]
pub(crate) struct ObjectSchema {
    properties: Map<String, serde_json::Value>,
    required: Vec<serde_json::Value>,
}

impl ObjectSchema {
    pub(crate) fn add(
        &mut self,
        key: &str,
        doc: &[&str],
        mut schema: serde_json::Value,
        default: Option<serde_json::Value>,
    ) {
        if let Some(object) = schema.as_object_mut() {
            object.insert("description".into(), paragraph(doc).into());
            match default {
                None => self.required.push(key.into()),
                Some(default) => object.extend(stated(default).map(|d| ("default".to_string(), d))),
            }
        }
        self.properties.insert(key.into(), schema);
    }

    pub(crate) fn finish(self, title: &str, doc: &[&str]) -> serde_json::Value {
        let mut schema = json!({
            "title": title,
            "description": paragraph(doc),
            "type": "object",
            "properties": self.properties,
            "additionalProperties": false,
        });
        if !self.required.is_empty() {
            schema["required"] = self.required.into();
        }
        schema
    }

    pub(crate) fn add_constant(&mut self, key: &str, word: &str) {
        self.properties.insert(key.into(), json!({ "const": word }));
        self.required.push(key.into());
    }
}

/// A default without what stays absent in it: that is not worth a word in an editor's pop-up.
fn stated(default: serde_json::Value) -> Option<serde_json::Value> {
    match default {
        serde_json::Value::Null => None,
        serde_json::Value::Object(map) => {
            let map: Map<_, _> = map.into_iter().filter_map(|(k, v)| Some((k, stated(v)?))).collect();
            (!map.is_empty()).then_some(serde_json::Value::Object(map))
        }
        other => Some(other),
    }
}

/// Doc comment lines as one text.
pub(crate) fn paragraph(doc: &[&str]) -> String {
    doc.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ").trim().to_string()
}

/// Registers a named schema once and gives the reference to it.
pub(crate) fn named(
    name: &str,
    definitions: &mut Definitions,
    make: impl FnOnce(&mut Definitions) -> serde_json::Value,
) -> serde_json::Value {
    if !definitions.contains_key(name) {
        // Present before it is made, so that a type may refer to itself.
        definitions.insert(name.into(), json!({}));
        let schema = make(definitions);
        definitions.insert(name.into(), schema);
    }
    json!({ "$ref": format!("#/$defs/{name}") })
}

impl<T: Decode> Decode for Vec<T> {
    fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
        let items = match &node.value {
            Value::List(items) => items,
            Value::Alias => return None,
            _ => {
                cx.push(
                    Diagnostic::error(
                        "wrong-type",
                        node.mark,
                        format!("expected a list, found {}", node.kind()),
                    )
                    .label("wants a list")
                    .hint("write `[a, b]`, or one item a line, each starting with `- `"),
                );
                return None;
            }
        };
        let read: Vec<Option<T>> = items.iter().map(|item| T::decode(item, cx)).collect();
        read.into_iter().collect()
    }

    fn schema(definitions: &mut Definitions) -> serde_json::Value {
        json!({ "type": "array", "items": T::schema(definitions) })
    }
}

impl<T: Decode> Decode for Option<T> {
    fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
        T::decode(node, cx).map(Some)
    }

    fn schema(definitions: &mut Definitions) -> serde_json::Value {
        T::schema(definitions)
    }
}

/// Declares a type made of the keys of a mapping. A key with `= value` may be absent; keys of the types after
/// `with` stand in the same mapping.
macro_rules! record {
    (
        $(#[doc = $doc:literal])*
        $(#[derive($derive:ident)])?
        pub struct $name:ident {
            $( $(#[doc = $field_doc:literal])* $key:literal $field:ident : $type:ty $(= $default:expr)? , )*
        }
        $( with { $( $(#[doc = $inner_doc:literal])* $inner:ident : $inner_type:ty , )* } )?
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize $(, $derive)?)]
        pub struct $name {
            $( $(#[doc = $field_doc])* #[serde(rename = $key)] pub $field: $type, )*
            $($( $(#[doc = $inner_doc])* #[serde(flatten)] pub $inner: $inner_type, )*)?
        }

        impl $crate::decode::Record for $name {
            fn take(
                fields: &mut $crate::decode::Fields<'_>,
                cx: &mut $crate::decode::Context,
            ) -> Option<Self> {
                // Every field is read before the first failure leaves, so that all errors come at once.
                $( let $field: Option<$type> = record!(@field fields, cx, $key $(, $default)?); )*
                $($( let $inner = <$inner_type as $crate::decode::Record>::take(fields, cx); )*)?
                Some(Self { $( $field: $field?, )* $($( $inner: $inner?, )*)? })
            }

            fn properties(
                object: &mut $crate::decode::ObjectSchema,
                definitions: &mut $crate::decode::Definitions,
            ) {
                $(
                    let schema = <$type as $crate::decode::Decode>::schema(definitions);
                    object.add($key, &[$($field_doc),*], schema, record!(@default $type $(, $default)?));
                )*
                $($( <$inner_type as $crate::decode::Record>::properties(object, definitions); )*)?
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::tree::Node, cx: &mut $crate::decode::Context) -> Option<Self> {
                let mut fields = cx.fields(node, "a mapping")?;
                let value = <Self as $crate::decode::Record>::take(&mut fields, cx);
                fields.finish(cx);
                value
            }

            fn schema(definitions: &mut $crate::decode::Definitions) -> serde_json::Value {
                $crate::decode::named(stringify!($name), definitions, |definitions| {
                    let mut object = $crate::decode::ObjectSchema::default();
                    <Self as $crate::decode::Record>::properties(&mut object, definitions);
                    object.finish(stringify!($name), &[$($doc),*])
                })
            }
        }
    };
    (@field $fields:ident, $cx:ident, $key:literal) => { $fields.required($cx, $key) };
    (@field $fields:ident, $cx:ident, $key:literal, $default:expr) => { $fields.optional($cx, $key, || $default) };
    (@default $type:ty) => { None };
    (@default $type:ty, $default:expr) => {{
        let default: $type = $default;
        Some(serde_json::to_value(&default).unwrap_or_default())
    }};
}

/// Declares a choice of words.
macro_rules! words {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident { $( $(#[doc = $word_doc:literal])* $variant:ident = $word:literal , )* }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
        pub enum $name { $( $(#[doc = $word_doc])* #[serde(rename = $word)] $variant, )* }

        impl $name {
            /// Every word, in a fixed order.
            pub const ALL: &'static [Self] = &[$( Self::$variant ),*];

            /// The word in the file.
            pub fn name(self) -> &'static str {
                match self { $( Self::$variant => $word, )* }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(self.name())
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::Refusal;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::ALL.iter().copied().find(|w| w.name() == text).ok_or_else(|| {
                    $crate::Refusal::new(format!("`{}` is not known here", $crate::tree::shorten(text)))
                        .hint($crate::decode::known_words(text, &[$( $word ),*]))
                })
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::tree::Node, cx: &mut $crate::decode::Context) -> Option<Self> {
                let $crate::tree::Value::Scalar { text, .. } = &node.value else {
                    cx.wrong_type(node, "one word");
                    return None;
                };
                let found = Self::ALL.iter().copied().find(|w| w.name() == text);
                if found.is_none() {
                    cx.unknown_word(node, text, &[$( $word ),*]);
                }
                found
            }

            fn schema(definitions: &mut $crate::decode::Definitions) -> serde_json::Value {
                $crate::decode::named(stringify!($name), definitions, |_| serde_json::json!({
                    "title": stringify!($name),
                    "description": $crate::decode::paragraph(&[$($doc),*]),
                    "oneOf": [$( {
                        "const": $word,
                        "description": $crate::decode::paragraph(&[$($word_doc),*]),
                    } ),*],
                }))
            }
        }
    };
}

/// Declares a choice whose members may have keys of their own, chosen by `kind`; `x` alone says `{ kind: x }`.
macro_rules! tagged {
    (
        $(#[doc = $doc:literal])*
        pub enum $name:ident {
            $( $(#[doc = $word_doc:literal])* $variant:ident = $word:literal $( ( $payload:ty ) )? , )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize)]
        #[serde(tag = "kind")]
        pub enum $name { $( $(#[doc = $word_doc])* #[serde(rename = $word)] $variant $( ( $payload ) )?, )* }

        impl $name {
            /// The word after `kind:`.
            pub fn kind(&self) -> &'static str {
                match self { $( Self::$variant { .. } => $word, )* }
            }
        }

        impl $crate::decode::Decode for $name {
            fn decode(node: &$crate::tree::Node, cx: &mut $crate::decode::Context) -> Option<Self> {
                let empty: [$crate::tree::Entry; 0] = [];
                let (kind, mut fields) = match &node.value {
                    $crate::tree::Value::Scalar { .. } => {
                        (node, $crate::decode::Fields::new(&empty, node.mark))
                    }
                    _ => {
                        let mut fields = cx.fields(node, "one word or a mapping with `kind`")?;
                        match fields.take("kind") {
                            Some(entry) => (&entry.value, fields),
                            None => {
                                let _: Option<$crate::scalar::Text> = fields.required(cx, "kind");
                                return None;
                            }
                        }
                    }
                };
                let $crate::tree::Value::Scalar { text, .. } = &kind.value else {
                    cx.wrong_type(kind, "one word");
                    return None;
                };
                let value = match text.as_str() {
                    $( $word => tagged!(@take $name, $variant, fields, cx $(, $payload)?), )*
                    _ => {
                        cx.unknown_word(kind, text, &[$( $word ),*]);
                        return None;
                    }
                };
                fields.finish(cx);
                value
            }

            fn schema(definitions: &mut $crate::decode::Definitions) -> serde_json::Value {
                $crate::decode::named(stringify!($name), definitions, |definitions| {
                    let mut choices = vec![serde_json::json!({ "enum": [$( $word ),*] })];
                    $(
                        let mut object = $crate::decode::ObjectSchema::default();
                        object.add_constant("kind", $word);
                        $( <$payload as $crate::decode::Record>::properties(&mut object, definitions); )?
                        choices.push(object.finish($word, &[$($word_doc),*]));
                    )*
                    let _ = definitions;
                    serde_json::json!({
                        "title": stringify!($name),
                        "description": $crate::decode::paragraph(&[$($doc),*]),
                        "oneOf": choices,
                    })
                })
            }
        }
    };
    (@take $name:ident, $variant:ident, $fields:ident, $cx:ident) => { Some(Self::$variant) };
    (@take $name:ident, $variant:ident, $fields:ident, $cx:ident, $payload:ty) => {
        <$payload as $crate::decode::Record>::take(&mut $fields, $cx).map(Self::$variant)
    };
}

pub(crate) use {record, tagged, words};
