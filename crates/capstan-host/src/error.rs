//! Why a host does not start, and why it ended.

use capstan_net::NetError;
use std::path::PathBuf;

/// Why a host could not be started, or its home not be changed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another process works on this home.
    #[error("another daemon is running on {}", .0.display())]
    Locked(PathBuf),
    /// The directory or a file in it cannot be used.
    #[error("cannot use {}", .path.display())]
    Home {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The store cannot be opened or written.
    #[error("the store: {0}")]
    Store(String),
    /// The stored or given identity cannot be used.
    #[error("{0}")]
    Identity(String),
    /// The network could not be set up.
    #[error("the network")]
    Network(#[source] NetError),
    /// A listener was not confirmed in time.
    #[error("no listen address was confirmed within {0} s")]
    Listen(u64),
    /// The system gave no thread or no randomness.
    #[error("the system: {0}")]
    System(String),
    /// The host had failed already.
    #[error(transparent)]
    Failed(#[from] HostFault),
}

/// Why a running host ended by itself. Nothing that was not durable has left it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostFault {
    /// A batch could not be made durable; memory is ahead of the disk, so only a new start helps.
    #[error("the store failed: {0}")]
    Store(String),
    /// The kernel's thread ended by a panic.
    #[error("the kernel's loop failed: {0}")]
    Loop(String),
}

/// Why a query has no rows.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// Not one read-only statement, or it is too expensive.
    #[error("{0}")]
    Refused(String),
    /// The store could not be read.
    #[error("{0}")]
    Failed(String),
}
