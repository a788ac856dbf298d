//! The deterministic core of capstan: one writer that takes inputs and says what must be stored and done.
//!
//! **Invariant:** no clock, no randomness, no sockets, no threads. `now` and random bytes come with the input
//! (law L9); what leaves is an effect, held by the driver until it is durable (law L3).
#![deny(clippy::wildcard_enum_match_arm)]

mod activity;
pub mod audit;
mod clist;
mod collection;
mod counts;
mod crank;
mod cycles;
pub mod effect;
mod fault;
mod flight;
mod gc;
mod host;
pub mod host_op;
pub mod input;
pub mod kernel;
mod notify;
mod pin;
mod promise;
mod queue;
mod remote;
mod reset;
mod route;
mod select;
mod service;
mod subcluster;
mod syscall;
pub mod system;
mod turn;
mod vat;
