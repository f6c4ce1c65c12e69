//! The archive side against archives made in the test: keys, signatures, mirrors that misbehave.

mod fetching;
mod fixtures;
mod keys;
mod loading;
mod mirror;
mod real;
mod trust;
