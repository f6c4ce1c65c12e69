//! Which drivers must be there before a disk appears: read from the device tree.
//!
//! A device waits for what its node refers to: clocks, regulators, pins, interrupts. When the driver of one of those is
//! a module that nobody loads, the device never appears, and nothing says so. So the references are followed from the
//! nodes of disks' controllers, and every driver on the way must be built in or in the initramfs.
//!
//! Format: Devicetree Specification 0.4, chapter 5 (flattened form) and 2.3 (standard properties); names of properties
//! from the bindings in the Linux source.

use std::collections::{BTreeMap, BTreeSet};

/// Bytes that are no device tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a flattened device tree")]
pub struct Damaged;

/// Nodes of controllers that a root's disk can hang on, by the beginning of their names.
const CONTROLLERS: &[&str] = &["mmc@", "pcie@", "usb@"];

/// Properties that refer to other nodes, and the property of the referred node that says how many numbers follow each
/// reference; none when no number follows.
const REFERENCES: &[(&str, Option<&str>)] = &[
    ("clocks", Some("#clock-cells")),
    ("dmas", Some("#dma-cells")),
    ("interrupt-parent", None),
    ("interrupts-extended", Some("#interrupt-cells")),
    ("mboxes", Some("#mbox-cells")),
    ("mmc-pwrseq", None),
    ("msi-parent", None),
    ("phys", Some("#phy-cells")),
    ("power-domains", Some("#power-domain-cells")),
    ("resets", Some("#reset-cells")),
    ("usb-phy", None),
];

struct Node<'a> {
    name: &'a str,
    parent: Option<usize>,
    properties: BTreeMap<&'a str, &'a [u8]>,
}

/// A device tree.
pub struct DeviceTree<'a> {
    nodes: Vec<Node<'a>>,
    /// Nodes by the number that others refer to them with.
    handles: BTreeMap<u32, usize>,
}

/// A device that a disk's controller waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Supplier {
    /// Path of its node.
    pub node: String,
    /// What it is compatible with, the most exact first.
    pub compatible: Vec<String>,
}

