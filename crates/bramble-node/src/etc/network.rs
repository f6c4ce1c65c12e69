//! systemd-networkd, resolved and timesyncd: one file an interface. Formats: systemd.network(5), systemd.netdev(5),
//! systemd.link(5).
//!
//! networkd takes the first file by name that fits an interface, so further cards come before the primary one, whose
//! file may fit any wired card.

use super::{Entry, file, link, private};
use bramble_api::document::{Addressing, Interface, Network, Wifi};
use ipnet::Ipv4Net;
use std::collections::BTreeMap;
use std::fmt::Write;

const DIRECTORY: &str = "/etc/systemd/network";
/// A card, and nothing virtual that has its address: VLANs and bridges share the hardware address of what they lie on.
const CARD: &str = "Type=ether\nKind=!*\n";
/// A wireless card.
const WIRELESS: &str = "Type=wlan\n";
const WPA: &str = "/etc/wpa_supplicant";

pub fn render(network: &Network) -> Vec<Entry> {
    let mut entries = vec![
        link("/etc/resolv.conf", "../run/systemd/resolve/stub-resolv.conf"),
        // No fallback: a house's names are not asked of strangers.
        file(
            "/etc/systemd/resolved.conf.d/10-bramble.conf",
            "[Resolve]\nFallbackDNS=\nLLMNR=no\nMulticastDNS=no\n",
        ),
        file("/etc/systemd/timesyncd.conf.d/10-bramble.conf", timesyncd(network)),
        // flannel's and Cilium's routes and rules are theirs; networkd would take them away when it restarts.
        file(
            "/etc/systemd/networkd.conf.d/10-bramble.conf",
            "[Network]\nManageForeignRoutes=no\nManageForeignRoutingPolicyRules=no\n",
        ),
    ];

    // VLANs by the card they lie on; none stands for the primary card.
    let mut vlans: BTreeMap<Option<&str>, Vec<&str>> = BTreeMap::new();
    let primary = network.mac.as_deref();
    for interface in network.interfaces.iter().filter(|interface| interface.vlan.is_some()) {
        let card = interface.mac.as_deref().filter(|mac| Some(*mac) != primary);
        vlans.entry(card).or_default().push(&interface.name);
    }
    for interface in &network.interfaces {
        entries.extend(further(network, interface, &vlans));
        entries.extend(interface.wifi.iter().flat_map(|wifi| supplicant(&interface.name, wifi)));
    }
    // A card that only carries VLANs.
    for (card, names) in vlans.iter().filter_map(|(card, names)| card.map(|card| (card, names))) {
        if !network.interfaces.iter().any(|i| i.vlan.is_none() && i.mac.as_deref() == Some(card)) {
            let text = format!(
                "[Match]\nMACAddress={card}\n{CARD}\n[Network]\nLinkLocalAddressing=no\n{}",
                vlan_lines(Some(names))
            );
            entries.push(file(format!("{DIRECTORY}/10-bramble-{}.network", card.replace(':', "")), text));
        }
    }
    entries.push(file(
        format!("{DIRECTORY}/20-bramble.network"),
        primary_network(network, vlans.get(&None).map(Vec::as_slice)),
    ));
    entries
}

fn timesyncd(network: &Network) -> String {
    // The agent saves the clock itself, six times an hour; timesyncd's own would write to flash every minute.
    let mut text = String::from("[Time]\nSaveIntervalSec=infinity\n");
    if !network.ntp.is_empty() {
        let _ = write!(text, "NTP={}\nFallbackNTP=\n", network.ntp.join(" "));
    }
    text
}

fn vlan_lines(names: Option<&[&str]>) -> String {
    names.unwrap_or_default().iter().map(|name| format!("VLAN={name}\n")).collect()
}

/// Whether this is the primary interface itself: a wireless card with its hardware address.
fn is_primary(network: &Network, interface: &Interface) -> bool {
    interface.wifi.is_some() && interface.mac.is_some() && interface.mac == network.mac
}

