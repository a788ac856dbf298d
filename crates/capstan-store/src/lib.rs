//! The durable state of one kernel as typed tables, the overlay that transactions read and write, and the
//! backends that keep it (laws L2, L3).
//!
//! A kernel takes its [`home::HomeLock`], opens a store, which yields the [`schema::Tables`], puts them under
//! an [`overlay::Db`] and hands every batch of changes to a [`writer::Writer`], which says when it is durable.
//!
//! **Invariant:** no cache, counter or queue length lives beside the tables; dropping a transaction undoes it all.
#![deny(clippy::wildcard_enum_match_arm)]

mod chunks;
pub mod error;
pub mod home;
pub mod memory;
pub mod overlay;
pub mod schema;
#[cfg(feature = "sqlite")]
pub mod sqlite;
pub mod writer;
