//! The hash tree beside the one that cryptsetup's `veritysetup` makes and checks.
//!
//! Needs veritysetup in the PATH, hence ignored by default: `cargo test -p bramble-image -- --ignored`. Roots made by
//! it are held in `src/verity.rs` for every run.

use bramble_image::verity::HashTree;
use std::path::Path;
use std::process::{Command, Output};

const SALT: [u8; 32] = [0xa7; 32];

fn veritysetup(arguments: &[&str], data: &Path, hash: &Path, root: Option<&str>) -> Output {
    let salt = hex::encode(SALT);
    let mut command = Command::new("veritysetup");
    command
        .args(arguments)
        .args(["--no-superblock", "--hash", "sha256", "--salt", &salt])
        .arg(data)
        .arg(hash);
    command.args(root).output().expect("veritysetup is not installed")
}

#[test]
#[ignore = "needs the program veritysetup"]
fn trees_are_equal_and_a_flipped_bit_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (data, hash) = (dir.path().join("data"), dir.path().join("hash"));
    for blocks in [1_usize, 2, 127, 128, 129, 128 * 128, 128 * 128 + 1] {
        let mut bytes: Vec<u8> = (0..blocks * 4096).map(|i| (i / 4096 * 7 + i) as u8).collect();
        let tree = HashTree::over(&SALT, &bytes);
        std::fs::write(&data, &bytes).unwrap();
        let _ = std::fs::remove_file(&hash);
        let made = veritysetup(&["format"], &data, &hash, None);
        let text = String::from_utf8(made.stdout).unwrap();
        let root = text.lines().find_map(|l| l.strip_prefix("Root hash:")).map(str::trim);
        assert_eq!(root, Some(hex::encode(tree.root).as_str()), "{blocks} blocks");
        assert_eq!(std::fs::read(&hash).unwrap(), tree.bytes, "{blocks} blocks");

        let root = hex::encode(tree.root);
        std::fs::write(&hash, &tree.bytes).unwrap();
        assert!(veritysetup(&["verify"], &data, &hash, Some(&root)).status.success(), "{blocks} blocks");
        bytes[blocks * 4096 - 1] ^= 1;
        std::fs::write(&data, &bytes).unwrap();
        assert!(!veritysetup(&["verify"], &data, &hash, Some(&root)).status.success(), "{blocks} blocks");
    }
}