/// The machine joins a wireless network. Formats: wpa_supplicant.conf(5); the unit is Debian's own.
fn supplicant(name: &str, wifi: &Wifi) -> [Entry; 2] {
    // In hexadecimal, a name may have any bytes. A passphrase ends at the last quote of its line and has printable
    // characters only; a key of 64 digits stands without quotes.
    let ssid = hex::encode(&wifi.ssid);
    let psk = if wifi.psk.len() == 64 { wifi.psk.clone() } else { format!("\"{}\"", wifi.psk) };
    let text = format!(
        "network={{\n\tssid={ssid}\n\tscan_ssid=1\n\tkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\n\tieee80211w=1\n\tpsk={psk}\n}}\n"
    );
    let unit = format!("wpa_supplicant@{name}.service");
    [
        private(format!("{WPA}/wpa_supplicant-{name}.conf"), text),
        link(
            format!("/etc/systemd/system/multi-user.target.wants/{unit}"),
            "/usr/lib/systemd/system/wpa_supplicant@.service",
        ),
    ]
}

fn primary_network(network: &Network, vlans: Option<&[&str]>) -> String {
    let mut text = String::from("[Match]\n");
    if let Some(mac) = &network.mac {
        let _ = writeln!(text, "MACAddress={mac}");
    }
    let wireless = network.interfaces.iter().any(|interface| is_primary(network, interface));
    text.push_str(if wireless { WIRELESS } else { CARD });
    if let Some(mtu) = network.mtu {
        let _ = write!(text, "\n[Link]\nMTUBytes={mtu}\n");
    }
    text.push_str("\n[Network]\n");
    if network.addressing == Addressing::Static {
        let _ = writeln!(text, "Address={}/{}", network.address, network.subnet.prefix_len());
        if let Some(gateway) = network.gateway {
            let _ = writeln!(text, "Gateway={gateway}");
        }
    } else {
        text.push_str("DHCP=ipv4\n");
    }
    for server in &network.dns {
        let _ = writeln!(text, "DNS={server}");
    }
    if !network.domain.is_empty() {
        let _ = writeln!(text, "Domains={}", network.domain);
    }
    text.push_str(&vlan_lines(vlans));
    if network.addressing == Addressing::Dhcp {
        text.push_str(&dhcp(!network.dns.is_empty(), !network.ntp.is_empty()));
    }
    text
}

/// Routers reserve by hardware address, so that is what the machine calls itself. What the document states beats what
/// the router says.
fn dhcp(own_dns: bool, own_ntp: bool) -> String {
    let unless = |stated: bool| if stated { "no" } else { "yes" };
    format!(
        "\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\nUseDNS={}\nUseNTP={}\n",
        unless(own_dns),
        unless(own_ntp)
    )
}

