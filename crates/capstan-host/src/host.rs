//! The embedding API: one kernel with its disk, vats and network, as a handle.

use crate::chance;
use crate::config::{HostConfig, SystemSubcluster};
use crate::driver::{Post, STOPPING};
use crate::error::{HostError, HostFault, QueryError};
use crate::home;
use crate::network::Network;
use crate::outcome::{self, Backup, FsckReport, Launched, Record, Settled};
use crate::services::{Desk, Forwarder, Registry, Server, Service};
use crate::start::{self, Phase};
use capstan_kernel::host_op::{Answer, HostOp, LaunchConfig, Phrase, Refusal};
use capstan_kernel::input::RequestId;
use capstan_model::capdata::CapData;
use capstan_model::id::{KRef, ObjectId, PromiseId};
use capstan_model::peer::{Hint, Incarnation, PeerId};
use capstan_wire::url::{OcapUrl, oid_from_secret};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Weak};
use std::time::Duration;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore, oneshot, watch};

/// Requests on their way to the kernel; more wait their turn.
pub(crate) const REQUESTS_QUEUED_MAX: usize = 1024;
/// The kernel prepares to stop in one step; a loop that takes longer is stopped without.
const PREPARE_MAX: Duration = Duration::from_secs(5);

/// A running kernel. Clones are the same one; when the last is dropped it stops without being waited for.
#[derive(Clone)]
pub struct Host {
    inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) home: PathBuf,
    pub(crate) peer: PeerId,
    pub(crate) inbox: Sender<Post>,
    pub(crate) network: Option<Arc<Network>>,
    pub(crate) life: watch::Receiver<Incarnation>,
    pub(crate) listen: watch::Receiver<Vec<Hint>>,
    pub(crate) phase: watch::Receiver<Phase>,
    pub(crate) next_request: AtomicU64,
    pub(crate) services: Registry,
    pub(crate) queue: Arc<Semaphore>,
    pub(crate) stopped: OnceCell<()>,
}

impl Host {
    /// The host behind a handle that does not keep it running.
    pub(crate) fn upgrade(inner: &Weak<Inner>) -> Option<Host> {
        inner.upgrade().map(|inner| Host { inner })
    }

    /// Starts the kernel kept under `config.home`, or a new one. The home is locked before its store is touched; when this
    /// returns, the listeners are bound, stored vats are being started, and every system subcluster is restored or
    /// launched. To be called on a tokio runtime.
    pub async fn start(config: HostConfig) -> Result<Host, HostError> {
        let system = config.system.clone();
        let (inner, desks) = start::start(config).await?;
        let host = Host { inner: Arc::new(inner) };
        desks.into_iter().for_each(|desk| host.open(desk));
        for wanted in system {
            if let Err(reason) = host.bring_up(&wanted).await {
                host.stop().await;
                return Err(HostError::SystemSubcluster { name: wanted.name, reason });
            }
        }
        Ok(host)
    }

    /// Launches a system subcluster unless it was restored.
    async fn bring_up(&self, wanted: &SystemSubcluster) -> Result<(), String> {
        let name = wanted.name.clone();
        match self.system_root(&name).await {
            Err(Refusal::SystemSubclusterNotFound(_)) => {}
            found => return found.map(drop).map_err(|refusal| outcome::reason(&refusal)),
        }
        tracing::info!(%name, "launching a system subcluster");
        let load = wanted.load.clone();
        let config =
            tokio::task::spawn_blocking(move || load()).await.map_err(|error| error.to_string())??;
        let launched = self.request(HostOp::LaunchSystem { name, config }).await;
        launched.map(drop).map_err(|refusal| outcome::reason(&refusal))
    }

    /// The root object of a system subcluster.
    pub async fn system_root(&self, name: &str) -> Result<ObjectId, Refusal> {
        self.request(HostOp::SystemRoot(name.into())).await.and_then(outcome::root)
    }

    /// Forgets everything but the identity and goes on as a new incarnation (02 §14): vats, references, URLs, remotes.
    /// Whoever waits is refused. System subclusters come back with the next start.
    pub async fn reset(&self) -> Result<(), Refusal> {
        let life = chance::life().map_err(no_chance)?;
        self.request(HostOp::Reset { life }).await.and_then(outcome::done)
    }

    /// The kernel's public name.
    pub fn peer(&self) -> &PeerId {
        &self.inner.peer
    }

    /// Where everything is kept.
    pub fn home(&self) -> &Path {
        &self.inner.home
    }

