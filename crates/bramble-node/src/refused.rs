//! An act on a path that the system refused.

use std::io;
use std::path::{Path, PathBuf};

/// An act on a path that the system refused. What and where are fields; why is the source.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {}", path.display())]
pub struct Refused {
    /// What was being done: a verb in the infinitive, "mount".
    pub act: &'static str,
    /// To what.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

/// Says of an operating system's answer what was being done to what.
pub trait At<T> {
    /// Names the act and the path.
    fn at(self, act: &'static str, path: impl AsRef<Path>) -> Result<T, Refused>;
}

impl<T, E: Into<io::Error>> At<T> for Result<T, E> {
    fn at(self, act: &'static str, path: impl AsRef<Path>) -> Result<T, Refused> {
        self.map_err(|error| Refused { act, path: path.as_ref().to_path_buf(), source: error.into() })
    }
}

/// An error and its causes as one line: `cannot mount /dev/x: No such device`.
pub fn line(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text.replace('\n', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_reads_as_one_line() {
        let refused =
            Err::<(), _>(io::Error::new(io::ErrorKind::NotFound, "gone\naway")).at("open", "/x").unwrap_err();
        assert_eq!(line(&refused), "cannot open /x: gone away");
    }
}
