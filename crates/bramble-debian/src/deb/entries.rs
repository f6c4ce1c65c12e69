//! Entries of the archives inside a package, checked.

use super::DebError;
use crate::tree::{Content, Kind, Node, TreePath};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Cursor;
use std::path::Path;
use tar::EntryType;

/// A file of a package and where it is to lie, before links of the tree are considered.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path as in the archive, normalised.
    pub path: TreePath,
    /// The node. A hard link's target is a path of an earlier file of the same package.
    pub node: Node,
}

/// Numbers up to here are given by Debian to the same names everywhere (policy 9.2.2); a package built elsewhere may
/// hold any other number, which means nothing here.
const STATIC_IDS: std::ops::Range<u64> = 0..100;
const NOBODY: u64 = 65534;

/// Files of the control archive.
pub(super) fn control(deb: &Path, archive: &Content) -> Result<BTreeMap<String, Content>, DebError> {
    let mut out = BTreeMap::new();
    walk(deb, archive, |path, entry| {
        if entry.kind != EntryType::Regular {
            return Ok(());
        }
        match std::str::from_utf8(path.as_bytes()) {
            Ok(name) if !name.contains('/') => {
                out.insert(name.to_string(), entry.content);
                Ok(())
            }
            _ => Err("has a name that no control file has".into()),
        }
    })?;
    Ok(out)
}

/// Entries of the data archive in their order.
pub(super) fn data(deb: &Path, archive: &Content) -> Result<Vec<Entry>, DebError> {
    let mut out: Vec<Entry> = Vec::new();
    let mut seen: BTreeSet<TreePath> = BTreeSet::new();
    let mut files: BTreeMap<TreePath, usize> = BTreeMap::new();
    walk(deb, archive, |path, entry| {
        if !seen.insert(path.clone()) {
            return Err("occurs twice".into());
        }
        let id = |id: u64, of: &str| {
            if STATIC_IDS.contains(&id) || id == NOBODY {
                Ok(id as u32)
            } else {
                Err(format!("has {of} {id}, which is not one of Debian's fixed numbers"))
            }
        };
        let mut node = Node {
            mode: entry.mode,
            uid: id(entry.uid, "owner")?,
            gid: id(entry.gid, "group")?,
            mtime: 0,
            kind: Kind::Dir,
        };
        match entry.kind {
            EntryType::Directory => {}
            EntryType::Regular | EntryType::Continuous => {
                files.insert(path.clone(), out.len());
                node.kind = Kind::File(entry.content);
            }
            EntryType::Symlink => {
                if entry.link.is_empty() || entry.link.contains(&0) {
                    return Err("is a link without a target".into());
                }
                node.mode = 0o777;
                node.kind = Kind::Symlink(entry.link);
            }
            EntryType::Link => {
                let target = TreePath::new(&entry.link).ok_or("is a hard link out of the tree")?;
                let first = files.get(&target).ok_or("is a hard link to no earlier file of the package")?;
                node = Node { kind: Kind::Hardlink(target), ..out[*first].node.clone() };
            }
            other => return Err(format!("is of a type that packages do not have ({other:?})")),
        }
        out.push(Entry { path, node });
        Ok(())
    })?;
    Ok(out)
}

struct Raw {
    kind: EntryType,
    mode: u16,
    uid: u64,
    gid: u64,
    link: Vec<u8>,
    content: Content,
}

fn walk(
    deb: &Path,
    archive: &Content,
    mut each: impl FnMut(TreePath, Raw) -> Result<(), String>,
) -> Result<(), DebError> {
    let damaged = |source: std::io::Error| DebError::Container {
        path: deb.to_path_buf(),
        reason: format!("holds a damaged tar archive: {source}"),
    };
    let mut tar = tar::Archive::new(Cursor::new(archive.as_slice()));
    // With seeks: the contents are not touched, only the headers.
    for entry in tar.entries_with_seek().map_err(damaged)? {
        let entry = entry.map_err(damaged)?;
        let name = entry.path_bytes().into_owned();
        let refuse = |reason: String| DebError::Entry {
            path: deb.to_path_buf(),
            entry: String::from_utf8_lossy(&name).into_owned(),
            reason,
        };
        if name.starts_with(b"/") {
            return Err(refuse("is an absolute path".into()));
        }
        let path = TreePath::new(&name).ok_or_else(|| refuse("climbs out of the tree".into()))?;
        let header = entry.header();
        let start = entry.raw_file_position() as usize;
        let content = (entry.size() as usize)
            .checked_add(start)
            .and_then(|end| archive.slice(start..end))
            .ok_or_else(|| refuse("reaches beyond the archive".into()))?;
        let raw = Raw {
            kind: header.entry_type(),
            mode: (header.mode().map_err(damaged)? & 0o7777) as u16,
            uid: header.uid().map_err(damaged)?,
            gid: header.gid().map_err(damaged)?,
            link: entry.link_name_bytes().map(|link| link.into_owned()).unwrap_or_default(),
            content,
        };
        each(path, raw).map_err(refuse)?;
    }
    Ok(())
}
