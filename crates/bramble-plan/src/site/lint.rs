//! Small checks of a plan, made before it runs and independent of the planner: they walk the steps over the inventory, one
//! after another, and look at the site before and after each.
//!
//! An error is a fault of ours, and the plan must not run. A warning is for the person who says yes.

use super::wanted::Wanted;
use super::{Asked, Now, differences, project};
use bramble_api::names::Role;
use bramble_api::plan::StepId;
use bramble_api::site::inventory::quorum;
use bramble_api::site::{
    Act, Git, Identity, Inventory, Machine, Member, Note, Os, Permission, Power, Severity, SitePlan,
    SiteStep, Stage, WaitingOn,
};
use std::collections::BTreeSet;

/// Everything that is checked, in the order of the checks.
pub fn lint(plan: &SitePlan, wanted: &Wanted, inventory: &Inventory, now: Now, asked: &Asked) -> Vec<Note> {
    let mut walk = Walk { wanted, now, asked, notes: Vec::new() };
    walk.shape(plan);
    let mut seen = inventory.clone();
    let mut last: Option<&StepId> = None;
    let mut elapsed = 0;
    for step in &plan.steps {
        let machine = seen.machines.get(&step.node).cloned().unwrap_or_default();
        walk.is_ours(step, &machine);
        walk.is_permitted(plan, step, &seen);
        walk.is_not_held(step);
        walk.answers(step, &machine);
        walk.keeps_quorum(step, &machine, &seen);
        walk.keeps_skew(step, &machine, &seen);
        walk.goes_forward(step, &machine);
        walk.keeps_ingress(step, &machine, &seen);
        walk.keeps_volumes(step, &machine);
        walk.keeps_the_way_in(step);
        walk.is_in_its_window(step, elapsed);
        walk.goes_one_at_a_time(step, &mut last);
        walk.does_not_lock_out(step, &seen);
        walk.tries_a_worker_first(step, &seen);
        if step.disrupts() {
            elapsed += step.takes;
        }
        project(&mut seen, wanted, step, now.epoch);
    }
    walk.explains_the_rest(plan, &seen);
    walk.is_committed(inventory);
    walk.single_control_plane(plan);
    walk.notes.sort_by_key(|note| std::cmp::Reverse(note.severity));
    walk.notes
}

struct Walk<'a> {
    wanted: &'a Wanted,
    now: Now,
    asked: &'a Asked,
    notes: Vec<Note>,
}

