//! 1.13: one document says nearly everything; the network, registries and volumes have documents of their own.

use super::modern::etcd;
use super::shared::*;
use super::{Cni, Disk, Machine, packed};
use crate::bundle::Bundle;
use crate::pki::Pair;
use crate::yaml::{Map, Value};

pub(super) fn documents(machine: &Machine, bundle: &Bundle) -> Vec<Map> {
    let mut out = vec![v1alpha1(machine, bundle)];
    if !machine.nameservers.is_empty() || !machine.search.is_empty() {
        out.push(resolver(machine));
    }
    for name in ["STATE", "EPHEMERAL"] {
        if let Some(volume) = machine.volumes.iter().find(|v| v.name == name) {
            out.push(system_volume(name, Some(volume), false));
        }
    }
    out.extend(user_volumes(machine));
    out.extend(registries(machine));
    out.extend(trusted(machine));
    out.extend(environment(machine));
    out.push(hostname(machine));
    out.extend(super::links::links(machine));
    out.extend(time(machine));
    out
}

fn v1alpha1(machine: &Machine, bundle: &Bundle) -> Map {
    Map::new()
        .with("version", "v1alpha1")
        .with("debug", false)
        .with("persist", true)
        .with("machine", own(machine, bundle))
        .with("cluster", cluster(machine, bundle))
}

/// An authority: its key goes to control planes only, and the real loader refuses it elsewhere.
fn authority(pair: &Pair, machine: &Machine) -> Map {
    let key = if machine.is_control_plane() { packed(pair.key.expose()) } else { String::new() };
    Map::new().with("crt", packed(&pair.certificate)).with("key", key)
}

fn own(machine: &Machine, bundle: &Bundle) -> Map {
    let mut kubelet =
        Map::new().with("image", image(KUBELET, machine)).with("defaultRuntimeSeccompProfileEnabled", true);
    if !machine.own_subnets.is_empty() {
        kubelet.set("nodeIP", Map::new().with("validSubnets", texts(&machine.own_subnets)));
    }
    kubelet.set("disableManifestsDirectory", true);
    let features = Map::new()
        .with("diskQuotaSupport", true)
        .with("kubePrism", Map::new().with("enabled", true).with("port", PRISM_PORT))
        .with("hostDNS", Map::new().with("enabled", true).with("forwardKubeDNSToHost", true));
    let mut own = Map::new()
        .with("type", if machine.is_control_plane() { "controlplane" } else { "worker" })
        .with("token", bundle.machine_token.expose().clone())
        .with("ca", authority(&bundle.machine, machine))
        .with("certSANs", texts(&machine.sans))
        .with("kubelet", kubelet)
        .with("install", install(machine));
    if !machine.sysctls.is_empty() {
        own.set("sysctls", text_map(&machine.sysctls));
    }
    own.set("features", features);
    if !machine.modules.is_empty() {
        let modules = machine.modules.iter().map(|name| Map::new().with("name", name.clone()));
        own.set("kernel", Map::new().with("modules", modules.collect::<Value>()));
    }
    let mut labels = Map::new();
    if machine.is_control_plane() {
        labels.set(NO_LOAD_BALANCER, "");
    }
    for (key, value) in &machine.labels {
        labels.set(key.clone(), value.clone());
    }
    if !labels.is_empty() {
        own.set("nodeLabels", labels);
    }
    if !machine.taints.is_empty() {
        own.set("nodeTaints", text_map(&machine.taints));
    }
    own
}

/// 1.13 wants the section even on a card that is never installed. `grubUseUKICmdline` keeps the image's own kernel
/// arguments when the machine is upgraded.
fn install(machine: &Machine) -> Map {
    let mut install = Map::new();
    if let Some(wanted) = &machine.install {
        let Disk { path, serial, wwid, model, size, system: _ } = &wanted.disk;
        if let Some(path) = path {
            install.set("disk", path.clone());
        }
        let selector = Map::new()
            .with_some("size", size.map(|bytes| format!("== {bytes}")))
            .with_some("model", model.clone())
            .with_some("serial", serial.clone())
            .with_some("wwid", wwid.clone());
        if !selector.is_empty() {
            install.set("diskSelector", selector);
        }
        if let Some(image) = &wanted.image {
            install.set("image", image.clone());
        }
    }
    install.with("wipe", false).with("grubUseUKICmdline", true)
}

fn cluster(machine: &Machine, bundle: &Bundle) -> Map {
    let control_plane = machine.is_control_plane();
    let mut network = Map::new();
    if machine.cni == Cni::None {
        network.set("cni", Map::new().with("name", "none"));
    }
    let network = network
        .with("dnsDomain", machine.dns_domain.clone())
        .with("podSubnets", texts(&machine.pods))
        .with("serviceSubnets", texts(&machine.services));
    let mut cluster = Map::new()
        .with("id", bundle.cluster_id.clone())
        .with("secret", bundle.cluster_secret.expose().clone())
        .with("controlPlane", Map::new().with("endpoint", machine.endpoint.clone()))
        .with("clusterName", machine.cluster.clone())
        .with("network", network)
        .with("token", bundle.bootstrap_token.expose().clone());
    if control_plane {
        if let Some(secret) = &bundle.aescbc {
            cluster.set("aescbcEncryptionSecret", secret.expose().clone());
        }
        if let Some(secret) = &bundle.secretbox {
            cluster.set("secretboxEncryptionSecret", secret.expose().clone());
        }
    }
    cluster.set("ca", authority(&bundle.kubernetes, machine));
    if control_plane {
        cluster.set("aggregatorCA", authority(&bundle.aggregator, machine));
        cluster.set("serviceAccount", Map::new().with("key", packed(bundle.service_account.expose())));
        cluster.set("apiServer", api_server(machine));
        for (key, name) in
            [("controllerManager", CONTROLLER_MANAGER), ("proxy", PROXY), ("scheduler", SCHEDULER)]
        {
            cluster.set(key, Map::new().with("image", image(name, machine)));
        }
    }
    let registries =
        Map::new().with("kubernetes", Map::new().with("disabled", true)).with("service", Map::new());
    cluster.set("discovery", Map::new().with("enabled", true).with("registries", registries));
    if control_plane {
        cluster.set("etcd", etcd(machine, bundle));
        if machine.schedule_on_control_plane {
            cluster.set("allowSchedulingOnControlPlanes", true);
        }
    }
    cluster
}

fn api_server(machine: &Machine) -> Map {
    let mut api = Map::new().with("image", image(API_SERVER, machine));
    if !machine.sans.is_empty() {
        api.set("certSANs", texts(&machine.sans));
    }
    let plugin =
        Map::new().with("name", "PodSecurity").with("configuration", pod_security(machine.pod_security));
    api.with("admissionControl", [plugin].into_iter().collect::<Value>())
        .with("auditPolicy", audit_policy(machine.audit))
}
