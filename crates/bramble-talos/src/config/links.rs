//! Documents of the network that both releases have.

use super::shared::named;
use super::{Link, Machine};
use crate::yaml::{Map, Value};

/// Any document about a link or about DHCP turns Talos' own DHCP off on *all* links, so the links are written out as
/// soon as one of them needs anything.
pub(super) fn links(machine: &Machine) -> Vec<Map> {
    let mut out = Vec::new();
    for link in &machine.links {
        let vlan_elsewhere = link.vlan.as_ref().is_some_and(|vlan| vlan.parent.is_some());
        if !vlan_elsewhere {
            let name = base_name(link);
            out.push(
                named("LinkAliasConfig", name).with("selector", Map::new().with("match", selector(link))),
            );
        }
    }
    for link in &machine.links {
        match &link.vlan {
            None => out.push(common(named("LinkConfig", &link.name), link)),
            Some(vlan) => {
                let parent = vlan.parent.clone().unwrap_or_else(|| base_name(link));
                if vlan.parent.is_none() {
                    out.push(named("LinkConfig", &parent).with("up", true));
                }
                let start = named("VLANConfig", &link.name)
                    .with("vlanID", u64::from(vlan.id))
                    .with("vlanMode", "802.1q")
                    .with("parent", parent);
                out.push(common(start, link));
            }
        }
        if link.addresses.is_empty() {
            out.push(named("DHCPv4Config", &link.name));
        }
    }
    if let Some((address, link)) = &machine.vip {
        out.push(named("Layer2VIPConfig", address.to_string()).with("link", link.clone()));
    }
    out
}

/// What the card is called: a VLAN on it has the link's own name.
fn base_name(link: &Link) -> String {
    match &link.vlan {
        Some(_) => format!("{}-base", link.name),
        None => link.name.clone(),
    }
}

fn selector(link: &Link) -> String {
    match &link.mac {
        Some(mac) => format!("mac(link.permanent_addr) == \"{mac}\""),
        // A wired card: Ethernet (ARPHRD 1), not made by software, with a driver, not wireless.
        None => "link.type == 1 && link.kind == \"\" && link.driver != \"\" && link.bus_path != \"\"".into(),
    }
}

fn common(mut document: Map, link: &Link) -> Map {
    document.set("up", true);
    if let Some(mtu) = link.mtu {
        document.set("mtu", u64::from(mtu));
    }
    if !link.addresses.is_empty() {
        let addresses = link.addresses.iter().map(|a| Map::new().with("address", a.clone()));
        document.set("addresses", addresses.collect::<Value>());
    }
    if !link.routes.is_empty() {
        let routes = link.routes.iter().map(|(to, via)| {
            Map::new().with_some("destination", to.clone()).with("gateway", via.to_string())
        });
        document.set("routes", routes.collect::<Value>());
    }
    document
}
