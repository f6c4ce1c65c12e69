//! The way in from talhelper: its `talconfig.yaml` as a `bramble.yaml`.
//!
//! What the file has words for is said in them; what only Talos has words for becomes patches; the rest is listed as
//! lost. Nothing is dropped in silence. The keys are those of talhelper 3.1.17, its last release.

mod node;

use crate::versions::Release;
use crate::yaml::{self, Map, ReadError, Value};
use bramble_spec::Version;
use std::collections::BTreeSet;
use std::net::Ipv4Addr;

/// What came of a talconfig.
#[derive(Debug, Default)]
pub struct Imported {
    /// The text of `bramble.yaml`.
    pub file: String,
    /// What is said in another way than before, or means something else.
    pub changed: Vec<String>,
    /// What could not be carried over.
    pub lost: Vec<String>,
}

/// A talconfig that cannot be taken over.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// It is not YAML.
    #[error("it is not YAML")]
    Yaml(#[source] ReadError),
    /// It is something else.
    #[error("it is no talconfig: {0}")]
    Kind(String),
    /// Variables without a value.
    #[error("it uses variables that have no value: {}", .0.join(", "))]
    Variables(Vec<String>),
}

/// Replaces `${NAME}`, `${NAME:-default}` and `$NAME` by their values, as talhelper does before it reads the file.
/// Gives the names that were replaced too.
///
/// # Errors
/// Names without a value.
pub fn substitute(
    text: &str,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, Vec<String>), ImportError> {
    let (mut out, mut used, mut missing) = (String::new(), BTreeSet::new(), BTreeSet::new());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let name_length =
            |text: &str| text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count();
        let (name, default, length) = if let Some(inner) = after.strip_prefix('{') {
            let Some(end) = inner.find('}') else {
                out.push('$');
                rest = after;
                continue;
            };
            let (name, default) = match inner[..end].split_once(":-") {
                Some((name, default)) => (name, Some(default)),
                None => (&inner[..end], None),
            };
            (name, default, end + 2)
        } else {
            let length = name_length(after);
            (&after[..length], None, length)
        };
        let is_name = !name.is_empty()
            && name_length(name) == name.len()
            && !name.starts_with(|c: char| c.is_ascii_digit());
        if !is_name {
            out.push('$');
            rest = after;
            continue;
        }
        match value(name).or_else(|| default.map(str::to_string)) {
            Some(text) => {
                out.push_str(&text);
                used.insert(name.to_string());
            }
            None => drop(missing.insert(name.to_string())),
        }
        rest = &after[length..];
    }
    out.push_str(rest);
    if missing.is_empty() {
        Ok((out, used.into_iter().collect()))
    } else {
        Err(ImportError::Variables(missing.into_iter().collect()))
    }
}

/// Everything that is collected on the way.
struct Import {
    release: Release,
    changed: Vec<String>,
    lost: Vec<String>,
}

