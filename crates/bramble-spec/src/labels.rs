//! Kubernetes' rules for the keys and values of labels and taints
//! (k8s.io/apimachinery `util/validation`, kubelet's rule for labels that a node may give itself).

use crate::decode::{Context, Decode, Definitions, Refusal};
use crate::diagnostic::Diagnostic;
use crate::scalar::is_domain;
use crate::tree::{Node, Value, shorten};
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;

/// Labels of a machine, by key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Labels(pub BTreeMap<String, String>);

/// Letters, digits, `-`, `_`, `.`, a letter or digit at both ends, at most 63.
fn is_name(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let end = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    text.len() <= 63 && bytes.iter().all(|b| inner(*b)) && end(bytes.first()) && end(bytes.last())
}

/// Whether Kubernetes takes the key of a label or taint.
pub(crate) fn check_key(key: &str) -> Result<(), Refusal> {
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) => (Some(prefix), name),
        None => (None, key),
    };
    if !is_name(name) {
        return Err(Refusal::new(format!("Kubernetes refuses the key `{}`", shorten(key))).hint(
            "a name is 1 to 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends; \
             before it a domain and `/` may stand",
        ));
    }
    match prefix {
        Some(prefix) if !is_domain(prefix) => Err(Refusal::new(format!(
            "Kubernetes refuses the key `{}`: what stands before `/` is no domain",
            shorten(key)
        ))
        .hint("lower case letters, digits and hyphens with dots between: `example.org/tier`")),
        _ => Ok(()),
    }
}

/// Whether Kubernetes takes the value of a label or taint.
pub(crate) fn check_value(value: &str) -> Result<(), Refusal> {
    match value.is_empty() || is_name(value) {
        true => Ok(()),
        false => Err(Refusal::new(format!("Kubernetes refuses the value `{}`", shorten(value))).hint(
            "at most 63 letters, digits, `-`, `_`, `.`, with a letter or digit at both ends, or nothing (`\"\"`)",
        )),
    }
}

/// Labels of Kubernetes' own domains that a kubelet may set on its node
/// (k8s.io/kubelet `pkg/apis/well_known_labels.go`).
const OWN: [&str; 11] = [
    "kubernetes.io/hostname",
    "kubernetes.io/os",
    "kubernetes.io/arch",
    "topology.kubernetes.io/zone",
    "topology.kubernetes.io/region",
    "node.kubernetes.io/instance-type",
    "beta.kubernetes.io/instance-type",
    "beta.kubernetes.io/os",
    "beta.kubernetes.io/arch",
    "failure-domain.beta.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/region",
];

/// Whether a kubelet may give its own node this label. A kubelet told otherwise does not start.
fn check_own(key: &str) -> Result<(), Refusal> {
    let Some((prefix, name)) = key.split_once('/') else { return Ok(()) };
    let under = |domain: &str| prefix == domain || prefix.ends_with(&format!(".{domain}"));
    let reserved = under("kubernetes.io") || under("k8s.io");
    if !reserved || OWN.contains(&key) || under("kubelet.kubernetes.io") || under("node.kubernetes.io") {
        return Ok(());
    }
    Err(Refusal::new(format!("a node may not give itself the label `{}`", shorten(key))).hint(format!(
        "Kubernetes keeps `kubernetes.io` and `k8s.io` for itself; `node.kubernetes.io/{name}` or a domain of your \
         own is free"
    )))
}

impl Decode for Labels {
    fn decode(node: &Node, cx: &mut Context) -> Option<Self> {
        let Value::Map(entries) = &node.value else {
            cx.wrong_type(node, "a mapping of labels");
            return None;
        };
        let mut labels = BTreeMap::new();
        let mut sound = true;
        for entry in entries {
            if let Err(refusal) = check_key(&entry.key).and_then(|()| check_own(&entry.key)) {
                cx.push(
                    Diagnostic::error("bad-label", entry.key_mark, refusal.message)
                        .label("label key")
                        .maybe_hint(refusal.hint),
                );
                sound = false;
            }
            let text = match &entry.value.value {
                Value::Scalar { .. } if entry.value.is_null() => "",
                Value::Scalar { text, .. } => text.as_str(),
                Value::List(_) | Value::Map(_) | Value::Alias => {
                    cx.wrong_type(&entry.value, "the value of a label");
                    sound = false;
                    continue;
                }
            };
            if let Err(refusal) = check_value(text) {
                cx.push(
                    Diagnostic::error("bad-label", entry.value.mark, refusal.message)
                        .label("label value")
                        .maybe_hint(refusal.hint),
                );
                sound = false;
            }
            labels.insert(entry.key.clone(), text.to_string());
        }
        sound.then_some(Labels(labels))
    }

    fn schema(_: &mut Definitions) -> serde_json::Value {
        json!({
            "type": "object",
            "additionalProperties": { "type": ["string", "number", "boolean", "null"] },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_as_kubernetes_takes_them() {
        let long = "a".repeat(63);
        for key in ["tier", "Tier", "a.b_c-d", "example.org/tier", "1", &long] {
            assert_eq!(check_key(key), Ok(()), "{key}");
        }
        let (too_long, long_prefix) = ("a".repeat(64), format!("{}/a", "a.".repeat(127)));
        for key in
            ["", "/a", "a/", "a/b/c", "-a", "a-", "a b", "Example.org/a", "\u{e4}", &too_long, &long_prefix]
        {
            assert!(check_key(key).is_err(), "{key}");
        }
    }

    #[test]
    fn labels_that_a_kubelet_may_set() {
        for key in [
            "tier",
            "example.org/a",
            "node.kubernetes.io/a",
            "x.kubelet.kubernetes.io/a",
            "kubernetes.io/os",
            "notkubernetes.io/a",
        ] {
            assert_eq!(check_own(key), Ok(()), "{key}");
        }
        for key in [
            "kubernetes.io/a",
            "node-role.kubernetes.io/worker",
            "k8s.io/a",
            "x.k8s.io/a",
            "topology.kubernetes.io/rack",
        ] {
            assert!(check_own(key).is_err(), "{key}");
        }
    }
}
