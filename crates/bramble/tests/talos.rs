//! Talos by the real binary: what is written, what is shown, what is refused.

use bramble_secrets::{Environment, Identities, SecretText, SecretsFile};
use bramble_talos::Bundle;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `talosctl gen secrets` made for nobody's cluster.
const BUNDLE: &str = include_str!("../../bramble-talos/tests/data/secrets.yaml");

const SITE: &str = r#"apiVersion: bramble.home.arpa/v1alpha1
kind: Cluster
metadata:
  name: home
spec:
  kubernetes:
    distribution: talos
    version: v1.36.3
    endpoint: { address: 10.0.20.10, vip: talos }
  network:
    subnet: 10.0.20.0/24
    gateway: 10.0.20.1
  talos: { version: v1.14.1 }
  nodes:
    - { name: n1, role: control-plane, board: pi4, address: 10.0.20.11, mac: "dc:a6:32:00:00:01" }
    - name: n2
      role: worker
      board: uefi-amd64
      address: 10.0.20.12
      mac: "dc:a6:32:00:00:02"
      talos: { install: { disk: { serial: S1 } } }
"#;

/// A directory with a home of its own.
struct Project(tempfile::TempDir);

struct Outcome {
    code: Option<i32>,
    out: String,
    said: String,
}

impl Project {
    /// With a file, a key and a secrets file.
    fn new(site: &str) -> Project {
        let project = Project::empty();
        fs::write(project.path("bramble.yaml"), site).unwrap();
        project.run(&["init"]).good();
        project
    }

    /// The same with a bundle.
    fn with_bundle(site: &str) -> Project {
        let project = Project::new(site);
        fs::write(project.path("old.yaml"), BUNDLE).unwrap();
        project.run(&["secrets", "talos", "import", "old.yaml"]).good();
        project
    }

