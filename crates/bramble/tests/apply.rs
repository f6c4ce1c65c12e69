//! `bramble apply` by the real binary, against pretended Talos machines made of Talos' own stubs.
//!
//! `scripts/conformance.sh` builds the machines and runs these tests; alone they are left out.

#![expect(clippy::print_stdout, reason = "what was tried, for whoever runs the script")]

#[path = "../../bramble-talos/tests/fake/mod.rs"]
mod fake;

use bramble_talos::{Bundle, Release};
use fake::Fake;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// A bundle takes seconds to make, and one does for all sites.
fn bundle() -> &'static str {
    static BUNDLE: OnceLock<String> = OnceLock::new();
    BUNDLE.get_or_init(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        Bundle::generate(Release::V1_14, now.as_secs()).unwrap().write().expose().clone()
    })
}

/// Each site has a network of its own on this computer's loopback, for Talos' port is always the same.
fn network() -> String {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let own = std::process::id() % 250 + 2;
    format!("127.{own}.{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Three control planes and two workers.
const NAMES: [&str; 5] = ["n1", "n2", "n3", "n4", "n5"];

fn role(name: &str) -> &'static str {
    if matches!(name, "n4" | "n5") { "worker" } else { "control-plane" }
}

/// A project and where its machines are.
struct Project {
    directory: tempfile::TempDir,
    network: String,
}

struct Ended {
    code: Option<i32>,
    out: String,
    said: String,
}

impl Ended {
    /// With this exit code.
    fn with(self, code: i32) -> Ended {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.said);
        assert!(!self.said.contains("PRIVATE KEY") && !self.out.contains("PRIVATE KEY"));
        self
    }

    /// With these words said.
    fn saying(self, words: &[&str]) -> Ended {
        for word in words {
            assert!(self.said.contains(word), "{word:?} is not said:\n{}", self.said);
        }
        self
    }
}

impl Project {
    fn new(version: &str) -> Project {
        let project = Project { directory: tempfile::tempdir().unwrap(), network: network() };
        project.write(version, "");
        fs::write(project.path("old.yaml"), bundle()).unwrap();
        project.run(&["init"]).with(0);
        project
    }

    fn with_bundle(version: &str) -> Project {
        let project = Project::new(version);
        project.run(&["secrets", "talos", "import", "old.yaml"]).with(0);
        project
    }

