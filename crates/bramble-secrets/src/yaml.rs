//! The part of YAML that SOPS files are written in, both ways.
//!
//! Reading keeps order and comments. Anchors, tags and several documents are refused: `sops` itself resolves them
//! away when it encrypts, so no encrypted file holds any.

use crate::tree::{Comment, Kind, Line, Map, Node, Raw, Scalar, entries};
use serde_saphyr::granit_parser::{Event, Parser, Placement, ScalarStyle};
use std::collections::HashSet;
use std::fmt::Write as _;

/// Why a text is not a document this crate reads. Quotes nothing of the text: it might be a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unreadable {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) column: usize,
    pub(crate) what: &'static str,
}

/// Reads one document whose top is a map.
pub(crate) fn parse(text: &str) -> Result<Map, Unreadable> {
    let mut reader = Reader { parser: Parser::new_from_str(text), line: 1, column: 1, left: Vec::new() };
    let mut head = Vec::new();
    let mut top = None;
    loop {
        match reader.next()? {
            Event::StreamStart | Event::DocumentEnd => {}
            Event::DocumentStart(..) if top.is_some() => {
                return Err(reader.error("more than one YAML document"));
            }
            Event::DocumentStart(..) => {}
            Event::StreamEnd => break,
            Event::Comment(text, _) => {
                let comment = Line::Comment(Comment { text: text.into_owned(), inline: false });
                top.as_mut().unwrap_or(&mut head).push(comment);
            }
            Event::MappingStart(_, anchor, tag) if top.is_none() => {
                reader.no_extras(anchor, tag.is_some())?;
                let mut map = std::mem::take(&mut head);
                reader.map(&mut map)?;
                top = Some(map);
            }
            _ => return Err(reader.error("the document must be a map")),
        }
    }
    top.ok_or_else(|| reader.error("the document is empty"))
}

struct Reader<'a> {
    parser: Parser<'a, serde_saphyr::granit_parser::StrInput<'a>>,
    line: usize,
    column: usize,
    /// Comments, with their columns, that stood at the end of a map or list and further left than it: they are the
    /// outer one's. sops seals a comment for the place that its indentation says.
    left: Vec<(Comment, usize)>,
}

/// Comments at the end of what was read of a map or list, with their columns.
#[derive(Default)]
struct Tail(Vec<usize>);

impl Tail {
    fn comment<T>(&mut self, lines: &mut Vec<Line<T>>, comment: Comment, column: usize) {
        lines.push(Line::Comment(comment));
        self.0.push(column);
    }

