//! The gateway's name server: the lab's machines and nothing else (RFC 1035). A pure function from question to
//! answer. Names outside are refused at once: rehearsing must not touch the house, and a fast "no" keeps programs
//! from waiting for a network that is not there.

use std::net::Ipv4Addr;

const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_ANY: u16 = 255;
const CLASS_IN: u16 = 1;

const SERVFAIL: u8 = 2;
const NXDOMAIN: u8 = 3;
const NOTIMP: u8 = 4;
const FORMERR: u8 = 1;

/// Machines keep their addresses for the life of a lab; a minute keeps the guests' caches honest all the same.
const TTL: u32 = 60;

/// What the server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Zone {
    /// The file's domain, lower case, no dot at either end.
    pub(crate) domain: String,
    /// Machine names, lower case, with their addresses.
    pub(crate) hosts: Vec<(String, Ipv4Addr)>,
}

impl Zone {
    /// The address of a name, with or without the domain.
    fn address(&self, name: &str) -> Option<Ipv4Addr> {
        let short = self.strip_domain(name).unwrap_or(name);
        self.hosts.iter().find(|(host, _)| host == short || host == name).map(|(_, a)| *a)
    }

    fn strip_domain<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_suffix(&self.domain)?.strip_suffix('.')
    }

    fn full_name(&self, address: Ipv4Addr) -> Option<String> {
        let (host, _) = self.hosts.iter().find(|(_, a)| *a == address)?;
        Some(if self.domain.is_empty() { host.clone() } else { format!("{host}.{}", self.domain) })
    }

    /// Whether a name that is not known is known not to be: below the file's domain, or a single word.
    fn is_ours(&self, name: &str) -> bool {
        !name.contains('.') || name == self.domain || self.strip_domain(name).is_some()
    }
}

/// The answer to a message; `None` when it is no question.
pub(crate) fn answer(zone: &Zone, message: &[u8]) -> Option<Vec<u8>> {
    let header = message.get(..12)?;
    let flags = u16::from_be_bytes([header[2], header[3]]);
    if flags & 0x8000 != 0 {
        return None;
    }
    let (opcode, recursion_desired) = ((flags >> 11) & 15, flags & 0x0100);
    let mut reply = header[..2].to_vec();
    let mut finish = |code: u8, question: &[u8], answers: &[Vec<u8>]| {
        // Response, authoritative, recursion available: a stub resolver wants to see that.
        let flags = 0x8480 | (opcode << 11) | recursion_desired | u16::from(code);
        reply.extend(flags.to_be_bytes());
        for count in [u16::from(!question.is_empty()), answers.len() as u16, 0, 0] {
            reply.extend(count.to_be_bytes());
        }
        reply.extend(question);
        for data in answers {
            reply.extend(data);
        }
        Some(std::mem::take(&mut reply))
    };
    if opcode != 0 {
        return finish(NOTIMP, &[], &[]);
    }
    let Some((name, end)) = question_name(message).filter(|_| header[4..6] == [0, 1]) else {
        return finish(FORMERR, &[], &[]);
    };
    let Some(tail) = message.get(end..end + 4) else { return finish(FORMERR, &[], &[]) };
    let question = &message[12..end + 4];
    let kind = u16::from_be_bytes([tail[0], tail[1]]);
    if u16::from_be_bytes([tail[2], tail[3]]) != CLASS_IN {
        return finish(SERVFAIL, question, &[]);
    }
    if let Some(address) = zone.address(&name) {
        let a = record(TYPE_A, &address.octets());
        return finish(
            0,
            question,
            if kind == TYPE_A || kind == TYPE_ANY { std::slice::from_ref(&a) } else { &[] },
        );
    }
    if let Some(reverse) = name.strip_suffix(".in-addr.arpa") {
        let mut octets: Vec<&str> = reverse.split('.').collect();
        octets.reverse();
        let host = octets.join(".").parse().ok().and_then(|a| zone.full_name(a));
        return match host {
            Some(host) if kind == TYPE_PTR || kind == TYPE_ANY => {
                finish(0, question, &[record(TYPE_PTR, &encode(&host))])
            }
            Some(_) => finish(0, question, &[]),
            None => finish(NXDOMAIN, question, &[]),
        };
    }
    if name == zone.domain {
        return finish(0, question, &[]);
    }
    finish(if zone.is_ours(&name) { NXDOMAIN } else { SERVFAIL }, question, &[])
}

