//! Runs a plan's steps through the hands: events, journal, resumable.

mod cards;
mod hands;
mod journal;
pub mod keys;
mod openssh;
mod project;
mod run;
mod vault;

pub use cards::LabCards;
pub use hands::{
    Builder, DiskPiece, NodeDisk, Publishing, kubectl, lab_firmware, node_disk, node_document, node_settings,
    published,
};
pub use journal::{Journal, JournalError};
pub use project::{Guard, Project, ProjectError, replace};
pub use run::{RunError, Summary, run};
pub use vault::Vault;
