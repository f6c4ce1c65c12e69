//! The flattened device tree, as far as boot selection shows in it.
//!
//! Format: Devicetree Specification 0.4, chapter 5. Only what firmware does is done: reading the compatible strings of
//! the root, and telling the kernel in `/chosen/bootloader` how it was started (Raspberry Pi documentation,
//! `configuration/device-tree.adoc`, "Device trees, overlays, and parameters"). All numbers are big-endian.

const MAGIC: u32 = 0xd00d_feed;
/// The version whose header has all fields that are used here, and that every compiler writes.
const VERSION: u32 = 17;
const BEGIN_NODE: u32 = 1;
const END_NODE: u32 = 2;
const PROPERTY: u32 = 3;
const NOP: u32 = 4;
const END: u32 = 9;
/// Header fields by byte offset.
const TOTAL_SIZE: usize = 4;
const STRUCT_AT: usize = 8;
const STRINGS_AT: usize = 12;
const VERSION_AT: usize = 20;
const STRINGS_SIZE: usize = 32;
const STRUCT_SIZE: usize = 36;

/// The bytes are no device tree that can be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a device tree: {reason}")]
pub struct BadTree {
    /// What is wrong.
    pub reason: &'static str,
}

/// What firmware tells the kernel about how it was started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bootloader {
    /// `partition`: number of the partition it was started from.
    pub partition: u32,
    /// `tryboot`: whether the one-shot flag was set.
    pub tryboot: bool,
    /// `build-timestamp`: seconds since 1970 of the boot loader's build; 0 leaves it out, as on boards without an EEPROM.
    pub build_timestamp: u32,
}