    /// What stands further left than `own` goes to the outer one.
    fn end<T>(&mut self, lines: &mut Vec<Line<T>>, own: usize, left: &mut Vec<(Comment, usize)>) {
        let outer = self.0.iter().position(|column| *column < own).map_or(0, |at| self.0.len() - at);
        for (line, column) in lines.drain(lines.len() - outer..).zip(self.0.drain(self.0.len() - outer..)) {
            if let Line::Comment(comment) = line {
                left.push((comment, column));
            }
        }
    }
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<Event<'a>, Unreadable> {
        match self.parser.next() {
            Some(Ok((event, span))) => {
                (self.line, self.column) = (span.start.line(), span.start.col() + 1);
                Ok(event)
            }
            Some(Err(e)) => {
                (self.line, self.column) = (e.marker().line(), e.marker().col() + 1);
                Err(self.error("not valid YAML"))
            }
            None => Ok(Event::StreamEnd),
        }
    }

    fn error(&self, what: &'static str) -> Unreadable {
        Unreadable { line: self.line, column: self.column, what }
    }

    fn no_extras(&self, anchor: usize, tagged: bool) -> Result<(), Unreadable> {
        match (anchor, tagged) {
            (0, false) => Ok(()),
            (0, true) => Err(self.error("YAML tags are not supported")),
            _ => Err(self.error("YAML anchors are not supported")),
        }
    }

    fn map(&mut self, into: &mut Map) -> Result<(), Unreadable> {
        let mut seen = HashSet::new();
        let (own, mut tail) = (self.column, Tail::default());
        loop {
            let key = match self.next()? {
                Event::MappingEnd => {
                    tail.end(into, own, &mut self.left);
                    return Ok(());
                }
                Event::Comment(text, placement) => {
                    let comment = comment_of(into, text.into_owned(), placement);
                    // One behind an entry belongs to it, however far right or left the entry is.
                    let column = if comment.inline { usize::MAX } else { self.column };
                    tail.comment(into, comment, column);
                    continue;
                }
                Event::Scalar(text, style, anchor, tag) => {
                    self.no_extras(anchor, tag.is_some())?;
                    // sops refuses keys that YAML reads as something else than text.
                    if style == ScalarStyle::Plain && plain_kind(&text) != Some(Kind::Text) {
                        return Err(self.error("a key that is not text: write it in quotes"));
                    }
                    text.into_owned()
                }
                _ => return Err(self.error("a key must be text")),
            };
            if !seen.insert(key.clone()) {
                return Err(self.error("a key stands twice in one map"));
            }
            let mut above = Vec::new();
            let mut value = loop {
                match self.next()? {
                    Event::Comment(text, _) => above.push(Comment { text: text.into_owned(), inline: false }),
                    event => break self.node(event)?,
                }
            };
            match &mut value {
                Node::Map(inner) => drop(inner.splice(..0, above.into_iter().map(Line::Comment))),
                Node::List(inner) => drop(inner.splice(..0, above.into_iter().map(Line::Comment))),
                Node::Scalar(_) => into.extend(above.into_iter().map(Line::Comment)),
            }
            into.push(Line::Entry((key, value)));
            tail.0.clear();
            for (comment, column) in std::mem::take(&mut self.left) {
                tail.comment(into, comment, column);
            }
        }
    }

    fn list(&mut self) -> Result<Vec<Line<Node>>, Unreadable> {
        let mut items = Vec::new();
        let (own, mut tail) = (self.column, Tail::default());
        loop {
            match self.next()? {
                Event::SequenceEnd => {
                    tail.end(&mut items, own, &mut self.left);
                    return Ok(items);
                }
                Event::Comment(text, placement) => {
                    let comment = comment_of(&items, text.into_owned(), placement);
                    let column = if comment.inline { usize::MAX } else { self.column };
                    tail.comment(&mut items, comment, column);
                }
                event => {
                    let node = self.node(event)?;
                    items.push(Line::Entry(node));
                    tail.0.clear();
                    for (comment, column) in std::mem::take(&mut self.left) {
                        tail.comment(&mut items, comment, column);
                    }
                }
            }
        }
    }

    // Recursion ends: the parser refuses more than 255 levels.
    fn node(&mut self, event: Event<'a>) -> Result<Node, Unreadable> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                self.no_extras(anchor, tag.is_some())?;
                let raw = Raw { text: text.into_owned(), plain: style == ScalarStyle::Plain };
                Ok(Node::Scalar(Scalar { raw: Some(raw), value: None }))
            }
            Event::MappingStart(_, anchor, tag) => {
                self.no_extras(anchor, tag.is_some())?;
                let mut map = Vec::new();
                self.map(&mut map)?;
                Ok(Node::Map(map))
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.no_extras(anchor, tag.is_some())?;
                Ok(Node::List(self.list()?))
            }
            Event::Alias(_) => Err(self.error("YAML aliases are not supported")),
            _ => Err(self.error("not valid YAML")),
        }
    }
}

fn comment_of<T>(lines: &[Line<T>], text: String, placement: Placement) -> Comment {
    Comment { text, inline: placement == Placement::Right && !lines.is_empty() }
}

/// What an unquoted scalar is in the eyes of sops (go-yaml 3); `None` for forms on which readers differ (`0x10`,
/// `1e3`, dates), which are asked to be quoted where they are not encrypted.
pub(crate) fn plain_kind(text: &str) -> Option<Kind> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Some(Kind::Null),
        "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => return Some(Kind::Bool),
        _ => {}
    }
    let number = text.strip_prefix('-').unwrap_or(text);
    let digits = |s: &str| !s.is_empty() && s.bytes().all(|c| c.is_ascii_digit());
    let whole = |s: &str| digits(s) && (s == "0" || !s.starts_with('0'));
    if whole(number) {
        return Some(Kind::Int).filter(|k| k.canonical(text).is_some());
    }
    if number.split_once('.').is_some_and(|(a, b)| whole(a) && digits(b)) {
        return Some(Kind::Float);
    }
    match text.bytes().next() {
        Some(b'0'..=b'9' | b'+' | b'-' | b'.' | b'=' | b'<') => None,
        _ => Some(Kind::Text),
    }
}

