//! Talos against the machines that run it.

use super::Check;
use crate::scalar::{Mac, Version};
use crate::types::*;

/// Minor releases of Talos 1 whose documents this version of Bramble knows.
const TALOS_MINORS: std::ops::RangeInclusive<u16> = 13..=14;

/// The last minor that wants sizes of disks exact to the byte and knows one way of flannel's.
const OLD_MINOR: u16 = 13;

impl Check<'_> {
    pub(super) fn talos(&mut self) {
        let Some(distribution) = self.view.distribution() else { return };
        if distribution != Distribution::Talos {
            let path = "spec.talos";
            if self.view.states(path) {
                self.warning(
                    "unused-key",
                    path,
                    format!("`distribution` is `{distribution}`, so that Talos' fields say nothing"),
                    "unused",
                    "remove them, or `distribution: talos`",
                );
            }
            return;
        }
        let mut checked: Vec<String> = Vec::new();
        for index in 0..self.view.nodes.len() {
            let machine = &self.view.nodes[index];
            if machine.role == Some(Role::Management) {
                continue;
            }
            let (path, title) = (machine.path.clone(), machine.title());
            let stated = self.view.is_stated(machine, "talos.version");
            let version = self.view.effective::<Version>(machine, "talos.version");
            if !stated {
                self.error(
                    "missing-key",
                    &path,
                    format!("it is not said which Talos {title} runs"),
                    "needs `talos.version`",
                    &format!(
                        "`talos: {{ version: v1.{}.0 }}`, best once at the cluster under `spec`",
                        TALOS_MINORS.end()
                    ),
                );
            }
            // One line that many machines inherit is reported once.
            let Some(version) = version.filter(|v| !checked.contains(&v.path)) else { continue };
            if version.value.major != 1 || !TALOS_MINORS.contains(&version.value.minor) {
                self.error(
                    "unsupported-version",
                    &version.path,
                    format!("Talos {} is not served by this version of Bramble", version.value),
                    "unknown release",
                    &format!("it serves v1.{}.x to v1.{}.x", TALOS_MINORS.start(), TALOS_MINORS.end()),
                );
            }
            checked.push(version.path);
        }
        let machines: Vec<usize> = (0..self.view.nodes.len())
            .filter(|index| self.view.nodes[*index].role.is_some_and(|role| role != Role::Management))
            .collect();
        let mut said = Vec::new();
        for index in machines {
            self.talos_disks(index, &mut said);
            self.talos_links(index);
            self.talos_board(index, &mut said);
        }
        self.talos_flannel();
    }

    fn is_old_talos(&self, index: usize) -> bool {
        let version = self.view.effective::<Version>(&self.view.nodes[index], "talos.version");
        version.is_some_and(|v| v.value.minor <= OLD_MINOR)
    }

    /// Where Talos is installed: exactly one disk must be meant.
    fn talos_disks(&mut self, index: usize, said: &mut Vec<String>) {
        let machine = &self.view.nodes[index];
        let Some(board) = self.view.board(machine) else { return };
        let (own, title) = (machine.path.clone(), machine.title());
        let stated = self.view.is_stated(machine, "talos.install");
        let install = self.view.effective::<TalosInstall>(machine, "talos.install");
        let boot = self.view.disk(machine, "boot");
        let old = self.is_old_talos(index);
        if board.is_pi() {
            if let Some(install) = install.filter(|i| !said.contains(&i.path)) {
                self.warning(
                    "unused-key",
                    &install.path,
                    format!(
                        "{title} is a Pi: its card is the system, and Talos is never installed elsewhere"
                    ),
                    "unused",
                    "remove it, or state it for the machines that are no Pis",
                );
                said.push(install.path);
            }
            return;
        }
        if !stated && boot.is_none() {
            // A first file cannot know it; `render` refuses the machine until it is said.
            self.warning(
                "talos-disk",
                &own,
                format!("it is not said on which disk {title} has Talos"),
                "needs `talos.install.disk`",
                "`talos: { install: { disk: { serial: ... } } }`; `talosctl get disks --insecure` shows serial numbers",
            );
            return;
        }
        let Some(TalosDisk { serial, wwid, size, model, path }) =
            install.as_ref().map(|i| i.value.disk.clone())
        else {
            return;
        };
        let Some(install) = install.filter(|i| !said.contains(&i.path)) else { return };
        let place = format!("{}.disk", install.path);
        let one = serial.is_some() || wwid.is_some() || path.is_some();
        if !one && size.is_none() && model.is_none() {
            self.error(
                "talos-disk",
                &place,
                "no disk is named, so that every one is meant".into(),
                "empty",
                "state `serial` or `wwid`",
            );
        } else if !one && old && size.is_some() {
            self.error(
                "talos-disk",
                &place,
                "Talos 1.13 finds no disk by a size that is not exact to the byte".into(),
                "cannot be found",
                "state `serial` or `wwid`",
            );
        } else if !one {
            self.warning(
                "talos-disk",
                &place,
                "size and model may be those of several disks, and Talos takes the first".into(),
                "may match several",
                "state `serial` or `wwid` where the machine has more than one disk",
            );
        }
        said.push(install.path);
    }

    fn talos_links(&mut self, index: usize) {
        let machine = &self.view.nodes[index];
        let (path, title) = (machine.path.clone(), machine.title());
        let addressing = self.view.effective::<Addressing>(machine, "addressing");
        let own_mac = machine.own::<Mac>("mac").map(|at| at.value);
        if addressing.is_none_or(|a| a.value == Addressing::Static) && !machine.states("mac") {
            self.warning(
                "talos-link",
                &path,
                format!(
                    "{title} has a stated address and no `mac`: Talos finds its card only if it has one alone"
                ),
                "which card?",
                "state the `mac` of the card that has the address",
            );
        }
        let machine = &self.view.nodes[index];
        let Some(interfaces) = self.view.effective::<Vec<Interface>>(machine, "interfaces") else { return };
        for (number, interface) in interfaces.value.iter().enumerate() {
            let place = format!("{}[{number}]", interfaces.path);
            let on_first = interface.mac.is_none() || interface.mac == own_mac;
            if interface.wifi.is_some() {
                self.error(
                    "talos-link",
                    &place,
                    "Talos has no Wi-Fi".into(),
                    "no Wi-Fi",
                    "a cable, or Bramble OS",
                );
            } else if interface.vlan.is_none() && on_first {
                self.error(
                    "talos-link",
                    &place,
                    format!("`{}` has neither a VLAN nor a `mac` of its own", interface.name),
                    "which card?",
                    "state the second card's `mac`, or the `vlan` on the first",
                );
            }
        }
    }

    /// What a board cannot do.
    fn talos_board(&mut self, index: usize, said: &mut Vec<String>) {
        let machine = &self.view.nodes[index];
        let title = machine.title();
        let pi = self.view.board(machine).is_some_and(Board::is_pi);
        let encryption = self.view.effective::<Encryption>(machine, "talos.encryption");
        if let Some(at) = encryption.filter(|e| pi && !said.contains(&e.path))
            && [at.value.state, at.value.ephemeral].contains(&EncryptionKey::Tpm)
        {
            self.error(
                "choice",
                &at.path,
                format!("{title} is a Pi, which has no TPM"),
                "no TPM",
                "`nodeID` or `static`, or state it for the machines that have one",
            );
            said.push(at.path);
        }
        let machine = &self.view.nodes[index];
        let secure = self.view.effective::<bool>(machine, "talos.secureBoot");
        if let Some(at) = secure.filter(|s| pi && s.value && !said.contains(&s.path)) {
            let message = format!("{title} is a Pi, whose firmware has no Secure Boot");
            self.error("choice", &at.path, message, "not on a Pi", "state it for the machines that have it");
            said.push(at.path);
        }
        let machine = &self.view.nodes[index];
        let Some(volumes) = self.view.effective::<Vec<Volume>>(machine, "disks.volumes") else { return };
        if said.contains(&volumes.path) {
            return;
        }
        for (number, volume) in volumes.value.iter().enumerate() {
            let wanted = format!("/var/mnt/{}", volume.name);
            if volume.mount.as_ref().is_some_and(|mount| *mount != wanted) {
                self.error(
                    "talos-volume",
                    &format!("{}[{number}].mount", volumes.path),
                    format!("Talos mounts the volume `{}` at {wanted} and nowhere else", volume.name),
                    "not there",
                    &format!("`mount: {wanted}`"),
                );
            }
        }
        said.push(volumes.path);
    }

    /// 1.13 writes flannel's configuration by itself, with one backend.
    fn talos_flannel(&mut self) {
        let path = "spec.kubernetes.cni.backend";
        let backend = self.view.read::<Backend>(path).map(|at| at.value);
        let old = (0..self.view.nodes.len()).any(|index| self.is_old_talos(index));
        if old && backend == Some(Backend::HostGw) {
            self.error(
                "choice",
                path,
                "the flannel of Talos 1.13 has no `host-gw`".into(),
                "not with Talos 1.13",
                "`backend: vxlan`, or Talos 1.14",
            );
        }
    }
}
