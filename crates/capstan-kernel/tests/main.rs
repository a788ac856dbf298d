//! Scenarios of the core over the memory store.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests")]

mod audits;
mod boot;
mod cranks;
mod damage;
mod garbage;
mod harness;
mod life;
mod promises;
mod queued;
mod relays;
mod reset;
mod revocation;
mod routing;
mod services;
mod subclusters;
mod syscalls;
mod system;
mod translation;
mod wakes;
