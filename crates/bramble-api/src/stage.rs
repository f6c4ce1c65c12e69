//! How far a booting machine has come, and the lines on its console that say so.
//!
//! A line is `bramble-stage: NAME SECONDS TEXT`, SECONDS since the kernel started with two decimals. The lab and
//! a person with a serial cable read the same lines.

use crate::names::Slot;
use serde::{Deserialize, Serialize};

/// How far a booting machine has come. The order of the variants is the order of a boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// pid 1 runs in the initramfs.
    Initramfs,
    /// The slot is known and its manifest is verified.
    Slot,
    /// The root is mounted through dm-verity.
    Root,
    /// The data file system is being made.
    MakingData,
    /// The data file system is mounted.
    Data,
    /// The machine document is read and kept.
    Document,
    /// /etc is rendered; systemd is started.
    System,
    /// The network has the stated address.
    Network,
    /// The container runtime answers.
    Runtime,
    /// The API server is ready (a worker: reached).
    Api,
    /// The node is Ready.
    Ready,
    /// The machine cannot go on by itself; TEXT says why.
    Failed,
}

impl Stage {
    /// Every stage, in order.
    pub const ALL: [Stage; 12] = [
        Stage::Initramfs,
        Stage::Slot,
        Stage::Root,
        Stage::MakingData,
        Stage::Data,
        Stage::Document,
        Stage::System,
        Stage::Network,
        Stage::Runtime,
        Stage::Api,
        Stage::Ready,
        Stage::Failed,
    ];

    /// The word in a console line.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Initramfs => "initramfs",
            Stage::Slot => "slot",
            Stage::Root => "root",
            Stage::MakingData => "making-data",
            Stage::Data => "data",
            Stage::Document => "document",
            Stage::System => "system",
            Stage::Network => "network",
            Stage::Runtime => "runtime",
            Stage::Api => "api",
            Stage::Ready => "ready",
            Stage::Failed => "failed",
        }
    }

    /// The console line, without a line end.
    pub fn line(self, uptime: f64, text: &str) -> String {
        format!("{PREFIX}{} {uptime:.2} {text}", self.name())
    }

    /// Reads a console line; `None` when it is not one. Bytes before the prefix (a terminal's control sequences,
    /// the kernel's time stamp) are passed over.
    pub fn parse(line: &str) -> Option<(Stage, f64, &str)> {
        let at = line.find(PREFIX)?;
        let mut words = line[at + PREFIX.len()..].trim_end().splitn(3, ' ');
        let name = words.next()?;
        let stage = Stage::ALL.into_iter().find(|s| s.name() == name)?;
        let uptime = words.next()?.parse().ok()?;
        Some((stage, uptime, words.next().unwrap_or("")))
    }
}

/// Starts every stage line.
pub const PREFIX: &str = "bramble-stage: ";

/// What pid 1 found, left for the agent at [`crate::names::path::BOOT`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Boot {
    /// The slot that runs.
    pub slot: Slot,
    /// Kernel name of the disk, `vda`.
    pub disk: String,
    /// Version of the release.
    pub release: u64,
    /// Root hash of the running root.
    pub verity_root: String,
    /// What was out of order and put right, one sentence each.
    pub repaired: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_read_back() {
        for stage in Stage::ALL {
            let line = format!("[    1.0] {}\r", stage.line(12.5, "a b"));
            assert_eq!(Stage::parse(&line), Some((stage, 12.5, "a b")));
        }
        assert_eq!(Stage::parse("nothing here"), None);
        assert_eq!(Stage::parse("bramble-stage: nonsense 1 x"), None);
        assert_eq!(Stage::parse("bramble-stage: ready"), None);
    }
}
