//! Packages beside each other in one tree.

use crate::dpkg::replaces;
use crate::substitute::Package;
use crate::tree::{Kind, Node, Tree, TreeError, TreePath};
use std::collections::BTreeMap;

/// Why packages do not fit beside each other.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Two packages have the same file, and neither says that it replaces the other's.
    #[error("{path} is in {first} and in {second}")]
    Twice {
        /// The file.
        path: TreePath,
        /// The package that has it first.
        first: String,
        /// The other.
        second: String,
    },
    /// A file would be reached through a link: a package from before the merged /usr, or one that was tampered with.
    #[error("{package}: {path} would land in {real} through a symbolic link")]
    ThroughLink {
        /// The package.
        package: String,
        /// Path in the package.
        path: TreePath,
        /// Where it leads in the tree.
        real: TreePath,
    },
    /// The tree refused.
    #[error("{package}: cannot be laid out")]
    Tree {
        /// The package.
        package: String,
        /// Why.
        source: TreeError,
    },
}

/// Puts every entry of every package, in the order given, which is to begin with base-files.
pub(super) fn lay_out(packages: &[Package]) -> Result<Tree, LayoutError> {
    let mut tree = Tree::new();
    let mut owners: BTreeMap<TreePath, usize> = BTreeMap::new();
    for (index, package) in packages.iter().enumerate() {
        let refused = |source| LayoutError::Tree { package: package.name().into(), source };
        for entry in &package.deb.entries {
            let at = tree.resolve_parent(entry.path.as_bytes()).map_err(refused)?;
            if at != entry.path {
                return Err(LayoutError::ThroughLink {
                    package: package.name().into(),
                    path: entry.path.clone(),
                    real: at,
                });
            }
            if let Some(old) = tree.get(&at) {
                if entry.node.is_dir() && leads_to_dir(&tree, &at) {
                    // As dpkg does: a directory that is there already keeps its mode and owner, whoever names it
                    // next; a link to one stays a link.
                    if !owners.contains_key(&at) && old.is_dir() {
                        tree.insert(at.as_bytes(), entry.node.clone()).map_err(refused)?;
                        owners.insert(at, index);
                    }
                    continue;
                }
                let Some(first) = owners.get(&at).map(|owner| &packages[*owner]) else { continue };
                if replaces(first).iter().any(|name| name == package.name()) {
                    continue;
                }
                if !replaces(package).iter().any(|name| name == first.name())
                    && !same(&tree, old, &entry.node)
                {
                    return Err(LayoutError::Twice {
                        path: at,
                        first: first.name().into(),
                        second: package.name().into(),
                    });
                }
            }
            tree.insert(at.as_bytes(), entry.node.clone()).map_err(refused)?;
            owners.insert(at, index);
        }
    }
    Ok(tree)
}

fn leads_to_dir(tree: &Tree, at: &TreePath) -> bool {
    tree.lookup(at.as_bytes()).is_some_and(|(_, node)| node.is_dir())
}

/// Equal files do not clash: packages of one source share some on purpose.
fn same(tree: &Tree, a: &Node, b: &Node) -> bool {
    match (&a.kind, &b.kind) {
        (Kind::Symlink(a), Kind::Symlink(b)) => a == b,
        _ => matches!((tree.content(a), tree.content(b)), (Some(a), Some(b)) if a == b),
    }
}
