//! Addresses and ranges of IPv4, hardware addresses.

use super::quoted;
use crate::decode::{Refusal, Scalar};
use ipnet::Ipv4Net;
use serde_json::json;
use std::fmt;
use std::net::Ipv4Addr;

impl Scalar for Ipv4Addr {
    const WHAT: &'static str = "an IPv4 address";
    fn read(text: &str) -> Result<Self, Refusal> {
        text.parse().map_err(|_| {
            let refusal = Refusal::new(format!("{} is not an IPv4 address", quoted(text)));
            match text.split_once('/') {
                Some((address, _)) if address.parse::<Ipv4Addr>().is_ok() => {
                    refusal.hint(format!("without a prefix: `{address}`; the prefix is that of the subnet"))
                }
                _ if text.contains(':') => refusal.hint("IPv6 is not served by this version"),
                _ => refusal.hint("four numbers from 0 to 255 with dots between: `192.168.1.11`"),
            }
        })
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "format": "ipv4" })
    }
}

impl Scalar for Ipv4Net {
    const WHAT: &'static str = "an IPv4 range";
    fn read(text: &str) -> Result<Self, Refusal> {
        let net: Ipv4Net = text.parse().map_err(|_| {
            let refusal = Refusal::new(format!("{} is not an IPv4 range", quoted(text)));
            match text.parse::<Ipv4Addr>() {
                Ok(address) => refusal.hint(format!("a range has a prefix length: `{address}/24`")),
                Err(_) if text.contains(':') => refusal.hint("IPv6 is not served by this version"),
                Err(_) => refusal.hint("an address, `/` and a prefix length from 0 to 32: `192.168.1.0/24`"),
            }
        })?;
        Ok(net)
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": r"^\d+\.\d+\.\d+\.\d+/\d+$" })
    }
}

/// The hardware address of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    /// Lower case with colons.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Scalar for Mac {
    const WHAT: &'static str = "a hardware address";
    fn read(text: &str) -> Result<Self, Refusal> {
        let refusal = || {
            Refusal::new(format!("{} is not a hardware address", quoted(text)))
                .hint("six pairs of hexadecimal digits with colons between: `dc:a6:32:00:00:01`")
        };
        let mut bytes = [0; 6];
        let parts: Vec<&str> = text.split([':', '-']).take(7).collect();
        if parts.len() != 6 {
            return Err(refusal());
        }
        for (byte, part) in bytes.iter_mut().zip(parts) {
            let hexadecimal = part.len() == 2 && part.bytes().all(|b| b.is_ascii_hexdigit());
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| hexadecimal).ok_or_else(refusal)?;
        }
        if bytes == [0; 6] || bytes[0] & 1 == 1 {
            return Err(Refusal::new(format!("{} is a group address, not a machine's", quoted(text)))
                .hint("the first pair of a machine's address is even; look at the label or at `ip link`"));
        }
        Ok(Mac(bytes))
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string", "pattern": "^([0-9A-Fa-f]{2}[:-]){5}[0-9A-Fa-f]{2}$" })
    }
}

/// A span of addresses that a load balancer may give out: `192.168.1.240-192.168.1.250` or `192.168.1.240/28`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// First address.
    pub first: Ipv4Addr,
    /// Last address, not before the first.
    pub last: Ipv4Addr,
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl Scalar for AddressRange {
    const WHAT: &'static str = "a span of addresses";
    fn read(text: &str) -> Result<Self, Refusal> {
        let refusal = || {
            Refusal::new(format!("{} is not a span of addresses", quoted(text)))
                .hint("`192.168.1.240-192.168.1.250` or `192.168.1.240/28`")
        };
        let (first, last) = match text.split_once('-') {
            Some((first, last)) => {
                let read = |t: &str| t.trim().parse::<Ipv4Addr>().map_err(|_| refusal());
                (read(first)?, read(last)?)
            }
            None => {
                let net: Ipv4Net = text.parse().map_err(|_| refusal())?;
                (net.network(), net.broadcast())
            }
        };
        match first <= last {
            true => Ok(AddressRange { first, last }),
            false => Err(Refusal::new(format!("the span {} ends before it starts", quoted(text)))),
        }
    }
    fn schema() -> serde_json::Value {
        json!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_read_in_both_styles() {
        let mac: Mac = "DC-A6-32-00-00-0f".parse().expect("an address");
        assert_eq!(mac.to_string(), "dc:a6:32:00:00:0f");
        for text in [
            "",
            "dc:a6:32:00:00",
            "dc:a6:32:00:00:01:02",
            "dc:a6:32:0:0:1",
            "+c:a6:32:00:00:01",
            "ff:ff:ff:ff:ff:ff",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_read_in_both_styles() {
        let span: AddressRange = "192.168.1.240/28".parse().expect("a span");
        assert_eq!(span.to_string(), "192.168.1.240-192.168.1.255");
        assert_eq!(
            "192.168.1.1 - 192.168.1.2".parse::<AddressRange>().expect("a span").last,
            Ipv4Addr::new(192, 168, 1, 2)
        );
        for text in ["192.168.1.1", "192.168.1.2-192.168.1.1", "a-b", "192.168.1.0/33"] {
            assert!(text.parse::<AddressRange>().is_err(), "{text}");
        }
    }
}
