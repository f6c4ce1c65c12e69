//! Names: the long one that people see and the short one of eight and three that every entry has.

use crate::format::{ATTR_LONG_NAME, LOWER_BASE, LOWER_EXTENSION, SLOT, u16_at};

/// UTF-16 units of a piece of a long name.
const PIECE: usize = 13;
/// Longest name in UTF-16 units.
const LONG_MAX: usize = 255;
/// Marks the piece that comes first on disk, which is the name's last.
const LAST_PIECE: u8 = 0x40;
/// Where the units of a piece lie in its entry.
const UNIT_AT: [usize; PIECE] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];

/// A short name as it lies on disk: base and extension, filled up with spaces.
pub(crate) type Short = [u8; 11];

/// Why a name cannot be stored, if it cannot.
pub(crate) fn defect(name: &str) -> Option<&'static str> {
    let forbidden = |c: char| c.is_control() || "\"*/:<>?\\|".contains(c);
    if name.is_empty() || name == "." || name == ".." {
        Some("an empty name, `.` or `..`")
    } else if name.contains(forbidden) {
        Some("a character that FAT does not allow")
    } else if name.ends_with(['.', ' ']) {
        Some("a name that ends with a dot or a space")
    } else if name.encode_utf16().count() > LONG_MAX {
        Some("a name of more than 255 UTF-16 units")
    } else {
        None
    }
}

/// What names are compared by: FAT knows no difference between upper and lower case.
pub(crate) fn fold(name: &str) -> String {
    name.chars().flat_map(char::to_uppercase).collect()
}

/// Characters of a short name besides letters and digits.
fn is_short(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || b"$%'-_@~`!(){}^#&".contains(&byte)
}

/// The short name that a name is by itself, if it fits in upper case.
pub(crate) fn own_short(name: &str) -> Option<Short> {
    let upper = name.to_ascii_uppercase();
    let (base, extension) = upper.rsplit_once('.').unwrap_or((&upper, ""));
    let fits = base.bytes().chain(extension.bytes()).all(is_short)
        && (1..=8).contains(&base.len())
        && extension.len() <= 3
        // A dot with nothing behind it would be lost.
        && (extension.is_empty() != upper.contains('.'));
    fits.then(|| join(base.as_bytes(), extension.as_bytes()))
}

/// The short name for a long one, unlike any that `taken` knows, and whether the long one must be stored too.
///
/// As Linux does it: a name that fits in upper case is its own short name, else it gets a tail of `~1` and so on.
/// `None` if a million tails are taken.
pub(crate) fn shorten(name: &str, taken: impl Fn(&Short) -> bool) -> Option<(Short, bool)> {
    if let Some(short) = own_short(name).filter(|short| !taken(short)) {
        return Some((short, name.bytes().any(|byte| byte.is_ascii_lowercase())));
    }
    let upper = name.to_ascii_uppercase();
    let trimmed = upper.trim_start_matches('.');
    let (base, extension) = trimmed.rsplit_once('.').unwrap_or((trimmed, ""));
    let (base, extension) = (clean(base), clean(extension));
    (1..1_000_000).find_map(|number: u32| {
        let tail = format!("~{number}");
        let mut base = base.clone();
        base.truncate(8 - tail.len());
        base.extend_from_slice(tail.as_bytes());
        let short = join(&base, &extension);
        (!taken(&short)).then_some((short, true))
    })
}

/// Leaves out dots and spaces and makes an underscore of whatever else is not allowed.
fn clean(part: &str) -> Vec<u8> {
    let kept = part.chars().filter(|c| !matches!(c, '.' | ' '));
    kept.map(|c| u8::try_from(c).ok().filter(|byte| is_short(*byte)).unwrap_or(b'_')).collect()
}

fn join(base: &[u8], extension: &[u8]) -> Short {
    let mut short = [b' '; 11];
    for (to, from) in short[..8].iter_mut().zip(base) {
        *to = *from;
    }
    for (to, from) in short[8..].iter_mut().zip(extension) {
        *to = *from;
    }
    short
}

