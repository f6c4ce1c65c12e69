//! The gateway's DHCP server (RFC 2131, 2132): each MAC has the one address that the lab's description gives it,
//! and strangers get none. A pure function from frame to frame: the client has no address yet, so that the
//! gateway's own TCP/IP could not reach it.

use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    DhcpMessageType, DhcpOption, DhcpPacket, DhcpRepr, EthernetAddress, EthernetFrame, EthernetProtocol,
    EthernetRepr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, UdpPacket, UdpRepr,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use crate::spec::Mac;

const SERVER_PORT: u16 = 67;
const CLIENT_PORT: u16 = 68;

/// Long enough that a rehearsal sees no renewal by chance, short enough that a test of one can wait for it (a
/// client renews at half).
const LEASE_SECONDS: u32 = 3600;

const OPT_HOST_NAME: u8 = 12;
const OPT_DOMAIN_NAME: u8 = 15;
const OPT_NTP_SERVERS: u8 = 42;

/// What the server knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Leases {
    pub(crate) mac: Mac,
    pub(crate) gateway: Ipv4Addr,
    pub(crate) netmask: Ipv4Addr,
    pub(crate) domain: String,
    /// Address and host name of each MAC that is answered.
    pub(crate) by_mac: BTreeMap<Mac, (Ipv4Addr, String)>,
}

/// Whether a frame is meant for a DHCP server, whoever should answer it.
pub(crate) fn is_for_server(frame: &[u8]) -> bool {
    payload(frame).is_some()
}

fn payload(frame: &[u8]) -> Option<(EthernetAddress, &[u8])> {
    let ethernet = EthernetFrame::new_checked(frame).ok()?;
    if ethernet.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let ip = Ipv4Packet::new_checked(&frame[EthernetFrame::<&[u8]>::header_len()..]).ok()?;
    if ip.next_header() != IpProtocol::Udp || ip.frag_offset() != 0 {
        return None;
    }
    let start = EthernetFrame::<&[u8]>::header_len() + usize::from(ip.header_len());
    let end = EthernetFrame::<&[u8]>::header_len() + usize::from(ip.total_len());
    let udp = UdpPacket::new_checked(frame.get(start..end)?).ok()?;
    if udp.dst_port() != SERVER_PORT {
        return None;
    }
    Some((ethernet.src_addr(), frame.get(start + 8..start + usize::from(udp.len()))?))
}

/// The answering frame; `None` when there is nothing to say.
pub(crate) fn answer(leases: &Leases, frame: &[u8]) -> Option<Vec<u8>> {
    let (source, payload) = payload(frame)?;
    let packet = DhcpPacket::new_checked(payload).ok()?;
    let question = DhcpRepr::parse(&packet).ok()?;
    let (address, host) = leases.by_mac.get(&Mac(question.client_hardware_address.0))?;
    if question.server_identifier.is_some_and(|s| s != leases.gateway) {
        return None;
    }
    let message_type = match question.message_type {
        DhcpMessageType::Discover => DhcpMessageType::Offer,
        DhcpMessageType::Request => {
            let wanted = question.requested_ip.unwrap_or(question.client_ip);
            if wanted == *address { DhcpMessageType::Ack } else { DhcpMessageType::Nak }
        }
        _ => return None,
    };
    let granted = message_type != DhcpMessageType::Nak;
    let ntp = leases.gateway.octets();
    let options = [
        DhcpOption { kind: OPT_HOST_NAME, data: host.as_bytes() },
        DhcpOption { kind: OPT_DOMAIN_NAME, data: leases.domain.as_bytes() },
        DhcpOption { kind: OPT_NTP_SERVERS, data: &ntp },
    ];
    let options =
        if leases.domain.is_empty() { [&options[..1], &options[2..]].concat() } else { options.to_vec() };
    // A client that renews has its address and can be spoken to; all others hear a broadcast only.
    let renewing = granted && question.client_ip == *address;
    let reply = DhcpRepr {
        message_type,
        your_ip: if granted { *address } else { Ipv4Addr::UNSPECIFIED },
        server_ip: leases.gateway,
        client_ip: if renewing { question.client_ip } else { Ipv4Addr::UNSPECIFIED },
        router: granted.then_some(leases.gateway),
        subnet_mask: granted.then_some(leases.netmask),
        requested_ip: None,
        client_identifier: None,
        server_identifier: Some(leases.gateway),
        parameter_request_list: None,
        dns_servers: granted.then(|| [leases.gateway].into_iter().collect()),
        max_size: None,
        lease_duration: granted.then_some(LEASE_SECONDS),
        renew_duration: None,
        rebind_duration: None,
        additional_options: if granted { &options } else { &[] },
        ..question
    };
    let (to_mac, to) = if renewing {
        (source, question.client_ip)
    } else {
        (EthernetAddress::BROADCAST, Ipv4Addr::BROADCAST)
    };
    build(leases, to_mac, to, &reply)
}

