//! Every file under `examples/` is an input: it passes, and its machines can be worked out.

use std::path::{Path, PathBuf};

fn examples() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples");
    let mut files: Vec<_> = std::fs::read_dir(&root)
        .expect("examples/ is there")
        .map(|entry| entry.expect("readable").path().join("bramble.yaml"))
        .filter(|path| path.exists())
        .collect();
    files.sort();
    files
}

#[test]
fn every_example_passes() {
    let files = examples();
    assert!(files.len() >= 8, "the three labs and the five set-ups, found {}", files.len());
    for path in files {
        let text = std::fs::read_to_string(&path).expect("readable");
        let checked =
            bramble_spec::parse(&text, &path.display().to_string()).unwrap_or_else(|found| panic!("{found}"));
        let nodes = checked.cluster.effective_nodes();
        assert_eq!(nodes.len(), checked.cluster.spec.nodes.len(), "{}", path.display());
        assert!(checked.cluster.endpoint().is_some(), "{}", path.display());
    }
}

/// A summary of what each example comes to, so that a change of a default or of merging is seen.
#[test]
fn what_the_examples_say() {
    let mut out = String::new();
    for path in examples() {
        let text = std::fs::read_to_string(&path).expect("readable");
        let checked = bramble_spec::parse(&text, "bramble.yaml").unwrap_or_else(|found| panic!("{found}"));
        let directory = path.parent().and_then(Path::file_name).expect("has a directory").to_string_lossy();
        out.push_str(&format!("== {directory}\n"));
        for node in checked.cluster.effective_nodes() {
            let taints: Vec<_> = node.taints.iter().map(ToString::to_string).collect();
            out.push_str(&format!(
                "{} {} {} {} {} labels={:?} taints={:?} packages={:?}\n",
                node.name,
                node.role,
                node.board,
                node.address,
                node.addressing,
                node.labels,
                taints,
                node.packages
            ));
        }
        for warning in &checked.warnings {
            out.push_str(&format!("warning {warning}\n"));
        }
        for part in &checked.not_served {
            out.push_str(&format!("not served: {} line {}\n", part.path, part.line));
        }
        for secret in &checked.secrets_wanted {
            out.push_str(&format!("secret {} for {} line {}\n", secret.name, secret.path, secret.line));
        }
    }
    insta::assert_snapshot!(out);
}
