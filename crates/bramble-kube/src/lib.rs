//! What every Kubernetes distribution shares: PKI, kubeconfigs, OCI archives; the upstream distribution's configs and units.
//!
//! Without the feature `issue` only rendering is left ([`upstream`], [`names`]), which the agent does on the machine.

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
