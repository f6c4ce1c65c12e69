//! The document in clear, for a person's eyes and editor, and back.
//!
//! A value or comment that comes back as it was keeps its ciphertext, so that a file under version control changes
//! only where somebody changed it.

use super::{SECTION, SecretsFile};
use crate::cipher;
use crate::secret::{Secret, SecretText};
use crate::tree::{Comment, Kind, Line, Map, Node, Raw, Scalar, at, entries};
use crate::yaml;

/// An edited document is not one that can be kept. Quotes nothing of it: it is made of secrets.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClearError {
    /// It is no YAML that sops writes.
    #[error("line {line}, column {column}: {what}")]
    Yaml {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
        /// What is wrong there.
        what: &'static str,
    },
    /// Readers of YAML differ on what an unquoted value is.
    #[error("`{at}`: readers differ on what this is (a number, a date?): write it in quotes")]
    Unquoted {
        /// Keys to the value, joined with dots.
        at: String,
    },
    /// sops' own section is not edited.
    #[error("`sops` is the name of sops' own section: use another key")]
    Section,
}

impl SecretsFile {
    /// The whole document in clear, as YAML with its comments.
    pub fn clear_text(&self) -> SecretText {
        self.clear_map(&self.top, &mut Vec::new())
    }

    /// What is at this path in clear: a text as it is, a map or list as YAML. `None` when nothing is there.
    pub fn clear_at(&self, path: &[&str]) -> Option<SecretText> {
        match at(&self.top, path)? {
            Node::Scalar(scalar) => {
                let shown = clear_scalar(scalar);
                Some(Secret::new(shown.raw.map(|raw| raw.text).unwrap_or_default()))
            }
            Node::Map(map) => Some(self.clear_map(map, &mut path.iter().map(|k| k.to_string()).collect())),
            Node::List(items) => {
                let mut keys: Vec<String> = path.iter().map(|k| k.to_string()).collect();
                let last = keys.last().cloned().unwrap_or_default();
                let items = self.clear_list(items, &mut keys);
                Some(Secret::new(yaml::emit(&vec![Line::Entry((last, Node::List(items)))])))
            }
        }
    }

    fn clear_map(&self, map: &Map, keys: &mut Vec<String>) -> SecretText {
        Secret::new(yaml::emit(&self.clear_lines(map, keys)))
    }

    fn clear_lines(&self, map: &Map, keys: &mut Vec<String>) -> Map {
        let mut lines = Vec::with_capacity(map.len());
        for line in map {
            lines.push(match line {
                Line::Comment(comment) => Line::Comment(self.clear_comment(comment, keys)),
                Line::Entry((key, node)) => {
                    keys.push(key.clone());
                    let node = self.clear_node(node, keys);
                    keys.pop();
                    Line::Entry((key.clone(), node))
                }
            });
        }
        lines
    }

    fn clear_list(&self, items: &[Line<Node>], keys: &mut Vec<String>) -> Vec<Line<Node>> {
        let mut lines = Vec::with_capacity(items.len());
        for line in items {
            lines.push(match line {
                Line::Comment(comment) => Line::Comment(self.clear_comment(comment, keys)),
                Line::Entry(node) => Line::Entry(self.clear_node(node, keys)),
            });
        }
        lines
    }

    fn clear_node(&self, node: &Node, keys: &mut Vec<String>) -> Node {
        match node {
            Node::Scalar(scalar) => Node::Scalar(clear_scalar(scalar)),
            Node::Map(map) => Node::Map(self.clear_lines(map, keys)),
            Node::List(items) => Node::List(self.clear_list(items, keys)),
        }
    }

    /// A comment that does not decrypt is shown as it lies there: sops leaves such comments alone too.
    fn clear_comment(&self, comment: &Comment, keys: &[String]) -> Comment {
        let text = self.comment_text(comment, keys);
        Comment {
            text: text.map_or_else(|| comment.text.clone(), |t| t.expose().clone()),
            inline: comment.inline,
        }
    }

