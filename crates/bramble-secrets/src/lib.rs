//! age and SOPS files, and the [`Secret`] type that cannot be printed.
//!
//! The secrets of a cluster live in one YAML file in the format of SOPS (<https://getsops.io>), encrypted for age
//! recipients (<https://age-encryption.org/v1>). The real `sops` reads and edits what this crate writes, and this
//! crate reads what `sops` wrote: formats were taken from the source of sops 3.13.
//!
//! No secret reaches the disk in clear, and none stands in an error: errors name places, never values.

mod atomic;
mod cipher;
mod edit;
mod file;
mod guard;
mod identity;
mod rules;
mod secret;
mod tree;
mod yaml;

pub use atomic::{WriteError, write_private};
pub use edit::{EditError, Editor};
pub use file::{ClearError, LoadError, RekeyError, SaveError, Saved, SecretsFile, SetError};
pub use guard::{Unencrypted, check_encrypted, must_be_encrypted};
pub use identity::{
    CreateIdentityError, Environment, Identities, Identity, IdentityError, Recipient, RecipientError,
};
pub use rules::creation_rules;
pub use secret::{NoRandomness, Secret, SecretBytes, SecretText, random_bytes, random_hex};
pub use tree::Value;
