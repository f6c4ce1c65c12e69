//! A machine document and a manifest for tests.

use bramble_api::document::{Addressing, Machine, MachineDocument, Network, System, identity_header};
use bramble_api::manifest::Manifest;
use bramble_api::names::{Arch, Board, Role};
use sha2::{Digest, Sha256};

/// A static amd64 machine without Kubernetes.
pub fn document() -> MachineDocument {
    MachineDocument {
        format: 1,
        cluster: "home".into(),
        machine: Machine {
            name: "n1".into(),
            number: 1,
            role: Role::Management,
            board: Board::UefiAmd64,
            card: 1,
            incarnation: "0101010101010101".repeat(2),
            generation: 1,
            machine_id: "abcdef0123456789".repeat(2),
            issued_at: 1_790_000_000,
            keep_data: false,
        },
        network: Network {
            address: "192.168.1.11".parse().unwrap(),
            subnet: "192.168.1.0/24".parse().unwrap(),
            gateway: Some("192.168.1.1".parse().unwrap()),
            dns: vec!["192.168.1.1".parse().unwrap()],
            ntp: vec!["192.168.1.1".into()],
            domain: "home.arpa".into(),
            addressing: Addressing::Static,
            mac: Some("dc:a6:32:00:00:01".into()),
            mtu: None,
            interfaces: Vec::new(),
            hosts: Vec::new(),
            proxy: Default::default(),
        },
        system: System { timezone: "Etc/UTC".into(), ..System::default() },
        management: None,
        node_api: None,
        ssh: None,
        kubernetes: None,
    }
}

/// A document as it lies in an identity partition: header block, then the JSON.
pub fn stored(document: &MachineDocument) -> Vec<u8> {
    let json = serde_json::to_vec(document).unwrap();
    let mut bytes = identity_header(json.len() as u64, &Sha256::digest(&json).into());
    bytes.extend(json);
    bytes
}

/// A release that fits [`document`].
pub fn manifest() -> Manifest {
    Manifest {
        format: 1,
        cluster: "home".into(),
        version: 3,
        floor: 0,
        time: 1_790_000_000,
        arch: Arch::Amd64,
        boards: vec![Board::UefiAmd64],
        min_agent: 1,
        root_size: 4 << 20,
        verity_size: 9 * 4096,
        verity_root: "ab".repeat(32),
        verity_salt: "cd".repeat(16),
        uki: None,
        boot: None,
        kernel: "7.2".into(),
        kubernetes: None,
        tool: "0.1.0".into(),
    }
}
