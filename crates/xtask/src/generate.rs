//! What a reader sees and code decides is generated: the schema and the command reference. So is code that a `.proto`
//! decides: with a compiler in Rust, so that nobody needs protoc.

use std::path::Path;
use std::process::Command;

/// File in the repository, and the arguments of `bramble` that print it.
const GENERATED: &[(&str, &[&str])] =
    &[("schema/bramble.schema.json", &["schema"]), ("docs/reference/commands.md", &["reference"])];

/// Where the node API is said, and the code from it.
const PROTO: (&str, &str, &str) =
    ("crates/bramble-api/proto", "node.proto", "crates/bramble-rpc/src/generated/node.rs");

/// Writes every generated file, or with `check` says which would change.
pub(crate) fn run(check: bool) -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut stale = Vec::new();
    let mut put = |path: &str, new: &[u8]| -> Result<(), String> {
        let file = root.join(path);
        if std::fs::read(&file).is_ok_and(|old| old == new) {
            return Ok(());
        }
        if check {
            stale.push(format!("{path} is stale: run `cargo xtask generate` and commit it"));
            return Ok(());
        }
        let write = || {
            std::fs::create_dir_all(file.parent().unwrap_or(&root))?;
            std::fs::write(&file, new)
        };
        write().map_err(|e| format!("cannot write {path}: {e}"))
    };
    // First: the programs below are built from it.
    put(PROTO.2, from_proto(&root)?.as_bytes())?;
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
        put(path, &output.stdout)?;
    }
    if stale.is_empty() {
        Ok(format!("{} generated files are true", GENERATED.len() + 1))
    } else {
        Err(stale.join("\n"))
    }
}

fn from_proto(root: &Path) -> Result<String, String> {
    let (directory, name, _) = PROTO;
    let files = protox::compile([name], [root.join(directory)]).map_err(|e| e.to_string())?;
    let out = std::env::temp_dir().join(format!("bramble-proto-{}", std::process::id()));
    let made = || -> std::io::Result<String> {
        std::fs::create_dir_all(&out)?;
        tonic_prost_build::configure().out_dir(&out).compile_fds(files)?;
        std::fs::read_to_string(out.join("bramble.node.v1alpha1.rs"))
    };
    let made = made().map_err(|e| format!("cannot make code from {name}: {e}"));
    let _ = std::fs::remove_dir_all(&out);
    made
}
