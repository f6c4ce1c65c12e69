//! The hands of one step on a running site: Kubernetes keeps pods off and lets them on, the machine's own API does the act.
//!
//! What is done when is [`bramble_upgrade::rollout`]'s to say; these look and do.

use crate::commands;
use crate::settings::Settings;
use crate::site::Site;
use crate::way::{Way, why};
use bramble_api::event::{Event, Unit};
use bramble_api::names::annotation;
use bramble_api::site::{Act, Holder, Os, Permission, SiteStep};
use bramble_effects::{Cancel, Sink};
use bramble_exec::node_document;
use bramble_observe::cluster::{self, LEASE, LEASE_NODE, mark, read_mark};
use bramble_plan::site::{Asked, Node as Wanted};
use bramble_rpc::node::power_request::Act as Power;
use bramble_rpc::node::{ConfigureRequest, PowerRequest, StatusReply, StatusRequest, UpdateRequest};
use bramble_upgrade::rollout::{Kept, Lease, Move, Seen, Target, Trouble};
use k8s_openapi::api::coordination::v1::Lease as LeaseObject;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, EvictParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::runtime::Runtime;

/// Between two looks.
const LOOK: Duration = Duration::from_secs(5);
/// A machine that is asked something answers in so long, or it is away.
const ANSWER: Duration = Duration::from_secs(20);
/// Seconds for which a sign of life of ours counts.
const LASTS: u64 = 180;
/// Seconds in which a release is fetched, written, tried (twice, if need be) and kept.
const RELEASE: u64 = 2 * 3600;
/// Seconds in which a machine is back with another document.
const RESTART: u64 = 900;

/// One step on one machine.
pub(crate) struct Hands<'a> {
    pub(crate) settings: &'a Settings,
    pub(crate) site: &'a Site,
    pub(crate) way: &'a Way,
    pub(crate) lab: bool,
    pub(crate) runtime: &'a Runtime,
    pub(crate) client: &'a Client,
    pub(crate) asked: &'a Asked,
    pub(crate) step: &'a SiteStep,
    pub(crate) wanted: Option<&'a Wanted>,
    pub(crate) sink: &'a dyn Sink,
    pub(crate) cancel: &'a Cancel,
    /// When the act was asked for, seconds since the epoch.
    pub(crate) acted: Option<u64>,
    /// When its result was there.
    pub(crate) result: Option<u64>,
    /// The machine's boot before the act.
    pub(crate) boot: String,
}

impl Target for Hands<'_> {
    fn look(&mut self) -> Result<Seen, Trouble> {
        self.cancelled()?;
        let machine = self.runtime.block_on(self.status());
        let node = self.runtime.block_on(self.node());
        let lease = self.lease();
        let kept = match &node {
            Err(_) => Kept::Unknown,
            Ok(None) => Kept::Off,
            Ok(Some(node)) => {
                let seen = cluster::seen(node);
                match seen.annotations.get(annotation::CORDONED).and_then(|mark| read_mark(mark)) {
                    Some((_, at)) if seen.unschedulable => Kept::Ours(at),
                    _ if seen.unschedulable => Kept::Other,
                    _ => Kept::Off,
                }
            }
        };
        let pods = match self.step.drain {
            true => self.runtime.block_on(self.pods()).ok(),
            false => Some(Vec::new()),
        };
        let decided = self.decided(machine.as_ref(), node.as_ref().ok().and_then(Option::as_ref));
        let (mut under_way, mut back) = (None, None);
        match decided {
            Decided::Not => {}
            Decided::There => {
                self.result.get_or_insert_with(commands::now);
            }
            Decided::UnderWay(what) => under_way = Some(what),
            Decided::Back(why) => back = Some(why),
        }
        let kubelet = match &node {
            Ok(Some(node)) => cluster::seen(node).ready == Some(true),
            _ => false,
        };
        // The machine's own word as well: Kubernetes takes a node for Ready until it was silent for a while.
        let itself = machine.as_ref().is_ok_and(|reply| reply.stage == "ready");
        let node_less = self.wanted.is_some_and(|w| w.role == bramble_api::names::Role::Management);
        let ready = itself && (kubelet || node_less);
        let pods = pods.and_then(|pods| u32::try_from(pods.len()).ok());
        Ok(Seen { lease, kept, pods, under_way, back, result: self.result, ready })
    }

    fn make(&mut self, what: Move) -> Result<(), Trouble> {
        self.cancelled()?;
        let made = match what {
            Move::Lease => self.runtime.block_on(self.take_lease()),
            Move::Cordon => self.runtime.block_on(self.cordon()),
            Move::Drain => self.runtime.block_on(self.drain()),
            Move::Evict => self.runtime.block_on(self.put_off()),
            Move::Uncordon => self.runtime.block_on(self.uncordon()),
            Move::Act => self.act(),
        };
        if what == Move::Act && made.is_ok() {
            self.acted = Some(commands::now());
        }
        if what == Move::Drain && made.is_ok() {
            self.say("pods leave");
            self.sleep()?;
        }
        made.map_err(Trouble::Failed)
    }

    fn wait(&mut self, what: &str) -> Result<(), Trouble> {
        self.say(what);
        self.sleep()
    }

    fn now(&self) -> u64 {
        commands::now()
    }
}