/// The first question's name, lower case, and the byte after it. A question comes first, so that a compressed
/// name would point nowhere.
fn question_name(message: &[u8]) -> Option<(String, usize)> {
    let mut at = 12;
    let mut name = String::new();
    loop {
        let length = usize::from(*message.get(at)?);
        at += 1;
        if length == 0 {
            return Some((name, at));
        }
        let label = message.get(at..at + length).filter(|_| length < 64 && name.len() + length < 255)?;
        at += length;
        if !name.is_empty() {
            name.push('.');
        }
        name.push_str(&String::from_utf8_lossy(label).to_ascii_lowercase());
    }
}

/// A record for the question's name: a pointer to byte 12.
fn record(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0xc0, 12];
    bytes.extend(kind.to_be_bytes());
    bytes.extend(CLASS_IN.to_be_bytes());
    bytes.extend(TTL.to_be_bytes());
    bytes.extend((data.len() as u16).to_be_bytes());
    bytes.extend(data);
    bytes
}

fn encode(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.').filter(|l| !l.is_empty() && l.len() < 64) {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zone() -> Zone {
        let hosts = vec![
            ("n1".into(), Ipv4Addr::new(192, 168, 1, 11)),
            ("n2".into(), Ipv4Addr::new(192, 168, 1, 12)),
        ];
        Zone { domain: "home.arpa".into(), hosts }
    }

    fn ask(name: &str, kind: u16) -> (u8, u16, Vec<u8>) {
        let mut message = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(encode(name));
        message.extend(kind.to_be_bytes());
        message.extend(CLASS_IN.to_be_bytes());
        let reply = answer(&zone(), &message).unwrap();
        assert_eq!(reply[..2], [0xab, 0xcd]);
        assert_eq!(reply[12..message.len()], message[12..], "the question is repeated");
        (reply[3] & 15, u16::from_be_bytes([reply[6], reply[7]]), reply[message.len()..].to_vec())
    }

    #[test]
    fn machines_are_found_and_nothing_else() {
        let found = (0, 1, record(TYPE_A, &[192, 168, 1, 12]));
        assert_eq!(ask("n2", TYPE_A), found);
        assert_eq!(ask("N2.Home.arpa", TYPE_A), found);
        assert_eq!(ask("n2", 28), (0, 0, vec![]), "no IPv6 address, but the name exists");
        assert_eq!(ask("n3.home.arpa", TYPE_A), (NXDOMAIN, 0, vec![]));
        assert_eq!(ask("n3", TYPE_A), (NXDOMAIN, 0, vec![]));
        assert_eq!(ask("home.arpa", TYPE_A), (0, 0, vec![]));
        assert_eq!(ask("example.org", TYPE_A), (SERVFAIL, 0, vec![]));
        assert_eq!(ask("nothome.arpa", TYPE_A), (SERVFAIL, 0, vec![]));
        assert_eq!(
            ask("11.1.168.192.in-addr.arpa", TYPE_PTR),
            (0, 1, record(TYPE_PTR, &encode("n1.home.arpa")))
        );
        assert_eq!(ask("13.1.168.192.in-addr.arpa", TYPE_PTR), (NXDOMAIN, 0, vec![]));
    }

    proptest! {
        #[test]
        fn any_bytes_get_an_answer_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = answer(&zone(), &bytes);
        }
    }

    #[test]
    fn answers_and_broken_questions() {
        assert_eq!(
            answer(&zone(), &[0, 1, 0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0]),
            None,
            "an answer is not answered"
        );
        let broken = [0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1];
        assert_eq!(answer(&zone(), &broken).unwrap()[3] & 15, FORMERR);
        let update = [0, 1, 0x28, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        assert_eq!(answer(&zone(), &update).unwrap()[3] & 15, NOTIMP);
    }
}