/// Turns a talconfig into a `bramble.yaml`. Files that it names (`@...`) are named again: keep them beside it.
///
/// # Errors
/// A text that is no talconfig. What is merely unknown is listed instead.
pub fn import(text: &str) -> Result<Imported, ImportError> {
    let documents = yaml::read(text).map_err(ImportError::Yaml)?;
    let [top] = documents.as_slice() else { return Err(ImportError::Kind("it has not one document".into())) };
    let Some(map) = top.as_map() else { return Err(ImportError::Kind("it is no mapping".into())) };
    let wanted = |key: &str| {
        top.text_at(&[key]).map(str::to_string).ok_or_else(|| ImportError::Kind(format!("it has no `{key}`")))
    };
    let (name, endpoint) = (wanted("clusterName")?, wanted("endpoint")?);
    let nodes = top.at(&["nodes"]).and_then(Value::as_list).unwrap_or_default();
    if nodes.is_empty() {
        return Err(ImportError::Kind("it has no `nodes`".into()));
    }
    let mut import = Import { release: Release::V1_13, changed: Vec::new(), lost: Vec::new() };
    let version = import.talos_version(top.text_at(&["talosVersion"]));
    let mut patches: Vec<Value> = Vec::new();

    let mut kubernetes = Map::new().with("distribution", "talos");
    kubernetes.set("version", import.kubernetes_version(top.text_at(&["kubernetesVersion"])));
    let mut network = Map::new();
    let mut talos = Map::new().with("version", version);
    let addresses = node::addresses(nodes);
    let vip = nodes.iter().find_map(node::vip);
    let first = node::first_control_plane(nodes);
    kubernetes.set("endpoint", import.endpoint(&endpoint, top, vip, first, &mut patches));
    network.set("subnet", import.subnet(nodes, &addresses));
    if let Some(gateway) = node::gateway(nodes) {
        network.set("gateway", gateway.to_string());
    }
    let mut schedule = false;
    for (key, value) in map.iter() {
        let truth = value.as_str() == Some("true");
        match key {
            "clusterName"
            | "endpoint"
            | "nodes"
            | "talosVersion"
            | "kubernetesVersion"
            | "controlPlane"
            | "worker"
            | "additionalApiServerCertSans" => {}
            "domain" => network.set("clusterDomain", value.clone()),
            "allowSchedulingOnMasters" | "allowSchedulingOnControlPlanes" => schedule |= truth,
            "additionalMachineCertSans" => patches.push(at(&["machine", "certSANs"], value.clone())),
            "inlineManifests" => import.manifests(value, &mut patches),
            "clusterPodNets" => import.range("pods", "podSubnets", value, &mut network, &mut patches),
            "clusterSvcNets" => import.range("services", "serviceSubnets", value, &mut network, &mut patches),
            "cniConfig" => import.cni(value, &mut kubernetes, &mut patches),
            "patches" => import.patches("the cluster", value, &mut patches),
            "imageFactory" => import.lost.push("imageFactory: images come from factory.talos.dev".into()),
            other => import.lost.push(format!("{other}: not a key of talhelper 3.1.17")),
        }
    }
    kubernetes.set("scheduleOnControlPlane", schedule);
    // talhelper's defaults, where they are not ours.
    for (key, default) in [("pods", "10.244.0.0/16"), ("services", "10.96.0.0/12")] {
        if network.get(key).is_none() {
            network.set(key, default);
        }
    }
    if !patches.is_empty() {
        if nodes.iter().any(|node| node.at(&["patches"]).is_some()) {
            import.changed.push(
                "patches: those of all machines are applied first here, and a machine's own last; talhelper has it the other way round".into(),
            );
        }
        talos.set("patches", Value::List(patches));
    }
    let mut defaults = Map::new();
    for (key, role) in [("controlPlane", "control-plane"), ("worker", "worker")] {
        if let Some(group) = top.at(&[key]).and_then(Value::as_map) {
            let settings = import.settings(key, group);
            if !settings.is_empty() {
                defaults.set(role, settings);
            }
        }
    }
    let nodes: Value = nodes.iter().enumerate().map(|(index, node)| import.node(index, node, top)).collect();
    let mut spec = Map::new().with("kubernetes", kubernetes).with("network", network).with("talos", talos);
    if !defaults.is_empty() {
        spec.set("defaults", defaults);
    }
    spec.set("nodes", nodes);
    let file = Map::new()
        .with("apiVersion", "bramble.home.arpa/v1alpha1")
        .with("kind", "Cluster")
        .with("metadata", Map::new().with("name", name))
        .with("spec", spec);
    let text = format!("# yaml-language-server: $schema=./bramble.schema.json\n{}", yaml::write([&file]));
    let Import { changed, lost, .. } = import;
    Ok(Imported { file: text, changed, lost })
}

