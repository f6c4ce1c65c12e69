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
    /// Files that the text names, by their paths from the talconfig.
    pub files: Vec<String>,
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

/// What lies around a talconfig.
pub struct Surroundings<'a> {
    /// The text of a file by its path from the talconfig, as it lies there; or why there is none.
    pub file: &'a dyn Fn(&str) -> Result<String, String>,
    /// The value of a variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
}

/// Whether a YAML file was encrypted with SOPS.
pub fn is_encrypted(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("sops:"))
}

/// Replaces variables by their values, as talhelper does before it reads a file (`a8m/envsubst`, unset and empty ones
/// refused): `$NAME`, `${NAME}`, and with a default `${NAME:-text}`, `${NAME-text}`, `:=`, `=`, or in its place
/// `${NAME:+text}`, `${NAME+text}`. `$$` is a dollar. What stands in a comment need not have a value. Gives the names
/// that were replaced too.
///
/// # Errors
/// Names without a value.
pub fn substitute(
    text: &str,
    value: &dyn Fn(&str) -> Option<String>,
) -> Result<(String, Vec<String>), ImportError> {
    let value = |name: &str| value(name).filter(|text| !text.is_empty());
    let (mut out, mut used, mut missing) = (String::new(), BTreeSet::new(), BTreeSet::new());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        if let Some(escaped) = after.strip_prefix('$') {
            out.push('$');
            rest = escaped;
            continue;
        }
        let Some(variable) = Variable::read(after) else {
            out.push('$');
            rest = after;
            continue;
        };
        let stated = value(variable.name);
        let default = || match variable.word.strip_prefix('$') {
            Some(name) if name_length(name) == name.len() => value(name),
            _ => Some(variable.word.to_string()).filter(|word| !word.is_empty()),
        };
        let replaced = match variable.operator {
            "" => stated,
            "+" | ":+" => Some(stated.and_then(|_| default()).unwrap_or_default()),
            _ => stated.or_else(default),
        };
        match replaced {
            Some(text) => {
                out.push_str(&text);
                used.insert(variable.name.to_string());
            }
            None if in_comment(&out) => out.push_str(&rest[at..=at + variable.length]),
            None => drop(missing.insert(variable.name.to_string())),
        }
        rest = &after[variable.length..];
    }
    out.push_str(rest);
    if missing.is_empty() {
        Ok((out, used.into_iter().collect()))
    } else {
        Err(ImportError::Variables(missing.into_iter().collect()))
    }
}

fn name_length(text: &str) -> usize {
    text.bytes().take_while(|b| b.is_ascii_alphanumeric() || *b == b'_').count()
}

/// A variable as it stands in a text.
struct Variable<'a> {
    name: &'a str,
    /// What joins it to the word; empty when there is none.
    operator: &'a str,
    word: &'a str,
    /// Bytes after the dollar.
    length: usize,
}

impl Variable<'_> {
    /// Reads what follows a dollar; `None` when that is no variable and the dollar only one.
    fn read(after: &str) -> Option<Variable<'_>> {
        let (inner, length) = match after.strip_prefix('{') {
            Some(braced) => {
                let end = braced.find(['}', '\n']).filter(|end| braced[*end..].starts_with('}'))?;
                (&braced[..end], end + 2)
            }
            None => (&after[..name_length(after)], name_length(after)),
        };
        let (name, rest) = inner.split_at(name_length(inner));
        if name.is_empty() || name == "_" || name.starts_with(|c: char| c.is_ascii_digit()) {
            return None;
        }
        let operator =
            [":-", ":=", ":+", "-", "=", "+"].into_iter().find(|o| rest.starts_with(o)).unwrap_or("");
        let word = &rest[operator.len()..];
        (!operator.is_empty() || word.is_empty()).then_some(Variable { name, operator, word, length })
    }
}

/// Whether what comes next stands in a comment of YAML.
fn in_comment(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default();
    let quotes_closed =
        |text: &str| ['"', '\''].iter().all(|quote| text.matches(*quote).count().is_multiple_of(2));
    line.trim_start().starts_with('#') || line.match_indices(" #").any(|(at, _)| quotes_closed(&line[..at]))
}

