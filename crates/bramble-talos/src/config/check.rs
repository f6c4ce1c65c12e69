//! What the real loader would refuse of a whole config: said before a machine is given it.
//!
//! The rules are those of Talos' `config/container` and of the documents' own conflicts with the old one, found by
//! reading them; `tests/conformance` shows the judge refusing what is refused here. What is wrong within a document is
//! the judge's to say, and the machine's.

use super::Documents;
use crate::versions::Release;
use crate::yaml::{Map, Value};
use std::collections::BTreeMap;

/// Kinds that 1.13 knows.
const KINDS: &[&str] = &[
    "BlackholeRouteConfig",
    "BondConfig",
    "BridgeConfig",
    "DHCPv4Config",
    "DHCPv6Config",
    "DummyLinkConfig",
    "EnvironmentConfig",
    "EthernetConfig",
    "EventSinkConfig",
    "ExistingVolumeConfig",
    "ExtensionServiceConfig",
    "ExternalVolumeConfig",
    "HCloudVIPConfig",
    "HostnameConfig",
    "ImageVerificationConfig",
    "KmsgLogConfig",
    "KubeSpanConfig",
    "KubeSpanEndpointsConfig",
    "Layer2VIPConfig",
    "LinkAliasConfig",
    "LinkConfig",
    "NetworkDefaultActionConfig",
    "NetworkRuleConfig",
    "OOMConfig",
    "PCIDriverRebindConfig",
    "RawVolumeConfig",
    "RegistryAuthConfig",
    "RegistryMirrorConfig",
    "RegistryTLSConfig",
    "ResolverConfig",
    "RoutingRuleConfig",
    "SideroLinkConfig",
    "StaticHostConfig",
    "SwapVolumeConfig",
    "TCPProbeConfig",
    "TimeSyncConfig",
    "TrustedRootsConfig",
    "UserVolumeConfig",
    "VLANConfig",
    "VRFConfig",
    "VolumeConfig",
    "WatchdogTimerConfig",
    "WireguardConfig",
    "ZswapConfig",
];

/// Kinds that came with 1.14.
const NEW_KINDS: &[&str] = &[
    "BGPInstanceConfig",
    "CRIBaseRuntimeSpecConfig",
    "CRICustomizationConfig",
    "ContainerConfig",
    "DiscoveryIdentityConfig",
    "DiscoveryServiceConfig",
    "EtcFileConfig",
    "FilesystemScrubConfig",
    "FilesystemTrimConfig",
    "HTTPProbeConfig",
    "ImageCacheConfig",
    "KernelModuleConfig",
    "KubeAPIServerCAConfig",
    "KubeAPIServerConfig",
    "KubeAdmissionControlConfig",
    "KubeAggregatorCAConfig",
    "KubeAuditPolicyConfig",
    "KubeAuthenticationConfig",
    "KubeAuthorizerConfig",
    "KubeClusterConfig",
    "KubeControllerManagerConfig",
    "KubeCoreDNSConfig",
    "KubeCredentialProviderConfig",
    "KubeEtcdEncryptionConfig",
    "KubeExternalManifestConfig",
    "KubeFlannelCNIConfig",
    "KubeInlineManifestConfig",
    "KubeNetworkConfig",
    "KubeNodeConfig",
    "KubePrismConfig",
    "KubeProxyConfig",
    "KubeSchedulerConfig",
    "KubeServiceAccountConfig",
    "KubeStaticPodConfig",
    "KubeTalosAPIAccessConfig",
    "KubeletConfig",
    "LVMLogicalVolumeConfig",
    "LVMVolumeGroupConfig",
    "RAIDArrayConfig",
    "SecurityProfileConfig",
    "SysctlConfig",
    "SysfsConfig",
    "UdevRulesConfig",
    "UnattendedInstallConfig",
    "VethConfig",
];

/// Kinds that only control planes have.
const CONTROL_PLANE_KINDS: &[&str] = &[
    "KubeAPIServerConfig",
    "KubeAdmissionControlConfig",
    "KubeAggregatorCAConfig",
    "KubeAuditPolicyConfig",
    "KubeAuthenticationConfig",
    "KubeAuthorizerConfig",
    "KubeControllerManagerConfig",
    "KubeCoreDNSConfig",
    "KubeEtcdEncryptionConfig",
    "KubeFlannelCNIConfig",
    "KubeProxyConfig",
    "KubeSchedulerConfig",
    "KubeServiceAccountConfig",
    "KubeTalosAPIAccessConfig",
];

/// Kinds that each configure the link of their name.
const LINK_KINDS: &[&str] = &[
    "LinkConfig",
    "BondConfig",
    "BridgeConfig",
    "VLANConfig",
    "DummyLinkConfig",
    "VRFConfig",
    "WireguardConfig",
    "VethConfig",
];

/// Kinds of which a machine has one, under whatever name.
const VIP_KINDS: &[&str] = &["Layer2VIPConfig", "HCloudVIPConfig"];

