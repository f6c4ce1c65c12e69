//! What every Kubernetes distribution shares: PKI, kubeconfigs, OCI archives; the upstream distribution's configs and units.
//!
//! Without the feature `issue` only [`upstream`] is left: pure rendering, which the agent does on the machine.

pub mod upstream;