    /// The present life; a new one begins when a peer shows that our state went back in time.
    pub fn incarnation(&self) -> Incarnation {
        self.inner.life.borrow().clone()
    }

    /// Whether there is a network at all.
    pub fn has_network(&self) -> bool {
        self.inner.network.is_some()
    }

    /// Confirmed listen addresses, each ending in `/p2p/…`, most useful first.
    pub fn listen(&self) -> Vec<Hint> {
        self.inner.listen.borrow().clone()
    }

    /// Asks the kernel and waits for its answer, which is durable. Dropping the future abandons the request: nobody
    /// is told, what it began goes on.
    pub async fn request(&self, op: HostOp) -> Result<Answer, Refusal> {
        let queued = self.inner.queue.clone().acquire_owned().await.map_err(|_| self.gone())?;
        self.ask(op, Some(queued)).await
    }

    async fn ask(&self, op: HostOp, queued: Option<OwnedSemaphorePermit>) -> Result<Answer, Refusal> {
        let request = RequestId(self.inner.next_request.fetch_add(1, Ordering::Relaxed));
        let (waiter, answer) = oneshot::channel();
        let post = Post::Request { request, op: Box::new(op), waiter, queued };
        self.inner.inbox.send(post).map_err(|_| self.gone())?;
        let mut abandon = Abandon { request, inbox: Some(&self.inner.inbox) };
        let answer = answer.await;
        abandon.inbox = None;
        answer.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Why nothing is answered any more.
    fn gone(&self) -> Refusal {
        Refusal::Internal(match &*self.inner.phase.borrow() {
            Phase::Failed(fault) => fault.to_string(),
            Phase::Running | Phase::Stopped => STOPPING.to_owned(),
        })
    }

    /// Calls an object or promise and waits for the settlement. `methargs`: smallcaps of `[method, args]`.
    pub async fn send(&self, target: KRef, methargs: CapData<KRef>) -> Result<Settled, Refusal> {
        self.request(HostOp::Send { target, methargs }).await.and_then(outcome::settled)
    }

    /// Waits until a promise is settled.
    pub async fn settlement(&self, promise: PromiseId) -> Result<Settled, Refusal> {
        self.request(HostOp::Await(promise)).await.and_then(outcome::settled)
    }

    /// Launches a subcluster, all or nothing.
    pub async fn launch(&self, config: LaunchConfig) -> Result<Launched, Refusal> {
        self.request(HostOp::Launch(config)).await.and_then(outcome::launched)
    }

    /// Issues an `ocap:` URL for an object. Its hints, three unless told otherwise, are our own confirmed addresses, and a
    /// relay where we know one.
    pub async fn issue_url(&self, object: ObjectId) -> Result<String, Refusal> {
        let secret = chance::bytes().map_err(no_chance)?;
        let hints = self.request(HostOp::IssueUrl { object, secret }).await.and_then(outcome::granted)?;
        Ok(OcapUrl { oid: oid_from_secret(&secret), host: self.peer().clone(), hints }.to_string())
    }

    /// The words that the identity can be made from again (03 A.2), the one time that they are asked for: then they are
    /// deleted here. `None`: they were told already, or the identity was not made from words.
    pub async fn take_phrase(&self) -> Result<Option<Phrase>, Refusal> {
        self.request(HostOp::TakePhrase).await.and_then(outcome::phrase)
    }

    /// Redeems an `ocap:` URL, ours or a peer's; without a network, ours only (03 A-18).
    pub async fn redeem_url(&self, url: &str) -> Result<ObjectId, Refusal> {
        let parsed: Result<OcapUrl, _> = url.parse();
        if parsed.is_ok_and(|url| url.host != *self.peer()) && !self.has_network() {
            return Err(Refusal::PeerUnreachable(NO_COMMS.to_owned()));
        }
        let reply_key = chance::key().map_err(no_chance)?.into();
        let op = HostOp::RedeemUrl { url: url.to_owned(), reply_key };
        self.request(op).await.and_then(outcome::redeemed)
    }

    /// Registers a kernel service: code that vats launched from now on may ask for by its name. `system_only`: only
    /// those of system subclusters. Its object is the same one after a restart. To be called on a tokio runtime.
    ///
    /// Messages that an earlier run left for the service were refused before this is called; give a service to the start
    /// (`HostConfig::services`) where that matters.
    pub async fn register_service(
        &self,
        name: &str,
        system_only: bool,
        service: impl Service,
    ) -> Result<ObjectId, Refusal> {
        self.register(name, system_only, None, Arc::new(service)).await
    }

    /// Registers a service that passes its calls on to an object, which it keeps alive.
    pub(crate) async fn register_forwarder(&self, name: &str, object: ObjectId) -> Result<ObjectId, Refusal> {
        self.register(name, false, Some(object), Arc::new(Forwarder(object))).await
    }

    async fn register(
        &self,
        name: &str,
        system_only: bool,
        holds: Option<ObjectId>,
        server: Arc<dyn Server>,
    ) -> Result<ObjectId, Refusal> {
        let name: Arc<str> = name.into();
        let services = &self.inner.services;
        let desk = services.add(&name, server).ok_or_else(|| Refusal::ServiceRegistered(name.clone()))?;
        let asked = HostOp::RegisterService { name: name.clone(), system_only, holds };
        let registered = self.request(asked).await.and_then(outcome::object);
        match registered {
            Ok(_) => self.open(desk),
            Err(_) => services.remove(&name),
        }
        registered
    }

    /// Forgets a kernel service and its object; does nothing if there is none. Calls in progress are still answered.
    pub async fn unregister_service(&self, name: &str) -> Result<(), Refusal> {
        self.request(HostOp::UnregisterService { name: name.into() }).await?;
        self.inner.services.remove(name);
        Ok(())
    }

    fn open(&self, desk: Desk) {
        let inner = &self.inner;
        desk.open(Arc::downgrade(inner), inner.inbox.clone(), inner.phase.clone());
    }

    /// Runs one read-only SQL statement over the store, with limits on rows and time. It sees what is durable.
    pub async fn query(&self, sql: &str) -> Result<Vec<Record>, QueryError> {
        let (home, sql) = (self.inner.home.clone(), sql.to_owned());
        let rows = tokio::task::spawn_blocking(move || home::query(&home, &sql)).await;
        rows.map_err(|error| QueryError::Failed(error.to_string()))?
    }

    /// Checks every invariant of the state on disk, on a snapshot; the kernel goes on meanwhile.
    pub async fn fsck(&self) -> Result<FsckReport, HostError> {
        let home = self.inner.home.clone();
        start::blocking(move || home::fsck_snapshot(&home)).await
    }

    /// Writes a consistent copy of the store, identity included, to a new file of mode 0600.
    pub async fn backup(&self, to: &Path) -> Result<Backup, HostError> {
        let (home, to) = (self.inner.home.clone(), to.to_owned());
        start::blocking(move || home::backup(&home, &to)).await
    }

    /// Waits until the host has ended by itself; for ever if it runs on or is stopped.
    pub async fn fault(&self) -> HostFault {
        let mut phase = self.inner.phase.clone();
        loop {
            if let Phase::Failed(fault) = &*phase.borrow_and_update() {
                return fault.clone();
            }
            if phase.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Stops in order (03 B-52): no new requests, what is queued is done, links are closed, waiting requests are
    /// refused, vats ended, the store flushed and unlocked. Idempotent.
    pub async fn stop(&self) {
        let stop = async || {
            let inner = &self.inner;
            inner.queue.close();
            // A failed loop answers at once; then only its thread is waited for.
            let _ = tokio::time::timeout(PREPARE_MAX, self.ask(HostOp::PrepareStop, None)).await;
            if let Some(network) = &inner.network {
                network.stop().await;
            }
            let _ = inner.inbox.send(Post::Stop);
            let mut phase = inner.phase.clone();
            let _ = phase.wait_for(|phase| !matches!(phase, Phase::Running)).await;
        };
        self.inner.stopped.get_or_init(stop).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.inbox.send(Post::Stop);
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Host").field("home", &self.inner.home).field("peer", &self.inner.peer).finish()
    }
}

/// Tells the loop, when dropped before the answer has come, that nobody waits any more.
struct Abandon<'a> {
    request: RequestId,
    inbox: Option<&'a Sender<Post>>,
}

impl Drop for Abandon<'_> {
    fn drop(&mut self) {
        if let Some(inbox) = self.inbox {
            let _ = inbox.send(Post::Abandoned(self.request));
        }
    }
}

/// What a redemption at a peer is told where there is no network.
const NO_COMMS: &str = "Remote comms not initialized";

fn no_chance(error: getrandom::Error) -> Refusal {
    Refusal::Internal(format!("no randomness: {error}"))
}