impl<'a> DeviceTree<'a> {
    /// Reads a flattened device tree.
    ///
    /// # Errors
    /// It is none, or it is cut off.
    pub fn parse(bytes: &'a [u8]) -> Result<DeviceTree<'a>, Damaged> {
        const MAGIC: u32 = 0xd00d_feed;
        let header = |index: usize| number(bytes, index * 4).ok_or(Damaged);
        if header(0)? != MAGIC {
            return Err(Damaged);
        }
        let (structure, strings) = (header(2)? as usize, bytes.get(header(3)? as usize..).ok_or(Damaged)?);
        let mut nodes: Vec<Node<'a>> = Vec::new();
        let mut open: Vec<usize> = Vec::new();
        let mut at = structure;
        loop {
            let token = number(bytes, at).ok_or(Damaged)?;
            at += 4;
            match token {
                1 => {
                    let name = text(bytes.get(at..).ok_or(Damaged)?)?;
                    at = (at + name.len() + 1).next_multiple_of(4);
                    nodes.push(Node { name, parent: open.last().copied(), properties: BTreeMap::new() });
                    open.push(nodes.len() - 1);
                }
                2 => {
                    open.pop().ok_or(Damaged)?;
                }
                3 => {
                    let length = number(bytes, at).ok_or(Damaged)? as usize;
                    let name = number(bytes, at + 4).ok_or(Damaged)? as usize;
                    at += 8;
                    let end = at.checked_add(length).ok_or(Damaged)?;
                    let value = bytes.get(at..end).ok_or(Damaged)?;
                    at = end.next_multiple_of(4);
                    let node = open.last().ok_or(Damaged)?;
                    let name = text(strings.get(name..).ok_or(Damaged)?)?;
                    nodes[*node].properties.insert(name, value);
                }
                4 => {}
                9 => break,
                _ => return Err(Damaged),
            }
        }
        let handle =
            |(index, node): (usize, &Node<'a>)| Some((number(node.properties.get("phandle")?, 0)?, index));
        let handles = nodes.iter().enumerate().filter_map(handle).collect();
        Ok(DeviceTree { nodes, handles })
    }

    /// What the machine is, the most exact first.
    pub fn compatible(&self) -> Vec<&'a str> {
        self.nodes.first().map(|root| strings(root, "compatible")).unwrap_or_default()
    }

    /// The controllers of disks with all that they wait for.
    pub fn suppliers(&self) -> BTreeSet<Supplier> {
        let controller = |node: &Node<'_>| CONTROLLERS.iter().any(|prefix| node.name.starts_with(prefix));
        let mut todo: Vec<usize> = (0..self.nodes.len())
            .filter(|index| controller(&self.nodes[*index]) && self.is_on(*index))
            .filter(|index| self.nodes[*index].properties.contains_key("compatible"))
            .collect();
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        while let Some(index) = todo.pop() {
            if seen.insert(index) {
                todo.extend(self.references(index));
                todo.extend(self.nodes[index].parent);
            }
        }
        let devices = seen.into_iter().filter(|index| self.is_on(*index)).filter_map(|index| {
            let compatible = strings(&self.nodes[index], "compatible");
            let supplier = Supplier {
                node: self.path(index),
                compatible: compatible.iter().map(|c| c.to_string()).collect(),
            };
            (!compatible.is_empty() && self.nodes[index].parent.is_some()).then_some(supplier)
        });
        devices.collect()
    }

    /// Neither the node nor one above it is disabled.
    fn is_on(&self, index: usize) -> bool {
        let above = std::iter::successors(Some(index), |at| self.nodes[*at].parent);
        above.map(|at| &self.nodes[at]).all(|node| {
            let status = strings(node, "status");
            matches!(status.first(), None | Some(&"okay" | &"ok"))
        })
    }

    fn path(&self, index: usize) -> String {
        let above = std::iter::successors(Some(index), |at| self.nodes[*at].parent);
        let mut names: Vec<&str> = above.map(|at| self.nodes[at].name).collect();
        names.reverse();
        if names.len() == 1 { "/".to_string() } else { names.join("/") }
    }

    fn references(&self, index: usize) -> Vec<usize> {
        let node = &self.nodes[index];
        let mut found = Vec::new();
        for (name, value) in &node.properties {
            let cells = match *name {
                "gpio" | "gpios" => Some("#gpio-cells"),
                name if name.ends_with("-gpio") || name.ends_with("-gpios") => Some("#gpio-cells"),
                name if name.ends_with("-supply")
                    || name.starts_with("pinctrl-") && name != "pinctrl-names" =>
                {
                    None
                }
                name => match REFERENCES.iter().find(|(known, _)| *known == name) {
                    Some((_, cells)) => *cells,
                    None => continue,
                },
            };
            self.follow(value, cells, &mut found);
        }
        // Interrupts without a word of their own go to the nearest that is stated above.
        if node.properties.contains_key("interrupts") && !node.properties.contains_key("interrupt-parent") {
            let mut above = std::iter::successors(node.parent, |at| self.nodes[*at].parent);
            if let Some(value) = above.find_map(|at| self.nodes[at].properties.get("interrupt-parent")) {
                self.follow(value, None, &mut found);
            }
        }
        found
    }

    /// References in a value, each followed by as many numbers as the referred node says.
    fn follow(&self, value: &[u8], cells: Option<&str>, found: &mut Vec<usize>) {
        let mut at = 0;
        while let Some(handle) = number(value, at) {
            at += 4;
            // 0 is an entry that is left out.
            let Some(target) = self.handles.get(&handle) else { continue };
            found.push(*target);
            let properties = &self.nodes[*target].properties;
            let count = cells.and_then(|name| number(properties.get(name)?, 0)).unwrap_or(0);
            at += count as usize * 4;
        }
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let word = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(word.try_into().ok()?))
}

fn text(bytes: &[u8]) -> Result<&str, Damaged> {
    let end = bytes.iter().position(|b| *b == 0).ok_or(Damaged)?;
    std::str::from_utf8(&bytes[..end]).map_err(|_| Damaged)
}

fn strings<'a>(node: &Node<'a>, name: &str) -> Vec<&'a str> {
    let value = node.properties.get(name).copied().unwrap_or_default();
    value.split(|b| *b == 0).filter_map(|s| std::str::from_utf8(s).ok()).filter(|s| !s.is_empty()).collect()
}

