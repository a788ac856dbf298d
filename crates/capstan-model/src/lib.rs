//! The vocabulary of capstan: identifiers and reference spaces as types, values that cross boundaries,
//! what is said to and by a vat, and the errors that vats see. Pure data; nothing here does anything.
//!
//! **Invariant:** no clock, no randomness, no I/O, and no dependency on another capstan crate.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod capdata;
pub mod error;
pub mod fetch;
pub mod file;
pub mod id;
pub mod peer;
pub mod program;
pub mod refs;
pub mod smallcaps;
pub mod vat;
