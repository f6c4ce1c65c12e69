use super::*;
use bramble_api::document::{Cni, Datastore};
use bramble_api::names::Role;
use std::collections::BTreeMap;
use std::error::Error;
use std::net::Ipv4Addr;
use x509_parser::extensions::GeneralName;
use x509_parser::pem::parse_x509_pem;

type Outcome = Result<(), Box<dyn Error>>;

const NOW: u64 = 1_800_000_000;

fn request(role: Role) -> NodeRequest<'static> {
    NodeRequest {
        cluster: "home",
        name: "n1",
        role,
        address: Ipv4Addr::new(192, 168, 1, 11),
        endpoint: (Ipv4Addr::new(192, 168, 1, 10), 6443),
        service_address: Ipv4Addr::new(10, 43, 0, 1),
        cluster_domain: "cluster.local",
        sans: &[],
        cni: Cni::FlannelHostGw,
        datastore: Datastore::Etcd,
        encrypt_secrets: true,
        validity: Validity::default(),
        now: NOW,
    }
}

/// What a certificate says, in a few words.
fn describe(pem: &str) -> Result<String, Box<dyn Error>> {
    let (_, pem) = parse_x509_pem(pem.as_bytes())?;
    let certificate = pem.parse_x509()?;
    let mut text = format!("{} <- {}", certificate.subject(), certificate.issuer());
    if let Some(usage) = certificate.extended_key_usage()? {
        text += match (usage.value.client_auth, usage.value.server_auth) {
            (true, true) => ", both",
            (true, false) => ", client",
            (false, true) => ", server",
            (false, false) => ", neither",
        };
    }
    let validity = certificate.validity();
    let days = (validity.not_after.timestamp() - NOW as i64) / 86_400;
    text += &format!(", {days} days");
    assert_eq!(validity.not_before.timestamp(), NOW as i64 - 3600);
    if let Some(names) = certificate.subject_alternative_name()? {
        for name in &names.value.general_names {
            text += &match name {
                GeneralName::DNSName(name) => format!(" {name}"),
                GeneralName::IPAddress([a, b, c, d]) => format!(" {a}.{b}.{c}.{d}"),
                other => format!(" {other:?}"),
            };
        }
    }
    Ok(text)
}

/// The value of a key in a kubeconfig, decoded.
fn embedded(kubeconfig: &str, key: &str) -> Result<String, Box<dyn Error>> {
    let value = kubeconfig.lines().find_map(|l| l.trim().strip_prefix(key)?.strip_prefix(": ")).ok_or(key)?;
    Ok(String::from_utf8(base64::engine::general_purpose::STANDARD.decode(value)?)?)
}

fn describe_files(files: &BTreeMap<String, String>) -> Result<String, Box<dyn Error>> {
    let mut text = String::new();
    for (path, content) in files {
        text += &match path.rsplit_once('.').map(|p| p.1) {
            Some("crt") => format!("{path}: {}\n", describe(content)?),
            Some("conf") => {
                let server =
                    content.lines().find_map(|l| l.trim().strip_prefix("server: ")).ok_or("no server")?;
                let certificate = embedded(content, "client-certificate-data")?;
                format!("{path}: {server} {}\n", describe(&certificate)?)
            }
            _ => format!("{path}\n"),
        };
    }
    Ok(text)
}

#[test]
fn a_worker_gets_no_key_that_signs() -> Outcome {
    let files = issue_node(&Authorities::generate("home", NOW)?, &request(Role::Worker))?;
    insta::assert_snapshot!(describe_files(&files)?);
    Ok(())
}

#[test]
fn a_control_plane_gets_the_client_authoritys_key_only() -> Outcome {
    let authorities = Authorities::generate("home", NOW)?;
    let sans = ["api.home.arpa".to_string(), "192.168.1.10".to_string(), "203.0.113.7".to_string()];
    let files = issue_node(&authorities, &NodeRequest { sans: &sans, ..request(Role::ControlPlane) })?;
    insta::assert_snapshot!(describe_files(&files)?);
    for authority in
        [&authorities.serving, &authorities.datastore, &authorities.front_proxy, &authorities.node_api]
    {
        assert!(files.values().all(|content| !content.contains(authority.key.trim())));
    }
    assert_eq!(files["pki/client-ca-signing.key"], authorities.client.key);
    assert!(files["encryption.yaml"].contains(&authorities.encryption[0].secret));
    Ok(())
}

#[test]
fn a_machine_gets_what_its_part_needs_and_no_more() -> Outcome {
    let authorities = Authorities::generate("home", NOW)?;
    let has = |request: &NodeRequest, path: &str| -> Result<bool, PkiError> {
        Ok(issue_node(&authorities, request)?.contains_key(path))
    };
    assert!(issue_node(&authorities, &request(Role::Management))?.is_empty());
    let sqlite = NodeRequest { datastore: Datastore::Sqlite, ..request(Role::ControlPlane) };
    assert!(!has(&sqlite, "pki/datastore-client.key")?);
    let plain = NodeRequest { encrypt_secrets: false, ..request(Role::ControlPlane) };
    assert!(!has(&plain, "encryption.yaml")?);
    let own_network = NodeRequest { cni: Cni::None, ..request(Role::Worker) };
    assert!(!has(&own_network, "flannel.conf")?);
    Ok(())
}

