//! Comparing versions, and matching names against patterns.

use std::cmp::Ordering;

/// Orders versions as UAPI.10, "Version Format Specification", says (`strverscmp_improved` in systemd): the newer is greater.
pub(super) fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        let valid = |byte: &u8| byte.is_ascii_alphanumeric() || b"~-^.".contains(byte);
        let skip = |text: &mut &[u8]| {
            let start = text.iter().position(valid).unwrap_or(text.len());
            *text = &text[start..];
        };
        skip(&mut a);
        skip(&mut b);
        // `~` sorts before everything, even the end.
        match (a.first() == Some(&b'~'), b.first() == Some(&b'~')) {
            (true, true) => {
                (a, b) = (&a[1..], &b[1..]);
                continue;
            }
            (true, false) => return Ordering::Less,
            (false, true) => return Ordering::Greater,
            (false, false) => {}
        }
        if a.is_empty() || b.is_empty() {
            return a.len().cmp(&b.len());
        }
        // Then `-`, `^` and `.`, in this order; whoever has it is the older.
        let mut same = false;
        for mark in *b"-^." {
            match (a[0] == mark, b[0] == mark) {
                (true, true) => {
                    (a, b) = (&a[1..], &b[1..]);
                    same = true;
                    break;
                }
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => {}
            }
        }
        if same {
            continue;
        }
        let run =
            |text: &[u8], of: fn(&u8) -> bool| text.iter().position(|byte| !of(byte)).unwrap_or(text.len());
        let order = if a[0].is_ascii_digit() || b[0].is_ascii_digit() {
            let (x, y) = (run(a, u8::is_ascii_digit), run(b, u8::is_ascii_digit));
            let number = |text: &[u8]| {
                let zeros = text.iter().position(|byte| *byte != b'0').unwrap_or(text.len());
                (text.len() - zeros, text[zeros..].to_vec())
            };
            // A number is newer than a letter: the part that is empty is the older one.
            let order = (x > 0).cmp(&(y > 0)).then_with(|| number(&a[..x]).cmp(&number(&b[..y])));
            (a, b) = (&a[x..], &b[y..]);
            order
        } else {
            let (x, y) = (run(a, u8::is_ascii_alphabetic), run(b, u8::is_ascii_alphabetic));
            // Capital letters before small ones, as in ASCII.
            let order = a[..x].cmp(&b[..y]);
            (a, b) = (&a[x..], &b[y..]);
            order
        };
        if order != Ordering::Equal {
            return order;
        }
    }
}

/// Whether a name matches a pattern with `*`, `?` and `[set]` (`efi_fnmatch` in src/boot/efi-string.c).
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    // Where the last `*` stood, and how much of the name it has taken: only the last one has to be tried again.
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                p += 1;
                star = Some((p, n));
                continue;
            }
            Some('?') => {
                (p, n) = (p + 1, n + 1);
                continue;
            }
            Some('[') => {
                if let Some((found, end)) = set(&pattern[p + 1..], name[n]) {
                    if found {
                        (p, n) = (p + 1 + end, n + 1);
                        continue;
                    }
                } else if name[n] == '[' {
                    (p, n) = (p + 1, n + 1);
                    continue;
                }
            }
            Some(letter) if *letter == name[n] => {
                (p, n) = (p + 1, n + 1);
                continue;
            }
            _ => {}
        }
        let Some((after, taken)) = star else { return false };
        star = Some((after, taken + 1));
        (p, n) = (after, taken + 1);
    }
    pattern[p..].iter().all(|letter| *letter == '*')
}

/// Whether a letter is in the set that begins here, and how long the set is with its bracket; `None` without an end.
fn set(pattern: &[char], letter: char) -> Option<(bool, usize)> {
    let close = 1 + pattern.get(1..)?.iter().position(|other| *other == ']')?;
    let (mut at, mut found) = (0, false);
    while at < close {
        if at + 2 < close && pattern[at + 1] == '-' {
            found |= (pattern[at]..=pattern[at + 2]).contains(&letter);
            at += 3;
        } else {
            found |= pattern[at] == letter;
            at += 1;
        }
    }
    Some((found, close + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The order that the specification gives as its example, and a few of ours.
    #[test]
    fn the_order_of_the_specification() {
        let order = [
            "122.1",
            "123~rc1-1",
            "123",
            "123-a",
            "123-a.1",
            "123-1",
            "123-1.1",
            "123^post1",
            "123.a-1",
            "123.1-1",
            "123a-1",
            "124-1",
        ];
        for (index, a) in order.iter().enumerate() {
            for (other, b) in order.iter().enumerate() {
                assert_eq!(compare(a, b), index.cmp(&other), "{a} {b}");
            }
        }
        for (a, b, expected) in [
            ("slot-a.efi", "slot-b.efi", Ordering::Less),
            ("1.9", "1.10", Ordering::Less),
            ("1.09", "1.9", Ordering::Equal),
            ("A", "a", Ordering::Less),
            ("1_2", "12", Ordering::Less),
            ("", "", Ordering::Equal),
            ("", "1", Ordering::Less),
        ] {
            assert_eq!(compare(a, b), expected, "{a} {b}");
        }
    }

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("slot-a.efi", "slot-a.efi", true),
            ("slot-a.efi", "slot-a.ef", false),
            ("slot-*.efi", "slot-b.efi", true),
            ("*", "", true),
            ("", "x", false),
            ("slot-?.efi", "slot-b.efi", true),
            ("slot-[ab].efi", "slot-b.efi", true),
            ("slot-[c-e].efi", "slot-b.efi", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b", "xxaxxbxx", false),
            ("[", "[", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} {name}");
        }
    }

    proptest! {
        #[test]
        fn an_order_it_is(a in "[0-9a-c.~^_-]{0,8}", b in "[0-9a-c.~^_-]{0,8}") {
            prop_assert_eq!(compare(&a, &b), compare(&b, &a).reverse());
            prop_assert_eq!(compare(&a, &a), Ordering::Equal);
        }

        #[test]
        fn a_pattern_ends(pattern in "[a*?\\[\\]-]{0,12}", name in "[ab\\[\\]-]{0,12}") {
            let _ = matches(&pattern, &name);
            prop_assert!(matches("*", &name));
        }
    }
}
