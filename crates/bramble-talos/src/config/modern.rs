//! 1.14: what was one document is some thirty. Only what names the machine and etcd stays in the old one.

use super::shared::*;
use super::{Cni, Machine, packed};
use crate::bundle::Bundle;
use crate::yaml::{Map, Value};

pub(super) fn documents(machine: &Machine, bundle: &Bundle) -> Vec<Map> {
    let mut out = vec![v1alpha1(machine, bundle)];
    out.push(named("DiscoveryServiceConfig", "default").with("endpoint", DISCOVERY));
    out.push(
        document("DiscoveryIdentityConfig")
            .with("clusterID", bundle.cluster_id.clone())
            .with("clusterSecret", bundle.cluster_secret.expose().clone()),
    );
    out.extend(install(machine));
    let host_dns = Map::new().with("enabled", true).with("forwardKubeDNSToHost", true);
    out.push(resolver(machine).with("hostDNS", host_dns));
    if !machine.sysctls.is_empty() {
        out.push(document("SysctlConfig").with("params", text_map(&machine.sysctls)));
    }
    out.extend(machine.modules.iter().map(|name| named("KernelModuleConfig", name)));
    let volume = |name| machine.volumes.iter().find(|v| v.name == name);
    if let Some(state) = volume("STATE") {
        out.push(system_volume("STATE", Some(state), false));
    }
    out.push(system_volume("EPHEMERAL", volume("EPHEMERAL"), true));
    out.extend(user_volumes(machine));
    out.push(document("FilesystemTrimConfig").with("interval", "168h0m0s"));
    out.push(document("SecurityProfileConfig").with("workloadIsolation", true));
    out.extend(registries(machine));
    out.extend(trusted(machine));
    out.extend(environment(machine));
    out.push(hostname(machine));
    out.extend(super::links::links(machine));
    out.extend(time(machine));
    everywhere(machine, bundle, &mut out);
    if machine.is_control_plane() {
        control_plane(machine, bundle, &mut out);
    }
    out
}

fn v1alpha1(machine: &Machine, bundle: &Bundle) -> Map {
    let control_plane = machine.is_control_plane();
    let key = if control_plane { packed(bundle.machine.key.expose()) } else { String::new() };
    let own = Map::new()
        .with("type", if control_plane { "controlplane" } else { "worker" })
        .with("token", bundle.machine_token.expose().clone())
        .with("ca", Map::new().with("crt", packed(&bundle.machine.certificate)).with("key", key))
        .with("certSANs", texts(&machine.sans))
        .with("features", Map::new().with("diskQuotaSupport", true));
    let mut cluster = Map::new().with("token", bundle.bootstrap_token.expose().clone());
    if control_plane {
        cluster.set("etcd", etcd(machine, bundle));
    }
    Map::new()
        .with("version", "v1alpha1")
        .with("debug", false)
        .with("persist", true)
        .with("machine", own)
        .with("cluster", cluster)
}

/// etcd, which stays in the old document.
pub(super) fn etcd(machine: &Machine, bundle: &Bundle) -> Map {
    let ca = Map::new()
        .with("crt", packed(&bundle.etcd.certificate))
        .with("key", packed(bundle.etcd.key.expose()));
    let etcd = Map::new().with("ca", ca);
    match machine.own_subnets.is_empty() {
        true => etcd,
        false => etcd.with("advertisedSubnets", texts(&machine.own_subnets)),
    }
}

fn install(machine: &Machine) -> Option<Map> {
    let install = machine.install.as_ref()?;
    let selector = Map::new().with("match", selector(&install.disk));
    Some(
        document("UnattendedInstallConfig")
            .with("installer", Map::new().with_some("image", install.image.clone()))
            .with("provisioning", Map::new().with("diskSelector", selector).with("wipe", false)),
    )
}

/// What every machine has of Kubernetes.
fn everywhere(machine: &Machine, bundle: &Bundle, out: &mut Vec<Map>) {
    out.push(
        document("KubeClusterConfig")
            .with("clusterName", machine.cluster.clone())
            .with("endpoint", machine.endpoint.clone()),
    );
    out.push(node(machine));
    out.push(
        document("KubeletConfig")
            .with("image", image(KUBELET, machine))
            .with("config", Map::new())
            .with("defaultRuntimeSeccompProfileEnabled", true),
    );
    out.push(
        document("KubeNetworkConfig")
            .with("dnsDomain", machine.dns_domain.clone())
            .with("podSubnets", texts(&machine.pods))
            .with("serviceSubnets", texts(&machine.services)),
    );
    let ca = document("KubeAPIServerCAConfig");
    out.push(match machine.is_control_plane() {
        true => ca.with("issuingCA", issuing(&bundle.kubernetes)),
        false => {
            ca.with("acceptedCAs", [bundle.kubernetes.certificate.clone()].into_iter().collect::<Value>())
        }
    });
    out.push(document("KubePrismConfig").with("port", PRISM_PORT));
}

