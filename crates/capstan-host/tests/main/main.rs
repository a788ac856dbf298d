//! Hosts with real disks, real vats and real sockets.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod durable;
mod foreign;
mod homes;
mod lives;
mod peers;
mod reference;
mod services;
mod system;
mod timers;
mod web;
