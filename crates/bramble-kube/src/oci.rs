//! OCI image archives, made by the tool: an image layout in a tar file, the same bytes every time.
//!
//! Formats: OCI image specification 1.1 (`image-layout.md`, `manifest.md`, `config.md`); POSIX ustar. containerd takes
//! the image's full name from the annotation `io.containerd.image.name` in `index.json`.

use bramble_api::names::Arch;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

const BLOCK: usize = 512;

/// One file of an image.
#[derive(Clone)]
pub struct Entry {
    /// Absolute path in the image.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Contents.
    pub content: Vec<u8>,
}

/// An image of one layer and one architecture.
#[derive(Clone)]
pub struct Image<'a> {
    /// Full name with registry and tag.
    pub name: &'a str,
    /// Architecture of the programs in it.
    pub arch: Arch,
    /// Files; directories are made as needed.
    pub entries: Vec<Entry>,
    /// The program to start, with its first arguments.
    pub entrypoint: Vec<String>,
    /// User and group numbers the program runs under.
    pub user: &'a str,
}

/// A finished archive.
#[derive(Clone)]
pub struct Archive {
    /// Full name of the image.
    pub name: String,
    /// Digest of its manifest, `sha256:…`.
    pub digest: String,
    /// The tar file.
    pub bytes: Vec<u8>,
}

/// Why no archive was made.
#[derive(Debug, thiserror::Error)]
pub enum OciError {
    /// The name has no tag, so that containerd would have nothing to call it.
    #[error("the image name {name:?} has no tag")]
    NoTag {
        /// The name.
        name: String,
    },
    /// ustar's header holds 100 bytes of a path.
    #[error("the path {path:?} is too long for an image")]
    Path {
        /// The path.
        path: String,
    },
}

/// Makes the archive of an image.
pub fn archive(image: &Image) -> Result<Archive, OciError> {
    let tag = match image.name.rsplit_once(':') {
        Some((_, tag)) if !tag.is_empty() && !tag.contains('/') => tag,
        _ => return Err(OciError::NoTag { name: image.name.to_string() }),
    };
    let mut blobs = BTreeMap::new();
    let mut put = |bytes: Vec<u8>, media_type: &str| -> Value {
        let digest = hex::encode(Sha256::digest(&bytes));
        let descriptor =
            json!({"mediaType": media_type, "digest": format!("sha256:{digest}"), "size": bytes.len()});
        blobs.insert(digest, bytes);
        descriptor
    };
    let layer = put(layer(&image.entries)?, "application/vnd.oci.image.layer.v1.tar");
    let config = json!({
        "architecture": image.arch.debian(),
        "os": "linux",
        "config": {
            "User": image.user,
            "Env": ["PATH=/bin:/"],
            "Entrypoint": image.entrypoint,
            "WorkingDir": "/",
        },
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    });
    let config = put(config.to_string().into_bytes(), "application/vnd.oci.image.config.v1+json");
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": config,
        "layers": [layer],
    });
    let mut top = put(manifest.to_string().into_bytes(), "application/vnd.oci.image.manifest.v1+json");
    let digest = top["digest"].as_str().unwrap_or_default().to_string();
    top["platform"] = json!({"architecture": image.arch.debian(), "os": "linux"});
    top["annotations"] =
        json!({"io.containerd.image.name": image.name, "org.opencontainers.image.ref.name": tag});
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [top],
    });
    let mut tar = Tar::default();
    tar.file("oci-layout", 0o644, br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    tar.file("index.json", 0o644, index.to_string().as_bytes())?;
    for (digest, bytes) in &blobs {
        tar.file(&format!("blobs/sha256/{digest}"), 0o644, bytes)?;
    }
    Ok(Archive { name: image.name.to_string(), digest, bytes: tar.finish() })
}

/// The list beside the archives by which a machine knows what it has already: one image a line, digest, name, file.
pub fn index<'a>(archives: impl IntoIterator<Item = (&'a Archive, &'a str)>) -> String {
    archives
        .into_iter()
        .map(|(archive, file)| format!("{} {} {file}\n", archive.digest, archive.name))
        .collect()
}

fn layer(entries: &[Entry]) -> Result<Vec<u8>, OciError> {
    let mut sorted: BTreeMap<&str, Option<&Entry>> = BTreeMap::new();
    for entry in entries {
        let path = entry.path.trim_start_matches('/');
        for (slash, _) in path.match_indices('/') {
            sorted.entry(&path[..slash]).or_insert(None);
        }
        sorted.insert(path, Some(entry));
    }
    let mut tar = Tar::default();
    for (path, entry) in sorted {
        match entry {
            Some(entry) => tar.file(path, entry.mode, &entry.content)?,
            None => tar.header(&format!("{path}/"), 0o755, 0, b'5')?,
        }
    }
    Ok(tar.finish())
}

