//! What the boot loader left in EFI variables: which slot it started, and from which disk.
//!
//! Format: Boot Loader Interface, <https://systemd.io/BOOT_LOADER_INTERFACE/>. A variable's file in efivarfs is four
//! bytes of attributes, then its value; strings are UTF-16, little-endian, closed by a NUL.

use bramble_api::names::Slot;
use std::path::Path;

/// Where efivarfs is mounted.
pub const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// The vendor GUID of the Boot Loader Interface.
pub const VENDOR: &str = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";

/// What the firmware's variables say about this boot.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Loader {
    /// The slot whose image runs.
    pub slot: Option<Slot>,
    /// Unique GUID, as it lies in a GPT, of the EFI system partition that was started from.
    pub esp: Option<[u8; 16]>,
}

/// Reads the variables; none of them on a machine without EFI.
///
/// systemd-boot's word comes first; the stub's own is for an image that the firmware started directly.
pub fn read() -> Loader {
    let string = |name: &str| {
        let bytes = std::fs::read(Path::new(VARIABLES).join(format!("{name}-{VENDOR}"))).ok()?;
        parse_string(&bytes)
    };
    let slot = ["LoaderEntrySelected", "StubImageIdentifier"].iter().find_map(|name| slot_of(&string(name)?));
    let esp =
        ["LoaderDevicePartUUID", "StubDevicePartUUID"].iter().find_map(|name| parse_guid(&string(name)?));
    Loader { slot, esp }
}

/// The string in a variable's file.
fn parse_string(file: &[u8]) -> Option<String> {
    let units: Vec<u16> =
        file.get(4..)?.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect();
    let end = units.iter().position(|unit| *unit == 0).unwrap_or(units.len());
    String::from_utf16(&units[..end]).ok()
}

/// The slot of an entry name or image path: `slot-a.efi`, `\EFI\Linux\slot-b.efi`.
fn slot_of(entry: &str) -> Option<Slot> {
    let entry = entry.to_ascii_lowercase();
    [Slot::A, Slot::B].into_iter().find(|slot| entry.ends_with(&format!("slot-{}.efi", slot.letter())))
}

/// A GUID in text as the sixteen bytes on disk: the first three fields little-endian (UEFI 2.10, appendix A).
fn parse_guid(text: &str) -> Option<[u8; 16]> {
    let fields: Vec<&str> = text.trim().split('-').collect();
    if fields.iter().map(|field| field.len()).ne([8, 4, 4, 4, 12]) {
        return None;
    }
    let mut bytes: [u8; 16] = hex::decode(fields.concat()).ok()?.try_into().ok()?;
    bytes[0..4].reverse();
    bytes[4..6].reverse();
    bytes[6..8].reverse();
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variable(text: &str) -> Vec<u8> {
        let mut file = vec![6, 0, 0, 0];
        file.extend(text.encode_utf16().chain([0]).flat_map(u16::to_le_bytes));
        file
    }

    #[test]
    fn an_entry_names_its_slot() {
        assert_eq!(slot_of(&parse_string(&variable("slot-a.efi")).unwrap()), Some(Slot::A));
        assert_eq!(slot_of(&parse_string(&variable("\\EFI\\Linux\\SLOT-B.EFI")).unwrap()), Some(Slot::B));
        assert_eq!(slot_of("rescue.efi"), None);
        assert_eq!(parse_string(&[6, 0]), None);
    }

    #[test]
    fn a_guid_is_read_as_it_lies_on_disk() {
        let esp = parse_guid("C12A7328-F81F-11D2-BA4B-00A0C93EC93B");
        assert_eq!(esp, Some(bramble_api::layout::TYPE_ESP));
        assert_eq!(parse_guid("C12A7328-F81F-11D2-BA4B"), None);
        assert_eq!(parse_guid("G12A7328-F81F-11D2-BA4B-00A0C93EC93B"), None);
    }
}