/// An overlay that makes `from` what `to` is, to be laid over it by firmware; `None` when that takes more than other
/// values of properties, or further ones: an overlay cannot take anything away.
///
/// Format: `Documentation/devicetree/overlay-notes.rst` in the Linux source; targets are named by path, so `from` needs
/// no symbols.
pub fn overlay(from: &DeviceTree<'_>, to: &DeviceTree<'_>) -> Option<Vec<u8>> {
    let by_path = |tree: &DeviceTree<'_>| -> BTreeMap<String, usize> {
        (0..tree.nodes.len()).map(|index| (tree.path(index), index)).collect()
    };
    let (old, new) = (by_path(from), by_path(to));
    if !old.keys().eq(new.keys()) {
        return None;
    }
    let mut writer = Writer::default();
    let mut possible = true;
    writer.node("", &[], |root| {
        let mut number = 0;
        for (path, index) in &new {
            let (before, after) = (&from.nodes[old[path]].properties, &to.nodes[*index].properties);
            possible &= before.keys().all(|name| after.contains_key(name));
            let changed: Vec<(&str, &[u8])> = after
                .iter()
                .filter(|(name, value)| before.get(*name) != Some(value))
                .map(|(n, v)| (*n, *v))
                .collect();
            // Numbers by which nodes refer to each other belong to one tree.
            possible &= changed.iter().all(|(name, _)| *name != "phandle");
            if !changed.is_empty() {
                let target = format!("{path}\0");
                root.node(&format!("fragment@{number}"), &[("target-path", target.as_bytes())], |fragment| {
                    fragment.node("__overlay__", &changed, |_| ());
                });
                number += 1;
            }
        }
    });
    possible.then(|| writer.finish())
}

/// Writes the flattened form.
#[derive(Default)]
struct Writer {
    structure: Vec<u8>,
    strings: Vec<u8>,
    names: BTreeMap<String, u32>,
}

impl Writer {
    fn word(&mut self, word: u32) {
        self.structure.extend(word.to_be_bytes());
    }

    fn pad(&mut self) {
        self.structure.resize(self.structure.len().next_multiple_of(4), 0);
    }

    fn node(&mut self, name: &str, properties: &[(&str, &[u8])], inside: impl FnOnce(&mut Writer)) {
        self.word(1);
        self.structure.extend(name.as_bytes());
        self.structure.push(0);
        self.pad();
        for (name, value) in properties {
            let next = self.strings.len() as u32;
            let at = *self.names.entry((*name).to_string()).or_insert(next);
            if at == next {
                self.strings.extend(name.as_bytes());
                self.strings.push(0);
            }
            self.word(3);
            self.word(value.len() as u32);
            self.word(at);
            self.structure.extend(*value);
            self.pad();
        }
        inside(self);
        self.word(2);
    }

