//! What a model did and why, for a person.

use std::fmt;

/// What kind of line it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The firmware does this.
    Step,
    /// The firmware does this, and the owner of the disk will hardly want it.
    Warning,
    /// No source says what real firmware does here, or sources disagree: the model assumes what the line says.
    Doubt,
}

/// One line of a trace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its kind.
    pub kind: Kind,
    /// One sentence.
    pub text: String,
}

/// The lines of one decision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    lines: Option<Vec<Line>>,
}

impl Trace {
    /// A trace that keeps its lines.
    pub fn on() -> Self {
        Self { lines: Some(Vec::new()) }
    }

    /// A trace that keeps nothing: for millions of decisions of which only the outcome counts.
    pub fn off() -> Self {
        Self { lines: None }
    }

    /// The lines, in order.
    pub fn lines(&self) -> &[Line] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// The lines of a kind.
    pub fn of(&self, kind: Kind) -> impl Iterator<Item = &str> {
        self.lines().iter().filter(move |line| line.kind == kind).map(|line| line.text.as_str())
    }

    fn add(&mut self, kind: Kind, text: fmt::Arguments) {
        if let Some(lines) = &mut self.lines {
            lines.push(Line { kind, text: text.to_string() });
        }
    }

    pub(crate) fn step(&mut self, text: fmt::Arguments) {
        self.add(Kind::Step, text);
    }

    pub(crate) fn warn(&mut self, text: fmt::Arguments) {
        self.add(Kind::Warning, text);
    }

    pub(crate) fn doubt(&mut self, text: fmt::Arguments) {
        self.add(Kind::Doubt, text);
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in self.lines() {
            let mark = match line.kind {
                Kind::Step => "",
                Kind::Warning => "warning: ",
                Kind::Doubt => "not known for sure: ",
            };
            writeln!(f, "{mark}{}", line.text)?;
        }
        Ok(())
    }
}
