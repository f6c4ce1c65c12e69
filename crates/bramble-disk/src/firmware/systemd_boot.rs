//! How systemd-boot chooses an entry.
//!
//! [`decide`] is a pure function of a disk and the EFI variables. It follows `src/boot/boot.c` of systemd 257, Debian 13's,
//! and knows what 260 added:
//!
//! 1. UEFI starts `\EFI\BOOT\BOOTX64.EFI` (or `BOOTAA64.EFI`) of the EFI system partition.
//! 2. `loader.conf` and the variables are read; the one-shot variables are deleted at once, whether they match or not.
//! 3. Entries are the UKIs in `\EFI\Linux` (type 2) and the files in `\loader\entries` (type 1). A file that is no program
//!    for this machine, such as one with a zeroed header, is no entry.
//! 4. They are sorted: the newest first.
//! 5. The choice: `LoaderEntryOneShot`; from 260 on `LoaderEntryPreferred` and `preferred` of loader.conf;
//!    `LoaderEntryDefault`; `default` of loader.conf; the first of the list.
//!
//! Not modelled: entries that it finds by itself (Windows, macOS, the EFI shell), XBOOTLDR, profiles within a UKI, entries
//! from SMBIOS, `LoaderEntrySysFail`, Secure Boot, and that a person may hold a key. Boot counters are read, because they
//! decide the order; that they are counted down is told as a warning, for nothing of ours uses them.

mod pe;
#[cfg(test)]
mod tests;
mod version;

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;

use bramble_partition::{Guid, gpt};

use super::trace::Trace;
use super::volume::Volume;
use super::{FileRef, Place, ReadAt, Window};
use pe::Image;

/// `SD_GPT_ESP`.
const ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// Our bound on text files.
const TEXT_MAX: u64 = 64 << 10;
/// "bootctl set-preferred": added in 260.
const PREFERRED_SINCE: u32 = 260;

/// The processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arch {
    /// x86-64.
    Amd64,
    /// AArch64.
    Arm64,
}

impl Arch {
    /// `Machine` of the COFF header.
    fn machine(self) -> u16 {
        match self {
            Arch::Amd64 => 0x8664,
            Arch::Arm64 => 0xaa64,
        }
    }

    /// The program that UEFI starts when no variable names another (UEFI specification 2.10, table 3.5).
    fn boot_file(self) -> &'static str {
        match self {
            Arch::Amd64 => "EFI/BOOT/BOOTX64.EFI",
            Arch::Arm64 => "EFI/BOOT/BOOTAA64.EFI",
        }
    }

    /// The word in `architecture` of an entry.
    fn name(self) -> &'static str {
        match self {
            Arch::Amd64 => "x64",
            Arch::Arm64 => "aa64",
        }
    }
}

/// The machine and its loader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Loader {
    /// The processor.
    pub arch: Arch,
    /// systemd's version: 257 is Debian 13's.
    pub version: u32,
}

/// EFI variables of systemd-boot's vendor, `4a67b082-0a4c-41cf-b6c7-440b29bb8c4f` ("The Boot Loader Interface").
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Variables {
    /// `LoaderEntryOneShot`.
    pub one_shot: Option<String>,
    /// `LoaderEntryPreferred`.
    pub preferred: Option<String>,
    /// `LoaderEntryDefault`.
    pub default: Option<String>,
    /// `LoaderEntryLastBooted`.
    pub last_booted: Option<String>,
    /// `LoaderConfigTimeout`.
    pub timeout: Option<String>,
    /// `LoaderConfigTimeoutOneShot`.
    pub timeout_one_shot: Option<String>,
}

/// What happens, why, and which variables are left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What happens.
    pub outcome: Result<Start, Failure>,
    /// The variables afterwards.
    pub variables: Variables,
    /// Why, for a person.
    pub trace: Trace,
}

