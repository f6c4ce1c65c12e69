//! Builds a tree from a list of packages and says what came out.
//!
//! `assemble SET.json [--cache DIR] [--tar FILE] [--release VERSION] [--accept-all]`; the list is an array of locked
//! packages, each with a `path`.

#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use bramble_api::lock::LockedPackage;
use bramble_api::names::Arch;
use bramble_debian::assemble::{AssembleError, AssembleInput, Assembled, assemble};
use bramble_debian::scripts::GateError;
use bramble_debian::tree::{Kind, Tree};
use std::error::Error;
use std::fs::File;
use std::io::BufWriter;
use std::path::PathBuf;
use std::time::Instant;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let value = |name: &str| args.iter().position(|a| a == name).and_then(|at| args.get(at + 1)).cloned();
    let set = args.first().ok_or("which list?")?;
    let debs = read_set(set)?;
    let arch = if debs.iter().any(|(p, _)| p.arch == "arm64") { Arch::Arm64 } else { Arch::Amd64 };
    let mut input = AssembleInput {
        arch,
        debs,
        programs: Vec::new(),
        epoch: 1_780_000_000,
        release: value("--release").unwrap_or_else(|| "0".into()),
        users: Default::default(),
        accepted_scripts: Vec::new(),
        enable: Vec::new(),
        disable: Vec::new(),
        mask: Vec::new(),
        modules: Vec::new(),
        extra_files: Vec::new(),
        cache: value("--cache").map_or_else(|| std::env::temp_dir().join("bramble-assemble"), PathBuf::from),
    };
    let start = Instant::now();
    let mut result = assemble(&input);
    if let Err(AssembleError::Gate(GateError::Unknown { unknown })) = &result {
        for script in unknown {
            println!("unknown: {} {} {}", script.script.package, script.script.kind, script.script.sha256);
            for line in &script.diff {
                println!("    {line}");
            }
        }
        if args.iter().any(|a| a == "--accept-all") {
            input.accepted_scripts = unknown.iter().map(|u| u.acceptance.clone()).collect();
            result = assemble(&input);
        }
    }
    let assembled = result?;
    let elapsed = start.elapsed();
    print(&assembled);
    println!("{arch}: {:.3} s, peak memory {} MiB", elapsed.as_secs_f64(), peak_memory()? / 1024);
    if let Some(file) = value("--tar") {
        write_tar(&assembled.tree, &file)?;
    }
    if let Some(file) = value("--sbom") {
        std::fs::write(file, &assembled.sbom)?;
    }
    Ok(())
}

fn read_set(path: &str) -> Result<Vec<(LockedPackage, PathBuf)>, Box<dyn Error>> {
    let list: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_reader(File::open(path)?)?;
    list.into_iter()
        .map(|mut item| {
            let path = item.remove("path").and_then(|p| p.as_str().map(PathBuf::from)).ok_or("no path")?;
            Ok((serde_json::from_value(item.into())?, path))
        })
        .collect()
}

fn print(assembled: &Assembled) {
    let report = &assembled.report;
    println!("kernel {}: {} bytes", assembled.kernel.version, assembled.kernel.image.len());
    println!("packages {} ({} from the cache)", report.packages, report.unpacked_before);
    println!("nodes {}, {:.1} MB", report.nodes, report.bytes as f64 / 1e6);
    for (reason, bytes) in &report.pruned {
        println!("left out: {:.1} MB {reason}", *bytes as f64 / 1e6);
    }
    println!("users {:?}", assembled.users);
    println!("enabled {}", report.enabled.join(" "));
    println!("missing {:?}, bill of materials {} bytes", report.missing_units, assembled.sbom.len());
    for (step, ms) in &report.steps {
        println!("{ms:>6} ms {step}");
    }
}

/// Largest resident set so far, KiB.
fn peak_memory() -> Result<u64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn write_tar(tree: &Tree, file: &str) -> Result<(), Box<dyn Error>> {
    let mut out = tar::Builder::new(BufWriter::new(File::create(file)?));
    for (path, node) in tree.iter() {
        let mut header = tar::Header::new_gnu();
        header.set_mode(u32::from(node.mode));
        header.set_uid(u64::from(node.uid));
        header.set_gid(u64::from(node.gid));
        header.set_mtime(node.mtime);
        header.set_size(0);
        let name = format!(".{}", path.to_text());
        match &node.kind {
            Kind::Dir => {
                header.set_entry_type(tar::EntryType::Directory);
                out.append_data(&mut header, name, std::io::empty())?;
            }
            Kind::File(content) => {
                header.set_size(content.len() as u64);
                out.append_data(&mut header, name, content.as_slice())?;
            }
            Kind::Symlink(target) => {
                header.set_entry_type(tar::EntryType::Symlink);
                out.append_link(&mut header, name, std::str::from_utf8(target)?)?;
            }
            Kind::Hardlink(target) => {
                header.set_entry_type(tar::EntryType::Link);
                out.append_link(&mut header, name, format!(".{}", target.to_text()))?;
            }
            Kind::CharDev { major, minor } => {
                header.set_entry_type(tar::EntryType::Char);
                header.set_device_major(*major)?;
                header.set_device_minor(*minor)?;
                out.append_data(&mut header, name, std::io::empty())?;
            }
        }
    }
    out.into_inner()?;
    Ok(())
}
