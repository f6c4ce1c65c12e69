use super::*;

/// Made by `talosctl gen secrets` of 1.14.1; it has never been a cluster's.
const REAL: &str = include_str!("../../tests/data/secrets.yaml");

#[test]
fn a_real_bundle_comes_back_to_the_byte() {
    let bundle = Bundle::read(REAL).unwrap();
    assert_eq!(bundle.write().expose(), REAL);
    let again = Bundle::from_texts(&|place| {
        bundle.texts().into_iter().find(|(p, _)| *p == place).map(|(_, text)| text)
    });
    assert_eq!(again.unwrap().write().expose(), REAL);
}

#[test]
fn what_is_wrong_is_named_and_no_value_shown() {
    let without =
        |key: &str| REAL.lines().filter(|l| !l.contains(key)).map(|l| format!("{l}\n")).collect::<String>();
    let swapped = {
        let other = REAL.lines().skip_while(|l| *l != "    k8s:").nth(2).unwrap();
        let own = REAL.lines().skip_while(|l| *l != "    etcd:").nth(2).unwrap();
        REAL.replacen(own, other, 1)
    };
    let worker = "machine:\n  type: worker\n";
    let token = REAL.lines().find(|l| l.contains("bootstraptoken")).unwrap();
    for (text, says) in [
        (without("bootstraptoken"), "secrets.bootstraptoken"),
        (without("secretbox"), "secretboxencryptionsecret"),
        (swapped, "certs.etcd"),
        (REAL.replace(token, "    bootstraptoken: hunter2"), "sixteen letters"),
        (worker.to_string(), "worker"),
        (String::new(), "empty"),
        ("a: 1\n".to_string(), "neither"),
        (format!("{REAL}sops: {{}}\n"), "SOPS"),
        ("a: [\n".to_string(), "YAML"),
    ] {
        let error = Bundle::read(&text).unwrap_err();
        let full = format!("{error} {error:?}");
        assert!(error.to_string().contains(says), "{error}");
        assert!(!full.contains("hunter2") && !full.contains("LS0tLS"), "{full}");
    }
    assert!(!format!("{:?}", Bundle::read(REAL).unwrap()).contains("PRIVATE"));
}

#[test]
fn tokens_have_their_form() {
    for _ in 0..20 {
        let token = token().unwrap();
        let (id, secret) = token.expose().split_once('.').unwrap();
        assert_eq!((id.len(), secret.len()), (6, 16));
    }
}