/// An entry that is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The EFI system partition.
    pub place: Place,
    /// `LoaderEntrySelected`: the entry's name in small letters, without counters.
    pub id: String,
    /// The program. What else its headers promise is not checked: whether it is whole, its hash says.
    pub file: FileRef,
    /// How long the menu is shown before.
    pub menu: Menu,
}

/// The menu.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Menu {
    /// Not shown.
    #[default]
    Hidden,
    /// So many seconds; then the choice is started.
    Seconds(u64),
}

/// Why nothing is started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No EFI system partition with a FAT volume.
    #[error("no EFI system partition that can be read: {0}")]
    NoEsp(String),
    /// UEFI finds no systemd-boot.
    #[error("no {0} for this machine")]
    NoLoader(&'static str),
    /// No entry at all; it goes back to UEFI.
    #[error("no entry")]
    NoEntry,
    /// The menu is shown until a person chooses.
    #[error("the menu waits for a person (`menu-force`)")]
    Waits,
}

impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.trace)?;
        match &self.outcome {
            Ok(start) => writeln!(f, "starts {}: {}", start.id, start.file),
            Err(failure) => writeln!(f, "starts nothing: {failure}"),
        }
    }
}

/// What a machine boots from `disk` with these variables.
///
/// Every disk has an outcome; a disk that cannot be read at some place is damaged there.
pub fn decide<D: ReadAt + ?Sized>(disk: &D, loader: Loader, variables: &Variables) -> Decision {
    let mut trace = Trace::on();
    let (outcome, variables) = outcome(disk, loader, variables, &mut trace);
    Decision { outcome, variables, trace }
}

/// The outcome alone and the variables afterwards, for millions of disks.
pub fn outcome<D: ReadAt + ?Sized>(
    disk: &D,
    loader: Loader,
    variables: &Variables,
    trace: &mut Trace,
) -> (Result<Start, Failure>, Variables) {
    let mut after = variables.clone();
    let outcome = run(disk, loader, &mut after, trace);
    (outcome, after)
}

fn run<D: ReadAt + ?Sized>(
    disk: &D,
    loader: Loader,
    variables: &mut Variables,
    trace: &mut Trace,
) -> Result<Start, Failure> {
    let mut volume = esp(disk, trace)?;
    let boot_file = loader.arch.boot_file();
    if Image::read(&mut volume, boot_file, loader.arch).is_none() {
        return Err(Failure::NoLoader(boot_file));
    }
    trace.step(format_args!("partition {}: UEFI starts {boot_file}", volume.place.number));

    let config = Config::read(&mut volume, trace);
    // "Unset variable now, after all it's one shot": before anything is looked for.
    let one_shot = variables.one_shot.take();
    let timeout_one_shot = variables.timeout_one_shot.take();
    let menu = timeout(&config, variables.timeout.as_deref(), timeout_one_shot.as_deref(), trace);

    let mut entries = entries(&mut volume, loader.arch, trace);
    // Stable: what compares equal stays as the directory has it.
    entries.sort_by(Entry::compare);
    for entry in &entries {
        trace.step(format_args!(
            "entry {}, version {}",
            entry.id,
            entry.version.as_deref().unwrap_or("unknown")
        ));
    }
    let chosen =
        choose(&entries, one_shot.as_deref(), variables, &config, loader, trace).ok_or(Failure::NoEntry)?;
    if chosen.tries_left.is_some() {
        trace.warn(format_args!("{} is counted: its file is renamed before it is started", chosen.id));
    }
    let menu = menu.ok_or(Failure::Waits)?;
    Ok(Start { place: volume.place, id: chosen.id.clone(), file: chosen.file.clone(), menu })
}

