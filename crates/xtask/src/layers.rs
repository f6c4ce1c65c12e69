//! The table of the house: which crate may know which. Arrows point down; the few that go sideways stand here.

use cargo_metadata::{DependencyKind, MetadataCommand};
use std::collections::BTreeMap;

/// Crate, layer, and what it may know. `docs/architecture.md` says what each is for.
const HOUSE: &[(&str, u8, &[&str])] = &[
    ("bramble-spec", 0, &[]),
    ("bramble-api", 0, &[]),
    ("bramble-effects", 1, &["bramble-api"]),
    ("bramble-plan", 1, &["bramble-spec", "bramble-api"]),
    ("bramble-upgrade", 1, &["bramble-api"]),
    ("bramble-secrets", 2, &[]),
    ("bramble-debian", 2, &["bramble-api"]),
    ("bramble-erofs", 2, &[]),
    ("bramble-fat", 2, &[]),
    ("bramble-partition", 2, &[]),
    (
        "bramble-image",
        2,
        &[
            "bramble-api",
            "bramble-debian",
            "bramble-erofs",
            "bramble-fat",
            "bramble-pack",
            "bramble-partition",
            "bramble-secrets",
        ],
    ),
    ("bramble-pack", 2, &["bramble-api"]),
    ("bramble-rpc", 2, &[]),
    ("bramble-observe", 2, &["bramble-api", "bramble-rpc"]),
    ("bramble-serve", 2, &[]),
    ("bramble-disk", 2, &["bramble-api", "bramble-effects", "bramble-fat", "bramble-partition"]),
    ("bramble-kube", 2, &["bramble-api"]),
    ("bramble-talos", 2, &["bramble-spec", "bramble-secrets", "bramble-fat", "bramble-partition"]),
    (
        "bramble-exec",
        3,
        &[
            "bramble-spec",
            "bramble-api",
            "bramble-plan",
            "bramble-effects",
            "bramble-secrets",
            "bramble-debian",
            "bramble-erofs",
            "bramble-image",
            "bramble-kube",
        ],
    ),
    ("bramble-lab", 3, &["bramble-api", "bramble-disk"]),
    ("bramble-console", 3, &["bramble-api", "bramble-spec"]),
    (
        "bramble",
        4,
        &[
            "bramble-spec",
            "bramble-api",
            "bramble-plan",
            "bramble-effects",
            "bramble-secrets",
            "bramble-debian",
            "bramble-disk",
            "bramble-exec",
            "bramble-lab",
            "bramble-observe",
            "bramble-console",
            "bramble-rpc",
            "bramble-serve",
            "bramble-talos",
            "bramble-upgrade",
        ],
    ),
    (
        "bramble-node",
        4,
        &[
            "bramble-api",
            "bramble-disk",
            "bramble-fat",
            "bramble-kube",
            "bramble-pack",
            "bramble-partition",
            "bramble-rpc",
            "bramble-upgrade",
        ],
    ),
    (
        "bramble-sim",
        9,
        &[
            "bramble-api",
            "bramble-console",
            "bramble-disk",
            "bramble-fat",
            "bramble-partition",
            "bramble-plan",
            "bramble-upgrade",
        ],
    ),
    ("xtask", 9, &[]),
];

/// Compares `cargo metadata` with the table, both ways: an edge that nobody uses is removed from it too.
pub(crate) fn check() -> Result<String, String> {
    let metadata = MetadataCommand::new().no_deps().exec().map_err(|e| e.to_string())?;
    let ours: BTreeMap<String, Vec<String>> = metadata
        .packages
        .iter()
        .map(|p| {
            let known = p
                .dependencies
                .iter()
                .filter(|d| d.kind == DependencyKind::Normal && d.path.is_some())
                .map(|d| d.name.clone());
            (p.name.to_string(), known.collect())
        })
        .collect();
    let mut problems = Vec::new();
    for (name, known) in &ours {
        let Some((_, layer, allowed)) = HOUSE.iter().find(|(n, ..)| n == name) else {
            problems
                .push(format!("{name} has no room: add it to crates/xtask/src/layers.rs with its reason"));
            continue;
        };
        for other in known {
            let other_layer = HOUSE.iter().find(|(n, ..)| n == other).map_or(u8::MAX, |h| h.1);
            if !allowed.contains(&other.as_str()) {
                problems.push(format!("{name} (layer {layer}) may not know {other} (layer {other_layer})"));
            } else if other_layer > *layer {
                problems.push(format!("{name} (layer {layer}) looks up to {other} (layer {other_layer})"));
            }
        }
    }
    for (name, _, allowed) in HOUSE {
        match ours.get(*name) {
            None => problems.push(format!("{name} is in the table but not in the workspace")),
            Some(known) => {
                for other in allowed.iter().filter(|a| !known.iter().any(|k| k == *a)) {
                    problems.push(format!("{name} may know {other} but does not: remove the edge"));
                }
            }
        }
    }
    if problems.is_empty() {
        Ok(format!("{} crates, every dependency as the table says", ours.len()))
    } else {
        Err(problems.join("\n"))
    }
}
