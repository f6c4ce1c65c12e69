use super::*;

fn one(text: &str) -> Value {
    read(text).unwrap().remove(0)
}

fn back(text: &str) -> String {
    write(read(text).unwrap().iter().filter_map(Value::as_map))
}

#[test]
fn what_is_written_is_what_was_read() {
    let text = "version: v1alpha1\nmode: 0o644\nlist:\n    - a\n    - b: 1\n      c:\n        - d\nempty: {}\nnone: []\n\
                text: \"1.10\"\nyes: \"on\"\nblock: |\n    one\n\n    two\nstripped: |-\n    one\n    two\n\
                certs:\n    - |\n      a\n      b\n---\nkind: X\n";
    // Written by others with other indentation, it is the same tree.
    assert_eq!(one(text), one(&back(text)));
    insta::assert_snapshot!(back(text));
}

#[test]
fn every_odd_text_comes_back() {
    let odd = [
        "",
        " ",
        "a: b",
        "a #b",
        "- a",
        "true",
        "Yes",
        "0x10",
        "1e3",
        "12:30",
        "2026-01-02",
        ".5",
        "-1",
        "~",
        "null",
        "*a",
        "&a",
        "!a",
        "|",
        ">",
        "%a",
        "@a",
        "`a",
        "{a}",
        "[a]",
        "a,b",
        "a\nb",
        "a\nb\n",
        "a\n\n",
        "\n",
        " a\nb",
        "a \nb",
        "\ta",
        "a\tb\nc",
        "a\u{85}b",
        "\u{feff}",
        "a\u{0}b",
        "ä ö",
        "'",
        "\"",
        "\\",
        "a'b",
        "a: ",
        "a:",
        ":",
        "192.168.1.1",
        "::1",
        "?",
        "? a",
        "=",
        "<<",
        "disk.serial == \"x\" && !disk.rotational",
        "a  b",
        "a\r\nb",
    ];
    for text in odd {
        let map = Map::new().with("k", Value::text(text)).with("l", Value::List(vec![Value::text(text)]));
        let map = map.with("m", Value::List(vec![Map::new().with(text, Value::text(text)).into()]));
        let written = write([&map]);
        let again = one(&written);
        for got in [again.text_at(&["k"]), again.at(&["l"]).and_then(|l| l.as_list()?.first()?.as_str())] {
            assert_eq!(got, Some(text), "{written}");
        }
        let inner = again.at(&["m"]).and_then(|m| m.as_list()?.first()?.as_map()?.get(text)?.as_str());
        assert_eq!(inner, Some(text), "{written}");
        assert!(again.at(&["k"]).is_some_and(|v| !v.is_null()), "{written}");
    }
}

#[test]
fn aliases_and_merge_keys_are_resolved() {
    let value = one("base: &b { a: 1, c: 2 }\nuse:\n  <<: *b\n  c: 3\nlist: [*b]\n");
    assert_eq!(value.text_at(&["use", "a"]), Some("1"));
    assert_eq!(value.text_at(&["use", "c"]), Some("3"));
    assert_eq!(value.at(&["list"]).and_then(Value::as_list).map(<[Value]>::len), Some(1));
}

#[test]
fn what_is_wrong_has_its_line() {
    for (text, line, what) in [
        ("a: 1\na: 2\n", 2, "stands twice"),
        ("a:\n  b: [\n", 2, ""),
        ("? [a]\n: b\n", 1, "cannot be a key"),
        ("a: !secret b\n", 1, "tag"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.line >= line && error.what.contains(what), "{text:?}: {error}");
    }
    // Each level doubles: a thousand million values out of thirty lines.
    let mut bomb = "a0: &a0 [x]\n".to_string();
    for n in 1..31 {
        bomb.push_str(&format!("a{n}: &a{n} [*a{}, *a{}]\n", n - 1, n - 1));
    }
    assert!(read(&bomb).unwrap_err().what.contains("values"));
    assert!(read(&"[".repeat(100)).is_err());
}

#[test]
fn debug_shows_no_value() {
    assert_eq!(format!("{:?}", one("token: hunter2\nlist: [hunter3]\n")), r#"{"token": .., "list": [..]}"#);
}
