//! From text to trees.

use super::{Map, Value};
use granit_parser::{Event, Parser, ScalarStyle};
use std::collections::HashMap;

/// Deeper nesting is refused: recursion over the tree stays shallow.
const MAX_DEPTH: usize = 64;
/// More values than this are refused: aliases of aliases grow without end.
const MAX_VALUES: usize = 1_000_000;
/// What stands before the type in a tag of YAML itself.
const YAML_TAG: &str = "tag:yaml.org,2002:";

/// A text is not YAML that Talos reads. Names the place, never the value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct ReadError {
    /// Line, from 1.
    pub line: usize,
    /// What is wrong there.
    pub what: String,
}

/// A list or mapping that is not closed yet.
enum Open {
    List { items: Vec<Value>, anchor: usize },
    Map { map: Map, key: Option<(String, bool)>, merged: Vec<Map>, anchor: usize },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    documents: Vec<Value>,
    anchors: HashMap<usize, Value>,
    values: usize,
}

/// Reads every document of a text. Aliases and merge keys are resolved; empty documents are left out.
///
/// # Errors
/// Syntax, keys that stand twice, keys that are no scalars, tags other than YAML's own, and more than a million
/// values.
pub fn read(text: &str) -> Result<Vec<Value>, ReadError> {
    let options = granit_parser::options! { emit_comments: false };
    let mut builder = Builder::default();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    for item in Parser::new_from_str_with_options(text, options) {
        let (event, span) =
            item.map_err(|e| ReadError { line: e.marker().line(), what: e.info().to_string() })?;
        builder.event(event).map_err(|what| ReadError { line: span.start.line(), what })?;
    }
    builder.documents.retain(|document| !document.is_null());
    Ok(builder.documents)
}

impl Builder {
    fn event(&mut self, event: Event<'_>) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain = match tag.as_deref() {
                    None => style == ScalarStyle::Plain,
                    Some(tag) => match format!("{}{}", tag.handle(), tag.suffix()).strip_prefix(YAML_TAG) {
                        Some("str") => false,
                        Some("int" | "bool" | "float" | "null") => true,
                        _ => return Err("a tag (`!...`) that is not read".into()),
                    },
                };
                let text = text.into_owned().into();
                self.add(if plain { Value::Plain(text) } else { Value::Text(text) }, anchor)
            }
            Event::SequenceStart(_, anchor, _) => self.open(Open::List { items: Vec::new(), anchor }),
            Event::MappingStart(_, anchor, _) => {
                self.open(Open::Map { map: Map::new(), key: None, merged: Vec::new(), anchor })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { items, anchor }) => self.add(Value::List(items), anchor),
                Some(Open::Map { mut map, merged, anchor, .. }) => {
                    // Own keys beat merged ones, earlier merged mappings beat later ones.
                    for (key, value) in merged.into_iter().flatten() {
                        if map.get(&key).is_none() {
                            map.set(key, value);
                        }
                    }
                    self.add(Value::Map(map), anchor)
                }
                None => Ok(()),
            },
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned().ok_or("an alias of a value that holds it")?;
                self.values = self.values.saturating_add(count(&value));
                self.add(value, 0)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, open: Open) -> Result<(), String> {
        self.open.push(open);
        if self.open.len() > MAX_DEPTH {
            return Err(format!("nested more than {MAX_DEPTH} levels deep"));
        }
        Ok(())
    }

    fn add(&mut self, value: Value, anchor: usize) -> Result<(), String> {
        self.values += 1;
        if self.values > MAX_VALUES {
            return Err(format!("more than {MAX_VALUES} values"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        match self.open.last_mut() {
            None => self.documents.push(value),
            Some(Open::List { items, .. }) => items.push(value),
            Some(Open::Map { map, key, merged, .. }) => match key.take() {
                None => match value {
                    Value::Plain(text) => *key = Some((text.into_owned(), true)),
                    Value::Text(text) => *key = Some((text.into_owned(), false)),
                    _ => return Err("a list or mapping cannot be a key".into()),
                },
                Some((name, true)) if name == "<<" => match value {
                    Value::Map(map) => merged.push(map),
                    Value::List(items) => {
                        for item in items {
                            match item {
                                Value::Map(map) => merged.push(map),
                                _ => return Err("`<<` wants mappings".into()),
                            }
                        }
                    }
                    _ => return Err("`<<` wants a mapping".into()),
                },
                Some((name, _)) if map.get(&name).is_some() => return Err(format!("`{name}` stands twice")),
                Some((name, _)) => map.set(name, value),
            },
        }
        Ok(())
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Plain(_) | Value::Text(_) => 1,
        Value::List(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Map(map) => 1 + map.iter().map(|(_, v)| count(v)).sum::<usize>(),
    }
}
