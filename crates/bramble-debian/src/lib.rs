//! Debian archives without dpkg: signed index, resolver, .deb reader, substitutes for maintainer scripts.

pub mod archive;
pub mod assemble;
pub mod depmod;
mod download;
pub mod fetch;
pub mod http;
pub mod index;
pub mod mirror;
pub mod openpgp;
pub mod release;
pub mod resolve;
pub mod scripts;
pub mod tree;
pub mod version;

pub use download::DownloadError;
