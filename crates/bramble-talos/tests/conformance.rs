//! What Talos' own code says of what this crate writes.
//!
//! The judge is `tests/conformance/talos-judge`, built around the machinery of Talos 1.13 and of 1.14.
//! `scripts/conformance.sh` builds both and runs these tests; alone they are left out.

#![expect(clippy::print_stdout, reason = "what was judged, for whoever runs the script")]

mod judge;

use bramble_secrets::SecretText;
use bramble_spec::Cluster;
use bramble_talos::config::Documents;
use bramble_talos::config::{Disk, Install, Machine, Role, documents};
use bramble_talos::patch::Patch;
use bramble_talos::site::{Site, Sources};
use bramble_talos::yaml::{self, Value};
use bramble_talos::{Bundle, Release, talosconfig};
use judge::{Judge, Verdict, random};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

type Outcome = Result<(), Box<dyn std::error::Error>>;

const RELEASES: [Release; 2] = [Release::V1_13, Release::V1_14];
const ROLES: [(Role, &str); 2] = [(Role::ControlPlane, "controlplane"), (Role::Worker, "worker")];

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Kubernetes that either release runs.
const KUBERNETES: &str = "1.36.3";

/// With nothing further said, our config is the generator's for the same bundle, document by document.
#[test]
#[ignore = "needs the judges: scripts/conformance.sh"]
fn a_plain_machine_is_the_generators() -> Outcome {
    let mut compared = 0;
    for release in RELEASES {
        let judge = Judge::of(release)?;
        let secrets = judge.file("secrets.yaml", &judge.run(&["gen-secrets"])?.out)?;
        let bundle = Bundle::read(&std::fs::read_to_string(&secrets)?)?;
        for (role, word) in ROLES {
            for (scheduling, sans) in [(false, vec![]), (true, vec!["api.home.arpa", "10.9.8.7"])] {
                let mut arguments = vec![
                    "gen",
                    "--name",
                    "home",
                    "--endpoint",
                    "https://10.0.0.10:6443",
                    "--type",
                    word,
                    "--k8s-version",
                    KUBERNETES,
                    "--install-disk",
                    "/dev/sda",
                    "--install-image",
                    "factory.talos.dev/metal-installer/x:v1",
                    "--secrets",
                    &secrets,
                ];
                if scheduling {
                    arguments.push("--allow-scheduling");
                }
                for san in &sans {
                    arguments.extend(["--san", san]);
                }
                let real = judge.file("real.yaml", &judge.run(&arguments)?.out)?;
                let mut machine = Machine::plain(release, role, "home", "https://10.0.0.10:6443", KUBERNETES);
                machine.schedule_on_control_plane = scheduling;
                machine.sans = sans.iter().map(ToString::to_string).collect();
                machine.install = Some(Install {
                    image: Some("factory.talos.dev/metal-installer/x:v1".into()),
                    disk: Disk { path: Some("/dev/sda".into()), ..Disk::default() },
                });
                let ours = judge.file("ours.yaml", documents(&machine, &bundle).text().expose())?;
                judge
                    .run(&["equal", &real, &ours])?
                    .expect(Verdict::Accepted, &format!("{release:?} {word}"))?;
                judge
                    .run(&["validate", "--strict", "--no-warnings", &ours])?
                    .expect(Verdict::Accepted, "strict")?;
                compared += 1;
            }
        }
    }
    assert_eq!(compared, 8);
    Ok(())
}

/// A bundle that we made, and a talosconfig from it, pass the real checks; bundles of the real code load in ours.
#[test]
#[ignore = "needs the judges: scripts/conformance.sh"]
fn bundles_come_and_go() -> Outcome {
    for release in RELEASES {
        let judge = Judge::of(release)?;
        let bundle = Bundle::generate(release, now())?;
        let ours = judge.file("ours.yaml", bundle.write().expose())?;
        let roles = ["os:operator", "os:etcd:backup"];
        let day = Duration::from_secs(86_400);
        let config =
            talosconfig::talosconfig(&bundle, "home", &["10.0.0.1".into()], &[], &roles, now(), day)?;
        let config = judge.file("talosconfig", config.expose())?;
        let verdict = judge.run(&[
            "check-secrets",
            &ours,
            "--talosconfig",
            &config,
            "--roles",
            "os:operator,os:etcd:backup",
            "--ttl",
            "24h",
        ])?;
        assert!(!verdict.out.contains("NOTE"), "{}", verdict.out);
        verdict.expect(Verdict::Accepted, "our bundle")?;
        for _ in 0..3 {
            let text = judge.run(&["gen-secrets"])?.out;
            assert_eq!(Bundle::read(&text)?.write().expose(), &text);
        }
        // Out of a config, as those do who kept nothing else.
        let machine =
            Machine::plain(release, Role::ControlPlane, "home", "https://10.0.0.10:6443", KUBERNETES);
        let text = documents(&machine, &bundle).text();
        assert_eq!(Bundle::read(text.expose())?.write().expose(), bundle.write().expose());
        let config = judge.file("config.yaml", text.expose())?;
        let theirs = judge.run(&["from-config", &config])?.out;
        assert_eq!(Bundle::read(&theirs)?.write().expose(), bundle.write().expose());
    }
    Ok(())
}

