//! Another card for a machine: because one died, because one was stolen, because a person wants it.

use super::gates::takes;
use super::{Builder, How};
use bramble_api::site::inventory::quorum;
use bramble_api::site::{Act, Change, Machine, Member, Permission, WaitingOn};

impl Builder<'_> {
    pub(super) fn do_replace(&mut self) -> usize {
        let open = self.open("card");
        for (name, change) in &open {
            let Change::Card(card) = change else { continue };
            let machine = self.machine(name);
            let part = machine.joined.is(&true) || machine.votes();
            let asked = self.asked.replace.contains_key(name);
            let mut shut = Vec::new();
            if card.from > card.to {
                let (from, to) = (format!("card {}", card.from), format!("card {}", card.to));
                shut.push(WaitingOn::Back { from, to });
            } else if part && asked {
                shut = self.leaves(name, &machine);
                if shut.is_empty() {
                    let act = Act::Replace { from: card.from, to: card.to, member: machine.votes() };
                    let drain = machine.is_on() && machine.ready.is(&true);
                    let takes = takes::TELL + if drain { takes::DRAIN } else { 0 };
                    let how = How { drain, takes, chained: true, ..How::default() };
                    let why = "another card was asked for; this one is refused from here on";
                    self.step(name, &format!("card-{}", card.to), act, why, how);
                }
            }
            if shut.is_empty() {
                shut.push(WaitingOn::Flash { node: name.clone() });
            }
            self.hold(name, "card", shut);
        }
        open.len()
    }

    /// Gates of taking a machine out: the datastore must be able to agree to it, and go on without.
    pub(super) fn leaves(&self, name: &str, machine: &Machine) -> Vec<WaitingOn> {
        let mut shut = self.always(name);
        if self.seen.api.get().is_none() {
            shut.push(WaitingOn::Api { why: self.seen.api.why.clone() });
        } else if machine.is_on() && machine.ready.is(&true) {
            shut.extend(self.drains(name));
        }
        if !machine.votes() {
            return shut;
        }
        let (voters, healthy) = self.seen.voters();
        if voters <= 1 {
            shut.push(WaitingOn::LastControlPlane { node: name.to_string() });
            return shut;
        }
        let left = healthy - usize::from(machine.member.is(&Member::Voter));
        let permitted = self.asked.allow.contains(&Permission::Outage(name.to_string()));
        // To agree to it needs today's quorum; to go on needs that of the rest.
        let needed = quorum(voters);
        if healthy < needed || (left < quorum(voters - 1) && !permitted) {
            shut.push(WaitingOn::Quorum { node: name.to_string(), voters, healthy, needed });
        }
        shut
    }
}
