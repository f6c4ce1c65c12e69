//! Who is there, and how far each is.

use super::{Likeness, Wanted};
use crate::config::Role;
use crate::difference;
use crate::machine::{CallError, Client, Credentials, Fingerprint, Hardware, Met, Running, Stage, meet};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// How many machines are asked at a time.
const TOGETHER: usize = 16;
/// How many addresses are tried at a time, and how long each: a machine on the same network answers in less.
const KNOCKS: usize = 64;
const KNOCK: Duration = Duration::from_millis(700);

/// What was seen of one machine.
#[derive(Debug)]
pub enum Seen {
    /// Nobody answers, or an answer broke off.
    Silent(CallError),
    /// A machine without a config.
    Maintenance {
        /// Where it was found: its stated address, or another.
        address: SocketAddr,
        /// The key of its certificate, which its console shows.
        fingerprint: Fingerprint,
        /// What it was started from.
        running: Running,
        /// What it is known by.
        hardware: Hardware,
    },
    /// A machine of another cluster. It was told nothing.
    Foreign,
    /// A machine of this cluster.
    Ours(Ours),
}

/// A machine of this cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ours {
    /// What runs on it.
    pub running: Running,
    /// How far it is.
    pub stage: Stage,
    /// How the config that it keeps differs from the file's, by place and without secrets.
    pub difference: Vec<String>,
    /// It is a member of etcd.
    pub member: bool,
    /// Everyone who is a member of etcd, as it knows.
    pub members: Vec<String>,
}

/// Looks at every machine, several at a time, in the order given. `now` in seconds since the epoch.
pub fn look(wanted: &[Wanted], credentials: &Credentials, now: u64, stop: &Arc<AtomicBool>) -> Vec<Seen> {
    let broke = |wanted: &Wanted| CallError::Nonsense {
        method: "looking",
        address: wanted.address,
        what: "it made us panic, which is a bug of ours",
    };
    let seen = together(wanted, TOGETHER, |wanted| see(wanted, credentials, now, stop));
    seen.into_iter().zip(wanted).map(|(seen, w)| seen.unwrap_or_else(|| Seen::Silent(broke(w)))).collect()
}

fn see(wanted: &Wanted, credentials: &Credentials, now: u64, stop: &Arc<AtomicBool>) -> Seen {
    let seen = match meet(wanted.address, Some(credentials), now, stop) {
        Ok(Met::Foreign) => return Seen::Foreign,
        Ok(Met::Maintenance(client)) => unconfigured(&client),
        Ok(Met::Ours(client)) => configured(wanted, &client).map(Seen::Ours),
        Err(error) => Err(error),
    };
    seen.unwrap_or_else(Seen::Silent)
}

fn unconfigured(client: &Client) -> Result<Seen, CallError> {
    let (running, hardware) = (client.version()?, client.hardware()?);
    let fingerprint = client.fingerprint().cloned().unwrap_or(Fingerprint(String::new()));
    Ok(Seen::Maintenance { address: client.address(), fingerprint, running, hardware })
}

fn configured(wanted: &Wanted, client: &Client) -> Result<Ours, CallError> {
    let nonsense = |what| CallError::Nonsense { method: "Get", address: wanted.address, what };
    let difference = match client.config()? {
        Some(kept) => difference::between(kept.expose(), wanted.config.expose())
            .map_err(|_| nonsense("its config is not YAML"))?,
        None => vec!["it keeps no config".into()],
    };
    let member = wanted.role == Role::ControlPlane && client.etcd_member()?.is_some();
    let members = match member {
        // Asked of a member alone: another one waits for an etcd that is not there.
        true => client
            .etcd_members()
            .map_or_else(|_| Vec::new(), |all| all.into_iter().map(|m| m.hostname).collect()),
        false => Vec::new(),
    };
    Ok(Ours { running: client.version()?, stage: client.stage()?, difference, member, members })
}

/// At which of these a configured machine answers, of whatever cluster. It is told nothing.
pub fn configured_ones(addresses: &[SocketAddr], now: u64, stop: &Arc<AtomicBool>) -> Vec<SocketAddr> {
    let answers = |address| matches!(meet(address, None, now, stop), Ok(Met::Foreign));
    together(addresses, TOGETHER, |address| answers(*address).then_some(*address))
        .into_iter()
        .flatten()
        .flatten()
        .collect()
}

/// Looks in further places for machines of which nothing was seen: without a lease reserved for them, they come up at
/// addresses that nobody stated. Only a machine in maintenance mode is found so, and only by its hardware.
pub fn find(
    wanted: &[Wanted],
    mut seen: Vec<Seen>,
    places: &[SocketAddr],
    now: u64,
    stop: &Arc<AtomicBool>,
) -> Vec<Seen> {
    let silent = |seen: &Seen| matches!(seen, Seen::Silent(CallError::Unreachable { .. }));
    if !seen.iter().any(silent) {
        return seen;
    }
    let unstated: Vec<SocketAddr> =
        places.iter().copied().filter(|place| !wanted.iter().any(|w| w.address == *place)).collect();
    let open = |place: &SocketAddr| TcpStream::connect_timeout(place, KNOCK).is_ok().then_some(*place);
    let open: Vec<SocketAddr> = together(&unstated, KNOCKS, open).into_iter().flatten().flatten().collect();
    let waiting = |place: &SocketAddr| match meet(*place, None, now, stop) {
        Ok(Met::Maintenance(client)) => unconfigured(&client).ok(),
        _ => None,
    };
    let mut found: Vec<Seen> = together(&open, TOGETHER, waiting).into_iter().flatten().flatten().collect();
    for (wanted, seen) in wanted.iter().zip(&mut seen).filter(|(_, seen)| silent(seen)) {
        let same = |found: &Seen| matches!(found, Seen::Maintenance { hardware, .. } if wanted.known_by.compare(hardware) == Likeness::Same);
        // Two that look alike are none.
        if found.iter().filter(|found| same(found)).count() == 1
            && let Some(place) = found.iter().position(same)
        {
            *seen = found.swap_remove(place);
        }
    }
    seen
}

/// Does something with each, so many at a time; `None` where that ended in a panic.
fn together<T: Sync, R: Send>(all: &[T], many: usize, each: impl Fn(&T) -> R + Sync) -> Vec<Option<R>> {
    let mut results = Vec::with_capacity(all.len());
    for part in all.chunks(many) {
        std::thread::scope(|scope| {
            let each = &each;
            let threads: Vec<_> = part.iter().map(|one| scope.spawn(move || each(one))).collect();
            results.extend(threads.into_iter().map(|thread| thread.join().ok()));
        });
    }
    results
}
