//! Who the machine is, its clock, modules, kernel settings and trust.

use super::{Entry, file, link, private};
use bramble_api::document::MachineDocument;
use bramble_api::manifest::Manifest;
use std::collections::BTreeMap;
use std::fmt::Write;

pub fn render(manifest: &Manifest, document: &MachineDocument) -> Vec<Entry> {
    let name = &document.machine.name;
    let timezone = timezone(&document.system.timezone);
    let mut entries = vec![
        file("/etc/hostname", format!("{name}\n")),
        file("/etc/hosts", hosts(document)),
        Entry::File {
            path: "/etc/machine-id".into(),
            // As systemd makes it: nothing may change who a machine is.
            mode: 0o444,
            content: format!("{}\n", document.machine.machine_id).into(),
        },
        link("/etc/localtime", format!("/usr/share/zoneinfo/{timezone}")),
        file("/etc/timezone", format!("{timezone}\n")),
        file(
            "/etc/bramble-release",
            format!(
                "CLUSTER={}\nRELEASE={}\nKERNEL={}\nTOOL={}\nGENERATION={}\n",
                manifest.cluster,
                manifest.version,
                manifest.kernel,
                manifest.tool,
                document.machine.generation
            ),
        ),
    ];
    if !document.system.modules.is_empty() {
        entries.push(file("/etc/modules-load.d/10-bramble.conf", lines(&document.system.modules)));
    }
    if !document.system.sysctls.is_empty() {
        // Named to come after Kubernetes' own and the distribution's: the user has the last word.
        entries.push(file("/etc/sysctl.d/99-bramble.conf", sysctls(&document.system.sysctls)));
    }
    if !document.system.trusted_cas.is_empty() {
        let mut bundle = document.system.trusted_cas.join("\n");
        if !bundle.ends_with('\n') {
            bundle.push('\n');
        }
        entries.push(Entry::Append {
            path: "/etc/ssl/certs/ca-certificates.crt".into(),
            content: bundle.into_bytes(),
        });
    }
    if let Some(initiator) = &document.system.initiator_name {
        entries.push(private("/etc/iscsi/initiatorname.iscsi", format!("InitiatorName={initiator}\n")));
    }
    if document.system.node_exporter {
        let unit = "prometheus-node-exporter.service";
        entries.push(link(
            format!("/etc/systemd/system/multi-user.target.wants/{unit}"),
            format!("/usr/lib/systemd/system/{unit}"),
        ));
    }
    if let Some(management) = &document.management {
        entries.push(private("/etc/kubernetes/admin.conf", management.kubeconfig.clone()));
        // pam_env(8) reads it for every login, ssh's commands among them.
        entries.push(Entry::Append {
            path: "/etc/environment".into(),
            content: b"KUBECONFIG=/etc/kubernetes/admin.conf\n".to_vec(),
        });
    }
    if !document.network.proxy.is_empty() {
        entries.push(file(
            "/etc/systemd/system/containerd.service.d/10-bramble-proxy.conf",
            proxy(&document.network.proxy),
        ));
    }
    entries
}

fn lines(words: &[String]) -> String {
    words.iter().map(|word| format!("{word}\n")).collect()
}

/// Only what can be a name below /usr/share/zoneinfo.
fn timezone(stated: &str) -> &str {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_+-/".contains(c);
    let whole = stated.split('/').all(|part| !part.is_empty());
    if whole && stated.chars().all(plain) { stated } else { "Etc/UTC" }
}

fn hosts(document: &MachineDocument) -> String {
    let network = &document.network;
    let names = |name: &str| match network.domain.as_str() {
        "" => name.to_string(),
        domain => format!("{name}.{domain} {name}"),
    };
    let own = &document.machine.name;
    let mut text = String::from("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n");
    // The machine's own name is its address in the network, not a loopback: Kubernetes' programs look it up.
    let _ = writeln!(text, "{} {}", network.address, names(own));
    for (address, name) in network.hosts.iter().filter(|(_, name)| name != own) {
        let _ = writeln!(text, "{address} {}", names(name));
    }
    text
}

