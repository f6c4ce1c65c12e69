//! The only crate that prints: progress, tables, diagnostics, error class to exit code.
