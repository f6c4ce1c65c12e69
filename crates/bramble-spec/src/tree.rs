//! YAML text to a tree in which every key and value knows its place.
//!
//! Built from the parser's events, not from a deserializer: a deserializer stops at the first error, a tree
//! lets the decoder find them all.

use crate::diagnostic::Diagnostic;
use granit_parser::{ErrorKind, Event, Marker, Parser, ScalarStyle, ScanError, Span};

/// Nesting deeper than this is refused: the format needs nine levels, and recursion over the tree stays shallow.
const MAX_DEPTH: usize = 64;

/// More findings than this are not collected; a person mends the first few and runs again.
pub(crate) const MAX_FINDINGS: usize = 200;

/// Findings quote at most this many characters of a value.
const QUOTED: usize = 60;

/// A place in the file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mark {
    /// From 1.
    pub(crate) line: u32,
    /// In characters, from 1.
    pub(crate) column: u32,
    /// In characters, within the line.
    pub(crate) length: u32,
    /// First byte.
    pub(crate) start: usize,
    /// Byte after the last.
    pub(crate) end: usize,
}

/// A value and its place.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) mark: Mark,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    /// Text as written, quotes and escapes undone. `plain`: it stood without quotes.
    Scalar {
        text: String,
        plain: bool,
    },
    List(Vec<Node>),
    Map(Vec<Entry>),
    /// An alias. Refused when it was met; whoever looks at it has nothing to add.
    Alias,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) key_mark: Mark,
    pub(crate) value: Node,
}

impl Node {
    /// Nothing was written, or YAML's own words for nothing.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, plain: true } if matches!(text.as_str(), "" | "~" | "null"))
    }

    /// What kind of value it is, for a message.
    pub(crate) fn kind(&self) -> String {
        match &self.value {
            _ if self.is_null() => "nothing".into(),
            Value::Scalar { text, .. } => format!("`{}`", shorten(text)),
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
            Value::Alias => "an alias".into(),
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Entry> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key),
            _ => None,
        }
    }

    /// The value as JSON, plain scalars read by YAML 1.2's core schema.
    pub(crate) fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::List(items) => items.iter().map(Node::to_json).collect(),
            Value::Map(entries) => serde_json::Value::Object(
                entries.iter().map(|e| (e.key.clone(), e.value.to_json())).collect(),
            ),
            Value::Alias => serde_json::Value::Null,
            Value::Scalar { text, plain: false } => text.as_str().into(),
            Value::Scalar { text, plain: true } => match text.as_str() {
                "" | "~" | "null" | "Null" | "NULL" => serde_json::Value::Null,
                "true" | "True" | "TRUE" => true.into(),
                "false" | "False" | "FALSE" => false.into(),
                text => plain_number(text).unwrap_or_else(|| text.into()),
            },
        }
    }
}

fn plain_number(text: &str) -> Option<serde_json::Value> {
    if let Ok(number) = text.parse::<i64>() {
        return Some(number.into());
    }
    // Rust also reads `inf`, `nan` and `1e5`; only what starts like a number is one here.
    let digits = text.trim_start_matches(['-', '+']);
    if !digits.starts_with(|c: char| c.is_ascii_digit() || c == '.') {
        return None;
    }
    text.parse::<f64>().ok().filter(|n| n.is_finite()).map(Into::into)
}

/// At most [`QUOTED`] characters of a text, on one line.
pub(crate) fn shorten(text: &str) -> String {
    let mut short: String = text.chars().take(QUOTED).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(QUOTED).is_some() {
        short.push_str("...");
    }
    short
}

/// A list or mapping that is not closed yet.
enum Open {
    List { items: Vec<Node>, mark: Mark },
    Map { entries: Vec<Entry>, key: Option<(Option<String>, Mark)>, mark: Mark },
}

struct Builder<'s> {
    source: &'s str,
    open: Vec<Open>,
    root: Option<Node>,
    findings: Vec<Diagnostic>,
}

