//! The traits through which the world is touched, shared by executor and simulator.
