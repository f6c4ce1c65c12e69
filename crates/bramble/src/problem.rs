//! The one place where errors become a message, a hint and an exit code.

use bramble_console::Exit;
use bramble_effects::{Class, Failure};
use bramble_exec::{ProjectError, RunError};

/// What a command ends with when it does not end well.
#[derive(Debug)]
pub enum Problem {
    /// The file has errors, already shown.
    File {
        /// How many.
        errors: usize,
        /// Which file.
        name: String,
    },
    /// An act failed.
    Failure(Failure),
}

impl Problem {
    /// Shows the problem.
    pub fn show(&self) {
        match self {
            Problem::File { errors, name } => {
                let s = if *errors == 1 { "" } else { "s" };
                bramble_console::error(&format!("{name} has {errors} error{s}"), &[], None);
            }
            Problem::Failure(failure) => {
                let mut causes = Vec::new();
                let mut next = std::error::Error::source(failure);
                while let Some(cause) = next {
                    causes.push(bramble_console::harmless(&cause.to_string()));
                    next = cause.source();
                }
                bramble_console::error(&failure.what, &causes, failure.hint.as_deref());
            }
        }
    }

    /// The exit code.
    pub fn exit(&self) -> Exit {
        match self {
            Problem::File { .. } => Exit::User,
            Problem::Failure(failure) => match failure.class {
                Class::User => Exit::User,
                Class::Retry => Exit::Retry,
                Class::Interrupted => Exit::Interrupted,
                Class::Bug => Exit::Bug,
            },
        }
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        Problem::Failure(failure)
    }
}

impl From<ProjectError> for Problem {
    fn from(error: ProjectError) -> Self {
        Problem::Failure(project_failure(error))
    }
}

/// A project error in a person's words.
pub fn project_failure(error: ProjectError) -> Failure {
    match &error {
        ProjectError::Busy { .. } => {
            Failure::retry(error.to_string()).hint("wait for it to end, then run this again")
        }
        ProjectError::Lock { .. } => Failure::user(error.to_string())
            .hint("restore bramble.lock from git, or use the tool that wrote it"),
        ProjectError::Io { .. } => {
            let what = error.to_string();
            let ProjectError::Io { source, .. } = error else { return Failure::bug(what) };
            Failure::user(what).source(source)
        }
    }
}

impl From<RunError> for Problem {
    fn from(error: RunError) -> Self {
        match error {
            RunError::Step { failure, .. } => Problem::Failure(failure),
            RunError::Unsound(_) => Problem::Failure(Failure::bug(error.to_string())),
        }
    }
}
