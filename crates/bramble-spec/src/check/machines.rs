//! Machines against each other and against the site.

use super::Check;
use super::view::{At, Machine};
use crate::labels::Labels;
use crate::scalar::{Mac, Taint};
use crate::types::{Addressing, Board, DiskSelector, Filesystem, Interface, Role, Volume};
use ipnet::Ipv4Net;
use std::collections::HashMap;
use std::net::Ipv4Addr;

/// Linux' limit for the name of an interface (IFNAMSIZ less its end).
const INTERFACE_NAME: usize = 15;

/// Longest name of a wireless network, in bytes (IEEE 802.11).
const SSID: usize = 32;

/// The smallest packet IPv4 must carry (RFC 791), and the largest that hardware at home does.
const MTU: std::ops::RangeInclusive<u16> = 576..=9216;

impl Check<'_> {
    pub(super) fn machines(&mut self) {
        // The machines are read apart from the rest of the check, which wants to report while it walks them.
        let machines = std::mem::take(&mut self.view.nodes);
        let stated = self.places.key("spec.nodes").is_some();
        if machines.is_empty() && stated {
            self.error(
                "no-nodes",
                "spec.nodes",
                "the cluster has no machines".into(),
                "empty",
                "`bramble add node` adds one; the first is a control plane",
            );
        }
        self.unique(&machines);
        for machine in &machines {
            self.machine(machine);
        }
        self.view.nodes = machines;
        self.roles();
    }

    /// Says when two machines share what only one can have.
    fn unique(&mut self, machines: &[Machine<'_>]) {
        // What is shared, and whose it was first: its path and the machine's title.
        let mut seen: HashMap<(&str, String), (String, String)> = HashMap::new();
        for machine in machines {
            let mut own: Vec<(&str, String, String)> = Vec::new();
            own.extend(machine.name.clone().map(|n| ("name", n, format!("{}.name", machine.path))));
            own.extend(
                machine.address.map(|a| ("address", a.to_string(), format!("{}.address", machine.path))),
            );
            own.extend(machine.own::<Mac>("mac").map(|m| ("mac", m.value.to_string(), m.path)));
            if let Some(interfaces) = machine.own::<Vec<Interface>>("interfaces") {
                for (index, interface) in interfaces.value.iter().enumerate() {
                    let path = format!("{}[{index}]", interfaces.path);
                    // VLANs share the card they lie on; a machine without a cable has its address in the air.
                    let primary = interface.wifi.is_some()
                        && interface.mac.is_some()
                        && interface.mac == machine.own::<Mac>("mac").map(|m| m.value);
                    if let Some(mac) = interface.mac.filter(|_| interface.vlan.is_none() && !primary) {
                        own.push(("mac", mac.to_string(), format!("{path}.mac")));
                    }
                    if let Some(address) = interface.address {
                        own.push(("address", address.addr().to_string(), format!("{path}.address")));
                    }
                }
            }
            for disk in self.disks(machine) {
                match disk.value {
                    DiskSelector::Serial(serial) => {
                        own.push(("serial", serial, format!("{}.serial", disk.path)))
                    }
                    DiskSelector::Wwid(wwid) => own.push(("wwid", wwid, format!("{}.wwid", disk.path))),
                    DiskSelector::Size(_) => {}
                }
            }
            for (kind, value, path) in own {
                let Some((first, owner)) = seen.get(&(kind, value.clone())).cloned() else {
                    seen.insert((kind, value), (path, machine.title()));
                    continue;
                };
                let code = match kind {
                    "name" => "duplicate-name",
                    "address" => "duplicate-address",
                    "mac" => "duplicate-mac",
                    _ => "duplicate-disk",
                };
                let line = self.line(&first);
                let hint = match kind {
                    "name" => format!("the first is on line {line}"),
                    _ => format!("{owner} has it on line {line}"),
                };
                let kind = if kind == "mac" { "hardware address" } else { kind };
                self.error(code, &path, format!("the {kind} `{value}` is taken"), "second time", &hint);
            }
        }
    }

    fn disks(&self, machine: &Machine<'_>) -> Vec<At<DiskSelector>> {
        let mut disks: Vec<_> =
            ["boot", "data"].into_iter().filter_map(|key| self.view.disk(machine, key)).collect();
        if let Some(volumes) = self.view.effective::<Vec<Volume>>(machine, "disks.volumes") {
            disks.extend(volumes.value.into_iter().enumerate().map(|(index, volume)| At {
                value: volume.selector,
                path: format!("{}[{index}].selector", volumes.path),
            }));
        }
        disks
    }

    fn machine(&mut self, machine: &Machine<'_>) {
        let title = machine.title();
        let path = |key: &str| format!("{}.{key}", machine.path);
        let subnet = self.view.read::<Ipv4Net>("spec.network.subnet").map(|s| s.value.trunc());
        if let (Some(address), Some(subnet)) = (machine.address, subnet)
            && self.host_of(subnet, address, &path("address"), &title)
        {
            let gateway = self.view.read::<Ipv4Addr>("spec.network.gateway");
            if gateway.is_some_and(|g| g.value == address) {
                let hint = format!("`gateway` is on line {}", self.line("spec.network.gateway"));
                let message = format!("{address} is the gateway's address");
                self.error("address-reserved", &path("address"), message, "taken by the gateway", &hint);
            }
        }
        if machine.name.as_deref() == Some("localhost") {
            let message = "no machine can be called `localhost`".to_string();
            self.error("reserved-name", &path("name"), message, "reserved", "every machine calls itself so");
        }
        if !self.view.is_stated(machine, "board") {
            let known = Board::ALL.iter().map(|b| format!("`{b}`")).collect::<Vec<_>>().join(", ");
            self.error(
                "missing-key",
                &machine.path,
                format!("it is not said what {title} is: `board` is missing"),
                "needs `board`",
                &format!("one of {known}, here or under `spec.defaults`"),
            );
        }
        if machine.role == Some(Role::ControlPlane) && self.view.board(machine) == Some(Board::Pi3) {
            self.error(
                "board-too-small",
                &path("role"),
                format!("{title} is a Raspberry Pi 3 and cannot be a control plane"),
                "a Pi 3 has 1 GB of memory",
                "the API, its datastore and the controllers need more; make it a worker or a management machine",
            );
        }
        self.machine_hints(machine, &title);
        if let Some(interfaces) = self.view.effective::<Vec<Interface>>(machine, "interfaces") {
            self.interfaces(&interfaces);
        }
        if let Some(data) =
            self.view.disk(machine, "data").filter(|d| matches!(d.value, DiskSelector::Size(_)))
        {
            self.not_by_size(&data.path, &format!("{title}'s state"));
        }
        if let Some(volumes) = self.view.effective::<Vec<Volume>>(machine, "disks.volumes") {
            self.volumes(&volumes);
        }
        if let Some(mtu) = self.view.effective::<u16>(machine, "mtu") {
            self.mtu(mtu.value, &mtu.path);
        }
    }

    fn machine_hints(&mut self, machine: &Machine<'_>, title: &str) {
        let dhcp = self.view.effective::<Addressing>(machine, "addressing");
        if dhcp.is_some_and(|a| a.value == Addressing::Dhcp) && !machine.states("mac") {
            self.warning(
                "dhcp-without-mac",
                &format!("{}.address", machine.path),
                format!("the router reserves an address for {title}, and its hardware address is not stated"),
                "reserved for whom?",
                "add `mac:`; then a swapped reservation is seen before it matters",
            );
        }
        if machine.role == Some(Role::Management) {
            let labels = machine.own::<Labels>("labels").is_some_and(|l| !l.value.0.is_empty());
            let taints = machine.own::<Vec<Taint>>("taints").is_some_and(|t| !t.value.is_empty());
            for (key, stated) in [("labels", labels), ("taints", taints)] {
                if stated {
                    self.warning(
                        "unused-key",
                        &format!("{}.{key}", machine.path),
                        format!("{title} has no kubelet, so that its {key} say nothing"),
                        "unused",
                        "a management machine is no node of the cluster",
                    );
                }
            }
        }
        if machine.states("os.firmware") && self.view.board(machine).is_some_and(|b| !b.is_pi()) {
            self.warning(
                "unused-key",
                &format!("{}.os.firmware", machine.path),
                format!("{title} is no Raspberry Pi and has no config.txt"),
                "unused",
                "remove it",
            );
        }
    }

    fn mtu(&mut self, mtu: u16, path: &str) {
        if !MTU.contains(&mtu) {
            let hint = format!("from {} to {}; 1500 is usual", MTU.start(), MTU.end());
            self.error(
                "bad-value",
                path,
                format!("no link has packets of {mtu} bytes"),
                "out of range",
                &hint,
            );
        }
    }

    fn interfaces(&mut self, interfaces: &At<Vec<Interface>>) {
        let mut names: Vec<&str> = Vec::new();
        for (index, interface) in interfaces.value.iter().enumerate() {
            let path = |key: &str| format!("{}[{index}].{key}", interfaces.path);
            let name = interface.name.as_str();
            if name.len() > INTERFACE_NAME {
                let message = format!("`{name}` is too long for the name of an interface");
                let hint = format!("at most {INTERFACE_NAME} characters");
                self.error("bad-value", &path("name"), message, "too long", &hint);
            }
            if names.contains(&name) {
                let message = format!("the machine has two interfaces called `{name}`");
                self.error("duplicate-name", &path("name"), message, "second time", "give each its own name");
            }
            names.push(name);
            if let Some(vlan) = interface.vlan.filter(|v| !(1..=4094).contains(v)) {
                let message = format!("{vlan} is not a VLAN");
                self.error("bad-value", &path("vlan"), message, "out of range", "from 1 to 4094");
            }
            if interface.vlan.is_some() && interface.wifi.is_some() {
                let message = format!("`{name}` is a VLAN and Wi-Fi at once");
                self.error(
                    "interface-kind",
                    &path("vlan"),
                    message,
                    "one of the two",
                    "a VLAN lies on a wired card",
                );
            }
            if let Some(ssid) = interface.wifi.as_ref().map(|w| &w.ssid).filter(|s| s.len() > SSID) {
                let message = format!("`{ssid}` is too long for the name of a wireless network");
                self.error("bad-value", &path("wifi.ssid"), message, "too long", "at most 32 bytes");
            }
            if let Some(mtu) = interface.mtu {
                self.mtu(mtu, &path("mtu"));
            }
            for (at, route) in interface.routes.iter().enumerate() {
                if route.to.addr() != route.to.network() {
                    let message = format!("{} is an address in a range, not a range", route.to);
                    let hint = format!("the range is `{}`", route.to.trunc());
                    self.error(
                        "host-bits",
                        &path(&format!("routes[{at}].to")),
                        message,
                        "has host bits",
                        &hint,
                    );
                }
            }
        }
    }

    fn volumes(&mut self, volumes: &At<Vec<Volume>>) {
        let (mut names, mut mounts): (Vec<&str>, Vec<&str>) = (Vec::new(), Vec::new());
        for (index, volume) in volumes.value.iter().enumerate() {
            let path = |key: &str| format!("{}[{index}].{key}", volumes.path);
            if names.contains(&volume.name.as_str()) {
                let message = format!("the machine has two volumes called `{}`", volume.name);
                self.error("duplicate-name", &path("name"), message, "second time", "give each its own name");
            }
            names.push(volume.name.as_str());
            if matches!(volume.selector, DiskSelector::Size(_)) {
                self.not_by_size(&path("selector"), &format!("the volume `{}`", volume.name));
            }
            let Some(mount) = &volume.mount else { continue };
            if volume.filesystem == Filesystem::None {
                let message = format!("the volume `{}` has no file system to mount", volume.name);
                self.error(
                    "bad-value",
                    &path("mount"),
                    message,
                    "nothing to mount",
                    "leave `mount` away, or say `filesystem: ext4`",
                );
            }
            let below = mount.strip_prefix("/var/mnt/");
            let plain = |p: &str| p.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if !below.is_some_and(plain) {
                let message = format!("`{mount}` is not a place for a volume");
                let hint = format!("a path below /var/mnt: `/var/mnt/{}`", volume.name);
                self.error("bad-value", &path("mount"), message, "wants a path below /var/mnt", &hint);
            }
            if mounts.contains(&mount.as_str()) {
                let message = format!("`{mount}` is the place of two volumes");
                self.error(
                    "duplicate-mount",
                    &path("mount"),
                    message,
                    "second time",
                    "give each its own place",
                );
            }
            mounts.push(mount.as_str());
        }
    }

    /// A machine cannot ask anybody which of two disks of one size is meant.
    fn not_by_size(&mut self, path: &str, whose: &str) {
        self.error(
            "disk-selector",
            path,
            format!("the disk of {whose} is named by its size"),
            "wants `serial` or `wwid`",
            "`lsblk -o NAME,SERIAL,WWN` shows them; only a card that you put in yourself is known by its size",
        );
    }

    fn roles(&mut self) {
        // While a role cannot be read nobody knows whether a control plane is missing.
        let known = !self.view.nodes.is_empty() && self.view.nodes.iter().all(|m| m.role.is_some());
        if known && self.view.with_role(Role::ControlPlane).next().is_none() {
            let first = match self.view.with_role(Role::Worker).next() {
                Some(worker) => format!("{}.role", worker.path),
                None => "spec.nodes".to_string(),
            };
            self.error(
                "no-control-plane",
                &first,
                "there is no control plane for this machine to work for".into(),
                "nobody to work for",
                "one machine has `role: control-plane`; with `scheduleOnControlPlane: true` it runs pods too",
            );
        }
    }
}
