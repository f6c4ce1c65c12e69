//! Copies a directory of the read-only root into a writable place, with everything that systemd looks at.

use crate::refused::{At, Refused};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Copies what lies below `from` into the existing directory `to`: directories, files and symbolic links with owner,
/// mode and modification time. What `to` already has stays as it is. Links are never followed, sockets, pipes and
/// devices are passed over.
///
/// Times matter: `ConditionNeedsUpdate=` compares those of /etc/.updated and /var/.updated with /usr's.
pub fn copy(from: &Path, to: &Path) -> Result<(), Refused> {
    for entry in fs::read_dir(from).at("list", from)? {
        let entry = entry.at("list", from)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::symlink_metadata(&source).at("look at", &source)?;
        let there = fs::symlink_metadata(&target).is_ok();
        if meta.is_dir() {
            if !there {
                fs::create_dir(&target).at("make", &target)?;
            }
            copy(&source, &target)?;
        } else if !there && meta.is_symlink() {
            let link = fs::read_link(&source).at("read the link", &source)?;
            std::os::unix::fs::symlink(link, &target).at("make the link", &target)?;
        } else if !there && meta.is_file() {
            fs::copy(&source, &target).at("copy to", &target)?;
        } else {
            continue;
        }
        if !there {
            copy_meta(&meta, &target)?;
        }
    }
    Ok(())
}

/// Gives `target`, itself and not what it may point to, the owner, mode and modification time of `meta`.
pub fn copy_meta(meta: &fs::Metadata, target: &Path) -> Result<(), Refused> {
    std::os::unix::fs::lchown(target, Some(meta.uid()), Some(meta.gid())).at("give an owner to", target)?;
    // After the owner: changing it takes the set-user-id bit away.
    if !meta.is_symlink() {
        fs::set_permissions(target, fs::Permissions::from_mode(meta.mode() & 0o7777))
            .at("set the mode of", target)?;
    }
    let time = rustix::fs::Timespec { tv_sec: meta.mtime(), tv_nsec: meta.mtime_nsec() };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, target, &times, flags).at("set the times of", target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_tree_is_copied_whole_and_nothing_is_written_over() {
        let root = std::env::temp_dir().join(format!("bramble-tree-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let (from, to) = (root.join("from"), root.join("to"));
        fs::create_dir_all(from.join("a/b")).unwrap();
        fs::create_dir_all(to.join("a")).unwrap();
        fs::write(from.join("a/b/secret"), "s").unwrap();
        fs::set_permissions(from.join("a/b/secret"), fs::Permissions::from_mode(0o4640)).unwrap();
        fs::set_permissions(from.join("a/b"), fs::Permissions::from_mode(0o500)).unwrap();
        fs::write(from.join("a/kept"), "image").unwrap();
        fs::write(to.join("a/kept"), "machine").unwrap();
        symlink("/etc/passwd", from.join("link")).unwrap();
        symlink("nowhere", from.join("dangling")).unwrap();
        let old = rustix::fs::Timespec { tv_sec: 1_000_000, tv_nsec: 5 };
        let times = rustix::fs::Timestamps { last_access: old, last_modification: old };
        for name in ["a/b/secret", "link"] {
            let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
            rustix::fs::utimensat(rustix::fs::CWD, from.join(name), &times, flags).unwrap();
        }

        copy(&from, &to).unwrap();
        copy(&from, &to).unwrap();
        let secret = fs::metadata(to.join("a/b/secret")).unwrap();
        assert_eq!((secret.mode() & 0o7777, secret.mtime(), secret.mtime_nsec()), (0o4640, 1_000_000, 5));
        assert_eq!(fs::metadata(to.join("a/b")).unwrap().mode() & 0o7777, 0o500);
        assert_eq!(fs::read_to_string(to.join("a/kept")).unwrap(), "machine");
        assert_eq!(fs::read_link(to.join("link")).unwrap(), Path::new("/etc/passwd"));
        assert_eq!(fs::symlink_metadata(to.join("link")).unwrap().mtime(), 1_000_000);
        assert_eq!(fs::read_link(to.join("dangling")).unwrap(), Path::new("nowhere"));
        fs::remove_dir_all(&root).unwrap();
    }
}
