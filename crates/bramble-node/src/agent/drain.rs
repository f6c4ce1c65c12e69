//! A worker moves its pods away before it restarts into another release.
//!
//! With the kubelet's own rights: Kubernetes' node authorizer lets it mark its own Node and evict pods that run on it,
//! and nothing else. So a machine needs no other's help and can hurt no other. A control plane stays as it is: the
//! pods of a site with one of them have nowhere to go while their API restarts.

use super::api::Api;
use bramble_api::names::annotation;
use serde::Deserialize;
use std::time::{Duration, Instant};

/// Between two looks at what is still there.
const PAUSE: Duration = Duration::from_secs(5);
/// The mark's value when a machine put it there itself. Another one is a roll-out's, which takes it back itself.
const OWN: &str = "update";
/// Pods in one answer: objects without spec and status are some kilobytes each.
const PAGE: u32 = 50;

/// What of a pod decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    namespace: String,
    name: String,
}

/// Marks the Node, so that no pod comes, and evicts those that can go elsewhere. Gives what is still there when the time
/// is over, one line each: nobody's budget holds an update up for ever.
///
/// A Node that somebody else has marked stays as it is, and stays marked afterwards.
pub fn drain(api: &Api, node: &str, limit: Duration) -> Result<Vec<String>, String> {
    let begun = Instant::now();
    cordon(api, node)?;
    loop {
        let pods = evictable(api, node)?;
        if pods.is_empty() {
            return Ok(Vec::new());
        }
        let mut left = Vec::new();
        for Pod { namespace, name } in pods {
            let why = match evict(api, &namespace, &name)?.status {
                200 | 201 => "is going",
                404 => continue,
                429 => "is kept by a disruption budget",
                status => &format!("cannot be evicted: the API answers {status}"),
            };
            left.push(format!("{namespace}/{name} {why}"));
        }
        if begun.elapsed() >= limit {
            return Ok(left);
        }
        std::thread::sleep(PAUSE);
    }
}

fn cordon(api: &Api, node: &str) -> Result<(), String> {
    let path = format!("/api/v1/nodes/{node}");
    let answer = api.get(&path)?;
    if answer.status != 200 {
        return Err(format!("the Node cannot be read: the API answers {}", answer.status));
    }
    if is_cordoned(&answer.body) {
        return Ok(());
    }
    let marked = serde_json::json!({
        "metadata": { "annotations": { annotation::CORDONED: OWN } },
        "spec": { "unschedulable": true },
    });
    match api.merge(&path, &marked.to_string())?.status {
        200 => Ok(()),
        status => Err(format!("the Node cannot be marked: the API answers {status}")),
    }
}

/// Takes back what [`drain`] marked, and nothing else. `node` is the Node as the API has it.
pub fn undo(api: &Api, path: &str, node: &[u8]) {
    if !is_ours(node) {
        return;
    }
    let cleared = serde_json::json!({
        "metadata": { "annotations": { annotation::CORDONED: null } },
        "spec": { "unschedulable": null },
    });
    // In another round, if not now.
    let _ = api.merge(path, &cleared.to_string());
}

fn is_cordoned(node: &[u8]) -> bool {
    let node: serde_json::Value = serde_json::from_slice(node).unwrap_or_default();
    node.pointer("/spec/unschedulable").and_then(|value| value.as_bool()).unwrap_or(false)
}

fn is_ours(node: &[u8]) -> bool {
    let node: serde_json::Value = serde_json::from_slice(node).unwrap_or_default();
    let mark = node.pointer("/metadata/annotations").and_then(|all| all.get(annotation::CORDONED));
    mark.and_then(|value| value.as_str()) == Some(OWN)
}

fn evict(api: &Api, namespace: &str, name: &str) -> Result<super::http::Response, String> {
    let eviction = serde_json::json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": { "namespace": namespace, "name": name },
    });
    api.create(&format!("/api/v1/namespaces/{namespace}/pods/{name}/eviction"), &eviction.to_string())
}

