//! Debian archives without dpkg: signed index, resolver, .deb reader, substitutes for maintainer scripts.

pub mod assemble;
pub mod depmod;
pub mod scripts;
pub mod tree;
