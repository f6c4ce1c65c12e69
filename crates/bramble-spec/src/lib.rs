//! The user's file: types, defaults, validation with file, line and hint.
