//! Builds a release from package files at hand, and a disk from it: to measure, and to boot by hand.
//!
//! usage: release ARCH PACKAGES.json AGENT OUT [BOARD DISK.img [DOCUMENT.json]]
//!
//! PACKAGES.json is a list of locked packages, each with `path` beside the lock's own fields. The signing key is made
//! of zeros: what this builds is for this computer only. BRAMBLE_FROM names an earlier build, by which files are placed.

#![expect(clippy::print_stdout, reason = "an example says what it measured")]

use bramble_api::layout::disk_min_size;
use bramble_api::lock::LockedPackage;
use bramble_api::names::{Arch, Board, path};
use bramble_debian::assemble::{AssembleInput, ExtraBody, ExtraFile, assemble};
use bramble_image::disk::{self, DiskInput};
use bramble_image::firmware::Firmware;
use bramble_image::modules::boards_of;
use bramble_image::publish::Before;
use bramble_image::release::{self, ReleaseInput};
use bramble_secrets::{Secret, SecretBytes};
use std::path::PathBuf;
use std::time::Instant;

#[derive(serde::Deserialize)]
struct Package {
    name: String,
    version: String,
    arch: String,
    suite: String,
    filename: String,
    size: u64,
    sha256: String,
    path: PathBuf,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [arch, packages, agent, out, rest @ ..] = arguments.as_slice() else {
        return Err("usage: release ARCH PACKAGES.json AGENT OUT [BOARD DISK.img [DOCUMENT.json]]".into());
    };
    let arch: Arch = arch.parse()?;
    let packages: Vec<Package> = serde_json::from_slice(&std::fs::read(packages)?)?;
    let debs = packages.into_iter().map(|p| {
        let Package { name, version, arch, suite, filename, size, sha256, path } = p;
        (LockedPackage { name, version, arch, suite, filename, size, sha256 }, path)
    });
    let agent = std::fs::read(agent)?;
    let started = Instant::now();
    let cache = std::env::var_os("BRAMBLE_CACHE")
        .map_or_else(|| std::env::temp_dir().join("bramble-cache"), PathBuf::from);
    let mut assembled = assemble(&AssembleInput {
        arch,
        debs: debs.collect(),
        programs: Vec::new(),
        epoch: 1_790_000_000,
        release: "1".to_string(),
        users: Default::default(),
        accepted_scripts: Vec::new(),
        enable: Vec::new(),
        disable: Vec::new(),
        mask: Vec::new(),
        modules: bramble_image::modules::wanted(boards_of(arch)).iter().map(|w| w.name.to_string()).collect(),
        extra_files: vec![ExtraFile { path: path::DATA.to_string(), body: ExtraBody::Dir { mode: 0o755 } }],
        cache,
    })?;
    let firmware = Firmware::take(&mut assembled.tree);
    println!("assembled in {:?}: {:?}", started.elapsed(), assembled.report.steps);
    let started = Instant::now();
    let before = match std::env::var_os("BRAMBLE_FROM") {
        Some(from) => Before::find(from.as_ref(), arch)?.into_iter().next(),
        None => None,
    };
    let placement = before.as_ref().and_then(Before::placement);
    let input = ReleaseInput {
        inputs: format!("{started:?}"),
        cluster: "example".to_string(),
        version: before.as_ref().map_or(1, |before| before.manifest.version + 1),
        floor: 0,
        time: 1_790_000_000,
        arch,
        boards: boards_of(arch).to_vec(),
        tree: &assembled.tree,
        kernel: &assembled.kernel,
        agent: &agent,
        firmware: &firmware,
        firmware_lines: Vec::new(),
        cmdline: Vec::new(),
        signing_key: &Secret::new([0; 32]),
        trusted: Vec::new(),
        kubernetes: None,
        tool: env!("CARGO_PKG_VERSION").to_string(),
        sbom: &assembled.sbom,
        out: out.into(),
    };
    let release = release::build_after(&input, placement.as_ref())?;
    println!("built in {:?}: {:?}", started.elapsed(), release.steps);
    println!("{:?}, slot {} % full", release.sizes, release.slot_percent);
    if let [board, image, document @ ..] = rest {
        let board = Board::ALL.into_iter().find(|b| b.name() == board).ok_or("no such board")?;
        let started = Instant::now();
        let document = document.first().map(std::fs::read).transpose()?.map(SecretBytes::new);
        let map = disk::map(&DiskInput {
            release: &release,
            incarnation: "00000000000000000000000000000001",
            board,
            size: disk_min_size(board),
            document: document.as_ref(),
            keep_data: false,
        })?;
        disk::write(&map, image.as_ref())?;
        println!("disk in {:?}: {} runs", started.elapsed(), map.segments.len());
        let started = Instant::now();
        std::fs::write(format!("{image}.bmap"), disk::bmap(&map, image.as_ref())?)?;
        println!("bmap in {:?}", started.elapsed());
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    println!("{}", status.lines().find(|l| l.starts_with("VmHWM")).unwrap_or_default());
    Ok(())
}
