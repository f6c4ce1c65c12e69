//! The site as virtual machines on this computer.
