use super::*;
use crate::{Identities, Identity};
use jiff::Timestamp;
use std::path::{Path, PathBuf};

const NOW: Timestamp = Timestamp::UNIX_EPOCH;

fn text(t: &str) -> SecretText {
    Secret::new(t.to_string())
}

fn file(directory: &Path, clear: &str) -> (SecretsFile, Identities, PathBuf) {
    let path = directory.join("a.sops.yaml");
    let identity = Identity::generate();
    let mut file = SecretsFile::create(&path, &[identity.recipient()]).unwrap();
    assert!(file.set_clear_text(&text(clear)).unwrap());
    file.save(NOW).unwrap();
    (file, Identities::of(vec![identity]), path)
}

const CLEAR: &str = "# about all of it\nuser:\n    # the Wi-Fi's\n    wifi: \"correct horse\" # inline\n    \
    pem: |\n        line one\n        line two\n    number: 7\n    share: 1.5\n    on: \"on\"\n    truth: true\n    \
    nothing: null\n    empty: \"\"\nlist:\n    - \"a\"\n    # between\n    - b: \"c\"\nname_unencrypted: \"seen\"\n";

#[test]
fn what_a_person_sees_reads_back_and_nothing_else_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (_, keys, path) = file(dir.path(), CLEAR);
    let raw = std::fs::read_to_string(&path).unwrap();
    for secret in ["horse", "Wi-Fi", "inline", "between", "line one", "about all"] {
        assert!(!raw.contains(secret), "{secret} lies in clear:\n{raw}");
    }
    assert!(raw.contains("name_unencrypted: \"seen\""));
    let mut read = SecretsFile::load(&path, &keys).unwrap();
    let shown = read.clear_text();
    assert_eq!(shown.expose().replace("\"on\":", "on:"), CLEAR);
    assert!(!read.set_clear_text(&shown).unwrap());
    assert_eq!(read.save(NOW).unwrap(), crate::Saved::Unchanged);
    // One value changed, one comment added: three lines of the file and the new one differ.
    let edited = shown.expose().replace("number: 7", "number: 8").replace("list:", "# new\nlist:");
    assert!(read.set_clear_text(&text(&edited)).unwrap());
    read.save(Timestamp::from_second(9).unwrap()).unwrap();
    let after = std::fs::read_to_string(&path).unwrap();
    let new: Vec<&str> = after.lines().filter(|l| !raw.lines().any(|o| o == *l)).map(str::trim).collect();
    assert_eq!(new.len(), 4, "{new:#?}");
    assert!(new[0].starts_with("number: ENC[") && new[1].starts_with("#ENC["), "{new:#?}");
    let again = SecretsFile::load(&path, &keys).unwrap();
    assert_eq!(*again.clear_text().expose(), edited);
}

#[test]
fn one_place_is_shown_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let (file, ..) = file(dir.path(), CLEAR);
    let shown = |path: &[&str]| file.clear_at(path).map(|t| t.expose().clone());
    assert_eq!(shown(&["user", "pem"]).as_deref(), Some("line one\nline two\n"));
    assert_eq!(shown(&["user", "truth"]).as_deref(), Some("true"));
    assert_eq!(shown(&["list"]).as_deref(), Some("list:\n    - \"a\"\n    # between\n    - b: \"c\"\n"));
    assert!(shown(&["user"]).is_some_and(|t| t.contains("# the Wi-Fi's\n")));
    assert_eq!(shown(&["user", "none"]), None);
}

#[test]
fn an_edit_that_cannot_be_kept_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, ..) = file(dir.path(), CLEAR);
    let before = file.clear_text().expose().clone();
    let mut refused = |t: &str| file.set_clear_text(&text(t)).unwrap_err();
    assert!(matches!(refused("a: [1\n"), ClearError::Yaml { .. }));
    assert_eq!(refused("a:\n    b: 2026-01-01\n"), ClearError::Unquoted { at: "a.b".into() });
    assert_eq!(refused("sops: 1\n"), ClearError::Section);
    assert!(!refused("a: !secret hunter2\n").to_string().contains("hunter2"));
    assert_eq!(*file.clear_text().expose(), before);
}

#[test]
fn order_and_removal_are_changes() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, keys, path) = file(dir.path(), "a: \"1\"\nb: \"2\"\nc: \"3\"\n");
    assert!(file.set_clear_text(&text("b: \"2\"\na: \"1\"\n")).unwrap());
    file.save(NOW).unwrap();
    let mut read = SecretsFile::load(&path, &keys).unwrap();
    assert_eq!(read.keys(&[]), ["b", "a"]);
    assert!(read.set_clear_text(&text("# nothing left\n")).unwrap_or(true));
    assert!(read.set_clear_text(&text("\n")).unwrap());
    read.save(NOW).unwrap();
    assert!(SecretsFile::load(&path, &keys).unwrap().keys(&[]).is_empty());
}

#[test]
fn another_key_locks_out_who_leaves_and_keeps_everything_else() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, keys, path) = file(dir.path(), CLEAR);
    let (old_key, other) = (file.key.clone(), Identity::generate());
    file.add_recipient(&other.recipient()).unwrap();
    file.save(NOW).unwrap();
    let raw = std::fs::read_to_string(&path).unwrap();
    let alone = Identities::of(vec![other.clone()]);
    let before = SecretsFile::load(&path, &alone).unwrap().clear_text();
    file.remove_recipient(&other.recipient()).unwrap();
    file.save(NOW).unwrap();
    assert!(matches!(SecretsFile::load(&path, &alone), Err(crate::LoadError::WrongKey { .. })));
    let left = SecretsFile::load(&path, &keys).unwrap();
    assert_eq!(left.clear_text().expose(), before.expose());
    assert_ne!(left.key.expose(), old_key.expose());
    // Not one ciphertext of before is left, comments included.
    let after = std::fs::read_to_string(&path).unwrap();
    let sealed = |t: &str| t.lines().filter(|l| l.contains("ENC[")).map(str::to_string).collect::<Vec<_>>();
    assert!(sealed(&raw).iter().all(|line| !after.contains(line.as_str())));
    let mut left = left;
    assert!(matches!(left.remove_recipient(&other.recipient()), Err(crate::RekeyError::Unknown(_))));
    let last = keys.recipients().remove(0);
    assert!(matches!(left.remove_recipient(&last), Err(crate::RekeyError::Last(_))));
}

#[test]
fn keys_of_other_kinds_are_not_locked_out() {
    let dir = tempfile::tempdir().unwrap();
    let (mut file, ..) = file(dir.path(), CLEAR);
    let pgp = Line::Entry(Node::Map(vec![super::super::pair("fp", Scalar::quoted("AB"))]));
    file.section.push(super::super::pair("pgp", Node::List(vec![pgp])));
    assert_eq!(file.rekey(), Err(crate::RekeyError::Foreign("pgp".into())));
}
