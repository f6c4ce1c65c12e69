use super::*;
use crate::identity::Identity;
use std::os::unix::fs::PermissionsExt;

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

/// A file in a fresh directory with one secret in it, and the key to it.
fn sample() -> (tempfile::TempDir, PathBuf, Identities) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bramble.secrets.sops.yaml");
    let identity = Identity::generate();
    let mut file = SecretsFile::create(&path, &[identity.recipient()]).unwrap();
    file.set(&["cluster", "authorities", "client", "key"], text("-----BEGIN-----\nhunter2\n")).unwrap();
    file.set(&["cluster", "token"], text("correct horse")).unwrap();
    assert_eq!(file.save(NOW).unwrap(), Saved::Written);
    (dir, path, Identities::of(vec![identity]))
}

fn text(t: &str) -> SecretText {
    Secret::new(t.to_string())
}

#[test]
fn what_is_set_is_read_back_and_nothing_lies_in_clear() {
    let (dir, path, keys) = sample();
    let raw = fs::read_to_string(&path).unwrap();
    assert!(!raw.contains("hunter2") && !raw.contains("horse"), "{raw}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let mut file = SecretsFile::load(&path, &keys).unwrap();
    assert_eq!(
        file.get(&["cluster", "authorities", "client", "key"]).unwrap().expose(),
        "-----BEGIN-----\nhunter2\n"
    );
    assert!(file.get(&["cluster", "none"]).is_none());
    assert!(file.get(&["cluster"]).is_none() && file.get(&[]).is_none());
    assert_eq!(file.keys(&["cluster"]), ["authorities", "token"]);
    assert_eq!(file.save(NOW).unwrap(), Saved::Unchanged);
    assert_eq!(fs::read_to_string(&path).unwrap(), raw);
    assert!(!format!("{file:?}").contains("horse"));
}

#[test]
fn untouched_values_keep_their_ciphertext() {
    let (_dir, path, keys) = sample();
    let before = fs::read_to_string(&path).unwrap();
    let mut file = SecretsFile::load(&path, &keys).unwrap();
    file.set(&["cluster", "token"], text("battery staple")).unwrap();
    file.save(Timestamp::from_second(1).unwrap()).unwrap();
    let after = fs::read_to_string(&path).unwrap();
    let changed: Vec<_> =
        before.lines().zip(after.lines()).filter(|(a, b)| a != b).map(|(a, _)| a.trim()).collect();
    assert_eq!(changed.len(), 3, "{changed:?}");
    assert!(changed[0].starts_with("token:"));
    assert!(changed[1].starts_with("lastmodified:") && changed[2].starts_with("mac:"));
    SecretsFile::load(&path, &keys).unwrap();
}

#[test]
fn setting_what_is_there_changes_nothing() {
    let (_dir, path, keys) = sample();
    let mut file = SecretsFile::load(&path, &keys).unwrap();
    file.set(&["cluster", "token"], text("correct horse")).unwrap();
    assert_eq!(file.save(NOW).unwrap(), Saved::Unchanged);
    assert!(file.remove(&["cluster", "token"]) && !file.remove(&["cluster", "token"]));
    file.save(NOW).unwrap();
    assert_eq!(SecretsFile::load(&path, &keys).unwrap().keys(&["cluster"]), ["authorities"]);
}

#[test]
fn subtrees_keep_types_and_order() {
    let (_dir, path, keys) = sample();
    let mut file = SecretsFile::load(&path, &keys).unwrap();
    let bundle = Value::map([
        ("zeta", Value::Int(3)),
        ("alpha", Value::List(vec![Value::Bool(true), Value::text("x"), Value::Null, Value::text("")])),
    ]);
    file.set_value(&["talos"], bundle).unwrap();
    file.save(NOW).unwrap();
    let file = SecretsFile::load(&path, &keys).unwrap();
    let Some(Value::Map(pairs)) = file.get_value(&["talos"]) else { panic!("no map") };
    assert_eq!(pairs[0].0, "zeta");
    assert!(matches!(pairs[0].1, Value::Int(3)));
    let Value::List(items) = &pairs[1].1 else { panic!("no list") };
    assert!(
        matches!(&items[..], [Value::Bool(true), Value::Text(_), Value::Null, Value::Text(e)] if e.expose().is_empty())
    );
}

#[test]
fn a_secret_does_not_go_where_it_would_lie_in_clear() {
    let (_dir, path, keys) = sample();
    let mut file = SecretsFile::load(&path, &keys).unwrap();
    let at = |r: Result<(), SetError>| r.unwrap_err().to_string();
    assert!(at(file.set(&["a_unencrypted"], text("x"))).contains("in clear"));
    assert!(
        at(file.set_value(&["a"], Value::map([("b_unencrypted", Value::text("x"))])))
            .contains("a.b_unencrypted")
    );
    assert!(at(file.set(&["sops", "mac"], text("x"))).contains("sops.mac"));
    assert!(at(file.set(&["cluster", "token", "deeper"], text("x"))).contains("cluster.token.deeper"));
    assert!(at(file.set(&[], text("x"))).contains("nothing can be set"));
}

#[test]
fn a_second_recipient_opens_the_file_too() {
    let (_dir, path, keys) = sample();
    let other = Identity::generate();
    let mut file = SecretsFile::load(&path, &keys).unwrap();
    assert!(file.add_recipient(&other.recipient()).unwrap());
    assert!(!file.add_recipient(&other.recipient()).unwrap());
    file.save(NOW).unwrap();
    let file = SecretsFile::load(&path, &Identities::of(vec![other])).unwrap();
    assert_eq!(file.recipients().len(), 2);
    SecretsFile::load(&path, &keys).unwrap();
}

#[test]
fn a_missing_or_wrong_key_says_where_and_for_whom() {
    let (_dir, path, keys) = sample();
    let none = Identities { places: vec!["SOPS_AGE_KEY (not set)".into()], ..Default::default() };
    let error = SecretsFile::load(&path, &none).unwrap_err();
    assert!(error.to_string().contains("SOPS_AGE_KEY (not set)"), "{error}");
    let error = SecretsFile::load(&path, &Identities::of(vec![Identity::generate()])).unwrap_err();
    assert!(matches!(&error, LoadError::WrongKey { .. }));
    assert!(error.to_string().contains(&keys.recipients()[0].to_string()), "{error}");
}

#[test]
fn every_change_without_the_key_is_noticed() {
    let (_dir, path, keys) = sample();
    let good = fs::read_to_string(&path).unwrap();
    let token = good.lines().find(|l| l.contains("token:")).unwrap();
    let load = |bad: String| {
        fs::write(&path, bad).unwrap();
        SecretsFile::load(&path, &keys).map(|_| ()).unwrap_err()
    };
    // A value moved, removed, replaced by clear text, altered; the checksum itself.
    assert!(
        matches!(load(good.replace("token:", "other:")), LoadError::Damaged { at, .. } if at == "cluster.other")
    );
    assert!(matches!(load(good.replace(&format!("{token}\n"), "")), LoadError::Tampered { .. }));
    let error = load(good.replace(token, "    token: hunter2"));
    assert!(matches!(&error, LoadError::Clear { at, .. } if at == "cluster.token"));
    assert!(!error.to_string().contains("hunter2") && !format!("{error:?}").contains("hunter2"));
    assert!(matches!(load(good.replace(token, "    token: 12")), LoadError::Clear { .. }));
    assert!(matches!(load(good.replace(",type:str]", ",type:int]")), LoadError::Unsupported { .. }));
    assert!(matches!(
        load(good.replace("1970-01-01T00:00:00Z", "1970-01-01T00:00:01Z")),
        LoadError::Tampered { .. }
    ));
    assert!(matches!(load(good.replace("    mac: ENC", "    mac: XNC")), LoadError::Tampered { .. }));
    assert!(matches!(load(good.replace("\nsops:", "\nsoaps:")), LoadError::NotEncrypted { .. }));
    assert!(matches!(load(format!("{good}\tx: 1\n")), LoadError::Yaml { .. }));
    assert!(matches!(load("a: 1\nsops:\n    key_groups: []\n".into()), LoadError::Unsupported { .. }));
}

#[test]
fn two_writers_do_not_lose_each_others_work() {
    let (_dir, path, keys) = sample();
    let mut one = SecretsFile::load(&path, &keys).unwrap();
    let mut two = SecretsFile::load(&path, &keys).unwrap();
    one.set(&["a"], text("1")).unwrap();
    two.set(&["b"], text("2")).unwrap();
    one.save(NOW).unwrap();
    assert!(matches!(two.save(NOW), Err(SaveError::Changed { .. })));
    let mut fresh = SecretsFile::create(&path, &keys.recipients()).unwrap();
    assert!(matches!(fresh.save(NOW), Err(SaveError::Changed { .. })), "an existing file is not replaced");
    assert!(SecretsFile::load(&path, &keys).unwrap().get(&["a"]).is_some());
}

#[test]
fn a_file_that_is_not_there_or_far_too_large_is_an_error_of_reading() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Identities::of(vec![Identity::generate()]);
    assert!(matches!(SecretsFile::load(&dir.path().join("none"), &keys), Err(LoadError::Read { .. })));
    let huge = dir.path().join("huge");
    fs::File::create(&huge).unwrap().set_len(1 << 30).unwrap();
    assert!(matches!(SecretsFile::load(&huge, &keys), Err(LoadError::Read { .. })));
}

