//! One value out of apt's own configuration.
//!
//! Format: `apt.conf(5)`. `Name::Of::It "value";`, or `Name { Of::It "value"; };` to any depth; comments by `//`, `#` and
//! `/* */`; names without regard to case; the last statement holds.

use std::path::Path;

/// The last value that apt's configuration below `root` gives to `name`, such as `Acquire::Check-Valid-Until`.
/// Unreadable files count as absent.
pub(super) fn value(root: &Path, name: &str) -> Option<String> {
    let apt = root.join("etc/apt");
    let mut files: Vec<_> = std::fs::read_dir(apt.join("apt.conf.d"))
        .map(|entries| entries.filter_map(|entry| Some(entry.ok()?.path())).collect())
        .unwrap_or_default();
    // apt passes over backups and half-installed files by their extension.
    files.retain(|path: &std::path::PathBuf| path.extension().is_none_or(|e| e == "conf"));
    files.sort();
    files.push(apt.join("apt.conf"));
    files.iter().filter_map(|path| in_text(&std::fs::read_to_string(path).ok()?, name)).next_back()
}

fn in_text(text: &str, name: &str) -> Option<String> {
    let (mut found, mut scopes, mut words) = (None, Vec::<String>::new(), Vec::<String>::new());
    for token in tokens(text) {
        match token {
            Token::Word(word) => words.push(word),
            Token::Open => scopes.push(std::mem::take(&mut words).into_iter().next().unwrap_or_default()),
            Token::Close => {
                words.clear();
                scopes.pop();
            }
            Token::End => {
                let mut statement = std::mem::take(&mut words).into_iter();
                if let (Some(key), Some(value)) = (statement.next(), statement.next()) {
                    let path = scopes.iter().filter(|s| !s.is_empty()).cloned().chain([key]);
                    if path.collect::<Vec<_>>().join("::").eq_ignore_ascii_case(name) {
                        found = Some(value);
                    }
                }
            }
        }
    }
    found
}

enum Token {
    Word(String),
    Open,
    Close,
    End,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let after = &rest[first.len_utf8()..];
        rest = match first {
            '{' | '}' | ';' => {
                tokens.push(match first {
                    '{' => Token::Open,
                    '}' => Token::Close,
                    _ => Token::End,
                });
                after
            }
            '"' => {
                let (word, after) = after.split_once('"').unwrap_or((after, ""));
                tokens.push(Token::Word(word.to_string()));
                after
            }
            '#' => after.split_once('\n').map_or("", |(_, after)| after),
            '/' if after.starts_with('/') => after.split_once('\n').map_or("", |(_, after)| after),
            '/' if after.starts_with('*') => after.split_once("*/").map_or("", |(_, after)| after),
            _ if first.is_whitespace() => after,
            _ => {
                let ends = |c: char| c.is_whitespace() || "{};\"".contains(c);
                let (word, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
                tokens.push(Token::Word(word.to_string()));
                after
            }
        };
    }
    tokens
}

/// What apt takes for `false` (`StringToBool`).
pub(super) fn is_false(word: &str) -> bool {
    ["no", "false", "without", "off", "disable", "0"].iter().any(|no| word.eq_ignore_ascii_case(no))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "Acquire::Check-Valid-Until";

    #[test]
    fn every_way_to_write_it() {
        for text in [
            "Acquire::Check-Valid-Until \"false\";",
            "acquire::check-valid-until false;",
            "Acquire { Check-Valid-Until \"false\"; };",
            "Acquire { Retries 3; http { Proxy \"http://p.example:3128/\"; }; Check-Valid-Until \"false\"; }",
            "// Acquire::Check-Valid-Until \"true\";\n# x\n/* Acquire { */ Acquire::Check-Valid-Until \"false\";",
            "Acquire::Check-Valid-Until \"true\";\nAcquire::Check-Valid-Until \"false\";",
        ] {
            assert_eq!(in_text(text, NAME).as_deref(), Some("false"), "{text}");
        }
    }

    #[test]
    fn nothing_where_nothing_is_said() {
        for text in [
            "",
            "Acquire::Check-Valid-Until",
            "Acquire { Check",
            "\"",
            "/*",
            "}};;{",
            "APT { Check-Valid-Until false; };",
        ] {
            assert_eq!(in_text(text, NAME), None, "{text}");
        }
    }

    #[test]
    fn the_last_file_holds_and_backups_are_passed_over() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/apt/apt.conf.d");
        std::fs::create_dir_all(&dir).unwrap();
        assert_eq!(value(root.path(), NAME), None);
        std::fs::write(dir.join("10first"), "Acquire::Check-Valid-Until \"true\";").unwrap();
        std::fs::write(dir.join("99last"), "Acquire::Check-Valid-Until \"false\";").unwrap();
        std::fs::write(dir.join("99last.dpkg-old"), "Acquire::Check-Valid-Until \"yes\";").unwrap();
        assert_eq!(value(root.path(), NAME).as_deref(), Some("false"));
        std::fs::write(root.path().join("etc/apt/apt.conf"), "Acquire::Check-Valid-Until \"yes\";").unwrap();
        assert_eq!(value(root.path(), NAME).as_deref(), Some("yes"));
    }
}