/// A value below a path of keys: part of a config.
fn at(path: &[&'static str], value: impl Into<Value>) -> Value {
    path.iter().rev().fold(value.into(), |value, key| Map::new().with(*key, value).into())
}

impl Import {
    fn talos_version(&mut self, stated: Option<&str>) -> String {
        let version =
            stated.map(|text| if text.starts_with('v') { text.to_string() } else { format!("v{text}") });
        let parsed = version.as_deref().and_then(|text| text.parse::<Version>().ok());
        match parsed.as_ref().and_then(Release::of) {
            Some(release) => {
                self.release = release;
                version.unwrap_or_default()
            }
            None => {
                self.release = Release::V1_13;
                self.changed.push(format!(
                    "talosVersion: {} is not served; v1.13.9 is written. Machines that run an older one are upgraded first, minor by minor",
                    stated.unwrap_or("what talhelper takes when nothing is stated")
                ));
                "v1.13.9".into()
            }
        }
    }

    fn kubernetes_version(&mut self, stated: Option<&str>) -> String {
        match stated {
            Some(text) if text.starts_with('v') => text.to_string(),
            Some(text) => format!("v{text}"),
            None => {
                self.changed.push("kubernetesVersion: was not stated; v1.36.3 is written".into());
                "v1.36.3".into()
            }
        }
    }

    fn endpoint(
        &mut self,
        url: &str,
        top: &Value,
        vip: Option<Ipv4Addr>,
        first: Option<Ipv4Addr>,
        patches: &mut Vec<Value>,
    ) -> Map {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest).trim_end_matches('/');
        let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "443"));
        let mut endpoint = Map::new();
        let address = host.parse::<Ipv4Addr>().ok();
        let reached = address.or(vip).or(first).unwrap_or(Ipv4Addr::UNSPECIFIED);
        endpoint.set("address", reached.to_string());
        endpoint.set("port", Value::Plain(port.to_string().into()));
        if Some(reached) != first {
            // A shared address stands in the interfaces of the machines, which are carried as they are.
            endpoint.set("vip", "external");
        }
        let mut sans: Vec<Value> =
            top.at(&["additionalApiServerCertSans"]).and_then(Value::as_list).unwrap_or_default().to_vec();
        if address.is_none() {
            self.changed.push(format!(
                "endpoint: the name {host:?} is kept by a patch; `endpoint.address` is {reached}"
            ));
            if !sans.iter().any(|san| san.as_str() == Some(host)) {
                sans.push(host.to_string().into());
            }
            match self.release {
                Release::V1_13 => patches.push(at(&["cluster", "controlPlane", "endpoint"], url.to_string())),
                Release::V1_14 => {
                    let document =
                        |kind: &'static str| Map::new().with("apiVersion", "v1alpha1").with("kind", kind);
                    patches.push(document("KubeClusterConfig").with("endpoint", url.to_string()).into());
                }
            }
        }
        if !sans.is_empty() {
            self.changed
                .push("additionalApiServerCertSans: the names are good for the machine API too".into());
            endpoint.set("sans", Value::List(sans));
        }
        endpoint
    }

    /// The smallest usual range that holds every machine: the file wants it, and talhelper has no word for it.
    fn subnet(&mut self, nodes: &[Value], addresses: &[Ipv4Addr]) -> String {
        let stated = nodes.iter().find_map(node::prefix);
        let length = stated.unwrap_or(24).min(24);
        let number = addresses.first().map_or(0, |a| u32::from(*a));
        for length in (8..=length).rev() {
            let mask = u32::MAX << (32 - u32::from(length));
            if addresses.iter().all(|a| u32::from(*a) & mask == number & mask) {
                let subnet = format!("{}/{length}", Ipv4Addr::from(number & mask));
                self.changed
                    .push(format!("subnet: {subnet} holds all machines; talhelper does not say which it is"));
                return subnet;
            }
        }
        self.lost.push("nodes: the machines are not in one network, which the file cannot say".into());
        "10.0.0.0/8".into()
    }

    fn manifests(&mut self, value: &Value, patches: &mut Vec<Value>) {
        let mut kept = Vec::new();
        for manifest in value.as_list().unwrap_or_default() {
            let name = manifest.text_at(&["name"]).unwrap_or_default().to_string();
            match manifest.text_at(&["contents"]) {
                Some(contents) if !contents.starts_with('@') => {
                    kept.push(Map::new().with("name", name).with("contents", contents.to_string()).into());
                }
                _ => self.lost.push(format!(
                    "inlineManifests: {name}: put the file's text into a patch of `cluster.inlineManifests`"
                )),
            }
        }
        if !kept.is_empty() {
            patches.push(at(&["cluster", "inlineManifests"], Value::List(kept)));
        }
    }

    fn range(
        &mut self,
        key: &'static str,
        field: &'static str,
        value: &Value,
        network: &mut Map,
        patches: &mut Vec<Value>,
    ) {
        let items = value.as_list().unwrap_or_default();
        if let Some(first) = items.iter().filter_map(Value::as_str).find(|text| !text.contains("::")) {
            network.set(key, first.to_string());
        }
        if items.len() > 1 {
            patches.push(match self.release {
                Release::V1_13 => at(&["cluster", "network", field], value.clone()),
                Release::V1_14 => {
                    let document =
                        Map::new().with("apiVersion", "v1alpha1").with("kind", "KubeNetworkConfig");
                    document.with(field, value.clone()).into()
                }
            });
            self.changed.push(format!("{key}: the second range stands in a patch"));
        }
    }

    fn cni(&mut self, value: &Value, kubernetes: &mut Map, patches: &mut Vec<Value>) {
        match value.text_at(&["name"]) {
            Some("none") => kubernetes.set("cni", "none"),
            Some("flannel") => {
                kubernetes.set("cni", Map::new().with("kind", "flannel").with("backend", "vxlan"));
                if value.at(&["flannel"]).is_some() {
                    self.lost.push("cniConfig.flannel: state it as a patch".into());
                }
            }
            Some("custom") => {
                kubernetes.set("cni", "none");
                let urls = value.at(&["urls"]).cloned().unwrap_or(Value::List(Vec::new()));
                patches.push(match self.release {
                    Release::V1_13 => at(
                        &["cluster", "network", "cni"],
                        Map::new().with("name", "custom").with("urls", urls),
                    ),
                    Release::V1_14 => at(&["cluster", "extraManifests"], urls),
                });
            }
            other => self.lost.push(format!("cniConfig: {other:?} is not known")),
        }
    }

    /// Patches as they are: a file by its name, text as text.
    fn patches(&mut self, whose: &str, value: &Value, patches: &mut Vec<Value>) {
        for (index, patch) in value.as_list().unwrap_or_default().iter().enumerate() {
            let Some(text) = patch.as_str() else {
                patches.push(patch.clone());
                continue;
            };
            if text.contains("{{") {
                self.lost.push(format!("patch {} of {whose}: it is a Go template; write it out", index + 1));
                continue;
            }
            patches.push(Value::text(text.to_string()));
        }
    }
}

#[cfg(test)]
mod tests;