    /// The text of an encrypted comment; `None` of one that is not, or that does not decrypt in its place.
    ///
    /// A comment's place is the map or list that it stands in. sops and this crate may differ on whether one that
    /// stands between two belongs to the outer or the inner, so the outer ones are tried too.
    pub(super) fn comment_text(&self, comment: &Comment, keys: &[String]) -> Option<SecretText> {
        (0..=keys.len())
            .rev()
            .find_map(|depth| cipher::decrypt_comment(&self.key, &keys[..depth], &comment.text))
    }

    /// Takes over an edited document. In memory: [`SecretsFile::save`] writes. `false` when nothing changed.
    pub fn set_clear_text(&mut self, text: &SecretText) -> Result<bool, ClearError> {
        let text = text.expose();
        // An editor leaves an empty file behind; so does somebody who removes everything.
        let blank = text.lines().all(|l| l.trim().is_empty());
        let mut fresh = match yaml::parse(text) {
            Ok(map) => map,
            Err(_) if blank => Map::new(),
            Err(e) => return Err(ClearError::Yaml { line: e.line, column: e.column, what: e.what }),
        };
        if entries(&fresh).any(|(key, _)| key == SECTION) {
            return Err(ClearError::Section);
        }
        let keys = &mut Vec::new();
        take_types(&mut fresh, &self.top, keys)?;
        let changed = self.keep_old(&mut fresh, &self.top, &mut Vec::new());
        if changed {
            self.top = fresh;
            self.changed = true;
        }
        Ok(changed)
    }

    /// Gives what did not change its old form back. `true` when anything is not as it was.
    fn keep_old(&self, fresh: &mut Map, old: &Map, keys: &mut Vec<String>) -> bool {
        let mut changed = fresh.len() != old.len();
        let mut unused: Vec<&Comment> = comments(old).collect();
        let mut olds = entries(old);
        for line in fresh.iter_mut() {
            match line {
                Line::Comment(comment) => changed |= self.keep_comment(comment, &mut unused, keys),
                Line::Entry((key, node)) => {
                    // Another order is a change as well: the checksum goes over the values in theirs.
                    changed |= olds.next().is_none_or(|(k, _)| k != key);
                    keys.push(key.clone());
                    changed |= match crate::tree::find(old, key) {
                        Some(before) => self.keep_node(node, before, keys),
                        None => {
                            self.seal_comments(node, keys);
                            true
                        }
                    };
                    keys.pop();
                }
            }
        }
        changed || olds.next().is_some()
    }

    fn keep_node(&self, node: &mut Node, old: &Node, keys: &mut Vec<String>) -> bool {
        match (node, old) {
            (Node::Scalar(new), Node::Scalar(old)) => match (&new.value, &old.value) {
                (Some((kind, text)), Some((old_kind, old_text)))
                    if kind == old_kind && text.expose() == old_text.expose() =>
                {
                    new.raw = old.raw.as_ref().map(|raw| Raw { text: raw.text.clone(), plain: raw.plain });
                    false
                }
                _ => true,
            },
            (Node::Map(new), Node::Map(old)) => self.keep_old(new, old, keys),
            (Node::List(new), Node::List(old)) => {
                let mut changed = new.len() != old.len();
                let mut unused: Vec<&Comment> = comments(old).collect();
                let mut olds = entries(old);
                for line in new.iter_mut() {
                    changed |= match line {
                        Line::Comment(comment) => self.keep_comment(comment, &mut unused, keys),
                        Line::Entry(node) => match olds.next() {
                            Some(before) => self.keep_node(node, before, keys),
                            None => {
                                self.seal_comments(node, keys);
                                true
                            }
                        },
                    };
                }
                changed || olds.next().is_some()
            }
            (node, _) => {
                self.seal_comments(node, keys);
                true
            }
        }
    }

    /// A comment that was there keeps its form; a new one is marked to be encrypted where values are.
    fn keep_comment(&self, comment: &mut Comment, unused: &mut Vec<&Comment>, keys: &[String]) -> bool {
        let same = unused.iter().position(|old| {
            old.text == comment.text
                || self.comment_text(old, keys).is_some_and(|text| *text.expose() == comment.text)
        });
        match same {
            // The first of the unused ones: one that moved is a change.
            Some(place) => {
                comment.text = unused.remove(place).text.clone();
                place != 0
            }
            None => {
                self.seal_comment(comment, keys);
                true
            }
        }
    }

