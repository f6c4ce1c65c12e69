//! Machines of a talconfig, and what groups of them share.

use super::{Import, at};
use crate::versions::Release;
use crate::yaml::{Map, Value};
use std::net::Ipv4Addr;

fn list<'a>(value: &'a Value, key: &str) -> &'a [Value] {
    value.at(&[key]).and_then(Value::as_list).unwrap_or_default()
}

fn is_true(value: Option<&Value>) -> bool {
    value.and_then(Value::as_str) == Some("true")
}

/// The first IPv4 address of a machine: talhelper takes several with commas.
fn address(node: &Value) -> Option<Ipv4Addr> {
    node.text_at(&["ipAddress"])?.split(',').find_map(|part| part.trim().parse().ok())
}

pub(super) fn addresses(nodes: &[Value]) -> Vec<Ipv4Addr> {
    nodes.iter().filter_map(address).collect()
}

pub(super) fn first_control_plane(nodes: &[Value]) -> Option<Ipv4Addr> {
    nodes.iter().find(|node| is_true(node.at(&["controlPlane"]))).and_then(address)
}

fn interfaces(node: &Value) -> &[Value] {
    list(node, "networkInterfaces")
}

/// The shared address that a machine's interfaces name.
pub(super) fn vip(node: &Value) -> Option<Ipv4Addr> {
    interfaces(node).iter().find_map(|interface| interface.text_at(&["vip", "ip"])?.parse().ok())
}

/// The way out of a machine.
pub(super) fn gateway(nodes: &[Value]) -> Option<Ipv4Addr> {
    nodes.iter().flat_map(interfaces).flat_map(|interface| list(interface, "routes")).find_map(|route| {
        let out = matches!(route.text_at(&["network"]), None | Some("0.0.0.0/0"));
        if out { route.text_at(&["gateway"])?.parse().ok() } else { None }
    })
}

/// Length of the prefix with which a machine states its address.
pub(super) fn prefix(node: &Value) -> Option<u8> {
    let own = address(node)?.to_string();
    interfaces(node).iter().flat_map(|interface| list(interface, "addresses")).find_map(|stated| {
        let (address, length) = stated.as_str()?.split_once('/')?;
        if address == own { length.parse().ok() } else { None }
    })
}

/// The one card of a machine, when all that is said of it has words of ours: hardware address, and whether the address
/// is stated.
fn one_card(node: &Value) -> Option<(String, bool, Option<Value>)> {
    let [interface] = interfaces(node) else { return None };
    let known = ["deviceSelector", "addresses", "routes", "dhcp", "mtu"];
    let map = interface.as_map()?;
    if map.iter().any(|(key, _)| !known.contains(&key)) {
        return None;
    }
    let selector = interface.at(&["deviceSelector"])?.as_map()?;
    let mac = selector.get("hardwareAddr")?.as_str()?;
    let plain =
        selector.len() == 1 && mac.len() == 17 && mac.bytes().all(|b| b.is_ascii_hexdigit() || b == b':');
    let out = |route: &Value| {
        route.as_map().is_some_and(|map| map.iter().all(|(key, _)| matches!(key, "network" | "gateway")))
            && matches!(route.text_at(&["network"]), None | Some("0.0.0.0/0"))
    };
    let routes = list(interface, "routes");
    let addresses = list(interface, "addresses");
    let dhcp = is_true(interface.at(&["dhcp"]));
    let sound = match dhcp {
        true => addresses.is_empty() && routes.is_empty(),
        false => {
            addresses.len() == 1 && prefix(node).is_some() && routes.len() <= 1 && routes.iter().all(out)
        }
    };
    (plain && sound).then(|| (mac.to_lowercase(), !dhcp, interface.at(&["mtu"]).cloned()))
}

