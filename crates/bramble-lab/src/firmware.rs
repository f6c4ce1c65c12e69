//! Firmware images as QEMU wants them: code shared by all machines, variables a copy for each.

use bramble_api::names::Arch;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};

use crate::disk::snapshot::copy_sparse;
use crate::error::Refusal;
use crate::spec::Firmware;

/// Size of each of the two flash banks of QEMU's `virt` machine (qemu, `hw/arm/virt.c`, VIRT_FLASH); a bank's file
/// must fill it. q35 takes any multiple of 4 KiB.
const ARM64_BANK: u64 = 64 << 20;

/// The code to use: the file itself, or a copy in `dir` that fills its bank.
pub(crate) fn code(dir: &Path, arch: Arch, firmware: &Firmware) -> Result<PathBuf, Refusal> {
    let path = &firmware.code;
    let length = std::fs::metadata(path).map_err(|e| Refusal::io("open firmware", path, &e))?.len();
    if arch == Arch::Amd64 || length == ARM64_BANK {
        return Ok(path.clone());
    }
    let copy = dir.join(format!("{arch}-code.fd"));
    std::fs::create_dir_all(dir).map_err(|e| Refusal::io("make", dir, &e))?;
    padded_copy(path, &copy, ARM64_BANK)?;
    Ok(copy)
}

/// Makes a machine's variables from the template, unless it has some.
pub(crate) fn vars(target: &Path, arch: Arch, firmware: &Firmware) -> Result<(), Refusal> {
    if target.exists() {
        return Ok(());
    }
    padded_copy(&firmware.vars, target, if arch == Arch::Arm64 { ARM64_BANK } else { 0 })
}

/// Copies a file and pads it to `least` bytes. A copy cut short is never seen under its name.
fn padded_copy(source: &Path, target: &Path, least: u64) -> Result<(), Refusal> {
    let fresh = target.with_extension("new");
    let file = File::open(source).map_err(|e| Refusal::io("open firmware", source, &e))?;
    let write = || {
        copy_sparse(&file, &fresh)?;
        let copy = OpenOptions::new().write(true).open(&fresh)?;
        if copy.metadata()?.len() < least {
            copy.set_len(least)?;
        }
        std::fs::rename(&fresh, target)
    };
    write().map_err(|e| Refusal::io("write", target, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arm64_fills_its_bank_and_variables_are_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let (code_path, vars_path) = (dir.path().join("c"), dir.path().join("v"));
        std::fs::write(&code_path, b"code").unwrap();
        std::fs::write(&vars_path, b"vars").unwrap();
        let firmware = Firmware { code: code_path.clone(), vars: vars_path };
        assert_eq!(code(dir.path(), Arch::Amd64, &firmware).unwrap(), code_path);
        let padded =
            std::fs::read(code(&dir.path().join("firmware"), Arch::Arm64, &firmware).unwrap()).unwrap();
        assert_eq!((padded.len(), &padded[..6]), (64 << 20, &b"code\0\0"[..]));
        let target = dir.path().join("vars.fd");
        vars(&target, Arch::Amd64, &firmware).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"vars");
        std::fs::write(&target, b"kept").unwrap();
        vars(&target, Arch::Amd64, &firmware).unwrap();
        assert_eq!(std::fs::read(&target).unwrap(), b"kept");
    }
}
