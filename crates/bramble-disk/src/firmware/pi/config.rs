//! The text format of `config.txt`, `tryboot.txt` and `autoboot.txt`.
//!
//! Sources: Raspberry Pi documentation, "What is config.txt?" (format, line length, `include`), "Conditional filters", and
//! "autoboot.txt"; expression filters: raspberrypi/rpi-eeprom, `firmware-2712/release-notes.md`, 2025-02-11 and 2025-03-10.

use std::collections::BTreeMap;

use super::board::{Behaviour, Board};
use crate::firmware::trace::Trace;

/// "There is a 98-character line length limit for entries - any characters past this limit will be ignored".
pub const LINE_MAX: usize = 98;
/// "autoboot.txt is limited to 512 bytes".
pub const AUTOBOOT_MAX: u64 = 512;
/// Our own bound on files and their nesting: the firmware's is not documented.
pub(super) const FILE_MAX: u64 = 64 << 10;
const INCLUDE_DEPTH: u32 = 8;
const FILES_MAX: u32 = 64;

/// Which file it is: each knows other filters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    Autoboot,
    Config,
}

/// What filters ask about.
pub(super) struct Facts<'a> {
    pub(super) board: &'a Board,
    pub(super) behaviour: &'a Behaviour,
    pub(super) tryboot: bool,
    /// The partition that is booted from; known when `config.txt` is read.
    pub(super) boot_partition: u32,
    /// The number in the reset register.
    pub(super) reset_partition: u32,
    pub(super) boot_count: u32,
    pub(super) boot_arg1: u32,
}

/// A setting and where it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Value {
    pub(super) text: String,
    pub(super) place: String,
}

/// What a file says to a board.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// The last value of each key.
    values: BTreeMap<String, Value>,
    /// Overlays, in order.
    pub(super) overlays: Vec<String>,
}

impl Settings {
    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.values.get(key).map(|value| value.text.as_str())
    }

    /// Decimal or, after `0x`, hexadecimal.
    pub(super) fn number(&self, key: &str) -> Option<u32> {
        self.text(key).and_then(number)
    }

    pub(super) fn is_set(&self, key: &str) -> bool {
        self.number(key).is_some_and(|number| number != 0)
    }

    /// Where the value that counts stands, `file:line`.
    pub(super) fn place(&self, key: &str) -> &str {
        self.values.get(key).map_or("", |value| value.place.as_str())
    }
}

fn number(text: &str) -> Option<u32> {
    match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(digits) => u32::from_str_radix(digits, 16).ok(),
        None => text.parse().ok(),
    }
}

/// Which settings pass. "Filters of the same type replace each other"; those of different types combine; `[all]` resets.
struct Filters {
    model: bool,
    serial: bool,
    monitor: bool,
    gpio: bool,
    tryboot: bool,
    none: bool,
    expression: bool,
    unknown: bool,
}

const ALL: Filters = Filters {
    model: true,
    serial: true,
    monitor: true,
    gpio: true,
    tryboot: true,
    none: true,
    expression: true,
    unknown: true,
};

impl Filters {
    fn pass(&self) -> bool {
        self.model
            && self.serial
            && self.monitor
            && self.gpio
            && self.tryboot
            && self.none
            && self.expression
            && self.unknown
    }
}

/// Model filters that the documentation lists.
const MODEL_FILTERS: &[&str] = &[
    "pi0", "pi0w", "pi02", "pi1", "pi2", "pi3", "pi3+", "pi4", "pi400", "pi5", "pi500", "cm0", "cm1", "cm3",
    "cm3+", "cm4", "cm4s", "cm5",
];

/// Reads files one into another.
struct Parser<'a> {
    facts: &'a Facts<'a>,
    dialect: Dialect,
    /// Gives the content of a file of the partition, at most so many bytes.
    load: &'a mut dyn FnMut(&str, u64) -> Option<Vec<u8>>,
    trace: &'a mut Trace,
    filters: Filters,
    settings: Settings,
    files: u32,
}