/// The EFI system partition.
fn esp<'d, D: ReadAt + ?Sized>(disk: &'d D, trace: &mut Trace) -> Result<Volume<'d, D>, Failure> {
    let bad = |why: &dyn fmt::Display| Failure::NoEsp(why.to_string());
    let check = gpt::check(&mut Window::whole(disk), disk.size()).map_err(|error| bad(&error))?;
    if !check.findings.is_empty() {
        // UEFI specification 2.10, 5.3.2: firmware must look at the backup when the primary is bad.
        let findings = &check.findings;
        trace.warn(format_args!("the GPT has defects: {findings:?}"));
    }
    let is_esp = |guid: &Guid| ESP.parse::<Guid>().as_ref() == Ok(guid);
    let esp = check.table.partitions.iter().find(|partition| is_esp(&partition.type_guid));
    let esp = esp.ok_or_else(|| bad(&"the GPT has none"))?;
    let place = Place { number: esp.number, start: esp.start, size: esp.size };
    Volume::open(disk, place).map_err(|error| bad(&error))
}

/// What loader.conf says.
#[derive(Default)]
struct Config {
    default: Option<String>,
    preferred: Option<String>,
    timeout: Option<String>,
}

impl Config {
    fn read<D: ReadAt + ?Sized>(volume: &mut Volume<D>, trace: &mut Trace) -> Self {
        let mut config = Config::default();
        let Ok(bytes) = volume.read("loader/loader.conf", TEXT_MAX) else {
            trace.step(format_args!("no loader.conf that can be read"));
            return config;
        };
        for (key, value) in pairs(&bytes) {
            match key.as_str() {
                // "Unsupported special entry identifier, ignoring".
                "default" if value.starts_with('@') && value.to_lowercase() != "@saved" => {
                    trace.warn(format_args!("loader.conf: default {value} is ignored"));
                }
                "default" => config.default = Some(value.to_lowercase()),
                "preferred" => config.preferred = Some(value.to_lowercase()),
                "timeout" => config.timeout = Some(value),
                _ => {}
            }
        }
        let default = config.default.as_deref().unwrap_or("none");
        trace.step(format_args!("loader.conf: default {default}"));
        config
    }
}

/// Lines of a key, blanks and a value; `#` begins a comment; the text ends at a zero (`line_get_key_value`).
fn pairs(bytes: &[u8]) -> Vec<(String, String)> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let text = String::from_utf8_lossy(&bytes[..end]);
    let lines = text.split(['\n', '\r']).map(str::trim).filter(|line| !line.starts_with('#'));
    let pairs = lines.filter_map(|line| line.split_once([' ', '\t']));
    pairs
        .map(|(key, value)| {
            let value = value.trim();
            let bare = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(value);
            (key.to_owned(), bare.to_owned())
        })
        .collect()
}

/// The menu: `LoaderConfigTimeoutOneShot` forces one, `LoaderConfigTimeout` comes before loader.conf; 0 without any of them.
/// `None` waits for a person.
fn timeout(
    config: &Config,
    variable: Option<&str>,
    one_shot: Option<&str>,
    trace: &mut Trace,
) -> Option<Menu> {
    let read = |text: &str| match text {
        "menu-force" => Some(None),
        "menu-hidden" | "menu-disabled" => Some(Some(Menu::Hidden)),
        number => match number.parse() {
            Ok(0) => Some(Some(Menu::Hidden)),
            Ok(seconds) => Some(Some(Menu::Seconds(seconds))),
            Err(_) => None,
        },
    };
    let sources = [
        (one_shot, "LoaderConfigTimeoutOneShot"),
        (variable, "LoaderConfigTimeout"),
        (config.timeout.as_deref(), "loader.conf"),
    ];
    for (text, source) in sources {
        let Some(text) = text else { continue };
        match read(text) {
            Some(Some(Menu::Hidden)) if source == "LoaderConfigTimeoutOneShot" => {
                trace.step(format_args!("{source} shows the menu until a person chooses"));
                return None;
            }
            Some(menu) => {
                if menu != Some(Menu::Hidden) {
                    trace.warn(format_args!("{source}: the menu is shown ({text})"));
                }
                return menu;
            }
            None => trace.warn(format_args!("{source}: timeout {text:?} is ignored")),
        }
    }
    Some(Menu::Hidden)
}

