//! Debian version numbers and the relations that dependencies state over them.
//!
//! The order is that of Debian Policy 5.6.12 (`deb-version(7)`): epoch, upstream version, revision; runs of
//! non-digits and of digits are compared in turn, `~` sorts before everything, even before the end.

use std::cmp::Ordering;

/// Compares two versions of one package.
///
/// ```
/// use bramble_debian::version::compare;
/// assert!(compare("1.0~rc1-1", "1.0-1").is_lt());
/// ```
pub fn compare(a: &str, b: &str) -> Ordering {
    let (a, b) = (split(a), split(b));
    a.0.cmp(&b.0).then_with(|| compare_part(a.1, b.1)).then_with(|| compare_part(a.2, b.2))
}

/// Epoch, upstream version, revision. An absent epoch is 0 and an absent revision is empty, which sorts like `0`.
fn split(version: &str) -> (u64, &str, &str) {
    let (epoch, rest) = match version.split_once(':') {
        Some((epoch, rest)) if epoch.bytes().all(|b| b.is_ascii_digit()) => {
            (epoch.parse().unwrap_or(u64::MAX), rest)
        }
        _ => (0, version),
    };
    let (upstream, revision) = rest.rsplit_once('-').unwrap_or((rest, ""));
    (epoch, upstream, revision)
}

/// Weight of one byte in a run of non-digits; the end of a run weighs 0.
fn weight(byte: Option<u8>) -> i32 {
    match byte {
        Some(b'~') => -1,
        None | Some(b'0'..=b'9') => 0,
        Some(letter) if letter.is_ascii_alphabetic() => i32::from(letter),
        Some(other) => i32::from(other) + 256,
    }
}

fn compare_part(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        while starts_non_digit(a) || starts_non_digit(b) {
            let order = weight(a.first().copied()).cmp(&weight(b.first().copied()));
            if order.is_ne() {
                return order;
            }
            // Equal weights mean equal bytes here: only the end and a digit share a weight, and one of the two
            // sides is neither.
            a = a.get(1..).unwrap_or_default();
            b = b.get(1..).unwrap_or_default();
        }
        let (x, y) = (number(&mut a), number(&mut b));
        // Numbers have no length limit, so they are compared as text without leading zeros.
        let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
        if order.is_ne() || (a.is_empty() && b.is_empty()) {
            return order;
        }
    }
}

fn starts_non_digit(bytes: &[u8]) -> bool {
    bytes.first().is_some_and(|b| !b.is_ascii_digit())
}

/// Takes the digits at the front and gives them without leading zeros.
fn number<'a>(bytes: &mut &'a [u8]) -> &'a [u8] {
    let end = bytes.iter().position(|b| !b.is_ascii_digit()).unwrap_or(bytes.len());
    let (digits, rest) = bytes.split_at(end);
    *bytes = rest;
    let zeros = digits.iter().position(|b| *b != b'0').unwrap_or(digits.len());
    &digits[zeros..]
}

/// How a dependency bounds a version (Debian Policy 7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Relation {
    /// `<<`
    Earlier,
    /// `<=`
    EarlierOrEqual,
    /// `=`
    Equal,
    /// `>=`
    LaterOrEqual,
    /// `>>`
    Later,
}

impl Relation {
    /// Whether `candidate` is in this relation to `bound`.
    pub fn holds(self, candidate: &str, bound: &str) -> bool {
        let order = compare(candidate, bound);
        match self {
            Relation::Earlier => order.is_lt(),
            Relation::EarlierOrEqual => order.is_le(),
            Relation::Equal => order.is_eq(),
            Relation::LaterOrEqual => order.is_ge(),
            Relation::Later => order.is_gt(),
        }
    }

    /// Takes the operator at the front of `text`. Gives the rest with it, or `None` if there is no operator.
    pub fn take(text: &str) -> Option<(Relation, &str)> {
        const TABLE: [(&str, Relation); 7] = [
            ("<<", Relation::Earlier),
            ("<=", Relation::EarlierOrEqual),
            (">=", Relation::LaterOrEqual),
            (">>", Relation::Later),
            ("=", Relation::Equal),
            // The two old spellings mean "or equal" (Policy 7.1).
            ("<", Relation::EarlierOrEqual),
            (">", Relation::LaterOrEqual),
        ];
        TABLE.iter().find_map(|(word, relation)| text.strip_prefix(word).map(|rest| (*relation, rest)))
    }
}

impl std::fmt::Display for Relation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Relation::Earlier => "<<",
            Relation::EarlierOrEqual => "<=",
            Relation::Equal => "=",
            Relation::LaterOrEqual => ">=",
            Relation::Later => ">>",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pairs in rising order; taken from Policy's own examples and from the cases dpkg's test suite tries.
    const RISING: &[(&str, &str)] = &[
        ("1.0~~", "1.0~~a"),
        ("1.0~~a", "1.0~"),
        ("1.0~", "1.0"),
        ("1.0", "1.0a"),
        ("1.0a", "1.0+"),
        ("1.0-1", "1.0-1.1"),
        ("1.0-1~bpo13+1", "1.0-1"),
        ("7.3.4-1~bpo13+1", "7.3.4-1"),
        ("6.12.117-1", "7.3.4-1~bpo13+1"),
        ("0.9", "0.10"),
        ("1.2.3", "1:0.1"),
        ("9:1", "10:0"),
        ("1.0-1", "1.0-2"),
        ("1.0-9", "1.0-10"),
        ("257.13-1~deb13u1", "257.13-1~deb13u2"),
        ("1.2a", "1.2b"),
        ("2.41-12", "2.41-12+deb13u1"),
        ("1.0", "1.0-1"),
        ("1.a", "1.+"),
        ("20240101", "99999999999999999999999999"),
    ];

    #[test]
    fn orders_as_dpkg_does() {
        for (lower, higher) in RISING {
            assert_eq!(compare(lower, higher), Ordering::Less, "{lower} << {higher}");
            assert_eq!(compare(higher, lower), Ordering::Greater, "{higher} >> {lower}");
            assert_eq!(compare(lower, lower), Ordering::Equal, "{lower}");
        }
    }

    #[test]
    fn equal_in_value_though_not_in_spelling() {
        for (a, b) in [("0:1.0-1", "1.0-1"), ("1.01", "1.1"), ("1.0-0", "1.0"), ("1.00", "1.0"), ("a0", "a")]
        {
            assert_eq!(compare(a, b), Ordering::Equal, "{a} = {b}");
        }
    }

    #[test]
    fn a_hyphen_belongs_to_the_upstream_version_but_for_the_last() {
        assert_eq!(split("2:1.0-rc-1"), (2, "1.0-rc", "1"));
    }

    #[test]
    fn relations() {
        let (relation, rest) = Relation::take(">= 4.12~").unwrap();
        assert_eq!(relation, Relation::LaterOrEqual);
        assert!(relation.holds("4.17~bpo13+1", rest.trim()));
        assert!(!relation.holds("4.9", rest.trim()));
        assert!(Relation::Earlier.holds("1~", "1"));
        assert!(!Relation::Later.holds("1", "1"));
        assert!(Relation::take("4").is_none());
    }
}
