//! Puts what was rendered into a copy of the image's /etc.

use super::Entry;
use crate::refused::{At, Refused};
use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes `entries` below `etc`, which stands for /etc; `root` is the read-only root that /etc is a copy from.
pub fn write(entries: &[Entry], etc: &Path, root: &Path) -> Result<(), Refused> {
    for entry in entries {
        let place = place(entry.path(), etc)?;
        if let Some(parent) = place.parent() {
            fs::DirBuilder::new().recursive(true).mode(0o755).create(parent).at("make", parent)?;
        }
        match entry {
            Entry::File { mode, content, .. } => put(&place, *mode, content)?,
            Entry::Link { target, .. } => {
                remove(&place)?;
                std::os::unix::fs::symlink(target, &place).at("make the link", &place)?;
            }
            Entry::Append { content, .. } => {
                let mut whole = existing(&place, root).at("read", &place)?;
                if whole.last().is_some_and(|byte| *byte != b'\n') {
                    whole.push(b'\n');
                }
                whole.extend(content);
                put(&place, 0o644, &whole)?;
            }
        }
    }
    Ok(())
}

fn place(path: &str, etc: &Path) -> Result<PathBuf, Refused> {
    path.strip_prefix("/etc/")
        .filter(|below| !below.split('/').any(|part| part == ".." || part.is_empty()))
        .map(|below| etc.join(below))
        .ok_or_else(|| std::io::Error::new(ErrorKind::InvalidInput, "it does not lie below /etc"))
        .at("write", path)
}

/// Replaces whatever is there, without following it.
fn put(place: &Path, mode: u32, content: &[u8]) -> Result<(), Refused> {
    remove(place)?;
    // The mode from the first instant: a key must at no time be readable by others.
    let mut file = File::options().write(true).create_new(true).mode(mode).open(place).at("make", place)?;
    file.write_all(content).at("write to", place)?;
    // Whatever the umask took away.
    file.set_permissions(fs::Permissions::from_mode(mode)).at("set the mode of", place)
}

fn remove(place: &Path) -> Result<(), Refused> {
    match fs::remove_file(place) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        answer => answer.at("replace", place),
    }
}

/// What the image has there; through one link, which is the image's and not this machine's.
fn existing(place: &Path, root: &Path) -> std::io::Result<Vec<u8>> {
    let source = match fs::read_link(place) {
        Ok(target) if target.is_absolute() => root.join(target.strip_prefix("/").unwrap_or(&target)),
        _ => place.to_path_buf(),
    };
    match fs::read(source) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        answer => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        let root = std::env::temp_dir().join(format!("bramble-etc-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        fs::create_dir_all(root.join("etc/ssl")).unwrap();
        root
    }

    #[test]
    fn files_links_and_additions_replace_what_the_image_has() {
        let root = directory("all");
        let etc = root.join("etc");
        fs::create_dir_all(root.join("usr")).unwrap();
        fs::write(root.join("usr/bundle"), "image").unwrap();
        std::os::unix::fs::symlink("/usr/bundle", etc.join("ssl/bundle")).unwrap();
        std::os::unix::fs::symlink("/etc/elsewhere", etc.join("key")).unwrap();
        fs::write(etc.join("localtime"), "old").unwrap();
        let entries = [
            Entry::File { path: "/etc/key".into(), mode: 0o600, content: b"secret".to_vec() },
            Entry::File { path: "/etc/a/b/c".into(), mode: 0o644, content: Vec::new() },
            Entry::Link { path: "/etc/localtime".into(), target: "/usr/share/zoneinfo/Etc/UTC".into() },
            Entry::Append { path: "/etc/ssl/bundle".into(), content: b"mine\n".to_vec() },
            Entry::Append { path: "/etc/ssl/new".into(), content: b"only\n".to_vec() },
        ];
        write(&entries, &etc, &root).unwrap();
        write(&entries[..3], &etc, &root).unwrap();
        let key = fs::symlink_metadata(etc.join("key")).unwrap();
        assert!(key.is_file());
        assert_eq!(key.permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_link(etc.join("localtime")).unwrap(), Path::new("/usr/share/zoneinfo/Etc/UTC"));
        assert_eq!(fs::read_to_string(etc.join("ssl/bundle")).unwrap(), "image\nmine\n");
        assert_eq!(fs::read_to_string(etc.join("ssl/new")).unwrap(), "only\n");
        assert_eq!(fs::read_to_string(root.join("usr/bundle")).unwrap(), "image");
        fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn nothing_is_written_outside_etc() {
        let root = directory("outside");
        for path in ["/usr/x", "/etc/../x", "/etc//x", "etc/x", "/etcetera"] {
            let entry = Entry::Link { path: path.into(), target: "x".into() };
            assert!(write(&[entry], &root.join("etc"), &root).is_err(), "{path}");
        }
        fs::remove_dir_all(&root).unwrap();
    }
}
