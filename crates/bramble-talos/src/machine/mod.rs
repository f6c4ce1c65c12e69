//! The machine API of Talos: a client for one machine.
//!
//! gRPC on port 50000. A machine without a config (*maintenance mode*) talks to whoever comes and takes the first config
//! that it is given; a configured one wants a certificate of its cluster's authority. [`meet`] tells the two apart, and
//! both from a machine of another cluster, before anything is said.
//!
//! The messages are kept by hand ([`proto`]): a Talos release that adds some does not concern us.

mod calls;
mod client;
mod error;
mod kubeconfig;
mod proto;
mod resources;
mod snapshot;
mod wire;

pub use calls::{Applied, Bootstrapped, Member, MemberStatus, Mode, Reboot, Running, Service, Wipe};
pub use client::{Client, Credentials, Met, meet};
pub use error::{CallError, Refusal};
pub use resources::{Disk, Hardware, Stage};
pub use tonic::Code;
pub use wire::{Fingerprint, PORT};
