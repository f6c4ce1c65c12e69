//! Release files made by others than this crate: one of k3s' shape, by Go and zstd, and the real one where there is one.

use bramble_api::names::Arch;
use bramble_kube::k3s::release::{Entry, Release, ReleaseError};
use std::error::Error;
use std::io::Write;
use std::path::Path;
use std::process::Command;

const VERSION: &str = "v1.36.4+k3s1";

fn skip(why: &str) {
    // Past the test runner's capture: a test that did not run must be seen.
    let _ = writeln!(std::io::stderr(), "skipped: {why}");
}

/// `fixtures/k3s/make.sh` embeds the archive as k3s' build does; the linker decides where it lies.
#[test]
fn a_file_of_the_same_shape_for_both_processors() -> Result<(), Box<dyn Error>> {
    for tool in ["go", "zstd"] {
        if Command::new("sh").args(["-c", &format!("command -v {tool}")]).output()?.stdout.is_empty() {
            skip(&format!("{tool} is not installed, which makes the synthetic release file of k3s"));
            return Ok(());
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/k3s/make.sh");
    let directory = tempfile::tempdir()?;
    for arch in Arch::ALL {
        let path = directory.path().join(arch.debian());
        let made = Command::new("bash").arg(&script).arg(&path).args([arch.debian(), VERSION]).output()?;
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let file = std::fs::read(&path)?;
        let release = Release::read(&file, arch, VERSION)?;
        assert!(matches!(release.entries["bin/k3s"], Entry::File { mode: 0o755, .. }));
        assert_eq!(release.entries["bin/flannel"], Entry::Link { target: "cni".into() });
        assert_eq!(release.entries["bin/aux/mount"], Entry::Link { target: "busybox".into() });
        let other = Arch::ALL.into_iter().find(|other| *other != arch).ok_or("one processor")?;
        assert!(matches!(Release::read(&file, other, VERSION), Err(ReleaseError::Foreign { .. })));
        for part in [file.len() / 3, file.len() / 2] {
            let error = Release::read(&file[..part], arch, VERSION).err();
            assert!(matches!(error, Some(ReleaseError::Truncated { .. })), "{part}: {error:?}");
        }
        if arch == Arch::Amd64 && cfg!(target_arch = "x86_64") {
            // What it says of itself.
            let said = Command::new(&path).output()?;
            assert!(String::from_utf8(said.stdout)?.contains(&release.archive));
        }
    }
    Ok(())
}

#[test]
fn the_real_one() -> Result<(), Box<dyn Error>> {
    let Some(path) = std::env::var_os("BRAMBLE_K3S_FILE") else {
        skip("BRAMBLE_K3S_FILE=/path/to/k3s names no release file of k3s for amd64");
        return Ok(());
    };
    let said = Command::new(&path).arg("--version").output()?;
    let said = String::from_utf8(said.stdout)?;
    let version = said.split_whitespace().nth(2).ok_or("it does not say its version")?;
    let release = Release::read(&std::fs::read(&path)?, Arch::Amd64, version)?;
    assert!(release.entries.len() > 50, "{}", release.entries.len());
    Ok(())
}