impl Walk<'_> {
    fn say(&mut self, severity: Severity, check: &str, node: &str, text: impl Into<String>) {
        let note = Note { severity, check: check.to_string(), node: node.to_string(), text: text.into() };
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    /// Names are unique, what comes before comes before, and each step says why.
    fn shape(&mut self, plan: &SitePlan) {
        let mut seen = BTreeSet::new();
        for step in &plan.steps {
            if !seen.insert(&step.id) {
                self.say(
                    Severity::Error,
                    "duplicate",
                    &step.node,
                    format!("two steps are called {}", step.id),
                );
            }
            for needs in step.after.iter().filter(|id| !seen.contains(*id) || **id == step.id) {
                let text = format!("{} needs {needs}, which does not come before it", step.id);
                self.say(Severity::Error, "order", &step.node, text);
            }
            if step.why.is_empty() {
                self.say(Severity::Error, "no-reason", &step.node, format!("{} does not say why", step.id));
            }
        }
    }

    /// Nothing is done to a machine that is someone else's.
    fn is_ours(&mut self, step: &SiteStep, machine: &Machine) {
        let fits = match (&step.act, machine.identity.get()) {
            (_, Some(Identity::Foreign { .. })) => false,
            (Act::Add { .. }, identity) => identity == Some(&Identity::Waiting),
            (Act::Remove { .. } | Act::Replace { .. } | Act::Relabel { .. }, _) => true,
            (_, identity) => matches!(identity, Some(Identity::Ours { .. })),
        };
        if !fits {
            self.say(
                Severity::Error,
                "foreign",
                &step.node,
                format!("{} touches a machine that is not ours", step.id),
            );
        }
    }

    /// What erases was permitted, for this very machine; and what a disk holds is known.
    fn is_permitted(&mut self, plan: &SitePlan, step: &SiteStep, seen: &Inventory) {
        if let Some(needs) = step.act.needs(&step.node)
            && !plan.allowed.contains(&needs)
        {
            self.say(
                Severity::Error,
                "permission",
                &step.node,
                format!("{} was not given --allow {needs}", step.id),
            );
        }
        let foreign = seen
            .machines
            .get(&step.node)
            .is_some_and(|m| m.disk.is(&bramble_api::site::DiskContents::Foreign) || m.disk.get().is_none());
        if foreign && matches!(step.act, Act::Add { erases: false, .. }) {
            self.say(
                Severity::Error,
                "permission",
                &step.node,
                format!("{} erases what someone else put there", step.id),
            );
        }
        if step.act.needs(&step.node).is_some_and(|p| p.erases()) {
            let text = format!("what lies on {} alone is gone after it", step.node);
            self.say(Severity::Warning, "erases", &step.node, text);
        }
    }

    /// A person said not to.
    fn is_not_held(&mut self, step: &SiteStep) {
        let held = self.asked.holds.get(&step.node).is_some_and(|until| *until > self.now.epoch);
        if held || !(self.asked.only.is_empty() || self.asked.only.contains(&step.node)) {
            self.say(Severity::Error, "held", &step.node, format!("{} is held by a person", step.node));
        }
    }

    /// A machine that is acted on answers.
    fn answers(&mut self, step: &SiteStep, machine: &Machine) {
        let remote = matches!(step.act, Act::Relabel { .. } | Act::Remove { .. } | Act::Replace { .. });
        if !remote && !machine.is_on() {
            self.say(
                Severity::Error,
                "silent",
                &step.node,
                format!("{} wants an answer of {}", step.id, step.node),
            );
        }
        if step.drain && machine.power.is(&Power::Silent) {
            self.say(
                Severity::Error,
                "silent",
                &step.node,
                format!("{} drains a machine that is gone", step.id),
            );
        }
    }

    /// The datastore has its quorum at every step.
    fn keeps_quorum(&mut self, step: &SiteStep, machine: &Machine, seen: &Inventory) {
        let (voters, healthy) = seen.voters();
        if !machine.votes() || self.asked.allow.contains(&Permission::Outage(step.node.clone())) {
            return;
        }
        let away = usize::from(machine.member.is(&Member::Voter));
        let (lost, text) = match step.act {
            Act::Remove { .. } | Act::Replace { .. } => (
                voters <= 1 || healthy < quorum(voters) || healthy - away < quorum(voters - 1),
                "the datastore could not agree to it, or not go on after it",
            ),
            _ if step.restart => (
                voters > 1 && healthy - away < quorum(voters),
                "the datastore has no quorum while it restarts",
            ),
            _ => (false, ""),
        };
        if lost {
            self.say(Severity::Error, "quorum", &step.node, format!("{}: {text}", step.id));
        }
    }

    /// No kubelet is newer than an API server, none is more than three minors older, and none skips a minor.
    fn keeps_skew(&mut self, step: &SiteStep, machine: &Machine, seen: &Inventory) {
        let to = match &step.act {
            Act::UpgradeOs { kubernetes: Some(to), .. } | Act::UpgradeKubernetes { to, .. } => to,
            _ => return,
        };
        let error = |walk: &mut Self, text: String| walk.say(Severity::Error, "skew", &step.node, text);
        if let Some(from) = machine.kubernetes.get()
            && to.minor > from.minor + 1
        {
            error(self, format!("{} skips a minor: {from} to {to}", step.id));
        }
        let servers = || self.wanted.nodes.iter().filter(|n| n.is_control_plane());
        let control_plane = servers().any(|n| n.name == step.node);
        let versions = servers().filter_map(|n| seen.machines.get(&n.name));
        let oldest = versions.filter(|m| m.joined.is(&true)).filter_map(|m| m.kubernetes.get()).min();
        if !control_plane && oldest.is_none_or(|oldest| oldest < to) {
            error(self, format!("{} would be newer than the API server", step.id));
        }
        if control_plane {
            let kubelets =
                seen.machines.values().filter(|m| m.joined.is(&true)).filter_map(|m| m.kubernetes.get());
            if let Some(old) = kubelets.filter(|k| k.minor + 3 < to.minor).min().cloned() {
                error(self, format!("{} leaves a kubelet {old} too far behind", step.id));
            }
        }
    }

    /// Releases go forward, within one family, and Talos runs the Kubernetes that it has.
    fn goes_forward(&mut self, step: &SiteStep, machine: &Machine) {
        if let Act::UpgradeOs { from, to, .. } = &step.act {
            if !from.same_family(to) || to <= from || machine.os.get() != Some(from) {
                self.say(
                    Severity::Error,
                    "path",
                    &step.node,
                    format!("{}: no way from {from} to {to}", step.id),
                );
            }
            if let (Os::Talos(to), Some(kubernetes)) = (to, machine.kubernetes.get())
                && self.wanted.node(&step.node).is_some_and(|n| n.role != Role::Management)
                && !self.wanted.table.runs(to, kubernetes)
            {
                let text = format!("{}: talos {to} does not run kubernetes {kubernetes}", step.id);
                self.say(Severity::Error, "path", &step.node, text);
            }
        }
        if let (Act::UpgradeKubernetes { to, .. }, Some(Os::Talos(talos))) = (&step.act, machine.os.get())
            && !self.wanted.table.runs(talos, to)
        {
            let text = format!("{}: talos {talos} does not run kubernetes {to}", step.id);
            self.say(Severity::Error, "path", &step.node, text);
        }
    }

    /// Something answers from outside while a machine is away.
    fn keeps_ingress(&mut self, step: &SiteStep, machine: &Machine, seen: &Inventory) {
        let away = step.restart || matches!(step.act, Act::Remove { .. } | Act::Replace { .. });
        let others = seen.machines.iter().filter(|(name, _)| **name != step.node);
        let mut others = others.filter(|(_, m)| m.ingress.is(&true) && m.is_on());
        if away && machine.ingress.is(&true) && others.next().is_none() {
            let text = "it is the last that answers requests from outside; they fail meanwhile";
            self.say(Severity::Warning, "last-ingress", &step.node, text);
        }
    }

    /// Pods whose data lie on one machine wait for it.
    fn keeps_volumes(&mut self, step: &SiteStep, machine: &Machine) {
        let count = machine.local_volumes.get().copied().unwrap_or(0);
        if step.drain && count > 0 {
            let text = format!("{count} volumes lie on it alone; pods that use them are away meanwhile");
            self.say(Severity::Note, "volumes", &step.node, text);
        }
    }

    /// The machine from which the plan runs is not restarted or erased under it.
    fn keeps_the_way_in(&mut self, step: &SiteStep) {
        if self.asked.here.as_deref() != Some(step.node.as_str()) {
            return;
        }
        if matches!(step.act, Act::Reset | Act::Remove { .. }) {
            self.say(
                Severity::Error,
                "self-lockout",
                &step.node,
                "bramble runs on the machine that it would erase",
            );
        } else if step.restart {
            let text = "bramble runs on it: the run ends there; run it again when the machine is back";
            self.say(Severity::Warning, "self-lockout", &step.node, text);
        }
    }

    fn is_in_its_window(&mut self, step: &SiteStep, elapsed: u64) {
        let window = self.wanted.node(&step.node).and_then(|n| n.window.as_ref());
        let run_now = self.asked.run_now.get(&step.node).is_some_and(|until| *until > self.now.epoch);
        // What a person asked for by name does not wait: a card that is replaced, a machine that leaves.
        let timed =
            matches!(step.act, Act::UpgradeOs { .. } | Act::UpgradeKubernetes { .. } | Act::Configure { .. });
        if let Some(window) = window
            && step.disrupts()
            && timed
            && !(self.asked.now || run_now)
            && !self.now.local.is_some_and(|local| window.is_open(local.after(elapsed / 60)))
        {
            self.say(
                Severity::Error,
                "window",
                &step.node,
                format!("{} would begin outside of its window", step.id),
            );
        }
    }

    /// What something may notice happens to one machine at a time.
    fn goes_one_at_a_time<'s>(&mut self, step: &'s SiteStep, last: &mut Option<&'s StepId>) {
        if !step.disrupts() {
            return;
        }
        if let Some(before) = *last
            && step.after.is_empty()
        {
            let text = format!("{} and {before} would run side by side", step.id);
            self.say(Severity::Error, "one-at-a-time", &step.node, text);
        }
        *last = Some(&step.id);
    }

    /// An authority is not distrusted while a machine has nothing else.
    fn does_not_lock_out(&mut self, step: &SiteStep, seen: &Inventory) {
        let Act::RotateAuthority { name, to, stage } = &step.act else { return };
        let parts = self.wanted.nodes.iter().filter(|n| !self.asked.replace.contains_key(&n.name));
        let machines = parts.filter_map(|n| seen.machines.get(&n.name).map(|m| (n, m)));
        let kept = machines.filter(|(n, m)| {
            matches!(m.identity.get(), Some(Identity::Ours { incarnation, .. }) if *incarnation == n.incarnation)
        });
        let behind = kept.filter(|(_, m)| match stage {
            Stage::Trust => false,
            Stage::Issue => !m.trusts.get().and_then(|t| t.get(name)).is_some_and(|all| all.contains(to)),
            Stage::Distrust => {
                let all = m.certificates.get().map(Vec::as_slice).unwrap_or_default();
                all.iter().any(|c| c.authority == *name && c.generation != *to)
            }
        });
        let behind: Vec<String> = behind.map(|(n, _)| n.name.clone()).collect();
        if !behind.is_empty() {
            let text = format!("{} locks out {}", step.id, behind.join(", "));
            self.say(Severity::Error, "self-lockout", &step.node, text);
        }
    }

    /// A release that changes only the system meets a worker before a control plane.
    fn tries_a_worker_first(&mut self, step: &SiteStep, seen: &Inventory) {
        let Act::UpgradeOs { to, kubernetes: None, .. } = &step.act else { return };
        let Some(node) = self.wanted.node(&step.node).filter(|n| n.is_control_plane()) else { return };
        let workers = self.wanted.nodes.iter().filter(|n| {
            n.role == Role::Worker
                && n.arch == node.arch
                && n.card == node.card
                && !self.asked.allow.contains(&Permission::Without(n.name.clone()))
        });
        let mut of_cluster =
            workers.filter_map(|n| seen.machines.get(&n.name)).filter(|m| m.joined.is(&true)).peekable();
        if of_cluster.peek().is_some()
            && !of_cluster.any(|m| m.os.get().is_some_and(|os| os.same_family(to) && os >= to))
        {
            let text = format!("{} tries {to} on a control plane first", step.id);
            self.say(Severity::Error, "canary", &step.node, text);
        }
    }

    /// Every difference has a step or a reason.
    fn explains_the_rest(&mut self, plan: &SitePlan, seen: &Inventory) {
        for (node, change) in differences(self.wanted, seen, self.now.epoch, self.asked) {
            let held = plan.held.iter().find(|h| h.node == node && h.change == change);
            let explained =
                held.is_some_and(|h| !h.waiting.is_empty() && !h.waiting.contains(&WaitingOn::Unexplained));
            if !explained {
                self.say(
                    Severity::Error,
                    "unexplained",
                    &node,
                    format!("{node} still differs ({change}), and no reason is given"),
                );
            }
        }
    }

    fn is_committed(&mut self, inventory: &Inventory) {
        if let Some(Git { dirty: true, .. }) = inventory.git.get() {
            let text = "the file is changed and not committed: what runs would not be what git has";
            self.say(Severity::Note, "not-committed", "", text);
        }
    }

    fn single_control_plane(&mut self, plan: &SitePlan) {
        let servers: Vec<&str> =
            self.wanted.nodes.iter().filter(|n| n.is_control_plane()).map(|n| n.name.as_str()).collect();
        let [only] = servers.as_slice() else { return };
        if plan.steps.iter().any(|s| s.restart && s.node == *only) {
            let text = "it is the only control plane: the API is away while it restarts, pods stay";
            self.say(Severity::Note, "api-away", only, text);
        }
    }
}
