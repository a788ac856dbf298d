//! The deterministic core of capstan: one writer that takes inputs and says what must be stored and done.
//!
//! **Invariant:** no clock, no randomness, no sockets, no threads. `now` and random bytes come with the input
//! (law L9); what leaves is an effect, held by the driver until it is durable (law L3).
#![deny(clippy::wildcard_enum_match_arm)]

mod clist;
mod counts;
pub mod effect;
mod fault;
pub mod host_op;
pub mod input;
pub mod kernel;
mod promise;
mod queue;
mod remote;
mod turn;