fn further(
    network: &Network,
    interface: &Interface,
    vlans: &BTreeMap<Option<&str>, Vec<&str>>,
) -> Vec<Entry> {
    let name = &interface.name;
    let mut entries = Vec::new();
    let mut text = String::from("[Match]\n");
    if interface.wifi.is_some() {
        // Without a stated address, the machine's only wireless card. It is called as the file calls it.
        let mac = interface.mac.iter().map(|mac| format!("MACAddress={mac}\n")).collect::<String>();
        entries.push(file(
            format!("{DIRECTORY}/10-bramble-{name}.link"),
            format!("[Match]\n{mac}{WIRELESS}\n[Link]\nName={name}\n"),
        ));
        if is_primary(network, interface) {
            // Its address is the machine's.
            return entries;
        }
        let _ = write!(text, "{mac}{WIRELESS}");
    }
    match (interface.vlan, &interface.mac) {
        _ if interface.wifi.is_some() => {}
        (Some(vlan), _) => {
            let mtu = interface.mtu.map(|mtu| format!("MTUBytes={mtu}\n")).unwrap_or_default();
            entries.push(file(
                format!("{DIRECTORY}/10-bramble-{name}.netdev"),
                format!("[NetDev]\nName={name}\nKind=vlan\n{mtu}\n[VLAN]\nId={vlan}\n"),
            ));
            let _ = writeln!(text, "Name={name}\nKind=vlan");
        }
        (None, Some(mac)) => {
            // The card is called as the file calls it.
            entries.push(file(
                format!("{DIRECTORY}/10-bramble-{name}.link"),
                format!("[Match]\nMACAddress={mac}\n{CARD}\n[Link]\nName={name}\n"),
            ));
            let _ = write!(text, "MACAddress={mac}\n{CARD}");
        }
        (None, None) => {
            let _ = writeln!(text, "Name={name}");
        }
    }
    if let (Some(mtu), None) = (interface.mtu, interface.vlan) {
        let _ = write!(text, "\n[Link]\nMTUBytes={mtu}\n");
    }
    if interface.wifi.is_some() {
        // Air comes and goes: nothing waits for it.
        let head = if interface.mtu.is_some() { "" } else { "\n[Link]\n" };
        let _ = writeln!(text, "{head}RequiredForOnline=no");
    }
    text.push_str("\n[Network]\n");
    match interface.address {
        Some(address) => {
            let _ = writeln!(text, "Address={address}");
        }
        None => text.push_str("DHCP=ipv4\n"),
    }
    if interface.vlan.is_none()
        && let Some(mac) = interface.mac.as_deref().filter(|mac| Some(*mac) != network.mac.as_deref())
    {
        text.push_str(&vlan_lines(vlans.get(&Some(mac)).map(Vec::as_slice)));
    }
    if interface.address.is_none() {
        // The way out and the names are the primary interface's.
        text.push_str(
            "\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\nUseDNS=no\nUseNTP=no\nUseGateway=no\n",
        );
    }
    for (destination, hop) in &interface.routes {
        let destination: &Ipv4Net = destination;
        let _ = write!(text, "\n[Route]\nDestination={destination}\nGateway={hop}\n");
    }
    entries.push(file(format!("{DIRECTORY}/10-bramble-{name}.network"), text));
    entries
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;

    fn network() -> Network {
        fixture::document().network
    }

    fn files(network: &Network) -> BTreeMap<String, String> {
        let file = |entry| match entry {
            Entry::File { path, content, .. } => Some((path, String::from_utf8(content).unwrap())),
            _ => None,
        };
        render(network).into_iter().filter_map(file).collect()
    }

    #[test]
    fn a_static_address_goes_to_the_card_that_is_stated() {
        assert_eq!(
            files(&network())["/etc/systemd/network/20-bramble.network"],
            "[Match]\nMACAddress=dc:a6:32:00:00:01\nType=ether\nKind=!*\n\n[Network]\nAddress=192.168.1.11/24\n\
             Gateway=192.168.1.1\nDNS=192.168.1.1\nDomains=home.arpa\n"
        );
    }

    #[test]
    fn a_reserved_address_is_asked_for_by_hardware_address_on_any_wired_card() {
        let mut network = network();
        network.addressing = Addressing::Dhcp;
        network.mac = None;
        network.mtu = Some(9000);
        network.ntp.clear();
        assert_eq!(
            files(&network)["/etc/systemd/network/20-bramble.network"],
            "[Match]\nType=ether\nKind=!*\n\n[Link]\nMTUBytes=9000\n\n[Network]\nDHCP=ipv4\nDNS=192.168.1.1\n\
             Domains=home.arpa\n\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\nUseDNS=no\nUseNTP=yes\n"
        );
        assert!(!files(&network)["/etc/systemd/timesyncd.conf.d/10-bramble.conf"].contains("NTP="));
    }

    #[test]
    fn vlans_lie_on_the_card_they_name_or_on_the_primary_one() {
        let interface = |name: &str, mac: Option<&str>, vlan, address: Option<&str>| Interface {
            name: name.into(),
            mac: mac.map(Into::into),
            vlan,
            mtu: None,
            address: address.map(|address| address.parse().unwrap()),
            routes: Vec::new(),
            wifi: None,
        };
        let mut network = network();
        network.interfaces = vec![
            interface("iot", None, Some(20), Some("192.168.20.11/24")),
            interface("cam", Some("dc:a6:32:00:00:01"), Some(30), None),
            interface("store", Some("dc:a6:32:00:00:02"), None, Some("10.9.0.1/24")),
            interface("deep", Some("dc:a6:32:00:00:02"), Some(40), None),
            interface("far", Some("dc:a6:32:00:00:03"), Some(50), None),
        ];
        network.interfaces[0].mtu = Some(1400);
        network.interfaces[2].routes = vec![("10.10.0.0/16".parse().unwrap(), "10.9.0.254".parse().unwrap())];
        let files = files(&network);
        let at = |name: &str| files[&format!("/etc/systemd/network/{name}")].as_str();
        assert!(at("20-bramble.network").contains("VLAN=iot\nVLAN=cam\n"));
        assert_eq!(
            at("10-bramble-iot.netdev"),
            "[NetDev]\nName=iot\nKind=vlan\nMTUBytes=1400\n\n[VLAN]\nId=20\n"
        );
        assert_eq!(
            at("10-bramble-iot.network"),
            "[Match]\nName=iot\nKind=vlan\n\n[Network]\nAddress=192.168.20.11/24\n"
        );
        assert!(at("10-bramble-cam.network").contains("DHCP=ipv4\n\n[DHCPv4]\n"));
        assert!(at("10-bramble-cam.network").contains("UseGateway=no"));
        assert!(at("10-bramble-store.network").contains("Address=10.9.0.1/24\nVLAN=deep\n"));
        assert!(
            at("10-bramble-store.network")
                .ends_with("[Route]\nDestination=10.10.0.0/16\nGateway=10.9.0.254\n")
        );
        assert!(at("10-bramble-store.link").ends_with("[Link]\nName=store\n"));
        assert!(at("10-bramble-dca632000003.network").ends_with("LinkLocalAddressing=no\nVLAN=far\n"));
        // Only the card without its own entry gets a carrier file.
        assert!(!files.contains_key("/etc/systemd/network/10-bramble-dca632000002.network"));
    }

    fn wlan(mac: Option<&str>, psk: &str) -> Interface {
        Interface {
            name: "wlan0".into(),
            mac: mac.map(Into::into),
            vlan: None,
            mtu: None,
            address: None,
            routes: Vec::new(),
            wifi: Some(Wifi { ssid: "my \"shed\"".into(), psk: psk.into() }),
        }
    }

    #[test]
    fn a_machine_in_the_air_has_its_address_there() {
        let mut network = network();
        network.interfaces = vec![wlan(network.mac.clone().as_deref(), "correct \"horse\"")];
        let entries = render(&network);
        let files = files(&network);
        assert!(files["/etc/systemd/network/20-bramble.network"].starts_with(
            "[Match]\nMACAddress=dc:a6:32:00:00:01\nType=wlan\n\n[Network]\nAddress=192.168.1.11/24\n"
        ));
        assert_eq!(
            files["/etc/systemd/network/10-bramble-wlan0.link"],
            "[Match]\nMACAddress=dc:a6:32:00:00:01\nType=wlan\n\n[Link]\nName=wlan0\n"
        );
        assert!(!files.contains_key("/etc/systemd/network/10-bramble-wlan0.network"));
        assert_eq!(
            files["/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"],
            "network={\n\tssid=6d7920227368656422\n".to_string()
                + "\tscan_ssid=1\n\tkey_mgmt=WPA-PSK WPA-PSK-SHA256 SAE\n\tieee80211w=1\n\tpsk=\"correct \"horse\"\"\n}\n"
        );
        let secret = entries.iter().find(|e| e.path().ends_with("wpa_supplicant-wlan0.conf"));
        assert!(matches!(secret, Some(Entry::File { mode: 0o600, .. })));
        assert!(entries.iter().any(|e| matches!(e, Entry::Link { path, target }
            if path.ends_with("multi-user.target.wants/wpa_supplicant@wlan0.service")
                && target == "/usr/lib/systemd/system/wpa_supplicant@.service")));
    }

    #[test]
    fn air_beside_a_cable_is_waited_for_by_nobody() {
        let mut network = network();
        network.interfaces = vec![wlan(None, &"0a".repeat(32))];
        let files = files(&network);
        assert!(files["/etc/systemd/network/20-bramble.network"].contains("Type=ether"));
        assert!(
            files["/etc/systemd/network/10-bramble-wlan0.network"]
                .starts_with("[Match]\nType=wlan\n\n[Link]\nRequiredForOnline=no\n\n[Network]\nDHCP=ipv4\n")
        );
        let key = format!("\tpsk={}\n", "0a".repeat(32));
        assert!(files["/etc/wpa_supplicant/wpa_supplicant-wlan0.conf"].contains(&key));
    }
}
