//! A small set of packages, made here, assembled whole.

use bramble_api::lock::LockedPackage;
use bramble_api::names::Arch;
use bramble_debian::assemble::{AssembleError, AssembleInput, ExtraBody, ExtraFile, LayoutError, assemble};
use bramble_debian::scripts::{Acceptance, GateError};
use bramble_debian::tree::{Kind, Tree, TreePath};
use sha2::{Digest, Sha256};
use std::path::PathBuf;

/// A package under construction: control files and entries.
struct Deb {
    name: &'static str,
    fields: &'static str,
    control: Vec<(&'static str, String)>,
    /// Path and text; a path with a slash at its end is a directory, a text with `->` in front a link.
    files: Vec<(&'static str, &'static str)>,
}

fn deb(name: &'static str, files: &[(&'static str, &'static str)]) -> Deb {
    Deb { name, fields: "", control: Vec::new(), files: files.to_vec() }
}

impl Deb {
    fn bytes(&self) -> Vec<u8> {
        let text = format!("Package: {}\nVersion: 1-1\nArchitecture: all\n{}", self.name, self.fields);
        let mut control = vec![("control", text.as_str())];
        control.extend(self.control.iter().map(|(name, text)| (*name, text.as_str())));
        let members = [
            ("debian-binary", b"2.0\n".to_vec()),
            ("control.tar", archive(&control)),
            ("data.tar", archive(&self.files)),
        ];
        let mut out = b"!<arch>\n".to_vec();
        for (name, bytes) in members {
            out.extend(
                format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, "100644", bytes.len()).bytes(),
            );
            out.extend(bytes);
        }
        out
    }
}

fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (path, text) in files {
        let mut header = tar::Header::new_gnu();
        header.set_mode(if path.ends_with('/') { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        let path = format!("./{path}");
        if let Some(target) = text.strip_prefix("->") {
            header.set_entry_type(tar::EntryType::Symlink);
            out.append_link(&mut header, path, target).unwrap();
        } else if path.ends_with('/') {
            header.set_entry_type(tar::EntryType::Directory);
            out.append_data(&mut header, path, std::io::empty()).unwrap();
        } else {
            header.set_size(text.len() as u64);
            out.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
    }
    out.into_inner().unwrap()
}

/// Packages that every set has: accounts, release, package manager, a kernel without modules.
fn base() -> Vec<Deb> {
    let mut files = deb(
        "base-files",
        &[
            ("usr/lib/", ""),
            ("lib", "->usr/lib"),
            ("etc/os-release", "->../usr/lib/os-release"),
            ("usr/lib/os-release", "PRETTY_NAME=\"Debian 13\"\nID=debian\nVERSION_ID=\"13\"\n"),
            ("usr/share/base-files/dot.bashrc", ""),
            ("usr/share/base-files/dot.profile", ""),
            ("usr/share/base-files/motd", "hello\n"),
            ("usr/share/base-files/profile", "# profile\n"),
            ("usr/share/man/man1/x.1.gz", "manual"),
            ("etc/thing.conf", "setting\n"),
        ],
    );
    files.control = vec![
        ("conffiles", "/etc/thing.conf\nremove-on-upgrade /etc/old.conf\n".into()),
        (
            "md5sums",
            format!(
                "{0}  usr/lib/os-release\n{0}  usr/share/man/man1/x.1.gz\n",
                "0123456789abcdef0123456789abcdef"
            ),
        ),
    ];
    vec![
        deb(
            "base-passwd",
            &[
                (
                    "usr/share/base-passwd/group.master",
                    "root:*:0:\nmail:*:8:\nshadow:*:42:\nutmp:*:43:\nnogroup:*:65534:\n",
                ),
                ("usr/share/base-passwd/passwd.master", "root:*:0:0:root:/root:/bin/bash\n"),
            ],
        ),
        deb("dpkg", &[("var/lib/dpkg/info/", "")]),
        files,
        deb(
            "linux-modules-7.0",
            &[("usr/lib/modules/7.0/modules.order", ""), ("usr/lib/modules/7.0/vmlinuz", "MZ")],
        ),
    ]
}

struct Site {
    dir: PathBuf,
    input: AssembleInput,
}

impl Site {
    fn new(name: &str, debs: Vec<Deb>) -> Self {
        let dir = std::env::temp_dir().join(format!("bramble-set-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let debs = debs
            .iter()
            .map(|deb| {
                let bytes = deb.bytes();
                let path = dir.join(format!("{}.deb", deb.name));
                std::fs::write(&path, &bytes).unwrap();
                let locked = LockedPackage {
                    name: deb.name.into(),
                    version: "1-1".into(),
                    arch: "all".into(),
                    suite: "trixie".into(),
                    filename: String::new(),
                    size: bytes.len() as u64,
                    sha256: hex::encode(Sha256::digest(&bytes)),
                };
                (locked, path)
            })
            .collect();
        let input = AssembleInput {
            arch: Arch::Amd64,
            debs,
            programs: Vec::new(),
            epoch: 1_700_000_000,
            release: "7".into(),
            users: Default::default(),
            accepted_scripts: Vec::new(),
            enable: Vec::new(),
            disable: Vec::new(),
            mask: Vec::new(),
            modules: Vec::new(),
            extra_files: Vec::new(),
            cache: dir.join("cache"),
        };
        Site { dir, input }
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn text<'a>(tree: &'a Tree, path: &str) -> &'a str {
    tree.read_text(path).unwrap_or_else(|| panic!("no {path}"))
}

#[test]
fn the_tree_does_not_depend_on_order_threads_or_cache() {
    let mut site = Site::new("same", base());
    let threads = |count| rayon::ThreadPoolBuilder::new().num_threads(count).build().unwrap();
    let cold = threads(1).install(|| assemble(&site.input)).unwrap();
    site.input.debs.reverse();
    let warm = threads(4).install(|| assemble(&site.input)).unwrap();
    assert_eq!((cold.report.unpacked_before, warm.report.unpacked_before), (0, 4));
    assert_eq!(cold.tree, warm.tree);
    assert_eq!((cold.sbom, cold.users), (warm.sbom, warm.users));
    assert!(cold.tree.iter().all(|(_, node)| node.mtime == 1_700_000_000));
}

#[test]
fn the_package_database_tells_what_is_in_the_image() {
    let site = Site::new("dpkg", base());
    let tree = assemble(&site.input).unwrap().tree;
    let status = text(&tree, "/var/lib/dpkg/status");
    assert_eq!(status, text(&tree, "/usr/lib/dpkg-db/status"));
    assert_eq!(status.matches("Status: install ok installed").count(), 4);
    // MD5 of "setting\n".
    assert!(status.contains("Conffiles:\n /etc/thing.conf 2c1d4f59f062ce424618f4d25961fb76\n"));
    let md5sums = text(&tree, "/var/lib/dpkg/info/base-files.md5sums");
    assert!(md5sums.contains("usr/lib/os-release") && !md5sums.contains("man1"));
    assert!(!text(&tree, "/var/lib/dpkg/info/base-files.list").contains("man1"));
    assert_eq!(
        text(&tree, "/var/lib/dpkg/diversions"),
        "/usr/lib/os-release\n/usr/lib/os-release.distrib\n:\n"
    );
    assert!(text(&tree, "/etc/os-release").contains("PRETTY_NAME=\"Bramble OS 7 (Debian 13)\"\nID=debian\n"));
    assert_eq!(text(&tree, "/usr/lib/tmpfiles.d/bramble-var.conf").matches("L /var/lib/dpkg ").count(), 1);
}

#[test]
fn an_unknown_script_stops_the_build_until_it_is_accepted() {
    let mut odd = deb("odd", &[("usr/bin/odd", "")]);
    odd.control = vec![("postinst", "#!/bin/sh\nuseradd odd\n".into())];
    let mut site = Site::new("gate", base().into_iter().chain([odd]).collect());
    let Err(AssembleError::Gate(GateError::Unknown { unknown })) = assemble(&site.input) else {
        panic!("passed")
    };
    assert_eq!(unknown.len(), 1);
    assert_eq!(unknown[0].diff, ["+ #!/bin/sh", "+ useradd odd"]);
    site.input.accepted_scripts = vec![
        unknown[0].acceptance.clone(),
        Acceptance { package: "gone".into(), sha256: "0".repeat(64), stands: vec!["users".into()] },
    ];
    let report = assemble(&site.input).unwrap().report;
    assert_eq!(report.unused_acceptances[0].package, "gone");
}

#[test]
fn our_own_files_count_for_what_is_worked_out_afterwards() {
    let mut site = Site::new("extra", base());
    let file = |path: &str, text: &str| ExtraFile {
        path: path.into(),
        body: ExtraBody::File { mode: 0o644, content: text.into() },
    };
    site.input.extra_files = vec![
        file("/usr/lib/sysusers.d/etcd.conf", "u etcd - \"etcd\" /var/lib/etcd\n"),
        file("/lib/systemd/system/etcd.service", "[Install]\nWantedBy=multi-user.target\n"),
        file("/etc/hosts", "127.0.0.1 mine\n"),
    ];
    site.input.enable = vec!["etcd.service".into()];
    site.input.users = [("etcd".to_string(), 700)].into();
    let assembled = assemble(&site.input).unwrap();
    assert!(text(&assembled.tree, "/etc/passwd").contains("etcd:x:700:700:etcd:/var/lib/etcd:"));
    assert_eq!(text(&assembled.tree, "/etc/hosts"), "127.0.0.1 mine\n");
    assert!(assembled.tree.exists("/etc/systemd/system/multi-user.target.wants/etcd.service"));
    site.input.extra_files = vec![file("/usr/../etc/x", "")];
    assert!(matches!(assemble(&site.input), Err(AssembleError::Extra { .. })));
}

#[test]
fn packages_that_do_not_fit_are_named() {
    let clash = [deb("a", &[("usr/bin/x", "one")]), deb("b", &[("usr/bin/x", "two")])];
    let site = Site::new("clash", base().into_iter().chain(clash).collect());
    let Err(AssembleError::Layout(LayoutError::Twice { first, second, .. })) = assemble(&site.input) else {
        panic!("passed")
    };
    assert_eq!((first.as_str(), second.as_str()), ("a", "b"));

    let old = deb("old", &[("lib/firmware/x", "")]);
    let site = Site::new("merge", base().into_iter().chain([old]).collect());
    assert!(matches!(assemble(&site.input), Err(AssembleError::Layout(LayoutError::ThroughLink { .. }))));

    let mut second = deb("b", &[("usr/bin/x", "two")]);
    second.fields = "Replaces: a (<< 2), c\n";
    let pair = [deb("a", &[("usr/bin/x", "one")]), second];
    let site = Site::new("replaces", base().into_iter().chain(pair).collect());
    assert_eq!(text(&assemble(&site.input).unwrap().tree, "/usr/bin/x"), "two");
}

#[test]
fn a_file_that_is_not_what_the_lock_says_is_refused() {
    let mut site = Site::new("lock", base());
    site.input.debs[0].0.version = "2-1".into();
    assert!(matches!(assemble(&site.input), Err(AssembleError::NotTheLocked { .. })));
    site.input.debs[0].0.sha256 = "0".repeat(64);
    assert!(matches!(assemble(&site.input), Err(AssembleError::Deb { .. })));
}

#[test]
fn nothing_of_one_machine_is_in_the_image() {
    let site = Site::new("identity", base());
    let tree = assemble(&site.input).unwrap().tree;
    let id = tree.get(&TreePath::new("etc/machine-id").unwrap()).unwrap();
    assert_eq!(id.kind, Kind::File(bramble_debian::tree::Content::empty()));
    for unit in ["systemd-firstboot.service", "systemd-machine-id-commit.service"] {
        let at = TreePath::new(format!("etc/systemd/system/{unit}")).unwrap();
        assert_eq!(tree.get(&at).unwrap().kind, Kind::Symlink(b"/dev/null".to_vec()));
    }
}
