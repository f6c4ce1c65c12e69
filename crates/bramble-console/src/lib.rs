//! The only crate that prints: progress, tables, diagnostics, errors.
//!
//! Data goes to standard output, talk to standard error. Colour follows `NO_COLOR`, `CLICOLOR_FORCE` and whether
//! the stream is a terminal, unless told otherwise.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the crate that prints")]

mod diagnostic;
mod exit;
mod progress;
pub mod site;
mod table;

pub use exit::Exit;
pub use progress::{Mode, Progress};
pub use table::Table;

use anstyle::{AnsiColor, Style};
use std::io::IsTerminal;

/// Whether to colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Colour {
    /// As the environment and the stream say.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// Applies the choice of colour to everything printed from here on.
pub fn set_colour(colour: Colour) {
    match colour {
        Colour::Auto => anstream::ColorChoice::Auto,
        Colour::Always => anstream::ColorChoice::Always,
        Colour::Never => anstream::ColorChoice::Never,
    }
    .write_global();
}

/// Whether a person sits at the terminal and can be asked.
pub fn interactive() -> bool {
    std::io::stdin().is_terminal() && std::io::stderr().is_terminal()
}

/// Prints data: what the user asked for, to standard output.
pub fn data(text: &str) {
    anstream::print!("{text}");
    if !text.ends_with('\n') && !text.is_empty() {
        anstream::println!();
    }
}

/// Prints a value as JSON to standard output.
pub fn json(value: &impl serde::Serialize) {
    if let Ok(text) = serde_json::to_string_pretty(value) {
        data(&text);
    }
}

/// Says something to the person, to standard error.
pub fn say(text: &str) {
    anstream::eprintln!("{text}");
}

/// Asks a question and reads one line; `None` without a terminal or at end of input.
pub fn ask(question: &str, default: &str) -> Option<String> {
    if !interactive() {
        return None;
    }
    anstream::eprint!("{question} [{default}] ");
    let mut line = String::new();
    if std::io::stdin().read_line(&mut line).ok()? == 0 {
        return None;
    }
    let line = line.trim();
    Some(if line.is_empty() { default.to_string() } else { line.to_string() })
}

/// Says what failed, why, and what to try: a line each.
pub fn error(what: &str, causes: &[String], hint: Option<&str>) {
    let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
    let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
    anstream::eprintln!("{red}error{red:#}: {what}");
    for cause in causes {
        anstream::eprintln!("  because: {cause}");
    }
    if let Some(hint) = hint {
        anstream::eprintln!("{cyan}hint{cyan:#}: {hint}");
    }
}

/// Warns: the act goes on.
pub fn warning(text: &str) {
    let yellow = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
    anstream::eprintln!("{yellow}warning{yellow:#}: {text}");
}

/// Shows what is wrong with a file, all at once, with carets.
pub fn diagnostics(name: &str, source: &str, list: &[bramble_spec::Diagnostic]) {
    for one in list {
        anstream::eprintln!("{}\n", diagnostic::render(name, source, one));
    }
}

/// Text without colour.
pub fn plain(text: &str) -> String {
    anstream::adapter::strip_str(text).to_string()
}

/// Columns of the terminal on standard output; 80 where there is none.
pub fn width() -> usize {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_col >= 40 => usize::from(size.ws_col),
        _ => 80,
    }
}

/// Removes what a terminal would act on (control characters, right-to-left marks) from foreign text.
pub fn harmless(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\t' => ' ',
            c if c.is_control() => '\u{fffd}',
            '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => '\u{fffd}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(super::harmless("a\u{1b}[31mb\u{202e}c\td"), "a\u{fffd}[31mb\u{fffd}c d");
    }
}
