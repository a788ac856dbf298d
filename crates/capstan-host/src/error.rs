//! Why a host does not start, and why it ended.

use capstan_hop::StartError;
use capstan_kernel::system::SystemDamage;
use capstan_net::NetError;
use capstan_store::error::StoreError;
use capstan_store::home::LockError;
use std::path::PathBuf;
use std::sync::Arc;

/// Why a host could not be started, or its home not be changed.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// Another process works on this home, or the directory cannot be used.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// A file of the home cannot be used.
    #[error("cannot use {}", .path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no kernel under this home.
    #[error("there is no store under {}", .0.display())]
    NoStore(PathBuf),
    /// There is a kernel under this home already.
    #[error("there is a store under {} already", .0.display())]
    HasStore(PathBuf),
    /// The store cannot be opened, read or written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored or given identity cannot be used.
    #[error("{0}")]
    Identity(String),
    /// The network could not be set up.
    #[error("cannot set up the network: {0}")]
    Network(#[from] NetError),
    /// The network in its own process could not be set up.
    #[error("cannot set up the network in its own process: {0}")]
    NetworkProcess(#[source] StartError),
    /// The restriction of what vats may ask for names something that there is not (04 §2).
    #[error("there is no global {0:?} that vats could be given")]
    UnknownGlobal(String),
    /// A listener was not confirmed in time.
    #[error("no listen address was confirmed within {0} s")]
    Listen(u64),
    /// The system gave no thread or no randomness.
    #[error("the system refused {0}")]
    System(String),
    /// What is stored of a system subcluster cannot be.
    #[error(transparent)]
    SystemDamage(#[from] SystemDamage),
    /// A system subcluster could not be launched; nothing of it remains.
    #[error("system subcluster {name:?}: {reason}")]
    SystemSubcluster {
        /// Which.
        name: Arc<str>,
        /// Why.
        reason: String,
    },
    /// Two services have one name.
    #[error("kernel service '{0}' is already registered")]
    ServiceTwice(Arc<str>),
    /// The host failed.
    #[error(transparent)]
    Failed(#[from] HostFault),
}

impl HostError {
    /// Whether another process works on this home.
    pub fn is_locked(&self) -> bool {
        matches!(self, HostError::Lock(LockError::Held { .. }))
    }
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
    /// Not one read-only statement, or one that asks too much.
    #[error("{0}")]
    Refused(String),
    /// The store could not be read.
    #[error("{0}")]
    Failed(String),
}
