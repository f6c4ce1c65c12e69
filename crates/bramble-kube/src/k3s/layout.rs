//! Where a release lies in the root image, and the air-gap images beside it.

use super::release::{Entry, Release};
use super::{CURRENT, DATA, IMAGES, LIB};

/// One path of the root image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Absolute path.
    pub path: String,
    /// What lies there.
    pub entry: Entry,
}

/// Programs that a person calls: k3s looks at the name it is called by.
const CALLED: &[&str] = &["k3s", "kubectl", "crictl", "ctr"];

/// Name of the link to an image in k3s' data directory. k3s imports what has a name of these
/// (`SupportedExtensions` in `rancher/wharfie`, `pkg/tarfile`), and remembers it by its path, size and time; the name
/// therefore has a part of the content's digest.
const EXTENSIONS: &[&str] = &[".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.lz4", ".tar.bz2", ".tbz"];

/// Whether k3s imports a file of this name.
pub fn is_image(name: &str) -> bool {
    EXTENSIONS.iter().any(|extension| name.ends_with(extension) && name.len() > extension.len())
}

/// Where an image lies in the root image. `sha256` is its digest, hexadecimal.
pub fn image_path(name: &str, sha256: &str) -> String {
    let (stem, extension) = name.split_once('.').unwrap_or((name, ""));
    format!("{IMAGES}/{stem}-{}.{extension}", sha256.get(..12).unwrap_or(sha256))
}

/// Everything of the release in the root image, sorted by path, and the `tmpfiles.d` lines that make k3s find it and
/// the images at these paths.
pub fn place(release: Release, images: &[String]) -> Vec<Placed> {
    let directory = format!("{LIB}/{}", release.archive);
    let link = |path: String, target: String| Placed { path, entry: Entry::Link { target } };
    let mut lines = String::new();
    for (path, entry) in &release.entries {
        // What the release file would do at its first start: one link for each of its own CNI plug-ins.
        if let (Some(name), Entry::Link { target }) = (path.strip_prefix("bin/"), entry)
            && target == "cni"
        {
            lines += &format!("L {DATA}/data/cni/{name} - - - - {CURRENT}/bin/cni\n");
        }
    }
    lines += &format!("L+ {DATA}/data/cni/cni - - - - {CURRENT}/bin/cni\n");
    for path in images {
        let name = path.rsplit('/').next().unwrap_or_default();
        lines += &format!("L+ {DATA}/agent/images/bramble-{name} - - - - {path}\n");
    }
    let mut placed: Vec<Placed> = release
        .entries
        .into_iter()
        .map(|(path, entry)| Placed { path: format!("{directory}/{path}"), entry })
        .collect();
    placed.push(link(CURRENT.into(), release.archive));
    for name in CALLED {
        placed.push(link(format!("/usr/bin/{name}"), format!("../lib/k3s/current/bin/{name}")));
    }
    placed.push(Placed {
        path: "/usr/lib/tmpfiles.d/bramble-k3s-release.conf".into(),
        entry: Entry::File { mode: 0o644, content: lines.into_bytes() },
    });
    placed.sort_by(|a, b| a.path.cmp(&b.path));
    placed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_known_by_their_content() {
        let sha256 = "0123456789abcdef".repeat(4);
        assert_eq!(image_path("pause.tar", &sha256), "/usr/lib/k3s/images/pause-0123456789ab.tar");
        let name = "k3s-airgap-images-arm64.tar.zst";
        assert_eq!(
            image_path(name, &sha256),
            "/usr/lib/k3s/images/k3s-airgap-images-arm64-0123456789ab.tar.zst"
        );
        assert!(is_image(name) && is_image("a.tgz") && !is_image("a.txt") && !is_image(".tar"));
    }
}