fn build(leases: &Leases, to_mac: EthernetAddress, to: Ipv4Addr, reply: &DhcpRepr<'_>) -> Option<Vec<u8>> {
    let udp = UdpRepr { src_port: SERVER_PORT, dst_port: CLIENT_PORT };
    let ip = Ipv4Repr {
        src_addr: leases.gateway,
        dst_addr: to,
        next_header: IpProtocol::Udp,
        payload_len: udp.header_len() + reply.buffer_len(),
        hop_limit: 64,
    };
    let ethernet = EthernetRepr {
        src_addr: EthernetAddress(leases.mac.0),
        dst_addr: to_mac,
        ethertype: EthernetProtocol::Ipv4,
    };
    let mut frame = vec![0; ethernet.buffer_len() + ip.buffer_len() + udp.header_len() + reply.buffer_len()];
    ethernet.emit(&mut EthernetFrame::new_unchecked(&mut frame[..]));
    let rest = &mut frame[ethernet.buffer_len()..];
    ip.emit(&mut Ipv4Packet::new_unchecked(&mut rest[..]), &ChecksumCapabilities::default());
    let mut emitted = Ok(());
    udp.emit(
        &mut UdpPacket::new_unchecked(&mut rest[ip.buffer_len()..]),
        &IpAddress::Ipv4(leases.gateway),
        &IpAddress::Ipv4(to),
        reply.buffer_len(),
        |payload| emitted = reply.emit(&mut DhcpPacket::new_unchecked(payload)),
        &ChecksumCapabilities::default(),
    );
    emitted.ok().map(|()| frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: Mac = Mac([0x52, 0x54, 0, 1, 2, 3]);
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);

    fn leases() -> Leases {
        Leases {
            mac: Mac([2, 0, 0, 0, 0, 1]),
            gateway: Ipv4Addr::new(192, 168, 1, 1),
            netmask: Ipv4Addr::new(255, 255, 255, 0),
            domain: "home.arpa".into(),
            by_mac: BTreeMap::from([(CLIENT, (ADDRESS, "n1".into()))]),
        }
    }

    /// A client's frame with the options as given, laid out by hand after RFC 2131 section 2.
    fn question(mac: Mac, ciaddr: Ipv4Addr, options: &[u8]) -> Vec<u8> {
        let mut dhcp = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 0, 0, 0, 0];
        dhcp.extend(ciaddr.octets());
        dhcp.extend([0; 12]);
        dhcp.extend(mac.0);
        dhcp.extend([0; 10 + 64 + 128]);
        dhcp.extend([99, 130, 83, 99]);
        dhcp.extend(options);
        dhcp.push(255);
        let mut frame = [&[0xff; 6][..], &mac.0, &[8, 0]].concat();
        let length = (28 + dhcp.len()) as u16;
        frame.extend([0x45, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([0, 0, 0, 0, 64, 17, 0, 0]);
        frame.extend(ciaddr.octets());
        frame.extend([255; 4]);
        frame.extend([0, 68, 0, 67]);
        frame.extend((length - 20).to_be_bytes());
        frame.extend([0, 0]);
        frame.extend(dhcp);
        frame
    }

    /// Message type, your address, and the option asked for, of an answer.
    fn read(frame: &[u8], kind: u8) -> (u8, Ipv4Addr, Option<Vec<u8>>) {
        let packet = DhcpPacket::new_checked(&frame[42..]).unwrap();
        let option = |k| packet.options().find(|o| o.kind == k).map(|o| o.data.to_vec());
        assert_eq!(packet.transaction_id(), 0xdead_beef);
        (option(53).unwrap()[0], packet.your_ip(), option(kind))
    }

    #[test]
    fn a_known_machine_gets_its_address() {
        let none = Ipv4Addr::UNSPECIFIED;
        let offer = answer(&leases(), &question(CLIENT, none, &[53, 1, 1])).unwrap();
        assert_eq!(read(&offer, 3), (2, ADDRESS, Some(vec![192, 168, 1, 1])));
        assert_eq!(read(&offer, 15).2.unwrap(), b"home.arpa");
        assert_eq!(read(&offer, 1).2.unwrap(), [255, 255, 255, 0]);
        assert_eq!(offer[..6], [0xff; 6]);
        assert!(Ipv4Packet::new_checked(&offer[14..]).unwrap().verify_checksum());
        let ack = answer(&leases(), &question(CLIENT, none, &[53, 1, 3, 50, 4, 192, 168, 1, 11])).unwrap();
        assert_eq!(read(&ack, 51), (5, ADDRESS, Some(LEASE_SECONDS.to_be_bytes().to_vec())));
        let renewed = answer(&leases(), &question(CLIENT, ADDRESS, &[53, 1, 3])).unwrap();
        assert_eq!(read(&renewed, 6).0, 5);
        assert_eq!(renewed[..6], CLIENT.0, "a renewal is answered to the machine itself");
    }

    #[test]
    fn another_address_is_denied() {
        let wrong = question(CLIENT, Ipv4Addr::UNSPECIFIED, &[53, 1, 3, 50, 4, 192, 168, 1, 99]);
        assert_eq!(read(&answer(&leases(), &wrong).unwrap(), 51), (6, Ipv4Addr::UNSPECIFIED, None));
    }

    #[test]
    fn strangers_and_requests_to_other_servers_hear_nothing() {
        let none = Ipv4Addr::UNSPECIFIED;
        assert_eq!(answer(&leases(), &question(Mac([2; 6]), none, &[53, 1, 1])), None);
        let other = question(CLIENT, none, &[53, 1, 3, 54, 4, 192, 168, 1, 2]);
        assert_eq!(answer(&leases(), &other), None);
        assert!(is_for_server(&other));
        assert!(!is_for_server(&other[..60]));
    }
}
