//! The first file system of a machine: pid 1, its modules and the keys it trusts.
//!
//! Nothing in it is particular to a machine, a cluster's public key apart. It is small because all else lies in the
//! root: pid 1 needs only what finds, checks and mounts that.

use crate::cpio::Archive;
use bramble_api::names::path;

/// A module as it is carried: uncompressed, for the archive is compressed as a whole.
#[derive(Clone, Debug)]
pub struct ModuleFile<'a> {
    /// Absolute path in the initramfs.
    pub path: String,
    /// The ELF file.
    pub bytes: &'a [u8],
}

/// What an initramfs is made of.
#[derive(Clone, Copy, Debug)]
pub struct Initramfs<'a> {
    /// `bramble-node`, static, which becomes `/init`.
    pub agent: &'a [u8],
    /// Modules in the order in which they are loaded.
    pub modules: &'a [ModuleFile<'a>],
    /// Ed25519 public keys that may sign a release.
    pub keys: &'a [[u8; 32]],
}

/// The level of zstd. Measured with 45 modules and the agent (14.8 MB): level 3 gives 3.9 MB, level 19 3.1 MB after
/// thirty times as long; under emulation, where a start is slowest, the kernel unpacks both in 0.6 s more than nothing
/// at all, and what is not read from the medium is worth that.
const LEVEL: i32 = 3;

impl Initramfs<'_> {
    /// The archive as the kernel unpacks it, before compression.
    pub fn archive(&self) -> Vec<u8> {
        let mut archive = Archive::default();
        // The kernel opens it for pid 1 before anything can be mounted on /dev.
        archive.device("/dev/console", 0o600, 5, 1);
        for directory in ["/proc", "/sys", "/run", "/newroot"] {
            archive.directory(directory);
        }
        for (number, key) in self.keys.iter().enumerate() {
            archive.file(&format!("{}/{number}", path::INITRAMFS_KEYS), 0o644, key);
        }
        let mut list = String::new();
        for module in self.modules {
            archive.file(&module.path, 0o644, module.bytes);
            list.push_str(&module.path);
            list.push('\n');
        }
        archive.file(path::INITRAMFS_MODULES, 0o644, list.as_bytes());
        archive.file("/init", 0o755, self.agent);
        archive.finish()
    }

    /// The archive, compressed: what goes into `.initrd`.
    ///
    /// # Errors
    /// zstd's, of which none is known for data in memory.
    pub fn compressed(&self) -> std::io::Result<Vec<u8>> {
        zstd::bulk::compress(&self.archive(), LEVEL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pid_1_finds_modules_and_keys_where_it_looks() {
        let modules = [("b", "2"), ("a", "1")].map(|(name, bytes)| ModuleFile {
            path: format!("/usr/lib/modules/{name}.ko"),
            bytes: bytes.as_bytes(),
        });
        let parts = Initramfs { agent: b"ELF", modules: &modules, keys: &[[7; 32]] };
        let archive = parts.archive();
        let text = String::from_utf8_lossy(&archive);
        assert!(
            text.contains("/usr/lib/modules/b.ko\n/usr/lib/modules/a.ko\n"),
            "the order of loading is kept"
        );
        for name in ["dev/console\0", "etc/bramble/keys/0\0", "etc/bramble/modules\0", "init\0", "newroot\0"]
        {
            assert!(text.contains(name), "{name}");
        }
        let packed = parts.compressed().unwrap();
        assert_eq!(packed, parts.compressed().unwrap());
        assert_eq!(zstd::bulk::decompress(&packed, 1 << 20).unwrap(), archive);
    }
}
