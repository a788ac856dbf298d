//! Hosts with real disks, real vats and real sockets.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod durable;
mod homes;
mod lives;
mod peers;
mod services;
mod system;
mod timers;
mod web;
