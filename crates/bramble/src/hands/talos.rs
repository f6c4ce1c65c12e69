//! Performs the steps of a plan on Talos machines.

use bramble_api::event::Outcome;
use bramble_api::lock::{Founder, Lock};
use bramble_api::plan::{Step, StepId, StepKind};
use bramble_effects::{Class, Context, Failure, Hand};
use bramble_exec::Project;
use bramble_talos::apply::{self, ActError, Wanted};
use bramble_talos::machine::{CallError, Code, Credentials};
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Talks to machines, and keeps in the lock who founds the cluster.
pub(crate) struct TalosHand<'a> {
    /// The project, for its lock.
    pub(crate) project: &'a Project,
    /// The lock as it stands in memory; written before the cluster is founded and after.
    pub(crate) lock: Mutex<Lock>,
    /// The machines of the file.
    pub(crate) wanted: &'a [Wanted],
    /// What opens them.
    pub(crate) credentials: &'a Credentials,
    /// Machines may reboot.
    pub(crate) reboot: bool,
    /// What each step last said of a machine that was not ready: said once.
    pub(crate) said: Mutex<BTreeMap<StepId, String>>,
}

impl Hand for TalosHand<'_> {
    /// A machine that goes away in the middle, or is not ready yet, stops nobody: the next look finds how far it is.
    fn perform(&self, step: &Step, context: &Context<'_>) -> Result<Outcome, Failure> {
        match self.act(step, context) {
            Err(failure) if failure.class == Class::Retry => {
                let text = failure.chain();
                let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                if said.get(&step.id) != Some(&text) {
                    context.warn(format!("{text}; it is looked at again"));
                    said.insert(step.id.clone(), text);
                }
                Ok(Outcome::Unchanged)
            }
            ended => ended,
        }
    }
}

impl TalosHand<'_> {
    fn act(&self, step: &Step, context: &Context<'_>) -> Result<Outcome, Failure> {
        let (now, stop) = (crate::commands::now(), context.cancel.shared());
        match &step.kind {
            StepKind::TalosPush { node, address, fingerprint } => {
                let wanted = self.wanted(node)?;
                context.note(format!("{}, key {fingerprint}", address.ip()));
                let pushed = apply::push(wanted, *address, fingerprint, self.credentials, now, &stop);
                let applied = pushed.map_err(failure)?;
                applied.warnings.into_iter().for_each(|warning| context.warn(warning));
                Ok(Outcome::Done)
            }
            StepKind::TalosConfigure { node } => {
                let wanted = self.wanted(node)?;
                let applied = apply::configure(wanted, self.reboot, self.credentials, now, &stop);
                let applied = applied.map_err(failure)?;
                applied.warnings.into_iter().for_each(|warning| context.warn(warning));
                if applied.reboots {
                    context.note("it reboots");
                }
                Ok(Outcome::Done)
            }
            StepKind::TalosBootstrap { node } => {
                let wanted = self.wanted(node)?;
                // Written down before it is told to: whatever happens after, no other machine will ever be.
                self.keep(|lock| {
                    let incarnation = lock.allocated.nodes.get(node).map_or(0, |n| n.incarnation);
                    lock.allocated.founder.get_or_insert(Founder { node: node.clone(), incarnation });
                })?;
                let already = apply::bootstrap(wanted, self.credentials, now, &stop).map_err(failure)?;
                Ok(if already { Outcome::Unchanged } else { Outcome::Done })
            }
            _ => Err(Failure::bug(format!("step {} is not for a Talos machine", step.id))),
        }
    }

    fn wanted(&self, node: &str) -> Result<&Wanted, Failure> {
        let found = self.wanted.iter().find(|wanted| wanted.name == node);
        found.ok_or_else(|| Failure::bug(format!("the plan names {node}, which the file does not have")))
    }

    /// Changes the lock and writes it, when that makes a difference.
    pub(crate) fn keep(&self, change: impl FnOnce(&mut Lock)) -> Result<(), Failure> {
        let mut lock = self.lock.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut lock);
        self.project.write_lock(&lock).map_err(crate::problem::project_failure)
    }
}

/// What became of an act, in a person's words.
fn failure(error: ActError) -> Failure {
    let what = error.to_string();
    let passing = error.passing();
    let hint = match &error {
        ActError::Config { .. } => Some(
            "`bramble render` shows the config; `talos.patches` and `talos.volumes` are laid over the rest",
        ),
        ActError::Reboots { .. } => {
            Some("run `bramble apply --reboot` when the machine may be away for some minutes")
        }
        ActError::Call(CallError::Refused { code: Code::Unimplemented, .. }) => {
            Some("is the machine's Talos older than 1.13, or the machine no control plane?")
        }
        ActError::Call(CallError::Refused { code: Code::PermissionDenied, .. }) => Some(
            "the machine accepts this bundle's certificate and not its role: look at `machine.features.rbac`",
        ),
        ActError::Call(CallError::Stopped { .. }) => return Failure::interrupted(),
        _ => None,
    };
    let failure = if passing { Failure::retry(what) } else { Failure::user(what) };
    let failure = match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    };
    match error {
        ActError::Call(error) => match std::error::Error::source(&error) {
            Some(cause) => failure.source(cause.to_string()),
            None => failure,
        },
        ActError::Config { source, .. } => match std::error::Error::source(&source) {
            Some(cause) => failure.source(cause.to_string()),
            None => failure.source(source),
        },
        ActError::NotYet { source, .. } => failure.source(source),
        ActError::Other { .. } | ActError::Reboots { .. } => failure,
    }
}
