//! `bramble network`: what the router is told, and what this computer sees of it.

use crate::cli::Output;
use crate::problem::Problem;
use crate::settings::Settings;
use crate::site::Site;
use bramble_console::{Exit, Table};
use bramble_effects::Failure;
use bramble_spec::{Addressing, EffectiveNode};
use serde::Serialize;
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// What the router reserves for one machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reservation {
    name: String,
    mac: Option<String>,
    address: Ipv4Addr,
    /// The machine asks the router; else it takes the address by itself, and the router must only not give it away.
    asks: bool,
    seen: Seen,
}

/// What this computer knows of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Seen {
    /// Nothing: it is off, or this computer is in another network.
    No,
    /// It is where it should be.
    AsStated,
    /// The machine has another address.
    Elsewhere(Ipv4Addr),
    /// Another machine has its address.
    TakenBy(String),
    /// Somebody has the address; the file does not say who should.
    By(String),
}

impl Seen {
    fn words(&self) -> String {
        match self {
            Seen::No => "not seen".into(),
            Seen::AsStated => "as stated".into(),
            Seen::Elsewhere(address) => format!("is at {address}"),
            Seen::TakenBy(mac) => format!("taken by {mac}"),
            Seen::By(mac) => format!("answers as {mac}"),
        }
    }

    fn wrong(&self) -> bool {
        matches!(self, Seen::Elsewhere(_) | Seen::TakenBy(_))
    }
}

/// Shows the table.
pub(crate) fn reservations(settings: &Settings, output: Output) -> Result<Exit, Problem> {
    let site = Site::load(settings)?;
    let neighbours = neighbours(&std::fs::read_to_string("/proc/net/arp").unwrap_or_default());
    let rows = rows(&site.cluster.effective_nodes(), &neighbours);
    match output {
        Output::Json => bramble_console::json(&rows),
        Output::Name => rows.iter().for_each(|r| bramble_console::data(&r.name)),
        Output::Text => {
            let mut table = Table::new(&["name", "hardware address", "address", "the machine", "seen"]);
            for row in &rows {
                let asks = if row.asks { "asks the router" } else { "takes it itself" };
                let mac = row.mac.as_deref().unwrap_or("-");
                table.row(&[&row.name, mac, &row.address.to_string(), asks, &row.seen.words()]);
            }
            bramble_console::data(&table.to_string());
        }
    }
    for row in rows.iter().filter(|r| r.mac.is_none() && r.asks) {
        bramble_console::warning(&format!(
            "{} asks the router for its address and states no `mac`, by which the router would know it",
            row.name
        ));
    }
    match rows.iter().find(|r| r.seen.wrong()) {
        None => Ok(Exit::Done),
        Some(row) => Err(Failure::user(format!("{}: {} {}", row.name, row.address, row.seen.words()))
            .hint("change the reservation in the router, then restart the machine; or state in the file what is so")
            .into()),
    }
}

fn rows(nodes: &[EffectiveNode], neighbours: &BTreeMap<Ipv4Addr, String>) -> Vec<Reservation> {
    let row = |node: &EffectiveNode| {
        let mac = node.mac.map(|m| m.to_string());
        Reservation {
            name: node.name.clone(),
            seen: seen(mac.as_deref(), node.address, neighbours),
            mac,
            address: node.address,
            asks: node.addressing == Addressing::Dhcp,
        }
    };
    nodes.iter().map(row).collect()
}

fn seen(mac: Option<&str>, address: Ipv4Addr, neighbours: &BTreeMap<Ipv4Addr, String>) -> Seen {
    let there = neighbours.get(&address);
    match (mac, there) {
        (Some(mac), Some(found)) if found == mac => Seen::AsStated,
        (Some(_), Some(other)) => Seen::TakenBy(other.clone()),
        (None, Some(found)) => Seen::By(found.clone()),
        (Some(mac), None) => match neighbours.iter().find(|(_, m)| *m == mac) {
            Some((elsewhere, _)) => Seen::Elsewhere(*elsewhere),
            None => Seen::No,
        },
        (None, None) => Seen::No,
    }
}

/// The kernel's table of neighbours: those whose hardware address is known (flag 2, `ATF_COM` of linux/if_arp.h).
fn neighbours(table: &str) -> BTreeMap<Ipv4Addr, String> {
    let line = |line: &str| -> Option<(Ipv4Addr, String)> {
        let mut words = line.split_whitespace();
        let address = words.next()?.parse().ok()?;
        let flags = u32::from_str_radix(words.nth(1)?.strip_prefix("0x")?, 16).ok()?;
        let mac = words.next()?.to_ascii_lowercase();
        (flags & 2 != 0).then_some((address, mac))
    };
    table.lines().filter_map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ARP: &str = "IP address       HW type     Flags       HW address            Mask     Device\n\
        192.168.1.11     0x1         0x2         DC:A6:32:00:00:01     *        eth0\n\
        192.168.1.12     0x1         0x2         dc:a6:32:00:00:99     *        eth0\n\
        192.168.1.77     0x1         0x2         dc:a6:32:00:00:03     *        eth0\n\
        192.168.1.14     0x1         0x0         00:00:00:00:00:00     *        eth0\n";

    #[test]
    fn what_is_seen_is_held_against_what_is_stated() {
        let known = neighbours(ARP);
        assert_eq!(known.len(), 3);
        let at = |mac: Option<&str>, last| seen(mac, Ipv4Addr::new(192, 168, 1, last), &known);
        assert_eq!(at(Some("dc:a6:32:00:00:01"), 11), Seen::AsStated);
        assert_eq!(at(Some("dc:a6:32:00:00:02"), 12), Seen::TakenBy("dc:a6:32:00:00:99".into()));
        assert_eq!(at(Some("dc:a6:32:00:00:03"), 13), Seen::Elsewhere(Ipv4Addr::new(192, 168, 1, 77)));
        assert_eq!(at(Some("dc:a6:32:00:00:04"), 14), Seen::No);
        assert_eq!(at(None, 11), Seen::By("dc:a6:32:00:00:01".into()));
        assert!(at(Some("dc:a6:32:00:00:02"), 12).wrong() && !at(None, 11).wrong());
    }
}
