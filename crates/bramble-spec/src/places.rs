//! Where each value of a file stands, by its path.

use crate::tree::{Mark, Node, Value};
use std::collections::HashMap;

/// A place in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// From 1.
    pub line: u32,
    /// In characters, from 1.
    pub column: u32,
}

/// Where each value of a file stands, by its path: `spec.nodes[1].address`.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// Mark of the key (of the item in a list) and of the value.
    marks: HashMap<String, (Mark, Mark)>,
}

impl Places {
    pub(crate) fn of(root: &Node) -> Self {
        let mut places = Places::default();
        places.marks.insert(String::new(), (root.mark, root.mark));
        places.walk(root, &mut String::new());
        places
    }

    fn walk(&mut self, node: &Node, path: &mut String) {
        let length = path.len();
        match &node.value {
            Value::Scalar { .. } | Value::Alias => {}
            Value::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    path.push_str(&format!("[{index}]"));
                    self.marks.insert(path.clone(), (item.mark, item.mark));
                    self.walk(item, path);
                    path.truncate(length);
                }
            }
            Value::Map(entries) => {
                for entry in entries {
                    if !path.is_empty() {
                        path.push('.');
                    }
                    path.push_str(&entry.key);
                    self.marks.insert(path.clone(), (entry.key_mark, entry.value.mark));
                    self.walk(&entry.value, path);
                    path.truncate(length);
                }
            }
        }
    }

    /// Where the value of a path stands; `None` when the file does not state it.
    pub fn get(&self, path: &str) -> Option<Place> {
        let (_, mark) = self.marks.get(path)?;
        Some(Place { line: mark.line, column: mark.column })
    }

    /// Where the key of a path stands.
    pub(crate) fn key(&self, path: &str) -> Option<Mark> {
        self.marks.get(path).map(|(key, _)| *key)
    }

    /// Where a value stands, or the nearest mapping around it that the file states.
    pub(crate) fn value_or_parent(&self, path: &str) -> Mark {
        let mut path = path;
        loop {
            if let Some((_, mark)) = self.marks.get(path) {
                return *mark;
            }
            match path.rfind(['.', '[']) {
                Some(at) => path = &path[..at],
                None => return self.marks.get("").map(|(_, mark)| *mark).unwrap_or_default(),
            }
        }
    }
}