/// An entry.
#[derive(Clone, Debug)]
struct Entry {
    id: String,
    file: FileRef,
    sort_key: Option<String>,
    machine_id: Option<String>,
    version: Option<String>,
    /// Counters in the name: tries left and done.
    tries_left: Option<u32>,
    tries_done: u32,
}

impl Entry {
    /// `boot_entry_compare`: the one to prefer is less.
    fn compare(&self, other: &Self) -> Ordering {
        let worn_out = |entry: &Self| entry.tries_left == Some(0);
        let mut order = worn_out(self).cmp(&worn_out(other));
        order = order.then(self.sort_key.is_none().cmp(&other.sort_key.is_none()));
        if self.sort_key.is_some() && other.sort_key.is_some() {
            let version = |entry: &Self| entry.version.clone().unwrap_or_default();
            order = order
                .then(self.sort_key.cmp(&other.sort_key))
                .then(self.machine_id.cmp(&other.machine_id))
                .then(version::compare(&version(self), &version(other)).reverse());
        }
        order = order.then(version::compare(&self.id, &other.id).reverse());
        match (self.tries_left, other.tries_left) {
            (Some(a), Some(b)) => order.then(b.cmp(&a)).then(self.tries_done.cmp(&other.tries_done)),
            _ => order,
        }
    }
}

fn entries<D: ReadAt + ?Sized>(volume: &mut Volume<D>, arch: Arch, trace: &mut Trace) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (name, _) in volume.files("EFI/Linux").unwrap_or_default() {
        let lower = name.to_lowercase();
        if !lower.ends_with(".efi") || lower.starts_with("auto-") || lower.starts_with('.') {
            continue;
        }
        match uki(volume, &name, arch, trace) {
            Some(entry) => entries.push(entry),
            None => trace.step(format_args!("EFI/Linux/{name} is no UKI for this machine: skipped")),
        }
    }
    for (name, _) in volume.files("loader/entries").unwrap_or_default() {
        let lower = name.to_lowercase();
        if lower.ends_with(".conf") && !lower.starts_with("auto-") && !lower.starts_with('.') {
            match type1(volume, &name, arch) {
                Some(entry) => entries.push(entry),
                None => trace.step(format_args!("loader/entries/{name} does not apply: skipped")),
            }
        }
    }
    entries
}

/// A UKI: a program for this machine whose `.osrel` names a system (`boot_entry_add_type2`).
fn uki<D: ReadAt + ?Sized>(
    volume: &mut Volume<D>,
    name: &str,
    arch: Arch,
    trace: &mut Trace,
) -> Option<Entry> {
    let path = format!("EFI/Linux/{name}");
    let image = Image::read(volume, &path, arch)?;
    let osrel = image.text(volume, &path, b".osrel")?;
    if image.has(b".profile") {
        trace.doubt(format_args!("{path} has profiles; it is taken for one entry"));
    }
    let mut fields: BTreeMap<&str, &str> = BTreeMap::new();
    for line in osrel.lines().map(str::trim).filter(|line| !line.starts_with('#')) {
        if let Some((key, value)) = line.split_once('=') {
            fields.insert(key, value.trim_matches('"'));
        }
    }
    // `bootspec_pick_name_version_sort_key`.
    let first = |keys: &[&str]| keys.iter().find_map(|key| fields.get(key)).map(|value| (*value).to_owned());
    first(&["PRETTY_NAME", "NAME", "ID"])?;
    let (id, tries) = counters(name, ".efi");
    Some(Entry {
        id,
        file: volume.file(&path)?,
        sort_key: first(&["IMAGE_ID", "ID"]),
        machine_id: None,
        version: first(&["IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"]),
        tries_left: tries.map(|tries| tries.0),
        tries_done: tries.map_or(0, |tries| tries.1),
    })
}

