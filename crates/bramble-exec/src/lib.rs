//! Runs a plan's steps through the hands: events, journal, resumable.
