//! k3s: its release file taken apart at build time and laid out read-only, its configuration rendered from the machine
//! document.
//!
//! A release file is a small program that carries everything in an archive and unpacks it below its data directory at
//! each first start. Here the archive is unpacked when the image is built (`release`, `layout`), so that executables
//! lie on the verified root, nothing is unpacked on a card, and an update or its roll-back is the slot's. What the
//! small program would set up at its start, the search path and the links of its data directory, units and
//! `tmpfiles.d` do.
//!
//! Written from k3s' source and held against a table of its flags (`flags`). **Never booted by us with a real release
//! file**: see `docs/guide/k3s.md`.

mod image;
mod render;

#[cfg(feature = "issue")]
pub mod flags;
#[cfg(feature = "issue")]
pub mod identity;
#[cfg(feature = "issue")]
pub mod layout;
#[cfg(feature = "issue")]
pub mod registries;
#[cfg(feature = "issue")]
pub mod release;
#[cfg(feature = "issue")]
pub mod source;

#[cfg(all(test, feature = "issue"))]
mod tests;

pub use image::image_files;
pub use render::render;

/// Where the unpacked release lies in the root image: `/usr/lib/k3s/SHA256/bin`.
pub const LIB: &str = "/usr/lib/k3s";
/// Link in the root image to the unpacked release.
pub const CURRENT: &str = "/usr/lib/k3s/current";
/// Where the release keeps its images, on the machine.
pub const IMAGES: &str = "/usr/lib/k3s/images";
/// k3s' data directory.
pub const DATA: &str = "/var/lib/rancher/k3s";
/// Where the machine document's part for k3s is written.
pub const ETC: &str = "/etc/rancher/k3s";
/// What the node proves its name with. k3s looks for it here and nowhere else (`pkg/agent/config/config.go`).
pub const NODE_PASSWORD: &str = "/etc/rancher/node/password";
/// The container runtime's socket.
pub const CONTAINERD: &str = "/run/k3s/containerd/containerd.sock";

/// k3s' own names of the files that make a cluster's authorities, below `server/tls` of the data directory: certificate
/// and key of each (`pkg/daemons/control/deps/deps.go`).
pub const AUTHORITIES: [&str; 5] =
    ["client-ca", "server-ca", "request-header-ca", "etcd/server-ca", "etcd/peer-ca"];
