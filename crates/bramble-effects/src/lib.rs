//! The seams through which the world is touched, so that the executor and a simulator share them.
//!
//! A step is performed by a [`Hand`]; what it tells goes to a [`Sink`]; when it must stop it is told by
//! [`Cancel`]; what time it is it asks a [`Clock`]. Nothing here does anything.

use bramble_api::event::{Event, Outcome};
use bramble_api::plan::{Step, StepId};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Tells the time. Decisions take the time as an argument; only acts ask for it.
pub trait Clock: Sync {
    /// Seconds since 1970-01-01 UTC.
    fn now(&self) -> u64;
}

/// Receives the one stream of events.
pub trait Sink: Sync {
    /// Takes an event. Must not block for long: steps call it from their inner loops.
    fn event(&self, event: Event);
}

/// Asked between two units of work: shall we stop? Cloned into every thread that works.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<AtomicBool>);

impl Cancel {
    /// Asks everything that holds a clone to stop at its next safe place.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Whether to stop.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }

    /// The flag itself, for libraries that take one.
    pub fn flag(&self) -> &AtomicBool {
        &self.0
    }

    /// The shared flag, for signal handlers.
    pub fn shared(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.0)
    }
}

/// What a step may use while it runs.
pub struct Context<'a> {
    /// Which step.
    pub step: &'a StepId,
    /// Where its events go.
    pub sink: &'a dyn Sink,
    /// When it must stop.
    pub cancel: &'a Cancel,
}

impl Context<'_> {
    /// Tells how far the step is.
    pub fn progress(&self, done: u64, total: u64, unit: bramble_api::event::Unit, detail: &str) {
        self.sink.event(Event::Progress {
            step: self.step.clone(),
            done,
            total,
            unit,
            detail: detail.to_string(),
        });
    }

    /// Tells a person something about the step.
    pub fn note(&self, text: impl Into<String>) {
        self.sink.event(Event::Note { step: self.step.clone(), text: text.into() });
    }

    /// Tells a person that something is not as it should be.
    pub fn warn(&self, text: impl Into<String>) {
        self.sink.event(Event::Warning { step: self.step.clone(), text: text.into() });
    }
}

/// Whose turn it is after a failure; decides the exit code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The user can mend it.
    User,
    /// Wait or run again.
    Retry,
    /// It was interrupted; running again goes on.
    Interrupted,
    /// A bug of ours.
    Bug,
}

/// Why an act failed, in a person's words: what was being done, to what, why, what to try.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct Failure {
    /// What was being done, and to what.
    pub what: String,
    /// Whose turn it is.
    pub class: Class,
    /// What to try.
    pub hint: Option<String>,
    /// Why it failed.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Failure {
    /// A failure that the user can mend.
    pub fn user(what: impl Into<String>) -> Self {
        Failure { what: what.into(), class: Class::User, hint: None, source: None }
    }

    /// A failure that goes away by running again.
    pub fn retry(what: impl Into<String>) -> Self {
        Failure { class: Class::Retry, ..Failure::user(what) }
    }

    /// The user interrupted the act.
    pub fn interrupted() -> Self {
        Failure {
            class: Class::Interrupted,
            ..Failure::user("interrupted; run the same command again to go on")
        }
    }

    /// A bug of ours.
    pub fn bug(what: impl Into<String>) -> Self {
        Failure { class: Class::Bug, ..Failure::user(what) }
    }

    /// With what to try.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With the cause.
    pub fn source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// What failed and every cause, one line, `: ` between them.
    pub fn chain(&self) -> String {
        let mut text = self.what.clone();
        let mut next = std::error::Error::source(self);
        while let Some(cause) = next {
            text.push_str(": ");
            text.push_str(&cause.to_string());
            next = cause.source();
        }
        text
    }
}

/// Performs steps. Each act first looks whether its result is already there.
pub trait Hand: Sync {
    /// Performs one step, or finds that there is nothing left to do.
    fn perform(&self, step: &Step, context: &Context<'_>) -> Result<Outcome, Failure>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause_once() {
        let cause = std::io::Error::other("no such disk");
        let failure = Failure::user("cannot write n1.img").source(cause).hint("insert a disk");
        assert_eq!(failure.chain(), "cannot write n1.img: no such disk");
    }

    #[test]
    fn a_clone_of_cancel_sees_the_request() {
        let cancel = Cancel::default();
        let other = cancel.clone();
        assert!(!other.is_cancelled());
        cancel.cancel();
        assert!(other.is_cancelled());
    }
}
