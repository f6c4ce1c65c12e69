//! Runs a plan's steps through the hands: events, journal, resumable.

mod journal;
mod project;
mod openssh;
mod run;
mod vault;

pub use journal::{Journal, JournalError};
pub use project::{Guard, Project, ProjectError, replace};
pub use vault::Vault;
pub use run::{RunError, Summary, run};
