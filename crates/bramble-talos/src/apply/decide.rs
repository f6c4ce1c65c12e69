//! What to do next, from what was seen. Pure.

use super::look::{Ours, Seen};
use super::{Likeness, Wanted};
use crate::config::Role;
use crate::machine::{CallError, Hardware};
use std::net::SocketAddr;

/// What is written down of the founding of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Founding {
    /// Who was chosen to begin etcd: no other machine ever is told to.
    pub founder: Option<String>,
    /// It has begun.
    pub founded: bool,
}

/// Something to do to one machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Give its first config to a machine in maintenance mode. It installs Talos.
    Push {
        /// Which.
        node: String,
        /// Where it is now.
        address: SocketAddr,
        /// The key of its certificate.
        fingerprint: String,
    },
    /// Give another config to a machine that has one.
    Configure {
        /// Which.
        node: String,
        /// What differs, by place.
        difference: Vec<String>,
    },
    /// Tell it to begin etcd.
    Bootstrap {
        /// Which.
        node: String,
    },
}

/// Something that is wanted and cannot be done now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Which machine, or what.
    pub subject: String,
    /// What it waits for, one sentence.
    pub on: String,
}

/// What to do next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// To be done now, in this order.
    pub acts: Vec<Act>,
    /// What is not done, and why.
    pub waiting: Vec<Waiting>,
    /// What is now known of the founding.
    pub founding: Founding,
}

impl Decision {
    /// Everything is as the file wants it.
    pub fn settled(&self) -> bool {
        self.acts.is_empty() && self.waiting.is_empty()
    }
}

/// Decides. `seen` has one entry for each machine of `wanted`.
pub fn decide(wanted: &[Wanted], seen: &[Seen], founding: &Founding) -> Decision {
    let all: Vec<(&Wanted, &Seen)> = wanted.iter().zip(seen).collect();
    let mut decision = Decision { founding: founding.clone(), ..Decision::default() };
    let members: Vec<&str> = all
        .iter()
        .filter_map(|(_, seen)| if let Seen::Ours(ours) = seen { Some(&ours.members) } else { None })
        .flatten()
        .map(String::as_str)
        .collect();
    for (wanted, seen) in &all {
        match one(wanted, seen, &members) {
            Ok(Some(act)) => decision.acts.push(act),
            Ok(None) => {}
            Err(on) => decision.waiting.push(Waiting { subject: wanted.name.clone(), on }),
        }
    }
    found(&all, &mut decision);
    // A machine that waits for etcd alone waits for what is about to be done.
    for (wanted, seen) in &all {
        let Seen::Ours(ours) = seen else { continue };
        let at_work = decision.acts.iter().any(|act| act.node() == wanted.name);
        if !at_work && !ours.stage.ready && !decision.waiting.iter().any(|w| w.subject == wanted.name) {
            decision.waiting.push(Waiting { subject: wanted.name.clone(), on: unready(ours) });
        }
    }
    decision
}

impl Act {
    /// Which machine it is for.
    pub fn node(&self) -> &str {
        match self {
            Act::Push { node, .. } | Act::Configure { node, .. } | Act::Bootstrap { node } => node,
        }
    }
}

/// What one machine wants, or what it waits for.
fn one(wanted: &Wanted, seen: &Seen, members: &[&str]) -> Result<Option<Act>, String> {
    let address = wanted.address;
    match seen {
        Seen::Silent(error) => Err(silent(wanted, error)),
        Seen::Foreign => Err(format!(
            "the machine at {address} to be of this cluster: it has a config already, whose authority is not in the \
             secrets file; nothing was said to it. If it is yours, import the bundle that it was made with, or reset it"
        )),
        Seen::Maintenance { address, fingerprint, running, hardware } => {
            match wanted.known_by.compare(hardware) {
                Likeness::Same => {}
                Likeness::Unknown => {
                    return Err(format!(
                        "`mac` in the file: a machine waits at {address} for a config ({}; fingerprint {fingerprint}), \
                         and nothing says that it is the one",
                        described(hardware)
                    ));
                }
                Likeness::Other { missing } => {
                    return Err(format!(
                        "the machine with {missing}: the one at {address} has not ({}; fingerprint {fingerprint})",
                        described(hardware)
                    ));
                }
            }
            if !same_line(&running.version, wanted) {
                return Err(format!(
                    "a medium of Talos {}: the machine was started from {}, which does not know the config of the \
                     other",
                    wanted.version, running.version
                ));
            }
            if members.contains(&wanted.name.as_str()) {
                return Err(
                    "etcd to forget its member of this name: the machine is new and would not be let in. \
                     `talosctl etcd remove-member` on another control plane takes it out"
                        .to_string(),
                );
            }
            let (node, fingerprint) = (wanted.name.clone(), fingerprint.to_string());
            Ok(Some(Act::Push { node, address: *address, fingerprint }))
        }
        Seen::Ours(ours) => {
            if !same_line(&ours.running.version, wanted) {
                return Err(format!(
                    "an upgrade: it runs {}, the file says {}; its config stays as it is until then",
                    ours.running.version, wanted.version
                ));
            }
            if !ours.difference.is_empty() {
                return Ok(Some(Act::Configure {
                    node: wanted.name.clone(),
                    difference: ours.difference.clone(),
                }));
            }
            if ours.running.version != wanted.version.to_string() {
                return Err(format!(
                    "an upgrade: it runs {}, the file says {}",
                    ours.running.version, wanted.version
                ));
            }
            Ok(None)
        }
    }
}