fn word(tree: &[u8], at: usize) -> Result<u32, BadTree> {
    let bytes =
        at.checked_add(4).and_then(|end| tree.get(at..end)).ok_or(BadTree { reason: "it ends too soon" })?;
    Ok(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
}

/// The areas of a tree whose header is sound.
struct Areas {
    structure: std::ops::Range<usize>,
    strings: std::ops::Range<usize>,
}

fn areas(tree: &[u8]) -> Result<Areas, BadTree> {
    if word(tree, 0)? != MAGIC {
        return Err(BadTree { reason: "no magic number" });
    }
    if word(tree, VERSION_AT)? < VERSION {
        return Err(BadTree { reason: "an old version of the format" });
    }
    let range = |at, size| {
        let start = word(tree, at)? as usize;
        let end = start.checked_add(word(tree, size)? as usize);
        let end = end.filter(|end| *end <= tree.len()).ok_or(BadTree { reason: "an area passes its end" })?;
        Ok(start..end)
    };
    Ok(Areas { structure: range(STRUCT_AT, STRUCT_SIZE)?, strings: range(STRINGS_AT, STRINGS_SIZE)? })
}

/// A piece of the structure block.
enum Token<'t> {
    Begin(&'t [u8]),
    End,
    Property { name: &'t [u8], value: &'t [u8] },
}

/// Walks over the tokens; gives each with the place behind it. `see` returns whether to go on.
fn walk<'t>(tree: &'t [u8], mut see: impl FnMut(Token<'t>, usize) -> bool) -> Result<(), BadTree> {
    let Areas { structure, strings } = areas(tree)?;
    let text = |at: usize, area: &std::ops::Range<usize>| {
        let rest = tree.get(at..area.end).ok_or(BadTree { reason: "a name lies outside" })?;
        let length =
            rest.iter().position(|byte| *byte == 0).ok_or(BadTree { reason: "a name without an end" })?;
        Ok(&rest[..length])
    };
    let mut at = structure.start;
    while at < structure.end {
        let token = word(tree, at)?;
        at += 4;
        let token = match token {
            NOP => continue,
            END => return Ok(()),
            BEGIN_NODE => {
                let name = text(at, &structure)?;
                at += (name.len() + 1).next_multiple_of(4);
                Token::Begin(name)
            }
            END_NODE => Token::End,
            PROPERTY => {
                let length = word(tree, at)? as usize;
                let name = text(strings.start.saturating_add(word(tree, at + 4)? as usize), &strings)?;
                let value = at.checked_add(8).and_then(|from| tree.get(from..from.checked_add(length)?));
                let value = value.ok_or(BadTree { reason: "a property passes its end" })?;
                at += 8 + length.next_multiple_of(4);
                Token::Property { name, value }
            }
            _ => return Err(BadTree { reason: "an unknown token" }),
        };
        if !see(token, at) {
            return Ok(());
        }
    }
    Err(BadTree { reason: "no end token" })
}

/// The strings of the root's `compatible`, most exact first.
///
/// # Errors
/// [`BadTree`].
pub fn compatible(tree: &[u8]) -> Result<Vec<String>, BadTree> {
    let mut depth = 0;
    let mut found = Vec::new();
    walk(tree, |token, _| {
        match token {
            Token::Begin(_) => depth += 1,
            Token::End => depth -= 1,
            Token::Property { name: b"compatible", value } if depth == 1 => {
                let names = value.split(|byte| *byte == 0).filter(|name| !name.is_empty());
                found = names.map(|name| String::from_utf8_lossy(name).into_owned()).collect();
            }
            Token::Property { .. } => {}
        }
        depth > 0 && found.is_empty()
    })?;
    Ok(found)
}

/// What a tree's `/chosen/bootloader` says; `None` when there is no such node.
///
/// # Errors
/// [`BadTree`].
pub fn bootloader(tree: &[u8]) -> Result<Option<Bootloader>, BadTree> {
    let mut path: Vec<&[u8]> = Vec::new();
    let mut found = None;
    walk(tree, |token, _| {
        match token {
            Token::Begin(name) => {
                path.push(name);
                if path.as_slice() == [&b""[..], b"chosen", b"bootloader"] {
                    found.get_or_insert_with(Bootloader::default);
                }
            }
            Token::End => drop(path.pop()),
            Token::Property { name, value } => {
                if let (Some(says), [b"", b"chosen", b"bootloader"], &[a, b, c, d]) =
                    (&mut found, path.as_slice(), value)
                {
                    let number = u32::from_be_bytes([a, b, c, d]);
                    match name {
                        b"partition" => says.partition = number,
                        b"tryboot" => says.tryboot = number != 0,
                        b"build-timestamp" => says.build_timestamp = number,
                        _ => {}
                    }
                }
            }
        }
        true
    })?;
    Ok(found)
}

/// The tree with a node `/chosen/bootloader` that says how the kernel was started; `/chosen` is made where it is missing.
///
/// # Errors
/// [`BadTree`]; also for a tree that has the node already, because firmware is the only one to make it.
pub fn with_bootloader(tree: &[u8], says: &Bootloader) -> Result<Vec<u8>, BadTree> {
    if bootloader(tree)?.is_some() {
        return Err(BadTree { reason: "it has a node /chosen/bootloader already" });
    }
    let Areas { strings, .. } = areas(tree)?;
    // Behind the begin of /chosen no more properties of it may follow a node: the new one goes before its end.
    let (mut depth, mut in_chosen, mut place) = (0, false, None);
    walk(tree, |token, behind| {
        match token {
            Token::Begin(name) => {
                depth += 1;
                in_chosen |= depth == 2 && name == b"chosen";
            }
            Token::End => {
                let end = behind - 4;
                if (in_chosen && depth == 2) || depth == 1 {
                    place = Some((end, in_chosen));
                }
                depth -= 1;
            }
            Token::Property { .. } => {}
        }
        depth > 0 && place.is_none()
    })?;
    let (place, in_chosen) = place.ok_or(BadTree { reason: "no root node" })?;

    let names: [(&[u8], u32); 3] = [
        (b"partition\0", says.partition),
        (b"tryboot\0", says.tryboot.into()),
        (b"build-timestamp\0", says.build_timestamp),
    ];
    let mut node = Vec::new();
    let mut put = |number: u32| node.extend(number.to_be_bytes());
    let chosen = [u32::from_be_bytes(*b"chos"), u32::from_be_bytes(*b"en\0\0")];
    if !in_chosen {
        put(BEGIN_NODE);
        chosen.into_iter().for_each(&mut put);
    }
    put(BEGIN_NODE);
    b"bootloader\0\0".chunks_exact(4).for_each(|c| put(u32::from_be_bytes([c[0], c[1], c[2], c[3]])));
    let mut new_strings = Vec::new();
    for (name, value) in names {
        if name == b"build-timestamp\0" && value == 0 {
            continue;
        }
        put(PROPERTY);
        put(4);
        put((strings.len() + new_strings.len()) as u32);
        put(value);
        new_strings.extend(name);
    }
    put(END_NODE);
    if !in_chosen {
        put(END_NODE);
    }

    insert(tree, &[(place, node)], &new_strings)
}

/// The tree in which every node that names one of `compatible` has the status `disabled`: for machines that lack what the
/// tree tells of.
///
/// # Errors
/// [`BadTree`].
pub fn with_disabled(tree: &[u8], compatible: &[&str]) -> Result<Vec<u8>, BadTree> {
    let Areas { strings, .. } = areas(tree)?;
    let mut begins = Vec::new();
    let mut places = Vec::new();
    walk(tree, |token, behind| {
        match token {
            Token::Begin(_) => begins.push(behind),
            Token::End => drop(begins.pop()),
            Token::Property { name: b"compatible", value } => {
                let is_meant = |name: &[u8]| compatible.iter().any(|wanted| wanted.as_bytes() == name);
                if let Some(begin) = begins.last().filter(|_| value.split(|byte| *byte == 0).any(is_meant)) {
                    places.push(*begin);
                }
            }
            Token::Property { .. } => {}
        }
        true
    })?;
    // The first property of a name counts: in front of all others there is nothing to replace.
    let mut property = Vec::new();
    for word in [PROPERTY, 9, strings.len() as u32] {
        property.extend(word.to_be_bytes());
    }
    property.extend(b"disabled\0\0\0\0");
    places.sort_unstable();
    let pieces: Vec<(usize, Vec<u8>)> = places.into_iter().map(|place| (place, property.clone())).collect();
    insert(tree, &pieces, b"status\0")
}

/// The tree with pieces put into its structure, at places in ascending order, and with more strings.
fn insert(tree: &[u8], pieces: &[(usize, Vec<u8>)], new_strings: &[u8]) -> Result<Vec<u8>, BadTree> {
    let Areas { structure, strings } = areas(tree)?;
    // Header and memory reservations stay in front; then structure, then strings, which may come in either order before.
    let front = structure.start.min(strings.start);
    let mut out = tree[..front].to_vec();
    let structure_at = out.len().next_multiple_of(4);
    out.resize(structure_at, 0);
    let mut from = structure.start;
    for (place, piece) in pieces {
        out.extend(tree.get(from..*place).ok_or(BadTree { reason: "an area passes its end" })?);
        out.extend(piece);
        from = *place;
    }
    out.extend(tree.get(from..structure.end).ok_or(BadTree { reason: "an area passes its end" })?);
    let structure_size = out.len() - structure_at;
    let strings_at = out.len();
    out.extend(&tree[strings.clone()]);
    out.extend(new_strings);
    out.resize(out.len().next_multiple_of(8), 0);
    let fields = [
        (TOTAL_SIZE, out.len()),
        (STRUCT_AT, structure_at),
        (STRINGS_AT, strings_at),
        (STRINGS_SIZE, strings.len() + new_strings.len()),
        (STRUCT_SIZE, structure_size),
    ];
    for (at, value) in fields {
        let value = u32::try_from(value).map_err(|_| BadTree { reason: "it is larger than 4 GiB" })?;
        let field = out.get_mut(at..at + 4).ok_or(BadTree { reason: "its areas lie in its header" })?;
        field.copy_from_slice(&value.to_be_bytes());
    }
    Ok(out)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A tree of a root with `compatible`, and `/chosen` if wanted.
    pub(crate) fn tree(compatible: &str, chosen: bool) -> Vec<u8> {
        let mut structure = Vec::new();
        let mut put = |number: u32| structure.extend(number.to_be_bytes());
        put(BEGIN_NODE);
        put(0);
        put(PROPERTY);
        put(compatible.len() as u32 + 1);
        put(0);
        let mut value = compatible.replace(' ', "\0").into_bytes();
        value.push(0);
        value.resize(value.len().next_multiple_of(4), 0);
        value.chunks_exact(4).for_each(|c| put(u32::from_be_bytes([c[0], c[1], c[2], c[3]])));
        if chosen {
            put(BEGIN_NODE);
            put(u32::from_be_bytes(*b"chos"));
            put(u32::from_be_bytes(*b"en\0\0"));
            put(NOP);
            put(END_NODE);
        }
        put(END_NODE);
        put(END);
        let strings = b"compatible\0";
        let reserved = [0; 16];
        let mut out = Vec::new();
        let structure_at = 40 + 16;
        let strings_at = structure_at + structure.len();
        let total = strings_at + strings.len();
        let header =
            [MAGIC as usize, total, structure_at, strings_at, 40, 17, 16, 0, strings.len(), structure.len()];
        header.iter().for_each(|number| out.extend((*number as u32).to_be_bytes()));
        out.extend(reserved);
        out.extend(structure);
        out.extend(strings);
        out
    }

    #[test]
    fn what_firmware_says_can_be_read_back() {
        for chosen in [false, true] {
            let tree = tree("raspberrypi,4-model-b brcm,bcm2711", chosen);
            assert_eq!(compatible(&tree).unwrap(), ["raspberrypi,4-model-b", "brcm,bcm2711"]);
            assert_eq!(bootloader(&tree).unwrap(), None);
            let says = Bootloader { partition: 3, tryboot: true, build_timestamp: 1_755_648_000 };
            let told = with_bootloader(&tree, &says).unwrap();
            assert_eq!(bootloader(&told).unwrap(), Some(says));
            assert_eq!(compatible(&told).unwrap(), compatible(&tree).unwrap());
            assert!(with_bootloader(&told, &says).is_err());
            assert_eq!(word(&told, TOTAL_SIZE).unwrap() as usize, told.len());
        }
    }

    #[test]
    fn a_node_is_disabled_by_what_it_is() {
        let board = tree("raspberrypi,4-model-b brcm,bcm2711", true);
        let says = Bootloader { partition: 1, ..Bootloader::default() };
        let told = with_disabled(&with_bootloader(&board, &says).unwrap(), &["brcm,bcm2711"]).unwrap();
        assert_eq!(bootloader(&told).unwrap(), Some(says));
        let mut status = Vec::new();
        walk(&told, |token, _| {
            if let Token::Property { name: b"status", value } = token {
                status.push(value.to_vec());
            }
            true
        })
        .unwrap();
        assert_eq!(status, [b"disabled\0".to_vec()]);
        let other = with_disabled(&board, &["brcm"]).unwrap();
        assert_eq!(compatible(&other).unwrap(), compatible(&board).unwrap());
        assert!(!other.windows(8).any(|bytes| bytes == b"disabled"));
    }

    /// The judge: the reference compiler reads what we wrote.
    #[test]
    #[expect(clippy::print_stderr, reason = "a test that is skipped says so")]
    fn dtc_reads_it() {
        let says = Bootloader { partition: 2, tryboot: false, build_timestamp: 0 };
        let tree = with_bootloader(&tree("a,b c,d", true), &says).unwrap();
        let tree = with_disabled(&tree, &["c,d"]).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.dtb");
        std::fs::write(&path, tree).unwrap();
        let output =
            match std::process::Command::new("dtc").args(["-I", "dtb", "-O", "dts"]).arg(&path).output() {
                Ok(output) => output,
                Err(error) => {
                    eprintln!("SKIPPED dtc_reads_it: dtc (package device-tree-compiler): {error}");
                    return;
                }
            };
        let text = String::from_utf8_lossy(&output.stdout).split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(output.status.success(), "{output:?}");
        assert!(text.contains("/ { status = \"disabled\"; compatible"), "{text}");
        assert!(text.contains("chosen { bootloader { partition = <0x02>; tryboot = <0x00>; }; };"), "{text}");
    }

    proptest! {
        #[test]
        fn any_bytes_end(noise in proptest::collection::vec((0usize..200, any::<u8>()), 0..8), cut in 0usize..200) {
            let mut tree = tree("a,b", true);
            for (at, byte) in noise {
                let length = tree.len();
                tree[at % length] = byte;
            }
            tree.truncate(cut.max(1));
            let _ = compatible(&tree);
            let _ = bootloader(&tree);
            let _ = with_bootloader(&tree, &Bootloader::default());
            let _ = with_disabled(&tree, &["a,b"]);
        }
    }
}
