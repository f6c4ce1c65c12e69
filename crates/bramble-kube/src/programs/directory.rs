//! Programs that somebody else has put into a directory.

use super::{KUBE, Program, ProgramsError, store};
use bramble_api::names::Arch;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

const OTHERS: &[&str] = &[
    "bridge",
    "containerd",
    "containerd-shim-runc-v2",
    "coredns",
    "ctr",
    "flanneld",
    "host-local",
    "kine",
    "loopback",
    "portmap",
];

/// Takes the programs where they lie. `kube` may stand for the seven programs that are in it; `probe` may be missing.
pub(super) fn take(arch: Arch, version: &str, directory: &Path) -> Result<Vec<Program>, ProgramsError> {
    let mut names: Vec<&str> = OTHERS.to_vec();
    if directory.join("kube").exists() {
        names.push("kube");
    } else {
        names.extend(KUBE);
    }
    if directory.join("probe").exists() {
        names.push("probe");
    }
    let mut programs = Vec::new();
    for name in names {
        let path = directory.join(name);
        let failed = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => {
                ProgramsError::Missing { name: name.to_string(), place: directory.to_path_buf() }
            }
            _ => ProgramsError::Store { path: path.clone(), source },
        };
        if machine(&path).map_err(failed)? != Some(arch) {
            return Err(ProgramsError::Foreign { path, arch });
        }
        let (sha256, _) = store::digest(&path).map_err(failed)?;
        programs.push(Program {
            name: name.to_string(),
            version: version.to_string(),
            source: "directory",
            key: sha256.clone(),
            path,
            sha256,
        });
    }
    Ok(programs)
}

/// For which processor a file is, if it is an ELF file for one that we know (System V ABI, `e_machine`).
fn machine(path: &Path) -> io::Result<Option<Arch>> {
    let mut head = [0; 20];
    let mut file = File::open(path)?;
    match file.read_exact(&mut head) {
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    if !head.starts_with(b"\x7fELF\x02\x01") {
        return Ok(None);
    }
    Ok(match u16::from_le_bytes([head[18], head[19]]) {
        62 => Some(Arch::Amd64),
        183 => Some(Arch::Arm64),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pause;
    use std::fs;

    fn filled(arch: Arch, kube: &[&str]) -> io::Result<tempfile::TempDir> {
        let directory = tempfile::tempdir()?;
        for name in OTHERS.iter().chain(kube) {
            fs::write(directory.path().join(name), pause::elf(arch))?;
        }
        Ok(directory)
    }

    #[test]
    fn one_file_or_seven() -> Result<(), Box<dyn std::error::Error>> {
        for (kube, count) in [(&["kube"][..], 11), (KUBE, 17)] {
            let directory = filled(Arch::Arm64, kube)?;
            assert_eq!(take(Arch::Arm64, "v1.36.3", directory.path())?.len(), count);
        }
        Ok(())
    }

    #[test]
    fn a_missing_or_foreign_program_is_named() -> Result<(), Box<dyn std::error::Error>> {
        let directory = filled(Arch::Arm64, &KUBE[..6])?;
        let error = take(Arch::Arm64, "v1.36.3", directory.path()).map(|_| ());
        assert!(matches!(&error, Err(ProgramsError::Missing { name, .. }) if name == "kubelet"), "{error:?}");
        let error = take(Arch::Amd64, "v1.36.3", directory.path()).map(|_| ());
        assert!(
            matches!(&error, Err(ProgramsError::Foreign { path, .. }) if path.ends_with("bridge")),
            "{error:?}"
        );
        fs::write(directory.path().join("bridge"), "#!/bin/sh\n")?;
        assert!(matches!(take(Arch::Arm64, "v1", directory.path()), Err(ProgramsError::Foreign { .. })));
        Ok(())
    }
}
