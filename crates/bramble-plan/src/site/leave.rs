//! Machines that are not in the file any more: out of the cluster, then erased. Each needs its own permission.

use super::gates::takes;
use super::{Builder, How};
use bramble_api::site::{Act, Cordon, Permission, Power, WaitingOn};

impl Builder<'_> {
    pub(super) fn do_remove(&mut self) -> usize {
        let open = self.open("leave");
        for (name, _) in &open {
            let machine = self.machine(name);
            let mut shut = self.leaves(name, &machine);
            let allow = Permission::Remove(name.clone());
            if !self.asked.allow.contains(&allow) {
                shut.push(WaitingOn::Permission { allow });
            }
            if !shut.is_empty() {
                self.hold(name, "leave", shut);
                continue;
            }
            let drain = machine.is_on() && machine.ready.is(&true);
            let takes = takes::TELL + if drain { takes::DRAIN } else { 0 };
            let how = How { drain, takes, chained: true, ..How::default() };
            let act = Act::Remove { member: machine.votes() };
            self.step(name, "", act, "it is not in the file any more", how);
        }
        open.len()
    }

    pub(super) fn do_erase(&mut self) -> usize {
        let open = self.open("erase");
        for (name, _) in &open {
            let mut shut = self.reach(name, &self.machine(name));
            let allow = Permission::Wipe(name.clone());
            if !self.asked.allow.contains(&allow) {
                shut.push(WaitingOn::Permission { allow });
            }
            if shut.is_empty() {
                let after = self.steps.iter().filter(|s| s.node == *name).map(|s| s.id.clone()).collect();
                let how = How { takes: takes::TELL, after, ..How::default() };
                self.step(name, "", Act::Reset, "it has our keys, and is not in the file any more", how);
            } else {
                self.hold(name, "erase", shut);
            }
        }
        open.len()
    }

    /// What a run of before kept pods off and did not come back to. A machine that a step of this plan drains anyhow is
    /// let go by that step.
    pub(super) fn do_uncordon(&mut self) -> usize {
        let open = self.open("cordon");
        for (name, _) in &open {
            let machine = self.machine(name);
            let mut shut = self.reach(name, &machine);
            if machine.power.is(&Power::On) && !machine.ready.is(&true) {
                shut.push(WaitingOn::NotReady { node: name.clone() });
            }
            if shut.is_empty() {
                let who = match machine.cordon.get() {
                    Some(Cordon::Ours { holder, .. }) => holder.as_str(),
                    _ => "a run of before",
                };
                let why = format!("{who} kept pods off it, and nothing is left to do there");
                let how = How { takes: takes::TELL, ..How::default() };
                self.step(name, "", Act::Uncordon, why, how);
            } else {
                self.hold(name, "cordon", shut);
            }
        }
        open.len()
    }
}