    fn empty() -> Project {
        Project(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    fn run(&self, words: &[&str]) -> Outcome {
        self.run_with(words, &self.path("age.key"))
    }

    fn run_with(&self, words: &[&str], key: &Path) -> Outcome {
        let output = Command::new(env!("CARGO_BIN_EXE_bramble"))
            .args(words)
            .current_dir(self.0.path())
            .env_clear()
            .env("HOME", self.0.path())
            .env("SOPS_AGE_KEY_FILE", key)
            .env("FROM_OUTSIDE", "outside.home.arpa")
            .output()
            .unwrap();
        Outcome {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    fn identities(&self) -> Identities {
        let environment = Environment { key: None, key_file: Some(self.path("age.key")), user_file: None };
        Identities::find(&environment).unwrap()
    }
}

impl Outcome {
    fn good(self) -> Outcome {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.said);
        self
    }

    /// Refused, with these words.
    fn bad(self, words: &[&str]) {
        assert_eq!(self.code, Some(1), "{}{}", self.out, self.said);
        for word in words {
            assert!(self.said.contains(word), "{word:?} is not said:\n{}", self.said);
        }
        assert!(!self.said.contains("PRIVATE KEY") && !self.out.contains("PRIVATE KEY"));
    }
}

/// Every secret of the bundle, as it stands in the bundle and, where that is base64 of PEM, in clear.
fn secrets() -> Vec<String> {
    let bundle = Bundle::read(BUNDLE).unwrap();
    let public = [["certs", "etcd"], ["certs", "k8s"], ["certs", "k8saggregator"], ["certs", "os"]];
    let mut out: Vec<String> = bundle
        .texts()
        .into_iter()
        .filter(|(place, _)| !(place.ends_with(&["crt"]) && public.iter().any(|p| place.starts_with(p))))
        .map(|(_, text)| text.expose().clone())
        .collect();
    for pair in [&bundle.etcd, &bundle.kubernetes, &bundle.aggregator, &bundle.machine] {
        out.extend(
            pair.key.expose().lines().filter(|l| l.len() > 20 && !l.starts_with("-----")).map(String::from),
        );
    }
    out
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn configs_are_shown_without_secrets_and_written_encrypted_once() {
    let project = Project::with_bundle(SITE);
    // Whoever looks needs no key.
    let shown = project.run_with(&["render"], Path::new("/nonexistent")).good().out;
    assert!(shown.contains("# n1\n") && shown.contains("# n2\n") && shown.contains("(hidden)"), "{shown}");
    let one = project.run(&["render", "n2"]).good().out;
    assert!(one.contains("type: worker") && !one.contains("controlplane"), "{one}");
    assert!(
        secrets().iter().all(|secret| !shown.contains(secret.as_str()) && !one.contains(secret.as_str()))
    );
    let whole = project.run(&["render", "n1", "--plaintext"]).good().out;
    assert_eq!(Bundle::read(&whole).unwrap().write().expose(), BUNDLE);

    let first = project.run(&["render", "-o", "configs"]).good().said;
    assert_eq!(first.matches(": written").count(), 2, "{first}");
    let written = project.read("configs/n1.sops.yaml");
    assert!(written.contains("ENC[") && secrets().iter().all(|secret| !written.contains(secret.as_str())));
    let file = SecretsFile::load(&project.path("configs/n1.sops.yaml"), &project.identities()).unwrap();
    assert_eq!(file.get(&["config"]).unwrap().expose().trim_end(), whole.trim_end());
    let second = project.run(&["render", "-o", "configs"]).good().said;
    assert_eq!(second.matches(": as it was").count(), 2, "{second}");
    assert_eq!(project.read("configs/n1.sops.yaml"), written);
    assert_eq!(fs::read_dir(project.path("configs")).unwrap().count(), 2);

    assert_eq!(project.run(&["render", "-o", "configs", "--diff", "--exit-code"]).good().out, "");
    fs::write(
        project.path("bramble.yaml"),
        SITE.replace("  nodes:", "  os: { sysctls: { vm.swappiness: \"1\" } }\n  nodes:"),
    )
    .unwrap();
    let differ = project.run(&["render", "n2", "-o", "configs", "--diff", "--exit-code"]);
    assert_eq!(differ.code, Some(2), "{}{}", differ.out, differ.said);
    assert!(differ.out.contains("SysctlConfig") && !differ.out.contains("n1.sops"), "{}", differ.out);
    assert_eq!(project.read("configs/n1.sops.yaml"), written, "a comparison writes nothing");
    project.run(&["render", "n2", "-o", "elsewhere", "--diff"]).good();
    assert!(!project.path("elsewhere").exists());
    // One more reader of the secrets file is one of the configs too, though their text is the same.
    project.run(&["render", "-o", "configs"]).good();
    project.run(&["secrets", "add-recipient", "--new"]).good();
    let third = project.run(&["render", "-o", "configs"]).good().said;
    assert_eq!(third.matches(": written").count(), 2, "{third}");
    assert_eq!(project.read("configs/n1.sops.yaml").matches("recipient:").count(), 2);
}

#[test]
fn ways_in_are_made_from_the_bundle() {
    let project = Project::with_bundle(SITE);
    project.run(&["talosconfig", "--role", "os:reader", "--hours", "2"]).good();
    let text = project.read("talosconfig");
    // Control planes by their own addresses, never the shared one.
    assert!(text.contains("- 10.0.20.11") && !text.contains("10.0.20.10\n"), "{text}");
    assert_eq!(mode(&project.path("talosconfig")), 0o600);
    project.run(&["kubeconfig"]).good();
    assert!(project.read("kubeconfig").contains("server: https://10.0.20.10:6443"));
    assert_eq!(mode(&project.path("kubeconfig")), 0o600);
    project.run(&["talosconfig", "--role", "os:root"]).bad(&["os:root", "os:admin"]);

    project.run(&["secrets", "talos", "export", "-o", "out.yaml"]).good();
    assert_eq!(project.read("out.yaml"), BUNDLE);
    assert_eq!(mode(&project.path("out.yaml")), 0o600);
    assert_eq!(project.run(&["secrets", "talos", "export"]).good().out, BUNDLE);

    project.run(&["eject", "talos"]).good();
    for name in ["secrets.yaml", "n1.yaml", "n2.yaml", "talosconfig"] {
        assert_eq!(mode(&project.path("talos").join(name)), 0o600, "{name}");
    }
    assert_eq!(project.read("talos/secrets.yaml"), BUNDLE);
    assert_eq!(project.read("talos/.gitignore"), "*\n");
    assert_eq!(Bundle::read(&project.read("talos/n1.yaml")).unwrap().write().expose(), BUNDLE);
    assert!(project.read("talos/README.md").contains("-n 10.0.20.12 apply-config -f n2.yaml"));
}

#[test]
fn a_bundle_is_made_by_an_explicit_act_and_never_replaced() {
    let project = Project::new(SITE);
    for words in [&["render", "-o", "x"] as &[&str], &["talosconfig"], &["kubeconfig"], &["eject", "talos"]] {
        project.run(words).bad(&["has no Talos bundle", "secrets talos create"]);
    }
    assert!(!project.path("talos").exists() && !project.path("talosconfig").exists());
    project.run(&["secrets", "talos", "create"]).good();
    let made = project.run(&["secrets", "talos", "export"]).good().out;
    assert_eq!(Bundle::read(&made).unwrap().write().expose(), &made);
    project.run(&["secrets", "talos", "create"]).bad(&["has a Talos bundle already"]);
    fs::write(project.path("other.yaml"), BUNDLE).unwrap();
    project.run(&["secrets", "talos", "import", "other.yaml"]).bad(&["has a Talos bundle already"]);
    // The same one again is no second one, in whatever form it comes.
    fs::write(project.path("same.yaml"), &made).unwrap();
    project.run(&["secrets", "talos", "import", "same.yaml"]).good();
    fs::write(project.path("n1.yaml"), project.run(&["render", "n1", "--plaintext"]).good().out).unwrap();
    project.run(&["secrets", "talos", "import", "n1.yaml"]).good();
    assert_eq!(project.run(&["secrets", "talos", "export"]).good().out, made);
}

#[test]
fn bad_input_is_named() {
    let project = Project::with_bundle(SITE);
    project.run(&["render", "n9"]).bad(&["n9", "n1, n2"]);
    // Another person's key.
    let other = Project::new(SITE);
    for words in [&["render", "-o", "x"] as &[&str], &["talosconfig"], &["secrets", "talos", "export"]] {
        project.run_with(words, &other.path("age.key")).bad(&["none of the age keys at hand opens"]);
    }
    assert!(!project.path("x").exists());
    // No cluster of Talos.
    let upstream = Project::empty();
    upstream.run(&["init"]).good();
    upstream.run(&["render"]).bad(&["describes no Talos cluster"]);
    upstream.run(&["secrets", "talos", "create"]).bad(&["describes no Talos cluster"]);
    // What is no bundle.
    let fresh = Project::new(SITE);
    let worker = project.run(&["render", "n2", "--plaintext"]).good().out;
    let broken = BUNDLE.replace("\n    token: ", "\n    token: x");
    let halves =
        BUNDLE.lines().filter(|l| !l.contains("secretboxencryptionsecret")).collect::<Vec<_>>().join("\n");
    for (text, says) in [
        ("a: 1\n", "neither `certs` nor `machine`"),
        ("a: [\n", "not YAML"),
        ("", "it is empty"),
        (&worker, "cannot take over"),
        (&broken, "trustdinfo.token"),
        (&halves, "secretboxencryptionsecret"),
    ] {
        fs::write(fresh.path("bundle.yaml"), text).unwrap();
        fresh.run(&["secrets", "talos", "import", "bundle.yaml"]).bad(&["cannot take over", says]);
    }
    fresh.run(&["secrets", "talos", "import", "gone.yaml"]).bad(&["cannot read gone.yaml"]);
    fresh.run(&["render", "-o", "x"]).bad(&["has no Talos bundle"]);
    // A bundle that was encrypted for someone else.
    let path = fresh.path("talsecret.sops.yaml");
    let mut file = SecretsFile::create(&path, &other.identities().recipients()).unwrap();
    for (place, text) in Bundle::read(BUNDLE).unwrap().texts() {
        file.set(place, text).unwrap();
    }
    file.save(jiff::Timestamp::now()).unwrap();
    fresh.run(&["secrets", "talos", "import", "talsecret.sops.yaml"]).bad(&["SOPS_AGE_KEY_FILE"]);
    let keys = [
        fs::read_to_string(fresh.path("age.key")).unwrap(),
        fs::read_to_string(other.path("age.key")).unwrap(),
    ];
    fs::write(fresh.path("both.key"), keys.concat()).unwrap();
    fresh.run_with(&["secrets", "talos", "import", "talsecret.sops.yaml"], &fresh.path("both.key")).good();
    assert_eq!(fresh.run(&["secrets", "talos", "export"]).good().out, BUNDLE);
    // A patch that takes an authority away.
    let patch = "  talos: { version: v1.14.1, patches: [{ machine: { ca: { key: \"\" } } }] }";
    fs::write(project.path("bramble.yaml"), SITE.replace("  talos: { version: v1.14.1 }", patch)).unwrap();
    project.run(&["render", "n1"]).bad(&["machine.ca.key"]);
}

#[test]
fn patches_lie_in_files_also_encrypted_ones() {
    let patches = "  talos: { version: v1.14.1, patches: [\"@patches/secret.sops.yaml\"] }";
    let project = Project::with_bundle(&SITE.replace("  talos: { version: v1.14.1 }", patches));
    project.run(&["render", "n1"]).bad(&["patches/secret.sops.yaml", "relative to bramble.yaml"]);
    fs::create_dir(project.path("patches")).unwrap();
    let path = project.path("patches/secret.sops.yaml");
    let mut file = SecretsFile::create(&path, &project.identities().recipients()).unwrap();
    file.set(&["machine", "env", "TS_AUTHKEY"], SecretText::new("tskey-hush".into())).unwrap();
    file.save(jiff::Timestamp::now()).unwrap();
    let shown = project.run_with(&["render", "n1"], Path::new("/nonexistent")).good().out;
    assert!(shown.contains("TS_AUTHKEY: (hidden)"), "{shown}");
    let whole = project.run(&["render", "n1", "--plaintext"]).good().out;
    assert!(whole.contains("TS_AUTHKEY: tskey-hush"), "{whole}");
}

const TALCONFIG: &str = r#"# ${NOT_SET} in a comment is nothing
clusterName: ${clusterName}
talosVersion: ${talosVersion:-v1.13.9}
kubernetesVersion: v1.36.3
endpoint: https://${endpointIp}:6443
additionalApiServerCertSans: ["${FROM_OUTSIDE}"]
cniConfig: { name: none }
patches:
  - "@./patches/all.yaml"
  - "@patches/key.yaml"
inlineManifests:
  - { name: token, contents: "@manifests/token.yaml" }
controlPlane:
  patches:
    - |-
      - op: add
        path: /machine/sysctls
        value: { vm.swappiness: "1" }
  schematic: { customization: { systemExtensions: { officialExtensions: [siderolabs/i915] } } }
worker:
  nodeLabels: { tier: shelf }
nodes:
  - hostname: n1
    ipAddress: 10.0.20.11
    controlPlane: true
    installDiskSelector: { serial: S1 }
  - hostname: n2
    ipAddress: 10.0.20.12
    installDisk: /dev/nvme0n1
    networkInterfaces:
      - { interface: bond0, bond: { mode: 802.3ad, interfaces: [eth0, eth1] }, dhcp: true }
"#;

#[test]
fn talhelper_is_taken_over() {
    let project = Project::empty();
    let old = project.path("old");
    for directory in ["patches", "manifests"] {
        fs::create_dir_all(old.join(directory)).unwrap();
    }
    fs::write(old.join("talconfig.yaml"), TALCONFIG).unwrap();
    project.run(&["import", "old/talconfig.yaml"]).bad(&["clusterName, endpointIp", "talenv"]);
    fs::write(old.join("talenv.yaml"), "clusterName: home\nendpointIp: 10.0.20.11\n").unwrap();
    fs::write(old.join("patches/all.yaml"), "machine: { certSANs: [talos.home.arpa] }\n").unwrap();
    fs::write(old.join("patches/key.yaml"), "machine: { env: { KEY: \"${KEY}\" } }\n").unwrap();
    fs::write(old.join("manifests/token.yaml"), "kind: Secret\nname: ${clusterName}\n").unwrap();
    fs::write(old.join("talsecret.yaml"), BUNDLE).unwrap();
    let said = project.run(&["import", "old/talconfig.yaml"]).good().said;
    for word in [
        "patches/all.yaml: copied",
        "patches/key.yaml of the cluster: it has variables (KEY)",
        "text of manifests/token.yaml stands in the file",
        "n2: networkInterfaces stands in a patch",
        "$FROM_OUTSIDE stands in the file",
    ] {
        assert!(said.contains(word), "{word:?} is not said:\n{said}");
    }
    project.run(&["import", "old/talconfig.yaml"]).bad(&["bramble.yaml is there already"]);
    project.run(&["init"]).good();
    project.run(&["check"]).good();
    project.run(&["secrets", "talos", "import", "old/talsecret.yaml"]).good();
    let first = project.run(&["render", "n1", "--plaintext"]).good().out;
    for word in
        ["- talos.home.arpa", "- outside.home.arpa", "name: home", "vm.swappiness: \"1\"", "serial: S1"]
    {
        assert!(first.contains(word), "{word:?} is not in it:\n{first}");
    }
    let second = project.run(&["render", "n2", "--plaintext"]).good().out;
    for word in ["tier: shelf", "interface: bond0", "disk: /dev/nvme0n1", "- talos.home.arpa"] {
        assert!(second.contains(word), "{word:?} is not in it:\n{second}");
    }
    assert!(!second.contains("vm.swappiness"), "{second}");
}

#[test]
fn variables_of_an_encrypted_file_are_warned_of() {
    let project = Project::empty();
    fs::write(project.path("talconfig.yaml"), TALCONFIG.replace("  - \"@patches/key.yaml\"\n", "")).unwrap();
    // The key is made by `init`, elsewhere.
    let other = Project::new(SITE);
    let mut file =
        SecretsFile::create(&project.path("talenv.sops.yaml"), &other.identities().recipients()).unwrap();
    for (key, value) in [("clusterName", "home"), ("endpointIp", "10.0.20.11")] {
        file.set(&[key], SecretText::new(value.into())).unwrap();
    }
    file.save(jiff::Timestamp::now()).unwrap();
    project.run(&["import", "talconfig.yaml"]).bad(&["talenv.sops.yaml"]);
    assert!(!project.path("bramble.yaml").exists());
    let said = project.run_with(&["import", "talconfig.yaml"], &other.path("age.key")).good().said;
    for word in [
        "$endpointIp came out of talenv.sops.yaml",
        "patches/all.yaml of the cluster",
        "manifests/token.yaml",
    ] {
        assert!(said.contains(word), "{word:?} is not said:\n{said}");
    }
}