/// Writes the document in the form `sops` gives it: indented by four.
pub(crate) fn emit(map: &Map) -> String {
    let mut out = String::new();
    emit_map(&mut out, map, 0);
    out
}

/// The indentation one level deeper: the next multiple of four, also from the odd place behind a dash.
fn deeper(indent: usize) -> usize {
    (indent / 4 + 1) * 4
}

fn emit_map(out: &mut String, map: &Map, indent: usize) {
    let mut inline_fits = false;
    for line in map {
        match line {
            Line::Comment(comment) => emit_comment(out, comment, indent, inline_fits),
            Line::Entry((key, node)) => {
                let _ = write!(out, "{:indent$}{}:", "", key_text(key));
                inline_fits = matches!(node, Node::Scalar(_));
                match node {
                    Node::Scalar(scalar) => inline_fits &= emit_scalar(out, scalar, deeper(indent)),
                    Node::Map(inner) if entries(inner).next().is_none() => out.push_str(" {}\n"),
                    Node::List(items) if entries(items).next().is_none() => out.push_str(" []\n"),
                    Node::Map(inner) => {
                        out.push('\n');
                        emit_map(out, inner, deeper(indent));
                    }
                    Node::List(items) => {
                        out.push('\n');
                        emit_list(out, items, deeper(indent));
                    }
                }
            }
        }
    }
}

fn emit_list(out: &mut String, items: &[Line<Node>], indent: usize) {
    let mut inline_fits = false;
    for line in items {
        let node = match line {
            Line::Comment(comment) => {
                emit_comment(out, comment, indent, inline_fits);
                continue;
            }
            Line::Entry(node) => node,
        };
        inline_fits = false;
        match node {
            Node::Scalar(scalar) => {
                let _ = write!(out, "{:indent$}-", "");
                inline_fits = emit_scalar(out, scalar, deeper(indent));
            }
            Node::Map(inner) if entries(inner).next().is_none() => {
                let _ = writeln!(out, "{:indent$}- {{}}", "");
            }
            Node::List(inner) if entries(inner).next().is_none() => {
                let _ = writeln!(out, "{:indent$}- []", "");
            }
            // The first line of what is inside shares its line with the dash: both are two wide.
            nested => {
                let start = out.len();
                match nested {
                    Node::Map(inner) => emit_map(out, inner, indent + 2),
                    Node::List(inner) => emit_list(out, inner, indent + 2),
                    Node::Scalar(_) => {}
                }
                out.replace_range(start + indent..start + indent + 2, "- ");
            }
        }
    }
}

fn emit_comment(out: &mut String, comment: &Comment, indent: usize, inline_fits: bool) {
    if comment.inline && inline_fits && out.ends_with('\n') {
        out.pop();
        let _ = writeln!(out, " #{}", comment.text);
    } else {
        let _ = writeln!(out, "{:indent$}#{}", "", comment.text);
    }
}

/// Writes a space and the scalar to the end of its line. `false` when it took several lines.
fn emit_scalar(out: &mut String, scalar: &Scalar, indent: usize) -> bool {
    // A scalar without `raw` was not passed through encryption; leaving it out is better than showing it.
    let Some(raw) = &scalar.raw else {
        out.push_str(" null\n");
        return true;
    };
    if raw.plain {
        let _ = writeln!(out, " {}", raw.text);
        return true;
    }
    if let Some(chomp) = literal_chomp(&raw.text) {
        let _ = writeln!(out, " |{chomp}");
        for line in raw.text.lines() {
            if line.is_empty() {
                out.push('\n');
            } else {
                let _ = writeln!(out, "{:indent$}{line}", "");
            }
        }
        return false;
    }
    let _ = writeln!(out, " {}", quoted(&raw.text));
    true
}

/// The chomping mark with which a literal block gives exactly this text, `None` when only quotes do.
fn literal_chomp(text: &str) -> Option<&'static str> {
    let body = text.strip_suffix('\n');
    let lines = body.unwrap_or(text);
    let fits = lines.contains('\n')
        && !lines.ends_with('\n')
        && !lines.starts_with([' ', '\n', '\t'])
        && lines.chars().all(|c| c == '\n' || c == '\t' || is_printable(c));
    fits.then_some(if body.is_some() { "" } else { "-" })
}

fn is_printable(c: char) -> bool {
    matches!(c, ' '..='~' | '\u{a0}'..='\u{2027}' | '\u{202a}'..='\u{d7ff}' | '\u{e000}'..='\u{fefe}'
        | '\u{ff00}'..='\u{fffd}' | '\u{10000}'..)
}

