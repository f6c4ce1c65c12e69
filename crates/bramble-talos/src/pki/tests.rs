use super::*;
use x509_parser::prelude::*;

const NOW: u64 = 1_800_000_000;
const DAY: Duration = Duration::from_secs(86_400);

fn der(pem_text: &str) -> Vec<u8> {
    ::pem::parse(pem_text).unwrap().into_contents()
}

#[test]
fn authorities_are_those_of_the_real_generator() {
    let machine = machine_authority(NOW).unwrap();
    let kubernetes = cluster_authority(Some("kubernetes"), NOW).unwrap();
    let aggregator = cluster_authority(None, NOW).unwrap();
    check_authority(&machine, true).unwrap();
    check_authority(&kubernetes, false).unwrap();
    assert!(machine.key.expose().starts_with("-----BEGIN ED25519 PRIVATE KEY-----\n"));
    assert!(kubernetes.key.expose().starts_with("-----BEGIN EC PRIVATE KEY-----\n"));
    let mut said = String::new();
    for pair in [&machine, &kubernetes, &aggregator] {
        let bytes = der(&pair.certificate);
        let (_, certificate) = parse_x509_certificate(&bytes).unwrap();
        assert!(certificate.verify_signature(None).is_ok());
        let validity = certificate.validity();
        said += &format!(
            "{:?} ca={} until+{}h serial={}B usages={:?} {:?}\n",
            certificate.subject().to_string(),
            certificate.is_ca(),
            (validity.not_after.timestamp() - NOW as i64) / 3600,
            certificate.raw_serial().len(),
            certificate.key_usage().unwrap().unwrap().value.to_string(),
            certificate.extended_key_usage().unwrap().map(|e| (e.value.client_auth, e.value.server_auth)),
        );
    }
    insta::assert_snapshot!(said);
}

#[test]
fn a_key_of_another_certificate_is_found_out() {
    let [a, b] = [machine_authority(NOW).unwrap(), machine_authority(NOW).unwrap()];
    let mixed = Pair { key: b.key.clone(), ..a.clone() };
    assert!(matches!(check_authority(&mixed, true), Err(PkiError::Pair)));
    assert!(matches!(client_certificate(&mixed, &[ADMIN], NOW, DAY), Err(PkiError::Pair)));
    let [c, d] = [cluster_authority(None, NOW).unwrap(), cluster_authority(None, NOW).unwrap()];
    let mixed = Pair { key: d.key, ..c };
    assert!(matches!(check_authority(&mixed, false), Err(PkiError::Pair)));
    assert!(matches!(check_authority(&Pair { key: b.key, ..a }, false), Err(PkiError::Form) | Ok(())));
}

#[test]
fn a_client_certificate_has_its_roles_and_nothing_else() {
    let authority = machine_authority(NOW).unwrap();
    let client = client_certificate(&authority, &[ADMIN, "os:reader", "os:etcd:backup"], NOW, DAY).unwrap();
    let (bytes, issuer) = (der(&client.certificate), der(&authority.certificate));
    let (rest, certificate) = parse_x509_certificate(&bytes).unwrap();
    let (_, issuer) = parse_x509_certificate(&issuer).unwrap();
    assert!(rest.is_empty());
    assert!(certificate.verify_signature(Some(issuer.public_key())).is_ok());
    assert_eq!(certificate.subject().to_string(), "O=os:admin, O=os:reader, O=os:etcd:backup");
    assert_eq!(certificate.validity().not_after.timestamp(), (NOW + 86_400) as i64);
    let usage = certificate.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any && usage.other.is_empty());
    assert!(!certificate.is_ca());
    let own = Pair { certificate: client.certificate, key: client.key };
    check_authority(&own, true).unwrap();
    let eleven_years = 4020 * DAY;
    assert!(matches!(client_certificate(&authority, &[ADMIN], NOW, eleven_years), Err(PkiError::Outlives)));
}

#[test]
fn a_kubeconfig_is_an_administrators() {
    use base64::Engine;
    let authority = cluster_authority(Some("kubernetes"), NOW).unwrap();
    let text = kubeconfig(&authority, "home", "https://192.168.1.10:6443", NOW, DAY).unwrap();
    let value = |key: &str| {
        let line =
            text.expose().lines().find_map(|l| l.trim().strip_prefix(key)?.strip_prefix(": ")).unwrap();
        der(&String::from_utf8(base64::engine::general_purpose::STANDARD.decode(line).unwrap()).unwrap())
    };
    let (bytes, issuer) = (value("client-certificate-data"), value("certificate-authority-data"));
    let (_, certificate) = parse_x509_certificate(&bytes).unwrap();
    let (_, issuer) = parse_x509_certificate(&issuer).unwrap();
    assert!(certificate.verify_signature(Some(issuer.public_key())).is_ok());
    assert_eq!(certificate.subject().to_string(), "O=system:masters, CN=admin");
    assert_eq!(format!("{text:?}"), "Secret(..)");
}
