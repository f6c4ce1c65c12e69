//! What every Kubernetes distribution shares: PKI, kubeconfigs, OCI archives; the configs and units of the upstream distribution
//! and of k3s.
//!
//! Without the feature `issue` only rendering is left ([`upstream`], [`k3s`], [`names`]), which the agent does on the machine.

pub mod k3s;
pub mod names;
pub mod upstream;

#[cfg(feature = "issue")]
pub mod manifests;
#[cfg(feature = "issue")]
pub mod oci;
#[cfg(feature = "issue")]
pub mod pause;
#[cfg(feature = "issue")]
pub mod pki;
#[cfg(feature = "issue")]
pub mod programs;
