//! What differs between two configs, said by place and without secrets.

use crate::yaml::{self, Map, ReadError, Value};

/// Keys below which values are never shown.
const SECRET_KEYS: [&str; 17] = [
    "token",
    "key",
    "secret",
    "id",
    "ca",
    "secretboxEncryptionSecret",
    "aescbcEncryptionSecret",
    "clusterSecret",
    "clusterID",
    "privateKey",
    "passphrase",
    "password",
    "auth",
    "keys",
    "identityToken",
    "privateKeyBase64",
    "apiToken",
];

/// Longer values are cut.
const SHOWN: usize = 80;

/// One line for each difference: `+` is only in the new one, `-` only in the old one, `~` differs.
///
/// # Errors
/// A text that is not YAML.
pub fn between(old: &str, new: &str) -> Result<Vec<String>, ReadError> {
    let (old, new) = (by_name(yaml::read(old)?), by_name(yaml::read(new)?));
    let mut out = Vec::new();
    maps(&old, &new, "", false, &mut out);
    Ok(out)
}

/// Documents by kind and name.
fn by_name(documents: Vec<Value>) -> Map {
    documents
        .into_iter()
        .map(|document| {
            let kind = document.text_at(&["kind"]).unwrap_or("v1alpha1").to_string();
            let name = document.text_at(&["name"]).map(|name| format!("/{name}")).unwrap_or_default();
            (format!("{kind}{name}"), document)
        })
        .collect()
}

fn maps(old: &Map, new: &Map, place: &str, secret: bool, out: &mut Vec<String>) {
    let at = |key: &str| if place.is_empty() { format!("{key}:") } else { format!("{place}.{key}") };
    for (key, value) in old.iter() {
        let secret = secret || SECRET_KEYS.contains(&key);
        match new.get(key) {
            Some(other) => values(value, other, &at(key), secret, out),
            None => out.push(format!("- {}: {}", at(key).trim_end_matches(':'), shown(value, secret))),
        }
    }
    for (key, value) in new.iter().filter(|(key, _)| old.get(key).is_none()) {
        out.push(format!(
            "+ {}: {}",
            at(key).trim_end_matches(':'),
            shown(value, secret || SECRET_KEYS.contains(&key))
        ));
    }
}

fn values(old: &Value, new: &Value, place: &str, secret: bool, out: &mut Vec<String>) {
    match (old, new) {
        (Value::Map(old), Value::Map(new)) => maps(old, new, place, secret, out),
        (Value::List(a), Value::List(b)) => {
            for index in 0..a.len().max(b.len()) {
                let place = format!("{place}[{index}]");
                match (a.get(index), b.get(index)) {
                    (Some(a), Some(b)) => values(a, b, &place, secret, out),
                    (Some(a), None) => out.push(format!("- {place}: {}", shown(a, secret))),
                    (None, Some(b)) => out.push(format!("+ {place}: {}", shown(b, secret))),
                    (None, None) => {}
                }
            }
        }
        _ if old == new || (old.as_str().is_some() && old.as_str() == new.as_str()) => {}
        _ => out.push(format!("~ {place}: {} -> {}", shown(old, secret), shown(new, secret))),
    }
}

/// A value in a few words.
fn shown(value: &Value, secret: bool) -> String {
    match value {
        Value::Plain(_) | Value::Text(_) if secret => "(hidden)".into(),
        Value::Plain(text) | Value::Text(text) => {
            let line: String = text.lines().next().unwrap_or("").chars().take(SHOWN).collect();
            if line.len() < text.trim_end().len() { format!("{line:?}...") } else { format!("{line:?}") }
        }
        Value::List(items) => format!("[{} items]", items.len()),
        Value::Map(map) => format!("{{{}}}", map.iter().map(|(key, _)| key).collect::<Vec<_>>().join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_named_and_secrets_are_not_shown() {
        let old = "machine:\n  token: hunter2\n  type: worker\n  list: [a, b]\n---\nkind: X\nname: n\na: 1\n";
        let new =
            "machine:\n  token: hunter3\n  type: controlplane\n  list: [a]\n  more: {b: 1}\n---\nkind: Y\n";
        assert_eq!(
            between(old, new).unwrap(),
            [
                "~ v1alpha1:.machine.token: (hidden) -> (hidden)",
                "~ v1alpha1:.machine.type: \"worker\" -> \"controlplane\"",
                "- v1alpha1:.machine.list[1]: \"b\"",
                "+ v1alpha1:.machine.more: {b}",
                "- X/n: {kind, name, a}",
                "+ Y: {kind}",
            ]
        );
        assert!(between(old, old).unwrap().is_empty());
    }
}
