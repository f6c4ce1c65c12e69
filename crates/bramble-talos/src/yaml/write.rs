//! From trees to text, laid out as Talos lays out its own: four blanks a level, block style.

use super::{Map, Value};

const INDENT: usize = 4;

/// Writes documents with `---` between them.
pub fn write<'a>(documents: impl IntoIterator<Item = &'a Map>) -> String {
    let mut out = String::with_capacity(4096);
    for (index, document) in documents.into_iter().enumerate() {
        if index > 0 {
            out.push_str("---\n");
        }
        if document.is_empty() {
            out.push_str("{}\n");
        } else {
            map(&mut out, document, 0);
        }
    }
    out
}

fn blanks(out: &mut String, level: usize) {
    const BLANKS: &str = "                                ";
    let mut left = level * INDENT;
    while left > 0 {
        let part = left.min(BLANKS.len());
        out.push_str(&BLANKS[..part]);
        left -= part;
    }
}

fn map(out: &mut String, entries: &Map, level: usize) {
    for (index, (key, value)) in entries.iter().enumerate() {
        // The first key of a mapping in a list stands behind the dash.
        if index > 0 || !out.ends_with("- ") {
            blanks(out, level);
        }
        if is_plain(key) {
            out.push_str(key)
        } else {
            quoted(out, key)
        }
        out.push(':');
        under(out, value, level + 1);
    }
}

/// A value behind a key: on its line when it is small, else below it.
fn under(out: &mut String, value: &Value, level: usize) {
    match value {
        Value::Map(inner) if !inner.is_empty() => {
            out.push('\n');
            map(out, inner, level);
        }
        Value::List(items) if !items.is_empty() => {
            out.push('\n');
            list(out, items, level);
        }
        _ => {
            out.push(' ');
            small(out, value, level);
        }
    }
}

fn list(out: &mut String, items: &[Value], level: usize) {
    for item in items {
        blanks(out, level);
        out.push_str("- ");
        match item {
            // Two blanks: what is in an item stands under its first character, behind the dash.
            Value::Map(inner) if !inner.is_empty() => {
                let mut text = String::new();
                map(&mut text, inner, 0);
                hang(out, &text, level);
            }
            Value::List(inner) if !inner.is_empty() => {
                let mut text = String::new();
                list(&mut text, inner, 0);
                hang(out, &text, level);
            }
            Value::Text(text) if block(text) => {
                let mut inner = String::new();
                literal(&mut inner, text, "  ");
                hang(out, &inner, level);
            }
            _ => small(out, item, level + 1),
        }
    }
}

/// Puts text behind a dash, its further lines under its first.
fn hang(out: &mut String, text: &str, level: usize) {
    for (index, line) in text.lines().enumerate() {
        if index > 0 && !line.is_empty() {
            blanks(out, level);
            out.push_str("  ");
        }
        out.push_str(line);
        out.push('\n');
    }
}

fn small(out: &mut String, value: &Value, level: usize) {
    match value {
        Value::Plain(text) if text.is_empty() => out.push_str("null\n"),
        Value::Plain(text) => {
            out.push_str(text);
            out.push('\n');
        }
        Value::Text(text) if block(text) => {
            let mut indent = String::new();
            blanks(&mut indent, level);
            literal(out, text, &indent);
        }
        Value::Text(text) if is_plain(text) => {
            out.push_str(text);
            out.push('\n');
        }
        Value::Text(text) => {
            quoted(out, text);
            out.push('\n');
        }
        Value::List(_) => out.push_str("[]\n"),
        Value::Map(_) => out.push_str("{}\n"),
    }
}

/// Whether a text can stand as a literal block: several lines, nothing that a block would lose.
fn block(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n') | (text.ends_with('\n') && text.len() > 1)
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || (!c.is_control() && !is_odd(c)))
        && !text.lines().any(|line| !line.is_empty() && line.trim_end() != line)
        && !text.trim_end_matches('\n').is_empty()
}

/// Characters that YAML readers take for line breaks, or that must be escaped.
fn is_odd(c: char) -> bool {
    matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn literal(out: &mut String, text: &str, indent: &str) {
    let body = text.trim_end_matches('\n');
    out.push_str(match text.len() - body.len() {
        0 => "|-\n",
        1 => "|\n",
        _ => "|+\n",
    });
    for line in body.split('\n') {
        if !line.is_empty() {
            out.push_str(indent);
            out.push_str(line);
        }
        out.push('\n');
    }
    for _ in 1..text.len() - body.len() {
        out.push('\n');
    }
}

/// Whether a text stands for itself without quotes, for readers of YAML 1.1 and 1.2 alike.
fn is_plain(text: &str) -> bool {
    let bytes = text.as_bytes();
    let safe = |b: u8| {
        b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'_' | b'.'
                    | b'/'
                    | b'-'
                    | b'+'
                    | b'='
                    | b'@'
                    | b'<'
                    | b'>'
                    | b'('
                    | b')'
                    | b'$'
                    | b';'
                    | b'^'
                    | b'~'
                    | b','
                    | b'%'
                    | b'*'
                    | b'!'
                    | b'|'
                    | b'"'
                    | b'\''
                    | b'&'
                    | b'?'
            )
    };
    let Some(first) = bytes.first() else { return false };
    if !(first.is_ascii_alphanumeric() || matches!(first, b'/' | b'_' | b'(' | b'$' | b'+')) {
        return false;
    }
    let inner = bytes.iter().enumerate().all(|(i, b)| {
        // `: ` and ` #` end a plain scalar; a colon before anything else does not.
        let next = bytes.get(i + 1);
        safe(*b)
            || (*b == b':' && next.is_some_and(|n| *n != b' '))
            || (*b == b' ' && next.is_some_and(|n| *n != b'#' && *n != b' '))
    });
    inner && !means_something(text)
}

/// Whether a plain scalar would be read as something else than text by some reader.
fn means_something(text: &str) -> bool {
    let word = text.to_ascii_lowercase();
    if matches!(
        word.as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null" | "nan" | "inf"
    ) {
        return true;
    }
    // Numbers, dates, base-60 numbers: all begin with a digit or sign and have only these characters.
    let numeric = |b: u8| {
        b.is_ascii_digit()
            || matches!(
                b,
                b'.' | b'_'
                    | b':'
                    | b'-'
                    | b'+'
                    | b'e'
                    | b'E'
                    | b'x'
                    | b'o'
                    | b'b'
                    | b'T'
                    | b'Z'
                    | b't'
                    | b'z'
            )
            || b.is_ascii_hexdigit()
    };
    let first = text.as_bytes().first().copied().unwrap_or(b' ');
    if !(first.is_ascii_digit() || matches!(first, b'+' | b'-' | b'.')) {
        return false;
    }
    // An address has two dots: no number has.
    text.bytes().all(numeric) && text.bytes().filter(|b| *b == b'.').count() < 2
}

fn quoted(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() || is_odd(c) => {
                let code = c as u32;
                out.push_str(&if code < 0x100 { format!("\\x{code:02x}") } else { format!("\\u{code:04x}") });
            }
            c => out.push(c),
        }
    }
    out.push('"');
}
