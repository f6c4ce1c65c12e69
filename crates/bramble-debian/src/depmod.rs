//! The kernel of a tree, and the tables by which its modules are found.

use crate::tree::{Content, TreePath};
use std::collections::BTreeMap;

/// A kernel and its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Release, as in `/usr/lib/modules/RELEASE`.
    pub version: String,
    /// The kernel image as packaged.
    pub image: Content,
    #[expect(dead_code, reason = "read by the walk over dependencies, which follows")]
    modules: BTreeMap<String, (TreePath, Content)>,
}

/// A module to be loaded, uncompressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Module {
    /// Name with underscores, as in `/proc/modules`.
    pub name: String,
    /// Where it lies in the tree.
    pub path: TreePath,
    /// The ELF file.
    pub bytes: Content,
}