/// Each certificate is signed by its authority's key and by no other's.
#[test]
fn chains_end_where_they_should() -> Outcome {
    let authorities = Authorities::generate("home", NOW)?;
    let files = issue_node(&authorities, &request(Role::ControlPlane))?;
    let all = [
        ("client", &authorities.client),
        ("serving", &authorities.serving),
        ("datastore", &authorities.datastore),
        ("front-proxy", &authorities.front_proxy),
        ("node-api", &authorities.node_api),
    ];
    let kubelet = embedded(&files["kubelet.conf"], "client-certificate-data")?;
    for (certificate, authority) in [
        (&files["pki/apiserver.crt"], "serving"),
        (&files["pki/kubelet-serving.crt"], "serving"),
        (&files["pki/apiserver-kubelet-client.crt"], "client"),
        (&files["pki/front-proxy-client.crt"], "front-proxy"),
        (&files["pki/datastore-server.crt"], "datastore"),
        (&files["pki/datastore-client.crt"], "datastore"),
        (&kubelet, "client"),
    ] {
        let (_, leaf) = parse_x509_pem(certificate.as_bytes())?;
        let leaf = leaf.parse_x509()?;
        assert!(!leaf.is_ca());
        for (name, candidate) in all {
            let (_, parent) = parse_x509_pem(candidate.certificate.as_bytes())?;
            let parent = parent.parse_x509()?;
            assert!(parent.is_ca());
            let signed = leaf.verify_signature(Some(parent.public_key())).is_ok();
            assert_eq!(signed, name == authority, "{} and {name}", leaf.subject());
        }
    }
    Ok(())
}

#[test]
fn an_old_authority_is_trusted_beside_the_new_one_but_signs_nothing() -> Outcome {
    let old = Authorities::generate("home", NOW)?;
    let mut new = Authorities::generate("home", NOW)?;
    new.client.trusted.push(old.client.certificate.clone());
    let files = issue_node(&new, &request(Role::ControlPlane))?;
    assert_eq!(files["pki/client-ca.crt"].matches("BEGIN CERTIFICATE").count(), 2);
    assert!(files["pki/client-ca.crt"].starts_with(new.client.certificate.trim()));
    // The controller manager refuses more than one here.
    assert_eq!(files["pki/client-ca-signing.crt"].matches("BEGIN CERTIFICATE").count(), 1);
    Ok(())
}

#[test]
fn authorities_come_back_from_their_text() -> Outcome {
    let authorities = Authorities::generate("home", NOW)?;
    let text = serde_json::to_string(&authorities)?;
    assert!(serde_json::from_str::<Authorities>(&text)? == authorities);
    assert!(serde_json::from_str::<Authorities>(&text.replace("\"serving\"", "\"servign\"")).is_err());
    Ok(())
}

#[test]
fn serial_numbers_and_keys_are_never_the_same() -> Outcome {
    let authorities = Authorities::generate("home", NOW)?;
    let profile = Profile { name: "x", client: true, ..Profile::default() };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let (certificate, key) = authorities.client.issue(&profile, NOW, DAY)?;
        let (_, pem) = parse_x509_pem(certificate.as_bytes())?;
        let serial = pem.parse_x509()?.raw_serial().to_vec();
        assert_eq!((serial.len(), serial[0] >> 6), (16, 1), "{serial:?}");
        assert!(seen.insert((serial, key)));
    }
    Ok(())
}

#[test]
fn a_kubeconfig_is_short_lived_and_quotes_its_names() -> Outcome {
    let authorities = Authorities::generate("home", NOW)?;
    let text = kubeconfig(&authorities, "home: 1", "https://127.0.0.1:6443", "ann@x", NOW, DAY)?;
    insta::assert_snapshot!(describe(&embedded(&text, "client-certificate-data")?)?, @"O=system:masters, CN=ann@x <- CN=home client authority, client, 1 days");
    assert_eq!(embedded(&text, "certificate-authority-data")?, authorities.serving.bundle());
    assert!(text.contains("\n- name: \"home: 1\"\n"), "{text}");
    Ok(())
}

#[test]
fn an_unreadable_authority_and_an_impossible_name_are_errors() -> Outcome {
    let mut authorities = Authorities::generate("home", NOW)?;
    let sans = ["naïve.example".to_string()];
    let outcome = issue_node(&authorities, &NodeRequest { sans: &sans, ..request(Role::ControlPlane) });
    assert!(matches!(&outcome, Err(PkiError::Name { name, .. }) if name == "naïve.example"));
    authorities.serving.key = "nothing".into();
    let outcome = issue_node(&authorities, &request(Role::Worker));
    assert!(matches!(outcome, Err(PkiError::Authority { .. })));
    Ok(())
}
