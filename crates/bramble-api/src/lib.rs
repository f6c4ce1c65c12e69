//! Words shared by Bramble's programs.
//!
//! Plain data: no runtime, no network, no file system, no clock. Everything that two programs, or two
//! releases of one program, must agree on is declared here and nowhere else.

pub mod board;
pub mod document;
pub mod event;
pub mod layout;
pub mod lock;
pub mod manifest;
pub mod names;
pub mod plan;
pub mod release;
pub mod site;
pub mod stage;
pub mod window;