/// A kind, and the old field that says the same.
const REPLACEMENTS: &[(&str, &str)] = &[
    ("UnattendedInstallConfig", "machine.install"),
    ("KubeletConfig", "machine.kubelet"),
    ("KubeCredentialProviderConfig", "machine.kubelet"),
    ("KubePrismConfig", "machine.features.kubePrism"),
    ("KubeTalosAPIAccessConfig", "machine.features.kubernetesTalosAPIAccess"),
    ("KubeNodeConfig", "machine.nodeLabels"),
    ("KubeNodeConfig", "machine.nodeAnnotations"),
    ("KubeNodeConfig", "machine.nodeTaints"),
    ("KubeNodeConfig", "cluster.allowSchedulingOnControlPlanes"),
    ("KubeNodeConfig", "cluster.allowSchedulingOnMasters"),
    ("KubeClusterConfig", "cluster.clusterName"),
    ("KubeClusterConfig", "cluster.controlPlane.endpoint"),
    ("KubeNetworkConfig", "cluster.network"),
    ("KubeFlannelCNIConfig", "cluster.network"),
    ("KubeAPIServerCAConfig", "cluster.ca"),
    ("KubeAggregatorCAConfig", "cluster.aggregatorCA"),
    ("KubeServiceAccountConfig", "cluster.serviceAccount"),
    ("KubeAPIServerConfig", "cluster.apiServer"),
    ("KubeAPIServerConfig", "cluster.controlPlane.localAPIServerPort"),
    ("KubeAdmissionControlConfig", "cluster.apiServer.admissionControl"),
    ("KubeAuditPolicyConfig", "cluster.apiServer.auditPolicy"),
    ("KubeAuthorizerConfig", "cluster.apiServer.authorizationConfig"),
    ("KubeControllerManagerConfig", "cluster.controllerManager"),
    ("KubeControllerManagerConfig", "machine.controlPlane.controllerManager"),
    ("KubeSchedulerConfig", "cluster.scheduler"),
    ("KubeSchedulerConfig", "machine.controlPlane.scheduler"),
    ("KubeProxyConfig", "cluster.proxy"),
    ("KubeCoreDNSConfig", "cluster.coreDNS"),
    ("KubeEtcdEncryptionConfig", "cluster.secretboxEncryptionSecret"),
    ("KubeEtcdEncryptionConfig", "cluster.aescbcEncryptionSecret"),
    ("DiscoveryServiceConfig", "cluster.discovery"),
    ("DiscoveryIdentityConfig", "cluster.id"),
    ("DiscoveryIdentityConfig", "cluster.secret"),
    ("ResolverConfig", "machine.network.searchDomains"),
    ("ResolverConfig", "machine.network.nameservers"),
    ("ResolverConfig", "machine.network.disableSearchDomain"),
    ("HostnameConfig", "machine.network.hostname"),
    ("HostnameConfig", "machine.features.stableHostname"),
    ("TimeSyncConfig", "machine.time.servers"),
    ("KubeSpanConfig", "machine.network.kubespan"),
    ("CRIBaseRuntimeSpecConfig", "machine.baseRuntimeSpecOverrides"),
    ("ImageCacheConfig", "machine.features.imageCache"),
];

/// Something that Talos would refuse.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Conflict(pub String);

/// Everything about a whole config that Talos would refuse. Kinds that no release known here has are passed: a newer
/// Talos may know them.
pub fn conflicts(config: &Documents, release: Release) -> Vec<Conflict> {
    let mut out = Vec::new();
    let mut say = |text: String| out.push(Conflict(text));
    let old = config.0.iter().find(|document| document.get("kind").is_none());
    let main = old.cloned().map(Value::Map);
    let role = main.as_ref().and_then(|m| m.text_at(&["machine", "type"])).unwrap_or_default();
    let worker = role == "worker";
    if !matches!(role, "worker" | "controlplane" | "init") {
        say("`machine.type` is neither `controlplane` nor `worker`".into());
    }
    authorities(main.as_ref(), config, worker, &mut say);
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    let mut links: BTreeMap<String, &str> = BTreeMap::new();
    for document in &config.0 {
        let Some(kind) = document.get("kind").and_then(Value::as_str) else { continue };
        let name = document.get("name").and_then(Value::as_str).unwrap_or_default();
        let title = if name.is_empty() { kind.to_string() } else { format!("{kind} `{name}`") };
        if release == Release::V1_13 && NEW_KINDS.contains(&kind) {
            say(format!("Talos 1.13 knows no {kind}: it came with 1.14"));
        }
        if worker && CONTROL_PLANE_KINDS.contains(&kind) {
            say(format!("{title} is for control planes, and this machine is a worker"));
        }
        if worker && VIP_KINDS.contains(&kind) {
            say(format!("{title}: a shared address of the API has no place on a worker"));
        }
        let count = seen.entry(format!("{kind}/{name}")).or_default();
        *count += 1;
        if *count == 2 {
            say(format!("{title} stands twice"));
        }
        if LINK_KINDS.contains(&kind)
            && let Some(other) = links.insert(name.to_string(), kind)
            && other != kind
        {
            say(format!("{other} and {kind} both configure the link `{name}`"));
        }
        for (_, field) in REPLACEMENTS.iter().filter(|(replaced, _)| *replaced == kind) {
            let path: Vec<&str> = field.split('.').collect();
            let set = main.as_ref().and_then(|m| m.at(&path)).is_some_and(|value| !value.is_null());
            // The encryption of 1.13 is in the old document while a VolumeConfig says the same.
            if set {
                say(format!("{title} and `{field}` say the same; Talos takes one of them: remove the field"));
            }
        }
    }
    out
}

