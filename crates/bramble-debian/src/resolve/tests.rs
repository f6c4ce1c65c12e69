use super::*;
use crate::index::{IndexTexts, PackagesText};

const HASH: &str = "7e3248d03a84dcdda88c567aa8c4038f2e7795d2dd167b112c56f8901b6f513f";

/// `name version [Field: value; ...]`, one package a line; lines `@suite` begin a new suite.
fn texts(short: &str) -> IndexTexts {
    let mut texts = Vec::new();
    let mut text = PackagesText { suite: "trixie".into(), component: "main".into(), text: String::new() };
    for line in short.lines().map(str::trim).filter(|line| !line.is_empty()) {
        if let Some(suite) = line.strip_prefix('@') {
            let next = PackagesText { suite: suite.into(), component: "main".into(), text: String::new() };
            texts.push(std::mem::replace(&mut text, next));
            continue;
        }
        let mut words = line.splitn(3, ' ');
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        text.text += &format!(
            "Package: {name}\nVersion: {version}\nArchitecture: amd64\nFilename: p/{name}\nSize: 1\nSHA256: {HASH}\n"
        );
        for field in words.next().unwrap_or_default().split(';').map(str::trim).filter(|f| !f.is_empty()) {
            text.text += &format!("{field}\n");
        }
        text.text.push('\n');
    }
    texts.push(text);
    IndexTexts { arch: Arch::Amd64, date: 7, texts }
}

fn request(packages: &[&str]) -> Request {
    Request {
        arch: Arch::Amd64,
        packages: packages.iter().map(|s| s.to_string()).collect(),
        include_essential: false,
        exclude: Vec::new(),
        prefer: Vec::new(),
    }
}

fn run(short: &str, request: &Request) -> Result<String, ResolveError> {
    let texts = texts(short);
    let index = Index::new(&texts).unwrap();
    let set = resolve(&index, request)?;
    Ok(set.iter().map(|p| format!("{} {}", p.name, p.version)).collect::<Vec<_>>().join(", "))
}

#[test]
fn follows_dependencies_and_takes_the_first_alternative() {
    let archive = "
        a 1 Depends: b (>= 2), c | d; Pre-Depends: e
        b 1
        b 2
        c 1
        d 1
        e 1 Depends: a
        f 1";
    assert_eq!(run(archive, &request(&["a"])).unwrap(), "a 1, b 2, c 1, e 1");
}

#[test]
fn an_alternative_that_is_asked_for_or_preferred_wins() {
    let archive = "
        a 1 Depends: c | d
        c 1
        d 1";
    assert_eq!(run(archive, &request(&["a", "d"])).unwrap(), "a 1, d 1");
    let preferring = Request { prefer: vec!["d".into()], ..request(&["a"]) };
    assert_eq!(run(archive, &preferring).unwrap(), "a 1, d 1");
}

#[test]
fn virtual_packages_go_by_priority_and_versions() {
    let archive = "
        a 1 Depends: awk
        gawk 5 Priority: optional; Provides: awk
        mawk 1 Priority: required; Provides: awk
        b 1 Depends: virt (>= 2)
        old 9 Provides: virt (= 1)
        bare 9 Provides: virt
        new 1 Provides: virt (= 2.1)";
    assert_eq!(run(archive, &request(&["a"])).unwrap(), "a 1, mawk 1");
    assert_eq!(run(archive, &request(&["b"])).unwrap(), "b 1, new 1");
}

