//! `bramble doctor`: what this computer lacks, and the command that mends it.

use crate::problem::Problem;
use crate::settings::{Settings, agent};
use bramble_api::names::Arch;
use bramble_console::{Exit, Table};
use std::process::Command;

/// One thing looked at.
struct Finding {
    what: &'static str,
    found: Result<String, String>,
    needed_for: &'static str,
    mend: &'static str,
}

/// Looks at everything and says it in a table; fails when something is missing that the lab or a build needs.
pub(crate) fn run(settings: &Settings) -> Result<Exit, Problem> {
    let findings = [
        Finding {
            what: "QEMU, amd64",
            found: version("qemu-system-x86_64", &["--version"], "version "),
            needed_for: "lab",
            mend: "apt install qemu-system-x86",
        },
        Finding {
            what: "QEMU, arm64",
            found: version("qemu-system-aarch64", &["--version"], "version "),
            needed_for: "lab with arm64 boards",
            mend: "apt install qemu-system-arm",
        },
        Finding {
            what: "KVM",
            found: kvm(),
            needed_for: "a lab at full speed; without it machines are emulated",
            mend: "enable virtualisation in the firmware and join the group kvm",
        },
        Finding {
            what: "Go",
            found: version("go", &["version"], "go version go"),
            needed_for: "building Kubernetes where its release files cannot be reached",
            mend: "apt install golang-go (1.21 or newer fetches the version it needs)",
        },
        Finding {
            what: "agent, amd64",
            found: agent(Arch::Amd64).map(|p| p.display().to_string()).ok_or_else(|| "not found".to_string()),
            needed_for: "images for uefi-amd64",
            mend: "scripts/agent.sh amd64",
        },
        Finding {
            what: "agent, arm64",
            found: agent(Arch::Arm64).map(|p| p.display().to_string()).ok_or_else(|| "not found".to_string()),
            needed_for: "images for arm64 boards",
            mend: "scripts/agent.sh arm64",
        },
        Finding {
            what: "space in the cache",
            found: space(&settings.project.cache),
            needed_for: "downloads and builds, about 8 GB",
            mend: "free some space, or name another place with --cache-dir",
        },
    ];
    let mut table = Table::new(&["what", "state", "found", "needed for"]);
    for finding in &findings {
        let (state, text) = match &finding.found {
            Ok(text) => ("ok", text),
            Err(text) => ("missing", text),
        };
        table.row(&[finding.what, state, text, finding.needed_for]);
    }
    bramble_console::data(&table.to_string());
    let missing: Vec<&Finding> = findings.iter().filter(|f| f.found.is_err()).collect();
    for finding in &missing {
        bramble_console::say(&format!("to mend {}: {}", finding.what, finding.mend));
    }
    let needed = ["QEMU, amd64", "agent, amd64", "space in the cache"];
    let lacks = missing.iter().any(|f| needed.contains(&f.what));
    Ok(if lacks { Exit::User } else { Exit::Done })
}

/// The version a program prints behind `mark`.
fn version(program: &str, arguments: &[&str], mark: &str) -> Result<String, String> {
    let output = Command::new(program).args(arguments).output().map_err(|_| "not found".to_string())?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_once(mark)
        .and_then(|(_, rest)| rest.split_whitespace().next())
        .map(str::to_string)
        .ok_or_else(|| format!("{program} does not say its version"))
}

fn kvm() -> Result<String, String> {
    match std::fs::OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => Ok("/dev/kvm".to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Err("no /dev/kvm".to_string()),
        Err(e) => Err(format!("/dev/kvm: {e}")),
    }
}

/// Space that a build needs: packages, programs, two releases.
const SPACE_NEEDED: u64 = 8_000_000_000;

fn space(cache: &std::path::Path) -> Result<String, String> {
    // The nearest directory that exists: the cache itself may not be there yet.
    let there = cache.ancestors().find(|p| p.is_dir()).unwrap_or(std::path::Path::new("/"));
    let output = Command::new("df").arg("-B1").arg("--output=avail").arg(there).output();
    let free = output
        .ok()
        .and_then(|o| String::from_utf8_lossy(&o.stdout).lines().nth(1)?.trim().parse::<u64>().ok())
        .ok_or_else(|| "unknown".to_string())?;
    let text = format!("{} GB free at {}", free / 1_000_000_000, there.display());
    if free < SPACE_NEEDED { Err(text) } else { Ok(text) }
}
