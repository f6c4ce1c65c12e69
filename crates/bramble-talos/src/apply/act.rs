//! The acts. Each looks again before it writes: since the decision somebody else may have been there.

use super::{Likeness, Wanted};
use crate::machine::{Applied, Bootstrapped, CallError, Code, Credentials, Met, Mode, meet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// An act that did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The call failed.
    #[error(transparent)]
    Call(#[from] CallError),
    /// Talos does not take the config.
    #[error("Talos does not take the config of {node}")]
    Config {
        /// Whose.
        node: String,
        /// What it says.
        source: CallError,
    },
    /// Somebody else answers than the one that was decided about.
    #[error("{node} is not the machine any more that it was a moment ago: {what}")]
    Other {
        /// Who was meant.
        node: String,
        /// What is different.
        what: String,
    },
    /// The machine would reboot for it.
    #[error("{node} takes its new config only with a reboot")]
    Reboots {
        /// Which.
        node: String,
    },
    /// Not yet: the machine's own words.
    #[error("{node} is not ready for it yet")]
    NotYet {
        /// Which.
        node: String,
        /// What it says.
        source: crate::machine::Refusal,
    },
}

impl ActError {
    /// Whether another look, and the act again, may well succeed.
    pub fn passing(&self) -> bool {
        match self {
            ActError::Call(error) => error.passing(),
            ActError::Other { .. } | ActError::NotYet { .. } => true,
            ActError::Config { .. } | ActError::Reboots { .. } => false,
        }
    }
}

fn other<T>(wanted: &Wanted, what: &str) -> Result<T, ActError> {
    Err(ActError::Other { node: wanted.name.clone(), what: what.into() })
}

fn config_error(wanted: &Wanted, error: CallError) -> ActError {
    match error.code() {
        Some(Code::InvalidArgument) => ActError::Config { node: wanted.name.clone(), source: error },
        _ => ActError::Call(error),
    }
}

/// Gives a machine in maintenance mode at `address` its first config, when it shows the key that was seen and is the machine that
/// the file means. Both are asked over the connection that the config then takes.
///
/// # Errors
/// See [`ActError`]. When the connection breaks, the machine may have the config.
pub fn push(
    wanted: &Wanted,
    address: SocketAddr,
    fingerprint: &str,
    credentials: &Credentials,
    now: u64,
    stop: &Arc<AtomicBool>,
) -> Result<Applied, ActError> {
    let client = match meet(address, Some(credentials), now, stop)? {
        Met::Maintenance(client) => client,
        Met::Ours(_) => return other(wanted, "it has a config of this cluster now"),
        Met::Foreign => return other(wanted, "it has a config of another cluster now"),
    };
    if client.fingerprint().is_none_or(|f| f.0 != fingerprint) {
        return other(wanted, "it shows another key");
    }
    if wanted.known_by.compare(&client.hardware()?) != Likeness::Same {
        return other(wanted, "it is other hardware");
    }
    client.apply(&wanted.config, Mode::Auto, false).map_err(|e| config_error(wanted, e))
}

/// Gives a configured machine another config. The machine tries it first without taking it; when it would reboot,
/// that must be allowed.
///
/// # Errors
/// See [`ActError`].
pub fn configure(
    wanted: &Wanted,
    reboot: bool,
    credentials: &Credentials,
    now: u64,
    stop: &Arc<AtomicBool>,
) -> Result<Applied, ActError> {
    let Met::Ours(client) = meet(wanted.address, Some(credentials), now, stop)? else {
        return other(wanted, "it is not of this cluster");
    };
    let tried = client.apply(&wanted.config, Mode::Auto, true).map_err(|e| config_error(wanted, e))?;
    if tried.reboots && !reboot {
        return Err(ActError::Reboots { node: wanted.name.clone() });
    }
    client.apply(&wanted.config, Mode::Auto, false).map_err(|e| config_error(wanted, e))
}

/// Tells a machine to begin etcd. `true` when it had done so before.
///
/// # Errors
/// See [`ActError`]. When the connection breaks, it may have begun; asked again it says so.
pub fn bootstrap(
    wanted: &Wanted,
    credentials: &Credentials,
    now: u64,
    stop: &Arc<AtomicBool>,
) -> Result<bool, ActError> {
    let Met::Ours(client) = meet(wanted.address, Some(credentials), now, stop)? else {
        return other(wanted, "it is not of this cluster");
    };
    match client.bootstrap(false)? {
        Bootstrapped::Begun => Ok(false),
        Bootstrapped::Already => Ok(true),
        Bootstrapped::NotYet(words) => {
            Err(ActError::NotYet { node: wanted.name.clone(), source: crate::machine::Refusal(words) })
        }
    }
}
