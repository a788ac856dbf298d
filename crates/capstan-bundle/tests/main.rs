//! Bundles of real files, run in an engine.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod errors;
mod packages;
mod sources;
mod support;