/// Secrets that a site's file names; files have what they need to have.
struct Anything;

impl Sources for Anything {
    fn secret(&self, name: &str) -> Option<SecretText> {
        Some(SecretText::new(format!("secret-{name}")))
    }
    fn file(&self, _: &str) -> std::io::Result<String> {
        Ok(Bundle::read(include_str!("data/secrets.yaml"))
            .map_or_else(|e| e.to_string(), |b| b.machine.certificate))
    }
}

/// Renders every machine of a site and returns the files.
fn render(
    judge: &Judge,
    name: &str,
    cluster: &Cluster,
    bundle: &Bundle,
) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let site = Site::new(cluster, bundle, &Anything)?;
    let mut files = Vec::new();
    for node in cluster.effective_nodes() {
        if node.role != bramble_spec::Role::Management {
            let text = site.render(&node).map_err(|e| format!("{name}: {e}"))?.text();
            files.push(judge.file(&format!("{name}-{}.yaml", node.name), text.expose())?);
        }
    }
    Ok(files)
}

/// Every example that runs Talos is a config that the real loader takes without a warning, for its own release and,
/// where it can be, for the other one.
#[test]
#[ignore = "needs the judges: scripts/conformance.sh"]
fn every_example_validates() -> Outcome {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let bundle = Bundle::read(include_str!("data/secrets.yaml"))?;
    let mut validated = 0;
    for entry in std::fs::read_dir(examples)? {
        let directory = entry?;
        let name = directory.file_name().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(directory.path().join("bramble.yaml"))?;
        if !text.contains("distribution: talos") {
            continue;
        }
        let checked = bramble_spec::parse(&text, &name).map_err(|e| e.to_string())?;
        let judge = Judge::of(Release::V1_14)?;
        let files = render(&judge, &name, &checked.cluster, &bundle)?;
        judge.validate(&files, &name)?;
        validated += files.len();
    }
    assert!(validated >= 15, "{validated}");
    Ok(())
}

/// How many of each are made for each release; the seed is its number.
const SITES: u64 = 500;
const PAIRS: u64 = 700;
const OPERATIONS: u64 = 120;

/// Generated sites, every key of the file used somewhere: each machine's config is taken without a warning.
#[test]
#[ignore = "needs the judges: scripts/conformance.sh"]
fn generated_sites_validate() -> Outcome {
    let bundle = Bundle::read(include_str!("data/secrets.yaml"))?;
    let (mut sites, mut machines) = (0, 0);
    for release in RELEASES {
        let judge = Judge::of(release)?;
        let mut files = Vec::new();
        for seed in 0..SITES {
            let text = random::site(seed, release.minor());
            let name = format!("seed-{seed}");
            let checked = bramble_spec::parse(&text, &name).map_err(|e| format!("{e}\n{text}"))?;
            files.extend(
                render(&judge, &name, &checked.cluster, &bundle).map_err(|e| format!("{e}\n{text}"))?,
            );
            sites += 1;
        }
        judge.validate(&files, &format!("{release:?}"))?;
        machines += files.len();
    }
    println!("{sites} sites, {machines} configs");
    assert!(sites >= 1000 && machines > 4000, "{sites} {machines}");
    Ok(())
}

fn parsed(text: &str) -> Result<Documents, Box<dyn std::error::Error>> {
    let maps = yaml::read(text)?.into_iter().filter_map(|v| match v {
        Value::Map(map) => Some(map),
        _ => None,
    });
    Ok(Documents(maps.collect()))
}

/// How pairs of config and patches came out.
#[derive(Debug, Default)]
struct Tally {
    equal: usize,
    refused: usize,
    /// When a patch deletes in a document that is not there, the patcher of 1.13.9 keeps the deletion as if it were one,
    /// and fails with it, sooner or later; 1.14.1 does not.
    crashed: usize,
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Tally { equal, refused, crashed } = self;
        write!(f, "{equal} equal, {refused} refused by both, {crashed} on which Talos' own patcher fails")
    }
}

