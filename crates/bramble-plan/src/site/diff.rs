//! What changed between two plans.

use bramble_api::site::{Held, SitePlan, SiteStep};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt;

/// One difference between two plans.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", rename_all_fields = "camelCase")]
pub enum Difference {
    /// A step that the first plan did not have.
    New(SiteStep),
    /// A step that the second plan does not have.
    Gone(SiteStep),
    /// A step of both that is done otherwise.
    Changed {
        /// In the first.
        from: Box<SiteStep>,
        /// In the second.
        to: Box<SiteStep>,
    },
    /// The order of the steps of both is another.
    Order,
    /// A difference that now waits, or for other reasons than before.
    Waits(Held),
    /// A difference that does not wait any more.
    Free(Held),
}

/// Every difference, in the order of the steps.
pub fn diff(from: &SitePlan, to: &SitePlan) -> Vec<Difference> {
    let by_name = |plan: &SitePlan| -> BTreeMap<String, SiteStep> {
        plan.steps.iter().map(|s| (s.id.0.clone(), s.clone())).collect()
    };
    let (before, after) = (by_name(from), by_name(to));
    let mut all = Vec::new();
    for step in from.steps.iter().filter(|s| !after.contains_key(&s.id.0)) {
        all.push(Difference::Gone(step.clone()));
    }
    for step in &to.steps {
        match before.get(&step.id.0) {
            None => all.push(Difference::New(step.clone())),
            // What comes before it and how long it takes follow from the others.
            Some(old) if (&old.act, old.drain, old.restart) != (&step.act, step.drain, step.restart) => {
                all.push(Difference::Changed { from: Box::new(old.clone()), to: Box::new(step.clone()) });
            }
            Some(_) => {}
        }
    }
    let common = |plan: &SitePlan, other: &BTreeMap<String, SiteStep>| -> Vec<String> {
        plan.steps.iter().map(|s| s.id.0.clone()).filter(|id| other.contains_key(id)).collect()
    };
    if common(from, &after) != common(to, &before) {
        all.push(Difference::Order);
    }
    let same = |a: &Held, b: &Held| a.node == b.node && a.change.kind() == b.change.kind();
    for held in to.held.iter().filter(|h| !from.held.iter().any(|old| old == *h)) {
        all.push(Difference::Waits(held.clone()));
    }
    for held in from.held.iter().filter(|h| !to.held.iter().any(|new| same(new, h))) {
        all.push(Difference::Free(held.clone()));
    }
    all
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Difference::New(step) => write!(f, "+ {}  {}", step.node, step.act),
            Difference::Gone(step) => write!(f, "- {}  {}", step.node, step.act),
            Difference::Changed { from, to } => write!(f, "~ {}  {}, was {}", to.node, to.act, from.act),
            Difference::Order => f.write_str("~ the order of the steps is another"),
            Difference::Waits(held) => {
                let reasons: Vec<String> = held.waiting.iter().map(ToString::to_string).collect();
                write!(f, "? {}  {}: waiting: {}", held.node, held.change, reasons.join("; "))
            }
            Difference::Free(held) => write!(f, "! {}  {}: waits no more", held.node, held.change),
        }
    }
}
