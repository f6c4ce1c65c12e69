//! The real `sops` and this crate on the same file, each reading and editing what the other wrote.
//!
//! Needs sops >= 3.9 in the PATH or as `BRAMBLE_SOPS`, hence ignored by default:
//! `cargo test -p bramble-secrets -- --ignored`. `BRAMBLE_SOPS_DOCUMENTS` sets how many random documents are tried.
//! The fixtures cover the direction from sops to us in every run.

use bramble_secrets::{Identities, Identity, Secret, SecretsFile, Value, creation_rules};
use jiff::Timestamp;
use std::path::Path;
use std::process::Command;

fn sops(directory: &Path, key: &Identity, arguments: &[&str]) -> String {
    let program = std::env::var_os("BRAMBLE_SOPS").unwrap_or_else(|| "sops".into());
    let output = Command::new(program)
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

/// Random documents: the same seed gives the same ones.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        // xorshift64*: good enough to choose shapes.
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) % sides
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.roll(of.len() as u64) as usize]
    }
}

const KEYS: [&str; 12] = [
    "data",
    "token",
    "a_unencrypted",
    "kind",
    "\"on\"",
    "\"with space\"",
    "\"é\"",
    "x.y",
    "\"12\"",
    "key-1",
    "pem",
    "_z",
];
const SCALARS: [&str; 18] = [
    "\"plain\"",
    "\"quo \\\" te\"",
    "\"back\\\\slash\"",
    "\"tab\\tin\"",
    "\"line\\nline\\n\"",
    "\"  both ends  \"",
    "\"# no comment\"",
    "\"ENC[looks,like]\"",
    "\"\u{1f600} é\"",
    "\"null\"",
    "\"2026-01-01\"",
    "\"0x10\"",
    "7",
    "-12",
    "1.5",
    "true",
    "false",
    "null",
];
const COMMENTS: [&str; 5] = [" why", "no space", " with: colon", " é \u{1f600}", " ENC[x]"];

fn random_map(dice: &mut Dice, indent: usize, depth: u64, out: &mut String, comments: &mut Vec<String>) {
    let mut used: Vec<&str> = Vec::new();
    for _ in 0..1 + dice.roll(4) {
        let key = dice.pick(&KEYS);
        if used.contains(&key) {
            continue;
        }
        used.push(key);
        let pad = " ".repeat(indent);
        if dice.roll(4) == 0 {
            let comment = dice.pick(&COMMENTS);
            out.push_str(&format!("{pad}#{comment}\n"));
            comments.push(comment.into());
        }
        match dice.roll(6) {
            0 if depth > 0 => {
                out.push_str(&format!("{pad}{key}:\n"));
                random_map(dice, indent + 4, depth - 1, out, comments);
            }
            1 => {
                out.push_str(&format!("{pad}{key}:\n"));
                for _ in 0..1 + dice.roll(3) {
                    out.push_str(&format!("{pad}    - {}\n", dice.pick(&SCALARS)));
                }
            }
            2 if depth > 0 => {
                out.push_str(&format!("{pad}{key}:\n"));
                for n in 0..1 + dice.roll(2) {
                    out.push_str(&format!("{pad}    - n: {n}\n"));
                    out.push_str(&format!("{pad}      v: {}\n", dice.pick(&SCALARS)));
                }
            }
            3 => {
                let value = dice.pick(&SCALARS);
                let comment = dice.pick(&COMMENTS);
                out.push_str(&format!("{pad}{key}: {value} #{comment}\n"));
                comments.push(comment.into());
            }
            _ => out.push_str(&format!("{pad}{key}: {}\n", dice.pick(&SCALARS))),
        }
    }
}

fn json(value: &Value) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Text(text) => text.expose().as_str().into(),
        Value::Other { text, .. } => serde_json::from_str(text.expose()).unwrap(),
        Value::Int(n) => (*n).into(),
        Value::Bool(b) => (*b).into(),
        Value::List(items) => items.iter().map(json).collect(),
        Value::Map(pairs) => pairs.iter().map(|(k, v)| (k.clone(), json(v))).collect(),
    }
}

