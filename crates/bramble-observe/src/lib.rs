//! Collects the inventory of a site, and never decides.
//!
//! Machines are asked by their own API and the cluster by Kubernetes', side by side, each with a deadline. Partial is
//! normal: what could not be learned is a fact with the reason in the value's place.
//!
//! - [`machine`]: what a machine says of itself.
//! - [`cluster`]: what Kubernetes says of its nodes, budgets and whoever rolls out.

pub mod cluster;
pub mod machine;

mod join;
#[cfg(test)]
mod tests;

pub use cluster::Cluster;
pub use join::join;
pub use machine::Answer;

use bramble_api::names::Role;
use bramble_api::site::{Fact, Source};
use bramble_api::site::{Git, Inventory, Release};
use bramble_rpc::Credentials;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// A machine that is to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name: the one in its certificate, too.
    pub name: String,
    /// What it does.
    pub role: Role,
    /// `host:port` of its API, or why there is no way to it.
    pub place: Result<String, String>,
    /// Keys of the labels that the file gives it.
    pub label_keys: BTreeSet<String>,
    /// A card was written for it. Else nobody wonders that it does not answer.
    pub written: bool,
}

/// Whom to ask, and how.
pub struct Site<'a> {
    /// Machines of the file.
    pub targets: &'a [Target],
    /// What is shown to machines.
    pub credentials: &'a Credentials,
    /// A kubeconfig, or why there is none.
    pub kubeconfig: Result<&'a str, String>,
    /// Releases that machines can fetch.
    pub releases: Fact<Vec<Release>>,
    /// The working tree.
    pub git: Fact<Git>,
    /// How long each may take.
    pub deadline: Duration,
    /// Seconds since the epoch.
    pub now: u64,
}

/// Looks at the whole site once.
pub async fn look(site: Site<'_>) -> Inventory {
    let mut asked = Vec::new();
    for target in site.targets.iter().cloned() {
        let (credentials, deadline) = (site.credentials.clone(), site.deadline);
        let name = target.name.clone();
        asked.push((name, tokio::spawn(async move { machine::ask(&target, &credentials, deadline).await })));
    }
    let cluster = match &site.kubeconfig {
        Ok(text) => cluster::ask(text, site.deadline).await,
        Err(why) => Err(why.clone()),
    };
    let mut answers: BTreeMap<String, Answer> = BTreeMap::new();
    for (name, answer) in asked {
        let answer = answer.await.unwrap_or_else(|error| Err(error.to_string()));
        answers.insert(name, answer);
    }
    let (machines, api, budgets, holder) = join(site.targets, &answers, &cluster, site.now);
    Inventory {
        format: 1,
        observed_at: site.now,
        machines,
        api,
        budgets,
        holder,
        releases: site.releases,
        git: site.git,
    }
}

/// What is known because somebody said so now.
fn known<T>(value: T, source: Source, now: u64) -> Fact<T> {
    Fact::known(value, source, now)
}
