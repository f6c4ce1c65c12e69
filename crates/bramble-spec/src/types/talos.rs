//! `talos` of cluster, role and machine: Talos' own fields. What is typed here is what Bramble itself must know;
//! the rest passes through.

use crate::decode::{record, words};
use crate::scalar::{Size, Text, Version, Written};

record! {
    /// Talos' own fields.
    #[derive(Default)]
    pub struct Talos {
        /// Release of Talos.
        "version" version: Option<Version> = None,
        /// What the image is made of beside Talos itself; the overlay follows from the board.
        "schematic" schematic: Option<Schematic> = None,
        /// Boot only what is signed.
        "secureBoot" secure_boot: Option<bool> = None,
        /// Encryption of Talos' own partitions.
        "encryption" encryption: Option<Encryption> = None,
        /// Installation.
        "install" install: Option<TalosInstall> = None,
        /// Talos' volume documents, as Talos has them.
        "volumes" volumes: Option<Vec<Written>> = None,
        /// Strategic or RFC 6902 patches, inline or `@` and a file relative to this one. Those of the cluster come first,
        /// then the role's, then the machine's: they do not replace each other.
        "patches" patches: Option<Vec<Written>> = None,
    }
}

record! {
    /// What a Talos image is made of.
    pub struct Schematic {
        /// System extensions: `siderolabs/iscsi-tools`.
        "extensions" extensions: Vec<Text> = Vec::new(),
        /// Words for the kernel's command line.
        "kernelArgs" kernel_args: Vec<Text> = Vec::new(),
    }
}

record! {
    /// Encryption of Talos' own partitions.
    pub struct Encryption {
        /// The state partition.
        "state" state: EncryptionKey = EncryptionKey::None,
        /// The ephemeral partition.
        "ephemeral" ephemeral: EncryptionKey = EncryptionKey::None,
    }
}

words! {
    /// Where the key of an encrypted partition comes from.
    pub enum EncryptionKey {
        /// The machine's TPM.
        Tpm = "tpm",
        /// The machine's own identity.
        NodeId = "nodeID",
        /// A passphrase in the secrets file.
        Static = "static",
        /// Not encrypted.
        None = "none",
    }
}

record! {
    /// Where Talos is installed.
    pub struct TalosInstall {
        /// The disk; what is stated must match exactly one.
        "disk" disk: TalosDisk,
    }
}

record! {
    /// A disk, by any of these; all that is stated must match.
    pub struct TalosDisk {
        /// Serial number.
        "serial" serial: Option<Text> = None,
        /// World wide identifier.
        "wwid" wwid: Option<Text> = None,
        /// Size.
        "size" size: Option<Size> = None,
        /// Model.
        "model" model: Option<Text> = None,
        /// Path of the device, `/dev/sda`. It may be another disk's after the next start.
        "path" path: Option<Text> = None,
    }
}
