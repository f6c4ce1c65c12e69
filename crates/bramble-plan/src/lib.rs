//! The plan as a pure function of what is wanted, what changes a result without standing in the file, what is
//! locked, what was seen, the time and a seed.
//!
//! Nothing in this crate touches the world: no file, no clock, no network (its `clippy.toml` bans them).

mod allocate;
mod cards;
mod document;
mod lint;
mod packages;
mod plan;
pub mod site;
mod wanted;

pub use allocate::{AllocateError, allocate};
pub use cards::{Cards, NextCard, begin_card, card_unfinished, cards, set_cards, settle_founder};
pub use document::{DocumentError, Edition, Identity, document};
pub use lint::{Finding, lint};
pub use packages::{PackageRequest, request};
pub use plan::{Inventory, PlannedNode, Purpose, Wanted, plan};
pub use wanted::{
    arch, board, boards, firmware_lines, kernel_args, kernel_modules, package_request, role, served, wanted,
};

use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// Digests of all that changes a result without standing in the file: patches, charts, the tool's own version,
/// the agent's bytes, keyed fingerprints of secrets. Name to hexadecimal SHA-256.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Sources(pub BTreeMap<String, String>);

/// Hexadecimal SHA-256 of a value's JSON; maps are ordered, so it is stable.
pub fn digest(value: &impl Serialize) -> String {
    // Our own types with string keys always serialise; an empty text would only make two digests equal.
    let bytes = serde_json::to_vec(value).unwrap_or_default();
    hex::encode(Sha256::digest(&bytes))
}

/// Digest of what Debian is asked for: when it differs from the lock's, the lock is resolved again.
pub fn package_request_digest(request: &PackageRequest, suite: &str) -> String {
    digest(&(&request.names, &request.exclude, &request.prefer, suite))
}
