//! From machines that wait for a config to a cluster: look, decide, act, and look again.
//!
//! Nothing is remembered between two looks but who founds the cluster ([`Founding`]), and that is written down before
//! the act. So a run that is cut off anywhere is gone on with by the next: it sees what is there. What is not done is
//! said with what it waits for.
//!
//! A config goes to a machine in maintenance mode only when the machine is known by its hardware, over the very
//! connection on which that was asked; and to a configured one only when its certificate is of the cluster's authority.

mod act;
mod decide;
mod look;

pub use act::{ActError, bootstrap, configure, push};
pub use decide::{Act, Decision, Founding, Waiting, decide};
pub use look::{Ours, Seen, configured_ones, find, look};

use crate::config::Role;
use crate::machine::Hardware;
use bramble_secrets::SecretText;
use bramble_spec::Version;
use std::net::SocketAddr;

/// A machine as the file wants it.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// Where its API is.
    pub address: SocketAddr,
    /// What it does.
    pub role: Role,
    /// The Talos that it is to run.
    pub version: Version,
    /// What it is known by before it has a config.
    pub known_by: KnownBy,
    /// Its config.
    pub config: SecretText,
}

/// What the file says of a machine's hardware.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownBy {
    /// Hardware addresses, in small letters.
    pub macs: Vec<String>,
    /// Serials of disks.
    pub serials: Vec<String>,
    /// World-wide names of disks.
    pub wwids: Vec<String>,
}

/// How a machine compares with what the file says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Likeness {
    /// It has all that is stated.
    Same,
    /// The file states nothing to know it by.
    Unknown,
    /// Something stated is not there.
    Other {
        /// What is missing.
        missing: String,
    },
}

impl KnownBy {
    /// Whether a machine is the one that is meant. Everything that is stated must be there: a disk that was moved to
    /// another machine must not make that one the same.
    pub fn compare(&self, hardware: &Hardware) -> Likeness {
        if self.macs.is_empty() && self.serials.is_empty() && self.wwids.is_empty() {
            return Likeness::Unknown;
        }
        let mac = self
            .macs
            .iter()
            .find(|mac| !hardware.macs.contains(mac))
            .map(|mac| format!("the network card {mac}"));
        let serial = self.serials.iter().find(|serial| !hardware.disks.iter().any(|d| d.serial == **serial));
        let serial = serial.map(|serial| format!("the disk with the serial {serial:?}"));
        let wwid = self.wwids.iter().find(|wwid| !hardware.disks.iter().any(|d| d.wwid == **wwid));
        let wwid = wwid.map(|wwid| format!("the disk with the WWID {wwid:?}"));
        match mac.or(serial).or(wwid) {
            Some(missing) => Likeness::Other { missing },
            None => Likeness::Same,
        }
    }
}

#[cfg(test)]
mod tests;
