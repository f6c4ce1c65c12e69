//! The whole site: what was seen of it, what will be done about it, and what waits for what.
//!
//! - [`version`]: releases of Kubernetes, of Talos and of Bramble OS, and what goes with what.
//! - [`fact`]: a thing that was looked at: its value or why it is unknown, who said so, and when.
//! - [`inventory`]: all facts of a site.
//! - [`change`]: what still differs from what is wanted.
//! - [`step`]: acts, and the plan of them.
//! - [`waiting`]: why something is not done now, and what a person may permit.
//! - [`status`]: the table that a person reads.

pub mod change;
pub mod fact;
pub mod inventory;
pub mod status;
pub mod step;
pub mod version;
pub mod waiting;

pub use change::{Card, Change};
pub use fact::{Fact, Source};
pub use inventory::{
    Budget, Certificate, Cordon, DiskContents, Git, Holder, Identity, Inventory, Machine, Member, Power,
    Release, Trial,
};
pub use status::{NodeState, Status, StatusRow};
pub use step::{Act, Held, Note, Part, Report, Severity, SitePlan, SiteStep, Stage, Summary};
pub use version::{Os, TalosLine, Version, VersionTable};
pub use waiting::{Permission, WaitingOn};
