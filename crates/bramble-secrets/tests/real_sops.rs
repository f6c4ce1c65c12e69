//! The real `sops` and this crate on the same file, each reading and editing what the other wrote.
//!
//! Needs sops >= 3.9 in the PATH, hence ignored by default: `cargo test -p bramble-secrets -- --ignored`.
//! The fixtures cover the direction from sops to us in every run.

use bramble_secrets::{Identities, Identity, Secret, SecretsFile, Value, creation_rules};
use jiff::Timestamp;
use std::path::Path;
use std::process::Command;

fn sops(directory: &Path, key: &Identity, arguments: &[&str]) -> String {
    let output = Command::new("sops")
        .current_dir(directory)
        .env("SOPS_AGE_KEY", key.to_text().expose())
        .args(arguments)
        .output()
        .expect("sops is not installed");
    assert!(output.status.success(), "sops {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
#[ignore = "needs the program sops"]
fn each_reads_and_edits_what_the_other_wrote() {
    let dir = tempfile::tempdir().unwrap();
    let name = "bramble.secrets.sops.yaml";
    let path = dir.path().join(name);
    let key = Identity::generate();
    let keys = Identities::of(vec![key.clone()]);
    std::fs::write(
        dir.path().join(".sops.yaml"),
        creation_rules(name, &[key.recipient(), Identity::generate().recipient()]),
    )
    .unwrap();

    let mut file = SecretsFile::create(&path, &[key.recipient()]).unwrap();
    file.set(&["cluster", "key"], Secret::new("line one\n  line two\n".into())).unwrap();
    file.set(&["odd", "no"], Secret::new("yes: # \"'\u{fffd}é\u{1f600}".into())).unwrap();
    let rest = [
        ("int", Value::Int(-5)),
        ("bool", Value::Bool(false)),
        ("empty", Value::text("")),
        ("null", Value::Null),
    ];
    file.set_value(&["rest"], Value::map(rest)).unwrap();
    file.set_value(&["list"], Value::List(vec![Value::text("a"), Value::map([("b", Value::Int(1))])]))
        .unwrap();
    file.save(Timestamp::now()).unwrap();

    // sops decrypts it, checksum included.
    let clear = sops(dir.path(), &key, &["decrypt", "--output-type", "json", name]);
    let expected = "{\n\t\"cluster\": {\n\t\t\"key\": \"line one\\n  line two\\n\"\n\t},\n\t\"odd\": {\n\t\t\"no\": \
        \"yes: # \\\"'\u{fffd}é\u{1f600}\"\n\t},\n\t\"rest\": {\n\t\t\"int\": -5,\n\t\t\"bool\": false,\n\t\t\"empty\": \
        \"\",\n\t\t\"null\": null\n\t},\n\t\"list\": [\n\t\t\"a\",\n\t\t{\n\t\t\t\"b\": 1\n\t\t}\n\t]\n}";
    assert_eq!(clear.trim_end(), expected);

    // sops edits it; we read that and edit in turn; sops reads again, and rotates the file's key.
    sops(dir.path(), &key, &["set", name, "[\"cluster\"][\"token\"]", "\"from sops\""]);
    let mut file = SecretsFile::load(&path, &keys).unwrap();
    assert_eq!(file.get(&["cluster", "token"]).unwrap().expose(), "from sops");
    file.set(&["cluster", "token"], Secret::new("from us".into())).unwrap();
    file.save(Timestamp::now()).unwrap();
    let token = sops(dir.path(), &key, &["decrypt", "--extract", "[\"cluster\"][\"token\"]", name]);
    assert_eq!(token, "from us");
    sops(dir.path(), &key, &["rotate", "-i", name]);
    assert_eq!(
        SecretsFile::load(&path, &keys).unwrap().get(&["cluster", "token"]).unwrap().expose(),
        "from us"
    );

    // The rules of `.sops.yaml` are found: the second recipient comes in.
    sops(dir.path(), &key, &["updatekeys", "-y", name]);
    assert_eq!(SecretsFile::load(&path, &keys).unwrap().recipients().len(), 2);
}