/// What came of the act.
enum Decided {
    /// It was not asked for.
    Not,
    There,
    UnderWay(String),
    Back(String),
}

impl Hands<'_> {
    fn cancelled(&self) -> Result<(), Trouble> {
        if self.cancel.is_cancelled() { Err(Trouble::Interrupted) } else { Ok(()) }
    }

    fn sleep(&self) -> Result<(), Trouble> {
        let until = std::time::Instant::now() + LOOK;
        while std::time::Instant::now() < until {
            self.cancelled()?;
            std::thread::sleep(Duration::from_millis(200));
        }
        Ok(())
    }

    fn say(&self, what: &str) {
        let step = self.step.id.clone();
        self.sink.event(Event::Progress {
            step,
            done: 0,
            total: 0,
            unit: Unit::Items,
            detail: what.to_string(),
        });
    }

    async fn status(&self) -> Result<StatusReply, String> {
        let asked = async {
            let mut client = self.way.to(self.site, &self.step.node).await.map_err(why)?;
            let reply = client.status(StatusRequest {}).await;
            Ok(reply.map_err(|e| e.message().to_string())?.into_inner())
        };
        tokio::time::timeout(ANSWER, asked).await.unwrap_or_else(|_| Err("no answer".to_string()))
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }

    async fn node(&self) -> Result<Option<Node>, String> {
        let asked = self.nodes().get_opt(&self.step.node).await;
        asked.map_err(|e| e.to_string())
    }

    /// Pods that have to leave: not those that have ended, nor those that would be there again at once.
    async fn pods(&self) -> Result<Vec<Pod>, String> {
        let here = ListParams::default().fields(&format!("spec.nodeName={}", self.step.node));
        let pods = Api::<Pod>::all(self.client.clone()).list(&here).await.map_err(|e| e.to_string())?;
        let leaves = |pod: &Pod| {
            let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
            let of_daemon_set = pod
                .owner_references()
                .iter()
                .any(|owner| owner.controller == Some(true) && owner.kind == "DaemonSet");
            let mirror = pod.annotations().contains_key("kubernetes.io/config.mirror");
            !matches!(phase, "Succeeded" | "Failed") && !of_daemon_set && !mirror
        };
        Ok(pods.items.into_iter().filter(leaves).collect())
    }

    fn lease(&self) -> Lease {
        let asked = self.runtime.block_on(self.leases().get_opt(LEASE.1));
        let Ok(lease) = asked else { return Lease::Unknown };
        let now = commands::now();
        match cluster::holder(lease.as_ref()) {
            Holder::Nobody => Lease::Free,
            Holder::Is { who, renewed, node, .. } if who == self.asked.who => {
                // A third of its life is left to be away in.
                if now.saturating_sub(renewed) > LASTS / 3 || node != self.step.node {
                    return Lease::Free;
                }
                Lease::Mine
            }
            Holder::Is { who, .. } if self.asked.allow.contains(&Permission::Takeover(who.clone())) => {
                Lease::Free
            }
            Holder::Is { who, renewed, lasts, .. } if now > renewed + lasts => Lease::Dead(who),
            Holder::Is { who, .. } => Lease::Other(who),
        }
    }

    fn leases(&self) -> Api<LeaseObject> {
        Api::namespaced(self.client.clone(), LEASE.0)
    }

    /// Takes the lease, or says that we are alive. What somebody else wrote meanwhile is not overwritten.
    async fn take_lease(&self) -> Result<(), String> {
        let old = self.leases().get_opt(LEASE.1).await.map_err(|e| e.to_string())?;
        write_lease(&self.leases(), old, &self.asked.who, &self.step.node).await
    }

    async fn patch_node(&self, patch: Value) -> Result<(), String> {
        let patched =
            self.nodes().patch(&self.step.node, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.map(|_| ()).map_err(|e| e.to_string())
    }

    async fn cordon(&self) -> Result<(), String> {
        self.patch_node(json!({
            "metadata": { "annotations": { annotation::CORDONED: mark(&self.asked.who, commands::now()) } },
            "spec": { "unschedulable": true },
        }))
        .await
    }

    /// Takes back what a roll-out marked, and nothing else.
    async fn uncordon(&self) -> Result<(), String> {
        let Some(node) = self.node().await? else { return Ok(()) };
        let ours = node.annotations().get(annotation::CORDONED).is_some_and(|mark| read_mark(mark).is_some());
        if !ours {
            return Ok(());
        }
        self.patch_node(json!({
            "metadata": { "annotations": { annotation::CORDONED: null } },
            "spec": { "unschedulable": null },
        }))
        .await
    }

    async fn drain(&self) -> Result<(), String> {
        for pod in self.pods().await? {
            let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
            match api.evict(&pod.name_any(), &EvictParams::default()).await {
                Ok(_) => {}
                // Gone meanwhile; or kept by its budget, and asked again at the next look.
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 429) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    /// Against their budgets: a person permitted it.
    async fn put_off(&self) -> Result<(), String> {
        for pod in self.pods().await? {
            let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().unwrap_or_default());
            match api.delete(&pod.name_any(), &DeleteParams::default()).await {
                Ok(_) => {}
                Err(kube::Error::Api(status)) if status.code == 404 => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }

    fn act(&mut self) -> Result<(), String> {
        let before = self.runtime.block_on(self.status());
        self.boot = before.as_ref().map(|reply| reply.boot_id.clone()).unwrap_or_default();
        match &self.step.act {
            Act::UpgradeOs { .. } => self.runtime.block_on(async {
                let mut client = self.way.to(self.site, &self.step.node).await.map_err(why)?;
                client.update(UpdateRequest {}).await.map(|_| ()).map_err(|e| e.message().to_string())
            }),
            Act::Configure { .. } => {
                self.configure(&before?)?;
                self.runtime.block_on(async {
                    let mut client = self.way.to(self.site, &self.step.node).await.map_err(why)?;
                    let request = PowerRequest { act: Power::Restart.into() };
                    client.power(request).await.map(|_| ()).map_err(|e| e.message().to_string())
                })
            }
            Act::Relabel { labels, taints } => {
                // The document first: at its next start the machine would set what it says there.
                self.configure(&before?)?;
                self.runtime.block_on(self.relabel(labels, taints))
            }
            Act::Uncordon => self.runtime.block_on(self.uncordon()),
            Act::Remove { member: false } => self.runtime.block_on(async {
                match self.nodes().delete(&self.step.node, &DeleteParams::default()).await {
                    Ok(_) => Ok(()),
                    Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
                    Err(error) => Err(error.to_string()),
                }
            }),
            other => Err(format!("this version cannot do this: {other}")),
        }
    }

    /// Gives the machine the document that the file makes now.
    fn configure(&self, before: &StatusReply) -> Result<(), String> {
        let generation = before.generation.max(before.next_generation) + 1;
        let made = crate::hands::with_builder(self.settings, self.site, self.lab, |builder| {
            node_document(builder, &self.step.node, generation)
        });
        let document = made.map_err(|failure| failure.chain())?.expose().to_vec();
        self.runtime.block_on(async {
            let mut client = self.way.to(self.site, &self.step.node).await.map_err(why)?;
            client
                .configure(ConfigureRequest { document })
                .await
                .map(|_| ())
                .map_err(|e| e.message().to_string())
        })
    }

    async fn relabel(&self, labels: &BTreeMap<String, String>, taints: &[String]) -> Result<(), String> {
        let node = self.node().await?.ok_or("Kubernetes does not know it")?;
        let seen = cluster::seen(&node);
        let status = self.status().await.map(|reply| reply.label_keys).unwrap_or_default();
        let ours = cluster::label_keys(&seen).map(str::to_string).chain(status);
        let mut set: serde_json::Map<String, Value> =
            ours.filter(|key| !labels.contains_key(key)).map(|key| (key, Value::Null)).collect();
        set.extend(labels.iter().map(|(key, value)| (key.clone(), json!(value))));
        let keys: Vec<&str> = labels.keys().map(String::as_str).collect();
        let own = node.spec.and_then(|spec| spec.taints).unwrap_or_default();
        let own = own.into_iter().filter(|taint| cluster::is_kubernetes_own(&taint.key));
        let mut all: Vec<Value> = own.map(|taint| json!(taint)).collect();
        for text in taints {
            all.push(taint(text).ok_or_else(|| format!("{text:?} is no taint"))?);
        }
        self.patch_node(json!({
            "metadata": { "labels": set, "annotations": { annotation::LABELS: keys.join(",") } },
            "spec": { "taints": all },
        }))
        .await
    }

    /// Whether the result of the act is there.
    fn decided(&self, machine: Result<&StatusReply, &String>, node: Option<&Node>) -> Decided {
        let Some(since) = self.acted else { return Decided::Not };
        let spent = commands::now().saturating_sub(since);
        let late = |limit: u64, what: &str| match spent > limit {
            true => Decided::Back(format!("not there after {} minutes", limit / 60)),
            false => Decided::UnderWay(what.to_string()),
        };
        match &self.step.act {
            Act::UpgradeOs { to: Os::Bramble(to), .. } => match machine {
                Ok(reply) if reply.release == *to && !reply.trial => Decided::There,
                Ok(reply) if reply.given_up.contains(to) => Decided::Back(reply.fault.clone()),
                Ok(reply) => late(RELEASE, &reply.doing),
                Err(_) => late(RELEASE, "it restarts"),
            },
            Act::Configure { fixed, .. } => match machine {
                Ok(reply) if reply.settings == *fixed && reply.boot_id != self.boot => Decided::There,
                Ok(reply) if reply.boot_id != self.boot => {
                    Decided::Back("it started again with another configuration than it was sent".to_string())
                }
                _ => late(RESTART, "it restarts"),
            },
            Act::Remove { .. } => {
                if node.is_none() {
                    Decided::There
                } else {
                    Decided::UnderWay("it leaves".into())
                }
            }
            _ => Decided::There,
        }
    }
}

/// Writes the lease in our name.
async fn write_lease(
    leases: &Api<LeaseObject>,
    old: Option<LeaseObject>,
    who: &str,
    node: &str,
) -> Result<(), String> {
    let now = jiff::Timestamp::now();
    let object = |version: Option<String>| -> Result<LeaseObject, String> {
        serde_json::from_value(json!({
            "metadata": {
                "name": LEASE.1, "namespace": LEASE.0, "resourceVersion": version,
                "annotations": { LEASE_NODE: node },
            },
            "spec": {
                "holderIdentity": who, "leaseDurationSeconds": LASTS,
                "renewTime": format!("{:.6}", now),
            },
        }))
        .map_err(|e| e.to_string())
    };
    let written = match old {
        None => leases.create(&PostParams::default(), &object(None)?).await,
        Some(old) => {
            let new = object(old.metadata.resource_version)?;
            leases.replace(LEASE.1, &PostParams::default(), &new).await
        }
    };
    written.map(|_| ()).map_err(|e| e.to_string())
}

/// Gives the lease back, if it is ours.
pub(crate) async fn give_back(client: &Client, who: &str) -> Result<(), String> {
    let leases = Api::<LeaseObject>::namespaced(client.clone(), LEASE.0);
    let Some(old) = leases.get_opt(LEASE.1).await.map_err(|e| e.to_string())? else { return Ok(()) };
    match cluster::holder(Some(&old)) {
        Holder::Is { who: holder, .. } if holder == who => {
            // Not if somebody took it meanwhile.
            let same =
                Preconditions { resource_version: old.metadata.resource_version, uid: old.metadata.uid };
            let delete = DeleteParams { preconditions: Some(same), ..DeleteParams::default() };
            leases.delete(LEASE.1, &delete).await.map(|_| ()).map_err(|e| e.to_string())
        }
        _ => Ok(()),
    }
}

/// `key=value:effect`, as an object of the API.
fn taint(text: &str) -> Option<Value> {
    let (rest, effect) = text.rsplit_once(':')?;
    let (key, value) = rest.split_once('=').unwrap_or((rest, ""));
    Some(match value {
        "" => json!({ "key": key, "effect": effect }),
        value => json!({ "key": key, "value": value, "effect": effect }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taint_comes_and_goes() {
        assert_eq!(
            taint("a/b=c:NoSchedule"),
            Some(json!({ "key": "a/b", "value": "c", "effect": "NoSchedule" }))
        );
        assert_eq!(taint("a:NoExecute"), Some(json!({ "key": "a", "effect": "NoExecute" })));
        assert_eq!(taint("nothing"), None);
    }
}
