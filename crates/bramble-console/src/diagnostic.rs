//! Diagnostics with the line, a caret and a hint, in rustc's style.

use annotate_snippets::{AnnotationKind, Group, Level, Renderer, Snippet};
use bramble_spec::{Diagnostic, Severity};

/// Longest part of a line that is shown; a longer one is cut around the place.
const SHOWN: usize = 160;

/// One diagnostic, without a line end.
pub(crate) fn render(name: &str, source: &str, one: &Diagnostic) -> String {
    let level = match one.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let line = source.lines().nth(one.line.saturating_sub(1) as usize).unwrap_or("");
    let characters: Vec<char> = line.chars().map(|c| if c == '\t' { ' ' } else { c }).collect();
    let column = (one.column.saturating_sub(1) as usize).min(characters.len());
    let first = if characters.len() <= SHOWN { 0 } else { column.saturating_sub(SHOWN / 2) };
    let shown: String = characters.iter().skip(first).take(SHOWN).collect();
    let shown = crate::harmless(&shown);
    let start = column - first;
    let end = (start + one.length.max(1) as usize).min(shown.chars().count()).max(start);
    let byte = |n: usize| shown.char_indices().nth(n).map_or(shown.len(), |(i, _)| i);
    let label = one.label.as_str();
    let annotation = AnnotationKind::Primary.span(byte(start)..byte(end));
    let annotation = if label.is_empty() { annotation } else { annotation.label(label) };
    let snippet = Snippet::source(shown.as_str())
        .line_start(one.line.max(1) as usize)
        .path(name)
        .annotation(annotation);
    let mut groups = vec![level.primary_title(one.message.as_str()).id(one.code).element(snippet)];
    if let Some(hint) = &one.hint {
        groups.push(Group::with_title(Level::HELP.secondary_title(hint.as_str())));
    }
    Renderer::styled().render(&groups)
}
