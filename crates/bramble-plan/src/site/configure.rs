//! Labels, taints, configuration.

use super::gates::takes;
use super::wanted::Node;
use super::{Builder, How};
use bramble_api::site::{Act, Change, WaitingOn};

impl Builder<'_> {
    /// Labels lie in Kubernetes: the machine need not answer, it may sleep.
    pub(super) fn do_labels(&mut self) -> usize {
        let open = self.open("labels");
        let wanted = self.wanted;
        for (name, _) in &open {
            let Some(node) = wanted.node(name) else { continue };
            let mut shut = self.always(name);
            if self.seen.api.get().is_none() {
                shut.push(WaitingOn::Api { why: self.seen.api.why.clone() });
            }
            if shut.is_empty() {
                let act = Act::Relabel { labels: node.labels.clone(), taints: node.taints.clone() };
                let how = How { takes: takes::TELL, ..How::default() };
                self.step(name, "", act, "the file has others", how);
            } else {
                self.hold(name, "labels", shut);
            }
        }
        open.len()
    }

    pub(super) fn do_configure(&mut self) -> usize {
        let open = self.open("configuration");
        let wanted = self.wanted;
        // A mistake in a configuration shows on a worker first; control planes come last.
        let mut names: Vec<(&Node, bool)> = Vec::new();
        for (name, change) in &open {
            if let (Some(node), Change::Configuration { restart }) = (wanted.node(name), change) {
                names.push((node, *restart));
            }
        }
        names.sort_by_key(|(node, _)| node.is_control_plane());
        let os = self.open("os");
        for (node, restart) in names {
            self.configure(node, restart, &os);
        }
        open.len()
    }

    fn configure(&mut self, node: &Node, restart: bool, os: &[(String, Change)]) {
        let machine = self.machine(&node.name);
        let drain = restart && self.should_drain(node);
        let takes = match restart {
            true => takes::RESTART + if drain { takes::DRAIN } else { 0 },
            false => takes::TELL,
        };
        let how = How { drain, restart, takes, ..How::default() };
        let mut shut =
            if restart { self.disrupt(node, &machine, &how) } else { self.reach(&node.name, &machine) };
        // A Talos of before does not read the kinds of document that the next one has.
        let pending = os.iter().find(|(name, _)| *name == node.name && !node.card);
        if let Some((name, change)) = pending {
            shut.push(WaitingOn::Earlier { node: name.clone(), change: change.clone() });
        }
        if !shut.is_empty() {
            self.hold(&node.name, "configuration", shut);
            return;
        }
        let act = Act::Configure { live: node.live.clone(), fixed: node.fixed.clone() };
        let why = match restart {
            true => "the file has another one, which needs a restart",
            false => "the file has another one, which it takes while it runs",
        };
        self.step(&node.name, "", act, why, how);
    }
}