/// What `bytes`, the content of `file`, say to a board. `load` gives files that are included.
pub(super) fn read(
    bytes: &[u8],
    file: &str,
    dialect: Dialect,
    facts: &Facts,
    load: &mut dyn FnMut(&str, u64) -> Option<Vec<u8>>,
    trace: &mut Trace,
) -> Settings {
    let settings = Settings::default();
    let mut parser = Parser { facts, dialect, load, trace, filters: ALL, settings, files: 0 };
    parser.lines(bytes, file, 0);
    parser.settings
}

impl Parser<'_> {
    fn lines(&mut self, bytes: &[u8], file: &str, depth: u32) {
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let place = || format!("{file}:{}", index + 1);
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            let mut cut = line;
            if line.len() > LINE_MAX && !line.starts_with(b"#") {
                cut = &line[..LINE_MAX];
                let place = place();
                self.trace.warn(format_args!("{place}: longer than {LINE_MAX} bytes; the rest is ignored"));
            }
            let text = String::from_utf8_lossy(cut);
            let text = text.trim();
            // Sectors are padded with zeros; so may a file of fixed size be.
            let text = text.trim_end_matches('\0');
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            if let Some(rest) = text.strip_prefix('[') {
                match rest.strip_suffix(']') {
                    Some(filter) => self.filter(filter, &place()),
                    None => {
                        let place = place();
                        self.trace.doubt(format_args!("{place}: {text:?} is taken for no filter"));
                    }
                }
            } else if self.filters.pass() {
                self.setting(text, file, &place(), depth);
            }
        }
    }

    fn setting(&mut self, text: &str, file: &str, place: &str, depth: u32) {
        let (key, value) = match text.split_once('=') {
            // "This option uses different syntax from all the other options": no `=`.
            _ if text.starts_with("initramfs ") => ("initramfs", text["initramfs ".len()..].trim()),
            _ if text.starts_with("include ") => {
                return self.include(text["include ".len()..].trim(), file, place, depth);
            }
            Some((key, value)) => (key, value),
            None => {
                self.trace.doubt(format_args!("{place}: {text:?} has no `=` and is taken to be ignored"));
                return;
            }
        };
        if key != key.trim_end() || value != value.trim_start() {
            self.trace.doubt(format_args!("{place}: spaces around `=`; the line is taken to be ignored"));
            return;
        }
        if key == "dtoverlay" && !value.is_empty() {
            self.settings.overlays.push(value.to_owned());
        }
        let value = Value { text: value.to_owned(), place: place.to_owned() };
        if let Some(before) = self.settings.values.insert(key.to_owned(), value)
            && key == "initramfs"
        {
            let first = before.place;
            self.trace.doubt(format_args!("{place}: a second `initramfs` is taken to replace {first}"));
        }
    }

    fn include(&mut self, name: &str, file: &str, place: &str, depth: u32) {
        self.files += 1;
        if self.dialect == Dialect::Autoboot || depth >= INCLUDE_DEPTH || self.files > FILES_MAX {
            self.trace.doubt(format_args!(
                "{place}: include {name}: taken to be ignored (here, so deep or so often)"
            ));
            return;
        }
        match (self.load)(name, FILE_MAX) {
            Some(bytes) => {
                self.trace.step(format_args!("{place}: includes {name}"));
                self.lines(&bytes, name, depth + 1);
            }
            None => self.trace.warn(format_args!("{file}: {name}, included at {place}, cannot be read")),
        }
    }

    /// A line in brackets.
    fn filter(&mut self, text: &str, place: &str) {
        let filter = text.to_ascii_lowercase();
        if filter != text && filter != "all" {
            // Cards of a well-known distribution say `[PI3]` and boot.
            self.trace.doubt(format_args!("{place}: [{text}] is taken to mean [{filter}]"));
        }
        if filter == "all" {
            self.filters = ALL;
            return;
        }
        if !self.filters.none {
            self.trace.doubt(format_args!(
                "{place}: [{filter}] after [none] is taken to change nothing before [all]"
            ));
        }
        match filter.as_str() {
            "none" => self.filters.none = false,
            "tryboot" if self.facts.behaviour.tryboot_a_b => self.filters.tryboot = self.facts.tryboot,
            // "supports the [all], [none] and [tryboot] conditional filters".
            _ if self.dialect == Dialect::Autoboot => {
                self.unknown(&filter, place, "autoboot.txt does not know it")
            }
            name if MODEL_FILTERS.contains(&name) => {
                self.filters.model = self.facts.board.model.facts().filters.contains(&name);
            }
            name if name.starts_with("board-type=") => {
                let wanted = number(&name["board-type=".len()..]);
                self.filters.model = wanted == Some(self.facts.board.model.facts().board_type);
            }
            name if name.starts_with("0x") => {
                let wanted = u64::from_str_radix(&name[2..], 16).ok();
                self.filters.serial = wanted.is_some() && wanted == self.facts.board.serial;
            }
            name if name.starts_with("edid=") || name.starts_with("hdmi:") => self.filters.monitor = false,
            name if name.starts_with("gpio") => {
                self.trace
                    .doubt(format_args!("{place}: [{name}]: nothing is taken to be connected to the pins"));
                self.filters.gpio = false;
            }
            name => match self.expression(name) {
                Some(passes) => self.filters.expression = passes,
                None => self.unknown(name, place, "this firmware does not know it"),
            },
        }
    }

    fn unknown(&mut self, filter: &str, place: &str, why: &str) {
        self.trace.doubt(format_args!("{place}: [{filter}]: {why}; what follows is taken to be left out"));
        self.filters.unknown = false;
    }

    /// `ARG=VALUE`, `ARG&MASK`, `ARG&MASK=VALUE`, `ARG<VALUE`, `ARG>VALUE`; `None` for what this firmware does not know.
    fn expression(&self, text: &str) -> Option<bool> {
        let end = text.find(['=', '&', '<', '>'])?;
        let (name, rest) = text.split_at(end);
        let behaviour = self.facts.behaviour;
        let argument = match name {
            "boot_partition" if behaviour.boot_partition_filter => self.facts.boot_partition,
            "partition" if behaviour.expressions => self.facts.reset_partition,
            "boot_count" if behaviour.expressions => self.facts.boot_count,
            "boot_arg1" if behaviour.expressions => self.facts.boot_arg1,
            "bootvar0" if behaviour.bootvar0 => self.facts.board.eeprom.bootvar0,
            _ => return None,
        };
        let (operator, rest) = rest.split_at(1);
        Some(match (operator, rest.split_once('=')) {
            ("=", _) => argument == number(rest)?,
            ("<", _) => argument < number(rest)?,
            (">", _) => argument > number(rest)?,
            (_, Some((mask, value))) => argument & number(mask)? == number(value)?,
            (_, None) => argument & number(rest)? != 0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::board::Model;
    use super::*;
    use crate::firmware::trace::Kind;
    use proptest::prelude::*;

    fn parse_with(board: &Board, tryboot: bool, dialect: Dialect, text: &[u8]) -> (Settings, Trace) {
        let behaviour = board.behaviour();
        let facts = Facts {
            board,
            behaviour: &behaviour,
            tryboot,
            boot_partition: 3,
            reset_partition: 0,
            boot_count: 5,
            boot_arg1: 0x12,
        };
        let mut trace = Trace::on();
        let mut load = |name: &str, _| match name {
            "more.txt" => Some(b"kernel=more\n[none]\n".to_vec()),
            "circle.txt" => Some(b"include circle.txt\ninclude circle.txt\n".to_vec()),
            _ => None,
        };
        let settings = read(text, "config.txt", dialect, &facts, &mut load, &mut trace);
        (settings, trace)
    }

    fn recent(model: Model) -> Board {
        let date = super::super::board::RECENT;
        Board { bootloader: date, start_elf: date, ..Board::new(model) }
    }

    /// The value of `k` that counts.
    fn k(model: Model, text: &str) -> Option<String> {
        parse_with(&recent(model), false, Dialect::Config, text.as_bytes()).0.text("k").map(str::to_owned)
    }

    #[test]
    fn the_last_value_counts_and_comments_do_not() {
        assert_eq!(k(Model::Pi4B, "k=1\r\n# k=2\n  k=3\n#k=4"), Some("3".into()));
        assert_eq!(k(Model::Pi4B, "k=\n"), Some(String::new()));
        assert_eq!(k(Model::Pi4B, "k\nk =1\nk= 2\n[oops\n"), None);
    }

    /// "Conditional filters", model filters: a board sees all filters of its row.
    #[test]
    fn models_see_their_filters() {
        for model in Model::ALL {
            for filter in MODEL_FILTERS {
                let sees = k(model, &format!("[{filter}]\nk=1\n")).is_some();
                assert_eq!(sees, model.facts().filters.contains(filter), "{model} {filter}");
            }
        }
        assert_eq!(k(Model::Cm4, "[pi4]\nk=1\n[cm4]\nk=2\n[pi5]\nk=3\n"), Some("2".into()));
        assert_eq!(k(Model::Pi4B, "[board-type=0x14]\nk=1\n"), None);
        assert_eq!(k(Model::Cm4, "[board-type=0x14]\nk=1\n"), Some("1".into()));
        assert_eq!(k(Model::Cm4, "[board-type=20]\nk=1\n"), Some("1".into()));
        assert_eq!(k(Model::Pi3B, "[PI3]\nk=1\n"), Some("1".into()));
    }

    /// "Filters of the same type replace each other"; "Filters of different types can be combined".
    #[test]
    fn filters_replace_combine_and_reset() {
        assert_eq!(k(Model::Pi4B, "[pi3]\n[pi4]\nk=1\n"), Some("1".into()));
        assert_eq!(k(Model::Pi4B, "[tryboot]\n[pi4]\nk=1\n"), None);
        assert_eq!(k(Model::Pi4B, "[tryboot]\n[pi3]\n[all]\nk=1\n"), Some("1".into()));
        assert_eq!(k(Model::Pi4B, "[none]\nk=1\n"), None);
        assert_eq!(k(Model::Pi4B, "[none]\n[pi4]\nk=1\n[all]\n"), None);
        assert_eq!(k(Model::Pi4B, "[none]\n[all]\nk=1\n"), Some("1".into()));
        assert_eq!(k(Model::Pi4B, "[EDID=DEL-DELL]\nk=1\n"), None);
        assert_eq!(k(Model::Pi4B, "[gpio4=1]\nk=1\n"), None);
        assert_eq!(k(Model::Pi4B, "[0x1234]\nk=1\n"), None);
        let mine = Board { serial: Some(0x1234), ..recent(Model::Pi4B) };
        let (settings, _) = parse_with(&mine, false, Dialect::Config, b"[0x00001234]\nk=1\n");
        assert_eq!(settings.number("k"), Some(1));
    }

    /// rpi-eeprom release notes of 2025-02-11, "Syntax (no spaces)".
    #[test]
    fn expressions() {
        for (filter, passes) in [
            ("boot_partition=3", true),
            ("boot_partition=2", false),
            ("boot_partition=0x3", true),
            ("boot_count<6", true),
            ("boot_count<5", false),
            ("boot_count>4", true),
            ("boot_count>5", false),
            ("boot_arg1&0x10", true),
            ("boot_arg1&0x8", false),
            ("boot_arg1&0xf=2", true),
            ("boot_arg1&0xf=3", false),
            ("partition=0", true),
            ("bootvar0&1", false),
            ("boot_count=five", false),
            ("boot_count=", false),
            ("boot_parties=3", false),
        ] {
            assert_eq!(k(Model::Pi5, &format!("[{filter}]\nk=1\n")).is_some(), passes, "{filter}");
        }
        // Known to newer firmware only: Debian 13's start4.elf leaves the section out.
        let (settings, trace) =
            parse_with(&Board::new(Model::Pi4B), false, Dialect::Config, b"[boot_partition=3]\nk=1\n");
        assert_eq!((settings.text("k"), trace.of(Kind::Doubt).count()), (None, 1));
    }

    #[test]
    fn autoboot_knows_three_filters() {
        let text = b"[all]\ntryboot_a_b=1\nboot_partition=2\n[tryboot]\nboot_partition=3\n";
        let boot = |tryboot| {
            let (settings, trace) = parse_with(&recent(Model::Pi4B), tryboot, Dialect::Autoboot, text);
            assert_eq!(trace.of(Kind::Doubt).count(), 0);
            (settings.number("boot_partition"), settings.is_set("tryboot_a_b"))
        };
        assert_eq!((boot(false), boot(true)), ((Some(2), true), (Some(3), true)));
        for other in ["pi4", "partition=0", "boot_count<9", "board-type=0x11"] {
            let text = format!("[{other}]\nboot_partition=4\n");
            let (settings, trace) =
                parse_with(&recent(Model::Pi4B), false, Dialect::Autoboot, text.as_bytes());
            assert_eq!(
                (settings.number("boot_partition"), trace.of(Kind::Doubt).count()),
                (None, 1),
                "{other}"
            );
        }
        // An EEPROM from before the filter: rpi-eeprom#504.
        let old = Board { bootloader: "2022-10-17".parse().unwrap(), ..Board::new(Model::Pi4B) };
        let (settings, _) = parse_with(&old, true, Dialect::Autoboot, text);
        assert_eq!(settings.number("boot_partition"), Some(2));
    }

    #[test]
    fn long_lines_are_cut_and_files_included() {
        let long = format!("kernel={}\n# {}\n", "x".repeat(100), "y".repeat(200));
        let (settings, trace) = parse_with(&recent(Model::Pi4B), false, Dialect::Config, long.as_bytes());
        assert_eq!(settings.text("kernel").unwrap().len(), LINE_MAX - "kernel=".len());
        assert_eq!(trace.of(Kind::Warning).count(), 1);
        // A filter in an included file goes on after it.
        let text = b"include more.txt\nk=1\n[all]\ninclude nowhere.txt\n";
        let (settings, trace) = parse_with(&recent(Model::Pi4B), false, Dialect::Config, text);
        assert_eq!((settings.text("kernel"), settings.text("k")), (Some("more"), None));
        assert_eq!((settings.place("kernel"), trace.of(Kind::Warning).count()), ("more.txt:1", 1));
        let (_, trace) = parse_with(&recent(Model::Pi4B), false, Dialect::Config, b"include circle.txt\n");
        assert!(trace.of(Kind::Doubt).count() > 0);
    }

    #[test]
    fn initramfs_has_its_own_syntax() {
        let text =
            b"initramfs initrd.img followkernel\ndtoverlay=a\ndtoverlay=\ndtoverlay=b,x=1\ninitramfs two 0\n";
        let (settings, trace) = parse_with(&recent(Model::Pi4B), false, Dialect::Config, text);
        assert_eq!(settings.text("initramfs"), Some("two 0"));
        assert_eq!(settings.overlays, ["a", "b,x=1"]);
        assert_eq!(trace.of(Kind::Doubt).count(), 1);
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            for dialect in [Dialect::Autoboot, Dialect::Config] {
                parse_with(&recent(Model::Pi5), true, dialect, &bytes);
            }
        }

        /// What a filter leaves out says nothing, and `[all]` lets through what follows, whatever came before.
        #[test]
        fn all_resets(lines in proptest::collection::vec("(\\[[a-z0-9=+&<>:-]{0,12}\\]|k=[0-9])", 0..20)) {
            let text = format!("{}\n[all]\nk=last\n[none]\nk=never\n", lines.join("\n"));
            prop_assert_eq!(k(Model::Pi4B, &text), Some("last".into()));
        }
    }
}
