//! Which mirror to use: the one that this computer's own apt uses, else the one of the spec, else Debian's.
//!
//! Formats: `sources.list(5)`, one-line and deb822.

mod apt_conf;

use std::path::{Path, PathBuf};

/// Addresses of the two archives that Debian consists of, without a slash at the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// The archive with `trixie`, `trixie-updates` and `trixie-backports`.
    pub main: String,
    /// The archive with `trixie-security`.
    pub security: String,
    /// Whether an index past its `Valid-Until` is refused. Not where this computer's own apt takes it from the same
    /// mirror: whoever keeps a frozen mirror has said so there (`Acquire::Check-Valid-Until`, `Check-Valid-Until`).
    pub check_valid_until: bool,
}

impl Default for Mirrors {
    fn default() -> Self {
        Mirrors::of_main("http://ftp.debian.org/debian")
    }
}

impl Mirrors {
    /// A mirror with the security archive beside it, as Debian's own hosts have it: `/debian-security` for
    /// `/debian`.
    pub fn of_main(main: &str) -> Mirrors {
        let main = main.trim_end_matches('/').to_string();
        let root = main.strip_suffix("/debian").unwrap_or(&main);
        Mirrors { security: format!("{root}/debian-security"), main, check_valid_until: true }
    }

    /// The archive that has a suite.
    pub fn of_suite(&self, suite: &str) -> &str {
        if suite.ends_with("-security") || suite.ends_with("-security/updates") {
            &self.security
        } else {
            &self.main
        }
    }

    /// The first Debian archives in the apt sources below `root` (`/` for this computer), if there are any.
    /// Unreadable files count as absent: they are somebody else's, and there is a default.
    pub fn of_host(root: &Path) -> Option<Mirrors> {
        let apt = root.join("etc/apt");
        let mut files = vec![apt.join("sources.list")];
        files.extend(listed(&apt.join("sources.list.d")));
        let entries: Vec<Entry> = files
            .iter()
            .filter_map(|path| Some((path, std::fs::read_to_string(path).ok()?)))
            .flat_map(|(path, text)| {
                if path.extension().is_some_and(|e| e == "sources") { deb822(&text) } else { one_line(&text) }
            })
            .collect();
        let said = apt_conf::value(root, "Acquire::Check-Valid-Until");
        let found = of_entries(&entries)?;
        let checks = !said.is_some_and(|word| apt_conf::is_false(&word));
        Some(Mirrors { check_valid_until: found.check_valid_until && checks, ..found })
    }

    /// What to use: the spec's mirror if it states one, else the host's, else Debian's.
    pub fn choose(stated: Option<&str>, root: &Path) -> Mirrors {
        match stated {
            Some(main) => Mirrors::of_main(main),
            None => Mirrors::of_host(root).unwrap_or_default(),
        }
    }
}

/// Files of a `sources.list.d`, in apt's order.
fn listed(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "list" || e == "sources"))
        .collect();
    files.sort();
    files
}

/// One place that apt takes packages from.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    uri: String,
    suites: Vec<String>,
    components: Vec<String>,
    signed_by: String,
    check_valid_until: bool,
}

fn of_entries(entries: &[Entry]) -> Option<Mirrors> {
    let find = |kind: Kind| entries.iter().find(|e| kind_of(e) == Some(kind));
    let (main, security) = (find(Kind::Main)?, find(Kind::Security));
    let twin = Mirrors::of_main(&main.uri);
    Some(Mirrors {
        main: main.uri.clone(),
        security: security.map_or(twin.security, |entry| entry.uri.clone()),
        check_valid_until: main.check_valid_until && security.is_none_or(|entry| entry.check_valid_until),
    })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Main,
    Security,
}

