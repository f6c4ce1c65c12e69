//! The kernel of a tree, and the tables by which its modules are found.

use crate::substitute::Package;
use crate::tree::{Content, Tree, TreePath};
use std::collections::BTreeMap;
use std::path::Path;

/// A kernel and its modules.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// Release, as in `/usr/lib/modules/RELEASE`.
    pub version: String,
    /// The kernel image as packaged.
    pub image: Content,
}
/// Why the kernel cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// No kernel.
    #[error("no kernel")]
    None,
}
/// stub
pub fn take(
    _tree: &mut Tree,
    _packages: &[Package],
    _keep: &[String],
    _cache: &Path,
    _pruned: &mut BTreeMap<&'static str, u64>,
) -> Result<Kernel, KernelError> {
    let _ = TreePath::root();
    Ok(Kernel { version: String::new(), image: Content::empty() })
}