/// A double-quoted scalar (YAML 1.2, 7.3.1).
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if is_printable(c) => out.push(c),
            c => {
                let _ = write!(out, "\\U{:08X}", u32::from(c));
            }
        }
    }
    out.push('"');
    out
}

fn key_text(key: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || "_-./".contains(c);
    // Words that YAML 1.1 readers take for booleans are quoted as well.
    let boolean = ["y", "n", "yes", "no", "on", "off"].iter().any(|w| key.eq_ignore_ascii_case(w));
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(word)
        && plain_kind(key) == Some(Kind::Text)
        && !boolean;
    if plain { key.to_string() } else { quoted(key) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SAMPLE: &str = "#head\n#ENC[AES256_GCM,data:x]\ncluster:\n    #inside\n    token: ENC[a,b] # right\n    \
        \"yes\": \"a \\\" b\"\n    empty: {}\n    none: []\nlist:\n    - one\n    # between\n    - a: 1\n      \
        b:\n        - two\n    - - x\n      - y\npem: |\n    -----BEGIN-----\n\n    x\nnothing: null\n# last\n";

    #[test]
    fn a_document_is_written_as_it_was_read() {
        let map = parse(SAMPLE).unwrap();
        assert_eq!(emit(&map), SAMPLE);
    }

    #[test]
    fn a_comment_belongs_where_its_indentation_says() {
        let text = "a:\n    b:\n        - 1\n        # the list's\n    # a's\n    c:\n        d: 1\n        # c's\n    # a's too\n\
            # the document's\ne: 1\n";
        assert_eq!(emit(&parse(text).unwrap()), text);
    }

    #[test]
    fn flow_and_odd_layout_become_block_and_stay_equal() {
        let map = parse("a: {b: [1, 'two'], c: \"x\\ty\"}\nd: >-\n  folded\n  text\n").unwrap();
        let text = emit(&map);
        assert_eq!(
            text,
            "a:\n    b:\n        - 1\n        - \"two\"\n    c: \"x\\ty\"\nd: \"folded text\"\n"
        );
        assert_eq!(emit(&parse(&text).unwrap()), text);
    }

    #[test]
    fn what_sops_would_not_write_is_refused_with_its_place() {
        for (text, what, line) in [
            ("a: &x 1\n", "YAML anchors are not supported", 1),
            ("a: 1\nb: *x\n", "not valid YAML", 2),
            ("a: !!binary aGk=\n", "YAML tags are not supported", 1),
            ("a: 1\na: 2\n", "a key stands twice in one map", 2),
            ("a: 1\n---\nb: 1\n", "more than one YAML document", 2),
            ("- a\n", "the document must be a map", 1),
            ("12: a\n", "a key that is not text: write it in quotes", 1),
            ("", "the document is empty", 1),
            ("a:\n\t- b\n", "not valid YAML", 2),
        ] {
            let error = parse(text).err().unwrap_or_else(|| panic!("accepted {text:?}"));
            assert_eq!((error.what, error.line), (what, line), "{text:?}");
        }
    }

    #[test]
    fn unquoted_scalars_have_the_type_that_go_sees() {
        assert_eq!(plain_kind("12"), Some(Kind::Int));
        assert_eq!(plain_kind("-1.5"), Some(Kind::Float));
        assert_eq!(plain_kind("yes"), Some(Kind::Text));
        assert_eq!(plain_kind("~"), Some(Kind::Null));
        for unsure in ["0x10", "1e3", "2026-01-01", "010", ".5", "99999999999999999999", "+1"] {
            assert_eq!(plain_kind(unsure), None, "{unsure}");
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(text in "\\PC{0,20}(\n\\PC{0,20}){0,3}", key in "\\PC{1,12}") {
            let map = vec![Line::Entry((key.clone(), Scalar::quoted(text.clone())))];
            let back = parse(&emit(&map)).unwrap();
            prop_assert_eq!(crate::tree::find(&back, &key).and_then(Node::raw_text), Some(text.as_str()));
        }

        #[test]
        fn any_bytes_are_read_or_refused(text in "[a-c:\\-#\\[\\]{}&*!|>'\" \n\t]{0,40}") {
            if let Ok(map) = parse(&text) {
                let written = emit(&map);
                let again = parse(&written);
                prop_assert!(again.is_ok(), "{text:?} became {written:?}");
            }
        }
    }
}