#[test]
fn backports_only_when_asked_and_for_what_that_needs() {
    let archive = "
        linux 6 Depends: base
        base 4.12
        other 1 Depends: lib
        lib 1
        @trixie-security
        linux 6.1 Depends: base
        @trixie-backports
        linux 7 Depends: base (>= 4.17~), lib
        base 4.17~bpo13+1
        lib 2
        only 1";
    assert_eq!(run(archive, &request(&["linux", "other"])).unwrap(), "base 4.12, lib 1, linux 6.1, other 1");
    assert_eq!(
        run(archive, &request(&["base", "other", "linux/trixie-backports"])).unwrap(),
        "base 4.17~bpo13+1, lib 1, linux 7, other 1"
    );
    let error = run(archive, &request(&["only"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no package only for amd64 in the archive; offered: only 1 (trixie-backports)"
    );
}

#[test]
fn a_name_tied_to_a_suite_comes_from_there_for_everyone() {
    let archive = "
        base 4
        @trixie-backports
        base 5
        image 7 Depends: base";
    assert_eq!(run(archive, &request(&["image/trixie-backports"])).unwrap(), "base 4, image 7");
    assert_eq!(
        run(archive, &request(&["image/trixie-backports", "base/trixie-backports"])).unwrap(),
        "base 5, image 7"
    );
    let error = run(archive, &request(&["base/trixie", "base/trixie-backports"])).unwrap_err();
    assert!(matches!(error, ResolveError::TwoSuites { .. }), "{error}");
}

#[test]
fn what_is_excluded_counts_as_there() {
    let archive = "
        image 1 Depends: dracut | initramfs-tools (>= 0.1) | linux-initramfs-tool
        initramfs-tools 1
        dracut 1 Provides: linux-initramfs-tool
        tiny 1 Provides: linux-initramfs-tool";
    let excluding =
        Request { exclude: vec!["initramfs-tools".into(), "dracut".into()], ..request(&["image"]) };
    assert_eq!(run(archive, &excluding).unwrap(), "image 1");
    let asking = Request { packages: vec!["image".into(), "tiny".into()], ..excluding.clone() };
    assert_eq!(run(archive, &asking).unwrap(), "image 1, tiny 1");
    let both = Request { packages: vec!["dracut".into()], ..excluding };
    assert_eq!(run(archive, &both).unwrap_err(), ResolveError::AskedAndExcluded { name: "dracut".into() });
}

#[test]
fn essential_packages_come_when_wanted() {
    let archive = "
        base-files 13 Essential: yes; Depends: awk; Provides: lsb-base
        mawk 1 Provides: awk
        lsb-base 11
        a 1 Depends: lsb-base";
    let with = Request { include_essential: true, ..request(&["a"]) };
    assert_eq!(run(archive, &with).unwrap(), "a 1, base-files 13, mawk 1");
    assert_eq!(run(archive, &request(&["a"])).unwrap(), "a 1, lsb-base 11");
}

#[test]
fn conflicts_are_found_at_the_end() {
    let archive = "
        a 1 Depends: b; Conflicts: mta, c (<< 2)
        b 1 Provides: mta; Breaks: c (>= 2)
        c 2
        d 1 Provides: mta; Conflicts: mta";
    let error = run(archive, &request(&["a", "c"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "packages exclude each other: a (Conflicts: mta) against b (the request for a, the request for a -> b), \
         b (Breaks: c (>= 2)) against c (the request for a -> b, the request for c)"
    );
    // A package that conflicts with what it provides itself does not exclude itself.
    assert_eq!(run(archive, &request(&["d"])).unwrap(), "d 1");
}

#[test]
fn an_unmet_dependency_says_who_and_what_was_offered() {
    let archive = "
        a 1 Depends: b
        b 1 Depends: lib (>= 3) | libb
        lib 2
        liba 1
        @trixie-backports
        lib 3";
    let error = run(archive, &request(&["a"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "b 1 needs lib (>= 3) | libb, which nothing meets (the request for a -> b); \
         offered: lib 3 (trixie-backports), lib 2 (trixie); nearest: lib, liba"
    );
}

#[test]
fn a_version_chosen_before_is_named() {
    let archive = "
        a 1 Depends: lib (= 1)
        lib 1
        @trixie-backports
        b 1 Depends: lib (>= 2)
        lib 2";
    let error = run(archive, &request(&["a", "b/trixie-backports"])).unwrap_err();
    assert!(error.to_string().contains("lib 1 (trixie), 2 was chosen before"), "{error}");
}

#[test]
fn unknown_names_get_the_nearest() {
    let error = run("open-iscsi 1\nopenssl 1", &request(&["open-icsi"])).unwrap_err();
    assert_eq!(
        error.to_string(),
        "there is no package open-icsi for amd64 in the archive; nearest: open-iscsi"
    );
    let error = run("mawk 1 Provides: awk", &request(&["awk"])).unwrap_err();
    assert_eq!(error.to_string(), "there is no package awk for amd64 in the archive; provided by: mawk");
    let error = run("a 1", &request(&["a/trixie-backports"])).unwrap_err();
    assert!(error.to_string().ends_with("in the suite trixie-backports; offered: a 1 (trixie)"), "{error}");
}

#[test]
fn order_of_the_request_does_not_matter() {
    let archive = "
        a 1 Depends: x | y
        b 1 Depends: y | x
        x 1
        y 1";
    let one = run(archive, &request(&["a", "b"])).unwrap();
    let other = run(archive, &request(&["b", "a"])).unwrap();
    assert_eq!(one, other);
    assert_eq!(request(&["a", "b"]).digest(), request(&["b", "a", "a"]).digest());
    assert_ne!(request(&["a"]).digest(), request(&["b"]).digest());
    let excluding = Request { exclude: vec!["a".into()], ..request(&[]) };
    assert_ne!(request(&["a"]).digest(), excluding.digest());
}

#[test]
fn a_long_chain_needs_no_deep_stack() {
    let mut archive = String::new();
    for i in 0..50_000 {
        archive += &format!("p{i} 1 Depends: p{}\n", i + 1);
    }
    archive += "p50000 1";
    let texts = texts(&archive);
    let index = Index::new(&texts).unwrap();
    assert_eq!(resolve(&index, &request(&["p0"])).unwrap().len(), 50_001);
}

#[test]
fn an_unreadable_relation_is_an_error() {
    let error = run("a 1 Depends: b (>= )\nb 1", &request(&["a"])).unwrap_err();
    assert!(matches!(error, ResolveError::Malformed { field: "Depends", .. }), "{error}");
}
