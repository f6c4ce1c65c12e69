//! One look at the machine.

use super::api::{Api, card, readiness, with_card};
use super::drain;
use super::watch::{Kubernetes, Seen};
use crate::clock;
use bramble_api::document::{Distribution, Kubernetes as Wanted, MachineDocument, Network};
use bramble_api::names::{Role, path};
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;

/// The container runtime's socket.
fn containerd(wanted: &Wanted) -> &'static str {
    match wanted.distribution {
        Distribution::Upstream => "/run/containerd/containerd.sock",
        Distribution::K3s => bramble_kube::k3s::CONTAINERD,
    }
}

/// Looks once. A round is bounded by the API client's timeouts.
///
/// With `may_uncordon` a mark is taken back that an update put on the Node.
pub fn look(document: &MachineDocument, release_time: u64, may_uncordon: bool) -> Seen {
    let has_stated = is_ours(document.network.address);
    Seen {
        has_stated,
        source: source(&document.network),
        kubernetes: document
            .kubernetes
            .as_ref()
            .map(|wanted| kubernetes(document, wanted, has_stated, may_uncordon)),
        data_percent: data_percent(),
        clock: clock::implausible(clock::now(), release_time),
    }
}

/// Only an address that an interface has can be bound to.
fn is_ours(address: Ipv4Addr) -> bool {
    UdpSocket::bind((address, 0)).is_ok()
}

/// The address that a packet to the site would leave with. Connecting a datagram socket sends nothing.
fn source(network: &Network) -> Option<Ipv4Addr> {
    let near = network.gateway.unwrap_or_else(|| network.subnet.broadcast());
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    let _ = socket.set_broadcast(true);
    socket.connect((near, 9)).ok()?;
    match socket.local_addr().ok()? {
        SocketAddr::V4(address) => Some(*address.ip()).filter(|ip| !ip.is_unspecified() && !ip.is_loopback()),
        SocketAddr::V6(_) => None,
    }
}

fn data_percent() -> Option<u64> {
    let data = rustix::fs::statvfs(path::DATA).ok()?;
    let used = data.f_blocks.checked_sub(data.f_bavail)?;
    (used * 100).checked_div(data.f_blocks)
}

fn kubernetes(
    document: &MachineDocument,
    wanted: &Wanted,
    has_stated: bool,
    may_uncordon: bool,
) -> Kubernetes {
    let containerd = containerd(wanted);
    let runtime = match UnixStream::connect(containerd) {
        Ok(_) => Ok(()),
        Err(error) => Err(format!("{containerd}: {error}")),
    };
    // The API is not asked before it can answer: a refused round of TLS costs a Pi more than all the rest.
    if !has_stated || runtime.is_err() {
        let not_asked = || Err("not asked yet".to_string());
        return Kubernetes {
            runtime,
            api: not_asked(),
            ready: not_asked(),
            api_version: None,
            replaced_by: None,
        };
    }
    let opened = Api::of(wanted, &document.machine.incarnation);
    let api = opened.as_ref().map_err(Clone::clone).and_then(|api| match api.get("/readyz")? {
        answer if answer.status == 200 => Ok(api.server()),
        answer => Err(format!("/readyz answers {}", answer.status)),
    });
    let mut replaced_by = None;
    let ready = match (&opened, &api) {
        (Ok(open), Ok(_)) => {
            let path = format!("/api/v1/nodes/{}", document.machine.name);
            open.get(&path).and_then(|answer| match answer.status {
                200 => {
                    if may_uncordon {
                        drain::undo(open, &path, &answer.body);
                    }
                    replaced_by = settle_card(open, &path, &answer.body, document.machine.card);
                    readiness(&answer.body)
                }
                404 => Err("the node is not registered yet".into()),
                status => Err(format!("the API answers {status}")),
            })
        }
        _ => Err("the API is not there".into()),
    };
    // A worker takes no release whose Kubernetes is newer than this.
    let api_version = match (&opened, &api) {
        (Ok(open), Ok(_)) if document.machine.role == Role::Worker => {
            open.get("/version").ok().and_then(|answer| version(&answer.body))
        }
        _ => None,
    };
    Kubernetes { runtime, api, ready, api_version, replaced_by }
}

/// The later card that the cluster knows of this node, if there is one; else makes this card the one it knows. A cluster
/// that cannot be told now is told in another round.
fn settle_card(api: &Api, path: &str, node: &[u8], own: u32) -> Option<u32> {
    match card(node) {
        Some(known) if known > own => Some(known),
        Some(known) if known == own => None,
        _ => {
            let _ = api.merge(path, &with_card(own));
            None
        }
    }
}

/// `gitVersion` of an API server's version.
fn version(body: &[u8]) -> Option<String> {
    let body: serde_json::Value = serde_json::from_slice(body).ok()?;
    Some(body.get("gitVersion")?.as_str()?.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_this_machine_are_ours() {
        assert!(is_ours(Ipv4Addr::LOCALHOST));
        // TEST-NET-1 (RFC 5737) belongs to nobody.
        assert!(!is_ours(Ipv4Addr::new(192, 0, 2, 1)));
    }
}
