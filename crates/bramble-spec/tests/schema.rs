//! The schema and the decoder say the same, and the first file passes.

use bramble_spec::{
    Board, Datastore, Distribution, InitOptions, NewNode, Role, json_schema, parse, template,
};
use serde_json::{Value, json};

/// The part of draft 2020-12 that the schema uses. Not a general validator: it fails on keywords it does not know.
fn violations(root: &Value, schema: &Value, value: &Value, path: &str, out: &mut Vec<String>) {
    let object = schema.as_object().expect("a schema is an object");
    for (keyword, rule) in object {
        match keyword.as_str() {
            "title" | "description" | "default" | "format" | "pattern" | "$schema" | "$id" | "$defs" => {}
            "$ref" => {
                let name = rule.as_str().and_then(|r| r.strip_prefix("#/$defs/")).expect("a local reference");
                violations(root, &root["$defs"][name], value, path, out);
            }
            "type" => {
                let kinds = rule.as_array().cloned().unwrap_or_else(|| vec![rule.clone()]);
                let kind = match value {
                    Value::Null => "null",
                    Value::Bool(_) => "boolean",
                    Value::Number(n) if n.is_f64() => "number",
                    Value::Number(_) => "integer",
                    Value::String(_) => "string",
                    Value::Array(_) => "array",
                    Value::Object(_) => "object",
                };
                let fits = kinds.iter().any(|k| k == kind || (k == "number" && kind == "integer"));
                if !fits {
                    out.push(format!("{path}: {kind} is not {rule}"));
                }
            }
            "const" if value != rule => out.push(format!("{path}: {value} is not {rule}")),
            "enum" if !rule.as_array().expect("a list").contains(value) => {
                out.push(format!("{path}: {value}"))
            }
            "const" | "enum" => {}
            "minimum" if value.as_i64() < rule.as_i64() => out.push(format!("{path}: below {rule}")),
            "maximum" if value.as_i64() > rule.as_i64() => out.push(format!("{path}: above {rule}")),
            "maxLength" if value.as_str().is_some_and(|s| s.len() as u64 > rule.as_u64().unwrap_or(0)) => {
                out.push(format!("{path}: too long"));
            }
            "minLength" | "minimum" | "maximum" | "maxLength" => {}
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    violations(root, rule, item, &format!("{path}[{index}]"), out);
                }
            }
            "required" => {
                for key in rule.as_array().expect("a list") {
                    let missing =
                        value.as_object().is_some_and(|v| !v.contains_key(key.as_str().unwrap_or("")));
                    if missing {
                        out.push(format!("{path}: no {key}"));
                    }
                }
            }
            "properties" => {
                for (key, item) in value.as_object().into_iter().flatten() {
                    if let Some(rule) = rule.get(key) {
                        violations(root, rule, item, &format!("{path}.{key}"), out);
                    }
                }
            }
            "additionalProperties" => {
                let known = object.get("properties").and_then(Value::as_object);
                for (key, item) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|k| k.contains_key(key)) {
                        continue;
                    }
                    match rule {
                        Value::Bool(false) => out.push(format!("{path}: unknown {key}")),
                        rule => violations(root, rule, item, &format!("{path}.{key}"), out),
                    }
                }
            }
            "oneOf" => {
                let fitting = rule.as_array().expect("a list").iter().filter(|choice| {
                    let mut inner = Vec::new();
                    violations(root, choice, value, path, &mut inner);
                    inner.is_empty()
                });
                let count = fitting.count();
                if count != 1 {
                    out.push(format!("{path}: {value} fits {count} choices"));
                }
            }
            other => panic!("the schema uses `{other}`, which this test does not know"),
        }
    }
}

fn check(value: &Value) -> Vec<String> {
    let schema = json_schema();
    let mut out = Vec::new();
    violations(&schema, &schema, value, "", &mut out);
    out
}

/// What the decoder took, written out again with every default, must fit the schema.
#[test]
fn what_is_decoded_fits_the_schema() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut seen = 0;
    for entry in std::fs::read_dir(root).expect("examples/ is there") {
        let path = entry.expect("readable").path().join("bramble.yaml");
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        let checked = parse(&text, "bramble.yaml").unwrap_or_else(|found| panic!("{found}"));
        let value = serde_json::to_value(&checked.cluster).expect("plain data");
        assert_eq!(check(&without_nulls(value)), Vec::<String>::new(), "{}", path.display());
        seen += 1;
    }
    assert!(seen >= 8);
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        other => other,
    }
}

