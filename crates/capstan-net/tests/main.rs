//! Nodes over real sockets on loopback, each with a tiny kernel that registers everything.
#![allow(missing_docs, clippy::unwrap_used, reason = "tests fail by panicking")]

mod nodes;
mod rough;
mod station;
