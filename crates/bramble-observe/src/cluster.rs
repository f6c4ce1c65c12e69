//! What Kubernetes says of its nodes, of budgets, and of whoever rolls something out.

use crate::machine::cause;
use bramble_api::names::annotation;
use bramble_api::site::{Budget, Holder, Version};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::{Selector, SelectorExt};
use kube::{Client, Config, ResourceExt};
use std::collections::BTreeMap;
use std::time::Duration;

/// Where whoever rolls something out says so.
pub const LEASE: (&str, &str) = ("kube-system", "bramble-rollout");
/// On the lease: the node at work.
pub const LEASE_NODE: &str = "bramble.home.arpa/node";
/// Objects in one answer.
const PAGE: u32 = 500;

/// What Kubernetes said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cluster {
    /// The API server that answered.
    pub version: Option<Version>,
    /// Its nodes.
    pub nodes: BTreeMap<String, Seen>,
    /// Budgets that let go of no pod.
    pub budgets: Vec<Budget>,
    /// Who rolls something out.
    pub holder: Option<Holder>,
}

/// A node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// It is Ready; none while its kubelet never said so.
    pub ready: Option<bool>,
    /// Its kubelet.
    pub kubelet: Option<Version>,
    /// All labels.
    pub labels: BTreeMap<String, String>,
    /// Taints that Kubernetes does not set by itself, `key=value:effect`.
    pub taints: Vec<String>,
    /// New pods are kept off.
    pub unschedulable: bool,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// A client by a kubeconfig's text.
///
/// # Errors
/// In a few words what is wrong with it.
pub async fn client(kubeconfig: &str, deadline: Duration) -> Result<Client, String> {
    let parsed = Kubeconfig::from_yaml(kubeconfig).map_err(|e| cause(&e))?;
    let mut config =
        Config::from_custom_kubeconfig(parsed, &KubeConfigOptions::default()).await.map_err(|e| cause(&e))?;
    config.connect_timeout = Some(deadline);
    config.read_timeout = Some(deadline);
    config.write_timeout = Some(deadline);
    Client::try_from(config).map_err(|e| cause(&e))
}

/// Asks.
///
/// # Errors
/// In a few words why nothing was learned.
pub async fn ask(kubeconfig: &str, deadline: Duration) -> Result<Cluster, String> {
    let client = client(kubeconfig, deadline).await?;
    let asked = of(&client);
    tokio::time::timeout(deadline, asked)
        .await
        .unwrap_or_else(|_| Err(format!("no answer in {} s", deadline.as_secs())))
}

/// Asks by a client.
///
/// # Errors
/// In a few words why nothing was learned.
pub async fn of(client: &Client) -> Result<Cluster, String> {
    let version = client.apiserver_version().await.map_err(|e| cause(&e))?;
    let page = ListParams::default().limit(PAGE);
    let mut nodes = BTreeMap::new();
    for node in all(&Api::<Node>::all(client.clone()), &page).await? {
        nodes.insert(node.name_any(), seen(&node));
    }
    let budgets: Vec<PodDisruptionBudget> = all(&Api::all(client.clone()), &page).await?;
    let shut: Vec<&PodDisruptionBudget> = budgets.iter().filter(|b| lets_go_of_none(b)).collect();
    let pods: Vec<Pod> = match shut.is_empty() {
        true => Vec::new(),
        false => all(&Api::all(client.clone()), &page).await?,
    };
    let lease = Api::<Lease>::namespaced(client.clone(), LEASE.0).get_opt(LEASE.1).await;
    Ok(Cluster {
        version: version.git_version.parse().ok(),
        nodes,
        budgets: shut.into_iter().map(|b| budget(b, &pods)).collect(),
        holder: Some(holder(lease.map_err(|e| cause(&e))?.as_ref())),
    })
}