#[test]
fn the_schema_refuses_what_the_decoder_refuses() {
    let sound = json!({
        "apiVersion": "bramble.home.arpa/v1alpha1", "kind": "Cluster", "metadata": { "name": "home" },
        "spec": {
            "kubernetes": { "version": "v1.36.3", "cni": "none", "loadBalancer": { "kind": "none" } },
            "network": { "subnet": "192.168.1.0/24" },
            "nodes": [{ "name": "n1", "role": "control-plane", "board": "pi4", "address": "192.168.1.11" }],
        },
    });
    assert_eq!(check(&sound), Vec::<String>::new());
    for (pointer, value) in [
        ("/kind", json!("Node")),
        ("/metadata", json!({})),
        ("/spec/colour", json!("red")),
        ("/spec/kubernetes/cni", json!({ "kind": "none", "backend": "vxlan" })),
        ("/spec/kubernetes/loadBalancer", json!({ "kind": "metallb" })),
        ("/spec/nodes/0/board", json!("rock64")),
        ("/spec/nodes/0/disks", json!({ "boot": { "serial": "a", "wwid": "b" } })),
    ] {
        let mut wrong = sound.clone();
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        wrong.pointer_mut(parent).expect("is there")[key] = value;
        assert_ne!(check(&wrong), Vec::<String>::new(), "{pointer}");
        // JSON is YAML: the decoder must refuse the same text.
        assert!(parse(&wrong.to_string(), "bramble.yaml").is_err(), "{pointer}");
    }
}

#[test]
fn every_key_is_described() {
    let schema = json_schema();
    for (name, definition) in schema["$defs"].as_object().expect("definitions") {
        for (key, property) in definition["properties"].as_object().into_iter().flatten() {
            let text = property["description"].as_str().unwrap_or("");
            assert!(text.len() > 3, "{name}.{key} has no description");
        }
    }
    insta::assert_snapshot!(serde_json::to_string_pretty(&schema["$defs"]["NodeSpec"]).expect("plain data"));
}

fn options(distribution: Distribution, datastore: Datastore, version: &str) -> InitOptions {
    InitOptions {
        name: "home".parse().expect("a name"),
        distribution,
        version: version.parse().expect("a version"),
        datastore,
        subnet: "192.168.1.0/24".parse().expect("a range"),
        gateway: Some("192.168.1.1".parse().expect("an address")),
        dns: vec!["192.168.1.1".parse().expect("an address")],
        timezone: "Europe/Berlin".parse().expect("a zone"),
        authorized_keys: vec!["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5 me: \"at home\"".into()],
        talos_version: (distribution == Distribution::Talos).then(|| "v1.14.0".parse().expect("a version")),
        nodes: vec![NewNode {
            name: "n1".into(),
            role: Role::ControlPlane,
            board: Some(Board::UefiAmd64),
            address: "192.168.1.11".parse().expect("an address"),
            mac: None,
            labels: Vec::new(),
            taints: Vec::new(),
        }],
    }
}

#[test]
fn the_first_file_passes() {
    for (distribution, datastore, version) in [
        (Distribution::Upstream, Datastore::Sqlite, "v1.36.3"),
        (Distribution::Upstream, Datastore::Etcd, "v1.35.4"),
        (Distribution::K3s, Datastore::Sqlite, "v1.36.4+k3s1"),
        (Distribution::Talos, Datastore::Etcd, "v1.36.3"),
    ] {
        let options = options(distribution, datastore, version);
        let text = template(&options);
        let checked = parse(&text, "bramble.yaml").unwrap_or_else(|found| panic!("{found}\n{text}"));
        // What nobody knows before the machines are there: serial numbers and hardware addresses.
        let unknown = ["talos-disk", "talos-link"];
        let said: Vec<_> = checked.warnings.iter().filter(|w| !unknown.contains(&w.code)).collect();
        assert!(said.is_empty(), "{said:?}");
        assert_eq!(checked.cluster.spec.kubernetes.datastore(), datastore);
        let node = checked.cluster.effective_nodes().remove(0);
        assert_eq!(node.ssh.expect("asked for").authorized_keys[0].0, options.authorized_keys[0]);
        assert_eq!(node.timezone, options.timezone);
    }
    insta::assert_snapshot!(template(&options(Distribution::Upstream, Datastore::Sqlite, "v1.36.3")));
}
