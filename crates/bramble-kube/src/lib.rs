//! What every Kubernetes distribution shares: PKI, kubeconfigs, OCI archives; the upstream distribution's configs and units.