/// Whether an entry is Debian's own, and which of its archives.
fn kind_of(entry: &Entry) -> Option<Kind> {
    if !(entry.uri.starts_with("http://") || entry.uri.starts_with("https://")) {
        return None;
    }
    let path_says = |word: &str| entry.uri.trim_end_matches('/').rsplit('/').next() == Some(word);
    let has_main = entry.components.iter().any(|c| c == "main");
    let suite_says =
        |suite: &String| DEBIAN_SUITES.contains(&suite.split(['-', '/']).next().unwrap_or_default());
    let suites_say = !entry.suites.is_empty() && entry.suites.iter().all(suite_says);
    let key_says = entry.signed_by.contains("debian-archive");
    // A third party also has "bookworm main"; what it does not have is Debian's key or Debian's path.
    if !has_main || !suites_say || !(key_says || path_says("debian") || path_says("debian-security")) {
        return None;
    }
    // Third parties like to call their path `debian` too: a key of their own gives them away.
    if !entry.signed_by.is_empty() && !key_says {
        return None;
    }
    let security =
        entry.suites.iter().all(|suite| suite.contains("-security") || suite.ends_with("/updates"));
    Some(if security { Kind::Security } else { Kind::Main })
}

/// Debian's code names and class names; Ubuntu's are other words.
const DEBIAN_SUITES: [&str; 13] = [
    "buster",
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "stable",
    "oldstable",
    "oldoldstable",
    "testing",
    "unstable",
    "experimental",
];

/// `deb [signed-by=...] URI SUITE COMPONENT...`
fn one_line(text: &str) -> Vec<Entry> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next().unwrap_or_default().trim();
            let mut rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
            let (mut signed_by, mut check_valid_until) = (String::new(), true);
            if let Some(options) = rest.strip_prefix('[') {
                let (options, after) = options.split_once(']')?;
                rest = after.trim_start();
                for option in options.split_whitespace() {
                    let Some((key, value)) = option.split_once('=') else { continue };
                    match key.trim_end_matches(['+', '-']).to_ascii_lowercase().as_str() {
                        "signed-by" => signed_by = value.to_string(),
                        "check-valid-until" => check_valid_until = !apt_conf::is_false(value),
                        _ => {}
                    }
                }
            }
            let mut words = rest.split_whitespace();
            let uri = words.next()?.trim_end_matches('/').to_string();
            let suites = vec![words.next()?.to_string()];
            let components = words.map(str::to_string).collect();
            Some(Entry { uri, suites, components, signed_by, check_valid_until })
        })
        .collect()
}

/// Paragraphs with `Types`, `URIs`, `Suites`, `Components`, `Signed-By`, `Enabled`, `Check-Valid-Until`.
fn deb822(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let mut fields: Vec<(String, String)> = Vec::new();
    // The empty line at the end closes the last paragraph.
    for line in text.lines().chain([""]) {
        if line.trim().is_empty() {
            entries.extend(entry_of(&std::mem::take(&mut fields)));
        } else if line.starts_with('#') {
        } else if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim().to_ascii_lowercase(), value.trim().to_string()));
        }
    }
    entries
}

