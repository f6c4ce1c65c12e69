//! Documents that both releases have.

use super::{Disk, Machine, SystemVolume, VolumeKey};
use crate::yaml::{Map, Value};

/// The start of a document.
pub(super) fn document(kind: &'static str) -> Map {
    Map::new().with("apiVersion", "v1alpha1").with("kind", kind)
}

/// The start of a document that has a name.
pub(super) fn named(kind: &'static str, name: impl Into<String>) -> Map {
    document(kind).with("name", name.into())
}

/// A list of texts.
pub(super) fn texts<'a>(items: impl IntoIterator<Item = &'a String>) -> Value {
    items.into_iter().cloned().collect()
}

/// A mapping of texts.
pub(super) fn text_map<'a>(items: impl IntoIterator<Item = (&'a String, &'a String)>) -> Map {
    items.into_iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

pub(super) fn hostname(machine: &Machine) -> Map {
    match &machine.hostname {
        Some(name) => document("HostnameConfig").with("hostname", name.clone()),
        None => document("HostnameConfig").with("auto", "stable"),
    }
}

/// Name servers and search domains, without what only 1.14 has there.
pub(super) fn resolver(machine: &Machine) -> Map {
    let mut resolver = document("ResolverConfig");
    if !machine.nameservers.is_empty() {
        let servers = machine.nameservers.iter().map(|a| Map::new().with("address", a.to_string()));
        resolver.set("nameservers", servers.collect::<Value>());
    }
    if !machine.search.is_empty() {
        resolver.set("searchDomains", Map::new().with("domains", texts(&machine.search)));
    }
    resolver
}

pub(super) fn time(machine: &Machine) -> Option<Map> {
    let servers = Map::new().with("servers", texts(&machine.ntp));
    (!machine.ntp.is_empty()).then(|| document("TimeSyncConfig").with("ntp", servers))
}

/// What a volume document says of Talos' own partition. `secure`: 1.14 mounts EPHEMERAL without devices and set-uid.
pub(super) fn system_volume(name: &'static str, volume: Option<&SystemVolume>, secure: bool) -> Map {
    let mut document = named("VolumeConfig", name);
    if let Some(disk) = volume.and_then(|v| v.disk.as_ref()) {
        document
            .set("provisioning", Map::new().with("diskSelector", Map::new().with("match", selector(disk))));
    }
    if let Some(key) = volume.and_then(|v| v.key.as_ref()) {
        let key = match key {
            VolumeKey::Tpm => Map::new().with("slot", 0_u64).with("tpm", Map::new()),
            VolumeKey::NodeId => Map::new().with("slot", 0_u64).with("nodeID", Map::new()),
            VolumeKey::Static(text) => {
                let passphrase = Map::new().with("passphrase", text.expose().clone());
                Map::new().with("slot", 0_u64).with("static", passphrase)
            }
        };
        // A lost STATE must not take a key to the rest with it, and a TPM's key must not open a foreign STATE's.
        let key = match (name, volume.and_then(|v| v.key.as_ref())) {
            ("EPHEMERAL", Some(VolumeKey::Tpm)) => key.with("lockToState", true),
            _ => key,
        };
        document.set(
            "encryption",
            Map::new().with("provider", "luks2").with("keys", [key].into_iter().collect::<Value>()),
        );
    }
    if secure {
        document.set("mount", Map::new().with("secure", true));
    }
    document
}

pub(super) fn user_volumes(machine: &Machine) -> impl Iterator<Item = Map> {
    machine.user_volumes.iter().map(|volume| {
        let selector = Map::new().with("match", selector(&volume.disk));
        named("UserVolumeConfig", volume.name.clone())
            .with(
                "provisioning",
                Map::new().with("diskSelector", selector).with("minSize", "1GiB").with("grow", true),
            )
            .with("filesystem", Map::new().with("type", volume.filesystem.clone()))
    })
}

/// A selector in Talos' expression language (CEL) that says all that is stated of a disk.
pub(super) fn selector(disk: &Disk) -> String {
    let mut terms = Vec::new();
    if disk.system {
        terms.push("system_disk".to_string());
    }
    for (field, value) in
        [("dev_path", &disk.path), ("serial", &disk.serial), ("wwid", &disk.wwid), ("model", &disk.model)]
    {
        if let Some(value) = value {
            terms.push(format!("disk.{field} == {}", cel_text(value)));
        }
    }
    if let Some(size) = disk.size {
        terms.push(format!("disk.size >= {}u", size - size / 10));
        terms.push(format!("disk.size <= {}u", size + size / 10));
    }
    terms.join(" && ")
}

