use super::*;

fn path(text: &str) -> TreePath {
    TreePath::new(text).unwrap()
}

fn merged() -> Tree {
    let mut tree = Tree::new();
    tree.dir("usr/lib", 0o755).unwrap();
    tree.symlink("lib", "usr/lib").unwrap();
    tree
}

#[test]
fn a_file_below_a_link_lands_where_the_link_leads() {
    let mut tree = merged();
    let at = tree.file("/lib/modules/x.ko", 0o644, "x").unwrap();
    assert_eq!(at, path("usr/lib/modules/x.ko"));
    assert_eq!(tree.read("lib/modules/x.ko").unwrap().as_slice(), b"x");
    assert!(matches!(tree.get(&path("lib")).unwrap().kind, Kind::Symlink(_)));
}

#[test]
fn absolute_links_and_climbing_links_stay_inside() {
    let mut tree = merged();
    tree.file("etc/passwd", 0o644, "inside").unwrap();
    tree.symlink("usr/lib/abs", "/etc/passwd").unwrap();
    tree.symlink("usr/lib/up", "../../../../../etc/passwd").unwrap();
    assert_eq!(tree.read_text("lib/abs"), Some("inside"));
    assert_eq!(tree.read_text("lib/up"), Some("inside"));
}

#[test]
fn circles_are_an_error_and_not_a_hang() {
    let mut tree = Tree::new();
    tree.symlink("a", "b").unwrap();
    tree.symlink("b", "a").unwrap();
    assert_eq!(tree.resolve("a"), Err(TreeError::Loop { path: path("a") }));
    assert!(tree.file("a/x", 0o644, "").is_err());
}

#[test]
fn a_directory_and_a_file_never_replace_each_other() {
    let mut tree = merged();
    tree.file("usr/lib/f", 0o644, "").unwrap();
    assert_eq!(tree.dir("usr/lib/f", 0o755), Err(TreeError::Clash { path: path("usr/lib/f") }));
    assert_eq!(tree.file("usr/lib", 0o644, ""), Err(TreeError::Clash { path: path("usr/lib") }));
    assert!(matches!(tree.file("usr/lib/f/g", 0o644, ""), Err(TreeError::NotADirectory { .. })));
    assert!(matches!(tree.file("usr/../x", 0o644, ""), Err(TreeError::BadPath { .. })));
}

#[test]
fn another_name_keeps_the_bytes_of_a_file_that_goes() {
    let mut tree = Tree::new();
    tree.file("a", 0o644, "bytes").unwrap();
    for name in ["b", "c"] {
        tree.insert(name, Node { kind: Kind::Hardlink(path("a")), ..Node::file(0o644, "") }).unwrap();
    }
    tree.own("c", 1, 2, 0o600).unwrap();
    assert_eq!(tree.get(&path("a")).unwrap().mode, 0o600);
    assert_eq!(tree.remove(&path("a")), 1);
    assert!(matches!(tree.get(&path("b")).unwrap().kind, Kind::File(_)));
    assert_eq!(tree.get(&path("c")).unwrap().kind, Kind::Hardlink(path("b")));
    assert_eq!(tree.read_text("c"), Some("bytes"));
    tree.file("b", 0o644, "new").unwrap();
    assert_eq!(tree.read_text("c"), Some("bytes"));
}

#[test]
fn pruning_a_directory_takes_what_it_holds_and_no_more() {
    let mut tree = Tree::new();
    for name in ["doc/a", "doc/b/c", "doc-x", "doc.y/z"] {
        tree.file(name, 0o644, "").unwrap();
    }
    assert_eq!(tree.prune(|at, _| at.as_bytes() == b"doc"), 4);
    let left: Vec<String> = tree.iter().map(|(p, _)| p.to_text()).collect();
    assert_eq!(left, ["/", "/doc-x", "/doc.y", "/doc.y/z"]);
}

#[test]
fn listing_is_of_one_level_and_below_of_all() {
    let mut tree = merged();
    tree.file("usr/lib/a/b", 0o644, "").unwrap();
    tree.file("usr/lib-x", 0o644, "").unwrap();
    let names: Vec<String> = tree.list("lib").iter().map(|(p, _)| p.to_text()).collect();
    assert_eq!(names, ["/usr/lib/a"]);
    assert_eq!(tree.below(&path("usr/lib")).count(), 2);
    assert_eq!(tree.below(&TreePath::root()).count(), tree.len() - 1);
}
