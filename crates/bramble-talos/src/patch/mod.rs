//! Patches, with the results of Talos' own patcher.
//!
//! Talos has two kinds: a *strategic merge* is part of a config, laid over it by the types of its fields
//! ([`strategic`]); *RFC 6902* is a list of operations on one document ([`operations`]). The conformance tests hold
//! random pairs of config and patch against the real patcher.

mod operations;
mod strategic;

use crate::config::Documents;
use crate::versions::Release;
use crate::yaml::{self, ReadError, Value};
use operations::Operation;
use strategic::Deletion;

/// A patch that was read.
#[derive(Clone, Debug)]
pub enum Patch {
    /// Parts of a config.
    Strategic(Vec<Part>),
    /// Operations on the main document.
    Operations(Vec<Operation>),
}

/// One document of a strategic patch: what it takes away, then what it lays over.
#[derive(Clone, Debug)]
pub struct Part {
    deletions: Vec<Deletion>,
    document: Option<yaml::Map>,
}

/// A patch cannot be read or applied. Names places, never values.
#[derive(Debug, thiserror::Error)]
pub enum PatchError {
    /// It is not YAML.
    #[error("it is not YAML")]
    Yaml(#[source] ReadError),
    /// It is neither kind of patch.
    #[error("it is no patch: {0}")]
    Kind(String),
    /// It does not fit what it is applied to.
    #[error("at `{place}`: {what}")]
    Fit {
        /// Where: keys joined with dots, or a JSON pointer.
        place: String,
        /// What is wrong.
        what: String,
    },
}

impl Patch {
    /// Reads a patch: documents of a config, or a list of operations (JSON is YAML too).
    ///
    /// # Errors
    /// Text that is neither, and an empty one: nobody writes a patch that does nothing.
    pub fn read(text: &str) -> Result<Patch, PatchError> {
        Patch::of(yaml::read(text).map_err(PatchError::Yaml)?)
    }

    /// The same from values.
    ///
    /// # Errors
    /// As [`Patch::read`].
    pub fn of(mut documents: Vec<Value>) -> Result<Patch, PatchError> {
        match documents.as_slice() {
            [] => Err(PatchError::Kind("it is empty".into())),
            [Value::List(_)] => {
                let Some(Value::List(items)) = documents.pop() else {
                    return Err(PatchError::Kind("it is empty".into()));
                };
                operations::read(items).map(Patch::Operations)
            }
            _ => documents.into_iter().map(strategic::part).collect::<Result<_, _>>().map(Patch::Strategic),
        }
    }

    /// Applies the patch as this release does.
    ///
    /// Operations go to the main document: Talos' own patcher takes them only where there is no other, and every
    /// config of today has others.
    ///
    /// # Errors
    /// What does not fit the config.
    pub fn apply(&self, config: &mut Documents, release: Release) -> Result<(), PatchError> {
        match self {
            Patch::Strategic(parts) => {
                parts.iter().try_for_each(|part| strategic::apply(part, config, release))
            }
            Patch::Operations(list) => {
                let place = config.0.iter().position(|document| document.get("kind").is_none());
                let Some(document) = place.and_then(|place| config.0.get_mut(place)) else {
                    return Err(PatchError::Kind("there is no document that operations could change".into()));
                };
                let mut value = Value::Map(std::mem::take(document));
                let outcome = list.iter().try_for_each(|operation| operations::apply(operation, &mut value));
                if let Value::Map(map) = value {
                    *document = map;
                }
                outcome
            }
        }
    }
}

#[cfg(test)]
mod tests;
