//! What a release says of itself, who may say it, and what a machine makes of it.
//!
//! A published release is a directory of static files, as any web server serves it:
//!
//! | file | what | signed by |
//! |---|---|---|
//! | `keys` | [`Keys`]: which keys may sign releases, which no longer may | a root key |
//! | `<arch>/latest` | [`Offer`]: which release is the newest, and where it lies | a release key |
//! | `<arch>/<version>/manifest` | [`Manifest`](crate::manifest::Manifest): what a slot must hold | a release key |
//! | `<arch>/<version>/pack` | the bytes of it; the crate `bramble-pack` has the format | hashes in the offer |
//!
//! Only `keys` and `latest` ever change in place. Each signed file is a [`Signed`] document. The manifest lies in the
//! slot as well, byte for byte as it was published.
//!
//! Everything here is pure: keys, floor, cluster, board and time are arguments, and what is refused says why
//! ([`Refusal`]).

mod keys;
mod offer;
mod refusal;
mod signed;

pub use keys::{Anchor, KeyRing, Keys, PublicKey};
pub(crate) use offer::is_blocks;
pub use offer::{MAX_PACK_HEAD, Machine, Offer, Pack, Part};
pub use refusal::Refusal;
pub(crate) use signed::hex;
pub use signed::{Digest, Document, HEAD, Signed, TooLong, Unreadable};

/// What this version's agent can do with a release, as a number that only grows: a manifest states the least it needs.
pub const AGENT: u32 = 1;

/// Names of the files of a published release, below the source's address.
pub mod file {
    use crate::names::Arch;

    /// The statement of keys.
    pub const KEYS: &str = "keys";

    /// The offer of an architecture.
    pub fn latest(arch: Arch) -> String {
        format!("{arch}/latest")
    }

    /// Directory of one release. Fixed width, so that a listing is in order.
    pub fn directory(arch: Arch, version: u64) -> String {
        format!("{arch}/{version:06}")
    }

    /// Name of the manifest in the directory.
    pub const MANIFEST: &str = "manifest";
    /// Name of the pack in the directory.
    pub const PACK: &str = "pack";
}

#[cfg(test)]
mod tests;
