//! The writable places of the read-only root: /etc and /var as tmpfs, the persistent directories of /var, and a few
//! more.

use crate::etc::{self, Entry};
use crate::refused::{At, Refused};
use crate::tree;
use bramble_api::names::{PERSISTENT, path};
use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind, mount_move, unmount,
};
use std::fs::{self, Permissions};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Where a tmpfs is filled before it covers the directory it is filled from; a directory of the initramfs.
const STAGING: &str = "/staging";

/// Places beside /etc and /var that programs write to, a tmpfs each where the root has the directory.
///
/// /opt/cni/bin: Cilium and others install their plug-in there. /root: a shell's history and kubectl's cache.
const TEMPORARY: &[&str] = &["/opt/cni/bin", "/root"];

/// /dev and /proc inside the root while programs run in it; taken away when dropped.
pub struct Borrowed(Vec<PathBuf>);

/// Shows /dev and /proc inside `root`.
pub fn lend(root: &Path) -> Result<Borrowed, Refused> {
    let mut borrowed = Borrowed(Vec::new());
    for name in ["dev", "proc"] {
        let target = root.join(name);
        mount_bind(Path::new("/").join(name), &target).at("mount", &target)?;
        borrowed.0.push(target);
    }
    Ok(borrowed)
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        for target in &self.0 {
            let _ = unmount(target, UnmountFlags::DETACH);
        }
    }
}

/// Covers /etc with the image's own plus `entries`.
pub fn make_etc(root: &Path, entries: &[Entry]) -> Result<(), Refused> {
    let staging = stage(&root.join("etc"))?;
    etc::write(entries, &staging, root)?;
    cover(&staging, &root.join("etc"))
}

/// Covers /var with the image's own, and the persistent directories of it with those on data.
pub fn make_var(root: &Path) -> Result<(), Refused> {
    let var = root.join("var");
    let staging = stage(&var)?;
    cover(&staging, &var)?;
    for (path, mode) in PERSISTENT {
        let target = below(root, path);
        let kept = below(root, path::PERSIST).join(path.trim_start_matches('/'));
        make_directories(&target)?;
        make_directories(&kept)?;
        // What the release brings and the machine does not have yet, with its owners.
        tree::copy(&target, &kept)?;
        let meta = fs::metadata(&target).at("look at", &target)?;
        std::os::unix::fs::chown(&kept, Some(meta.uid()), Some(meta.gid())).at("give an owner to", &kept)?;
        fs::set_permissions(&kept, Permissions::from_mode(*mode)).at("set the mode of", &kept)?;
        mount_bind(&kept, &target).at("mount", &target)?;
    }
    Ok(())
}

/// Makes the rest of the places that programs write to.
pub fn make_temporary(root: &Path) -> Result<(), Refused> {
    for path in TEMPORARY {
        let target = below(root, path);
        if target.is_dir() {
            let staging = stage(&target)?;
            cover(&staging, &target)?;
        }
    }
    Ok(())
}

/// A tmpfs with the mode, owner and contents of `from`.
fn stage(from: &Path) -> Result<PathBuf, Refused> {
    let staging = PathBuf::from(STAGING);
    fs::create_dir_all(&staging).at("make", &staging)?;
    mount(c"tmpfs", &staging, c"tmpfs", MountFlags::NOSUID | MountFlags::NODEV, c"mode=0755")
        .at("mount", &staging)?;
    tree::copy(from, &staging)?;
    let meta = fs::metadata(from).at("look at", from)?;
    tree::copy_meta(&meta, &staging)?;
    Ok(staging)
}

fn cover(staging: &Path, target: &Path) -> Result<(), Refused> {
    mount_move(staging, target).at("mount", target)
}

/// A path of the running system, below the root's mount point.
fn below(root: &Path, path: &str) -> PathBuf {
    root.join(path.trim_start_matches('/'))
}

fn make_directories(path: &Path) -> Result<(), Refused> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path).at("make", path)
}

/// Makes `root` the root of everything.
///
/// What lay in the initramfs is deleted on the way: it is memory that nothing would ever give back.
pub fn enter(root: &Path) -> Result<(), Refused> {
    for name in ["dev", "proc", "sys", "run"] {
        let (from, to) = (Path::new("/").join(name), root.join(name));
        mount_move(&from, &to).at("move", &from)?;
    }
    rustix::process::chdir(root).at("enter", root)?;
    let slash = Path::new("/");
    if let Ok(meta) = fs::symlink_metadata(slash) {
        empty(slash, meta.dev());
    }
    mount_move(".", "/").at("move", root)?;
    rustix::process::chroot(".").at("enter", root)?;
    rustix::process::chdir("/").at("enter", root)?;
    // systemd makes it shared itself; private first, so that nothing here depends on what the kernel began with.
    let _ = rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC);
    Ok(())
}

/// Becomes `init`. Comes back only with the reason why not.
pub fn start(init: &Path) -> Result<std::convert::Infallible, Refused> {
    use std::os::unix::process::CommandExt;
    Err(std::process::Command::new(init).exec()).at("start", init)
}

/// Deletes what lies in `directory` on the file system `device`, as far as it goes.
fn empty(directory: &Path, device: u64) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match fs::symlink_metadata(&path) {
            Ok(meta) if meta.dev() != device => {}
            Ok(meta) if meta.is_dir() => {
                empty(&path, device);
                let _ = fs::remove_dir(&path);
            }
            _ => {
                let _ = fs::remove_file(&path);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn persistent_directories_lie_below_var_and_do_not_hide_each_other() {
        for (index, (path, _)) in PERSISTENT.iter().enumerate() {
            assert!(path.starts_with("/var/"), "{path}");
            for (other, _) in &PERSISTENT[index + 1..] {
                assert!(
                    !other.starts_with(&format!("{path}/")) && !path.starts_with(&format!("{other}/")),
                    "{path}"
                );
            }
        }
        assert_eq!(below(Path::new("/root"), "/var/x"), Path::new("/root/var/x"));
    }

    #[test]
    fn emptying_keeps_to_its_file_system() {
        let root = std::env::temp_dir().join(format!("bramble-empty-{}", std::process::id()));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::write(root.join("a/b/c"), "").unwrap();
        std::os::unix::fs::symlink("/proc", root.join("a/proc")).unwrap();
        let device = fs::metadata(&root).unwrap().dev();
        empty(&root, device + 1);
        assert!(root.join("a/b/c").exists());
        empty(&root, device);
        assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
        fs::remove_dir(&root).unwrap();
    }
}