/// Authorities: a control plane without a key is none, and a worker with one can sign for the whole cluster.
fn authorities(main: Option<&Value>, config: &Documents, worker: bool, say: &mut impl FnMut(String)) {
    let text = |path: &[&str]| main.and_then(|m| m.text_at(path)).unwrap_or_default();
    if text(&["machine", "ca", "crt"]).is_empty() {
        say("`machine.ca.crt` is gone: the machine could not be spoken to".into());
    }
    let key = !text(&["machine", "ca", "key"]).is_empty();
    if worker && key {
        say("`machine.ca.key` is on a worker: it could sign for every machine".into());
    }
    if !worker && !key {
        say("`machine.ca.key` is gone: a control plane signs with it".into());
    }
    let document = |kind: &str| config.0.iter().find(|d| d.get("kind").and_then(Value::as_str) == Some(kind));
    let modern = document("KubeAPIServerCAConfig").cloned().map(Value::Map);
    let issuing =
        |key: &str| modern.as_ref().and_then(|d| d.text_at(&["issuingCA", key])).unwrap_or_default();
    let kubernetes = !text(&["cluster", "ca", "key"]).is_empty() || !issuing("key").is_empty();
    if worker && kubernetes {
        say("the key of Kubernetes' authority is on a worker".into());
    }
    if !worker && !kubernetes {
        say("the key of Kubernetes' authority is gone from a control plane".into());
    }
    if !worker && text(&["cluster", "etcd", "ca", "key"]).is_empty() {
        say("`cluster.etcd.ca.key` is gone: etcd's members could not speak to each other".into());
    }
}

/// Kinds of neither release: passed through, and worth a word.
pub fn unknown_kinds(config: &Documents) -> Vec<&str> {
    let kinds = config.0.iter().filter_map(|document: &Map| document.get("kind").and_then(Value::as_str));
    kinds.filter(|kind| !KINDS.contains(kind) && !NEW_KINDS.contains(kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Machine, Role, documents};
    use super::*;
    use crate::bundle::Bundle;
    use crate::patch::Patch;

    fn said(release: Release, role: Role, patch: &str) -> String {
        let bundle = Bundle::read(include_str!("../../tests/data/secrets.yaml")).unwrap();
        let mut config = documents(&Machine::plain(release, role, "c", "https://a:6443", "1.36.3"), &bundle);
        if !patch.is_empty() {
            Patch::read(patch).unwrap().apply(&mut config, release).unwrap();
        }
        conflicts(&config, release).into_iter().map(|c| c.0).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn what_is_generated_has_no_conflict() {
        for release in [Release::V1_13, Release::V1_14] {
            for role in [Role::ControlPlane, Role::Worker] {
                assert_eq!(said(release, role, ""), "", "{release:?} {role:?}");
            }
        }
    }

    #[test]
    fn what_talos_refuses_is_said() {
        use Release::{V1_13, V1_14};
        use Role::{ControlPlane, Worker};
        let document = |kind: &str| format!("apiVersion: v1alpha1\nkind: {kind}\n");
        for (release, role, patch, says) in [
            (V1_14, Worker, "machine: {kubelet: {extraArgs: {v: 4}}}".to_string(), "KubeletConfig and `machine.kubelet`"),
            (V1_14, ControlPlane, "cluster: {proxy: {disabled: true}}".into(), "KubeProxyConfig and `cluster.proxy`"),
            (V1_14, Worker, document("KubeSchedulerConfig"), "this machine is a worker"),
            (V1_13, Worker, document("SysctlConfig"), "Talos 1.13 knows no SysctlConfig"),
            (V1_13, ControlPlane, "machine: {ca: {key: ''}}".into(), "a control plane signs with it"),
            (V1_13, Worker, "cluster: {ca: {key: AAAA}}".into(), "Kubernetes' authority is on a worker"),
            (V1_14, Worker, "machine: {type: boss}".into(), "neither `controlplane`"),
            (
                V1_14,
                Worker,
                "apiVersion: v1alpha1\nkind: LinkConfig\nname: x\n---\napiVersion: v1alpha1\nkind: BondConfig\nname: x\n".into(),
                "both configure the link `x`",
            ),
            (V1_14, Worker, format!("{}name: 10.0.0.1\nlink: x\n", document("Layer2VIPConfig")), "no place on a worker"),
        ] {
            let said = said(release, role, &patch);
            assert!(said.contains(says), "{patch}: {said:?}");
        }
    }

    #[test]
    fn kinds_of_a_newer_talos_pass() {
        let config = Documents(vec![Map::new().with("apiVersion", "v1alpha1").with("kind", "QuantumConfig")]);
        assert_eq!(unknown_kinds(&config), ["QuantumConfig"]);
    }
}
