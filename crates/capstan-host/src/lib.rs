//! The real driver: one kernel with its disk, its vats, its network and the clock.
//!
//! One thread owns the kernel and feeds it inputs one by one (law L1). Its changes are made durable in batches by the
//! store's writer thread while the next batch gathers (law L2); effects are executed when their batch is on disk, in
//! order (law L3).
//!
//! **Invariant:** no policy lives here: what is to be done was decided by the kernel.

mod batch;
mod chance;
mod config;
mod driver;
mod errands;
mod error;
mod fetch;
mod home;
mod host;
mod identity;
mod loader;
mod log;
pub mod measure;
mod network;
mod outcome;
mod relay;
mod release;
mod services;
mod start;
mod vats;

pub use capstan_jail::serve as serve_vat;
pub use capstan_js::{VAT_TYPES, served_modules};
pub use capstan_model::program::Program;
pub use capstan_store::sqlite::Sync;
pub use capstan_wire::relay_pool::RelayLimits;
pub use config::{HostConfig, Isolation, SeedSource, SystemSubcluster};
pub use error::{HostError, HostFault, QueryError};
pub use fetch::fetch_code;
pub use home::{STORE_FILE, fsck, purge, restore, restore_identity};
pub use host::Host;
pub use loader::Loader;
pub use network::network_worker;
pub use outcome::{Backup, FsckReport, Launched, Record, Settled};
pub use relay::relay;
pub use services::{Call, Service, ServiceError, StartService, Value};

use sha2::{Digest, Sha256};
use std::sync::Arc;

/// The content hash of a program: SHA-256, hexadecimal.
pub fn code_hash(text: &str) -> Arc<str> {
    hex::encode(Sha256::digest(text)).into()
}
