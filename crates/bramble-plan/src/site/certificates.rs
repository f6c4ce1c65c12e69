//! Certificates that do not renew themselves, and new generations of authorities.

use super::differences::{due, issued};
use super::gates::takes;
use super::{Builder, How};
use bramble_api::plan::StepId;
use bramble_api::site::{Act, Change, Machine, Stage, WaitingOn};

impl Builder<'_> {
    pub(super) fn do_certificates(&mut self) -> usize {
        let open = self.open("certificates");
        for (name, change) in &open {
            let Change::Certificates { names } = change else { continue };
            let machine = self.machine(name);
            let shut = self.reach(name, &machine);
            if !shut.is_empty() {
                self.hold(name, "certificates", shut);
                continue;
            }
            let ends = due(&machine, self.now.epoch).map(|c| c.not_after).min().unwrap_or(self.now.epoch);
            let days = ends.saturating_sub(self.now.epoch) / 86_400;
            let why = match days {
                0 => "they end today or have ended".to_string(),
                days => format!("two thirds of their lives are over, they end in {days} days"),
            };
            let how = How { takes: takes::TELL, ..How::default() };
            self.step(name, "", Act::RenewCertificates { names: names.clone() }, why, how);
        }
        open.len()
    }

    /// Every stage is done on every machine before the next one begins: a machine that was left out would be locked out.
    pub(super) fn do_authorities(&mut self) -> usize {
        let open = self.open("authority");
        let mut names: Vec<(String, u32)> = Vec::new();
        for (_, change) in &open {
            if let Change::Authority { name, to } = change
                && !names.iter().any(|(known, _)| known == name)
            {
                names.push((name.clone(), *to));
            }
        }
        for (authority, to) in names {
            let mut before = Vec::new();
            for stage in [Stage::Trust, Stage::Issue, Stage::Distrust] {
                let (steps, missing) = self.rotate(&authority, to, stage, &before);
                before = steps;
                if !missing.is_empty() {
                    self.hold_rest(&authority, to, stage, &missing);
                    break;
                }
            }
        }
        open.len()
    }

    /// One stage. Gives its steps, and the machines that it could not be done on.
    fn rotate(
        &mut self,
        authority: &str,
        to: u32,
        stage: Stage,
        before: &[StepId],
    ) -> (Vec<StepId>, Vec<String>) {
        let (mut steps, mut missing) = (Vec::new(), Vec::new());
        for name in self.taking_part() {
            let machine = self.machine(&name);
            if has(&machine, authority, to, stage) {
                continue;
            }
            let shut = self.reach(&name, &machine);
            if !shut.is_empty() {
                self.hold(&name, "authority", shut);
                missing.push(name);
                continue;
            }
            let why = match stage {
                Stage::Trust => "a certificate of the new one must be believed before there is any",
                Stage::Issue => "every machine believes the new one",
                Stage::Distrust => "no machine has a certificate of the old one any more",
            };
            let act = Act::RotateAuthority { name: authority.to_string(), to, stage };
            let how = How { takes: takes::TELL, after: before.to_vec(), ..How::default() };
            steps.push(self.step(&name, &format!("{authority}-{to}-{}", stage.word()), act, why, how));
        }
        (steps, missing)
    }

    /// Machines that have our keys and keep their cards. One whose card is replaced is the reason, not a part.
    fn taking_part(&self) -> Vec<String> {
        let ours = |name: &str| self.seen.machines.get(name).is_some_and(Machine::is_ours);
        let wanted = self.wanted.nodes.iter().filter(|n| ours(&n.name));
        let kept = wanted.filter(|n| {
            let asked = self.asked.replace.contains_key(&n.name);
            !asked && self.seen.machines.get(&n.name).is_none_or(|m| !superseded(m, n.incarnation))
        });
        kept.map(|n| n.name.clone()).collect()
    }

    fn hold_rest(&mut self, authority: &str, to: u32, stage: Stage, missing: &[String]) {
        let what = format!("{} of authority {authority} {to}", stage.word());
        for (name, _) in self.open("authority") {
            if missing.contains(&name) {
                continue;
            }
            self.hold(
                &name,
                "authority",
                vec![WaitingOn::Everywhere { what: what.clone(), missing: missing.to_vec() }],
            );
        }
    }
}

fn superseded(machine: &Machine, incarnation: u32) -> bool {
    use bramble_api::site::Identity;
    matches!(machine.identity.get(), Some(Identity::Ours { incarnation: seen, .. }) if *seen != incarnation)
}

fn has(machine: &Machine, authority: &str, to: u32, stage: Stage) -> bool {
    let trusts = machine.trusts.get().and_then(|trusts| trusts.get(authority));
    match stage {
        Stage::Trust => trusts.is_some_and(|all| all.contains(&to)),
        Stage::Issue => issued(machine, authority, to),
        Stage::Distrust => trusts.is_some_and(|all| *all == [to]),
    }
}