/// Reads a YAML text. `None` for a tree when the text has no document, or a syntax error ended it early.
pub(crate) fn read(source: &str) -> (Option<Node>, Vec<Diagnostic>) {
    let options = granit_parser::options! {
        emit_comments: false,
        emit_unresolved_aliases: true,
        disallow_directives: true,
    };
    let mut builder = Builder { source, open: Vec::new(), root: None, findings: Vec::new() };
    let mut documents = 0;
    for item in Parser::new_from_str_with_options(source, options) {
        match item {
            Err(error) => {
                let finding =
                    builder.unclosed_bracket(&error).unwrap_or_else(|| syntax_error(source, &error));
                builder.findings.push(finding);
                return (None, builder.findings);
            }
            Ok((Event::DocumentStart(..), span)) => {
                documents += 1;
                if documents == 2 {
                    let mark = builder.mark(&span);
                    builder.findings.push(
                        Diagnostic::error(
                            "yaml-documents",
                            mark,
                            "the file holds more than one YAML document",
                        )
                        .label("the second one starts here")
                        .hint(
                            "one file is one cluster: give each cluster its own directory and bramble.yaml",
                        ),
                    );
                    break;
                }
            }
            Ok((event, span)) => {
                if !builder.event(event, &span) {
                    return (None, builder.findings);
                }
            }
        }
    }
    (builder.root, builder.findings)
}

impl<'s> Builder<'s> {
    fn mark(&self, span: &Span) -> Mark {
        mark_between(self.source, span.start, span.end)
    }