async fn all<K>(api: &Api<K>, page: &ListParams) -> Result<Vec<K>, String>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + kube::Resource,
{
    let (mut found, mut page) = (Vec::new(), page.clone());
    loop {
        let list = api.list(&page).await.map_err(|e| cause(&e))?;
        let next = list.metadata.continue_.clone().filter(|next| !next.is_empty());
        found.extend(list.items);
        match next {
            Some(next) => page.continue_token = Some(next),
            None => return Ok(found),
        }
    }
}

/// What of a node is looked at.
pub fn seen(node: &Node) -> Seen {
    let status = node.status.clone().unwrap_or_default();
    let spec = node.spec.clone().unwrap_or_default();
    let ready = status.conditions.unwrap_or_default().into_iter().find(|c| c.type_ == "Ready");
    let taints = spec.taints.unwrap_or_default().into_iter().filter(|t| !is_kubernetes_own(&t.key));
    Seen {
        ready: ready.map(|c| c.status == "True"),
        kubelet: status.node_info.and_then(|info| info.kubelet_version.parse().ok()),
        labels: node.labels().clone(),
        taints: taints
            .map(|t| match t.value.as_deref().unwrap_or_default() {
                "" => format!("{}:{}", t.key, t.effect),
                value => format!("{}={value}:{}", t.key, t.effect),
            })
            .collect(),
        unschedulable: spec.unschedulable.unwrap_or(false),
        annotations: node.annotations().clone(),
    }
}

/// Whether Kubernetes sets and takes back taints of this key by what it sees.
pub fn is_kubernetes_own(key: &str) -> bool {
    key.starts_with("node.kubernetes.io/") || key.starts_with("node.cloudprovider.kubernetes.io/")
}

fn lets_go_of_none(budget: &PodDisruptionBudget) -> bool {
    budget.status.as_ref().is_some_and(|s| s.disruptions_allowed == 0 && s.expected_pods > 0)
}

fn budget(budget: &PodDisruptionBudget, pods: &[Pod]) -> Budget {
    let namespace = budget.namespace().unwrap_or_default();
    let selector = budget.spec.as_ref().and_then(|s| s.selector.clone());
    let selector = selector.and_then(|s| Selector::try_from(s).ok());
    let of = |pod: &&Pod| {
        pod.namespace().as_deref() == Some(&*namespace)
            && selector.as_ref().is_some_and(|s| s.matches(pod.labels()))
    };
    let nodes = pods.iter().filter(of).filter_map(|p| p.spec.as_ref()?.node_name.clone());
    let mut nodes: Vec<String> = nodes.collect();
    nodes.sort();
    nodes.dedup();
    Budget { namespace: namespace.clone(), name: budget.name_any(), nodes }
}

/// Who holds a lease.
pub fn holder(lease: Option<&Lease>) -> Holder {
    let Some(lease) = lease else { return Holder::Nobody };
    let Some(spec) = &lease.spec else { return Holder::Nobody };
    let who = spec.holder_identity.clone().unwrap_or_default();
    if who.is_empty() {
        return Holder::Nobody;
    }
    let renewed = spec.renew_time.as_ref().map_or(0, |time| time.0.as_second());
    Holder::Is {
        who,
        renewed: u64::try_from(renewed).unwrap_or(0),
        lasts: spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or(0),
        node: lease.annotations().get(LEASE_NODE).cloned().unwrap_or_default(),
    }
}

/// `ann@desk 1790000000`: who keeps pods off a node, and since when.
pub fn mark(who: &str, at: u64) -> String {
    format!("{who} {at}")
}

/// Reads a mark; a machine's own has no time.
pub fn read_mark(mark: &str) -> Option<(String, u64)> {
    let (who, at) = mark.rsplit_once(' ')?;
    Some((who.to_string(), at.parse().ok()?))
}

/// Keys of labels that a node says are ours to set.
pub fn label_keys(seen: &Seen) -> impl Iterator<Item = &str> {
    let keys = seen.annotations.get(annotation::LABELS).map(String::as_str).unwrap_or_default();
    keys.split(',').filter(|key| !key.is_empty())
}
