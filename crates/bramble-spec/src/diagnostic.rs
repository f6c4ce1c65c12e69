//! What is wrong with a file, as data. The console draws the carets from the source and these figures.

use crate::tree::Mark;
use serde::Serialize;

/// Whether a finding stops the file from being used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used; a person should look.
    Warning,
}

/// One finding in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// Whether it stops the file.
    pub severity: Severity,
    /// Stable name of the kind of finding, in kebab case: `unknown-key`.
    pub code: &'static str,
    /// One sentence, without place and without a full stop.
    pub message: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Number of characters to underline; at least 1, never beyond the line.
    pub length: u32,
    /// A few words for under the caret; may be empty.
    pub label: String,
    /// What to try.
    pub hint: Option<String>,
}

impl Diagnostic {
    pub(crate) fn error(code: &'static str, mark: Mark, message: impl Into<String>) -> Self {
        Self {
            severity: Severity::Error,
            code,
            message: message.into(),
            line: mark.line,
            column: mark.column,
            length: mark.length.max(1),
            label: String::new(),
            hint: None,
        }
    }

    pub(crate) fn warning(code: &'static str, mark: Mark, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, mark, message) }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn maybe_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl std::fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.message)?;
        match &self.hint {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

/// Everything found in a file that cannot be used: at least one error, and the warnings, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Diagnostics {
    /// Name of the file, as the caller gave it.
    pub name: String,
    /// The findings.
    pub list: Vec<Diagnostic>,
}

impl Diagnostics {
    /// Number of errors, warnings not counted.
    pub fn errors(&self) -> usize {
        self.list.iter().filter(|d| d.severity == Severity::Error).count()
    }
}

impl std::fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, diagnostic) in self.list.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{}:{diagnostic}", self.name)?;
        }
        Ok(())
    }
}

impl std::error::Error for Diagnostics {}

/// The known name nearest to `word`, when one is near enough to be meant.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // A megabyte of garbage in the place of a key is not a misspelling, and comparing it costs its length.
    if word.chars().count() > 64 {
        return None;
    }
    let plain = |s: &str| s.to_lowercase().replace(['-', '_'], "");
    let word = plain(word);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&word, &plain(name)), name))
        // One slip for each three letters: `versoin` finds `version`, `foo` does not find `dns`.
        .filter(|(distance, name)| *distance <= name.chars().count().max(3) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}
