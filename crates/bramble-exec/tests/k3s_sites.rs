//! Ten sites of k3s as people have them: what is rendered for each of their machines is valid by k3s' own flags.

use bramble_api::document::{Distribution, MachineDocument};
use bramble_api::lock::Lock;
use bramble_api::names::Role;
use bramble_kube::k3s;
use bramble_kube::k3s::flags::{FlagError, Table};
use bramble_kube::k3s::identity::{self, Secrets};
use bramble_kube::pki::Authorities;
use bramble_plan::{Edition, Identity};
use std::path::{Path, PathBuf};

const NOW: u64 = 1_800_000_000;

fn sites() -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/k3s/sites");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The documents of a site's machines, with what k3s needs made as the tool makes it.
fn documents(text: &str) -> Vec<MachineDocument> {
    let checked = bramble_spec::parse(text, "bramble.yaml").unwrap_or_else(|found| panic!("{found}"));
    let cluster = checked.cluster;
    let nodes = cluster.effective_nodes();
    let mut lock = Lock::default();
    let names = nodes.iter().map(|n| n.name.as_str());
    lock.allocated = bramble_plan::allocate(&lock.allocated, names, cluster.spec.network.pods).unwrap();
    let authorities = Authorities::generate(cluster.name(), NOW).unwrap();
    let secrets = Secrets {
        server_password: "0f".repeat(16),
        agent_password: "1e".repeat(16),
        etcd_peer: identity::etcd_peer(cluster.name(), NOW).unwrap(),
    };
    let edition = Edition {
        issued_at: NOW,
        generation: 1,
        keep_data: false,
        manifests: vec![],
        trusted_cas: vec![],
        updates_source: None,
    };
    let document = |node: &bramble_spec::EffectiveNode| {
        let role = match node.role {
            bramble_spec::Role::ControlPlane => Role::ControlPlane,
            bramble_spec::Role::Worker => Role::Worker,
            bramble_spec::Role::Management => Role::Management,
        };
        let identity = Identity {
            incarnation: "1".repeat(32),
            machine_id: "2".repeat(32),
            ssh_host_key: String::new(),
            ssh_host_key_public: String::new(),
            kubernetes: identity::node_files(&authorities, &secrets, role, &"3d".repeat(16)).unwrap(),
            kubeconfig: None,
            node_api: None,
            secrets: Default::default(),
        };
        bramble_plan::document(&cluster, node, &lock, &identity, &edition).unwrap_or_else(|e| panic!("{e}"))
    };
    nodes.iter().map(document).collect()
}

#[test]
fn every_machine_of_ten_sites_is_configured_by_flags_that_k3s_has() {
    let sites = sites();
    assert_eq!(sites.len(), 10);
    let (mut machines, mut versions) = (0, std::collections::BTreeSet::new());
    for site in sites {
        for document in documents(&std::fs::read_to_string(&site).unwrap()) {
            let kubernetes = document.kubernetes.as_ref().unwrap();
            assert!(kubernetes.distribution == Distribution::K3s);
            versions.insert(kubernetes.version.clone());
            let table = Table::of(&kubernetes.version).unwrap();
            let checked = table.check(document.machine.role, &k3s::render(&document));
            assert_eq!(checked, Ok(()), "{} {}", site.display(), document.machine.name);
            machines += 1;
        }
    }
    assert!(machines >= 20, "{machines}");
    assert!(versions.len() >= 4, "{versions:?}");
}

/// The same sites with one key spelled wrong in what is rendered: each is found. k3s' servers would only warn.
#[test]
fn a_wrong_key_in_what_is_rendered_is_found_at_every_site() {
    for site in sites() {
        for document in documents(&std::fs::read_to_string(&site).unwrap()) {
            let table = Table::of(&document.kubernetes.as_ref().unwrap().version).unwrap();
            let mut rendered = k3s::render(&document);
            let config =
                rendered.files.iter_mut().find(|f| f.path == "/etc/rancher/k3s/config.yaml").unwrap();
            let text = String::from_utf8(config.content.clone()).unwrap();
            config.content = text.replace("\"resolv-conf\"", "\"resolve-conf\"").into_bytes();
            let found = table.check(document.machine.role, &rendered);
            assert!(
                matches!(&found, Err(FlagError::Unknown { key, .. }) if key == "resolve-conf"),
                "{}: {found:?}",
                site.display()
            );
        }
    }
}

/// No site's rendered files but those for root hold a password.
#[test]
fn passwords_stand_only_where_root_alone_reads() {
    for site in sites() {
        for document in documents(&std::fs::read_to_string(&site).unwrap()) {
            for file in k3s::render(&document).files {
                let text = String::from_utf8_lossy(&file.content);
                let secret = [&"0f".repeat(16), &"1e".repeat(16), &"3d".repeat(16)]
                    .iter()
                    .any(|p| text.contains(p.as_str()))
                    || text.contains("PRIVATE KEY");
                assert!(!secret || file.mode == 0o600, "{} {:04o}", file.path, file.mode);
            }
        }
    }
}
