//! What a reader sees and code decides is generated: the schema and the command reference.

use std::path::Path;
use std::process::Command;

/// File in the repository, and the arguments of `bramble` that print it.
const GENERATED: &[(&str, &[&str])] =
    &[("schema/bramble.schema.json", &["schema"]), ("docs/reference/commands.md", &["reference"])];

/// Writes every generated file, or with `check` says which would change.
pub(crate) fn run(check: bool) -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut stale = Vec::new();
    for (path, arguments) in GENERATED {
        let output = Command::new("cargo")
            .args(["run", "--quiet", "--package", "bramble", "--"])
            .args(*arguments)
            .current_dir(&root)
            .output()
            .map_err(|e| format!("cannot run cargo: {e}"))?;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            return Err(format!("bramble {} failed:\n{said}", arguments.join(" ")));
        }
        let file = root.join(path);
        if std::fs::read(&file).is_ok_and(|old| old == output.stdout) {
            continue;
        }
        if check {
            stale.push(format!("{path} is stale: run `cargo xtask generate` and commit it"));
            continue;
        }
        let write = || {
            std::fs::create_dir_all(file.parent().unwrap_or(&root))?;
            std::fs::write(&file, &output.stdout)
        };
        write().map_err(|e| format!("cannot write {path}: {e}"))?;
    }
    if stale.is_empty() {
        Ok(format!("{} generated files are true", GENERATED.len()))
    } else {
        Err(stale.join("\n"))
    }
}