/// `fixtures/make.sh` says how the file was made by sops 3.13.
fn by_sops() -> (&'static str, Identities) {
    let key = include_str!("../fixtures/key.txt").lines().find(|l| l.starts_with("AGE-")).unwrap();
    let environment = crate::identity::Environment { key: Some(text(key)), ..Default::default() };
    (include_str!("../fixtures/by-sops.yaml"), Identities::find(&environment).unwrap())
}

#[test]
fn a_file_made_by_sops_is_read_with_all_its_types() {
    let (raw, keys) = by_sops();
    let file = SecretsFile::open(Path::new("by-sops.yaml"), raw, &keys).unwrap();
    let get = |path: &[&str]| file.get(path).map(|t| t.expose().as_str());
    let authority = |key| get(&["cluster", "authority", key]);
    assert!(authority("key").unwrap().ends_with("-----END PRIVATE KEY-----\n"));
    assert_eq!(authority("number"), Some("42"));
    assert_eq!(authority("ratio"), Some("1.5"));
    assert_eq!(authority("big"), Some("1000000000000000000000"));
    assert_eq!(authority("yes"), Some("True"));
    assert_eq!(authority("empty"), Some(""));
    assert_eq!(authority("nothing"), None);
    assert_eq!(authority("since"), Some("2026-01-02T03:04:05Z"));
    assert_eq!(get(&["plain_unencrypted", "count"]), Some("7"));
}

#[test]
fn a_file_made_by_sops_is_written_as_sops_writes_it() {
    let (raw, keys) = by_sops();
    let mut file = SecretsFile::open(Path::new("by-sops.yaml"), raw, &keys).unwrap();
    let stated = file.section.iter().find_map(|l| match l {
        Line::Entry((k, n)) if k == "lastmodified" => n.raw_text(),
        _ => None,
    });
    let time = stated.unwrap().parse().unwrap();
    let written = file.encrypt(time).unwrap();
    let differing: Vec<_> = raw.lines().zip(written.lines()).filter(|(a, b)| a != b).collect();
    assert_eq!(raw.lines().count(), written.lines().count());
    assert!(matches!(differing[..], [(a, _)] if a.starts_with("    mac: ENC[")), "{differing:#?}");
}