fn node(machine: &Machine) -> Map {
    let mut address = Map::new();
    if !machine.own_subnets.is_empty() {
        address.set("validSubnets", texts(&machine.own_subnets));
    }
    let (mut labels, mut taints) = (Map::new(), Map::new());
    if machine.is_control_plane() {
        labels = labels.with(CONTROL_PLANE, "").with(NO_LOAD_BALANCER, "");
        if !machine.schedule_on_control_plane {
            taints.set(CONTROL_PLANE, "NoSchedule");
        }
    }
    for (map, more) in [(&mut labels, &machine.labels), (&mut taints, &machine.taints)] {
        for (key, value) in more {
            map.set(key.clone(), value.clone());
        }
    }
    let mut node = document("KubeNodeConfig").with("nodeIP", address);
    for (key, map) in [("labels", labels), ("taints", taints)] {
        if !map.is_empty() {
            node.set(key, map);
        }
    }
    node
}

fn issuing(pair: &crate::pki::Pair) -> Map {
    Map::new().with("cert", pair.certificate.clone()).with("key", pair.key.expose().clone())
}

/// What only control planes have: the real loader refuses these kinds elsewhere.
fn control_plane(machine: &Machine, bundle: &Bundle, out: &mut Vec<Map>) {
    out.push(document("KubeAggregatorCAConfig").with("issuingCA", issuing(&bundle.aggregator)));
    out.push(
        named("KubeAdmissionControlConfig", "PodSecurity")
            .with("configuration", pod_security(machine.pod_security)),
    );
    out.push(document("KubeAuditPolicyConfig").with("configuration", audit_policy(machine.audit)));
    let paths = ["/livez", "/readyz", "/healthz"].map(|path| Map::new().with("path", path));
    let anonymous = Map::new().with("conditions", paths.into_iter().collect::<Value>()).with("enabled", true);
    let authentication = Map::new().with("anonymous", anonymous).with("jwt", Value::List(Vec::new()));
    out.push(document("KubeAuthenticationConfig").with("configuration", authentication));
    out.push(named("KubeAuthorizerConfig", "node").with("type", "Node"));
    out.push(named("KubeAuthorizerConfig", "rbac").with("type", "RBAC"));
    out.push(document("KubeEtcdEncryptionConfig").with("config", encryption(bundle)));
    let issuer = Map::new()
        .with("privateKey", bundle.service_account.expose().clone())
        .with("issuerURL", machine.endpoint.clone());
    out.push(document("KubeServiceAccountConfig").with("issuer", issuer));
    let mut api = document("KubeAPIServerConfig").with("image", image(API_SERVER, machine));
    if !machine.sans.is_empty() {
        api.set("certExtraSANs", texts(&machine.sans));
    }
    out.push(api);
    out.push(document("KubeControllerManagerConfig").with("image", image(CONTROLLER_MANAGER, machine)));
    out.push(
        document("KubeSchedulerConfig").with("image", image(SCHEDULER, machine)).with("config", Map::new()),
    );
    out.push(document("KubeProxyConfig").with("image", image(PROXY, machine)).with("config", Map::new()));
    if let Cni::Flannel { backend } = machine.cni {
        let flannel = document("KubeFlannelCNIConfig").with("backendType", backend);
        // Routes need no port.
        out.push(if backend == "vxlan" { flannel.with("backendPort", 4789_u64) } else { flannel });
    }
    out.push(document("KubeCoreDNSConfig").with("enabled", true));
}

/// Kubernetes' `EncryptionConfiguration`, without its head. Names of keys are those that Talos gave them before 1.14:
/// what they encrypted must stay readable.
fn encryption(bundle: &Bundle) -> Map {
    let provider = |name: &'static str, secret: &bramble_secrets::SecretText| {
        let key = Map::new().with("name", name).with("secret", secret.expose().clone());
        Map::new().with("secretbox", Map::new().with("keys", [key].into_iter().collect::<Value>()))
    };
    let providers: Value = [
        bundle.secretbox.as_ref().map(|s| provider("key2", s)),
        bundle.aescbc.as_ref().map(|s| provider("key1", s)),
    ]
    .into_iter()
    .flatten()
    .collect();
    let rule =
        Map::new().with("providers", providers).with("resources", ["secrets"].into_iter().collect::<Value>());
    Map::new().with("resources", [rule].into_iter().collect::<Value>())
}
