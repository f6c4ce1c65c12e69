use super::*;

const BLOCK: &str = "#!/bin/sh\nset -e\n# Automatically added by dh_installsystemd/13.24.2\ndeb-systemd-helper enable \
                     'x.service'\n# End automatically added section\n\nexit 0\n";

fn script(package: &str, text: &str) -> Script {
    Script::new(package, ScriptKind::Postinst, text)
}

fn list(scripts: &[Script]) -> Reviewed {
    let mut list = Reviewed { format: 1, release: "trixie".into(), scripts: Vec::new() };
    list.add(scripts);
    list
}

#[test]
fn a_script_of_generated_blocks_alone_needs_no_review() {
    assert!(script("x", BLOCK).is_empty());
    let passed = check(&[script("x", BLOCK)], &list(&[]), &[]).unwrap();
    assert_eq!(passed, Passed::default());
}

#[test]
fn a_block_of_an_unknown_generator_is_kept() {
    let odd = script("x", &BLOCK.replace("dh_installsystemd", "dh_surprise"));
    assert!(odd.text.contains("deb-systemd-helper"));
    assert!(!odd.is_empty());
}

#[test]
fn the_version_of_debhelper_and_of_the_kernel_do_not_matter() {
    assert_eq!(script("x", BLOCK).sha256, script("x", &BLOCK.replace("13.24.2", "13.30")).sha256);
    let old = script("linux-modules-7.2.12+deb13-amd64", "depmod 7.2.12+deb13-amd64\n");
    let new = script("linux-modules-7.3.4+deb13-amd64", "depmod 7.3.4+deb13-amd64\n");
    assert_eq!(old, new);
    assert_eq!(new.package, "linux-modules-@ABI@");
    assert_eq!(script("linux-base", "x").package, "linux-base");
}

#[test]
fn every_unknown_script_is_told_at_once_with_the_entry_that_accepts_it() {
    let (a, b) = (script("a", "rm -rf /\n"), script("b", "echo\n"));
    let Err(GateError::Unknown { unknown }) = check(&[a.clone(), b], &list(&[]), &[]) else {
        panic!("passed")
    };
    assert_eq!(unknown.len(), 2);
    assert_eq!(unknown[0].diff, ["+ rm -rf /"]);
    assert_eq!(unknown[0].acceptance.sha256, a.sha256);
    let accepted: Vec<Acceptance> = unknown.into_iter().map(|u| u.acceptance).collect();
    assert!(check(&[a], &list(&[]), &accepted[..1]).unwrap().unused.is_empty());
}

#[test]
fn an_acceptance_is_for_one_package_and_one_text() {
    let accepted = Acceptance { package: "a".into(), sha256: script("a", "x\n").sha256, stands: vec![] };
    assert!(check(&[script("b", "x\n")], &list(&[]), std::slice::from_ref(&accepted)).is_err());
    assert!(check(&[script("a", "y\n")], &list(&[]), std::slice::from_ref(&accepted)).is_err());
    let passed = check(&[], &list(&[]), std::slice::from_ref(&accepted)).unwrap();
    assert_eq!(passed.unused, [accepted]);
}

#[test]
fn an_acceptance_must_name_substitutes_that_exist() {
    let entry = Acceptance { package: "a".into(), sha256: String::new(), stands: vec!["majick".into()] };
    let error = check(&[], &list(&[]), &[entry]).unwrap_err();
    assert_eq!(error, GateError::NoSuchSubstitute { package: "a".into(), name: "majick".into() });
}

#[test]
fn the_difference_to_the_reviewed_script_is_shown() {
    let lines = |n: std::ops::Range<u32>| n.map(|i| format!("line {i}\n")).collect::<String>();
    let old = script("a", &lines(0..20));
    let new = script("a", &(lines(0..10) + "new\n" + &lines(11..20)));
    let Err(GateError::Unknown { unknown }) = check(&[new], &list(&[old]), &[]) else { panic!("passed") };
    assert_eq!(
        unknown[0].diff,
        [
            "  ...",
            "  line 7",
            "  line 8",
            "  line 9",
            "- (line 11 of the reviewed script)",
            "+ new",
            "  line 11",
            "  line 12",
            "  line 13"
        ]
    );
}

#[test]
fn the_shipped_list_is_whole() {
    let list = Reviewed::shipped().unwrap();
    assert!(!list.scripts.is_empty());
    for entry in &list.scripts {
        assert!(!entry.note.is_empty(), "{} {} was listed and not read", entry.package, entry.kind);
        for name in &entry.stands {
            assert!(NAMES.contains(&name.as_str()), "{}: no substitute {name}", entry.package);
        }
    }
}

#[test]
fn a_list_of_another_format_is_refused() {
    assert!(matches!(
        Reviewed::parse("format = 2\nrelease = \"x\"\n"),
        Err(ReviewedError::Format { format: 2 })
    ));
    assert!(matches!(Reviewed::parse("format = 1\n"), Err(ReviewedError::Parse(_))));
}