/// One pair of config and patches: both patchers refuse it, or both give the same.
fn same_result(
    judge: &Judge,
    release: Release,
    config: &str,
    patches: &[String],
    tally: &mut Tally,
) -> Outcome {
    let mut files = Vec::new();
    for (index, patch) in patches.iter().enumerate() {
        files.push(judge.file(&format!("patch-{index}.yaml"), patch)?);
    }
    let path = judge.file("config.yaml", config)?;
    let mut arguments = vec!["patch", path.as_str()];
    arguments.extend(files.iter().map(String::as_str));
    let theirs = judge.run(&arguments)?;
    let mut documents = parsed(config)?;
    let ours = patches.iter().try_for_each(|patch| Patch::read(patch)?.apply(&mut documents, release));
    match (theirs.verdict, ours) {
        (Verdict::Rejected, Err(_)) => tally.refused += 1,
        (Verdict::Accepted, Ok(())) => {
            let a = judge.file("theirs.yaml", &theirs.out)?;
            let b = judge.file("ours.yaml", documents.text().expose())?;
            judge.run(&["equal", &a, &b])?.expect(Verdict::Accepted, &patches.join("\n===\n"))?;
            tally.equal += 1;
        }
        (Verdict::Accepted, Err(error)) => {
            return Err(format!("we refuse what Talos takes: {error}\n{}", patches.join("\n===\n")).into());
        }
        (Verdict::Rejected, Ok(())) => {
            // A result that the real loader refuses is no result: `bramble render` refuses it after the fact.
            let b = judge.file("ours.yaml", documents.text().expose())?;
            let loaded = judge.run(&["encode", &b]);
            if matches!(&loaded, Ok(answer) if answer.verdict == Verdict::Accepted) {
                return Err(format!(
                    "we take what Talos refuses: {}\n{}",
                    theirs.out,
                    patches.join("\n===\n")
                )
                .into());
            }
            tally.refused += 1;
        }
        (Verdict::Crashed, ours) => {
            // What is not there need not be taken away, we say.
            let deletes =
                patches.iter().any(|patch| patch.lines().any(|line| line.trim() == "$patch: delete"));
            if !deletes || ours.is_err() {
                return Err(format!("{}\n{}", theirs.out, patches.join("\n===\n")).into());
            }
            tally.crashed += 1;
        }
    }
    Ok(())
}

/// Random pairs of config and strategic patches give the real patcher's result.
#[test]
#[ignore = "needs the judges: scripts/conformance.sh"]
fn strategic_patches_are_talos_own() -> Outcome {
    let bundle = Bundle::read(include_str!("data/secrets.yaml"))?;
    let mut tally = Tally::default();
    for release in RELEASES {
        let judge = Judge::of(release)?;
        for seed in 0..PAIRS {
            let mut machine =
                Machine::plain(release, Role::ControlPlane, "home", "https://10.0.0.10:6443", KUBERNETES);
            machine.sans = vec!["api.home.arpa".into()];
            let config = documents(&machine, &bundle).text();
            same_result(
                &judge,
                release,
                config.expose(),
                &random::patches(seed, release.minor()),
                &mut tally,
            )
            .map_err(|e| format!("{release:?} seed {seed}: {e}"))?;
        }
    }
    println!("strategic patches: {tally}");
    assert!(tally.equal >= 1000, "{tally}");
    Ok(())
}

/// Random lists of operations too, on the config of one document to which alone Talos applies them.
#[test]
#[ignore = "needs the judges: scripts/conformance.sh"]
fn operations_are_talos_own() -> Outcome {
    let bundle = Bundle::read(include_str!("data/secrets.yaml"))?;
    let judge = Judge::of(Release::V1_13)?;
    let machine =
        Machine::plain(Release::V1_13, Role::ControlPlane, "home", "https://10.0.0.10:6443", KUBERNETES);
    let mut config = documents(&machine, &bundle);
    config.0.truncate(1);
    let mut tally = Tally::default();
    for seed in 0..OPERATIONS {
        let patch = random::operations(seed);
        same_result(&judge, Release::V1_13, config.text().expose(), &[patch], &mut tally)
            .map_err(|e| format!("seed {seed}: {e}"))?;
    }
    println!("operations: {tally}");
    assert!(tally.equal >= 30 && tally.refused >= 10, "{tally}");
    Ok(())
}
