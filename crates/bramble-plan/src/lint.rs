//! Small checks that hold for every plan, made before it runs.

use bramble_api::plan::{Plan, StepId};
use std::collections::BTreeSet;

/// What is wrong with a plan: a bug of ours, never of the user's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// Two steps have one name.
    #[error("two steps are called {0}")]
    Duplicate(StepId),
    /// A step comes before what it needs.
    #[error("step {step} needs {needs}, which does not come before it")]
    Order {
        /// Which step.
        step: StepId,
        /// What it needs.
        needs: StepId,
    },
    /// A step does not say why it is there.
    #[error("step {0} does not say why it is in the plan")]
    NoReason(StepId),
}

/// Every finding, in the order of the steps.
pub fn lint(plan: &Plan) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut seen = BTreeSet::new();
    for step in &plan.steps {
        for needs in step.after.iter().filter(|id| !seen.contains(*id)) {
            findings.push(Finding::Order { step: step.id.clone(), needs: needs.clone() });
        }
        if step.why.is_empty() {
            findings.push(Finding::NoReason(step.id.clone()));
        }
        if !seen.insert(&step.id) {
            findings.push(Finding::Duplicate(step.id.clone()));
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use bramble_api::names::Arch;
    use bramble_api::plan::{Step, StepKind};

    fn step(id: &str, after: &[&str], why: &str) -> Step {
        Step {
            id: StepId(id.into()),
            kind: StepKind::BuildRelease { arch: Arch::Amd64 },
            after: after.iter().map(|a| StepId(a.to_string())).collect(),
            why: why.into(),
        }
    }

    #[test]
    fn every_fault_is_found() {
        let plan = Plan {
            format: 1,
            cluster: String::new(),
            purpose: String::new(),
            inputs: String::new(),
            steps: vec![step("b", &["a"], "x"), step("a", &[], ""), step("a", &[], "x")],
            not_served: vec![],
            waiting: vec![],
        };
        let id = |s: &str| StepId(s.into());
        assert_eq!(
            lint(&plan),
            [
                Finding::Order { step: id("b"), needs: id("a") },
                Finding::NoReason(id("a")),
                Finding::Duplicate(id("a"))
            ]
        );
    }
}