/// Whether the config of the file's release is one that the release at hand reads.
fn same_line(running: &str, wanted: &Wanted) -> bool {
    running
        .parse::<bramble_spec::Version>()
        .is_ok_and(|running| (running.major, running.minor) == (wanted.version.major, wanted.version.minor))
}

fn silent(wanted: &Wanted, error: &CallError) -> String {
    let mut causes = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        causes.push_str(": ");
        causes.push_str(&cause.to_string());
        next = cause.source();
    }
    match error {
        CallError::Unreachable { .. } => format!("an answer at {}: {causes}", wanted.address),
        _ => format!("a better answer: {causes}"),
    }
}

fn unready(ours: &Ours) -> String {
    let stage = if ours.stage.stage.is_empty() { "unknown" } else { &ours.stage.stage };
    match ours.stage.unmet.as_slice() {
        [] => format!("it to be ready; it is at the stage {stage}"),
        unmet => format!("{} (stage {stage})", unmet.join(", ")),
    }
}

fn described(hardware: &Hardware) -> String {
    let mut parts = vec![format!("network cards {}", hardware.macs.join(" "))];
    if !hardware.serial.is_empty() {
        parts.push(format!("serial {}", hardware.serial));
    }
    if !hardware.uuid.is_empty() {
        parts.push(format!("UUID {}", hardware.uuid));
    }
    let disks: Vec<String> = hardware.disks.iter().map(|d| format!("{} {}", d.path, d.serial)).collect();
    if !disks.is_empty() {
        parts.push(format!("disks {}", disks.join(" ")));
    }
    parts.join(", ")
}

/// Whether etcd is to be begun, and where. Two machines that begin it are two clusters, so this errs on the side of
/// waiting.
fn found(all: &[(&Wanted, &Seen)], decision: &mut Decision) {
    let planes: Vec<_> = all.iter().filter(|(wanted, _)| wanted.role == Role::ControlPlane).collect();
    let ours = |seen: &Seen| if let Seen::Ours(ours) = seen { Some(ours.clone()) } else { None };
    if planes.iter().any(|(_, seen)| ours(seen).is_some_and(|o| o.member)) {
        decision.founding.founded = true;
        return;
    }
    let mut wait = |on: String| {
        decision.waiting.push(Waiting { subject: "etcd".into(), on });
    };
    if decision.founding.founded {
        let absent: Vec<&str> =
            planes.iter().filter(|(_, seen)| ours(seen).is_none()).map(|(w, _)| w.name.as_str()).collect();
        wait(match absent.as_slice() {
            [] => "a member: the cluster was founded, and no control plane has its data any more or yet. When none \
                   comes back, restore a snapshot"
                .into(),
            absent => format!("the control planes that have it: {} did not answer as of this cluster", absent.join(", ")),
        });
        return;
    }
    let founder = match &decision.founding.founder {
        Some(name) => planes.iter().find(|(wanted, _)| wanted.name == *name),
        None => {
            // Nothing says that the cluster is new: any machine that does not answer could have it.
            let unseen =
                |(wanted, _): &&(&Wanted, &Seen)| !decision.acts.iter().any(|act| act.node() == wanted.name);
            let hidden: Vec<&str> = planes
                .iter()
                .copied()
                .filter(|(_, seen)| ours(seen).is_none())
                .filter(|plane| unseen(plane))
                .map(|(wanted, _)| wanted.name.as_str())
                .collect();
            if !hidden.is_empty() {
                wait(format!(
                    "every control plane to be seen once, so that no second cluster is founded beside one that is \
                     there: {} missing",
                    hidden.join(", ")
                ));
                return;
            }
            planes.first()
        }
    };
    let Some((wanted, seen)) = founder else {
        let name = decision.founding.founder.clone().unwrap_or_default();
        wait(format!("{name}, which was told to begin it and is no control plane of the file any more"));
        return;
    };
    match ours(seen) {
        Some(ours) if ours.difference.is_empty() => {
            decision.founding.founder = Some(wanted.name.clone());
            decision.acts.push(Act::Bootstrap { node: wanted.name.clone() });
        }
        _ => wait(format!("{}, which begins it", wanted.name)),
    }
}
