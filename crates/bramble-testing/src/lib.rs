//! Shared fixtures and helpers for Bramble's tests.
