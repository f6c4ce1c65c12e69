//! age and SOPS files, and the Secret type that cannot be printed.