/// An entry of type 1 whose program is there.
fn type1<D: ReadAt + ?Sized>(volume: &mut Volume<D>, name: &str, arch: Arch) -> Option<Entry> {
    let bytes = volume.read(&format!("loader/entries/{name}"), TEXT_MAX).ok()?;
    let mut program = None;
    let (mut sort_key, mut machine_id, mut version) = (None, None, None);
    for (key, value) in pairs(&bytes) {
        match key.as_str() {
            "linux" | "uki" | "efi" => program = Some(value),
            "sort-key" => sort_key = Some(value),
            "machine-id" => machine_id = Some(value),
            "version" => version = Some(value),
            "architecture" if !value.eq_ignore_ascii_case(arch.name()) => return None,
            _ => {}
        }
    }
    let file = volume.file(&program?.replace('\\', "/"))?;
    let (id, tries) = counters(name, ".conf");
    let (tries_left, tries_done) = (tries.map(|tries| tries.0), tries.map_or(0, |tries| tries.1));
    Some(Entry { id, file, sort_key, machine_id, version, tries_left, tries_done })
}

/// The id of a file name and the counters in it: `name+LEFT-DONE.efi`, the last `+` counts (`boot_entry_parse_tries`).
fn counters(name: &str, suffix: &str) -> (String, Option<(u32, u32)>) {
    let name = name.to_lowercase();
    let parse = || {
        let (stem, counters) = name.strip_suffix(suffix)?.rsplit_once('+')?;
        let (left, done) = counters.split_once('-').unwrap_or((counters, "0"));
        let number =
            |text: &str| text.parse().ok().filter(|_| text.bytes().all(|byte| byte.is_ascii_digit()));
        Some((format!("{stem}{suffix}"), (number(left)?, number(done)?)))
    };
    match parse() {
        Some((id, tries)) => (id, Some(tries)),
        None => (name, None),
    }
}

/// `config_select_default_entry`.
fn choose<'e>(
    entries: &'e [Entry],
    one_shot: Option<&str>,
    variables: &Variables,
    config: &Config,
    loader: Loader,
    trace: &mut Trace,
) -> Option<&'e Entry> {
    // "We expect pattern and entry IDs to be already case folded."
    let find = |pattern: Option<&str>| {
        let pattern = pattern?.to_lowercase();
        entries.iter().find(|entry| version::matches(&pattern, &entry.id))
    };
    let default = |pattern: Option<&str>| match pattern {
        Some(saved) if saved.eq_ignore_ascii_case("@saved") => find(variables.last_booted.as_deref()),
        other => find(other),
    };
    let preferred = |pattern: Option<&str>| {
        let known = loader.version >= PREFERRED_SINCE;
        find(pattern.filter(|_| known)).filter(|entry| entry.tries_left != Some(0))
    };
    let candidates = [
        ("LoaderEntryOneShot", one_shot, find(one_shot)),
        ("LoaderEntryPreferred", variables.preferred.as_deref(), preferred(variables.preferred.as_deref())),
        ("preferred of loader.conf", config.preferred.as_deref(), preferred(config.preferred.as_deref())),
        ("LoaderEntryDefault", variables.default.as_deref(), default(variables.default.as_deref())),
        ("default of loader.conf", config.default.as_deref(), default(config.default.as_deref())),
    ];
    for (source, pattern, entry) in candidates {
        match (pattern, entry) {
            (Some(pattern), Some(entry)) => {
                trace.step(format_args!("{source} {pattern} chooses {}", entry.id));
                return Some(entry);
            }
            (Some(pattern), None) => trace.step(format_args!("{source} {pattern} chooses nothing")),
            (None, _) => {}
        }
    }
    let first = entries.first()?;
    trace.step(format_args!("nothing is named: the first of the list, {}", first.id));
    Some(first)
}
