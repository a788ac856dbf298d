//! The durable state of one kernel as typed tables, the overlay that transactions read and write, and the
//! backends that keep it (laws L2, L3).
//!
//! **Invariant:** no cache, counter or queue length lives beside the tables; dropping a transaction undoes it all.
#![deny(clippy::wildcard_enum_match_arm)]

pub mod overlay;
pub mod schema;
