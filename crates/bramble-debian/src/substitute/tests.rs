use super::*;
use crate::tree::Tree;

#[test]
fn words_hold_quotes_together() {
    assert_eq!(words("u x - \"A B\" /home"), ["u", "x", "-", "A B", "/home"]);
    assert_eq!(words("  a '' b"), ["a", "", "b"]);
}

#[test]
fn libraries_sort_as_glibc_compares_them() {
    use std::cmp::Ordering::{Equal, Greater, Less};
    for (a, b, order) in [
        ("libc.so.6", "libc.so.6", Equal),
        ("libx.so.10", "libx.so.9", Greater),
        ("liba1.so", "libab.so", Greater),
        ("liba.so", "libb.so", Less),
        ("liba.so", "liba.so.1", Less),
    ] {
        assert_eq!(ldcache::compare(a.as_bytes(), b.as_bytes()), order, "{a} {b}");
        assert_eq!(ldcache::compare(b.as_bytes(), a.as_bytes()), order.reverse(), "{b} {a}");
    }
}

#[test]
fn alternatives_are_read_as_scripts_write_them() {
    let text = "if x; then\n  update-alternatives \\\n    --install /usr/bin/awk awk /usr/bin/mawk 5 \\\n    --slave \
                /usr/bin/nawk nawk /usr/bin/mawk\nfi\nupdate-alternatives --install /a b /c 10 || true\n";
    let groups = alternatives::parse(text);
    let awk = groups["awk"].choices.first().unwrap();
    assert_eq!((awk.priority, awk.path.as_str()), (5, "/usr/bin/mawk"));
    assert_eq!(awk.slaves, [("nawk".into(), "/usr/bin/nawk".into(), "/usr/bin/mawk".into())]);
    assert_eq!(groups["b"].choices.first().unwrap().priority, 10);
}

#[test]
fn profiles_of_pam_become_a_stack_that_jumps_to_its_end() {
    let mut root = Tree::new();
    root.file(
        "/usr/share/pam-configs/unix",
        0o644,
        "Name: Unix\nDefault: yes\nPriority: 256\nAuth-Type: Primary\nAuth:\n\t[success=end]\tpam_unix.so \
         try_first_pass\nAuth-Initial:\n\t[success=end]\tpam_unix.so\n",
    )
    .unwrap();
    root.file(
        "/usr/share/pam-configs/krb5",
        0o644,
        "Name: Krb\nDefault: yes\nPriority: 704\nAuth-Type: Primary\nAuth:\n\t[success=end]\tpam_krb5.so\n",
    )
    .unwrap();
    root.file(
        "/usr/share/pam-configs/off",
        0o644,
        "Name: Off\nDefault: no\nAuth-Type: Primary\nAuth:\n\toff.so\n",
    )
    .unwrap();
    root.file("/usr/share/pam/common-auth", 0o644, "# head\n$auth_primary\n# tail\n").unwrap();
    pam::apply(&mut root).unwrap();
    assert_eq!(
        root.read_text("/etc/pam.d/common-auth").unwrap(),
        "# head\nauth\t[success=2]\tpam_krb5.so\nauth\t[success=1]\tpam_unix.so try_first_pass\n# tail\n"
    );
}

#[test]
fn a_pam_stack_without_primary_modules_lets_sessions_begin() {
    let mut root = Tree::new();
    root.file("/usr/share/pam/common-session", 0o644, "$session_primary\nsession\trequisite\tpam_deny.so\n")
        .unwrap();
    pam::apply(&mut root).unwrap();
    assert_eq!(
        root.read_text("/etc/pam.d/common-session").unwrap(),
        "session\t[default=1]\t\t\tpam_permit.so\nsession\trequisite\tpam_deny.so\n"
    );
}

#[test]
fn the_bundle_holds_every_authority_and_refuses_what_is_none() {
    let pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----";
    let mut root = Tree::new();
    root.file("/usr/share/ca-certificates/mozilla/A.crt", 0o644, pem).unwrap();
    root.file("/usr/local/share/ca-certificates/home.crt", 0o644, format!("{pem}\n\n")).unwrap();
    certificates::apply(&mut root).unwrap();
    assert_eq!(root.read_text("/etc/ssl/certs/ca-certificates.crt").unwrap(), format!("{pem}\n{pem}\n"));
    assert_eq!(root.read_text("/etc/ca-certificates.conf").unwrap(), "mozilla/A.crt\n");
    assert_eq!(
        root.read_text("/etc/ssl/certs/home.pem"),
        root.read_text("/usr/local/share/ca-certificates/home.crt")
    );
    root.file("/usr/local/share/ca-certificates/der.crt", 0o644, "\x30\x03").unwrap();
    assert!(matches!(certificates::apply(&mut root), Err(SubstituteError::Input { .. })));
}

#[test]
fn pruning_keeps_copyright_files() {
    let mut root = Tree::new();
    for path in ["/usr/share/doc/x/copyright", "/usr/share/doc/x/changelog.gz", "/usr/share/man/man1/x.1.gz"]
    {
        root.file(path, 0o644, "12345").unwrap();
    }
    let bytes = prune::apply(&mut root);
    assert_eq!(bytes, [("documentation", 10)].into());
    assert!(root.exists("/usr/share/doc/x/copyright"));
    assert!(!root.exists("/usr/share/doc/x/changelog.gz") && !root.exists("/usr/share/man"));
}