fn entry_of(fields: &[(String, String)]) -> Vec<Entry> {
    let value = |name: &str| fields.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.as_str());
    let words = |name: &str| value(name).split_whitespace().map(str::to_string).collect::<Vec<_>>();
    if apt_conf::is_false(value("enabled")) || !words("types").iter().any(|t| t == "deb") {
        return Vec::new();
    }
    words("uris")
        .into_iter()
        .map(|uri| Entry {
            uri: uri.trim_end_matches('/').to_string(),
            suites: words("suites"),
            components: words("components"),
            signed_by: value("signed-by").to_string(),
            check_valid_until: !apt_conf::is_false(value("check-valid-until")),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(lists: &[(&str, &str)]) -> Option<Mirrors> {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("etc/apt/sources.list.d");
        std::fs::create_dir_all(&dir).unwrap();
        for (name, text) in lists {
            let path =
                if *name == "sources.list" { root.path().join("etc/apt").join(name) } else { dir.join(name) };
            std::fs::write(path, text).unwrap();
        }
        Mirrors::of_host(root.path())
    }

    fn pair(main: &str, security: &str) -> Option<Mirrors> {
        Some(Mirrors { main: main.into(), security: security.into(), check_valid_until: true })
    }

    #[test]
    fn deb822_of_a_debian_image() {
        let text = "Types: deb\n# http://old.example/debian\nURIs: http://m.example/debian/\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n\n\
                    Types: deb\nURIs: http://m.example/sec\nSuites: bookworm-security\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n";
        assert_eq!(
            mirrors(&[("debian.sources", text)]),
            pair("http://m.example/debian", "http://m.example/sec")
        );
    }

    #[test]
    fn one_line_lists_with_options_and_comments() {
        let text = "# deb http://no.example/debian trixie main\n\
                    deb cdrom:[Debian]/ trixie main\n\
                    deb-src http://src.example/debian trixie main\n\
                    deb [ arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg ] https://m.example/mirror/debian/ trixie main contrib # mine\n";
        assert_eq!(
            mirrors(&[("sources.list", text)]),
            pair("https://m.example/mirror/debian", "https://m.example/mirror/debian-security")
        );
    }

    #[test]
    fn neither_ubuntu_nor_third_parties_nor_disabled_ones() {
        let ubuntu = "deb http://archive.example/ubuntu noble main\n";
        let node =
            "Types: deb\nURIs: https://deb.node.example/node_20.x\nSuites: nodistro\nComponents: main\n";
        let docker = "deb [signed-by=/etc/apt/keyrings/docker.asc] https://dl.docker.example/linux/debian bookworm main\n";
        let off =
            "Types: deb\nEnabled: no\nURIs: http://off.example/debian\nSuites: trixie\nComponents: main\n";
        let cloud = "deb http://cloud.example/apt bookworm main\n";
        assert_eq!(
            mirrors(&[
                ("u.list", ubuntu),
                ("n.sources", node),
                ("d.list", docker),
                ("o.sources", off),
                ("c.list", cloud)
            ]),
            None
        );
        assert_eq!(mirrors(&[]), None);
    }

    #[test]
    fn a_frozen_mirror_is_one_that_apt_was_told_of() {
        let one = |options: &str| {
            mirrors(&[("d.list", &format!("deb {options} http://m.example/debian trixie main\n"))])
        };
        let two = |more: &str| {
            let text = format!(
                "Types: deb\nURIs: http://m.example/debian\nSuites: trixie\nComponents: main\n{more}\n"
            );
            mirrors(&[("d.sources", &text)])
        };
        for (found, expected) in [
            (one(""), true),
            (one("[check-valid-until=no]"), false),
            (one("[Check-Valid-Until=yes arch=amd64]"), true),
            (two(""), true),
            (two("Check-Valid-Until: no"), false),
        ] {
            assert_eq!(found.unwrap().check_valid_until, expected);
        }
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(root.path().join("etc/apt/apt.conf.d")).unwrap();
        std::fs::write(root.path().join("etc/apt/sources.list"), "deb http://m.example/debian trixie main\n")
            .unwrap();
        assert!(Mirrors::of_host(root.path()).unwrap().check_valid_until);
        let conf = "Acquire { Check-Valid-Until \"false\"; };\n";
        std::fs::write(root.path().join("etc/apt/apt.conf.d/99frozen"), conf).unwrap();
        assert!(!Mirrors::of_host(root.path()).unwrap().check_valid_until);
        // Of another mirror this computer's apt has said nothing.
        assert!(Mirrors::choose(Some("http://o.example/debian"), root.path()).check_valid_until);
    }

    #[test]
    fn other_file_names_are_not_read() {
        let text = "deb http://m.example/debian trixie main\n";
        assert_eq!(mirrors(&[("debian.list.disabled", text)]), None);
        assert!(mirrors(&[("debian.list", text)]).is_some());
    }

    #[test]
    fn the_spec_goes_before_the_host_and_both_before_the_default() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Mirrors::choose(None, root.path()), Mirrors::default());
        assert_eq!(Mirrors::default().security, "http://ftp.debian.org/debian-security");
        let stated = Mirrors::choose(Some("http://m.example/debian/"), root.path());
        assert_eq!(Some(stated.clone()), pair("http://m.example/debian", "http://m.example/debian-security"));
        assert_eq!(stated.of_suite("trixie-security"), stated.security);
        assert_eq!(stated.of_suite("trixie-backports"), stated.main);
    }
}
