//! Writing a node onto a disk that a person meant, and onto no other.
//!
//! [`choose`] finds the disk, [`guard`] decides about it, [`write`](mod@write) writes and reads it back, [`journal`]
//! lets a broken run go on. The one way to bytes on a disk is a [`guard::Confirmed`], which only the guard makes.

pub mod choose;
pub mod content;
pub mod guard;
pub mod journal;
mod reason;
pub mod write;

pub use content::Content;
pub use guard::{Confirmed, Expect, Identity, KnownCard, Question, Request, Verdict};
pub use reason::Refusal;
pub use write::{FlashError, Job, Phase, Report, Told, flash};

#[cfg(test)]
mod guard_tests;
#[cfg(test)]
mod sim;
#[cfg(test)]
mod sim_tests;
#[cfg(test)]
mod write_tests;
