//! The lab with real machines.
fn main() {}