/// Everything that is collected on the way.
struct Import<'a> {
    around: &'a Surroundings<'a>,
    release: Release,
    changed: Vec<String>,
    lost: Vec<String>,
    files: BTreeSet<String>,
}

/// Turns a talconfig into a `bramble.yaml`. Patches that lie in files (`@...`) are named again; [`Imported::files`] lists
/// them.
///
/// # Errors
/// A text that is no talconfig. What is merely unknown is listed instead.
pub fn import(text: &str, around: &Surroundings<'_>) -> Result<Imported, ImportError> {
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
    let mut import = Import {
        around,
        release: Release::V1_13,
        changed: Vec::new(),
        lost: Vec::new(),
        files: BTreeSet::new(),
    };
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
    let Import { changed, lost, files, .. } = import;
    Ok(Imported { file: text, changed, lost, files: files.into_iter().collect() })
}

/// A value below a path of keys: part of a config.
fn at(path: &[&'static str], value: impl Into<Value>) -> Value {
    path.iter().rev().fold(value.into(), |value, key| Map::new().with(*key, value).into())
}

impl Import<'_> {
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
            let stated = manifest.text_at(&["contents"]).unwrap_or_default();
            let what = format!("inlineManifests: {name}");
            if let Some(contents) = self.contents(&what, stated, manifest.at(&["skipEnvsubst"])) {
                kept.push(Map::new().with("name", name).with("contents", contents).into());
            }
        }
        if !kept.is_empty() {
            patches.push(at(&["cluster", "inlineManifests"], Value::List(kept)));
        }
    }

    /// A text that may lie in a file (`@...`): then the file's, as talhelper reads it.
    fn contents(&mut self, what: &str, stated: &str, as_it_is: Option<&Value>) -> Option<String> {
        let Some(path) = stated.strip_prefix('@').map(str::trim) else { return Some(stated.to_string()) };
        let lost = match (self.around.file)(path) {
            Err(why) => why,
            Ok(text) if is_encrypted(&text) => "it is encrypted; write a patch, and encrypt that".into(),
            Ok(text) if as_it_is.and_then(Value::as_str) == Some("true") => {
                self.changed.push(format!("{what}: the text of {path} stands in the file"));
                return Some(text);
            }
            Ok(text) => match substitute(&text, self.around.variable) {
                Ok((text, _)) => {
                    self.changed.push(format!("{what}: the text of {path} stands in the file"));
                    return Some(text);
                }
                Err(error) => error.to_string(),
            },
        };
        self.lost.push(format!("{what}: {path}: {lost}"));
        None
    }

    /// A patch in a file, and what of it is not understood here.
    fn patch_file(&mut self, whose: &str, path: &str) {
        let path = path.trim_start_matches("./");
        match (self.around.file)(path) {
            Err(why) => self.lost.push(format!("the patch {path} of {whose}: {why}")),
            Ok(text) => {
                if text.contains("{{") {
                    self.lost.push(format!("the patch {path} of {whose}: it is a Go template; write it out"));
                }
                if !is_encrypted(&text) {
                    self.variables(&format!("the patch {path} of {whose}"), &text);
                }
            }
        }
        self.files.insert(path.to_string());
    }

    /// Says of a file that is used as it is what talhelper would have replaced in it.
    fn variables(&mut self, what: &str, text: &str) {
        let names = match substitute(text, &|_| None) {
            Ok((_, names)) | Err(ImportError::Variables(names)) => names,
            Err(_) => Vec::new(),
        };
        if !names.is_empty() {
            self.lost.push(format!(
                "{what}: it has variables ({}), which nothing replaces here; write their values, and encrypt the file \
                 with `sops` if they are secret",
                names.join(", ")
            ));
        } else if text.contains("$$") {
            self.lost.push(format!("{what}: it has `$$`, of which talhelper made `$`; write that"));
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
            match text.strip_prefix('@').map(str::trim) {
                Some(path) => {
                    self.patch_file(whose, path);
                    patches.push(Value::text(format!("@{}", path.trim_start_matches("./"))));
                }
                None => patches.push(Value::text(text.to_string())),
            }
        }
    }
}

#[cfg(test)]
mod tests;
