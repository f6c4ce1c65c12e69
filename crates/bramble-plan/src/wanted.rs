//! From the file's words to what planning looks at.

use crate::packages::{self, PackageRequest};
use crate::plan::{PlannedNode, Wanted};
use bramble_api::names::{Arch, Board, Role};
use bramble_api::plan::NotServed;
use bramble_spec::{Cluster, Distribution, EffectiveNode};
use std::collections::BTreeSet;

/// What planning looks at.
pub fn wanted(cluster: &Cluster, not_served: Vec<NotServed>) -> Wanted {
    let nodes = cluster.effective_nodes();
    let archs: BTreeSet<Arch> = nodes.iter().map(|n| arch(n.arch)).collect();
    let request_of = |arch| {
        let request = package_request(cluster, arch);
        (arch, crate::package_request_digest(&request, cluster.spec.os.release.name()))
    };
    Wanted {
        cluster: cluster.metadata.name.to_string(),
        kubernetes: cluster.spec.kubernetes.version.to_string(),
        nodes: nodes
            .iter()
            .map(|n| PlannedNode {
                name: n.name.clone(),
                arch: arch(n.arch),
                served: served(cluster),
                control_plane: n.role == bramble_spec::Role::ControlPlane,
            })
            .collect(),
        not_served,
        package_requests: archs.into_iter().map(request_of).collect(),
    }
}

/// Whether this version makes images for the machines.
pub fn served(cluster: &Cluster) -> bool {
    // Beside machines of Talos a management machine would be of Bramble OS, with programs that nothing gets yet.
    cluster.spec.kubernetes.distribution != Distribution::Talos
}

/// What Debian is asked for: one image serves all machines of an architecture, so it carries what any of them wants.
pub fn package_request(cluster: &Cluster, of: Arch) -> PackageRequest {
    let nodes = cluster.effective_nodes();
    let mut extra: BTreeSet<String> =
        nodes.iter().filter(|n| arch(n.arch) == of).flat_map(|n| n.packages.clone()).collect();
    for node in nodes.iter().filter(|n| arch(n.arch) == of && in_the_air(n)) {
        extra.insert("wpasupplicant".to_string());
        if board(node.board).is_pi() {
            extra.insert("firmware-brcm80211".to_string());
        }
    }
    if nodes.iter().any(|n| arch(n.arch) == of && n.node_exporter) {
        extra.insert("prometheus-node-exporter".to_string());
    }
    let extra: Vec<String> = extra.into_iter().collect();
    packages::request(of, true, cluster.spec.os.release.name(), &boards(cluster, of), &extra)
}

/// Whether a machine has a wireless card that it uses.
fn in_the_air(node: &EffectiveNode) -> bool {
    node.interfaces.iter().any(|interface| interface.wifi.is_some())
}

/// Kernel modules that machines of an architecture want beyond what every image has: those that the file names, and the
/// drivers of a Pi's wireless card.
pub fn kernel_modules(cluster: &Cluster, of: Arch) -> Vec<String> {
    // brcmfmac asks for its vendor's part by name at run time.
    const PI_WIFI: [&str; 3] = ["brcmfmac", "brcmfmac-wcc", "brcmfmac-cyw"];
    let mut modules = BTreeSet::new();
    for node in cluster.effective_nodes().into_iter().filter(|n| arch(n.arch) == of) {
        if in_the_air(&node) && board(node.board).is_pi() {
            modules.extend(PI_WIFI.map(String::from));
        }
        modules.extend(node.modules);
    }
    modules.into_iter().collect()
}

/// Words for the kernel's command line: those of all machines of the architecture, each once, in the file's order.
pub fn kernel_args(cluster: &Cluster, of: Arch) -> Vec<String> {
    let mut words = Vec::new();
    for word in
        cluster.effective_nodes().into_iter().filter(|n| arch(n.arch) == of).flat_map(|n| n.kernel_args)
    {
        if !words.contains(&word) {
            words.push(word);
        }
    }
    words
}

/// The boards of the file's machines of an architecture.
pub fn boards(cluster: &Cluster, of: Arch) -> Vec<Board> {
    let boards: BTreeSet<Board> =
        cluster.effective_nodes().iter().map(|n| board(n.board)).filter(|b| b.arch() == of).collect();
    boards.into_iter().collect()
}

/// The programs' word for the file's.
pub fn arch(arch: bramble_spec::Arch) -> Arch {
    match arch {
        bramble_spec::Arch::Amd64 => Arch::Amd64,
        bramble_spec::Arch::Arm64 => Arch::Arm64,
    }
}

/// Lines for the config.txt of each Pi among the boards of an architecture: those of all its machines, each once, in the
/// file's order.
pub fn firmware_lines(cluster: &Cluster, of: Arch) -> Vec<(Board, Vec<String>)> {
    let mut all: Vec<(Board, Vec<String>)> = Vec::new();
    for node in cluster.effective_nodes() {
        let board = board(node.board);
        if board.arch() != of || !board.is_pi() || node.firmware.is_empty() {
            continue;
        }
        let at = all.iter().position(|(b, _)| *b == board).unwrap_or_else(|| {
            all.push((board, Vec::new()));
            all.len() - 1
        });
        for line in node.firmware {
            if !all[at].1.contains(&line) {
                all[at].1.push(line);
            }
        }
    }
    all
}

/// The programs' word for the file's.
pub fn board(board: bramble_spec::Board) -> Board {
    match board {
        bramble_spec::Board::Pi3 => Board::Pi3,
        bramble_spec::Board::Pi4 => Board::Pi4,
        bramble_spec::Board::Pi5 => Board::Pi5,
        bramble_spec::Board::UefiAmd64 => Board::UefiAmd64,
        bramble_spec::Board::UefiArm64 => Board::UefiArm64,
    }
}

/// The programs' word for the file's.
pub fn role(role: bramble_spec::Role) -> Role {
    match role {
        bramble_spec::Role::ControlPlane => Role::ControlPlane,
        bramble_spec::Role::Worker => Role::Worker,
        bramble_spec::Role::Management => Role::Management,
    }
}
