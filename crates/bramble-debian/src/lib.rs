//! Debian archives without dpkg: signed index, resolver, .deb reader, substitutes for maintainer scripts.