/// Binds the pieces of a long name to their short one.
fn checksum(short: &Short) -> u8 {
    short.iter().fold(0, |sum: u8, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// Number of entries that hold a long name.
pub(crate) fn pieces(name: &str) -> usize {
    name.encode_utf16().count().div_ceil(PIECE)
}

/// Appends the entries of a long name, in their order on disk.
pub(crate) fn encode_long(name: &str, short: &Short, out: &mut Vec<u8>) {
    let units: Vec<u16> = name.encode_utf16().collect();
    let count = units.len().div_ceil(PIECE);
    for (index, piece) in units.chunks(PIECE).enumerate().rev() {
        let mut slot = [0; SLOT];
        slot[0] = (index as u8 + 1) | if index + 1 == count { LAST_PIECE } else { 0 };
        slot[11] = ATTR_LONG_NAME;
        slot[13] = checksum(short);
        // After the name a zero, then ones.
        let filled = piece.iter().copied().chain([0]).chain(std::iter::repeat(0xffff));
        for (unit, at) in filled.zip(UNIT_AT) {
            slot[at..at + 2].copy_from_slice(&unit.to_le_bytes());
        }
        out.extend_from_slice(&slot);
    }
}

/// Collects the pieces of a long name as they come from disk.
#[derive(Default)]
pub(crate) struct LongName {
    units: Vec<u16>,
    /// Number of the piece that must come next; 0 when the name is whole or there is none.
    next: u8,
    checksum: u8,
}

impl LongName {
    /// Takes a piece. What does not fit what came before drops it all.
    pub(crate) fn push(&mut self, slot: &[u8]) {
        let number = slot[0] & !LAST_PIECE;
        if slot[0] & LAST_PIECE != 0 {
            *self = Self { units: Vec::new(), next: number, checksum: slot[13] };
        }
        if number == 0
            || usize::from(number) * PIECE > LONG_MAX + PIECE
            || number != self.next
            || slot[13] != self.checksum
        {
            *self = Self::default();
            return;
        }
        let units: Vec<u16> =
            UNIT_AT.iter().map(|at| u16_at(slot, *at)).take_while(|unit| *unit != 0).collect();
        self.units.splice(0..0, units);
        self.next -= 1;
    }

    /// The name, if it is whole, belongs to this short name and is text. Begins anew.
    pub(crate) fn take(&mut self, short: &Short) -> Option<String> {
        let Self { units, next, checksum: sum } = std::mem::take(self);
        let whole = next == 0 && !units.is_empty() && sum == checksum(short);
        whole.then(|| String::from_utf16(&units).ok()).flatten()
    }
}

/// A short name as text. `case` is byte 12 of its entry.
pub(crate) fn display_short(short: &Short, case: u8) -> String {
    let part = |bytes: &[u8], lower: bool| -> String {
        let end = bytes.iter().rposition(|byte| *byte != b' ').map_or(0, |last| last + 1);
        // Bytes above ASCII are of an unknown code page.
        let text = bytes[..end]
            .iter()
            .map(|byte| if byte.is_ascii() { char::from(*byte) } else { char::REPLACEMENT_CHARACTER });
        text.map(|c| if lower { c.to_ascii_lowercase() } else { c }).collect()
    };
    let base = part(&short[..8], case & LOWER_BASE != 0);
    let extension = part(&short[8..], case & LOWER_EXTENSION != 0);
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn short(name: &str) -> (String, bool) {
        let (short, long) = shorten(name, |_| false).unwrap();
        (String::from_utf8(short.to_vec()).unwrap(), long)
    }

    #[test]
    fn short_names() {
        for (name, expected, long) in [
            ("BOOTX64.EFI", "BOOTX64 EFI", false),
            ("EFI", "EFI        ", false),
            ("autoboot.txt", "AUTOBOOTTXT", true),
            ("loader.conf", "LOADER~1CON", true),
            ("loader", "LOADER     ", true),
            ("cmdline.txt", "CMDLINE TXT", true),
            ("slot-a.efi", "SLOT-A  EFI", true),
            ("bcm2711-rpi-4-b.dtb", "BCM271~1DTB", true),
            ("a.b.c", "AB~1    C  ", true),
            (".hidden", "HIDDEN~1   ", true),
            ("gr\u{fc}n.txt", "GR_N~1  TXT", true),
            ("\u{fc}", "_~1        ", true),
        ] {
            assert_eq!(short(name), (expected.to_owned(), long), "{name}");
        }
    }

    #[test]
    fn short_names_do_not_collide() {
        let mut taken: Vec<Short> = Vec::new();
        for _ in 0..120 {
            let (name, _) = shorten("loader.conf", |name| taken.contains(name)).unwrap();
            taken.push(name);
        }
        assert_eq!(&taken[8], b"LOADER~9CON");
        assert_eq!(&taken[9], b"LOADE~10CON");
        assert_eq!(&taken[119], b"LOAD~120CON");
    }

    #[test]
    fn long_names_survive() {
        for name in ["a", "thirteen.char", "fourteen.chars", &"x".repeat(255), "gr\u{fc}n \u{1f347}.txt"] {
            assert_eq!(defect(name), None);
            let (short, _) = shorten(name, |_| false).unwrap();
            let mut slots = Vec::new();
            encode_long(name, &short, &mut slots);
            assert_eq!(slots.len(), pieces(name) * SLOT);
            let mut long = LongName::default();
            slots.chunks(SLOT).for_each(|slot| long.push(slot));
            assert_eq!(long.take(&short).as_deref(), Some(name));
            assert_eq!(long.take(&short), None);
        }
        for name in ["", "..", "a:b", "a\n", "dot.", "space ", &"x".repeat(256)] {
            assert!(defect(name).is_some(), "{name}");
        }
    }

    #[test]
    fn long_names_of_another_entry_are_dropped() {
        let mut slots = Vec::new();
        encode_long("a rather long name", b"ARATHE~1   ", &mut slots);
        let mut long = LongName::default();
        slots.chunks(SLOT).for_each(|slot| long.push(slot));
        assert_eq!(long.take(b"OTHER      "), None);
        long.push(&slots[SLOT..]);
        assert_eq!(long.take(b"ARATHE~1   "), None);
    }
}