fn evictable(api: &Api, node: &str) -> Result<Vec<Pod>, String> {
    let mut pods = Vec::new();
    let mut next = String::new();
    loop {
        // What has ended needs no place. The API answers a node for its own pods only.
        let path = format!(
            "/api/v1/pods?limit={PAGE}&fieldSelector=spec.nodeName%3D{node},status.phase!%3DSucceeded,\
             status.phase!%3DFailed&continue={next}"
        );
        let answer = api.get_metadata(&path)?;
        if answer.status != 200 {
            return Err(format!("the pods cannot be listed: the API answers {}", answer.status));
        }
        let (page, more) = read(&answer.body)?;
        pods.extend(page);
        match more {
            Some(more) => next = more,
            None => return Ok(pods),
        }
    }
}

/// The pods of an answer that go elsewhere when they are evicted, and where the next answer begins.
fn read(body: &[u8]) -> Result<(Vec<Pod>, Option<String>), String> {
    #[derive(Deserialize)]
    struct List {
        metadata: Continue,
        /// `null` in place of no pods at all, in a list of metadata.
        items: Option<Vec<Item>>,
    }
    #[derive(Deserialize)]
    struct Continue {
        #[serde(default, rename = "continue")]
        next: String,
    }
    #[derive(Deserialize)]
    struct Item {
        metadata: Metadata,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Metadata {
        name: String,
        namespace: String,
        #[serde(default)]
        annotations: std::collections::BTreeMap<String, serde::de::IgnoredAny>,
        #[serde(default)]
        owner_references: Vec<Owner>,
    }
    #[derive(Deserialize)]
    struct Owner {
        kind: String,
        #[serde(default)]
        controller: bool,
    }
    let list: List = serde_json::from_slice(body).map_err(|e| format!("the pods cannot be read: {e}"))?;
    let stays = |pod: &Metadata| {
        // The kubelet's own, and those that a DaemonSet would make again at once.
        pod.annotations.contains_key("kubernetes.io/config.mirror")
            || pod.owner_references.iter().any(|owner| owner.controller && owner.kind == "DaemonSet")
    };
    let pods = list.items.unwrap_or_default().into_iter().map(|item| item.metadata).filter(|pod| !stays(pod));
    let pods = pods.map(|pod| Pod { namespace: pod.namespace, name: pod.name }).collect();
    Ok((pods, Some(list.metadata.next).filter(|next| !next.is_empty())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_come_back_at_once_stays() {
        let list = r#"{"kind":"PartialObjectMetadataList","metadata":{"continue":"abc"},"items":[
            {"metadata":{"name":"web-1","namespace":"default","ownerReferences":[{"kind":"ReplicaSet","name":"web","controller":true}]}},
            {"metadata":{"name":"alone","namespace":"default"}},
            {"metadata":{"name":"proxy","namespace":"kube-system","ownerReferences":[{"kind":"DaemonSet","name":"proxy","controller":true}]}},
            {"metadata":{"name":"static-n1","namespace":"kube-system","annotations":{"kubernetes.io/config.mirror":"x"}}}]}"#;
        let (pods, next) = read(list.as_bytes()).unwrap();
        assert_eq!(pods.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>(), ["web-1", "alone"]);
        assert_eq!(next.as_deref(), Some("abc"));
        assert_eq!(read(br#"{"metadata":{},"items":[]}"#), Ok((Vec::new(), None)));
        assert_eq!(read(br#"{"metadata":{},"items":null}"#), Ok((Vec::new(), None)));
        assert!(read(b"{}").is_err());
    }

    #[test]
    fn only_our_own_mark_is_ours() {
        let by_a_person = br#"{"metadata":{"annotations":{}},"spec":{"unschedulable":true}}"#;
        assert!(is_cordoned(by_a_person) && !is_ours(by_a_person));
        let ours = format!(r#"{{"metadata":{{"annotations":{{"{}":"update"}}}}}}"#, annotation::CORDONED);
        assert!(is_ours(ours.as_bytes()) && !is_cordoned(ours.as_bytes()));
        let of_a_roll_out = ours.replace("\"update\"", "\"ann@desk 5\"");
        assert!(!is_ours(of_a_roll_out.as_bytes()));
    }
}
