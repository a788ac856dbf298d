//! The seeded driver: the same core as in the daemon under virtual time, a simulated network and faults, and the
//! fixtures that scenario tests are written with.
//!
//! A [`world::World`] holds kernels, each a real `Kernel` with real `Links` over a disk in memory. One seed decides
//! every delay, every batch boundary and every retry; the same seed gives the same [`world::World::trace_hash`].
//!
//! **Invariant:** no clock, no randomness, no sockets, no threads, no files.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod chance;
mod net;
mod node;
pub mod passable;
pub mod scripted;
pub mod soak;
pub mod storm;
pub mod stranger;
mod trace;
mod vats;
pub mod world;
