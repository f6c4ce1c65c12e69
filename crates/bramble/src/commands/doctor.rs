//! `bramble doctor`: what this computer lacks, and the command that mends it.

use crate::cli::Output;
use crate::problem::Problem;
use crate::settings::{Settings, agent};
use bramble_api::board::Facts;
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

/// What to look at on a real board of a kind, and what is known of it.
pub(crate) fn board(name: &str, output: Output) -> Result<Exit, Problem> {
    let board: bramble_spec::Board = super::init::parse(name, "board")?;
    let board = bramble_plan::board(board);
    let Some(facts) = bramble_api::board::facts(board) else {
        bramble_console::say(&format!("{}: nothing beside UEFI firmware is asked of it", board.name()));
        return Ok(Exit::Done);
    };
    if output == Output::Json {
        bramble_console::json(facts);
        return Ok(Exit::Done);
    }
    let mut table = Table::new(&["model", "seen", "QEMU"]);
    for model in facts.models {
        table.row(&[model.name, model.seen.words(), model.emulated.unwrap_or("-")]);
    }
    bramble_console::data(&table.to_string());
    checklist(facts).iter().for_each(|line| bramble_console::data(line));
    Ok(Exit::Done)
}

/// What a person looks at on a real one, a line each.
fn checklist(facts: &Facts) -> Vec<String> {
    let mut lines = vec!["to check on a real one:".to_string()];
    if let Some(loader) = facts.bootloader {
        lines.push(format!(
            "- its boot loader is of {} or later: `vcgencmd bootloader_version` in Raspberry Pi OS; `rpi-eeprom-update` brings a newer one",
            loader.least
        ));
        lines.push(format!(
            "- of {} or later, it says which partition it started; of {} or later, it looks for another when one does not start",
            loader.reports_partition, loader.partition_walk
        ));
    }
    lines.push(format!("- it has {} MiB of memory or more", facts.least_memory >> 20));
    lines.push(format!(
        "- its serial port ({}, 115200 baud) shows `bramble-node` and the stages of the boot",
        facts.serial
    ));
    for driver in facts.network {
        lines.push(format!("- after the start, {} is there ({})", driver.reason, driver.name));
    }
    lines.push(if facts.watchdog_emulated {
        format!("- its watchdog ({}) restarts it within {} s", facts.watchdog.name, facts.watchdog_seconds)
    } else {
        format!(
            "- its watchdog ({}) restarts it within {} s: no emulator shows that",
            facts.watchdog.name, facts.watchdog_seconds
        )
    });
    lines.extend(facts.notes.iter().map(|note| format!("- {note}")));
    lines
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
            found: bramble_lab::kvm::check().map(|()| "runs machines".to_string()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use bramble_api::names::Board;

    #[test]
    fn every_pi_says_what_to_look_at() {
        for board in [Board::Pi3, Board::Pi4, Board::Pi5] {
            let facts = bramble_api::board::facts(board).unwrap();
            let lines = checklist(facts);
            assert!(lines.iter().any(|l| l.contains(facts.serial)));
            assert_eq!(lines.iter().any(|l| l.contains("rpi-eeprom-update")), facts.bootloader.is_some());
            assert!(facts.notes.iter().all(|note| lines.iter().any(|l| l.contains(note))));
        }
    }
}
