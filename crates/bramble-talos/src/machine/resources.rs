//! What a machine says of itself as resources (COSI's `State`). Each carries its fields as YAML, so that no message of
//! theirs need be known here; what a field is called differs from kind to kind.

use super::client::{Client, SHORT, method};
use super::error::CallError;
use super::proto;
use crate::yaml::{self, Value};
use bramble_secrets::{Secret, SecretText};
use prost::Message;
use std::ops::ControlFlow;
use tonic::Code;

/// By what a machine can be told from another, before it has a name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hardware {
    /// Hardware addresses of its network cards, in small letters.
    pub macs: Vec<String>,
    /// What its maker calls it; empty on many boards.
    pub serial: String,
    /// Its SMBIOS UUID; empty on a Pi.
    pub uuid: String,
    /// Its disks.
    pub disks: Vec<Disk>,
}

/// A disk of a machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Disk {
    /// `/dev/nvme0n1`.
    pub path: String,
    /// Its serial.
    pub serial: String,
    /// Its world-wide name.
    pub wwid: String,
    /// Its model.
    pub model: String,
    /// Bytes.
    pub size: u64,
    /// `nvme`, `sata`, `mmc`, `usb`, ...
    pub transport: String,
}

/// How far a machine is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stage {
    /// `maintenance`, `booting`, `running`, `rebooting`, ...
    pub stage: String,
    /// Nothing is missing.
    pub ready: bool,
    /// What is missing, one sentence each.
    pub unmet: Vec<String>,
}

/// A resource's fields.
struct Found {
    fields: Value,
    packed: Vec<u8>,
}

impl Client {
    /// One resource; `None` when there is none of this id.
    fn get(&self, namespace: &str, kind: &str, id: &str) -> Result<Option<Found>, CallError> {
        let question = proto::GetRequest { namespace: namespace.into(), kind: kind.into(), id: id.into() };
        let method = method!("cosi.resource.State", "Get");
        match self.unary::<_, proto::ResourceResponse>(method, question, SHORT) {
            Ok(answer) => answer.resource.map(|resource| self.found(method.name, resource)).transpose(),
            Err(CallError::Refused { code: Code::NotFound, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// All resources of a kind.
    fn list(&self, namespace: &str, kind: &str) -> Result<Vec<Found>, CallError> {
        let question = proto::ListRequest { namespace: namespace.into(), kind: kind.into() };
        let method = method!("cosi.resource.State", "List");
        let mut resources = Vec::new();
        self.stream(method, question, Some(SHORT), &mut |answer: proto::ResourceResponse| {
            resources.extend(answer.resource);
            Ok(ControlFlow::Continue(()))
        })?;
        resources.into_iter().map(|resource| self.found(method.name, resource)).collect()
    }

    fn found(&self, method: &'static str, resource: proto::Resource) -> Result<Found, CallError> {
        let nonsense = || CallError::Nonsense {
            method,
            address: self.address(),
            what: "the fields of a resource are not YAML",
        };
        let spec = resource.spec.unwrap_or_default();
        let fields = yaml::read(&spec.yaml_spec).map_err(|_| nonsense())?;
        Ok(Found {
            fields: fields.into_iter().next().unwrap_or_else(|| Value::Map(yaml::Map::new())),
            packed: spec.proto_spec,
        })
    }

    /// By what the machine can be told from others. Answered in maintenance mode too.
    ///
    /// # Errors
    /// See [`CallError`], here and below.
    pub fn hardware(&self) -> Result<Hardware, CallError> {
        let system = self.get("hardware", "SystemInformations.hardware.talos.dev", "systeminformation")?;
        let text = |key: &str| system.as_ref().map(|s| s.text(&[key])).unwrap_or_default();
        let links = self.list("network", "LinkStatuses.net.talos.dev")?;
        // A bridge or a bond takes over the address of a card, so what is virtual says nothing.
        let real = links.iter().filter(|l| l.text(&["kind"]).is_empty() && l.text(&["type"]) == "ether");
        let addresses = real.flat_map(|l| [l.text(&["permanentAddr"]), l.text(&["hardwareAddr"])]);
        let mut macs: Vec<String> = addresses.filter(|a| !a.is_empty()).map(|a| a.to_lowercase()).collect();
        macs.sort();
        macs.dedup();
        Ok(Hardware { macs, serial: text("serialnumber"), uuid: text("uuid"), disks: self.disks()? })
    }

    /// Its disks.
    pub fn disks(&self) -> Result<Vec<Disk>, CallError> {
        let disk = |d: &Found| Disk {
            path: d.text(&["dev_path"]),
            serial: d.text(&["serial"]),
            wwid: d.text(&["wwid"]),
            model: d.text(&["model"]),
            size: d.text(&["size"]).parse().unwrap_or(0),
            transport: d.text(&["transport"]),
        };
        Ok(self.list("runtime", "Disks.block.talos.dev")?.iter().map(disk).collect())
    }

    /// How far it is.
    pub fn stage(&self) -> Result<Stage, CallError> {
        let Some(status) = self.get("runtime", "MachineStatuses.runtime.talos.dev", "machine")? else {
            return Ok(Stage::default());
        };
        let unmet = status.fields.at(&["status", "unmetConditions"]).and_then(Value::as_list);
        let sentence = |condition: &Value| {
            let text = |key| condition.text_at(&[key]).unwrap_or_default();
            format!("{}: {}", text("name"), text("reason"))
        };
        Ok(Stage {
            stage: status.text(&["stage"]),
            ready: status.text(&["status", "ready"]) == "true",
            unmet: unmet.unwrap_or_default().iter().map(sentence).collect(),
        })
    }

    /// The config that it keeps, as it was given; `None` when it has none. Answered to an administrator alone.
    pub fn config(&self) -> Result<Option<SecretText>, CallError> {
        // What is kept, not what is active: a config that is being tried is gone at the next start.
        let Some(found) = self.get("config", "MachineConfigs.config.talos.dev", "persistent")? else {
            return Ok(None);
        };
        let nonsense =
            |_| CallError::Nonsense { method: "Get", address: self.address(), what: "its config is no text" };
        let spec = proto::MachineConfigSpec::decode(found.packed.as_slice())
            .map_err(|_| CallError::Nonsense { method: "Get", address: self.address(), what: "no config" })?;
        String::from_utf8(spec.yaml).map(|text| Some(Secret::new(text))).map_err(nonsense)
    }

    /// Its number in etcd, when its etcd runs.
    pub fn etcd_member(&self) -> Result<Option<String>, CallError> {
        let member = self.get("etcd", "EtcdMembers.etcd.talos.dev", "local")?;
        Ok(member.map(|m| m.text(&["memberID"])).filter(|id| !id.is_empty()))
    }

    /// The schematic of the image that it runs, when the Factory made it.
    pub fn schematic(&self) -> Result<Option<String>, CallError> {
        let all = self.list("runtime", "ExtensionStatuses.runtime.talos.dev")?;
        let schematic = all.iter().find(|e| e.text(&["metadata", "name"]) == "schematic");
        Ok(schematic.map(|s| s.text(&["metadata", "version"])))
    }

    /// The addresses that it has.
    pub fn addresses(&self) -> Result<Vec<String>, CallError> {
        let all = self.list("network", "AddressStatuses.net.talos.dev")?;
        Ok(all.iter().map(|a| a.text(&["address"])).collect())
    }
}

impl Found {
    /// The text at a place, empty when there is none.
    fn text(&self, place: &[&str]) -> String {
        self.fields.text_at(place).unwrap_or_default().to_string()
    }
}
