//! Debian archives without dpkg: signed index, resolver, .deb reader, substitutes for maintainer scripts.

pub mod archive;
pub mod assemble;
pub mod deb;
pub mod depmod;
mod download;
pub mod dpkg;
pub mod fetch;
pub mod http;
pub mod index;
pub mod mirror;
pub mod openpgp;
pub mod release;
pub mod resolve;
pub mod sbom;
pub mod scripts;
pub mod substitute;
pub mod tree;
pub mod version;

pub use download::DownloadError;
