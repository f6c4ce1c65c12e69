//! The bill of materials: CycloneDX 1.6, JSON (<https://cyclonedx.org/docs/1.6/json/>).

use crate::substitute::Package;
use bramble_api::lock::LockedProgram;
use bramble_api::names::Arch;
use serde_json::{Value, json};

/// Writes the document for the packages and programs of a release. It has no serial number and no time of its own,
/// so that the same release has the same document.
pub fn document(packages: &[Package], programs: &[LockedProgram], arch: Arch, release: &str) -> Vec<u8> {
    let mut components: Vec<Value> = packages.iter().map(of_package).collect();
    components.extend(programs.iter().map(of_program));
    let document = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {
                "type": "operating-system",
                "bom-ref": "bramble-os",
                "name": "bramble-os",
                "version": release,
                "properties": [{ "name": "bramble:architecture", "value": arch.debian() }],
            },
        },
        "components": components,
    });
    let mut out = serde_json::to_vec_pretty(&document).unwrap_or_default();
    out.push(b'\n');
    out
}

fn of_package(package: &Package) -> Value {
    let locked = &package.locked;
    // `Source` is absent when it equals the package, and has a version in brackets when that differs; advisories of
    // Debian are by source.
    let source = package.deb.field("Source").unwrap_or_else(|| locked.name.clone());
    let (source, source_version) = match source.split_once(" (") {
        Some((name, version)) => (name.to_string(), version.trim_end_matches(')').to_string()),
        None => (source, locked.version.clone()),
    };
    let purl = format!(
        "pkg:deb/debian/{}@{}?arch={}&distro=debian-13",
        percent(&locked.name),
        percent(&locked.version),
        locked.arch
    );
    json!({
        "type": "library",
        "bom-ref": purl,
        "name": locked.name,
        "version": locked.version,
        "supplier": { "name": package.deb.field("Maintainer").unwrap_or_default() },
        "hashes": [{ "alg": "SHA-256", "content": locked.sha256 }],
        "purl": purl,
        "properties": [
            { "name": "bramble:deb:source", "value": source },
            { "name": "bramble:deb:source-version", "value": source_version },
            { "name": "bramble:deb:suite", "value": locked.suite },
        ],
    })
}

fn of_program(program: &LockedProgram) -> Value {
    let purl = format!("pkg:generic/{}@{}", percent(&program.name), percent(&program.version));
    json!({
        "type": "application",
        "bom-ref": purl,
        "name": program.name,
        "version": program.version,
        "hashes": [{ "alg": "SHA-256", "content": program.sha256 }],
        "purl": purl,
        "properties": [{ "name": "bramble:program:source", "value": program.source }],
    })
}

/// Percent-encodes what a package URL does not allow in a name or version.
fn percent(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_' | b'~' | b':' => {
                out.push(byte as char)
            }
            other => out += &format!("%{other:02X}"),
        }
    }
    out
}