    /// Takes one event; false when reading must end.
    fn event(&mut self, event: Event<'_>, span: &Span) -> bool {
        let mark = self.mark(span);
        match event {
            Event::Alias(_) | Event::UnresolvedAlias(_) => {
                self.findings.push(
                    Diagnostic::error("yaml-alias", mark, "YAML aliases are not read").label("alias").hint(
                        "what machines share stands once under `spec.defaults`; write other values out",
                    ),
                );
                self.add(Node { value: Value::Alias, mark });
            }
            Event::Scalar(text, style, anchor, tag) => {
                self.refuse_extras(mark, anchor, tag.is_some());
                let plain = style == ScalarStyle::Plain;
                self.add(Node { value: Value::Scalar { text: text.into_owned(), plain }, mark });
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_extras(mark, anchor, tag.is_some());
                self.open.push(Open::List { items: Vec::new(), mark });
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_extras(mark, anchor, tag.is_some());
                self.open.push(Open::Map { entries: Vec::new(), key: None, mark });
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(span),
            _ => {}
        }
        if self.open.len() > MAX_DEPTH {
            self.findings.push(
                Diagnostic::error("yaml-depth", mark, format!("nested more than {MAX_DEPTH} levels deep"))
                    .hint("close a bracket, or look for indentation that grows with each line"),
            );
            return false;
        }
        self.findings.len() < MAX_FINDINGS
    }

    /// A bracket opened on an earlier line than the one where the parser gave up is what is wrong.
    fn unclosed_bracket(&self, error: &ScanError) -> Option<Diagnostic> {
        if is_about_a_tab(error) {
            return None;
        }
        let last = self.open.iter().rev().find_map(|open| {
            let (Open::List { mark, .. } | Open::Map { mark, .. }) = open;
            let bracket = self.source.get(mark.start..)?.chars().next().filter(|c| matches!(c, '[' | '{'))?;
            ((mark.line as usize) < error.marker().line()).then_some((bracket, *mark))
        });
        let (bracket, mark) = last?;
        let close = if bracket == '[' { ']' } else { '}' };
        Some(
            Diagnostic::error(
                "yaml-syntax",
                Mark { length: 1, ..mark },
                format!("`{bracket}` is not closed"),
            )
            .label(format!("needs its `{close}`"))
            .hint(format!("reading gave up on line {}", error.marker().line())),
        )
    }

    fn refuse_extras(&mut self, mark: Mark, anchor: usize, tagged: bool) {
        if anchor != 0 {
            self.findings.push(
                Diagnostic::error("yaml-anchor", mark, "YAML anchors are not read")
                    .label("anchored value")
                    .hint("what machines share stands once under `spec.defaults`; write other values out"),
            );
        }
        if tagged {
            self.findings.push(
                Diagnostic::error("yaml-tag", mark, "YAML tags (`!...`) are not read")
                    .hint("leave the tag away; every key of this file knows its type"),
            );
        }
    }

    fn close(&mut self, span: &Span) {
        let node = match self.open.pop() {
            Some(Open::List { items, mark }) => {
                let mark = widen(self.source, mark, items.first().map(|i| i.mark), span);
                Node { value: Value::List(items), mark }
            }
            Some(Open::Map { entries, mark, .. }) => {
                let mark = widen(self.source, mark, entries.first().map(|e| e.key_mark), span);
                Node { value: Value::Map(entries), mark }
            }
            None => return,
        };
        self.add(node);
    }

    /// Puts a finished value where it belongs.
    fn add(&mut self, node: Node) {
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { items, .. }) => items.push(node),
            Some(Open::Map { entries, key, .. }) => match key.take() {
                // The value of a key that was refused goes with it.
                Some((None, _)) => {}
                Some((Some(key), key_mark)) => {
                    if key == "<<" {
                        self.findings.push(
                            Diagnostic::error("yaml-alias", key_mark, "YAML merge keys (`<<`) are not read")
                                .hint("what machines share stands once under `spec.defaults`"),
                        );
                    } else if let Some(first) = entries.iter().find(|e| e.key == key) {
                        self.findings.push(
                            Diagnostic::error(
                                "duplicate-key",
                                key_mark,
                                format!("`{}` is given twice", shorten(&key)),
                            )
                            .label("second time")
                            .hint(format!("the first is on line {}: keep one", first.key_mark.line)),
                        );
                    } else {
                        entries.push(Entry { key, key_mark, value: node });
                    }
                }
                None => match node.value {
                    Value::Scalar { text, .. } => *key = Some((Some(text), node.mark)),
                    Value::Alias => *key = Some((None, node.mark)),
                    Value::List(_) | Value::Map(_) => {
                        self.findings.push(
                            Diagnostic::error("yaml-key", node.mark, "a key must be one word")
                                .hint("`[` or `{` starts a list or mapping; quote the text if it is one"),
                        );
                        *key = Some((None, node.mark));
                    }
                },
            },
        }
    }
}

/// The mark of a list or mapping: all of it when it stands on one line, else its first key or item.
fn widen(source: &str, start: Mark, first: Option<Mark>, end: &Span) -> Mark {
    let flow = source[start.start..].starts_with(['[', '{']);
    let last = end.end.byte_offset().unwrap_or(start.end).max(start.end);
    match first {
        _ if flow && end.end.line() as u32 == start.line => {
            Mark { end: last, length: chars_between(source, start.start, last), ..start }
        }
        Some(first) if !flow => Mark { end: last, length: first.length, ..first },
        _ => Mark { end: last, length: 1, ..start },
    }
}

fn chars_between(source: &str, start: usize, end: usize) -> u32 {
    let text = source.get(start..end).unwrap_or("");
    text.split(['\n', '\r']).next().unwrap_or("").trim_end().chars().count() as u32
}

fn mark_between(source: &str, start: Marker, end: Marker) -> Mark {
    let first = start.byte_offset().unwrap_or(0).min(source.len());
    let last = end.byte_offset().unwrap_or(first).clamp(first, source.len());
    Mark {
        line: start.line() as u32,
        column: start.col() as u32 + 1,
        length: chars_between(source, first, last),
        start: first,
        end: last,
    }
}

fn is_about_a_tab(error: &ScanError) -> bool {
    matches!(
        error.kind(),
        ErrorKind::TabNotAllowed
            | ErrorKind::TabInBlockIndentation
            | ErrorKind::TabInIndentation
            | ErrorKind::TabInPlainScalar
            | ErrorKind::TabAtBlockScalarStart
    )
}