mod accounts {
    use super::*;
    use std::collections::BTreeMap;

    fn root(sysusers: &str) -> Tree {
        let mut root = Tree::new();
        root.file("/usr/share/base-passwd/passwd.master", 0o644, "root:*:0:0:root:/root:/bin/bash\n")
            .unwrap();
        root.file(
            "/usr/share/base-passwd/group.master",
            0o644,
            "root:*:0:\nshadow:*:42:\nnogroup:*:65534:\n",
        )
        .unwrap();
        root.file("/usr/lib/sysusers.d/a.conf", 0o644, sysusers).unwrap();
        root
    }

    #[test]
    fn numbers_are_given_from_the_top_and_then_never_move() {
        let mut first = root("u alpha - \"A B\" /x\ng beta -\nu sshd -:nogroup \"s\" /run\nm alpha beta\n");
        let accounts = users::apply(&mut first, &[], &BTreeMap::new()).unwrap();
        assert_eq!(
            accounts.locked(),
            &[("alpha", 999), ("beta", 998), ("sshd", 997)].map(|(n, i)| (n.to_string(), i)).into()
        );
        assert!(
            first.read_text("/etc/passwd").unwrap().contains("alpha:x:999:999:A B:/x:/usr/sbin/nologin\n")
        );
        assert!(
            first.read_text("/etc/passwd").unwrap().contains("sshd:x:997:65534:s:/run:/usr/sbin/nologin\n")
        );
        assert!(first.read_text("/etc/group").unwrap().contains("beta:x:998:alpha\n"));
        assert_eq!(first.lookup("/etc/shadow").unwrap().1.gid, 42);

        // Another order, one gone, one new: the old numbers stay, the one that is gone keeps its own.
        let mut second = root("g gamma -\ng beta -\n");
        let later = users::apply(&mut second, &[], accounts.locked()).unwrap();
        assert_eq!((later.gid("beta"), later.gid("gamma")), (Some(998), Some(996)));
        assert_eq!(later.locked()["alpha"], 999);
    }

    #[test]
    fn a_locked_number_that_debian_takes_is_an_error() {
        let locked = BTreeMap::from([("alpha".to_string(), 500)]);
        let error = users::apply(&mut root("u other 500\nu alpha -\n"), &[], &locked).unwrap_err();
        assert!(matches!(error, SubstituteError::IdTaken { id: 500, .. }), "{error}");
    }

    #[test]
    fn a_line_that_is_not_understood_is_told() {
        for line in ["x what -", "u", "u name notanumber", "u a -:nosuchgroup"] {
            let error = users::apply(&mut root(line), &[], &BTreeMap::new()).unwrap_err();
            assert!(matches!(error, SubstituteError::Input { .. }), "{line}: {error}");
        }
    }
}

mod enabling {
    use super::*;
    use units::Wishes;

    fn root() -> Tree {
        let mut root = Tree::new();
        let unit = |name: &str| format!("/usr/lib/systemd/system/{name}");
        for (name, text) in [
            (
                "a.service",
                "[Unit]\nWantedBy=no.target\n[Install]\nWantedBy=x.target y.target\nAlso=b.socket\nAlias=c.service\n",
            ),
            ("b.socket", "[Install]\nRequiredBy=%p.service\n"),
            ("t@.service", "[Install]\nWantedBy=%i.target\nDefaultInstance=one\n"),
            ("off.service", "[Install]\nWantedBy=x.target\n"),
        ] {
            root.file(unit(name), 0o644, text).unwrap();
        }
        root
    }

    fn wants(root: &Tree, link: &str) -> bool {
        let at = root.resolve_parent(format!("/etc/systemd/system/{link}")).unwrap();
        root.get(&at).is_some()
    }

    #[test]
    fn install_sections_are_followed() {
        let mut root = root();
        let enable = ["a.service", "t@.service", "t@two.service", "none.service"].map(String::from);
        let done = units::apply(&mut root, &[], Wishes { enable: &enable, ..Wishes::default() }).unwrap();
        assert_eq!(done.missing, ["none.service"]);
        for link in [
            "x.target.wants/a.service",
            "y.target.wants/a.service",
            "c.service",
            "b.service.requires/b.socket",
            "one.target.wants/t@one.service",
            "two.target.wants/t@two.service",
        ] {
            assert!(wants(&root, link), "{link}");
        }
        assert!(!wants(&root, "no.target.wants/a.service"));
        let preset = root.read_text("/usr/lib/systemd/system-preset/00-bramble.preset").unwrap();
        assert!(preset.ends_with("disable *\n") && preset.contains("enable b.socket\n"));
    }

    #[test]
    fn what_is_disabled_stays_off_and_what_is_masked_leads_nowhere() {
        let mut root = root();
        let (enable, disable, mask) =
            (["a.service".to_string()], ["b.socket".to_string()], ["off.service".to_string()]);
        units::apply(&mut root, &[], Wishes { enable: &enable, disable: &disable, mask: &mask }).unwrap();
        assert!(!wants(&root, "b.service.requires/b.socket"));
        let at = TreePath::new("etc/systemd/system/off.service").unwrap();
        assert_eq!(root.get(&at).unwrap().kind, crate::tree::Kind::Symlink(b"/dev/null".to_vec()));
    }
}