fn whole(file: &SecretsFile) -> serde_json::Value {
    file.keys(&[]).into_iter().map(|k| (k.to_string(), json(&file.get_value(&[k]).unwrap()))).collect()
}

fn numbers_alike(value: serde_json::Value) -> serde_json::Value {
    match value {
        serde_json::Value::Number(n) => n.as_f64().unwrap().into(),
        serde_json::Value::Array(items) => items.into_iter().map(numbers_alike).collect(),
        serde_json::Value::Object(map) => map.into_iter().map(|(k, v)| (k, numbers_alike(v))).collect(),
        other => other,
    }
}

/// What sops wrote, we read, edit and give another key; what we wrote, sops reads: values and comments, with every rule.
#[test]
#[ignore = "needs the program sops"]
fn random_documents_go_there_and_back() {
    let count = std::env::var("BRAMBLE_SOPS_DOCUMENTS").map_or(60, |n| n.parse().unwrap());
    let rules = [
        "",
        "    encrypted_regex: ^(data|token|é)$\n",
        "    unencrypted_regex: ^kind$\n",
        "    encrypted_regex: ^(data|pem)$\n    mac_only_encrypted: true\n",
        "    unencrypted_suffix: _z\n",
    ];
    let dir = tempfile::tempdir().unwrap();
    let key = Identity::generate();
    let keys = Identities::of(vec![key.clone()]);
    let (age, other) = (key.recipient().to_string(), Identity::generate().recipient());
    let name = "a.sops.yaml";
    let path = dir.path().join(name);
    for seed in 1..=count {
        let mut dice = Dice(seed);
        let (mut clear, mut comments) = (String::new(), Vec::new());
        random_map(&mut dice, 0, 2, &mut clear, &mut comments);
        let case = format!("document {seed}:\n{clear}");
        std::fs::write(dir.path().join("clear.yaml"), &clear).unwrap();
        let rule = rules[dice.roll(5) as usize];
        let settings = format!("creation_rules:\n  - age: {age}\n{rule}");
        std::fs::write(dir.path().join(".sops.yaml"), settings).unwrap();
        sops(dir.path(), &key, &["encrypt", "--filename-override", name, "--output", name, "clear.yaml"]);
        let decrypted = || {
            let text = sops(dir.path(), &key, &["decrypt", "--output-type", "json", name]);
            numbers_alike(serde_json::from_str(&text).unwrap())
        };
        let wanted = decrypted();
        let mut file = SecretsFile::load(&path, &keys).unwrap_or_else(|e| panic!("{e}\n{case}"));
        assert_eq!(numbers_alike(whole(&file)), wanted, "{case}");
        let shown = file.clear_text();
        for comment in &comments {
            assert!(shown.expose().contains(comment), "{comment:?} is lost\n{}\n{case}", shown.expose());
        }
        // An edit that changes nothing changes nothing; one that adds a value, only that.
        assert!(!file.set_clear_text(&shown).unwrap(), "{case}");
        let edited =
            Secret::new(format!("{}# ours\nadded_unencrypted_z:\n    data: \"by us\"\n", shown.expose()));
        assert!(file.set_clear_text(&edited).unwrap());
        if dice.roll(3) == 0 {
            file.rekey().unwrap_or_else(|e| panic!("{e}\n{case}"));
            file.add_recipient(&other).unwrap();
        }
        file.save(Timestamp::now()).unwrap();
        let mut wanted = wanted;
        wanted["added_unencrypted_z"] = serde_json::json!({ "data": "by us" });
        assert_eq!(decrypted(), wanted, "{case}");
        let text = sops(dir.path(), &key, &["decrypt", name]);
        for comment in comments.iter().map(String::as_str).chain([" ours"]) {
            assert!(text.contains(comment), "{comment:?} is lost to sops\n{text}\n{case}");
        }
        bramble_secrets::check_encrypted(&path, &std::fs::read_to_string(&path).unwrap()).unwrap();
        std::fs::remove_file(&path).unwrap();
    }
}
