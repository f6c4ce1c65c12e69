//! Words that a device says of itself.

use std::fmt;

/// Text from a device, the kernel or a medium. It is compared as it came, and shown without what a terminal would
/// act on: a stick may call itself anything.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Foreign(String);

impl Foreign {
    /// Takes the text, without the padding that buses put around it.
    pub fn new(text: &str) -> Foreign {
        Foreign(text.trim_matches(|c: char| c.is_whitespace() || c == '\0').to_string())
    }

    /// The text as it came, for comparing; never for showing.
    pub fn raw(&self) -> &str {
        &self.0
    }

    /// Whether nothing was said.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether the text is shown exactly as it came, so that a person can type what they see.
    pub fn is_plain(&self) -> bool {
        !self.0.chars().any(hidden)
    }
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name longer than this is no name; columns should not suffer for it.
        const LONGEST: usize = 64;
        for c in self.0.chars().take(LONGEST) {
            fmt::Write::write_char(f, if hidden(c) { '\u{fffd}' } else { c })?;
        }
        if self.0.chars().count() > LONGEST { f.write_str("…") } else { Ok(()) }
    }
}

/// Characters that steer a terminal, turn the direction of writing, or cannot be seen (Unicode general categories
/// Cc, and the parts of Cf, Zl, Zp that do so).
fn hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_not_shown_and_still_told_apart() {
        let evil = Foreign::new(" \u{202e}ksid\u{1b}[2J\u{200b}\0");
        assert_eq!(evil.to_string(), "\u{fffd}ksid\u{fffd}[2J\u{fffd}");
        assert!(!evil.is_plain());
        assert_ne!(evil, Foreign::new("\u{202d}ksid\u{1b}[2J\u{200b}"));
        assert!(Foreign::new("Żółw ストレージ").is_plain());
        assert!(Foreign::new(&"x".repeat(4096)).to_string().chars().count() == 65);
    }
}
