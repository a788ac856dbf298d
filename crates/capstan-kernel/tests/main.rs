//! Scenarios of the core over the memory store.
#![allow(missing_docs, reason = "tests")]

mod harness;
mod life;
