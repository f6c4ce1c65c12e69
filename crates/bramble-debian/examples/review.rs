//! Adds the maintainer scripts of package sets to the reviewed list, for a person to read and describe.
//!
//! `review LIST.toml SET.json...`: scripts that the list lacks are printed and added with an empty note, which the
//! tests refuse until somebody has filled it in. Each set is an array of locked packages with a `path`.

#![expect(clippy::print_stdout, reason = "an example talks to the person who runs it")]

use bramble_api::lock::LockedPackage;
use bramble_debian::assemble::scripts_of;
use bramble_debian::deb::Deb;
use bramble_debian::scripts::{Reviewed, Script};
use bramble_debian::substitute::Package;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let list = args.next().ok_or("which list?")?;
    let old = fs::read_to_string(&list)?;
    let mut reviewed = Reviewed::parse(&old)?;
    let cache = std::env::temp_dir().join("bramble-review");
    for set in args {
        let scripts = scripts(&set, &cache)?;
        for script in scripts.iter().filter(|s| !s.is_empty() && reviewed.find(s).is_none()) {
            println!("{} {} {}", script.package, script.kind, script.sha256);
            for line in reviewed.diff(script) {
                println!("    {line}");
            }
        }
        reviewed.add(&scripts);
    }
    // The words above the first setting are for readers and stay.
    let head: String = old
        .lines()
        .take_while(|line| line.starts_with('#') || line.is_empty())
        .map(|line| format!("{line}\n"))
        .collect();
    fs::write(&list, head + &toml::to_string(&reviewed)?)?;
    Ok(())
}

fn scripts(set: &str, cache: &Path) -> Result<Vec<Script>, Box<dyn Error>> {
    let list: Vec<serde_json::Map<String, serde_json::Value>> = serde_json::from_reader(File::open(set)?)?;
    let mut out = Vec::new();
    for mut item in list {
        let path = item.remove("path").and_then(|p| p.as_str().map(PathBuf::from)).ok_or("no path")?;
        let locked: LockedPackage = serde_json::from_value(item.into())?;
        let deb = Deb::read(&path, &locked.sha256, locked.size, cache)?;
        out.extend(scripts_of(&Package { locked, deb }));
    }
    Ok(out)
}