/// The first line from `from` on, within three, whose indentation holds a tab: its number and the tab's column.
fn tab_near(source: &str, from: u32) -> Option<Mark> {
    let first = from.max(1);
    source.lines().enumerate().skip(first as usize - 1).take(3).find_map(|(index, line)| {
        let indent = line.len() - line.trim_start().len();
        let column = line[..indent].find('\t')? as u32 + 1;
        Some(Mark { line: index as u32 + 1, column, length: 1, ..Mark::default() })
    })
}

/// The last quote on a line before `line`, or on it, that has no partner there.
fn open_quote(source: &str, line: u32) -> Option<Mark> {
    let lines: Vec<&str> = source.lines().take(line as usize).collect();
    lines.iter().enumerate().rev().find_map(|(index, text)| {
        let quote = ['"', '\''].into_iter().find(|q| text.matches(*q).count() % 2 == 1)?;
        let column = text.chars().position(|c| c == quote)? as u32 + 1;
        Some(Mark { line: index as u32 + 1, column, length: 1, ..Mark::default() })
    })
}

fn syntax_error(source: &str, error: &ScanError) -> Diagnostic {
    let mark = mark_between(source, *error.marker(), *error.marker());
    let tab = tab_near(source, mark.line);
    if is_about_a_tab(error) || tab.is_some_and(|tab| tab.line == mark.line) {
        return Diagnostic::error("yaml-tab", tab.unwrap_or(mark), "a tab indents this line")
            .label("tab")
            .hint("YAML is indented with spaces only; set your editor to write spaces in .yaml files");
    }
    let quoted = matches!(
        error.kind(),
        ErrorKind::UnclosedQuotedScalar
            | ErrorKind::InvalidQuotedScalarIndent
            | ErrorKind::DocumentIndicatorInQuotedScalar
    );
    if let Some(quote) = open_quote(source, mark.line).filter(|_| quoted) {
        return Diagnostic::error("yaml-syntax", quote, "a quoted text is not closed")
            .label("opened here")
            .hint("add the missing quote at its end");
    }
    let (message, hint) = match error.kind() {
        ErrorKind::MappingValueNotAllowed => (
            "a `: ` where no mapping can start",
            Some("quote a value that contains `: `, or mend the indentation of this line or the one before"),
        ),
        ErrorKind::DirectiveDisallowed => ("a YAML directive (`%`) stands here", Some("remove the line")),
        ErrorKind::UnclosedFlowCollection { .. }
        | ErrorKind::UnexpectedEofFlowSequence
        | ErrorKind::UnexpectedEofFlowMapping
        | ErrorKind::UnexpectedEofImplicitFlowMapping
        | ErrorKind::ExpectedFlowMappingSeparator
        | ErrorKind::ExpectedFlowSequenceSeparator => (
            "a bracket is not closed, or a comma is missing",
            Some("every `[` needs its `]`, every `{` its `}`"),
        ),
        ErrorKind::RecursionLimitExceeded => {
            ("nested too deep", Some("close a bracket, or look for indentation that grows with each line"))
        }
        ErrorKind::ExpectedBlockMappingKey
        | ErrorKind::ExpectedBlockSequenceEntry
        | ErrorKind::InvalidIndentation
        | ErrorKind::SimpleKeyExpected => (
            "the line does not fit the ones above it",
            Some(
                "keys of one mapping start in the same column and end in `:`; items of a list start with `- `",
            ),
        ),
        ErrorKind::BomInsideDocument => {
            ("a byte order mark stands inside the file", Some("remove the invisible character U+FEFF"))
        }
        _ => {
            let message = format!("this is not YAML: {}", error.kind());
            return Diagnostic::error("yaml-syntax", mark, message);
        }
    };
    Diagnostic::error("yaml-syntax", mark, message).maybe_hint(hint.map(str::to_string))
}
