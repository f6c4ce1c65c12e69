//! The plan as a pure function of spec, sources, lock, inventory, time and seed.
