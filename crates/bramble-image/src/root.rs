//! The root partition: a tree laid out as EROFS, its hash tree behind it.

use crate::derive;
use crate::disk::{STEP, write_sparse};
use crate::release::BuildError;
use crate::verity::{HashTree, Salt, hash_blocks};
use bramble_api::layout::BLOCK;
use bramble_api::names::path;
use bramble_debian::tree::{Kind, Tree};
use bramble_erofs::{Entry, Layout, Options, Placement};
use rayon::prelude::*;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a root is made of.
pub(crate) struct RootInput<'a> {
    pub tree: &'a Tree,
    /// Becomes [`path::AGENT`].
    pub agent: &'a [u8],
    /// Cluster and architecture: what the identifiers follow from.
    pub of: [&'a str; 2],
    /// Where the release before had its files.
    pub previous: Option<&'a Placement>,
}

/// A planned root.
pub(crate) struct Root<'a> {
    layout: Layout<'a>,
    pub salt: Salt,
}

/// A root as it was written.
pub(crate) struct Written {
    /// Bytes of the EROFS image.
    pub size: u64,
    /// Bytes of the hash tree behind it.
    pub tree_size: u64,
    pub root_hash: [u8; 32],
}

impl<'a> RootInput<'a> {
    /// Decides where everything lies.
    pub(crate) fn plan(&self) -> Result<Root<'a>, BuildError> {
        let agent_path = path::AGENT.trim_start_matches('/').as_bytes();
        // What most nodes bear is the image's own time, which takes no room in their inodes.
        let time = self.tree.iter().next().map_or(0, |(_, root)| root.mtime);
        let mut entries: Vec<Entry<'a>> = Vec::with_capacity(self.tree.len() + 1);
        for (path, node) in self.tree.iter() {
            if path.as_bytes() == agent_path {
                continue;
            }
            let kind = match &node.kind {
                Kind::Dir => bramble_erofs::Kind::Directory,
                Kind::File(content) => bramble_erofs::Kind::File(content),
                Kind::Symlink(target) => bramble_erofs::Kind::Symlink(target),
                Kind::Hardlink(target) => bramble_erofs::Kind::HardLink(target.as_bytes()),
                Kind::CharDev { major, minor } => {
                    bramble_erofs::Kind::CharDevice { major: *major, minor: *minor }
                }
            };
            entries.push(Entry {
                path: path.as_bytes(),
                kind,
                mode: node.mode,
                uid: node.uid,
                gid: node.gid,
                mtime: (node.mtime != time).then_some(node.mtime),
            });
        }
        entries.push(Entry::new(agent_path, bramble_erofs::Kind::File(self.agent), 0o755));
        // Salt and UUID are those of the cluster, not of the release: what a release leaves as it was keeps its
        // digests, and an update then writes only the blocks of the hash tree above changed data.
        let options = Options {
            uuid: derive::uuid("root", &self.of),
            label: "bramble-root".to_string(),
            build_time: time,
            ..Options::default()
        };
        let layout = Layout::plan(entries, &options, self.previous)?;
        Ok(Root { layout, salt: derive::bytes("verity salt", &self.of) })
    }
}

impl Root<'_> {
    /// Bytes of the image, without the hash tree.
    pub(crate) fn size(&self) -> u64 {
        self.layout.size()
    }

    /// Where everything lies, as text.
    pub(crate) fn placement(&self) -> String {
        self.layout.placement().to_string()
    }

    /// Writes image and hash tree into an empty file: every processor lays out a piece, digests it while it is in the
    /// cache, and writes it. Memory: one piece a thread and the digests.
    pub(crate) fn write(&self, file: &File) -> io::Result<Written> {
        let size = self.layout.size();
        let mut digests = vec![0; (size / BLOCK * 32) as usize];
        digests.par_chunks_mut(STEP / BLOCK as usize * 32).enumerate().try_for_each_init(
            || vec![0; STEP],
            |buffer, (index, digests)| {
                let offset = (index * STEP) as u64;
                let piece = &mut buffer[..(size - offset).min(STEP as u64) as usize];
                self.layout.fill(offset, piece);
                hash_blocks(&self.salt, piece, digests);
                write_sparse(file, offset, piece)
            },
        )?;
        let tree = HashTree::from_digests(&self.salt, &digests);
        file.write_all_at(&tree.bytes, size)?;
        let tree_size = tree.bytes.len() as u64;
        // A hole at the end has not made the file longer.
        file.set_len(size + tree_size)?;
        Ok(Written { size, tree_size, root_hash: tree.root })
    }
}
