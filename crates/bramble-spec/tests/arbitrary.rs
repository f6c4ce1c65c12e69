//! No text makes the reader panic, and findings always lie within the file.

use proptest::prelude::*;

const SOUND: &str = include_str!("../../../examples/lab-pair/bramble.yaml");

fn read(text: &str) {
    if let Err(found) = bramble_spec::parse(text, "x") {
        assert!(found.errors() > 0);
        let lines = text.lines().count().max(1) as u32 + 1;
        for d in found.list {
            assert!(d.line >= 1 && d.line <= lines && d.column >= 1 && d.length >= 1, "{d:?} in {text:?}");
        }
    }
}

fn node() -> bramble_spec::NewNode {
    bramble_spec::NewNode {
        name: "added".into(),
        role: bramble_spec::Role::Worker,
        board: Some(bramble_spec::Board::UefiAmd64),
        address: "192.168.1.99".parse().expect("an address"),
        mac: None,
        labels: Vec::new(),
        taints: Vec::new(),
    }
}

proptest! {
    #[test]
    fn any_text(text in any::<String>()) {
        read(&text);
    }

    #[test]
    fn yaml_like_text(text in "[-a-z:{}\\[\\]#&*!|>'\"%@?, \t\n0-9~<\u{feff}\u{e9}]{0,200}") {
        read(&text);
    }

    /// A sound file with one piece replaced: the places where findings are subtle.
    #[test]
    fn a_damaged_file(at in 0..SOUND.len(), length in 0usize..40, piece in "[-a-z:{}\\[\\]#&*, \t\n0-9\"]{0,12}") {
        prop_assume!(SOUND.is_char_boundary(at));
        let end = (at + length).min(SOUND.len());
        let text = format!("{}{piece}{}", &SOUND[..at], &SOUND[end..]);
        read(&text);
        if let Ok(edited) = bramble_spec::add_node(&text, &node()) {
            let checked = bramble_spec::parse(&edited, "x").expect("an edited file is sound");
            prop_assert_eq!(checked.cluster.effective_nodes().pop().map(|n| n.name), Some("added".to_string()));
        }
    }
}
