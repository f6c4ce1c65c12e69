//! The tables in `/usr/lib/modules/RELEASE`, in the forms that kmod reads (`modules.dep(5)` and depmod's sources).

use super::index::Index;
use super::scan::{Scanned, name_of};
use std::collections::{BTreeMap, BTreeSet};

/// Files by name. `modules` in the order of `modules.order`; `builtin` and `builtin_modinfo` are the kernel's own
/// lists (`modules.builtin`, `modules.builtin.modinfo`).
pub(super) fn tables(
    modules: &[&Scanned],
    builtin: &str,
    builtin_modinfo: &[u8],
) -> Vec<(&'static str, Vec<u8>)> {
    let dependencies = dependencies(modules);
    let mut dep = String::new();
    let mut dep_index = Index::default();
    let mut alias = String::from("# Aliases extracted from modules themselves.\n");
    let mut alias_index = Index::default();
    let mut softdep = String::from("# Soft dependencies extracted from modules themselves.\n");
    let mut weakdep = String::from("# Weak dependencies extracted from modules themselves.\n");
    let mut symbols = String::from("# Aliases for symbols, used by symbol_request().\n");
    let mut symbol_index = Index::default();
    let mut devname = String::from("# Device nodes to trigger on-demand module loading.\n");
    for (number, (module, needed)) in modules.iter().zip(&dependencies).enumerate() {
        let number = number as u32;
        let mut line = format!("{}:", module.path);
        for needed in needed {
            line += &format!(" {}", modules[*needed].path);
        }
        dep_index.insert(&module.name, &line, number);
        dep += &format!("{line}\n");
        for value in &module.aliases {
            alias += &format!("alias {value} {}\n", module.name);
            if let Some(key) = normalise_alias(value) {
                alias_index.insert(&key, &module.name, number);
            }
        }
        for value in &module.softdeps {
            softdep += &format!("softdep {} {value}\n", module.name);
        }
        for value in &module.weakdeps {
            weakdep += &format!("weakdep {} {value}\n", module.name);
        }
        for symbol in &module.exports {
            symbols += &format!("alias symbol:{symbol} {}\n", module.name);
            symbol_index.insert(&format!("symbol:{symbol}"), &module.name, number);
        }
        if let Some(line) = device_node(module) {
            devname += &line;
        }
    }
    let mut builtin_index = Index::default();
    for path in builtin.lines().filter(|path| !path.is_empty()) {
        builtin_index.insert(&name_of(path), "", 0);
    }
    let mut builtin_alias_index = Index::default();
    for (module, value) in builtin_aliases(builtin_modinfo) {
        if let Some(key) = normalise_alias(&value) {
            builtin_alias_index.insert(&key, &module, 0);
        }
    }
    vec![
        ("modules.alias", alias.into_bytes()),
        ("modules.alias.bin", alias_index.write()),
        ("modules.builtin.alias.bin", builtin_alias_index.write()),
        ("modules.builtin.bin", builtin_index.write()),
        ("modules.dep", dep.into_bytes()),
        ("modules.dep.bin", dep_index.write()),
        ("modules.devname", devname.into_bytes()),
        ("modules.softdep", softdep.into_bytes()),
        ("modules.symbols", symbols.into_bytes()),
        ("modules.symbols.bin", symbol_index.write()),
        ("modules.weakdep", weakdep.into_bytes()),
    ]
}

/// For each module everything that it needs, directly or not; what needs another stands before it, so that loading
/// goes from the end to the front. The order is depmod's (`depmod_calculate_dependencies`): modules that nobody needs
/// are taken from the end of the list, each followed by what only it still held back.
pub(super) fn dependencies(modules: &[&Scanned]) -> Vec<Vec<usize>> {
    let by_name: BTreeMap<&str, usize> =
        modules.iter().enumerate().map(|(at, m)| (m.name.as_str(), at)).collect();
    let direct: Vec<Vec<usize>> = modules
        .iter()
        .map(|m| m.depends.iter().filter_map(|name| by_name.get(name.as_str()).copied()).collect())
        .collect();
    let mut users = vec![0usize; modules.len()];
    for needed in direct.iter().flatten() {
        users[*needed] += 1;
    }
    let mut roots: Vec<usize> = (0..modules.len()).filter(|at| users[*at] == 0).collect();
    let mut rank = vec![usize::MAX; modules.len()];
    let mut next = 0;
    while let Some(at) = roots.pop() {
        rank[at] = next;
        next += 1;
        for needed in &direct[at] {
            users[*needed] -= 1;
            if users[*needed] == 0 {
                roots.push(*needed);
            }
        }
    }
    let all = |at: usize| {
        let mut seen = BTreeSet::new();
        let mut todo = direct[at].clone();
        while let Some(needed) = todo.pop() {
            // A circle, which the kernel could not load either, ends here.
            if needed != at && seen.insert((rank[needed], needed)) {
                todo.extend(&direct[needed]);
            }
        }
        seen.into_iter().map(|(_, needed)| needed).collect()
    };
    (0..modules.len()).map(all).collect()
}

/// `-` becomes `_` outside of brackets, as modprobe does before it looks up. `None` when brackets do not pair.
pub(super) fn normalise_alias(alias: &str) -> Option<String> {
    let mut out = String::with_capacity(alias.len());
    let mut inside = false;
    for c in alias.chars() {
        match (inside, c) {
            (false, '-') => out.push('_'),
            (false, ']') => return None,
            (false, '[') => {
                inside = true;
                out.push(c);
            }
            (true, ']') => {
                inside = false;
                out.push(c);
            }
            _ => out.push(c),
        }
    }
    (!inside).then_some(out)
}

/// A line of `modules.devname`: a node in /dev that is there before its module, so that opening it loads it.
fn device_node(module: &Scanned) -> Option<String> {
    let mut name = None;
    let mut number = None;
    for alias in &module.aliases {
        if let Some(device) = alias.strip_prefix("devname:") {
            name = Some(device);
        } else if let Some(pair) = alias.strip_prefix("char-major-").and_then(numbers) {
            number = Some(('c', pair));
        } else if let Some(pair) = alias.strip_prefix("block-major-").and_then(numbers) {
            number = Some(('b', pair));
        }
        if let (Some(name), Some((kind, (major, minor)))) = (name, number) {
            return Some(format!("{} {name} {kind}{major}:{minor}\n", module.name));
        }
    }
    None
}

fn numbers(text: &str) -> Option<(u32, u32)> {
    let (major, minor) = text.split_once('-')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// `module.alias=value`, separated by NUL.
fn builtin_aliases(modinfo: &[u8]) -> impl Iterator<Item = (String, String)> + '_ {
    modinfo.split(|b| *b == 0).filter_map(|line| {
        let (key, value) = std::str::from_utf8(line).ok()?.split_once('=')?;
        let module = key.strip_suffix(".alias")?;
        Some((module.to_string(), value.to_string()))
    })
}
