//! What goes over the wire, checked against recordings of the reference (`vectors/README.md`).
#![allow(missing_docs, unreachable_pub, clippy::unwrap_used, reason = "tests: nothing here is an interface")]

mod frames;
mod fuzzing;
mod handshakes;
mod identities;
mod link_bench;
mod link_life;
mod link_limits;
mod link_pair;
mod link_scenarios;
mod recordings;
