//! GUIDs: mixed-endian on disk, text for people.

use std::fmt;
use std::str::FromStr;

/// A GUID, held as it lies on disk: the first three fields little-endian (UEFI specification, appendix A).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Guid(pub [u8; 16]);

/// For each pair of digits of the text, the byte on disk.
const ORDER: [usize; 16] = [3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15];

/// A text is not `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a GUID: 8-4-4-4-12 hexadecimal digits")]
pub struct ParseGuidError;

impl Guid {
    /// The type of an unused entry.
    pub const NIL: Self = Self([0; 16]);

    /// From the bytes of a UUID in the order of its text (RFC 9562).
    pub fn from_uuid(uuid: [u8; 16]) -> Self {
        let mut disk = [0; 16];
        for (byte, at) in uuid.into_iter().zip(ORDER) {
            disk[at] = byte;
        }
        Self(disk)
    }
}

impl fmt::Display for Guid {
    /// Lower case, as the kernel names `PARTUUID`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, at) in ORDER.into_iter().enumerate() {
            if matches!(index, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{:02x}", self.0[at])?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Guid {
    type Err = ParseGuidError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = text.as_bytes();
        let dashed = bytes.len() == 36 && [8, 13, 18, 23].iter().all(|at| bytes[*at] == b'-');
        if !dashed {
            return Err(ParseGuidError);
        }
        let mut digits = bytes.iter().enumerate().filter(|(at, _)| !matches!(at, 8 | 13 | 18 | 23));
        let mut digit = || {
            let (_, byte) = digits.next().ok_or(ParseGuidError)?;
            char::from(*byte).to_digit(16).map(|digit| digit as u8).ok_or(ParseGuidError)
        };
        let mut uuid = [0; 16];
        for byte in &mut uuid {
            *byte = digit()? << 4 | digit()?;
        }
        Ok(Self::from_uuid(uuid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_disk_order() {
        let esp: Guid = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B".parse().unwrap();
        assert_eq!(esp.0[..8], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11]);
        assert_eq!(esp.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
        for bad in ["", "c12a7328-f81f-11d2-ba4b-00a0c93ec93", "c12a7328xf81f-11d2-ba4b-00a0c93ec93b"] {
            assert_eq!(bad.parse::<Guid>(), Err(ParseGuidError));
        }
        assert!("c12a7328-f81f-11d2-ba4b-00a0c93ec9é".parse::<Guid>().is_err());
    }
}