fn sysctls(settings: &BTreeMap<String, String>) -> String {
    settings.iter().map(|(key, value)| format!("{key} = {value}\n")).collect()
}

/// Both spellings: Go's programs and curl do not agree on the case.
fn proxy(settings: &BTreeMap<String, String>) -> String {
    let mut text = String::from("[Service]\n");
    for (name, value) in settings {
        // systemd.exec(5): a percent sign is doubled; quotes and backslashes are escaped.
        let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%");
        for name in [name.to_lowercase(), name.to_uppercase()] {
            let _ = writeln!(text, "Environment=\"{name}={value}\"");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn content(entries: &[Entry], wanted: &str) -> String {
        let found = entries.iter().find(|entry| entry.path() == wanted);
        match found.unwrap_or_else(|| panic!("no {wanted}")) {
            Entry::File { content, .. } | Entry::Append { content, .. } => {
                String::from_utf8(content.clone()).unwrap()
            }
            Entry::Link { target, .. } => target.clone(),
        }
    }

    #[test]
    fn a_machine_knows_its_name_and_its_neighbours() {
        let mut document = fixture::document();
        document.network.hosts = vec![
            ("192.168.1.11".parse().unwrap(), "n1".into()),
            ("192.168.1.12".parse().unwrap(), "n2".into()),
        ];
        let entries = render(&fixture::manifest(), &document);
        assert_eq!(content(&entries, "/etc/hostname"), "n1\n");
        assert_eq!(content(&entries, "/etc/machine-id").len(), 33);
        assert_eq!(
            content(&entries, "/etc/hosts"),
            "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n\
             192.168.1.11 n1.home.arpa n1\n192.168.1.12 n2.home.arpa n2\n"
        );
    }

    #[test]
    fn time_zones_cannot_leave_their_directory() {
        assert_eq!(timezone("Europe/Berlin"), "Europe/Berlin");
        assert_eq!(timezone("America/Argentina/Buenos_Aires"), "America/Argentina/Buenos_Aires");
        for odd in ["", "../../etc/shadow", "/etc/x", "Etc//UTC", "Etc/UTC\n"] {
            assert_eq!(timezone(odd), "Etc/UTC", "{odd:?}");
        }
    }

    #[test]
    fn settings_and_trust_are_written_only_when_stated() {
        let mut document = fixture::document();
        let bare = render(&fixture::manifest(), &document);
        assert!(
            !bare.iter().any(|e| e.path().contains("sysctl")
                || e.path().contains("ssl")
                || e.path().contains("iscsi"))
        );
        document.system.modules = vec!["iscsi_tcp".into(), "rbd".into()];
        document.system.sysctls.insert("vm.swappiness".into(), "10".into());
        document.system.trusted_cas = vec!["-----BEGIN A-----".into(), "-----BEGIN B-----".into()];
        document.system.initiator_name = Some("iqn.2026-01.home.arpa:n1".into());
        let entries = render(&fixture::manifest(), &document);
        assert_eq!(content(&entries, "/etc/modules-load.d/10-bramble.conf"), "iscsi_tcp\nrbd\n");
        assert_eq!(content(&entries, "/etc/sysctl.d/99-bramble.conf"), "vm.swappiness = 10\n");
        assert_eq!(
            content(&entries, "/etc/ssl/certs/ca-certificates.crt"),
            "-----BEGIN A-----\n-----BEGIN B-----\n"
        );
        assert_eq!(
            content(&entries, "/etc/iscsi/initiatorname.iscsi"),
            "InitiatorName=iqn.2026-01.home.arpa:n1\n"
        );
    }

    #[test]
    fn proxies_are_spelled_both_ways_and_escaped() {
        let settings = BTreeMap::from([("http_proxy".to_string(), "http://u:p%40\"@proxy:3128".to_string())]);
        assert_eq!(
            proxy(&settings),
            "[Service]\nEnvironment=\"http_proxy=http://u:p%%40\\\"@proxy:3128\"\n\
             Environment=\"HTTP_PROXY=http://u:p%%40\\\"@proxy:3128\"\n"
        );
    }
}
