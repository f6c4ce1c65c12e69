//! How a machine changes its release without ever losing the one that works: decisions only.
//!
//! - [`state`]: what is known of the two slots, one enum, one method an edge.
//! - [`journal`]: how that is kept on data, so that a cut at any instant leaves one whole record.
//! - [`media`]: what the order of writes wants of disk and firmware; the agent and the simulator both answer it.
//! - [`engine`]: the order of writes itself.
//! - [`verity`]: a hash tree checked in one pass.
//! - [`gate`]: whether a trial is good.
//! - [`when`]: when a machine may look, write and restart.
//! - [`rollout`]: what is done next to one machine of a roll-out over the site.
//! - [`reason`]: the stable words for why a release was not written or not kept.
//!
//! Whether a release is for this machine at all, and who signed it, is said by `bramble_api`.
//!
//! No file, no clock, no network: facts and time are arguments.

pub mod engine;
pub mod gate;
pub mod journal;
pub mod media;
pub mod reason;
pub mod rollout;
pub mod state;
pub mod verity;
pub mod when;