impl Import<'_> {
    /// One machine.
    pub(super) fn node(&mut self, index: usize, node: &Value, top: &Value) -> Map {
        let whose = node.text_at(&["hostname"]).map_or(format!("machine {}", index + 1), str::to_string);
        let control_plane = is_true(node.at(&["controlPlane"]));
        let mut out = Map::new().with("name", whose.clone());
        out.set("role", if control_plane { "control-plane" } else { "worker" });
        let group = top.at(&[if control_plane { "controlPlane" } else { "worker" }]);
        let of = |path: &[&str]| node.at(path).or_else(|| group.and_then(|g| g.at(path)));
        let arm = of(&["machineSpec", "arch"]).and_then(Value::as_str) == Some("arm64");
        let board = match of(&["schematic", "overlay", "name"]).and_then(Value::as_str) {
            Some("rpi_generic") => "pi4",
            Some("rpi_5") => "pi5",
            Some(other) => {
                self.lost
                    .push(format!("{whose}: the overlay {other} belongs to no board that is known here"));
                "uefi-arm64"
            }
            None if arm => "uefi-arm64",
            None => "uefi-amd64",
        };
        out.set("board", board);
        match address(node) {
            Some(address) => out.set("address", address.to_string()),
            None => self.lost.push(format!("{whose}: ipAddress is no IPv4 address, and the file wants one")),
        }
        let mut patches = Vec::new();
        match one_card(node) {
            Some((mac, stated, mtu)) => {
                out.set("mac", Value::text(mac));
                out.set("addressing", if stated { "static" } else { "dhcp" });
                if let Some(mtu) = mtu {
                    out.set("mtu", mtu);
                }
            }
            // Talos' own fields say what ours cannot; with `dhcp` nothing of ours stands in their way.
            None => {
                out.set("addressing", "dhcp");
                if !interfaces(node).is_empty() {
                    patches.push(at(
                        &["machine", "network", "interfaces"],
                        Value::List(interfaces(node).to_vec()),
                    ));
                    self.changed
                        .push(format!("{whose}: networkInterfaces stands in a patch, in Talos' own words"));
                }
            }
        }
        let Some(map) = node.as_map() else { return out };
        let mut disk = Map::new();
        for (key, value) in map.iter() {
            match key {
                "hostname" | "ipAddress" | "controlPlane" | "networkInterfaces" => {}
                "installDisk" => disk.set("path", value.clone()),
                "installDiskSelector" => {
                    let mut rest = Map::new();
                    for (field, value) in value.as_map().into_iter().flat_map(Map::iter) {
                        match field {
                            "serial" | "wwid" | "model" => disk.set(field.to_string(), value.clone()),
                            _ => rest.set(field.to_string(), value.clone()),
                        }
                    }
                    if !rest.is_empty() {
                        match self.release {
                            Release::V1_13 => patches.push(at(&["machine", "install", "diskSelector"], rest)),
                            Release::V1_14 => {
                                self.lost.push(format!(
                                    "{whose}: installDiskSelector: state the disk's `serial` or `wwid`"
                                ));
                            }
                        }
                    }
                }
                "ignoreHostname" if is_true(Some(value)) => {
                    patches.push(
                        Map::new()
                            .with("apiVersion", "v1alpha1")
                            .with("kind", "HostnameConfig")
                            .with("hostname", Map::new().with("$patch", "delete"))
                            .into(),
                    );
                    patches.push(
                        Map::new()
                            .with("apiVersion", "v1alpha1")
                            .with("kind", "HostnameConfig")
                            .with("auto", "stable")
                            .into(),
                    );
                }
                "overridePatches" | "overrideExtraManifests" | "overrideMachineCertSANs"
                    if is_true(Some(value)) =>
                {
                    self.lost.push(format!(
                        "{whose}: {key}: what the group states is applied to this machine too"
                    ));
                }
                _ => {}
            }
        }
        let settings = self.settings(&whose, map);
        let mut talos = Map::new();
        if !disk.is_empty() && !board.starts_with("pi") {
            talos.set("install", Map::new().with("disk", disk));
        }
        for (key, value) in settings {
            match (key.as_ref(), value) {
                ("talos", Value::Map(own)) => {
                    for (key, value) in own {
                        match (key.as_ref(), value) {
                            ("patches", Value::List(own)) => patches.extend(own),
                            (_, value) => talos.set(key, value),
                        }
                    }
                }
                (_, value) => out.set(key, value),
            }
        }
        if !patches.is_empty() {
            talos.set("patches", Value::List(patches));
        }
        if !talos.is_empty() {
            out.set("talos", talos);
        }
        out
    }

    /// What a machine, or a group of them, states alike.
    pub(super) fn settings(&mut self, whose: &str, map: &Map) -> Map {
        let (mut out, mut talos, mut os) = (Map::new(), Map::new(), Map::new());
        let (mut patches, mut volumes) = (Vec::new(), Vec::new());
        for (key, value) in map.iter() {
            match key {
                "nodeLabels" | "nodeAnnotations" if self.templates(whose, key, value) => {}
                "nodeLabels" => out.set("labels", value.clone()),
                "nodeAnnotations" => patches.push(match self.release {
                    Release::V1_13 => at(&["machine", "nodeAnnotations"], value.clone()),
                    Release::V1_14 => document("KubeNodeConfig").with("annotations", value.clone()).into(),
                }),
                "nodeTaints" => out.set("taints", taints(value)),
                "machineDisks" => patches.push(at(&["machine", "disks"], value.clone())),
                "machineFiles" => self.files(whose, value, &mut patches),
                "disableSearchDomain" if is_true(Some(value)) => patches.push(
                    document("ResolverConfig")
                        .with("searchDomains", Map::new().with("disableDefault", true))
                        .into(),
                ),
                "kernelModules" => self.modules(value, &mut os, &mut patches),
                "nameservers" => {
                    let servers = value.as_list().unwrap_or_default().iter();
                    let servers = servers.map(|server| Map::new().with("address", server.clone()));
                    patches.push(
                        document("ResolverConfig").with("nameservers", servers.collect::<Value>()).into(),
                    );
                }
                "extraManifests" => {
                    self.lost.push(format!(
                        "{whose}: extraManifests: they are templates; write them out as `talos.patches`"
                    ));
                }
                "certSANs" => patches.push(at(&["machine", "certSANs"], value.clone())),
                "patches" => self.patches(whose, value, &mut patches),
                "talosImageURL" if value.as_str() != Some("") => {
                    self.lost.push(format!(
                        "{whose}: talosImageURL: the installer's image follows from the schematic"
                    ));
                }
                "schematic" => self.schematic(whose, value, &mut talos),
                "imageSchematic" => {
                    self.changed.push(format!(
                        "{whose}: imageSchematic: the medium's schematic follows from the machine's"
                    ));
                }
                "machineSpec" => {
                    if is_true(value.at(&["secureboot"])) {
                        talos.set("secureBoot", true);
                    }
                    if value.text_at(&["mode"]).is_some_and(|mode| mode != "metal") {
                        self.lost.push(format!("{whose}: machineSpec.mode: only metal is served"));
                    }
                }
                "ingressFirewall" => {
                    if let Some(action) = value.at(&["defaultAction"]) {
                        patches.push(
                            document("NetworkDefaultActionConfig").with("ingress", action.clone()).into(),
                        );
                    }
                    patches
                        .extend(list(value, "rules").iter().map(|rule| with_kind("NetworkRuleConfig", rule)));
                }
                "extensionServices" => {
                    let items = value.as_list().unwrap_or_default().iter();
                    patches.extend(items.map(|item| with_kind("ExtensionServiceConfig", item)));
                }
                "volumes" | "userVolumes" => {
                    let kind = if key == "volumes" { "VolumeConfig" } else { "UserVolumeConfig" };
                    let items = value.as_list().unwrap_or_default().iter();
                    volumes.extend(items.map(|item| with_kind(kind, item)));
                }
                // A machine's own keys, and switches of talhelper that have no meaning here.
                "hostname"
                | "ipAddress"
                | "controlPlane"
                | "installDisk"
                | "installDiskSelector"
                | "ignoreHostname"
                | "overridePatches"
                | "overrideExtraManifests"
                | "overrideMachineCertSANs"
                | "networkInterfaces"
                | "noSchematicValidate"
                | "filenameTmpl"
                | "talosImageURL"
                | "disableSearchDomain" => {}
                other => self.lost.push(format!("{whose}: {other}: not a key of talhelper 3.1.17")),
            }
        }
        if !volumes.is_empty() {
            talos.set("volumes", Value::List(volumes));
        }
        if !patches.is_empty() {
            talos.set("patches", Value::List(patches));
        }
        for (key, inner) in [("os", os), ("talos", talos)] {
            if !inner.is_empty() {
                out.set(key, inner);
            }
        }
        out
    }

    fn templates(&mut self, whose: &str, key: &str, value: &Value) -> bool {
        let found = value
            .as_map()
            .is_some_and(|m| m.iter().any(|(_, v)| v.as_str().is_some_and(|t| t.contains("{{"))));
        if found {
            self.lost.push(format!("{whose}: {key}: it has Go templates; write them out"));
        }
        found
    }

    fn files(&mut self, whose: &str, value: &Value, patches: &mut Vec<Value>) {
        let mut kept = Vec::new();
        for file in value.as_list().unwrap_or_default() {
            let path = file.text_at(&["path"]).unwrap_or_default();
            let stated = file.text_at(&["content"]).unwrap_or_default();
            let what = format!("{whose}: machineFiles: {path}");
            let Some(content) = self.contents(&what, stated, file.at(&["skipEnvsubst"])) else { continue };
            let mut file = file.clone();
            if let Value::Map(map) = &mut file {
                map.remove("skipEnvsubst");
                map.set("content", content);
            }
            kept.push(file);
        }
        if !kept.is_empty() {
            patches.push(at(&["machine", "files"], Value::List(kept)));
        }
    }

    fn modules(&mut self, value: &Value, os: &mut Map, patches: &mut Vec<Value>) {
        let all = value.as_list().unwrap_or_default();
        let (plain, rest): (Vec<&Value>, Vec<&Value>) =
            all.iter().partition(|m| m.at(&["parameters"]).is_none());
        if !plain.is_empty() {
            os.set("modules", plain.iter().filter_map(|m| m.at(&["name"]).cloned()).collect::<Value>());
        }
        if rest.is_empty() {
            return;
        }
        match self.release {
            Release::V1_13 => {
                let rest = rest.into_iter().cloned().collect::<Value>();
                patches.push(at(&["machine", "kernel", "modules"], rest));
            }
            Release::V1_14 => patches.extend(rest.into_iter().map(|m| with_kind("KernelModuleConfig", m))),
        }
    }

    fn schematic(&mut self, whose: &str, value: &Value, talos: &mut Map) {
        let mut out = Map::new();
        for (key, value) in
            value.at(&["customization"]).and_then(Value::as_map).into_iter().flat_map(Map::iter)
        {
            match key {
                "extraKernelArgs" => out.set("kernelArgs", value.clone()),
                "systemExtensions" => {
                    if let Some(official) = value.at(&["officialExtensions"]) {
                        out.set("extensions", official.clone());
                    }
                }
                other => self.lost.push(format!("{whose}: schematic.customization.{other}")),
            }
        }
        if !out.is_empty() {
            talos.set("schematic", out);
        }
    }
}

fn document(kind: &'static str) -> Map {
    Map::new().with("apiVersion", "v1alpha1").with("kind", kind)
}

fn with_kind(kind: &'static str, value: &Value) -> Value {
    let mut out = document(kind);
    for (key, value) in value.as_map().into_iter().flat_map(Map::iter) {
        out.set(key.to_string(), value.clone());
    }
    out.into()
}

/// `key: value:Effect` as `key=value:Effect`.
fn taints(value: &Value) -> Value {
    let all = value.as_map().into_iter().flat_map(Map::iter);
    all.map(|(key, value)| {
        let text = value.as_str().unwrap_or_default();
        match text.split_once(':') {
            Some(("", effect)) => format!("{key}:{effect}"),
            Some((value, effect)) => format!("{key}={value}:{effect}"),
            None => format!("{key}:{text}"),
        }
    })
    .collect()
}
