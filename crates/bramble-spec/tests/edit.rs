//! Machines added to a text: everything else stays as it was.

use bramble_spec::{Board, EditError, NewNode, Role, add_node, parse};

const HEAD: &str = "apiVersion: bramble.home.arpa/v1alpha1\nkind: Cluster\nmetadata: { name: home }\nspec:\n  kubernetes: { version: v1.36.3 }\n  network: { subnet: 192.168.1.0/24, gateway: 192.168.1.1 }\n";

fn worker() -> NewNode {
    NewNode {
        name: "n2".into(),
        role: Role::Worker,
        board: Some(Board::Pi4),
        address: "192.168.1.12".parse().expect("an address"),
        mac: Some("dc:a6:32:00:00:02".parse().expect("a hardware address")),
        labels: vec![("tier".into(), "shelf".into()), ("example.org/rack".into(), "1".into())],
        taints: vec!["dedicated=media:NoSchedule".parse().expect("a taint")],
    }
}

/// Adds the worker and gives what was inserted, after checking that all else is where it was.
fn inserted(source: &str) -> String {
    let text = add_node(source, &worker()).unwrap_or_else(|error| panic!("{error:?}\n{source}"));
    let same_start = source.bytes().zip(text.bytes()).take_while(|(a, b)| a == b).count();
    let rest = source.len() - same_start;
    let same_end =
        source.bytes().rev().zip(text.bytes().rev()).take(rest).take_while(|(a, b)| a == b).count();
    assert_eq!(same_start + same_end, source.len(), "something else was changed:\n{text}");
    let checked = parse(&text, "bramble.yaml").expect("still sound");
    let last = checked.cluster.effective_nodes().pop().expect("a machine");
    assert_eq!((last.name.as_str(), last.labels["example.org/rack"].as_str()), ("n2", "1"));
    text
}

#[test]
fn after_the_last_machine_and_its_comments() {
    let text = inserted(&format!(
        "{HEAD}  nodes:\n    # the first\n    - name: n1   # on the shelf\n      role: control-plane\n      board: pi4\n      address: 192.168.1.11 # by hand\n      # mac: unknown\n\n    # after the machines\n  os: {{ packages: [] }}\n"
    ));
    insta::assert_snapshot!(text.strip_prefix(HEAD).expect("the head stays"), @r#"
      nodes:
        # the first
        - name: n1   # on the shelf
          role: control-plane
          board: pi4
          address: 192.168.1.11 # by hand
          # mac: unknown
        - name: n2
          role: worker
          board: pi4
          address: 192.168.1.12
          mac: dc:a6:32:00:00:02
          labels: { tier: shelf, example.org/rack: "1" }
          taints: ["dedicated=media:NoSchedule"]

        # after the machines
      os: { packages: [] }
    "#);
}

#[test]
fn in_the_style_of_the_list() {
    let wide = "  nodes:\n  -   name: n1\n      role: control-plane\n      board: pi4\n      address: 192.168.1.11\n";
    insta::assert_snapshot!(inserted(&format!("{HEAD}{wide}")).split_once("192.168.1.11\n").expect("there").1, @r#"
      -   name: n2
          role: worker
          board: pi4
          address: 192.168.1.12
          mac: dc:a6:32:00:00:02
          labels: { tier: shelf, example.org/rack: "1" }
          taints: ["dedicated=media:NoSchedule"]
    "#);
    let braces = "  nodes:\n    - { name: n1, role: control-plane, board: pi4, address: 192.168.1.11 }\n";
    insta::assert_snapshot!(inserted(&format!("{HEAD}{braces}")).split_once("192.168.1.11 }\n").expect("there").1, @r#"    - { name: n2, role: worker, board: pi4, address: 192.168.1.12, mac: dc:a6:32:00:00:02, labels: { tier: shelf, example.org/rack: "1" }, taints: ["dedicated=media:NoSchedule"] }"#);
    let flow = "  nodes: [{ name: n1, role: control-plane, board: pi4, address: 192.168.1.11 }] # all\n";
    insta::assert_snapshot!(inserted(&format!("{HEAD}{flow}")).split_once("192.168.1.11 ").expect("there").1, @r#"}, { name: n2, role: worker, board: pi4, address: 192.168.1.12, mac: dc:a6:32:00:00:02, labels: { tier: shelf, example.org/rack: "1" }, taints: ["dedicated=media:NoSchedule"] }] # all"#);
}

#[test]
fn with_awkward_last_values_and_ends() {
    let node = "  nodes:\n    - name: n1\n      role: control-plane\n      board: pi4\n      address: 192.168.1.11\n";
    // Nothing after a key, a block text, no line end, DOS line ends, a byte order mark.
    inserted(&format!("{HEAD}{node}      mac:\n"));
    inserted(&format!(
        "{HEAD}{node}      vm:\n        note: |\n          two\n          lines\n\n  backup: later\n"
    ));
    inserted(&format!("{HEAD}{node}      vm: {{ a: [1,\n        2] }}\n  backup: later\n"));
    let without_end = add_node(format!("{HEAD}{node}").trim_end(), &worker()).expect("added");
    assert!(without_end.ends_with("NoSchedule\"]\n"));
    let dos = inserted(&format!("{HEAD}{node}").replace('\n', "\r\n"));
    assert_eq!(dos.matches('\n').count(), dos.matches("\r\n").count());
    inserted(&format!("\u{feff}{HEAD}{node}"));
}

#[test]
fn the_first_machine_of_an_empty_list() {
    let first = NewNode { role: Role::ControlPlane, ..worker() };
    let text =
        add_node(&format!("{HEAD}  nodes: []   # none yet\n  backup: later\n"), &first).expect("added");
    insta::assert_snapshot!(text.strip_prefix(HEAD).expect("the head stays"), @r#"
      nodes:
        - name: n2
          role: control-plane
          board: pi4
          address: 192.168.1.12
          mac: dc:a6:32:00:00:02
          labels: { tier: shelf, example.org/rack: "1" }
          taints: ["dedicated=media:NoSchedule"]   # none yet
      backup: later
    "#);
}

#[test]
fn refused_when_either_text_has_errors() {
    let node = "  nodes:\n    - name: n1\n      role: control-plane\n      board: pi4\n      address: 192.168.1.11\n";
    let broken = format!("{HEAD}  colour: red\n{node}");
    assert!(
        matches!(add_node(&broken, &worker()), Err(EditError::Before(found)) if found.list[0].code == "unknown-key")
    );
    let taken = NewNode { address: "192.168.1.11".parse().expect("an address"), ..worker() };
    let error = add_node(&format!("{HEAD}{node}"), &taken).expect_err("taken");
    assert!(
        matches!(error, EditError::After { findings, .. } if findings.list[0].code == "duplicate-address")
    );
}