    fn seal_comment(&self, comment: &mut Comment, keys: &[String]) {
        if self.rule.encrypts(keys)
            && let Ok(sealed) = cipher::encrypt_comment(&self.key, keys, &comment.text)
        {
            comment.text = sealed;
        }
    }

    fn seal_comments(&self, node: &mut Node, keys: &mut Vec<String>) {
        match node {
            Node::Scalar(_) => {}
            Node::Map(map) => {
                for line in map {
                    match line {
                        Line::Comment(comment) => self.seal_comment(comment, keys),
                        Line::Entry((key, node)) => {
                            keys.push(key.clone());
                            self.seal_comments(node, keys);
                            keys.pop();
                        }
                    }
                }
            }
            Node::List(items) => {
                for line in items {
                    match line {
                        Line::Comment(comment) => self.seal_comment(comment, keys),
                        Line::Entry(node) => self.seal_comments(node, keys),
                    }
                }
            }
        }
    }
}

fn comments<T>(lines: &[Line<T>]) -> impl Iterator<Item = &Comment> {
    lines.iter().filter_map(|line| match line {
        Line::Comment(comment) => Some(comment),
        Line::Entry(_) => None,
    })
}

/// A scalar as its meaning is written.
pub(super) fn clear_scalar(scalar: &Scalar) -> Scalar {
    let raw = match &scalar.value {
        None | Some((Kind::Null, _)) => Raw { text: "null".into(), plain: true },
        Some((Kind::Text, text)) => Raw { text: text.expose().clone(), plain: false },
        Some((Kind::Bool, text)) => Raw { text: text.expose().to_lowercase(), plain: true },
        Some((_, text)) => Raw { text: text.expose().clone(), plain: true },
    };
    Scalar { raw: Some(raw), value: None }
}

/// Gives every scalar of an edited document its value, by its form; the form itself goes.
fn take_types(fresh: &mut Map, old: &Map, keys: &mut Vec<String>) -> Result<(), ClearError> {
    for line in fresh {
        if let Line::Entry((key, node)) = line {
            keys.push(key.clone());
            take_type(node, crate::tree::find(old, key), keys)?;
            keys.pop();
        }
    }
    Ok(())
}

fn take_type(node: &mut Node, old: Option<&Node>, keys: &mut Vec<String>) -> Result<(), ClearError> {
    match node {
        Node::Map(map) => match old {
            Some(Node::Map(old)) => take_types(map, old, keys),
            _ => take_types(map, &Map::new(), keys),
        },
        Node::List(items) => {
            let mut olds = match old {
                Some(Node::List(old)) => entries(old).collect(),
                _ => Vec::new(),
            }
            .into_iter();
            for line in items {
                if let Line::Entry(node) = line {
                    take_type(node, olds.next(), keys)?;
                }
            }
            Ok(())
        }
        Node::Scalar(scalar) => {
            let Some(raw) = scalar.raw.take() else { return Ok(()) };
            let text = Secret::new(raw.text);
            let before = match old {
                Some(Node::Scalar(Scalar { value: Some(value), .. })) => Some(value),
                _ => None,
            };
            let kind = if raw.plain { yaml::plain_kind(text.expose()) } else { Some(Kind::Text) };
            scalar.value = match (kind, before) {
                (Some(Kind::Null), _) => Some((Kind::Null, Secret::new(String::new()))),
                (Some(kind), _) => kind.canonical(text.expose()).map(|t| (kind, Secret::new(t))),
                // A time, or a number in a form of sops' own, that nobody touched.
                (None, Some((kind, old))) if old.expose() == text.expose() => Some((*kind, text)),
                (None, _) => None,
            };
            match scalar.value {
                Some(_) => Ok(()),
                None => Err(ClearError::Unquoted { at: keys.join(".") }),
            }
        }
    }
}

#[cfg(test)]
#[path = "clear_tests.rs"]
mod tests;