    fn finish(mut self) -> Vec<u8> {
        const HEADER: u32 = 40;
        // Memory that nobody may use: an empty list, closed by zeros.
        const RESERVED: [u8; 16] = [0; 16];
        self.word(9);
        let structure = HEADER + RESERVED.len() as u32;
        let strings = structure + self.structure.len() as u32;
        let total = strings + self.strings.len() as u32;
        let sizes = [self.strings.len() as u32, self.structure.len() as u32];
        let header = [0xd00d_feed, total, structure, strings, HEADER, 17, 16, 0, sizes[0], sizes[1]];
        let header = header.iter().flat_map(|word: &u32| word.to_be_bytes());
        header.chain(RESERVED).chain(self.structure).chain(self.strings).collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A board whose SD card needs `controller`, powered by a regulator on a GPIO of a third.
    pub(crate) fn board(machine: &str) -> Vec<u8> {
        let mut made = Writer::default();
        let machine = format!("{machine}\0");
        made.node("", &[("compatible", machine.as_bytes()), ("interrupt-parent", &[0, 0, 0, 9])], |root| {
            root.node("soc", &[("compatible", b"simple-bus\0")], |soc| {
                let card: &[(&str, &[u8])] = &[
                    ("compatible", b"acme,card-2\0acme,card\0"),
                    ("clocks", &[0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 4]),
                    ("vmmc-supply", &[0, 0, 0, 1]),
                    ("interrupts", &[0, 0, 0, 5]),
                ];
                soc.node("mmc@1000", card, |_| ());
                let off: &[(&str, &[u8])] = &[("compatible", b"acme,off\0"), ("status", b"disabled\0")];
                soc.node("mmc@2000", off, |_| ());
                let clock: &[(&str, &[u8])] = &[
                    ("compatible", b"acme,clock\0"),
                    ("phandle", &[0, 0, 0, 3]),
                    ("#clock-cells", &[0, 0, 0, 1]),
                ];
                soc.node("clock@3000", clock, |_| ());
                // Its number is the clock's argument above: no reference.
                soc.node("dsi@3000", &[("compatible", b"acme,dsi\0"), ("phandle", &[0, 0, 0, 2])], |_| ());
                let still: &[(&str, &[u8])] = &[("compatible", b"fixed-clock\0"), ("phandle", &[0, 0, 0, 4])];
                soc.node("clock@4000", still, |_| ());
                soc.node("irq@9", &[("compatible", b"acme,irq\0"), ("phandle", &[0, 0, 0, 9])], |_| ());
            });
            let power: &[(&str, &[u8])] = &[
                ("compatible", b"regulator-fixed\0"),
                ("phandle", &[0, 0, 0, 1]),
                ("gpio", &[0, 0, 0, 6, 0, 0, 0, 3]),
            ];
            root.node("power", power, |_| ());
            let gpio: &[(&str, &[u8])] =
                &[("compatible", b"acme,gpio\0"), ("phandle", &[0, 0, 0, 6]), ("#gpio-cells", &[0, 0, 0, 1])];
            root.node("gpio", gpio, |_| ());
        });
        made.finish()
    }

    #[test]
    fn all_that_a_disk_waits_for_is_found_and_nothing_else() {
        let bytes = board("acme,board");
        let tree = DeviceTree::parse(&bytes).unwrap();
        assert_eq!(tree.compatible(), ["acme,board"]);
        let found: Vec<String> = tree.suppliers().into_iter().map(|s| s.node).collect();
        let expected =
            ["/gpio", "/power", "/soc", "/soc/clock@3000", "/soc/clock@4000", "/soc/irq@9", "/soc/mmc@1000"];
        assert_eq!(found, expected);
        for end in 0..bytes.len() {
            // Whatever is cut off, it is refused or read without harm.
            if let Ok(tree) = DeviceTree::parse(&bytes[..end]) {
                tree.suppliers();
            }
        }
        assert!(DeviceTree::parse(b"").is_err() && DeviceTree::parse(&[0; 64]).is_err());
    }

    /// A tree whose node has these properties.
    fn with(properties: &[(&str, &[u8])]) -> Vec<u8> {
        let mut made = Writer::default();
        made.node("", &[], |root| root.node("soc", &[], |soc| soc.node("gpio@1", properties, |_| ())));
        made.finish()
    }

    #[test]
    fn an_overlay_says_what_differs_or_there_is_none() {
        let old = with(&[("compatible", b"acme,c\0"), ("reg", &[1; 8])]);
        let new = with(&[("compatible", b"acme,d\0"), ("reg", &[1; 8]), ("more", b"x\0")]);
        let [from, to] = [&old, &new].map(|bytes| DeviceTree::parse(bytes).unwrap());
        let made = overlay(&from, &to).unwrap();
        let made = DeviceTree::parse(&made).unwrap();
        let names: Vec<&str> = made.nodes.iter().map(|node| node.name).collect();
        assert_eq!(names, ["", "fragment@0", "__overlay__"]);
        assert_eq!(made.nodes[1].properties["target-path"], b"/soc/gpio@1\0");
        let inside: Vec<_> = made.nodes[2].properties.iter().map(|(n, v)| (*n, *v)).collect();
        assert_eq!(inside, [("compatible", &b"acme,d\0"[..]), ("more", b"x\0")]);

        assert!(overlay(&to, &from).is_none(), "it cannot take `more` away");
        let referred = with(&[("compatible", b"acme,c\0"), ("reg", &[1; 8]), ("phandle", &[0, 0, 0, 7])]);
        assert!(overlay(&from, &DeviceTree::parse(&referred).unwrap()).is_none());
        let other = board("acme,board");
        assert!(overlay(&from, &DeviceTree::parse(&other).unwrap()).is_none());
    }
}