    /// The file, with more in its last node.
    fn write(&self, version: &str, more: &str) {
        let network = &self.network;
        let mut text = format!(
            "apiVersion: bramble.home.arpa/v1alpha1\nkind: Cluster\nmetadata: {{ name: home }}\nspec:\n  kubernetes: \
             {{ distribution: talos, version: v1.36.3 }}\n  network: {{ subnet: {network}.0/24, gateway: {network}.1 }}\n  \
             talos: {{ version: {version} }}\n  nodes:\n"
        );
        for (index, name) in NAMES.iter().enumerate() {
            let number = index + 1;
            let more = if number == NAMES.len() { more } else { "" };
            text += &format!(
                "    - {{ name: {name}, role: {}, board: pi4, address: {network}.1{number}, mac: \"02:00:00:00:00:0{number}\"{more} }}\n",
                role(name)
            );
        }
        fs::write(self.path("bramble.yaml"), text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bramble"));
        command
            .args(words)
            .current_dir(self.directory.path())
            .env_clear()
            .env("HOME", self.directory.path())
            .env("SOPS_AGE_KEY_FILE", self.path("age.key"));
        command
    }

    fn run(&self, words: &[&str]) -> Ended {
        let output = self.command(words).output().unwrap();
        Ended {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            said: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// A machine of the file, with its medium in and nothing on it.
    fn machine(&self, name: &str, program: &str, version: &str, more: &[&str]) -> Result<Fake, String> {
        let index = NAMES.iter().position(|n| *n == name).ok_or("no such machine")? + 1;
        let listen = format!("{}.1{index}:50000", self.network);
        let mac = format!("02:00:00:00:00:0{index}");
        let (etcd, secrets) = (self.path("etcd"), self.path("old.yaml"));
        let (etcd, secrets) = (etcd.to_string_lossy(), secrets.to_string_lossy());
        let own = [
            "--listen",
            &listen,
            "--hostname",
            name,
            "--mac",
            &mac,
            "--etcd",
            &etcd,
            "--secrets",
            &secrets,
            "--talos-version",
            version,
            "--reboot-time",
            "100ms",
        ];
        let fake = Fake::start(program, &[&own, more].concat())?;
        assert_eq!(fake.address.to_string(), listen);
        Ok(fake)
    }

    fn machines(&self, program: &str, version: &str) -> Result<Vec<Fake>, String> {
        NAMES.iter().map(|name| self.machine(name, program, version, &[])).collect()
    }
}

fn count(machines: &[Fake], event: &str) -> usize {
    machines.iter().map(|machine| machine.count(event)).sum()
}

const APPLY: [&str; 4] = ["apply", "--yes", "--timeout", "120"];

#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn a_site_comes_up_changes_and_has_nothing_more_to_do() -> Outcome {
    for (program, version) in [("1.14", "v1.14.1"), ("1.13", "v1.13.9")] {
        let project = Project::with_bundle(version);
        let machines = project.machines(program, version)?;
        let first = project.run(&["apply", "--dry-run", "--exit-code"]).with(2);
        assert!(
            first.out.contains("talos-push/n5") && first.out.contains(&machines[4].fingerprint),
            "{}",
            first.out
        );
        project.run(&["apply"]).with(1).saying(&["nobody can be asked", "--yes"]);
        assert_eq!(count(&machines, "applied"), 0);
        project.run(&APPLY).with(0).saying(&["talos-push/n1", "talos-bootstrap/n1", "as the file says"]);
        assert_eq!((count(&machines, "applied"), count(&machines, "bootstrapped")), (5, 1));
        assert_eq!((count(&machines, "joined"), count(&machines, "second-etcd")), (2, 0));
        let lock = fs::read_to_string(project.path("bramble.lock"))?;
        assert!(lock.contains("founded = true") && lock.contains("node = \"n1\""), "{lock}");
        project.run(&APPLY).with(0).saying(&["nothing to do"]);
        // A change of the file is a change of one machine.
        project.write(version, ", labels: { shelf: top }");
        let planned = project.run(&["apply", "--dry-run", "--exit-code"]).with(2);
        assert!(
            planned.out.contains("talos-configure/n5") && planned.out.contains("shelf"),
            "{}",
            planned.out
        );
        assert!(!planned.out.contains("n4"), "{}", planned.out);
        project.run(&APPLY).with(0).saying(&["talos-configure/n5"]);
        assert_eq!(count(&machines, "applied"), 6);
        project.run(&["apply", "--dry-run", "--exit-code"]).with(0);
    }
    Ok(())
}

/// Runs, ends the run when it has told so many events, and says whether it came so far.
fn cut(project: &Project, events: usize, signal: &str) -> std::io::Result<bool> {
    let mut command = project.command(&APPLY);
    let mut child =
        command.args(["--progress", "json"]).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let mut out = BufReader::new(child.stdout.take().ok_or_else(|| std::io::Error::other("no output"))?);
    let mut line = String::new();
    for _ in 0..events {
        line.clear();
        if out.read_line(&mut line)? == 0 {
            child.wait()?;
            return Ok(false);
        }
    }
    Command::new("kill").args([signal, &child.id().to_string()]).status()?;
    out.read_to_string(&mut line)?;
    let code = child.wait()?.code();
    // Interrupted, killed, or just then at its end.
    assert!(matches!(code, None | Some(0 | 130)), "{code:?}: {line}");
    Ok(true)
}

#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn a_run_that_is_cut_at_any_event_is_gone_on_with() -> Outcome {
    let (program, version) = ("1.14", "v1.14.1");
    let mut cuts = 0;
    for events in 1.. {
        let signal = if events % 2 == 0 { "-KILL" } else { "-INT" };
        let project = Project::with_bundle(version);
        let machines = project.machines(program, version)?;
        let reached = cut(&project, events, signal)?;
        project.run(&APPLY).with(0).saying(&["as the file says"]);
        assert_eq!(
            (count(&machines, "bootstrapped"), count(&machines, "second-etcd")),
            (1, 0),
            "event {events}"
        );
        // Nobody gets its first config twice.
        assert_eq!(count(&machines, "applied"), 5, "event {events}");
        if !reached {
            break;
        }
        cuts += 1;
    }
    assert!(cuts >= 15, "only {cuts} events were told");
    println!("{cuts} runs were cut at as many events, and gone on with");
    Ok(())
}

#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn what_is_not_there_is_waited_for_by_name() -> Outcome {
    let project = Project::with_bundle("v1.14.1");
    let mut machines = Vec::new();
    for name in ["n1", "n2", "n4"] {
        machines.push(project.machine(name, "1.14", "v1.14.1", &[])?);
    }
    // Somebody else's new machine has the address of n5.
    machines.push(project.machine("n5", "1.14", "v1.14.1", &["--mac", "02:00:00:00:00:99"])?);
    let short = ["apply", "--yes", "--timeout", "1"];
    project.run(&short).with(75).saying(&[
        "n3: waiting for an answer at",
        "n5: waiting for the machine with the network card 02:00:00:00:00:05",
        "02:00:00:00:00:99",
        "run the same command again",
    ]);
    project.run(&short).with(75).saying(&["etcd: waiting for every control plane to be seen once", "n3"]);
    assert_eq!((count(&machines, "applied"), count(&machines, "bootstrapped")), (3, 0));
    assert_eq!(machines[3].count("applied"), 0);
    machines.pop();
    machines.push(project.machine("n5", "1.14", "v1.14.1", &[])?);
    machines.push(project.machine("n3", "1.14", "v1.14.1", &[])?);
    project.run(&APPLY).with(0);
    assert_eq!((count(&machines, "applied"), count(&machines, "bootstrapped")), (5, 1));
    Ok(())
}

#[test]
#[ignore = "needs the pretended machines: scripts/conformance.sh"]
fn machines_of_another_cluster_are_left_alone_and_no_second_bundle_is_made() -> Outcome {
    let other = Project::with_bundle("v1.14.1");
    let fakes = other.machines("1.14", "v1.14.1")?;
    other.run(&APPLY).with(0);
    let (applied, begun) = (count(&fakes, "applied"), count(&fakes, "bootstrapped"));
    // The same file, and no bundle: none is made beside machines that have one.
    let project = Project { network: other.network.clone(), directory: tempfile::tempdir()? };
    project.write("v1.14.1", "");
    project.run(&["init"]).with(0);
    project.run(&["secrets", "talos", "create"]).with(1).saying(&["have a config already", "n1", "import"]);
    project.run(&["apply", "--yes"]).with(1).saying(&["has no Talos bundle"]);
    // With another bundle, nothing is said to them.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    fs::write(project.path("new.yaml"), Bundle::generate(Release::V1_14, now)?.write().expose())?;
    project.run(&["secrets", "talos", "import", "new.yaml"]).with(0);
    let short = ["apply", "--yes", "--timeout", "1"];
    project.run(&short).with(75).saying(&["n1: waiting for the machine at", "nothing was said to it"]);
    assert_eq!((count(&fakes, "applied"), count(&fakes, "bootstrapped")), (applied, begun));
    Ok(())
}
