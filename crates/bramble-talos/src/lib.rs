//! Talos Linux from the same file: secrets bundle, authorities, machine configs.
//!
//! Talos reads one text of YAML documents a machine. Up to 1.13 nearly all of it is one document (`v1alpha1`); from
//! 1.14 on it is some thirty. This crate makes that text as Talos' own generator would ([`config`]), from the file
//! and from a secrets bundle in Talos' own format ([`Bundle`]). What is not ours passes through as it was written
//! ([`yaml`]): a new Talos must not break us on its first day.

pub mod apply;
pub mod bundle;
pub mod config;
pub mod difference;
pub mod machine;
pub mod patch;
pub mod pki;
pub mod schematic;
pub mod seed;
pub mod site;
pub mod talconfig;
pub mod talosconfig;
pub mod versions;
pub mod yaml;

pub use bundle::{Bundle, BundleError};
pub use versions::Release;
