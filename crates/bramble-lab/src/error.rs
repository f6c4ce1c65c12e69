//! What can go wrong, for the caller and on the wire between caller and lab host.

use bramble_api::names::Arch;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

use crate::qemu::{RASPI4B, version};

/// An act of the lab's client failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The lab host understood and said no.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// No lab host runs for this directory.
    #[error("no lab runs in {}", dir.display())]
    NotRunning {
        /// The lab's directory.
        dir: PathBuf,
    },
    /// The lab host ended before it answered.
    #[error("the lab host of {} ended before it answered: {last_words}", dir.display())]
    HostDied {
        /// The lab's directory.
        dir: PathBuf,
        /// The end of its log.
        last_words: String,
    },
    /// The connection to the lab host broke, or it said something unknown.
    #[error("talking to the lab host of {} failed", dir.display())]
    Talk {
        /// The lab's directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of the lab could not be read or written.
    #[error("could not {doing} {}", path.display())]
    File {
        /// The act.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl Error {
    /// What to try, one sentence.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Refused(refusal) => refusal.hint(),
            Error::NotRunning { .. } => Some("start it with `bramble lab up`".into()),
            Error::HostDied { .. } | Error::Talk { .. } => Some("run `bramble lab up` again".into()),
            Error::File { source, .. } if is_full(source) => {
                Some("make room on this disk and run it again".into())
            }
            Error::File { .. } => None,
        }
    }
}

/// The lab host cannot do what it was asked. Carries the system's reason as text because it crosses a socket.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", rename_all_fields = "camelCase")]
#[non_exhaustive]
pub enum Refusal {
    /// The lab as described contradicts itself.
    #[error("this lab cannot be: {what}")]
    BadSpec {
        /// The contradiction.
        what: String,
    },
    /// No firmware is stated for an architecture that needs it.
    #[error("no UEFI firmware for {arch}")]
    NoFirmware {
        /// The architecture.
        arch: Arch,
    },
    /// QEMU is not there.
    #[error("{program} was not found")]
    QemuMissing {
        /// Its name or path.
        program: String,
        /// The architecture it is for.
        arch: Arch,
    },
    /// QEMU is older than [`crate::qemu::OLDEST`].
    #[error("{program} is version {found}; the lab needs {needed} or newer")]
    QemuTooOld {
        /// Its path.
        program: String,
        /// What it says it is.
        found: String,
        /// The oldest that serves.
        needed: String,
    },
    /// QEMU ended at once.
    #[error("QEMU ended while {machine} was starting: {last_words}")]
    QemuFailed {
        /// The machine.
        machine: String,
        /// The end of what it wrote.
        last_words: String,
    },
    /// The firmware that the lab plays finds nothing to start on the machine's disk.
    #[error("the firmware of {machine} starts nothing: {why}")]
    NoBoot {
        /// The machine.
        machine: String,
        /// What the firmware model says.
        why: String,
    },
    /// A port of this computer is taken.
    #[error("port {port} of 127.0.0.1, which should lead to {node}, is in use")]
    PortInUse {
        /// The port.
        port: u16,
        /// The machine it was for.
        node: String,
    },
    /// The lab has no such machine.
    #[error("the lab has no machine {name:?}")]
    NoSuchMachine {
        /// What was asked for.
        name: String,
        /// The machines it has.
        known: Vec<String>,
    },
    /// The act needs a machine that runs.
    #[error("{machine} is not running")]
    NotRunning {
        /// The machine.
        machine: String,
    },
    /// The act needs a machine that is off.
    #[error("{machine} is running")]
    Running {
        /// The machine.
        machine: String,
    },
    /// Something that machines share cannot change while machines run.
    #[error("the lab's {what} cannot change while machines run")]
    SiteChanged {
        /// What differs.
        what: String,
    },
    /// A file below an existing disk is no longer what it was.
    #[error("{} is not the file {machine}'s disk was made from", path.display())]
    BaseChanged {
        /// The machine.
        machine: String,
        /// The file.
        path: PathBuf,
    },
    /// The computer's disk is full.
    #[error("no room left to write {}", path.display())]
    DiskFull {
        /// The file.
        path: PathBuf,
    },
    /// The system said no.
    #[error("could not {doing} {}: {reason}", path.display())]
    System {
        /// The act.
        doing: String,
        /// The file or socket.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The time given was not enough.
    #[error("{machine}: {what} did not come within {seconds} s; its last line was {last_line:?}")]
    TimedOut {
        /// The machine.
        machine: String,
        /// What was waited for.
        what: String,
        /// How long.
        seconds: u64,
        /// The console's last line.
        last_line: String,
    },
    /// The machine went off while it was waited for.
    #[error("{machine} went off while {what} was awaited; its last line was {last_line:?}")]
    WentOff {
        /// The machine.
        machine: String,
        /// What was waited for.
        what: String,
        /// The console's last line.
        last_line: String,
    },
}

impl Refusal {
    /// What to try, one sentence.
    pub fn hint(&self) -> Option<String> {
        let package = |arch: &Arch| match arch {
            Arch::Amd64 => "qemu-system-x86",
            Arch::Arm64 => "qemu-system-arm",
        };
        Some(match self {
            Refusal::QemuMissing { arch, .. } if cfg!(target_os = "macos") => {
                format!("`brew install qemu` brings it (for {arch} machines)")
            }
            Refusal::QemuMissing { arch, .. } => format!("`sudo apt install {}` brings it", package(arch)),
            Refusal::QemuTooOld { needed, .. } if *needed == version(RASPI4B) => format!(
                "QEMU {needed} came with Debian 13 and Ubuntu 24.10; on Debian 12 bookworm-backports has a newer one"
            ),
            Refusal::QemuTooOld { needed, .. } => {
                format!("Debian 12, Ubuntu 23.04 and everything later have QEMU {needed} or newer")
            }
            Refusal::NoFirmware { arch: Arch::Amd64 } => "`sudo apt install ovmf` brings it".into(),
            Refusal::NoFirmware { arch: Arch::Arm64 } => {
                "`sudo apt install qemu-efi-aarch64` brings it".into()
            }
            Refusal::PortInUse { port, .. } => {
                format!(
                    "`ss -ltnp 'sport = :{port}'` shows who has it; or take port 0, which chooses a free one"
                )
            }
            Refusal::NoSuchMachine { known, .. } => format!("it has {}", known.join(", ")),
            Refusal::NotRunning { machine } => format!("`bramble lab up` powers {machine} on"),
            Refusal::Running { machine } => format!("`bramble lab kill {machine}` switches it off"),
            Refusal::SiteChanged { .. } => "`bramble lab down` first".into(),
            Refusal::BaseChanged { .. } => "`bramble lab down --destroy` makes room for a fresh disk".into(),
            Refusal::DiskFull { .. } => "make room on this disk and run it again; nothing is lost".into(),
            Refusal::QemuFailed { .. }
            | Refusal::NoBoot { .. }
            | Refusal::TimedOut { .. }
            | Refusal::WentOff { .. } => "`bramble lab logs` shows the whole console".into(),
            Refusal::BadSpec { .. } | Refusal::System { .. } => return None,
        })
    }

    /// Maps what the system said about a file.
    pub(crate) fn io(doing: &str, path: &Path, error: &io::Error) -> Refusal {
        if is_full(error) {
            Refusal::DiskFull { path: path.to_path_buf() }
        } else {
            Refusal::System { doing: doing.into(), path: path.to_path_buf(), reason: error.to_string() }
        }
    }
}

/// Whether the system said that there is no room: device full or quota used up.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