/// A text in CEL.
fn cel_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            out.push('\\');
        }
        out.push(c);
    }
    out.push('"');
    out
}

pub(super) fn registries(machine: &Machine) -> Vec<Map> {
    let all = &machine.registries;
    let mut out = Vec::new();
    for (name, registry) in all.iter().filter(|(_, r)| r.login.is_some()) {
        if let Some((user, password)) = &registry.login {
            let login = named("RegistryAuthConfig", name).with("username", user.clone());
            out.push(login.with("password", password.expose().clone()));
        }
    }
    for (name, registry) in all.iter().filter(|(_, r)| !r.mirrors.is_empty()) {
        let endpoints = registry.mirrors.iter().map(|url| Map::new().with("url", url.clone()));
        out.push(named("RegistryMirrorConfig", name).with("endpoints", endpoints.collect::<Value>()));
    }
    for (name, registry) in all {
        if let Some(ca) = &registry.ca {
            out.push(named("RegistryTLSConfig", name).with("ca", ca.clone()));
        }
    }
    out
}

pub(super) fn trusted(machine: &Machine) -> Option<Map> {
    let all = machine.trusted.iter().map(|pem| format!("{}\n", pem.trim())).collect::<String>();
    (!all.is_empty()).then(|| named("TrustedRootsConfig", "bramble").with("certificates", all))
}

pub(super) fn environment(machine: &Machine) -> Option<Map> {
    let variables = text_map(&machine.environment);
    (!variables.is_empty()).then(|| document("EnvironmentConfig").with("variables", variables))
}

/// Kubernetes' `PodSecurityConfiguration`.
pub(super) fn pod_security(level: &'static str) -> Map {
    // What is only warned about is never weaker than what is enforced, as Talos has it.
    let defaults = Map::new()
        .with("audit", "restricted")
        .with("audit-version", "latest")
        .with("enforce", level)
        .with("enforce-version", "latest")
        .with("warn", "restricted")
        .with("warn-version", "latest");
    let exemptions = Map::new()
        .with("namespaces", ["kube-system"].into_iter().collect::<Value>())
        .with("runtimeClasses", Value::List(Vec::new()))
        .with("usernames", Value::List(Vec::new()));
    Map::new()
        .with("apiVersion", "pod-security.admission.config.k8s.io/v1alpha1")
        .with("defaults", defaults)
        .with("exemptions", exemptions)
        .with("kind", "PodSecurityConfiguration")
}

/// Kubernetes' audit `Policy`: everything's metadata, or nothing.
pub(super) fn audit_policy(on: bool) -> Map {
    let rule = Map::new().with("level", if on { "Metadata" } else { "None" });
    Map::new()
        .with("apiVersion", "audit.k8s.io/v1")
        .with("kind", "Policy")
        .with("rules", [rule].into_iter().collect::<Value>())
}

/// An image of Kubernetes in its release.
pub(super) fn image(name: &str, machine: &Machine) -> String {
    format!("{name}:v{}", machine.kubernetes)
}

pub(super) const KUBELET: &str = "ghcr.io/siderolabs/kubelet";
pub(super) const API_SERVER: &str = "registry.k8s.io/kube-apiserver";
pub(super) const CONTROLLER_MANAGER: &str = "registry.k8s.io/kube-controller-manager";
pub(super) const SCHEDULER: &str = "registry.k8s.io/kube-scheduler";
pub(super) const PROXY: &str = "registry.k8s.io/kube-proxy";
/// Load balancers leave control planes alone.
pub(super) const NO_LOAD_BALANCER: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
/// Label and taint of control planes.
pub(super) const CONTROL_PLANE: &str = "node-role.kubernetes.io/control-plane";
/// Where machines of a cluster find each other.
pub(super) const DISCOVERY: &str = "https://discovery.talos.dev/";
/// Port of the API's local proxy on each machine.
pub(super) const PRISM_PORT: u64 = 7445;