/// A ustar file in the making: owner 0:0, time 0.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<(), OciError> {
        self.header(path, mode, content.len(), b'0')?;
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(BLOCK), 0);
        Ok(())
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, kind: u8) -> Result<(), OciError> {
        if path.len() > 100 {
            return Err(OciError::Path { path: path.to_string() });
        }
        let mut block = [0; BLOCK];
        let mut field = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        field(0, path);
        field(100, &format!("{:07o}", mode & 0o7777));
        field(108, "0000000");
        field(116, "0000000");
        field(124, &format!("{size:011o}"));
        field(136, "00000000000");
        // The checksum is taken with its own field full of spaces.
        field(148, "        ");
        field(257, "ustar\x0000");
        block[156] = kind;
        let sum: u32 = block.iter().map(|b| u32::from(*b)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        self.0.extend_from_slice(&block);
        Ok(())
    }

    fn finish(mut self) -> Vec<u8> {
        self.0.resize(self.0.len() + 2 * BLOCK, 0);
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> Image<'static> {
        Image {
            name: "example.org/tool:1",
            arch: Arch::Arm64,
            entries: vec![
                Entry { path: "/bin/deep/tool".into(), mode: 0o755, content: vec![7; 700] },
                Entry { path: "/a".into(), mode: 0o644, content: Vec::new() },
            ],
            entrypoint: vec!["/bin/deep/tool".into()],
            user: "65534:65534",
        }
    }

    /// Reads the archive back with the system's tar: another reader than our own writer's mirror image.
    fn listing(bytes: &[u8]) -> Result<String, Box<dyn std::error::Error>> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("x.tar");
        std::fs::write(&path, bytes)?;
        let out = std::process::Command::new("tar").arg("-tvf").arg(&path).env("TZ", "UTC").output()?;
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        assert!(out.stderr.is_empty());
        Ok(String::from_utf8(out.stdout)?
            .lines()
            .map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ") + "\n")
            .collect())
    }

    #[test]
    fn layer_lists_directories_before_their_files() -> Result<(), Box<dyn std::error::Error>> {
        insta::assert_snapshot!(listing(&layer(&image().entries)?)?, @r"
        -rw-r--r-- 0/0 0 1970-01-01 00:00 a
        drwxr-xr-x 0/0 0 1970-01-01 00:00 bin/
        drwxr-xr-x 0/0 0 1970-01-01 00:00 bin/deep/
        -rwxr-xr-x 0/0 700 1970-01-01 00:00 bin/deep/tool
        ");
        Ok(())
    }

    #[test]
    fn archive_is_the_same_every_time_and_names_its_image() -> Result<(), Box<dyn std::error::Error>> {
        let (one, two) = (archive(&image())?, archive(&image())?);
        assert_eq!(one.bytes, two.bytes);
        insta::assert_snapshot!(index([(&one, "tool.tar")]) + &listing(&one.bytes)?, @r"
        sha256:8570a4b163790da791696c99121c6b2be062e596fa3e7f09bc6fac76b2591bba example.org/tool:1 tool.tar
        -rw-r--r-- 0/0 30 1970-01-01 00:00 oci-layout
        -rw-r--r-- 0/0 393 1970-01-01 00:00 index.json
        -rw-r--r-- 0/0 254 1970-01-01 00:00 blobs/sha256/125e4c59eef16ad137cae3a007d571308642431bf2c9536c87c4cb991b3f805c
        -rw-r--r-- 0/0 4096 1970-01-01 00:00 blobs/sha256/2b1cd69c823ee849961e5b4d18562e92c1ecced323cdb2ed3a8b0159d10efc68
        -rw-r--r-- 0/0 397 1970-01-01 00:00 blobs/sha256/8570a4b163790da791696c99121c6b2be062e596fa3e7f09bc6fac76b2591bba
        ");
        Ok(())
    }

    #[test]
    fn a_name_needs_a_tag() {
        for name in ["example.org/tool", "example.org:5000/tool", "tool:"] {
            assert!(matches!(archive(&Image { name, ..image() }), Err(OciError::NoTag { .. })), "{name}");
        }
    }

    #[test]
    fn a_long_path_is_refused() {
        let mut image = image();
        image.entries[0].path = format!("/{}", "x".repeat(101));
        assert!(matches!(archive(&image), Err(OciError::Path { .. })));
    }
}
